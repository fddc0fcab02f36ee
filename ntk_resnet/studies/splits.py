"""Kernel regression on random splits of data, from one kernel matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet.data.datasets import Data, split, targets
from ntk_resnet.plot import drawing
from ntk_resnet.plot.drawing import THEORY
from ntk_resnet.plot.families import by_family, looks
from ntk_resnet.studies.ledger import Claim, over_seeds

RIDGE = 1e-3
MEASURES = ("mse", "r2", "accuracy")


def fit_splits(
    grams: Any, data: Data, train: int, splits: int
) -> dict[str, tuple[tuple[str, str], np.ndarray]]:
    """`MEASURES` of kernel ridge regression, over (depth, split).

    The targets are centred one-hot columns or the standardised real target. `mse` is
    the mean squared test error over the variance of the test targets, so 1 is what the
    best constant reaches; `r2` = 1 - mse; `accuracy` is NaN for real targets.

    Args:
        grams: kernel matrices of all rows, `(depth, row, row)`.
        data: these rows.
        train: how many of them train; the others test.
        splits: how many times they are drawn, with the seeds from 0 on.
    """
    fitted, classify = targets(data), data.classes is not None
    rows = [split(data, train=train, seed=seed) for seed in range(splits)]
    found = np.array(
        [[fit_split(gram, fitted, classify, *r) for r in rows] for gram in grams]
    )
    over = ("depth", "split")
    return {name: (over, found[..., k]) for k, name in enumerate(MEASURES)}


def fit_split(gram, fitted, classify: bool, train, test) -> tuple[float, ...]:
    """`MEASURES` of kernel ridge regression on one split of the rows of `gram`."""
    k_train, k_test = gram[np.ix_(train, train)], gram[np.ix_(test, train)]
    truth = fitted[test]
    guess = nr.kernel_ridge(k_train, k_test, fitted[train], ridge=RIDGE)
    variance = np.mean((truth - truth.mean(axis=0)) ** 2)
    mse = np.mean((guess - truth) ** 2) / variance if variance > 0 else np.nan
    right = (
        np.mean(guess.argmax(axis=1) == truth.argmax(axis=1)) if classify else np.nan
    )
    return mse, 1 - mse, right


# --------------------------------------------------------------------------- claims


def near_chance(of: str, family: str = "plain", **words: Any) -> Claim:
    """That the error at the last depth is nearly that of a constant."""

    def measure(found):
        return over_seeds(found.mse.sel(family=family).isel(depth=-1), what="splits")

    return Claim(of=of, measure=measure, predicted=0.9, side="above", **words)


def stays_below(of: str, family: str, bound: float, **words: Any) -> Claim:
    """That the error over the variance is below a bound at every depth."""

    def measure(found):
        return over_seeds(_worst(found.mse.sel(family=family)), what="splits")

    return Claim(of=of, measure=measure, predicted=bound, side="below", **words)


def stays_flat(of: str, family: str, **words: Any) -> Claim:
    """That the error at the worst depth is within a tenth of that at the first."""

    def measure(found):
        one = found.mse.sel(family=family)
        return over_seeds(_worst(one / one.isel(depth=0)), what="splits")

    reason = "flat means: within a tenth, over all depths"
    return Claim(
        of=of, measure=measure, predicted=1.1, side="below", reason=reason, **words
    )


def _worst(errors):
    """Over splits, at the depth where the mean is largest."""
    return errors.isel(depth=int(errors.mean("split").argmax("depth")))


# -------------------------------------------------------------------------- figure


def draw_errors(found: xr.Dataset) -> np.ndarray:
    """Test error, and accuracy or R^2, against depth: means and 95 % intervals."""
    classes = int(found.attrs["classes"])
    with drawing.style():
        axes = drawing.new_axes(1, 2, height=2.9)
        error, second = axes.flat
        for name, ax in (("mse", error), ("accuracy" if classes else "r2", second)):
            draw_intervals(ax, found, name)
            ax.set_ylim(0, 1.08)
        error.axhline(1, **THEORY)
        error.set_ylabel("test MSE / variance of the targets")
        drawing.note(error, 0.02, 1, "chance: the best constant")
        second.set_ylabel("test accuracy" if classes else "test R²")
        if classes:
            second.axhline(1 / classes, **THEORY)
            drawing.note(second, 0.02, 1 / classes, "chance")
        drawing.figure_legend(axes)
    return axes


def draw_intervals(ax: Any, found: xr.Dataset, name: str) -> None:
    """Means of a measure over splits by depth, with their 95 % intervals."""
    families = by_family(found, ("depth", name), "a study")
    for label, look in looks(families).items():
        one, at = families[label], families[label].depth.values
        mean, low, high, _ = over_seeds(one[name].transpose("split", "depth"))
        ax.plot(at, mean, **look, label=label)
        drawing.band(ax, at, low, high, look["color"])
    drawing.log_axis(ax.xaxis)
    ax.set_xlabel("depth L")


def sizes_of(depths: Sequence[int]) -> dict[str, int]:
    """The first and the last depth, for the words of claims."""
    return {"first": int(depths[0]), "last": int(depths[-1])}
