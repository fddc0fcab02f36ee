r"""Eigenvalues of kernel matrices, and what they say about conditioning.

Of a matrix in memory all of them; of one that is only known by its products the leading
ones, and the distribution of all by stochastic Lanczos quadrature: a random unit vector
`v` spreads over the eigenvectors evenly, so that `v' f(K) v` is `tr f(K) / n` in the
mean, and Lanczos' method on `v` gives the Gauss rule of that measure.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import ArrayLike, Float, Num
from scipy.interpolate import PchipInterpolator

from ntk_resnet._checks import check_number
from ntk_resnet._inputs import FLOATS, check_array, check_symmetric
from ntk_resnet._precision import precision_of
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.analysis import lanczos
from ntk_resnet.analysis.statistics import standard_error
from ntk_resnet.kernels.gram.operator import KernelOperator
from ntk_resnet.kernels.gram.stored import StoredGram
from ntk_resnet.records.provenance import provenance


def spectrum(
    matrix: Float[ArrayLike, "n n"] | KernelOperator | StoredGram,
    *,
    targets: Num[ArrayLike, " n"] | Num[ArrayLike, "n k"] | None = None,
    top: int | None = None,
    probes: int = 10,
    steps: int = 100,
    ridge: float = 1e-3,
    seed: int = 0,
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""Eigenvalues of a symmetric positive semi-definite matrix, and summaries of them.

    Args:
        matrix: `(n, n)`, float32 or float64, symmetric up to `8 n eps` of its largest
            entry; or a `gram_operator`, a `finite.empirical_ntk_operator` or a stored
            `gram`, of which only products are taken: `steps + 1` with blocks.
        targets: `(n,)` or `(n, k)`; where their power lies among the eigenvectors. The
            mean is a part of it: centre them to leave it out.
        top: how many leading eigenvectors to return (and, by products, eigenvalues);
            by default none of a matrix in memory, else 10.
        probes, steps: of an operator: random vectors (two or more), and Lanczos steps
            on each. Memory: `(probes + k) steps n` numbers.
        ridge: of the log-determinant, relative to the mean of the diagonal.
        seed: of the probes.
        progress: called as `progress(done, total, text)` after each product.

    Returns:
        A dataset with the scalars

        * `trace` (of an operator, the sum of its diagonal), `effective_rank`
          (exponential of the entropy of the eigenvalues, in [1, n]), `frobenius_norm`
          and `log_determinant` of :math:`K + \lambda \bar d I`,
          :math:`\bar d = \operatorname{tr} K / n`;
        * `condition_number`, largest over smallest (infinite where the smallest is zero
          to rounding); of an operator a number that it exceeds, since Lanczos' method
          finds the smallest eigenvalue from above;
        * `error_bound`, within which every eigenvalue is exact (Weyl) and below which
          it cannot be told from zero: `n eps` times the largest; of an operator, whose
          products are rounded, `eps` times `steps` times the largest and `4 n` times
          the largest diagonal entry; and `negative`, the number of eigenvalues (nodes)
          below zero within it.

        Of a matrix in memory, over `index`: `eigenvalue`, largest first; with `targets`
        `alignment` over `(index, output)`, the share of the target's power along the
        eigenvector, and `cumulative_alignment`, their sums (of equal eigenvalues only
        the sum means anything); with `top`, `eigenvector` over `(row, leading)`.

        Of an operator, over `leading`: `eigenvalue`, the `top` largest found from one
        probe, and `residual`, the length of `K u - eigenvalue u`: an eigenvalue lies
        within it (one of several equal ones is found once); `eigenvector` over
        `(row, leading)`. Over `(probe, step)`: `node` and `weight`, the distribution of
        the eigenvalues (`spectral_distribution`); with `targets` over `(output, step)`
        `target_node` and `target_weight`, the distribution of the target's power over
        them, which has no sampling error. Nodes are NaN, of weight 0, where there are
        fewer distinct eigenvalues than steps. `effective_rank_error`,
        `frobenius_norm_error` and `log_determinant_error` are standard errors over
        probes; the quadrature's own error is not in them: repeat with more steps to see
        it.

    Raises:
        ValueError: not a square symmetric matrix of finite numbers, or an eigenvalue
            below zero by more than `error_bound`: the matrix is not a kernel's; targets
            that do not fit or are zero; an option out of its range.

    Sources: Golub & Welsch 1969 (quadrature), Ubaru, Chen & Saad 2017 (stochastic
    Lanczos quadrature).

    Accuracy: against LAPACK and known matrices, distributions within 3 standard errors
    (`tests/analysis/test_spectrum.py`).
    """
    ridge = check_number("ridge", ridge)
    if isinstance(matrix, KernelOperator | StoredGram):
        how = steps, probes, seed, progress
        return lanczos.spectrum_by_products(matrix, targets, top, ridge, *how)
    return _dense(_check_matrix(matrix), targets, top, ridge)


def spectral_distribution(result: xr.Dataset, at: Num[ArrayLike, " k"]) -> xr.Dataset:
    """The share of eigenvalues that are at most `at`, from a result of `spectrum`.

    Args:
        result: of a matrix in memory, or of an operator.
        at: values `(k,)`.

    Returns:
        A dataset over `at`: `share`, in [0, 1], and `standard_error`, of the mean over
        probes; 0 for a matrix in memory. Of an operator also `lowest` and `highest`:
        the quadrature leaves open where between them the share for these probes lies
        (Chebyshev, Markov and Stieltjes); `share` goes half way at each node, between
        them on a monotone cubic.

    Raises:
        ValueError: `at` is not a list of finite numbers, or `result` is another's.

    The probes' measures are Dirichlet distributed: the standard error is close to
    `sqrt(2 F (1 - F) / n / probes)`, and the largest deviation over all values, times
    `sqrt(n probes / 2)`, has Kolmogorov's distribution.
    """
    at = np.asarray(at, float)
    if at.ndim != 1 or at.size == 0 or not np.isfinite(at).all():
        raise ValueError(f"at must be a list of finite numbers, got {at!r}.")
    if "node" in result:
        each = [_interpolated(nodes, weights, at) for nodes, weights in _rules(result)]
        share, lowest, highest = (np.array(part) for part in zip(*each, strict=True))
        found = {
            "share": share.mean(axis=0),
            "standard_error": standard_error(share),
            "lowest": lowest.mean(axis=0),
            "highest": highest.mean(axis=0),
        }
    elif "eigenvalue" in result:
        values = np.sort(result.eigenvalue.values)
        share = np.searchsorted(values, at, side="right") / values.size
        found = {"share": share, "standard_error": np.zeros_like(at)}
    else:
        raise ValueError("result holds no eigenvalues; pass what nr.spectrum returned.")
    return xr.Dataset(
        {name: ("at", values) for name, values in found.items()}, coords={"at": at}
    )


def _rules(result):
    for nodes, weights in zip(result.node.values, result.weight.values, strict=True):
        real = np.isfinite(nodes)
        yield nodes[real], weights[real]


def _interpolated(nodes, weights, at):
    """The distribution function of a Gauss rule, and its rigorous bounds."""
    total = np.cumsum(weights)
    below = np.searchsorted(nodes, at, side="right")
    steps = np.concatenate([[0.0, 0.0], total, [1.0]])
    if len(nodes) == 1:
        share = (at >= nodes[0]).astype(float)
    else:
        share = PchipInterpolator(nodes, total - weights / 2)(at)
        share = np.where(at < nodes[0], 0, np.where(at >= nodes[-1], 1, share))
    return share, steps[below], steps[np.minimum(below + 2, len(steps) - 1)]


# ------------------------------------------------------------------ a matrix in memory


def _dense(matrix, targets, top, ridge):
    n = len(matrix)
    top = 0 if top is None else lanczos.check_top(top, n)
    targets = None if targets is None else lanczos.check_targets(targets, n)
    wants_vectors = targets is not None or top > 0
    with precision_of(matrix):
        matrix = jnp.asarray(matrix)
        if wants_vectors:
            values, vectors = (np.asarray(a) for a in jnp.linalg.eigh(matrix))
            vectors = vectors[:, ::-1]
        else:
            values = np.asarray(jnp.linalg.eigvalsh(matrix))
    values = values[::-1]
    largest, smallest = float(np.abs(values).max()), float(values[-1])
    trace = float(np.sum(values))
    bound = n * float(np.finfo(values.dtype).eps) * largest
    lanczos.refuse_negative(smallest, bound)
    entropy = float(lanczos.relative_log(values, largest).sum() / trace)
    shifted = lanczos.log_shifted(values, ridge * trace / n)
    found: dict[str, Any] = {
        "eigenvalue": ("index", values, {"long_name": "eigenvalue, largest first"}),
        "condition_number": largest / smallest if smallest > bound else np.inf,
        "effective_rank": trace / largest * float(np.exp(-entropy)),
        "trace": trace,
        "frobenius_norm": float(np.linalg.norm(values)),
        "log_determinant": float(shifted.sum()),
        "error_bound": bound,
        "negative": int((values < 0).sum()),
    }
    if targets is not None:
        power = (vectors.T.astype(float) @ targets) ** 2
        share = power / power.sum(axis=0)
        dims = ("index", "output")
        found["alignment"] = (dims, share, {"long_name": "share of the target's power"})
        found["cumulative_alignment"] = (dims, np.cumsum(share, axis=0))
    if top:
        found["eigenvector"] = (("row", "leading"), vectors[:, :top])
    return xr.Dataset(
        found,
        coords={"index": np.arange(n)},
        attrs=provenance(dtype=str(values.dtype), ridge=ridge),
    )


def _check_matrix(matrix):
    shape = "a square matrix (n, n)"
    matrix = check_array("matrix", matrix, shape, dtype=FLOATS)
    host = np.asarray(matrix)
    largest = np.abs(host).max()
    if largest == 0:
        raise ValueError("matrix is all zeros and has no spectrum to speak of.")
    limits = np.finfo(host.dtype)
    if not limits.tiny / limits.eps < largest < limits.max / len(host) ** 2:
        raise ValueError(
            f"matrix has entries of {largest:.3g}, near the end of the range of "
            f"{host.dtype}; divide it by that."
        )
    check_symmetric("matrix", host)
    return matrix
