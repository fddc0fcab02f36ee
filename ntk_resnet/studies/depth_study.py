"""Residual and plain kernels as depth grows: the measurements behind the report.

After Huang, Wang, Tao and Zhao, Why do deep residual networks generalize better than deep
feedforward networks? (NeurIPS 2020). Each part is a function from sizes (and data) to a
Dataset; `run` saves them one by one and takes up a killed run where it stopped.
`depth_claims` judges what they measured.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ntk_resnet import records
from ntk_resnet.analysis import depth as depth_analysis
from ntk_resnet.analysis import regression
from ntk_resnet.architectures import Architecture, DepthScale, FeedForward, ResNet, to_dict
from ntk_resnet.data import Data, split, targets
from ntk_resnet.kernels import kernel_fn

Progress = Callable[[float, float, str], None] | None

FAMILIES: dict[str, Architecture] = {
    "plain": FeedForward(depth=1),
    "γ = 1": ResNet(depth=1, branch_scale=DepthScale(1.0)),
    "γ = 1/2": ResNet(depth=1, branch_scale=DepthScale(0.5)),
    "γ = 1/4": ResNet(depth=1, branch_scale=DepthScale(0.25)),
    "α = 1": ResNet(depth=1, branch_scale=1.0),
}
"""The networks compared: plain, and residual with branches scaled by `L^-γ` or `α`."""

COSINES = (-0.9, -0.5, 0.0, 0.3, 0.7, 0.95)
"""Cosines between inputs at which rates are measured, those of the theory's tables."""

RIDGE = 1e-3


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large a study is. `FULL` and `QUICK` are the two that the report uses."""

    angles: int = 181
    depths: tuple[int, ...] = (1, 3, 10, 30, 100, 300, 1000)
    rows: int = 300
    train: int = 300
    test: int = 300
    splits: int = 10
    teacher_rows: int = 500
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    width_seeds: int = 10
    train_widths: tuple[int, ...] = (64, 128, 256, 512)
    train_seeds: int = 4
    longest: int = 100_000


FULL = Sizes()
QUICK = Sizes(
    angles=61,
    rows=120,
    train=120,
    test=120,
    splits=5,
    teacher_rows=0,
    widths=(32, 64, 128, 256),
    width_seeds=5,
    train_widths=(64, 128, 256),
    train_seeds=2,
)


# ------------------------------------------------------------- kernels against the angle


def kernels_by_angle(sizes: Sizes, progress: Progress = None) -> xr.Dataset:
    """Both normalised kernels over (family, depth, angle), and neural-tangents' beside.

    The second engine computes `plain` and `γ = 1/2` with all weights trained (the
    only residual kernel it has) at a few angles (`marker`) and depths (`layers`); the
    variable `deviation` is its largest relative difference from the closed form.
    """
    angles = np.linspace(0, np.pi, sizes.angles)
    swept = []
    for done, (name, spec) in enumerate(FAMILIES.items()):
        _tell(progress, done, len(FAMILIES) + 2, f"kernels of {name}")
        swept.append(depth_analysis.sweep_depth(spec, sizes.depths, angles=angles))
    result = _stack(swept, FAMILIES)
    _tell(progress, len(FAMILIES), len(FAMILIES) + 2, "the same by neural-tangents")
    return result.merge(_second_engine(), combine_attrs="drop_conflicts")


def _second_engine() -> xr.Dataset:
    markers, layers = np.linspace(0, np.pi, 13), (1, 10, 30)
    x = np.column_stack([np.cos(markers), np.sin(markers)])
    specs = {
        "plain": FeedForward(depth=1),
        "γ = 1/2, all trained": ResNet(
            depth=1, branch_scale=DepthScale(0.5), trained="all"
        ),
    }
    shape = (2, len(specs), len(layers), len(markers))
    ours, theirs = np.empty(shape), np.empty(shape)
    for i, spec in enumerate(specs.values()):
        for j, depth in enumerate(layers):
            deep = spec.replace(depth=depth)
            for values, engine in ((ours, "recursion"), (theirs, "neural_tangents")):
                found = kernel_fn(deep, engine=engine)(x[:1], x, ("nngp", "ntk"))
                values[0, i, j] = np.asarray(found.nngp)[0]
                values[1, i, j] = np.asarray(found.ntk)[0]
    dims = ("network", "layers", "marker")
    return xr.Dataset(
        {
            "nngp_neural_tangents": (dims, theirs[0]),
            "ntk_neural_tangents": (dims, theirs[1]),
            "deviation": ("network", np.max(np.abs(theirs - ours), axis=(0, 2, 3))),
        },
        coords={"network": list(specs), "layers": list(layers), "marker": markers},
    )


# ------------------------------------------------------------------ rates, few angles


def rates(sizes: Sizes, progress: Progress = None) -> xr.Dataset:
    """What the theory's rates are read off: few angles, large depths.

    Variables: over (`plain_depth`, cosine) `plain_ntk` and `plain_nngp_gap`; over
    (`block_depth`, cosine) `constant_ntk`, `constant_nngp_gap` (`α = 1`),
    `quarter_ntk` (`γ = 1/4`), `half_ntk` and its limit `half_limit` (`γ = 1/2`),
    `one_ntk` (`γ = 1`); over (exponent, `block_depth`) `shallow_distance`, the largest
    distance to the kernel of one block over cosines from -0.9 to 1.
    """
    angles = np.arccos(COSINES)
    long = np.unique(np.geomspace(1000, sizes.longest, 21).round().astype(int))
    blocks = np.array([100, 300, 1000, 3000, 10000])
    gammas = (0.6, 0.75, 1.0)
    steps = iter(range(99))
    tell = lambda what: _tell(progress, next(steps), 5 + len(gammas), what)  # noqa: E731

    def sweep(spec, depths, angles=angles):
        return depth_analysis.sweep_depth(spec, depths.tolist(), angles=angles)

    tell("rates of plain networks")
    plain = sweep(FAMILIES["plain"], long)
    named = {}
    for key, family in _RATE_FAMILIES.items():
        tell(f"rates at {family}")
        named[key] = sweep(FAMILIES[family], blocks)
    grid = np.linspace(0, np.arccos(-0.9), 200)
    distance = []
    for gamma in gammas:
        tell(f"rates at γ = {gamma}")
        deep = sweep(ResNet(depth=1, branch_scale=DepthScale(gamma)), blocks, grid)
        shallow = sweep(FAMILIES["γ = 1"], np.array([1]), grid).ntk.values[0]
        distance.append(np.max(np.abs(deep.ntk.values - shallow), axis=1))
    over = ("block_depth", "cosine")
    return xr.Dataset(
        {
            "plain_ntk": (("plain_depth", "cosine"), plain.ntk.values),
            "plain_nngp_gap": (("plain_depth", "cosine"), plain.nngp_gap.values),
            **{f"{key}_ntk": (over, found.ntk.values) for key, found in named.items()},
            "constant_nngp_gap": (over, named["constant"].nngp_gap.values),
            "half_limit": ("cosine", continuous_limit(angles)),
            "shallow_distance": (("exponent", "block_depth"), np.array(distance)),
        },
        coords={
            "cosine": list(COSINES),
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
    depths: Sequence[int],
    most_rows: int,
    *,
    families: dict[str, Architecture] | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    """The NTK's Gram matrix on at most `most_rows` rows, over (family, depth).

    Variables are those of `analysis.depth.degeneracy`; `families` are `FAMILIES` if left
    out.
    """
    families = FAMILIES if families is None else families
    rows = some_rows(data, most_rows)
    found = []
    for done, (name, spec) in enumerate(families.items()):
        _tell(progress, done, len(families), f"Gram matrices of {name}")
        found.append(depth_analysis.degeneracy(spec, depths, rows.x))
    return _stack(found, families).assign_attrs(
        records.provenance(rows=len(rows), data=data.name, families=_specs(families))
    )


def some_rows(data: Data, most: int) -> Data:
    """At most that many rows, drawn with a fixed seed, classes in proportion."""
    if len(data) <= most:
        return data
    rows, _ = split(data, train=most, test=1, seed=0)
    return data.take(np.sort(rows))


def regression_on_data(
    data: Data, sizes: Sizes, progress: Progress = None
) -> xr.Dataset:
    """Kernel ridge regression over (family, depth, split).

    One random part of the data, split again and again into training and test rows; the
    targets are centred one-hot columns or the standardised real target.

    Returns:
        `mse` (mean squared test error over the variance of the test targets, so 1 is
        what the best constant reaches), `r2` = 1 - mse, `accuracy` and `mean_accuracy`
        (that of the classifier that only compares mean kernels to the classes, see
        `fit_split`; both NaN for real targets), and of each the `_mean`, `_low` and
        `_high` (95 % interval of the mean over splits, Student's t).
    """
    chosen = some_rows(data, sizes.train + sizes.test)
    train = round(len(chosen) * sizes.train / (sizes.train + sizes.test))
    values = []
    for done, (name, spec) in enumerate(FAMILIES.items()):
        tell = functools.partial(_part, progress, done, len(FAMILIES))
        values.append(_fit_depths(chosen, train, spec, name, sizes, tell))
    result = xr.Dataset(
        {
            measure: (("family", "depth", "split"), np.array(values)[..., k])
            for k, measure in enumerate(MEASURES)
        },
        coords={
            "family": list(FAMILIES),
            "depth": list(sizes.depths),
            "split": np.arange(sizes.splits),
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


MEASURES = ("mse", "r2", "accuracy", "mean_accuracy")


def _fit_depths(data, train, spec, name, sizes, progress):
    """`(depth, split, measure)` for one family."""
    values = np.empty((len(sizes.depths), sizes.splits, len(MEASURES)))
    fitted = targets(data)
    for i, depth in enumerate(sizes.depths):
        _tell(progress, i, len(sizes.depths), f"regression with {name}, depth {depth}")
        gram = np.asarray(kernel_fn(spec.replace(depth=depth))(data.x))
        for seed in range(sizes.splits):
            rows = split(data, train=train, seed=seed)
            values[i, seed] = fit_split(gram, fitted, data.classes is not None, *rows)
    return values


def fit_split(gram, fitted, classify: bool, train, test) -> tuple[float, ...]:
    """`MEASURES` of kernel ridge regression on one split.

    The mean classifier takes the class with the largest `sum_i k(x, x_i) (y_i - mean y)`:
    what the prediction of a nearly constant kernel tends to, up to its size.
    """
    k_train, k_test = gram[np.ix_(train, train)], gram[np.ix_(test, train)]
    y, truth = fitted[train], fitted[test]
    guess = regression.kernel_ridge(k_train, k_test, y, ridge=RIDGE)
    mse = np.mean((guess - truth) ** 2) / np.mean((truth - truth.mean(axis=0)) ** 2)
    if not classify:
        return mse, 1 - mse, np.nan, np.nan
    means = k_test @ (y - y.mean(axis=0)) + y.mean(axis=0)
    right = [np.mean(g.argmax(axis=1) == truth.argmax(axis=1)) for g in (guess, means)]
    return mse, 1 - mse, *right


def teacher(rows: int, seed: int = 0) -> Data:
    """A smooth regression on the sphere in R^5: `x1 + 2.5 x2 x3`, standardised."""
    x = np.random.default_rng(seed).normal(size=(rows, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Data(x, x[:, 0] + 2.5 * x[:, 1] * x[:, 2], None, "teacher")


def with_intervals(dataset: xr.Dataset, names, dim: str) -> xr.Dataset:
    """Adds mean and 95 % interval (Student's t over `dim`) of some variables."""
    from scipy import stats

    count = dataset.sizes[dim]
    quantile = stats.t.ppf(0.975, count - 1) if count > 1 else np.nan
    for name in names:
        mean = dataset[name].mean(dim)
        error = dataset[name].std(dim, ddof=min(1, count - 1)) / np.sqrt(count)
        dataset[f"{name}_mean"] = mean
        dataset[f"{name}_low"] = mean - quantile * error
        dataset[f"{name}_high"] = mean + quantile * error
    return dataset


# ---------------------------------------------------------------------- finite networks

WIDTH_SPEC = ResNet(depth=3, branch_scale=DepthScale(0.5))


def agreement_with_width(
    data: Data,
    widths: Sequence[int],
    seeds: int,
    *,
    spec: Architecture = WIDTH_SPEC,
    progress: Progress = None,
) -> xr.Dataset:
    """Empirical against closed-form kernels on 12 rows (`finite.width_study`)."""
    from ntk_resnet import finite

    x = some_rows(data, 12).x
    return finite.width_study(spec, x, widths, seeds, seed=0, progress=progress)


def training(data: Data, sizes: Sizes, progress: Progress = None) -> xr.Dataset:
    """Training against the gradient-flow prediction (`finite.train_study`)."""
    from ntk_resnet import finite

    train, test = split(data, train=16, test=4, seed=1)
    y = targets(data)[:, :1]
    y = y / np.abs(y).max()
    return finite.train_study(
        WIDTH_SPEC,
        data.x[train],
        y[train],
        sizes.train_widths,
        sizes.train_seeds,
        x_test=data.x[test],
        seed=0,
        progress=progress,
    )


# ---------------------------------------------------------------------------- the study


def parts(data: Data, sizes: Sizes) -> dict[str, tuple[float, Callable]]:
    """The study as named parts: expected share of the time, and what computes it."""
    named = {
        "kernels": (10, functools.partial(kernels_by_angle, sizes)),
        "rates": (10, functools.partial(rates, sizes)),
        "degeneracy": (
            10,
            functools.partial(degeneracy_on_data, data, sizes.depths, sizes.rows),
        ),
        "regression": (30, functools.partial(regression_on_data, data, sizes)),
        "width": (
            10,
            functools.partial(
                agreement_with_width, data, sizes.widths, sizes.width_seeds
            ),
        ),
        "training": (20, functools.partial(training, data, sizes)),
    }
    if sizes.teacher_rows:
        known = teacher(sizes.teacher_rows)
        on_teacher = dataclasses.replace(
            sizes, train=2 * sizes.teacher_rows // 5, test=3 * sizes.teacher_rows // 5
        )
        named["teacher"] = (20, functools.partial(regression_on_data, known, on_teacher))
    return named


def run(
    out: pathlib.Path, data: Data, sizes: Sizes, progress: Progress = None
) -> dict[str, xr.Dataset]:
    """Computes all parts, saving each in `out` as zarr and CSV as soon as it is there.

    A part whose saved result was made by the same code from the same data with the same
    sizes is loaded instead; a damaged one is computed again.

    Args:
        out: folder for the results.
        data: the real data.
        sizes: `FULL`, `QUICK` or the caller's own.
        progress: called with (done, total, description).

    Returns:
        The results by name of the part.

    Raises:
        OSError: `out` is not writable (said before anything is computed).
    """
    records.check_writable(out)
    named = parts(data, sizes)
    total, done = sum(weight for weight, _ in named.values()), 0.0
    results = {}
    for name, (weight, compute) in named.items():
        tell = functools.partial(_scaled, progress, done, weight, total)
        config = configuration(name, data, sizes)
        results[name] = records.resume(
            out / f"{name}.zarr", config, functools.partial(compute, progress=tell)
        )
        done += weight
        _tell(progress, done, total, name)
    return results


def configuration(name: str, data: Data, sizes: Sizes) -> dict[str, Any]:
    """What decides the result of a part, besides the code."""
    digest = hashlib.sha256(data.x.tobytes() + np.asarray(data.y).tobytes()).hexdigest()
    return {
        "study": "depth",
        "part": name,
        "families": _specs(FAMILIES),
        "sizes": dataclasses.asdict(sizes),
        "data": data.name,
        "data_sha256": digest,
        "ridge": RIDGE,
    }


def _specs(families) -> dict[str, Any]:
    """Specifications as plain data, by name."""
    return {name: to_dict(spec) for name, spec in families.items()}


def _stack(datasets, families) -> xr.Dataset:
    """One Dataset over `family` from one for each family."""
    family = xr.Variable("family", list(families))
    return xr.concat(
        [dataset.drop_attrs(deep=False) for dataset in datasets],
        dim="family",
        join="exact",
    ).assign_coords(family=family)


def _tell(progress, done, total, description):
    if progress is not None:
        progress(done, total, description)


def _part(progress, index, count, done, total, description):
    """Progress within one of `count` equal pieces."""
    _tell(progress, index + done / total, count, description)


def _scaled(progress, begin, weight, whole, done, total, description):
    """Progress within a piece of known weight."""
    _tell(progress, begin + weight * done / total, whole, description)
