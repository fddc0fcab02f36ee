"""Standard errors, intervals and fitted exponents hold what they say."""

import numpy as np
import pytest

from ntk_resnet.analysis.statistics import fit_power, mean_of, standard_error


def test_the_interval_of_a_mean_covers_it():
    samples = np.random.default_rng(0).normal(2.0, 3.0, size=(4000, 5))
    found = mean_of(samples, axis=1)
    covered = np.sum((found.low <= 2.0) & (found.high >= 2.0))
    # 95 % of 4000, within four standard errors of a binomial count; the normal
    # interval of five values covers 88 %.
    assert abs(covered - 3800) <= 4 * np.sqrt(4000 * 0.95 * 0.05)


def test_the_standard_error_is_the_spread_of_means():
    samples = np.random.default_rng(1).normal(size=(50, 4000))
    found = standard_error(samples)
    assert found.shape == (4000,)
    # The spread of 4000 means is known to 1 / sqrt(8000), three times over.
    np.testing.assert_allclose(found.mean(), samples.mean(axis=0).std(), rtol=0.034)
    np.testing.assert_array_equal(found, standard_error(samples.T, axis=1))


def test_a_single_value_has_no_error():
    assert np.isnan(standard_error(np.array([3.0])))
    assert np.isnan(standard_error(np.ones((2, 1)), axis=1)).all()
    mean, low, high = mean_of(np.array([3.0]))
    assert mean == 3
    assert np.isnan([low, high]).all()


def test_fit_power_recovers_exponent_and_covers_it():
    x = np.geomspace(1, 100, 9)
    exact = fit_power(x, 3 * x**-0.5)
    np.testing.assert_allclose([exact.exponent, exact.constant], [-0.5, 3], rtol=1e-12)
    assert fit_power([1, 2, 4], [3, 6, 12]).exponent == pytest.approx(1)
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        fit = fit_power(x, x**-0.5 * np.exp(0.1 * rng.normal(size=9)))
        covered += fit.low <= -0.5 <= fit.high
    # 95 % of 400, within four standard errors of a binomial count.
    assert abs(covered - 380) <= 4 * np.sqrt(400 * 0.95 * 0.05)
    assert np.isnan(fit_power(np.array([1.0, 2.0]), np.array([1.0, 2.0])).low)


def test_fit_power_refuses_what_has_no_logarithm(as_users_run_it):
    for x, y in (
        ([1, 2], [1, 0]),
        ([1, 2], [1, np.nan]),
        ([-1, 2], [1, 1]),
        ([1], [1]),
    ):
        with pytest.raises(ValueError, match=r"x|y"):
            fit_power(x, y)
