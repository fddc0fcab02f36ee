"""Learning curves and learnabilities, measured and predicted."""

from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.ledger import over_seeds
from ntk_resnet.studies.simon2023.claims import data_ratio, mixture, noise
from ntk_resnet.studies.study import Figure

# ----------------------------------------------------------------------------- figures


def _points(ax, x, low, middle, high, look, label):
    """Points with their intervals."""
    own = look | {"linestyle": "", "elinewidth": 0.8, "label": label}
    drawing.intervals(ax, x, (middle, low, high), **own)


def draw_curves(found):
    """Test errors, training errors and errors of noise against n."""
    panels = drawing.new_axes(1, 3, height=2.7)
    parts = {
        "test error": ("error", mixture),
        "training error": ("train_error", mixture),
        "test error, target of noise": ("error", noise),
    }
    with drawing.style():
        for ax, (title, (name, pick)) in zip(panels.flat, parts.items(), strict=True):
            for label, look in looks(found.network.values).items():
                one = found.sel(network=label)
                each = pick(one[name]).transpose("trial", "n").values
                mean, low, high, _ = over_seeds(each)
                _points(ax, one.n, low, mean, high, look, label)
                line = pick(one[f"predicted_{name}"])
                drawing.theory_line(ax, one.n, line.values, "theory")
            ax.set_title(title)
            ax.set_xlabel("examples n")
            drawing.width_axes(ax, found.n.values)
            if pick is noise:
                ax.set_yscale("linear")
        panels[0, 0].set_ylabel("error / variance of the target")
    drawing.figure_legend(panels)
    return panels


def draw_gaussian(found):
    """Errors with Gaussian features against n."""
    parts = {"test error": "error", "training error": "train_error"}
    with drawing.style():
        ax = drawing.one_axes(None)
        for (label, name), look in zip(
            parts.items(), looks(parts).values(), strict=True
        ):
            each = found[name].transpose("trial", "n").values
            mean, low, high, _ = over_seeds(each)
            _points(ax, found.n, low, mean, high, look, label)
            drawing.theory_line(ax, found.n, found[f"predicted_{name}"], "theory")
        drawing.log_axis(ax.yaxis)
        drawing.width_axes(ax, found.n.values)
        ax.set_xlabel("examples n")
        ax.set_ylabel("error")
        drawing.legend(ax)
    return ax


def draw_learnability(found):
    """The share of each degree that is learned, against n."""
    degrees = [k for k in found.degree.values if k > 0]
    panels = drawing.new_axes(1, len(degrees), height=2.4, sharey=True)
    with drawing.style():
        for ax, degree in zip(panels.flat, degrees, strict=True):
            for label, look in looks(found.network.values).items():
                one = found.sel(network=label, degree=degree)
                each = one.learnability.transpose("trial", "n").values
                mean, low, high, _ = over_seeds(each)
                _points(ax, one.n, low, mean, high, look, label)
                line = one.predicted_learnability.values
                drawing.theory_line(ax, one.n, line, "theory, μ/(μ + κ)")
            ax.set_title(f"degree {degree}")
            ax.set_xlabel("examples n")
            ax.set_xscale("log")
            ax.set_xticks(found.n.values, [f"{n}" for n in found.n.values])
            ax.set_xticks([], minor=True)
        panels[0, 0].set_ylabel("learnability")
    drawing.figure_legend(panels)
    return panels


def draw_conservation(found):
    """Learnability by mode, and its sum against n."""
    panels = drawing.new_axes(1, 2, height=2.6)
    left, right = panels.flat
    with drawing.style():
        one = found.sel(ridge=0.0)
        sizes = found.n.values
        for n, colour in zip(sizes, drawing.shades(len(sizes)), strict=True):
            mean = one.learnability.sel(n=n).mean("trial")
            left.plot(found.mode, mean, ".", color=colour, markersize=3)
            left.plot([], [], "o", color=colour, label=f"n = {n}")
            line = one.predicted.sel(n=n).values
            drawing.theory_line(left, found.mode, line, "theory")
        left.set_xlabel("mode, by its eigenvalue")
        left.set_ylabel("learnability")
        left.set_xscale("log")
        names = [f"ridge {r:g}" for r in found.ridge.values]
        for k, (name, look) in enumerate(looks(names).items()):
            each = found.isel(ridge=k).learnability.sum("mode")
            mean, low, high, _ = over_seeds(each.transpose("trial", "n").values)
            _points(right, found.n, low, mean, high, look, name)
            line = found.predicted_sum.isel(ridge=k).values
            drawing.theory_line(right, found.n, line, "theory")
        right.set_xlabel("examples n")
        right.set_ylabel("sum of learnabilities")
        for ax in panels.flat:
            drawing.legend(ax)
    return panels


def draw_data(found):
    """Test errors on the data, and their ratio to the prediction."""
    panels = drawing.new_axes(1, 2, height=2.6)
    left, right = panels.flat
    with drawing.style():
        for label, look in looks(found.network.values).items():
            one = found.sel(network=label)
            mean, wide = one.measured_test_mse, 2 * one.measured_test_mse_error
            _points(left, one.n, mean - wide, mean, mean + wide, look, label)
            drawing.theory_line(left, one.n, one.test_mse.values, "theory")
            ratio, low, high, _ = data_ratio(one)
            _points(right, one.n, low, ratio, high, look, label)
        right.axhline(1, **drawing.THEORY)
        drawing.band(right, found.n.values, 0.9, 1.1, drawing.INK, alpha=0.08)
        left.set_ylabel("test error")
        right.set_ylabel("measured over predicted")
        drawing.width_axes(left, found.n.values)
        right.set_xscale("log")
        right.set_xticks(found.n.values, [f"{n}" for n in found.n.values])
        right.set_xticks([], minor=True)
        for ax in panels.flat:
            ax.set_xlabel("examples n")
    drawing.figure_legend(panels)
    return panels


FIGURES = {
    "curves": Figure(
        of="sphere",
        draw=draw_curves,
        title="Learning curves of kernel regression on the sphere",
        caption="Regression with normalised NTKs on the sphere in {dim} dimensions, "
        "ridge 10^(−3): points with 95 % intervals over {trials} draws of the points "
        "and {functions} targets in each, dashed the prediction from the eigenvalues.",
    ),
    "learnability": Figure(
        of="sphere",
        draw=draw_learnability,
        title="The share of a function that is learned, by its degree",
        caption="The component of the prediction along the target, for spherical "
        "harmonics of degrees 1, 2 and 4; points and dashes as above.",
    ),
    "gaussian": Figure(
        of="gaussian",
        draw=draw_gaussian,
        title="Learning curves with Gaussian features",
        caption="{modes} independent features of eigenvalues i^(−2), target power "
        "i^(−3/2), noise of variance {noise:g}: points with 95 % intervals over "
        "{trials} trials, dashed the prediction.",
    ),
    "conservation": Figure(
        of="conservation",
        draw=draw_conservation,
        title="What is learned of the modes of a circle, and the sum over all modes",
        caption="Residual network of L = {depth}, γ = 1/2, trained on n of {points} "
        "points: learnability of all {points} modes without ridge (left), and its sum "
        "(right). Dashed: the prediction.",
    ),
    "data": Figure(
        of="on_data",
        draw=draw_data,
        title="Learning curves on {data}",
        caption="Test errors on the rows left out of {rows}, with two standard errors "
        "over {trials} trials, beside the prediction (left, dashed) and over it "
        "(right; within the band the claim holds).",
    ),
}
