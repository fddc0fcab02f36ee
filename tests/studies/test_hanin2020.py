"""The study of Hanin & Nica: its measurements, and that its verdicts can fail."""

import dataclasses

import jax
import ledger_checks
import numpy as np
import pytest
from flax import nnx

import ntk_resnet as nr
from ntk_resnet.studies import hanin2020
from ntk_resnet.studies.hanin2020 import SCALES, networks
from ntk_resnet.studies.ledger import FAILS, HOLDS, judge


@pytest.fixture(scope="module")
def one():
    study = ledger_checks.small(
        hanin2020.STUDY,
        limit={"widths": [32, 4096], "ratios": [0.25, 0.5]},
        moments={"depths": [2], "width": 32, "networks": 10_000},
        tilted={"cells": [[2, 16]], "networks": 2000},
        residual={"depths": [2, 4], "width": 8, "networks": dict.fromkeys(SCALES, 50)},
    )
    return ledger_checks.run(study)


def claim_of(name):
    return next(c for c in hanin2020.CLAIMS if c.name == name)


def test_wrong_predictions_fail(one):
    ledger_checks.check_wrong_predictions_fail(one)


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def test_tilted_networks_have_the_exact_dispersion(one):
    """Within four standard errors, of two or three percent each."""
    found = one.results["tilted"].isel(cell=0)
    values = (found.share / found.predicted).values
    error = values.std() / np.sqrt(values.size)
    assert error < 0.04
    assert abs(values.mean() - 1) < 4 * error


def test_the_limit_without_what_the_gradients_share_fails(one):
    """The formula with e^(-4u), corrected since: 3.4 % off at a ratio of 1/4."""
    found = one.results["limit"].copy(deep=True)
    r = found.ratio
    found["limit"] = np.exp(5 * r) * (1 / (2 * r) - (1 - np.exp(-4 * r)) / (8 * r**2))
    claim = claim_of("limit")
    assert judge("", claim, one.results["limit"], 0.0).verdict == HOLDS
    assert judge("", claim, found, 0.0).verdict == FAILS


def test_noise_is_inconclusive(one):
    ledger_checks.check_noise_is_inconclusive(
        claim_of("dispersion"), one.results["tilted"], ["share"]
    )
    claim = claim_of("mean")
    found = one.results["moments"].copy(deep=True)
    found["ntk_mean_sem"][:] = 10.0
    assert judge("", claim, found, 0.0).verdict == "inconclusive"


def test_heavy_numbers_have_the_moments_of_their_density():
    """Of a = mean of 2 relu(g)^2: E a^3 / E a^2, by hand; of 1 / a: E a / E a^2."""
    width = 3
    keys = jax.random.split(jax.random.key(0), 40_000)
    g = np.asarray(jax.vmap(lambda key: networks._heavy(key, width))(keys))
    a = np.mean(2 * np.maximum(g, 0) ** 2, axis=1)
    n = width  # 2 relu(g)^2 has the moments 1, 6 and 60
    third = (60 * n + 3 * 6 * n * (n - 1) + n * (n - 1) * (n - 2)) / n**3
    for values, expected in ((a, third / (1 + 5 / n)), (1 / a, 1 / (1 + 5 / n))):
        error = values.std() / np.sqrt(len(values))
        assert abs(values.mean() - expected) < 4 * error


def test_tilting_changes_weights_up_to_a_layer_and_along_its_features():
    model = nr.finite.build(nr.FeedForward(depth=3), 1, 8, rngs=nnx.Rngs(0))
    before = np.asarray(model.weights[...])
    networks.tilt(model, jax.random.key(1), 2)
    h = np.asarray(model.hidden(np.ones((1, 1), np.float32)))[:, 0]
    change = np.asarray(model.weights[...]) - before
    across = change[0] - np.outer(h[0], h[0] @ change[0]) / (h[0] @ h[0])
    assert np.abs(change[0]).max() > 0.1
    np.testing.assert_allclose(across, 0, atol=1e-5)
    np.testing.assert_array_equal(change[1], 0)  # beyond the layer


def test_mean_of_residual_kernels_by_hand():
    """One block has 2 a^2, and another adds (1 + a^2) times that to its own."""
    assert networks._mean_ntk(1, 0.5) == 0.5
    assert networks._mean_ntk(2, 0.5) == 2 * 0.5 * 1.25


def test_growth_of_residual_networks_can_fail():
    """A result that grows, and one that does not, by hand."""
    found = ledger_checks.dataset(
        {
            "dispersion": (("family", "depth"), [[1.2, 1.2], [1.2, 1.2], [1.4, 2.8]]),
            "dispersion_sem": (("family", "depth"), np.full((3, 2), 0.003)),
            "plain": ("depth", [1.5, 6.5]),
            "networks": ("family", [1000] * 3),
        },
        {"family": list(hanin2020.SCALES), "depth": [4, 16]},
        width=32,
        shallow=4,
        deep=16,
    )
    flat, grows, below = (
        claim_of(f"residual-{name}") for name in ("flat-half", "grows", "below-plain")
    )
    for claim in (flat, grows, below, claim_of("residual-flat-one")):
        assert judge("", claim, found, 0.0).verdict == HOLDS
    swapped = found.isel(family=[2, 1, 0]).assign_coords(family=found.family)
    for claim in (flat, grows):
        assert judge("", claim, swapped, 0.0).verdict == FAILS
    far = dataclasses.replace(below, predicted=1.5)
    assert judge("", far, found, 0.0).verdict == FAILS


def test_phases_can_fail_and_have_their_slopes():
    """Few small networks; the verdicts of a result by hand, and of one swapped."""
    phases = {"ordered": 1.0, "chaotic": 4.0}
    found = networks.phases(
        depths=[1, 2], width=8, networks=10, weight_variances=phases
    )
    assert found.attrs["ordered"] < 1 < found.attrs["chaotic"]
    found["dispersion"][:] = [[1.2, 1.2], [1.4, 2.8]]
    found["dispersion_sem"][:] = 0.003
    swapped = found.isel(family=[1, 0]).assign_coords(family=found.family)
    for name in ("phase-ordered", "phase-chaotic"):
        assert judge("", claim_of(name), found, 0.0).verdict == HOLDS
        assert judge("", claim_of(name), swapped, 0.0).verdict == FAILS
