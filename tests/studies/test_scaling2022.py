"""The study of Marion et al. 2022: its measurements, and that its verdicts can fail."""

import dataclasses

import ledger_checks
import numpy as np
import pytest

from ntk_resnet.studies import scaling2022
from ntk_resnet.studies.ledger import FAILS, judge


@pytest.fixture(scope="module")
def one():
    study = ledger_checks.small(
        scaling2022.STUDY,
        law={"width": 20, "depth": 20, "seeds": 250},
        growth={"width": 20, "depths": [10, 20, 40], "seeds": 80},
    )
    return ledger_checks.run(study)


def test_wrong_predictions_fail(one):
    ledger_checks.check_wrong_predictions_fail(one)


def test_the_mean_square_is_the_product_of_what_blocks_add(one):
    found = one.results["growth"].ratio.sel(weights="independent", depth=20) ** 2
    for beta in (0.5, 1.0):
        known = np.prod([1 + 20 ** (-2 * beta) / 2] * 20)
        # 80 networks whose squares vary by about 2 / sqrt(20): three standard errors.
        assert found.sel(beta=beta).mean() == pytest.approx(known, rel=0.15)


def test_the_signal_is_that_of_a_loop_over_blocks():
    """By NumPy: the weights of a built network, and such as turn with depth."""
    import jax

    width, depth, beta = 4, 6, 0.7
    start = np.arange(1, width + 1, dtype=np.float32)
    model = scaling2022.network(width, depth, beta, width, jax.random.key(3))
    inner, outer, first = (
        np.asarray(part[...], float)
        for part in (model.weights, model.outer_weights, model.input_weight)
    )
    h = start @ first / np.sqrt(width)
    for w, v in zip(inner, outer, strict=True):
        h = h + np.maximum(h @ w, 0) @ v / width / depth**beta
    given = model.features(start[None])[0]
    np.testing.assert_allclose(given, h, rtol=1e-5)  # float32, a few blocks

    ends = np.random.default_rng(0).normal(size=(2, 2, width, width))
    ends = ends.astype(np.float32) / 2
    given = scaling2022.smooth(start[None], ends, np.float32([[0.3]]), depth)[0]
    h = start.astype(float)
    for block in range(depth):
        phase = np.pi * (block + 0.5) / depth
        w, v = np.cos(phase) * ends[0] + np.sin(phase) * ends[1]
        h = h + 0.3 * v @ np.maximum(w @ h, 0)
    np.testing.assert_allclose(given, h, rtol=1e-5)


def test_a_law_of_another_shape_fails(one):
    """Of the same mean and deviation: the logarithm of an exponential law."""
    found = one.results["law"].copy()
    skew = np.log(np.random.default_rng(0).exponential(size=found.sizes["seed"]))
    for name in ("signal", "gradient"):
        own = found[name]
        scaled = (skew - skew.mean()) / skew.std() * own.std().item()
        found[name] = "seed", own.mean().item() + scaled
    verdicts = {
        claim.name: judge("", claim, found, 0.0).verdict
        for claim in scaling2022.CLAIMS
        if claim.name.startswith("law-shape")
    }
    assert set(verdicts.values()) == {FAILS}


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def test_another_exponent_fails(one):
    found = one.results["growth"]
    claim = next(c for c in scaling2022.CLAIMS if c.predicted == -0.5)
    assert judge("", claim, found, 0.0).verdict != FAILS  # 80 networks are few
    wrong = dataclasses.replace(claim, predicted=-0.25)
    assert judge("", wrong, found, 0.0).verdict == FAILS


def test_noise_settles_nothing(one):
    found = one.results["law"]
    claim = next(c for c in scaling2022.CLAIMS if c.of == "law")
    ledger_checks.check_noise_is_inconclusive(claim, found, ["signal"])
