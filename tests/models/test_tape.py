"""Runs of any model, operation by operation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from foreign_models import FOREIGN, outputs_of

from ntk_resnet.finite import build
from ntk_resnet.models.functions import as_function
from ntk_resnet.models.tape import gradients_at, record
from ntk_resnet.specification.networks import ResNet

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", FOREIGN)
def test_the_run_is_the_model(name):
    model, x = FOREIGN[name]()
    tape = record(model, x)
    np.testing.assert_allclose(tape.output.value, outputs_of(model, x), atol=3e-6)
    made = {tape.input}
    for operation in tape.operations:
        assert operation.varying
        assert set(operation.varying) <= made, "in the order of the run"
        made.update(operation.outputs)
        values = operation.at([node.value for node in operation.inputs])
        for node, value in zip(operation.outputs, values, strict=True):
            np.testing.assert_array_equal(node.value, value)


def test_weights_are_known_by_name_and_place():
    model, x = FOREIGN["scan"]()
    tape = record(model, x)
    names = [
        tape.weight_name(node)
        for operation in tape.operations
        if operation.name == "dot_general"
        for node in operation.inputs
        if not node.varies
    ]
    blocks = [f"blocks.dense{k}.kernel[{b}]" for b in range(3) for k in (1, 2)]
    assert names == ["embed.kernel", *blocks, "head.kernel"]


def test_loops_run_forwards_and_backwards():
    def both(params, x):
        def step(h, w):
            return jnp.tanh(h @ w), h.sum()

        h, sums = jax.lax.scan(step, x, params["w"])
        h, more = jax.lax.scan(step, h, params["w"], reverse=True)
        return h + sums[0] - 2 * more[1] + sums[2]

    w = np.random.default_rng(0).normal(size=(3, 4, 4))
    model, x = (both, {"w": w}), np.random.default_rng(1).normal(size=(2, 4))
    np.testing.assert_allclose(record(model, x).output.value, both({"w": w}, x))


@pytest.mark.parametrize("name", ["ours", "scan"])
def test_gradients_at_places(name):
    """Against differences of outputs, a place at a time."""
    if name == "ours":
        spec = ResNet(depth=2, branch_scale=0.5, activation="erf")
        model = build(spec, 4, 6, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
        x = np.random.default_rng(0).normal(size=(3, 4))
        step, tolerance = 1e-5, 1e-9
    else:
        model, x = FOREIGN[name]()
        step, tolerance = 1e-2, 3e-3
    tape = record(model, x)
    places = [i for i, op in enumerate(tape.operations) if op.name == "dot_general"][:3]
    rng = np.random.default_rng(1)
    cotangent = rng.normal(size=tape.output.value.shape)
    for place, gradient in zip(
        places, gradients_at(tape, places, cotangent), strict=True
    ):
        v = rng.normal(size=gradient.shape).astype(gradient.dtype)

        def moved(t, place=place, v=v):
            change = {place: lambda value, _: value + t * v}
            outputs = tape.again(change).output.value
            return np.sum(cotangent * np.asarray(outputs, float))

        want = (moved(step) - moved(-step)) / (2 * step)
        assert np.sum(np.asarray(gradient) * v) == pytest.approx(want, rel=tolerance)


def test_models_with_several_outputs_are_refused():
    pair = lambda p, x: (x @ p["w"], x)  # noqa: E731
    with pytest.raises(ValueError, match="must return one array"):
        record((pair, {"w": np.ones((2, 2))}), np.ones((1, 2)))


def test_what_is_trained_is_what_flax_says():
    """Batch statistics of linen and frozen weights of ours are fixed."""
    model, x = FOREIGN["linen"]()
    *_, rest = as_function(model, x)
    assert "batch_stats" in rest
    spec = ResNet(depth=2, branch_scale=0.5)
    tape = record(build(spec, 5, 4, rngs=nnx.Rngs(0)), np.ones((1, 5)))
    weights = [
        tape.weight_name(node)
        for operation in tape.operations
        if operation.name == "dot_general"
        for node in operation.inputs
        if not node.varies
    ]
    assert weights[0] == weights[-1] == "constant"
    assert all("[" in name for name in weights[1:-1])
