"""What the kernels make of a set of data: spectra, and regression by ridge."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.data.datasets import Data, targets
from ntk_resnet.plot import panels
from ntk_resnet.studies.comparisons import DEEP, regression_by_ridge, spectra_on_data
from ntk_resnet.studies.families import some_rows
from ntk_resnet.studies.ledger import Claim, exact
from ntk_resnet.studies.study import Budget, Figure, Measurement, Study


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


def _leading(found):
    one = found.sel(family="plain, L = 100").isel(index=0)
    return exact(one.eigenvalue / found.attrs["rows"], 1e-10)


def _rank_growth(found):
    """Effective rank of the plain kernel at depth 100 over that at 10."""
    rank = found.effective_rank
    deep, shallow = (rank.sel(family=f"plain, L = {depth}") for depth in (100, 10))
    return exact(deep / shallow, 1e-8)


def _cost_of_choice(found):
    """Test error at the ridge that leave-one-out chooses, over the least."""
    test, chosen = found.test_error.values, int(np.argmin(found.loo_error.values))
    return exact(test[chosen] - test.min(), 0.0, "none; one split")


CLAIMS = [
    Claim(
        name="spectrum",
        statement="plain, L = 100: the leading eigenvalue over the number of rows is "
        "the constant that the kernel tends to, 1/4 + (3/8 ln L)/L",
        source="the limit of plain kernels, Huang et al. 2020",
        known="derived",
        of="spectra",
        measure=_leading,
        predicted=0.25 + 0.375 * np.log(100) / 100,
        tolerance=0.03,
        reason="next term C/L, of data with small angles",
        figure="spectra",
    ),
    Claim(
        name="spectrum",
        statement="plain: effective rank at L = 100 over that at 10: all directions "
        "but one become alike",
        source="the limit of plain kernels, Huang et al. 2020",
        known="derived",
        of="spectra",
        measure=_rank_growth,
        predicted=1.0,
        side="above",
        reason="it grows towards that of the constant kernel",
        figure="spectra",
    ),
    Claim(
        name="leave-one-out",
        statement="the error in closed form over that of leaving each of {rows} rows "
        "out",
        source="the formula for linear smoothers",
        known="derived",
        of="leave_one_out",
        measure=lambda found: exact(found.closed / found.refitted, 0.0, "none"),
        predicted=1.0,
        tolerance=1e-6,
        reason="exact but for the mean diagonal, to which the ridge is relative; "
        "rounding at the smallest ridge",
    ),
    Claim(
        name="leave-one-out",
        statement="the ridge that leave-one-out chooses: test error over the least one",
        source="what the formula is for",
        known="derived",
        of="ridge",
        measure=_cost_of_choice,
        predicted=0.01,
        side="below",
        reason="our own bound: a point",
        figure="ridge",
    ),
]

FIGURES = {
    "spectra": Figure(
        of="spectra",
        draw=panels.spectrum,
        title="Eigenvalues of Gram matrices of {data}",
        caption="The NTK Gram matrix of {rows} rows: leading eigenvalues, the share of "
        "the targets in their eigenvectors, and the distribution of all.",
    ),
    "ridge": Figure(
        of="ridge",
        draw=panels.ridge,
        title="Test and leave-one-out error against the ridge, {data}",
        caption="Kernel ridge regression on {train} rows, {test} others for testing, "
        "with a residual network of depth 1,000, γ = 1/2.",
    ),
}


def answer(results, _):
    """From the ranks, and the errors by ridge."""
    found, fits = results["spectra"], results["ridge"]
    plain, half = (
        float(found.effective_rank.sel(family=f))
        for f in ("plain, L = 100", "γ = 1/2, L = 100")
    )
    error = fits.test_error
    best = float(error.ridge[int(error.argmin("ridge"))])
    what = "share misclassified" if fits.attrs["classes"] else "error over the variance"
    return (
        f"Of {found.attrs['rows']} rows of {found.attrs['data']} the deep plain kernel "
        f"sees {plain:.0f} directions alike, the residual one tells {half:.0f} apart "
        "(effective ranks at depth 100). With the latter at depth 1,000 the least "
        f"test error is {float(error.min()):.3g} ({what}, ridge {best:g})."
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
            measure=regression_by_ridge,
            full={"ridges": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)},
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
    budget=Budget(quick=9, full=30),
)
