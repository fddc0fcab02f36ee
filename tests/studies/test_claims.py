"""Limits and rates for the networks of Huang et al. 2020, labelled as in the report."""

import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.analysis.degeneracy import one_block_correction
from ntk_resnet.analysis.regression import kernel_ridge

U = np.array([-0.9, -0.5, 0.0, 0.3, 0.7, 0.95])
ANGLES = np.arccos(U)
PLAIN = nr.FeedForward(depth=1, trained="blocks")  # as the paper's
BOTH = [PLAIN, PLAIN.replace(trained="all")]


def residual(scale):
    return nr.ResNet(depth=1, branch_scale=scale)


def ntk(spec, depths, angles=ANGLES):
    return nr.sweep_depth(spec, depths, angles=angles).ntk.values


TABLE = """
Huang 1    -0.129210 -0.166667 0.000000 0.179096 0.522772 0.853972
Huang 2    -0.030099 -0.015420 0.095989 0.218526 0.490046 0.815474
Huang 5     0.147590 0.161934 0.211250 0.268931 0.429027 0.722367
Huang 10    0.230253 0.237753 0.260784 0.288835 0.378931 0.616828
Huang 50    0.267508 0.268807 0.272645 0.277471 0.295113 0.373480
Huang 200   0.258100 0.258413 0.259335 0.260496 0.264775 0.285042
Huang 2000  0.251284 0.251315 0.251407 0.251522 0.251946 0.253963
FF 1       -0.059836 -0.028834 0.159155 0.330920 0.636431 0.903668
FF 2        0.087632 0.114621 0.228570 0.344867 0.589388 0.862447
FF 5        0.236710 0.251184 0.298699 0.353167 0.500921 0.762618
FF 10       0.287067 0.294287 0.316307 0.342980 0.427942 0.649174
FF 100      0.270022 0.270648 0.272496 0.274824 0.283385 0.323418
FF 1000     0.253046 0.253108 0.253291 0.253521 0.254369 0.258401
1.0 1      -0.059836 -0.028834 0.159155 0.330920 0.636431 0.903668
0.3 1      -0.059836 -0.028834 0.159155 0.330920 0.636431 0.903668
1.0 5       0.086285 0.130271 0.231883 0.330242 0.546948 0.825197
1.0 100     0.267357 0.269560 0.274526 0.280184 0.299490 0.379996
0.5 10      0.050805 0.103068 0.217815 0.325344 0.553518 0.832627
0.1 100    -0.015368 0.046370 0.192470 0.325483 0.586509 0.863394
0.1 10     -0.062508 -0.021385 0.162672 0.330277 0.631330 0.899824
"""


@pytest.mark.parametrize("row", TABLE.strip().splitlines())
def test_the_table_of_reference_values_to_all_printed_digits(row):
    """Huang: plain, the readout frozen as in the paper; FF: plain, all trained."""
    kind, depth, *values = row.split()
    plain = dict(zip(("Huang", "FF"), BOTH, strict=True))
    spec = plain[kind] if kind in plain else residual(float(kind))
    got = ntk(spec, int(depth))[0]
    assert [f"{value:.6f}" for value in got] == [f"{float(v):.6f}" for v in values]


@pytest.mark.parametrize(
    ("depth", "least", "place"), [(1, -0.17860, -0.652), (2, -0.03483, -0.787)]
)
def test_the_minima_of_the_papers_panels(depth, least, place):
    cosines = np.linspace(-1, 1, 20_001)  # steps of 1e-4
    values = ntk(PLAIN, depth, np.arccos(cosines))[0]
    np.testing.assert_allclose(values.min(), least, rtol=0, atol=5.1e-6)
    np.testing.assert_allclose(cosines[values.argmin()], place, rtol=0, atol=5.5e-4)


def test_both_conventions_of_plain_networks_are_one_kernel_and_its_readout():
    r"""L(Omega/L - 1/4) = (L+1)(Theta/(L+1) - 1/4) + 1/4 - rho_L."""
    depths = [1, 7, 100]
    blocks, every = (nr.sweep_depth(spec, depths, angles=ANGLES) for spec in BOTH)
    np.testing.assert_array_equal(blocks.nngp_gap, every.nngp_gap)
    left = blocks.depth * (blocks.ntk - 0.25)
    right = (every.depth + 1) * (every.ntk - 0.25) + 0.25 - every.nngp
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-13 * 100)


def layers_trained(spec, depth):
    return depth + spec.trains_readout


@pytest.mark.parametrize("plain", BOTH, ids=lambda spec: spec.trained)
def test_1a_plain_networks_tend_to_one_quarter(plain):
    off = ntk(plain, 1000)[0][U <= 0.7] - 0.25
    assert np.abs(off).max() < 6e-3


@pytest.mark.parametrize("plain", BOTH, ids=lambda spec: spec.trained)
def test_1b_with_the_logarithmic_rate_three_eighths(plain):
    depths = np.array([10_000, 100_000])
    excess = ntk(plain, depths.tolist()) - 0.25
    scaled = layers_trained(plain, depths)[:, None] * excess
    slopes = (scaled[1] - scaled[0]) / np.log(10)
    assert np.abs(slopes - 0.375).max() <= 0.005


@pytest.mark.parametrize("plain", BOTH, ids=lambda spec: spec.trained)
def test_1c_the_gap_of_the_features_falls_as_nine_pi_squared_over_two_depth_squared(
    plain,
):
    gap = nr.sweep_depth(plain, 10_000, angles=ANGLES).nngp_gap.values[0]
    assert np.abs(gap * 2e8 / (9 * np.pi**2) - 1).max() <= 0.01


@pytest.mark.parametrize("gamma", [0.6, 0.75, 1.0])
def test_1d_residual_networks_tend_to_one_block_at_rate_one_minus_two_gamma(gamma):
    """The slope of ln sup|difference| in ln L. Over 100 .. 10,000 it is theory's number
    (NUM: -.194, -.497, -.998), within .01 of 1 - 2 gamma."""
    spec = residual(nr.DepthScale(gamma))
    angles = np.linspace(0, np.arccos(-0.9), 60)
    one = ntk(residual(1.0), 1, angles)[0]
    depths = [100, 1000, 10_000]
    sup = [np.abs(row - one).max() for row in ntk(spec, depths, angles)]
    slope = np.polyfit(np.log(depths), np.log(sup), 1)[0]
    assert abs(slope - (1 - 2 * gamma)) <= 0.01


def test_1e_with_the_coefficient_d():
    difference = ntk(residual(nr.DepthScale(1.0)), 1000)[0] - ntk(residual(1.0), 1)[0]
    ratio = 1000 * difference / one_block_correction(ANGLES)
    assert np.abs(ratio[1:] - 1).max() <= 0.01
    assert abs(ratio[0] - 1) <= 0.02


def limit_of_gamma_one_half(u, steps=4000):
    """The limit of alpha = L^(-1/2): the flow du/dt = kappa1(u) - u to t = 1, by
    Runge-Kutta, and the integral of the backward factors by Simpson's rule."""

    def kappa0(u):
        return 1 - np.arccos(np.clip(u, -1, 1)) / np.pi

    def excess(u):
        """kappa1(u) - u."""
        return (np.sqrt(np.maximum(1 - u * u, 0)) - (1 - kappa0(u)) * np.pi * u) / np.pi

    h, path = 1 / steps, [np.array(u)]
    for _ in range(steps):
        v = path[-1]
        k1 = excess(v)
        k2 = excess(v + h / 2 * k1)
        k3 = excess(v + h / 2 * k2)
        k4 = excess(v + h * k3)
        path.append(v + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    path = np.array(path)
    loss = 1 - kappa0(path)
    tail = np.cumsum(((loss[1:] + loss[:-1]) * h / 2)[::-1], axis=0)[::-1]
    decay = np.exp(-np.vstack([tail, np.zeros_like(tail[:1])]))
    integrand = decay * (excess(path) + path + path * kappa0(path))
    weights = np.ones(steps + 1)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return (weights[:, None] * integrand).sum(0) * h / 3 / 2


def test_1f_gamma_one_half_has_the_limit_of_the_differential_equation():
    limit = limit_of_gamma_one_half(U)
    # Six digits from an independent computation.
    printed = [-0.014441, 0.047345, 0.192847, 0.325310, 0.585624, 0.862631]
    np.testing.assert_allclose(limit, printed, atol=1.5e-6)
    values = ntk(residual(nr.DepthScale(0.5)), [100, 1000, 10_000])
    assert np.abs(values[1] - limit).max() <= 2e-4
    errors = np.abs(values - limit).max(axis=1)
    slope = np.polyfit(np.log([100, 1000, 10_000]), np.log(errors), 1)[0]
    assert abs(slope + 1) <= 0.02  # in proportion to 1/L


def test_1g_larger_branches_degenerate():
    depths = [1000, 10_000, 100_000]
    slow = ntk(residual(nr.DepthScale(0.25)), depths)[:, U <= 0.7]
    # T (NTK - 1/4) with T = L^(1/2) is bounded: each decade adds less than half of what
    # the one before has added.
    steps = np.diff(np.sqrt(depths)[:, None] * (slow - 0.25), axis=0)
    assert (np.abs(steps[1]) <= 0.5 * np.abs(steps[0])).all()
    constant = ntk(residual(1.0), 10_000)[0]
    assert np.abs(constant - 0.25)[U <= 0.7].max() < 1e-3


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_1i_the_degenerate_kernel_predicts_one_constant(ridge):
    n, m = 40, 7
    rng = np.random.default_rng(0)
    y = rng.normal(size=(n, 1))
    gram = 0.75 * np.eye(n) + 0.25
    got = kernel_ridge(gram, np.full((m, n), 0.25), y, ridge=ridge)  # diagonal 1
    np.testing.assert_allclose(got, n * y.mean() / (n + 3 + 4 * ridge), rtol=1e-10)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, 6))]
)
def test_1j_error_rises_to_chance_for_plain_and_stays_for_residual_networks(seed):
    """S^4, 200 training points, a smooth target, no ridge.

    The target is centred on its training mean: the degenerate prediction is that mean
    plus a small part that still tells the sign, so accuracy does not fall to chance
    with R^2.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(320, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = x[:, :1] + 2.5 * x[:, 1:2] * x[:, 2:3]
    train, test = slice(0, 200), slice(200, None)
    y = (y - y[train].mean()) / y.std()

    def mse_and_accuracy(spec):
        kernel = nr.kernel_fn(spec)
        predicted = kernel_ridge(
            kernel(x[train]), kernel(x[test], x[train]), y[train], ridge=0.0
        )
        mse = np.mean((predicted - y[test]) ** 2) / y[test].var()
        return mse, np.mean(np.sign(predicted) == np.sign(y[test]))

    error, accuracy = mse_and_accuracy(PLAIN.replace(depth=1000))
    assert error > 0.9
    # Chance is 1/2, with a standard error of sqrt(1/4/120).
    assert accuracy > 0.5 + 5 * np.sqrt(0.25 / 120)
    for gamma in (1.0, 0.5):
        for depth in (1, 10, 1000):
            spec = nr.ResNet(depth=depth, branch_scale=nr.DepthScale(gamma))
            assert mse_and_accuracy(spec)[0] < 0.01
