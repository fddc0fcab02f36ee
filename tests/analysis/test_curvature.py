"""Hessians and Gauss-Newton matrices, of networks that are ours and others'."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from foreign_models import FOREIGN
from jax.flatten_util import ravel_pytree

from ntk_resnet.analysis import curvature
from ntk_resnet.finite import empirical_ntk
from ntk_resnet.models.functions import as_function

X = np.random.default_rng(0).normal(size=(10, 4))
Y = np.random.default_rng(1).normal(size=(10, 3))
LABELS = np.arange(10) % 3


class Net(nnx.Module):
    def __init__(self, rngs, dtype=jnp.float64):
        self.first = nnx.Linear(4, 6, rngs=rngs, param_dtype=dtype, dtype=dtype)
        self.last = nnx.Linear(6, 3, rngs=rngs, param_dtype=dtype, dtype=dtype)

    def __call__(self, x):
        return self.last(jnp.tanh(self.first(x)))


def dense_hessian(model, x, loss):
    """By `jax.hessian`, in the order of the weights."""
    apply, params, rest = as_function(model, x)
    weights, unravel = ravel_pytree(params)
    return jax.hessian(lambda w: loss(apply(unravel(w), rest, x)))(weights)


@pytest.mark.quick
@pytest.mark.parametrize("batch_rows", [None, 3])
def test_the_hessian_is_that_of_jax(batch_rows):
    model = Net(nnx.Rngs(0))
    matrix = curvature.hessian(model, X, Y, batch_rows=batch_rows)
    want = dense_hessian(model, X, lambda f: jnp.mean((f - Y) ** 2) / 2)
    np.testing.assert_allclose(matrix.dense(), want, atol=1e-10)
    v = np.random.default_rng(2).normal(size=(matrix.shape[0], 2))
    np.testing.assert_allclose(matrix @ v, want @ v, atol=1e-10)
    np.testing.assert_allclose(
        jax.jit(lambda m, v: m @ v)(matrix, v[:, 0]), want @ v[:, 0], atol=1e-10
    )


def test_losses_by_name_and_of_optax_are_one():
    model = Net(nnx.Rngs(0))
    loss = optax.softmax_cross_entropy_with_integer_labels
    want = dense_hessian(model, X, lambda f: jnp.mean(loss(f, LABELS)))
    for given in (
        curvature.hessian(model, X, LABELS, loss),
        curvature.hessian(model, X, np.eye(3)[LABELS], "softmax"),
    ):
        np.testing.assert_allclose(given.dense(), want, atol=1e-10)


@pytest.mark.quick
@pytest.mark.parametrize("loss", ["mse", "softmax"])
def test_gauss_newton_is_jacobian_curvature_jacobian(loss):
    model, targets = Net(nnx.Rngs(0)), np.eye(3)[LABELS]
    matrix = curvature.gauss_newton(model, X, targets, loss, batch_rows=4).dense()
    apply, params, rest = as_function(model)
    weights, unravel = ravel_pytree(params)
    outputs = lambda w: apply(unravel(w), rest, X)  # noqa: E731
    jacobian = jax.jacobian(outputs)(weights).reshape(30, -1)
    if loss == "mse":
        inner = np.eye(30) / 30
        ntk = np.asarray(empirical_ntk(model, X)).transpose(0, 2, 1, 3).reshape(30, 30)
        own, kernel = np.linalg.eigvalsh(matrix)[-30:], np.linalg.eigvalsh(ntk) / 30
        np.testing.assert_allclose(own, kernel, atol=1e-12)
    else:
        share = np.asarray(jax.nn.softmax(outputs(weights)))
        inner = np.zeros((10, 3, 10, 3))
        for i, p in enumerate(share):
            inner[i, :, i] = (np.diag(p) - np.outer(p, p)) / 10
        inner = inner.reshape(30, 30)
    np.testing.assert_allclose(matrix, jacobian.T @ inner @ jacobian, atol=1e-10)


def unrolled(params, x):
    """`ScannedNet` written out, of the same weights."""
    dense = lambda p, x: x @ p["kernel"] + p["bias"]  # noqa: E731
    x = dense(params["embed"], x)
    for step in range(3):
        block = jax.tree.map(lambda leaf: leaf[step], params["blocks"])  # noqa: B023
        x = x + dense(block["dense2"], nnx.gelu(dense(block["dense1"], x)))
    return dense(params["head"], x)


@pytest.mark.quick
@pytest.mark.parametrize("name", FOREIGN)
def test_models_of_others(name):
    model, x = FOREIGN[name]()
    targets = np.eye(3)[np.arange(len(x)) % 3]
    double = lambda tree: jax.tree.map(lambda a: np.asarray(a, float), tree)  # noqa: E731
    if name == "linen":
        model, x = (model[0], double(model[1])), double(x)
    matrix = curvature.hessian(model, x, targets, "softmax")
    apply, params, rest = as_function(model, x)
    given = lambda params: apply(params, rest, x)  # noqa: E731
    if name == "scan":
        params = nnx.to_pure_dict(params)
        given = lambda params: unrolled(params, x)  # noqa: E731
    weights, unravel = ravel_pytree(params)

    def loss(w):
        logs = jax.nn.log_softmax(given(unravel(w)))
        return -jnp.mean(jnp.sum(targets * logs, axis=1))

    v = np.random.default_rng(0).normal(size=len(weights))
    with jax.default_matmul_precision("highest"):
        want = jax.jvp(jax.grad(loss), (weights,), (v.astype(weights.dtype),))[1]
    tolerance = 1e-12 if name == "linen" else 1e-5  # float64, float32
    np.testing.assert_allclose(
        matrix(v), want, atol=tolerance * float(jnp.abs(want).max())
    )


@pytest.mark.quick
def test_the_spectrum_is_that_of_the_matrix():
    """Ends exactly where all steps are taken; sums within 4 standard errors."""
    matrix = curvature.hessian(Net(nnx.Rngs(0)), X, Y)
    values = np.linalg.eigvalsh(matrix.dense())
    every = curvature.spectrum(matrix, steps=1000, probes=2, top=4)
    np.testing.assert_allclose(every.largest, values[:-5:-1], atol=1e-12)
    np.testing.assert_allclose(every.smallest, values[:4], atol=1e-12)
    np.testing.assert_allclose(every.node[0], values, atol=1e-9)
    some = curvature.spectrum(matrix, steps=20, probes=40, top=2)
    assert (np.abs(some.largest - values[:-3:-1]) <= some.largest_error + 1e-12).all()
    sums = {
        "trace": values.sum(),
        "frobenius_norm": np.linalg.norm(values),
        "negative_share": (values < -float(some.error_bound)).mean(),
    }
    for name, want in sums.items():
        assert abs(some[name] - want) < 4 * some[f"{name}_error"], name
    np.testing.assert_allclose(some.weight.sum("step"), 1)


def test_a_matrix_of_zeros_has_a_spectrum():
    flat = lambda params, x: params["w"] + 0 * x[:, 0]  # noqa: E731
    matrix = curvature.gauss_newton((flat, {"w": jnp.zeros(5)[:1]}), X, Y[:, 0])
    assert matrix.dense() == pytest.approx(np.ones((1, 1)))
    linear = curvature.hessian(
        (flat, {"w": jnp.zeros(1)}), X, Y[:, 0], lambda f, y: jnp.mean(f * y)
    )
    found = curvature.spectrum(linear, steps=5, probes=2)
    assert found.largest.item() == found.trace.item() == 0
    assert float(found.negative_share) == 0
    low_rank = curvature.gauss_newton(Net(nnx.Rngs(0)), X[:1], Y[:1])  # rank 3 of 51
    found = curvature.spectrum(low_rank, steps=20, probes=2)
    values = np.linalg.eigvalsh(low_rank.dense())
    np.testing.assert_allclose(found.largest[:3], values[:-4:-1], rtol=1e-10)


@pytest.mark.slow
def test_a_million_weights():
    """Where a dense matrix would take four terabytes."""
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.Linear(64, 960, rngs=rngs), jnp.tanh, nnx.Linear(960, 960, rngs=rngs),
        jnp.tanh, nnx.Linear(960, 1, rngs=rngs),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 64)).astype(np.float32)
    matrix = curvature.gauss_newton(model, x, x[:, 0])
    assert matrix.shape[0] > 980_000
    found = curvature.spectrum(matrix, steps=70, probes=2, top=1)
    ntk = np.asarray(empirical_ntk(model, x, outputs="trace"), float)
    largest = np.linalg.eigvalsh(ntk)[-1] / 64
    assert found.largest.item() == pytest.approx(largest, rel=1e-4)
    assert float(found.trace) == pytest.approx(
        np.trace(ntk) / 64, abs=4 * float(found.trace_error)
    )


@jax.custom_vjp
def one_way(x):
    return x


one_way.defvjp(lambda x: (x, None), lambda _, g: (g,))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model": 3}, "model must be an nnx module"),
        ({"x": np.full((10, 4), np.nan)}, "x holds nan"),
        ({"y": Y[:4]}, "y has shape"),
        ({"y": Y[:, :2]}, "y must have one row of targets"),
        ({"loss": "huber"}, "loss must be one of"),
        ({"loss": lambda f, y: "no"}, "loss must"),
        ({"loss": "logistic"}, "y must hold -1 and 1"),
        ({"batch_rows": 0}, "batch_rows must be at least 1"),
    ],
)
def test_bad_arguments_are_named(as_users_run_it, changes, text):
    good = {"model": Net(nnx.Rngs(0)), "x": X, "y": Y}
    with pytest.raises(ValueError, match=text):
        curvature.hessian(**good | changes)


def test_models_without_forward_derivatives():
    """The Hessian needs none of the model, whose gradient is taken first."""
    model = (lambda p, x: one_way(x @ p["w"]), {"w": jnp.ones((4, 3))})
    inner = np.kron(X.T @ X, np.eye(3)) / 30
    np.testing.assert_allclose(curvature.hessian(model, X, Y).dense(), inner)
    with pytest.raises(ValueError, match="no forward derivatives"):
        curvature.gauss_newton(model, X, Y)


def test_bad_matrices_are_named(as_users_run_it):
    matrix = curvature.hessian(Net(nnx.Rngs(0)), X, Y)
    with pytest.raises(ValueError, match=r"v has shape \(3,\)"):
        matrix(np.ones(3))
    with pytest.raises(ValueError, match=r"nr\.curvature\.hessian"):
        curvature.spectrum(np.eye(3))
    with pytest.raises(ValueError, match="probes must be at least 2"):
        curvature.spectrum(matrix, probes=1)
    beyond = curvature.hessian(
        (lambda p, x: p["w"] / 0 * x[:, 0], {"w": jnp.ones(1)}), X, Y[:, 0]
    )
    with pytest.raises(ValueError, match="not finite"):
        curvature.spectrum(beyond)
    with pytest.raises(ValueError, match="no finite number"):
        beyond.dense()
