"""What the framework predicts, and what is measured of it."""

import numpy as np

from ntk_resnet.studies.ledger import Claim, Measured, exact, of_error, over_seeds
from ntk_resnet.studies.simon2023.measurements import POWER


def mixture(values):
    """Of the target of several degrees: errors add, since these are orthogonal."""
    return sum(power * values.sel(degree=k) for k, power in POWER.items())


def noise(values):
    """Of targets that are noise."""
    return values.sel(degree=0)


def ratio_to_theory(found, name, pick):
    """Measured over predicted, with intervals over trials."""
    values = pick(found[name]) / pick(found[f"predicted_{name}"])
    return over_seeds(values.transpose("trial", ...).values, what="trials")


def _learned(found):
    values = found.learnability.sel(degree=list(POWER))
    away = values - found.predicted_learnability
    return over_seeds(away.transpose("trial", ...).values, what="trials")


def _sum_without_ridge(found):
    total = found.learnability.sel(ridge=0.0).sum("mode")
    share = (total / found.n).transpose("trial", "n")
    error = found.rounding.transpose("trial", "n")
    return exact(share, error.values, "rounding, n ε times the condition number")


def _sum_over(known):
    def measure(found):
        one = found.isel(ridge=1)
        total = one.learnability.sum("mode") / one[known]
        return over_seeds(total.transpose("trial", "n").values, what="trials")

    return measure


def _each_mode(found):
    """Root mean square over modes of the distance to the prediction.

    Its square is that of the mean over trials, less what noise adds to this: by the
    jackknife, which takes away all of it.
    """
    each = found.learnability.transpose("trial", "ridge", "n", "mode").values
    known = found.predicted.transpose("ridge", "n", "mode").values
    count, total = len(each), each.sum(axis=0)
    whole = np.mean((total / count - known) ** 2, axis=-1)
    without = np.mean(((total - each) / (count - 1) - known) ** 2, axis=-1)
    *ends, around = over_seeds(count * whole - (count - 1) * without, what="trials")
    value, low, high = np.sqrt(np.maximum(ends, 0))
    return Measured(value, low, high, f"{around}, jackknife")


def _gaussian_ratio(found):
    """Test and training errors over the predicted ones."""
    names = ("error", "train_error")
    ratios = [
        (found[name] / found[f"predicted_{name}"]).transpose("trial", "n").values
        for name in names
    ]
    return over_seeds(np.stack(ratios, axis=1), what="trials")


def data_ratio(found):
    """Measured over predicted, with 95 % intervals over trials (Student's t)."""
    trials = found.attrs["trials"]
    ratio = found.measured_test_mse / found.test_mse
    error = found.measured_test_mse_error / found.test_mse
    return of_error(ratio, error, trials, f"over {trials} trials")


# ------------------------------------------------------------------------------ claims

FRAMEWORK = "equations of the framework"
FIVE = "5 %: spherical harmonics are not Gaussian features"
CLAIMS = [
    Claim(
        name="test-error",
        statement="test errors on the sphere are those predicted from the spectrum: "
        "measured over predicted, a target of degrees 1, 2 and 4, each network and n",
        source=FRAMEWORK,
        known="read",
        of="sphere",
        measure=lambda found: ratio_to_theory(found, "error", mixture),
        predicted=1.0,
        tolerance=0.05,
        reason=FIVE,
        figure="curves",
    ),
    Claim(
        name="training-error",
        statement="training errors on the sphere are (δ/(nκ))² of the test errors: "
        "measured over predicted, ridge 10^(−3), degrees 1, 2 and 4, each network and "
        "n",
        source=FRAMEWORK,
        known="read",
        of="sphere",
        measure=lambda found: ratio_to_theory(found, "train_error", mixture),
        predicted=1.0,
        tolerance=0.05,
        reason=FIVE,
        figure="curves",
    ),
    Claim(
        name="noise",
        statement="test errors on the sphere with a target that is noise of variance 1 "
        "are E₀: measured over predicted, each network and n",
        source=FRAMEWORK,
        known="read",
        of="sphere",
        measure=lambda found: ratio_to_theory(found, "error", noise),
        predicted=1.0,
        tolerance=0.05,
        reason=FIVE,
        figure="curves",
    ),
    Claim(
        name="learnability",
        statement="of a function of degree k the share L = μ/(μ + κ) is learned: "
        "measured minus predicted, degrees 1, 2 and 4",
        source=FRAMEWORK,
        known="read",
        of="sphere",
        measure=_learned,
        predicted=0.0,
        tolerance=0.05,
        reason="5 % of a function that is learned whole",
        figure="learnability",
    ),
    Claim(
        name="gaussian",
        statement="with {modes} Gaussian features of eigenvalues i^(−2), target power "
        "i^(−3/2), test and training errors are the predicted ones: measured over "
        "predicted, ridge {ridge:g}, noise {noise:g}, each n",
        source=f"{FRAMEWORK}; the sizes and powers are ours",
        known="read",
        of="gaussian",
        measure=_gaussian_ratio,
        predicted=1.0,
        tolerance=0.05,
        reason="5 %: theory is exact for many examples; and the noise of the mean",
        figure="gaussian",
    ),
    Claim(
        name="sum-without-ridge",
        statement="without ridge the learnabilities of all modes add up to n, in every "
        "trial: sum over n, circle of {points} points",
        source="conservation law of learnability",
        known="read",
        of="conservation",
        measure=_sum_without_ridge,
        predicted=1.0,
        tolerance=1e-6,
        reason="it is exact; conditioning of the matrices",
        figure="conservation",
    ),
    Claim(
        name="sum-independent-points",
        statement="with a ridge the learnabilities of all modes add up to n − δ/κ, in "
        "theory for independent points: sum over that, n to half of {points} points "
        "of a circle",
        source="conservation law of learnability",
        known="read",
        of="conservation",
        measure=_sum_over("independent_sum"),
        predicted=1.0,
        tolerance=0.05,
        reason="5 %: modes of a circle are not Gaussian, and these points are drawn "
        "without return",
        figure="conservation",
    ),
    Claim(
        name="sum-finite-set",
        statement="with a ridge, which for points drawn without return is part of the "
        "kernel, learnabilities add up to the sum predicted for these: measured over "
        "predicted, n to half of {points} points of a circle",
        source="the framework, extended here to draws without return",
        known="derived",
        of="conservation",
        measure=_sum_over("predicted_sum"),
        predicted=1.0,
        tolerance=0.05,
        reason="5 %: modes of a circle are not Gaussian",
        figure="conservation",
    ),
    Claim(
        name="each-mode",
        statement="each mode of a circle of {points} points is learned as predicted: "
        "root mean square over modes of measured minus predicted learnability",
        source=FRAMEWORK,
        known="read",
        of="conservation",
        measure=_each_mode,
        predicted=0.05,
        side="below",
        reason="5 % of a mode that is learned whole",
        figure="conservation",
    ),
    Claim(
        name="data",
        statement="test errors on {data} are those predicted from the Gram matrix of "
        "all {rows} rows: measured over predicted, each network and n",
        source="the framework on real data",
        known="read",
        of="on_data",
        measure=data_ratio,
        predicted=1.0,
        tolerance=0.1,
        reason="10 %: rows of real data are unlike random directions",
        figure="data",
    ),
]
