"""Kernel matrices between images, in whole or in tiles, by `convolution`."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ntk_resnet._inputs import default_float, is_traced, precision_of
from ntk_resnet.kernels.convolution.kernel import (
    image_statistics,
    image_statistics_of_both,
    kernels,
)
from ntk_resnet.kernels.convolution.memory import numbers_per_image
from ntk_resnet.kernels.convolution.stages import Pairs
from ntk_resnet.kernels.gram.tiling import begins
from ntk_resnet.kernels.pairs import own_entries, symmetric
from ntk_resnet.specification.blocks import ACTIVATE
from ntk_resnet.specification.convolutional import Convolutional

PLAIN, RESIDUAL = 10, 24
"""Activations one after the other up to which float32 computes to 1e-5."""

_KEPT = 2**24  # numbers, of the images whose own kernels are computed together


def computing_dtype(
    spec: Convolutional, dtype: Any, get: tuple[str, ...] = ()
) -> np.dtype:
    """What to compute these of such a network in, for images of that dtype.

    The planes hold kernels, not gaps. Rounding adds an eps to the gap in every layer
    while the layers of deep networks shrink it, and near-duplicates and deep networks
    would lose all digits in float32: beyond a depth float64 is used. So it is for gaps,
    which have the values' absolute error.
    """
    activations = spec.depth * spec.operations.count(ACTIVATE)
    most = RESIDUAL if spec.has_trunk and spec.scales.max() <= 1 else PLAIN
    gaps = any(name.endswith("_gap") for name in get)
    return np.dtype("float64" if gaps or activations > most else dtype)


class ImageRows(NamedTuple):
    """Images, and ln of their raw kernels with themselves."""

    x: Float[Array, "n H W C"]
    log_nngp: Float[Array, " n"]
    log_ntk: Float[Array, " n"]


def _own(spec, seeing, size, scales, ntk):
    """The kernels of each image with itself, up to its scale."""
    own = jnp.ones(seeing.log_scale.shape, bool)
    pairs = Pairs(seeing, seeing, size, scales, own, crossed=False)
    return kernels(spec, pairs, ntk=ntk, half=True)


def _scaled(value, log1, log2):
    """Times a factor of each image, never their product: each is in range."""
    return value * jnp.exp(log1 / 2)[:, None] * jnp.exp(log2 / 2)


# ----------------------------------------------------------------------- whole matrices


def matrix(
    spec: Any,
    names: tuple[str, ...],
    normalised: bool,
    x1: Float[Array, "n1 H W C"] | Float[np.ndarray, "n1 H W C"],
    x2: Float[Array, "n2 H W C"] | Float[np.ndarray, "n2 H W C"] | None,
    scales: Float[Array, " depth"] | Float[np.ndarray, " depth"],
) -> tuple[Float[Array, "n1 n2"], ...]:
    """Each of `names` between images, in their dtype; `x2=None` means `x1`."""
    arrays, scales = _as_computed(spec, (x1, x2), scales, names)
    with precision_of(*arrays):
        values = _matrix(spec.without_scales, names, normalised, *arrays, scales)
        return tuple(value.astype(x1.dtype) for value in values)


def log_diagonals(
    spec: Convolutional,
    x: Float[Array, "n H W C"] | Float[np.ndarray, "n H W C"],
    scales: Float[Array, " depth"] | Float[np.ndarray, " depth"],
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """ln of the raw NNGP and NTK of every image with itself, in the images' dtype."""
    rows = image_rows(spec, x, scales, ("ntk",))
    return rows.log_nngp.astype(x.dtype), rows.log_ntk.astype(x.dtype)


def image_rows(
    spec: Convolutional, x: Any, scales: Any, get: tuple[str, ...]
) -> ImageRows:
    """Images with their own kernels, a few at a time.

    The logarithms are in the dtype of computing, the images in their own.
    """
    (wide,), scales = _as_computed(spec, (x,), scales, get)
    ntk = any(name.startswith("ntk") for name in get)
    image = x.shape[1:]
    most = min(2**18 // math.prod(image[:2]), _KEPT // numbers_per_image(spec, image))
    n, some = len(x), min(len(x), max(1, most))
    # The last few overlap others, so that there is one shape to compile for.
    starts = begins(n, some)
    with precision_of(wide):
        parts = [
            _logs(spec.without_scales, wide[k : k + some], scales, ntk) for k in starts
        ]
        fresh = [k * some - begin for k, begin in enumerate(starts)]
        logs = [
            jnp.concatenate([log[old:] for log, old in zip(column, fresh, strict=True)])
            for column in zip(*parts, strict=True)
        ]
    return ImageRows(x, *logs)


def tile(
    spec: Any,
    get: str,
    normalised: bool,
    scales: Float[Array, " depth"],
    rows1: Any,
    rows2: Any,
    shift: Int[Array, ""],
) -> Float[Array, "n1 n2"]:
    """A tile of the kernel matrix, in the images' dtype; see `engines.Engine.block`."""
    dtype = rows1.x.dtype
    first, second = (
        rows._replace(x=rows.x.astype(rows.log_nngp.dtype)) for rows in (rows1, rows2)
    )
    own = own_entries((len(rows1.x), len(rows2.x)), shift)
    half = shift == 0 if own.shape[0] == own.shape[1] else False
    kernel = get.removesuffix("_gap")
    _, one, other = image_statistics_of_both(spec, first.x, second.x, scales)
    pairs = Pairs(one, other, first.x.shape[1:3], scales, own, crossed=True)
    found = kernels(spec, pairs, ntk=kernel == "ntk", half=half)
    logs = [one.log_scale, other.log_scale]
    if normalised:
        own_logs = [getattr(rows, f"log_{kernel}") for rows in (first, second)]
        logs = [log - of for log, of in zip(logs, own_logs, strict=True)]
    value = _scaled(getattr(found, kernel), *logs)
    if normalised:
        value = jnp.where(own & (value == value), 1, value)
    return (1 - value if get.endswith("_gap") else value).astype(dtype)


def _as_computed(spec, arrays, scales, get):
    """The images and the scales in the dtype of computing."""
    given = np.result_type(*(x.dtype for x in arrays if x is not None))
    dtype = computing_dtype(spec, given, get)
    if dtype != given and is_traced(arrays) and default_float() != dtype:
        raise ValueError(
            f"x1 is traced in float32, but {spec.depth} blocks need float64; turn on "
            "jax_enable_x64, or call the kernel outside of jit, vmap and grad."
        )
    arrays = [None if x is None else _cast(x, dtype) for x in arrays]
    return arrays, _cast(scales, dtype)


def _cast(x, dtype):
    # NumPy's own cast where JAX would make it float32 again.
    return x.astype(dtype) if is_traced(x) else np.asarray(x).astype(dtype, copy=False)


@functools.partial(jax.jit, static_argnames=("spec", "ntk"))
def _logs(spec, x, scales, ntk):
    seeing = image_statistics(spec, x, scales)
    found = _own(spec, seeing, x.shape[1:3], scales, ntk)
    nothing = jnp.full_like(seeing.log_scale, jnp.nan)
    return tuple(
        nothing if kernel is None else jnp.log(kernel) + seeing.log_scale
        for kernel in found
    )


@functools.partial(jax.jit, static_argnames=("spec", "names", "normalised"))
def _matrix(spec, names, normalised, x1, x2, scales):
    ntk, alone = "ntk" in names, x2 is None
    if alone:
        first = second = image_statistics(spec, x1, scales)
        own = jnp.eye(len(x1), dtype=bool)
    else:
        together, first, second = image_statistics_of_both(spec, x1, x2, scales)
        own = jnp.zeros((len(x1), len(x2)), bool)
    pairs = Pairs(first, second, x1.shape[1:3], scales, own, crossed=True)
    found = kernels(spec, pairs, ntk=ntk, half=alone)
    values = [getattr(found, name) for name in names]
    if not normalised:
        logs = first.log_scale, second.log_scale
        values = [_scaled(value, *logs) for value in values]
    elif alone:
        values = [_over_own(value, jnp.diagonal(value)) for value in values]
        values = [jnp.where(own & (value == value), 1, value) for value in values]
    else:
        own_kernels = _own(spec, together, x1.shape[1:3], scales, ntk)
        diagonals = [getattr(own_kernels, name) for name in names]
        values = [_over_own(*both) for both in zip(values, diagonals, strict=True)]
    return tuple(map(symmetric, values) if alone else values)


def _over_own(value, diagonal):
    """Divided by the kernels of both images with themselves; the second come last."""
    root = jnp.sqrt(diagonal)
    return value / root[: len(value), None] / root[-value.shape[1] :]
