"""The study of Dherin & Munn: its measurements, and that verdicts can fail."""

import ledger_checks
import numpy as np
import pytest

from ntk_resnet.studies import dherin2025


@pytest.fixture(scope="module")
def one():
    study = ledger_checks.small(
        dherin2025.STUDY,
        shares={"blocks": 4, "networks": 12, "orders": 2, "width": 48},
        growth={},
        truncation={"blocks": 3, "width": 16},
        coherent={"width": 4},
        complexity={"scales": [0.5], "blocks": 3, "width": 64, "rows": 3,
                    "networks": 8},
    )  # fmt: skip
    return ledger_checks.run(study)


def test_wrong_predictions_fail(one):
    ledger_checks.check_wrong_predictions_fail(one)


def test_noise_is_inconclusive(one):
    for name, of, variable in (
        ("7a-shares", "shares", "share"),
        ("7e", "complexity", "complexity"),
    ):
        claim = next(c for c in dherin2025.CLAIMS if c.name == name)
        ledger_checks.check_noise_is_inconclusive(claim, one.results[of], [variable])


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def test_identities_have_as_many_paths_as_there_are():
    apply, weights = dherin2025._identities(5)
    assert float(apply(weights, np.ones((1, 1)))[0, 0]) == 2**5


def test_equal_blocks_tend_to_the_exponential():
    found = dherin2025.coherent(width=3, depths=[50, 100, 200, 400, 800, 1600])
    assert (np.diff(found.error) < 0).all()
    assert float(found.error[-1]) < 2e-3
