"""What degenerate kernels learn: the limit kernel, and regression against depth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.data.datasets import Data
from ntk_resnet.plot import panels
from ntk_resnet.studies.comparisons import degeneracy_on_data
from ntk_resnet.studies.families import FAMILIES, smooth, some_rows, stack
from ntk_resnet.studies.ledger import Claim, exact, over_seeds
from ntk_resnet.studies.spheres import on_sphere
from ntk_resnet.studies.splits import (
    RIDGE,
    draw_errors,
    fit_splits,
    near_chance,
    sizes_of,
    stays_below,
    stays_flat,
)
from ntk_resnet.studies.study import Figure, Measurement, NotRun

PAIR = (3, 8)
"""The two classes told apart, of data with ten: those of digits most alike."""


# ----------------------------------------------------------------- the limit kernel


def limit(*, rows: int, ridges: Sequence[float], progress: Progress = quiet):
    """Regression with the kernel that is 1 on the diagonal and 1/4 off it.

    Over (`ridge`, `row`): `on_data`, the prediction at the training points over their
    centred targets, and `elsewhere`, that at new points; over `ridge`: `uncentred`,
    that at a new point with targets that are not centred, over their mean. And
    `condition_number`.
    """
    rng = np.random.default_rng(0)
    # None near 0, since predictions are divided by them.
    y = rng.choice([-1.0, 1.0], (rows, 1)) * rng.uniform(1, 2, (rows, 1))
    centred = y - y.mean()
    matrix = 0.75 * np.eye(rows) + 0.25
    new = np.full((rows, rows), 0.25)
    found = [
        [
            nr.kernel_ridge(matrix, matrix, centred, ridge=ridge) / centred,
            nr.kernel_ridge(matrix, new, centred, ridge=ridge),
            nr.kernel_ridge(matrix, new[:1], centred + 1, ridge=ridge),
        ]
        for ridge in ridges
    ]
    over = ("ridge", "row")
    progress(1, 1, "the limit kernel")
    return xr.Dataset(
        {
            "on_data": (over, [one[0][:, 0] for one in found]),
            "elsewhere": (over, [one[1][:, 0] for one in found]),
            "uncentred": ("ridge", [float(one[2][0, 0]) for one in found]),
            "condition_number": float(nr.spectrum(matrix).condition_number),
        },
        coords={"ridge": list(ridges), "row": np.arange(rows)},
        attrs={"n": rows, "least": float(np.abs(centred).min())},
    )


_EPS = np.finfo(float).eps
_EXACT = "exact but for the rounding"
_BOUND = "bound of the rounding: eps × rows × condition number"


def _rounding(found):
    """Of a prediction: targets are no larger than 3."""
    return 3 * _EPS * found.attrs["n"] * float(found.condition_number)


LIMIT = [
    Claim(
        name="1i-on-data",
        statement="limit kernel, centred targets: predictions at the training points "
        "over the targets there are 3/(4λ+3)",
        source="regression with the limit kernel, on the authors' poster",
        known="read",
        of="limit",
        measure=lambda found: exact(
            found.on_data, _rounding(found) / found.attrs["least"], _BOUND
        ),
        predicted=lambda found: (3 / (4 * found.ridge.values + 3))[:, None],
        tolerance=1e-10,
        reason=_EXACT,
    ),
    Claim(
        name="1i-elsewhere",
        statement="limit kernel, centred targets: predictions at new points are 0",
        source="regression with the limit kernel, on the authors' poster",
        known="read",
        of="limit",
        measure=lambda found: exact(found.elsewhere, _rounding(found), _BOUND),
        predicted=0.0,
        tolerance=1e-10,
        reason=_EXACT,
    ),
    Claim(
        name="1i-uncentred",
        statement="limit kernel, targets of mean ȳ: predictions at new points over ȳ "
        "are n/(n+3+4λ), n = {n}",
        source="inverse of the limit kernel's matrix",
        known="derived",
        of="limit",
        measure=lambda found: exact(found.uncentred, _rounding(found), _BOUND),
        predicted=lambda found: (
            found.attrs["n"] / (found.attrs["n"] + 3 + 4 * found.ridge.values)
        ),
        tolerance=1e-10,
        reason=_EXACT,
    ),
    Claim(
        name="1i-condition-number",
        statement="limit kernel on {n} rows: its condition number is (n+3)/3",
        source="its eigenvalues 3/4 and 3/4 + n/4",
        known="derived",
        of="limit",
        measure=lambda found: exact(
            found.condition_number,
            _rounding(found) * float(found.condition_number),
            _BOUND,
        ),
        predicted=lambda found: (found.attrs["n"] + 3) / 3,
        tolerance=1e-8,
        reason=_EXACT,
    ),
]


# -------------------------------------------------------- condition number and noise


def noise(
    *, depth: int, rows: int, seeds: int, progress: Progress = quiet
) -> xr.Dataset:
    """Kernels at one depth on random points of the sphere, and a target of noise.

    Over (`family`, `seed`): `condition_number` of the matrix of `rows` points in five
    dimensions, and `mse`, the mean squared test error over the variance of regression
    without ridge of random signs, on as many other points.
    """
    found = np.empty((2, len(FAMILIES), seeds))
    for seed in range(seeds):
        progress(seed, seeds, f"random signs, seed {seed}")
        rng = np.random.default_rng(seed)
        x = on_sphere(rng, 2 * rows, 5)
        y = rng.choice([-1.0, 1.0], (2 * rows, 1))
        for k, spec in enumerate(FAMILIES.values()):
            kernel = nr.sweep_depth(spec, [depth], x=x).ntk.values[0]
            own = kernel[:rows, :rows]
            guess = nr.kernel_ridge(own, kernel[rows:, :rows], y[:rows], ridge=0.0)
            error = np.mean((guess - y[rows:]) ** 2) / y[rows:].var()
            found[:, k, seed] = nr.spectrum(own).condition_number, error
    over = ("family", "seed")
    return xr.Dataset(
        {"condition_number": (over, found[0]), "mse": (over, found[1])},
        coords={"family": list(FAMILIES), "seed": np.arange(seeds)},
        attrs={"depth": depth, "rows": rows},
    )


def _over_limit(family):
    """The condition number over (n+3)/3."""

    def measure(found):
        one = found.condition_number.sel(family=family)
        return over_seeds(one / ((found.attrs["rows"] + 3) / 3), what="sets of points")

    return measure


def _worse_conditioned(family):
    def measure(found):
        number = found.condition_number
        ratio = number.sel(family=family) / number.sel(family="plain")
        return over_seeds(ratio, what="sets of points")

    return measure


def _reversed(found):
    error = found.mse
    difference = error.sel(family="γ = 1") - error.sel(family="plain")
    return over_seeds(difference, what="sets of points")


_SPHERE = "{rows} random points of the sphere in five dimensions, L = {depth}"

NOISE = [
    *(
        Claim(
            name=f"1i-sphere-{ending}",
            statement=f"{words}: condition number of the NTK of {_SPHERE}, over that "
            "of the limit kernel, (n+3)/3",
            source="limit kernel at finite depth",
            known="derived",
            of="noise",
            measure=_over_limit(family),
            predicted=1.0,
            tolerance=0.1,
            reason="next term of order (ln L)/L, larger with α = 1: 4 and 6 %",
        )
        for ending, family, words in (
            ("plain", "plain", "plain"),
            ("constant", "α = 1", "residual, α = 1"),
        )
    ),
    *(
        Claim(
            name=f"1i-trade-off-gamma-{family[4:]}",
            statement=f"residual, {family}: condition number of the NTK of {_SPHERE}, "
            "over that of the plain kernel: larger",
            source="degenerate kernels are better conditioned, and learn less",
            known="derived",
            of="noise",
            measure=_worse_conditioned(family),
            predicted=1.0,
            side="above",
            reason="the sign of the trade-off",
        )
        for family in ("γ = 1", "γ = 1/2")
    ),
    Claim(
        name="1i-noise",
        statement=f"random signs on {_SPHERE}, no ridge: test MSE / Var of the "
        "residual kernel, γ = 1, less that of the plain one is positive",
        source="a degenerate kernel regularises, which helps where there is nothing to "
        "learn",
        known="derived",
        of="noise",
        measure=_reversed,
        predicted=0.0,
        side="above",
        reason="the sign of the difference",
    ),
]


# ------------------------------------------------------------------- on data


def _condition(found):
    number = float(found.condition_number.sel(family="plain").isel(depth=-1))
    n = found.attrs["rows"]
    return exact(number / ((n + 3) / 3), 3 * _EPS * n * number, _BOUND)


def regression(
    data: Data,
    *,
    depths: Sequence[int],
    train: int,
    test: int,
    splits: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Kernel ridge regression over (family, depth, split): see `fit_splits`.

    One random part of the data, split again and again into `train` and `test` rows (in
    this proportion, if there are fewer).
    """
    chosen = some_rows(data, train + test)
    train = round(len(chosen) * train / (train + test))
    found = []
    for done, (name, spec) in enumerate(FAMILIES.items()):
        report = part_of(progress, done, 1, len(FAMILIES), f"{name}, ")
        swept = nr.sweep_depth(spec, depths, x=chosen.x, progress=report)
        fitted = fit_splits(swept.ntk.values, chosen, train, splits)
        coords = {"depth": list(depths), "split": np.arange(splits)}
        found.append(xr.Dataset(fitted, coords=coords))
    return stack(found, FAMILIES).assign_attrs(
        data=data.name,
        train=train,
        test=len(chosen) - train,
        ridge=RIDGE,
        splits=splits,
        classes=0 if data.classes is None else len(data.classes),
        **sizes_of(depths),
    )


def teacher(*, rows: int, progress: Progress = quiet, **sizes) -> xr.Dataset:
    """`regression` of `x1 + 2.5 x2 x3` on the sphere in five dimensions."""
    return regression(smooth_target(rows), progress=progress, **sizes)


def smooth_target(rows: int) -> Data:
    """`x1 + 2.5 x2 x3` at random points of the sphere in five dimensions."""
    x = on_sphere(np.random.default_rng(0), rows, 5)
    return Data(x, smooth(x), None, "a smooth target")


def two_classes(data: Data, *, progress: Progress = quiet, **sizes) -> xr.Dataset:
    """`regression` of two classes, as in the paper: `PAIR`, or the first two.

    Raises:
        NotRun: the data have no classes.
    """
    if data.classes is None:
        raise NotRun(f"the data have no classes: {data.name} has real targets")
    pair = PAIR if len(data.classes) > max(PAIR) else (0, 1)
    rows = np.flatnonzero(np.isin(data.y, pair))
    words = [str(data.classes[k]) for k in pair]
    y = (data.y[rows] == pair[1]).astype(int)
    name = f"{data.name}, classes {words[0]} and {words[1]}"
    return regression(
        Data(data.x[rows], y, tuple(words), name), progress=progress, **sizes
    )


def _accuracy(found):
    if not found.attrs["classes"]:
        raise NotRun(
            f"the data have no classes: {found.attrs['data']} has real targets"
        )
    return found.accuracy


def _lead_kept(found):
    """Accuracy's lead over chance at the last depth, over that at the first."""
    lead = _accuracy(found).sel(family="plain") - 1 / found.attrs["classes"]
    return over_seeds(lead.isel(depth=-1) / lead.isel(depth=0), what="splits")


def _change_of_accuracy(found):
    """Of the plain kernel, from the first depth to the last."""
    one = _accuracy(found).sel(family="plain")
    return over_seeds(one.isel(depth=-1) - one.isel(depth=0), what="splits")


def _loss_of_accuracy(family):
    """The first depth's accuracy less that at the depth where the mean is least."""

    def measure(found):
        one = _accuracy(found).sel(family=family)
        worst = int(one.mean("split").argmin("depth"))
        return over_seeds(one.isel(depth=0) - one.isel(depth=worst), what="splits")

    return measure


def _accuracies(of: str, where: str) -> list[Claim]:
    """What the paper's experiments show: accuracy against depth."""
    shared: Any = {
        "source": "experiments on two classes of MNIST and of CIFAR-10",
        "known": "summary",
        "of": of,
        "figure": of,
        "side": "below",
    }
    return [
        Claim(
            name=f"1j-{of.replace('_', '-')}-accuracy-plain",
            statement=f"{where}, plain: test accuracy at L = {{last}} less that at "
            "L = {first}: it falls",
            measure=_change_of_accuracy,
            predicted=0.0,
            reason="the sign of the change",
            **shared,
        ),
        *(
            Claim(
                name=f"1j-{of.replace('_', '-')}-accuracy-gamma-{family[4:]}",
                statement=f"{where}, residual, {family}: test accuracy at "
                "L = {first} less that at the worst depth to L = {last}: it stays flat",
                measure=_loss_of_accuracy(family),
                predicted=0.02,
                reason="flat means: within two points, over all depths",
                **shared,
            )
            for family in ("γ = 1", "γ = 1/2")
        ),
    ]


def _errors(of: str, where: str) -> list[Claim]:
    """What the limits of the kernels imply for the squared error."""
    shared = {"source": "consequence of the kernels' limits", "known": "derived"}
    return [
        near_chance(
            of,
            name=f"1j-{of.replace('_', '-')}-mse-plain",
            statement=f"{where}, plain: test MSE / Var at L = {{last}} is near that of "
            "the best constant, 1",
            reason="our own bound: nine tenths of the variance is left",
            figure=of,
            **shared,
        ),
        *(
            stays_flat(
                of,
                family,
                name=f"1j-{of.replace('_', '-')}-mse-gamma-{family[4:]}",
                statement=f"{where}, residual, {family}: test MSE at its worst depth "
                "to L = {last}, over that at L = {first}: it stays flat",
                figure=of,
                **shared,
            )
            for family in ("γ = 1", "γ = 1/2")
        ),
    ]


_PAIRS = {
    "two_classes": "two classes of the data",
    "mnist": "two classes of MNIST",
    "cifar10": "two classes of CIFAR-10",
}

CLAIMS = [
    *LIMIT,
    *NOISE,
    Claim(
        name="1i-data",
        statement="plain: condition number of the Gram matrix of {rows} rows of "
        "{data} at L = {deepest}, over (n+3)/3",
        source="limit kernel at finite depth",
        known="derived",
        of="degeneracy",
        measure=_condition,
        predicted=1.0,
        tolerance=0.25,
        reason="rows at small angles still differ: (3/8 ln L + h(u))/L",
        figure="degeneracy",
    ),
    near_chance(
        "teacher",
        name="1j-smooth-plain",
        statement="smooth target, plain: test MSE / Var at L = {last} is near that of "
        "the best constant, 1",
        source="consequence of the kernels' limits",
        known="derived",
        reason="our own bound: nine tenths of the variance is left",
        figure="teacher",
    ),
    *(
        stays_below(
            "teacher",
            family,
            0.01,
            name=f"1j-smooth-gamma-{family[4:]}",
            statement=f"smooth target, residual, {family}: test MSE / Var at the worst "
            "depth is small",
            source="consequence of the kernels' limits",
            known="derived",
            reason="our own bound: a hundredth of the variance",
            figure="teacher",
        )
        for family in ("γ = 1", "γ = 1/2")
    ),
    *_errors("regression", "{data}"),
    Claim(
        name="1j-regression-accuracy-kept",
        statement="{data}, plain: lead of the accuracy over chance at L = {last}, over "
        "that at L = {first}: accuracy does not collapse as the squared error does",
        source="the limit kernel's next term, whose sign stays",
        known="derived",
        of="regression",
        measure=_lead_kept,
        predicted=0.5,
        side="above",
        reason="our own bound: half of it is kept",
        figure="regression",
    ),
    *(claim for of, where in _PAIRS.items() for claim in _accuracies(of, where)),
    *(claim for of, where in _PAIRS.items() for claim in _errors(of, where)),
]

_ERRORS = (
    "Kernel ridge regression on {data}: {train} rows for training, {test} for testing, "
    "ridge {ridge:g} of the mean diagonal; means over {splits} random splits with 95 % "
    "intervals. The splits share rows, so the intervals do not cover new data."
)
_TITLE = "Error of regression against depth, {data}"

FIGURES = {
    "degeneracy": Figure(
        of="degeneracy",
        draw=panels.degeneracy,
        title="The NTK's Gram matrix of {data} against depth",
        caption="{rows} rows: root mean square of NTK − 1/4 off the diagonal, median "
        "of 1 − NNGP, condition number and effective rank of the NTK; dashed the "
        "predictions for networks whose kernel degenerates.",
    ),
    **{
        name: Figure(of=name, draw=draw_errors, title=_TITLE, caption=_ERRORS)
        for name in ("two_classes", "teacher", "regression", "mnist", "cifar10")
    },
}

_DEPTHS = (1, 3, 10, 30, 100, 300, 1000)
_FULL = {"depths": _DEPTHS, "train": 300, "test": 300, "splits": 10}
_QUICK = {"train": 120, "test": 120}

MEASUREMENTS = {
    "limit": Measurement(measure=limit, full={"rows": 200, "ridges": [0.0, 0.01, 1.0]}),
    "noise": Measurement(
        measure=noise,
        full={"depth": 1000, "rows": 200, "seeds": 10},
        quick={"seeds": 5},
    ),
    "degeneracy": Measurement(
        measure=degeneracy_on_data,
        full={"depths": _DEPTHS, "rows": 300},
        quick={"rows": 120},
        data="rows",
    ),
    "two_classes": Measurement(
        measure=two_classes,
        full=_FULL | {"train": 170, "test": 170},
        quick=_QUICK,
        data="rows",
    ),
    "teacher": Measurement(
        measure=teacher,
        full=_FULL | {"rows": 500, "train": 200},
        quick=_QUICK | {"rows": 320, "train": 200},
    ),
    "regression": Measurement(
        measure=regression, full=_FULL, quick=_QUICK, data="rows"
    ),
    **{
        source: Measurement(
            measure=two_classes, full=_FULL, quick=_QUICK, data="rows", source=source
        )
        for source in ("mnist", "cifar10")
    },
}
