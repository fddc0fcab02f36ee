"""Lanczos' method, and the spectrum of a matrix that is only known by its products.

Stochastic Lanczos quadrature, and the leading eigenvalues, see `spectrum`.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import xarray as xr
from jaxtyping import Float

from ntk_resnet._checks import check_count
from ntk_resnet._inputs import check_array
from ntk_resnet._precision import precision_of
from ntk_resnet.analysis.statistics import standard_error
from ntk_resnet.kernels.gram.operator import KernelOperator
from ntk_resnet.records.provenance import provenance

_ROWS = 500  # of a stored matrix that are in memory at a time


def spectrum_by_products(matrix, targets, top, ridge, steps, probes, seed, progress):
    """The same options as those of `spectrum`."""
    n, steps = matrix.shape[0], check_count("steps", steps)
    probes = check_count("probes", probes, least=2)
    seed = check_count("seed", seed, least=0)
    # Directions that are uniform on the sphere; Lanczos' method takes their lengths.
    starts = np.random.default_rng(seed).normal(size=(probes, n)).astype(matrix.dtype)
    diagonal = _diagonal(matrix)
    trace = float(diagonal.sum())
    steps = min(steps, n)
    top = min(10, steps) if top is None else check_top(top, steps)
    if targets is not None:
        targets = check_targets(targets, n).T
        starts = np.concatenate([starts, targets.astype(starts.dtype)])
    eps = float(np.finfo(starts.dtype).eps)
    product, tick = _product_of(matrix), _counter(progress, steps + 1)
    space = krylov(product, starts, steps, tick)
    pairs = _leading(product, space, top, eps)
    tick()
    nodes, weights = quadrature(space, eps)
    largest, smallest = float(np.nanmax(nodes)), float(np.nanmin(nodes))
    bound = eps * (steps * largest + 4 * n * float(diagonal.max()))
    refuse_negative(smallest, bound)

    def traces(function):  # of a function of the matrix, one estimate a probe
        return n * np.nansum(weights[:probes] * function(nodes[:probes]), axis=1)

    logs = traces(lambda v: relative_log(v, largest)) / trace
    log_determinant = traces(lambda v: log_shifted(v, ridge * trace / n))
    rank = trace / largest * float(np.exp(-logs.mean()))
    squares = traces(np.square)
    norm = float(np.sqrt(squares.mean()))
    found: dict[str, Any] = pairs | {
        "node": (("probe", "step"), nodes[:probes], {"long_name": "eigenvalue"}),
        "weight": (("probe", "step"), weights[:probes], {"long_name": "share"}),
        "condition_number": largest / max(smallest, bound),
        "effective_rank": rank,
        "effective_rank_error": rank * float(standard_error(logs)),
        "trace": trace,
        "frobenius_norm": norm,
        "frobenius_norm_error": float(standard_error(squares)) / (2 * norm),
        "log_determinant": float(log_determinant.mean()),
        "log_determinant_error": float(standard_error(log_determinant)),
        "error_bound": bound,
        "negative": int((nodes[:probes] < 0).sum()),
    }
    if targets is not None:
        found["target_node"] = (("output", "step"), nodes[probes:])
        found["target_weight"] = (("output", "step"), weights[probes:])
    return xr.Dataset(
        found,
        attrs=provenance(
            spec=getattr(matrix, "spec", None),
            dtype=str(matrix.dtype),
            n=n,
            ridge=ridge,
            seed=seed,
        ),
    )


def _leading(product, space, top, eps):
    """The largest eigenvalues that one probe knows, and how far they miss."""
    values, inner = ritz(space, 0, eps)
    values, inner = values[: -top - 1 : -1], inner[:, : -top - 1 : -1]
    basis = space.basis[0, : len(inner)].T
    vectors = basis @ inner.astype(basis.dtype)
    missed = product(vectors) - vectors * values.astype(basis.dtype)
    lengths = np.linalg.norm(missed.astype(float), axis=0)
    return {
        "eigenvalue": ("leading", values, {"long_name": "eigenvalue, largest first"}),
        "residual": ("leading", lengths, {"long_name": "length of K u - eigenvalue u"}),
        "eigenvector": (("row", "leading"), vectors),
    }


def _counter(progress, total):
    done = itertools.count(1)

    def tick():
        progress(next(done), total, "products")

    return tick


def _diagonal(matrix):
    if matrix.shape[0] != matrix.shape[1] or not matrix.symmetric:
        raise ValueError(
            "matrix is of one set of rows and another of columns, and has no "
            "eigenvalues; leave x2 out."
        )
    if isinstance(matrix, KernelOperator):
        diagonal = np.asarray(matrix.diagonal(), float)
    else:
        every = np.arange(len(matrix))
        diagonal = matrix[every, every].astype(float)
    if not diagonal.sum() > 0:
        raise ValueError("matrix has the trace 0: it is a gap's, or all zeros.")
    return diagonal


def _product_of(matrix):
    """What multiplies a block of vectors, on the host."""
    rows = range(0, matrix.shape[0], _ROWS)

    def by_operator(v):
        with precision_of(v):
            return np.asarray(matrix(v))

    def from_store(v):
        return np.concatenate([matrix[i : i + _ROWS] @ v for i in rows])

    return by_operator if isinstance(matrix, KernelOperator) else from_store


# ------------------------------------------------------------------- Lanczos' method


class Krylov(NamedTuple):
    """Tridiagonal matrices `V' K V`, one for each start vector.

    `off[:, -1]` is the length of what is left over after the last step.
    """

    basis: Float[np.ndarray, "k m n"]
    diagonal: Float[np.ndarray, "k m"]
    off: Float[np.ndarray, "k m"]


class Quadrature(NamedTuple):
    """Gauss quadrature of the spectral measures of the start vectors.

    Nodes ascend; where the Krylov space was used up early they are NaN, of weight 0.
    The weights of a start vector sum to 1.
    """

    nodes: Float[np.ndarray, "k m"]
    weights: Float[np.ndarray, "k m"]


def krylov(
    product: Callable[[np.ndarray], np.ndarray],
    starts: Float[np.ndarray, "k n"],
    steps: int,
    tick: Callable[[], Any],
) -> Krylov:
    """`steps` steps from every start vector, side by side, reorthogonalised in full.

    The loop is the host's, in the dtype of the starts: beside a product, whose work is
    that of the whole matrix, the rest is little.

    Args:
        product: takes a block `(n, k)` to its product with the matrix.
        starts: in the dtype of the products, of any length but 0.
        steps: at most n.
        tick: called after each product.
    """
    count, n = starts.shape
    basis = np.zeros((count, steps, n), starts.dtype)
    diagonal, off = np.zeros((2, count, steps))
    vectors = _unit(starts, np.linalg.norm(starts, axis=1))
    for step in range(steps):
        basis[:, step] = vectors
        rest = product(vectors.T).T
        tick()
        known = basis[:, : step + 1]
        for _ in range(2):  # twice is enough (Giraud et al. 2005)
            along = known @ rest[:, :, None]
            rest = rest - (known.swapaxes(1, 2) @ along)[:, :, 0]
            diagonal[:, step] += along[:, -1, 0]
        off[:, step] = np.linalg.norm(rest, axis=1)
        vectors = _unit(rest, off[:, step])
    return Krylov(basis, diagonal, off)


def _unit(vectors, lengths):
    """Of length 1, or zeros where there is nothing left."""
    lengths = np.where(lengths > 0, lengths, 1)[:, None]
    return (vectors / lengths).astype(vectors.dtype)


def ritz(
    space: Krylov, at: int, eps: float
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m m"]]:
    """Eigenvalues, ascending, and vectors of one tridiagonal matrix.

    It is cut where a length is zero to rounding: from there on it holds noise.
    """
    diagonal, off = space.diagonal[at], space.off[at]
    steps, n = len(diagonal), space.basis.shape[2]
    scale = np.fmax.accumulate(np.abs(diagonal) + np.abs(off))
    ended = off <= n * eps * scale
    steps = int(np.argmax(ended)) + 1 if ended.any() else steps
    return scipy.linalg.eigh_tridiagonal(diagonal[:steps], off[: steps - 1])


def quadrature(space: Krylov, eps: float) -> Quadrature:
    """The Gauss rules behind the tridiagonal matrices (Golub and Welsch 1969)."""
    nodes = np.full(space.diagonal.shape, np.nan)
    weights = np.zeros(space.diagonal.shape)
    for at in range(len(nodes)):
        values, vectors = ritz(space, at, eps)
        nodes[at, : len(values)] = values
        weights[at, : len(values)] = vectors[0] ** 2
    return Quadrature(nodes, weights)


# --------------------------------------- what is asked of eigenvalues however found


def relative_log(values, largest):
    """`v ln(v / largest)`, whose sum S gives the effective rank.

    It is `trace / largest * exp(-S / trace)`: written so, a leading eigenvalue adds
    nothing to the sum, nor to the scatter of an estimate.
    """
    values = np.clip(np.asarray(values, float), 0, None)
    return values * np.log(np.where(values > 0, values / largest, 1))


def log_shifted(values, shift):
    """`ln(v + shift)`; where that is 0, minus infinity."""
    with np.errstate(divide="ignore"):
        return np.log(np.clip(np.asarray(values, float), 0, None) + shift)


def refuse_negative(smallest, bound):
    """Raises where an eigenvalue is further below zero than rounding explains."""
    if smallest < -bound:
        raise ValueError(
            f"matrix has the eigenvalue {smallest:.3g}, below zero by more than "
            f"rounding ({bound:.1g}); it is not a kernel matrix."
        )


def check_top(top, most):
    """How many leading eigenvectors are wanted; raises if there are fewer."""
    if check_count("top", top) > most:
        raise ValueError(f"top must be at most {most} here, got {top}; ask for fewer.")
    return top


def check_targets(targets, n):
    """The targets as `(n, outputs)`, up to a scale of each output."""
    targets = np.asarray(check_array("targets", targets, f"({n},) or ({n}, outputs)"))
    targets = targets.reshape(n, -1).astype(float)
    if not targets.any(axis=0).all():
        raise ValueError("targets are zero in one output, whose power lies nowhere.")
    return targets / np.abs(targets).max(axis=0)  # only shares count: no overflow
