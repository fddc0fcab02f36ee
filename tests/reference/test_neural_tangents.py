"""neural-tangents 0.6.5 on today's JAX: values of its native home, and no trace in jax.

The tables come from `native/make_tables.py`: the same calls on JAX 0.5.3.
"""

import functools
import importlib.metadata
import os
import subprocess
import sys
import textwrap
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from native import cases
from native.compare import ARRAYS, CALLS, NATIVE, TABLES, cancels, deviation, values

from ntk_resnet import neural_tangents as nt
from ntk_resnet.analysis.regression import gradient_flow
from ntk_resnet.reference import neural_tangents

pytestmark = [
    pytest.mark.quick,
    # Advice of neural-tangents' own, given in every such call, also natively.
    pytest.mark.filterwarnings("ignore:`FanIn` layers assume:UserWarning"),
    pytest.mark.filterwarnings("ignore:Linear scaling attention:UserWarning"),
    pytest.mark.filterwarnings("ignore:Numerical Activation Layer:UserWarning"),
    pytest.mark.filterwarnings("ignore:Using JAX autodiff:UserWarning"),
    # Structured derivatives of a loop: computed, without the shortcut of a rule.
    pytest.mark.filterwarnings("ignore:No Jacobian rule found for slice:UserWarning"),
]

# `make test` runs the cheap compiled calls and one eager call of each kind.
SLOW_COMPILED = {
    "closed_dense-abs",  # whose small entries XLA's older kernels round otherwise
    "closed_convolution-average",
    "gradient_descent-0.9",
    "linearize-convolution",
    "monte_carlo",
    "monte_carlo_batched",
    "empirical_ntk-dense-0",
    "empirical_ntk-dense-1-full",
    "empirical_ntk-dense-1-vmap",
    "empirical_ntk-dense-2",
    "empirical_ntk-dense-3-diagonal",
    "empirical_ntk-dense-3-full",
    "empirical_ntk-dense-3-vmap",
    "empirical_ntk-convolution-0",
    "empirical_ntk-convolution-2",
    "empirical_ntk-residual-0",
    "empirical_ntk-residual-2",
}
FAST_EAGER = {
    "closed_dense-relu",
    "batched-0",
    "gp_inference",
    "max_learning_rate",
    "monte_carlo",
    "empirical_ntk-dense-3",
}


def modes():
    for name in CALLS:
        for mode in ("eager", "jit"):
            slow = name in SLOW_COMPILED if mode == "jit" else name not in FAST_EAGER
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(name, mode, marks=marks, id=f"{name}-{mode}")


@pytest.mark.parametrize(("name", "mode"), list(modes()))
def test_values_of_the_native_home(name, mode):
    for place, (found, native) in values(name, mode).items():
        assert found.dtype == np.float64
        assert found.shape == native.shape
        # What cancels is rounded otherwise when compiled; natively, too, by up to 5e-9.
        limit = 1e-8 if cancels(name, place) else 1e-12
        assert deviation(found, native) <= limit, place


def test_there_is_a_table_for_every_call():
    tables = {name.split("/")[0] for name in TABLES} - {"arrays"}
    assert tables == set(cases.CASES) == set(NATIVE.values())


class ConvolutionalNetwork(linen.Module):
    """A network from elsewhere: strides, max-pooling, normalisation, a loop."""

    @linen.compact
    def __call__(self, x):
        dense = functools.partial(linen.Dense, param_dtype=x.dtype)
        conv = functools.partial(linen.Conv, 3, (2, 2), param_dtype=x.dtype)
        h = linen.gelu(conv(strides=(2, 2))(x), approximate=False)
        h = linen.max_pool(conv()(h), (2, 2), padding="SAME").reshape(x.shape[0], -1)
        h = linen.LayerNorm(param_dtype=x.dtype)(dense(4)(h))
        shift = self.param("shift", linen.initializers.normal(), (3, 4), x.dtype)
        h, _ = jax.lax.scan(lambda h, s: (jnp.tanh(h + s), None), h, shift)
        return dense(2)(h)


def test_structured_derivatives_of_a_flax_network():
    x = jnp.asarray(ARRAYS["image1"])
    model = ConvolutionalNetwork()
    params = model.init(jax.random.PRNGKey(0), x)
    first, third = (
        jax.jit(nt.empirical_ntk_fn(model.apply, implementation=i))(x, None, params)
        for i in (1, 3)
    )
    assert third.shape == (3, 3)
    np.testing.assert_allclose(third, first, rtol=1e-12)


def test_the_automatic_choice_takes_the_least_work(capsys):
    def apply_fn(params, x):
        return x @ params

    x = jnp.asarray(ARRAYS["x1"])
    params = jnp.asarray(ARRAYS["normal"][:60].reshape(6, 10))
    ntk = nt.empirical_ntk_fn(apply_fn, trace_axes=(), implementation=0)(x, x, params)
    np.testing.assert_allclose(
        ntk, np.einsum("ia,ja,kl->ijkl", x, x, np.eye(10)), rtol=1e-12, atol=1e-14
    )
    lines = capsys.readouterr().out.splitlines()  # printed by neural-tangents
    flops = [float(line.split("flops=")[1]) for line in lines]
    assert len(flops) == 3
    assert 0 < min(flops) < max(flops)


# ----------------------------------------------------------------- predictors under jit


def gaussian_process():
    x, y = jnp.asarray(ARRAYS["x1"]), jnp.asarray(ARRAYS["y1"])
    kernel_fn = jax.jit(cases.residual(nt, "smooth")[2], static_argnums=2)
    return kernel_fn, x, y


@pytest.mark.parametrize("t", [None, 0.5])
def test_a_predictor_first_called_under_jit_keeps_no_tracer(t):
    kernel_fn, x, y = gaussian_process()
    predict_fn = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x, y)
    predict = functools.partial(predict_fn, t, get="ntk")
    other = jnp.asarray(ARRAYS["x2"])
    compiled = jax.jit(lambda x: predict(x_test=x))
    again = compiled(other), compiled(other[:1])  # another shape: traced again
    expected = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x, y)(
        t, other, "ntk"
    )
    for found in (*again, predict(x_test=other)):
        np.testing.assert_allclose(found, expected[: len(found)], rtol=1e-12)


def test_a_traced_training_kernel_in_a_loop():
    kernel_fn, x, y = gaussian_process()
    kernel = kernel_fn(x, None, "ntk")

    def loop(kernel):
        predict_fn = nt.predict.gradient_descent_mse(kernel, y)
        return jax.lax.map(predict_fn, jnp.array([0.5, 2.0])), predict_fn(0.5)

    inside, outside = jax.jit(loop)(kernel)
    predict_fn = nt.predict.gradient_descent_mse(kernel, y)
    expected = predict_fn(jnp.array([0.5, 2.0]))
    np.testing.assert_allclose(inside, expected, rtol=1e-12)
    np.testing.assert_allclose(outside, expected[0], rtol=1e-12)


def test_derivative_with_respect_to_the_ridge():
    kernel_fn, x, y = gaussian_process()
    k_dd, k_td = kernel_fn(x, None, "ntk"), kernel_fn(x[:2] + 0.1, x, "ntk")

    def predict(ridge):
        predict_fn = nt.predict.gradient_descent_mse(k_dd, y, diag_reg=ridge)
        return jnp.sum(predict_fn(None, 0.0, 0.0, k_td)[1])

    step = 1e-5
    difference = (predict(0.1 + step) - predict(0.1 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(predict)(0.1), difference, rtol=1e-7)


def test_float64_without_x64_is_told_once_with_what_to_write():
    """And what is written then gives float64's digits."""
    kernel_fn, x, y = gaussian_process()
    data = [np.asarray(v) for v in (kernel_fn(x, None, "ntk"), y)]
    new = np.asarray(kernel_fn(x[:2] + 0.1, x, "ntk"))

    def mean(k_dd, y, k_td):
        predict_fn = nt.predict.gradient_descent_mse(k_dd, y)
        return np.asarray(predict_fn(3.0, 0.0, 0.0, k_td)[1])

    neural_tangents._tell_of_precision.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = mean(*data, new)
        with jax.enable_x64(False):
            mean(*(v.astype(np.float32) for v in (*data, new)))
    with warnings.catch_warnings(record=True) as said, jax.enable_x64(False):
        warnings.simplefilter("always")
        for _ in range(2):
            narrow = mean(*data, new)
    texts = [str(one.message) for one in said if "nt.predict" in str(one.message)]
    assert len(texts) == 1
    assert 'jax.config.update("jax_enable_x64", True)' in texts[0]
    assert narrow.dtype == np.float32
    flow = gradient_flow(data[0], new, data[1], [3.0]).test[0]
    np.testing.assert_allclose(right, flow, rtol=1e-10)


def test_names_below_the_bridge_are_its_own():
    out = run_python("""
        from ntk_resnet.neural_tangents import stax
        from ntk_resnet.neural_tangents.predict import gp_inference
        import ntk_resnet as nr
        import ntk_resnet.neural_tangents as nt
        import neural_tangents
        assert nr.neural_tangents is nt is neural_tangents
        assert stax is nt.stax and gp_inference is nt.predict.gp_inference
        print("one module")
    """)
    assert out.endswith("one module")


# ------------------------------------------------------------------ what is not touched


def run_python(code: str) -> str:
    """A fresh interpreter in which a warning is an error; its last word."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_jax_is_not_written_to():
    out = run_python("""
        import builtins, sys
        import jax
        # What neural-tangents imports of JAX, as anybody's own import would.
        import jax.example_libraries.stax, jax.experimental.ode, jax.image, jax.ops
        import jax.extend.core, jax.extend.linear_util, jax.interpreters.ad
        import jax.scipy.linalg, jax.scipy.special
        import ntk_resnet

        OWN = "neural_tangents."
        kept = []  # whatever was seen stays alive, so that no id is given twice

        def contents(value):
            if type(value) is dict:
                # The public register_pytree_node notes neural-tangents' own classes.
                entries = [
                    item for pair in value.items() for item in pair
                    if not getattr(pair[0], "__module__", "").startswith(OWN)
                ]
            elif type(value) in (list, set):
                entries = list(value)
            else:
                return id(value)
            kept.append(entries)
            return id(value), list(map(id, entries))

        def snapshot():
            modules = {
                name: module for name, module in sys.modules.items()
                if name.partition(".")[0] in ("jax", "jaxlib", "builtins")
            }
            kept.extend(dict(vars(module)) for module in modules.values())
            state = {
                (name, key): contents(value)
                for name, module in modules.items()
                for key, value in vars(module).items()
            }
            return state | {name: id(module) for name, module in modules.items()}

        before, during = snapshot(), []

        def watch(event, args):
            # Raised by Python when a module is looked for, and when its code begins.
            if event == "exec":
                name = args[0].co_filename
            elif event == "import":
                name = args[0]
            if event in ("exec", "import") and "neural_tangents" in name:
                during.append((name, snapshot() == before))

        path = list(sys.meta_path)
        sys.addaudithook(watch)
        from ntk_resnet import neural_tangents as nt
        loaded = {name for name in sys.modules if name.startswith("neural_tangents.")}
        seen = {name for name, _ in during} | {"neural_tangents.experimental"}
        assert len(loaded) > 15 and loaded <= seen
        assert all(same for _, same in during), [n for n, same in during if not same]
        after = snapshot()
        assert after == before, [key for key in after if after[key] != before.get(key)]
        assert sys.meta_path == path
        assert builtins.__import__ is __import__

        import neural_tangents
        from neural_tangents import stax
        assert neural_tangents is nt and stax is nt.stax
        unwanted = {"tensorflow", "tf2jax", "jax.experimental.jax2tf"}
        assert not unwanted & set(sys.modules)

        # Would it notice? A written attribute, and an entry in one of JAX's tables.
        jax.core.written = None
        assert snapshot() != before
        del jax.core.written
        assert snapshot() == before
        jax.interpreters.ad.primitive_jvps["written"] = None
        assert snapshot() != before
        print("as it was")
    """)
    assert out.endswith("as it was")


def test_threads_and_a_failed_import_before():
    out = run_python("""
        import sys, threading
        try:
            import neural_tangents
        except (ImportError, AttributeError):
            pass
        else:
            raise AssertionError("imports natively: this JAX needs no repair")

        found = []

        def load():
            from ntk_resnet import neural_tangents
            found.append(neural_tangents)

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        import neural_tangents
        assert len(found) == 8 and all(nt is neural_tangents for nt in found)
        assert neural_tangents.__version__ == "0.6.5"
        del sys.modules["ntk_resnet.reference.neural_tangents"]
        from ntk_resnet.reference.neural_tangents import neural_tangents as again
        assert again is neural_tangents
        print("one module")
    """)
    assert out.endswith("one module")


def test_the_views_are_read_only():
    from neural_tangents._src import empirical

    assert empirical.core.Jaxpr is jax.extend.core.Jaxpr
    assert not hasattr(jax.core, "Jaxpr")
    for view in (empirical.jax, empirical.core, empirical.jnp):
        with pytest.raises(AttributeError, match=f"{view.__name__} is read-only here"):
            view.written = 1
        with pytest.raises(AttributeError, match=f"{view.__name__} is read-only here"):
            del view.jit


def test_the_tensorflow_bridge_says_that_it_is_not_there():
    assert not hasattr(nt.experimental, "__path__")
    with pytest.raises(AttributeError, match="without its TensorFlow bridge"):
        nt.experimental.empirical_ntk_fn_tf  # noqa: B018


def missing(name):
    raise importlib.metadata.PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (missing, "neural-tangents is not installed; run `pip install"),
        (
            lambda name: "0.6.4",
            r"needs neural-tangents 0\.6\.5, found 0\.6\.4; run `pip",
        ),
    ],
)
def test_a_missing_or_other_release_is_an_import_error(monkeypatch, version, text):
    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ImportError, match=text) as raised:
        neural_tangents._import_neural_tangents()
    assert "\n" not in str(raised.value)


def test_an_import_by_other_means_is_an_import_error(monkeypatch):
    foreign = types.ModuleType("neural_tangents")
    foreign.__spec__ = importlib.machinery.ModuleSpec("neural_tangents", loader=None)
    monkeypatch.setitem(sys.modules, "neural_tangents", foreign)
    with pytest.raises(ImportError, match="in front of that import"):
        neural_tangents._import_neural_tangents()
