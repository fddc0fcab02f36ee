"""What is accepted as an input, and the precision in which it is computed."""

import contextlib
import numbers
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.convolutional import Convolutional

FLOATS = (np.dtype("float32"), np.dtype("float64"))


def is_traced(*values: Any) -> bool:
    """Whether a value is known only by shape, because a transformation is under way."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def in_trace(*values: Any) -> bool:
    """Whether values are traced, or become so, as a transformation is under way."""
    return is_traced(values, jnp.zeros(()))


def default_float() -> np.dtype:
    """float64 where JAX's x64 mode is on, else float32."""
    return jax.dtypes.canonicalize_dtype(np.float64)


def precision_of(*arrays: Any) -> contextlib.AbstractContextManager:
    """A context with x64 on if float64 data are given eagerly; nothing else changes."""
    wide = any(getattr(a, "dtype", None) == np.float64 for a in arrays)
    if wide and default_float() == np.float32 and not in_trace(arrays):
        return jax.enable_x64()
    return contextlib.nullcontext()  # a trace keeps the precision it began with


def keep_precision(values: Any) -> Any:
    """float64 results, arrays or a tree of them, so that they stay float64.

    Where JAX's x64 mode is off, a `jax.Array` of float64 becomes float32 at the next
    operation; an array of NumPy's does not. What is traced stays as it is.
    """
    return jax.tree.map(_kept, values)


def _kept(value):
    wide = not is_traced(value) and value.dtype == np.float64
    return np.asarray(value) if wide and default_float() == np.float32 else value


def as_floats(name: str, values: Any) -> Any:
    """`values` as a float32 or float64 array; integers become the default float.

    Raises:
        ValueError: they are something else.
    """
    if not isinstance(values, jax.Array):
        try:
            values = np.asarray(values)
        except ValueError as error:
            raise ValueError(f"{name} is not an array of numbers: {error}.") from None
    if np.issubdtype(values.dtype, np.integer):
        values = values.astype(default_float())
    if values.dtype not in FLOATS:
        raise ValueError(
            f"{name} has dtype {values.dtype}; convert it to float32 or float64 first."
        )
    return values


def check_inputs(name: str, x: Any, *, zero_rows: bool = False) -> Any:
    """`x` as a float32 or float64 array `(n, d)`, n, d >= 1, of finite numbers.

    Integers become the default float. Inside a trace only shape and dtype are checked.

    Raises:
        ValueError: anything else, or a row of zeros unless `zero_rows` allows them.
    """
    x = as_floats(name, x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; pass a non-empty array (n, d), "
            "one input a row."
        )
    _check_values(name, x, zero_rows)
    return x


def check_inputs_of(spec: Specification, name: str, x: Any) -> Any:
    """`x` as `check_inputs` gives it, or for convolutional networks `(n, H, W, C)`."""
    zero_rows = spec.bias_variance > 0
    if not isinstance(spec, Convolutional):
        return check_inputs(name, x, zero_rows=zero_rows)
    x = as_floats(name, x)
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; pass a non-empty array of images "
            "(n, height, width, channels)."
        )
    spec.check_size(name, *x.shape[1:3])
    _check_values(name, x, zero_rows)
    if not (zero_rows or is_traced(x)):
        lost = flushed(np.asarray(x).reshape(len(x), -1))
        if lost.any():
            raise ValueError(
                f"{name} has only tiny numbers in image {np.argmax(lost)}, some of "
                f"which devices take for zero in {x.dtype}; multiply it by a large "
                "number (normalised kernels stay as they are)."
            )
    return x


def _check_values(name, x, zero_rows):
    if is_traced(x):
        return
    host = np.asarray(x)
    host = host.reshape(len(host), -1)
    if not np.isfinite(host).all():
        row, column = np.argwhere(~np.isfinite(host))[0]
        raise ValueError(
            f"{name} holds {host[row, column]} at row {row}, column {column}; "
            "remove or replace it."
        )
    empty = np.flatnonzero(~host.any(axis=1))
    if not zero_rows and empty.size:
        raise ValueError(
            f"{name} has only zeros in row {empty[0]}, where the kernel is undefined; "
            "remove the row, or give the network a bias_variance > 0."
        )


def flushed(x: Any) -> Any:
    """Rows whose angles change if a device takes subnormal numbers for zero.

    By more than eps^2, that is. Comparisons may flush as well: the bits tell. In NumPy
    or in JAX, as `x` is.
    """
    limits = np.finfo(x.dtype)
    whole: Any = {4: np.int32, 8: np.int64}[x.dtype.itemsize]
    bits = x.view(whole) & np.iinfo(whole).max  # without the sign
    subnormal = (bits > 0) & (bits < whole(2**limits.nmant))
    small = abs(x).max(axis=1) < limits.tiny / limits.eps**2
    return small & subnormal.any(axis=1)


def check_pair(
    spec: Specification, first: tuple[str, Any], second: tuple[str, Any]
) -> tuple[Any, Any]:
    """Inputs of rows and of columns, each with its name; the second may be `None`."""
    (name1, x1), (name2, x2) = first, second
    x1 = check_inputs_of(spec, name1, x1)
    if x2 is None:
        return x1, None
    x2 = check_inputs_of(spec, name2, x2)
    if x1.ndim == 4 and x1.shape[1:] != x2.shape[1:]:
        raise ValueError(
            f"{name1} has images of shape {x1.shape[1:]} and {name2} of shape "
            f"{x2.shape[1:]}; they must agree."
        )
    if x1.shape[1] != x2.shape[1]:
        raise ValueError(
            f"{name1} has rows of length {x1.shape[1]} and {name2} of length "
            f"{x2.shape[1]}; they must agree."
        )
    return x1, x2


def check_angles(name: str, angles: Any) -> np.ndarray:
    """`angles` as a float array `(k,)` within [0, pi] (pi as rounded in its dtype)."""
    angles = np.asarray(as_floats(name, angles))
    if angles.ndim != 1 or angles.size == 0:
        raise ValueError(
            f"{name} must be a non-empty list of angles in radians, got an array of "
            f"shape {angles.shape}."
        )
    top = angles.dtype.type(np.pi)  # rounds up in float32
    bad = ~((angles >= 0) & (angles <= top))
    if bad.any():
        raise ValueError(
            f"{name} must lie in [0, pi], got {angles[bad][0]!r}; pass radians."
        )
    return angles


def check_depths(name: str, depths: Any) -> list[int]:
    """`depths` as a sorted list of distinct whole numbers >= 1."""
    depths = list(depths) if isinstance(depths, Iterable) else [depths]
    for depth in depths:
        whole = isinstance(depth, numbers.Integral) and not isinstance(depth, bool)
        if not whole or depth < 1:
            raise ValueError(
                f"{name} must be whole numbers >= 1, got {depth!r}; "
                "depth counts hidden layers or blocks."
            )
    if not depths:
        raise ValueError(f"{name} is empty; name at least one depth.")
    return sorted({int(depth) for depth in depths})


def angle_gaps(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 - cos and 1 + cos of float32 or float64 angles, exact to an ulp or two."""
    half = angles.astype(np.float64) / 2
    gap, cogap = 2 * np.sin(half) ** 2, 2 * np.cos(half) ** 2
    return gap.astype(angles.dtype), cogap.astype(angles.dtype)
