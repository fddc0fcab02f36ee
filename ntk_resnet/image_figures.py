"""Convolutional kernels against depth, as figures; see `figures` for how."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.lines import Line2D

from ntk_resnet import _drawing, figures
from ntk_resnet._drawing import THEORY, style

_LOOKS: dict[str, dict[str, Any]] = {
    name: {"color": figures.COLOURS[name], "marker": figures.MARKERS[name]}
    for name in ("plain", "γ = 1", "γ = 1/2", "α = 1")
} | {"plain, circular": {"color": "#56b4e9", "marker": "X", "zorder": 1.9}}
_LABELS = {name: figures.LABELS.get(name, name) for name in _LOOKS}
_TITLES = {"flatten": "flattened readout", "pool": "mean over pixels"}


def plot_convolutional(found: xr.Dataset, *, axes: Any = None):
    """NTK between images, gap of the NNGP and test error against depth, by readout.

    Bands are one standard deviation over pairs of images, and the 95 % interval over
    splits. Dashed: the limits of the NTK, the gap of fully connected plain networks,
    and the error of the best constant. Returns the axes, `(2, 3)`.
    """
    with style():
        axes = _drawing.given(axes, 2, 3, height=2.2, sharex=True, sharey="col")
        for row, readout in zip(axes, found.readout.values, strict=True):
            _draw_readout(row, found.sel(readout=readout))
            row[0].set_title(_TITLES[str(readout)], loc="left", fontweight="bold")
        for ax in axes[-1]:
            ax.set_xlabel("depth L")
        _legend(axes, found)
    return axes


def _draw_readout(row, found):
    ntk, gap, error = row
    depth = found.depth.values
    for name in found.family.values:
        one, look = found.sel(family=name), _LOOKS[str(name)]
        mean, spread = one.ntk_mean.values, one.ntk_spread.values
        ntk.plot(depth, mean, **look)
        _band(ntk, depth, mean - spread, mean + spread, look)
        gap.plot(depth, one.nngp_gap.values, **look)
        error.plot(depth, one.mse_mean.values, **look)
        _band(error, depth, one.mse_low.values, one.mse_high.values, look)
    for ax in row:
        _drawing.log_axis(ax.xaxis)
    ntk.axhline(0.25, **THEORY)
    _drawing.note(ntk, 0.02, 0.25, "1/4")
    if (limit := float(found.circular_limit)) != 0.25:
        ntk.axhline(limit, **THEORY)
        _drawing.note(ntk, 0.02, limit - 0.14, "1/(1 + 3/P)")  # above are the curves
    late = depth >= 10
    gap.plot(depth[late], 4.5 * np.pi**2 / depth[late] ** 2, **THEORY)
    gap.set_yscale("log")
    error.axhline(1, **THEORY)
    _drawing.note(error, 0.02, 1, "the best constant")
    ntk.set_ylim(0, 1.05)
    error.set_ylim(0, 1.15)
    ntk.set_ylabel("NTK between images")
    gap.set_ylabel("gap of the NNGP (median)")
    error.set_ylabel("test MSE / variance")


def _band(ax, depth, low, high, look):
    ax.fill_between(depth, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _legend(axes, found):
    handles = [
        Line2D([], [], label=_LABELS[str(name)], **_LOOKS[str(name)])
        for name in found.family.values
    ]
    handles.append(Line2D([], [], **THEORY, label="reference, see caption"))
    _drawing.figure_of(axes).legend(
        handles=handles, loc="outside upper left", ncols=3, columnspacing=1.5
    )
