"""Results as figures: every function takes a Dataset, draws it and returns its axes.

Nothing is computed here but positions on paper. Measurements are coloured (Okabe and
Ito's palette, told apart by colour-blind readers too, and by marker), theory is thin
and dashed in the colour of the text.
"""

from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ntk_resnet.plot import drawing
from ntk_resnet.plot.drawing import INK, PAPER, THEORY, figure_of, style
from ntk_resnet.plot.drawing import new_axes as new_axes
from ntk_resnet.plot.drawing import save as save
from ntk_resnet.plot.drawing import to_svg as to_svg

COLOURS = {
    "plain": "#d55e00",
    "γ = 1": "#0072b2",
    "γ = 1/2": "#009e73",
    "γ = 1/4": "#e69f00",
    "α = 1": "#cc79a7",
}
MARKERS = {"plain": "o", "γ = 1": "s", "γ = 1/2": "D", "γ = 1/4": "^", "α = 1": "v"}
LABELS = {
    "plain": "plain",
    "γ = 1": "residual, γ = 1",
    "γ = 1/2": "residual, γ = 1/2",
    "γ = 1/4": "residual, γ = 1/4",
    "α = 1": "residual, α = 1",
}


# ----------------------------------------------------------- kernels by angle or cosine


def plot_paper_kernels(paper: xr.Dataset, *, axes: Any = None):
    """The normalised NTK against the cosine: a panel a family, a curve a depth.

    The figure of Huang et al. 2020: plain networks with a frozen readout, and residual
    ones with branches scaled by 1/L. Returns the axes, `(1, 2)`.
    """
    with style():
        axes = drawing.given(axes, 1, 2, height=3.0, sharey=True)
        shades = drawing.shades(paper.sizes["depth"])
        for ax, family in zip(axes.flat, _families(paper), strict=True):
            values = paper.ntk.sel(family=family).values
            for depth, row, shade in zip(
                paper.depth.values, values, shades, strict=True
            ):
                label = f"L = {depth}"
                ax.plot(paper.cosine.values, row, color=shade, label=label)
            ax.axhline(0.25, **THEORY)
            title = _PAPER_TITLES[family]
            ax.set_title(title, loc="left", fontweight="bold")
            ax.set_xlabel("cosine between inputs")
            ax.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"])
            ax.set_xlim(-1, 1)
            ax.set_ylim(-0.25, 1.05)
        axes.flat[0].set_ylabel("normalised NTK")
        axes.flat[0].plot([], [], **THEORY, label="1/4")
        axes.flat[0].legend(loc="upper left", ncols=2, columnspacing=1.2)
    return axes


_PAPER_TITLES = {"plain": "plain", "γ = 1": "residual, branches scaled by 1/L"}


def plot_kernels(kernels: xr.Dataset, which: str = "ntk", *, axes: Any = None):
    """One normalised kernel against the angle: a panel a family, a curve a depth.

    Args:
        kernels: the study's part of that name.
        which: `"ntk"` or `"nngp"`.
        axes: six axes, or `None` for new ones. The last one holds the legend.

    Returns:
        The axes, `(2, 3)`.
    """
    with style():
        axes = drawing.given(axes, 2, 3, height=2.2, sharex=True, sharey=True)
        depths = kernels.depth.values
        shades = drawing.shades(len(depths))
        for ax, family in zip(axes.flat, kernels.family.values, strict=False):
            values = kernels[which].sel(family=family).values
            for row, shade in zip(values, shades, strict=True):
                ax.plot(kernels.angle.values, row, color=shade)
            ax.set_title(LABELS[str(family)], loc="left", fontweight="bold")
            if which == "ntk":
                ax.axhline(0.25, **THEORY)
        _draw_second_engine(axes.flat, kernels, which, depths, shades)
        for ax in axes.flat[:-1]:
            ax.set_xticks([0, np.pi / 2, np.pi], ["0", "π/2", "π"])
            ax.tick_params(labelbottom=True)
            ax.set_xlim(0, np.pi)
            ax.set_ylim(-0.25 if which == "ntk" else -1.05, 1.05)
        symbol = {"ntk": "normalised NTK", "nngp": "normalised NNGP kernel"}[which]
        for ax in axes[:, 0]:
            ax.set_ylabel(symbol)
        figure_of(axes).supxlabel("angle θ between inputs (rad)", fontsize=8.5)
        _depth_legend(axes.flat[-1], depths, shades, which)
    return axes


def _draw_second_engine(axes, kernels, which, depths, shades):
    """neural-tangents' values as rings on the closed form, where it has the kernel."""
    if "network" not in kernels.coords:
        return
    families = [str(name) for name in kernels.family.values]
    for network in kernels.network.values:
        found = kernels[f"{which}_neural_tangents"].sel(network=network)
        for layer in found.layers.values:
            if layer in depths:
                axes[families.index(str(network))].plot(
                    kernels.marker.values,
                    found.sel(layers=layer).values,
                    "o",
                    markersize=3.6,
                    markerfacecolor=PAPER,
                    markeredgewidth=0.9,
                    color=shades[list(depths).index(layer)],
                    clip_on=False,
                    zorder=4,
                )


def _depth_legend(ax, depths, shades, which):
    ax.set_axis_off()
    handles = [
        matplotlib.lines.Line2D([], [], color=shade, label=f"L = {depth}")
        for depth, shade in zip(depths, shades, strict=True)
    ]
    handles.append(
        matplotlib.lines.Line2D(
            [],
            [],
            color=INK,
            marker="o",
            linestyle="",
            markersize=3.6,
            markerfacecolor=PAPER,
            label="neural-tangents",
        )
    )
    if which == "ntk":
        handles.append(
            matplotlib.lines.Line2D(
                [], [], **THEORY, label="limit of plain networks, 1/4"
            )
        )
    ax.legend(handles=handles, loc="center left", title="depth", alignment="left")


# ------------------------------------------------------------------ quantities by depth


def plot_degeneracy(degeneracy: xr.Dataset, *, axes: Any = None):
    """Four measures of a Gram matrix against depth, with the predicted asymptotes.

    Distance to the constant kernel 1/4, gap of the NNGP kernel, condition number and
    effective rank, all but the last on logarithmic axes. Returns the axes, `(2, 2)`.
    """
    panels = (
        ("distance", "distance of the NTK to 1/4 (rms)"),
        ("nngp_gap", "gap of the NNGP kernel (median)"),
        ("condition_number", "condition number of the NTK"),
        ("effective_rank", "effective rank of the NTK"),
    )
    with style():
        axes = drawing.given(axes, 2, 2, height=2.5)
        for ax, (name, label) in zip(axes.flat, panels, strict=True):
            for family in _families(degeneracy):
                one = degeneracy.sel(family=family)
                ax.plot(one.depth.values, one[name].values, **_look(family))
            drawing.log_axis(ax.xaxis)
            if name == "condition_number":
                drawing.log_axis(ax.yaxis, steps=(1, 2, 5))
            elif name != "effective_rank":
                ax.set_yscale("log")
            ax.set_ylabel(label)
            ax.set_xlabel("depth L")
        _draw_asymptotes(axes.flat, degeneracy)
        _family_legend(axes.flat[0].figure, degeneracy, theory="predicted asymptote")
    return axes


def _draw_asymptotes(axes, degeneracy):
    distance, gap, condition, rank = axes
    for family in _families(degeneracy):
        one = degeneracy.sel(family=family)
        depth = one.depth.values
        late = depth >= 10
        excess = one.predicted_ntk.values - 0.25
        for ax, values in (
            (distance, excess),
            (gap, one.predicted_nngp_gap.values),
            (condition, one.predicted_condition_number.values),
            (rank, one.predicted_effective_rank.values),
        ):
            seen = late & np.isfinite(values)
            if seen.any():
                ax.plot(depth[seen], values[seen], **THEORY)


def plot_regression(regression: xr.Dataset, *, axes: Any = None):
    """Test error and accuracy of kernel ridge regression against depth.

    Points are means over splits, bands their 95 % intervals. For real targets the
    second panel shows R^2. Returns the axes, `(1, 2)`.
    """
    classify = bool(regression.attrs["classes"])
    with style():
        axes = drawing.given(axes, 1, 2, height=2.9)
        error, second = axes.flat
        for name, ax in (("mse", error), ("accuracy" if classify else "r2", second)):
            for family in _families(regression):
                one = regression.sel(family=family)
                depth = one.depth.values
                ax.plot(depth, one[f"{name}_mean"].values, **_look(family))
                ax.fill_between(
                    depth,
                    one[f"{name}_low"].values,
                    one[f"{name}_high"].values,
                    color=_look(family)["color"],
                    alpha=0.2,
                    linewidth=0,
                )
            drawing.log_axis(ax.xaxis)
            ax.set_xlabel("depth L")
            ax.set_ylim(0, 1.08)
        error.axhline(1, **THEORY)
        error.set_ylabel("test MSE / variance of the targets")
        drawing.note(error, 0.02, 1, "chance: the best constant")
        second.set_ylabel("test accuracy" if classify else "test R²")
        if classify:
            chance = 1 / regression.attrs["classes"]
            second.axhline(chance, **THEORY)
            drawing.note(second, 0.02, chance, "chance")
        _family_legend(error.figure, regression)
    return axes


def plot_rates(rates: xr.Dataset, *, axes: Any = None):
    """The two rates of the theory: towards 1/4, and towards the kernel of one block.

    Left the excess of the plain NTK over 1/4, times L, against depth, beside slopes of
    3/8; right the distance of residual kernels to that of one block, beside
    `L^(1-2 gamma)`. Returns the axes, `(1, 2)`.
    """
    with style():
        axes = drawing.given(axes, 1, 2, height=2.8)
        left, right = axes.flat
        depth = rates.plain_depth.values
        frozen = rates.plain_ntk.sel(trained="blocks").values
        excess = depth[:, None] * (frozen - 0.25)
        shades = drawing.shades(rates.sizes["cosine"])
        heights = drawing.apart(excess[-1], 0.055 * (excess.max() - excess.min()))
        for k, cosine in enumerate(rates.cosine.values):
            left.plot(depth, excess[:, k], color=shades[k])
            slope = excess[-1, k] + 0.375 * np.log(depth / depth[-1])
            left.plot(depth, slope, **THEORY)
            text = f"cosine {cosine:g}" if k == len(shades) - 1 else f"{cosine:g}"
            drawing.end_label(left, depth[-1], heights[k], text.replace("-", "−"))
        drawing.log_axis(left.xaxis)
        left.plot([], [], **THEORY, label="theory: slope 3/8 in ln L")
        left.legend(loc="upper left")
        left.set_xlabel("depth L")
        left.set_ylabel("L (NTK − 1/4), plain")
        blocks = rates.block_depth.values
        colours = (COLOURS["γ = 1/4"], COLOURS["γ = 1/2"], COLOURS["γ = 1"])
        for gamma, colour in zip(rates.exponent.values, colours, strict=True):
            distance = rates.shallow_distance.sel(exponent=gamma).values
            right.plot(blocks, distance, "o-", color=colour)
            predicted = distance[-1] * (blocks / blocks[-1]) ** (1 - 2 * gamma)
            right.plot(blocks, predicted, **THEORY)
            drawing.end_label(right, blocks[-1], distance[-1], f"γ = {gamma:g}")
        right.plot([], [], **THEORY, label=r"theory: $L^{1-2\gamma}$")
        right.legend(loc="lower left")
        drawing.log_axis(right.xaxis)
        right.set_yscale("log")
        right.set_xlabel("depth L")
        right.set_ylabel("distance of the NTK to that of one block")
    return axes


# ---------------------------------------------------------------------- finite networks


def plot_width(width: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Relative error of both empirical kernels against width, and width^(-1/2)."""
    with style():
        ax = new_axes(height=2.9)[0, 0] if ax is None else ax
        for name, colour, marker in (
            ("ntk", COLOURS["plain"], "o"),
            ("nngp", COLOURS["γ = 1"], "s"),
        ):
            exponent, low, high = (
                float(width[f"{name}_exponent{end}"]) for end in ("", "_low", "_high")
            )
            label = f"{name.upper()}: exponent {exponent:.2f} [{low:.2f}, {high:.2f}]"
            label = label.replace("-", "−")
            drawing.by_width(ax, width[f"{name}_error"], colour, marker, label, -0.5)
        drawing.width_axes(ax, width.width.values)
        ax.set_xlabel("width m")
        ax.set_ylabel("relative error of the empirical kernel")
        ax.plot([], [], **THEORY, label=r"theory: $m^{-1/2}$")
        ax.set_ylim(bottom=ax.get_ylim()[0] / 1.6)  # room for the legend
        ax.legend(loc="lower left")
    return ax


def plot_training(training: xr.Dataset, *, axes: Any = None):
    """Outputs, loss, kernel drift while training, and errors by width.

    Dots and lines are means over networks; the bands are the predictions' spread (one
    standard deviation of the outputs, all of the losses) over the networks of the
    largest width, whose initial outputs differ. Returns the axes, `(2, 2)`.
    """
    with style():
        axes = drawing.given(axes, 2, 2, height=2.6)
        outputs, loss, drift, errors = axes.flat
        time = training.time.values
        # Time 0 has no place on a logarithmic axis: drawn at half the first one.
        shown = np.where(time > 0, time, time[time > 0][0] / 2)
        _draw_outputs(outputs, training.isel(width=-1, output=0), shown)
        last = training.predicted_loss.isel(width=-1).transpose("seed", "time").values
        loss.fill_between(shown, last.min(axis=0), last.max(axis=0), **_BAND)
        loss.plot(shown, last.mean(axis=0), label="prediction", **THEORY)
        shades = drawing.shades(training.sizes["width"])
        for width, shade in zip(training.width.values, shades, strict=True):
            one = training.sel(width=width).mean("seed")
            look = {"color": shade, "markersize": 3, "label": f"{width}"}
            loss.plot(shown, one.loss.values, "o-", **look)
            drift.plot(shown[1:], one.ntk_drift.values[1:], "o-", **look)
        loss.set_ylabel("training loss")
        loss.legend(title="width", loc="lower left")
        drift.set_ylabel("relative change of the NTK")
        for ax in (loss, drift):
            ax.set_yscale("log")
        for ax in (outputs, loss, drift):
            _time_axis(ax, shown, from_zero=ax is not drift)
        _draw_errors(errors, training)
    return axes


_BAND: dict[str, Any] = {"color": INK, "alpha": 0.12, "linewidth": 0}


def _time_axis(ax, shown, *, from_zero):
    """Logarithmic, with a tick that says 0 where time 0 is shown."""
    drawing.log_axis(ax.xaxis)
    first, last = np.log10(shown[[1, -1]])
    ticks = 10.0 ** np.arange(np.ceil(first), np.floor(last) + 1)
    if not ticks.size:
        ticks = np.unique(shown[[1, -1]])
    labels = [f"{tick:.3g}" for tick in ticks]
    if from_zero:
        ticks, labels = np.append(shown[0], ticks), ["0", *labels]
    ax.set_xticks(ticks, labels)
    ax.set_xlabel("time (rate × steps)")


def _draw_outputs(ax, training, time):
    """Means over seeds at two points, in the bands of their predictions."""
    for point in range(min(2, training.sizes["point"])):
        one, colour = training.isel(point=point), list(COLOURS.values())[point]
        mean = one.predicted_outputs.mean("seed").values
        spread = one.predicted_outputs.std("seed").values
        band = _BAND | {"color": colour, "alpha": 0.15}
        ax.fill_between(time, mean - spread, mean + spread, **band)
        ax.plot(time, mean, **THEORY)
        ax.plot(time, one.outputs.mean("seed").values, "o", color=colour)
    points = "test" if "test_rows" in training.attrs else "training"
    ax.set_ylabel(f"outputs at {points} points, width {int(training.width)}")


def _draw_errors(ax, training):
    blue, orange, green = (COLOURS[name] for name in ("γ = 1", "plain", "γ = 1/2"))
    for name, label, colour, marker, power in (
        ("max_output_error", "outputs − prediction", blue, "s", -0.5),
        ("max_own_kernel_error", "outputs − linearised", green, "D", -1),
        ("ntk_drift", "change of the NTK", orange, "o", -1),
    ):
        drift = name == "ntk_drift"
        values = training[name].isel(time=-1) if drift else training[name].max("time")
        exponent = float(training[f"{'drift' if drift else name}_exponent"])
        if np.isfinite(exponent):
            label += f": {exponent:.2f}".replace("-", "−")
        drawing.by_width(ax, values, colour, marker, label, power)
    ax.plot([], [], **THEORY, label=r"$m^{-1/2}$ and $m^{-1}$")
    drawing.width_axes(ax, training.width.values)
    low, high = ax.get_ylim()
    ax.set_ylim(bottom=low * low / high)  # the lower half is for the legend
    ax.set_xlabel("width m")
    ax.set_ylabel("largest difference, final change")
    ax.legend(loc="lower left", title="exponent of the width", alignment="left")


# ------------------------------------------------------------------------ common pieces


def _families(dataset) -> list[str]:
    return [str(name) for name in dataset.family.values]


def _look(family) -> dict[str, Any]:
    """Colour and marker; a network that is none of the study's has its own."""
    return {
        "color": COLOURS.get(family, "#56b4e9"),
        "marker": MARKERS.get(family, "o"),
        # The plain network on top where lines meet.
        "zorder": 2.5 if family == "plain" else 2,
    }


def _family_legend(figure, dataset, theory=None):
    handles = [
        matplotlib.lines.Line2D(
            [], [], label=LABELS.get(family, family), **_look(family)
        )
        for family in _families(dataset)
    ]
    if theory:
        handles.append(matplotlib.lines.Line2D([], [], **THEORY, label=theory))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1.5)
