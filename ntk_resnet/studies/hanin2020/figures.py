"""The second moment against depth, width and their ratio."""

import numpy as np

import ntk_resnet as nr
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.hanin2020.claims import interval
from ntk_resnet.studies.ledger import over_seeds
from ntk_resnet.studies.study import Figure

TICKS = (1, 1.5, 2, 3, 5, 7)


def draw_dispersion(found):
    """The dispersion against depth over width, sampled and exact."""
    with drawing.style():
        ax = drawing.one_axes(None)
        (look,) = looks(["plain"]).values()
        ratio = (found.depth / found.width).values
        values = found.share.transpose("network", "cell")
        around = over_seeds(values, 0, "networks")
        own = look | {"linestyle": "", "label": "networks"}
        drawing.intervals(ax, ratio, around, **own)
        for x, y, width in zip(ratio, around.values, found.width.values, strict=True):
            drawing.end_label(ax, x, y, f"  m = {width}")
        order = np.argsort(ratio, kind="stable")
        own = found.predicted.values[order]
        ax.plot(
            ratio[order],
            own,
            linestyle="",
            marker="_",
            markersize=14,
            color=drawing.INK,
            label="theory, exact at this width",
        )
        line = np.geomspace(ratio.min(), ratio.max(), 100)
        known = nr.finite.predicted_dispersion(line)
        drawing.theory_line(ax, line, known, "theory, limit of large width")
        drawing.log_axis(ax.xaxis, steps=(1, 2, 5))
        drawing.log_axis(ax.yaxis, steps=TICKS)
        ax.set_xlabel("L/m")
        ax.set_ylabel("E Θ² / (E Θ)²")
        drawing.legend(ax)
    return ax


def draw_residual(found):
    """The dispersion of residual networks against depth."""
    with drawing.style():
        ax = drawing.one_axes(None)
        for family, look in looks(found.family.values).items():
            one = found.sel(family=family)
            around = interval(
                one.dispersion.values, one.dispersion_sem.values, one.networks.values
            )
            drawing.intervals(ax, one.depth, around, **look, label=family)
        drawing.theory_line(ax, found.depth, found.plain.values, "theory, plain")
        ax.set_xticks(found.depth.values)
        drawing.log_axis(ax.yaxis, steps=TICKS)
        ax.set_xlabel("depth L")
        ax.set_ylabel("E Θ² / (E Θ)²")
        drawing.legend(ax)
    return ax


def draw_limit(found):
    """How the exact dispersion tends to its limit."""
    with drawing.style():
        ax = drawing.one_axes(None)
        names = [f"L/m = {ratio:g}" for ratio in found.ratio.values]
        for name, (_, one), look in zip(
            names, found.groupby("ratio"), looks(names).values(), strict=True
        ):
            one = one.squeeze("ratio")
            ax.plot(one.width, one.dispersion / one.limit, **look, label=name)
        drawing.theory_line(ax, found.width, np.ones(found.width.size), "theory, limit")
        ax.set_xscale("log")
        ax.set_xticks(found.width.values, [f"{m}" for m in found.width.values])
        ax.set_xticks([], minor=True)
        ax.set_xlabel("width m")
        ax.set_ylabel("E Θ² / (E Θ)² over its limit")
        drawing.legend(ax)
    return ax


FIGURES = {
    "dispersion": Figure(
        of="tilted",
        draw=draw_dispersion,
        title="How much the NTK of plain networks fluctuates, by depth over width",
        caption="Second moment of the NTK on the diagonal over the square of its mean: "
        "points from {networks} networks each, drawn in proportion to |h_l|⁴ of "
        "a layer and weighted back, with 95 % intervals; bars the exact recursion at "
        "that width, dashed its limit.",
    ),
    "residual": Figure(
        of="residual",
        draw=draw_residual,
        title="How much the NTK of residual networks fluctuates, width {width}",
        caption="As above, of networks drawn as they are, with 95 % intervals, against "
        "depth; dashed the exact recursion of plain networks.",
    ),
    "limit": Figure(
        of="limit",
        draw=draw_limit,
        title="The exact dispersion of plain networks over its limit",
        caption="Against width, at depths in proportion to it.",
    ),
}
