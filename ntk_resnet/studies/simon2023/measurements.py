"""Regression measured beside what the spectrum predicts of it."""

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.data.datasets import Data, targets
from ntk_resnet.studies.spheres import on_sphere

NETWORKS = {
    "plain, L = 1": nr.FeedForward(depth=1, trained="blocks"),
    "plain, L = 100": nr.FeedForward(depth=100, trained="blocks"),
    "γ = 1/2, L = 100": nr.ResNet(depth=100, branch_scale=nr.DepthScale(0.5)),
    "γ = 1, L = 100": nr.ResNet(depth=100, branch_scale=nr.DepthScale(1.0)),
}
DIM, DEGREE, RIDGE = 5, 200, 1e-3
POWER = {1: 0.5, 2: 0.3, 4: 0.2}
"""Of the target by degree: where one is learned another is not yet."""

# --------------------------------------------------------------------------- the sphere


def sphere(
    *,
    networks: list[str],
    sizes: list[int],
    trials: int,
    functions: int,
    test: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Regression with the NTK on the sphere in five dimensions, measured and predicted.

    In each trial there are fresh points, and many targets of each degree: zonal
    harmonics of unit power in random directions. Over (`network`, `n`, `degree`):
    `predicted` and, with `trial`, `error` on new points, `train_error`, and
    `learnability`, the part of the target that was learned; of degree 0 they are those
    of targets that are noise of unit variance. `predicted_train`, of degrees above 0,
    and `predicted_learnability` likewise.
    """
    degrees = [0, *POWER]
    found, known = [], []
    for done, name in enumerate(networks):
        report = part_of(progress, done, 1, len(networks), f"{name}, ")
        spec = NETWORKS[name]
        known.append(_theory(spec, sizes, degrees))
        rows = []
        for trial in range(trials):
            report(trial, trials, "trials on the sphere")
            rows.append(_trial(spec, sizes, degrees, functions, test, trial))
        found.append(rows)
    measured = np.array(found)  # network, trial, n, degree, what
    predicted = np.array(known)
    over = ("network", "n", "degree")
    names = ("error", "train_error", "learnability")
    return xr.Dataset(
        {
            name: (("network", "trial", *over[1:]), measured[..., k])
            for k, name in enumerate(names)
        }
        | {
            f"predicted_{name}": (over, predicted[..., k])
            for k, name in enumerate(names)
        },
        coords={"network": networks, "n": sizes, "degree": degrees},
        attrs={"trials": trials, "dim": DIM, "functions": functions},
    )


def _theory(spec, sizes, degrees):
    """Test error, train error and learnability, `(n, degree, 3)`."""
    values = nr.mercer(spec, dim=DIM, max_degree=DEGREE)
    columns = []
    for degree in degrees:
        power = np.zeros(DEGREE + 1)
        power[degree] = float(degree > 0)
        one = nr.learning_curve(
            values.eigenvalue.values,
            values.multiplicity.values,
            power,
            sizes,
            ridge=RIDGE,
            noise=float(degree == 0),
            tail=max(float(values["tail"]), 0.0),
        )
        learned = one.learnability.values[:, degree] * (degree > 0)
        columns.append([one.test_mse.values, one.train_mse.values, learned])
    return np.moveaxis(np.array(columns), (0, 1, 2), (1, 2, 0))


def _trial(spec, sizes, degrees, count, test, seed):
    """As `_theory`, of one draw of the points, a mean over targets."""
    rng = np.random.default_rng(seed)
    x = np.sqrt(DIM) * on_sphere(rng, sizes[-1] + test, DIM)
    y = np.concatenate([_zonal(x, k, count, rng) for k in degrees], axis=1)
    inside = nr.gram(spec, x[: sizes[-1]])
    across = nr.gram(spec, x[sizes[-1] :], x[: sizes[-1]])
    rows = []
    for n in sizes:
        both = np.concatenate([across[:, :n], inside[:n, :n]])
        fit = nr.kernel_ridge(inside[:n, :n], both, y[:n], ridge=RIDGE)
        wanted = np.concatenate([y[sizes[-1] :], y[:n]])
        squares = (fit - wanted) ** 2
        learned = np.sum(fit[:test] * wanted[:test], axis=0)
        learned = learned / np.sum(wanted[:test] ** 2, axis=0)
        each = [squares[:test].mean(axis=0), squares[test:].mean(axis=0), learned]
        by_degree = np.reshape(each, (3, len(degrees), count))
        rows.append(by_degree.mean(axis=-1).T)
    return rows


def _zonal(x, degree, count, rng):
    """Harmonics of unit power and of that degree; of degree 0 independent noise."""
    if degree == 0:
        return rng.normal(size=(len(x), count))
    t = x @ on_sphere(rng, count, DIM).T / np.sqrt(DIM)
    last, value = np.ones_like(t), t
    for k in range(1, degree):
        rest = (2 * k + DIM - 2) * t * value - k * last
        last, value = value, rest / (k + DIM - 2)
    # Their number, which is one over the mean square of the polynomial.
    number = (2 * degree + DIM - 2) / degree
    for k in range(1, DIM - 1):
        number *= (degree - 1 + k) / k
    return np.sqrt(number) * value * rng.choice([-1.0, 1.0], size=count)


# -------------------------------------------------------------------- Gaussian features


def gaussian(
    *,
    modes: int,
    sizes: list[int],
    ridge: float,
    noise: float,
    trials: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Regression with independent Gaussian features, the setting of the theory.

    Mode i has the eigenvalue i^(-2), and the target the power i^(-3/2) in it. Over `n`:
    `predicted_error`, `predicted_train_error` and, with `trial`, `error` on new points,
    noise included, and `train_error`.
    """
    index = np.arange(1, modes + 1)
    values, power = 1 / index**2, 1 / index**1.5
    theory = nr.learning_curve(
        values, np.ones(modes), power, sizes, ridge=ridge, noise=noise
    )
    shift = ridge * values.sum()
    found = np.empty((2, trials, len(sizes)))
    for trial in range(trials):
        progress(trial, trials, "Gaussian features")
        rng = np.random.default_rng(trial)
        weights = np.sqrt(power) * rng.choice([-1.0, 1.0], modes)
        features = rng.normal(size=(sizes[-1], modes))
        y = features @ weights + np.sqrt(noise) * rng.normal(size=sizes[-1])
        for j, n in enumerate(sizes):
            own = features[:n]
            dual = np.linalg.solve(own * values @ own.T + shift * np.eye(n), y[:n])
            missed = weights - values * (own.T @ dual)
            found[:, trial, j] = missed @ missed + noise, np.mean((shift * dual) ** 2)
    return xr.Dataset(
        {
            "error": (("trial", "n"), found[0]),
            "train_error": (("trial", "n"), found[1]),
            "predicted_error": ("n", theory.test_mse.values),
            "predicted_train_error": ("n", theory.train_mse.values),
        },
        coords={"n": sizes},
        attrs={"modes": modes, "ridge": ridge, "noise": noise, "trials": trials},
    )


# -------------------------------------------------------------------- conservation law


def conservation(
    *,
    points: int,
    sizes: list[int],
    depth: int,
    trials: int,
    ridge: float,
    progress: Progress = quiet,
) -> xr.Dataset:
    """How much of each Fourier mode is learned on a circle of `points` points.

    The kernel is the NTK of a residual network, gamma = 1/2. Over (`ridge`, `n`,
    `mode`), all modes in the order of their eigenvalues: `predicted` and, with `trial`,
    `learnability`, of the mode fitted on n of the points without repetition; over
    (`ridge`, `n`) `predicted_sum`, and `independent_sum`, of theory for points that are
    independent and may repeat. Over (`trial`, `n`) `rounding`, a bound of the relative
    error of the sum without ridge: n eps times the matrix's condition number.
    """
    spec = nr.ResNet(depth=depth, branch_scale=nr.DepthScale(0.5))
    angle = 2 * np.pi * np.arange(points) / points
    kernel = np.asarray(nr.gram(spec, np.column_stack([np.cos(angle), np.sin(angle)])))
    values, modes = np.linalg.eigh(kernel)
    values, modes = np.maximum(values[::-1], 0), modes[:, ::-1]
    ridges = [0.0, ridge]
    found = np.empty((len(ridges), trials, len(sizes), points))
    rounding = np.empty((trials, len(sizes)))
    for trial in range(trials):
        progress(trial, trials, "modes on the circle")
        order = np.random.default_rng(trial).permutation(points)
        for j, n in enumerate(sizes):
            rows = order[:n]
            inside = kernel[np.ix_(rows, rows)]
            rounding[trial, j] = n * np.finfo(float).eps * np.linalg.cond(inside)
            for i, one in enumerate(ridges):
                fit = nr.kernel_ridge(inside, kernel[:, rows], modes[rows], ridge=one)
                found[i, trial, j] = np.sum(modes * fit, axis=0)
    predicted = np.array([_of_a_set(values, one, sizes) for one in ridges])
    ones = np.ones(points)
    independent = [
        nr.learning_curve(values / points, ones, ones, sizes, ridge=one).learnability
        for one in ridges
    ]
    over = ("ridge", "n", "mode")
    return xr.Dataset(
        {
            "learnability": (("ridge", "trial", "n", "mode"), found),
            "rounding": (("trial", "n"), rounding),
            "predicted": (over, predicted),
            "predicted_sum": (over[:2], predicted.sum(axis=-1)),
            "independent_sum": (over[:2], np.sum(independent, axis=-1)),
        },
        coords={"ridge": ridges, "n": sizes, "mode": np.arange(1, points + 1)},
        attrs={"points": points, "depth": depth, "trials": trials},
    )


def _of_a_set(values, ridge, sizes):
    """Predicted learnabilities where points of a finite set are drawn without return.

    A ridge delta is then part of the kernel: n = sum of (v + delta) / (v + delta + k)
    over the set's eigenvalues v, and L = v / (v + delta + k).
    """
    count = len(values)
    whole = nr.learning_curve(
        (values + ridge) / count, np.ones(count), np.ones(count), sizes
    )
    shift = whole.effective_ridge.values[:, None] + ridge / count
    return values / count / (values / count + shift)


# -------------------------------------------------------------------------------- data


def on_data(
    data: Data,
    *,
    networks: list[str],
    sizes: list[int],
    rows: int,
    trials: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Regression on parts of a data set, of which at most so many rows are used.

    Over (`network`, `n`): `test_mse`, predicted from the eigenvalues and eigenvectors
    of the whole Gram matrix, `measured_test_mse`, a mean over trials, and its standard
    error, `measured_test_mse_error`.
    """
    order = np.random.default_rng(0).permutation(len(data))[:rows]
    chosen, found = data.take(np.sort(order)), []
    sizes = [n for n in sizes if n < len(chosen)]
    for done, name in enumerate(networks):
        one = nr.learning_curve_on_data(
            NETWORKS[name],
            chosen.x,
            targets(chosen),
            sizes,
            ridge=RIDGE,
            trials=trials,
            progress=part_of(progress, done, 1, len(networks), f"{name}, "),
        )
        kept = ["test_mse", "measured_test_mse", "measured_test_mse_error"]
        found.append(one[kept].drop_attrs())
    result = xr.concat(found, dim="network").assign_coords(network=networks)
    return result.assign_attrs(data=data.name, rows=len(chosen), trials=trials)
