"""What a Gram matrix is made of: the plan of its tiles, and the program for one.

One compiled program makes a tile from the rows of the data; it is the same for any
number of devices, which take the tiles in turn, and so are the results, to the last
bit.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ntk_resnet._checks import check_choice, check_count
from ntk_resnet.architectures import Architecture, check_network
from ntk_resnet.convolutional import Convolutional
from ntk_resnet.kernels import _identity, _tile_store, images, recursion
from ntk_resnet.kernels._inputs import check_pair, is_traced, precision_of
from ntk_resnet.kernels._programs import compile_ahead, everywhere_on, program
from ntk_resnet.kernels._tiling import (
    Tiling,
    bytes_per_pair,
    memory_of,
    side_for_images,
    side_for_rows,
)
from ntk_resnet.kernels.entries import (
    PRODUCTS,
    Block,
    Entries,
    Rows,
    prepare,
)
from ntk_resnet.kernels.function import check_engine
from ntk_resnet.kernels.images import ImageRows
from ntk_resnet.kernels.pairs import QUANTITIES
from ntk_resnet.kernels.profile import (
    common_norm,
    has_profile,
    likely_powers,
    profile,
)

_ENGINES = ("auto", "profile", "recursion", "convolution")
_AHEAD = 2  # rounds of tiles under way while one is put in its place


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
    rows: tuple[Rows | ImageRows, ...]  # of one array, or of two
    tiling: Tiling
    mesh: Mesh

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.rows[0].x.dtype)

    @property
    def engine(self) -> str:
        """What computes the entries: `"profile"`, `"recursion"` or `"convolution"`."""
        if isinstance(self.rows[0], ImageRows):
            return "convolution"
        return "recursion" if self.entries.powers is None else "profile"

    @property
    def tile_bytes(self) -> int:
        """About how much memory a device takes to compute a tile.

        It holds the planes of all pairs in it, for images; the matrix, the data and the
        program itself come on top.
        """
        rows = self.rows[0]
        computing = rows.log_nngp if isinstance(rows, ImageRows) else rows.x
        each = bytes_per_pair(self.spec, rows.x.shape[1:], np.dtype(computing.dtype))
        return int(np.prod(self.tiling.block_shape)) * each

    @property
    def progress_text(self) -> str:
        """How large tiles are, to be said before the first is computed."""
        sides = "{} x {}".format(*self.tiling.block_shape)
        return f"tiles of {sides}, about {self.tile_bytes / 1e6:.3g} MB each"

    def identity(self) -> dict[str, str | int | float]:
        """What decides the matrix, for a store."""
        return _identity.identity_of(
            self.spec,
            *(rows.x for rows in self.rows),
            get=self.entries.get,
            normalised=int(self.entries.normalised),
            engine=self.engine,
            products=self.entries.products,
            platform=self.mesh.local_devices[0].platform,
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
        device = self.mesh.local_devices[0]
        size = self.tiling.rows * self.tiling.columns * self.dtype.itemsize
        accelerator = self.mesh.size == 1 and device.platform != "cpu"
        return accelerator and 2 * size < memory_of(device)

    def start(self, pairs: Sequence[tuple[int, int]], *, refine: bool = False) -> Block:
        """Starts on as many tiles as there are devices, or fewer; one a device.

        Those that come out `coarse` are to be started again, to be refined. What a
        tile is thus depends on its inputs alone.
        """
        corners = [self.tiling.corner(*pair) for pair in pairs]
        corners += corners[-1:] * (self.mesh.size - len(pairs))
        tiling = self.tiling
        compiled = program(
            self.mesh, self.entries, tiling.block_shape, tiling.symmetric, refine
        )
        with precision_of(*jax.tree.leaves(self.rows)):
            return compiled(self.data, self.rows, np.array(corners, np.int32))

    def _finished(self, pairs, started):
        shards = zip(*(_by_place(part, len(pairs)) for part in started), strict=True)
        for (i, j), (values, coarse) in zip(pairs, shards, strict=True):
            if coarse:
                values = _by_place(self.start([(i, j)], refine=True).values, 1)[0]
            height, width = self.tiling.shape(i, j)
            values = values[-height:, -width:]
            check_finite(values, self.entries, self.spec)
            yield i, j, values


def _by_place(array, count):
    """What the first devices have computed, in their order."""
    shards = {shard.index[0].start or 0: shard for shard in array.addressable_shards}
    return [np.asarray(shards[k].data)[0] for k in sorted(shards)[:count]]


def check_finite(values: Any, entries: Entries, spec: Architecture) -> None:
    """Raises the error behind an entry that is not a finite number."""
    # A sum is cheaper; it can overflow where no entry does.
    with np.errstate(over="ignore"):
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


# ----------------------------------------------------------------------------- the plan


def make_plan(
    spec,
    x,
    x2=None,
    get="ntk",
    normalised=True,
    engine="auto",
    products="split",
    tile=None,
    devices=None,
    store=None,
    *,
    everywhere=False,
    ahead=False,
) -> Plan:
    """Checks all arguments of `gram` and prepares the data for the devices.

    Those of this process, or `everywhere`, of all that run the same program. With
    `ahead` the program for a tile is compiled while a profile is built.
    """
    check_network(spec, convolutional=True)
    check_choice("get", get, QUANTITIES)
    check_choice("engine", engine, _ENGINES)
    check_engine(spec, engine)
    check_choice("products", products, PRODUCTS)
    if not isinstance(normalised, bool):
        raise ValueError(f"normalised must be True or False, got {normalised!r}.")
    inputs = _check_data(spec, x, x2)
    mesh = _mesh(devices, everywhere)
    dtype = np.result_type(*(np.dtype(v.dtype) for v in inputs))
    normalised = normalised or get.endswith("_gap")  # gaps are of normalised kernels
    make = _for_images if isinstance(spec, Convolutional) else _for_rows
    side = _tile_side(spec, tile, store, inputs, get, mesh)
    tiling = Tiling(len(inputs[0]), len(inputs[-1]), side, symmetric=x2 is None)
    with precision_of(*inputs):
        arrays = [jnp.asarray(v, dtype) for v in inputs]
        soon = functools.partial(compile_ahead, mesh, tiling) if ahead else None
        how = get, normalised, engine, products, arrays
        entries, data, rows = make(spec, *how, soon)
    with precision_of(*jax.tree.leaves(rows)):
        data, rows = everywhere_on(mesh, (data, rows))
    return Plan(spec, entries, data, rows, tiling, mesh)


def _for_rows(spec, get, normalised, engine, products, arrays, soon):
    """What is computed, what it needs to know of the depth, and the inputs."""
    norm = _norm_for(spec, engine, arrays)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        prepared = threads.submit(_prepared, arrays, spec.bias_variance)
        if soon is not None and norm is not None:
            powers = likely_powers(spec, get)
            likely = Entries(None, get, normalised, products, powers)
            # What fails here fails again, and says so, when the program is wanted.
            threads.submit(soon, likely, [v.shape for v in arrays], arrays[0].dtype)
        found = None
        if norm is not None and (engine == "profile" or has_profile(spec, norm)):
            found = profile(spec, input_kernel=norm)
        rows = prepared.result()
    dtype = arrays[0].dtype
    if found is None:  # the recursion knows no other products
        shape, scales = recursion.shape_of(spec), recursion.block_scales(spec)
        entries = Entries(shape, get, normalised, "split", None)
        return entries, scales.astype(dtype), rows
    kernel = get.removesuffix("_gap")
    log_diagonal = np.asarray(found.log_diagonal(kernel), dtype)
    powers = getattr(found.powers, kernel)
    entries = Entries(None, get, normalised, products, powers)
    return entries, (found.table(kernel, dtype), log_diagonal), rows


def _for_images(spec, get, normalised, engine, products, arrays, soon):
    """The same for images; there is no profile to wait for."""
    if products == "plain":
        raise ValueError('products="plain" is for fully connected networks.')
    scales = recursion.block_scales(spec)
    rows = tuple(images.image_rows(spec, x, scales, get) for x in arrays)
    entries = Entries(images.without_scales(spec), get, normalised, products, None)
    return entries, scales.astype(rows[0].log_nngp.dtype), rows


def _prepared(arrays, bias_variance):
    with precision_of(*arrays):  # a thread has settings of its own
        return tuple(prepare(v, bias_variance) for v in arrays)


def _norm_for(spec, engine, arrays):
    """That of the inputs, for a profile; `None`: the recursion is to be used."""
    if engine == "recursion":
        return None
    try:
        return common_norm(spec, *arrays)
    except ValueError:
        if engine == "profile":
            raise
        return None


def _check_data(spec, x, x2):
    inputs = check_pair(spec, ("x", x), ("x2", x2))
    if is_traced(inputs):
        raise ValueError(
            "x is traced: gram distributes its work itself and is not for use inside "
            "jit, vmap or grad; use kernel_fn there."
        )
    return inputs if x2 is not None else inputs[:1]


def _mesh(devices, everywhere):
    if devices is None:
        devices = jax.devices() if everywhere else jax.local_devices()
    devices = list(devices) if isinstance(devices, Sequence) else [devices]
    known = [d for d in devices if isinstance(d, jax.Device)]
    if not everywhere:
        known = [d for d in known if d.process_index == jax.process_index()]
    if not devices or len(set(known)) < len(devices):
        raise ValueError(
            f"devices must be some of jax.{'' if everywhere else 'local_'}devices(), "
            f"each once, got {devices!r}."
        )
    if len({d.platform for d in devices}) > 1:
        raise ValueError(f"devices must be of one kind, got {devices!r}.")
    return Mesh(np.array(devices), ("tile",))


def _tile_side(spec, tile, store, inputs, get, mesh):
    if tile is not None:
        return check_count("tile", tile)
    if store is not None:
        try:
            return _tile_store.read_attributes(pathlib.Path(store))["identity"]["tile"]
        except (FileNotFoundError, ValueError):  # what is wrong there is said later
            pass
    n, device = max(len(v) for v in inputs), mesh.local_devices[0]
    dtype = np.result_type(*(np.dtype(v.dtype) for v in inputs))
    if inputs[0].ndim == 4:
        shape = n, *inputs[0].shape[1:]
        dtype = images.computing_dtype(spec, dtype, (get,))
        return side_for_images(spec, shape, dtype, device, mesh.size)
    return side_for_rows(n, dtype, device)
