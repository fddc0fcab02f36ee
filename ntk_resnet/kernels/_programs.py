"""The compiled program for a tile, and how it is there when it is wanted."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from ntk_resnet.kernels._inputs import precision_of
from ntk_resnet.kernels._lookup import likely_table
from ntk_resnet.kernels._tiling import Tiling
from ntk_resnet.kernels.entries import Block, Entries, Rows, block
from ntk_resnet.kernels.images import ImageRows

_MOST = 2**22  # numbers in the data beyond which compiling is the lesser part


@functools.lru_cache(maxsize=32)
def program(
    mesh: Mesh, entries: Entries, shape: tuple[int, int], symmetric: bool, refine: bool
) -> Any:
    """Compiled: the tiles of each device, from the rows and corners `(devices, k, 2)`.

    Where k > 1 only those tiles are made that are `wanted`, `(devices, k)`; where k is
    1 a device with nothing to do makes the tile at its corner.
    """

    def one(data, rows, corners, wanted):
        def tile(corner):
            at = data, rows, *corner
            return tile_at(entries, shape, symmetric, *at, refine=refine)

        def nothing(corner):
            return Block(jnp.zeros(shape, rows[0].x.dtype), jnp.asarray(False))

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
    entries: Entries,
    shape: tuple[int, int],
    symmetric: bool,
    data: Any,
    rows: tuple[Rows | ImageRows, ...],
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
    return block(entries, data, first, second, shift, refine)


def everywhere_on(mesh: Mesh, tree: Any) -> Any:
    """The arrays as the program takes them."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


@functools.lru_cache(maxsize=32)
def _compiled_for(mesh, entries, shape, symmetric, sizes, dtype):
    """Runs the program once, on nothing: then it is compiled."""
    rows = tuple(_no_rows(size, dtype) for size in sizes)
    with precision_of(*jax.tree.leaves(rows)):
        data = likely_table(dtype), np.zeros((), dtype)
        given = everywhere_on(mesh, (data, rows))
        corners = np.zeros((mesh.size, 1, 2), np.int32)
        compiled = program(mesh, entries, shape, symmetric, False)
        jax.block_until_ready(compiled(*given, corners, np.ones((mesh.size, 1), bool)))


def compile_ahead(
    mesh: Mesh, tiling: Tiling, entries: Entries, sizes: list[Any], dtype: Any
) -> None:
    """Compiles the program for tiles of a profile that is not known yet.

    What it depends on is mostly as `entries` and `likely_table` say; where it is not,
    the program is compiled when it is wanted.
    """
    if sum(map(np.prod, sizes)) <= _MOST:
        at = tiling.block_shape, tiling.symmetric, tuple(sizes), np.dtype(dtype)
        _compiled_for(mesh, entries, *at)


def _no_rows(size, dtype):
    some: Any = np.zeros(size, dtype)
    return Rows(some, some, some, some, some[:, 0])
