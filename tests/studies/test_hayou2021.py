"""The study of Hayou et al.: its measurements, and that its verdicts can fail."""

import jax
import ledger_checks
import numpy as np
import pytest
from flax import nnx

import ntk_resnet as nr
from ntk_resnet.studies import hayou2021
from ntk_resnet.studies.hayou2021.schemes import SCHEMES

COSINES = [-0.5, 0.3]


@pytest.fixture(scope="module")
def one():
    study = ledger_checks.small(
        hayou2021.STUDY,
        growth={"depths": [1, 4, 100]},
        networks={"depth": 2, "width": 64, "networks": 400},
        correlations={"cosines": COSINES, "first": 1000, "last": 10_000, "count": 6},
        smallest={"points": 6, "draws": 2},
        decreasing={"cosines": COSINES, "depths": [100, 1000, 10_000]},
    )
    return ledger_checks.run(study)


def kernels_by_hand(scales, cosine):
    """The cosine of the features, and the NTK of two-layer blocks, both normalised."""
    u, moment, ntk, diagonal = cosine, 1.0, 0.0, 0.0
    for square in np.square(scales):
        theta = np.arccos(u)
        kappa0 = 1 - theta / np.pi
        kappa1 = (u * (np.pi - theta) + np.sin(theta)) / np.pi
        ntk = ntk * (1 + square * kappa0) + square * moment * (kappa1 + u * kappa0)
        diagonal = diagonal * (1 + square) + 2 * square * moment
        u = (u + square * kappa1) / (1 + square)
        moment *= 1 + square
    return u, moment, ntk / diagonal, diagonal


def test_wrong_predictions_fail(one):
    ledger_checks.check_wrong_predictions_fail(one)


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def test_growth_is_that_of_an_own_recursion(one):
    found = one.results["growth"].sel(block="two_layer")
    for name, scale in SCHEMES.items():
        _, moment, _, diagonal = kernels_by_hand(scale.values(4), 0.0)
        at = found.sel(scheme=name, depth=4)
        assert float(at.log_moment) == pytest.approx(np.log(moment), abs=1e-12)
        assert float(at.log_gradient) == pytest.approx(np.log(diagonal), abs=1e-12)


def test_correlations_and_slow_steps_are_those_of_an_own_recursion(one):
    gap = one.results["correlations"].gap
    for name in ("α = 1", "γ = 1/2", "decreasing"):
        scales = SCHEMES[name].values(100)
        values = [1 - kernels_by_hand(scales, cosine)[0] for cosine in COSINES]
        # 1 - u cancels by hand: 100 blocks of rounding, over a gap of about 0.01.
        np.testing.assert_allclose(gap.sel(family=name, depth=100), values, rtol=1e-10)
    scales = SCHEMES["decreasing"].values(200)
    far, near = (kernels_by_hand(scales[:depth], -0.5)[2] for depth in (200, 100))
    step = one.results["decreasing"].step.sel(depth=100, cosine=-0.5)
    assert float(step) == pytest.approx(np.log(100) ** 2 * (far - near), abs=1e-9)


def test_smallest_eigenvalues_are_of_the_kernels_by_hand(one):
    x = np.random.default_rng(1).normal(size=(6, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosines = np.clip(x @ x.T, -1, 1)
    np.fill_diagonal(cosines, 1.0)
    scales = SCHEMES["γ = 1/2"].values(100)
    ntk = np.vectorize(lambda u: kernels_by_hand(scales, u)[2])(cosines)
    np.fill_diagonal(ntk, 1.0)
    found = one.results["smallest"].uniform.sel(draw=1, depth=100)
    assert float(found) == pytest.approx(np.linalg.eigvalsh(ntk)[0], abs=1e-6)


def test_scales_in_the_weights_are_those_of_the_specification(one):
    """The first of the networks, built with its own scale, at its last block."""
    found = one.results["networks"].moment.sel(scheme="decreasing", network=0)
    spec = nr.ResNet(depth=2, branch_scale=nr.DecreasingScale(), block="preactivation")
    key = jax.random.split(jax.random.key(0), 400)[0]
    hidden = nr.finite.build(spec, 4, 64, rngs=nnx.Rngs(key)).hidden(2 * np.eye(4))
    expected = np.mean(np.asarray(hidden) ** 2, (1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # float32


def test_noise_is_inconclusive(one):
    (claim,) = [c for c in one.study.claims if c.of == "networks"]
    ledger_checks.check_noise_is_inconclusive(
        claim, one.results["networks"].isel(scheme=[0]), ["moment"]
    )
