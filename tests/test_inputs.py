"""Angles between rows, to the last digits; and what is refused as an input."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from ntk_resnet.kernels._inputs import (
    check_angles,
    check_depths,
    check_inputs,
    log_variance,
    pair_gaps,
)

mp.mp.dps = 50


def exact_cosine(a, b):
    a, b = ([mp.mpf(float(v)) for v in row] for row in (a, b))
    return mp.fdot(a, b) / mp.sqrt(mp.fdot(a, a) * mp.fdot(b, b))


@pytest.mark.parametrize(
    ("dtype", "angle"),
    [(np.float64, a) for a in (1.0, 1e-2, 1e-5, 1e-7)]
    + [(np.float32, a) for a in (1.0, 1e-1, 1e-2, 1e-5, 1e-7)],
)
@pytest.mark.parametrize("size", [1.0, 1.37, 1e-12, 1e15])
@pytest.mark.parametrize("sign", [1, -1])
def test_gaps_of_near_duplicates_are_exact(dtype, angle, size, sign):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 64))
    x /= np.linalg.norm(x)
    y -= (y @ x) * x
    y /= np.linalg.norm(y)
    a = x.astype(dtype)
    b = (sign * size * (np.cos(angle) * x + np.sin(angle) * y)).astype(dtype)
    gap, cogap = jax.jit(pair_gaps)(jnp.array(a[None]), jnp.array(b[None]))
    u = exact_cosine(a, b)
    for got, want in ((gap, 1 - u), (cogap, 1 + u)):
        error = float(abs(mp.mpf(float(got[0, 0])) / want - 1))
        assert error <= 16 * np.finfo(dtype).eps


def test_gaps_are_exactly_symmetric_with_an_exact_diagonal():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(9, 5)))
    gap, cogap = jax.jit(pair_gaps)(x, x)
    assert (jnp.diag(gap) == 0).all()
    assert (gap == gap.T).all()
    assert (cogap == cogap.T).all()


def test_gaps_need_no_array_of_size_n_n_d():
    n, d = 300, 200
    compiled = jax.jit(pair_gaps).lower(jnp.ones((n, d)), jnp.ones((n, d))).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * (2 * n * n + 20 * n * d)


def test_log_variance_neither_overflows_nor_underflows():
    x = np.array([[1e200, 2e200], [3e-200, 1e-200], [1.0, 1.0], [0.0, 0.0]])
    got = log_variance(jnp.asarray(x))
    assert np.isnan(got[3])
    want = [np.log(2.5) + 400 * np.log(10), np.log(5) - 400 * np.log(10), 0.0]
    np.testing.assert_allclose(got[:3], want, rtol=1e-15, atol=1e-15)
    with_bias = log_variance(jnp.asarray(x), 1e-30)
    assert with_bias[3] == np.log(1e-30) - 60


BAD_INPUTS = [
    ([[1.0, np.nan]], "holds nan at row 0, column 1"),
    ([[1.0, 2.0], [np.inf, 1.0]], "holds inf at row 1, column 0"),
    ([[1.0, 2.0], [0.0, 0.0]], "only zeros in row 1"),
    ([1.0, 2.0], r"shape \(2,\)"),
    (np.ones((2, 2, 2)), r"shape \(2, 2, 2\)"),
    (np.ones((0, 3)), "non-empty"),
    (np.ones((3, 0)), "non-empty"),
    ([["a", "b"]], "dtype <U1"),
    ([[1j, 2.0]], "dtype complex128"),
    ([[True, False]], "dtype bool"),
    (np.ones((2, 2), np.float16), "dtype float16"),
    (jnp.ones((2, 2), jnp.bfloat16), "dtype bfloat16"),
    ([[1.0, 2.0], [3.0]], "not an array of numbers"),
    (None, "dtype object"),
]


@pytest.mark.parametrize(("x", "words"), BAD_INPUTS)
def test_bad_inputs_get_one_clear_line(x, words, as_users_run_it):
    with pytest.raises(ValueError, match=words) as caught:
        check_inputs("x1", x)
    assert str(caught.value).startswith("x1 ")
    assert "\n" not in str(caught.value)


def test_integers_become_the_default_float():
    assert check_inputs("x", np.array([[1, 2]])).dtype == np.float64
    with jax.enable_x64(False):
        assert check_inputs("x", np.array([[1, 2]])).dtype == np.float32


def test_angles_and_depths():
    assert check_angles("angles", [0, 1]).dtype == np.float64
    assert check_angles("angles", np.array([np.pi], np.float32)).size == 1
    assert check_depths("depths", [3, 1, 3]) == [1, 3]
    assert check_depths("depths", 5) == [5]
    for bad in ([-0.1], [3.2], [np.nan], [], [[1.0]], ["a"]):
        with pytest.raises(ValueError, match="angles"):
            check_angles("angles", bad)
    for bad in ([0], [1.5], [], [True], ["2"]):
        with pytest.raises(ValueError, match="depths"):
            check_depths("depths", bad)
