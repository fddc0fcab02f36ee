"""Kernel ridge regression and gradient flow, against linear algebra and theory."""

import numpy as np
import pytest
import scipy.linalg

from ntk_resnet.analysis.regression import gradient_flow, kernel_ridge


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 4))
    kernel = np.exp(-((x[:, None] - x) ** 2).sum(-1) / 4)
    return kernel[:8, :8], kernel[8:, :8], rng.normal(size=(8, 2))


def test_ridge_is_relative_to_the_mean_diagonal(problem):
    train, test, y = problem
    expected = test @ np.linalg.solve(train + 0.3 * np.eye(8), y)
    np.testing.assert_allclose(
        kernel_ridge(5 * train, 5 * test, y, ridge=0.3), expected, rtol=1e-12
    )
    one = kernel_ridge(train, test, y[:, 0], ridge=0.3)
    assert one.shape == (4, 1)
    np.testing.assert_allclose(one[:, 0], expected[:, 0], rtol=1e-12)


@pytest.mark.parametrize("ridge", [0.0, 0.01, 3.0])
def test_limit_gram_predicts_a_constant(ridge):
    """Huang et al. 2020: f = n ybar / (n + 3 + 4 delta), condition number 1 + n/3."""
    n = 50
    gram = 0.75 * np.eye(n) + 0.25
    y = np.random.default_rng(1).normal(size=n) + 1
    prediction = kernel_ridge(gram, np.full((7, n), 0.25), y, ridge=ridge)
    expected = n * y.mean() / (n + 3 + 4 * ridge)
    np.testing.assert_allclose(prediction, expected, rtol=1e-10)
    assert np.linalg.cond(gram) == pytest.approx(1 + n / 3, rel=1e-10)


def test_singular_kernel_gives_the_minimum_norm_solution(problem):
    train, test, y = problem
    twice = np.r_[0:8, 0:8]  # every row twice: rank 8 of 16
    result = kernel_ridge(
        train[np.ix_(twice, twice)], test[:, twice], y[twice], ridge=0.0
    )
    expected = kernel_ridge(train, test, y, ridge=0.0)
    np.testing.assert_allclose(result, expected, rtol=1e-9)
    flow = gradient_flow(
        train[np.ix_(twice, twice)], test[:, twice], y[twice], [np.inf]
    )
    np.testing.assert_allclose(flow.test[0], expected, rtol=1e-9)


def test_gradient_flow_is_the_matrix_exponential(problem):
    train, test, y = problem
    rng = np.random.default_rng(2)
    f0, g0 = rng.normal(size=y.shape), rng.normal(size=(4, 2))
    times = np.array([0, 1e-9, 0.1, 7.0, 300.0])
    flow = gradient_flow(train, test, y, times, initial_train=f0, initial_test=g0)
    assert flow.train.shape == (5, 8, 2)
    assert flow.test.shape == (5, 4, 2)
    for t, f, g in zip(times, *flow, strict=True):
        change = (np.eye(8) - scipy.linalg.expm(-train * t / y.size)) @ (y - f0)
        np.testing.assert_allclose(f, f0 + change, rtol=1e-11, atol=1e-13)
        expected = g0 + test @ np.linalg.solve(train, change)
        np.testing.assert_allclose(g, expected, rtol=1e-9, atol=1e-12)


def test_gradient_flow_from_start_to_end(problem):
    train, test, y = problem
    start = gradient_flow(train, test, y, 0.0, initial_train=1.0, initial_test=2.0)
    np.testing.assert_array_equal(start.train, np.ones((1, 8, 2)))
    np.testing.assert_array_equal(start.test, np.full((1, 4, 2), 2.0))
    end = gradient_flow(train, test, y, [np.inf])
    np.testing.assert_allclose(end.train[0], y, rtol=1e-10)
    np.testing.assert_allclose(
        end.test[0], kernel_ridge(train, test, y, ridge=0.0), rtol=1e-9
    )


def test_short_times_lose_no_digits(problem):
    train, test, y = problem
    flow = gradient_flow(train, test, y, [1e-14])
    np.testing.assert_allclose(flow.train[0], train @ y * 1e-14 / y.size, rtol=1e-10)
    np.testing.assert_allclose(flow.test[0], test @ y * 1e-14 / y.size, rtol=1e-10)


@pytest.mark.quick
def test_equals_neural_tangents(problem):
    pytest.importorskip(
        "ntk_resnet.reference.neural_tangents",
        reason="the bridge to neural-tangents is absent",
    )
    import ntk_resnet as nr

    nt = nr.neural_tangents
    train, test, y = problem
    times, f0, g0 = np.array([0.0, 0.5, 20.0, 1000.0]), 0.3 * y, np.ones((4, 2))
    predict = nt.predict.gradient_descent_mse(train, y)
    theirs = predict(times, f0, g0, test)
    ours = gradient_flow(train, test, y, times, initial_train=f0, initial_test=g0)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-11)
    ridged = nt.predict.gradient_descent_mse(train, y, diag_reg=0.1)
    _, final = ridged(None, 0.0, 0.0, test)
    np.testing.assert_allclose(
        kernel_ridge(train, test, y, ridge=0.1), final, rtol=1e-10
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"k_train": np.ones((8, 7))}, "k_train has shape"),
        ({"k_train": np.ones((0, 0))}, "k_train has shape"),
        ({"k_train": np.full((8, 8), np.nan)}, "k_train holds nan"),
        ({"k_train": np.triu(np.ones((8, 8)))}, "differs from its transpose"),
        ({"k_train": 1 - 2 * np.eye(8)}, "not positive semidefinite"),
        ({"k_test": np.ones((4, 7))}, "k_test has shape"),
        ({"k_test": np.full((4, 8), np.inf)}, "k_test holds inf"),
        ({"k_test": [[1.0], [1.0, 2.0]]}, "k_test is not an array"),
        ({"y": np.ones(7)}, "y has shape"),
        ({"y": np.ones((8, 0))}, "y has shape"),
        ({"y": np.ones((8, 1), complex)}, "y has dtype"),
    ],
)
def test_bad_arguments_are_named(problem, changes, text):
    given = dict(zip(("k_train", "k_test", "y"), problem, strict=True)) | changes
    with pytest.raises(ValueError, match=text):
        kernel_ridge(**given, ridge=0.0)
    with pytest.raises(ValueError, match=text):
        gradient_flow(**given, times=[1.0])


@pytest.mark.parametrize("ridge", [-0.1, np.nan, np.inf])
def test_bad_ridge_is_named(problem, ridge):
    with pytest.raises(ValueError, match="ridge must be a finite number"):
        kernel_ridge(*problem, ridge=ridge)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"times": [-1.0]}, "times must be"),
        ({"times": [np.nan]}, "times holds nan"),
        ({"times": [[1.0]]}, "times must be"),
        ({"initial_train": np.ones(3)}, "initial_train has shape"),
        ({"initial_test": np.nan}, "initial_test holds nan"),
    ],
)
def test_bad_times_and_starts_are_named(problem, changes, text):
    with pytest.raises(ValueError, match=text):
        gradient_flow(*problem, **{"times": [1.0]} | changes)
