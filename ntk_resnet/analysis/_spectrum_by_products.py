"""The spectrum of a kernel matrix that is only known by its products.

Stochastic Lanczos quadrature, and the leading eigenvalues, see `spectrum`.
"""

import itertools
from typing import Any

import numpy as np
import xarray as xr

from ntk_resnet._checks import check_count
from ntk_resnet._precision import precision_of
from ntk_resnet.analysis import _lanczos, _spectral
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
    top = min(10, steps) if top is None else _spectral.check_top(top, steps)
    if targets is not None:
        targets = _spectral.check_targets(targets, n).T
        starts = np.concatenate([starts, targets.astype(starts.dtype)])
    eps = float(np.finfo(starts.dtype).eps)
    product, tick = _product_of(matrix), _counter(progress, steps + 1)
    space = _lanczos.krylov(product, starts, steps, tick)
    pairs = _leading(product, space, top, eps)
    tick()
    nodes, weights = _lanczos.quadrature(space, eps)
    largest, smallest = float(np.nanmax(nodes)), float(np.nanmin(nodes))
    bound = eps * (steps * largest + 4 * n * float(diagonal.max()))
    _spectral.refuse_negative(smallest, bound)

    def traces(function):  # of a function of the matrix, one estimate a probe
        return n * np.nansum(weights[:probes] * function(nodes[:probes]), axis=1)

    logs = traces(lambda v: _spectral.relative_log(v, largest)) / trace
    log_determinant = traces(lambda v: _spectral.log_shifted(v, ridge * trace / n))
    rank = trace / largest * float(np.exp(-logs.mean()))
    squares = traces(np.square)
    norm = float(np.sqrt(squares.mean()))
    found: dict[str, Any] = pairs | {
        "node": (("probe", "step"), nodes[:probes], {"long_name": "eigenvalue"}),
        "weight": (("probe", "step"), weights[:probes], {"long_name": "share"}),
        "condition_number": largest / max(smallest, bound),
        "effective_rank": rank,
        "effective_rank_error": rank * float(_spectral.standard_error(logs)),
        "trace": trace,
        "frobenius_norm": norm,
        "frobenius_norm_error": float(_spectral.standard_error(squares)) / (2 * norm),
        "log_determinant": float(log_determinant.mean()),
        "log_determinant_error": float(_spectral.standard_error(log_determinant)),
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
    values, inner = _lanczos.ritz(space, 0, eps)
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
