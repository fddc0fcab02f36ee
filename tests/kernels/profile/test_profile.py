"""Profiles: accuracy, slopes and derivatives, agreement of engines, cache, bad input.

The promise is 1e-11 in float64 and 2e-5 in float32, relative, for both gaps; what is
held here is what is reached.
"""

import functools
import itertools
import os
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from accuracy import FAMILIES
from marks import slow_but_for
from scipy import integrate

import ntk_resnet as nr
from ntk_resnet.activations.named import PiecewiseLinear
from ntk_resnet.kernels import recursion
from ntk_resnet.kernels.norms import common_norm
from ntk_resnet.kernels.pairs import angle_gaps
from ntk_resnet.kernels.profile import composed, composition, scanned
from ntk_resnet.kernels.profile import profile as module
from ntk_resnet.records import cache
from ntk_resnet.specification.base import TRAINED

EPS = {np.float64: np.finfo(np.float64).eps, np.float32: np.finfo(np.float32).eps}
# The tables' own accuracy, and a few roundings of r, of its square and of the sum.
REACHED = {np.float64: 2 * module.ACCURACY, np.float32: 4 * EPS[np.float32]}
RIGHT = [1.5707, 1.5708]  # the two tables meet between them
ANGLES = {
    np.float64: [1e-8, 3e-7, 1e-5, 1e-3, 0.3, *RIGHT, 2.5, np.pi - 1e-8, np.pi],
    np.float32: [1e-3, 0.03, 0.3, *RIGHT, 2.5, np.pi - 1e-3, np.pi],
}
_NEAR = np.geomspace(1e-8, np.pi / 2, 200)
EVERYWHERE = np.concatenate([_NEAR, np.pi - _NEAR])


def short(value):
    """A name for a case: what is not as usual in a network."""
    if not isinstance(value, nr.FeedForward | nr.ResNet):
        return None
    name = re.sub(r"Activation\(.*?\), w", "Activation, w", repr(value))
    return re.sub(
        r"weight_variance=2.0|bias_variance=0.0|input_activation=False", "", name
    )


def exact_gaps(spec, angle):
    return reference.gaps_of(spec, angle)


def worst_error(spec, angles):
    """Of both gaps, relative, against 50 digits at the angles as rounded."""
    p = nr.profile(spec)
    exact = [exact_gaps(spec, angle) for angle in angles]
    found = np.stack([p.nngp_gap(angles), p.ntk_gap(angles)], axis=1)
    assert found.dtype == angles.dtype
    return reference.relative_error(found, [gap for pair in exact for gap in pair])


def by_recursion(spec, angles, input_kernel=1.0):
    """Both gaps and both logarithms of the diagonal, in the dtype of the angles."""
    scales = np.zeros(max(spec.depth, 64))  # most share a compilation
    scales[: spec.depth] = spec.scales
    gaps, logs = _by_recursion(
        spec.without_depth,
        *angle_gaps(angles),
        np.log(input_kernel),
        scales,
        spec.depth,
    )
    return np.asarray(gaps), np.asarray(logs)


@functools.partial(jax.jit, static_argnums=0)
def _by_recursion(spec, gap, supplement_gap, log, scales, depth):
    state = recursion.first_state(spec, gap, supplement_gap, jnp.asarray(log))
    state = jax.lax.fori_loop(
        0, depth, lambda block, state: recursion.step(spec, state, scales[block]), state
    )
    kernels = recursion.readout(spec, state)
    return (
        jnp.stack([kernels.nngp_gap, kernels.ntk_gap]),
        jnp.stack([kernels.log_nngp[0], kernels.log_ntk[0]]),
    )


def both_gaps(p, angles):
    return np.stack([p.nngp_gap(angles), p.ntk_gap(angles)])


# ----------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize("depth", [1, 2, 30, 1000])
@pytest.mark.parametrize("family", FAMILIES)
def test_gaps_against_fifty_digits(family, depth):
    spec = FAMILIES[family].replace(depth=depth)
    for dtype, angles in ANGLES.items():
        assert worst_error(spec, np.array(angles, dtype)) <= REACHED[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_gaps_at_depth_thirty_thousand(family):
    spec = FAMILIES[family].replace(depth=30_000)
    for dtype, angles in ANGLES.items():
        assert worst_error(spec, np.array(angles, dtype)) <= REACHED[dtype]


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", ["plain", "residual, constant 1", "residual, gamma 1/2"]
)
def test_gaps_at_depth_one_million(family):
    spec = FAMILIES[family].replace(depth=10**6)
    p = nr.profile(spec)
    exact, _ = by_recursion(spec, EVERYWHERE)
    np.testing.assert_allclose(
        both_gaps(p, EVERYWHERE), exact, rtol=REACHED[np.float64]
    )
    assert worst_error(spec, np.array([1e-6])) <= REACHED[np.float64]
    for dtype in ANGLES:
        far = np.array([0.5, 2.0, 3.0], dtype)
        if family == "residual, gamma 1/2":  # the limit is approached like 1/L
            shallow = [nr.profile(spec.replace(depth=d)) for d in (10**4, 10**5)]
            if dtype == np.float64:
                steps = np.diff([q.ntk(far) for q in (*shallow, p)], axis=0)
                np.testing.assert_allclose(steps[0] / steps[1], 10, rtol=1e-3)
            continue
        # `degeneracy`: up to terms smaller by ln L / L, and by 1 / L.
        effective, depth = (1 if family == "plain" else 0.5), spec.depth
        predicted = 9 * np.pi**2 / (2 * (effective * depth) ** 2)
        np.testing.assert_allclose(p.nngp_gap(far), predicted, rtol=2e-4)
        ntk = 1 / 4 + 3 / 8 * np.log(depth) / depth
        atol = 10 / depth + EPS[dtype]
        np.testing.assert_allclose(p.ntk(far), ntk, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "family",
    slow_but_for(FAMILIES, ("plain", "residual, gamma 1", "post-activation")),
)
def test_no_angle_between_is_worse(family):
    """A dense grid, and halfway between the nodes of no grid in particular."""
    spec = FAMILIES[family].replace(depth=30)
    p = nr.profile(spec)
    exact, _ = by_recursion(spec, EVERYWHERE)
    np.testing.assert_allclose(
        both_gaps(p, EVERYWHERE), exact, rtol=REACHED[np.float64]
    )
    np.testing.assert_array_equal(p.ntk(EVERYWHERE), 1 - p.ntk_gap(EVERYWHERE))
    np.testing.assert_array_equal(p.nngp(EVERYWHERE), 1 - p.nngp_gap(EVERYWHERE))
    assert p.error <= p.accuracy


PLAIN = nr.FeedForward(depth=5)
RESIDUAL = nr.ResNet(depth=5, branch_scale=0.3)


@pytest.mark.parametrize(
    "spec",
    [
        RESIDUAL.replace(branch_scale=1e-8, depth=20),
        RESIDUAL.replace(branch_scale=1e3),
        RESIDUAL.replace(branch_scale=0.0, trained="all"),
        RESIDUAL.replace(branch_scale=1e-5, block="preactivation"),
        RESIDUAL.replace(branch_scale=1e-8, depth=20, block="preactivation"),
        RESIDUAL.replace(input_activation=True),
        RESIDUAL.replace(input_activation=True, trained="all", branch_scale=0.0),
        RESIDUAL.replace(input_activation=True, block="postactivation"),
        PLAIN.replace(activation=nr.LeakyReLU(0.999)),
        PLAIN.replace(activation=nr.LeakyReLU(1 - 1e-9)),
        PLAIN.replace(activation="linear"),
        *slow_but_for(
            [
                RESIDUAL.replace(branch_scale=1e-5, depth=20),
                RESIDUAL.replace(branch_scale=1e100),
                RESIDUAL.replace(branch_scale=1e-150),
                RESIDUAL.replace(branch_scale=1e-150, trained="all"),
                RESIDUAL.replace(branch_scale=1e-4, activation="abs"),
                RESIDUAL.replace(input_activation=True, trained="all"),
                RESIDUAL.replace(branch_scale=nr.DecreasingScale(), depth=10**5),
                PLAIN.replace(activation=nr.LeakyReLU(1 - 1e-5)),
                PLAIN.replace(activation=nr.LeakyReLU(-0.999)),
                PLAIN.replace(activation=nr.LeakyReLU(1e150)),
                PLAIN.replace(weight_variance=1e60),
            ]
        ),
    ],
    ids=short,
)
def test_extreme_homogeneous_networks(spec):
    p = nr.profile(spec)
    exact, logs = by_recursion(spec, EVERYWHERE)
    np.testing.assert_allclose(
        both_gaps(p, EVERYWHERE), exact, rtol=REACHED[np.float64]
    )
    np.testing.assert_allclose([p.log_nngp_diag, p.log_ntk_diag], logs, rtol=1e-14)
    assert nr.kernel_fn(spec).engine == "profile"


SMOOTH = nr.Activation(jax.nn.silu)
AT_FIXED_NORM = [
    PLAIN.replace(activation=activation, bias_variance=bias)
    for activation, bias in (
        ("relu", 0.1),
        ("erf", 0.1),
        ("gelu", 0.0),
        ("tanh", 0.1),
        (SMOOTH, 0.0),
    )
] + [
    RESIDUAL.replace(activation="erf", bias_variance=0.1, block="postactivation"),
    RESIDUAL.replace(bias_variance=0.1, trained="all", block="preactivation"),
]


@pytest.mark.parametrize(
    "spec",
    slow_but_for(AT_FIXED_NORM, [AT_FIXED_NORM[i] for i in (0, 1, 3, 5)]),
    ids=short,
)
def test_any_activation_and_bias_at_fixed_norm(spec):
    for input_kernel in (0.1, 3.0):
        p = nr.profile(spec, input_kernel=input_kernel)
        exact, logs = by_recursion(spec, EVERYWHERE, input_kernel)
        np.testing.assert_allclose(
            both_gaps(p, EVERYWHERE), exact, rtol=REACHED[np.float64]
        )
        assert (p.log_nngp_diag, p.log_ntk_diag) == pytest.approx(logs, rel=1e-13)
    angles = np.array(ANGLES[np.float32][:-1], np.float32)
    wide = both_gaps(p, angles.astype(float))
    np.testing.assert_allclose(both_gaps(p, angles), wide, rtol=REACHED[np.float32])
    assert nr.kernel_fn(spec).engine == "recursion"


@pytest.mark.parametrize(
    "input_kernel", slow_but_for([1e-6, 1e-3, 100.0, 1e6], [1e-3, 1e6])
)
@pytest.mark.parametrize("activation", ["erf", "gelu"])
def test_extreme_norms(activation, input_kernel):
    spec = PLAIN.replace(activation=activation)
    p = nr.profile(spec, input_kernel=input_kernel)
    exact, _ = by_recursion(spec, EVERYWHERE, input_kernel)
    np.testing.assert_allclose(
        both_gaps(p, EVERYWHERE), exact, rtol=REACHED[np.float64]
    )


@pytest.mark.parametrize("bias", [0.0, 0.2])
@pytest.mark.parametrize("activation", ["erf", "gelu"])
def test_smooth_activations_against_fifty_digits(activation, bias):
    """The recursion's own four roundings a layer come on top."""
    for depth in (1, 30):
        spec = nr.FeedForward(depth=depth, activation=activation, bias_variance=bias)
        p = nr.profile(spec)
        for dtype, angles in ANGLES.items():
            angles = np.array(angles, dtype)[:-1]  # the oracle divides by 0 at pi
            exact = [
                reference.smooth_gaps(
                    activation, angle, depth, spec.weight_variance, bias
                )
                for angle in angles
            ]
            accuracy = REACHED[dtype] + (8 + 4 * depth) * EPS[np.float64]
            for found, want in zip(
                both_gaps(p, angles), zip(*exact, strict=True), strict=True
            ):
                assert reference.relative_error(found, want) <= accuracy


# ---------------------------------------------------------------- slope and derivatives


SLOPES = [
    (nr.FeedForward(depth=1), 0.5),
    (nr.FeedForward(depth=10_000), 5000.0),
    (nr.ResNet(depth=30, branch_scale=0.1), (1 + 29 * 0.01 / 1.01) / 2),
    (nr.ResNet(depth=30, branch_scale=1e3), (1 + 29 * 1e6 / (1e6 + 1)) / 2),
    (nr.ResNet(depth=10_000, branch_scale=1.0), (1 + 9999 / 2) / 2),
    (nr.ResNet(depth=10_000, branch_scale=nr.DepthScale(0.5)), 10_000 / 10_001),
]


@pytest.mark.parametrize(("spec", "slope"), SLOPES, ids=short)
def test_slope_at_zero(spec, slope):
    """1 - NTK = c theta / pi: c = L / 2, or (1 + a_e (L - 1)) / 2 in blocks alone."""
    p = nr.profile(spec)
    # At an angle, up to terms of the order of the layer's width 1/c.
    theta = 1e-8
    found = float(p.ntk_gap(theta)) * np.pi / theta
    assert found == pytest.approx(slope, rel=(4 + 8 * slope) * theta)
    for dtype, rtol in ((np.float64, 1e-12), (np.float32, 1e-6)):
        derivative = jax.grad(p.ntk)(dtype(0))
        assert -derivative * np.pi == pytest.approx(slope, rel=rtol)
    assert jax.grad(p.nngp)(0.0) == 0


# Angles and steps without rounding; the stencil below is exact to (1/128)^8.
STEPS = [(2.0**-k, 2.0 ** -(k + 7)) for k in (26, 20, 10, 4, 1)] + [
    (1.5, 2.0**-7),
    (2.0, 2.0**-7),
    (3.0, 2.0**-10),
    (3.140625, 2.0**-18),
]
WEIGHTS = {1: (4, 5), 2: (-1, 5), 3: (4, 105), 4: (-1, 280)}


def exact_derivatives(spec, theta, step):
    """Of both gaps: differences of eighth order in 50-digit arithmetic."""
    total = [0, 0]
    for k, (numerator, denominator) in WEIGHTS.items():
        ahead = exact_gaps(spec, theta + k * step)
        behind = exact_gaps(spec, theta - k * step)
        for i in (0, 1):
            total[i] += (ahead[i] - behind[i]) * numerator / denominator
    return [float(value / step) for value in total]


@pytest.mark.parametrize("depth", [1, 300])
@pytest.mark.parametrize(
    "family", slow_but_for(FAMILIES, ("plain", "residual, gamma 1"))
)
def test_derivatives_against_fifty_digits(family, depth):
    """Relative to the derivative, or to gap / min(theta, 1) where that is larger.

    A polynomial of degree p that spans an eighth of an octave loses up to 16 p^2.
    """
    spec = FAMILIES[family].replace(depth=depth)
    p = nr.profile(spec)
    want = np.array([exact_derivatives(spec, *pair) for pair in STEPS]).T
    for dtype, accuracy in ((np.float64, 2e-10), (np.float32, 5e-6)):
        smallest = ANGLES[dtype][0]
        chosen = [i for i, (theta, _) in enumerate(STEPS) if theta >= smallest]
        theta = np.array([STEPS[i][0] for i in chosen], dtype)
        for function, exact in zip((p.nngp_gap, p.ntk_gap), want, strict=True):
            found = jax.jit(jax.vmap(jax.grad(function)))(theta)
            assert found.dtype == dtype
            size = np.asarray(function(theta)) / np.minimum(theta, 1)
            scale = np.maximum(size, np.abs(exact[chosen]))
            assert (np.abs(found - exact[chosen]) <= accuracy * scale).all()


@pytest.mark.parametrize(
    "spec",
    [
        PLAIN,
        pytest.param(AT_FIXED_NORM[1], marks=pytest.mark.slow),
        pytest.param(AT_FIXED_NORM[-2], marks=pytest.mark.slow),
    ],
    ids=short,
)
def test_derivatives_against_the_recursion(spec):
    p = nr.profile(spec)
    scales = jnp.asarray(spec.scales)

    def theirs(theta):
        half = theta / 2
        pair = 2 * jnp.sin(half) ** 2, 2 * jnp.cos(half) ** 2
        state = recursion.first_state(spec, *pair, jnp.zeros(()))
        kernels = recursion.readout(spec, recursion.propagate(spec, state, scales))
        return jnp.stack([kernels.nngp_gap, kernels.ntk_gap])

    def ours(theta):
        return jnp.stack([p.nngp_gap(theta), p.ntk_gap(theta)])

    theta = jnp.array([1e-3, 0.1, 0.7, 1.5, 1.6, 2.5, 3.0])
    at = lambda function: np.asarray(jax.jit(jax.vmap(function))(theta))  # noqa: E731
    want = at(jax.jacfwd(theirs))
    np.testing.assert_allclose(at(jax.jacfwd(ours)), want, rtol=1e-10)
    np.testing.assert_allclose(at(jax.jacrev(ours)), want, rtol=1e-10)
    # Second ones lose as much again.
    second, want = (at(jax.jacfwd(jax.jacfwd(f))) for f in (ours, theirs))
    np.testing.assert_allclose(second, want, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_derivative_at_pi_is_that_next_to_it(dtype):
    """In float32, pi is rounded up."""
    p = nr.profile(nr.FeedForward(depth=3))
    at, near = (float(jax.grad(p.ntk)(dtype(t))) for t in (np.pi, np.pi - 1e-3))
    assert at == pytest.approx(near, rel=1e-4)


def test_transformations():
    p = nr.profile(PLAIN)
    theta = jnp.linspace(0, np.pi, 12).reshape(3, 4)
    want = np.asarray(p.ntk(theta))
    assert want.shape == theta.shape
    same = functools.partial(np.testing.assert_allclose, desired=want, rtol=4e-16)
    same(jax.jit(p.ntk)(theta))
    same(jax.vmap(jax.vmap(p.ntk))(theta))
    outside = jnp.array([-0.1, 3.2, np.nan])
    assert np.isnan(jax.jit(p.nngp)(outside)).all()
    assert p.ntk(0.0) == p.nngp(0.0) == 1
    assert p.ntk(np.pi).shape == ()
    assert p.ntk(jnp.zeros((0, 2))).shape == (0, 2)


# ------------------------------------------------------------------- diagonals, engines


@pytest.mark.parametrize("spec", [PLAIN, RESIDUAL, *AT_FIXED_NORM[:3]], ids=short)
def test_diagonals(spec):
    rows = np.array([[3.0, 4.0], [5.0, 0.0]])
    norm = 12.5  # |x|^2 / d
    p = nr.profile(spec, input_kernel=norm)
    for name in ("nngp", "ntk"):
        want = nr.diag(spec, rows, name, log=True)
        np.testing.assert_allclose(getattr(p, f"log_{name}_diag"), want, rtol=1e-14)
        log = p.log_diagonal(name) + np.log(norm)
        np.testing.assert_allclose(log, want, rtol=1e-14)


def test_diagonals_beyond_the_range_of_floats():
    spec = nr.ResNet(depth=30_000, branch_scale=1.0)
    p = nr.profile(spec, input_kernel=1e300)
    want = nr.diag(spec, np.full((1, 2), 1e150), "ntk", log=True)
    np.testing.assert_allclose(p.log_ntk_diag, want[0], rtol=1e-14)


def rows_of_all_kinds(dtype):
    """Multiples, opposites, near-duplicates, orthogonal rows; and a second set."""
    rng = np.random.default_rng(0)
    x1 = rng.normal(size=(6, 5))
    x1[1], x1[2], x1[3] = 2 * x1[0], -x1[0], x1[0] * (1 + 1e-7 * rng.normal(size=5))
    x1[4], x2 = [0, 0, 1, 0, 0], rng.normal(size=(4, 5))
    x2[0], x2[1] = [1, 0, 0, 0, 0], 3 * x1[0]
    return x1.astype(dtype), x2.astype(dtype)


ON_DATA = {
    "plain": nr.FeedForward(depth=3),
    "deep": nr.FeedForward(depth=1000),
    "absolute value": nr.FeedForward(depth=40, activation="abs"),
    "linear": nr.FeedForward(depth=3, activation="linear"),
    "residual": nr.ResNet(depth=50, branch_scale=nr.DepthScale(0.5)),
    "post-activation": nr.ResNet(depth=9, branch_scale=0.7, block="postactivation"),
}
BOTH = ("nngp", "ntk")

# Values: a gap of at most 2, and roundings. Gradients: see the derivatives above; the
# recursion's own rounding in float32 is larger.
VALUES = {np.float64: 2 * REACHED[np.float64], np.float32: 4 * EPS[np.float32]}
GRADIENTS = {np.float64: 4e-12, np.float32: 2e-5}


def engines(spec, normalised=True):
    ours, recursive = (
        nr.kernel_fn(spec, engine=engine, normalised=normalised)
        for engine in ("profile", "recursion")
    )
    assert (ours.engine, recursive.engine) == ("profile", "recursion")
    return ours, recursive


@pytest.mark.parametrize("case", slow_but_for(ON_DATA, ("plain", "residual")))
def test_engines_agree(case):
    spec = ON_DATA[case]
    assert nr.kernel_fn(spec).engine == "profile"
    # Raw or normalised, square or not, single or double: two that have each once.
    for dtype, normalised in ((np.float64, True), (np.float32, False)):
        x1, x2 = rows_of_all_kinds(dtype)
        others = (x2,) if normalised else ()
        ours, recursive = engines(spec, normalised)
        pairs = ours(x1, *others, get=BOTH), recursive(x1, *others, get=BOTH)
        for found, want in zip(*pairs, strict=True):
            assert found.dtype == dtype
            atol = VALUES[dtype] * np.abs(want).max()
            np.testing.assert_allclose(found, want, rtol=0, atol=atol)
            if not others:
                np.testing.assert_array_equal(found, found.T)
    auto = nr.kernel_fn(spec, normalised=False)(x1, get=BOTH)
    np.testing.assert_array_equal(auto, pairs[0])


@pytest.mark.parametrize(
    ("case", "dtype", "normalised"),
    [
        ("residual", np.float64, True),
        pytest.param("deep", np.float32, True, marks=pytest.mark.slow),
        pytest.param("plain", np.float64, False, marks=pytest.mark.slow),
        pytest.param("post-activation", np.float32, False, marks=pytest.mark.slow),
        pytest.param("absolute value", np.float64, False, marks=pytest.mark.slow),
        pytest.param("linear", np.float64, True, marks=pytest.mark.slow),
    ],
)
def test_gradients_of_engines_agree(case, dtype, normalised):
    x1, x2 = map(jnp.asarray, rows_of_all_kinds(dtype))
    weights = np.random.default_rng(1).normal(size=(2, 6, 4)).astype(dtype)

    def total(x, kernel):
        values = kernel(x, x2, get=BOTH)
        return sum(jnp.sum(v * w) for v, w in zip(values, weights, strict=True))

    found, want = (
        jax.grad(total)(x1, kernel) for kernel in engines(ON_DATA[case], normalised)
    )
    assert found.dtype == dtype
    atol = GRADIENTS[dtype] * np.abs(want).max()
    np.testing.assert_allclose(found, want, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("spec", "dtype", "normalised"),
    [
        (AT_FIXED_NORM[1], np.float64, False),
        pytest.param(AT_FIXED_NORM[0], np.float64, False, marks=pytest.mark.slow),
        pytest.param(AT_FIXED_NORM[1], np.float32, True, marks=pytest.mark.slow),
        pytest.param(AT_FIXED_NORM[2], np.float64, True, marks=pytest.mark.slow),
        pytest.param(AT_FIXED_NORM[3], np.float32, False, marks=pytest.mark.slow),
    ],
    ids=short,
)
def test_engines_agree_at_a_common_norm(spec, dtype, normalised):
    x = np.random.default_rng(2).normal(size=(6, 5)).astype(dtype)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found, want = (kernel(x, -x[:3]) for kernel in engines(spec, normalised))
    # The common norm is a mean: rows differ from it by their rounding, and what that
    # does to a value grows with the five layers.
    atol = (VALUES[dtype] + 16 * EPS[dtype]) * np.abs(want).max()
    np.testing.assert_allclose(found, want, rtol=0, atol=atol)


@pytest.mark.parametrize("size", [1e-140, 1e-30, 1e30, 1e150])
def test_raw_values_at_extreme_norms(size):
    x, _ = rows_of_all_kinds(np.float64)
    found, want = (
        nr.kernel_fn(PLAIN, engine=engine, normalised=False)(x * size)
        for engine in ("profile", "recursion")
    )
    # exp turns the rounding of a logarithm of several hundreds into a relative error
    np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-12 * np.max(want))


def test_common_norm_is_found_whatever_it_is():
    """Rounding of a logarithm is relative to the logarithm."""
    x = np.random.default_rng(3).normal(size=(20, 64))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    spec = nr.FeedForward(depth=2, activation="gelu")
    for dtype in ANGLES:
        for size in (1e-12, 1e-3, 1.0, 1e5, 1e12):
            rows = jnp.asarray(x * size, dtype)
            found = common_norm(spec, rows, rows[:3])
            assert found == pytest.approx(size**2 / 64, rel=500 * float(EPS[dtype]))


def test_single_precision_where_x64_is_off():
    x1, x2 = rows_of_all_kinds(np.float32)
    spec = nr.FeedForward(depth=7)
    want = nr.kernel_fn(spec)(x1, x2)
    table = nr.profile(spec).coefficients
    with jax.enable_x64(False):
        module._profile.cache_clear()  # so that it is built in the trace
        kernel = nr.kernel_fn(spec)
        got = jax.jit(kernel)(x1, x2)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, rtol=0, atol=4 * EPS[np.float32])
        assert jax.jit(jax.grad(lambda x: kernel(x, x2).sum()))(x1).dtype == np.float32
        p = nr.profile(spec)
        assert jax.jit(p.ntk)(np.float32(0.3)).dtype == np.float32
        # The tables are those of float64 all the same.
        for found, exact in zip(p.coefficients, table, strict=True):
            np.testing.assert_array_equal(found, exact)
        assert not jax.config.jax_enable_x64


def test_float64_data_keep_their_digits_where_x64_is_off():
    x1, x2 = rows_of_all_kinds(np.float64)
    theta = np.array(ANGLES[np.float64])
    kernel, p = nr.kernel_fn(PLAIN), nr.profile(PLAIN)
    names = ("ntk", "nngp", "ntk_gap", "nngp_gap")
    want = kernel(x1, x2), *(getattr(p, name)(theta) for name in names)
    with jax.enable_x64(False):
        got = kernel(x1, x2), *(getattr(p, name)(theta) for name in names)
        for found, exact in zip(got, want, strict=True):
            assert found.dtype == np.float64
            np.testing.assert_allclose(np.asarray(found), exact, rtol=1e-14)


@pytest.mark.parametrize("activation", ["relu", "abs"])
@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad])
def test_built_inside_a_trace(transform, activation):
    """Composed, or by the recursion in a thread that knows of no trace."""
    spec = nr.FeedForward(depth=11, activation=activation)
    want = float(nr.profile(spec).ntk(0.3))
    module._profile.cache_clear()
    function = lambda theta: nr.profile(spec).ntk(theta)  # noqa: E731
    theta = jnp.full(2, 0.3) if transform is jax.vmap else jnp.asarray(0.3)
    value = transform(function)(theta)
    if transform is not jax.grad:  # what is compiled may round otherwise than NumPy
        np.testing.assert_allclose(value, want, rtol=4 * EPS[np.float64])
    assert nr.profile(spec).ntk(0.3) == want  # holds no tracer


# ----------------------------------------------------- built once, kept, found, damaged


@pytest.fixture
def built(monkeypatch):
    """How each profile is made, "composed" or "scanned"; none is known beforehand."""
    calls = []

    def count(home, name, way):
        make = getattr(home, name)

        def counted(*arguments, **named):
            calls.append(way)
            return make(*arguments, **named)

        monkeypatch.setattr(home, name, counted)

    count(composed, "tables", "composed")
    count(scanned, "build", "scanned")
    monkeypatch.setattr(cache, "WORTH_KEEPING", 0.0)
    forget()
    return calls


def forget():
    module._profile.cache_clear()
    module.has_profile.cache_clear()


def same(p, q):
    numbers = ("log_nngp_diag", "log_ntk_diag", "error", "powers", "accuracy")
    return all(getattr(p, name) == getattr(q, name) for name in numbers) and all(
        map(np.array_equal, (*p.coefficients, p.offsets), (*q.coefficients, q.offsets))
    )


def test_built_once(built):
    spec = nr.FeedForward(depth=5)
    x1, x2 = rows_of_all_kinds(np.float64)
    first = nr.profile(spec)
    for engine in ("auto", "profile"):
        for dtype in ANGLES:
            kernel = nr.kernel_fn(spec, engine=engine)
            kernel(x1.astype(dtype), x2.astype(dtype), ("nngp", "ntk"))
            jax.jit(kernel)(x1)
    assert nr.profile(nr.FeedForward(depth=5)) is first
    assert len(built) == 1
    nr.profile(spec, accuracy=1e-6)
    nr.profile(spec.replace(depth=6))
    assert len(built) == 3


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_built_once_for_all_parts_of_data_on_a_sphere(built, dtype):
    """Rows of one norm differ by their rounding, and so does the mean of some."""
    x = np.random.default_rng(0).normal(size=(40, 8)).astype(dtype)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    kernel = nr.kernel_fn(nr.FeedForward(depth=3, activation="erf"), engine="profile")
    for part in np.split(x * dtype(np.sqrt(8)), 8):
        kernel(part)
    assert len(built) == 1


SCANNED = nr.FeedForward(depth=3, activation="abs")


def test_what_is_composed_needs_no_cache(built, tmp_path, monkeypatch):
    monkeypatch.setenv("NTK_RESNET_CACHE", str(tmp_path))
    nr.profile(PLAIN)
    assert built == ["composed"]
    assert not list(tmp_path.iterdir())


def test_kept_on_disk(built, tmp_path, monkeypatch):
    monkeypatch.setenv("NTK_RESNET_CACHE", str(tmp_path / "new" / "folder"))
    spec = SCANNED
    first = nr.profile(spec)
    forget()
    again = nr.profile(SCANNED.replace())
    assert len(built) == 1
    assert again is not first
    assert same(again, first)
    assert float(again.ntk(0.3)) == float(first.ntk(0.3))
    nr.profile(spec, accuracy=1e-7)
    nr.profile(spec.replace(bias_variance=0.1), input_kernel=2.0)
    assert len(built) == 3
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 3
    custom = spec.replace(activation=SMOOTH)  # has no name to be kept under
    nr.profile(custom)
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 3


def test_quick_ones_are_not_kept(built, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "WORTH_KEEPING", 1e6)
    monkeypatch.setenv("NTK_RESNET_CACHE", str(tmp_path))
    nr.profile(SCANNED)
    assert built == ["scanned"]
    assert not list(tmp_path.iterdir())


def test_found_by_another_process(built, tmp_path, monkeypatch):
    monkeypatch.setenv("NTK_RESNET_CACHE", str(tmp_path))
    program = (
        "import ntk_resnet as nr\n"
        "from ntk_resnet.records import cache\n"
        "cache.WORTH_KEEPING = 0\n"
        "spec = nr.FeedForward(depth=3, activation='abs')\n"
        "print(repr(float(nr.profile(spec).ntk_gap(0.3))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert nr.profile(SCANNED).ntk_gap(0.3) == float(done.stdout)
    assert not built


DAMAGES = {
    "cut": lambda file, data: file.write_bytes(data[: len(data) // 2]),
    "garbage": lambda file, _: file.write_bytes(bytes(range(200))),
    "gone": lambda file, _: file.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_computed_again(built, damage, tmp_path, monkeypatch):
    monkeypatch.setenv("NTK_RESNET_CACHE", str(tmp_path))
    first = nr.profile(SCANNED)
    (store,) = tmp_path.iterdir()
    files = [
        file.relative_to(store)
        for file in (store / "zarr.json", *store.glob("ntk/**/*"), *store.glob("o*/*"))
        if file.is_file()
    ]
    assert len(files) >= 4
    pristine = tmp_path / "pristine"
    shutil.copytree(store, pristine)
    for file in files:
        DAMAGES[damage](store / file, (store / file).read_bytes())
        forget()
        built.clear()
        assert same(nr.profile(SCANNED), first), file
        assert len(built) == 1, file
        forget()
        assert same(nr.profile(SCANNED), first), file
        assert len(built) == 1, f"{file}: not kept again"
        shutil.rmtree(store)
        shutil.copytree(pristine, store)


@pytest.mark.parametrize("folder", ["file", "file/below", ""])
def test_a_cache_that_cannot_be_written_does_no_harm(
    built, folder, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NTK_RESNET_CACHE", folder and str(tmp_path / folder))
    first = nr.profile(SCANNED)
    forget()
    assert same(nr.profile(SCANNED), first)
    assert len(built) == 2
    assert os.listdir(tmp_path) == ["file"]


# -------------------------------------------------------------------- composed or not

# Tables have as many terms as a tenth of their accuracy needs; compositions are better.
CUT = module.ACCURACY / 10

# Block, or "plain"; activation; which way its profile goes, on both sides and with
# either `trained`. Slopes of both signs and means of post-activation blocks are scanned
# (terms of both signs), and so are smooth activations (other powers of the angle).
OF_MEAN_ZERO = [block for block in nr.ResNet.blocks if block != "postactivation"]
WAYS = [
    *((block, "relu", "composed") for block in ("plain", *OF_MEAN_ZERO)),
    *((block, "leaky_relu", "composed") for block in ("plain", "two_layer")),
    ("full_preactivation", nr.LeakyReLU(0.3), "composed"),
    ("preactivation", nr.LeakyReLU(0.3), "composed"),
    ("plain", PiecewiseLinear(-1.0, -0.2), "composed"),
    *((block, "linear", "closed") for block in ("plain", *OF_MEAN_ZERO)),
    *((block, "abs", "scanned") for block in ("plain", *OF_MEAN_ZERO)),
    ("two_layer", nr.LeakyReLU(-0.3), "scanned"),
    *(("postactivation", name, "scanned") for name in ("relu", "linear")),
    *(("plain", name, "scanned") for name in ("erf", "gelu", "tanh")),
]


def network(block, activation, trained, depth, scale=0.6):
    common = {"depth": depth, "activation": activation, "trained": trained}
    if block == "plain":
        return nr.FeedForward(**common)
    return nr.ResNet(block=block, branch_scale=scale, **common)


@pytest.mark.parametrize("trained", ["blocks", "all"])
@pytest.mark.parametrize(("block", "activation", "way"), WAYS, ids=str)
def test_which_way_a_profile_goes(built, block, activation, way, trained):
    """And it is right: where it is composed, to where its series are cut."""
    spec = network(block, activation, trained, 7)
    p = nr.profile(spec)
    assert built == ["scanned" if way == "scanned" else "composed"]
    if way == "closed":
        far = both_gaps(nr.profile(spec.replace(depth=10**12)), EVERYWHERE)
        rtol = 8 * EPS[np.float64]
        gap, _ = angle_gaps(EVERYWHERE)
        np.testing.assert_allclose(both_gaps(p, EVERYWHERE), [gap] * 2, rtol=rtol)
        np.testing.assert_allclose(far, [gap] * 2, rtol=rtol)
    elif isinstance(spec.activation, PiecewiseLinear):
        accuracy = CUT if way == "composed" else REACHED[np.float64]
        assert worst_error(spec, np.array(ANGLES[np.float64])) <= accuracy


def test_other_networks_are_scanned(built):
    for spec in (
        RESIDUAL.replace(branch_scale=nr.DecreasingScale()),
        PLAIN.replace(bias_variance=0.1),
    ):
        assert not composed.composes(spec)
    nr.profile(RESIDUAL.replace(input_activation=True))
    assert built == ["composed"]


SCALES = {
    "gamma 1": nr.DepthScale(1.0),
    "gamma 1/2": nr.DepthScale(0.5),
    "gamma 1/4": nr.DepthScale(0.25),
    "constant 1": 1.0,
    "constant 30": 30.0,
    "balanced": nr.BalancedScale(),
}
COMPOSED = {
    "plain": nr.FeedForward(depth=1),
    "plain, blocks": nr.FeedForward(depth=1, trained="blocks"),
    "plain, leaky": nr.FeedForward(depth=1, activation=nr.LeakyReLU(0.3)),
    "plain, nearly linear": nr.FeedForward(depth=1, activation=nr.LeakyReLU(0.999)),
    **{
        f"{block}, {trained}, {name}": nr.ResNet(
            depth=1, branch_scale=scale, block=block, trained=trained
        )
        for block in OF_MEAN_ZERO
        for trained in TRAINED
        for name, scale in SCALES.items()
    },
}


@pytest.mark.parametrize("depth", slow_but_for([1, 2, 3, 7, 100, 1000], (1, 2, 3, 100)))
@pytest.mark.parametrize("case", COMPOSED)
def test_compositions_lose_nothing(case, depth):
    spec = COMPOSED[case].replace(depth=depth)
    assert worst_error(spec, np.array(ANGLES[np.float64])) <= CUT


@pytest.mark.slow
@pytest.mark.parametrize("case", COMPOSED)
def test_compositions_lose_nothing_to_depth_one_hundred_thousand(case):
    spec = COMPOSED[case].replace(depth=10**5)
    assert worst_error(spec, np.array([1e-6, 1.5, np.pi - 1e-3])) <= CUT


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        "plain, blocks",
        "two_layer, blocks, gamma 1",
        "two_layer, all, gamma 1/2",
        "two_layer, blocks, constant 1",
        "preactivation, blocks, gamma 1/2",
    ],
)
def test_compositions_lose_nothing_to_depth_one_million(case):
    spec = COMPOSED[case].replace(depth=10**6)
    assert worst_error(spec, np.array([1e-6, 2.5])) <= CUT


FAR = np.array([0.5, 1.5, 2.0, 3.0, np.pi])
DEPTHS = [10**9, 10**12]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("trained", ["blocks", "all"])
@pytest.mark.parametrize("block", ["plain", "two_layer", "preactivation"])
def test_laws_of_degeneration(block, trained, depth):
    """1 - NNGP = 9 pi^2 / (2 (a_e L)^2), NTK = 1/4 + 3/8 ln L / L, up to O(1/L).

    With theta_L = 3 pi / (a_e L + 1.5 ln L + C), C about 3 pi / theta_0 or less.
    """
    p = nr.profile(network(block, "relu", trained, depth, scale=1.0))
    share = 1 if block == "plain" else 0.5
    law = 9 * np.pi**2 / (2 * (share * depth) ** 2)
    rtol = 4 * (1.5 * np.log(depth) + 20) / (share * depth) + REACHED[np.float64]
    np.testing.assert_allclose(p.nngp_gap(FAR), law, rtol=rtol)
    ntk = 1 / 4 + 3 / 8 * np.log(depth) / depth
    atol = 20 / depth + REACHED[np.float64]
    np.testing.assert_allclose(p.ntk(FAR), ntk, rtol=0, atol=atol)


@pytest.mark.parametrize("depth", DEPTHS)
def test_limits_of_residual_networks(depth):
    """gamma = 1: one block. gamma = 1/2: an ordinary differential equation."""
    one, half = (
        nr.profile(nr.ResNet(depth=depth, branch_scale=nr.DepthScale(gamma)))
        for gamma in (1.0, 0.5)
    )
    theta = FAR[:-1]  # at pi the rate is another
    kappa0 = 1 - theta / np.pi
    kappa1 = np.cos(theta) * kappa0 + np.sin(theta) / np.pi
    atol = 10 / depth + REACHED[np.float64]
    limit = (kappa1 + np.cos(theta) * kappa0) / 2
    np.testing.assert_allclose(one.ntk(theta), limit, rtol=0, atol=atol)

    def flow(_, state):
        gap, ntk = state
        t = 2 * np.arcsin(np.sqrt(gap / 2))
        slope, bend = 1 - t / np.pi, (np.sin(t) - t * np.cos(t)) / np.pi
        second = (1 - gap) + bend
        return [-bend, (second + (1 - gap) * slope) / 2 - (1 - slope) * ntk]

    for angle in theta:
        start = [2 * np.sin(angle / 2) ** 2, 0.0]
        end = integrate.solve_ivp(
            flow, (0, 1), start, method="DOP853", rtol=1e-12, atol=1e-14
        ).y[:, -1]
        found = [half.nngp_gap(angle), half.ntk(angle)]
        np.testing.assert_allclose(found, end, rtol=0, atol=10 / depth + 1e-11)


def test_log_diagonals_at_any_depth():
    """Against the recursion; and at depth 10^12, where L ln(1 + 1/L) = 1 - 1/(2L)."""
    for spec in (
        PLAIN.replace(weight_variance=1.7, activation=nr.LeakyReLU(0.3)),
        PLAIN.replace(weight_variance=1.7, trained="blocks"),
        RESIDUAL.replace(weight_variance=1.7, trained="all"),
        RESIDUAL.replace(weight_variance=0.3, block="preactivation"),
        RESIDUAL.replace(weight_variance=3.0, input_activation=True, trained="all"),
        RESIDUAL.replace(activation=nr.LeakyReLU(0.3), input_activation=True),
        RESIDUAL.replace(branch_scale=1e100, block="preactivation", trained="all"),
    ):
        _, logs = by_recursion(spec, np.array([1.0]))
        found = composed.log_diagonals(spec)
        np.testing.assert_allclose(found, logs, rtol=1e-14, atol=1e-14)
    deep = nr.ResNet(depth=10**12, branch_scale=nr.DepthScale(0.5))
    nngp, ntk = composed.log_diagonals(deep)
    assert nngp == pytest.approx(1 - 5e-13, rel=2 * EPS[np.float64])
    assert ntk == pytest.approx(1 + np.log(2), rel=1e-11)
    nothing = deep.replace(branch_scale=0.0)
    assert composed.log_diagonals(nothing) == (0, -np.inf)


@pytest.mark.parametrize("damage", ["panels", "doubling"])
def test_the_check_of_compositions_sees_errors(damage, monkeypatch):
    """Series that are too short for their panels, and a wrong number of blocks."""
    forget()
    if damage == "panels":
        monkeypatch.setattr(composition, "_PANEL", 6.0)
    else:
        then = composition.Composition.then
        monkeypatch.setattr(
            composition.Composition,
            "then",
            lambda self, part: (
                self.whole if self.whole.number == 500 else then(self, part)
            ),
        )
    with pytest.raises(ValueError, match=r"no table .* reaches the accuracy 5e-13"):
        nr.profile(nr.FeedForward(depth=1000))
    forget()


def test_nothing_is_compiled_at_any_depth():
    """And no array of a million million scales is made on the way."""
    compiled = []
    listener = lambda event, seconds, **_: compiled.append(event)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        for spec in (PLAIN, RESIDUAL.replace(branch_scale=nr.DepthScale(0.5))):
            spec = nr.from_json(nr.to_json(spec.replace(depth=10**12)))
            assert 0 < float(nr.profile(spec).ntk(1.0)) < 0.5
        assert not compiled
        jax.jit(lambda x: x + 1)(np.arange(7.0))
        assert compiled  # the listener hears what is compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)


@pytest.mark.parametrize(
    ("scale", "depth"),
    slow_but_for(
        list(
            itertools.product(
                ("", "nr.DepthScale(0.5)", "nr.DepthScale(1)", "1.0"),
                (10**3, 10**6, 10**12),
            )
        ),
        [("", 10**3), ("1.0", 10**12)],
    ),
)
def test_first_value_in_a_new_process(scale, depth):
    """In 0.3 s at depth 1,000 and 0.5 s at any depth; some 0.02 to 0.1 s are usual."""
    spec = f"ResNet(branch_scale={scale}, " if scale else "FeedForward("
    program = (
        "import time\n"
        "import ntk_resnet as nr\n"
        "nr.kernel_fn\n"
        f"spec = nr.{spec}depth={depth})\n"
        "start = time.perf_counter()\n"
        "float(nr.profile(spec).ntk(1.0))\n"
        "print(time.perf_counter() - start)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < (0.3 if depth == 1000 else 0.5)


# ------------------------------------------------------------- accuracy asked, refusals


def test_the_accuracy_asked_for_is_kept_with_fewer_terms():
    for spec in (
        nr.FeedForward(depth=30),
        nr.ResNet(depth=1000, branch_scale=nr.DepthScale(1.0)),
        nr.FeedForward(depth=5, activation="erf"),
    ):
        exact, _ = by_recursion(spec, EVERYWHERE)
        sizes = []
        for accuracy in (1e-13, 1e-10, 1e-7, 1e-4, 1e-2):
            p = nr.profile(spec, accuracy=accuracy)
            assert p.accuracy == accuracy
            np.testing.assert_allclose(both_gaps(p, EVERYWHERE), exact, rtol=accuracy)
            sizes.append(p.table("ntk", np.float64).coefficients.shape[0])
        assert sizes == sorted(set(sizes), reverse=True)
        # float32 does not pay for digits it cannot hold.
        assert nr.profile(spec).table("ntk", np.float32).coefficients.shape[0] <= 7


CHAOTIC = nr.FeedForward(depth=1000, activation="erf")


@pytest.mark.parametrize(
    "spec",
    [
        nr.ResNet(depth=3, branch_scale=0.0),
        nr.ResNet(depth=3, branch_scale=1e-200),
        nr.FeedForward(depth=100, activation="erf", weight_variance=5.0),
        CHAOTIC,  # narrower than any angle the builder looks at
        *slow_but_for(
            [
                CHAOTIC.replace(bias_variance=0.05),
                nr.FeedForward(
                    depth=4, activation=nr.Activation(lambda z: jnp.sin(3 * z))
                ),
            ]
        ),
    ],
    ids=short,
)
def test_networks_without_a_profile_are_refused(spec):
    with pytest.raises(ValueError, match=r"no profile|engine='recursion'") as caught:
        nr.profile(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [
        nr.FeedForward(depth=2, bias_variance=0.1),
        *slow_but_for(
            [
                nr.ResNet(  # narrower than any angle that is looked at
                    depth=20,
                    branch_scale=1e-8,
                    block="preactivation",
                    activation=nr.LeakyReLU(-0.5),
                )
            ]
        ),
        nr.ResNet(depth=3, branch_scale=0.0),
    ],
    ids=short,
)
def test_auto_falls_back_to_the_recursion(spec):
    kernel = nr.kernel_fn(spec)
    assert kernel.engine == "recursion"
    x = np.array([[1.0, 2.0], [0.5, -1.0]])
    want = nr.kernel_fn(spec, engine="recursion")(x)
    np.testing.assert_array_equal(kernel(x), want)


X = np.array([[3.0, 4.0], [0.0, 5.0]])
ON_PROFILE = nr.kernel_fn(PLAIN.replace(activation="erf"), engine="profile")
BAD = {
    "no network": (lambda: nr.profile("relu"), "FeedForward"),
    "no number": (lambda: nr.profile(PLAIN, input_kernel="1"), "input_kernel"),
    "zero norm": (lambda: nr.profile(PLAIN, input_kernel=0.0), "input_kernel"),
    "negative norm": (lambda: nr.profile(PLAIN, input_kernel=-1.0), "input_kernel"),
    "infinite norm": (lambda: nr.profile(PLAIN, input_kernel=np.inf), "input_kernel"),
    "no accuracy": (lambda: nr.profile(PLAIN, accuracy=None), "accuracy"),
    "accuracy nan": (lambda: nr.profile(PLAIN, accuracy=np.nan), "accuracy"),
    "accuracy below": (lambda: nr.profile(PLAIN, accuracy=1e-14), "1e-13"),
    "accuracy above": (lambda: nr.profile(PLAIN, accuracy=0.5), "0.01"),
    "theta below": (lambda: nr.profile(PLAIN).ntk(-1e-9), r"theta.*\[0, pi\]"),
    "theta above": (lambda: nr.profile(PLAIN).nngp(3.1416), r"theta.*\[0, pi\]"),
    "theta nan": (lambda: nr.profile(PLAIN).ntk_gap(np.nan), "theta.*nan"),
    "theta text": (lambda: nr.profile(PLAIN).ntk_gap("0.3"), "theta.*dtype"),
    "theta none": (lambda: nr.profile(PLAIN).ntk_gap(None), "theta.*dtype"),
    "theta complex": (lambda: nr.profile(PLAIN).ntk(1j), "theta.*dtype"),
    "theta half": (lambda: nr.profile(PLAIN).ntk(np.float16(1)), "theta.*float16"),
    "theta ragged": (lambda: nr.profile(PLAIN).ntk([[1.0], [1.0, 2.0]]), "theta"),
    "engine": (lambda: nr.kernel_fn(PLAIN, engine="table"), "engine"),
    "norms": (lambda: ON_PROFILE(X * [[1], [2]]), "factor 2; .*engine='recursion'"),
    "other norms": (lambda: ON_PROFILE(X, 2 * X), "factor 2; .*engine='recursion'"),
    "traced norms": (lambda: jax.jit(ON_PROFILE)(X), "trace.*engine='recursion'"),
    "scales": (
        lambda: nr.kernel_fn(RESIDUAL, engine="profile")(X, scales=RESIDUAL.scales),
        "engine='recursion'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_line(case, as_users_run_it):
    call, words = BAD[case]
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.quick
def test_lists_and_whole_numbers_are_angles(as_users_run_it):
    """Integers become the default float, as everywhere."""
    p = nr.profile(PLAIN)
    assert p.ntk(0) == 1
    np.testing.assert_array_equal(p.ntk([0, 1]), p.ntk(np.array([0.0, 1.0])))


def test_scales_as_data_go_by_the_recursion():
    kernel = nr.kernel_fn(RESIDUAL)
    assert kernel.engine == "profile"
    found = kernel(X, scales=RESIDUAL.scales)
    np.testing.assert_allclose(found, kernel(X), rtol=0, atol=VALUES[np.float64])
