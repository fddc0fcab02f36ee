"""Dual activations against 50-digit arithmetic and against brute-force integration."""

import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy import special

import ntk_resnet as nr
from ntk_resnet.activations.named import Erf, Gelu, PiecewiseLinear, Tanh, as_activation
from ntk_resnet.kernels.pairs import angle_gaps

mp.mp.dps = 50

NAMES = ("relu", "leaky_relu", "abs", "erf", "gelu", "tanh", "linear")


def angles_of(dtype):
    low = 1e-3 if dtype == np.float32 else 1e-6
    near_pi = np.pi - np.geomspace(1e-3, 0.5, 8)
    acute = np.geomspace(low, 0.5, 12)
    return np.concatenate([acute, np.linspace(0.51, 2.6, 15), near_pi]).astype(dtype)


def exact_piecewise(p, u, activation):
    share = mp.mpf(activation.even_share)
    theta = mp.acos(u)
    kappa = 2 / mp.pi * (mp.sin(theta) + u * (mp.pi / 2 - theta))
    return 1 - ((1 - share) * u + share * kappa), 2 * share * theta / mp.pi


def exact_erf(p, u, _):
    value = lambda c: mp.asin(2 * c / (1 + 2 * p))  # noqa: E731
    slope = lambda c: 1 / mp.sqrt((1 + 2 * p) ** 2 - 4 * c * c)  # noqa: E731
    return 1 - value(p * u) / value(p), 1 - slope(p * u) / slope(p)


def exact_gelu(p, u, _):
    # The form published by Tsuchida et al., which cancels where ours does not.
    def value(c):
        d = (1 + p) ** 2 - c * c
        n = p * p + c * c * (1 - 2 * p / (1 + p))
        return (
            c / 4
            + c * mp.asin(c / (1 + p)) / (2 * mp.pi)
            + n / (2 * mp.pi * mp.sqrt(d))
        )

    slope = lambda c: mp.diff(value, c)  # noqa: E731
    return 1 - value(p * u) / value(p), 1 - slope(p * u) / slope(p)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("activation", "exact", "variance", "ulps"),
    [
        (PiecewiseLinear(0.0, 1.0), exact_piecewise, 1.0, 8),
        (PiecewiseLinear(-1.0, 1.0), exact_piecewise, 1.0, 8),
        (PiecewiseLinear(0.3, 1.0), exact_piecewise, 1.0, 8),
        (PiecewiseLinear(-0.4, 2.0), exact_piecewise, 1.0, 8),
        (Erf(), exact_erf, 0.01, 32),
        (Erf(), exact_erf, 1.0, 32),
        (Erf(), exact_erf, 1e8, 32),
        (Gelu(), exact_gelu, 0.01, 16),
        (Gelu(), exact_gelu, 1.0, 16),
        (Gelu(), exact_gelu, 1e4, 16),
    ],
)
def test_both_gaps_keep_their_relative_accuracy(
    activation, exact, variance, ulps, dtype
):
    angles = angles_of(dtype)
    gap, supplement_gap = angle_gaps(angles)
    log_variance = jnp.asarray(np.log(variance), dtype)
    dual = activation.dual(
        log_variance, log_variance, jnp.array(gap), jnp.array(supplement_gap)
    )
    p = mp.exp(mp.mpf(float(log_variance)))
    for i in range(len(angles)):
        # Whichever of the two is small holds the exact angle.
        u = (
            1 - mp.mpf(float(gap[i]))
            if gap[i] < 1
            else mp.mpf(float(supplement_gap[i])) - 1
        )
        for got, want in zip(
            (dual.gap[i], dual.slope_gap[i]), exact(p, u, activation), strict=True
        ):
            error = abs(mp.mpf(float(got)) - want) / want
            assert error <= ulps * np.finfo(dtype).eps, (angles[i], float(error))
        want = u - 1 + exact(p, u, activation)[0]  # minus the drop
        slack = ulps * np.finfo(dtype).eps * float(max(gap[i], dual.gap[i]))
        assert abs(mp.mpf(float(dual.gap_decrease[i])) + want) <= slack


def brute_force(function, p1, p2, u):
    """E function(z1) function(z2) by the trapezoidal rule on a fine grid.

    The rule converges like exp(-2 pi d / h) for functions analytic in a strip of half
    width d: at h = 0.05 and d = pi / (2 sqrt(p)), p <= 4, below 1e-16.
    """
    x = np.arange(-10, 10, 0.05)
    weight = 0.05 * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    z1 = np.sqrt(p1) * x[:, None]
    z2 = np.sqrt(p2) * (u * x[:, None] + np.sqrt(1 - u * u) * x[None, :])
    return weight @ (function(z1) * function(z2)) @ weight


SMOOTH = {
    "erf": (special.erf, lambda z: 2 / np.sqrt(np.pi) * np.exp(-z * z)),
    "gelu": (
        lambda z: z * special.ndtr(z),
        lambda z: special.ndtr(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi),
    ),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize(("p1", "p2"), [(0.5, 0.5), (0.3, 1.0), (2.0, 0.7)])
@pytest.mark.parametrize("u", [0.95, 0.2, -0.6])
def test_smooth_duals_at_unequal_variances(name, p1, p2, u):
    activation = as_activation(name)
    logs = [jnp.log(p) for p in (p1, p2)]
    dual = activation.dual(*logs, jnp.array(1 - u), jnp.array(1 + u))
    tolerance = 1e-11 if name == "tanh" else 16 * np.finfo(float).eps
    for function, gap in zip(SMOOTH[name], (dual.gap, dual.slope_gap), strict=True):
        pair = brute_force(function, p1, p2, u)
        own = [brute_force(function, p, p, 1.0) for p in (p1, p2)]
        assert abs(gap - (1 - pair / np.sqrt(own[0] * own[1]))) <= tolerance
    for log, p in zip(logs, (p1, p2), strict=True):
        moments = activation.moments(log)
        second = brute_force(SMOOTH[name][0], p, p, 1.0)
        slope = brute_force(SMOOTH[name][1], p, p, 1.0)
        np.testing.assert_allclose(jnp.exp(moments.log_gain) * p, second, rtol=1e-13)
        np.testing.assert_allclose(jnp.exp(moments.log_slope), slope, rtol=1e-13)
        x, w = special.roots_hermitenorm(300)
        mean = w @ SMOOTH[name][0](np.sqrt(p) * x) / np.sqrt(2 * np.pi)
        np.testing.assert_allclose(
            moments.mean * np.sqrt(second), mean, rtol=1e-13, atol=1e-15
        )


@pytest.mark.parametrize(("variance", "accuracy"), [(1, 1e-12), (4, 1e-9), (10, 1e-6)])
def test_tanh_is_as_accurate_as_its_docstring_says(variance, accuracy):
    log = jnp.log(float(variance))
    for u in (0.99, 0.5, -0.5):
        dual = Tanh().dual(log, log, jnp.array(1 - u), jnp.array(1 + u))
        for function, gap in zip(
            SMOOTH["tanh"], (dual.gap, dual.slope_gap), strict=True
        ):
            pair = brute_force(function, variance, variance, u)
            exact = 1 - pair / brute_force(function, variance, variance, 1.0)
            # The slopes lose a factor of the number of terms.
            slack = 1 if gap is dual.gap else 300
            assert abs(gap - exact) <= slack * accuracy


def test_gelu_tends_to_relu_at_large_variance():
    gap, supplement_gap = map(jnp.asarray, angle_gaps(np.array([0.3, 1.0, 2.5])))
    log = jnp.log(1e14)
    dual = Gelu().dual(log, log, gap, supplement_gap)
    relu = PiecewiseLinear(0.0, 1.0).dual(log, log, gap, supplement_gap)
    np.testing.assert_allclose(dual.gap, relu.gap, rtol=1e-6)  # O(p^-1/2)


@pytest.mark.quick
def test_a_user_activation_agrees_with_the_built_in_one():
    log1, log2 = jnp.log(0.8), jnp.log(1.1)
    gap, supplement_gap = map(jnp.asarray, angle_gaps(np.array([0.2, 1.0, 2.5])))
    for spec in (
        nr.Activation(jnp.tanh),
        nr.Activation(jnp.tanh, _tanh_covariance),
    ):
        want = Tanh().dual(log1, log2, gap, supplement_gap)
        got = spec.dual(log1, log2, gap, supplement_gap)
        np.testing.assert_allclose(got.gap, want.gap, atol=1e-11)
        np.testing.assert_allclose(got.slope_gap, want.slope_gap, atol=1e-11)


def _tanh_covariance(p1, p2, c):
    """E tanh tanh by the trapezoidal rule, as in `brute_force`, differentiable in c."""
    x = jnp.arange(-10, 10, 0.1)
    w = 0.1 * jnp.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    p1, p2, c = (jnp.asarray(v)[..., None, None] for v in (p1, p2, c))
    rest = jnp.sqrt(jnp.maximum(p2 - c * c / p1, 1e-300))
    z1 = jnp.sqrt(p1) * x[:, None]
    z2 = c / jnp.sqrt(p1) * x[:, None] + rest * x[None, :]
    return jnp.sum(jnp.tanh(z1) * jnp.tanh(z2) * w[:, None] * w, axis=(-1, -2))


@pytest.mark.parametrize("name", NAMES)
def test_the_function_matches_its_moments(name):
    """E phi^2 of samples against the moment, within five standard errors."""
    activation = as_activation(name)
    z = np.random.default_rng(0).normal(size=400_000)
    squares = np.asarray(activation(jnp.asarray(z))) ** 2
    error = squares.std() / np.sqrt(z.size)
    assert abs(squares.mean() - activation.unit_second_moment) < 5 * error


def test_relu_unit_second_moment_is_exact():
    assert as_activation("relu").unit_second_moment == 0.5
    assert as_activation("abs").unit_second_moment == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_coincident_inputs_stay_coincident(name):
    activation = as_activation(name)
    log = jnp.zeros(())
    dual = activation.dual(log, log, jnp.zeros(()), jnp.array(2.0))
    assert dual.gap == 0
    assert dual.slope_gap == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: as_activation("swish"), "activation must be one of"),
        (lambda: as_activation(3), "activation must be one of"),
        (lambda: nr.LeakyReLU(float("nan")), "slope must be a finite number"),
        (lambda: PiecewiseLinear(0, 0), "cannot both be 0"),
        (lambda: nr.Activation("tanh"), "function must be a function"),
        (lambda: nr.Activation(jnp.tanh, 3), "dual_fn must be a function"),
    ],
)
def test_bad_activations_are_refused(make, words, as_users_run_it):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("activation", [Tanh(), nr.Activation(jnp.sin)])
def test_odd_functions_have_no_mean(activation):
    """Not even that of rounding: a mean that changes its sign would be refused."""
    means = activation.moments(jnp.linspace(-5, 1, 50)).mean
    np.testing.assert_array_equal(means, np.zeros(50))
