"""The specification in neural-tangents: against formulas and wide networks."""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.activations import named

D = 6


def rows(n, seed):
    return np.random.default_rng(seed).standard_normal((n, D))


@pytest.mark.parametrize("depth", [1, 4, 64])
def test_a_frozen_readout_leaves_the_ntk_without_the_nngp(depth):
    """neural-tangents' own two kernels of all weights, against ours and its frozen."""
    x1, x2 = rows(4, 0) * np.geomspace(0.3, 3, 4)[:, None], rows(3, 1)
    spec = nr.FeedForward(depth=depth, trained="blocks")
    nngp, ntk = nr.stax(spec.replace(trained="all"))[2](x1, x2, ("nngp", "ntk"))
    scale = np.abs(ntk).max()
    hidden = nr.stax(spec)[2](x1, x2, "ntk")
    np.testing.assert_allclose(hidden, ntk - nngp, rtol=0, atol=1e-13 * scale)
    ours = nr.kernel_fn(spec, normalised=False)(x1, x2)
    np.testing.assert_allclose(ours, ntk - nngp, rtol=0, atol=1e-12 * scale)


def test_a_thousand_layers():
    """The NTK of 1,000 ReLU layers at cosine 1/2, from 60-digit arithmetic."""
    cosine = 0.5
    x = np.sqrt(2) * np.array([[1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]])
    _, _, kernel_fn = nr.stax(nr.FeedForward(depth=1000))
    ntk = jax.jit(kernel_fn, static_argnums=2)(x[:1], x[1:], "ntk")
    assert abs(float(ntk[0, 0]) / 1001 - 0.25380245) < 1e-8


@pytest.mark.quick
def test_alike_blocks_are_one_loop():
    def size(spec):
        _, _, kernel_fn = nr.stax(spec)
        return len(str(jax.make_jaxpr(lambda x: kernel_fn(x, None, "ntk"))(rows(2, 0))))

    for spec in (nr.FeedForward(depth=5), nr.ResNet(depth=5, branch_scale=0.5)):
        assert abs(size(spec.replace(depth=5000)) - size(spec)) < 20
    by_hand = nr.ResNet(depth=5, branch_scale=nr.DecreasingScale())
    assert size(by_hand.replace(depth=10)) > 1.5 * size(by_hand)


# ---------------------------------------------------------------------- finite networks


def sampled(spec, x, *, width, out_features=1, seeds=40):
    """The empirical NNGP and NTK of networks of as many seeds."""
    init_fn, apply_fn, _ = nr.stax(spec, width, out_features)
    kernel_fn = nr.neural_tangents.empirical_kernel_fn(apply_fn)
    get = "ntk" if out_features == 1 else "nngp"

    @jax.jit
    def sample(key):
        return kernel_fn(x, None, get, init_fn(key, x.shape)[1])

    samples = [sample(key) for key in jax.random.split(jax.random.key(3), seeds)]
    mean = jnp.mean(jnp.stack(samples), axis=0)
    return mean, jnp.std(jnp.stack(samples), axis=0, ddof=1) / math.sqrt(seeds)


FINITE = {
    "plain": nr.FeedForward(depth=3, bias_variance=0.1),
    "two_layer": nr.ResNet(depth=3, branch_scale=0.7),
    "preactivation": nr.ResNet(
        depth=2, branch_scale=nr.DecreasingScale(), block="preactivation",
        bias_variance=0.2,
    ),
    "input_activation": nr.ResNet(depth=2, branch_scale=0.5, input_activation=True),
}  # fmt: skip
FINITE |= {
    f"{name}-all": spec.replace(trained="all")
    for name, spec in FINITE.items()
    if isinstance(spec, nr.ResNet)
}
SLOW = ("preactivation", "input_activation", "two_layer-all", "input_activation-all")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in FINITE]
)
def test_wide_networks_have_this_ntk(name):
    spec, x = FINITE[name], jnp.asarray(rows(3, 2))
    mean, error = sampled(spec, x, width=256)
    ntk = nr.stax(spec)[2](x, None, "ntk")
    # The bias at this width is about 1/256, a third of the standard error.
    assert jnp.max(error / jnp.max(ntk)) < 0.04
    assert jnp.max(jnp.abs(mean - ntk) / error) < 4.5
    if isinstance(spec, nr.ResNet):  # the test tells trained from frozen ends
        other = {"all": "blocks", "blocks": "all"}[spec.trained]
        wrong = nr.stax(spec.replace(trained=other))[2](x, None, "ntk")
        assert jnp.max(jnp.abs(mean - wrong) / error) > 15


def test_wide_networks_have_this_nngp():
    spec, x = FINITE["two_layer"], jnp.asarray(rows(3, 2))
    mean, error = sampled(spec, x, width=256, out_features=256)
    nngp = nr.stax(spec)[2](x, None, "nngp")
    assert jnp.max(error / jnp.max(nngp)) < 0.04
    assert jnp.max(jnp.abs(mean - nngp) / error) < 4.5


@pytest.mark.parametrize("trained", ["blocks", "all"])
def test_frozen_weights_get_no_gradient_but_inputs_do(trained):
    spec = nr.ResNet(depth=2, branch_scale=0.5, trained=trained)
    init_fn, apply_fn, _ = nr.stax(spec, width=8, out_features=2)
    x = jnp.asarray(rows(4, 0))
    shape, params = init_fn(jax.random.key(0), (-1, D))
    assert shape == (-1, 2)
    assert apply_fn(params, x).shape == (4, 2)
    loss = jax.jit(jax.grad(lambda *a: jnp.sum(apply_fn(*a) ** 2), (0, 1)))
    by_params, by_x = loss(params, x)
    first, *blocks, last = by_params
    assert jax.tree.leaves(first)[0].shape == (D, 8)
    assert jax.tree.leaves(last)[0].shape == (8, 2)
    ends = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves((first, last))]
    assert [bool(end > 0) for end in ends] == [trained == "all"] * 2
    assert all(jnp.max(jnp.abs(leaf)) > 0 for leaf in jax.tree.leaves(blocks))
    assert jnp.all(by_x != 0)


@pytest.mark.filterwarnings("ignore:No Jacobian rule found for slice:UserWarning")
def test_structured_derivatives_of_frozen_weights():
    spec = nr.ResNet(depth=3, branch_scale=0.5)
    init_fn, apply_fn, _ = nr.stax(spec, width=8)
    x = jnp.asarray(rows(3, 0))
    _, params = init_fn(jax.random.key(0), (-1, D))
    ntks = [
        jax.jit(nr.neural_tangents.empirical_ntk_fn(apply_fn, implementation=i))(
            x, None, params
        )
        for i in (1, 2, 3)
    ]
    np.testing.assert_allclose(ntks[1:], [ntks[0]] * 2, rtol=1e-12)


# -------------------------------------------------------------------------- activations


def test_an_activation_of_the_users_own():
    def dual(p1, p2, c):
        size = (1 + 2 * p1) * (1 + 2 * p2)
        return 2 / jnp.pi * jnp.arcsin(2 * c / jnp.sqrt(size))

    x1, x2 = rows(3, 0), rows(2, 1)
    erf = nr.ResNet(
        depth=3, branch_scale=0.5, activation="erf", weight_variance=0.8, trained="all"
    )

    def kernels(spec):
        kernel_fn = jax.jit(nr.stax(spec)[2], static_argnums=2)
        return kernel_fn(x1, x2, ("nngp", "ntk"))

    expected = kernels(erf)
    with_dual = erf.replace(activation=nr.Activation(jax.scipy.special.erf, dual))
    without = erf.replace(activation=nr.Activation(jax.scipy.special.erf))
    for spec, rtol in ((with_dual, 1e-12), (without, 1e-5)):
        init_fn, apply_fn, _ = nr.stax(spec, width=4)
        for value, other in zip(kernels(spec), expected, strict=True):
            np.testing.assert_allclose(value, other, rtol=0, atol=rtol * np.max(other))
        _, params = init_fn(jax.random.key(0), (-1, D))
        np.testing.assert_allclose(
            apply_fn(params, x1), nr.stax(erf, 4)[1](params, x1), rtol=1e-13
        )


def test_an_activation_of_unknown_kind():
    class Unknown(named.Erf):
        pass

    class Foreign(named.AbstractActivation):
        __call__ = moments = dual = lambda self, *args: 0.0

    # A subclass of a known one is of its kind.
    x = rows(2, 0)
    np.testing.assert_array_equal(
        nr.stax(nr.FeedForward(depth=1, activation=Unknown()))[2](x, None, "ntk"),
        nr.stax(nr.FeedForward(depth=1, activation="erf"))[2](x, None, "ntk"),
    )
    spec = nr.FeedForward(depth=1, activation=Foreign(), weight_variance=1.0)
    with pytest.raises(ValueError, match=r"no kernel for the activation .*kernel_fn"):
        nr.stax(spec)


# ---------------------------------------------------------- errors, imports, neighbours


@pytest.mark.parametrize(
    ("changes", "kwargs", "text"),
    [
        ({}, {"width": 0}, "width must be at least 1, got 0; pass an int"),
        ({}, {"width": True}, "width must be a whole number, got True; pass an int"),
        ({}, {"width": 2.5}, r"width must be a whole number, got 2\.5; pass an int"),
        ({}, {"out_features": -1}, "out_features must be at least 1, got -1; pass an"),
        (
            {"block": "postactivation"},
            {},
            r"no kernel for block=.*nr\.kernel_fn\(spec\)",
        ),
    ],
)
def test_what_cannot_be_is_a_one_line_error(as_users_run_it, changes, kwargs, text):
    spec = nr.ResNet(depth=2, branch_scale=0.5).replace(**changes)
    with pytest.raises(ValueError, match=text) as raised:
        nr.stax(spec, **kwargs)
    assert "\n" not in str(raised.value)


def test_what_is_no_specification_is_an_error(as_users_run_it):
    with pytest.raises(ValueError, match=r"spec must be .* got 'relu'"):
        nr.stax("relu")


def test_batches_and_predictions_take_it():
    nt = nr.neural_tangents
    spec = nr.ResNet(depth=3, branch_scale=0.5, activation="erf")
    x, y = jnp.asarray(rows(4, 0)), jnp.asarray(rows(4, 1)[:, :1])
    init_fn, apply_fn, kernel_fn = nr.stax(spec, width=4)
    kernel_fn = jax.jit(kernel_fn, static_argnums=2)
    ntk = kernel_fn(x, None, "ntk")
    sampled_fn = nt.monte_carlo_kernel_fn(init_fn, apply_fn, jax.random.PRNGKey(0), 2)
    assert sampled_fn(x, None, "ntk").shape == (4, 4)
    batched = nt.batch(kernel_fn, 2)(x, None, "ntk")
    np.testing.assert_allclose(batched, ntk, rtol=1e-13)
    predict_fn = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x, y)
    expected = kernel_fn(x[:2] + 0.5, x, "ntk") @ np.linalg.solve(ntk, y)
    found = predict_fn(x_test=x[:2] + 0.5, get="ntk")
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_importing_it_is_cheap():
    code = """
import sys
import ntk_resnet.reference.stax
assert "neural_tangents" not in sys.modules
import ntk_resnet as nr
triple = nr.stax(nr.FeedForward(depth=1))
assert len(triple) == 3 and "neural_tangents" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
