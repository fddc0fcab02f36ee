"""The study of a set of data: its measurements, and that its verdicts can fail."""

import ledger_checks
import numpy as np
import pytest
import small_study
import xarray as xr

import ntk_resnet as nr
from ntk_resnet.data.datasets import Data, targets
from ntk_resnet.studies import comparisons, digits
from ntk_resnet.studies.families import some_rows
from ntk_resnet.studies.ledger import FAILS, HOLDS, INCONCLUSIVE, judge


@pytest.fixture(scope="module")
def one():
    return small_study.runs()["digits"]


def test_wrong_predictions_fail(one):
    ledger_checks.check_wrong_predictions_fail(one)


def test_leave_one_out_is_the_mean_over_rows_left_out(one):
    """By the inverse of the regularised matrix: residuals over its diagonal."""
    found = one.results["leave_one_out"]
    chosen = some_rows(nr.load_data("digits"), 10)
    y = targets(chosen)[:, 0]
    matrix = np.asarray(nr.gram(comparisons.DEEP, chosen.x))
    inverse = np.linalg.inv(matrix + 0.1 * np.eye(10))
    expected = np.mean((inverse @ y / np.diag(inverse)) ** 2)
    np.testing.assert_allclose(found.refitted, [expected], rtol=1e-10)
    np.testing.assert_allclose(found.closed, [expected], rtol=1e-10)


def test_a_rank_that_does_not_grow_fails(one):
    claim = next(c for c in digits.CLAIMS if c.name == "spectrum-rank")
    found = one.results["spectra"]
    assert judge("", claim, found, 0.0).verdict == HOLDS
    still = found.assign(effective_rank=1 / found.effective_rank)
    assert judge("", claim, still, 0.0).verdict == FAILS


def test_rows_are_those_of_the_data_named(one):
    assert one.results["spectra"].attrs["rows"] == 100
    assert "digits" in one.study.answer(one.results, one.entries)


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def test_a_ridge_chosen_badly_fails_and_noise_settles_nothing(one):
    claim = next(c for c in digits.CLAIMS if c.name == "leave-one-out-choice")
    found = one.results["ridge"].copy(deep=True)
    found["loo_error"] = found.loo_error * 0 + found.ridge  # the first is chosen
    test = xr.where(found.ridge > found.ridge[0], 0.1, 0.3) + 0 * found.test_error
    assert judge("", claim, found.assign(test_error=test), 0.0).verdict == FAILS
    rare = test - xr.where((found.ridge < 1) & (found.split > 0), 0.2, 0.0)
    assert judge("", claim, found.assign(test_error=rare), 0.0).verdict == INCONCLUSIVE


def test_real_targets_are_regressed():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    data = Data(x, x[:, 0], None, "tiny")
    found = digits.by_ridge(data, ridges=(0.1,), rows=100, splits=5)
    assert (found.attrs["train"], found.attrs["test"]) == (10, 2)
    assert np.isfinite(found.test_error).all()
