"""Errors and intervals of what is measured several times, and fits of power laws."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Num
from scipy import stats


def standard_error(values: Num[ArrayLike, "..."], axis: int = 0) -> Any:
    """Of the mean over an axis; NaN of a single value."""
    values = np.asarray(values, float)
    if values.shape[axis] < 2:
        return np.full_like(values.mean(axis), np.nan)[()]
    return stats.sem(values, axis=axis)


class Mean(NamedTuple):
    """A mean, and the ends of its 95 % interval."""

    mean: Any
    low: Any
    high: Any


def mean_of(values: Num[ArrayLike, "..."], axis: int = 0) -> Mean:
    """The mean over an axis with its 95 % interval (Student's t); NaN of one value."""
    values = np.asarray(values, float)
    mean = values.mean(axis)
    wide = _quantile(values.shape[axis] - 1) * standard_error(values, axis)
    return Mean(mean, mean - wide, mean + wide)


def _quantile(freedom):
    """Of Student's t, for intervals of 95 %; NaN without a degree of freedom."""
    return stats.t.ppf(0.975, freedom)


class PowerFit(NamedTuple):
    """`y = constant * x^exponent`; `low`, `high`: 95 % interval of the exponent."""

    exponent: float
    low: float
    high: float
    constant: float


def fit_power(
    x: Num[ArrayLike, " k"] | Sequence[float | int],
    y: Num[ArrayLike, " k"] | Sequence[float | int],
) -> PowerFit:
    """Least squares of ln y on ln x, with the 95 % interval of the slope (Student's t).

    The interval takes the residuals for independent and equal in size; it is NaN for
    two points, which determine a line but not its error.

    Raises:
        ValueError: fewer than two points, or one that is not positive and finite.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape or x.ndim != 1 or x.size < 2:
        raise ValueError(
            f"x and y must be lists of equal length >= 2, got shapes {x.shape}, "
            f"{y.shape}."
        )
    for name, values in (("x", x), ("y", y)):
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"{name} must be positive and finite, got {values!r}.")
    fit = stats.linregress(np.log(x), np.log(y))
    wide = _quantile(x.size - 2) * fit.stderr
    return PowerFit(
        float(fit.slope),
        float(fit.slope - wide),
        float(fit.slope + wide),
        float(np.exp(fit.intercept)),
    )
