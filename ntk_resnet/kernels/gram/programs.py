"""The compiled programs for tiles of a matrix, and for whole matrices."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from ntk_resnet.kernels.engines import (
    Block,
    Engine,
    ReferenceEngine,
    choose,
    matrices_of_images,
)
from ntk_resnet.kernels.gram.tiling import Tiling, side_for_rows
from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.convolutional import Convolutional


@functools.lru_cache(maxsize=32)
def program(
    mesh: Mesh, engine: Engine, shape: tuple[int, int], symmetric: bool, refine: bool
) -> Any:
    """Compiled: the tiles of each device, from the rows and corners `(devices, k, 2)`.

    Where k > 1 only those tiles are made that are `wanted`, `(devices, k)`; where k is
    1 a device with nothing to do makes the tile at its corner.
    """

    def one(data, rows, corners, wanted):
        def tile(corner):
            at = data, rows, *corner
            return tile_at(engine, shape, symmetric, *at, refine=refine)

        def nothing(corner):
            none = jnp.zeros(shape, rows[0].x.dtype)
            return Block((none,) * len(engine.get), jnp.asarray(False))

        def if_wanted(given):
            return jax.lax.cond(given[0], tile, nothing, given[1])

        if wanted.shape[1] == 1:
            return jax.tree.map(lambda part: part[None, None], tile(corners[0, 0]))
        made = jax.lax.map(if_wanted, (wanted[0], corners[0]))
        return jax.tree.map(lambda part: part[None], made)

    split, whole = PartitionSpec("tile"), PartitionSpec()
    return jax.jit(
        jax.shard_map(
            one,
            mesh=mesh,
            in_specs=(whole, whole, split, split),
            out_specs=split,
            check_vma=False,
        )
    )


def tile_at(
    engine: Engine,
    shape: tuple[int, int],
    symmetric: bool,
    data: Any,
    rows: tuple[Any, ...],
    begin1: Int[Array, ""],
    begin2: Int[Array, ""],
    *,
    refine: bool = True,
) -> Block:
    """The block of that shape which begins at that row and column; traceable."""
    cut = jax.lax.dynamic_slice_in_dim
    first = jax.tree.map(lambda v: cut(v, begin1, shape[0]), rows[0])
    second = jax.tree.map(lambda v: cut(v, begin2, shape[1]), rows[-1])
    nowhere = jnp.asarray(sum(shape), begin1.dtype)
    shift = begin2 - begin1 if symmetric else nowhere
    return engine.block(data, first, second, shift, refine)


def own_part(
    tiling: Tiling, tile: Int[Array, "2"], begins: Int[Array, "2"]
) -> tuple[Bool[Array, " n1"], Bool[Array, " n2"]]:
    """Which rows and columns of the block that begins there belong to its tile.

    A block at the far edge begins earlier: what lies before is that of others.
    """
    own1, own2 = (
        begin + jnp.arange(length) >= start
        for begin, length, start in zip(
            begins, tiling.block_shape, tile * tiling.tile, strict=True
        )
    )
    return own1, own2


def everywhere_on(mesh: Mesh, tree: Any) -> Any:
    """The arrays as the program takes them."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


# ----------------------------------------------------------------------- whole matrices


def matrices(
    spec: Specification,
    get: tuple[str, ...],
    normalised: bool,
    engine: str,
    arrays: tuple[Any, ...],
    scales: Any = None,
) -> tuple[Float[Array, "n1 n2"], ...]:
    """Each of `get`, by one program, between all inputs; for `jit`, `vmap` and `grad`.

    The arguments are those of `engines.choose`.
    """
    if spec.takes_images and engine != "neural_tangents":
        images = cast(Convolutional, spec)
        return matrices_of_images(images, get, normalised, arrays, scales)
    found = choose(spec, get, normalised, engine, "split", arrays, scales)
    if isinstance(found.engine, ReferenceEngine):
        return _whole(*found)
    n = max(map(len, arrays))
    side = side_for_rows(n, np.dtype(arrays[0].dtype), jax.local_devices()[0])
    tiling = Tiling(len(arrays[0]), len(arrays[-1]), side, len(arrays) == 1)
    return _matrices(found.engine, tiling, found.data, found.rows)


def _whole(engine, data, rows):
    nowhere = sum(len(of.x) for of in rows)
    shift = 0 if len(rows) == 1 else nowhere
    return engine.block(data, rows[0], rows[-1], shift, True).values


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _in_tiles(engine, tiling, data, rows):
    """Tile by tile: half of a symmetric matrix, in the processor's caches."""
    work = tiling.pairs()
    if len(work) == 1:
        return _whole(engine, data, rows)
    shape = tiling.block_shape

    def one_more(matrices, tile):
        pair, corner = tile
        values = tile_at(engine, shape, tiling.symmetric, data, rows, *corner).values
        own1, own2 = own_part(tiling, pair, corner)
        own = own1[:, None] & own2
        matrices = _put(matrices, values, corner, own)
        if tiling.symmetric:
            turned = [value.T for value in values]
            matrices = _put(matrices, turned, corner[::-1], own.T)
        return matrices, None

    empty = jnp.empty((tiling.rows, tiling.columns), rows[0].coarse.dtype)
    corners = [tiling.corner(*pair) for pair in work]
    tiles = np.array(work, np.int32), np.array(corners, np.int32)
    return jax.lax.scan(one_more, (empty,) * len(engine.get), tiles)[0]


def _put(matrices, values, corner, own):
    def put(matrix, value):
        there = jax.lax.dynamic_slice(matrix, corner, value.shape)
        value = jnp.where(own, value, there)
        return jax.lax.dynamic_update_slice(matrix, value, corner)

    return tuple(map(put, matrices, values))


@_in_tiles.defjvp
def _(engine, tiling, primals, tangents):
    return jax.jvp(functools.partial(_whole, engine), primals, tangents)


_matrices = jax.jit(_in_tiles, static_argnums=(0, 1))
