"""Spectra, dense and by products, and matrices that are not a kernel's."""

import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.analysis.spectrum import spectral_distribution

RNG = np.random.default_rng(0)


def matrix_with(eigenvalues):
    turn = np.linalg.qr(RNG.normal(size=(len(eigenvalues),) * 2))[0]
    matrix = turn * eigenvalues @ turn.T
    return (matrix + matrix.T) / 2


@pytest.mark.quick
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
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "holds nan at row 0, column 1"),
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


# ------------------------------------------------------------------ targets and vectors


def test_targets_lie_where_they_were_put():
    matrix = matrix_with(np.array([5.0, 2.0, 1.0, 0.1]))
    found = nr.spectrum(matrix, targets=np.eye(4), top=4)
    vectors = found.eigenvector.values
    np.testing.assert_allclose(matrix @ vectors, vectors * [5, 2, 1, 0.1], atol=1e-14)
    found = nr.spectrum(matrix, targets=vectors @ [[3.0], [0.0], [4.0], [0.0]])
    np.testing.assert_allclose(found.alignment[:, 0], [0.36, 0, 0.64, 0], atol=1e-14)
    np.testing.assert_allclose(
        found.cumulative_alignment[:, 0], [0.36, 0.36, 1, 1], atol=1e-14
    )
    assert "eigenvector" not in found


def test_the_mean_of_a_target_is_part_of_it():
    n = 20
    matrix = 0.75 * np.eye(n) + 0.25
    found = nr.spectrum(matrix, targets=np.full(n, 2.0))
    np.testing.assert_allclose(found.alignment[0, 0], 1, rtol=1e-13)


def test_negative_eigenvalues_within_rounding_are_counted():
    values = np.concatenate([[100.0, 3.0], np.zeros(30)])
    found = nr.spectrum(matrix_with(values))
    below = int((found.eigenvalue < 0).sum())
    assert below > 0
    assert int(found.negative) == below
    assert np.isinf(found.condition_number)
    assert float(found.eigenvalue.min()) > -float(found.error_bound)


def test_log_determinant_is_relative_to_the_mean_diagonal():
    found = nr.spectrum(np.diag([4.0, 2.0, 0.0]), ridge=0.5)
    np.testing.assert_allclose(
        found.log_determinant, np.log([5.0, 3.0, 1.0]).sum(), rtol=1e-14
    )
    assert nr.spectrum(np.ones((2, 2)), ridge=1e-9).log_determinant < -19
    assert nr.spectrum(np.diag([1.0, 0.0]), ridge=0.0).log_determinant == -np.inf


# ----------------------------------------------------------- matrices by their products

X = RNG.normal(size=(400, 5))
RESIDUAL = nr.ResNet(depth=20, branch_scale=nr.DepthScale(0.5))


@pytest.fixture(scope="module")
def dense():
    return nr.spectrum(nr.gram(RESIDUAL, X), targets=X[:, :2])


@pytest.fixture(scope="module")
def sampled():
    operator = nr.gram_operator(RESIDUAL, X)
    return nr.spectrum(operator, targets=X[:, :2], probes=16, steps=120, top=8)


def test_leading_pairs_of_an_operator(dense, sampled):
    matrix = nr.gram(RESIDUAL, X)
    u, values = sampled.eigenvector.values, sampled.eigenvalue.values
    bound = float(sampled.error_bound)
    np.testing.assert_allclose(values, dense.eigenvalue[:8], rtol=0, atol=bound)
    np.testing.assert_allclose(u.T @ u, np.eye(8), atol=1e-12)
    missed = np.linalg.norm(matrix @ u - u * values, axis=0)
    np.testing.assert_allclose(sampled.residual, missed, atol=bound)
    assert (sampled.residual < 1e-9 * values).all()


def test_an_eigenvalue_lies_within_the_residual(dense):
    """Also of pairs that have not converged."""
    few = nr.spectrum(nr.gram_operator(RESIDUAL, X), steps=12, top=10, probes=2)
    distance = np.abs(few.eigenvalue.values[:, None] - dense.eigenvalue.values)
    slack = float(few.error_bound)
    assert (distance.min(axis=1) <= few.residual + slack).all()
    assert few.residual.max() > 1e-3


@pytest.mark.quick
def test_scalars_of_an_operator(dense, sampled):
    np.testing.assert_allclose(sampled.trace, 400, rtol=1e-14)
    for name in ("log_determinant", "effective_rank"):
        error = float(sampled[name + "_error"])
        assert abs(float(sampled[name] - dense[name])) < 3 * error
        assert error < 0.1 * abs(float(dense[name]))
    ratio = float(sampled.condition_number / dense.condition_number)
    assert 0.9 < ratio < 1 + 1e-9
    assert int(sampled.negative) == 0


def test_the_log_determinant_is_exact_when_the_krylov_space_is_the_whole():
    """Then only the sampling error is left, of known size and the dense mean."""
    x = X[:40]
    one = nr.spectrum(nr.gram_operator(RESIDUAL, x), probes=4, steps=40, top=1)
    values, vectors = np.linalg.eigh(nr.gram(RESIDUAL, x))
    starts = np.random.default_rng(0).normal(size=(4, 40))
    starts /= np.linalg.norm(starts, axis=1, keepdims=True)
    exact = 40 * (starts @ vectors) ** 2 @ np.log(values + 1e-3)
    np.testing.assert_allclose(one.log_determinant, exact.mean(), rtol=1e-10)
    np.testing.assert_allclose(
        one.log_determinant_error, exact.std(ddof=1) / 2, rtol=1e-9
    )


@pytest.mark.quick
def test_the_distribution_is_that_of_the_eigenvalues(dense, sampled):
    """Kolmogorov's distribution: 1.95 is exceeded once in a thousand times."""
    at = dense.eigenvalue.values[::-1]
    found = spectral_distribution(sampled, at)
    exact = spectral_distribution(dense, at)
    np.testing.assert_allclose(exact.share, np.arange(1, 401) / 400)
    assert (exact.standard_error == 0).all()
    middle = exact.share - 0.5 / 400  # the sampled distribution is continuous
    largest = float(np.abs(found.share - middle).max())
    assert largest * np.sqrt(400 * 16 / 2) < 1.95
    # The standard error is that of Dirichlet weights, known to 1/sqrt(30) from 16.
    expected = np.sqrt(2 * exact.share * (1 - exact.share) / 402 / 16)
    ratio = (found.standard_error / expected)[100:300]
    assert 0.5 < ratio.min() < ratio.max() < 1.8


def test_the_bounds_of_the_quadrature_hold_for_each_probe():
    """Against the exact measures of the same probes, few steps, all values."""
    few = nr.spectrum(nr.gram_operator(RESIDUAL, X), probes=3, steps=15)
    values, vectors = np.linalg.eigh(nr.gram(RESIDUAL, X))
    starts = np.random.default_rng(0).normal(size=(3, 400))
    starts /= np.linalg.norm(starts, axis=1, keepdims=True)
    measure = np.cumsum(((starts @ vectors) ** 2).mean(axis=0))
    between = np.sqrt(values[1:] * values[:-1])
    found = spectral_distribution(few, between)
    assert (found.lowest <= measure[:-1] + 1e-12).all()
    assert (found.highest >= measure[:-1] - 1e-12).all()
    assert (found.lowest <= found.share).all()
    assert (found.share <= found.highest).all()
    assert (found.lowest.values > 0).any()
    assert (found.highest.values < 1).any()


def test_power_of_targets_by_products(dense, sampled):
    """Sums over the leading eigenvalues, which both know, and moments."""
    for output in range(2):
        node = sampled.target_node.values[output]
        weight = sampled.target_weight.values[output]
        cut = np.sqrt(dense.eigenvalue.values[5] * dense.eigenvalue.values[6])
        share = float(dense.cumulative_alignment[5, output])
        np.testing.assert_allclose(weight[node > cut].sum(), share, atol=1e-10)
        y = X[:, output] / np.linalg.norm(X[:, output])
        np.testing.assert_allclose(
            weight @ node, y @ nr.gram(RESIDUAL, X) @ y, rtol=1e-12
        )


def test_krylov_spaces_that_end_early():
    """Two distinct eigenvalues: the degenerate kernel of orthogonal inputs."""
    found = nr.spectrum(nr.gram_operator(nr.FeedForward(depth=3), np.eye(30)), steps=20)
    exact = nr.spectrum(nr.gram(nr.FeedForward(depth=3), np.eye(30)))
    real = np.isfinite(found.node.values)
    assert (real.sum(axis=1) <= 4).all()
    assert (found.weight.values[~real] == 0).all()
    np.testing.assert_allclose(found.weight.sum("step"), 1, rtol=1e-12)
    np.testing.assert_allclose(found.eigenvalue[0], exact.eigenvalue[0], rtol=1e-13)
    np.testing.assert_allclose(
        found.condition_number, exact.condition_number, rtol=1e-10
    )


def test_one_row_has_one_eigenvalue():
    found = nr.spectrum(nr.gram_operator(RESIDUAL, X[:1]))
    np.testing.assert_allclose(found.eigenvalue, [1], rtol=1e-14)
    np.testing.assert_allclose(found.condition_number, 1, rtol=1e-13)


def test_a_stored_matrix_gives_what_the_operator_gives(tmp_path):
    stored = nr.gram(RESIDUAL, X[:150], store=tmp_path / "k", tile=64)
    options = {"probes": 3, "steps": 30, "top": 3, "targets": X[:150, 0]}
    ticks = []
    found = nr.spectrum(stored, progress=lambda *a: ticks.append(a), **options)
    operator = nr.gram_operator(RESIDUAL, X[:150], tile=64)
    other = nr.spectrum(operator, **options)
    for name in ("eigenvalue", "log_determinant", "trace", "effective_rank"):
        np.testing.assert_allclose(found[name], other[name], rtol=1e-11)
    assert [done for done, *_ in ticks] == list(range(1, 32))
    assert ticks[-1][1:] == (31, "products")


def test_nothing_is_called_back_from_compiled_code(tmp_path):
    """Such calls ran on a thread without local x64 mode, and failed now and then."""
    import threading

    import jax

    x = RNG.integers(0, 17, size=(600, 64)).astype(float)  # like digits
    threads, precisions = set(), set()

    def progress(*_):
        threads.add(threading.get_ident())
        precisions.add(str(jax.numpy.zeros(()).dtype))

    options = {"probes": 4, "steps": 20, "top": 3}
    with jax.enable_x64(False):
        stored = nr.gram(nr.FeedForward(depth=4), x, store=tmp_path / "k")
        found = [nr.spectrum(stored, progress=progress, **options) for _ in range(3)]
        nr.spectrum(nr.gram_operator(RESIDUAL, X[:60]), progress=progress, **options)
    assert threads == {threading.get_ident()}
    assert precisions == {"float32"}  # the user's own settings
    values = np.linalg.eigvalsh(stored[:, :])
    for each in found:
        distance = np.abs(each.eigenvalue.values[:, None] - values).min(axis=1)
        assert (distance <= each.residual + float(each.error_bound)).all()
        assert each.residual[0] < 1e-9 * each.eigenvalue[0]
        assert each.equals(found[0])


def test_operators_in_float64_without_x64():
    import jax

    with jax.enable_x64(False):
        wide = nr.spectrum(nr.gram_operator(RESIDUAL, X[:60]), steps=20)
        narrow = nr.spectrum(
            nr.gram_operator(RESIDUAL, X[:60].astype(np.float32)), steps=20
        )
    values = np.linalg.eigvalsh(nr.gram(RESIDUAL, X[:60]))[::-1][:3]
    assert wide.attrs["dtype"] == "float64"
    np.testing.assert_allclose(
        wide.eigenvalue[:3], values, rtol=0, atol=float(wide.error_bound)
    )
    np.testing.assert_allclose(
        narrow.eigenvalue[:3], values, rtol=0, atol=float(narrow.error_bound)
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"probes": 1}, "probes must be at least 2"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"top": 40, "steps": 20}, "top must be at most 20"),
        ({"top": 0}, "top must be at least 1"),
        ({"ridge": -1.0}, "ridge must be a finite number"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"targets": np.ones(3)}, r"targets has shape \(3,\)"),
        ({"targets": np.zeros(30)}, "targets are zero"),
        ({"targets": np.full(30, np.nan)}, "targets holds nan"),
        ({"get": "ntk_gap"}, "trace 0"),
        ({"x2": X[:30] + 1}, "leave x2 out"),
    ],
)
def test_bad_options_of_operators(options, words, as_users_run_it):
    own = {name: options.pop(name) for name in ("get", "x2") if name in options}
    operator = nr.gram_operator(RESIDUAL, X[:30], **own)
    with pytest.raises(ValueError, match=words) as caught:
        nr.spectrum(operator, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("at", [[], [np.nan], 1.0, [[1.0]]])
def test_bad_values_of_a_distribution(at, dense, as_users_run_it):
    with pytest.raises(ValueError, match="at must be a list"):
        spectral_distribution(dense, at)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_the_size_of_targets_does_not_matter(scale):
    matrix, y = np.diag([3.0, 1.0]), np.array([1.0, 2.0])
    found = nr.spectrum(matrix, targets=y * scale)
    np.testing.assert_allclose(found.alignment[:, 0], [0.2, 0.8], rtol=1e-14)


@pytest.mark.parametrize("scale", [1e-310, 5e307])
def test_matrices_at_the_ends_of_the_range(scale):
    with pytest.raises(ValueError, match="divide it by that"):
        nr.spectrum(np.diag([3.0, 1.0]) * scale)
