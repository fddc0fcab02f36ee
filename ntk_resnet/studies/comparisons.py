"""What studies and commands measure of several networks at once.

Each function returns a Dataset over `family`, the networks by name.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._checks import check_count
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.analysis.phases import limit_condition_number
from ntk_resnet.data.datasets import Data, split, targets
from ntk_resnet.records.provenance import provenance
from ntk_resnet.studies.families import FAMILIES, some_rows, specs_as_data, stack

NETWORKS: dict[str, Any] = {
    "plain, L = 1": nr.FeedForward(depth=1, trained="blocks"),
    "plain, L = 10": nr.FeedForward(depth=10, trained="blocks"),
    "plain, L = 100": nr.FeedForward(depth=100, trained="blocks"),
    "γ = 1/2, L = 100": nr.ResNet(depth=100, branch_scale=nr.DepthScale(0.5)),
    "γ = 1, L = 100": nr.ResNet(depth=100, branch_scale=nr.DepthScale(1.0)),
}
"""The networks compared: plain ones, and residual ones with branches scaled `L^-γ`.

The blocks alone are trained in all of them.
"""

Networks = Mapping[str, Any]

DEEP = nr.ResNet(depth=1000, branch_scale=nr.DepthScale(0.5))
"""The network of `regression_by_ridge` where none is named."""

DENSE_ROWS = 5000
"""Of more rows the Gram matrix is never in memory: 0.2 GB, and minutes of LAPACK."""

_LEADING = 50  # eigenvalues kept
_VALUES = 200  # at which the distribution is told


def degeneracy_on_data(
    data: Data,
    *,
    depths: Sequence[int],
    rows: int,
    families: Mapping[str, Any] | None = None,
    progress: Progress = quiet,
) -> xr.Dataset:
    """The NTK's Gram matrix on at most that many rows, over (family, depth).

    Variables are those of `nr.degeneracy`, and
    `predicted_effective_rank`, that of the constant kernel; `families` are `FAMILIES`
    if left out.
    """
    families = FAMILIES if families is None else families
    chosen = some_rows(data, rows)
    found = []
    for done, (name, spec) in enumerate(families.items()):
        report = part_of(progress, done, 1, len(families), f"Gram matrix of {name}, ")
        found.append(nr.degeneracy(spec, depths, chosen.x, progress=report))
    result = stack(found, families)
    # The constant kernel has the eigenvalue 3/4, n - 1 times, and 3/4 + n/4.
    n = len(chosen)
    share = np.array([3 / (4 * n)] * (n - 1) + [3 / (4 * n) + 1 / 4])
    known = result.predicted_condition_number.notnull()
    rank = np.exp(-np.sum(share * np.log(share)))
    result["predicted_effective_rank"] = xr.where(known, rank, np.nan)
    return result.assign_attrs(
        provenance(
            rows=n,
            data=data.name,
            deepest=max(depths),
            families=specs_as_data(families),
        )
    )


def spectra_on_data(
    data: Data,
    *,
    rows: int,
    networks: Networks = NETWORKS,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Eigenvalues of the NTK's Gram matrix on at most that many rows.

    Over (family, index): `eigenvalue`, the leading ones, and `captured`, the share of
    the targets' power in as many eigenvectors (NaN by products). Over (family, at):
    `share` of all eigenvalues that are at most `at` times the number of rows, and its
    `standard_error`. Over family: `condition_number`, by products a number that it
    exceeds; what theory predicts, `predicted_condition_number`, NaN for residual
    networks; `effective_rank` and `log_determinant` at a ridge of 1e-3.
    """
    chosen = some_rows(data, check_count("rows", rows))
    found = []
    for done, (name, spec) in enumerate(networks.items()):
        report = part_of(progress, done, 1, len(networks), f"spectrum of {name}, ")
        found.append(_spectrum_of(spec, chosen, report))
        progress(done + 1, len(networks), f"spectrum of {name}")
    return stack(found, networks).assign_attrs(
        provenance(rows=len(chosen), data=data.name, families=specs_as_data(networks))
    )


def _spectrum_of(spec, data, progress):
    n, wanted = len(data), targets(data)
    if n <= DENSE_ROWS:
        found = nr.spectrum(np.asarray(nr.gram(spec, data.x)), targets=wanted)
        power = np.sum(wanted**2, axis=0)
        captured = found.cumulative_alignment.values @ power / power.sum()
    else:
        operator = nr.gram_operator(spec, data.x)
        found = nr.spectrum(operator, top=_LEADING, progress=progress)
        captured = np.full(_LEADING, np.nan)
    values = found.eigenvalue.values[:_LEADING]
    at = np.geomspace(1e-6, 1, _VALUES)
    shares = nr.spectral_distribution(found, at * n)
    condition = limit_condition_number(spec, n, spec.depth)[0]
    summaries = ("condition_number", "effective_rank", "log_determinant")
    return xr.Dataset(
        {
            "eigenvalue": ("index", values),
            "captured": ("index", captured[:_LEADING]),
            "share": ("at", shares.share.values),
            "standard_error": ("at", shares.standard_error.values),
            "predicted_condition_number": condition,
            **{name: float(found[name]) for name in summaries},
        },
        coords={"index": np.arange(1, len(values) + 1), "at": at},
    )


def mercer_spectra(
    *,
    dim: int,
    max_degree: int,
    get: str = "ntk",
    networks: Networks = NETWORKS,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Eigenvalues by degree on the sphere in `dim` dimensions.

    Over (family, degree): `eigenvalue` and `log10_eigenvalue`; over degree the
    `multiplicity`, and `laplace_log10_eigenvalue`, that of the kernel exp(-|x - x'|);
    over family: `tail`, the `exponent` of k + (d-2)/2 fitted over even degrees in the
    upper two thirds, its 95 % interval `exponent_low`, `exponent_high`, what theory
    says, `predicted_exponent`, and `imbalance`, the eigenvalue of degree 3 over that of
    degree 2 (NaN where these degrees are missing or zero).
    """
    found = []
    for done, (name, spec) in enumerate(networks.items()):
        report = part_of(progress, done, 1, len(networks) + 1, f"{name}, ")
        one = nr.mercer(spec, dim=dim, max_degree=max_degree, get=get, progress=report)
        fit = _exponent(one)
        odd = nr.parity_imbalance(one)
        keep = ["eigenvalue", "log10_eigenvalue", "multiplicity", "tail"]
        one = one[[*keep, "predicted_exponent"]].assign(
            exponent=fit[0],
            exponent_low=fit[1],
            exponent_high=fit[2],
            imbalance=float(odd[0]) if odd.size else np.nan,
        )
        found.append(one)
    report = part_of(progress, len(networks), 1, len(networks) + 1, "Laplace kernel, ")
    beside = nr.laplace_mercer(dim=dim, max_degree=max_degree, progress=report)
    result = stack(found, networks)
    result["multiplicity"] = result.multiplicity.isel(family=0)
    result["laplace_log10_eigenvalue"] = beside.log10_eigenvalue
    return result.assign_attrs(
        provenance(
            dim=dim, max_degree=max_degree, get=get, families=specs_as_data(networks)
        )
    )


def _exponent(one):
    """The fit and its interval; NaN where there is nothing to fit."""
    last = int(one.degree[-1])
    try:
        return nr.decay_exponent(one, (max(1, last // 3), last))[:3]
    except ValueError:
        return np.nan, np.nan, np.nan


def learning_curves(
    data: Data | None = None,
    *,
    sizes: Sequence[int],
    trials: int,
    dim: int = 5,
    ridge: float = 1e-3,
    networks: Networks = NETWORKS,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Predicted and measured error of regression against the number of examples.

    On the sphere in `dim` dimensions with a target of degrees 1, 2 and 4 (power 0.5,
    0.3 and 0.2: where one of them is learned another is not yet, which is where the
    theory is good), or on data, of which at most twice the largest size is used. Over
    (family, n): `test_mse`, `train_mse`, and `measured_test_mse`,
    `measured_train_mse` with their standard errors `..._error`.
    """
    if not sizes:
        raise ValueError("sizes is empty; name at least one.")
    for size in sizes:
        check_count("sizes", size)
    found = []
    for done, (name, spec) in enumerate(networks.items()):
        report = part_of(progress, done, 1, len(networks), f"{name}, ")
        shared: Any = {"ridge": ridge, "trials": trials, "progress": report}
        if data is None:
            one = nr.learning_curve_on_sphere(
                spec, dim, sizes, {1: 0.5, 2: 0.3, 4: 0.2}, **shared
            )
        else:
            chosen = some_rows(data, 2 * max(sizes))
            one = nr.learning_curve_on_data(
                spec, chosen.x, targets(chosen), sizes, **shared
            )
        measured = [key for key in one.data_vars if str(key).startswith("measured")]
        found.append(one[["test_mse", "train_mse", *measured]])
    name = f"the sphere in {dim} dimensions" if data is None else data.name
    return stack(found, networks).assign_attrs(
        provenance(
            data=name, ridge=ridge, trials=trials, families=specs_as_data(networks)
        )
    )


def regression_by_ridge(
    data: Data,
    spec: Any = DEEP,
    *,
    ridges: Sequence[float],
    test: float = 0.2,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Kernel regression, or classification, on most of the data, tested on the rest.

    Over `ridge`: `test_error` and `loo_error`, mean squared errors over the variance of
    all targets, or shares of rows misclassified; `log_marginal_likelihood` (NaN for
    classes); `residual` and `seconds`. What needs the factor of the matrix is NaN
    beyond the rows of which it is made.
    """
    if not 0 < test < 1:
        raise ValueError(f"test must lie between 0 and 1, got {test}; it is a share.")
    if not ridges:
        raise ValueError("ridges is empty; name at least one.")
    count = max(1, round(test * len(data)))
    train, rest = split(data, train=len(data) - count, seed=0)
    classify = data.classes is not None
    y = data.y if classify else targets(data)[:, 0]
    rows: list[dict[str, float]] = []
    for done, ridge in enumerate(ridges):
        report = part_of(progress, done, 1, len(ridges), f"ridge {ridge:g}, ")
        kind = nr.NTKClassifier if classify else nr.NTKRegressor
        start = time.perf_counter()
        model = kind(spec, ridge=ridge, progress=report).fit(data.x[train], y[train])
        guess = model.predict(data.x[rest])
        seconds = time.perf_counter() - start
        if classify:
            error = np.mean(guess != y[rest])
        else:
            error = np.mean((guess - y[rest]) ** 2)
        dense = model.solver_ == "cholesky"
        rows.append(
            {
                "test_error": error,
                "loo_error": model.loo_error_ if dense else np.nan,
                "log_marginal_likelihood": model.log_marginal_likelihood_
                if dense and not classify
                else np.nan,
                "residual": model.residual_,
                "seconds": seconds,
            }
        )
        progress(done + 1, len(ridges), f"ridge {ridge:g}")
    return xr.Dataset(
        {name: ("ridge", [row[name] for row in rows]) for name in rows[0]},
        coords={"ridge": list(ridges)},
        attrs=provenance(
            spec=spec,
            data=data.name,
            train=len(train),
            test=len(rest),
            solver=model.solver_,
            classes=0 if data.classes is None else len(data.classes),
        ),
    )
