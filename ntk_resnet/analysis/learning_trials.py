r"""Learning curves, predicted and measured: on the sphere, and on parts of a data set.

The prediction is that of `learning_curve`, with the eigenvalues of `mercer` on the
sphere, and with those of the Gram matrix of all data; beside it the mean error of
regressions over random trials.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import ArrayLike, Num

from ntk_resnet._checks import check_count, check_number
from ntk_resnet._inputs import check_inputs_of
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.analysis.learning_curve import as_variable, check_sizes, learning_curve
from ntk_resnet.analysis.regression import kernel_ridge
from ntk_resnet.analysis.spectrum import spectrum
from ntk_resnet.analysis.sphere.mercer import mercer
from ntk_resnet.analysis.statistics import standard_error
from ntk_resnet.kernels.gram.gram import gram
from ntk_resnet.records.provenance import provenance
from ntk_resnet.specification.base import Specification, check_network

# -------------------------------------------------------------------------- the sphere


def learning_curve_on_sphere(
    spec: Specification,
    dim: int,
    sizes: Sequence[int] | Num[ArrayLike, " n"],
    target: Mapping[int, float],
    *,
    ridge: float = 0.0,
    noise: float = 0.0,
    trials: int = 10,
    test: int = 1000,
    max_degree: int = 200,
    seed: int = 0,
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""Predicted and measured errors of regression with the NTK on a sphere.

    Inputs are uniform on the sphere in `dim` dimensions, of squared length `dim`; the
    target is :math:`\sum_k \sqrt{p_k N_k}\, P_k(\langle w_k, x\rangle / |x|)` with
    Gegenbauer polynomials, :math:`P_k(1) = 1`, and random directions: its power in
    degree k is exactly `p_k`.

    Args:
        spec: the network; its normalised NTK is used.
        dim: of the inputs, >= 2.
        sizes: numbers of training points.
        target: the power by degree, as in `{1: 0.5, 3: 0.5}`.
        ridge, noise: as in `learning_curve`; test targets have no noise.
        trials: repetitions with fresh points and directions, two or more.
        test: test points in each.
        max_degree: of the eigenvalues; those beyond act as a ridge.
        seed: of points, directions and noise.
        progress: called as `progress(done, total, text)` after each trial.

    Returns:
        The dataset of `learning_curve`, `mode` being the degree, `test_mse` without
        noise; and `measured_test_mse`, `measured_train_mse` over `n`, means over the
        trials, with their standard errors `measured_test_mse_error` and
        `measured_train_mse_error`.

    Raises:
        ValueError: bad arguments; a `max_degree` where the eigenvalues are not yet
            below a hundredth of the effective ridge, or beyond the range of float64.

    Accuracy: the theory takes spherical harmonics for Gaussian features. Where most of
    the error lies in degrees that are not yet learned, or in the noise, it is within
    5 % or 3 standard errors (`tests/analysis/test_learning_curve.py`); what is left of
    degrees that are well learned it underestimates: up to 1.4 times in the benchmark
    (`benchmarks/learning_curve.py`, "one degree"), more with smooth activations.
    """
    check_network(spec)
    dim, trials = (
        check_count("dim", dim, least=2),
        check_count("trials", trials, least=2),
    )
    test, seed = check_count("test", test), check_count("seed", seed, least=0)
    examples, powers = check_sizes(sizes), _check_powers(target, max_degree)
    theory = mercer(spec, dim=dim, max_degree=max_degree)
    values, counts = theory.eigenvalue.values, theory.multiplicity.values
    tail = max(float(theory["tail"]), 0.0)
    predicted = learning_curve(
        values, counts, powers, examples, ridge=ridge, noise=noise, tail=tail
    )
    _check_degree(values, tail, float(predicted.effective_ridge[-1]))
    predicted["test_mse"] -= noise

    def trial(rng):
        x, x_test = (_on_sphere(rng, rows, dim) for rows in (examples[-1], test))
        both = _zonal_sum(np.concatenate([x, x_test]), powers, counts, rng)
        y, y_test = both[: examples[-1]], both[examples[-1] :]
        y = y + math.sqrt(noise) * rng.normal(size=len(y))
        k_train, k_test = gram(spec, x), gram(spec, x_test, x)
        for n in examples:
            yield _errors(k_train[:n, :n], k_test[:, :n], y[:n], y_test, ridge)

    measured = _over_trials(trial, trials, seed, progress)
    predicted = predicted.rename(mode="degree").assign_coords(degree=theory.degree)
    attrs = provenance(
        spec=spec,
        dim=dim,
        ridge=ridge,
        noise=noise,
        trials=trials,
        test=test,
        seed=seed,
    )
    return predicted.assign(measured).assign_attrs(attrs)


def _on_sphere(rng, rows, dim):
    x = rng.normal(size=(rows, dim))
    return x * np.sqrt(dim / np.sum(x**2, axis=1, keepdims=True))


def _zonal_sum(x, powers, counts, rng):
    """A function of that power in each degree, at the rows of `x`."""
    dim, total = x.shape[1], np.zeros(len(x))
    for degree in np.flatnonzero(powers):
        axis = rng.normal(size=dim)
        cosine = x @ axis / np.linalg.norm(axis) / math.sqrt(dim)
        size = math.sqrt(powers[degree] * counts[degree])
        total += size * _gegenbauer(degree, dim, cosine)
    return total


def _gegenbauer(degree, dim, t):
    """The Gegenbauer polynomial of the sphere in `dim` dimensions, 1 at t = 1."""
    last, value = np.ones_like(t), t
    if degree == 0:
        return last
    for k in range(1, degree):
        last, value = value, ((2 * k + dim - 2) * t * value - k * last) / (k + dim - 2)
    return value


def _check_powers(target, max_degree):
    max_degree = check_count("max_degree", max_degree)
    powers = np.zeros(max_degree + 1)
    if not isinstance(target, Mapping):
        raise ValueError(
            f"target must be the power by degree, as in {{1: 0.7, 2: 0.3}}, got "
            f"{target!r}."
        )
    for degree, power in target.items():
        if check_count("a degree of target", degree, least=0) > max_degree:
            raise ValueError(
                f"target has the degree {degree}, beyond max_degree {max_degree}; "
                "raise max_degree."
            )
        powers[degree] = check_number(f"target[{degree}]", power)
    if not powers.any():
        raise ValueError("target has no power; pass degrees with powers > 0.")
    return powers


def _check_degree(values, tail, kappa):
    largest = values[-2:].max()  # of either parity
    if tail > 0 and largest > kappa / 100:
        raise ValueError(
            f"max_degree = {len(values) - 1} leaves eigenvalues of {largest:.2g} out, "
            f"too near the effective ridge {kappa:.2g} to act as one; raise it."
        )


# -------------------------------------------------------------------------------- data


def learning_curve_on_data(
    spec: Specification,
    x: Num[ArrayLike, "m *features"],
    y: Num[ArrayLike, " m"] | Num[ArrayLike, "m k"],
    sizes: Sequence[int] | Num[ArrayLike, " n"],
    *,
    ridge: float = 0.0,
    trials: int = 10,
    seed: int = 0,
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""Predicted and measured errors of regression on a part of a data set.

    Trained on n of the m rows, drawn without replacement, tested on the others. The
    theory knows the eigenvalues :math:`\hat\lambda_i` and eigenvectors of the whole
    Gram matrix K. With a ridge :math:`\delta`, which only changes K's diagonal, the
    prediction for a row left out is that of interpolation with
    :math:`\tilde K = K + \delta I`; that one makes no error on the rows it has seen, so
    that its error over all rows, which `learning_curve` predicts from
    :math:`\tilde\lambda_i = (\hat\lambda_i + \delta) / m` without ridge, falls on the
    others alone:

    .. math::
        \text{test} = \frac{E_0 \sum_i (1 - \tilde L_i)^2 p_i}{1 - n/m}, \quad
        \text{train} = \Big(\frac{\delta}{n \tilde\kappa}\Big)^2
        (1 - n/m)^2\, \text{test}.

    This is exact for many rows and eigenvectors in random directions, at any n/m.

    Args:
        spec: the network; its normalised NTK is used.
        x, y: all the data, `(m, d)`, or images `(m, H, W, C)`, and `(m,)` or `(m, k)`;
            errors are means over the k outputs.
        sizes: numbers of training rows, each less than m.
        ridge: relative to the mean diagonal, as in `kernel_ridge`.
        trials: random choices of the training rows, two or more.
        seed: of the choices.
        progress: called as `progress(done, total, text)` after each trial.

    Returns:
        As `learning_curve_on_sphere`, `mode` counting the eigenvalues from the largest;
        `effective_ridge` is that of K, `learnability` the share of a mode in the
        prediction for rows left out: :math:`(\tilde L - n/m)/(1 - n/m)`.

    Raises:
        ValueError: bad inputs, or a size that leaves no row to test on.

    Accuracy: exact in the mean for eigenvectors in random directions. Real data have
    rows of uneven leverage: on the digits it is within 9 % up to 400 of 1,797 training
    rows, and too low by 15 % at 800 and 33 % at 1,600, less in deep plain networks
    (`tests/analysis/test_learning_curve.py`, `benchmarks/learning_curve.py`).
    """
    check_network(spec, convolutional=True)
    data = check_inputs_of(spec, "x", x)
    trials, seed = (
        check_count("trials", trials, least=2),
        check_count("seed", seed, least=0),
    )
    ridge, examples, m = check_number("ridge", ridge), check_sizes(sizes), len(data)
    if examples[-1] >= m:
        raise ValueError(
            f"sizes has {examples[-1]}, which leaves none of the {m} rows to test on."
        )
    kernel = np.asarray(gram(spec, data), float)
    found = spectrum(kernel, targets=y)
    outputs = np.asarray(y, float).reshape(m, -1)
    values = np.clip(found.eigenvalue.values, 0, None)
    power = found.alignment.values @ np.mean(outputs**2, axis=0) / outputs.shape[1]
    predicted = _predict_the_rest(
        values, power, examples, ridge * float(found.trace) / m
    )

    def trial(rng):
        order = rng.permutation(m)
        for n in examples:
            rows, rest = order[:n], order[n:]
            inside, across = kernel[np.ix_(rows, rows)], kernel[np.ix_(rest, rows)]
            yield _errors(inside, across, outputs[rows], outputs[rest], ridge)

    measured = _over_trials(trial, trials, seed, progress)
    attrs = provenance(spec=spec, rows=m, ridge=ridge, trials=trials, seed=seed)
    return predicted.assign(measured).assign_attrs(attrs)


def _predict_the_rest(values, power, sizes, shift):
    """Theory for rows left out, from all eigenvalues and the target's power."""
    m = len(values)
    whole = learning_curve((values + shift) / m, np.ones(m), power, sizes)
    rest = 1 - whole.n / m
    test = whole.test_mse / rest
    unfitted = shift / (whole.n * whole.effective_ridge) * rest if shift else 0
    changed = {
        "effective_ridge": whole.effective_ridge + shift / m,
        "learnability": (whole.learnability - whole.n / m) / rest,
        "test_mse": test,
        "train_mse": unfitted**2 * test,
    }
    return whole.assign(
        {name: as_variable(name, value.values) for name, value in changed.items()}
    )


# ------------------------------------------------------------------------- measurement


def _errors(k_train, k_test, y, y_test, ridge):
    """Mean squared errors on the test and the training points."""
    fitted = kernel_ridge(k_train, np.concatenate([k_test, k_train]), y, ridge=ridge)
    wanted = np.concatenate([y_test, y])
    squares = (fitted - wanted.reshape(fitted.shape)) ** 2
    return squares[: len(y_test)].mean(), squares[len(y_test) :].mean()


def _over_trials(trial, trials, seed, progress):
    """Means of both errors over trials, and their standard errors, by name."""
    rows = []
    for done, stream in enumerate(np.random.default_rng(seed).spawn(trials), 1):
        rows.append(list(trial(stream)))
        progress(done, trials, "trials")
    each = np.array(rows)  # (trials, n, 2)
    mean, error = each.mean(axis=0), standard_error(each)
    found = {
        "measured_test_mse": mean[:, 0],
        "measured_test_mse_error": error[:, 0],
        "measured_train_mse": mean[:, 1],
        "measured_train_mse_error": error[:, 1],
    }
    return {name: as_variable(name, values) for name, values in found.items()}
