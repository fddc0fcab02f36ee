"""Laws of calling a kernel: engines, transformations, precisions, compilation."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import slow_but_for
from specifications import ROWS, SPECS, inputs, is_cheap, is_typical

import ntk_resnet as nr

EPS = np.finfo(float).eps
BOTH = ("nngp", "ntk")


def cheap(names):
    return pytest.mark.parametrize("name", slow_but_for(names, is_cheap))


def typical(names):
    quick = lambda name: is_typical(name) or name == "plain_erf_bias"  # noqa: E731
    return pytest.mark.parametrize("name", slow_but_for(names, quick))


def few(names):
    quick = ("plain", "plain_erf_bias", "two_layer_constant")
    return pytest.mark.parametrize("name", slow_but_for(names, quick))


def pair(name, n=5):
    return inputs(name, n), inputs(name, n, seed=1)


# ----------------------------------------------------------------------------- engines


def of_one_norm(x):
    size = np.linalg.norm(x.reshape(len(x), -1), axis=1)
    return 1.2 * x / size.reshape(-1, *[1] * (x.ndim - 1))


def agrees(spec, engine, x1, x2, tolerance=1e-12):
    """Raw kernels, relative to the diagonals, to the accuracy stated for them."""
    ours, other = (
        nr.kernel_fn(spec, engine=e, normalised=False)(x1, x2, BOTH)
        for e in ("auto", engine)
    )
    tolerance = 1e-10 if spec.takes_images else tolerance
    for get, found, wanted in zip(BOTH, other, ours, strict=True):
        largest = np.max(nr.diag(spec, x1, get))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * largest)


@typical(ROWS)
def test_our_engines_agree(name):
    """The one that is not chosen: profiles serve any network at one norm."""
    engine = "recursion" if SPECS[name].homogeneous else "profile"
    x = of_one_norm(inputs(name))
    agrees(SPECS[name], engine, x[:4], x[1:])


def has_a_reference(name):
    """neural-tangents adds branches without a mean only, and has few digits of tanh."""
    return getattr(SPECS[name], "block", "") != "postactivation" and "tanh" not in name


@cheap(filter(has_a_reference, SPECS))
def test_neural_tangents_agrees(name):
    """Between distinct inputs: of equal ones it has half the digits."""
    x = of_one_norm(inputs(name))
    agrees(SPECS[name], "neural_tangents", x[:2], x[2:])


@typical(filter(has_a_reference, ROWS))
def test_neural_tangents_agrees_at_depth_64(name):
    """It subtracts cosines that are nearly 1: of `plain_relu_bias` 50 digits give it an
    error of 1.6e-12, and ours one of 2e-16."""
    spec = SPECS[name].replace(depth=64)
    if isinstance(spec, nr.ResNet):  # as large as before
        spec = spec.replace(branch_scale=nr.DepthScale(0.5))
    x = of_one_norm(inputs(name))
    agrees(spec, "neural_tangents", x[:2], x[2:], tolerance=1e-11)


# ------------------------------------------------------------------ rows of a matrix


@few(SPECS)
def test_one_input_has_the_row_of_many(name):
    x, y = pair(name)
    kernel = nr.kernel_fn(SPECS[name])
    whole = np.asarray(kernel(x, y))
    np.testing.assert_allclose(kernel(x[:1], y), whole[:1], atol=16 * EPS)
    np.testing.assert_allclose(kernel(x, y[:1]), whole[:, :1], atol=16 * EPS)
    np.testing.assert_allclose(kernel(y, x), whole.T, atol=16 * EPS)


@pytest.mark.quick
@few(SPECS)
def test_vmap_is_a_loop(name):
    x, y = pair(name)
    kernel = nr.kernel_fn(SPECS[name])
    rows = jax.vmap(lambda one: kernel(one[None], y)[0])(x)
    np.testing.assert_allclose(rows, kernel(x, y), atol=16 * EPS)


@pytest.mark.quick
@few(SPECS)
def test_jit_changes_nothing(name):
    """But the roundings: XLA fuses what is called in pieces otherwise."""
    x, y = pair(name)
    kernel = nr.kernel_fn(SPECS[name])
    for arrays in ((x,), (x, y)):
        traced = jax.jit(lambda *arrays: kernel(*arrays, get=BOTH))(*arrays)
        for found, wanted in zip(traced, kernel(*arrays, get=BOTH), strict=True):
            np.testing.assert_allclose(found, wanted, atol=16 * EPS)
            if len(arrays) == 1:
                assert (np.diag(found) == 1).all()
                assert (found == found.T).all()


# --------------------------------------------------------------------------- precision


@cheap(SPECS)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_single_precision_within_its_stated_error(name, seed):
    spec, x = SPECS[name], inputs(name, seed=seed).astype(np.float32)
    kernel = nr.kernel_fn(spec)
    stated = 1e-5 if spec.takes_images else 2e-5
    double = kernel(x.astype(float), get=BOTH)
    for found, wanted in zip(kernel(x, get=BOTH), double, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=stated)


# ------------------------------------------------------------------------- compilation


@pytest.fixture
def compiled():
    """What XLA has compiled since: names of JAX's events."""
    events = []

    def listen(event, *_, **__):
        if event.endswith("backend_compile_duration"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def test_compilation_is_seen(compiled):
    jax.jit(lambda x: np.pi * x - 3)(np.ones(3))
    assert compiled


@cheap(SPECS)
def test_a_second_call_compiles_nothing(name, compiled):
    """Of other inputs, by a kernel function that equals the first."""
    first, second = SPECS[name], nr.from_json(nr.to_json(SPECS[name]))
    for spec, x in zip((first, second), pair(name), strict=True):
        compiled.clear()
        for normalised in (True, False):
            nr.kernel_fn(spec, normalised=normalised)(x, get=BOTH)
    assert not compiled
