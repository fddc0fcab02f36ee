"""The study of Belfer et al.: its measurements, and that its verdicts can fail."""

import dataclasses

import ledger_checks
import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.studies import belfer2024
from ntk_resnet.studies.belfer2024 import claims, measurements
from ntk_resnet.studies.ledger import FAILS, HOLDS, judge


@pytest.fixture(scope="module")
def one():
    study = ledger_checks.small(
        belfer2024.STUDY,
        decay={"dims": [3], "far": 400},
        parity={},
        imbalance={},
        bias={},
        small_angles={"depths": [1, 10]},
        descent={"points": 64},
    )
    return ledger_checks.run(study)


def test_wrong_predictions_fail(one):
    ledger_checks.check_wrong_predictions_fail(one)


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def test_another_dimension_s_exponent_fails(one):
    claim = next(c for c in belfer2024.CLAIMS if c.name == "8a-soon")
    found = one.results["decay"]
    assert judge("", claim, found, 0.0).verdict == HOLDS
    wrong = dataclasses.replace(claim, predicted=lambda found: 1.0 - found.dim.values)
    assert judge("", wrong, found, 0.0).verdict == FAILS


def test_a_spectrum_of_noise_settles_no_exponent():
    rng = np.random.default_rng(0)
    spectrum = nr.mercer(nr.FeedForward(depth=1), dim=3, max_degree=120)
    noise = spectrum.log10_eigenvalue + rng.normal(size=spectrum.degree.size)
    fit = measurements.exponent(spectrum.assign(eigenvalue=10**noise), 40, 120)
    claim = next(c for c in belfer2024.CLAIMS if c.name == "8a-soon")
    ends = {"": fit.value, "_low": fit.low, "_high": fit.high}
    found = ledger_checks.dataset(
        {f"exponent{end}": (("family", "dim"), [[v]] * 3) for end, v in ends.items()},
        {"family": claims._SOON, "dim": [3]},
        degree=120,
    )
    assert judge("", claim, found, 0.0).verdict == "inconclusive"


def test_steepness_is_the_slope_of_the_recursion():
    """c of plain networks by an own recursion of the angle's first order."""
    for depth in (1, 4):
        slope, layers = 0.0, 1.0  # Theta_0 = u: 1, whose slope in theta is 0
        for _ in range(depth):
            # Theta <- rho + kappa0 Theta, kappa0 = 1 - theta/pi to first order.
            slope, layers = slope + layers / np.pi, layers + 1
        assert measurements._steepness("plain, all trained", depth) == pytest.approx(
            np.pi * slope / layers
        )
        frozen = np.pi * slope / (layers - 1)
        assert measurements._steepness("plain", depth) == pytest.approx(frozen)
