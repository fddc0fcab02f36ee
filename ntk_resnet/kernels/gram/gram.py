"""Gram matrices of any size: in memory, on the device, or in a store on disk."""

import functools
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from ntk_resnet._precision import keep_precision, precision_of
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.kernels.gram import tile_store
from ntk_resnet.kernels.gram.make_plan import make_plan
from ntk_resnet.kernels.gram.plan import Plan
from ntk_resnet.kernels.gram.stored import StoredGram, open_gram
from ntk_resnet.specification.base import Specification

_BOUNDARY = 64  # bytes, at multiples of which JAX wants arrays on a CPU to begin


def gram(
    spec: Specification,
    x: Num[ArrayLike, "n1 ..."],
    x2: Num[ArrayLike, "n2 ..."] | None = None,
    get: str = "ntk",
    *,
    normalised: bool = True,
    engine: str = "auto",
    products: str = "split",
    store: str | os.PathLike | None = None,
    tile: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Progress = quiet,
) -> Float[np.ndarray, "n1 n2"] | Float[Array, "n1 n2"] | StoredGram:
    r"""The kernel matrix of a data set, in tiles.

    Args:
        spec: the network.
        x: inputs of the rows, `(n1, d)`, or images `(n1, H, W, C)`.
        x2: inputs of the columns, likewise; `None` means `x`: half the work, and an
            exactly symmetric matrix with an exact diagonal.
        get: `"ntk"`, `"nngp"`, or `"ntk_gap"`, `"nngp_gap"`: one minus the normalised
            kernel, accurate relative to itself.
        normalised: divide the kernel by its diagonals; else it is raw, in
            neural-tangents' normalisation.
        engine: `"profile"`, `"recursion"`, `"convolution"` (of images) or
            `"neural_tangents"`, as in `kernel_fn`; or `"auto"`: the profile wherever
            one serves these inputs, else the recursion, of images the convolution.
        products: `"split"`, gaps of the inputs that are exact to a few eps at any
            angle; `"plain"`, one product of the unit rows, at half the price: the gap
            then has an absolute error of a few eps, and near-duplicates are not told
            from duplicates. The recursion knows only the first.
        store: a folder to write the matrix to, tile by tile. If it holds tiles of the
            same matrix already, only missing and damaged ones are computed, with
            bit-identical results. With `jax.distributed`, all processes call with the
            same arguments and fill the store together.
        tile: side of a tile; chosen from the device's memory and the size by default,
            or that of the store.
        devices: of this process; all of the default kind by default.
        progress: called as `progress(done, total, text)` before the first tile and
            after each; the text says how large tiles are and about how much memory
            each takes.

    Returns:
        The matrix `(n1, n2)` in the precision of the inputs: a `jax.Array` on its
        device if that is one accelerator of whose memory it takes less than half (and
        unless it is float64 while JAX's x64 mode is off, when the next operation would
        make it float32), else a NumPy array; with `store`, an object that reads it from
        disk as it is indexed (`open_gram`).

    Raises:
        ValueError: bad inputs, named in the text; entries beyond the dtype's range; a
            store of another matrix (each difference is named).
        OSError: the disk is full; what is written is kept, and the same call goes on.

    Accuracy: normalised entries and gaps as in `kernel_fn`: gaps to 1e-11 in float64
    and 2e-5 in float32, at angles down to 1e-7 as far as the rounded inputs determine
    them (`tests/kernels/gram/test_gram.py`); between images gaps are computed in
    float64 and have the values' absolute error. Memory: the matrix, if it is not
    stored, four copies of the data (eight for a moment), and about twelve tiles for
    each device; for images what `kernel_fn` says, of a tile's pairs and images, for
    each device. The default tile keeps all that within a sixteenth of the device's
    memory, and a plane on a CPU within 2^16 numbers (`tests/kernels/gram/test_gram.py`,
    `tests/kernels/convolution/test_image_tiles.py`).
    """
    how = get, normalised, engine, products, tile, devices, store
    plan = make_plan(spec, x, x2, *how)
    if store is not None:
        return fill(plan, store, progress)
    if jax.process_count() > 1:
        raise ValueError(
            "store is None, but there are several processes; name a folder that all of "
            "them can write to."
        )
    return in_memory(plan, progress)[0]


def in_memory(
    plan: Plan, progress: Progress = quiet, *, checked: bool = True
) -> tuple[Any, ...]:
    """The matrix of each quantity, on the plan's device if `gram` leaves it there."""
    if plan.fits_its_device():
        matrices = _on_device(plan, progress)
        if checked:
            plan.check(matrices)
        return matrices
    pairs = plan.tiling.pairs()
    _say(progress, plan, 0, len(pairs))
    shape = plan.tiling.rows, plan.tiling.columns
    matrices = tuple(_empty(shape, plan.dtype) for _ in plan.engine.get)
    for done, (i, j, tile) in enumerate(plan.tiles(pairs, checked=checked), start=1):
        rows, columns = plan.tiling.slices(i, j)
        for matrix, values in zip(matrices, tile, strict=True):
            matrix[rows, columns] = values
            if plan.tiling.symmetric and i != j:
                # In one order, then in the other: NumPy is slow at both in one.
                matrix[columns, rows] = np.ascontiguousarray(values.T)
        _say(progress, plan, done, len(pairs))
    return matrices


def _empty(shape, dtype):
    """An array that JAX can take over without a copy."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _BOUNDARY, np.uint8)
    begin = -memory.ctypes.data % _BOUNDARY
    return memory[begin : begin + size].view(dtype).reshape(shape)


def _say(progress, plan, done, total):
    if total > 0:  # of several processes some have no tile
        progress(done, total, plan.progress_text)


def _on_device(plan, progress):
    """The matrices in the memory of the one device that computes them."""
    pairs = plan.tiling.pairs()
    _say(progress, plan, 0, len(pairs))
    with precision_of(plan.rows[0].x):
        shape = plan.tiling.rows, plan.tiling.columns
        matrices = tuple(jnp.zeros(shape, plan.dtype) for _ in plan.engine.get)
        coarse = []
        for done, pair in enumerate(pairs, start=1):
            tile = plan.start([[pair]])
            matrices = _put(matrices, tile.values, *_place(plan.tiling, pair))
            coarse.append(tile.coarse)
            _say(progress, plan, done, len(pairs))
        for index in np.flatnonzero(jnp.concatenate(coarse)):
            tile = plan.start([[pairs[index]]], refine=True)
            matrices = _put(matrices, tile.values, *_place(plan.tiling, pairs[index]))
    return tuple(map(keep_precision, matrices))


def _place(tiling, pair):
    return *tiling.corner(*pair), tiling.symmetric


@functools.partial(jax.jit, static_argnames="mirror", donate_argnames="matrices")
def _put(matrices, tiles, row, column, mirror):
    put = jax.lax.dynamic_update_slice
    tiles = [tile[0, 0] for tile in tiles]
    if mirror:
        matrices = [
            put(m, t.T, (column, row)) for m, t in zip(matrices, tiles, strict=True)
        ]
    both = zip(matrices, tiles, strict=True)
    return tuple(put(matrix, tile, (row, column)) for matrix, tile in both)


def fill(plan: Plan, path: str | os.PathLike, progress: Progress = quiet) -> StoredGram:
    """The store, completed by all processes together; see `gram`."""
    path = pathlib.Path(path)
    store = tile_store.open_store(path, plan.tiling, plan.dtype, plan.identity())
    try:
        _write_share(plan, store, progress)
    except Exception:
        _all_done(False)
        raise
    if not _all_done(True):
        raise OSError(
            f"another process could not make its tiles of {str(path)!r}; see what it "
            "says, and run the same call again in all of them to go on."
        )
    if jax.process_index() == 0:
        store.finish()
    return open_gram(path)


def _write_share(plan, store, progress):
    """Writes those tiles of this process's share that the store lacks."""
    share = plan.tiling.pairs()[jax.process_index() :: jax.process_count()]
    missing = store.missing(share)
    done = len(share) - len(missing)
    _say(progress, plan, done, len(share))
    for i, j, (values,) in plan.tiles(missing):
        store.write(i, j, values)
        done += 1
        _say(progress, plan, done, len(share))


def _all_done(done):
    """Waits for all processes; whether each of them is done."""
    if jax.process_count() == 1:
        return done
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(done)).all())
