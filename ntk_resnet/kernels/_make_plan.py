"""From the arguments of `gram` to its plan: all checks, and the data on its devices."""

import concurrent.futures
import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ntk_resnet._checks import check_choice, check_count
from ntk_resnet.architectures import check_network
from ntk_resnet.convolutional import Convolutional
from ntk_resnet.kernels import _tile_store, images, recursion
from ntk_resnet.kernels._inputs import check_pair, is_traced, precision_of
from ntk_resnet.kernels._programs import compile_ahead, everywhere_on
from ntk_resnet.kernels._range import check_scale
from ntk_resnet.kernels._tiling import Tiling, side_for_images, side_for_rows
from ntk_resnet.kernels.entries import PRODUCTS, Entries, prepare
from ntk_resnet.kernels.function import check_engine, diag
from ntk_resnet.kernels.pairs import QUANTITIES
from ntk_resnet.kernels.plan import Plan
from ntk_resnet.kernels.profile import (
    common_norm,
    has_profile,
    likely_powers,
    profile,
)

_ENGINES = ("auto", "profile", "recursion", "convolution")


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
        if not normalised:
            own = (_own_kernels(spec, entries, data, part) for part in rows)
            check_scale(get, dtype, *own)
    with precision_of(*jax.tree.leaves(rows)):
        data, rows = everywhere_on(mesh, (data, rows))
    return Plan(spec, entries, data, rows, tiling, mesh)


def _own_kernels(spec, entries, data, rows):
    """ln of the raw kernel of each input with itself."""
    if isinstance(rows, images.ImageRows):
        return getattr(rows, f"log_{entries.get}")
    if entries.powers is None:
        return diag(spec, rows.x, entries.get, log=True)
    return rows.log_variance + data[1]


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
