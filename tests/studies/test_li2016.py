"""The study of Li et al.: its measurements, and that verdicts can fail."""

import jax
import ledger_checks
import numpy as np
import pytest
from flax import nnx

from ntk_resnet.studies import li2016
from ntk_resnet.studies.ledger import INCONCLUSIVE, judge
from ntk_resnet.studies.li2016 import measurements, networks


@pytest.fixture(scope="module")
def one():
    study = ledger_checks.small(
        li2016.STUDY,
        at_zero={"d": 2, "units": [1, 3]},
        one_number={"units": [2, 8]},
        activations={"d": 2, "units": [2]},
        trainability={
            "d": 4,
            "depths": [1, 4, 8],
            "steps": 150,
            "rates": [0.01, 0.03, 0.1, 0.3],
            "seeds": 5,
        },
        plateaus={
            "d": 3,
            "units": 2,
            "scales": [0.01, 0.04],
            "steps": 4000,
            "seeds": 5,
        },
        along={"d": 2, "units": 2, "every": 500},
    )
    return ledger_checks.run(study)


def claim_of(name):
    return next(c for c in li2016.CLAIMS if c.name == name)


def test_wrong_predictions_fail(one):
    ledger_checks.check_wrong_predictions_fail(one)


def test_noise_is_inconclusive(one):
    """Times and losses are positive: their logarithms are noise."""
    rng = np.random.default_rng(0)
    for name, of, variable in (
        ("2f-plateau", "plateaus", "time"),
        ("2f-escape", "plateaus", "time"),
        ("2f-xavier", "trainability", "loss"),
    ):
        found = one.results[of].copy()
        values = found[variable]
        noise = np.exp(3 * rng.standard_normal(values.shape))
        found[variable] = values.dims, noise
        assert judge("", claim_of(name), found, 0.0).verdict == INCONCLUSIVE


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def test_networks_are_products_of_one_plus_weights():
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(3, 2, 4, 4)), rng.normal(size=(5, 4))
    h = x.T
    for first, second in weights:
        h = h + second @ first @ h
    np.testing.assert_allclose(networks.ShortcutNet(weights)(x), h.T, rtol=1e-12)
    plain = networks.ShortcutNet(weights[:, :1], shortcuts=False)(x)
    product = weights[2, 0] @ weights[1, 0] @ weights[0, 0]
    np.testing.assert_allclose(plain, x @ product.T, rtol=1e-12)


def test_initial_weights_are_what_they_are_called():
    shape = 20, 2, 6, 6
    draw = lambda how: np.asarray(networks.initial(jax.random.key(0), how, shape, 0.1))  # noqa: E731
    assert draw("small").std() == pytest.approx(0.1, rel=4 / 1440**0.5)
    assert draw("xavier").std() == pytest.approx(6**-0.5, rel=4 / 1440**0.5)
    orthogonal = draw("orthogonal")
    eye = np.einsum("...ij,...kj->...ik", orthogonal, orthogonal)
    np.testing.assert_allclose(eye, np.broadcast_to(np.eye(6), shape), atol=1e-5)


def test_inputs_are_white():
    x, _ = networks.task(0, 3, 20, 0.1)
    np.testing.assert_allclose(x.T @ x / 20, np.eye(3), atol=1e-12)


def test_descent_is_gradient_descent():
    """One unit of one matrix: linear regression, in closed form."""
    x, y = networks.task(0, 3, 20, 0.1)
    graph = nnx.split(networks.ShortcutNet(np.zeros((1, 1, 3, 3))))[0]
    losses, weights = networks.descend(
        graph,
        np.zeros((1, 1, 1, 3, 3)),
        x[None],
        y[None],
        np.array([0.1]),
        steps=40,
        every=20,
    )
    best = np.linalg.lstsq(x, y, rcond=None)[0].T - np.eye(3)
    left = (1 - 0.1) ** 40  # inputs are white
    np.testing.assert_allclose(np.asarray(weights)[0, 0, 0, 0], (1 - left) * best)
    assert losses.shape == (1, 1, 3)


def test_diagonal_covariances_have_the_bound():
    found = measurements.at_zero(d=2, units=[1, 2, 5])
    ratio = (found.single / found.single_bound).values
    assert (ratio >= 1 - 1e-12).all()
    assert ratio[0] == pytest.approx(1)
