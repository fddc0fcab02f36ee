"""Kernels against the angle, and what becomes of them with depth."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ntk_resnet._checks import check_choice
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import Results, by_family, check, looks

_KERNELS = {"ntk": "normalised NTK", "nngp": "normalised NNGP kernel"}
_SWEEP = "nr.sweep_depth(spec, depths, angles=...)"
_DEGENERACY = "nr.degeneracy"

_QUANTITIES = {
    "distance": "rms of NTK − 1/4",
    "distance_one_block": "rms of NTK − NTK of one block",
    "ntk_mean": "mean NTK",
    "ntk_spread": "standard deviation of the NTK",
    "nngp_gap": "1 − NNGP, median",
    "condition_number": "condition number of the NTK",
    "effective_rank": "effective rank of the NTK",
}


def kernels(
    swept: xr.Dataset,
    get: str = "ntk",
    *,
    over: str = "angle",
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """A normalised kernel against the angle between inputs, a curve a depth.

    Args:
        swept: from `nr.sweep_depth` with `angles`: `ntk` or `nngp` over
            (`depth`, `angle`).
        get: `"ntk"` or `"nngp"`.
        over: `"angle"`, in radians, or `"cosine"` of it.
        ax: where to draw; `None` for a new figure.
        legend: whether to say above the axes which colour is which depth.

    Returns:
        The axes.

    Raises:
        ValueError: `swept` is of another function, or an option is not one of these.

    Example:
        `nr.plot.kernels(nr.sweep_depth(spec, [1, 10, 100], angles=angles))`
    """
    check_choice("get", get, _KERNELS)
    check_choice("over", over, ("angle", "cosine"))
    check(swept, (get, "depth", "angle"), _SWEEP)
    angle = swept.angle.values
    with drawing.style():
        ax = drawing.one_axes(ax)
        shades = drawing.shades(swept.sizes["depth"])
        curves = swept[get].transpose("depth", "angle").values
        for depth, curve, shade in zip(swept.depth.values, curves, shades, strict=True):
            x = angle if over == "angle" else np.cos(angle)
            ax.plot(x, curve, color=shade, label=f"L = {depth}")
        _angle_axis(ax, over)
        ax.set_ylabel(_KERNELS[get])
        if legend:
            drawing.legend(ax)
    return ax


def _angle_axis(ax, over):
    if over == "angle":
        ax.set_xticks([0, np.pi / 2, np.pi], ["0", "π/2", "π"])
        ax.set_xlim(0, np.pi)
        ax.set_xlabel("angle θ between inputs (rad)")
    else:
        ax.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"])
        ax.set_xlim(-1, 1)
        ax.set_xlabel("cosine u between inputs")


def degeneracy(
    found: Results,
    quantity: str = "distance",
    *,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """How constant kernels are, against depth, beside the predicted asymptote.

    Args:
        found: from `nr.degeneracy`: the quantity over `depth`; several
            by label, or with a dimension `family`, are compared.
        quantity: `"distance"` of the NTK to 1/4, `"distance_one_block"`, `"ntk_mean"`,
            `"ntk_spread"`, `"nngp_gap"`, `"condition_number"` or `"effective_rank"`.
        ax: where to draw; `None` for a new figure.
        legend: whether to name families above the axes.

    Returns:
        The axes. The asymptote is dashed, from depth 10 on, where one is known.

    Raises:
        ValueError: `found` is of another function, or the quantity is none of these.

    Example:
        `nr.plot.degeneracy({"plain": a, "γ = 1/2": b}, "nngp_gap")`
    """
    check_choice("quantity", quantity, _QUANTITIES)
    families = by_family(found, ("depth", quantity), _DEGENERACY)
    with drawing.style():
        ax = drawing.one_axes(ax)
        _by_depth(ax, families, quantity)
        for one in families.values():
            late = one.isel(depth=one.depth.values >= 10)
            drawing.theory_line(
                ax, late.depth.values, _asymptote(late, quantity), "theory"
            )
        if quantity == "condition_number":
            drawing.log_axis(ax.yaxis, steps=(1, 2, 5))
        elif quantity not in ("effective_rank", "ntk_mean"):
            ax.set_yscale("log")
        ax.set_ylabel(_QUANTITIES[quantity])
        if legend:
            drawing.legend(ax)
    return ax


def _asymptote(one, quantity):
    """What theory predicts of the quantity; NaN where nothing."""
    if quantity in ("distance", "ntk_mean"):
        known = one.get("predicted_ntk", np.nan)
        found = known - 0.25 if quantity == "distance" else known
    else:
        found = one.get(f"predicted_{quantity}", np.nan)
    return np.broadcast_to(np.asarray(found, float), one.depth.shape)


def kernel_distance(
    found: Results,
    quantity: str = "relative_distance",
    *,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """How far a kernel is from another one, against depth.

    Args:
        found: from `nr.kernel_distance_sweep`: the quantity over `depth`; several by
            label, or with a dimension `family`, are compared.
        quantity: `"relative_distance"` (Frobenius), `"alignment"` of the centred
            kernels, or `"alignment_gap"`, one minus it.
        ax: where to draw; `None` for a new figure.
        legend: whether to name families above the axes.

    Returns:
        The axes.

    Raises:
        ValueError: `found` is of another function, or the quantity is none of these.

    Example:
        `nr.plot.kernel_distance(nr.kernel_distance_sweep(spec, other, depths, x))`
    """
    names = {
        "relative_distance": "relative distance of the kernels",
        "alignment": "alignment of the centred kernels",
        "alignment_gap": "1 − alignment of the centred kernels",
    }
    check_choice("quantity", quantity, names)
    families = by_family(found, ("depth", quantity), "nr.kernel_distance_sweep")
    with drawing.style():
        ax = drawing.one_axes(ax)
        _by_depth(ax, families, quantity)
        if quantity != "alignment":
            ax.set_yscale("log")
        ax.set_ylabel(names[quantity])
        if legend:
            drawing.legend(ax)
    return ax


def _by_depth(ax, families, quantity):
    """The quantity of each family, a point a depth, joined."""
    for label, look in looks(families).items():
        one = families[label]
        ax.plot(one.depth.values, one[quantity].values, **look, label=label)
    drawing.log_axis(ax.xaxis)
    ax.set_xlabel("depth L")
