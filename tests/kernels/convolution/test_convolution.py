"""Kernels of images: against neural-tangents, exact properties, bad input."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from convolution import one_by_one
from marks import slow_but_for
from oracle import limit_kernels

import ntk_resnet as nr
from ntk_resnet.activations.cosines import activation_cosine, slope_cosine
from ntk_resnet.kernels import function
from ntk_resnet.kernels.convolution.matrices import (
    PLAIN,
    RESIDUAL,
    _matrix,
)

EPS = np.finfo(float).eps


def images(n, side, channels=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, side, side, channels))


def plain(depth, **more):
    return nr.ConvNet(depth=depth, **more)


def residual(depth, block="two_layer", **more):
    return nr.ConvResNet(depth=depth, block=block, **{"branch_scale": 0.7, **more})


# ------------------------------------------------------------------------ the reference


def grid():
    for padding in ("zero", "circular"):
        for readout in ("pool", "flatten"):
            more = {"padding": padding, "readout": readout}
            for trained in ("blocks", "all"):
                yield plain(3, bias_variance=0.1, trained=trained, **more)
            for downsampling in ("stride", "average"):
                yield plain(3, stages=(2, 1), downsampling=downsampling, **more)
            for block in ("two_layer", "preactivation", "full_preactivation"):
                for trained in ("blocks", "all"):
                    own = more | {"trained": trained}
                    yield residual(3, block, bias_variance=0.1, **own)
                    yield residual(3, block, stages=(1, 2), **own)
                    own |= {"downsampling": "average"}
                    yield residual(2, block, stages=(1, 1), **own)
    yield plain(2, activation="erf", bias_variance=0.1)
    yield plain(2, activation="gelu", readout="flatten")
    yield residual(2, activation="leaky_relu", branch_scale=nr.DecreasingScale())
    yield nr.myrtle(5)
    yield nr.wide_resnet(10)


GRID = list(grid())


@functools.partial(
    jax.jit, static_argnums=0, compiler_options={"xla_cpu_max_isa": "AVX2"}
)
def reference(spec, x1, x2):
    """By neural-tangents, without `stax.repeat` and without AVX-512: with them compiled
    programs write where they should not, and end the process there or later."""
    with one_by_one():
        return nr.stax(spec)[2](x1, x2, ("nngp", "ntk"))


def agree(spec, side):
    with jax.enable_x64():
        x1, x2 = images(2, side), images(3, side, seed=1)
        expected = reference(spec, x1, x2)
        found = nr.kernel_fn(spec, normalised=False)(x1, x2, ("nngp", "ntk"))
        for value, matrix in zip(found, expected, strict=True):
            np.testing.assert_allclose(value, matrix, rtol=1e-10)


QUICK = [
    plain(3, bias_variance=0.1),
    plain(2, trained="blocks", readout="flatten"),
    residual(2, "two_layer", trained="all", padding="circular"),
    residual(2, "preactivation", stages=(1, 1), readout="flatten"),
]


@pytest.mark.parametrize("spec", QUICK, ids=range(len(QUICK)))
def test_against_neural_tangents(spec):
    agree(spec, 8)


@pytest.mark.slow
@pytest.mark.parametrize("side", [8, 16])
@pytest.mark.parametrize("spec", GRID, ids=range(len(GRID)))
def test_all_that_neural_tangents_has(spec, side):
    agree(spec, side)


# --------------------------------------------------------------------- exact properties


@pytest.mark.parametrize(
    "spec",
    slow_but_for(
        [residual(3), plain(3, readout="flatten"), nr.myrtle(5)],
        [residual(3)],
    ),
)
def test_images_with_themselves(spec):
    x = images(4, 8).astype("float32")
    k = nr.kernel_fn(spec)
    matrix = np.asarray(k(x))
    assert (np.diag(matrix) == 1).all()
    assert (matrix == matrix.T).all()
    # Not recognised as themselves, they are so up to the root of eps.
    apart = np.asarray(k(x, x.copy()))
    np.testing.assert_allclose(apart, matrix, atol=4 * np.finfo("float32").eps ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [residual(RESIDUAL, branch_scale=1.0), plain(PLAIN)])
def test_single_precision_at_the_depth_where_it_ends(spec):
    x = images(3, 8).astype("float32")
    x = np.concatenate([x, x[:1] + 1e-2 * images(1, 8, seed=2).astype("float32")])
    for get in ("nngp", "ntk"):
        k = nr.kernel_fn(spec)
        single, double = k(x, None, get), k(x.astype(float), None, get)
        np.testing.assert_allclose(single, np.asarray(double), atol=1e-5)


def test_deep_networks_compute_in_double_precision():
    """Where single precision would be off by a quarter."""
    x = images(3, 4).astype("float32")
    spec = plain(300)
    single = np.asarray(nr.kernel_fn(spec)(x))
    assert single.dtype == np.float32
    double = np.asarray(nr.kernel_fn(spec)(x.astype(float)))
    np.testing.assert_allclose(single, double, rtol=np.finfo("float32").eps)
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match="x1 is traced in float32, but 300 blocks"),
    ):
        jax.jit(nr.kernel_fn(spec))(x)


def test_scale_of_the_images():
    """Neither size nor depth overflows; the raw kernel is quadratic in the images."""
    spec = residual(40, branch_scale=3.0)
    x = images(2, 4)
    k = nr.kernel_fn(spec)
    np.testing.assert_allclose(k(1e150 * x), k(x), rtol=64 * EPS)
    raw = nr.diag(spec, x, log=True)
    np.testing.assert_allclose(
        nr.diag(spec, 1e150 * x, log=True),
        np.asarray(raw) + 300 * np.log(10),
        rtol=16 * EPS,
    )


AVERAGED = plain(2, stages=(1, 1), downsampling="average")


@pytest.mark.quick
@pytest.mark.parametrize(
    "spec",
    slow_but_for([plain(2), residual(2), AVERAGED], [plain(2)]),
)
def test_gram_and_kernel_fn_agree(spec, tmp_path):
    x = images(5, 8)
    for get in ("ntk", "nngp"):
        whole = np.asarray(nr.kernel_fn(spec)(x, None, get))
        tiled = nr.gram(spec, x, get=get, tile=2)
        np.testing.assert_allclose(tiled, whole, rtol=32 * EPS)
        assert (np.diag(tiled) == 1).all()
    gap = nr.gram(spec, x, get="ntk_gap", tile=2)
    np.testing.assert_allclose(gap, 1 - nr.gram(spec, x, tile=2), atol=0)
    raw = nr.gram(spec, x, x[:2], normalised=False)
    expected = nr.kernel_fn(spec, normalised=False)(x, x[:2])
    np.testing.assert_allclose(raw, np.asarray(expected), rtol=32 * EPS)
    stored = nr.gram(spec, x, tile=2, store=tmp_path / "k.zarr")
    again = nr.gram(spec, x, tile=2, store=tmp_path / "k.zarr")
    assert (np.asarray(stored) == np.asarray(again)).all()
    assert stored.attrs["engine"] == "convolution"


def test_under_jit():
    x = jnp.asarray(images(2, 4), jnp.float32)
    k = nr.kernel_fn(plain(2), normalised=False)
    np.testing.assert_allclose(jax.jit(k)(x), k(x), rtol=8 * np.finfo("float32").eps)


@pytest.mark.slow
def test_gradients():
    spec = residual(2)
    k = nr.kernel_fn(spec, normalised=False)
    with jax.enable_x64():
        x = jnp.asarray(images(2, 4))
        y = jnp.asarray(images(2, 4, seed=1))
        total = lambda x: k(x, y).sum()  # noqa: E731
        slope = (jax.grad(total)(x) * y).sum()
        step = 1e-6
        difference = (total(x + step * y) - total(x - step * y)) / (2 * step)
        np.testing.assert_allclose(slope, difference, rtol=1e-7)
        gradient = jax.grad(lambda x: k(x).sum())(x)
        assert np.isfinite(gradient).all()
        scales = jnp.asarray([0.7, 0.7])
        assert np.isfinite(jax.grad(lambda a: k(x, y, scales=a).sum())(scales)).all()


def test_images_with_empty_pixels():
    """Backgrounds of zeros, as digits have, are no pixels without a number."""
    x = images(2, 8)
    x[:, :4] = 0
    for spec in (plain(2), residual(2, "preactivation"), plain(2, activation="gelu")):
        values = nr.kernel_fn(spec)(x, None, ("nngp", "ntk"))
        assert np.isfinite(np.asarray(values)).all()


@pytest.mark.parametrize(
    "spec",
    slow_but_for(
        [plain(1, padding="circular"), plain(2), residual(2, "full_preactivation")],
        [plain(1, padding="circular")],
    ),
)
def test_images_with_equal_patches(spec):
    """Digits: cosines of exactly 1 between pixels apart, which rounding may touch."""
    x = nr.load_data("digits", images=True).x[:4]
    matrix = limit_kernels(spec, x)[1]
    root = np.sqrt(np.diag(matrix))
    k = nr.kernel_fn(spec)
    for found in (k(x), k(x, x.copy()), nr.gram(spec, x, tile=3)):
        np.testing.assert_allclose(found, matrix / root / root[:, None], atol=EPS**0.5)


def test_activations_with_a_length_scale_on_small_images():
    """Nearly linear there; where rounding has eaten the signal, there is no number."""
    k = nr.kernel_fn(plain(2, activation="erf"))
    x = images(2, 4).astype("float32")
    usual = k(1e-3 * x)[0, 1]
    np.testing.assert_allclose(k(1e-9 * x)[0, 1], usual, rtol=1e-5)
    with pytest.raises(ValueError, match="the ntk is not a number here"):
        k(1e-18 * x)


def test_gaps_of_near_duplicates_are_those_of_double_precision():
    x = images(2, 4).astype("float32")
    x[1] = x[0] + 1e-3 * x[1]
    gap = nr.gram(plain(1), x, get="nngp_gap")[0, 1]
    assert gap.dtype == np.float32
    wide = nr.gram(plain(1), x.astype(float), get="nngp_gap")[0, 1]
    np.testing.assert_allclose(gap, wide, rtol=2 * np.finfo("float32").eps)


@pytest.mark.parametrize("make", [plain, residual])
def test_the_program_does_not_grow_with_depth(make):
    def lines(depth):
        spec = make(depth).without_scales
        x, scales = images(2, 4).astype("float32"), np.ones(depth, "float32")
        text = _matrix.lower(spec, ("ntk",), True, x, None, scales).as_text()
        return text.count("\n")

    assert lines(1000) == lines(3)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="barriers do it elsewhere")
def test_what_is_computed_apart_stays_apart():
    """Where XLA knows the scales, and that there is one block, too: else ten times
    slower. Each of two kernels is convolved thrice, goes through an activation and
    joins its trunk."""
    k = nr.kernel_fn(residual(1))
    text = jax.jit(k).lower(images(2, 4)).compile().as_text()
    assert text.count(" conditional(") >= 2 * 5


def test_the_dual_as_a_function_of_the_cosine():
    """Within 2 eps of 1 of 40-digit arithmetic, at all gaps and in both precisions."""
    gaps = np.concatenate([np.linspace(0, 2, 401), 10.0 ** -np.arange(1, 16)])
    for dtype in ("float32", "float64"):
        x = gaps.astype(dtype)
        with jax.enable_x64(), mpmath.workdps(40):
            after, slope = (
                cosine(jnp.asarray(x), 0.5)
                for cosine in (activation_cosine, slope_cosine)
            )
            for gap, *found in zip(x, after, slope, strict=True):
                angle = mpmath.acos(1 - mpmath.mpf(float(gap)))
                exact = (
                    (mpmath.sin(angle) + (mpmath.pi - angle) * mpmath.cos(angle))
                    / mpmath.pi,
                    1 - angle / mpmath.pi,
                )
                for value, wanted in zip(found, exact, strict=True):
                    assert abs(float(value) - wanted) < 2 * np.finfo(dtype).eps


# ---------------------------------------------------------------------------- bad input


@pytest.mark.quick
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kernel_size": 2}, "kernel_size must be odd, got 2"),
        ({"padding": "same"}, "padding must be one of 'zero', 'circular'; got 'same'"),
        ({"readout": "mean"}, "readout must be one of"),
        ({"downsampling": "max"}, "downsampling must be one of"),
        ({"stages": (1, 1)}, r"stages \(1, 1\) have 2 blocks, but depth is 3"),
        ({"stages": (3, 0)}, "a number in stages must be at least 1"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"block": "bottleneck"}, "block must be one of"),
    ],
)
def test_what_is_no_network(change, text):
    with pytest.raises(ValueError, match=text):
        nr.ConvResNet(**{"depth": 3, "branch_scale": 0.5, **change})


@pytest.mark.quick
def test_presets():
    for preset in (nr.myrtle(7), nr.wide_resnet(16)):
        assert nr.from_json(nr.to_json(preset)) == preset
    assert nr.wide_resnet(28).stages == (4, 4, 4)
    assert nr.myrtle(10).stages == (3, 3, 3)
    assert nr.myrtle(5, readout="flatten").readout == "flatten"
    with pytest.raises(ValueError, match=r"depth must be 6 n \+ 4"):
        nr.wide_resnet(18)
    with pytest.raises(ValueError, match="layers must be 5, 7 or 10, got 6"):
        nr.myrtle(6)


def with_a_nan():
    x = images(2, 8)
    x[1, 2, 3, 0] = np.nan
    return x


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: nr.kernel_fn(plain(1))(np.ones((2, 3))),
            r"x1 has shape \(2, 3\); pass",
        ),
        (lambda: nr.kernel_fn(plain(1))(np.ones((0, 4, 4, 1))), "x1 has shape"),
        (lambda: nr.kernel_fn(plain(1))(with_a_nan()), "x1 holds nan at row 1, column"),
        (lambda: nr.gram(plain(1), np.zeros((2, 4, 4, 1))), "only zeros in row 0"),
        (
            lambda: nr.gram(plain(1), images(2, 4).astype(int) + 1j),
            "x has dtype complex",
        ),
        (lambda: nr.kernel_fn(nr.myrtle(5))(images(2, 6)), "need multiples of 4"),
        (
            lambda: nr.kernel_fn(plain(2, stages=(1, 1), padding="circular"))(
                images(1, 4)
            ),
            "circular padding needs at least kernel_size = 3",
        ),
        (
            lambda: nr.kernel_fn(plain(1))(images(1, 4), images(1, 8)),
            "rows of one shape",
        ),
        (
            lambda: nr.kernel_fn(plain(1), engine="recursion"),
            "is not for convolutional",
        ),
        (
            lambda: nr.kernel_fn(nr.FeedForward(depth=1), engine="convolution"),
            "is not for fully connected",
        ),
        (lambda: nr.profile(plain(1)), "spec must be fully connected here"),
        (
            lambda: nr.gram(plain(1), images(2, 4), products="plain"),
            'products="plain" is',
        ),
        (
            lambda: nr.stax(residual(1, "postactivation")),
            "neural-tangents has no kernel",
        ),
    ],
    ids=range(13),
)
def test_bad_input(call, text):
    with pytest.raises(ValueError, match=text) as raised:
        call()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_that_a_device_flushes_are_refused(dtype):
    """They were some tenths of a per cent off; in a trace they are NaN."""
    spec, tiny = nr.ConvNet(depth=1), float(np.finfo(dtype).tiny)
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 1))
    small = np.stack([x[0], x[1] * tiny]).astype(dtype)
    for call in (nr.kernel_fn(spec), lambda x: nr.gram(spec, x)):
        with pytest.raises(ValueError, match="only tiny numbers in image 1"):
            call(small)
    traced = jax.jit(nr.kernel_fn(spec))(jnp.asarray(small))
    assert np.isnan(traced[0, 1])
    assert traced[0, 0] == 1
    with_bias = nr.kernel_fn(spec.replace(bias_variance=0.1))(small)
    assert np.isfinite(with_bias).all()


def test_scales_as_data_do_not_go_by_tiles_of_rows(monkeypatch):
    """All pairs of a tile made for rows would be far more than memory is stated for."""
    spec = nr.ConvResNet(depth=2, branch_scale=0.5)
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 2))
    want = nr.kernel_fn(spec)(x)
    monkeypatch.setattr(function, "in_memory", None)
    got = nr.kernel_fn(spec)(x, scales=np.full(2, 0.5))
    np.testing.assert_allclose(got, want, rtol=16 * np.finfo(float).eps)
