"""Gram matrices of any size: tiles, on one device or all, in memory or on disk.

A matrix is cut into square tiles, of a symmetric one those on and above the diagonal.
One compiled program makes a tile from the rows of the data; it is the same for any
number of devices, which take the tiles in turn, and so are the results, to the last
bit. What it costs beside the matrix is a few tiles a device and four copies of the
data.
"""

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike, Float, Int, Num

from ntk_resnet._checks import check_choice, check_count
from ntk_resnet.architectures import Architecture, check_network
from ntk_resnet.kernels import _identity, _tile_store, recursion
from ntk_resnet.kernels._inputs import check_inputs, is_traced, precision_of
from ntk_resnet.kernels._tile_store import Tiling
from ntk_resnet.kernels.entries import PRODUCTS, Entries, Rows, block, prepare
from ntk_resnet.kernels.pairs import QUANTITIES
from ntk_resnet.kernels.profile import common_norm, has_profile, profile
from ntk_resnet.kernels.stored import StoredGram, open_gram

Progress = Callable[[int, int, str], Any]

_ENGINES = ("auto", "profile", "recursion")
_AHEAD = 2  # rounds of tiles under way while one is put in its place


def gram(
    spec: Architecture,
    x: Num[ArrayLike, "n1 d"],
    x2: Num[ArrayLike, "n2 d"] | None = None,
    get: str = "ntk",
    *,
    normalised: bool = True,
    engine: str = "auto",
    products: str = "split",
    store: str | os.PathLike | None = None,
    tile: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Progress | None = None,
) -> Float[np.ndarray, "n1 n2"] | Float[Array, "n1 n2"] | StoredGram:
    r"""The kernel matrix of a data set, in tiles.

    Args:
        spec: the network.
        x: inputs of the rows, `(n1, d)`.
        x2: inputs of the columns, `(n2, d)`; `None` means `x`: half the work, and an
            exactly symmetric matrix with an exact diagonal.
        get: `"ntk"`, `"nngp"`, or `"ntk_gap"`, `"nngp_gap"`: one minus the normalised
            kernel, accurate relative to itself.
        normalised: divide the kernel by its diagonals; else it is raw, in
            neural-tangents' normalisation.
        engine: `"profile"`, `"recursion"`, or `"auto"`, as in `kernel_fn`.
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
        progress: called as `progress(done, total, text)` after each round of tiles.

    Returns:
        The matrix `(n1, n2)` in the precision of the inputs: a `jax.Array` on its
        device if that is one accelerator of whose memory it takes less than half, else
        a NumPy array; with `store`, an object that reads it from disk as it is indexed
        (`open_gram`).

    Raises:
        ValueError: bad inputs, named in the text; entries beyond the dtype's range; a
            store of another matrix (each difference is named).
        OSError: the disk is full; what is written is kept, and the same call goes on.

    Accuracy: normalised entries and gaps as in `kernel_fn`: gaps to 1e-11 in float64
    and 2e-5 in float32, at angles down to 1e-7 as far as the rounded inputs determine
    them (`tests/test_gram.py`). Memory: the matrix, if it is not stored, four copies
    of the data, and about eight tiles for each device.
    """
    plan = make_plan(
        spec, x, x2, get, normalised, engine, products, tile, devices, store
    )
    if store is not None:
        return _fill(plan, store, progress)
    if jax.process_count() > 1:
        raise ValueError(
            "store is None, but there are several processes; name a folder that all of "
            "them can write to."
        )
    if plan.fits_its_device():
        return _on_device(plan, progress)
    pairs = plan.tiling.pairs()
    matrix = np.empty((plan.tiling.rows, plan.tiling.columns), plan.dtype)
    for done, (i, j, values) in enumerate(plan.tiles(pairs), start=1):
        rows, columns = plan.tiling.slices(i, j)
        matrix[rows, columns] = values
        if plan.tiling.symmetric and i != j:
            # In one order, then in the other: NumPy is slow at both in one.
            matrix[columns, rows] = np.ascontiguousarray(values.T)
        if progress is not None:
            progress(done, len(pairs), "tiles")
    return matrix


def _on_device(plan, progress):
    """The matrix in the memory of the one device that computes it."""
    pairs = plan.tiling.pairs()
    with precision_of(plan.rows[0].x):
        matrix = jnp.zeros((plan.tiling.rows, plan.tiling.columns), plan.dtype)
        for done, pair in enumerate(pairs, start=1):
            corner, mirror = plan.corner(*pair), plan.tiling.symmetric
            matrix = _put(matrix, plan.start([pair]), *corner, mirror)
            if progress is not None:
                progress(done, len(pairs), "tiles")
        _check_finite(matrix, plan.entries, plan.spec)
    return matrix


@functools.partial(jax.jit, static_argnames="mirror", donate_argnames="matrix")
def _put(matrix, tiles, row, column, mirror):
    tile = tiles[0]
    if mirror:
        matrix = jax.lax.dynamic_update_slice(matrix, tile.T, (column, row))
    return jax.lax.dynamic_update_slice(matrix, tile, (row, column))


def _fill(plan, path, progress):
    """Writes the tiles that the store lacks, those of this process's share."""
    path = pathlib.Path(path)
    store = _tile_store.open_store(path, plan.tiling, plan.dtype, plan.identity())
    share = plan.tiling.pairs()[jax.process_index() :: jax.process_count()]
    missing = store.missing(share)
    done = len(share) - len(missing)
    for i, j, values in plan.tiles(missing):
        store.write(i, j, values)
        done += 1
        if progress is not None:
            progress(done, len(share), "tiles")
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(f"ntk_resnet.gram {path}")
    if jax.process_index() == 0:
        store.finish()
    return open_gram(path)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("data", "rows"),
    meta_fields=("spec", "entries", "tiling", "mesh"),
)
@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is needed to make any tile."""

    spec: Architecture
    entries: Entries
    data: Any  # what depends on the depth, see `entries.block`
    rows: tuple[Rows, ...]  # of one array, or of two
    tiling: Tiling
    mesh: Mesh

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.rows[0].x.dtype)

    def identity(self) -> dict[str, str | int | float]:
        """What decides the matrix, for a store."""
        return _identity.identity_of(
            self.spec,
            *(rows.x for rows in self.rows),
            get=self.entries.get,
            normalised=int(self.entries.normalised),
            engine="recursion" if self.entries.powers is None else "profile",
            products=self.entries.products,
            platform=self.mesh.devices.flat[0].platform,
        )

    def tiles(
        self, pairs: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Each of the tiles, in order, as `(i, j, values)`.

        Raises:
            ValueError: an entry is not a finite number.
        """
        count = self.mesh.size
        rounds = (pairs[k : k + count] for k in range(0, len(pairs), count))
        under_way: collections.deque = collections.deque()
        for some in rounds:
            under_way.append((some, self.start(some)))
            if len(under_way) > _AHEAD:
                yield from self._finished(*under_way.popleft())
        while under_way:
            yield from self._finished(*under_way.popleft())

    def fits_its_device(self) -> bool:
        """Whether one accelerator computes it and has room for it twice."""
        device = self.mesh.devices.flat[0]
        size = self.tiling.rows * self.tiling.columns * self.dtype.itemsize
        accelerator = self.mesh.size == 1 and device.platform != "cpu"
        return accelerator and 2 * size < _memory_of(device)

    def start(self, pairs: Sequence[tuple[int, int]]) -> jax.Array:
        """Starts on as many tiles as there are devices, or fewer; one a device."""
        corners = [self.corner(*pair) for pair in pairs]
        corners += corners[-1:] * (self.mesh.size - len(pairs))
        program = _program(
            self.mesh, self.entries, self.tile_shape, self.tiling.symmetric
        )
        with precision_of(self.rows[0].x):
            return program(self.data, self.rows, np.array(corners, np.int32))

    def _finished(self, pairs, result):
        shards = sorted(
            result.addressable_shards, key=lambda shard: shard.index[0].start or 0
        )
        for (i, j), shard in zip(pairs, shards, strict=False):
            height, width = self.tiling.shape(i, j)
            values = np.asarray(shard.data)[0, -height:, -width:]
            _check_finite(values, self.entries, self.spec)
            yield i, j, values

    @property
    def tile_shape(self) -> tuple[int, int]:
        """That of all computed blocks; those at the far edges overlap others."""
        side = self.tiling.tile
        return min(side, self.tiling.rows), min(side, self.tiling.columns)

    def corner(self, i: int, j: int) -> tuple[int, int]:
        """Where the block that holds tile (i, j) in its far corner begins."""
        height, width = self.tile_shape
        rows, columns = self.tiling.slices(i, j)
        return rows.stop - height if i else 0, columns.stop - width if j else 0


def _check_finite(values, entries, spec):
    # A sum is cheaper; it can overflow where no entry does.
    if np.isfinite(values.sum()) or np.isfinite(values).all():
        return
    if np.isnan(values).any() or entries.normalised:
        raise ValueError(
            f"the {entries.get} of {spec!r} is not a number for some of these inputs: "
            "they or the scales are beyond the range of the dtype, of the activation's "
            "quadrature, or nothing is trained."
        )
    raise ValueError(
        f"the raw {entries.get} is beyond the range of {values.dtype}; ask for "
        "normalised=True, or take nr.diag(..., log=True)."
    )


@functools.lru_cache(maxsize=32)
def _program(mesh, entries, shape, symmetric):
    """Compiled: one tile for each device, from the rows and the tiles' corners."""

    def one(data, rows, corner):
        return tile_at(entries, shape, symmetric, data, rows, *corner[0])[None]

    split, whole = PartitionSpec("tile"), PartitionSpec()
    return jax.jit(
        jax.shard_map(
            one,
            mesh=mesh,
            in_specs=(whole, whole, split),
            out_specs=split,
            check_vma=False,
        )
    )


def tile_at(
    entries: Entries,
    shape: tuple[int, int],
    symmetric: bool,
    data: Any,
    rows: tuple[Rows, ...],
    begin1: Int[Array, ""],
    begin2: Int[Array, ""],
) -> Float[Array, "h w"]:
    """The block of that shape which begins at that row and column; traceable."""
    cut = jax.lax.dynamic_slice_in_dim
    first = jax.tree.map(lambda v: cut(v, begin1, shape[0]), rows[0])
    second = jax.tree.map(lambda v: cut(v, begin2, shape[1]), rows[-1])
    nowhere = jnp.asarray(sum(shape), begin1.dtype)
    shift = begin2 - begin1 if symmetric else nowhere
    return block(entries, data, first, second, shift)


# ----------------------------------------------------------------------------- the plan


def make_plan(
    spec, x, x2, get, normalised, engine, products, tile, devices, store=None
) -> Plan:
    """Checks all arguments of `gram` and prepares the data."""
    check_network(spec)
    check_choice("get", get, QUANTITIES)
    check_choice("engine", engine, _ENGINES)
    check_choice("products", products, PRODUCTS)
    if not isinstance(normalised, bool):
        raise ValueError(f"normalised must be True or False, got {normalised!r}.")
    inputs = _check_data(spec, x, x2)
    mesh = _mesh(devices)
    if engine == "auto":
        engine = "profile" if has_profile(spec) else "recursion"
    dtype = np.result_type(*(np.dtype(v.dtype) for v in inputs))
    with precision_of(*inputs):
        whole = NamedSharding(mesh, PartitionSpec())
        arrays = [jnp.asarray(v, dtype) for v in inputs]
        rows = tuple(prepare(v, spec.bias_variance) for v in arrays)
        if engine == "profile":
            kernel = get.removesuffix("_gap")
            found = profile(spec, input_kernel=common_norm(spec, *arrays))
            shape, powers = None, getattr(found.powers, kernel)
            log_diagonal = np.asarray(found.log_diagonal(kernel), dtype)
            data: Any = (found.table(kernel, dtype), log_diagonal)
        else:
            shape, powers = recursion.shape_of(spec), None
            data = recursion.block_scales(spec).astype(dtype)
        data, rows = jax.device_put((data, rows), whole)
    entries = Entries(shape, get, normalised, products, powers)
    side = _tile_side(tile, store, inputs, dtype, mesh)
    tiling = Tiling(len(inputs[0]), len(inputs[-1]), side, symmetric=x2 is None)
    return Plan(spec, entries, data, rows, tiling, mesh)


def _check_data(spec, x, x2):
    zero_rows = spec.bias_variance > 0
    inputs = [check_inputs("x", x, zero_rows=zero_rows)]
    if x2 is not None:
        inputs.append(check_inputs("x2", x2, zero_rows=zero_rows))
        if inputs[0].shape[1] != inputs[1].shape[1]:
            raise ValueError(
                f"x has rows of length {inputs[0].shape[1]} and x2 of length "
                f"{inputs[1].shape[1]}; they must agree."
            )
    if is_traced(inputs):
        raise ValueError(
            "x is traced: gram distributes its work itself and is not for use inside "
            "jit, vmap or grad; use kernel_fn there."
        )
    return tuple(inputs)


def _mesh(devices):
    devices = jax.local_devices() if devices is None else list(devices)
    local = [d for d in devices if isinstance(d, jax.Device)]
    local = [d for d in local if d.process_index == jax.process_index()]
    if not devices or len(set(local)) < len(devices):
        raise ValueError(
            f"devices must be some of jax.local_devices(), each once, got {devices!r}."
        )
    if len({d.platform for d in devices}) > 1:
        raise ValueError(f"devices must be of one kind, got {devices!r}.")
    return Mesh(np.array(devices), ("tile",))


def _tile_side(tile, store, inputs, dtype, mesh):
    if tile is not None:
        return check_count("tile", tile)
    if store is not None:
        try:
            return _tile_store.read_attributes(pathlib.Path(store))["identity"]["tile"]
        except (FileNotFoundError, ValueError):  # what is wrong there is said later
            pass
    n = max(len(v) for v in inputs)
    device = mesh.devices.flat[0]
    fits = int(np.sqrt(_memory_of(device) / (32 * dtype.itemsize)))
    # Sixteen tiles a side, so that symmetry spares nearly half of them, but not tiny
    # ones, nor millions; on a CPU of a size for its caches.
    least, usual, most = (
        (125, 500, 2000) if device.platform == "cpu" else (1024, 4096, 8192)
    )
    side = max(min(max(least, -(-n // 16)), usual), min(n // 200, most))
    # Rows of a tile a power of two apart would compete for the same cache lines.
    side -= 4 * (side % 128 == 0 and device.platform == "cpu")
    return max(1, min(side, fits, n))


def _memory_of(device) -> int:
    """Bytes that a device may use; for a CPU what the machine has."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
