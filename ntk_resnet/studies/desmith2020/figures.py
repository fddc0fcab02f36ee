"""Moments by block, and losses by depth."""

import numpy as np

from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.ledger import over_seeds
from ntk_resnet.studies.study import Figure


def draw_normalised(found):
    """Second moment, variance and means of the skip path, and of the branch."""
    axes = drawing.new_axes(1, 2)
    names = {
        "second_moment": "second moment",
        "variance": "variance over the batch",
        "square_of_means": "square of the means",
        "branch_second_moment": "branch",
    }
    slopes = {
        "linear": (1, 1, 0, None),
        "ReLU": (1, 1 - 1 / np.pi, 1 / np.pi, None),
    }
    block = found.block.values
    with drawing.style():
        for ax, activation in zip(axes.flat, found.activation.values, strict=True):
            one = found.sel(activation=activation)
            for (name, label), look, slope in zip(
                names.items(), looks(names.values()).values(), slopes[activation],
                strict=True,
            ):  # fmt: skip
                ax.plot(block, one[name].mean("seed"), **look, markevery=0.15,
                        label=label)  # fmt: skip
                known = np.ones(len(block)) if slope is None else slope * (block + 1.0)
                if slope != 0:
                    drawing.theory_line(ax, block, known, "theory")
            ax.set_title(f"{activation} blocks")
            ax.set_xlabel("block l")
        axes[0, 0].set_ylabel("moments of the signal")
        drawing.figure_legend(axes)
    return axes


def draw_plain(found):
    """The second moment, and that of derivatives, without normalisation."""
    axes = drawing.new_axes(1, 2)
    names = {"growth": "second moment / input's", "gradient": "of derivatives / last"}
    with drawing.style():
        for ax, (name, label) in zip(axes.flat, names.items(), strict=True):
            for kind, look in looks(found.kind.values).items():
                mean = found[name].sel(kind=kind).mean("seed").dropna("block")
                ax.plot(mean.block, mean, **look, markevery=0.15, label=kind)
            block = np.arange(1, found.attrs["doubling"] + 1)
            power = block if name == "growth" else found.attrs["doubling"] - block
            drawing.theory_line(ax, block, 2.0**power, "theory, 2ˡ")
            ax.set_yscale("log")
            ax.set_xlabel("block l")
            ax.set_ylabel(label)
        drawing.figure_legend(axes)
    return axes


def draw_training(found):
    """The loss at the best rate, against depth."""
    with drawing.style():
        ax = drawing.one_axes(None)
        for kind, look in looks(found.kind.values).items():
            best = found.loss.sel(kind=kind).min("rate").transpose("seed", "depth")
            around = over_seeds(np.minimum(best.values, 3), 0)
            drawing.intervals(ax, found.depth, around, **look, label=kind)
        drawing.theory_line(
            ax, found.depth, np.full(found.depth.size, 0.5), "half of the loss"
        )
        ax.set_xscale("log", base=2)
        ax.set_xticks(found.depth.values, [f"{d}" for d in found.depth.values])
        ax.set_xlabel("depth d")
        ax.set_ylabel("loss / that before training")
        drawing.legend(ax)
    return ax


FIGURES = {
    "normalised": Figure(
        of="normalised",
        draw=draw_normalised,
        title="Moments by block with batch normalisation, at initialisation",
        caption="Networks of {depth} blocks of width {width} on as many normal inputs, "
        "means over seeds; dashed the law of the paper: the skip path gains one a "
        "block, the branch stays at one.",
    ),
    "plain": Figure(
        of="plain",
        draw=draw_plain,
        title="Moments by block without normalisation, at initialisation",
        caption="Means over finite networks of width {width}, forwards and backwards; "
        "SkipInit with scales 1/√d.",
    ),
    "training": Figure(
        of="training",
        draw=draw_training,
        title="Loss after {steps} steps at the best rate, against depth",
        caption="Classifiers of {data}, width {width}, stochastic gradient descent "
        "with momentum; means over seeds with 95 % intervals, at three where all "
        "diverge.",
    ),
}
