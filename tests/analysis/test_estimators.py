"""The estimators, against scikit-learn's checks, linear algebra and brute force."""

import itertools
import pickle

import jax
import numpy as np
import pytest
import scipy.stats
from marks import slow_but_for
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import ntk_resnet as nr
from ntk_resnet.analysis import estimators
from ntk_resnet.analysis.estimators import NTKClassifier, NTKRegressor

SPEC = nr.ResNet(depth=30, branch_scale=nr.DepthScale(0.5))
RNG = np.random.default_rng(0)
X, NEW = RNG.standard_normal((24, 4)), RNG.standard_normal((6, 4))
Y = np.stack([X[:, 0] * X[:, 1], np.abs(X[:, 2])], axis=1) + 0.1 * X[:, 3:]
LABELS = np.array(["left", "middle", "right"])[np.digitize(X[:, 0], [-0.4, 0.4])]


@pytest.mark.usefixtures("as_users_run_it")  # the checks pass anything to __init__
@parametrize_with_checks([NTKRegressor()])
def test_scikit_learn_checks_of_the_regressor(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_run_it")
@parametrize_with_checks(
    [NTKClassifier(), NTKRegressor(solver="cg"), NTKClassifier(solver="cg")]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def kernel(x, x2=None, **how):
    return np.asarray(nr.kernel_fn(SPEC, **how)(x, x2))


def noisy(ridge, **how):
    matrix = kernel(X, **how)
    return matrix + ridge * np.trace(matrix) / len(X) * np.eye(len(X))


# --------------------------------------------------------------------------- regression


@pytest.mark.quick
@pytest.mark.parametrize(
    ("solver", "normalised"),
    slow_but_for(
        itertools.product(("cholesky", "cg"), (True, False)),
        {("cholesky", True), ("cg", False)},
    ),
)
def test_predictions_are_those_of_kernel_ridge(solver, normalised):
    model = NTKRegressor(
        SPEC, ridge=0.01, solver=solver, normalised=normalised, tol=1e-12
    ).fit(X, Y)
    how = {"normalised": normalised}
    expected = kernel(NEW, X, **how) @ np.linalg.solve(noisy(0.01, **how), Y)
    # The condition number is about 1e3, the entries are accurate to 1e-11.
    np.testing.assert_allclose(model.predict(NEW), expected, rtol=1e-7, atol=1e-8)
    one = clone(model).fit(X, Y[:, 0])
    assert one.predict(NEW).shape == (6,)
    np.testing.assert_allclose(one.predict(NEW), expected[:, 0], rtol=1e-7, atol=1e-8)
    assert model.solver_ == solver
    assert model.residual_ <= 1e-12


def test_the_raw_kernel_gives_the_predictions_of_neural_tangents():
    nt = nr.neural_tangents
    _, _, theirs = nr.stax(SPEC)
    predict = nt.predict.gradient_descent_mse_ensemble(theirs, X, Y, diag_reg=0.01)
    expected = predict(x_test=NEW, get="ntk")
    model = NTKRegressor(SPEC, ridge=0.01, normalised=False).fit(X, Y)
    np.testing.assert_allclose(model.predict(NEW), expected, rtol=1e-7, atol=1e-8)


def test_normalisation_does_not_matter_on_the_sphere():
    x = X / np.linalg.norm(X, axis=1, keepdims=True)
    first, second = (
        NTKRegressor(SPEC, normalised=n).fit(x, Y).predict(x[:5] + 0.0)
        for n in (True, False)
    )
    np.testing.assert_allclose(first, second, rtol=1e-9)


@pytest.mark.parametrize("get", ["ntk", "nngp"])
def test_the_deviation_is_that_of_the_joint_gaussian(get):
    """Var(f | y) is one over the precision of f in the joint distribution."""
    model = NTKRegressor(SPEC, ridge=0.1, get=get).fit(X, Y)
    mean, std = model.predict(NEW, return_std=True)
    np.testing.assert_array_equal(mean, model.predict(NEW))
    k = nr.kernel_fn(SPEC)
    both = np.array(k(np.concatenate([X, NEW]), None, get))
    both[:24, :24] += 0.1 * np.eye(24)
    for i in range(6):
        at = [*range(24), 24 + i]
        precision = np.linalg.inv(both[np.ix_(at, at)])[-1, -1]
        np.testing.assert_allclose(std[i], precision**-0.5, rtol=1e-9)
    single = clone(model).fit(X, Y[:, 0]).predict(NEW, return_std=True)[1]
    np.testing.assert_allclose(single, std[:, 0], rtol=1e-12)


def test_the_likelihood_is_that_of_the_gaussian():
    model = NTKRegressor(SPEC, ridge=0.1).fit(X, Y)
    expected = scipy.stats.multivariate_normal(np.zeros(24), noisy(0.1)).logpdf(Y.T)
    assert model.log_marginal_likelihood_ == pytest.approx(expected.sum(), rel=1e-9)


@pytest.mark.parametrize("outputs", [0, slice(None)])
def test_leaving_one_out_is_fitting_without_it(outputs):
    y = Y[:, outputs]
    model = NTKRegressor(SPEC, ridge=0.1).fit(X, y)
    matrix, expected = noisy(0.1), np.empty_like(y)
    for i in range(24):
        rest = np.delete(np.arange(24), i)
        weights = np.linalg.solve(matrix[np.ix_(rest, rest)], y[rest])
        expected[i] = matrix[i, rest] @ weights
    np.testing.assert_allclose(model.loo_prediction_, expected, rtol=1e-8, atol=1e-9)
    assert model.loo_error_ == pytest.approx(np.mean((expected - y) ** 2), rel=1e-8)


# ----------------------------------------------------------------------- classification


@pytest.mark.quick
def test_the_classes_are_those_of_the_largest_output():
    model = NTKClassifier(SPEC, ridge=0.1).fit(X, LABELS)
    targets = 2.0 * (LABELS[:, None] == model.classes_) - 1
    outputs = kernel(NEW, X) @ np.linalg.solve(noisy(0.1), targets)
    np.testing.assert_allclose(model.decision_function(NEW), outputs, rtol=1e-8)
    np.testing.assert_array_equal(
        model.predict(NEW), model.classes_[outputs.argmax(axis=1)]
    )
    rest = [np.delete(np.arange(24), i) for i in range(24)]
    left_out = [
        NTKClassifier(SPEC, ridge=0.1).fit(X[r], LABELS[r]).predict(X[i : i + 1])[0]
        for i, r in enumerate(rest)
    ]
    np.testing.assert_array_equal(model.loo_prediction_, left_out)
    assert model.loo_error_ == pytest.approx(np.mean(left_out != LABELS))
    assert 0 < model.loo_error_ < 1


def test_two_classes_share_an_output():
    labels = LABELS == "left"
    model = NTKClassifier(SPEC, ridge=0.1).fit(X, labels)
    outputs = model.decision_function(NEW)
    assert outputs.shape == (6,)
    np.testing.assert_array_equal(model.predict(NEW), outputs > 0)
    assert model.loo_prediction_.dtype == bool


def test_digits_are_recognised():
    x, y = load_digits(return_X_y=True)
    model = NTKClassifier(SPEC).fit(x[:500], y[:500])
    assert model.score(x[500:], y[500:]) > 0.93


# ------------------------------------------------------------------------- scikit-learn


def test_pipelines_and_grid_search_over_ridge_and_spec():
    model = make_pipeline(StandardScaler(), NTKRegressor())
    specs = [nr.FeedForward(depth=1), SPEC]
    grid = {"ntkregressor__ridge": [1e-3, 10.0], "ntkregressor__spec": specs}
    search = GridSearchCV(model, grid, cv=2).fit(X, Y)
    assert search.best_params_["ntkregressor__ridge"] == 1e-3
    assert search.best_params_["ntkregressor__spec"] in specs
    assert len(set(search.cv_results_["mean_test_score"])) == 4


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_pickles_predict_the_same(solver):
    for model, y in ((NTKRegressor(SPEC), Y), (NTKClassifier(SPEC), LABELS)):
        model.set_params(solver=solver).fit(X, y)
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.predict(NEW), model.predict(NEW))
    assert clone(model).get_params() == model.get_params()


def test_the_settings_of_jax_do_not_matter():
    model = NTKRegressor(SPEC, ridge=0.01)
    expected = model.fit(X, Y).predict(NEW)
    with jax.enable_x64(False):
        found = model.fit(X.astype(np.float32).astype(float), Y).predict(NEW)
        assert model.dual_coef_.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-4)  # of the rounded inputs


# ------------------------------------------------------------------------------ solvers


def test_auto_keeps_no_matrix_of_many_rows(monkeypatch):
    assert NTKRegressor(SPEC).fit(X, Y).solver_ == "cholesky"
    monkeypatch.setattr(estimators, "_DENSE_ROWS", 23)
    model = NTKRegressor(SPEC).fit(X, Y)
    assert model.solver_ == "cg"
    assert model.residual_ <= 1e-6
    for name in ("loo_prediction_", "loo_error_", "log_marginal_likelihood_"):
        with pytest.raises(AttributeError, match="fit with solver='cholesky'"):
            getattr(model, name)
    with pytest.raises(AttributeError, match="return_std needs"):
        model.predict(NEW, return_std=True)


def test_checkpoint_and_progress_are_those_of_solve(tmp_path):
    seen, path = [], tmp_path / "state.zarr"
    how = {"solver": "cg", "checkpoint": path}
    model = NTKRegressor(SPEC, **how, progress=lambda *args: seen.append(args))
    first = model.fit(X, Y).predict(NEW)
    assert seen[-1][0] == seen[-1][1] == 60
    assert path.exists()
    np.testing.assert_array_equal(model.fit(X, Y).predict(NEW), first)
    with pytest.raises(ValueError, match="of another problem: right-hand side"):
        model.fit(X, Y + 1)


# ----------------------------------------------------------------------------- refusals


def test_rows_of_zeros():
    """The default network is defined for them; one without bias is not."""
    x = X * (np.arange(24) != 7)[:, None]
    assert np.isfinite(NTKRegressor().fit(x, Y).predict(0 * NEW)).all()
    with pytest.raises(ValueError, match="only zeros in row 7"):
        NTKRegressor(SPEC).fit(x, Y)
    with pytest.raises(ValueError, match="only zeros in row 0"):
        NTKRegressor(SPEC).fit(X, Y).predict(0 * NEW)


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_a_singular_matrix_is_refused(solver):
    x = np.repeat(X, 2, axis=0)
    y = RNG.standard_normal(48)
    with pytest.raises((ValueError, RuntimeError), match=r"raise .*(ridge|shift)"):
        NTKRegressor(SPEC, ridge=0.0, solver=solver, tol=1e-9).fit(x, y)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"spec": 3}, "spec must be a network"),
        ({"ridge": -1.0}, "ridge must be"),
        ({"get": "ntk_gap"}, "get must be one of"),
        ({"normalised": 1}, "normalised must be True or False"),
        ({"solver": "lu"}, "solver must be one of"),
        ({"solver": "cg", "tol": 2.0}, "tol must be below 1"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_bad_arguments_are_named(changes, text):
    for kind, y in ((NTKRegressor, Y), (NTKClassifier, LABELS)):
        with pytest.raises(ValueError, match=text):
            kind(**changes).fit(X, y)


def test_matrices_that_lapack_does_not_survive_are_refused(monkeypatch):
    """Before they are made: 16,385 rows are 2 GB and a byte offset beyond 32 bits."""
    monkeypatch.setattr(estimators, "gram", None)
    rows = np.ones((16_385, 1))
    with pytest.raises(ValueError, match=r"16,385 rows is not factored.*solver='cg'"):
        NTKRegressor(solver="cholesky").fit(rows, rows[:, 0])


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_images_with_convolutional_networks(solver):
    """By `kernel_ridge` on the matrices of `gram`."""
    spec, rng = nr.ConvNet(depth=2), np.random.default_rng(0)
    x, new = rng.normal(size=(12, 3, 3, 2)), rng.normal(size=(4, 3, 3, 2))
    y = rng.normal(size=12)
    model = NTKRegressor(spec, ridge=0.1, solver=solver, tol=1e-10).fit(x, y)
    right = nr.kernel_ridge(nr.gram(spec, x), nr.gram(spec, new, x), y, ridge=0.1)
    np.testing.assert_allclose(model.predict(new), right[:, 0], rtol=1e-8)
    labels = NTKClassifier(spec, ridge=0.1).fit(x, y > 0).predict(x)
    assert labels.dtype == bool
    with pytest.raises(ValueError, match=r"\(n, height, width, channels\)"):
        NTKRegressor(spec).fit(x.reshape(12, -1), y)
