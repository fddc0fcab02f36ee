"""Kernel matrices between images, in whole or in tiles, by `convolution`."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ntk_resnet.convolutional import Convolutional, ConvResNet
from ntk_resnet.kernels._inputs import default_float, is_traced, precision_of
from ntk_resnet.kernels.convolution import Pairs, kernels, see
from ntk_resnet.kernels.pairs import symmetric

PLAIN, RESIDUAL = 10, 24
"""Activations one after the other up to which float32 computes to 1e-5."""


def computing_dtype(spec: Convolutional, dtype: Any) -> np.dtype:
    """What to compute kernels of such a network in, for images of that dtype.

    The planes hold kernels, not gaps. Rounding adds an eps to the gap in every layer
    while the layers of deep networks shrink it, and near-duplicates and deep networks
    would lose all digits in float32: beyond a depth float64 is used.
    """
    activations = spec.depth
    most = PLAIN
    if isinstance(spec, ConvResNet):
        activations *= 1 + (spec.block == "full_preactivation")
        most = RESIDUAL if spec.scales.max() <= 1 else PLAIN
    return np.dtype(dtype) if activations <= most else np.dtype("float64")


class ImageRows(NamedTuple):
    """Images, and ln of their raw kernels with themselves."""

    x: Float[Array, "n H W C"]
    log_nngp: Float[Array, " n"]
    log_ntk: Float[Array, " n"]


def with_diagonals(
    spec: Convolutional,
    x: Float[Array, "n H W C"],
    scales: Float[Array, " depth"],
    ntk: bool,
) -> ImageRows:
    """Images with their own kernels; of the NTK only if `ntk`, else NaN."""
    pixels, seen, log_scale = see(spec, x, scales)
    own = jnp.ones(len(x), bool)
    pairs = Pairs(pixels, pixels, seen, seen, scales, own, crossed=False)
    found = kernels(spec, pairs, ntk=ntk, half=True)
    log_nngp = jnp.log(found.nngp) + log_scale
    log_ntk = (
        jnp.log(found.ntk) + log_scale if ntk else jnp.full_like(log_nngp, jnp.nan)
    )
    return ImageRows(x, log_nngp, log_ntk)


def between(
    spec: Convolutional,
    names: tuple[str, ...],
    normalised: bool,
    first: ImageRows,
    second: ImageRows,
    scales: Float[Array, " depth"],
    own: Bool[Array, "n1 n2"],
    half: Any,
) -> tuple[Float[Array, "n1 n2"], ...]:
    """Each of `names`, kernels or their gaps, between images.

    `own` says which pairs are an image with itself, `half` as in `kernels`. With
    `normalised=False` the kernels, not the gaps, are raw.
    """
    ntk = any(name.startswith("ntk") for name in names)
    x1, seen1, log1 = see(spec, first.x, scales)
    x2, seen2, log2 = see(spec, second.x, scales)
    pairs = Pairs(x1, x2, seen1, seen2, scales, own, crossed=True)
    found = kernels(spec, pairs, ntk=ntk, half=half)
    values = []
    for name in names:
        kernel = name.removesuffix("_gap")
        logs = [log1, log2]
        if normalised or name.endswith("_gap"):
            rows = (first, second)
            diagonals = [getattr(of, f"log_{kernel}") for of in rows]
            logs = [log - of for log, of in zip(logs, diagonals, strict=True)]
        factors = [jnp.exp(log / 2) for log in logs]
        value = getattr(found, kernel) * factors[0][:, None] * factors[1]
        if normalised or name.endswith("_gap"):
            value = jnp.where(own & (value == value), 1, value)
        values.append(1 - value if name.endswith("_gap") else value)
    return tuple(values)


# ----------------------------------------------------------------------- whole matrices


def matrix(
    spec: Any,
    names: tuple[str, ...],
    normalised: bool,
    x1: Float[Array, "n1 H W C"],
    x2: Float[Array, "n2 H W C"] | None,
    scales: Float[Array, " depth"] | Float[np.ndarray, " depth"],
) -> tuple[Float[Array, "n1 n2"], ...]:
    """Each of `names` between images, in their dtype; `x2=None` means `x1`."""
    arrays, scales = _as_computed(spec, (x1, x2), scales)
    with precision_of(*arrays):
        values = _matrix(without_scales(spec), names, normalised, *arrays, scales)
        return tuple(value.astype(x1.dtype) for value in values)


def log_diagonals(
    spec: Convolutional,
    x: Float[Array, "n H W C"],
    scales: Float[Array, " depth"] | Float[np.ndarray, " depth"],
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """ln of the raw NNGP and NTK of every image with itself, in the images' dtype."""
    rows = image_rows(spec, x, scales, ntk=True)
    return rows.log_nngp.astype(x.dtype), rows.log_ntk.astype(x.dtype)


def image_rows(spec: Convolutional, x: Any, scales: Any, *, ntk: bool) -> ImageRows:
    """Images with their own kernels, a few at a time.

    The logarithms are in the dtype of computing, the images in their own.
    """
    (wide,), scales = _as_computed(spec, (x,), scales)
    n, some = len(x), min(len(x), max(1, 2**18 // (x.shape[1] * x.shape[2])))
    # The last few overlap others, so that there is one shape to compile for.
    begins = [min(begin, n - some) for begin in range(0, n, some)]
    with precision_of(wide):
        parts = [
            _with_diagonals(without_scales(spec), wide[k : k + some], scales, ntk)
            for k in begins
        ]
        fresh = [k * some - begin for k, begin in enumerate(begins)]
        logs = [
            jnp.concatenate([log[old:] for log, old in zip(column, fresh, strict=True)])
            for column in list(zip(*parts, strict=True))[1:]
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
    """A tile of the kernel matrix, in the images' dtype; see `entries.block`."""
    dtype = rows1.x.dtype
    first, second = (
        rows._replace(x=rows.x.astype(rows.log_nngp.dtype)) for rows in (rows1, rows2)
    )
    index = [jnp.arange(len(rows.x)) for rows in (rows1, rows2)]
    own = index[0][:, None] - index[1] == shift
    half = shift == 0 if own.shape[0] == own.shape[1] else False
    values = between(spec, (get,), normalised, first, second, scales, own, half)
    return values[0].astype(dtype)


def _as_computed(spec, arrays, scales):
    """The images and the scales in the dtype of computing."""
    given = np.result_type(*(x.dtype for x in arrays if x is not None))
    dtype = computing_dtype(spec, given)
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


def without_scales(spec):
    """Networks that share compilations: their scales are data."""
    return spec.replace(branch_scale=1.0) if isinstance(spec, ConvResNet) else spec


_with_diagonals = jax.jit(with_diagonals, static_argnames=("spec", "ntk"))


@functools.partial(jax.jit, static_argnames=("spec", "names", "normalised"))
def _matrix(spec, names, normalised, x1, x2, scales):
    ntk = "ntk" in names
    first = with_diagonals(spec, x1, scales, ntk)
    if x2 is None:
        own = jnp.eye(len(x1), dtype=bool)
        at = first, first, scales, own, True
        return tuple(map(symmetric, between(spec, names, normalised, *at)))
    second = with_diagonals(spec, x2, scales, ntk)
    own = jnp.zeros((len(x1), len(x2)), bool)
    return between(spec, names, normalised, first, second, scales, own, False)
