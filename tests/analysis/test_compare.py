"""Distances between kernels, against definitions, other code and 50 digits."""

import mpmath
import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.analysis.compare import kernel_distance, kernel_distance_sweep

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4))
PLAIN = nr.FeedForward(depth=1)
RESIDUAL = nr.ResNet(depth=1, branch_scale=nr.DepthScale(1.0))


def kernel(n=12):
    root = RNG.normal(size=(n, n))
    return root @ root.T


@pytest.mark.quick
def test_the_definitions():
    k1, k2 = kernel(), kernel()
    found = kernel_distance(k1, k2)
    centre = np.eye(12) - 1 / 12
    a, b = centre @ k1 @ centre, centre @ k2 @ centre
    aligned = np.trace(a @ b) / np.sqrt(np.trace(a @ a) * np.trace(b @ b))
    np.testing.assert_allclose(found.alignment, aligned, rtol=1e-13)
    np.testing.assert_allclose(found.alignment_gap, 1 - aligned, rtol=1e-12)
    distance = np.sqrt(((k1 - k2) ** 2).sum() / (k2**2).sum())
    np.testing.assert_allclose(found.relative_distance, distance, rtol=1e-13)


def test_alignment_is_that_of_features_for_linear_kernels():
    """Kornblith et al. 2019: |X'Y|^2 / (|X'X| |Y'Y|) of centred features."""
    x, y = RNG.normal(size=(2, 20, 3))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    norm = np.linalg.norm
    expected = norm(x.T @ y) ** 2 / norm(x.T @ x) / norm(y.T @ y)
    found = kernel_distance(x @ x.T, y @ y.T)
    np.testing.assert_allclose(found.alignment, expected, rtol=1e-12)


def test_factors_and_constants_do_not_count():
    k = kernel()
    found = kernel_distance(3 * k + 7, k)
    assert abs(float(found.alignment_gap)) < 1e-28
    np.testing.assert_allclose(found.alignment, 1, rtol=1e-14)
    assert found.relative_distance > 2


def test_gaps_of_close_kernels_do_not_cancel():
    """Of the order 1e-14, against 50 digits."""
    k = kernel(6)
    near = k + 1e-7 * kernel(6)
    with mpmath.workdps(50):
        centre = mpmath.eye(6) - mpmath.ones(6) / 6
        a, b = (centre * mpmath.matrix(m.tolist()) * centre for m in (near, k))
        dot = lambda p, q: mpmath.fsum(  # noqa: E731
            p[i, j] * q[i, j] for i in range(6) for j in range(6)
        )
        exact = 1 - dot(a, b) / mpmath.sqrt(dot(a, a) * dot(b, b))
    found = kernel_distance(near, k)
    assert 1e-17 < exact < 1e-13
    np.testing.assert_allclose(float(found.alignment_gap), float(exact), rtol=1e-6)


def test_constant_kernels_have_no_alignment():
    found = kernel_distance(np.full((5, 5), 0.25), kernel(5))
    assert np.isnan(found.alignment)
    assert np.isnan(found.alignment_gap)
    assert found.relative_distance > 0


@pytest.mark.quick
def test_a_sweep_is_the_distance_at_each_depth():
    depths = [1, 5, 20]
    ticks = []
    found = kernel_distance_sweep(
        PLAIN, RESIDUAL, depths, X, progress=lambda *a: ticks.append(a)
    )
    for depth in depths:
        pair = (nr.gram(s.replace(depth=depth), X) for s in (PLAIN, RESIDUAL))
        one = kernel_distance(*pair)
        for name in one:
            np.testing.assert_allclose(
                found[name].sel(depth=depth), one[name], rtol=1e-9, atol=1e-12
            )
    assert ticks == [(i, 3, f"depth {d}") for i, d in enumerate(depths, 1)]


def test_residual_kernels_tend_to_that_of_one_block():
    """As L^(1 - 2 gamma) = 1/L (Huang et al. 2020), the gap as its square."""
    limit = nr.gram(RESIDUAL, X)
    found = kernel_distance_sweep(RESIDUAL, limit, [1000, 2000], X)
    ratio = found.isel(depth=1) / found.isel(depth=0)
    np.testing.assert_allclose(ratio.relative_distance, 0.5, rtol=0.01)
    np.testing.assert_allclose(ratio.alignment_gap, 0.25, rtol=0.02)
    assert found.alignment_gap.max() < 1e-5


def test_deep_nngp_kernels_differ_by_a_constant_gap():
    """Gaps near 1e-9: that of depth L is 9 pi^2 / (2 L^2), a factor apart."""
    found = kernel_distance_sweep(
        PLAIN, 1 - 1e-9 * (1 - np.eye(30)), [100_000], X, get="nngp"
    )
    gap = 4.5 * np.pi**2 / 1e10
    expected = abs(gap - 1e-9) * np.sqrt(30 * 29) / 30
    np.testing.assert_allclose(found.relative_distance, [expected], rtol=0.01)
    assert 0 < found.alignment_gap[0] < 1e-3


@pytest.mark.parametrize(
    ("k1", "k2", "words"),
    [
        (np.eye(3), np.eye(4), "k1 and k2 have shapes"),
        (np.eye(3), np.zeros((3, 3)), "k2 is all zeros"),
        (np.eye(1), np.eye(1), "two rows or more"),
        (np.eye(3, dtype=int), np.eye(3), "k1 has dtype int64"),
        (np.eye(3), np.full((3, 3), np.inf), "k2 holds inf at row 0"),
        (np.triu(np.ones((3, 3))), np.eye(3), "k1 differs from its transpose"),
    ],
)
def test_bad_matrices(k1, k2, words, as_users_run_it):
    with pytest.raises(ValueError, match=words) as caught:
        kernel_distance(k1, k2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"other": np.eye(3)}, r"other has shape \(3, 3\)"),
        ({"depths": [0]}, "depths must be whole numbers"),
        ({"x": X[:1]}, "x has one row"),
        ({"get": "gap"}, "get must be one of"),
        ({"spec": 3}, "spec must be a network"),
    ],
)
def test_bad_sweeps(changes, words, as_users_run_it):
    given = {"spec": PLAIN, "other": RESIDUAL, "depths": [2], "x": X} | changes
    with pytest.raises(ValueError, match=words) as caught:
        kernel_distance_sweep(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [2.0**-660, 2.0**660])  # exact
def test_the_size_of_kernels_does_not_matter(scale):
    k1, k2 = kernel(5), kernel(5) ** 2
    usual = kernel_distance(k1, k2)
    scaled = kernel_distance(k1 * scale, k2 * scale)
    for name in usual:
        assert 0 < float(scaled[name]) == float(usual[name])
