"""The study of Xiao et al.: its measurements, and that its verdicts can fail."""

import math

import ledger_checks
import numpy as np
import pytest

from ntk_resnet.studies import xiao2020
from ntk_resnet.studies.ledger import FAILS, judge
from ntk_resnet.studies.xiao2020 import claims, measurements


@pytest.fixture(scope="module")
def one():
    study = ledger_checks.small(
        xiao2020.STUDY,
        fixed_points={},
        matrices={"points": 16, "depths": [15, 20, 30], "far": [30, 100, 300]},
        approach={"depths": [300, 1000, 3000], "angles": [0.5, 2.0]},
    )
    return ledger_checks.run(study)


def own_kernel(weight, inputs, cosine, depth):
    """The normalised NTK of the error function by the plain recursion."""
    q, c = weight * inputs + 0.3, weight * inputs * cosine + 0.3
    diagonal, entry = q, c
    for layer in range(depth):
        last = layer == depth - 1  # the readout has variance 1, and no bias
        w, b = (1.0, 0.0) if last else (weight, 0.3)
        slope = [4 / math.pi / math.sqrt((1 + 2 * q) ** 2 - 4 * v * v) for v in (q, c)]
        second = [2 / math.pi * math.asin(2 * v / (1 + 2 * q)) for v in (q, c)]
        diagonal = w * second[0] + b + w * slope[0] * diagonal
        entry = w * second[1] + b + w * slope[1] * entry
        q, c = (w * value + b for value in second)
    return entry / diagonal


def test_wrong_predictions_fail(one):
    ledger_checks.check_wrong_predictions_fail(one)


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def test_a_smooth_network_does_not_have_the_limit_of_relu(one):
    claim = next(c for c in xiao2020.CLAIMS if "(m+2)/2" in c.statement)
    found = one.results["matrices"].copy(deep=True)
    found["predicted"][:] = (16 + 3) / 3
    assert judge("", claim, found, 0.0).verdict == FAILS


def test_weight_variances_have_their_slopes():
    for slope in measurements.SLOPES.values():
        q, weight = measurements.variance_of(slope), measurements.weight_of(slope)
        second = 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q))
        assert weight * second + 0.3 == pytest.approx(q, rel=1e-13)
        own = weight * 4 / np.pi / np.sqrt((1 + 2 * q) ** 2 - 4 * q * q)
        assert own == pytest.approx(slope, rel=1e-13)


def test_shortfall_agrees_with_an_own_recursion(one):
    """To the rounding that a kernel of 1000 layers carries without its gap."""
    found = one.results["approach"]
    for angle in found.angle.values:
        own = own_kernel(measurements.weight_of(1.0), 1.0, math.cos(angle), 1000)
        shortfall = float(found.shortfall.sel(depth=1000, angle=angle))
        assert shortfall == pytest.approx(1 / 3 - own, abs=1e-9)


def test_condition_number_and_entries_are_those_of_an_own_matrix(one):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 10))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    slope = measurements.SLOPES["chaotic"]
    weight, inputs = measurements.weight_of(slope), measurements.input_kernel(slope)
    cosine = np.minimum(x[:16] @ x[:16].T, 1)
    own = np.vectorize(lambda u: own_kernel(weight, inputs, u, 15))(cosine)
    found = one.results["matrices"].sel(network="chaotic", depth=15)
    values = np.linalg.eigvalsh(own)
    assert float(found.condition_number) == pytest.approx(values[-1] / values[0])
    off = own[~np.eye(16, dtype=bool)].mean()
    assert float(found.off_diagonal) == pytest.approx(off, rel=1e-9)


def test_rates_and_powers_of_what_is_known():
    """Their intervals are the change from the pair of depths before."""
    depth = np.array([10.0, 20.0, 40.0])
    values = np.array([2.0, 3.0, 5.0])
    found = ledger_checks.dataset(
        {
            "prediction": (("network", "depth"), [values, depth**-2.0]),
            "condition_number": (("network", "depth"), np.ones((2, 3))),
        },
        {"network": ["ordered", "critical"], "depth": depth},
        points=16,
    )
    assert claims._ordered_end(found).values == pytest.approx(5 / 3)
    power = claims._power_of("critical")(found)
    assert power.values == pytest.approx(-2)
    assert power.high - power.low == pytest.approx(0, abs=1e-14)
    rate = claims._rate_over("prediction", "ordered", 2.0)(found)
    assert rate.values == pytest.approx(math.log(5 / 3) / 20 / 2)
    change = math.log(3 / 2) / 10 / 2 - rate.values
    assert rate.high - rate.values == pytest.approx(change)
