"""Kernels: errors of gradient descent that stops at the best time, on the sphere."""

import numpy as np
import xarray as xr
from scipy.special import eval_legendre
from scipy.stats import binomtest

import ntk_resnet as nr
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.ledger import (
    BOTH_HALVES,
    Claim,
    Measured,
    curve_slope,
    fitted,
    over_seeds,
    slope_variables,
)
from ntk_resnet.studies.spheres import on_sphere
from ntk_resnet.studies.study import Figure, Measurement

DIM = 3
SCALES = {
    "α = 1": nr.ConstantScale(1.0),
    "γ = 1/4": nr.DepthScale(0.25),
    "γ = 1/2": nr.DepthScale(0.5),
    "γ = 3/4": nr.DepthScale(0.75),
    "γ = 1": nr.DepthScale(1.0),
}
LARGE, SMALL = ["α = 1", "γ = 1/4"], ["γ = 3/4", "γ = 1"]
TIMES = np.concatenate([[0.0], np.geomspace(1, 1e9, 91), [np.inf]])
# Degrees that the kernel of one block has, with their shares of the target's power.
TARGET = {1: 0.4, 2: 0.4, 4: 0.2}


def _sphere(rng, rows):
    """Uniform points of squared length DIM."""
    return np.sqrt(DIM) * on_sphere(rng, rows, DIM)


def _function(rng, x, powers):
    """A function of that power in each degree, about random axes, at the rows."""
    total = np.zeros(len(x))
    for degree, power in powers.items():
        axis = rng.normal(size=DIM)
        cosine = x @ axis / np.linalg.norm(axis) / np.sqrt(DIM)
        total += np.sqrt(power * (2 * degree + 1)) * eval_legendre(degree, cosine)
    return total


# ------------------------------------------------------------------- errors by depth


def depths(
    *,
    points: int,
    test: int,
    depths: list[int],
    noise: float,
    seeds: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Test errors at the best time and at the end, by depth.

    Over (`family`, `depth`, `seed`): `best` and `last`, mean squared errors against the
    clean target over its mean square, of gradient flow on targets with noise.
    """
    shape = (len(SCALES), len(depths), seeds)
    best, last = np.empty(shape), np.empty(shape)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        x, x_test = _sphere(rng, points), _sphere(rng, test)
        both = _function(rng, np.concatenate([x, x_test]), TARGET)
        y_test = both[points:]
        y = both[:points] + np.sqrt(noise) * rng.normal(size=points)
        unit = np.mean(y_test**2)
        for i, (name, scale) in enumerate(SCALES.items()):
            progress(seed * len(SCALES) + i, seeds * len(SCALES), f"{name}, by depth")
            for j, depth in enumerate(depths):
                spec = nr.ResNet(depth=depth, branch_scale=scale)
                k, k_test = nr.gram(spec, x), nr.gram(spec, x_test, x)
                found = nr.early_stopping(k, k_test, y, y_test, TIMES)
                best[i, j, seed] = found.best_test_mse / unit
                last[i, j, seed] = found.test_mse[-1] / unit
    over = ("family", "depth", "seed")
    return xr.Dataset(
        {"best": (over, best), "last": (over, last)},
        coords={"family": list(SCALES), "depth": depths, "seed": np.arange(seeds)},
        attrs={"points": points, "noise": noise, "deepest": float(depths[-1])},
    )


SETTLED = 10_000  # of 1/sqrt(L), whose kernel's next term is of order 1/L


def _errors(found, families):
    return found.best.sel(family=families).transpose("seed", ..., "depth")


def _over_one_block(found):
    one = _errors(found, SMALL)
    return over_seeds((one.isel(depth=-1) / one.isel(depth=0)).values)


def _settled(found):
    one = _errors(found, ["γ = 1/2"])
    return over_seeds((one.isel(depth=-1) / one.sel(depth=SETTLED)).values)


def draw_depths(found):
    """Errors at the best time against depth, means over seeds."""
    with drawing.style():
        ax = drawing.one_axes(None)
        for name, look in looks(found.family.values).items():
            errors = over_seeds(_errors(found, name).values)
            own = look | {"label": name, "elinewidth": 1}
            drawing.intervals(ax, found.depth, errors, **own)
        ax.axhline(1, **drawing.THEORY)
        drawing.note(ax, 0.02, 1, "nothing learned")
        one = float(found.best.sel(family="γ = 1").isel(depth=0).mean())
        ax.axhline(one, **drawing.THEORY, label="theory")
        drawing.note(ax, 0.75, 0.75 * one, "kernel of one block")
        drawing.log_axes(ax)
        ax.set_ylim(0.6 * one, 2)
        ax.set_xlabel("depth L")
        ax.set_ylabel("test error at the best time / variance")
        drawing.legend(ax)
    return ax


# ------------------------------------------------------------------- learning curves


ROUGH, FAR = 60, 200  # the last degree of the rough target, at most a million examples


def rough_power(degrees: int = ROUGH) -> dict[int, float]:
    """By degree, of a target at the boundary of the kernel's space, summing to one.

    Its squared norm there, the sum of p_k over eigenvalue, diverges like a logarithm:
    p_k is the eigenvalue of one block over k, where that is not zero.
    """
    mu = nr.mercer(
        nr.ResNet(depth=1, branch_scale=1.0), dim=DIM, max_degree=degrees
    ).eigenvalue.values
    power = {k: mu[k] / k for k in [1, *range(2, degrees + 1, 2)]}
    total = sum(power.values())
    return {k: float(value / total) for k, value in power.items()}


def curve(
    *,
    sizes: list[int],
    depth: int,
    noise: float,
    test: int,
    seeds: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Errors at the best time against the number of examples, of a rough target.

    Over (`seed`, `n`): `error`, against the clean target, at the time that is best on
    average over seeds, and `ridge_error`, of ridge regression with the ridge that is
    best by the theory of learning curves; over `n` what that theory has for its error,
    `predicted`. Exponents of n are those of the mean error: over `seed`, `exponent`
    and `ridge_exponent`, as the jackknife's values; `predicted_exponent`, and
    `far_exponent` with those of both halves, of the prediction for up to a million
    examples.
    """
    powers = rough_power()
    predicted, ridges = _predicted(sizes, powers, noise)
    spec = nr.ResNet(depth=depth, branch_scale=nr.DepthScale(1.0))
    errors = np.empty((seeds, len(sizes), len(TIMES)))
    by_ridge = np.empty((seeds, len(sizes)))
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        x, x_test = _sphere(rng, sizes[-1]), _sphere(rng, test)
        both = _function(rng, np.concatenate([x, x_test]), powers)
        y_test = both[sizes[-1] :]
        y = both[: sizes[-1]] + np.sqrt(noise) * rng.normal(size=sizes[-1])
        k, k_test = nr.gram(spec, x), nr.gram(spec, x_test, x)
        for i, n in enumerate(sizes):
            known = k[:n, :n], k_test[:, :n], y[:n]
            errors[seed, i] = nr.early_stopping(*known, y_test, TIMES).test_mse
            outputs = np.asarray(nr.kernel_ridge(*known, ridge=ridges[i]))
            by_ridge[seed, i] = np.mean((outputs.ravel() - y_test) ** 2)
        progress(seed + 1, seeds, f"{sizes[0]} to {sizes[-1]} examples")
    best = errors.mean(0).argmin(-1)
    error = errors[:, np.arange(len(sizes)), best]
    far = np.geomspace(1e4, 1e6, 6).round().astype(int)
    limit = curve_slope(far, _predicted(far, rough_power(FAR), noise)[0])
    return xr.Dataset(
        {
            "error": (("seed", "n"), error),
            "ridge_error": (("seed", "n"), by_ridge),
            "exponent": ("seed", _jackknife(sizes, error)),
            "ridge_exponent": ("seed", _jackknife(sizes, by_ridge)),
            "predicted": ("n", predicted),
            "predicted_exponent": nr.fit_power(np.asarray(sizes), predicted).exponent,
            **slope_variables("far_exponent", limit),
        },
        coords={"seed": np.arange(seeds), "n": sizes},
        attrs={"depth": depth, "noise": noise, "first": sizes[0], "last": sizes[-1]},
    )


def _jackknife(sizes, errors):
    """Values, one a seed, whose mean and spread are those of the mean's exponent."""
    count, total, n = len(errors), errors.sum(0), np.asarray(sizes)
    whole = nr.fit_power(n, total).exponent
    without = [nr.fit_power(n, total - one).exponent for one in errors]
    return count * whole - (count - 1) * np.array(without)


def _predicted(sizes, powers, noise):
    """By theory, of the kernel of one block: least errors, and their ridges."""
    found = nr.mercer(nr.ResNet(depth=1, branch_scale=1.0), dim=DIM, max_degree=2 * FAR)
    power = np.zeros(2 * FAR + 1)
    power[list(powers)] = list(powers.values())
    # Those of degrees that it does not have come out as rounding, of either sign.
    values = np.maximum(found.eigenvalue.values, 0.0)
    options = {"noise": noise, "tail": max(float(found["tail"]), 0.0)}
    modes = values, found.multiplicity.values, power
    ridges = np.geomspace(1e-8, 10, 55)
    errors = [
        nr.learning_curve(*modes, sizes, ridge=ridge, **options).test_mse.values - noise
        for ridge in ridges
    ]
    return np.min(errors, axis=0), ridges[np.argmin(errors, axis=0)]


def draw_curve(found):
    """Errors against the number of examples, by theory and measured."""
    with drawing.style():
        ax = drawing.one_axes(None)
        names = {"error": "γ = 1", "ridge_error": "best ridge"}
        labels = {"error": "the best time", "ridge_error": "the best ridge"}
        for name, look in zip(names, looks(names.values()).values(), strict=True):
            own = look | {"linestyle": "", "label": labels[name], "elinewidth": 1}
            drawing.intervals(ax, found.n, over_seeds(found[name].values), **own)
        ax.plot(found.n, found.predicted, **drawing.THEORY, label="theory, ridge")
        slope = found.predicted[-1] * (found.n / found.n[-1]) ** -(DIM / (2 * DIM - 1))
        dotted = {"linestyle": ":"}
        ax.plot(found.n, slope, **drawing.THEORY | dotted, label="theory, n$^{-3/5}$")
        drawing.width_axes(ax, found.n.values)
        ax.set_xlabel("examples n")
        ax.set_ylabel("test error")
        drawing.legend(ax)
    return ax


# --------------------------------------------------------------------- interpolation


NOISY = ["γ = 1/2", "γ = 3/4", "γ = 1"]


def interpolation(
    *,
    points: int,
    depth: int,
    noise: float,
    test: int,
    seeds: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Errors along gradient flow on noisy targets.

    Over (`family`, `seed`, `time`): `error`, against the clean target on test points;
    over (`family`, `seed`): `best`, that at the time which is best for all other seeds,
    and `last`, that at infinity.
    """
    errors = np.empty((len(NOISY), seeds, len(TIMES)))
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        x = _sphere(rng, points + test)
        y = _function(rng, x, TARGET)
        noisy = y[:points] + np.sqrt(noise) * rng.normal(size=points)
        for i, name in enumerate(NOISY):
            k = nr.gram(nr.ResNet(depth=depth, branch_scale=SCALES[name]), x)
            k_test = k[points:, :points]
            k_train = k[:points, :points]
            found = nr.early_stopping(k_train, k_test, noisy, y[points:], TIMES)
            errors[i, seed] = found.test_mse
        progress(seed + 1, seeds, "noisy targets")
    others = errors.sum(1, keepdims=True) - errors
    chosen = others.argmin(-1)[..., None]
    over = ("family", "seed")
    return xr.Dataset(
        {
            "error": ((*over, "time"), errors),
            "best": (over, np.take_along_axis(errors, chosen, -1)[..., 0]),
            "last": (over, errors[..., -1]),
        },
        coords={"family": NOISY, "seed": np.arange(seeds), "time": TIMES},
        attrs={"points": points, "depth": depth, "noise": noise, "seeds": seeds},
    )


def share_of(wins: np.ndarray) -> Measured:
    """Of repetitions, along the first axis, with exact 95 % intervals (binomial)."""
    count = wins.shape[0]
    flat = wins.sum(0).ravel()
    ends = [binomtest(int(k), count).proportion_ci(0.95) for k in flat]
    low, high = (
        np.reshape([getattr(end, name) for end in ends], wins.shape[1:])
        for name in ("low", "high")
    )
    return Measured(wins.mean(0), low, high, f"95 %, exact, over {count} seeds")


def draw_interpolation(found):
    """Mean errors against time, and at infinity."""
    with drawing.style():
        ax = drawing.one_axes(None)
        time = found.time.values
        within = (time > 0) & np.isfinite(time)
        for name, look in looks(found.family.values).items():
            mean = found.error.sel(family=name).mean("seed").values
            line = look | {"marker": ""}
            ax.plot(time[within], mean[within], **line, label=name)
            ax.plot(4e9, mean[-1], **look, clip_on=False)
        drawing.log_axis(ax.xaxis)
        drawing.log_axis(ax.yaxis, steps=(1, 2, 5))
        ax.set_xlim(1, 5e9)
        ticks = [10.0**k for k in (0, 2, 4, 6, 8)]
        ax.set_xticks([*ticks, 4e9], [*(f"{t:g}" for t in ticks), "∞"])
        ax.set_xlabel("time t, steps × learning rate")
        ax.set_ylabel("test error")
        drawing.legend(ax)
    return ax


# --------------------------------------------------------------------------- the study


MEASUREMENTS = {
    "depths": Measurement(
        measure=depths,
        full={
            "points": 500,
            "test": 2000,
            "depths": [1, 3, 10, 100, 1000, 10_000, 10**6, 10**8, 10**10],
            "noise": 0.1,
            "seeds": 10,
        },
        quick={
            "points": 200,
            "test": 1000,
            "depths": [1, 10, 100, 10_000, 10**6, 10**10],
            "seeds": 5,
        },
    ),
    "curve": Measurement(
        measure=curve,
        full={
            "sizes": [50, 100, 200, 500, 1000, 2000],
            "depth": 10**6,
            "noise": 0.1,
            "test": 1000,
            "seeds": 30,
        },
        quick={"sizes": [50, 100, 200, 400], "seeds": 100},
    ),
    "interpolation": Measurement(
        measure=interpolation,
        full={"points": 200, "depth": 100, "noise": 0.3, "test": 500, "seeds": 200},
        quick={"points": 100, "test": 200, "seeds": 80},
    ),
}

CLAIMS = [
    Claim(
        name="10a-large",
        statement="α = 1 and γ = 1/4: deep kernels learn nothing: test error at "
        "the best time over the variance, {points} points on S², L = {deepest:.0e}",
        source="constant and slowly decreasing α degenerate",
        known="read",
        of="depths",
        measure=lambda found: over_seeds(_errors(found, LARGE).isel(depth=-1).values),
        predicted=1.0,
        tolerance=0.02,
        reason="n/Σα² for the part of the kernel that is left, and noise",
        figure="depths",
    ),
    Claim(
        name="10a-flat",
        statement="γ = 3/4 and 1: the kernel's test error at the best time does not "
        "change with depth: at each depth less that at L = 1, over the variance",
        source="fast decreasing α generalise",
        known="derived",
        of="depths",
        measure=lambda found: over_seeds(
            (_errors(found, SMALL) - _errors(found, SMALL).isel(depth=0)).values
        ),
        predicted=0.0,
        tolerance=0.02,
        reason="our own bound, 2 % of the variance",
        figure="depths",
    ),
    Claim(
        name="10a-one-block",
        statement="γ = 3/4 and 1: the kernel's test error at the best time at "
        "L = {deepest:.0e} over one block's",
        source="the kernel of infinite depth is that of one block",
        known="derived",
        of="depths",
        measure=_over_one_block,
        predicted=1.0,
        tolerance=0.02,
        reason="the kernels differ by terms of order L^(1−2γ)",
        figure="depths",
    ),
    Claim(
        name="10a-settled",
        statement="γ = 1/2: the kernel's test error at the best time at "
        "L = {deepest:.0e} over that at L = 10000",
        source="the kernel at 1/√L has a limit of its own",
        known="derived",
        of="depths",
        measure=_settled,
        predicted=1.0,
        tolerance=0.01,
        reason="the kernels differ by terms of order 1/L",
        figure="depths",
    ),
    Claim(
        name="10b-minimax",
        statement="γ = 1, L = {depth}, a target at the boundary of the kernel's space: "
        "exponent of n in the error at the best time, n = {first} to {last}, S²",
        source="early stopping attains the minimax rate n^(−d/(2d−1))",
        known="derived",
        of="curve",
        measure=lambda found: over_seeds(found.exponent.values),
        predicted=-DIM / (2 * DIM - 1),
        tolerance=0.1,
        reason="drift at finite n",
        figure="curve",
    ),
    Claim(
        name="10b-ridge",
        statement="γ = 1, a target at the boundary of the kernel's space, ridge "
        "regression with the ridge that is best by theory: exponent of n against that "
        "of the predicted learning curve, n = {first} to {last}",
        source="theory of learning curves at finite n",
        known="derived",
        of="curve",
        measure=lambda found: over_seeds(found.ridge_exponent.values),
        predicted=lambda found: float(found.predicted_exponent),
        tolerance=0.1,
        reason="features are not Gaussian",
        figure="curve",
    ),
    Claim(
        name="10b-far",
        statement="a target at the boundary of the kernel's space: exponent of n in "
        "the predicted learning curve beyond what can be measured, n = 10⁴ to 10⁶",
        source="early stopping attains the minimax rate n^(−d/(2d−1))",
        known="derived",
        of="curve",
        measure=lambda found: fitted(found, "far_exponent", BOTH_HALVES),
        predicted=-DIM / (2 * DIM - 1),
        tolerance=0.1,
        reason="drift at finite n",
    ),
    Claim(
        name="10d",
        statement="noisy targets, {points} points, γ = 1/2, 3/4, 1, L = {depth}: share "
        "of seeds whose error at the time that is best for the others is below that at "
        "infinite time",
        source="training to interpolation cannot generalise well",
        known="read",
        of="interpolation",
        measure=lambda found: share_of(
            (found.best < found.last).transpose("seed", "family").values
        ),
        predicted=0.95,
        side="above",
        reason="all but one in twenty",
        figure="interpolation",
    ),
]

FIGURES = {
    "depths": Figure(
        of="depths",
        draw=draw_depths,
        title="Error of gradient descent that stops at the best time, against depth",
        caption="Gradient flow with the closed-form NTK on {points} points of S² with "
        "noise of variance {noise}, at the time of the least test error; means over "
        "seeds with 95 % intervals. γ is the exponent of the scale α = L^(−γ).",
    ),
    "curve": Figure(
        of="curve",
        draw=draw_curve,
        title="Error at the best time against the number of examples",
        caption="A rough target at the boundary of the kernel's space on S², noise of "
        "variance {noise}: means over seeds with 95 % intervals, of gradient flow at "
        "the time that is best on average and of ridge regression with the best ridge. "
        "Dashed: the predicted learning curve of the latter; dotted, the minimax rate.",
    ),
    "interpolation": Figure(
        of="interpolation",
        draw=draw_interpolation,
        title="Error along gradient flow on noisy targets",
        caption="Means over {seeds} seeds, {points} points of S², noise of variance "
        "{noise}, L = {depth}; the marks at the right are the interpolating solution.",
    ),
}
