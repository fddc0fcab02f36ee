r"""How the error of kernel ridge regression falls with the number of examples.

Theory takes the features for Gaussian: all that counts are the eigenvalues of the
kernel under the distribution of the inputs, and the power of the target in the
eigenspaces. `learning_trials` has beside it what regressions make of it.
"""

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import ArrayLike, Num
from scipy import optimize

from ntk_resnet._checks import check_number
from ntk_resnet.records.provenance import provenance

_EPS = float(np.finfo(float).eps)
_LEAST = math.log(np.finfo(float).tiny)  # of ln kappa

_LONG_NAMES = {
    "effective_ridge": "effective ridge kappa",
    "learnability": "learnability of a mode",
    "overfitting": "overfitting coefficient E_0",
    "test_mse": "predicted mean squared error on new points",
    "train_mse": "predicted mean squared error on the training points",
    "measured_test_mse": "mean squared error on new points",
    "measured_test_mse_error": "standard error of its mean over trials",
    "measured_train_mse": "mean squared error on the training points",
    "measured_train_mse_error": "standard error of its mean over trials",
}


def learning_curve(
    eigenvalues: Num[ArrayLike, " mode"] | Sequence[float | int],
    multiplicities: Num[ArrayLike, " mode"] | Sequence[float | int],
    target_power: Num[ArrayLike, " mode"] | Sequence[float | int],
    sizes: Sequence[int] | Num[ArrayLike, " n"],
    *,
    ridge: float = 0.0,
    noise: float = 0.0,
    tail: float = 0.0,
) -> xr.Dataset:
    r"""Predicted errors of kernel ridge regression on n independent examples.

    With eigenvalues :math:`\lambda_i` of multiplicity :math:`N_i`, the power
    :math:`p_i` of the target in each eigenspace, and
    :math:`\delta = \lambda\,\operatorname{tr}` (the ridge),

    .. math::
        \sum_i N_i L_i + \frac{\delta + t}{\kappa} = n, \quad
        L_i = \frac{\lambda_i}{\lambda_i + \kappa}, \quad
        E_0 = \frac{n}{n - \sum_i N_i L_i^2}, \
        \text{test} = E_0 \Big(\sum_i (1 - L_i)^2 p_i + \sigma^2\Big), \quad
        \text{train} = \Big(\frac{\delta}{n\kappa}\Big)^2 \text{test}.

    Args:
        eigenvalues: >= 0, under the distribution of the inputs; of 0 for power of the
            target that the kernel cannot express.
        multiplicities: of each, >= 0 (an eigenspace is one mode).
        target_power: mean square of the target's part in each eigenspace, summed.
        sizes: numbers of examples n >= 1; the result has each once, ascending.
        ridge: relative to the mean diagonal of the kernel, here its trace
            `sum(eigenvalues * multiplicities) + tail` (1 for a normalised kernel), as
            in `kernel_ridge`.
        noise: variance of the noise on the targets, the test targets too.
        tail: the eigenvalues that are not listed, summed: all are taken for smaller
            than `kappa`, so that they act as a ridge, and free of target power.

    Returns:
        A dataset over `n`: `test_mse` (subtract `noise` for the error against the clean
        target), `train_mse`, `effective_ridge` kappa, `overfitting` E_0, and
        `learnability` L over `(n, mode)`. Where there is neither ridge nor tail nor
        more modes than examples, kappa is 0, and at `n` equal to their number E_0 is
        infinite: the interpolation peak (the error is NaN where it is 0 times that).

    Raises:
        ValueError: lists of unequal length, negative or infinite values, no positive
            eigenvalue.

    Sources: Bordelon, Canatar & Pehlevan 2020; Simon et al. 2021 (in these letters).

    Accuracy: kappa to 1e-12 relative, unless `n` nearly equals the number of modes
    (against 50 digits, `tests/analysis/test_learning_curve.py`); the theory itself is
    exact for Gaussian features and many modes.
    """
    values = _checked("eigenvalues", eigenvalues)
    counts = _checked("multiplicities", multiplicities)
    power = _checked("target_power", target_power)
    if not len(values) == len(counts) == len(power):
        raise ValueError(
            f"eigenvalues, multiplicities and target_power have {len(values)}, "
            f"{len(counts)} and {len(power)} entries; give one of each a mode."
        )
    if not (values * counts > 0).any():
        raise ValueError("eigenvalues are all zero: there is nothing to learn with.")
    examples = check_sizes(sizes)
    ridge, noise, tail = (
        check_number(name, value)
        for name, value in (("ridge", ridge), ("noise", noise), ("tail", tail))
    )
    shift = ridge * (float(values @ counts) + tail)
    found: dict[str, list] = {name: [] for name in list(_LONG_NAMES)[:5]}
    for n in examples:
        kappa = _effective_ridge(values, counts, shift + tail, n)
        some = np.where(values > 0, values, 1)
        missed = np.where(values > 0, kappa / (some + kappa), 1)  # 1 - L
        learned = np.where(values > 0, some / (some + kappa), 0)
        # n - sum N L^2 without its cancellation: by the equation for kappa.
        if kappa > 0:
            left = counts @ (learned * missed) + (shift + tail) / kappa
            unfitted = shift / (n * kappa)
        else:
            left = n - counts @ learned
            unfitted = left / n
        with np.errstate(invalid="ignore", divide="ignore"):
            overfitting = np.divide(n, left)
            test = overfitting * (missed**2 @ power + noise)
        found["effective_ridge"].append(kappa)
        found["learnability"].append(learned)
        found["overfitting"].append(overfitting)
        found["test_mse"].append(test)
        found["train_mse"].append(unfitted**2 * test if unfitted > 0 else 0.0)
    return xr.Dataset(
        {name: as_variable(name, value) for name, value in found.items()},
        coords={"n": examples},
        attrs=provenance(ridge=ridge, noise=noise, tail=tail),
    )


def _effective_ridge(values, counts, shift, n):
    """The root kappa, by its logarithm; 0 where the modes are fewer than examples."""
    if shift == 0 and counts[values > 0].sum() <= n:
        return 0.0

    def excess(log_kappa):
        kappa = math.exp(log_kappa)
        # L of small eigenvalues and 1 - L of large ones: no cancellation against n.
        large = values > kappa
        parts = np.where(large, -kappa, values) / (values + kappa)
        return (counts[large].sum() - n) + counts @ parts + shift / kappa

    high = math.log((values @ counts + shift) / n)
    low = high - 1
    while excess(low) <= 0:
        low -= 2 * (high - low)
        if low < _LEAST:
            raise ValueError(
                "the effective ridge is below the range of float64: ridge and tail are "
                f"{shift:.2g}; pass 0, or more."
            )
    if excess(high) >= 0:  # all eigenvalues far below kappa: the bound is the root
        return math.exp(high)
    return math.exp(optimize.brentq(excess, low, high, xtol=1e-15, rtol=4 * _EPS))


def as_variable(name, values):
    values = np.asarray(values, float)
    dims = ("n", "mode")[: values.ndim]
    return (dims, values, {"long_name": _LONG_NAMES[name]})


def _checked(name, values):
    values = np.asarray(values)
    if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be a non-empty list of numbers.")
    values = values.astype(float)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        raise ValueError(
            f"{name} must be finite and >= 0, got {values[bad][0]}; of the sphere take "
            "fewer degrees, and the rest as tail."
        )
    return values


def check_sizes(sizes):
    sizes = np.atleast_1d(np.asarray(sizes))
    if sizes.ndim != 1 or sizes.size == 0 or sizes.dtype.kind not in "iu":
        raise ValueError(f"sizes must be whole numbers >= 1, got {sizes!r}.")
    if sizes.min() < 1:
        raise ValueError(f"sizes must be at least 1, got {sizes.min()}.")
    return np.unique(sizes).tolist()
