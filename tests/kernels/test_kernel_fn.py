"""The kernel function: gradients, ranges, what comes back, bad input."""

import itertools
import pickle

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import slow_but_for
from specifications import ROWS, SPECS

import ntk_resnet as nr
from ntk_resnet.kernels import recursion

EPS = np.finfo(float).eps
RNG = np.random.default_rng(0)
X1 = RNG.normal(size=(5, 4)) * np.array([0.5, 1, 2, 1.3, 0.9])[:, None]
X2 = RNG.normal(size=(5, 4))  # as many rows: one compilation for all pairs

PLAIN = nr.FeedForward(depth=4)


def directional(function, x, along):
    """Derivative by central differences, exact to about 1e-9 relative."""
    step = 1e-5
    return (function(x + step * along) - function(x - step * along)) / (2 * step)


@pytest.mark.parametrize(
    ("name", "normalised"),
    slow_but_for(itertools.product(ROWS, (False, True)), [("plain", False)]),
)
def test_gradients(name, normalised):
    kernel = nr.kernel_fn(SPECS[name], normalised=normalised)
    rng = np.random.default_rng(1)
    weights, pair_weights = rng.normal(size=(2, 5, 5))
    along = jnp.asarray(rng.normal(size=X1.shape))
    for function in (
        lambda x: jnp.sum(kernel(x) * weights),
        lambda x: jnp.sum(kernel(x, X2) * pair_weights),
        lambda x: jnp.sum(kernel(X2, x, "nngp") * pair_weights.T),
    ):
        x = jnp.asarray(X1)
        gradient = jax.grad(function)(x)
        assert np.isfinite(gradient).all()
        want = directional(function, x, along)
        scale = float(jnp.linalg.norm(gradient) * jnp.linalg.norm(along)) + 1
        assert abs(float(jnp.sum(gradient * along) - want)) <= 1e-7 * scale


@pytest.mark.parametrize(
    "name",
    slow_but_for(
        [name for name in ROWS if isinstance(SPECS[name], nr.ResNet)],
        ["two_layer_constant", "postactivation_erf_bias"],
    ),
)
def test_gradients_with_respect_to_the_scales(name):
    spec = SPECS[name].replace(depth=3)
    kernel = nr.kernel_fn(spec, engine="recursion", normalised=False)
    scales = jnp.array([0.3, 0.7, 0.5])
    along = jnp.array([0.2, -1.0, 0.4])
    function = lambda s: jnp.sum(kernel(X1, scales=s) ** 2)  # noqa: E731
    gradient = jax.grad(function)(scales)
    want = directional(function, scales, along)
    assert abs(float(gradient @ along - want)) <= 1e-7 * abs(float(want))
    np.testing.assert_allclose(kernel(X1, scales=spec.scales), kernel(X1), rtol=4 * EPS)


def test_gradient_at_coincident_inputs_is_finite():
    kernel = nr.kernel_fn(nr.FeedForward(depth=3))
    x = jnp.asarray(X1)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(kernel(x, X1)))(x)).all()
    # Normalised and with itself, the diagonal is the constant 1.
    own = jax.grad(lambda x: jnp.trace(kernel(x)))(x)
    assert np.abs(own).max() <= 64 * EPS


def test_float64_data_keep_their_digits_where_x64_is_off():
    spec = nr.ResNet(depth=5, branch_scale=0.3, bias_variance=0.1)
    want = np.asarray(nr.kernel_fn(spec)(X1))
    with jax.enable_x64(False):
        got = nr.kernel_fn(spec)(X1)
        assert got.dtype == np.float64
        np.testing.assert_allclose(np.asarray(got), want, rtol=0, atol=4 * EPS)
        assert nr.kernel_fn(spec)(X1.astype(np.float32)).dtype == np.float32
        assert nr.diag(spec, X1).dtype == np.float64
        assert nr.sweep_depth(spec, 3, x=X1).ntk.dtype == np.float64
        assert not jax.config.jax_enable_x64


@settings(max_examples=25, deadline=None)
@given(
    st.floats(1e-3, 3.1),
    st.integers(1, 200),
    st.floats(0.0, 2.0),
    st.sampled_from(nr.ResNet.blocks),
)
def test_normalised_kernels_stay_in_range(angle, depth, alpha, block):
    spec = nr.ResNet(depth=depth, branch_scale=alpha, block=block)
    sweep = nr.sweep_depth(spec, depth, angles=np.array([angle]))
    assert 0 <= float(sweep.nngp_gap[0, 0]) <= 2
    if alpha > 1e-150:  # below, the squared scale underflows: nothing is trained
        assert 0 <= float(sweep.ntk_gap[0, 0]) <= 2


def test_where_nothing_is_trained():
    """All scales are 0 and the blocks alone are trained; or their squares are."""
    for scale in (0.0, 1e-200):
        spec = nr.ResNet(depth=1, branch_scale=scale)
        swept = nr.sweep_depth(spec, 4, angles=[1.0])
        assert np.isnan(swept.ntk).all()
        assert np.isfinite(swept.nngp).all()
    spec = nr.ResNet(depth=4, branch_scale=0.0)
    assert (np.asarray(nr.kernel_fn(spec, normalised=False)(X1)) == 0).all()
    assert np.isnan(nr.kernel_fn(spec)(X1)).all()
    assert (np.asarray(nr.diag(spec, X1, log=True)) == -np.inf).all()


@pytest.mark.quick
def test_what_comes_back():
    spec = nr.FeedForward(depth=2)
    kernel = nr.kernel_fn(spec)
    assert kernel.engine == "profile"
    assert nr.kernel_fn(spec.replace(bias_variance=0.1)).engine == "recursion"
    assert kernel.spec == spec
    both = kernel(X1, X2, ("nngp", "ntk"))
    assert both._fields == ("nngp", "ntk")
    assert kernel(X1, X2, ("ntk",))._fields == ("ntk",)
    assert kernel == nr.kernel_fn(spec)
    assert pickle.loads(pickle.dumps(kernel)) == kernel
    with_bias = nr.FeedForward(depth=2, bias_variance=0.1)
    zeros = nr.kernel_fn(with_bias, normalised=False)(np.zeros((1, 4)), X1)
    assert np.isfinite(zeros).all()


def test_where_neural_tangents_has_no_kernel():
    spec = nr.ResNet(depth=2, branch_scale=0.5, block="postactivation")
    with pytest.raises(ValueError, match="kernel_fn"):
        nr.kernel_fn(spec, engine="neural_tangents")(X1)


def test_neural_tangents_tools_accept_our_kernel_function():
    nt = nr.neural_tangents
    kernel = nr.kernel_fn(nr.FeedForward(depth=3), normalised=False)
    x, y = X1[:4], np.arange(4.0)[:, None]
    batched = nt.batch(kernel, batch_size=2, device_count=0)
    np.testing.assert_allclose(batched(x, None, "ntk"), kernel(x), rtol=64 * EPS)
    predict = nt.predict.gradient_descent_mse_ensemble(kernel, x, y, diag_reg=1e-3)
    got = predict(x_test=X2, get="ntk")
    k = np.asarray(kernel(x))
    ridge = 1e-3 * np.trace(k) / 4 * np.eye(4)
    want = np.asarray(kernel(X2, x)) @ np.linalg.solve(k + ridge, y)
    np.testing.assert_allclose(got, want, rtol=1e-9)


SPEC = nr.FeedForward(depth=2)
RES = nr.ResNet(depth=2, branch_scale=0.5)
DEEP = nr.ResNet(depth=5000, branch_scale=1.0)
BAD = [
    (lambda: nr.kernel_fn("relu"), "spec must be a network"),
    (lambda: nr.kernel_fn(SPEC, engine="magic"), "engine must be one of"),
    (lambda: nr.kernel_fn(SPEC, normalised="yes"), "normalised must be True or False"),
    (lambda: nr.kernel_fn(SPEC)(X1, get="cov"), "get must be one of"),
    (lambda: nr.kernel_fn(SPEC)(X1, get=()), "get must name each"),
    (lambda: nr.kernel_fn(SPEC)(X1, X2[:, :2]), "rows of one shape"),
    (lambda: nr.kernel_fn(SPEC)(X1 * np.nan), "x1 holds nan"),
    (lambda: nr.kernel_fn(SPEC)(X1, X2 * np.inf), "x2 holds"),
    (lambda: nr.kernel_fn(SPEC)(X1 * 0), "only zeros"),
    (lambda: nr.kernel_fn(SPEC)(X1.astype(np.float16)), "dtype float16"),
    (lambda: nr.kernel_fn(SPEC)(X1[0]), "shape"),
    (lambda: nr.kernel_fn(SPEC)(X1, scales=np.ones(2)), "scales belong to residual"),
    (lambda: nr.kernel_fn(RES)(X1, scales=np.ones(3)), "one number for each"),
    (
        lambda: nr.kernel_fn(RES)(X1, scales=np.array([1, -1.0])),
        "scales must be finite",
    ),
    (lambda: nr.kernel_fn(DEEP, normalised=False)(X1), "beyond the range of float64"),
    (lambda: nr.diag(DEEP, X1), "pass log=True"),
    (lambda: nr.diag(SPEC, X1, "cov"), "get must be one of"),
    (lambda: nr.sweep_depth(SPEC, [1]), "either angles= or x="),
    (lambda: nr.sweep_depth(SPEC, [1], angles=[1.0], x=X1), "either angles= or x="),
    (lambda: nr.sweep_depth(SPEC, [0], angles=[1.0]), "depths must be whole"),
    (lambda: nr.sweep_depth(SPEC, [1], angles=[4.0]), "angles must lie"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input_gets_one_clear_line(call, words, as_users_run_it):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_in_a_trace_bad_values_give_nan():
    x = jnp.asarray(X1)
    kernel = jax.jit(nr.kernel_fn(SPEC))
    assert np.isnan(kernel(x.at[0, 0].set(jnp.nan))[0, 1])
    assert np.isnan(kernel(x.at[0].set(0.0))[0, 1])
    scaled = jax.jit(lambda scales: nr.kernel_fn(RES)(X1, scales=scales))
    assert np.isnan(scaled(jnp.array([-1.0, 1.0]))[0, 1])


def test_constants_inside_a_trace_are_fine():
    outer = jax.jit(lambda a: nr.kernel_fn(RES)(X1) @ a + nr.diag(RES, X1))
    want = nr.kernel_fn(RES)(X1) @ np.ones(5) + nr.diag(RES, X1)
    np.testing.assert_allclose(outer(jnp.ones(5)), want, rtol=16 * EPS)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("activation", ["relu", "erf", "gelu"])
def test_norms_from_tiny_to_huge(activation, dtype):
    """The limits are known: linear below for erf and GELU; ReLU above for GELU."""
    spec = nr.FeedForward(depth=1, activation=activation)
    x = X1.astype(dtype)
    eps = np.finfo(dtype).eps
    for size in (1e-15, 1e-9) if dtype == np.float32 else (1e-200, 1e-150, 1e-60):
        small = nr.kernel_fn(spec)(x * dtype(size), get="nngp")
        linear = "relu" if activation == "relu" else "linear"
        want = nr.kernel_fn(spec.replace(activation=linear))(x, get="nngp")
        np.testing.assert_allclose(small, want, atol=32 * eps + 2 * size)
    for size in (1e6, 1e15) if dtype == np.float32 else (1e17, 1e150, 1e200):
        large = nr.kernel_fn(spec)(x * dtype(size), get="nngp")
        assert np.isfinite(large).all()
        if activation != "erf":
            want = nr.kernel_fn(spec.replace(activation="relu"))(x, get="nngp")
            np.testing.assert_allclose(large, want, atol=32 * eps + 2 / size)


@pytest.mark.parametrize(
    ("bias", "activation"),
    slow_but_for(
        itertools.product((0.1, 1e-30), ("relu", "erf", "gelu", "tanh")),
        {(0.1, "relu"), (0.1, "tanh"), (1e-30, "erf"), (1e-30, "gelu")},
    ),
)
def test_rows_of_zeros_with_a_bias(activation, bias):
    """The kernel at 0 is that of the bias alone, for networks that start there."""
    spec = nr.FeedForward(depth=2, activation=activation, bias_variance=bias)
    x = np.stack([np.zeros(4), *X2])
    normalised = nr.kernel_fn(spec)(x)
    assert (np.diag(normalised) == 1).all()
    shallow = spec.replace(depth=1)
    raw = nr.kernel_fn(shallow, normalised=False)(x, get="nngp")
    want = bias * np.exp(float(spec.activation.moments(jnp.log(bias)).log_gain))
    np.testing.assert_allclose(raw[0, 0], want, rtol=256 * EPS)
    tiny = nr.kernel_fn(spec)(np.concatenate([1e-150 * X1[:1], X2]))
    assert np.isfinite(tiny).all()


REFUSED = [
    # Beyond the quadrature: wrong digits would come out, so none do.
    (nr.ResNet(depth=100, branch_scale=1.0, activation="tanh"), X1),
    (nr.FeedForward(depth=2, activation="tanh"), 100 * X1),
    (nr.FeedForward(depth=1, activation=nr.Activation(jax.nn.relu)), X1),
    # A mean that changes sign.
    (
        nr.ResNet(
            depth=3,
            branch_scale=1.0,
            block="postactivation",
            weight_variance=1.0,
            activation=nr.Activation(lambda z: z * z - 1),
        ),
        np.sqrt(4) * np.eye(4),
    ),
    (nr.ResNet(depth=2, branch_scale=1e200), X1),
]


@pytest.mark.parametrize(("spec", "x"), REFUSED)
def test_what_would_be_wrong_is_refused(spec, x):
    with pytest.raises(ValueError, match="not a number here"):
        nr.kernel_fn(spec)(x)
    with pytest.raises(ValueError, match=r"not a number here|beyond the range"):
        nr.diag(spec, x)


def test_raw_values_that_underflow_are_refused():
    spec = nr.FeedForward(depth=3000, weight_variance=1.0)
    with pytest.raises(ValueError, match="beyond the range"):
        nr.kernel_fn(spec, normalised=False)(X1)


ROWS = np.array([[1.0, 2, 3, 4], [4, -1, 0, 2], [-1, -2, -3, -4.5]])
RANGES = {
    "profile": (nr.FeedForward(depth=3), ROWS),
    "recursion": (nr.ResNet(depth=2, activation="erf", branch_scale=1.0), ROWS),
    "convolution": (nr.ConvNet(depth=2), ROWS.reshape(3, 2, 2, 1)),
}
RAW = {
    "kernel_fn": lambda spec, x: nr.kernel_fn(spec, normalised=False)(x),
    "crossed": lambda spec, x: nr.kernel_fn(spec, normalised=False)(x[:2], x[2:]),
    "gram": lambda spec, x: nr.gram(spec, x, normalised=False),
    "product": lambda spec, x: (
        nr.gram_operator(spec, x, normalised=False) @ np.array([1, -0.5, 2], x.dtype)
    ),
    "diagonal": lambda spec, x: nr.gram_operator(spec, x, normalised=False).diagonal(),
    "diag": nr.diag,
}


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("function", RAW)
def test_no_raw_kernel_is_of_zeros_or_infinities(name, function):
    """Inputs of every size: right to the precision of float32, or refused."""
    spec, x = RANGES[name]
    call, refused = RAW[function], []
    for size in (-75, -64, -63, -61, -40, 58, 63):  # powers of two
        if name == "recursion" and size > 0:  # a saturated activation
            continue
        scaled = x * 2.0**size
        try:
            found = np.asarray(call(spec, scaled.astype(np.float32)))
        except ValueError as error:
            assert "beyond the range of float32" in str(error)  # noqa: PT017
            refused.append(size)
            continue
        exact = np.asarray(call(spec, scaled))
        atol = 4 * np.finfo(np.float32).eps * abs(exact).max()
        np.testing.assert_allclose(found, exact, rtol=2e-5, atol=atol)  # as promised
    assert -75 in refused
    assert not {-40, 58} & set(refused)


@pytest.mark.parametrize("normalised", [True, False])
def test_zeros_between_opposites_are_right(normalised):
    """One layer of ReLU: opposite inputs share no active feature.

    To the rounding of one minus a gap that is 1.
    """
    for spec, one in (
        (nr.FeedForward(depth=1), np.ones((1, 3))),
        (nr.ConvNet(depth=1, kernel_size=1), np.ones((1, 2, 2, 1))),
    ):
        kernel = nr.kernel_fn(spec, normalised=normalised)
        assert abs(kernel(one, -one, "nngp")) <= 4 * EPS
        both = kernel(one, np.concatenate([-one, one]), "nngp")
        assert (both > 4 * EPS).sum() == 1


def test_gradient_with_respect_to_scales_that_are_zero():
    kernel = nr.kernel_fn(RES, normalised=False)
    gradient = jax.grad(lambda s: jnp.sum(kernel(X1, scales=s)))(jnp.zeros(2))
    assert (np.asarray(gradient) == 0).all()


def test_state_shapes_are_scalars_where_nothing_depends_on_the_row():
    state = recursion.first_state(
        SPEC, jnp.ones((3, 3)), jnp.ones((3, 3)), jnp.zeros(())
    )
    assert state.rows[0].log_variance.value.shape == ()


# -------------------------------------------------------------------- the one fast path

PLACES = np.random.default_rng(8).normal(size=(1100, 9))
PLACES[700] = PLACES[3] * (1 + 1e-9)  # in another tile than the row it all but equals
PLACES[701] = -PLACES[3] * np.linspace(1, 1 + 1e-8, 9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["plain", "two_layer_decreasing"])
def test_a_call_is_a_gram_matrix_and_jit_all_but_the_same(dtype, name):
    """Both kernels, of one array and of two, in tiles that do not divide the matrix."""
    spec, x = SPECS[name], PLACES.astype(dtype)
    kernel, names = nr.kernel_fn(spec), ("ntk", "nngp")
    for more in ((), (x[500:],)):
        called = kernel(x, *more, get=names)
        traced = jax.jit(lambda *given: kernel(*given, get=names))(x, *more)
        for get in names:
            matrix = getattr(called, get)
            np.testing.assert_array_equal(matrix, nr.gram(spec, x, *more, get=get))
            again = np.asarray(getattr(traced, get))
            assert matrix.dtype == again.dtype == dtype
            assert np.abs(matrix - again).max() <= 16 * np.finfo(dtype).eps
            if not more:
                assert (again == again.T).all()
                assert (np.diag(again) == 1).all()


def test_near_duplicates_keep_their_gaps_under_jit():
    spec = nr.FeedForward(depth=1)
    places = PLACES[[3, 700, 701]]
    want = nr.gram(spec, places, get="ntk_gap")
    for x in (PLACES, places):
        gap = (
            1 - jax.jit(nr.kernel_fn(spec))(x)[np.ix_(*2 * [np.isin(x, places).all(1)])]
        )
        np.testing.assert_allclose(gap, want, atol=4 * EPS)


def test_gradients_between_near_duplicates():
    """d/dx of 1 - NTK is the NTK's slope at the angle times the turn of the rows."""
    x, kernel = X1[:1], nr.kernel_fn(nr.FeedForward(depth=1))
    for step in (1e-3, 1e-6):
        y = x + step * X2[:1]
        with mp.workdps(50):
            a, b, c = ([mp.mpf(float(v)) for v in row] for row in (x[0], y[0], X2[1]))

            def ntk(t, a=a, b=b, c=c):
                a = [u + t * v for u, v in zip(a, c, strict=True)]
                u = mp.fdot(a, b) / mp.sqrt(mp.fdot(a, a) * mp.fdot(b, b))
                angle = mp.acos(u)
                k0 = 1 - angle / mp.pi
                return (u * k0 + mp.sin(angle) / mp.pi + u * k0) / 2

            want = float(mp.diff(ntk, 0, h=mp.mpf(10) ** -20))
        gradient = jax.grad(lambda x: kernel(x, y)[0, 0])(jnp.asarray(x))  # noqa: B023
        assert abs(float(gradient[0] @ X2[1]) / want - 1) <= 1e-11


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiny_rows_are_right_or_refused(dtype, as_users_run_it):
    """Of rows whose entries a device flushes, as of the same rows made larger."""
    tiny, x = np.finfo(dtype).tiny, X1.astype(dtype)
    linear = nr.FeedForward(depth=2, activation="linear")
    for spec in (PLAIN, nr.FeedForward(depth=2, activation="erf")):
        for power in (3, -2, -6):  # from normal to subnormal numbers
            small = np.ldexp(x, int(np.log2(tiny)) + power)
            large = np.ldexp(small.astype(np.float64), -int(np.log2(tiny)) - power)
            want = nr.kernel_fn(PLAIN if spec.homogeneous else linear)(large)
            got = nr.kernel_fn(spec)(small)
            assert np.abs(got - want).max() <= 16 * np.finfo(dtype).eps
            traced = np.asarray(jax.jit(nr.kernel_fn(spec))(jnp.asarray(small)))
            assert (np.isnan(traced) | (np.abs(traced - want) < 1e-5)).all()


def test_any_depth_at_one_price():
    deepest = nr.FeedForward(depth=10**12)
    np.testing.assert_allclose(
        nr.kernel_fn(deepest)(X1), 0.25 + 0.75 * np.eye(5), atol=1e-10
    )
    logs = nr.diag(deepest, X1, log=True)
    np.testing.assert_allclose(logs, np.log((X1**2).mean(1)) + np.log(1e12 + 1))


@pytest.mark.parametrize("engine", ["auto", "recursion"])
def test_float64_constants_in_a_trace_without_x64(engine):
    """As training data that a jitted function closes over: in float32 there."""
    kernel = nr.kernel_fn(PLAIN, engine=engine)
    want, slope = kernel(X1, X2), jax.grad(lambda x: kernel(X1, x).sum())(X2)
    with jax.enable_x64(False):
        x2 = jnp.asarray(X2, jnp.float32)
        for got in (
            jax.jit(lambda x: kernel(X1, x))(x2),
            jax.jit(lambda x: kernel(x, X1).T)(x2),
            jax.jit(lambda one: one * kernel(X1, X2))(jnp.float32(1)),
        ):
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, want, atol=1e-6)
        got = jax.grad(lambda x: kernel(X1, x).sum())(x2)
        np.testing.assert_allclose(got, slope, atol=1e-5)
        assert jax.jit(lambda one: one * nr.diag(PLAIN, X1))(1.0).dtype == np.float32


def test_bad_scales_in_a_trace_give_nan_at_any_size():
    kernel = jax.jit(lambda x, scales: nr.kernel_fn(RES)(x, scales=scales))
    for x in (PLACES[:5], PLACES):
        assert np.isnan(kernel(x, jnp.array([-0.3, 0.3]))[0, 1])


def test_raw_kernels_out_of_range_where_nothing_is_trained():
    idle = nr.ResNet(depth=2, branch_scale=0.0)
    for size in (1e-25, 1e25):
        x = (X1 * size).astype(np.float32)
        with pytest.raises(ValueError, match="beyond the range"):
            nr.kernel_fn(idle, normalised=False)(x, get="nngp")
    assert (nr.kernel_fn(idle, normalised=False)(X1) == 0).all()


def test_neural_tangents_at_small_norms():
    kernel = nr.kernel_fn(PLAIN, engine="neural_tangents")
    small = kernel((X1 * 1e-19).astype(np.float32))
    np.testing.assert_allclose(small, nr.kernel_fn(PLAIN)(X1), atol=1e-3)
    with pytest.raises(ValueError, match="layer by layer"):
        nr.kernel_fn(nr.FeedForward(depth=10**12), engine="neural_tangents")(X1)
    with pytest.raises(ValueError, match="depth must be at most"):
        nr.FeedForward(depth=10**400)
