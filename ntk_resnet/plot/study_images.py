"""The figures of the study of convolutional kernels, against depth."""

from typing import Any

import numpy as np
import xarray as xr

from ntk_resnet.plot import depth, drawing
from ntk_resnet.plot.drawing import THEORY
from ntk_resnet.plot.families import by_family, looks
from ntk_resnet.plot.study import draw_intervals

_TITLES = {"flatten": "flattened readout", "pool": "mean over pixels"}


def images(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """NTK between images, gap of the NNGP and test error against depth, by readout.

    Bands are one standard deviation over pairs of images, and the 95 % interval over
    splits. Dashed: the limits of the NTK, the gap of fully connected plain networks,
    and the error of the best constant. Returns the axes, `(2, 3)`.
    """
    with drawing.style():
        axes = drawing.given(axes, 2, 3, height=2.2, sharex=True, sharey="col")
        for row, readout in zip(axes, found.readout.values, strict=True):
            _draw_readout(row, found.sel(readout=readout))
            row[0].set_title(_TITLES[str(readout)], loc="left", fontweight="bold")
        for ax in axes[-1]:
            ax.set_xlabel("depth L")
        drawing.figure_legend(axes[:, 1])
    return axes


def image_rates(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """How fast kernels between images tend to their limits, as depth grows.

    Left: distance of the NTK of plain networks to its limit; middle: gap of their NNGP;
    right: distance of the NTK of residual networks to that of one block (`γ = 1`), and
    what the next depth changes in it (`γ = 1/2`), the largest over pairs of images.
    Dashed: the rates predicted. Returns the axes, `(1, 3)`.
    """
    with drawing.style():
        axes = drawing.given(axes, 1, 3, height=2.7)
        ntk, gap, blocks = axes.flat
        _draw_plain(ntk, gap, found)
        _draw_blocks(blocks, found)
        for ax in axes.flat:
            drawing.log_axis(ax.xaxis)
            ax.set_yscale("log")
            ax.set_xlabel("depth L")
        ntk.set_ylabel("plain: |NTK − limit|")
        gap.set_ylabel("plain: 1 − NNGP, mean")
        blocks.set_ylabel("residual: |change of the NTK|")
        drawing.figure_legend(axes)
    return axes


_READOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "flatten": ("flattened", {"linestyle": "-"}),
    "pool": ("pooled", {"linestyle": ":", "markerfacecolor": drawing.PAPER}),
}


def _draw_plain(ntk, gap, found):
    at, pixels = found.plain_depth.values.astype(float), found.attrs["pixels"]
    excess = np.abs(found.plain_ntk - found.plain_limit).max("pair")
    families = {"zero": "plain", "circular": "plain, circular"}
    table = looks(families.values())
    for padding, family in families.items():
        for readout, (word, line) in _READOUTS.items():
            one = {"padding": padding, "readout": readout}
            look = table[family] | line
            label = f"plain, {padding}, {word}"
            ntk.plot(at, excess.sel(one).values, **look, label=label)
            gap.plot(at, found.plain_gap.sel(one).mean("pair").values, **look)
    ntk.plot(at, 0.375 * np.log(at) / at, **THEORY, label="theory, see caption")
    for factor in (1, pixels):
        gap.plot(at, 4.5 * np.pi**2 / at**2 / factor, **THEORY)


def _draw_blocks(ax, found):
    at = found.block_depth.values.astype(float)
    one, half = (found.ntk.sel(family=family) for family in ("γ = 1", "γ = 1/2"))
    distance = np.abs(one - found.block_ntk).max("pair")
    changes = np.abs(half.diff("block_depth", label="lower")).max("pair")
    for name, values in (("γ = 1", distance), ("γ = 1/2", changes)):
        for readout, (word, line) in _READOUTS.items():
            y = values.sel(readout=readout).values
            look = looks([name])[name] | line
            ax.plot(at[: len(y)], y, **look, label=f"{name}, {word}")
    # Parallel to both: above all.
    ax.plot(at, 1.5 * float(changes.max()) * at[0] / at, **THEORY)


def _draw_readout(row, found):
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
    depth.degeneracy(found, "nngp_gap", ax=gap, legend=False)
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
        ax.set_xlabel("")
