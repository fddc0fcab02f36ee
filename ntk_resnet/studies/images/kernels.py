"""Convolutional kernels of images and what is learned with them, against depth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet import plot
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.data.datasets import Data
from ntk_resnet.plot import drawing
from ntk_resnet.plot.drawing import THEORY
from ntk_resnet.plot.families import by_family, looks
from ntk_resnet.studies.families import some_rows, stack
from ntk_resnet.studies.ledger import Claim, over_seeds
from ntk_resnet.studies.splits import (
    RIDGE,
    draw_intervals,
    fit_splits,
    near_chance,
    sizes_of,
    stays_flat,
)
from ntk_resnet.studies.study import Figure, Measurement, NotRun

FAMILIES: dict[str, Any] = {
    "plain": nr.ConvNet(depth=1, trained="blocks"),
    "plain, circular": nr.ConvNet(depth=1, trained="blocks", padding="circular"),
    "γ = 1": nr.ConvResNet(depth=1, branch_scale=nr.DepthScale(1.0)),
    "γ = 1/2": nr.ConvResNet(depth=1, branch_scale=nr.DepthScale(0.5)),
    "α = 1": nr.ConvResNet(depth=1, branch_scale=1.0),
}
"""The networks compared, with zero padding where nothing else is said.

The blocks alone are trained in all of them.
"""

GROUPS = 5
"""Of images, over each of which the spread of the kernel is taken for itself."""

LEAST = 3 * GROUPS

READOUTS = {"flatten": "flattened readout", "pool": "mean over pixels"}


def kernels(
    data: Data,
    *,
    readout: str,
    families: Sequence[str],
    depths: Sequence[int],
    rows: int,
    splits: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""Degeneracy and regression with kernels between images, against depth.

    Both are of the same matrices, on at most `rows` images; two thirds of these, drawn
    again and again, train the regressions, and the others test them.

    Returns:
        Over (family, depth): of the normalised NTK between different images `ntk_mean`
        and `ntk_spread` (standard deviation), and over `group` too `group_spread`, that
        between the images of each of `GROUPS` disjoint groups; of the normalised NNGP
        `nngp_gap`, the median of 1 - value; `condition_number` and `effective_rank` of
        the NTK matrix; and what `fit_splits` returns. And `circular_limit`, to which
        the NTK of plain ReLU networks tends where the image goes round: 1/4, or pooled
        :math:`1 / (1 + 3/P)` with `P` pixels, since of an image's own pairs of pixels
        only those of a pixel with itself keep their NTK, and all others fall to a
        quarter of it.

    Raises:
        NotRun: there are fewer than `LEAST` images.
    """
    if len(data) < LEAST:
        raise NotRun(f"{data.name} has {len(data)} images; {LEAST} are needed.")
    chosen = some_rows(data, rows)
    train = round(2 * len(chosen) / 3)
    found: list[xr.Dataset] = []
    for name in families:
        report = part_of(progress, len(found), 1, len(families), f"{name}, ")
        spec = FAMILIES[name].replace(readout=readout)
        swept = nr.sweep_depth(spec, depths, x=chosen.x, progress=report)
        fitted = fit_splits(swept.ntk.values, chosen, train, splits)
        coords = {"depth": list(depths), "split": np.arange(splits)}
        found.append(_described(swept).merge(xr.Dataset(fitted, coords=coords)))
    result = stack(found, families)
    pixels = int(np.prod(chosen.x.shape[1:3]))
    result["circular_limit"] = 1 / 4 if readout == "flatten" else 1 / (1 + 3 / pixels)
    return result.assign_attrs(
        data=data.name,
        readout=READOUTS[readout],
        rows=len(chosen),
        train=train,
        test=len(chosen) - train,
        ridge=RIDGE,
        classes=0 if data.classes is None else len(data.classes),
        size=" x ".join(map(str, chosen.x.shape[1:3])),
        **sizes_of(depths),
    )


def _described(swept: xr.Dataset) -> xr.Dataset:
    """How close the kernels of a sweep are to a constant, over `depth`."""
    rows = np.arange(swept.sizes["row"])
    off, gap = (_between(swept[name].values, rows) for name in ("ntk", "nngp_gap"))
    spectra = [nr.spectrum(matrix) for matrix in swept.ntk.values]
    values: dict[str, Any] = {
        "ntk_mean": off.mean(axis=1),
        "ntk_spread": off.std(axis=1),
        "nngp_gap": np.median(gap, axis=1),
        "condition_number": [float(one.condition_number) for one in spectra],
        "effective_rank": [float(one.effective_rank) for one in spectra],
    }
    over: dict[str, Any] = {name: ("depth", value) for name, value in values.items()}
    groups = np.array_split(rows, GROUPS)
    spreads = [_between(swept.ntk.values, own).std(axis=1) for own in groups]
    over["group_spread"] = ("group", "depth"), np.array(spreads)
    return xr.Dataset(over, coords={"depth": swept.depth.values})


def _between(matrices, rows):
    """The values between different ones of these rows, `(depth, pair)`."""
    first, second = np.triu_indices(len(rows), 1)
    return matrices[:, rows[first], rows[second]]


# --------------------------------------------------------------------------- claims


def _spread(found):
    """What tells images apart, of plain networks over that of residual ones."""
    spread = found.group_spread.isel(depth=-1)
    ratio = spread.sel(family="plain") / spread.sel(family="γ = 1/2")
    return over_seeds(ratio, what="groups of images")


def _claims(of: str, words: str) -> list[Claim]:
    shared: Any = {
        "source": "consequence of the limits of kernels between images",
        "known": "derived",
        "figure": of,
    }
    return [
        near_chance(
            of,
            name=f"1j-images-{of}-mse-plain",
            statement=f"convolutional, plain, {words}: test MSE / Var at "
            "L = {last} is near that of the best constant, 1",
            reason="our own bound, as for fully connected networks at L = 1000",
            **shared,
        ),
        Claim(
            of=of,
            name=f"1j-images-{of}-spread",
            statement=f"convolutional, {words}: spread of the plain NTK over pairs of "
            "images at L = {last}, over that of the residual one, γ = 1/2",
            measure=_spread,
            predicted=0.1,
            side="below",
            reason="our own bound: a tenth",
            **shared,
        ),
        *(
            stays_flat(
                of,
                family,
                name=f"1j-images-{of}-mse-gamma-{family[4:]}",
                statement=f"convolutional, residual, {family}, {words}: test MSE at "
                "its worst depth to L = {last}, over that at L = {first}: flat",
                **shared,
            )
            for family in ("γ = 1", "γ = 1/2")
        ),
    ]


CLAIMS = [
    *_claims("flattened", "flattened readout"),
    *_claims("pooled", "mean over pixels"),
]


# -------------------------------------------------------------------------- figure


def draw(found: xr.Dataset) -> np.ndarray:
    """NTK between images, gap of the NNGP and test error against depth."""
    with drawing.style():
        axes = drawing.new_axes(1, 3, height=2.5)
        _draw_row(list(axes.flat), found)
        drawing.figure_legend(axes.flat[1])
    return axes


def _draw_row(row, found):
    ntk, gap, error = row
    families = by_family(found, ("ntk_mean", "ntk_spread"), "the study of images")
    for label, look in looks(families).items():
        one, at = families[label], found.depth.values
        mean, spread = one.ntk_mean.values, one.ntk_spread.values
        ntk.plot(at, mean, **look)
        drawing.band(ntk, at, mean - spread, mean + spread, look["color"])
    drawing.log_axis(ntk.xaxis)
    ntk.axhline(0.25, **THEORY)
    drawing.note(ntk, 0.02, 0.25, "1/4")
    if (limit := float(found.circular_limit)) != 0.25:
        ntk.axhline(limit, **THEORY)
        drawing.note(ntk, 0.02, limit - 0.14, "1/(1 + 3/P)")  # above are the curves
    plot.degeneracy(found, "nngp_gap", ax=gap, legend=False)
    late = found.depth.values[found.depth.values >= 10]
    gap.plot(late, 4.5 * np.pi**2 / late**2, **THEORY, label="theory, see caption")
    draw_intervals(error, found, "mse")
    error.axhline(1, **THEORY)
    drawing.note(error, 0.02, 1, "the best constant")
    ntk.set_ylim(0, 1.05)
    error.set_ylim(0, 1.15)
    ntk.set_ylabel("NTK between images")
    error.set_ylabel("test MSE / variance")
    for ax in row:
        ax.set_xlabel("depth L")


def _figure(of: str) -> Figure:
    return Figure(
        of=of,
        draw=draw,
        title="Kernels between images and regression against depth, {readout}",
        caption="Convolutional kernels of {rows} images of {data} ({size} pixels), "
        "{readout}; zero padding unless stated otherwise. Left: NTK between images, "
        "mean and one standard deviation; dashed the limits of plain networks, 1/4, "
        "and pooled and circular 1/(1 + 3/P) with P pixels. Middle: gap of the NNGP, "
        "beside 9π²/(2L²) of fully connected plain networks. Right: kernel ridge "
        "regression, {train} images for training, {test} for testing, 95 % intervals "
        "over splits.",
    )


FIGURES = {of: _figure(of) for of in ("flattened", "pooled")}

_FULL = {
    "families": list(FAMILIES),
    "depths": (1, 3, 10, 30, 100),
    "rows": 48,
    "splits": 10,
}
_QUICK = {
    "families": ["plain", "γ = 1", "γ = 1/2"],
    "depths": (1, 10, 100),
    "rows": 24,
    "splits": 5,
}

MEASUREMENTS = {
    of: Measurement(
        measure=kernels, full=_FULL | {"readout": readout}, quick=_QUICK, data="images"
    )
    for of, readout in (("flattened", "flatten"), ("pooled", "pool"))
}
