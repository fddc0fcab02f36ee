"""Norm bounds, lazy training and smoothness in depth, by hand and by brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from foreign_models import FOREIGN, images, outputs_of

import ntk_resnet as nr
from ntk_resnet.analysis import bounds
from ntk_resnet.analysis.bounds.lipschitz import graph_of
from ntk_resnet.analysis.bounds.operators import convolution_norm
from ntk_resnet.models.tape import record

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4))
EPS = np.finfo(float).eps


def weights(*shapes, seed=1):
    rng = np.random.default_rng(seed)
    return {f"w{i}": rng.normal(size=s) / s[0] ** 0.5 for i, s in enumerate(shapes)}


def chain(params, x):
    for name in sorted(params):
        x = jax.nn.relu(x @ params[name]) if name != max(params) else x @ params[name]
    return x


def residual(params, x):
    """A stem, two blocks of two layers, a readout."""
    x = x @ params["w0"]
    for first, second in (("w1", "w2"), ("w3", "w4")):
        x = x + jax.nn.relu(x @ params[first]) @ params[second]
    return x @ params["w5"]


CHAIN = weights((4, 5), (5, 7), (7, 3))
RESIDUAL = weights((4, 5), (5, 6), (6, 5), (5, 6), (6, 5), (5, 3))


def norms_of(params, reference=None):
    reference = reference or {name: 0 * w for name, w in params.items()}
    s = [np.linalg.norm(params[n], 2) for n in sorted(params)]
    b = [np.linalg.norm(params[n] - reference[n], axis=0).sum() for n in sorted(params)]
    return np.array(s), np.array(b)


@pytest.mark.quick
def test_chains_are_those_of_bartlett_et_al():
    r""":math:`R = |X|^2 \ln(2W^2) (\prod s)^2 (\sum (b/s)^{2/3})^3`, to 1e-12."""
    reference = weights((4, 5), (5, 7), (7, 3), seed=2)
    found = bounds.layer_norms((chain, CHAIN), X, reference=(chain, reference))
    s, b = norms_of(CHAIN, reference)
    want = np.linalg.norm(X) ** 2 * np.log(2 * 7**2)
    want *= np.prod(s) ** 2 * np.sum((b / s) ** (2 / 3)) ** 3
    assert float(found.log_covering) == pytest.approx(want, rel=1e-12)
    assert float(found.lipschitz) == pytest.approx(np.prod(s), rel=1e-12)
    np.testing.assert_allclose(found.spectral_norm, s, rtol=1e-12)
    np.testing.assert_allclose(found.distance_21, b, rtol=1e-12)
    assert found.name.values.tolist() == ["w0", "w1", "w2"]


@pytest.mark.quick
def test_residual_networks_multiply_one_plus_the_branch():
    found = bounds.layer_norms((residual, RESIDUAL), X)
    s, b = norms_of(RESIDUAL)
    blocks = 1 + s[1] * s[2], 1 + s[3] * s[4]
    assert float(found.lipschitz) == pytest.approx(s[0] * np.prod(blocks) * s[5])
    size = np.linalg.norm(X)
    reach = {  # H G of each weight: all others along its paths
        0: blocks[0] * blocks[1] * s[5],
        1: s[0] * s[2] * blocks[1] * s[5],
        2: s[0] * s[1] * blocks[1] * s[5],
        3: s[0] * blocks[0] * s[4] * s[5],
        4: s[0] * blocks[0] * s[3] * s[5],
        5: s[0] * blocks[0] * blocks[1],
    }
    terms = b * size * np.array([reach[i] for i in range(6)])
    np.testing.assert_allclose(
        found.distance_21 * found.input_bound * found.lipschitz_after, terms, rtol=1e-12
    )
    want = np.log(2 * 6**2) * np.sum(terms ** (2 / 3)) ** 3
    assert float(found.log_covering) == pytest.approx(want, rel=1e-12)


@pytest.mark.quick
def test_the_margin_bound_by_hand():
    y = np.array([0, 1, 2, 0, 1, 2])
    outputs = np.asarray(chain(CHAIN, X))
    each = [row[k] - max(np.delete(row, k)) for row, k in zip(outputs, y, strict=True)]
    np.testing.assert_allclose(bounds.margins((chain, CHAIN), X, y), each)
    found = bounds.margin_bound((chain, CHAIN), X, y, margin=0.3, confidence=0.9)
    r = float(found.log_covering)
    want = np.mean(np.array(each) <= 0.3) + 8 / 6**1.5
    want += 36 / 6 * np.sqrt(4 * r / 0.09) * np.log(6)
    want += 3 * np.sqrt(np.log(2 / 0.1) / 12)
    assert float(found.bound) == pytest.approx(want, rel=1e-12)
    assert float(found.excess) == pytest.approx(want - float(found.margin_risk))
    one = weights((4, 1))
    signs = np.array([1, -1, 1, 1, -1, 1])
    np.testing.assert_allclose(
        bounds.margins((chain, one), X, signs), signs * (X @ one["w0"])[:, 0]
    )


@pytest.mark.parametrize("name", ["chain", "residual", *FOREIGN])
def test_no_perturbation_moves_outputs_further(name):
    """200 random ones of each layer's output, of all sizes: a thousand and more."""
    known = {"chain": (chain, CHAIN), "residual": (residual, RESIDUAL)}
    model, x = (known[name], X) if name in known else FOREIGN[name]()
    tape = record(model, x)
    graph = graph_of(tape)
    after, place = graph.after(), {}
    for number, operation in enumerate(tape.operations):
        place |= dict.fromkeys(operation.outputs, number)
    before, rng = np.asarray(tape.output.value, float), np.random.default_rng(3)
    eps = float(np.finfo(np.asarray(tape.output.value).dtype).eps)
    for layer in graph.layers:
        shape = layer.output.value.shape
        at = place[layer.output]

        @jax.jit
        def run(delta, at=at):
            change = {at: lambda value, _: value + delta}
            return tape.again(change).output.value

        for size in np.geomspace(1e-2, 1e2, 200 if name in known else 20):
            delta = rng.normal(size=shape)
            delta *= size / np.linalg.norm(delta)
            moved = np.asarray(run(delta.astype(x.dtype)), float) - before
            bound = after[layer.output] * size
            slack = 100 * eps * (np.linalg.norm(before) + bound)
            assert np.linalg.norm(moved) <= bound + slack
    sizes = graph.sizes()
    for layer in graph.layers:
        assert np.linalg.norm(layer.input.value) <= sizes[layer.input] * (1 + 10 * eps)


CONVOLUTIONS = {
    "padded": ((3, 3, 2, 4), {"window_strides": (1, 1), "padding": "SAME"}),
    "strided": ((3, 3, 2, 4), {"window_strides": (2, 2), "padding": "VALID"}),
    "wide": ((5, 3, 2, 3), {"window_strides": (1, 2), "padding": ((4, 4), (0, 1))}),
    "grouped": (
        (3, 3, 1, 4),
        {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 2},
    ),
    "dilated": (
        (3, 3, 2, 4),
        {"window_strides": (1, 1), "padding": "SAME", "rhs_dilation": (2, 2)},
    ),
}


@pytest.mark.parametrize("size", [6, 40])  # written out, and by Lanczos' method
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_operators(name, size):
    shape, options = CONVOLUTIONS[name]
    kernel = np.random.default_rng(0).normal(size=shape)
    model = (
        lambda p, x: jax.lax.conv_general_dilated(
            x, p["k"], dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
        ),
        {"k": kernel},
    )
    x = np.random.default_rng(1).normal(size=(1, size, size // 2, 2))
    (operation,) = record(model, x).operations
    norm = convolution_norm(kernel, operation.params, x.shape)
    columns = np.eye(x.size).reshape(x.size, *x.shape[1:])
    dense = np.asarray(model[0](model[1], columns)).reshape(x.size, -1)
    want = np.linalg.norm(dense, 2)
    assert abs(norm.value - want) <= norm.error + 64 * EPS * want
    assert norm.error < 1e-8 * want
    (layer,) = graph_of(record(model, x)).layers
    patches = np.linalg.norm(dense, axis=1).max()  # of one number of the input
    assert patches**2 <= layer.taps * np.abs(kernel).max() ** 2 * shape[-1]


def test_pooling_and_activations_have_their_constants():
    def of(function, x=X, params=None):
        model = (lambda p, x: function(x @ p["w"]), {"w": np.eye(x.shape[-1])})
        return float(bounds.layer_norms(model, x).lipschitz)

    known = {
        jax.nn.relu: 1,
        jnp.tanh: 1,
        jax.nn.sigmoid: 0.25,
        jax.scipy.special.erf: 2 / np.pi**0.5,
        jax.nn.softplus: 1,
        lambda z: jax.nn.leaky_relu(z, 0.3): 1,
        lambda z: jax.nn.gelu(z, approximate=False): 1.1289045,  # at sqrt 2
        jax.nn.silu: 1.0998393,
        lambda z: z + jax.nn.relu(z): 2,
        lambda z: 3 * jnp.sin(z) - 1: 3,
        lambda z: z.mean(axis=1, keepdims=True): 0.5,
        lambda z: jnp.concatenate([z, -z], axis=1): 2,  # 1 for each copy, added up
        lambda z: z[:, ::2].sum(axis=1): 2**0.5,
    }
    for function, constant in known.items():
        assert of(function) == pytest.approx(constant, rel=1e-6)
    image = images(1).astype(float)
    pools = {
        lambda z: linen.max_pool(z, (2, 2), (2, 2)): 1,
        lambda z: linen.max_pool(z, (3, 3), (1, 1), "SAME"): 3,
        lambda z: linen.avg_pool(z, (2, 2), (2, 2)): 0.5,
        lambda z: linen.avg_pool(z, (3, 3), (1, 1)): 1,
        lambda z: z.mean(axis=(1, 2)): 1 / 8,
    }
    for function, constant in pools.items():
        assert of(function, image) == pytest.approx(constant, rel=1e-6)


@pytest.mark.quick
@pytest.mark.parametrize("name", FOREIGN)
def test_models_of_others_have_norms(name):
    model, x = FOREIGN[name]()
    found = bounds.layer_norms(model, x)
    assert np.isfinite(found.lipschitz_after).all()
    assert (found.spectral_norm > 0).all()
    assert (found.input_norm <= found.input_bound * (1 + 1e-6)).all()
    labels = np.arange(len(x)) % 3
    bound = bounds.margin_bound(model, x, labels, margin=0.1)
    assert float(bound.bound) > 1
    assert outputs_of(model, x).shape == (len(x), 3)


def test_frozen_weights_move_nothing():
    spec = nr.ResNet(depth=3, branch_scale=0.5)
    model = nr.finite.build(spec, 4, 8, rngs=nnx.Rngs(0))
    found = bounds.layer_norms(model, X)
    assert found.sizes["layer"] == 6  # two weights a block; not A, not the readout


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda z: z * z[:, ::-1], "'mul' with 2 values"),
        (lambda z: z @ z.T, "'dot_general' with 2 values"),
        (lambda z: z**2, "slope is not bounded"),
        (lambda z: jnp.exp(z), "slope is not bounded"),
        (lambda z: 1 / z[:, :1] + z, "slope is not bounded|divides by"),
        (lambda z: jnp.sort(z), "'sort'"),
        (
            lambda z: (z - z.mean(axis=0)) / (1 + z.std(axis=0)),
            "batch normalisation",
        ),
    ],
)
def test_what_has_no_constant_is_refused(function, text):
    model = (lambda p, x: function(x @ p["w"]), {"w": np.eye(4)})
    with pytest.raises(ValueError, match=text):
        bounds.layer_norms(model, X)


# ------------------------------------------------------------------------ lazy training


@pytest.mark.quick
def test_lazy_training_by_hand():
    signs = np.array([1, -1, 1, 1, -1, 1])
    first, now = weights((4, 5), (5, 1)), weights((4, 5), (5, 1), seed=2)
    found = bounds.lazy_training((chain, now), (chain, first), X, signs)
    moved = [np.linalg.norm(now[n] - first[n]) for n in ("w0", "w1")]
    np.testing.assert_allclose(found.distance, moved)
    assert float(found.tau) == pytest.approx(max(moved))
    sizes = [np.linalg.norm(first[n]) for n in ("w0", "w1")]
    np.testing.assert_allclose(found.relative_distance, np.divide(moved, sizes))
    margin = signs * np.asarray(chain(now, X))[:, 0]
    assert float(found.surrogate_error) == pytest.approx(
        np.mean(1 / (1 + np.exp(margin)))
    )
    assert float(found.error_rate) == np.mean(margin <= 0)
    assert float(found.error_rate) <= 2 * float(found.surrogate_error)

    def loss(params):
        outputs = chain(params, X)[:, 0]
        return jnp.mean(optax.sigmoid_binary_cross_entropy(outputs, (signs + 1) / 2))

    assert float(found.loss) == pytest.approx(float(loss(now)))
    gradient = jax.grad(loss)(now)
    np.testing.assert_allclose(
        found.gradient_norm, [np.linalg.norm(gradient[n]) for n in ("w0", "w1")]
    )


# -------------------------------------------------------------------- smooth in depth


@pytest.mark.quick
def test_increments_by_hand():
    path = np.array([[[0.0, 1.0]], [[0.5, -1.0]], [[0.5, -1.5]]])
    found = bounds.depth_increments(path)
    assert found.largest.values.tolist() == [2.0, 0.5]
    np.testing.assert_allclose(found.norm, [np.hypot(0.5, 2), 0.5])
    assert float(found.lipschitz) == 6
    assert float(found.size) == 2
    total = np.sqrt(0.25 + 4 + 0.25)
    assert float(found.total) == pytest.approx(total)
    assert float(bounds.depth_penalty(jnp.asarray(path))) == pytest.approx(total)
    square = np.broadcast_to(np.eye(2), (3, 2, 2)) * np.array([0, 1, 1])[:, None, None]
    terms = bounds.depth_lipschitz_bound(square, 50, confidence=0.9)
    assert float(terms.smoothness_term) == pytest.approx(4 * 3**0.5 / 50**0.25)
    assert float(terms.size_term) == pytest.approx(np.sqrt(5 * np.log(2 * 4 * 50) / 50))
    assert float(terms.chance_term) == pytest.approx(np.sqrt(np.log(10) / 50))


def test_the_penalty_has_a_gradient_where_weights_are_tied():
    gradient = jax.grad(bounds.depth_penalty)
    assert (gradient(jnp.ones((4, 2, 2))) == 0).all()
    path = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    numeric = [
        (bounds.depth_penalty(path + d) - bounds.depth_penalty(path - d)) / 2e-6
        for d in 1e-6 * np.eye(12).reshape(12, 4, 3)
    ]
    np.testing.assert_allclose(gradient(path).ravel(), numeric, rtol=1e-6)


@pytest.mark.quick
def test_smooth_weights_are_a_gaussian_process():
    """Variance one, and increments of 1/(l L), within 4 standard errors."""
    path = np.asarray(bounds.smooth_weights(jax.random.key(0), 100, (60, 60)))
    assert path.shape == (100, 60, 60)
    for values, known in ((path[[0, 50, 99]], 1), (np.diff(path, axis=0) * 10, 1)):
        squares = (values**2).mean(axis=0).ravel()
        error = squares.std() / np.sqrt(squares.size)
        assert abs(squares.mean() - known) < 4 * error + 1e-4 * known
    near = (path[0] * path[10]).mean()
    assert near == pytest.approx(np.exp(-0.5), abs=4 / 60)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m: bounds.layer_norms(3, X), "model must be"),
        (lambda m: bounds.layer_norms(m, X * np.inf), "x holds"),
        (
            lambda m: bounds.layer_norms(m, X, reference=(residual, RESIDUAL)),
            "reference must be a model of the same layers",
        ),
        (
            lambda m: bounds.layer_norms((lambda p, x: x + p["b"], {"b": X[:1]}), X),
            "multiplies its inputs by no weight",
        ),
        (lambda m: bounds.margins(m, X, np.zeros(5)), "y has shape"),
        (lambda m: bounds.margins(m, X, np.full(6, 7)), "classes 0 to 2"),
        (lambda m: bounds.margins(m, X, np.full(6, 0.5)), "classes 0 to 2"),
        (lambda m: bounds.margin_bound(m, X, np.zeros(6), margin=0), "margin must be"),
        (
            lambda m: bounds.margin_bound(m, X, np.zeros(6), margin=1, confidence=1),
            "confidence must be below 1",
        ),
        (lambda m: bounds.depth_increments(np.ones((1, 2))), "at least two blocks"),
        (lambda m: bounds.depth_increments(np.array(["a"])), "weights"),
        (lambda m: bounds.depth_lipschitz_bound(np.ones((3, 2, 2)), 0), "rows"),
        (
            lambda m: bounds.smooth_weights(jax.random.key(0), 3, (2,), length_scale=0),
            "length_scale",
        ),
    ],
)
def test_bad_arguments_are_named(as_users_run_it, call, text):
    with pytest.raises(ValueError, match=text):
        call((chain, CHAIN))
