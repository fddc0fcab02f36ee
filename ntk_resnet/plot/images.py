"""Convolutional kernels against depth, as figures; see `figures` for how."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.lines import Line2D

from ntk_resnet.plot import depth as figures
from ntk_resnet.plot import drawing
from ntk_resnet.plot.drawing import THEORY, style

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
        axes = drawing.given(axes, 2, 3, height=2.2, sharex=True, sharey="col")
        for row, readout in zip(axes, found.readout.values, strict=True):
            _draw_readout(row, found.sel(readout=readout))
            row[0].set_title(_TITLES[str(readout)], loc="left", fontweight="bold")
        for ax in axes[-1]:
            ax.set_xlabel("depth L")
        _legend(axes, found)
    return axes


def plot_image_rates(found: xr.Dataset, *, axes: Any = None):
    """How fast kernels between images tend to their limits, as depth grows.

    Left: distance of the NTK of plain networks to its limit; middle: gap of their NNGP;
    right: distance of the NTK of residual networks to that of one block (`γ = 1`), and
    what the next depth changes in it (`γ = 1/2`), the largest over pairs of images.
    Dashed: the rates predicted. Returns the axes, `(1, 3)`.
    """
    with style():
        axes = drawing.given(axes, 1, 3, height=2.7)
        ntk, gap, blocks = axes.flat
        excess = np.abs(found.plain_ntk - found.plain_limit).max("pair")
        for padding, readout in _PLAIN_LOOKS:
            look = _PLAIN_LOOKS[padding, readout]
            at = {"padding": padding, "readout": readout}
            depth = found.plain_depth.values
            ntk.plot(depth, excess.sel(at).values, **look)
            gap.plot(depth, found.plain_gap.sel(at).mean("pair").values, **look)
        _plain_theory(ntk, gap, found)
        _draw_blocks(blocks, found)
        for ax in axes.flat:
            drawing.log_axis(ax.xaxis)
            ax.set_yscale("log")
            ax.set_xlabel("depth L")
        ntk.set_ylabel("plain: |NTK − limit|")
        gap.set_ylabel("plain: gap of the NNGP")
        blocks.set_ylabel("residual: |change of the NTK|")
        drawing.figure_of(axes).legend(
            handles=[*ntk.lines[:4], *blocks.lines[:4], ntk.lines[-1]],
            loc="outside upper left",
            ncols=3,
            columnspacing=1.5,
        )
    return axes


_PLAIN_LOOKS: dict[tuple[str, str], dict[str, Any]] = {
    (padding, readout): {
        "color": _LOOKS["plain" if padding == "zero" else "plain, circular"]["color"],
        "marker": marker,
        "linestyle": line,
        "label": f"plain, {padding}, {word}",
    }
    for padding in ("zero", "circular")
    for readout, word, marker, line in (
        ("flatten", "flattened", "o", "-"),
        ("pool", "pooled", "D", ":"),
    )
}


def _plain_theory(ntk, gap, found):
    depth, pixels = found.plain_depth.values.astype(float), found.attrs["pixels"]
    ntk.plot(depth, 0.375 * np.log(depth) / depth, **THEORY)
    limit = 4.5 * np.pi**2 / depth**2
    gap.plot(depth, limit, **THEORY)
    gap.plot(depth, limit / pixels, **THEORY)
    ntk.plot([], [], **THEORY, label="reference, see caption")


def _draw_blocks(ax, found):
    depth = found.block_depth.values.astype(float)
    one, half = (found.ntk.sel(family=family) for family in ("γ = 1", "γ = 1/2"))
    distance = np.abs(one - found.block_ntk).max("pair")
    changes = np.abs(half.diff("block_depth", label="lower")).max("pair")
    for name, values in (("γ = 1", distance), ("γ = 1/2", changes)):
        look = _LOOKS[name]
        for readout, word, line in (
            ("flatten", "flattened", "-"),
            ("pool", "pooled", ":"),
        ):
            y = values.sel(readout=readout).values
            ax.plot(
                depth[: len(y)],
                y,
                **look | {"linestyle": line},
                label=f"{name}, {word}",
            )
    # Parallel to both: above all.
    ax.plot(depth, 1.5 * float(changes.max()) * depth[0] / depth, **THEORY)


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
        drawing.log_axis(ax.xaxis)
    ntk.axhline(0.25, **THEORY)
    drawing.note(ntk, 0.02, 0.25, "1/4")
    if (limit := float(found.circular_limit)) != 0.25:
        ntk.axhline(limit, **THEORY)
        drawing.note(ntk, 0.02, limit - 0.14, "1/(1 + 3/P)")  # above are the curves
    late = depth >= 10
    gap.plot(depth[late], 4.5 * np.pi**2 / depth[late] ** 2, **THEORY)
    gap.set_yscale("log")
    error.axhline(1, **THEORY)
    drawing.note(error, 0.02, 1, "the best constant")
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
    drawing.figure_of(axes).legend(
        handles=handles, loc="outside upper left", ncols=3, columnspacing=1.5
    )
