"""The study of a set of data: its measurements, and that its verdicts can fail."""

import ledger_checks
import numpy as np
import pytest
import small_study

import ntk_resnet as nr
from ntk_resnet.data.datasets import targets
from ntk_resnet.studies import comparisons, digits
from ntk_resnet.studies.families import some_rows
from ntk_resnet.studies.ledger import FAILS, HOLDS, judge


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
    claim = next(c for c in digits.CLAIMS if "effective rank" in c.statement)
    found = one.results["spectra"]
    assert judge("", claim, found, 0.0).verdict == HOLDS
    still = found.assign(effective_rank=1 / found.effective_rank)
    assert judge("", claim, still, 0.0).verdict == FAILS


def test_rows_are_those_of_the_data_named(one):
    assert one.results["spectra"].attrs["rows"] == 100
    assert "digits" in one.study.answer(one.results, one.entries)
