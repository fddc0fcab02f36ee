"""Both gaps against 50-digit arithmetic, at every depth, angle and dtype promised."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from accuracy import FAMILIES, SMALLEST, angles_of, gap_errors
from marks import slow_but_for

import ntk_resnet as nr
from ntk_resnet._numerics import Sum
from ntk_resnet.activations.named import Tanh

# What the docstring of `kernel_fn` promises.
ACCURACY = {np.float64: 1e-11, np.float32: 2e-5}


FEW = ("plain", "plain, readout frozen", "residual, gamma 1/2", "post-activation")


def of_each_family(case):
    """All depths of a few families, and two cases of the others."""
    family, *rest = case
    return family in FEW or rest in ([30, np.float32], [1000, np.float64])


@pytest.mark.parametrize(
    ("family", "depth", "dtype"),
    slow_but_for(
        itertools.product(FAMILIES, (1, 2, 30, 1000), ACCURACY), of_each_family
    ),
)
def test_gaps_against_fifty_digits(family, depth, dtype):
    errors = gap_errors(FAMILIES[family].replace(depth=depth), angles_of(dtype))
    assert max(errors) <= ACCURACY[dtype]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("family", slow_but_for(FAMILIES, FEW))
def test_gaps_at_depth_thirty_thousand(family, dtype):
    spec = FAMILIES[family].replace(depth=30_000)
    assert max(gap_errors(spec, angles_of(dtype)[[0, 3, -1]])) <= ACCURACY[dtype]


def test_one_hidden_layer_with_its_readout_frozen():
    """`u kappa0(u)`, of the hidden weights; the residual block trains two."""
    u = np.linspace(-1, 1, 41)
    kappa0 = 1 - np.arccos(u) / np.pi
    kappa1 = u * kappa0 + np.sqrt(1 - u * u) / np.pi
    plain, block = (
        nr.sweep_depth(spec, 1, angles=np.arccos(u)).ntk[0].values
        for spec in (
            nr.FeedForward(depth=1, trained="blocks"),
            nr.ResNet(depth=1, branch_scale=0.3),
        )
    )
    np.testing.assert_allclose(plain, u * kappa0, atol=1e-15)
    np.testing.assert_allclose(block, (u * kappa0 + kappa1) / 2, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("family", slow_but_for(FAMILIES, FEW))
def test_values_are_one_minus_the_gaps(family, dtype):
    sweep = nr.sweep_depth(FAMILIES[family], [1, 50], angles=angles_of(dtype))
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(sweep.nngp, 1 - sweep.nngp_gap, atol=2 * eps)
    np.testing.assert_allclose(sweep.ntk, 1 - sweep.ntk_gap, atol=2 * eps)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("depth", slow_but_for([1, 8, 100], (1, 100)))
@pytest.mark.parametrize("activation", ["erf", "gelu"])
@pytest.mark.parametrize("bias", [0.0, 0.2])
def test_smooth_activations_against_fifty_digits(activation, bias, depth, dtype):
    """The accuracy reached: four roundings a layer, 1e-13 (5e-5) at depth 100."""
    spec = nr.FeedForward(depth=depth, activation=activation, bias_variance=bias)
    angles = np.array([SMALLEST[dtype], 0.01, 0.5, 1.5, 3.0], dtype)
    found = nr.sweep_depth(spec, depth, angles=angles).isel(depth=0)
    weight = np.asarray(spec.weight_variance, dtype)
    accuracy = (8 + 4 * depth) * np.finfo(dtype).eps
    for i, angle in enumerate(angles):
        exact = reference.smooth_gaps(
            activation, angle, depth, weight, dtype(spec.bias_variance)
        )
        for got, want in zip((found.nngp_gap[i], found.ntk_gap[i]), exact, strict=True):
            assert reference.relative_error(got, [want]) <= accuracy


def test_tanh_does_not_change_with_more_terms():
    """Twice the series and the nodes: the same gaps, to the accuracy stated."""

    class Finer(Tanh):
        _terms, _nodes = 512, 1024

    gaps = [
        nr.sweep_depth(
            nr.FeedForward(depth=20, activation=activation, bias_variance=0.1),
            20,
            angles=np.array([1e-4, 0.5, 2.0]),
        )
        for activation in (Tanh(), Finer())
    ]
    np.testing.assert_allclose(gaps[0].nngp_gap, gaps[1].nngp_gap, rtol=1e-9)
    np.testing.assert_allclose(gaps[0].ntk_gap, gaps[1].ntk_gap, rtol=1e-9)


def test_nothing_overflows_when_normalised():
    spec = nr.ResNet(depth=30_000, branch_scale=1.0)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    values = nr.kernel_fn(spec)(x, get=("nngp", "ntk"))
    assert np.isfinite(values.ntk).all()
    assert np.isfinite(values.nngp).all()
    np.testing.assert_allclose(
        nr.diag(spec, x, "nngp", log=True),
        30_000 * np.log(2) + np.log((x * x).mean(1)),
        rtol=4 * np.finfo(np.float32).eps,
    )


def test_the_compiled_program_does_not_grow_with_depth():
    def size(depth):
        spec = nr.ResNet(depth=depth, branch_scale=nr.DepthScale(0.5))
        kernel = nr.kernel_fn(spec, engine="recursion")
        jaxpr = jax.make_jaxpr(kernel)(jnp.ones((3, 2)))
        return len(str(jaxpr))

    assert abs(size(10_000) - size(10)) < 100  # the digits of the depth


def test_compensated_sums():
    """A million tiny increments, in float32, exact to one rounding of the total."""
    tiny = jnp.float32(1e-8)
    total = jax.lax.fori_loop(
        0, 10**6, lambda _, s: s.add(tiny), Sum.start(jnp.float32(1))
    )
    np.testing.assert_allclose(
        np.float64(total.value) + np.float64(total.rest),
        1 + 1e6 * np.float64(tiny),
        rtol=1e-9,
    )


def test_blocks_that_nobody_can_go_through_one_by_one_are_refused():
    spec = nr.FeedForward(depth=10**12, activation="abs")
    for call in (nr.kernel_fn(spec), lambda x: nr.gram(spec, x), nr.profile):
        with pytest.raises(ValueError, match=r"depth is 1,000,000,000,000, but"):
            call(spec if call is nr.profile else np.eye(3))
