"""The precision in which something is computed, eagerly or in a trace."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


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
