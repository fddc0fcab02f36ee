r"""Kernel matrices of images at many depths, in one pass where networks are prefixes.

Where the network of depth `l` is the first `l` blocks of a deeper one, one pass goes
through the deepest and keeps the kernels after each block. Else every depth is a pass
of its own, and short networks share a compilation.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ntk_resnet._precision import precision_of
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.kernels.convolution.kernel import (
    Kernel,
    image_statistics_of_both,
    kernels,
)
from ntk_resnet.kernels.convolution.memory import numbers_for_pairs
from ntk_resnet.kernels.convolution.stages import Pairs
from ntk_resnet.kernels.gram.tiling import begins, even_side
from ntk_resnet.specification.convolutional import Convolutional

# What one compiled call may hold, in numbers; and do (pairs, times blocks, pixels and
# displacements): some seconds on one core, after which progress shows.
_HELD, _DONE = 100_000_000 // 8, 2**29
# Images along a tile's side at least, below which overheads show.
_LEAST = 4
# Networks of fewer blocks than this are compiled as if they had as many.
_SHORT = 16


def matrices_at(
    spec: Convolutional, depths: list[int], x: Any, progress: Progress = quiet
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The kernels between images of a family of networks at each of `depths`.

    Args:
        spec: the family, of one stage; its own depth plays no role.
        depths: distinct, ascending.
        x: images `(n, H, W, C)`, float32 or float64.
        progress: called as `progress(done, total, text)` after each tile of a matrix.

    Yields:
        The index into `depths`, and the variables of `sweep_depth` there, in the dtype
        of `x`: symmetric `(n, n)` with an exact diagonal, and `(n,)`.

    Accuracy:
        All is computed in float64. Normalised kernels have errors of a few eps times
        the depth, and so have, absolutely, the gaps, which are one minus them
        (`tests/kernels/convolution/test_image_depths.py`).

    Memory:
        Two `(n, n)` matrices of float64 for each depth of a pass, and at most about
        100 MB for a tile, unless 16 pairs of images take more.
    """
    wide = np.asarray(x).astype(np.float64)
    jobs = _jobs(spec, depths)
    tiles = [_tiles(job, wide.shape) for job in jobs]
    work = [len(job.scales) * len(own) for job, own in zip(jobs, tiles, strict=True)]
    done = 0
    for job, own in zip(jobs, tiles, strict=True):
        raw = _Raw.empty(len(job.blocks), len(wide))
        for tile in own:
            raw.put(tile, *_computed(job, wide, tile))
            done += len(job.scales)
            progress(done, sum(work), f"depth {depths[job.indices[-1]]}")
        for place, index in enumerate(job.indices):
            values = raw.variables(place)
            yield index, {name: v.astype(x.dtype) for name, v in values.items()}


class _Job(NamedTuple):
    """One pass: a network, and after which of its blocks it is one of the family's."""

    spec: Convolutional
    scales: Float[np.ndarray, " depth"]
    blocks: list[int]  # counted from 0
    indices: list[int]  # into the depths


def _jobs(spec: Convolutional, depths: list[int]) -> list[_Job]:
    if spec.nested:
        deepest = spec.replace(depth=depths[-1])
        scales = np.asarray(deepest.scales, float)
        blocks = [depth - 1 for depth in depths]
        whole = deepest.without_scales
        return [_Job(whole, scales, blocks, list(range(len(depths))))]
    jobs = []
    for index, depth in enumerate(depths):
        length = max(depth, min(_SHORT, depths[-1]))
        scales = np.zeros(length)  # what comes after the last block is not looked at
        scales[:depth] = spec.replace(depth=depth).scales
        filled = spec.replace(depth=length).without_scales
        jobs.append(_Job(filled, scales, [depth - 1], [index]))
    return jobs


# ------------------------------------------------------------------------------- tiles


class _Tile(NamedTuple):
    """`side` consecutive images with as many, which begin at the same one or later."""

    row: int
    column: int
    side: int


def _tiles(job: _Job, shape: tuple[int, ...]) -> list[_Tile]:
    """The upper triangle in tiles of one side, so that one compilation serves all.

    The last ones overlap others where the side does not divide the number of images.
    """
    n, image, blocks = shape[0], shape[1:], len(job.scales)
    pixels = image[0] * image[1]
    displacements = pixels if job.spec.readout == "pool" else 1
    done = blocks * pixels * displacements
    side = min(n, max(_LEAST, math.isqrt(_DONE // done)))
    while side > _LEAST and _held(job, image, side) > _HELD:
        side -= 1
    side = even_side(n, side)
    pairs_of = itertools.combinations_with_replacement(begins(n, side), 2)
    return [_Tile(row, column, side) for row, column in pairs_of]


def _held(job, image, side):
    """Of the kernels after each block there are sums, and of these what they lost."""
    at_a_time = numbers_for_pairs(job.spec, image, (side, side))
    return at_a_time + 8 * len(job.scales) * side**2


def _computed(job: _Job, x: Float[np.ndarray, "n H W C"], tile: _Tile):
    """What `_between` gives for a tile, after the wanted blocks, as NumPy arrays."""
    rows, columns = (slice(at, at + tile.side) for at in (tile.row, tile.column))
    shift = np.asarray(tile.row - tile.column)
    with precision_of(x):
        every = _between(job.spec, x[rows], x[columns], job.scales, shift)
        return jax.tree.map(lambda values: np.asarray(values)[job.blocks], every)


@functools.partial(jax.jit, static_argnames="spec")
def _between(
    spec: Convolutional,
    x1: Float[Array, "n H W C"],
    x2: Float[Array, "n H W C"],
    scales: Float[Array, " depth"],
    shift: Int[Array, ""],
) -> tuple[Kernel, Float[Array, "depth n"]]:
    """The kernels `(depth, n, n)`, up to the images' scales, and ln of those of `x1`.

    Image `i` of `x1` is image `i + shift` of `x2`.
    """
    n = len(x1)
    _, first, second = image_statistics_of_both(spec, x1, x2, scales)
    index = jnp.arange(n)
    own = index[:, None] + shift == index
    pairs = Pairs(first, second, x1.shape[1:3], scales, own, crossed=True)
    found = kernels(spec, pairs, ntk=True, half=shift == 0, each=True)
    logs = jnp.broadcast_to(first.log_scale, (len(scales), n))
    ((stage,),) = first.by_block  # one part of one stage
    rescaling = stage.rest.rescaling
    if rescaling is not None:
        # What the blocks after each have taken away is given back.
        steps = 2 * jnp.log(rescaling)
        logs = logs + jnp.sum(steps, axis=0) - jnp.cumsum(steps, axis=0)
    return found, logs


class _Raw(NamedTuple):
    """Kernels up to the images' scales, of which tiles fill the upper triangle."""

    nngp: Float[np.ndarray, "wanted n n"]
    ntk: Float[np.ndarray, "wanted n n"]
    log_scale: Float[np.ndarray, "wanted n"]

    @classmethod
    def empty(cls, wanted: int, n: int) -> "_Raw":
        square = (wanted, n, n)
        return cls(np.empty(square), np.empty(square), np.empty((wanted, n)))

    def put(self, tile: _Tile, found: Kernel, log_scale: np.ndarray) -> None:
        rows = slice(tile.row, tile.row + tile.side)
        columns = slice(tile.column, tile.column + tile.side)
        self.nngp[:, rows, columns] = found.nngp
        self.ntk[:, rows, columns] = found.ntk
        self.log_scale[:, rows] = log_scale

    def variables(self, place: int) -> dict[str, np.ndarray]:
        """What `matrices_at` yields, of one depth."""
        values = {}
        for name in ("nngp", "ntk"):
            matrix = getattr(self, name)[place]
            own = np.diagonal(matrix)
            # Where nothing is trained the NTK is zero, and its normalised form NaN.
            with np.errstate(divide="ignore", invalid="ignore"):
                values[f"log_{name}_diag"] = np.log(own) + self.log_scale[place]
                size = np.sqrt(own)
                upper = np.triu(matrix / size[:, None] / size, 1)
            whole = upper + upper.T + np.diag(np.where(own > 0, 1.0, np.nan))
            values |= {name: whole, f"{name}_gap": 1 - whole}
        return values
