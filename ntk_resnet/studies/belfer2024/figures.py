"""Parity first, then decay, small angles and training."""

import numpy as np

from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.study import Figure


def draw_parity(found):
    """Eigenvalues by degree: even ones as lines, odd ones as points."""
    with drawing.style():
        ax = drawing.one_axes(None)
        degree = found.degree.values
        for name, look in looks(found.family.values).items():
            logs = found.log10_eigenvalue.sel(family=name).values
            even, odd = (degree > 0) & (degree % 2 == 0), degree % 2 == 1
            marker = look.pop("marker")
            ax.plot(degree[even], 10 ** logs[even], **look, label=f"{name}, even k")
            ax.plot(
                degree[odd],
                10 ** logs[odd],
                **look,
                linestyle="",
                marker=marker,
                markersize=3,
                label=f"{name}, odd k",
            )
        drawing.log_axes(ax)
        ax.yaxis.set_major_formatter("{x:.0e}")
        ax.set_xlabel("degree k")
        ax.set_ylabel("eigenvalue μₖ of the NTK, d = 3")
        drawing.legend(ax)
    return ax


def draw_decay(found):
    """Eigenvalues over the Laplace kernel's, even degrees."""
    with drawing.style():
        ax = drawing.one_axes(None)
        even = found.isel(degree=slice(2, None, 2))
        for name, look in looks(found.family.values).items():
            ratio = (
                even.log10_eigenvalue.sel(family=name) - even.laplace_log10_eigenvalue
            )
            ax.plot(even.degree, 10**ratio, **look | {"marker": ""}, label=name)
            drawing.end_label(ax, even.degree[-1], 10 ** float(ratio[-1]), name)
        drawing.log_axes(ax)
        ax.set_xlabel("even degree k")
        ax.set_ylabel("μₖ / that of exp(−|x − x′|), d = 3")
    return ax


def draw_small_angles(found):
    """The steepness of kernels at small angles against depth."""
    with drawing.style():
        ax = drawing.one_axes(None)
        for name, look in looks(found.family.values).items():
            one = found.sel(family=name)
            ax.plot(one.depth, one.steepness, **look | {"linestyle": ""}, label=name)
            ax.plot(one.depth, one.predicted, **drawing.THEORY)
        ax.plot([], [], **drawing.THEORY, label="theory")
        drawing.log_axes(ax)
        ax.set_xlabel("depth L")
        ax.set_ylabel("c = π (1 − NTK) / θ")
        drawing.legend(ax)
    return ax


def draw_descent(found):
    """Steps of gradient descent against the eigenvalue."""
    with drawing.style():
        ax = drawing.one_axes(None)
        (look,) = looks(["γ = 1"]).values()
        for parity, face in ((0, look["color"]), (1, drawing.PAPER)):
            one = found.isel(frequency=found.frequency.values % 2 == parity)
            word = ("even", "odd")[parity]
            own = look | {"linestyle": "", "markerfacecolor": face}
            ax.plot(one.frequency, one.steps, **own, label=f"k {word}")
        rate = found.attrs["rate"] * found.attrs["points"]
        predicted = np.log(20) / -np.log1p(-rate * found.eigenvalue)
        ax.plot(found.frequency, predicted, **drawing.THEORY, label="theory, ∝ 1/μₖ")
        ax.set_yscale("log")
        ax.set_xlabel("frequency k of the target cos(kθ)")
        ax.set_ylabel("steps to a twentieth of the error")
        drawing.legend(ax)
    return ax


FIGURES = {
    "parity": Figure(
        of="parity",
        draw=draw_parity,
        title="Eigenvalues of even and odd degree, residual networks of L = {depth}",
        caption="Eigenvalues of the normalised NTK on the sphere in three dimensions "
        "by degree k, for branches scaled by L^(−γ): lines even, points odd degrees.",
    ),
    "decay": Figure(
        of="decay",
        draw=draw_decay,
        title="Eigenvalues over those of the Laplace kernel",
        caption="Even degrees, in three dimensions. A kernel whose eigenvalues fall "
        "like those of the Laplace kernel, by the power −d, is a level line; in plain "
        "networks it levels beyond degrees of about the depth.",
    ),
    "small_angles": Figure(
        of="small_angles",
        draw=draw_small_angles,
        title="How steep kernels are at small angles, against depth",
        caption="The coefficient c of θ/π in 1 − NTK: points by the closed forms at "
        "θ = {theta:g}, dashed the formulas.",
    ),
    "descent": Figure(
        of="descent",
        draw=draw_descent,
        title="Steps of gradient descent to fit a frequency on the circle",
        caption="Kernel gradient descent with the NTK of a residual network of depth "
        "{depth}, α = 1/{depth}, on {points} uniform points: steps until a twentieth "
        "of the error is left, and what the eigenvalue predicts (dashed).",
    ),
}
