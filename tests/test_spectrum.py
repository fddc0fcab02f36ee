"""Dense spectra: values, summaries, and matrices that are not a kernel's."""

import numpy as np
import pytest

import ntk_resnet as nr

RNG = np.random.default_rng(0)


def matrix_with(eigenvalues):
    turn = np.linalg.qr(RNG.normal(size=(len(eigenvalues),) * 2))[0]
    matrix = turn * eigenvalues @ turn.T
    return (matrix + matrix.T) / 2


def test_known_eigenvalues():
    values = np.array([5.0, 2.0, 1.0, 0.1])
    found = nr.spectrum(matrix_with(values))
    bound = float(found.error_bound)
    np.testing.assert_allclose(found.eigenvalue, values, rtol=0, atol=bound)
    np.testing.assert_allclose(found.condition_number, 50, rtol=50 * bound)
    np.testing.assert_allclose(found.trace, 8.1, rtol=1e-14)
    weights = values / values.sum()
    np.testing.assert_allclose(
        found.effective_rank, np.exp(-(weights * np.log(weights)).sum()), rtol=1e-13
    )


def test_the_degenerate_limit():
    """(3/4) I + (1/4) 11': condition number (n+3)/3, and not (n+4)/3."""
    n = 30
    found = nr.spectrum(0.75 * np.eye(n) + 0.25)
    np.testing.assert_allclose(found.condition_number, (n + 3) / 3, rtol=1e-10)
    np.testing.assert_allclose(found.eigenvalue[1:], 0.75, rtol=1e-13)


def test_singular_matrices_are_named_as_such():
    ones = nr.spectrum(np.ones((4, 4)))
    assert np.isinf(ones.condition_number)
    np.testing.assert_allclose(ones.effective_rank, 1, rtol=1e-12)


def test_float32_keeps_its_dtype_and_float64_its_digits_without_x64():
    import jax

    with jax.enable_x64(False):
        assert nr.spectrum(np.eye(3, dtype=np.float32)).eigenvalue.dtype == np.float32
        assert nr.spectrum(np.eye(3)).eigenvalue.dtype == np.float64


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.ones((2, 3)), "square"),
        (np.ones((0, 0)), "square"),
        (np.ones(3), "square"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "NaN or infinity"),
        (np.array([[1.0, 0.5], [0.4, 1.0]]), "differs from its transpose"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), "below zero by more than rounding"),
        (np.zeros((2, 2)), "all zeros"),
        (np.eye(2, dtype=int), "dtype int64"),
        ([["a"]], "dtype <U1"),
    ],
)
def test_bad_matrices_get_one_clear_line(matrix, words, as_users_run_it):
    with pytest.raises(ValueError, match=words) as caught:
        nr.spectrum(matrix)
    assert "\n" not in str(caught.value)
