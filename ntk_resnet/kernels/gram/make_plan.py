"""From the arguments of `gram` to its plan: all checks, and the data on its devices."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ntk_resnet._checks import check_choice, check_count
from ntk_resnet._inputs import check_inputs_of, check_pair
from ntk_resnet._precision import in_trace, precision_of
from ntk_resnet.kernels.convolution import matrices
from ntk_resnet.kernels.engines import QUANTITIES, check_engine, choose, log_diagonals
from ntk_resnet.kernels.gram import tile_store
from ntk_resnet.kernels.gram.plan import Plan
from ntk_resnet.kernels.gram.programs import everywhere_on
from ntk_resnet.kernels.gram.tiling import Tiling, side_for_images, side_for_rows
from ntk_resnet.kernels.overflow import check_scale
from ntk_resnet.kernels.pairs import PRODUCTS
from ntk_resnet.specification.base import Specification, check_network


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
) -> Plan:
    """Checks all arguments of `gram` and prepares the data for the devices.

    Those of this process, or `everywhere`, of all that run the same program.
    """
    check_network(spec, convolutional=True)
    check_choice("get", get, QUANTITIES)
    check_engine(spec, engine)
    check_choice("products", products, PRODUCTS)
    if not isinstance(normalised, bool):
        raise ValueError(f"normalised must be True or False, got {normalised!r}.")
    inputs = _check_data(spec, x, x2)
    normalised = normalised or get.endswith("_gap")  # gaps are of normalised kernels
    mesh = _mesh(devices, everywhere)
    side = _tile_side(spec, tile, store, inputs, get, mesh)
    how = spec, (get,), normalised, engine, products, inputs, mesh, side
    plan = plan_for(*how, wide=not everywhere)  # operators are for traces, too
    if not normalised:
        with precision_of(*inputs):
            logs = [log_diagonals(spec, x.astype(plan.dtype)) for x in inputs]
        check_scale(get, plan.dtype, *(getattr(log, get) for log in logs))
    return plan


def plan_for(
    spec: Any,
    get: tuple[str, ...],
    normalised: bool,
    engine: str,
    products: str,
    inputs: tuple[Any, ...],
    mesh: Mesh,
    side: int,
    scales: Any = None,
    *,
    wide: bool = True,
) -> Plan:
    """The plan of matrices between inputs that have been checked.

    Processors take float64 products for float32 rows, unless not `wide`: inside a trace
    JAX may know no float64.
    """
    dtype = np.result_type(*(np.dtype(v.dtype) for v in inputs))
    symmetric = len(inputs) == 1
    tiling = Tiling(len(inputs[0]), len(inputs[-1]), side, symmetric)
    arrays = tuple(np.asarray(v, dtype) for v in inputs)
    how = spec, get, normalised, engine, products, arrays, scales
    wide = wide and products == "split" and mesh.local_devices[0].platform == "cpu"
    with precision_of(*arrays):
        found = choose(*how, wide=wide)
    with precision_of(*jax.tree.leaves(found.rows)):
        data, rows = everywhere_on(mesh, (found.data, found.rows))
    return Plan(spec, found.engine, data, rows, tiling, mesh)


def plan_on(
    device: jax.Device,
    spec: Specification,
    get: tuple[str, ...],
    normalised: bool,
    engine: str,
    inputs: tuple[Any, ...],
    scales: Any = None,
) -> Plan:
    """The plan of matrices between rows that have been checked, for one device."""
    dtype = np.result_type(*(np.dtype(v.dtype) for v in inputs))
    side = side_for_rows(max(map(len, inputs)), dtype, device)
    how = spec, get, normalised, engine, "split", inputs
    return plan_for(*how, _mesh_of((device,)), side, scales)


def device_of(*arrays: Any) -> jax.Device | None:
    """The device that computes; `None` in a trace, or where several hold the data."""
    if in_trace(arrays):
        return None
    there = [v for v in arrays if isinstance(v, jax.Array)] or [jnp.zeros(())]
    on = set.union(*(v.devices() for v in there))
    return next(iter(on)) if len(on) == 1 else None


def _check_data(spec, x, x2):
    check = functools.partial(check_inputs_of, spec)
    inputs = check_pair(("x", x), ("x2", x2), check)
    if in_trace(inputs):
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
    return _mesh_of(tuple(devices))


@functools.lru_cache(maxsize=32)
def _mesh_of(devices):
    """The devices as one axis of tiles."""
    return Mesh(np.array(devices), ("tile",))


def _tile_side(spec, tile, store, inputs, get, mesh):
    if tile is not None:
        return check_count("tile", tile)
    if store is not None:
        try:
            return tile_store.read_attributes(pathlib.Path(store))["identity"]["tile"]
        except (FileNotFoundError, ValueError):  # what is wrong there is said later
            pass
    n, device = max(len(v) for v in inputs), mesh.local_devices[0]
    dtype = np.result_type(*(np.dtype(v.dtype) for v in inputs))
    if inputs[0].ndim == 4:
        shape = n, *inputs[0].shape[1:]
        dtype = matrices.computing_dtype(spec, dtype, (get,))
        return side_for_images(spec, shape, dtype, device, mesh.size)
    return side_for_rows(n, dtype, device)
