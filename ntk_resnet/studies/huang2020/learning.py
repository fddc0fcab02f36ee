"""What degenerate kernels learn: the limit kernel, and regression against depth."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.data.datasets import Data
from ntk_resnet.data.images import has_images
from ntk_resnet.plot import panels
from ntk_resnet.studies.comparisons import degeneracy_on_data
from ntk_resnet.studies.families import FAMILIES, smooth, some_rows, stack
from ntk_resnet.studies.ledger import Claim, exact, over_seeds
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
    y = rng.normal(size=(rows, 1))
    centred = y - y.mean()
    matrix = 0.75 * np.eye(rows) + 0.25
    new = np.full((rows, rows), 0.25)
    found = [
        [
            nr.kernel_ridge(matrix, matrix, centred, ridge=ridge) / centred,
            nr.kernel_ridge(matrix, new, centred, ridge=ridge),
            nr.kernel_ridge(matrix, new[:1], y, ridge=ridge) / y.mean(),
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
        attrs={"n": rows},
    )


_EXACT = "exact; rounding of {n} rows"

LIMIT = [
    Claim(
        name="1i",
        statement="the limit kernel, centred targets: predictions at the training "
        "points over these are 3/(4λ+3)",
        source="regression with the limit kernel, on the authors' poster",
        known="read",
        of="limit",
        measure=lambda found: exact(found.on_data, 0.0, "none"),
        predicted=lambda found: (3 / (4 * found.ridge.values + 3))[:, None],
        tolerance=1e-10,
        reason=_EXACT,
    ),
    Claim(
        name="1i",
        statement="the limit kernel, centred targets: predictions elsewhere are 0",
        source="regression with the limit kernel, on the authors' poster",
        known="read",
        of="limit",
        measure=lambda found: exact(found.elsewhere, 0.0, "none"),
        predicted=0.0,
        tolerance=1e-10,
        reason=_EXACT,
    ),
    Claim(
        name="1i",
        statement="the limit kernel, any targets of mean ȳ: predictions elsewhere are "
        "ȳ n/(n+3+4λ), n = {n}: over ȳ",
        source="the same without centring",
        known="derived",
        of="limit",
        measure=lambda found: exact(found.uncentred, 0.0, "none"),
        predicted=lambda found: (
            found.attrs["n"] / (found.attrs["n"] + 3 + 4 * found.ridge.values)
        ),
        tolerance=1e-10,
        reason=_EXACT,
    ),
    Claim(
        name="1i",
        statement="the limit kernel on {n} rows has the condition number (n+3)/3",
        source="its eigenvalues 3/4 and 3/4 + n/4",
        known="derived",
        of="limit",
        measure=lambda found: exact(found.condition_number, 0.0, "none"),
        predicted=lambda found: (found.attrs["n"] + 3) / 3,
        tolerance=1e-8,
        reason=_EXACT,
    ),
]


# ------------------------------------------------------------------- on data


def _condition(found):
    deepest = found.sel(family="plain").isel(depth=-1)
    return exact(deepest.condition_number / ((found.attrs["rows"] + 3) / 3), 1e-6)


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
    x = np.random.default_rng(0).normal(size=(rows, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Data(x, smooth(x), None, "a smooth target")


def two_classes(data: Data, *, progress: Progress = quiet, **sizes) -> xr.Dataset:
    """`regression` of two classes, as the paper's experiments: `PAIR`, or the first.

    Raises:
        NotRun: the data have no classes.
    """
    if data.classes is None:
        raise NotRun(f"{data.name} has real targets, and the claim is about classes")
    pair = PAIR if len(data.classes) > max(PAIR) else (0, 1)
    rows = np.flatnonzero(np.isin(data.y, pair))
    words = [str(data.classes[k]) for k in pair]
    y = (data.y[rows] == pair[1]).astype(int)
    name = f"{data.name}, classes {words[0]} and {words[1]}"
    return regression(
        Data(data.x[rows], y, tuple(words), name), progress=progress, **sizes
    )


def two_classes_of(*, source: str, progress: Progress = quiet, **sizes) -> xr.Dataset:
    """`two_classes` of a published set of images whose files are at hand.

    Raises:
        NotRun: they are not.
    """
    if not has_images(source):
        raise NotRun(
            f"the files of {source} are not here; --data {source} downloads them, or "
            "put them under NTK_RESNET_DATA"
        )
    return two_classes(nr.load_data(source), progress=progress, **sizes)


def _lead_kept(found):
    """Accuracy's lead over chance at the last depth, over that at the first."""
    lead = found.accuracy.sel(family="plain") - 1 / found.attrs["classes"]
    return over_seeds(lead.isel(depth=-1) / lead.isel(depth=0), what="splits")


def _experiments(of: str, where: str, figure: str) -> list[Claim]:
    """What the paper's experiments show, of one measurement."""
    words = {"source": "experiments on two-class image data", "known": "summary"}
    shared = {"name": "1j", "figure": figure, **words}
    return [
        near_chance(
            of,
            statement=f"{where}, plain: test MSE / Var at L = {{last}}, near chance "
            "(1)",
            reason="the bound set for the smooth target",
            **shared,
        ),
        *(
            stays_flat(
                of,
                family,
                statement=f"{where}, residual, {family}: test MSE at its worst depth "
                "over that at L = {first}",
                **shared,
            )
            for family in ("γ = 1", "γ = 1/2")
        ),
    ]


CLAIMS = [
    *LIMIT,
    Claim(
        name="1i",
        statement="plain: condition number of the Gram matrix of the data at "
        "L = {deepest} over (n+3)/3",
        source="the limit kernel at finite depth",
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
        name="1j",
        statement="smooth target, plain: test MSE / Var at L = {last}",
        source="consequence of the limits",
        known="derived",
        reason="the bound set for this target",
        figure="teacher",
    ),
    *(
        stays_below(
            "teacher",
            family,
            0.01,
            name="1j",
            statement=f"smooth target, residual, {family}: test MSE / Var, worst L",
            source="consequence of the limits",
            known="derived",
            reason="the bound set for this target",
            figure="teacher",
        )
        for family in ("γ = 1", "γ = 1/2")
    ),
    *_experiments("regression", "all classes", "regression"),
    Claim(
        name="1j",
        statement="all classes, plain: accuracy's lead over chance at L = {last}, over "
        "that at L = {first}: accuracy does not collapse with the error",
        source="order is kept where size is lost",
        known="derived",
        of="regression",
        measure=_lead_kept,
        predicted=0.5,
        side="above",
        reason="our own bound: half of it is kept",
        figure="regression",
    ),
    *_experiments("two_classes", "two classes", "two_classes"),
    *_experiments("mnist", "two classes of MNIST", "mnist"),
    *_experiments("cifar10", "two classes of CIFAR-10", "cifar10"),
]

_ERRORS = (
    "Kernel ridge regression on {data}: {train} rows for training, {test} for testing, "
    "ridge {ridge:g} of the mean diagonal; means over {splits} random splits with 95 % "
    "intervals. The splits share rows: intervals are of splitting, not of new data."
)
_TITLE = "Error of regression against depth, {data}"

FIGURES = {
    "degeneracy": Figure(
        of="degeneracy",
        draw=panels.degeneracy,
        title="The NTK's Gram matrix of {data} against depth",
        caption="Of {rows} rows: root mean square of NTK − 1/4 off the diagonal, "
        "median gap of the NNGP, condition number and effective rank of the NTK; "
        "dashed what theory predicts of networks that degenerate.",
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
            measure=two_classes_of, full=_FULL | {"source": source}, quick=_QUICK
        )
        for source in ("mnist", "cifar10")
    },
}
