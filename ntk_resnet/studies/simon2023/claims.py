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
    return exact(total / found.n, 1e-9)


def _sum_over(known):
    def measure(found):
        one = found.isel(ridge=1)
        total = one.learnability.sum("mode") / one[known]
        return over_seeds(total.transpose("trial", "n").values, what="trials")

    return measure


def _each_mode(found):
    """Root mean square over modes of the distance to the prediction."""
    away = found.learnability.mean("trial") - found.predicted
    size = np.sqrt((away**2).mean("mode"))
    count = found.sizes["trial"]
    error = np.sqrt((found.learnability.var("trial", ddof=1) / count).mean("mode"))
    return Measured(size, np.maximum(size - 2 * error, 0), size + 2 * error, "2 s.e.")


def data_ratio(found):
    """Measured over predicted, with 95 % intervals over trials (Student's t)."""
    trials = found.attrs["trials"]
    ratio = found.measured_test_mse / found.test_mse
    error = found.measured_test_mse_error / found.test_mse
    return of_error(ratio, error, trials, f"over {trials} trials")


# ------------------------------------------------------------------------------ claims

FRAMEWORK = "equations of the framework"
CLAIMS = [
    Claim(
        name="11.6",
        statement="test errors on the sphere are those predicted from the spectrum: "
        "measured over predicted, a target of degrees 1, 2 and 4, each network and n",
        source=FRAMEWORK,
        known="read",
        of="sphere",
        measure=lambda found: ratio_to_theory(found, "error", mixture),
        predicted=1.0,
        tolerance=0.05,
        reason="5 %: spherical harmonics are not Gaussian features",
        figure="curves",
    ),
    Claim(
        name="11.6",
        statement="so are training errors, (δ/(nκ))² of the test errors, ridge 10^(−3)",
        source=FRAMEWORK,
        known="read",
        of="sphere",
        measure=lambda found: ratio_to_theory(found, "train_error", mixture),
        predicted=1.0,
        tolerance=0.05,
        reason="5 %, as above",
        figure="curves",
    ),
    Claim(
        name="11.6",
        statement="of a target that is noise of variance 1, too: E₀ on new points",
        source=FRAMEWORK,
        known="read",
        of="sphere",
        measure=lambda found: ratio_to_theory(
            found, "error", lambda v: v.sel(degree=0)
        ),
        predicted=1.0,
        tolerance=0.05,
        reason="5 %, as above",
        figure="curves",
    ),
    Claim(
        name="11.6",
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
        name="11.6, sum",
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
        name="11.6, sum",
        statement="with a ridge they add up to n − δ/κ, in theory for independent "
        "points: sum over that, n to half of the points",
        source="conservation law of learnability",
        known="read",
        of="conservation",
        measure=_sum_over("independent_sum"),
        predicted=1.0,
        tolerance=0.05,
        reason="5 %, as above; but these points are drawn without return",
        figure="conservation",
    ),
    Claim(
        name="11.6, sum",
        statement="in theory for points drawn without return, where the ridge is part "
        "of the kernel: sum of learnabilities over the predicted one",
        source="our own extension to finite sets",
        known="derived",
        of="conservation",
        measure=_sum_over("predicted_sum"),
        predicted=1.0,
        tolerance=0.05,
        reason="5 %, as above",
        figure="conservation",
    ),
    Claim(
        name="11.6, sum",
        statement="each mode is learned as predicted: root mean square over modes of "
        "measured minus predicted learnability",
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
        name="11.6, data",
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
