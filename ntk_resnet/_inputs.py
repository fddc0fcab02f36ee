"""What is accepted as an input: arrays, pairs of them, angles and depths."""

import numbers
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_resnet._precision import default_float, flushed, is_traced
from ntk_resnet.specification.base import Specification

FLOATS, REAL, NUMBERS = "float32 or float64", "real numbers", "floats or integers"

_DTYPES: dict[str, Callable[[np.dtype], bool]] = {
    FLOATS: lambda dtype: dtype in (np.float32, np.float64),
    REAL: lambda dtype: dtype.kind in "fiub",
    # Also JAX's own, such as bfloat16.
    NUMBERS: lambda dtype: (
        jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    ),
}


# ------------------------------------------------------------------------------ arrays


def check_array(
    name: str,
    values: Any,
    shape: str | None = None,
    *,
    dtype: str = REAL,
    empty: bool = False,
    infinite: bool = False,
) -> Any:
    """`values` as an array of finite numbers, of a shape and dtype that is asked for.

    An array of JAX's stays one, all else becomes one of NumPy's. Inside a trace only
    shape and dtype are checked.

    Args:
        name: what the caller calls it.
        shape: what to pass, as the error says it, with one shape or more in brackets:
            `"(5,) or a block (5, k)"`. Axes of one name have one length, and `...` is
            one axis or more.
        dtype: `FLOATS`, `REAL` or `NUMBERS`.
        empty: whether axes may have length 0.
        infinite: whether infinity may be among the numbers.

    Raises:
        ValueError: anything else.
    """
    array = _as_array(name, values)
    _check_dtype(name, array, dtype)
    if shape is not None:
        fits = any(_fits(array.shape, one) for one in re.findall(r"\((.*?)\)", shape))
        if not fits or (0 in array.shape and not empty):
            raise ValueError(f"{name} has shape {tuple(array.shape)}; pass {shape}.")
    if not is_traced(array):
        _check_finite(name, np.atleast_1d(np.asarray(array)), infinite)
    return array


def check_symmetric(name: str, matrix: np.ndarray, slack: float | None = None) -> None:
    """Raises where a square matrix is not symmetric.

    Up to `slack` times its largest entry, by default `8 n eps` of its dtype.
    """
    if slack is None:
        slack = 8 * len(matrix) * float(np.finfo(matrix.dtype).eps)
    asymmetry = np.abs(matrix - matrix.T).max()
    if asymmetry > slack * np.abs(matrix).max():
        raise ValueError(
            f"{name} differs from its transpose by {asymmetry:.3g}; pass a "
            "symmetric one."
        )


def as_floats(name: str, values: Any) -> Any:
    """`values` as a float32 or float64 array; integers become the default float.

    Raises:
        ValueError: they are something else.
    """
    values = _as_array(name, values)
    if np.issubdtype(values.dtype, np.integer):
        values = values.astype(default_float())
    _check_dtype(name, values, FLOATS)
    return values


def _as_array(name, values):
    if isinstance(values, jax.Array):
        return values
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} is not an array of numbers: {error}.") from None


def _check_dtype(name, array, wanted):
    if not _DTYPES[wanted](array.dtype):
        raise ValueError(f"{name} has dtype {array.dtype}; pass {wanted}.")


def _fits(shape, pattern):
    """Whether a shape is that of a pattern such as `5, k` or `n, ...`."""
    axes = [axis.strip() for axis in pattern.split(",") if axis.strip()]
    if axes[-1:] == ["..."] and len(shape) >= len(axes):
        axes = axes[:-1]
        shape = shape[: len(axes)]
    lengths = {axis: int(axis) for axis in axes if axis.isdecimal()}
    return len(axes) == len(shape) and all(
        length == lengths.setdefault(axis, length)
        for axis, length in zip(axes, shape, strict=True)
    )


def _check_finite(name, host, infinite=False):
    bad = np.isnan(host) if infinite else ~np.isfinite(host)
    if bad.any():
        row, *rest = np.argwhere(bad)[0]
        column = np.ravel_multi_index(rest, host.shape[1:]) if rest else None
        place = f"row {row}" if column is None else f"row {row}, column {column}"
        raise ValueError(
            f"{name} holds {host[bad][0]} at {place}; remove or replace it."
        )


# ------------------------------------------------------------------ inputs, row by row


def check_rows(name: str, x: Any) -> Any:
    """`x` as an array with one input of any shape a row: what models take."""
    shape = "a non-empty array (n, ...), one input a row"
    return check_array(name, x, shape, dtype=NUMBERS)


def check_inputs(name: str, x: Any, *, zero_rows: bool = False) -> Any:
    """`x` as a float32 or float64 array `(n, d)`, n, d >= 1, of finite numbers.

    Integers become the default float. Inside a trace only shape and dtype are checked.

    Raises:
        ValueError: anything else, or a row of zeros unless `zero_rows` allows them.
    """
    shape = "a non-empty array (n, d), one input a row"
    x = check_array(name, as_floats(name, x), shape)
    _check_zeros(name, x, zero_rows)
    return x


def check_inputs_of(spec: Specification, name: str, x: Any) -> Any:
    """`x` as `check_inputs` gives it, or for convolutional networks `(n, H, W, C)`."""
    zero_rows = spec.bias_variance > 0
    if not spec.takes_images:
        return check_inputs(name, x, zero_rows=zero_rows)
    shape = "a non-empty array of images (n, height, width, channels)"
    x = check_array(name, as_floats(name, x), shape)
    spec.check_size(name, *x.shape[1:3])
    _check_zeros(name, x, zero_rows)
    if not (zero_rows or is_traced(x)):
        lost = flushed(np.asarray(x).reshape(len(x), -1))
        if lost.any():
            raise ValueError(
                f"{name} has only tiny numbers in image {np.argmax(lost)}, some of "
                f"which devices take for zero in {x.dtype}; multiply it by a large "
                "number (normalised kernels stay as they are)."
            )
    return x


def _check_zeros(name, x, zero_rows):
    if zero_rows or is_traced(x):
        return
    empty = np.flatnonzero(~np.asarray(x).reshape(len(x), -1).any(axis=1))
    if empty.size:
        raise ValueError(
            f"{name} has only zeros in row {empty[0]}, where the kernel is undefined; "
            "remove the row, or give the network a bias_variance > 0."
        )


def check_pair(
    first: tuple[str, Any], second: tuple[str, Any], check: Callable[[str, Any], Any]
) -> tuple[Any, Any]:
    """Inputs of rows and of columns, each with its name, as `check(name, x)` has them.

    The second may be `None`.
    """
    (name1, x1), (name2, x2) = first, second
    x1 = check(name1, x1)
    if x2 is None:
        return x1, None
    x2 = check(name2, x2)
    if x1.shape[1:] != x2.shape[1:]:
        raise ValueError(
            f"{name1} and {name2} must have rows of one shape; got "
            f"{tuple(x1.shape)} and {tuple(x2.shape)}."
        )
    return x1, x2


# ------------------------------------------------------------------- angles and depths


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
