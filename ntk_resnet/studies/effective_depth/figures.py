"""Before: against depth. After: against T."""

import fractions

import numpy as np

from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.effective_depth.claims import (
    decreasing,
    missed,
)
from ntk_resnet.studies.effective_depth.measurements import SCALES, TAIL, WHOLE
from ntk_resnet.studies.study import Figure

OTHERS = "#9a9aa3"  # profiles, which have no colour of their own
LARGE = 1 / 4  # steps that are not small: hollow
_PARTS = {
    "growth": "ln of the signal's growth",
    "path_length": "mean path length",
    "ntk": "NTK at 45°",
    "error": "test error / variance",
}


def draw_collapse(found):
    """Growth, path length, kernel and test error against depth, and against T."""
    found = found.assign(growth=found.log_growth, error=found.error.mean("seed"))
    theory = {
        "growth": found.time,
        "path_length": found.time,
        "ntk": found.limit_ntk,
        "error": found.curve_error,
    }
    panels = drawing.new_axes(4, 2, height=2.1, sharex="col", sharey="row")
    with drawing.style():
        styles = looks(SCALES)
        small = (found.kind == "profile") & (found.step <= LARGE)
        spread = found.isel(network=np.flatnonzero(small))
        for (before, after), part in zip(panels, _PARTS, strict=True):
            label = "" if part != "ntk" else "other profiles"
            for ax, x in ((before, "depth"), (after, "T")):
                look = {"color": OTHERS, "marker": ".", "linestyle": "", "zorder": 1}
                ax.plot(spread[x], spread[part], **look, markersize=3.5, label=label)
                for name, own in styles.items():
                    one = found.isel(network=np.flatnonzero(found.scheme == name))
                    marks = own | {"markersize": 3.5, "linewidth": 1}
                    if x == "depth":
                        ax.plot(one[x], one[part], **marks, label=name)
                        continue
                    for fits, face in ((True, own["color"]), (False, drawing.PAPER)):
                        some = one.isel(
                            network=np.flatnonzero((one.step <= LARGE) == fits)
                        )
                        some_marks = marks | {"linestyle": "", "markerfacecolor": face}
                        ax.plot(some[x], some[part], **some_marks)
            drawing.theory_line(
                after, found.time, theory[part].values, "theory, depth → ∞ at equal T"
            )
            before.set_ylabel(_PARTS[part])
            for ax in (before, after):
                ax.set_xscale("log")
                if part != "ntk":
                    ax.set_yscale("log")
        for ax in panels[:2, 0]:
            ax.set_ylim(1e-3, 800)
        panels[0, 1].set_xlim(5e-3, 800)
        panels[-1, 0].set_xlabel("depth L")
        panels[-1, 1].set_xlabel("effective depth T = Σ a²")
        for ax in panels[-1]:
            drawing.log_axis(ax.xaxis)
        for ax in panels[[0, 1, 3]].flat:
            drawing.log_axis(ax.yaxis)
    drawing.figure_legend(panels)
    return panels


def draw_distance(found):
    """Distances to the limit of equal T against the size of the next order."""
    panels = drawing.new_axes(1, 2, height=2.8)
    own = found.isel(network=np.flatnonzero(found.kind == "profile"))
    breaking = {
        WHOLE: decreasing(found, WHOLE),
        TAIL: decreasing(found, TAIL),
        "α = 1": found.isel(network=np.flatnonzero(found.scheme == "α = 1")),
    }
    with drawing.style():
        times = np.unique(own.asked)
        for ax, what in zip(panels.flat, ("distance", "error"), strict=True):
            value = lambda one, what=what: (  # noqa: E731
                one.distance if what == "distance" else np.abs(missed(one))
            )
            for time, colour in zip(times, drawing.shades(len(times)), strict=True):
                one = own.isel(network=np.flatnonzero(own.asked == time))
                ax.plot(
                    one.step,
                    value(one),
                    linestyle="",
                    marker="o",
                    markersize=3,
                    color=colour,
                    label=f"T = {fractions.Fraction(time)}",
                )
            for (name, one), marker in zip(breaking.items(), "x+*", strict=True):
                mark = {"linestyle": "", "marker": marker, "color": drawing.INK}
                ax.plot(one.step, value(one), **mark, label=name, zorder=3)
            s = np.array([float(own.step.min()), 1.0])
            size = 0.1 if what == "distance" else 1.0
            drawing.theory_line(ax, s, size * s, "theory, ∝ s")
            drawing.log_axes(ax)
            ax.set_xlabel("size of the next order, s = Σa⁴ / Σa²")
        panels[0, 0].set_ylabel("sup |NTK − Ω⁽ᵀ⁾|")
        panels[0, 1].set_ylabel("|test error / limit's − 1|")
    drawing.figure_legend(panels)
    return panels


def draw_blocks(found):
    """The same for three blocks."""
    panels = drawing.new_axes(1, len(found.block), sharey=True, height=2.4)
    times = found["T"].values
    with drawing.style():
        for ax, name in zip(panels.flat, found.block.values, strict=True):
            for time, colour in zip(times, drawing.shades(len(times)), strict=True):
                one = found.sel(block=name, T=time)
                mark = {"linestyle": "", "marker": "o", "markersize": 3}
                x, y = one.step.values.ravel(), one.distance.values.ravel()
                label = f"T = {fractions.Fraction(float(time))}"
                ax.plot(x, y, **mark, color=colour, label=label)
            s = np.array([float(found.step.min()), 1.0])
            drawing.theory_line(ax, s, 0.1 * s, "theory, ∝ s")
            drawing.log_axes(ax)
            ax.set_title(name)
            ax.set_xlabel("s = Σa⁴ / Σa²")
        panels[0, 0].set_ylabel("sup |NTK − Ω⁽ᵀ⁾|")
    drawing.figure_legend(panels)
    return panels


def draw_degeneracy(found):
    """T (NTK - 1/4) against T, by block, and with alpha = 1."""
    panels = drawing.new_axes(1, 2, height=2.8)
    cosines = found.cosine.values
    shades = drawing.shades(len(cosines))
    with drawing.style():
        left, right = panels.flat
        for u, colour in zip(cosines, shades, strict=True):
            one = found.sel(cosine=u)
            two = one.excess.isel(block=0)
            left.plot(
                two["T"],
                two,
                color=colour,
                marker="o",
                label=f"u = {u:g}".replace("-", "−"),
            )
            left.axhline(float(one.constant.isel(block=0)), **drawing.THEORY)
        left.plot([], [], **drawing.THEORY, label="theory")
        names = {
            "two layers": found.excess.isel(block=0),
            "pre-activation": found.excess.isel(block=1),
            "full pre-activation": found.excess.isel(block=2),
            "α = 1": found.unscaled.rename(deep="T"),
        }
        slopes = {"full pre-activation": -3 / 16, "α = 1": 3 / 8}
        for name, look in looks(names).items():
            one = names[name].sel(cosine=0.3)
            right.plot(one["T"], one, **look, label=name)
            if name in slopes:
                late = one.isel(T=slice(-4, None))
                line = float(late[-1]) + slopes[name] * np.log(
                    late["T"] / late["T"][-1]
                )
                right.plot(late["T"], line, **drawing.THEORY)
            else:
                known = found.constant.sel(block=name, cosine=0.3)
                right.axhline(float(known), **drawing.THEORY)
        right.plot([], [], **drawing.THEORY, label="theory")
        for ax in panels.flat:
            ax.set_xscale("log")
            ax.set_xlabel("effective depth T")
            ax.set_ylabel("T (NTK − 1/4)")
            drawing.legend(ax)
        left.set_yscale("symlog", linthresh=1)
        left.set_yticks([-0.5, 0, 1, 3, 10], ["−0.5", "0", "1", "3", "10"])
    return panels


def draw_means(found):
    """Post-activation blocks at equal T, and at equal S."""
    panels = drawing.new_axes(1, 2, height=2.5)
    values = found.value.values
    with drawing.style():
        for ax, kept in zip(panels.flat, ("T", "S"), strict=True):
            for value, colour in zip(values, drawing.shades(len(values)), strict=True):
                one = found.sel(kept=kept, value=value)
                ax.plot(one.depth, one.log_growth, color=colour, marker="o")
                name = f"{kept} = {fractions.Fraction(float(value))}"
                drawing.end_label(ax, one.depth[-1], float(one.log_growth[-1]), name)
                theory = 2 * np.log(np.cosh(one["sum"].values / np.sqrt(np.pi)))
                drawing.theory_line(ax, one.depth, theory, "")
            drawing.width_axes(ax, found.depth.values)
            ax.set_xlabel("depth L")
            ax.set_ylabel("ln of the signal's growth")
            ax.plot([], [], **drawing.THEORY, label="theory, 2 ln cosh(S/√π)")
            drawing.legend(ax)
    return panels


def draw_images(found):
    """The NTK between two images against depth, and against T."""
    rows = len(found.network)
    panels = drawing.new_axes(rows, 2, height=2.0, sharex="col", sharey="row")
    labels = [f"γ = {fractions.Fraction(float(g))}" for g in found.gamma.values]
    with drawing.style():
        for (before, after), name in zip(panels, found.network.values, strict=True):
            for k, look in enumerate(looks(labels).values()):
                one = found.ntk.sel(network=name).isel(gamma=k)
                before.plot(found.depth, one, **look, label=labels[k])
                own = look | {"linestyle": ""}
                after.plot(found["T"].isel(gamma=k), one, **own, label=labels[k])
            before.set_ylabel(f"NTK, {name}")
        names = ("depth L", "effective depth T = Σ a²")
        for ax, label in zip(panels[-1], names, strict=True):
            drawing.log_axis(ax.xaxis)
            ax.set_xlabel(label)
    drawing.figure_legend(panels)
    return panels


FIGURES = {
    "collapse": Figure(
        of="scalings",
        draw=draw_collapse,
        title="Residual networks against depth (left) and against T = Σa² (right)",
        caption="Signal growth, mean length of paths, normalised NTK and test error of "
        "regression with it (a smooth target on the sphere in five dimensions, {train} "
        "examples, no ridge), for branches of two layers. Colours are scales "
        "a = L^(−γ) or a = α; grey are networks whose squares rise or fall over the "
        "blocks, are random, or are zero in every second block. On the right, hollow "
        "where steps are not small, s = Σa⁴/Σa² > 1/4; dashed is the limit of infinite "
        "depth at equal T.",
    ),
    "distance": Figure(
        of="scalings",
        draw=draw_distance,
        title="Distance to the limit of equal T, against the next order",
        caption="The largest difference of NTKs over angles (left), and the relative "
        "difference of test errors (right), to the limit of the same T, for five "
        "profiles of scales and several depths. Crosses, pluses and stars: a "
        "decreasing scale with and without its first blocks, and α = 1. Dashed: "
        "proportional to s.",
    ),
    "blocks": Figure(
        of="blocks",
        draw=draw_blocks,
        title="Distance to the limit of equal T in three kinds of block",
        caption="As the figure before, each block with a limit of its own.",
    ),
    "degeneracy": Figure(
        of="degeneracy",
        draw=draw_degeneracy,
        title="Distance to 1/4 times T, against T",
        caption="T (NTK − 1/4) at cosines u, two-layer blocks (left), and at u = 0.3 "
        "for three blocks and for α = 1, where T = L (right); else α = {alpha}. "
        "Dashed: the constants c(u), and slopes −3/16 and 3/8 in ln T through the last "
        "points.",
    ),
    "images": Figure(
        of="images",
        draw=draw_images,
        title="Convolutional networks against depth (left) and T (right)",
        caption="Normalised NTK between two random images of {side} × {side} pixels, "
        "by padding and readout, for scales a = L^(−γ).",
    ),
    "means": Figure(
        of="means",
        draw=draw_means,
        title="Post-activation blocks at equal T (left) and at equal S = Σa (right)",
        caption="Growth of the signal against depth. Dashed: what the sum of scales "
        "alone predicts.",
    ),
}
