"""Learning curves: against 50 digits, random-matrix identities, and regressions."""

import mpmath
import numpy as np
import pytest
from scipy import special

import ntk_resnet as nr
from ntk_resnet.analysis.early_stopping import early_stopping
from ntk_resnet.analysis.learning_curve import learning_curve
from ntk_resnet.analysis.learning_trials import (
    learning_curve_on_data,
    learning_curve_on_sphere,
)
from ntk_resnet.analysis.regression import kernel_ridge
from ntk_resnet.data.datasets import targets

RNG = np.random.default_rng(0)
VALUES = 1.0 / np.arange(1, 201) ** 2
ONES = np.ones(200)
POWER = 1.0 / np.arange(1, 201) ** 1.5


def exact_ridge(values, counts, shift, n):
    """kappa, with 50 digits, by bisection."""
    with mpmath.workdps(50):
        values = [mpmath.mpf(float(v)) for v in values]
        counts = [mpmath.mpf(float(c)) for c in counts]
        shift = mpmath.mpf(shift)
        equation = lambda kappa: (  # noqa: E731
            mpmath.fsum(
                c * v / (v + kappa) for v, c in zip(values, counts, strict=True)
            )
            + shift / kappa
            - n
        )
        low = (mpmath.fdot(values, counts) + shift) / n
        while equation(low) < 0:
            low /= 2
        high = 2 * low
        for _ in range(60):  # bisection, to 1e-18
            middle = (low + high) / 2
            low, high = (middle, high) if equation(middle) > 0 else (low, middle)
        return low


# ------------------------------------------------------------------------ the equations


@pytest.mark.parametrize(
    ("ridge", "tail", "n"),
    [(0.0, 0.0, 20), (1e-3, 0.0, 50), (0.0, 1e-2, 500), (5.0, 0, 3)],
)
def test_the_effective_ridge_to_twelve_digits(ridge, tail, n):
    found = learning_curve(VALUES, ONES, POWER, [n], ridge=ridge, tail=float(tail))
    shift = mpmath.mpf(ridge) * (mpmath.fsum(VALUES.tolist()) + tail) + tail
    expected = float(exact_ridge(VALUES, ONES, shift, n))
    np.testing.assert_allclose(found.effective_ridge, [expected], rtol=1e-12)


def test_eigenvalues_that_fall_over_hundreds_of_decades():
    values = 10.0 ** -np.arange(0, 290, 10)
    counts = 10.0 ** np.arange(29)
    found = learning_curve(values, counts, values, [1, 1000, 10**6])
    for n, kappa in zip(found.n.values, found.effective_ridge.values, strict=True):
        expected = float(exact_ridge(values, counts, 0, int(n)))
        np.testing.assert_allclose(kappa, expected, rtol=1e-12)


@pytest.mark.quick
def test_one_eigenvalue_is_solved_by_hand():
    """N equal eigenvalues 1/N without ridge: kappa = 1/n - 1/N, L = n/N."""
    found = learning_curve([0.01], [100], [2.0], [25, 50], noise=0.5)
    share = np.array([0.25, 0.5])
    np.testing.assert_allclose(found.effective_ridge, 0.01 / share - 0.01, rtol=1e-12)
    np.testing.assert_allclose(found.learnability[:, 0], share, rtol=1e-12)
    np.testing.assert_allclose(found.overfitting, 1 / (1 - share), rtol=1e-12)
    expected = ((1 - share) ** 2 * 2 + 0.5) / (1 - share)
    np.testing.assert_allclose(found.test_mse, expected, rtol=1e-12)
    assert (found.train_mse == 0).all()


def test_more_examples_than_modes_is_least_squares():
    """Noise s^2: the test error s^2 n/(n - p), the training error s^2 (1 - p/n)."""
    found = learning_curve([1.0, 0.5], [3, 2], [1.0, 1.0], [4, 5, 10], noise=0.1)
    assert found.effective_ridge[0] > 0
    np.testing.assert_array_equal(found.effective_ridge[1:], 0)
    assert np.isinf(found.test_mse[1])
    assert float(found.train_mse[1]) == 0
    np.testing.assert_allclose(found.test_mse[2], 0.1 * 10 / 5, rtol=1e-14)
    np.testing.assert_allclose(found.train_mse[2], 0.1 * (1 - 5 / 10), rtol=1e-14)


def test_the_training_error_is_continuous_in_the_ridge():
    zero = learning_curve([1.0, 0.5], [3, 2], [1.0, 1.0], [10], noise=0.1)
    small = learning_curve([1.0, 0.5], [3, 2], [1.0, 1.0], [10], noise=0.1, ridge=1e-12)
    np.testing.assert_allclose(small.train_mse, zero.train_mse, rtol=1e-9)
    np.testing.assert_allclose(small.test_mse, zero.test_mse, rtol=1e-9)


def test_learnabilities_and_the_ridge_share_the_examples():
    """sum N L + (delta + tail)/kappa = n, and L falls with the eigenvalue."""
    found = learning_curve(VALUES, 2 * ONES, POWER, [5, 40, 300], ridge=1e-2, tail=0.1)
    trace = 2 * VALUES.sum() + 0.1
    shared = 2 * found.learnability.sum("mode")
    shared += (0.01 * trace + 0.1) / found.effective_ridge
    np.testing.assert_allclose(shared, [5, 40, 300], rtol=1e-12)
    assert (found.learnability.diff("mode") < 0).all()
    assert (found.learnability.diff("n") > 0).all()


def test_a_long_tail_acts_as_a_ridge():
    """Small eigenvalues, listed or as a tail: the difference is of the order L."""
    values = np.concatenate([VALUES[:20], np.full(100_000, 1e-8)])
    power = np.concatenate([POWER[:20], np.zeros(100_000)])
    listed = learning_curve(values, np.ones_like(values), power, [10, 100], noise=0.1)
    tail = learning_curve(
        VALUES[:20], ONES[:20], POWER[:20], [10, 100], noise=0.1, tail=1e-3
    )
    size = float(listed.learnability[:, -1].max())
    assert size < 2e-3
    np.testing.assert_allclose(tail.test_mse, listed.test_mse, rtol=4 * size)
    np.testing.assert_allclose(
        tail.effective_ridge, listed.effective_ridge, rtol=4 * size
    )


def test_gaussian_features_do_as_predicted():
    """The setting of the theory: 30 regressions, within 3 standard errors."""
    n, trials, noise, ridge = 60, 30, 0.1, 1e-2
    predicted = learning_curve(VALUES, ONES, POWER, [n], ridge=ridge, noise=noise)
    shift = ridge * VALUES.sum()
    errors = []
    for rng in np.random.default_rng(1).spawn(trials):
        weights = np.sqrt(POWER) * rng.choice([-1.0, 1.0], 200)
        phi = rng.normal(size=(n, 200))
        y = phi @ weights + np.sqrt(noise) * rng.normal(size=n)
        dual = np.linalg.solve(phi * VALUES @ phi.T + shift * np.eye(n), y)
        missed = weights - VALUES * (phi.T @ dual)
        errors.append([missed @ missed + noise, np.mean((shift * dual) ** 2)])
    mean = np.mean(errors, axis=0)
    error = np.std(errors, axis=0, ddof=1) / np.sqrt(trials)
    wanted = [float(predicted.test_mse[0]), float(predicted.train_mse[0])]
    assert (np.abs(mean - wanted) < 3 * error).all()
    assert (error < 0.1 * np.array(wanted)).all()


# -------------------------------------------------------------------------- the sphere

FAMILIES = {
    "plain 1": nr.FeedForward(depth=1),
    "plain 10": nr.FeedForward(depth=10),
    "plain 100": nr.FeedForward(depth=100),
    "residual 1/2": nr.ResNet(depth=100, branch_scale=nr.DepthScale(0.5)),
    "residual 1": nr.ResNet(depth=100, branch_scale=nr.DepthScale(1.0)),
}
TARGET = {1: 0.5, 2: 0.3, 3: 0.2}


def check_sphere(spec, sizes, trials, seed):
    found = learning_curve_on_sphere(
        spec, 10, sizes, TARGET,
        ridge=1e-3, noise=0.05, trials=trials, max_degree=40, seed=seed,
    )  # fmt: skip
    off = np.abs(found.measured_test_mse - found.test_mse)
    allowed = np.maximum(0.05 * found.test_mse, 3 * found.measured_test_mse_error)
    assert (off <= allowed).all(), found.measured_test_mse / found.test_mse
    return found


def test_the_sphere_does_as_predicted():
    """Within 5 % or 3 standard errors, the latter no excuse: they are small."""
    found = check_sphere(FAMILIES["residual 1/2"], [50, 150], 12, 0)
    assert (found.measured_test_mse_error < 0.1 * found.test_mse).all()
    assert found.learnability.dims == ("n", "degree")
    # Targets of degree 1 to 3, learned in this order.
    learned = found.learnability.sel(n=150)
    assert learned[1] > 0.9 > learned[2] > learned[3]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_all_families_do_as_predicted_on_the_sphere(family):
    check_sphere(FAMILIES[family], [50, 100, 200, 400], 40, 1)


def test_powers_of_targets_are_exact():
    """Variances of the zonal functions over the sphere, by quadrature in one angle."""
    from ntk_resnet.analysis.learning_trials import _gegenbauer

    for dim in (2, 3, 10):
        t, weight = special.roots_gegenbauer(60, (dim - 2) / 2 or 1e-9)
        weight = weight / weight.sum()
        for degree in (1, 2, 5):
            count = 2 if dim == 2 else round(
                (2 * degree + dim - 2) / degree
                * special.comb(degree + dim - 3, degree - 1, exact=True)
            )  # fmt: skip
            power = count * weight @ _gegenbauer(degree, dim, t) ** 2
            np.testing.assert_allclose(power, 1, rtol=1e-6 if dim == 2 else 1e-11)


@pytest.mark.quick
def test_same_seed_same_numbers_and_progress():
    ticks = []
    options = {"trials": 2, "test": 20, "max_degree": 30}
    args = nr.FeedForward(depth=2), 5, [10, 20], {1: 1.0}
    first = learning_curve_on_sphere(
        *args, progress=lambda *a: ticks.append(a), **options
    )
    second = learning_curve_on_sphere(*args, **options)
    np.testing.assert_array_equal(first.measured_test_mse, second.measured_test_mse)
    assert ticks == [(1, 2, "trials"), (2, 2, "trials")]


# -------------------------------------------------------------------------------- data


def random_population(m):
    """A kernel and targets with eigenvectors in random directions, and its parts."""
    values = 200.0 / np.arange(1, m + 1) ** 1.5
    vectors = np.linalg.qr(RNG.normal(size=(m, m)))[0]
    weights = RNG.choice([-1.0, 1.0], m) / np.arange(1, m + 1) ** 0.8
    return values, vectors, np.sqrt(m) * weights


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_rows_left_out_are_predicted_at_any_share(shift):
    """Eigenvectors in random directions: 60 draws, within 3 standard errors.

    Also where half and nine tenths of all rows are trained on.
    """
    from ntk_resnet.analysis.learning_trials import _predict_the_rest

    m, sizes, draws = 100, [10, 50, 90], 60
    found = np.empty((draws, len(sizes), 2))
    for draw in range(draws):
        values, vectors, weights = random_population(m)
        kernel, y = vectors * values @ vectors.T, vectors @ weights
        for at, n in enumerate(sizes):
            dual = np.linalg.solve(kernel[:n, :n] + shift * np.eye(n), y[:n])
            found[draw, at] = (
                np.mean((y[n:] - kernel[n:, :n] @ dual) ** 2),
                np.mean((shift * dual) ** 2),
            )
    predicted = _predict_the_rest(values, weights**2 / m, sizes, shift)
    mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(draws)
    for at, name in enumerate(("test_mse", "train_mse")):
        off = np.abs(mean[:, at] - predicted[name])
        assert (off <= 3 * error[:, at]).all()
        assert (error[:, at] <= 0.1 * mean[:, at]).all()


def test_all_but_one_row_is_generalised_cross_validation():
    """Exactly, but for n/m: |A y|^2 m / (tr A)^2 with A = (K + delta)^-1."""
    from ntk_resnet.analysis.learning_trials import _predict_the_rest

    m, shift = 300, 0.5
    values, _, weights = random_population(m)
    found = _predict_the_rest(values, weights**2 / m, [m - 1], shift)
    inverse = 1 / (values + shift)
    expected = m * np.sum((weights * inverse) ** 2) / inverse.sum() ** 2
    np.testing.assert_allclose(found.test_mse, [expected], rtol=0.02)


def test_learnabilities_of_rows_left_out_sum_to_zero():
    """Their kernel with the training rows has no diagonal."""
    from ntk_resnet.analysis.learning_trials import _predict_the_rest

    values, _, weights = random_population(50)
    found = _predict_the_rest(values, weights**2, [10, 30], 0.1)
    assert (np.abs(found.learnability.sum("mode")) < 1e-11).all()
    assert (found.learnability[:, 0] > 0.8).all()


def digits():
    data = nr.load_data("digits")
    return data.x, targets(data)


@pytest.mark.quick
def test_the_digits_do_as_predicted():
    """Within 10 %: a tenth of the rows, with standard errors below 3 %."""
    x, y = digits()
    found = learning_curve_on_data(
        FAMILIES["plain 10"], x[:1000], y[:1000], [50, 100], ridge=1e-2, trials=12
    )
    np.testing.assert_allclose(found.measured_test_mse, found.test_mse, rtol=0.1)
    assert (found.measured_test_mse_error < 0.03 * found.test_mse).all()
    assert found.sizes == {"n": 2, "mode": 1000}


# ---------------------------------------------------------------------- early stopping


@pytest.mark.quick
def test_early_stopping_follows_the_exponentials():
    """One eigenvector and one test point: errors in closed form, by hand."""
    k_train, k_test = np.diag([2.0, 0.5]), np.array([[2.0, 0.0]])
    y, y_test = np.array([1.0, 1.0]), np.array([0.5])
    times = np.array([0.0, 1.0, 2.0])
    found = early_stopping(k_train, k_test, y, y_test, times)
    learned = 1 - np.exp(-np.outer(times, [1.0, 0.25]))
    np.testing.assert_allclose(
        found.train_mse, ((1 - learned) ** 2).mean(1), rtol=1e-13
    )
    np.testing.assert_allclose(found.test_mse, (learned[:, 0] - 0.5) ** 2, atol=1e-14)
    assert float(found.best_time) == 1.0
    # By itself it finds ln 2, where the test point is fitted exactly.
    found = early_stopping(k_train, k_test, y, y_test)
    np.testing.assert_allclose(found.best_time, np.log(2), rtol=0.05)
    assert found.best_test_mse < 1e-3
    np.testing.assert_allclose(found.test_mse[-1], 0.25, rtol=1e-13)


def test_the_end_of_training_is_regression_without_ridge():
    x, x_test = RNG.normal(size=(2, 20, 4))
    y, y_test = RNG.normal(size=(2, 20, 3))
    spec = FAMILIES["plain 10"]
    k_train, k_test = nr.gram(spec, x), nr.gram(spec, x_test, x)
    found = early_stopping(k_train, k_test, y, y_test)
    end = np.mean((kernel_ridge(k_train, k_test, y, ridge=0.0) - y_test) ** 2)
    np.testing.assert_allclose(found.test_mse[-1], end, rtol=1e-10)
    np.testing.assert_allclose(found.test_mse[0], np.mean(y_test**2), rtol=1e-13)
    np.testing.assert_allclose(found.train_mse[-1], 0, atol=1e-20)
    assert (np.diff(found.train_mse) <= 1e-15).all()
    assert float(found.best_test_mse) == float(found.test_mse.min())


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eigenvalues": [-1.0, 1.0]}, "eigenvalues must be finite and >= 0"),
        ({"multiplicities": [np.inf, 1.0]}, "multiplicities must be finite and >= 0"),
        ({"target_power": [1.0]}, "have 2, 2 and 1 entries"),
        ({"eigenvalues": [0.0, 0.0]}, "all zero"),
        ({"eigenvalues": []}, "non-empty"),
        ({"sizes": [0]}, "sizes must be at least 1"),
        ({"sizes": [1.5]}, "sizes must be whole numbers"),
        ({"ridge": -1.0}, "ridge must be a finite number"),
        ({"noise": np.nan}, "noise must be a finite number"),
        ({"tail": -1.0}, "tail must be a finite number"),
    ],
)
def test_bad_spectra(changes, words, as_users_run_it):
    given = {
        "eigenvalues": [1.0, 0.5],
        "multiplicities": [1, 2],
        "target_power": [1.0, 1.0],
        "sizes": [3],
    } | changes
    with pytest.raises(ValueError, match=words) as caught:
        learning_curve(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": {50: 1.0}}, "beyond max_degree"),
        ({"target": {1: 0.0}}, "no power"),
        ({"target": {1: -1.0}}, r"target\[1\] must be a finite number"),
        ({"trials": 1}, "trials must be at least 2"),
        ({"dim": 1}, "dim must be at least 2"),
        ({"max_degree": 3, "sizes": [5000]}, "too near the effective ridge"),
        ({"spec": 3}, "spec must be a network"),
    ],
)
def test_bad_spheres(changes, words, as_users_run_it):
    given = {
        "spec": FAMILIES["plain 10"],
        "dim": 3,
        "sizes": [5],
        "target": {1: 1.0},
        "max_degree": 10,
        "trials": 2,
    } | changes
    with pytest.raises(ValueError, match=words) as caught:
        learning_curve_on_sphere(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sizes": [20]}, "leaves none of the 20 rows"),
        ({"y": np.ones(3)}, r"targets has shape \(3,\)"),
        ({"x": np.full((20, 3), np.nan)}, "x holds nan"),
        ({"trials": 1}, "trials must be at least 2"),
    ],
)
def test_bad_data(changes, words, as_users_run_it):
    given = {
        "spec": FAMILIES["plain 1"],
        "x": RNG.normal(size=(20, 3)),
        "y": np.ones(20),
        "sizes": [5],
    } | changes
    with pytest.raises(ValueError, match=words) as caught:
        learning_curve_on_data(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("y_test", "words"),
    [
        (np.ones(3), r"y_test has shape \(3,\)"),
        (np.ones((2, 1)), r"y_test has shape \(2, 1\)"),
        (np.array([1.0, np.nan]), "y_test holds nan"),
    ],
)
def test_bad_test_targets(y_test, words, as_users_run_it):
    with pytest.raises(ValueError, match=words) as caught:
        early_stopping(np.eye(4), np.ones((2, 4)), np.ones(4), y_test)
    assert "\n" not in str(caught.value)


def test_modes_that_the_kernel_lacks_and_as_many_examples_as_modes():
    """No ridge, and an eigenvalue of 0: its power is missed, and multiplied by E_0."""
    found = learning_curve([0.0, 1.0], [5, 5], [1.0, 1.0], [5, 6])
    np.testing.assert_array_equal(found.effective_ridge, [0, 0])
    np.testing.assert_array_equal(found.test_mse, [np.inf, 6.0])
    np.testing.assert_array_equal(found.learnability, [[0, 1], [0, 1]])


def test_a_ridge_below_all_numbers_is_refused():
    with pytest.raises(ValueError, match="below the range of float64"):
        learning_curve([1.0], [5], [1.0], [6], ridge=1e-320)


@pytest.mark.parametrize("target", [[1, 2], None])
def test_targets_that_are_no_mapping(target, as_users_run_it):
    with pytest.raises(ValueError, match="target must be the power by degree"):
        learning_curve_on_sphere(nr.FeedForward(depth=1), 3, [5], target)


def test_early_stopping_needs_times_and_rows(as_users_run_it):
    with pytest.raises(ValueError, match="times is empty"):
        early_stopping(np.eye(2), np.eye(2), np.ones(2), np.ones(2), [])
    with pytest.raises(ValueError, match="y_test is empty"):
        early_stopping(np.eye(2), np.ones((0, 2)), np.ones(2), np.ones(0))
