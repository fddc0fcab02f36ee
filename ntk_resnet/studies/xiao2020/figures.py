"""Matrices against depth, and the approach to their limits."""

import numpy as np

from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.study import Figure
from ntk_resnet.studies.xiao2020.measurements import RELU, SLOPES


def draw_matrices(found):
    """Condition number, entries and predictions against depth."""
    panels = {
        "condition_number": "condition number of the NTK",
        "off_diagonal": "NTK off the diagonal",
        "prediction": "size of predictions",
    }
    axes = drawing.new_axes(1, 3)
    with drawing.style():
        for ax, (name, label) in zip(axes.flat, panels.items(), strict=True):
            for network, look in looks(found.network.values).items():
                one = found.sel(network=network).dropna("depth")
                text = network if network == RELU else f"erf, {network}"
                ax.plot(one.depth, one[name], **look, label=text)
            drawing.log_axes(ax)
            ax.yaxis.set_major_formatter("{x:.0e}")
            ax.set_xlabel("depth L")
            ax.set_ylabel(label)
        _limits(axes[0, 0], axes[0, 1], found)
        axes[0, 0].set_ylim(0.5, 1e8)
        axes[0, 1].set_ylim(1e-5, 2)
        axes[0, 2].set_ylim(1e-6, 3)
        drawing.figure_legend(axes)
    return axes


def _limits(left, middle, found):
    """What theory says, in the first two panels."""
    deep = found.depth.values
    for network, entry in (("critical", 1 / 3), (RELU, 1 / 4)):
        limit = found.predicted.sel(network=network).dropna("depth").values
        drawing.theory_line(left, deep[[0, -1]], np.repeat(limit[0], 2), "theory")
        drawing.theory_line(middle, deep[[0, -1]], np.repeat(entry, 2), "theory")
    one = found.sel(network="ordered").dropna("depth")
    ratio = one.condition_number[-1] / one.predicted[-1]
    drawing.theory_line(left, one.depth, ratio * one.predicted, "theory")
    chaotic = found.sel(network="chaotic").dropna("depth")
    decay = SLOPES["chaotic"] ** -chaotic.depth.astype(float)
    scale = chaotic.off_diagonal[-1] / decay[-1]
    drawing.theory_line(middle, chaotic.depth, scale * decay, "theory")


def draw_approach(found):
    """What the NTK lacks to 1/3, against depth."""
    with drawing.style():
        ax = drawing.one_axes(None)
        depth = found.depth.values
        names = [f"θ = {angle:.2g}" for angle in found.angle.values]
        for name, look, k in zip(
            names, looks(names).values(), range(len(names)), strict=True
        ):
            value = depth * found.shortfall.isel(angle=k)
            ax.plot(depth, value, **look, label=name)
            line = found.attrs["coefficient"] * np.log(depth / depth[-1])
            drawing.theory_line(ax, depth, line + float(value[-1]), "theory, slope A")
        drawing.log_axis(ax.xaxis)
        ax.set_xlabel("depth L")
        ax.set_ylabel("L (1/3 − NTK)")
        drawing.legend(ax)
    return ax


FIGURES = {
    "matrices": Figure(
        of="matrices",
        draw=draw_matrices,
        title="NTK matrices of {points} points, and what they predict, by phase",
        caption="Plain networks of the error function at χ₁ = 0.81, 1 and 1.276, and "
        "ReLU. (a) Condition number, dashed (m+2)/2, (m+3)/3, and χ₁^(−L)/L up to a "
        "factor; (b) mean entry off the diagonal of the normalised matrix, dashed 1/3, "
        "1/4 and χ₁^(−L) up to a factor; (c) root mean square of predictions at new "
        "points over that of the centred labels.",
    ),
    "approach": Figure(
        of="approach",
        draw=draw_approach,
        title="What the NTK of the critical error function lacks to 1/3",
        caption="Times depth, at four angles between inputs, against depth; dashed the "
        "slope A that the second order of the recursion gives.",
    ),
}
