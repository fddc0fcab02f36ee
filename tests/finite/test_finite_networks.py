"""The finite networks: shapes, conventions, second moments, frozen parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from branches import branch_of
from flax import nnx
from marks import slow_but_for
from models import equations, make, rows
from oracle import scales_of
from specifications import ROWS, SPECS, is_common

import ntk_resnet as nr
from ntk_resnet.finite import Frozen, build
from ntk_resnet.finite.ensembles import over_seeds, seed_keys


def by_hand(model, x):
    """The forward pass from the formulas of the specifications, with loops."""
    spec, m = model.spec, model.width
    phi = lambda z: np.asarray(spec.activation(z))  # noqa: E731
    wv, bv = spec.weight_variance, spec.bias_variance
    get = lambda name: np.asarray(getattr(model, name)[...])  # noqa: E731
    biases = get("biases") if bv else np.zeros((spec.depth, m))
    if isinstance(spec, nr.FeedForward):
        first = get("input_bias") if bv else 0
        h = phi(
            np.sqrt(wv / x.shape[1]) * x @ get("input_weight") + np.sqrt(bv) * first
        )
        for w, b in zip(get("weights"), biases, strict=False):
            h = phi(np.sqrt(wv / m) * h @ w + np.sqrt(bv) * b)
        return h @ get("readout") / np.sqrt(m)
    h = x @ get("input_weight") / np.sqrt(x.shape[1])
    h = phi(h) if spec.input_activation else h
    for block, (trunk, scale) in enumerate(zip(*scales_of(spec), strict=True)):
        w = np.sqrt(wv / m) * get("weights")[block]
        b = np.sqrt(bv) * biases[block]
        inner = lambda z: z @ w + b  # noqa: B023, E731
        outer = lambda z: z @ get("outer_weights")[block] / np.sqrt(m)  # noqa: B023, E731
        h = trunk * h + scale * branch_of(spec.block, inner, phi, outer)(h)
    return h @ get("readout") / np.sqrt(m)


@pytest.mark.parametrize("name", slow_but_for(ROWS, is_common))
def test_forward_pass_is_that_of_the_formulas(name):
    model, x = make(SPECS[name], k=3), rows()
    assert model(x).shape == (4, 3)
    np.testing.assert_allclose(model(x), by_hand(model, x), rtol=1e-12, atol=1e-13)
    hidden = model.hidden(x)
    extra = isinstance(model.spec, nr.ResNet)
    assert hidden.shape == (model.spec.depth + extra, 4, 8)
    np.testing.assert_array_equal(hidden[-1], model.features(x))


def kernels_of_every_layer(spec, x):
    """Closed form of `h h' / width` for every layer of `hidden`, `(layers, n, n)`."""
    sweep = nr.sweep_depth(spec, range(1, spec.depth + 1), x=x)
    size = np.exp(sweep.log_nngp_diag.values / 2)
    kernels = sweep.nngp.values * size[:, :, None] * size[:, None, :]
    if isinstance(spec, nr.FeedForward):
        return kernels
    # h_0: a single block of scale 0 adds nothing to it.
    first = nr.kernel_fn(spec.replace(depth=1, branch_scale=0.0), normalised=False)
    return np.concatenate([np.asarray(first(x, get="nngp"))[None], kernels])


def moments_agree(spec):
    """Means over units and networks of `h h'` against the closed form, 4.5 s.e.

    An entry is out of that by chance once in 150,000; there are 20 to 40 of them here,
    in 40 networks. The bias, of order 1/width, is small beside a standard error.
    """
    x, width, seeds = rows(), 256, 64

    def moments(key):
        hidden = build(spec, 5, width, rngs=nnx.Rngs(key)).hidden(jnp.float32(x))
        return jnp.einsum("lim,ljm->lij", hidden, hidden, precision="highest") / width

    keys = seed_keys(3, width, seeds)
    batches = over_seeds(moments, keys, numbers_per_seed=spec.depth * width**2)
    samples = np.concatenate([values for _, values in batches])
    error = samples.std(axis=0, ddof=1) / np.sqrt(seeds)
    off = np.abs(samples.mean(axis=0) - kernels_of_every_layer(spec, x)) / error
    assert off.max() < 4.5, f"{off.max():.1f} standard errors away"


def spec_of(block, **settings):
    if block is None:
        return nr.FeedForward(depth=3, **settings)
    return nr.ResNet(depth=3, block=block, branch_scale=0.7, **settings)


VARIETY = [
    (None, "erf", 0.3),
    ("two_layer", "relu", 0.2),
    ("preactivation", "tanh", 0.0),
    ("postactivation", "gelu", 0.2),
]


@pytest.mark.parametrize(("block", "activation", "bias"), VARIETY)
def test_second_moments_of_every_layer(block, activation, bias):
    moments_agree(spec_of(block, activation=activation, bias_variance=bias))


@pytest.mark.slow
@pytest.mark.parametrize("bias", [0.0, 0.3])
@pytest.mark.parametrize("activation", ["relu", "erf", "tanh", "gelu"])
@pytest.mark.parametrize("block", [None, *nr.ResNet.blocks])
def test_second_moments_of_every_specification(block, activation, bias):
    moments_agree(spec_of(block, activation=activation, bias_variance=bias))


@pytest.mark.slow
@pytest.mark.parametrize("block", ["two_layer", "postactivation"])
def test_second_moments_after_an_input_activation(block):
    moments_agree(spec_of(block, input_activation=True))


@pytest.mark.parametrize("block", [None, *nr.ResNet.blocks])
def test_what_is_trained_changes_no_weight(block):
    frozen, trained = (
        make(spec_of(block, bias_variance=0.1, trained=trained)).hidden(rows())
        for trained in ("blocks", "all")
    )
    np.testing.assert_array_equal(frozen, trained)


@pytest.mark.quick
@pytest.mark.parametrize("trained", ["blocks", "all"])
def test_frozen_weights_are_no_parameters(trained):
    model = make(nr.ResNet(depth=2, branch_scale=0.5, trained=trained))
    frozen = nnx.state(model, Frozen)
    assert set(frozen) == (
        {"input_weight", "readout"} if trained == "blocks" else set()
    )
    params = nnx.state(model, nnx.Param)
    assert {"weights", "outer_weights"} <= set(params)
    assert not set(params) & set(frozen)


@pytest.mark.parametrize("trained", ["blocks", "all"])
def test_the_readout_of_plain_networks_is_frozen_where_asked(trained):
    model = make(nr.FeedForward(depth=2, bias_variance=0.1, trained=trained))
    frozen = {"readout"} if trained == "blocks" else set()
    hidden = {"input_weight", "input_bias", "weights", "biases"}
    assert set(nnx.state(model, Frozen)) == frozen
    assert set(nnx.state(model, nnx.Param)) == (hidden | {"readout"}) - frozen


def test_an_nnx_optimizer_trains_it_and_leaves_frozen_weights_alone():
    import optax

    model, x = make(nr.ResNet(depth=2, branch_scale=0.5)), rows()
    before = {name: np.asarray(v[...]) for name, v in nnx.state(model).items()}
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    grads = nnx.grad(lambda model: jnp.mean((model(x) - 1) ** 2))(model)
    optimizer.update(model, grads)
    for name, variable in nnx.state(model).items():
        moved = not np.array_equal(before[name], variable[...])
        assert moved == (name in ("weights", "outer_weights"))


@pytest.mark.quick
@pytest.mark.parametrize("block", [None, *nr.ResNet.blocks])
def test_program_does_not_grow_with_depth(block):
    def program(depth):
        spec = (
            nr.FeedForward(depth=depth)
            if block is None
            else nr.ResNet(depth=depth, branch_scale=0.1, block=block)
        )
        model = nnx.eval_shape(lambda: make(spec, dtype=jnp.float32))
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        function = lambda params, rest, x: nnx.merge(graphdef, params, rest)(x).sum()  # noqa: E731
        return equations(jax.value_and_grad(function), params, rest, jnp.ones((2, 5)))

    assert program(4) == program(40) > 10


def test_construction_is_reproducible_and_seeded():
    spec, x = SPECS["two_layer_constant"], rows()
    np.testing.assert_array_equal(make(spec)(x), make(spec)(x))
    assert not np.array_equal(make(spec)(x), make(spec, seed=1)(x))


@pytest.mark.parametrize(
    ("param_dtype", "dtype"),
    [
        (jnp.bfloat16, None),
        (jnp.float64, None),
        (jnp.float32, jnp.bfloat16),
        (jnp.bfloat16, jnp.float32),
    ],
)
def test_dtypes_of_weights_and_of_computing(param_dtype, dtype):
    spec = SPECS["preactivation_erf_bias"]
    model = build(spec, 5, 8, rngs=nnx.Rngs(0), param_dtype=param_dtype, dtype=dtype)
    expected = param_dtype if dtype is None else dtype
    assert model(rows()).dtype == model.hidden(rows()).dtype == expected
    assert model(np.ones((1, 5), int)).dtype == expected
    assert model.dtype == expected
    gradient = nnx.grad(lambda model: model(rows()).sum().astype(float))(model)
    for state in (nnx.state(model, nnx.Param), gradient):
        assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {
            jnp.dtype(param_dtype)
        }


def rounding_is_small(spec, dtype):
    """The same weights in float64 and in less: (L + 2) eps of the root mean square."""
    outputs = []
    for one in (dtype, jnp.float64):
        model = build(spec, 5, 64, 16, rngs=nnx.Rngs(0), dtype=one)
        outputs.append(np.asarray(model(rows()), float))
    error = np.sqrt(np.mean((outputs[0] - outputs[1]) ** 2))
    size = np.sqrt(np.mean(outputs[1] ** 2))
    assert error < (spec.depth + 2) * float(jnp.finfo(dtype).eps) * size


@pytest.mark.parametrize(("block", "activation", "bias"), VARIETY)
def test_rounding_in_bfloat16(block, activation, bias):
    spec = spec_of(block, activation=activation, bias_variance=bias)
    rounding_is_small(spec, jnp.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("activation", ["relu", "erf", "tanh", "gelu"])
@pytest.mark.parametrize("block", [None, *nr.ResNet.blocks])
def test_rounding_of_every_specification(block, activation, dtype):
    spec = spec_of(block, activation=activation, bias_variance=0.1)
    rounding_is_small(spec, dtype)


def test_float64_without_x64_mode_is_refused():
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match="param_dtype float64 needs JAX's x64"):
            make(SPECS["plain"], dtype=jnp.float64)
        with pytest.raises(ValueError, match=r"^dtype float64 needs JAX's x64"):
            build(SPECS["plain"], 5, 8, rngs=nnx.Rngs(0), dtype=jnp.float64)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"spec": "relu"}, "spec must be"),
        ({"in_features": 0}, "in_features must be at least 1"),
        ({"width": 1.5}, "width must be a whole number"),
        ({"out_features": -1}, "out_features must be at least 1"),
        ({"rngs": 0}, "rngs must be an nnx.Rngs"),
        ({"param_dtype": int}, "param_dtype must be a float dtype"),
        ({"param_dtype": "nonsense"}, "param_dtype must be a float dtype"),
        ({"dtype": "int32"}, "^dtype must be a float dtype"),
    ],
)
def test_bad_arguments_are_named(as_users_run_it, changes, text):
    good = {"spec": SPECS["plain"], "in_features": 5, "width": 4, "rngs": nnx.Rngs(0)}
    with pytest.raises(ValueError, match=text):
        build(**good | changes)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.ones(5), "has shape"),
        (np.ones((2, 4)), "has shape"),
        (np.ones((0, 5)), "has shape"),
        (np.full((2, 5), np.nan), "x holds nan"),
        (np.full((2, 5), np.inf), "x holds inf"),
        (np.ones((2, 5), complex), "dtype"),
        (np.full((2, 5), "a"), "dtype"),
    ],
)
def test_bad_inputs_are_named(x, text):
    with pytest.raises(ValueError, match=text):
        make(SPECS["plain"])(x)


def test_seeds_in_batches_equal_seeds_at_once():
    keys = seed_keys(0, 8, 5)
    function = lambda key: build(  # noqa: E731
        SPECS["plain"], 5, 8, rngs=nnx.Rngs(key)
    )(jnp.ones((1, 5)))
    whole = [v for _, v in over_seeds(function, keys, numbers_per_seed=1)]
    parts = list(over_seeds(function, keys, numbers_per_seed=2**25))
    assert [done for done, _ in parts] == [2, 4, 5]
    np.testing.assert_allclose(
        np.concatenate([v for _, v in parts]), whole[0], rtol=1e-5, atol=1e-6
    )
