r"""Regression with a kernel: ridge regression, and gradient flow on the squared loss.

Everything is computed on the host in float64, whatever the dtype of the kernel; the
dtype decides only what counts as round-off. Eigenvalues of K below round-off (n eps
times the largest) are taken as zeros: their modes are not learned, which gives the
minimum-norm solution where a kernel matrix is singular.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from ntk_resnet._checks import check_number
from ntk_resnet._inputs import check_array, check_symmetric


class Trajectory(NamedTuple):
    """Outputs along gradient flow, one slice for each time."""

    train: Float[np.ndarray, "t n k"]
    test: Float[np.ndarray, "t m k"]


def kernel_ridge(
    k_train: Any, k_test: Any, y: Any, *, ridge: float
) -> Float[np.ndarray, "m k"]:
    r"""Predictions of kernel ridge regression, the mean of the Gaussian process.

    .. math::
        f = K_{*}\,(K + \lambda \bar d\, I)^{-1} y, \qquad
        \bar d = \tfrac1n \operatorname{tr} K

    Args:
        k_train: K, `(n, n)`, symmetric and positive semidefinite.
        k_test: K between test (rows) and training inputs, `(m, n)`.
        y: targets, `(n, k)` or `(n,)` (one output).
        ridge: lambda >= 0, relative to the mean of the diagonal, as `diag_reg` is in
            neural-tangents. With 0 a singular K gives the minimum-norm interpolation.

    Returns:
        `(m, k)`, float64.

    Raises:
        ValueError: shapes do not fit, a value is not finite, the ridge is negative,
            K is not symmetric, or it is not positive definite with the ridge and has an
            eigenvalue below zero by more than round-off.

    Accuracy:
        About eps times the condition number of the regularised matrix
        (`tests/analysis/test_regression.py`).
    """
    k_train, k_test, y, slack = _check(k_train, k_test, y)
    ridge = check_number("ridge", ridge)
    n = len(k_train)
    shift = ridge * np.trace(k_train) / n
    factor = cholesky(k_train + shift * np.eye(n), slack)
    if factor is not None:
        return k_test @ scipy.linalg.cho_solve((factor, True), y)
    eigenvalues, vectors = _eigenbasis(k_train, slack)
    shifted = eigenvalues + shift
    inverse = np.where(shifted > 0, 1 / np.where(shifted > 0, shifted, 1), 0)
    return k_test @ (vectors @ (inverse[:, None] * (vectors.T @ y)))


def gradient_flow(
    k_train: Any,
    k_test: Any,
    y: Any,
    times: Any,
    *,
    initial_train: Any = 0.0,
    initial_test: Any = 0.0,
) -> Trajectory:
    r"""Outputs along gradient flow of the squared loss, with a constant kernel.

    For the loss :math:`\frac1{2nk}\sum_{ij} (f_{ij} - y_{ij})^2`, the mean over rows
    and outputs that `neural_tangents.predict.gradient_descent_mse` uses,

    .. math::
        f(t) &= f_0 + (1 - e^{-K t/(nk)})\,(y - f_0), \\
        f_*(t) &= f_{*0} + K_* K^{-1} (1 - e^{-K t/(nk)})\,(y - f_0).

    A gradient-descent step with learning rate :math:`\eta` advances t by :math:`\eta`.

    Args:
        k_train: K, `(n, n)`, symmetric, positive semidefinite: the NTK of one output.
        k_test: K between test (rows) and training inputs, `(m, n)`.
        y: targets, `(n, k)` or `(n,)`.
        times: t >= 0 in units of the learning rate, `(t,)` or one number; `inf` is
            legal.
        initial_train, initial_test: outputs at time 0, a number or arrays that fit
            `(n, k)` and `(m, k)` (or `(n,)` and `(m,)` for one output).

    Returns:
        `train` of shape `(t, n, k)` and `test` of shape `(t, m, k)`, float64.

    Raises:
        ValueError: as in `kernel_ridge`, or a time is negative or NaN.

    Accuracy:
        About 1e-12 relative where K is well conditioned, against a matrix exponential
        (`tests/analysis/test_regression.py`); no cancellation at short times.
    """
    k_train, k_test, y, slack = _check(k_train, k_test, y)
    times = np.atleast_1d(check_array("times", times, infinite=True)).astype(float)
    if times.ndim != 1 or (times < 0).any():
        raise ValueError("times must be a list of numbers >= 0 (inf is legal).")
    initial_train = _initial("initial_train", initial_train, len(k_train), y.shape[1])
    initial_test = _initial("initial_test", initial_test, len(k_test), y.shape[1])

    eigenvalues, vectors = _eigenbasis(k_train, slack)
    learned = eigenvalues > 0
    rate = np.where(learned, eigenvalues, 0)[:, None] / y.size
    with np.errstate(invalid="ignore"):
        exponent = np.where(learned[:, None], rate * times, 0.0)
    done = -np.expm1(-exponent)  # (modes, t)
    inverse = np.where(learned, 1 / np.where(learned, eigenvalues, 1), 0)[:, None]
    residual = vectors.T @ (y - initial_train)
    cross = k_test @ vectors
    train = np.einsum("ni,it,ik->tnk", vectors, done, residual, optimize=True)
    test = np.einsum("mi,it,ik->tmk", cross, done * inverse, residual, optimize=True)
    return Trajectory(initial_train + train, initial_test + test)


# ------------------------------------------------------------------------------ checks


def _eigenbasis(matrix, slack):
    """Eigenvalues, those within round-off of zero set to zero, and eigenvectors."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    bound = slack * np.abs(eigenvalues).max(initial=0)
    if eigenvalues[0] < -bound:
        raise ValueError(
            f"k_train is not positive semidefinite: its lowest eigenvalue is "
            f"{eigenvalues[0]:.3g}, the largest {eigenvalues[-1]:.3g}; compute the "
            "kernel in float64, or check that it is one."
        )
    return np.where(eigenvalues > bound, eigenvalues, 0), vectors


def _check(k_train, k_test, y):
    """Both kernels and the targets as float64, and the relative size of round-off."""
    shape = "a non-empty square matrix (n, n)"
    k_train = np.asarray(check_array("k_train", k_train, shape))
    n = len(k_train)
    shape = f"(test rows, {n}), one column for each row of k_train"
    k_test = np.asarray(check_array("k_test", k_test, shape, empty=True))
    y = np.asarray(check_array("y", y, f"({n},) or ({n}, outputs)"))
    slack = n * max(_eps(k_train), _eps(k_test))
    k_train, k_test, y = (a.astype(np.float64) for a in (k_train, k_test, y))
    check_symmetric("k_train", k_train, slack)
    return (k_train + k_train.T) / 2, k_test, y.reshape(n, -1), slack


def _eps(array):
    floating = np.issubdtype(array.dtype, np.floating)
    return float(np.finfo(array.dtype).eps) if floating else np.finfo(float).eps


def cholesky(
    matrix: Float[np.ndarray, "n n"], slack: float
) -> Float[np.ndarray, "n n"] | None:
    """The lower factor of a symmetric matrix, which is overwritten.

    `None` where the matrix is not positive definite, or its condition number is beyond
    `1 / slack`: the factor may be there then, but of noise.
    """
    check_factorable(len(matrix))
    norm = max(np.abs(row).sum() for row in matrix)
    try:
        # Of the transpose, which LAPACK overwrites in place.
        factor = scipy.linalg.cholesky(matrix.T, lower=True, overwrite_a=True)
    except np.linalg.LinAlgError:
        return None
    reciprocal, _ = scipy.linalg.lapack.dpocon(factor, norm, uplo="L")
    return factor if reciprocal > slack else None


def check_factorable(rows: int) -> None:
    """Refuses matrices of more than 2 GB, at which LAPACK may end the process.

    Seen with SciPy's OpenBLAS, whose Cholesky factorisation reads beyond its memory
    there.
    """
    if rows > _MOST_ROWS:
        raise ValueError(
            f"a matrix of {rows:,} rows is not factored: LAPACK is not safe above "
            f"{_MOST_ROWS:,}; use solver='cg', or nr.solve."
        )


_MOST_ROWS = 16_384


def _initial(name, value, rows, outputs):
    array = np.asarray(check_array(name, value)).astype(np.float64)
    if array.ndim == 1 and outputs == 1:
        array = array[:, None]
    try:
        return np.broadcast_to(array, (rows, outputs))
    except ValueError:
        raise ValueError(
            f"{name} has shape {array.shape}; pass a number or ({rows}, {outputs})."
        ) from None
