"""What models take: arrays with one input a row."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ntk_resnet._inputs import is_traced


def check_pair(x1: Any, x2: Any) -> tuple[Any, Any]:
    """`x1` and `x2` (or `None`) as by `check_rows`, with rows of one shape and dtype.

    A program is made for one dtype, so both get the one that holds both.
    """
    x1 = check_rows("x1", x1)
    if x2 is None:
        return x1, None
    x2 = check_rows("x2", x2)
    if x1.shape[1:] != x2.shape[1:]:
        raise ValueError(
            f"x1 and x2 must have rows of one shape; got {x1.shape} and {x2.shape}."
        )
    dtype = jnp.promote_types(
        *(jax.dtypes.canonicalize_dtype(x.dtype) for x in (x1, x2))
    )
    return x1.astype(dtype), x2.astype(dtype)


def check_rows(name: str, x: Any) -> Array | np.ndarray:
    """`x` as an array with at least one row and one column, of finite numbers."""
    if not isinstance(x, jax.Array):
        try:
            x = np.asarray(x)
        except ValueError as error:
            raise ValueError(f"{name} is not an array of numbers: {error}.") from None
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; pass a non-empty array (n, ...), one "
            "input a row."
        )
    if not (
        jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)
    ):
        raise ValueError(
            f"{name} has dtype {x.dtype}; convert it to a float dtype first."
        )
    if not is_traced(x) and not np.isfinite(np.asarray(x)).all():
        raise ValueError(f"{name} holds NaN or infinity; remove or replace those rows.")
    return x
