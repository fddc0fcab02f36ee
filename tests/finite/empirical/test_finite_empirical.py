"""Empirical kernels: against explicit Jacobians, and against the closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from flax.core import FrozenDict
from models import deviation, equations, explicit_ntk, kernel_samples, make, rows
from specifications import SPECS

import ntk_resnet as nr
from ntk_resnet.finite import (
    build,
    empirical_nngp,
    empirical_ntk,
    empirical_ntk_operator,
    ntk_methods,
)
from ntk_resnet.finite.empirical.kernel import ntk_of_rows
from ntk_resnet.models.functions import as_function

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", ["plain_erf_bias", "postactivation_input_activation"])
def test_equals_the_explicit_jacobians(name):
    model, x = make(SPECS[name], width=4, k=2), rows(5)
    full = empirical_ntk(model, x)
    np.testing.assert_allclose(full, explicit_ntk(model, x, x), rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(full, np.transpose(full, (1, 0, 3, 2)))
    np.testing.assert_allclose(
        empirical_ntk(model, x, x[:2]), full[:, :2], rtol=1e-12, atol=1e-13
    )


def test_reductions_over_outputs_and_batches_of_rows():
    model, x = make(SPECS["plain"], width=4, k=3), rows(5)
    full = np.asarray(empirical_ntk(model, x))
    batched = np.asarray(empirical_ntk(model, x, batch_rows=2))
    np.testing.assert_allclose(full, batched, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(batched, np.transpose(batched, (1, 0, 3, 2)))
    diagonal = np.einsum("ijkk->ijk", full)
    expected = {
        "diagonal": diagonal,
        "trace": diagonal.sum(-1),
        "mean": diagonal.mean(-1),
    }
    for outputs, values in expected.items():
        np.testing.assert_allclose(
            empirical_ntk(model, x, outputs=outputs), values, rtol=1e-12
        )
    cross = empirical_ntk(model, x, x[:3], "mean", batch_rows=2)
    np.testing.assert_allclose(cross, expected["mean"][:, :3], rtol=1e-12)


@pytest.mark.parametrize("name", ["plain_blocks", "two_layer_constant"])
def test_frozen_variables_do_not_count(name):
    """The difference between the two settings is the gradients of A and v."""
    x, spec = rows(), SPECS[name]
    blocks, all_trained = make(spec), make(spec.replace(trained="all"))
    np.testing.assert_array_equal(blocks(x), all_trained(x))  # the same weights
    leaves = explicit_ntk(all_trained, x, x) - explicit_ntk(blocks, x, x)
    np.testing.assert_allclose(
        empirical_ntk(all_trained, x) - empirical_ntk(blocks, x), leaves, rtol=1e-9
    )
    assert np.linalg.eigvalsh(leaves[..., 0, 0])[-1] > 0.1


def test_plain_functions_linen_and_other_nnx_modules():
    x = rows()
    # f(x) = a . x + b has the kernel x . x' + 1.
    expected = x @ x.T + 1
    plain = (lambda p, x: x @ p["a"] + p["b"], {"a": np.ones((5, 1)), "b": np.ones(1)})
    np.testing.assert_allclose(empirical_ntk(plain, x, outputs="trace"), expected)
    flat = (lambda p, x: x @ p, np.ones(5))  # (n,) counts as one output
    assert empirical_ntk(flat, x).shape == (4, 4, 1, 1)
    dense = linen.Dense(1, param_dtype=jnp.float64)
    variables = dense.init(jax.random.key(0), x)
    for model in ((dense, variables), dense.bind(variables)):
        np.testing.assert_allclose(empirical_ntk(model, x, outputs="mean"), expected)
    module = nnx.Linear(5, 1, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    np.testing.assert_allclose(
        empirical_ntk(module, x, outputs="diagonal")[..., 0], expected
    )
    images = nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0))  # (2, 4, 4, 2) outputs
    assert empirical_ntk(images, np.ones((2, 4, 4, 1)), outputs="diagonal").shape == (
        2,
        2,
        32,
    )


class Normalised(linen.Module):
    """An affine map after batch normalisation by what it has seen, without a scale."""

    @linen.compact
    def __call__(self, x, train=False):
        norm = linen.BatchNorm(use_scale=False, use_bias=False, dtype=float)
        return linen.Dense(1, param_dtype=float)(norm(x, use_running_average=not train))


def test_only_params_of_linen_variables_are_trained():
    """f(x) = a . (x - m) / sqrt(s) + b, m and s fixed: the kernel is z . z' + 1."""
    x, module = rows(), Normalised()
    variables = module.init(jax.random.key(0), x)
    mean, var = np.arange(5.0), np.arange(1.0, 6)
    statistics = {"BatchNorm_0": {"mean": mean, "var": var}}
    variables = {"params": variables["params"], "batch_stats": statistics}
    z = (x - mean) / np.sqrt(var + 1e-5)  # linen's epsilon
    for model in (
        (module, variables),
        module.bind(variables),
        (module.apply, variables),
        (jax.jit(module.apply), variables),
        (functools.partial(module.apply, train=False), variables),
        (lambda v, x: module.apply(v, x, train=False), FrozenDict(variables)),
    ):
        for _ in range(2):  # what is compiled is remembered
            found = empirical_ntk(model, x, outputs="mean")
            np.testing.assert_allclose(found, z @ z.T + 1, rtol=1e-12)
        names = {method.parameter for method in ntk_methods(model, x)}
        assert names == {"['Dense_0']['kernel']", "['Dense_0']['bias']"}
        diagonal = empirical_ntk_operator(model, x).diagonal()
        np.testing.assert_allclose(diagonal, np.diag(z @ z.T + 1), rtol=1e-12)


def test_a_mapping_with_params_that_is_no_linen_variables_is_trained_whole():
    x = rows()
    expected = x @ x.T * 10  # of x . (a + 3 b)
    for a, b in ((np.ones((5, 1)),) * 2, ({"w": np.ones((5, 1))},) * 2):
        leaf = jax.tree.leaves

        def function(p, x):
            return x @ (leaf(p["params"])[0] + 3 * leaf(p["head"])[0])  # noqa: B023

        found = empirical_ntk((function, {"params": a, "head": b}), x, outputs="mean")
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_works_inside_jit_and_needs_no_second_compile():
    model, x = make(SPECS["plain"]), rows()
    graphdef, state = nnx.split(model)
    inside = jax.jit(lambda state, x: empirical_ntk(nnx.merge(graphdef, state), x))
    np.testing.assert_allclose(inside(state, x), empirical_ntk(model, x), rtol=1e-12)
    applies = [as_function(make(SPECS["plain"], seed=seed))[0] for seed in (0, 1)]
    assert applies[0] == applies[1]
    assert hash(applies[0]) == hash(applies[1])


def test_program_does_not_grow_with_depth():
    def program(depth):
        spec = nr.ResNet(depth=depth, branch_scale=0.1)
        model = nnx.eval_shape(lambda: make(spec, dtype=jnp.float32))
        graphdef, state = nnx.split(model)
        function = lambda state, x: ntk_of_rows(  # noqa: E731
            nnx.merge(graphdef, state), x, outputs="full"
        )
        return equations(function, state, jnp.ones((2, 5), jnp.float32))

    assert program(3) == program(300) > 10


# --------------------------------------------------------------- what a model must be


class Flax(nnx.Module):
    """What sees other rows, or chance, in training mode only; and a recurrent layer."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.cells = nnx.RNN(nnx.SimpleCell(5, 8, rngs=rngs), rngs=rngs)
        self.out = nnx.Linear(8, 2, rngs=rngs)

    def features(self, x):
        return self.cells(self.drop(self.norm(x))[:, None])[:, 0]

    def __call__(self, x):
        return self.out(self.features(x))


def in_training(name):
    model = Flax(nnx.Rngs(0))
    model.eval()
    getattr(model, name).train()
    return model


SEEING_MORE = {
    "batch norm": lambda: in_training("norm"),
    "dropout": lambda: in_training("drop"),
    "mean": lambda: (lambda p, x: (x - x.mean(0)) @ p, np.ones((5, 2))),
    "pairs": lambda: (lambda p, x: (x @ p) @ x.T, np.ones((5, 5))),
}


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", SEEING_MORE)
def test_models_whose_rows_are_not_apart_are_refused(name, count):
    pairs = name == "pairs" and count > 1
    text = "map each row by itself" if pairs else "beside other rows.*model.eval"
    with pytest.raises(ValueError, match=text) as caught:
        empirical_ntk(SEEING_MORE[name](), rows(count).astype(np.float32))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["norm", "drop"])
def test_features_whose_rows_are_not_apart_are_refused(name):
    with pytest.raises(ValueError, match=r"beside other rows.*model.eval"):
        empirical_nngp(in_training(name), rows().astype(np.float32))


class Keys(nnx.Module):
    """Draws keys that nothing depends on, of a stream and of its own."""

    def __init__(self, rngs):
        self.rngs = rngs
        self.key = nnx.Variable(jax.random.key(0))
        self.hidden = nnx.Linear(5, 8, rngs=rngs)
        self.out = nnx.Linear(8, 2, rngs=rngs)

    def features(self, x):
        self.rngs.params()
        self.key[...] = jax.random.split(self.key[...])[0]
        return jnp.tanh(self.hidden(x))

    def __call__(self, x):
        return self.out(self.features(x))


def recurrent(rngs):
    cells = nnx.RNN(nnx.LSTMCell(5, 8, rngs=rngs), rngs=rngs)
    return nnx.Sequential(cells, lambda h: h[:, -1], nnx.Linear(8, 2, rngs=rngs))


@pytest.mark.parametrize("make", [Flax, Keys, recurrent])
def test_modules_that_hold_random_keys(make):
    """Those of recurrent layers draw their initial carry, of zeros; dropout is off."""
    model, x = make(nnx.Rngs(0)), rows().astype(np.float32)
    if make is recurrent:
        x = np.stack([x, x[::-1]], axis=1)
    model.eval()
    found = empirical_ntk(model, x)
    params = nnx.state(model, nnx.Param)

    def outputs(params):  # a copy, since a call counts the keys that it has drawn
        copy = nnx.clone(model)
        nnx.update(copy, params)
        return copy(x)

    leaves = jax.tree.leaves(jax.jit(jax.jacrev(outputs))(params))
    flat = np.concatenate([leaf.reshape(4, 2, -1) for leaf in leaves], axis=-1)
    want = np.einsum("ikp,jlp->ijkl", flat, flat)
    # Sums of some hundred products in float32.
    atol = 100 * np.finfo(np.float32).eps * want.max()
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=atol)
    close(found, want)
    close(jax.jit(lambda x: empirical_ntk(model, x))(x), want)
    operator = empirical_ntk_operator(model, x)
    close(operator @ np.eye(8), want.transpose(0, 2, 1, 3).reshape(8, 8))
    assert len(ntk_methods(model, x)) == len(leaves)
    if hasattr(model, "features"):
        features = np.asarray(nnx.clone(model).features(x), float)
        close(empirical_nngp(model, x), features @ features.T / 8)


def test_functions_that_change_what_they_hold():
    """Flax does not let them inside a trace: the remedy is named, and is one."""
    model, x = Keys(nnx.Rngs(0)), rows().astype(np.float32)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    holding = lambda p, x: nnx.merge(graph, p, rest)(x)  # noqa: E731
    with pytest.raises(ValueError, match=r"call a copy: nnx\.merge") as caught:
        empirical_ntk((holding, params), x)
    assert "\n" not in str(caught.value)
    copying = lambda p, x: nnx.merge(graph, p, rest, copy=True)(x)  # noqa: E731
    found = empirical_ntk((copying, params), x)
    np.testing.assert_array_equal(found, empirical_ntk(model, x))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_rounding_is_not_taken_for_other_rows(dtype):
    """Chaotic networks, in which rounding errors grow a thousandfold."""
    spec = nr.FeedForward(depth=30, activation="erf", weight_variance=16.0)
    model = build(spec, 5, 32, rngs=nnx.Rngs(0), dtype=dtype)
    assert np.isfinite(empirical_ntk(model, rows().astype(np.float32))).all()


def test_the_dtypes_of_two_arrays_are_made_one():
    """Tokens of two integer dtypes; floats of two, or integers beside floats."""
    table = (lambda p, x: jnp.tanh(p[x].sum(1)), np.arange(21.0).reshape(7, 3) / 21)
    tokens = np.array([[0, 1], [5, 5]])
    want = empirical_ntk(table, tokens)
    np.testing.assert_array_equal(
        empirical_ntk(table, tokens.astype("i4"), tokens), want
    )
    model, x = make(SPECS["plain"]), np.round(4 * rows())
    want = empirical_ntk(model, x)
    for dtype in ("f4", "i4"):
        found = empirical_ntk(model, x, x.astype(dtype))
        np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-13)
        found = empirical_ntk(model, x.astype(dtype), x)
        np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-13)


# ------------------------------------------------------------------- against the limits


POSTACTIVATION = [
    nr.ResNet(
        depth=depth,
        branch_scale=scale,
        block="postactivation",
        trained=trained,
        input_activation=input_activation,
    )
    for depth, scale in [(1, 1.0), (4, 0.25), (16, 1 / 16)]
    for trained in ("blocks", "all")
    for input_activation in (False, True)
]


@pytest.mark.slow
@pytest.mark.parametrize("spec", POSTACTIVATION, ids=str)
def test_postactivation_limit(spec):
    """This closed form has no other reference: 1 % of the kernel is resolved."""
    samples = kernel_samples(spec, rows(), 256, 400)
    exact = np.stack(nr.kernel_fn(spec, normalised=False)(rows(), get=("nngp", "ntk")))
    assert deviation(samples, exact) < 4.5
    error = samples.std(axis=0, ddof=1) / 20
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(exact)


# ---------------------------------------------------------------------- NNGP and checks


def test_empirical_nngp_is_the_feature_kernel():
    model, x = make(SPECS["two_layer_constant"]), rows()
    features = np.asarray(model.features(x))
    kernel = features @ features.T / 8
    np.testing.assert_allclose(empirical_nngp(model, x), kernel, rtol=1e-12)
    np.testing.assert_allclose(
        empirical_nngp(model, x, x[:2]), kernel[:, :2], rtol=1e-12
    )
    with pytest.raises(ValueError, match=r"features\(x\)"):
        empirical_nngp(nnx.Linear(5, 1, rngs=nnx.Rngs(0)), x)


def test_empirical_nngp_of_other_features():
    """They must be rows; sums of half-precision ones are in single precision."""

    class Features(nnx.Module):
        def __init__(self, function):
            self.features = function

    for function in (lambda x: x[:, 0], lambda x: x[:, None], lambda x: x[:1]):
        with pytest.raises(ValueError, match=r"must be one float array \(n, width\)"):
            empirical_nngp(Features(function), rows())
    half = rows().astype(jnp.bfloat16)
    found = empirical_nngp(Features(lambda x: x), half)
    assert found.dtype == jnp.float32
    exact = half.astype(float) @ half.T.astype(float) / 5
    eps = np.finfo(np.float32).eps
    np.testing.assert_allclose(found, exact, rtol=0, atol=8 * eps * exact.max())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"x1": np.ones(5)}, "x1 has shape"),
        ({"x1": np.ones((0, 5))}, "x1 has shape"),
        ({"x1": [[1.0], [1.0, 2.0]]}, "x1 is not an array"),
        ({"x1": np.full((2, 5), np.nan)}, "x1 holds nan at row 0"),
        ({"x1": np.ones((2, 5), complex)}, "x1 has dtype"),
        ({"x2": np.ones((2, 4))}, "x1 and x2 must have rows of one shape"),
        ({"x2": np.full((2, 5), np.inf)}, "x2 holds inf at row 0"),
        ({"outputs": "all"}, "outputs must be one of"),
        ({"batch_rows": 0}, "batch_rows must be at least 1"),
        ({"model": 3}, "model must be an nnx module"),
        ({"model": (lambda p, x: p.sum(), np.ones(3))}, "model must map"),
        ({"model": (lambda p, x: x, {})}, "no trained parameters"),
        ({"model": (lambda p, x: x, np.ones(3, int))}, "must all be arrays of a float"),
        ({"model": (lambda p, x: x @ p * 1j, np.ones(5))}, "outputs of a float dtype"),
        ({"model": (lambda p, x: x.astype(int), np.ones(5))}, "outputs of a float"),
        ({"model": (lambda p, x: x @ p > 0, np.ones(5))}, "outputs of a float dtype"),
        (
            {
                "model": (
                    lambda p, x: x @ p["w"],
                    {"w": np.ones((5, 0)), "b": np.ones(1)},
                )
            },
            "at least one a row",
        ),
    ],
)
def test_bad_arguments_are_named(as_users_run_it, changes, text):
    good = {"model": make(SPECS["plain"]), "x1": rows(), "x2": None}
    with pytest.raises(ValueError, match=text):
        empirical_ntk(**good | changes)
