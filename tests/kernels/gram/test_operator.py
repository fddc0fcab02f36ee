"""Products without the matrix are those of the matrix, anywhere, in little memory."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_resnet as nr

PLAIN = nr.FeedForward(depth=30)
RES = nr.ResNet(depth=30, branch_scale=nr.DepthScale(0.5))
ERF = nr.FeedForward(depth=3, activation="erf", weight_variance=1.5, bias_variance=0.1)
RNG = np.random.default_rng(0)
X, X2 = RNG.standard_normal((53, 6)), RNG.standard_normal((31, 6))
V = RNG.standard_normal((53, 3))
ROOT = pathlib.Path(nr.__file__).parents[1]


@functools.cache  # one compilation a shape is enough for all of the tests
def operator(dtype="float64", rectangular=False):
    x2 = X2.astype(dtype) if rectangular else None
    return nr.gram_operator(PLAIN, X.astype(dtype), x2, tile=16)


@functools.cache
def dense(rectangular=False):
    return np.asarray(nr.kernel_fn(PLAIN)(X, X2 if rectangular else None))


def worst_error(product, matrix, v):
    """In eps, relative to the largest entry times the sum of the sizes in `v`.

    Where the terms are of one size, this is relative to the sum of their sizes.
    """
    assert product.shape == (matrix @ v).shape
    matrix, v = np.asarray(matrix, np.float64), np.asarray(v, np.float64)
    error = np.abs(np.asarray(product, np.float64) - matrix @ v)
    size = np.abs(matrix).max() * np.abs(v).sum(axis=0)
    return (error / size).max() / np.finfo(product.dtype).eps


# ---------------------------------------------------------------- as the dense matrix's


@pytest.mark.quick
def test_products_are_those_of_the_matrix():
    op = operator()
    assert (op.shape, op.dtype) == ((53, 53), np.float64)
    for v in (V, V[:, 0]):
        assert worst_error(op @ v, dense(), v) < 4
        np.testing.assert_array_equal(op(v), op @ v, strict=True)
    assert worst_error(op.T @ V, dense(), V) < 4
    assert "(53, 53) float64 by profile, FeedForward(depth=30" in repr(op)


def test_rows_and_columns_may_be_different_inputs():
    op, v = operator("float32", rectangular=True), V.astype(np.float32)
    assert (op.shape, op.T.shape) == ((53, 31), (31, 53))
    assert (op @ v[:31]).dtype == (op.T @ v).dtype == np.float32
    assert worst_error(op @ v[:31], dense(rectangular=True), v[:31]) < 4
    assert worst_error(op.T @ v, dense(rectangular=True).T, v) < 4


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (PLAIN, {"get": "nngp", "normalised": False}),
        (RES, {"get": "ntk_gap"}),
        (RES, {"products": "plain", "tile": 7}),
        (RES, {"engine": "recursion", "tile": 16}),
        (ERF, {"normalised": False, "tile": 9}),
    ],
)
def test_every_kind_of_matrix(spec, options, dtype):
    x, x2, v = X.astype(dtype), X2.astype(dtype), V.astype(dtype)
    matrix = nr.gram(spec, x, **options)
    assert worst_error(nr.gram_operator(spec, x, **options) @ v, matrix, v) < 4
    matrix = nr.gram(spec, x2, x, **options)
    assert worst_error(nr.gram_operator(spec, x2, x, **options) @ v, matrix, v) < 4


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 16, 17])
def test_any_number_of_rows(n):
    op = nr.gram_operator(PLAIN, X[:n], tile=8)
    assert worst_error(op @ V[:n], dense()[:n, :n], V[:n]) < 4


@pytest.mark.slow
def test_a_large_sum_is_as_exact_as_a_small_one():
    """188 tiles a row, terms of one sign: without compensation it is 2 eps."""
    x = RNG.standard_normal((3000, 5)).astype(np.float32)
    ones = np.ones(3000, np.float32)
    op, matrix = nr.gram_operator(PLAIN, x, tile=16), nr.gram(PLAIN, x)
    assert worst_error(op @ ones, matrix, ones) < 0.5


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)]
)
def test_near_duplicates_keep_their_gaps(dtype):
    """A block of unit vectors gives the entries themselves: nothing is rounded then."""
    x, eye = X.astype(dtype), np.eye(53, dtype=dtype)
    x[40] = x[3] + np.float32(1e-7) * x[4]
    x[52] = -x[5]
    found = np.asarray(nr.gram_operator(RES, x, get="ntk_gap", tile=16) @ eye)
    wanted = np.asarray(nr.gram(RES, x, get="ntk_gap"))
    assert 0 < wanted[3, 40] < 1e-7
    np.testing.assert_allclose(found, wanted, rtol=64 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 0)


def test_it_is_symmetric_to_rounding():
    u, v = V[:, 0], V[:, 1]
    terms = np.abs(u) @ dense() @ np.abs(v)
    difference = abs(u @ (operator() @ v) - v @ (operator() @ u))
    assert difference < 8 * np.finfo(float).eps * terms


def test_vectors_of_other_kinds_are_converted():
    op, wanted = operator(), operator() @ np.arange(53.0)
    for v in (np.arange(53), jnp.arange(53), np.arange(53, dtype=np.float32)):
        np.testing.assert_array_equal(op @ v, wanted, strict=True)


@pytest.mark.quick
def test_diagonal():
    raw = nr.gram_operator(ERF, X, normalised=False).diagonal()
    np.testing.assert_array_equal(raw, nr.diag(ERF, X), strict=True)
    np.testing.assert_array_equal(operator().diagonal(), np.ones(53), strict=True)
    gaps = nr.gram_operator(RES, X.astype("f4"), get="nngp_gap").diagonal()
    np.testing.assert_array_equal(gaps, np.zeros(53, np.float32), strict=True)
    with pytest.raises(ValueError, match="leave x2 out"):
        operator("float32", rectangular=True).diagonal()


# -------------------------------------------------------------------- in other programs


def test_an_iteration_inside_jit():
    """Powers of the matrix, as Lanczos' and other methods take them."""

    @jax.jit
    def largest(op, v):
        step = lambda _, v: op @ (v / jnp.linalg.norm(v))  # noqa: E731
        return jnp.linalg.norm(jax.lax.fori_loop(0, 20, step, v))

    wanted = np.linalg.eigvalsh(dense())[-1]
    np.testing.assert_allclose(largest(operator(), np.ones(53)), wanted, rtol=1e-12)


@pytest.mark.slow
def test_jit_and_vmap_give_the_same():
    op = operator()
    np.testing.assert_array_equal(jax.jit(lambda v: op @ v)(V), op @ V)
    columns = jax.vmap(lambda v: op @ v, in_axes=1, out_axes=1)(V)
    assert worst_error(columns, dense(), V) < 4


def test_derivatives_with_respect_to_the_vector():
    op = operator("float32", rectangular=True)
    v, u = jnp.asarray(V[:31], jnp.float32), jnp.asarray(V, jnp.float32)
    value, pull = jax.vjp(lambda v: op @ v, v)
    np.testing.assert_array_equal(value, op @ v)
    np.testing.assert_array_equal(pull(u)[0], op.T @ u)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda v: op @ v, (v,), (v,))


@pytest.mark.slow
def test_derivatives_of_derivatives():
    op = operator()
    curvature = jax.jit(jax.jacrev(jax.grad(lambda v: jnp.sum((op @ v) ** 2) / 2)))
    wanted = dense() @ dense()
    np.testing.assert_allclose(curvature(V[:, 0]), wanted, rtol=1e-12, atol=1e-12)


def test_derivatives_with_respect_to_the_inputs_are_refused():
    op = nr.gram_operator(ERF, X)
    with pytest.raises(ValueError, match="with respect to v alone; use kernel_fn"):
        jax.grad(lambda op: jnp.sum(op @ V))(op)
    with pytest.raises(ValueError, match="x is traced"):
        jax.grad(lambda x: jnp.sum(nr.gram_operator(ERF, x) @ V))(X)


def test_memory_is_linear_in_the_number_of_rows():
    """The matrix would take 1.6 GB; on the way back its tiles must not be kept."""
    op = nr.gram_operator(PLAIN, np.ones((20_000, 2), np.float32))
    square = jax.jit(jax.grad(lambda v, op: jnp.sum((op @ v) ** 2)))
    program = square.lower(jnp.ones((20_000, 4), jnp.float32), op).compile()
    assert program.memory_analysis().temp_size_in_bytes < 50e6


# ------------------------------------------------------------------- devices, precision


def test_float64_data_where_x64_is_off():
    wanted = operator() @ V
    with jax.enable_x64(False):
        op = nr.gram_operator(PLAIN, X, tile=16)
        np.testing.assert_array_equal(op @ V, wanted, strict=True)
        assert op.diagonal().dtype == np.float64
        for traced in (jax.jit(lambda v: op @ v), jax.vmap(lambda v: op @ v, 1)):
            with pytest.raises(ValueError, match="x64 mode is off in this trace"):
                traced(V)


FOUR_DEVICES = """
import sys, numpy as np, jax, ntk_resnet as nr
jax.config.update("jax_enable_x64", True)
x, v = np.load(sys.argv[1]).values()
op = nr.gram_operator(nr.FeedForward(depth=30), x, tile=16)
assert op.plan.mesh.size == 4
product = op @ v
jax.block_until_ready(op @ product)  # it is on all devices, and they take it
np.save(sys.argv[2], product)
"""


def test_several_devices_share_the_tiles(tmp_path):
    np.savez(tmp_path / "data.npz", x=X, v=V)
    flags = "--xla_force_host_platform_device_count=4"
    subprocess.run(
        (sys.executable, "-c", FOUR_DEVICES, "data.npz", "product.npy"),
        cwd=tmp_path,
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=300,
    )
    product = np.load(tmp_path / "product.npy")
    assert worst_error(product, dense(), V) < 4
    # The products of the tiles are the same, but added up in another order.
    assert worst_error(product - operator() @ V + dense() @ V, dense(), V) < 2


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("v", "message"),
    [
        (np.ones(52), r"v has shape \(52,\); pass \(53,\) or a block \(53, k\)"),
        (np.ones((53, 0)), r"v has shape \(53, 0\)"),
        (np.ones((3, 53)), r"v has shape \(3, 53\)"),
        (np.ones((53, 1, 1)), r"v has shape \(53, 1, 1\)"),
        (1.0, r"v has shape \(\)"),
        (np.full(53, np.nan), "v holds nan at row 0"),
        (np.ones(53, complex), "v has dtype complex128; pass real numbers"),
        (["a"] * 53, "v has dtype <U1"),
        (np.full(53, 1e308), r"beyond the range of float64; v has entries of 1e\+308"),
    ],
)
def test_bad_vectors(as_users_run_it, v, message):
    with pytest.raises(ValueError, match=message) as refusal:
        operator() @ v
    assert "\n" not in str(refusal.value)


def test_bad_arguments(as_users_run_it):
    for args, options, message in [
        (("deep", X), {}, "spec"),
        ((PLAIN, X[0]), {}, "x has shape"),
        ((PLAIN, X, X2[:, :2]), {}, "rows of one shape"),
        ((PLAIN, X), {"get": "nt"}, "get must be one of"),
        ((PLAIN, X), {"engine": "fast"}, "engine must be one of"),
        ((PLAIN, X), {"products": "exact"}, "products must be one of"),
        ((PLAIN, X), {"normalised": 1}, "normalised must be True or False"),
        ((PLAIN, X), {"tile": 0}, "tile must be at least 1"),
        ((PLAIN, X), {"devices": []}, "devices must be some of"),
    ]:
        with pytest.raises(ValueError, match=message):
            nr.gram_operator(*args, **options)


@pytest.mark.slow
def test_entries_that_are_no_numbers_are_named():
    nothing = nr.ResNet(depth=2, branch_scale=0.0)
    op = nr.gram_operator(nothing, X, engine="recursion")
    with pytest.raises(ValueError, match="is not a number for some of these inputs"):
        op @ V
    assert np.isnan(jax.jit(lambda v: op @ v)(V)).all()
    large = nr.ResNet(depth=300, branch_scale=10.0)
    with pytest.raises(ValueError, match="raw ntk is beyond the range of float32"):
        nr.gram_operator(large, X.astype("f4"), normalised=False) @ V


def test_inside_another_trace():
    """The vector is known there, the product is not."""
    x = np.random.default_rng(0).normal(size=(9, 4))
    spec = nr.FeedForward(depth=3)
    operator, matrix = nr.gram_operator(spec, x), nr.gram(spec, x)
    doubled = jax.jit(lambda scale: scale * (operator @ np.ones(9)))(2.0)
    np.testing.assert_allclose(
        doubled, 2 * matrix.sum(axis=1), rtol=16 * np.finfo(np.float64).eps
    )
    found = jax.scipy.sparse.linalg.cg(lambda v: operator @ v + v, jnp.ones(9))[0]
    np.testing.assert_allclose(matrix @ found + found, np.ones(9), rtol=1e-4)
    assert "by profile" in repr(operator)
