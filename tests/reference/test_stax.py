"""The specification in neural-tangents: against formulas and wide networks."""

import functools
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import ntk_resnet as nr
from ntk_resnet.activations import named

D = 6


def rows(n, seed):
    return np.random.default_rng(seed).standard_normal((n, D))


# ----------------------------------------------- an oracle: scalar recursions, in NumPy


def piecewise_linear_dual(a, b):
    """Cho and Saul's arc-cosine kernels of order 1 and 0, for slopes a < 0 <= b."""

    def dual(p1, p2, c):
        theta = np.arccos(c / np.sqrt(p1 * p2))
        factor = (b - a) ** 2 / (2 * np.pi)
        slope = (a * a + b * b) / 2 - factor * theta
        return factor * np.sqrt(p1 * p2) * np.sin(theta) + c * slope, slope

    return dual


def erf_dual(p1, p2, c):
    size = (1 + 2 * p1) * (1 + 2 * p2)
    value = 2 / np.pi * np.arcsin(2 * c / np.sqrt(size))
    return value, 4 / np.pi / np.sqrt(size - 4 * c * c)


def integral_dual(function, slope, points=401, reach=10.0):
    """By the trapezoid rule in two independent Gaussians: geometric convergence."""
    g = np.linspace(-reach, reach, points)
    weight = (g[1] - g[0]) / math.sqrt(2 * math.pi) * np.exp(-g * g / 2)
    x, y = np.meshgrid(g, g, indexing="ij")

    @np.vectorize
    def expectation(f_index, p1, p2, c):
        f = (function, slope)[f_index]
        second = c / math.sqrt(p1) * x + math.sqrt(max(p2 - c * c / p1, 0)) * y
        return weight @ (f(math.sqrt(p1) * x) * f(second)) @ weight

    return lambda p1, p2, c: (expectation(0, p1, p2, c), expectation(1, p1, p2, c))


def gelu_slope(z):
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return scipy.special.ndtr(z) + z * density


def tanh_slope(z):
    return 1 / np.cosh(z) ** 2


DUALS = {
    "relu": piecewise_linear_dual(0.0, 1.0),
    "leaky_relu": piecewise_linear_dual(0.01, 1.0),
    "abs": piecewise_linear_dual(-1.0, 1.0),
    "linear": lambda p1, p2, c: (c, np.ones_like(c)),
    "erf": erf_dual,
    "gelu": integral_dual(lambda z: z * scipy.special.ndtr(z), gelu_slope),
    "tanh": integral_dual(np.tanh, tanh_slope),
}


def by_hand(spec, activation, x1, x2):
    """(nngp, ntk) between different inputs, from the definitions."""
    wv, bv = spec.weight_variance, spec.bias_variance
    dual = DUALS[activation]
    full = lambda p: p[0][:, None], lambda p: p[1][None, :]

    def affine(k, p, ntk, trained=True):
        k, p = wv * k + bv, [wv * q + bv for q in p]
        return k, p, wv * ntk + (k if trained else 0)

    def activated(k, p, ntk):
        value, slope = dual(full[0](p), full[1](p), k)
        own = [dual(q, q, q * (1 - 1e-15))[0] for q in p]
        return value, own, slope * ntk

    k = x1 @ x2.T / D
    p = [np.sum(x * x, axis=1) / D for x in (x1, x2)]
    ntk = np.zeros_like(k)
    ends = spec.trained == "all"
    if isinstance(spec, nr.FeedForward):
        for _ in range(spec.depth):
            k, p, ntk = activated(*affine(k, p, ntk))
        return k, ntk + (k if ends else 0)
    ntk = k if ends else ntk
    if spec.input_activation:
        k, p, ntk = activated(k, p, ntk)
    for a in spec.scales**2:
        if spec.block == "two_layer":
            dk, dp, dntk = activated(*affine(k, p, ntk))
            dntk = dntk + dk  # the gradient of V
        else:
            dk, dp, dntk = affine(*activated(k, p, ntk))
        k, p = k + a * dk, [q + a * dq for q, dq in zip(p, dp, strict=True)]
        ntk = ntk + a * dntk
    return k, ntk + (k if ends else 0)


def specs():
    plain = functools.partial(nr.FeedForward)
    for activation in DUALS:
        yield activation, plain(depth=2, activation=activation)
    yield "relu", plain(depth=1, bias_variance=0.2)
    yield "erf", plain(depth=5, activation="erf", weight_variance=1.3)
    yield "relu", plain(depth=1, trained="blocks")
    yield "relu", plain(depth=4, trained="blocks", bias_variance=0.2)
    yield "tanh", plain(depth=2, trained="blocks", activation="tanh")
    for block in ("two_layer", "preactivation"):
        residual = functools.partial(nr.ResNet, block=block)
        for trained in ("blocks", "all"):
            yield "relu", residual(depth=4, branch_scale=0.7, trained=trained)
            yield (
                "erf",
                residual(
                    depth=3,
                    branch_scale=nr.DecreasingScale(),
                    trained=trained,
                    activation="erf",
                    bias_variance=0.3,
                ),
            )
        yield "abs", residual(depth=2, branch_scale=0.5, activation="abs")
    for trained in ("blocks", "all"):
        yield (
            "leaky_relu",
            nr.ResNet(
                depth=3,
                branch_scale=nr.DepthScale(0.5),
                trained=trained,
                activation="leaky_relu",
                input_activation=True,
                bias_variance=0.1,
            ),
        )


SPECS = list(specs())


def name_of(spec):
    kind = type(spec).__name__ if isinstance(spec, nr.FeedForward) else spec.block
    return f"{kind}-{spec.trained}"


@pytest.mark.parametrize(
    ("activation", "spec"), SPECS, ids=[f"{a}-{name_of(s)}" for a, s in SPECS]
)
def test_kernels_are_those_of_the_formulas(activation, spec):
    x1, x2 = rows(3, 0), rows(2, 1)
    _, _, kernel_fn = nr.stax(spec)
    kernel = jax.jit(kernel_fn, static_argnums=2)(x1, x2, ("nngp", "ntk"))
    assert kernel.ntk.dtype == np.float64
    # By hand the variances pass through arccos(1 - 1e-15), and by 1e-14 off 1.
    tolerance = {"tanh": (1e-6, 1e-4)}.get(activation, (1e-12, 1e-12))
    for found, expected, rtol in zip(
        kernel, by_hand(spec, activation, x1, x2), tolerance, strict=True
    ):
        assert found.shape == (3, 2)
        scale = np.max(np.abs(expected))
        np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * scale)


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


def test_importing_it_is_cheap_and_keeps_the_function_callable():
    code = """
import sys
import ntk_resnet.stax as module
assert "neural_tangents" not in sys.modules
import ntk_resnet as nr
triple = nr.stax(nr.FeedForward(depth=1))
assert len(triple) == 3 and "neural_tangents" in sys.modules
assert module.stax is not module and callable(module)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
