"""The empirical NTK layer by layer: every kind of use of a weight, every way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax.extend import core
from models import CONVOLUTIONS, DENSE, convolutions, dense, normal

from ntk_resnet.finite import empirical_ntk, empirical_ntk_operator, ntk_methods
from ntk_resnet.finite.empirical import contractions, models, tracing
from ntk_resnet.finite.empirical.models import TracedNetwork
from ntk_resnet.models.functions import as_function

pytestmark = pytest.mark.quick

EPS = np.finfo(float).eps


def explicit(function, params, x1, x2, outputs="full"):
    """From whole Jacobians, row by row, in NumPy."""

    def flat(x):
        def one(row):
            jacobian = jax.jacrev(lambda p: function(p, row[None])[0].reshape(-1))
            return jax.tree.leaves(jacobian(params))

        leaves = [np.asarray(leaf) for leaf in jax.vmap(one)(jnp.asarray(x))]
        return np.concatenate([v.reshape(*v.shape[:2], -1) for v in leaves], axis=-1)

    axes = {"full": "ikp,jlp->ijkl", "diagonal": "ikp,jkp->ijk", "trace": "ikp,jkp->ij"}
    return np.einsum(axes[outputs], flat(x1), flat(x2))


def moved(p, x):
    """Transposed, reshaped, negative, times and over numbers."""
    h = jnp.sin(x @ (0.5 * p["a"]).T)
    h = jnp.cos(jnp.einsum("ab,nb->na", -p["b"].reshape(4, 6) / 3, h)).astype(float)
    return jnp.einsum("abc,nab->nc", p["c"], h.reshape(-1, 2, 2))


MOVED = {"a": normal(6, 5), "b": normal(24), "c": normal(2, 2, 3)}


def stacked(p, x):
    """Loops over slices, one in the other, backwards too; a bias in them."""
    h = x @ p["in"]

    def block(h, w):
        def layer(h, v):
            return jnp.tanh(h @ v / 2), h.sum()

        h, sums = jax.lax.scan(layer, h + w["b"], w["inner"], reverse=True)
        return h + jnp.cos(h @ w["w"]), sums

    h, _ = jax.lax.scan(block, h, p["blocks"])
    return h @ p["out"]


STACKED = {
    "in": normal(5, 4),
    "blocks": {"w": normal(3, 4, 4), "inner": normal(3, 2, 4, 4), "b": normal(3, 4)},
    "out": normal(4, 2),
}


@jax.jit
def _layer(w, h):
    return jnp.tanh(h @ w)


def called(p, x):
    """One compiled layer with several weights; one under `checkpoint`."""
    h = _layer(p["a"], x)
    h = jax.checkpoint(_layer)(p["b"], h) + _layer(p["c"], h)
    return jax.jit(jnp.transpose)(jax.jit(jnp.transpose)(h @ p["d"]))


CALLED = {"a": normal(5, 4), "b": normal(4, 4), "c": normal(4, 4), "d": normal(4, 2)}


def shared(p, x):
    """Used twice, in a loop at every step, squared, cut, and together."""
    h = jnp.tanh(x @ p["tied"])
    h = jnp.tanh(h @ p["tied"].T) @ p["low"] @ p["high"]
    h, _ = jax.lax.scan(lambda h, _: (jnp.sin(h @ p["same"]), None), h, length=3)
    parts = h @ p["cut"][:, :2], h @ p["cut"][:, 2:] ** 2
    return jnp.concatenate(parts, axis=1) @ (p["left"] @ p["right"]) + p["unused"] * 0


SHARED = {
    "tied": normal(5, 6),
    "low": normal(5, 2),
    "high": normal(2, 4),
    "same": normal(4, 4),
    "cut": normal(4, 5),
    "left": normal(5, 2),
    "right": normal(2, 3),
    "unused": normal(1),
}


def words(p, x):
    """Two tables, rows asked for twice, and one out of range, which is zero."""
    h = p["words"].at[x].get(mode="fill", fill_value=0)
    h = jnp.tanh(h + jnp.take(p["places"], jnp.arange(x.shape[1]), axis=0))
    return jnp.tanh(h @ p["each"]).mean(1) @ p["out"]


WORDS = {
    "words": normal(7, 4),
    "places": normal(5, 4),
    "each": normal(4, 3),
    "out": normal(3, 2),
}
TOKENS = np.array([[0, 1, 1, 5, 9], [1, 1, 2, 5, 0], [6, 6, 6, 6, 3]])

NETWORKS = {
    "dense": (dense, DENSE, normal(4, 5), ("first", "second")),
    "moved": (moved, MOVED, normal(4, 5), ("a", "b", "c")),
    "stacked": (stacked, STACKED, normal(4, 5), ("inner", "w", "in", "out")),
    "called": (called, CALLED, normal(4, 5), ("a", "b", "c", "d")),
    "shared": (shared, SHARED, normal(4, 5), ("low", "high")),
    "convolutions": (
        convolutions,
        CONVOLUTIONS,
        normal(3, 60),
        ("plain", "strided", "wide", "other", "out"),
    ),
    "words": (words, WORDS, TOKENS, ("words", "places", "each", "out")),
}


def names(tree):
    return [path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_explicit_jacobian(name):
    function, params, x, expected = NETWORKS[name]
    layers = TracedNetwork.of(
        *as_function((function, params)), x
    ).program.layers.values()
    found = {names(params)[layer.leaf] for layer in layers}
    assert found == set(expected)
    model, full = (function, params), explicit(function, params, x, x)
    # Sums of at most 200 products of a relative error of a few eps each.
    atol = 200 * EPS * np.abs(full).max()
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=atol)
    close(empirical_ntk(model, x), full)
    diagonal = np.einsum("ijkk->ijk", full)
    close(empirical_ntk(model, x[1:], x[:2], "diagonal"), diagonal[1:, :2])
    close(empirical_ntk(model, x, outputs="trace"), diagonal.sum(-1))


@pytest.mark.parametrize("method", ["positions", "gradients"])
@pytest.mark.parametrize("name", ["stacked", "convolutions"])
def test_every_way_gives_the_same(name, method, monkeypatch):
    function, params, x, _ = NETWORKS[name]
    monkeypatch.setattr(contractions, "cheapest", lambda *_: (method, 0))
    monkeypatch.setattr(contractions, "PART_BYTES", 500)  # few columns at a time
    network = TracedNetwork.of(*as_function((function, params)), x)
    factors = network.factors(x)
    # A function of its own, so that nothing compiled another way is found.
    kernel = jax.jit(lambda *args: contractions.kernel_of(*args), static_argnums=(0, 3))
    for outputs, second in (("full", None), ("trace", factors), ("diagonal", factors)):
        want = explicit(function, params, x, x, outputs)
        found = kernel(network.program, factors, second, outputs)
        np.testing.assert_allclose(found, want, rtol=0, atol=200 * EPS * want.max())


# ------------------------------------------- equations that JAX has in other versions


def convolution(w, x):
    kernel = w.reshape(1, 3, 1, 5)
    numbers = ("NHWC", "HWIO", "NHWC")
    images = x[:, None, :, None]
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=numbers
    ).sum((1, 2))


def loop(w, x):
    blocks = w.reshape(5, 3, 1)
    h, sums = jax.lax.scan(lambda h, v: (h @ v + h, h.sum(1)), x[:, :3], blocks)
    return h + sums.sum(0)[:, None]


USES = {  # functions of a weight (5, 3), by an equation in which they use it
    "reshape": lambda w, x: x @ w.reshape(3, 5).T,
    "transpose": lambda w, x: jnp.einsum("ab,na->nb", w.T, x[:, :3]),
    "squeeze": lambda w, x: x @ jax.lax.squeeze(w.reshape(1, 5, 3), (0,)),
    "rev": lambda w, x: x @ jax.lax.rev(w, (0,)),
    "copy": lambda w, x: x @ jnp.copy(w),
    "neg": lambda w, x: x @ -w,
    "convert_element_type": lambda w, x: x.astype("f4") @ w.astype("f4"),
    "mul": lambda w, x: x @ (w * 3.0),
    "div": lambda w, x: x @ (w / 3.0),
    "jit": lambda w, x: jax.jit(jnp.matmul)(x, w),
    "remat2": lambda w, x: jax.checkpoint(jnp.matmul)(x, w),
    "scan": loop,
    "dot_general": lambda w, x: x @ w,
    "conv_general_dilated": convolution,
    "gather": lambda w, x: w.at[x.astype(int)].get(mode="fill", fill_value=0).sum(1),
}


def other_parameters(equation):
    """One dropped, renamed, added, or of a form that says nothing; what was done."""
    params = dict(equation.params)
    yield "added", params | {"new": None}
    for name in params:
        rest = {key: value for key, value in params.items() if key != name}
        yield "dropped", rest
        yield "renamed", rest | {f"new_{name}": params[name]}
        yield "form", rest | {name: object()}


def test_every_equation_of_the_walk_has_a_use():
    assert set(USES) == set(tracing.PARAMETERS)


@pytest.mark.parametrize("name", USES)
def test_equations_that_are_not_known_go_by_jacobian(name, monkeypatch):
    """As in another version of JAX: parameters are others, or the primitive is."""
    apply = lambda w, x: jnp.tanh(USES[name](w, x))  # noqa: E731
    model, x = (apply, normal(5, 3) / 4), normal(4, 5)
    want = explicit(*model, x, x)
    seen, real = [], tracing._use

    def noted(equation, held, loops):
        if equation.primitive.name == name:
            seen.append(equation)
        return real(equation, held, loops)

    def ways():
        return [method.method for method in ntk_methods(model, x)]

    def holds():
        np.testing.assert_allclose(empirical_ntk(model, x), want, rtol=0, atol=1e-6)

    monkeypatch.setattr(tracing, "_use", noted)
    assert "jacobian" not in ways()
    holds()
    for done, params in other_parameters(seen[0]):
        changed = lambda equation, held, loops, params=params: real(  # noqa: E731
            equation.replace(params=params) if equation.primitive.name == name
            else equation, held, loops,
        )  # fmt: skip
        monkeypatch.setattr(tracing, "_use", changed)
        assert ways() == ["jacobian"] or done == "form"
        holds()
    monkeypatch.setattr(tracing, "_use", real)
    monkeypatch.delitem(tracing.PARAMETERS, name)
    assert ways() == ["jacobian"]
    holds()


class Model(nnx.Module):
    """Most of what flax has, with weights that are not trained."""

    def __init__(self, rngs):
        kind = {"rngs": rngs, "param_dtype": jnp.float64}
        self.embed = nnx.Embed(7, 6, **kind)
        self.conv = nnx.Conv(6, 6, (3,), padding="CIRCULAR", **kind)
        self.norm = nnx.LayerNorm(6, **kind)
        self.attention = nnx.MultiHeadAttention(2, 6, decode=False, **kind)
        self.batch = nnx.BatchNorm(6, use_running_average=True, **kind)
        self.drop = nnx.Dropout(0.5, deterministic=True)
        self.out = nnx.Linear(6, 2, **kind)
        self.out.bias = nnx.Variable(self.out.bias[...])

    def __call__(self, x):
        h = nnx.relu(self.conv(self.embed(x)))
        h = self.batch(h + self.attention(self.norm(h)))
        return self.out(self.drop(nnx.gelu(h)).mean(1))


def test_a_module_of_many_layers():
    model, x = Model(nnx.Rngs(0)), TOKENS % 7
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    want = explicit(lambda p, x: nnx.merge(graph, p, rest)(x), params, x, x)
    program = TracedNetwork.of(*as_function(model), x).program
    # The table, the convolution, four of the attention, and the last.
    assert len(program.layers) == 7
    # The attention of flax passes through float32.
    atol = 8 * np.finfo(np.float32).eps * want.max()
    np.testing.assert_allclose(empirical_ntk(model, x), want, rtol=0, atol=atol)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(4, (3, 3), strides=2, param_dtype=float)(x))
        x = linen.max_pool(x, (2, 2))
        return linen.Dense(3, param_dtype=float)(x.reshape(len(x), -1))


def test_a_linen_module():
    model, x = Linen(), normal(4, 8, 8, 2)
    variables = model.init(jax.random.key(0), x)
    want = explicit(
        lambda p, x: model.apply({"params": p}, x), variables["params"], x, x
    )
    found = empirical_ntk((model, variables), x)
    np.testing.assert_allclose(found, want, rtol=0, atol=200 * EPS * want.max())


def test_nothing_of_the_size_of_a_jacobian_is_made():
    """The largest array of the program is a weight, or the product of two."""
    wide = {"a": np.ones((5, 300)), "b": np.ones((300, 300)), "c": np.ones((300, 1))}
    apply = lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]  # noqa: E731
    x = np.ones((20, 5))

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (variable.aval.size for variable in equation.outvars)
            for inner in core.jaxprs_in_params(equation.params):
                yield from sizes(inner)

    program = jax.make_jaxpr(lambda p: empirical_ntk((apply, p), x))(wide)
    assert max(sizes(program.jaxpr)) <= 300 * 300


def test_loops_without_steps():
    """As of a network of one layer: its other weights are an array of no layers."""

    def apply(p, x):
        h, _ = jax.lax.scan(lambda h, w: (h @ w, None), x @ p["in"], p["none"])
        return h

    params = {"in": normal(5, 3), "none": np.zeros((0, 3, 3))}
    x = normal(4, 5)
    want = (x @ x.T)[:, :, None, None] * np.eye(3)
    atol = 20 * EPS * want.max()
    np.testing.assert_allclose(empirical_ntk((apply, params), x), want, atol=atol)


@pytest.mark.parametrize("axes", [(0,), (1,)])
def test_rows_of_a_table_that_come_out_sideways(axes):
    """Gathers whose rows are the first or the last axis of the result."""
    params, tokens = {"t": normal(7, 3), "o": normal(3, 2)}, TOKENS[:, :, None] % 7

    def sideways(p, x):
        numbers = jax.lax.GatherDimensionNumbers(axes, (0,), (0,))
        one = lambda i: jax.lax.gather(p["t"], i, numbers, slice_sizes=(1, 3))  # noqa: E731
        h = jnp.moveaxis(jax.vmap(one)(x), 1 + axes[0], -1)
        return jnp.tanh(h * jnp.arange(1.0, 6)[:, None]).sum(1) @ p["o"]

    want = explicit(sideways, params, tokens, tokens)
    found = empirical_ntk((sideways, params), tokens)
    np.testing.assert_allclose(found, want, rtol=0, atol=200 * EPS * want.max())


def test_weights_without_entries_or_use():
    """Their share of the kernel is zero, also where there is no other."""
    x = normal(4, 5)
    params = {"none": np.zeros((5, 0)), "back": np.zeros((0, 3)), "w": normal(5, 3)}
    apply = lambda p, x: x @ p["none"] @ p["back"] + x @ p["w"]  # noqa: E731
    found = empirical_ntk((apply, params), x, outputs="trace")
    np.testing.assert_allclose(found, 3 * x @ x.T, atol=20 * EPS * np.abs(x).max())
    unused = empirical_ntk((lambda p, x: jnp.tanh(x), normal(6)), x)
    np.testing.assert_array_equal(unused, np.zeros((4, 4, 5, 5)))


class Scaled:
    """A function whose attributes and derivatives may change."""

    def __init__(self, scale):
        self.scale = scale

    def apply(self, p, x):
        return self.scale * jnp.tanh(x @ p)


def test_functions_that_have_changed_are_traced_again():
    net, params, x = Scaled(1.0), normal(5, 2), normal(4, 5)
    first = empirical_ntk((net.apply, params), x)
    operator = empirical_ntk_operator((net.apply, params), x)
    v = normal(8)
    product = operator @ v
    net.scale = 2.0
    # Powers of two change no digit.
    np.testing.assert_array_equal(empirical_ntk((net.apply, params), x), 4 * first)
    again = empirical_ntk_operator((net.apply, params), x)
    np.testing.assert_array_equal(again @ v, 4 * product)
    np.testing.assert_array_equal(operator @ v, product)  # the network of then


def test_rules_of_derivatives_that_have_changed():
    """Two functions of one text, but for the derivative."""

    def of(slope):
        @jax.custom_jvp
        def twice(x):
            return 2 * x

        twice.defjvp(lambda x, dx: (2 * x[0], slope * dx[0]))
        return lambda p, x: twice(x @ p)

    x = normal(4, 5)
    found = [
        empirical_ntk((of(slope), np.ones((5, 1))), x, outputs="mean")
        for slope in (1.0, 2.0)
    ]
    np.testing.assert_array_equal(found[1], 4 * found[0])


def test_callbacks_that_have_changed():
    """Two functions of one text, but for what they call back."""

    def of(value):
        def called():
            return np.asarray(value)

        shape = jax.ShapeDtypeStruct((), float)
        return lambda p, x: x @ p * jax.pure_callback(called, shape)

    x, params = normal(4, 5), np.ones((5, 1))
    found = [
        empirical_ntk((of(value), params), x, outputs="mean") for value in (1.0, 2.0)
    ]
    np.testing.assert_array_equal(found[1], 4 * found[0])


def test_equal_functions_are_compiled_once():
    """Whose constants differ; and none is kept from inside of transformations."""
    x, params = normal(4, 5), normal(5, 2)

    def scaled(by):
        return empirical_ntk((lambda p, x: jnp.tanh(x @ p) * by, params), x)

    first = scaled(normal(2))
    before = models._factors._cache_size()
    second = scaled(2 * normal(2))
    assert models._factors._cache_size() == before
    np.testing.assert_array_equal(second, 4 * first)
    inside = jax.jit(scaled)(normal(2))
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=200 * EPS)
    close(inside, first)
    net = Scaled(1.0)  # its bound method equals the one inside
    traced = jax.jit(lambda p: empirical_ntk((net.apply, p), x))(params)
    close(empirical_ntk((net.apply, params), x), traced)


def test_half_precision_is_summed_in_single():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), DENSE)
    found = empirical_ntk((dense, params), normal(4, 5).astype(jnp.bfloat16))
    assert found.dtype == jnp.float32
    want = explicit(dense, DENSE, normal(4, 5), normal(4, 5))
    # Every factor is right to a few roundings of 2^-9.
    np.testing.assert_allclose(found, want, rtol=0, atol=20 * 2.0**-9 * want.max())
