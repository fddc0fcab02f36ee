"""Angles between rows, to the last digits; and what is refused as an input."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from ntk_resnet._inputs import check_angles, check_depths, check_inputs
from ntk_resnet.kernels.norms import log_variances
from ntk_resnet.kernels.pairs import distances, gaps, prepare

mp.mp.dps = 50


def pair_gaps(a, b):
    """1 - cosine and 1 + cosine of all pairs of rows."""
    return gaps(near(prepare(a), prepare(b), len(a) + len(b), "split", True))


def wide_gaps(a, b):
    """The same by float64 products of float32 rows."""
    a, b = (prepare(x, wide=True) for x in (a, b))
    return gaps(near(a, b, len(a.x) + len(b.x), "split", True))


near = jax.jit(distances, static_argnums=(3, 4))


def exact_cosine(a, b):
    a, b = (
        [v if isinstance(v, mp.mpf) else mp.mpf(float(v)) for v in row]
        for row in (a, b)
    )
    return mp.fdot(a, b) / mp.sqrt(mp.fdot(a, a) * mp.fdot(b, b))


@pytest.mark.parametrize(
    ("dtype", "angle"),
    [(np.float64, a) for a in (1.0, 1e-2, 1e-5, 1e-7)]
    + [(np.float32, a) for a in (1.0, 1e-1, 1e-2, 1e-5, 1e-7)],
)
@pytest.mark.parametrize("size", [1.0, 1.37, 1e-12, 1e15])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("compute", [pair_gaps, wide_gaps, jax.jit(pair_gaps)])
def test_gaps_of_near_duplicates_are_exact(dtype, angle, size, sign, compute):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 64))
    x /= np.linalg.norm(x)
    y -= (y @ x) * x
    y /= np.linalg.norm(y)
    a = x.astype(dtype)
    b = (sign * size * (np.cos(angle) * x + np.sin(angle) * y)).astype(dtype)
    gap, supplement_gap = compute(a[None], b[None])
    u = exact_cosine(a, b)
    for got, want in ((gap, 1 - u), (supplement_gap, 1 + u)):
        error = float(abs(mp.mpf(float(got[0, 0])) / want - 1))
        assert error <= 16 * np.finfo(dtype).eps


def test_an_input_is_at_no_distance_from_itself():
    rows = prepare(np.random.default_rng(1).normal(size=(9, 5)))
    found = near(rows, rows, 0, "split", True)
    assert (jnp.diag(found.lesser) == 0).all()
    assert (found.lesser + jnp.eye(9) > 0).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_derivatives_keep_the_digits_of_near_duplicates(dtype):
    """By differences of the rows, against 50 digits, at every angle."""
    rng = np.random.default_rng(2)
    x, along = rng.normal(size=(2, 1, 8)).astype(dtype)
    steps = np.array([1.0, 1e-2, 1e-4, 1e-6])[:, None]
    y = (x + steps * rng.normal(size=(4, 8))).astype(dtype)
    y = np.concatenate([y, -y])

    def lesser(x):
        return near(prepare(x), prepare(y), 99, "split", True).lesser

    got = jax.jvp(lesser, (jnp.asarray(x),), (jnp.asarray(along),))[1][0]
    weights = np.arange(1, 9).astype(dtype)
    back = jax.grad(lambda x: lesser(x)[0] @ weights)(jnp.asarray(x))
    exact = []
    for row in y:
        sign = 1 if row @ x[0] > 0 else -1
        h = mp.mpf(10) ** -20
        ahead, behind = (
            1
            - sign
            * exact_cosine(
                [
                    mp.mpf(float(a)) + s * h * mp.mpf(float(b))
                    for a, b in zip(x[0], along[0], strict=True)
                ],
                row,
            )
            for s in (1, -1)
        )
        exact.append(float((ahead - behind) / (2 * h)))
    size = np.linalg.norm(along) / np.linalg.norm(x)
    chord = np.sqrt(2 * np.asarray(lesser(jnp.asarray(x))[0]))
    eps = np.finfo(dtype).eps
    assert (np.abs(got - np.array(exact)) <= 32 * eps * size * chord).all()
    want = np.array(exact) @ weights
    assert abs(float(back[0] @ along[0]) - want) <= 64 * eps * size * (chord @ weights)


def test_gaps_need_no_array_of_size_n_n_d():
    n, d = 300, 200
    x, numbers = jnp.ones((n, d)), 2 * n * n + 30 * n * d
    for function in (pair_gaps, jax.grad(lambda a, b: pair_gaps(a, b)[0].sum())):
        compiled = jax.jit(function).lower(x, x).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < 8 * numbers


def test_log_variance_neither_overflows_nor_underflows():
    x = np.array([[1e200, 2e200], [3e-200, 1e-200], [1.0, 1.0], [0.0, 0.0]])
    want = [np.log(2.5) + 400 * np.log(10), np.log(5) - 400 * np.log(10), 0.0]
    for compute in (log_variances, jax.jit(log_variances, static_argnums=1)):
        got = compute(x)
        assert np.isnan(got[3])
        np.testing.assert_allclose(got[:3], want, rtol=1e-15, atol=1e-15)
        assert compute(x, 1e-30)[3] == np.log(1e-30) - 60


TINY = {"float32": [1e-37, 3e-39, 1e-42], "float64": [1e-306, 3e-309, 1e-318]}


@pytest.mark.parametrize("dtype", TINY)
@pytest.mark.parametrize("size", [0, 1, 2, "huge"])
def test_tiny_and_huge_rows_have_their_angles(dtype, size):
    """Also where entries are subnormal; in a trace those are NaN, not wrong."""
    rng, limits = np.random.default_rng(3), np.finfo(dtype)
    factor = limits.max / 8 if size == "huge" else TINY[dtype][size]
    x = (rng.normal(size=(2, 6)) * factor).astype(dtype)
    want = float(1 - exact_cosine(*x))
    got = pair_gaps(x[:1], x[1:])[0][0, 0]
    assert abs(got / want - 1) <= 16 * limits.eps
    norm = float(mp.log(mp.fsum(mp.mpf(float(v)) ** 2 for v in x[0]) / 6))
    assert abs(log_variances(x)[0] / norm - 1) <= 4 * limits.eps
    traced = jax.jit(lambda x: prepare(x).log_variance)(x)
    flushed = ((np.abs(x) < limits.tiny) & (x != 0)).any(axis=1)
    np.testing.assert_array_equal(np.isnan(traced), flushed)
    if not flushed[0]:
        np.testing.assert_allclose(traced[0], norm, rtol=4 * limits.eps)


def test_what_is_flushed_beside_larger_numbers_does_not_matter():
    x = np.array([[1.0, 1e-40], [1e-20, 1e-44]], np.float32)
    assert np.isfinite(jax.jit(lambda x: prepare(x).log_variance)(x)).all()


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
