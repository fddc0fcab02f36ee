"""Spectral norms of weights as the operators that they are in a network."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg as sparse

_DENSE = 1024  # a convolution on so few numbers is written out
_TOLERANCE = 1e-10


class Norm(NamedTuple):
    """A spectral norm, and how far it may miss."""

    value: float
    error: float


def matrix_norm(weight: np.ndarray) -> Norm:
    """The largest singular value of a matrix, or of the largest in a stack."""
    weight = np.asarray(weight, np.float64)
    if not weight.size:
        return Norm(0.0, 0.0)
    largest = float(np.linalg.norm(weight, 2, axis=(-2, -1)).max())
    return Norm(largest, max(weight.shape) * np.finfo(float).eps * largest)


def convolution_norm(kernel: Any, params: dict[str, Any], shape: Any) -> Norm:
    r"""The largest singular value of a convolution on images of one shape.

    By Lanczos' method on :math:`A^\top A` (ARPACK): with the vector v it finds,
    :math:`|A^\top A v - s^2 v| / s` bounds how far a singular value is from s. That
    none is larger holds as the start vector is random. Small ones are written out.

    Args:
        kernel: of the convolution.
        params: of the primitive `conv_general_dilated`.
        shape: of its inputs, `(n, ...)` in the layout of `params`.
    """
    batch = params["dimension_numbers"].lhs_spec[0]
    shape = tuple(1 if axis == batch else size for axis, size in enumerate(shape))
    p = math.prod(shape)
    with jax.enable_x64():
        kernel = jnp.asarray(np.asarray(kernel, np.float64))
        operation = params | {"preferred_element_type": None}

        def convolve(x):
            return jax.lax.conv_general_dilated_p.bind(x, kernel, **operation)

        zero = jnp.zeros(shape)
        if p <= _DENSE:
            columns = jax.vmap(convolve)(jnp.eye(p).reshape(p, *shape))
            return matrix_norm(np.asarray(columns).reshape(p, -1))
        back = jax.linear_transpose(convolve, zero)
        run = jax.jit(lambda x: back(convolve(x))[0])

        def square(v):
            return np.asarray(run(jnp.asarray(v.reshape(shape)))).ravel()

        start = np.random.default_rng(0).normal(size=p)
        operator = sparse.LinearOperator((p, p), matvec=square, dtype=np.float64)
        (value,), vectors = sparse.eigsh(
            operator, k=1, which="LA", v0=start, tol=_TOLERANCE
        )
        missed = float(np.linalg.norm(square(vectors[:, 0]) - value * vectors[:, 0]))
    largest = math.sqrt(max(float(value), 0.0))
    return Norm(largest, missed / largest if largest else 0.0)


def distance_21(weight: np.ndarray, reference: np.ndarray | None = None) -> float:
    r""":math:`|(A - M)^\top|_{2,1}`: over outputs, the sum of the lengths of rows.

    Args:
        weight: `(fan_in, fan_out)`.
        reference: of the same shape; `None`: zeros.
    """
    away = np.asarray(weight, np.float64)
    if reference is not None:
        away = away - np.asarray(reference, np.float64)
    return float(np.linalg.norm(away, axis=0).sum())
