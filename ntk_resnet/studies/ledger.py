"""The ledger: what a paper claims, what was measured of it, and the verdict.

A claim allows a set of values: those within a tolerance of a prediction, or on one side
of it. A measurement gives an interval. The claim holds if the interval lies in that
set, fails if it lies outside, and is inconclusive if it is partly inside: an interval
that is too wide confirms nothing.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from ntk_resnet.analysis.statistics import PowerFit, mean_of

HOLDS, FAILS, INCONCLUSIVE, NOT_RUN = "holds", "fails", "inconclusive", "not run"

KNOWN = {
    "read": "read in the source",
    "summary": "as others sum it up",
    "derived": "derived here",
}
"""How we know what is claimed."""

FEWEST_SEEDS = 5


class Measured(NamedTuple):
    """Values, of one shape or single numbers, with the intervals around them."""

    values: Any
    low: Any
    high: Any
    interval: str
    """What the intervals are."""


def exact(values: Any, error: Any, interval: str) -> Measured:
    """Values of a computation without chance, to an error that is bounded.

    Args:
        values: numbers.
        error: no less than what they are off by, one for all or one for each.
        interval: where the bound comes from.
    """
    values = np.asarray(values, float)
    return Measured(values, values - error, values + error, interval)


def over_seeds(values: Any, axis: int = 0, what: str = "seeds") -> Measured:
    """Means over independent repetitions, with 95 % intervals (Student's t).

    Args:
        values: with an axis of repetitions.
        axis: this axis.
        what: they are repetitions of.

    Raises:
        ValueError: there are fewer than five, too few for an interval.
    """
    values = np.asarray(values, float)
    count = values.shape[axis]
    if count < FEWEST_SEEDS:
        raise ValueError(
            f"values has {count} {what}; an interval needs {FEWEST_SEEDS} at least."
        )
    return Measured(*mean_of(values, axis), f"95 % over {count} {what}")


def of_error(values: Any, errors: Any, count: Any, what: str = "") -> Measured:
    """Means with standard errors, of so many repetitions: 95 % (Student's t).

    Args:
        values: the means.
        errors: their standard errors.
        count: of repetitions, one number or one for each mean.
        what: as "over 24 seeds"; by default it does not say how many.
    """
    values = np.asarray(values, float)
    wide = stats.t.ppf(0.975, np.asarray(count) - 1) * np.asarray(errors, float)
    return Measured(values, values - wide, values + wide, f"95 % {what}".strip())


def ratio_of_means(over: Any, under: Any, axis: int = 0) -> Measured:
    """The ratio of two positive means over seeds, with 95 % intervals.

    Of its logarithm, whose error is that of both means relative to them (Student's t,
    the fewer degrees of freedom).

    Raises:
        ValueError: there are fewer than five seeds.
    """
    means = [over_seeds(values, axis) for values in (over, under)]
    wide = np.hypot(*((one.high - one.values) / one.values for one in means))
    ratio = means[0].values / means[1].values
    count = min(np.shape(over)[axis], np.shape(under)[axis])
    low, high = ratio * np.exp(-wide), ratio * np.exp(wide)
    return Measured(ratio, low, high, f"95 % over {count} seeds")


class CurveSlope(NamedTuple):
    """The exponent of a power law that a curve without chance follows.

    From `low` to `high` are the slopes on both halves of the points.
    """

    value: float
    low: float
    high: float


def curve_slope(x: Any, y: Any) -> CurveSlope:
    """Least squares of ln y on ln x, and how much the slope changes along the curve.

    Where there is no chance the residuals are curvature, which their size says nothing
    about: slopes of both halves do.

    Args:
        x, y: at least six points, x ascending, all positive.
    """
    x, y = (np.log(np.asarray(v, float)) for v in (x, y))
    if x.ndim != 1 or x.shape != y.shape or x.size < 6:
        raise ValueError(
            f"x and y must have one shape of six points or more, got {x.shape}, "
            f"{y.shape}."
        )
    middle = x.size // 2
    parts = (slice(None), slice(None, middle + 1), slice(middle, None))
    slopes = [float(np.polyfit(x[part], y[part], 1)[0]) for part in parts]
    return CurveSlope(slopes[0], min(slopes), max(slopes))


BOTH_HALVES = "slopes of both halves of the curve"
_ENDS = ("", "_low", "_high")


def slope_variables(
    name: str, slopes: Any, dims: str | tuple[str, ...] = ()
) -> dict[str, Any]:
    """Slopes of curves as variables of a result, as `fitted` reads them.

    Args:
        name: of the slope; those of the halves are `name_low` and `name_high`.
        slopes: one `CurveSlope`, or nested lists of them over `dims`.
        dims: names of the dimensions.
    """
    parts = np.moveaxis(np.asarray(slopes, float), -1, 0)
    return {name + end: (dims, one) for end, one in zip(_ENDS, parts, strict=True)}


def of_curve(slope: CurveSlope) -> Measured:
    """The exponent of a curve without chance."""
    return Measured(*slope, BOTH_HALVES)


def exponent(fit: PowerFit, interval: str = "95 % of the fit") -> Measured:
    """The exponent of a fitted power law."""
    return Measured(fit.exponent, fit.low, fit.high, interval)


def fitted(found: xr.Dataset, name: str, interval: str = "95 % of the fit") -> Measured:
    """A fitted number of a result, with its variables `..._low` and `..._high`."""
    value, low, high = (found[name + end].values for end in _ENDS)
    return Measured(value, low, high, interval)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """One prediction of a paper, how it is measured, and what decides."""

    name: str
    """As "1e", its own in the study; those of one theorem share what stands before
    the first hyphen."""
    statement: str
    """What is claimed, in a sentence; `{name}` stands for an attribute of the
    result."""
    source: str
    """Where in the paper: a theorem, an equation."""
    known: Literal["read", "summary", "derived"]
    of: str
    """The measurement it is read off."""
    measure: Callable[[xr.Dataset], Measured]
    """What was measured, from the result."""
    predicted: Any
    """One number, one for each value, or a function of the result that returns these
    from its coordinates."""
    tolerance: Any = 0.0
    side: Literal["within", "below", "above"] = "within"
    """Of the prediction, where the measured values are to be."""
    reason: str
    """Where the tolerance, or the bound, comes from."""
    figure: str = ""
    """The figure that shows it."""


class Entry(NamedTuple):
    """A line of the ledger."""

    study: str
    claim: str
    statement: str
    source: str
    predicted: float
    measured: float
    low: float
    high: float
    tolerance: float
    verdict: str
    seconds: float
    side: str
    interval: str
    reason: str
    figure: str


def judge(study: str, claim: Claim, found: xr.Dataset, seconds: float) -> Entry:
    """The line of a claim, from a result.

    Of several values the one that stands for them is, among those that decide the
    verdict, the farthest off.
    """
    measured = claim.measure(found)
    values, low, high, predicted, tolerance = (
        np.ravel(part).astype(float)
        for part in np.broadcast_arrays(
            *measured[:3], _of(claim.predicted, found), _of(claim.tolerance, found)
        )
    )
    least, most = predicted - tolerance, predicted + tolerance
    if claim.side == "below":
        least = np.full_like(least, -np.inf)
    elif claim.side == "above":
        most = np.full_like(most, np.inf)
    inside = (low >= least) & (high <= most)  # NaN is neither
    outside = (low > most) | (high < least)
    if outside.any():
        verdict, deciding = FAILS, outside
    elif inside.all():
        verdict, deciding = HOLDS, inside
    else:
        verdict, deciding = INCONCLUSIVE, ~inside
    excess = np.maximum(values - most, least - values)
    k = int(np.argmax(np.where(deciding, np.nan_to_num(excess, nan=np.inf), -np.inf)))
    return Entry(
        study=study,
        claim=claim.name,
        statement=claim.statement.format_map(found.attrs),
        source=source_of(claim),
        predicted=float(predicted[k]),
        measured=float(values[k]),
        low=float(low[k]),
        high=float(high[k]),
        tolerance=float(tolerance[k]),
        verdict=verdict,
        seconds=seconds,
        side=claim.side,
        interval=measured.interval
        + (f", worst of {values.size}" if values.size > 1 else ""),
        reason=claim.reason.format_map(found.attrs),
        figure=claim.figure,
    )


def not_run(study: str, claim: Claim, why: str) -> Entry:
    """The line of a claim that could not be measured."""
    return Entry(
        study=study,
        claim=claim.name,
        statement=claim.statement.format_map(_Blank()),
        source=source_of(claim),
        predicted=_number(claim.predicted),
        measured=math.nan,
        low=math.nan,
        high=math.nan,
        tolerance=_number(claim.tolerance),
        verdict=NOT_RUN,
        seconds=0.0,
        side=claim.side,
        interval="",
        reason=why,
        figure=claim.figure,
    )


def _number(value):
    return float(value) if isinstance(value, int | float) else math.nan


def all_hold(entries: Sequence[Entry], *names: str) -> bool:
    """Whether the claims of these names, or of names that begin with these, hold.

    Of those that were run; `False` if none was.
    """
    own = [e for e in entries if named(e.claim, names) and e.verdict != NOT_RUN]
    return bool(own) and all(entry.verdict == HOLDS for entry in own)


def named(claim: str, names: Sequence[str]) -> bool:
    """Whether a claim is meant: by its name, or by the part before a hyphen."""
    return any(claim == name or claim.startswith(f"{name}-") for name in names)


def source_of(claim: Claim) -> str:
    """Where a claim stands, and how we know."""
    return f"{claim.source} ({KNOWN[claim.known]})"


class _Dots(str):
    """An ellipsis, however it is to be formatted."""

    def __format__(self, how):
        return str(self)


class _Blank(dict):
    """Stands for attributes of a result that is not there."""

    def __missing__(self, name):
        return _Dots("…")


def _of(value, found):
    return value(found) if callable(value) else value
