"""Phases of plain networks: quoted numbers, own integrals, and actual matrices."""

import math

import numpy as np
import pytest
from scipy import integrate, optimize, special

import ntk_resnet as nr
from ntk_resnet.analysis.phases import phase, predicted_condition_number

RNG = np.random.default_rng(0)
CRITICAL_ERF = {"activation": "erf", "weight_variance": 1.96307, "bias_variance": 0.3}


def plain(depth=1, **options):
    return nr.FeedForward(depth=depth, **options)


def on_sphere(points, dim):
    x = RNG.normal(size=(points, dim))
    return x * np.sqrt(dim / np.sum(x**2, axis=1, keepdims=True))


def condition_number(spec, x):
    return float(nr.spectrum(nr.gram(spec, x)).condition_number)


# --------------------------------------------------------------------- the fixed points


@pytest.mark.quick
def test_critical_erf_has_the_known_numbers():
    """theory.md 11.1: q* = 1.31182 at the weight variance 1.96307, to all digits."""
    found = phase(plain(**CRITICAL_ERF))
    assert found.attrs["phase"] == "critical"
    np.testing.assert_allclose(found.variance, 1.31182, atol=5e-6)
    np.testing.assert_allclose(found.slope, 1, atol=5e-6)
    np.testing.assert_allclose(found.ntk_limit, 1 / 3, rtol=1e-15)
    assert np.isinf(found.depth_scale)
    assert np.isinf(found.correlation_depth_scale)


@pytest.mark.parametrize(("slope", "name"), [(0.810, "ordered"), (1.276, "chaotic")])
def test_erf_at_the_quoted_slopes(slope, name):
    """The weight variances behind them are found first, by other code."""

    def moments(weight):
        variance = lambda q: (  # noqa: E731
            weight * 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q)) + 0.3 - q
        )
        q = optimize.brentq(variance, 1e-3, 50, xtol=1e-15)
        return q, weight * 4 / np.pi / np.sqrt((1 + 2 * q) ** 2 - 4 * q**2)

    weight = optimize.brentq(lambda w: moments(w)[1] - slope, 0.5, 6, xtol=1e-15)
    found = phase(plain(activation="erf", weight_variance=weight, bias_variance=0.3))
    assert found.attrs["phase"] == name
    np.testing.assert_allclose(found.slope, slope, rtol=1e-12)
    np.testing.assert_allclose(found.variance, moments(weight)[0], rtol=1e-12)
    np.testing.assert_allclose(found.depth_scale, 1 / abs(np.log(slope)), rtol=1e-11)


def test_the_correlation_of_chaotic_erf_solves_its_equation():
    weight = 3.0
    found = phase(plain(activation="erf", weight_variance=weight, bias_variance=0.3))
    q, c = float(found.variance), float(found.correlation)
    covariance = weight * 2 / np.pi * np.arcsin(2 * q * c / (1 + 2 * q)) + 0.3
    np.testing.assert_allclose(covariance / q, c, rtol=1e-12)
    slope = weight * 4 / np.pi / np.sqrt((1 + 2 * q) ** 2 - (2 * q * c) ** 2)
    np.testing.assert_allclose(found.correlation_slope, slope, rtol=1e-12)
    np.testing.assert_allclose(
        found.correlation_depth_scale, -1 / np.log(slope), rtol=1e-11
    )
    assert found.correlation_slope < 1 < found.slope


def test_tanh_against_adaptive_quadrature():
    found = phase(plain(activation="tanh", weight_variance=1.5, bias_variance=0.1))
    q = float(found.variance)

    def mean(function):
        weighted = lambda z: function(z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)  # noqa: E731
        return integrate.quad(weighted, -12, 12, epsabs=1e-14, limit=200)[0]

    second = mean(lambda z: np.tanh(np.sqrt(q) * z) ** 2)
    np.testing.assert_allclose(1.5 * second + 0.1, q, rtol=1e-11)
    slope = mean(lambda z: np.cosh(np.sqrt(q) * z) ** -4)
    np.testing.assert_allclose(found.slope, 1.5 * slope, rtol=1e-11)


def test_odd_activations_without_bias_decorrelate_fully():
    found = phase(plain(activation="erf", weight_variance=3.0))
    assert float(found.correlation) == 0
    mean_slope = math.sqrt(4 / np.pi / (1 + 2 * float(found.variance)))
    np.testing.assert_allclose(found.correlation_slope, 3 * mean_slope**2, rtol=1e-12)


def test_relu_with_bias_below_he_is_ordered():
    found = phase(plain(weight_variance=1.5, bias_variance=0.1))
    assert found.attrs["phase"] == "ordered"
    np.testing.assert_allclose(found.variance, 0.1 / (1 - 0.75), rtol=1e-12)
    np.testing.assert_allclose(found.slope, 0.75, rtol=1e-13)
    np.testing.assert_allclose(found.ntk_limit, 1)


@pytest.mark.parametrize(
    ("weight", "variance"), [(1.0, 0.0), (2.0, np.nan), (3.0, np.inf)]
)
def test_relu_without_bias_is_critical_at_any_variance(weight, variance):
    found = phase(plain(weight_variance=weight))
    assert found.attrs["phase"] == "critical"
    np.testing.assert_equal(float(found.variance), variance)
    np.testing.assert_allclose(found.slope, weight / 2, rtol=1e-13)
    np.testing.assert_allclose(found.ntk_limit, 0.25)


@pytest.mark.parametrize(
    ("options", "name", "variance"),
    [
        ({"activation": "linear"}, "critical", np.nan),
        ({"activation": "tanh", "weight_variance": 0.8}, "ordered", 0),
        ({"activation": "tanh", "weight_variance": 1.0}, "critical", 0),
        ({"weight_variance": 2.0, "bias_variance": 0.1}, "critical", np.inf),
        ({"activation": "gelu"}, "critical", np.inf),
    ],
)
def test_where_the_inputs_decide_the_limit_is_nan(options, name, variance):
    spec = plain(**options)
    found = phase(spec)
    assert found.attrs["phase"] == name
    np.testing.assert_equal(float(found.variance), variance)
    for undefined in ("correlation", "correlation_slope", "ntk_limit"):
        assert np.isnan(found[undefined])
    assert np.isnan(found.correlation_depth_scale)
    assert np.isnan(predicted_condition_number(spec, 10, 5)).all()


def test_the_settings_of_jax_do_not_matter():
    import jax

    with jax.enable_x64(False):
        narrow = phase(plain(**CRITICAL_ERF))
    np.testing.assert_array_equal(
        narrow.variance, phase(plain(**CRITICAL_ERF)).variance
    )


# ---------------------------------------------------------------- against real matrices


def test_condition_numbers_of_critical_erf():
    """theory.md 11.1: off the diagonal .3311 and .3324 at 1000 and 3000; 51 of 100."""
    x = on_sphere(100, 10)
    predicted = predicted_condition_number(plain(**CRITICAL_ERF), 100, [100, 1000])
    np.testing.assert_allclose(predicted, 51, rtol=1e-14)
    for depth, ratio, tolerance in ((1000, 0.3311, 2e-3), (3000, 0.3324, 2e-3)):
        matrix = nr.gram(plain(depth, **CRITICAL_ERF), x)
        off = matrix[~np.eye(100, dtype=bool)].mean()
        np.testing.assert_allclose(off, ratio, atol=tolerance)
        exact = float(nr.spectrum(matrix).condition_number)
        np.testing.assert_allclose(exact, 51, rtol=0.02)


@pytest.mark.quick
@pytest.mark.parametrize("trained", ["blocks", "all"])
def test_condition_numbers_of_relu(trained):
    """(m + 3)/3 up to ln L / L: (3/8) ln L / L above 1/4 is 0.7 % of it at 3000."""
    x = on_sphere(60, 10)
    spec = plain(trained=trained)
    assert float(predicted_condition_number(spec, 60, 10)[0]) == 21
    found = [
        condition_number(spec.replace(depth=depth), x) / 21 - 1 for depth in (300, 3000)
    ]
    assert 0 < found[1] < 0.02
    assert found[1] < found[0] / 4


@pytest.mark.parametrize("activation", ["leaky_relu", "abs"])
def test_all_kinks_have_the_limit_of_relu(activation):
    spec = plain(3000, activation=activation)
    x = on_sphere(30, 10)
    predicted = float(predicted_condition_number(spec, 30, 1)[0])
    np.testing.assert_allclose(condition_number(spec, x), predicted, rtol=0.02)


def test_chaotic_networks_are_perfectly_conditioned():
    options = {"activation": "erf", "weight_variance": 3.0, "bias_variance": 0.3}
    x = on_sphere(100, 10)
    assert float(predicted_condition_number(plain(**options), 100, 9)[0]) == 1
    found = phase(plain(**options))
    off = [nr.gram(plain(d, **options), x)[0, 1] for d in (60, 80)]
    # The NTK stays bounded off the diagonal and grows on it, as chi_1^L.
    rate = np.log(off[1] / off[0]) / 20
    np.testing.assert_allclose(rate, -math.log(float(found.slope)), rtol=0.01)
    assert 0 < condition_number(plain(80, **options), x) - 1 < 2 * 100 * off[1]


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "erf", "weight_variance": 1.3, "bias_variance": 0.3},
        {"weight_variance": 1.5, "bias_variance": 0.1},
        {"weight_variance": 1.5, "bias_variance": 0.1, "trained": "blocks"},
    ],
    ids=["smooth", "kink", "kink, readout frozen"],
)
def test_ordered_networks_are_worse_with_depth_at_the_predicted_rate(options):
    """Up to a factor of the data's, which no longer moves with depth: 10 %."""
    x = on_sphere(20, 10)
    depths = [40, 60]
    exact = np.array([condition_number(plain(d, **options), x) for d in depths])
    predicted = predicted_condition_number(plain(**options), 20, depths)
    factor = exact / predicted
    np.testing.assert_allclose(factor[1], factor[0], rtol=0.1)
    assert exact[1] / exact[0] > 10


def test_the_limit_of_a_sweep_is_the_limit_of_the_phase():
    """Chaotic NNGPs tend to c*, from both sides."""
    options = {"activation": "erf", "weight_variance": 3.0, "bias_variance": 0.3}
    swept = nr.sweep_depth(plain(**options), 200, angles=[0.1, 2.0])
    moments = phase(plain(**options))
    q, c = float(moments.variance), float(moments.correlation)
    # The result is of the features, after the activation: one map without the weights.
    features = np.arcsin(2 * q * c / (1 + 2 * q)) / np.arcsin(2 * q / (1 + 2 * q))
    np.testing.assert_allclose(swept.nngp[0], features, rtol=1e-9)


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: phase(nr.ResNet(depth=2, branch_scale=1.0)), "spec must be a plain"),
        (lambda: phase("erf"), "spec must be a plain"),
        (
            lambda: phase(plain(activation="tanh", weight_variance=1e4)),
            "not resolved at the variance",
        ),
        (lambda: predicted_condition_number(plain(), 1, 5), "points must be at least"),
        (lambda: predicted_condition_number(plain(), 5, 0), "depths must be whole"),
    ],
)
def test_bad_input(call, words, as_users_run_it):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_error_function_is_scipys():
    """What the quoted numbers are of: erf itself, not a rescaled one."""
    activation = plain(activation="erf").activation
    z = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(activation(z), special.erf(z), rtol=1e-14)
