"""Condition numbers, losses and plateaus by length of the shortcuts."""

import numpy as np

from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.ledger import over_seeds
from ntk_resnet.studies.study import Figure


def draw_at_zero(found):
    """Condition numbers at zero weights against the number of units."""
    with drawing.style():
        ax = drawing.one_axes(None)
        look = looks(["shortcuts of 2", "shortcuts of 1"])
        units = found.units.values
        ax.plot(units, found.condition_number, **look["shortcuts of 2"],
                label="shortcuts of 2")  # fmt: skip
        ax.plot(units, found.single, **look["shortcuts of 1"], label="shortcuts of 1")
        known = np.full(len(units), float(found.predicted_condition_number))
        drawing.theory_line(ax, units, known, "theory, s_max/s_min")
        drawing.theory_line(ax, units, found.single_bound, "theory, lower bound")
        drawing.log_axis(ax.xaxis)
        drawing.log_axis(ax.yaxis, steps=(1, 2, 5))
        ax.set_xticks(units, [f"{n}" for n in units])
        ax.set_xlabel("units R")
        ax.set_ylabel("condition number of the Hessian")
        drawing.legend(ax)
    return ax


def draw_training(found):
    """Loss after training, and the best rate, against depth."""
    axes = drawing.new_axes(1, 2, height=2.8)
    names = {"loss": "loss / that of zero weights", "rate": "best rate"}
    with drawing.style():
        for ax, (name, label) in zip(axes.flat, names.items(), strict=True):
            for setup, look in looks(found.setup.values).items():
                values = found[name].sel(setup=setup).transpose("seed", "depth").values
                if name == "loss":  # beyond what is drawn: diverged at every rate
                    values = np.minimum(values, 30)
                drawing.intervals(
                    ax, found.depth, over_seeds(values, 0), **look, label=setup
                )
            drawing.log_axes(ax)
            ax.set_xlabel("units, or layers, R")
            ax.set_ylabel(label)
        axes[0, 0].set_ylim(0.05, 10)
        drawing.figure_legend(axes)
    return axes


def draw_plateaus(found):
    """Time on the plateau against the size of initial weights."""
    with drawing.style():
        ax = drawing.one_axes(None)
        names = [f"shortcuts of {n}" for n in found.length.values]
        for (name, look), n in zip(
            looks(names).items(), found.length.values, strict=True
        ):
            time = found.time.sel(length=n).transpose("seed", "scale").values
            drawing.intervals(ax, found.scale, over_seeds(time, 0), **look, label=name)
        scale = found.scale.values
        three = found.time.sel(length=3).mean("seed").values
        two = found.time.sel(length=2).mean("seed").values
        line = two[-1] + np.log(scale[-1] / scale) / found.attrs["s"]
        drawing.theory_line(ax, scale, three[-1] * scale[-1] / scale, "theory, ∝ 1/σ₀")
        drawing.theory_line(ax, scale, line, "theory, ln(1/σ₀)/s")
        for axis in (ax.xaxis, ax.yaxis):
            drawing.log_axis(axis, steps=(1, 2, 5))
        ax.set_xlabel("size of initial weights σ₀")
        ax.set_ylabel("time to half the loss")
        drawing.legend(ax)
    return ax


def draw_along(found):
    """The most negative eigenvalue, and the loss, while training."""
    axes = drawing.new_axes(1, 2)
    names = {
        "negative": r"$-\lambda_{\min}\,/\,\lambda_{\max}$ of the Hessian",
        "loss": "loss",
    }
    with drawing.style():
        for ax, (name, label) in zip(axes.flat, names.items(), strict=True):
            labels = [f"shortcuts of {n}" for n in found.length.values]
            for n, (text, look) in zip(
                found.length.values, looks(labels).items(), strict=True
            ):
                ax.plot(found.step, found[name].sel(length=n), **look, label=text)
            ax.set_xlabel("step")
            ax.set_ylabel(label)
        drawing.figure_legend(axes)
    return axes


FIGURES = {
    "at_zero": Figure(
        of="at_zero",
        draw=draw_at_zero,
        title="Condition number of the Hessian at zero weights, against depth",
        caption="Linear units in {d} dimensions with shortcuts of two matrices and of "
        "one, in float64; dashed what the expansion of the product gives. The Hessian "
        "for longer shortcuts is zero.",
    ),
    "training": Figure(
        of="trainability",
        draw=draw_training,
        title="Loss after {steps} steps at the best rate, and that rate, against depth",
        caption="Linear networks in {d} dimensions, gradient descent; means over seeds "
        "with 95 % intervals, at ten or more where all rates diverge.",
    ),
    "plateaus": Figure(
        of="plateaus",
        draw=draw_plateaus,
        title="Time on the initial plateau against the size of initial weights",
        caption="{units} units, gradient descent of small steps, means over seeds with "
        "95 % intervals; dashed the laws of the small-weight expansion, through the "
        "largest size.",
    ),
    "along": Figure(
        of="along",
        draw=draw_along,
        title="The Hessian while a network of {units} units trains",
        caption="Linear networks in {d} dimensions from small initial weights.",
    ),
}
