"""The study of De & Smith: its measurements, and that verdicts can fail."""

import jax
import jax.numpy as jnp
import ledger_checks
import numpy as np
import pytest
import xarray as xr
from flax import nnx

from ntk_resnet.studies import desmith2020
from ntk_resnet.studies.desmith2020 import claims, networks
from ntk_resnet.studies.ledger import FAILS, INCONCLUSIVE, judge


@pytest.fixture(scope="module")
def one():
    study = ledger_checks.small(
        desmith2020.STUDY,
        normalised={"width": 128, "depth": 16, "seeds": 5},
        plain={"width": 192, "doubling": 6, "depth": 12, "seeds": 16},
        training={
            "depths": [4, 64],
            "width": 16,
            "rates": [0.005, 0.1],
            "steps": 40,
            "batch": 64,
            "seeds": 5,
        },
    )
    return ledger_checks.run(study)


def claim_of(name):
    return next(c for c in claims.CLAIMS if c.name == name)


def test_wrong_predictions_fail(one):
    order = [c for c in one.study.claims if c.name.startswith("6e-")]
    rest = [c for c in one.study.claims if c not in order]
    ledger_checks.check_wrong_predictions_fail(
        one._replace(study=ledger_checks.with_claims(one.study, rest))
    )


def test_the_other_order_of_depths_fails():
    """Depths that train, by kind: as the paper has them, and turned round."""
    loss = np.full((4, 3, 1, 5), 0.9)
    for kind, deepest in enumerate((2, 2, 1, 0)):
        loss[kind, : deepest + 1] = 0.1
    kinds = list(networks.KINDS)
    found = xr.Dataset(
        {"loss": (("kind", "depth", "rate", "seed"), loss)},
        coords={"kind": kinds, "depth": [4, 16, 64], "rate": [0.1]},
        attrs={"most": 64, "steps": 1},
    )
    claim = claim_of("6e-bn-unnormalised")
    assert judge("", claim, found, 0.0).verdict == "holds"
    turned = found.assign_coords(kind=kinds[::-1])
    assert judge("", claim, turned, 0.0).verdict == FAILS
    equal = found.assign(loss=found.loss * 0)
    assert judge("", claim, equal, 0.0).verdict == INCONCLUSIVE


def test_noise_is_inconclusive(one):
    for name, of, variable in (
        ("6b-skip-ReLU", "normalised", "second_moment"),
        ("6d", "plain", "growth"),
    ):
        ledger_checks.check_noise_is_inconclusive(
            claim_of(name), one.results[of], [variable]
        )


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def test_the_largest_depth_that_trains():
    loss = np.array([[[0.1, 2.0], [0.9, 0.4], [0.9, 0.6]]])[..., None]
    found = xr.Dataset(
        {"loss": (("kind", "depth", "rate", "seed"), loss)},
        coords={"kind": ["BN"], "depth": [4, 8, 16], "rate": [0.1, 1]},
    )
    assert claims.largest(found, "BN").tolist() == [3.0]


def test_classifiers_are_what_they_are_called():
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)

    def make(kind):
        return networks.Classifier(6, 8, 3, 4, kind, nnx.Rngs(0))

    def through(model, divide):
        h = x @ model.first[...]
        for weight in model.blocks[...]:
            h = (h + jax.nn.relu(h) @ weight) / divide
        return h @ model.last[...]

    plain, root, skip = map(make, ("unnormalised", "over √2", "SkipInit"))
    near = {"rtol": 1e-4, "atol": 1e-4}  # float32, sums of eight
    np.testing.assert_allclose(plain(x), through(plain, 1), **near)
    np.testing.assert_allclose(root(x), through(root, 2**0.5), **near)
    first = x @ skip.first[...]
    np.testing.assert_allclose(skip(x), first @ skip.last[...], **near)
    assert isinstance(skip.scales, nnx.Param)
    assert (jnp.asarray(skip.scales[...]) == 0).all()
    of_bn = make("BN")
    np.testing.assert_allclose(of_bn(1000 * x), of_bn(500 * x), rtol=1e-2, atol=1e-2)
