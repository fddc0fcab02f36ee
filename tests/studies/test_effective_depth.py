"""The study of effective depth: its measurements, and that its verdicts can fail."""

import ledger_checks
import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.studies import effective_depth
from ntk_resnet.studies.effective_depth import claims, measurements
from ntk_resnet.studies.limits import features, limits


@pytest.fixture(scope="module")
def one():
    depths = [4, 16, 64]
    study = ledger_checks.small(
        effective_depth.STUDY,
        scalings={
            "depths": depths,
            "profile_depths": [16, 24, 32, 48, 64, 96],
            "times": [0.25],
            "angles": 60,
            "train": 40,
        },
        blocks={"depths": [16, 24, 32, 48, 64, 96], "times": [0.25], "angles": 30},
        degeneracy={"times": [1e4, 1e5], "deep": [10**5, 10**6]},
        means={
            "depths": [64, 96, 128, 192, 256, 384, 512],
            "times": [0.25],
            "angles": 21,
        },
    )
    return ledger_checks.run(study)


def test_wrong_predictions_fail(one):
    ledger_checks.check_wrong_predictions_fail(one)


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def test_the_limit_is_the_one_of_a_long_recursion():
    """The recursion of two-layer blocks by NumPy, of 20,000 blocks."""
    count, total = 20_000, 2.0
    angles = np.array([0.3, 1.0, 2.0])
    square = total / count
    u, summed = np.cos(angles), np.zeros(3)
    for _ in range(count):
        theta = np.arccos(u)
        kappa0 = 1 - theta / np.pi
        kappa1 = u * kappa0 + np.sin(theta) / np.pi
        summed = summed * (1 + square * kappa0) / (1 + square) + kappa1 + u * kappa0
        u = (u + square * kappa1) / (1 + square)
    cosines = features("two layers", [total], angles)[0]
    np.testing.assert_allclose(cosines, u, atol=total / count)
    limit = limits("two layers", [total], angles)[0]
    # The recursion is off by a fifth of T / count at most.
    np.testing.assert_allclose(limit, summed / (2 * count), atol=total / count / 5)


@pytest.mark.parametrize("block", list(measurements.BLOCKS))
def test_limits_are_those_of_deep_networks(block):
    angles, depth = np.array([0.3, 1.0, 2.0]), 4000
    for total in (0.5, 5.0):
        spec = measurements.BLOCKS[block]
        deep = spec.replace(depth=depth, branch_scale=(total / depth) ** 0.5)
        limit = limits(block, [total], angles)[0]
        known = nr.profile(deep).ntk(angles)
        np.testing.assert_allclose(limit, known, atol=total / depth / 4)  # next order


def test_filling_up_with_identities_changes_nothing():
    spec, angles = measurements.BLOCKS["two layers"], np.array([0.5, 1.5])
    ntk, growth = measurements.kernels(spec, [np.full(3, 0.5), np.full(7, 0.1)], angles)
    for k, (depth, scale) in enumerate(((3, 0.5), (7, 0.1))):
        one = nr.profile(spec.replace(depth=depth, branch_scale=scale))
        np.testing.assert_allclose(ntk[k], one.ntk(angles), rtol=1e-10)
        assert growth[k] == pytest.approx(depth * np.log(1 + scale**2), rel=1e-10)


def test_profiles_have_the_sum_one_and_differ():
    shapes = [measurements.profile_of(p, 8) for p in measurements.PROFILES]
    np.testing.assert_allclose(np.sum(shapes, axis=1), 1)
    assert len({tuple(shape) for shape in shapes}) == len(shapes)


def test_the_constants_are_those_of_theory(one):
    """C from where the angle of deep signals stands: 3 pi / theta = T + C."""
    found = one.results["degeneracy"]
    alpha, depth = 0.05, 4_000_000
    spec = measurements.BLOCKS["two layers"].replace(depth=depth, branch_scale=alpha)
    angle = np.arccos(0.3)
    gap = nr.profile(spec).nngp_gap(np.array([angle]))[0]
    theta = 2 * np.arcsin(np.sqrt(gap / 2))
    late = 3 * np.pi / theta - depth * alpha**2 / (1 + alpha**2)
    # Steps of alpha^2 add a logarithm, 1.5 alpha^2 ln T, and there are terms of 1/T.
    late -= 1.5 * alpha**2 * np.log(depth * alpha**2)
    known = float(found.constant.sel(block="pre-activation", cosine=0.3))
    assert late / 4 == pytest.approx(known, abs=0.02)


def test_images_are_those_of_kernels_one_by_one():
    found = measurements.images(
        networks=["zero, flatten"], depths=[2], gammas=[0.5], times=[1.0], side=3
    )
    x = np.random.default_rng(0).normal(size=(3, 3, 3, 2))
    spec = measurements.IMAGES["zero, flatten"].replace(depth=2, branch_scale=0.5**0.5)
    known = nr.kernel_fn(spec)(x)[0, 1]
    assert found.ntk.item() == pytest.approx(float(known), abs=1e-8)  # images: 1e-10
    sizes = [
        float(nr.diag(s, x[:1], "nngp", log=True)[0])
        for s in (spec, spec.replace(branch_scale=0.0))
    ]
    assert found.log_growth.item() == pytest.approx(sizes[0] - sizes[1], abs=1e-8)


def test_noise_is_inconclusive(one):
    claim = next(c for c in claims.CLAIMS if c.name == "error-collapse")
    found = one.results["scalings"]
    ledger_checks.check_noise_is_inconclusive(claim, found, ["error"])
