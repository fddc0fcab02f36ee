"""The study of Simon et al. 2023: its measurements, and that its verdicts can fail."""

import ledger_checks
import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.studies import simon2023
from ntk_resnet.studies.ledger import HOLDS, INCONCLUSIVE, judge
from ntk_resnet.studies.simon2023 import claims, measurements


@pytest.fixture(scope="module")
def one():
    study = ledger_checks.small(
        simon2023.STUDY,
        sphere={
            "networks": ["plain, L = 100"],
            "sizes": [16, 64],
            "trials": 12,
            "functions": 10,
            "test": 200,
        },
        gaussian={"modes": 100, "sizes": [20, 60], "trials": 400},
        conservation={"points": 32, "sizes": [8, 16], "depth": 10, "trials": 8},
        on_data={
            "networks": ["plain, L = 100"],
            "sizes": [20, 40],
            "rows": 120,
            "trials": 6,
        },
    )
    return ledger_checks.run(study)


def test_wrong_predictions_fail(one):
    ledger_checks.check_wrong_predictions_fail(one)


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def test_noise_of_few_trials_adds_nothing_to_the_error_of_a_mode(one):
    """Learnabilities that are the predicted ones and noise: their distance is 0."""
    found = one.results["conservation"].copy()
    noise = np.random.default_rng(0).normal(size=found.learnability.shape)
    found["learnability"] = found.predicted + 0.2 * found.learnability.copy(data=noise)
    claim = next(c for c in claims.CLAIMS if c.name == "each-mode")
    measured = claim.measure(found)
    # The mean over trials is off by that in each mode.
    assert np.all(measured.values < 0.2 / np.sqrt(found.sizes["trial"]))
    assert np.all(measured.low == 0)


def test_targets_are_harmonics_of_unit_power():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40_000, measurements.DIM))
    x *= np.sqrt(measurements.DIM / np.sum(x**2, axis=1, keepdims=True))
    y = np.concatenate([measurements._zonal(x, k, 1, rng) for k in (1, 2, 4)], axis=1)
    # Means over 40,000 points: products of harmonics have a spread of a few.
    np.testing.assert_allclose(np.diag(y.T @ y) / len(x), 1, atol=0.1)
    between = np.array([y[:, i] @ y[:, j] for i, j in ((0, 1), (0, 2), (1, 2))])
    np.testing.assert_allclose(between / len(x), 0, atol=0.05)


def test_the_prediction_is_the_one_of_the_package_s_own_trials(one):
    """Of the mixture, by `learning_curve_on_sphere`."""
    found = one.results["sphere"].sel(network="plain, L = 100")
    curve = nr.learning_curve_on_sphere(
        measurements.NETWORKS["plain, L = 100"],
        measurements.DIM,
        [16, 64],
        measurements.POWER,
        ridge=measurements.RIDGE,
        trials=2,
        test=50,
    )
    given = claims.mixture(found.predicted_error)
    np.testing.assert_allclose(given, curve.test_mse, rtol=1e-10)  # float64
    given = claims.mixture(found.predicted_train_error)
    np.testing.assert_allclose(given, curve.train_mse, rtol=1e-10)


def test_learnabilities_of_a_full_set_are_one():
    """Trained on all points without ridge, every mode is learned."""
    found = measurements.conservation(
        points=16, sizes=[16], depth=3, trials=1, ridge=0.1
    ).sel(ridge=0.0)
    # Eigenvalues fall by a few powers of ten, and float64 has sixteen digits.
    np.testing.assert_allclose(found.learnability, 1, atol=1e-9)


def test_noise_settles_nothing(one):
    # Of one size: several intervals of 95 % miss more often than one.
    found = one.results["sphere"].isel(n=[0])
    claim = next(c for c in claims.CLAIMS if c.of == "sphere")
    ledger_checks.check_noise_is_inconclusive(claim, found, ["error"])


def test_few_noisy_trials_on_data_are_inconclusive(one):
    found = one.results["on_data"].copy()
    claim = next(c for c in claims.CLAIMS if c.of == "on_data")
    wide = found.assign(measured_test_mse_error=found.measured_test_mse)
    assert judge("", claim, wide, 0.0).verdict == INCONCLUSIVE
    exact = found.assign(
        measured_test_mse=found.test_mse,
        measured_test_mse_error=0.01 * found.test_mse,
    )
    assert judge("", claim, exact, 0.0).verdict == HOLDS
