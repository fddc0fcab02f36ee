"""Eigenvalues of kernel matrices, and what they say about conditioning."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import ArrayLike, Float

from ntk_resnet import records
from ntk_resnet.kernels.function import precision_of


def spectrum(matrix: Float[ArrayLike, "n n"]) -> xr.Dataset:
    r"""Eigenvalues of a symmetric positive semi-definite matrix, and summaries of them.

    Args:
        matrix: `(n, n)`, float32 or float64, symmetric up to `8 n eps` of its largest
            entry.

    Returns:
        A dataset over `index` with `eigenvalue`, largest first; the scalars
        `condition_number` (largest over smallest; infinite where the smallest is zero
        to rounding), `effective_rank` (exponential of the entropy of the eigenvalues,
        in [1, n]), `trace`, and `error_bound`, `n eps` times the largest, within which
        every eigenvalue is exact (Weyl) and below which it cannot be told from zero.

    Raises:
        ValueError: not a square symmetric matrix of finite numbers, or an eigenvalue
            below zero by more than `error_bound`: the matrix is not a kernel's.
    """
    matrix = _check_matrix(matrix)
    with precision_of(matrix):
        values = np.asarray(jnp.linalg.eigvalsh(jnp.asarray(matrix)))[::-1]
    n, largest = values.size, float(np.abs(values).max())
    bound = n * float(np.finfo(values.dtype).eps) * largest
    if values[-1] < -bound:
        raise ValueError(
            f"matrix has the eigenvalue {values[-1]:.3g}, below zero by more than "
            f"rounding ({bound:.1g}); it is not a kernel matrix."
        )
    smallest = float(values[-1])
    weights = np.clip(values, 0, None) / np.clip(values, 0, None).sum()
    entropy = -np.sum(weights * np.log(np.where(weights > 0, weights, 1)))
    return xr.Dataset(
        {
            "eigenvalue": ("index", values, {"long_name": "eigenvalue, largest first"}),
            "condition_number": largest / smallest if smallest > bound else np.inf,
            "effective_rank": float(np.exp(entropy)),
            "trace": float(np.sum(values)),
            "error_bound": bound,
        },
        coords={"index": np.arange(n)},
        attrs=records.provenance(dtype=str(values.dtype)),
    )


def _check_matrix(matrix):
    matrix = matrix if isinstance(matrix, jax.Array) else np.asarray(matrix)
    if matrix.dtype not in (np.float32, np.float64):
        raise ValueError(f"matrix has dtype {matrix.dtype}; pass float32 or float64.")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(
            f"matrix has shape {matrix.shape}; pass a square matrix (n, n)."
        )
    host = np.asarray(matrix)
    if not np.isfinite(host).all():
        raise ValueError("matrix holds NaN or infinity; remove the inputs behind them.")
    largest = np.abs(host).max()
    if largest == 0:
        raise ValueError("matrix is all zeros and has no spectrum to speak of.")
    asymmetry = np.abs(host - host.T).max()
    if asymmetry > 8 * len(host) * np.finfo(host.dtype).eps * largest:
        raise ValueError(
            f"matrix differs from its transpose by {asymmetry:.3g}; pass a "
            "symmetric one."
        )
    return matrix
