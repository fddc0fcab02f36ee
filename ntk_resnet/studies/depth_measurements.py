"""Residual and plain kernels as depth grows: the measurements behind the report.

After Huang, Wang, Tao and Zhao, Why do deep residual networks generalize better than
deep feedforward networks? (NeurIPS 2020). Each measurement is a function that returns a
Dataset; `depth_study` runs and saves them, `depth_claims` judges what they measured.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.analysis import regression
from ntk_resnet.analysis.degeneracy import degeneracy
from ntk_resnet.analysis.statistics import mean_of
from ntk_resnet.data.datasets import Data, split, targets
from ntk_resnet.kernels.depths import sweep_depth
from ntk_resnet.kernels.function import kernel_fn
from ntk_resnet.records.provenance import provenance
from ntk_resnet.specification.base import TRAINED, Specification
from ntk_resnet.specification.json import to_dict
from ntk_resnet.specification.networks import FeedForward, ResNet
from ntk_resnet.specification.scales import DepthScale

FAMILIES: dict[str, Specification] = {
    "plain": FeedForward(depth=1, trained="blocks"),
    "γ = 1": ResNet(depth=1, branch_scale=DepthScale(1.0)),
    "γ = 1/2": ResNet(depth=1, branch_scale=DepthScale(0.5)),
    "γ = 1/4": ResNet(depth=1, branch_scale=DepthScale(0.25)),
    "α = 1": ResNet(depth=1, branch_scale=1.0),
}
"""The networks compared: plain, and residual with branches scaled by `L^-γ` or `α`.

In all of them the blocks alone are trained, and the readout is frozen, as in the paper.
"""

PAPER_DEPTHS = (1, 2, 5, 10, 50, 200, 2000)
"""Those of the paper's figure of both kernels."""

PAPER_FAMILIES = ("plain", "γ = 1")

COSINES = (-0.9, -0.5, 0.0, 0.3, 0.7, 0.95)
"""Cosines between inputs at which rates are measured, those of the theory's tables."""

SECOND = ("plain", "γ = 1/2")
"""The networks that neural-tangents computes too."""

RIDGE = 1e-3


# ---------------------------------------------- kernels against the angle or its cosine


def paper_kernels(*, cosines: int, progress: Progress = quiet) -> xr.Dataset:
    """The paper's figure: the normalised NTK, `ntk`, over (family, depth, cosine).

    Of `PAPER_FAMILIES` at `PAPER_DEPTHS`; the cosines are those of equidistant angles,
    so that they are dense at both ends, where deep kernels bend.
    """
    theta = np.linspace(np.pi, 0, cosines)
    swept = []
    for done, name in enumerate(PAPER_FAMILIES):
        report = part_of(progress, done, 1, len(PAPER_FAMILIES), f"kernels of {name}, ")
        found = sweep_depth(FAMILIES[name], PAPER_DEPTHS, angles=theta, progress=report)
        swept.append(found[["ntk"]].drop_vars("angle"))
    result = stack(swept, PAPER_FAMILIES).rename(angle="cosine")
    return result.assign_coords(cosine=np.cos(theta))


def kernels_by_angle(
    *, depths: Sequence[int], angles: int, progress: Progress = quiet
) -> xr.Dataset:
    """Both normalised kernels over (family, depth, angle), and neural-tangents' beside.

    The second engine computes the networks `SECOND` at a few depths (`layers`) and
    angles (`marker`), away from 0 and pi, where its arccos keeps half the digits;
    `deviation` is its largest difference from the closed form.
    """
    theta = np.linspace(0, np.pi, angles)
    swept = []
    pieces = len(FAMILIES) + 2
    for done, (name, spec) in enumerate(FAMILIES.items()):
        report = part_of(progress, done, 1, pieces, f"kernels of {name}, ")
        swept.append(sweep_depth(spec, depths, angles=theta, progress=report))
    result = stack(swept, FAMILIES)
    progress(len(FAMILIES), pieces, "kernels by neural-tangents")
    return result.merge(_second_engine(), combine_attrs="drop_conflicts")


def _second_engine() -> xr.Dataset:
    markers, layers = np.linspace(0, np.pi, 13)[1:-1], (1, 10, 30)
    angles = np.concatenate([[0.0], markers])
    x = np.column_stack([np.cos(angles), np.sin(angles)])
    dims = ("engine", "network", "layers", "marker")
    shape = (2, len(SECOND), len(layers), len(markers))
    values = {"nngp": np.empty(shape), "ntk": np.empty(shape)}
    engines: tuple[Any, ...] = ("neural_tangents", "recursion")
    for i, engine in enumerate(engines):
        for j, name in enumerate(SECOND):
            for k, depth in enumerate(layers):
                kernel = kernel_fn(
                    FAMILIES[name].replace(depth=depth), engine=engine, normalised=False
                )
                # All pairs: neural-tangents is exact on the diagonal of one array only.
                for which, raw in kernel(x, get=tuple(values))._asdict().items():
                    size = np.sqrt(np.diagonal(raw))
                    values[which][i, j, k] = (np.asarray(raw) / size / size[0])[0, 1:]
    worst = [np.max(np.abs(v[0] - v[1]), axis=(1, 2)) for v in values.values()]
    return xr.Dataset(
        {f"{name}_neural_tangents": (dims[1:], v[0]) for name, v in values.items()}
        | {"deviation": ("network", np.max(worst, axis=0))},
        coords={"network": list(SECOND), "layers": list(layers), "marker": markers},
    )


# -------------------------------------------------------------------- rates, few angles


def rates(*, longest: int, progress: Progress = quiet) -> xr.Dataset:
    """What the theory's rates are read off: few angles, large depths.

    Variables: over (`trained`, `plain_depth`, cosine) `plain_ntk`, of plain networks
    whose readout is frozen (`"blocks"`), as the paper's, or trained (`"all"`); over
    (`plain_depth`, cosine) `plain_nngp_gap`, to which that is the same; over
    (`block_depth`, cosine) `constant_ntk`, `constant_nngp_gap` (`α = 1`),
    `quarter_ntk` (`γ = 1/4`), `half_ntk` and its limit `half_limit` (`γ = 1/2`),
    `one_ntk` (`γ = 1`); over (exponent, `block_depth`) `shallow_distance`, the largest
    distance to the kernel of one block over cosines from -0.9 to 1.
    """
    angles = np.arccos(COSINES)
    long = np.unique(np.geomspace(1000, longest, 21).round().astype(int))
    blocks = np.array([100, 300, 1000, 3000, 10000])
    gammas = (0.6, 0.75, 1.0)
    pieces = len(TRAINED) + len(_RATE_FAMILIES) + len(gammas)

    def sweep(spec, depths, piece, angles=angles):
        report = part_of(progress, piece, 1, pieces, "rates, ")
        return sweep_depth(spec, depths.tolist(), angles=angles, progress=report)

    plain = [
        sweep(FAMILIES["plain"].replace(trained=trained), long, piece)
        for piece, trained in enumerate(TRAINED)
    ]
    named = {
        key: sweep(FAMILIES[family], blocks, piece)
        for piece, (key, family) in enumerate(_RATE_FAMILIES.items(), start=len(plain))
    }
    grid = np.linspace(0, np.arccos(-0.9), 200)
    shallow = sweep_depth(FAMILIES["γ = 1"], 1, angles=grid).ntk.values
    distance = []
    for piece, gamma in enumerate(gammas, start=pieces - len(gammas)):
        spec = ResNet(depth=1, branch_scale=DepthScale(gamma))
        deep = sweep(spec, blocks, piece, grid).ntk.values
        distance.append(np.max(np.abs(deep - shallow), axis=1))
    over = ("block_depth", "cosine")
    return xr.Dataset(
        {
            "plain_ntk": (
                ("trained", "plain_depth", "cosine"),
                np.stack([found.ntk.values for found in plain]),
            ),
            "plain_nngp_gap": (("plain_depth", "cosine"), plain[0].nngp_gap.values),
            **{f"{key}_ntk": (over, found.ntk.values) for key, found in named.items()},
            "constant_nngp_gap": (over, named["constant"].nngp_gap.values),
            "half_limit": ("cosine", continuous_limit(angles)),
            "shallow_distance": (("exponent", "block_depth"), np.array(distance)),
        },
        coords={
            "cosine": list(COSINES),
            "trained": list(TRAINED),
            "plain_depth": long,
            "block_depth": blocks,
            "exponent": list(gammas),
        },
    )


_RATE_FAMILIES = {
    "one": "γ = 1",
    "half": "γ = 1/2",
    "quarter": "γ = 1/4",
    "constant": "α = 1",
}


def continuous_limit(angles: Any) -> np.ndarray:
    r"""Normalised NTK of a residual network at gamma = 1/2 as depth goes to infinity.

    .. math::
        \dot u = \kappa_1(u) - u,\ u_0 = \cos\theta; \qquad
        \dot S = -(1 - \kappa_0(u)) S + \kappa_1(u) + u\,\kappa_0(u),\ S_0 = 0; \qquad
        \bar\Omega = S_1 / 2

    (theory: the recursion with steps 1/L, read as Euler's method), by an adaptive
    Runge-Kutta method of order 8 to about 1e-12.

    Args:
        angles: in [0, pi], `(k,)`.

    Returns:
        `(k,)`, float64.
    """
    from scipy.integrate import solve_ivp

    def slope(_, state):
        u, s = np.split(state, 2)
        theta = np.arccos(np.clip(u, -1, 1))
        kappa0 = 1 - theta / np.pi
        kappa1 = u * kappa0 + np.sin(theta) / np.pi
        return np.concatenate([kappa1 - u, (kappa0 - 1) * s + kappa1 + u * kappa0])

    start = np.concatenate([np.cos(angles), np.zeros(len(angles))])
    solved = solve_ivp(slope, (0, 1), start, method="DOP853", rtol=1e-12, atol=1e-13)
    return solved.y[len(angles) :, -1] / 2


# ------------------------------------------------------------------------- on real data


def degeneracy_on_data(
    data: Data,
    *,
    depths: Sequence[int],
    rows: int,
    families: dict[str, Specification] | None = None,
    progress: Progress = quiet,
) -> xr.Dataset:
    """The NTK's Gram matrix on at most that many rows, over (family, depth).

    Variables are those of `analysis.degeneracy.degeneracy`, and
    `predicted_effective_rank`, that of the constant kernel; `families` are `FAMILIES`
    if left out.
    """
    families = FAMILIES if families is None else families
    chosen = some_rows(data, rows)
    found = []
    for done, (name, spec) in enumerate(families.items()):
        report = part_of(progress, done, 1, len(families), f"Gram matrix of {name}, ")
        found.append(degeneracy(spec, depths, chosen.x, progress=report))
    result = stack(found, families)
    # The constant kernel has the eigenvalue 3/4, n - 1 times, and 3/4 + n/4.
    n = len(chosen)
    share = np.array([3 / (4 * n)] * (n - 1) + [3 / (4 * n) + 1 / 4])
    known = result.predicted_condition_number.notnull()
    rank = np.exp(-np.sum(share * np.log(share)))
    result["predicted_effective_rank"] = xr.where(known, rank, np.nan)
    return result.assign_attrs(
        provenance(rows=n, data=data.name, families=specs_as_data(families))
    )


def some_rows(data: Data, most: int) -> Data:
    """At most that many rows, drawn with a fixed seed, classes in proportion."""
    if len(data) <= most:
        return data
    rows, _ = split(data, train=most, test=1, seed=0)
    return data.take(np.sort(rows))


def regression_on_data(
    data: Data,
    *,
    depths: Sequence[int],
    train: int,
    test: int,
    splits: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Kernel ridge regression over (family, depth, split).

    One random part of the data, split again and again into `train` and `test` rows (in
    this proportion, if there are fewer); the targets are centred one-hot columns or the
    standardised real target.

    Returns:
        `mse` (mean squared test error over the variance of the test targets, so 1 is
        what the best constant reaches), `r2` = 1 - mse, `accuracy` (NaN for real
        targets), and of each the `_mean`, `_low` and `_high` (95 % interval of the mean
        over splits, Student's t).
    """
    chosen = some_rows(data, train + test)
    train = round(len(chosen) * train / (train + test))
    values = []
    for done, (name, spec) in enumerate(FAMILIES.items()):
        report = part_of(progress, done, 1, len(FAMILIES), f"regression with {name}, ")
        swept = sweep_depth(spec, depths, x=chosen.x, progress=report)
        values.append(fit_splits(swept.ntk.values, chosen, train, splits))
    result = xr.Dataset(
        {
            measure: (("family", "depth", "split"), np.array(values)[..., k])
            for k, measure in enumerate(MEASURES)
        },
        coords={
            "family": list(FAMILIES),
            "depth": swept.depth.values,
            "split": np.arange(splits),
        },
        attrs={
            "data": data.name,
            "train": train,
            "test": len(chosen) - train,
            "ridge": RIDGE,
            "classes": 0 if data.classes is None else len(data.classes),
        },
    )
    return with_intervals(result, MEASURES, "split")


MEASURES = ("mse", "r2", "accuracy")


def fit_splits(grams, data, train, splits):
    """`(depth, split, measure)` from the kernel matrices `(depth, row, row)`."""
    fitted, classify = targets(data), data.classes is not None
    rows = [split(data, train=train, seed=seed) for seed in range(splits)]
    return [[fit_split(gram, fitted, classify, *r) for r in rows] for gram in grams]


def fit_split(gram, fitted, classify: bool, train, test) -> tuple[float, ...]:
    """`MEASURES` of kernel ridge regression on one split of the rows of `gram`."""
    k_train, k_test = gram[np.ix_(train, train)], gram[np.ix_(test, train)]
    truth = fitted[test]
    guess = regression.kernel_ridge(k_train, k_test, fitted[train], ridge=RIDGE)
    variance = np.mean((truth - truth.mean(axis=0)) ** 2)
    mse = np.mean((guess - truth) ** 2) / variance if variance > 0 else np.nan
    right = (
        np.mean(guess.argmax(axis=1) == truth.argmax(axis=1)) if classify else np.nan
    )
    return mse, 1 - mse, right


def teacher(rows: int, seed: int = 0) -> Data:
    """A smooth regression on the sphere in R^5: `x1 + 2.5 x2 x3`, standardised."""
    x = np.random.default_rng(seed).normal(size=(rows, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Data(x, x[:, 0] + 2.5 * x[:, 1] * x[:, 2], None, "teacher")


def with_intervals(dataset: xr.Dataset, names, dim: str) -> xr.Dataset:
    """Adds mean and 95 % interval (Student's t over `dim`) of some variables."""
    for name in names:
        values = dataset[name].transpose(dim, ...)
        for end, found in mean_of(values.values)._asdict().items():
            dataset[f"{name}_{end}"] = values.dims[1:], found
    return dataset


# ------------------------------------------------------------------------------ helpers


def specs_as_data(families) -> dict[str, Any]:
    """Specifications as plain data, by name."""
    return {name: to_dict(spec) for name, spec in families.items()}


def stack(datasets, families) -> xr.Dataset:
    """One Dataset over `family` from one for each family."""
    family = xr.Variable("family", list(families))
    return xr.concat(
        [dataset.drop_attrs(deep=False) for dataset in datasets],
        dim="family",
        join="exact",
    ).assign_coords(family=family)
