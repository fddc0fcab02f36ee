"""A prediction of theory, what was measured of it, and the verdict."""

import math
from typing import NamedTuple

import numpy as np


class Claim(NamedTuple):
    """One prediction and what became of it.

    It holds if `measured` is within `tolerance` of `prediction`; where `bound` is
    "below" or "above", if it is on that side of `prediction`; where it is "interval",
    if `prediction` lies between `low` and `high`.
    """

    label: str
    statement: str
    prediction: float
    measured: float
    low: float  # of the interval around the measured value; NaN without one
    high: float
    interval: str  # what kind of interval
    tolerance: float
    bound: str  # "within", "below", "above" or "interval"
    reason: str  # where the tolerance comes from

    @property
    def holds(self) -> bool:
        """NaN never holds."""
        if self.bound == "below":
            return bool(self.measured < self.prediction)
        if self.bound == "above":
            return bool(self.measured > self.prediction)
        if self.bound == "interval":
            return bool(self.low <= self.prediction <= self.high)
        return bool(abs(self.measured - self.prediction) <= self.tolerance)


def over(
    label,
    statement,
    prediction,
    values,
    tolerance,
    reason,
    bound="within",
    kind="range over cosines",
):
    """A claim on several values: the worst decides, their range is the interval."""
    values = np.ravel(values)
    if bound == "within":
        worst = values[np.argmax(np.abs(values - prediction))]
    else:
        worst = values.max() if bound == "below" else values.min()
    span = float(values.min()), float(values.max())
    if len(values) == 1:
        span, kind = (math.nan, math.nan), ""
    return Claim(
        label,
        statement,
        prediction,
        float(worst),
        *span,
        kind,
        tolerance,
        bound,
        reason,
    )


def exponent(label, statement, found, name, expected, reason):
    return Claim(
        label,
        statement,
        expected,
        float(found[name]),
        float(found[f"{name}_low"]),
        float(found[f"{name}_high"]),
        "95 % of the fit",
        0.0,
        "interval",
        reason,
    )


def of_splits(label, statement, found, name, prediction, bound, reason, tolerance=0.0):
    """A claim on a mean over random splits, with its 95 % interval."""
    from ntk_resnet.analysis.statistics import mean_of

    values = found[name].values
    mean, low, high = map(float, mean_of(values))
    return Claim(
        label,
        statement,
        prediction,
        mean,
        low,
        high,
        f"95 % over {len(values)} splits",
        tolerance,
        bound,
        reason,
    )
