"""What the kernels make of a set of data: spectra, and regression by ridge."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.data.datasets import Data, split, targets
from ntk_resnet.plot import panels
from ntk_resnet.studies.comparisons import DEEP, spectra_on_data
from ntk_resnet.studies.families import some_rows
from ntk_resnet.studies.ledger import Claim, all_hold, exact, over_seeds
from ntk_resnet.studies.study import Budget, Figure, Measurement, Study


def by_ridge(
    data: Data,
    *,
    ridges: Sequence[float],
    rows: int,
    splits: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Test and leave-one-out error of kernel regression or classification, by ridge.

    Over (`ridge`, `split`), of random splits of at most `rows` rows, four fifths of
    them for training: `test_error` and `loo_error`, shares of rows misclassified, or
    mean squared errors over the variance of all targets.
    """
    chosen = some_rows(data, rows)
    classify = data.classes is not None
    kind = nr.NTKClassifier if classify else nr.NTKRegressor
    y = chosen.y if classify else targets(chosen)[:, 0]
    count = max(1, round(len(chosen) / 5))
    found = np.empty((2, len(ridges), splits))
    for seed in range(splits):
        train, test = split(chosen, train=len(chosen) - count, seed=seed)
        for k, ridge in enumerate(ridges):
            done = seed * len(ridges) + k
            progress(done, splits * len(ridges), f"split {seed}, ridge {ridge:g}")
            model = kind(DEEP, ridge=ridge, solver="cholesky")
            model.fit(chosen.x[train], y[train])
            guess = model.predict(chosen.x[test])
            wrong = guess != y[test] if classify else (guess - y[test]) ** 2
            found[:, k, seed] = np.mean(wrong), model.loo_error_
    over = ("ridge", "split")
    return xr.Dataset(
        {"test_error": (over, found[0]), "loo_error": (over, found[1])},
        coords={"ridge": list(ridges), "split": np.arange(splits)},
        attrs={
            "data": data.name,
            "train": len(chosen) - count,
            "test": count,
            "splits": splits,
            "classes": 0 if data.classes is None else len(data.classes),
        },
    )


def leave_one_out(
    data: Data, *, rows: int, ridges: Sequence[float], progress: Progress = quiet
) -> xr.Dataset:
    """The leave-one-out error of regression in closed form, and by leaving rows out.

    Over `ridge`: `closed` and `refitted`, of the first target column.
    """
    chosen = some_rows(data, rows)
    y = targets(chosen)[:, 0]
    matrix = np.asarray(nr.gram(DEEP, chosen.x))
    n, closed, refitted = len(chosen), [], []
    for done, ridge in enumerate(ridges):
        progress(done, len(ridges), f"leaving rows out, ridge {ridge:g}")
        model = nr.NTKRegressor(DEEP, ridge=ridge).fit(chosen.x, y)
        closed.append(model.loo_error_)
        errors = []
        for left in range(n):
            kept = np.delete(np.arange(n), left)
            inner = matrix[np.ix_(kept, kept)]
            guess = nr.kernel_ridge(
                inner, matrix[[left]][:, kept], y[kept], ridge=ridge
            )
            errors.append((float(np.squeeze(guess)) - y[left]) ** 2)
        refitted.append(np.mean(errors))
    return xr.Dataset(
        {"closed": ("ridge", closed), "refitted": ("ridge", refitted)},
        coords={"ridge": list(ridges)},
        attrs={"data": data.name, "rows": n},
    )


# --------------------------------------------------------------------------- claims


_EPS = np.finfo(float).eps


def _leading(found):
    one = found.sel(family="plain, L = 100").isel(index=0)
    n = found.attrs["rows"]
    return exact(one.eigenvalue / n, _EPS * (n + 8 * 100), "bound of the rounding")


def _rank_growth(found):
    """Effective rank of the plain kernel at depth 100 over that at 10."""
    rank = found.effective_rank
    deep, shallow = (rank.sel(family=f"plain, L = {depth}") for depth in (100, 10))
    # An eigenvalue is off by eps times the largest: n of them, by ln n in the entropy.
    n, ratio = found.attrs["rows"], float(deep / shallow)
    error = 2 * _EPS * n**2 * np.log(n) * ratio
    return exact(ratio, error, "bound of the rounding")


def _closed_over_refitted(found):
    # Of the inverse of a matrix whose eigenvalues are between the ridge and n.
    n = found.attrs["rows"]
    error = _EPS * n**2 / found.ridge
    return exact(found.closed / found.refitted, error, "bound of the rounding")


def _cost_of_choice(found):
    """Test error at the ridge that leave-one-out chooses, less the least."""
    test, chosen = found.test_error, found.loo_error.argmin("ridge")
    return over_seeds(test.isel(ridge=chosen) - test.min("ridge"), what="splits")


CLAIMS = [
    Claim(
        name="spectrum-leading",
        statement="plain, L = 100: leading eigenvalue of the NTK of {rows} rows of "
        "{data}, over their number, is 1/4 + (3/8 ln L)/L",
        source="limit of plain kernels, Theorem 6 of Huang et al. 2020, and its rate",
        known="derived",
        of="spectra",
        measure=_leading,
        predicted=0.25 + 0.375 * np.log(100) / 100,
        tolerance=0.03,
        reason="next term C/L, large for data with small angles",
        figure="spectra",
    ),
    Claim(
        name="spectrum-rank",
        statement="plain: effective rank of the NTK of {rows} rows of {data} at L = "
        "100, over that at L = 10: it grows, as all eigenvalues but one become equal",
        source="limit of plain kernels, Theorem 6 of Huang et al. 2020",
        known="derived",
        of="spectra",
        measure=_rank_growth,
        predicted=1.0,
        side="above",
        reason="the sign of the change",
        figure="spectra",
    ),
    Claim(
        name="leave-one-out-formula",
        statement="leave-one-out error of kernel ridge regression on {rows} rows of "
        "{data}: closed form over refitting without each row",
        source="leave-one-out residuals of a linear smoother",
        known="derived",
        of="leave_one_out",
        measure=_closed_over_refitted,
        predicted=1.0,
        tolerance=1e-6,
        reason="exact but for the mean diagonal, to which the ridge is relative, and "
        "for the rounding at the smallest ridge",
    ),
    Claim(
        name="leave-one-out-choice",
        statement="test error on {data} at the ridge with the least leave-one-out "
        "error, less the least test error: small",
        source="leave-one-out as an estimate of the test error",
        known="derived",
        of="ridge",
        measure=_cost_of_choice,
        predicted=0.01,
        side="below",
        reason="our own bound: one percentage point",
        figure="ridge",
    ),
]

FIGURES = {
    "spectra": Figure(
        of="spectra",
        draw=panels.spectrum,
        title="Eigenvalues of Gram matrices of {data}",
        caption="Gram matrix of the NTK of {rows} rows: leading eigenvalues, the share "
        "of the targets in their eigenvectors, and their distribution.",
    ),
    "ridge": Figure(
        of="ridge",
        draw=lambda found: panels.ridge(found.mean("split", keep_attrs=True)),
        title="Test and leave-one-out error against the ridge, {data}",
        caption="Kernel ridge regression on {train} rows, tested on {test} others, "
        "with the NTK of a residual network of depth 1,000, γ = 1/2: means over "
        "{splits} random splits.",
    ),
}


def answer(results, entries):
    """From the ranks, and the errors by ridge."""
    found, fits = results["spectra"], results["ridge"]
    shallow, deep, half = (
        float(found.effective_rank.sel(family=f))
        for f in ("plain, L = 10", "plain, L = 100", "γ = 1/2, L = 100")
    )
    alike = all_hold(entries, "spectrum")
    error = fits.test_error.mean("split")
    best = float(error.ridge[int(error.argmin("ridge"))])
    chosen = all_hold(entries, "leave-one-out")
    what = "share misclassified" if fits.attrs["classes"] else "error over the variance"
    return (
        f"On {found.attrs['rows']} rows of {found.attrs['data']} the eigenvalues of "
        f"the plain kernel {'become' if alike else 'do not clearly become'} equal with "
        f"depth, but for one: its effective rank is {shallow:.0f} at depth 10 and "
        f"{deep:.0f} at depth 100, where the residual kernel's (γ = 1/2) is "
        f"{half:.0f}. With a residual kernel of depth 1,000 the least test error is "
        f"{float(error.min()):.3g} ({what}, ridge {best:g}), and leave-one-out "
        f"{'finds' if chosen else 'does not reliably find'} such a ridge."
    )


STUDY = Study(
    name="digits",
    title="What the kernels make of a set of data",
    reference="""@misc{digits1998,
  author = {Ethem Alpaydin and Cenk Kaynak},
  title = {Optical recognition of handwritten digits},
  howpublished = {UCI Machine Learning Repository},
  year = {1998},
}""",
    question="What do the kernels make of these data?",
    summary="The spectrum of a kernel on data says what regression with it learns: "
    "what lies in the leading eigenvectors. By default the data are scikit-learn's "
    "digits; --data names others.",
    answer=answer,
    measurements={
        "spectra": Measurement(
            measure=spectra_on_data,
            full={"rows": 1000},
            quick={"rows": 300},
            data="rows",
        ),
        "ridge": Measurement(
            measure=by_ridge,
            full={
                "ridges": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
                "rows": 1797,
                "splits": 5,
            },
            quick={"rows": 500},
            data="rows",
        ),
        "leave_one_out": Measurement(
            measure=leave_one_out,
            full={"rows": 100, "ridges": (1e-4, 1e-2, 1.0)},
            data="rows",
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=6, full=30),
)
