r"""Closed forms of convolutional networks, one displacement between pixels at a time.

With stride 1 the kernel between pixels `i` and `i + d` of two images depends on that of
the same displacement `d` in the layer before alone. So a small plane, all pixels of
many pairs of images, runs through all blocks on its own, in cache, under one scan; the
readout adds the planes up. Steps of 2 map a displacement `d` to `2 d`: of the earlier
stages only every other displacement is needed, along both axes. Means over 2 x 2 pixels
mix neighbouring displacements, whose planes are kept between such stages.

For a symmetric block half of the displacements are enough: the plane of `-d` is that of
`d` with the images of each pair exchanged.

Sources: Arora et al. 2019 and Novak et al. 2019 (convolutional kernels).
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ntk_resnet.convolutional import Convolutional, ConvResNet
from ntk_resnet.kernels import _planes, recursion
from ntk_resnet.kernels._conv_blocks import (
    Images,
    Pending,
    Planes,
    convolve,
    through_images,
    through_pairs,
    windows_at,
)
from ntk_resnet.kernels._displacements import half_first, means_of, parts_of
from ntk_resnet.kernels._planes import Size


class Kept(NamedTuple):
    """What the blocks of a stage have given beside the carry."""

    alone: Any  # the block that takes steps of 2; `None`: there is none
    rest: Any  # all others, stacked


def _run(spec, part, d, scales, carry, run, seen=None):
    """`run(windows, carry, scale, seen)` for all blocks of a part, by scans.

    `d` is the displacement that enters. Returns the last carry, and for each stage what
    `run` gave beside it.
    """
    kept, begin = [], part.begin
    seen = [Kept(None, None)] * len(part.stages) if seen is None else seen
    for stage, blocks in enumerate(part.stages):
        own = scales[begin : begin + blocks]
        begin += blocks
        alone = None
        if stage > 0:
            steps = windows_at(spec, part.size_in(stage - 1), d, scales.dtype, stride=2)
            carry, alone = run(steps, carry, own[0], seen[stage].alone)
            own, d = own[1:], d // 2
        windows = windows_at(spec, part.size_in(stage), d, scales.dtype)
        carry, rest = jax.lax.scan(
            lambda carry, given: run(windows, carry, *given),  # noqa: B023
            carry,
            (own, seen[stage].rest),
        )
        kept.append(Kept(alone, rest))
    return carry, kept


# ---------------------------------------------------------------------- pairs of images


class Seeing(NamedTuple):
    """Images, and what pairs need to know of them; the last axis of all is images."""

    pixels: Float[Array, "pixels C n"]
    seen: list  # part by part, stage by stage: `Kept`, of `Seen`
    log_scale: Float[Array, " n"]  # ln of what kernels at the readout are to be times


class Pairs(NamedTuple):
    """Images in pairs, with what is known of each."""

    one: Seeing
    other: Seeing
    size: Size  # of all
    scales: Float[Array, " depth"]  # of all blocks; ones for a plain network
    own: Bool[Array, "..."]  # which pairs are an image with itself
    crossed: bool  # every one of x1 with every one of x2; else one by one

    def first(self, leaf: Array) -> Array:
        """What belongs to each of the first images, shaped for the pairs."""
        return leaf[..., None] if self.crossed else leaf

    def second(self, leaf: Array, size: Size, d: Any) -> Array:
        """What belongs to each of the second images, displaced.

        `d` is counted in images of that size, those of others go as far.
        """
        if leaf.ndim == 2:
            shrinks = math.isqrt(math.prod(size) // len(leaf))
            smaller = size[0] // shrinks, size[1] // shrinks
            leaf = _planes.displaced(leaf, smaller, d // shrinks)
        return leaf[..., None, :] if self.crossed else leaf


def _enter(spec, pairs, ntk, d) -> Planes:
    """The planes of a displacement before the first block."""
    shifted = _planes.displaced(pairs.other.pixels, pairs.size, d)
    product = "pcn,pcm->pnm" if pairs.crossed else "pcn,pcn->pn"
    nngp = jnp.einsum(product, pairs.one.pixels, shifted, precision="highest")
    nngp = nngp / shifted.shape[1]
    planes = Planes(nngp, jnp.zeros_like(nngp) if ntk else None)
    if isinstance(spec, ConvResNet):
        held, trained = pairs.scales[0] >= 0, spec.trained == "all"
        window = windows_at(spec, pairs.size, d, nngp.dtype).outer
        at = window, pairs.size, held
        convolved = convolve(spec, Pending(planes), *at, 1.0, trained=trained)
        return convolved.finish(convolved.planes)
    return planes


def _through(spec, pairs, part, number, planes, d, at_each=None):
    """The planes of a displacement after a part; what `at_each` makes of each block."""
    same = pairs.own & (d[0] == 0) & (d[1] == 0)
    distinct = jnp.where(same, 0, 1).astype(planes.nngp.dtype)
    stages = zip(pairs.one.seen[number], pairs.other.seen[number], strict=True)
    seen = [Kept(*zip(*stage, strict=True)) for stage in stages]

    def run(windows, planes, scale, seen):
        here = d * windows.size[0] // part.size_in(0)[0]
        first = jax.tree.map(pairs.first, seen[0])
        second = jax.tree.map(
            lambda leaf: pairs.second(leaf, windows.size, here), seen[1]
        )
        planes = through_pairs(spec, planes, scale, windows, first, second, distinct)
        return planes, None if at_each is None else at_each(planes)

    return _run(spec, part, d, pairs.scales, planes, run, seen)


def _means(spec, pairs, parts, number, fetch):
    """The planes that enter the next part, after the means over 2 x 2 pixels."""
    part, after = parts[number], parts[number + 1]
    places, weights = means_of(part.outputs, after.inputs, part.size)
    given = _combined(part.inputs), jnp.asarray(places), jnp.asarray(weights)

    def one_more(bank, given):
        d, targets, weights = given
        planes, _ = _through(spec, pairs, part, number, fetch(d), d)
        at = targets, weights.astype(planes.nngp.dtype)
        return jax.tree.map(
            lambda bank, plane: _planes.add_means(bank, plane, part.size, *at),
            bank,
            planes,
        ), None

    like = jax.eval_shape(lambda: fetch(jnp.zeros(2, int)))
    count = len(after.inputs[0]) * len(after.inputs[1])
    pixels = math.prod(part.size) // 4
    bank = jax.tree.map(
        lambda leaf: jnp.zeros((count, pixels, *leaf.shape[1:]), leaf.dtype), like
    )
    return jax.lax.scan(one_more, bank, given)[0]


def _combined(axes):
    return jnp.asarray(list(itertools.product(*axes)))


def _fetch_from(bank, inputs):
    """The planes of a displacement out of those that `_means` has made."""
    places = [np.zeros(1 + max(axis), int) for axis in inputs]
    for place, axis in zip(places, inputs, strict=True):
        place[axis] = np.arange(len(axis))
    rows, columns = map(jnp.asarray, places)

    def fetch(d):
        at = rows[d[0]] * len(inputs[1]) + columns[d[1]]
        return jax.tree.map(lambda planes: planes[at], bank)

    return fetch


# ------------------------------------------------------------------------ single images


def see(
    spec: Convolutional, x: Float[Array, "n H W C"], scales: Float[Array, " depth"]
) -> Seeing:
    """Single images through the network.

    Where it has no length scale, they are divided by their own first.
    """
    size = x.shape[1:3]
    x = _planes.as_rows(jnp.moveaxis(x, 0, -1))
    log_scale = jnp.zeros(x.shape[-1], x.dtype)
    if spec.homogeneous:
        largest = jnp.max(jnp.abs(x), axis=(0, 1))
        x = x / largest
        square = jnp.mean(x * x, axis=(0, 1))
        x = x / jnp.sqrt(square)
        log_scale = 2 * jnp.log(largest) + jnp.log(square)
    parts = parts_of(spec, *size, every=False)
    own, seen = jnp.asarray(True), list[Any]()
    so_far = Seeing(x, seen, log_scale)
    at_once = Pairs(so_far, so_far, size, scales, own, crossed=False)
    fetch: Callable = lambda d: _enter(spec, at_once, False, d)  # noqa: E731
    variance = fetch(jnp.zeros(2, int)).nngp
    carries_mean = isinstance(spec, ConvResNet) and spec.block == "postactivation"
    mean = jnp.zeros_like(variance) if carries_mean else None
    images = Images(variance, mean, log_scale)
    for number, part in enumerate(parts):

        def run(windows, images, scale, _):
            return through_images(spec, images, scale, windows)

        nowhere = np.zeros(2, int)
        images, kept = _run(spec, part, nowhere, scales, images, run)
        seen.append(kept)
        if number + 1 < len(parts):
            inputs = parts[number + 1].inputs
            bank = _means(spec, at_once, parts, number, fetch)
            fetch = _fetch_from(bank, inputs)
            images = Images(
                fetch(jnp.zeros(2, int)).nngp,
                None if images.mean is None else _mean_2x2(images.mean, part.size),
                images.log_scale,
            )
    return Seeing(x, seen, images.log_scale)


def _mean_2x2(image, size):
    height, width = (side // 2 for side in size)
    means = jnp.mean(image.reshape(height, 2, width, 2, -1), axis=(1, 3))
    return _planes.as_rows(means)


def see_both(
    spec: Convolutional,
    x1: Float[Array, "n1 H W C"],
    x2: Float[Array, "n2 H W C"],
    scales: Float[Array, " depth"],
) -> tuple[Seeing, Seeing, Seeing]:
    """Both arrays together, the first and the second; once, to compile half as much."""
    seeing = see(spec, jnp.concatenate([x1, x2]), scales)
    return seeing, *(
        jax.tree.map(lambda leaf: leaf[..., part], seeing)  # noqa: B023
        for part in (slice(len(x1)), slice(len(x1), None))
    )


# -------------------------------------------------------------------------- the kernels


class Kernel(NamedTuple):
    """Both kernels at the readout, `(n1, n2)` or `(n,)`, up to the images' scales."""

    nngp: Float[Array, "..."]
    ntk: Any  # the same; `None`: not wanted


def kernels(
    spec: Convolutional,
    pairs: Pairs,
    *,
    ntk: bool,
    half: Any = False,
    each: bool = False,
) -> Kernel:
    """The kernels of pairs of images.

    Args:
        spec: the network; its scales play no role.
        pairs: the images.
        ntk: whether the NTK is wanted beside the NNGP.
        half: whether the pairs are each image with every one, in the same order, or
            with itself, so that half of the displacements do; a traced value is not
            differentiable.
        each: the kernels of all networks that end after one of the blocks, as a first
            axis; of networks of one stage.
    """
    parts = parts_of(spec, *pairs.size, every=spec.readout == "pool")
    fetch: Callable = lambda d: _enter(spec, pairs, ntk, d)  # noqa: E731
    for number in range(len(parts) - 1):
        bank = _means(spec, pairs, parts, number, fetch)
        fetch = _fetch_from(bank, parts[number + 1].inputs)
    last = parts[-1]
    displacements, alone, pairwise = half_first(last)

    def sums(d):
        at_each = pixel_sums if each else None
        planes, kept = _through(spec, pairs, last, len(parts) - 1, fetch(d), d, at_each)
        return kept[0].rest if each else pixel_sums(planes)

    def pixel_sums(planes):
        # Row by row, not to lose digits.
        grids = [
            None if plane is None else _planes.as_grid(plane, last.size)
            for plane in planes
        ]
        return Kernel(*jax.tree.map(lambda g: jnp.sum(jnp.sum(g, 0), 0), grids))

    def one_more(k, totals):
        # Displacements that are their own opposites count once, the others twice.
        lone = jnp.asarray(k < alone, pairs.scales.dtype)
        return jax.tree.map(
            lambda value, total: recursion.add(
                total, jnp.stack([lone * value, (1 - lone) * value])
            ),
            sums(displacements[k]),
            totals,
        )

    start = jax.tree.map(
        lambda like: recursion.start(jnp.zeros((2, *like.shape), like.dtype)),
        jax.eval_shape(sums, displacements[0]),
    )
    some, whole = alone + pairwise, len(displacements)
    if isinstance(half, bool):
        count: Any = some if half else whole
    else:
        count = jnp.where(half, some, whole)
    totals = jax.lax.fori_loop(0, count, one_more, start)
    return _read_out(spec, totals, last.size, half, pairs.crossed)


def _read_out(spec, totals, size, half, crossed):
    pixels = size[0] * size[1]
    share = 1 / (pixels**2 if spec.readout == "pool" else pixels)

    def finished(total):
        once, twice = total.value
        square = crossed and twice.shape[-1] == twice.shape[-2]
        opposite = jnp.swapaxes(twice, -1, -2) if square else twice
        return share * (once + twice + jnp.where(half, opposite, 0))

    is_sum = lambda leaf: isinstance(leaf, recursion.Sum)  # noqa: E731
    found = jax.tree.map(finished, totals, is_leaf=is_sum)
    residual = isinstance(spec, ConvResNet)
    if found.ntk is not None and not (residual and spec.trained == "blocks"):
        return found._replace(ntk=found.ntk + found.nngp)  # the readout's gradient
    return found
