"""Results in float64 while JAX's x64 mode is off keep their digits in what follows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet._precision import keep_precision
from ntk_resnet.analysis.degeneracy import degeneracy
from ntk_resnet.analysis.regression import gradient_flow

RNG = np.random.default_rng(0)
# Ten near-duplicates: float32 keeps no digit of 1 - k at angles of 1e-5.
X = RNG.normal(size=(1, 6)) + 1e-5 * RNG.normal(size=(10, 6))
Y = RNG.normal(size=10)
V = RNG.normal(size=10)
IMAGES = RNG.normal(size=(1, 3, 3, 1)) + 1e-5 * RNG.normal(size=(3, 3, 3, 1))
PLAIN = nr.FeedForward(depth=3)
CURVED = nr.FeedForward(depth=3, activation="erf", bias_variance=0.1)
CONV = nr.ConvNet(depth=2)
THETA = np.array([1e-5, 1.0])


def operator(**options):
    return nr.gram_operator(PLAIN, X, **options)


def regressor():
    return nr.NTKRegressor(PLAIN, ridge=0.1).fit(X, Y)


# Every public function that computes from float64 arrays.
CALLS = {
    "kernel_fn": lambda: nr.kernel_fn(PLAIN)(X),
    "kernel_fn, both": lambda: nr.kernel_fn(PLAIN)(X, X[:3], ("nngp", "ntk")),
    "kernel_fn, recursion": lambda: nr.kernel_fn(CURVED)(X),
    "kernel_fn, raw": lambda: nr.kernel_fn(PLAIN, normalised=False)(X),
    "kernel_fn, images": lambda: nr.kernel_fn(CONV)(IMAGES),
    "kernel_fn, reference": lambda: nr.kernel_fn(PLAIN, engine="neural_tangents")(X),
    "kernel_fn, scales": lambda: nr.kernel_fn(nr.ResNet(depth=2, branch_scale=1.0))(
        X, scales=np.array([0.5, 1.0])
    ),
    "diag": lambda: nr.diag(PLAIN, X),
    "diag, log": lambda: nr.diag(CURVED, X, log=True),
    "diag, images": lambda: nr.diag(CONV, IMAGES),
    "profile ntk": lambda: nr.profile(PLAIN).ntk(THETA),
    "profile nngp": lambda: nr.profile(PLAIN).nngp(THETA),
    "profile ntk_gap": lambda: nr.profile(PLAIN).ntk_gap(THETA),
    "profile nngp_gap": lambda: nr.profile(PLAIN).nngp_gap(1.0),
    "gram": lambda: nr.gram(PLAIN, X),
    "gram_operator": lambda: operator() @ V,
    "gram_operator, T": lambda: operator(x2=X + 1).T @ V,
    "gram_operator, diagonal": lambda: operator().diagonal(),
    "gram_operator, raw": lambda: operator(normalised=False).diagonal(),
    "gram_operator, gap": lambda: operator(get="ntk_gap").diagonal(),
    "sweep_depth": lambda: nr.sweep_depth(PLAIN, [1, 3], x=X),
    "sweep_depth, angles": lambda: nr.sweep_depth(PLAIN, [1, 3], angles=THETA),
    "sweep_depth, images": lambda: nr.sweep_depth(CONV, [1, 2], x=IMAGES),
    "degeneracy": lambda: degeneracy(PLAIN, [1, 3], X + Y[:, None]),
    "spectrum": lambda: nr.spectrum(nr.gram(PLAIN, X), targets=Y, top=2),
    "spectrum, operator": lambda: nr.spectrum(operator(), steps=4, probes=2),
    "spectral_distribution": lambda: nr.spectral_distribution(
        nr.spectrum(nr.gram(PLAIN, X)), np.array([0.5, 1.0])
    ),
    "kernel_distance": lambda: nr.kernel_distance(nr.gram(PLAIN, X), np.eye(10)),
    "kernel_distance_sweep": lambda: nr.kernel_distance_sweep(
        PLAIN, np.eye(10), [1, 3], X
    ),
    "early_stopping": lambda: nr.early_stopping(
        nr.gram(PLAIN, X), nr.gram(PLAIN, X[:3] + 1, X), Y, Y[:3]
    ),
    "solve": lambda: nr.solve(operator(), Y, shift=0.1).x,
    "kernel_ridge": lambda: nr.kernel_ridge(
        nr.gram(PLAIN, X), nr.gram(PLAIN, X[:3], X), Y, ridge=0.1
    ),
    "gradient_flow": lambda: gradient_flow(
        nr.gram(PLAIN, X + Y[:, None]), np.eye(10), Y, [1.0]
    ),
    "NTKRegressor": lambda: regressor().predict(X, return_std=True),
    "NTKClassifier": lambda: nr.NTKClassifier(PLAIN).fit(X, Y > 0).decision_function(X),
    "learning_curve": lambda: nr.learning_curve(
        np.array([0.5, 0.1]), [1, 5], np.array([0.7, 0.3]), [2, 4], ridge=0.1
    ),
    "mercer": lambda: nr.mercer(PLAIN, dim=4, max_degree=3),
    "phase": lambda: nr.phase(CURVED),
    "predicted_condition_number": lambda: (
        nr.predicted_condition_number(nr.FeedForward(depth=3), 5, [10]).values
    ),
    "predicted_dispersion": lambda: nr.finite.predicted_dispersion(THETA + 0.1),
    "learning_curve_on_data": lambda: nr.learning_curve_on_data(
        PLAIN, X + Y[:, None], Y, [4], ridge=0.1, trials=2
    ),
}


def arrays(found):
    """The float arrays in a result."""
    if hasattr(found, "data_vars"):
        found = {name: variable.values for name, variable in found.items()}
    return [leaf for leaf in jax.tree.leaves(found) if leaf.dtype.kind == "f"]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_float64_stays_without_x64(call):
    """Alike to the last bit but for the order of sums, and after an operation too."""
    right = [1 - np.asarray(values) for values in arrays(call())]
    with jax.enable_x64(False):
        found = [1 - values for values in arrays(call())]
    assert len(found) == len(right) > 0
    for one, other in zip(found, right, strict=True):
        assert one.dtype == np.float64
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-14)


def test_the_gap_of_near_duplicates_is_right_without_x64():
    """The NTK of one hidden layer is linear in small angles, by Cho and Saul's form."""
    with jax.enable_x64(False):
        gap = 1 - nr.kernel_fn(nr.FeedForward(depth=1))(X)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    chord = np.linalg.norm(unit[:, None] - unit, axis=2)
    theta = 2 * np.arcsin(chord / 2)
    nngp = (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / np.pi
    ntk = (nngp + (np.pi - theta) / np.pi * np.cos(theta)) / 2
    assert 1e-6 < gap[~np.eye(10, dtype=bool)].min() < gap.max() < 1e-4
    # The chord is known to eps, of angles of 1e-5, and so is the subtraction from 1.
    np.testing.assert_allclose(gap, 1 - ntk, rtol=0, atol=8 * np.finfo(float).eps)


def test_what_is_float32_or_traced_stays_as_it_is():
    with jax.enable_x64(False):
        narrow = nr.kernel_fn(PLAIN)(X.astype(np.float32))
        inside = jax.jit(lambda x: keep_precision(x) + 1)(jnp.ones(2))
    assert isinstance(narrow, jax.Array)
    assert isinstance(inside, jax.Array)
    assert isinstance(nr.kernel_fn(PLAIN)(X), jax.Array)  # x64 is on here


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")  # of JAX itself
def test_networks_made_in_x64_mode_are_of_single_precision_outside():
    x = RNG.normal(size=(3, 4))
    model = lambda p, x: jnp.tanh(x @ p)  # noqa: E731
    weights = jnp.asarray(RNG.normal(size=(4, 2)))
    right = nr.finite.empirical_ntk((model, weights), x, outputs="diagonal")
    with jax.enable_x64(False):
        found = nr.finite.empirical_ntk((model, weights), x, outputs="diagonal")
        made = nr.finite.empirical_ntk_operator((model, weights), jnp.asarray(x))
        assert found.dtype == made.dtype == np.float32
        product = made @ np.ones(6)
    full = nr.finite.empirical_ntk((model, weights), x)
    expected = full.transpose(0, 2, 1, 3).reshape(6, 6) @ np.ones(6)
    # Sums over 8 weights, of values that are themselves rounded.
    atol = 16 * np.finfo(np.float32).eps * np.abs(full).max()
    np.testing.assert_allclose(found, right, rtol=0, atol=atol)
    np.testing.assert_allclose(product, expected, rtol=0, atol=6 * atol)
