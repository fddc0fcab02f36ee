"""The figures of the depth study: those of `ntk_resnet.plot` and its own.

Each takes a part of the study, over `family` where it compares networks, and returns
its axes as an array.
"""

from typing import Any

import numpy as np
import xarray as xr

from ntk_resnet.plot import depth, drawing, finite, spectra
from ntk_resnet.plot.drawing import INK, PAPER, THEORY
from ntk_resnet.plot.families import by_family, full_name, looks

# ----------------------------------------------------------- kernels by angle or cosine


def paper(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """The normalised NTK against the cosine: a panel a family, a curve a depth.

    The figure of Huang et al. 2020: plain networks with a frozen readout, and residual
    ones with branches scaled by 1/L. The axes are `(1, 2)`.
    """
    with drawing.style():
        axes = drawing.given(axes, 1, 2, height=2.6, sharey=True)
        by_angle = found.assign_coords(cosine=np.arccos(found.cosine))
        by_angle = by_angle.rename(cosine="angle")
        for ax, family in zip(axes.flat, found.family.values, strict=True):
            one = by_angle.sel(family=family)
            depth.kernels(one, over="cosine", ax=ax, legend=False)
            ax.axhline(0.25, **THEORY, label="theory, plain: 1/4")
            ax.set_title(full_name(str(family)), loc="left", fontweight="bold")
            ax.set_ylim(-0.25, 1.05)
        axes.flat[1].set_ylabel("")
        drawing.figure_legend(axes)
    return axes


def kernels(found: xr.Dataset, get: str = "ntk", *, axes: Any = None) -> np.ndarray:
    """One normalised kernel against the angle: a panel a family, a curve a depth.

    Rings are neural-tangents' values, where it has the kernel. The axes are `(2, 3)`;
    the last one holds the legend.
    """
    with drawing.style():
        axes = drawing.given(axes, 2, 3, height=2.2, sharex=True, sharey=True)
        for ax, family in zip(axes.flat, found.family.values, strict=False):
            depth.kernels(found.sel(family=family), get, ax=ax, legend=False)
            ax.set_title(full_name(str(family)), loc="left", fontweight="bold")
            if get == "ntk":
                ax.axhline(0.25, **THEORY, label="theory, plain: 1/4")
            _draw_second_engine(ax, found, str(family), get)
            ax.tick_params(labelbottom=True)
            ax.set_ylim(-0.25 if get == "ntk" else -1.05, 1.05)
            ax.set_xlabel("")
        for ax in axes[:, 1:].flat:
            ax.set_ylabel("")
        figure = drawing.figure_of(axes)
        figure.supxlabel("angle θ between inputs (rad)", fontsize=8.5)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        axes.flat[-1].set_axis_off()
        axes.flat[-1].legend(handles, labels, loc="center left")
    return axes


def _draw_second_engine(ax, found, family, get):
    """neural-tangents' values as rings on the closed form, where it has the kernel."""
    if family not in found.get("network", ()):
        return
    rings = found[f"{get}_neural_tangents"].sel(network=family)
    colours = dict(
        zip(found.depth.values, drawing.shades(found.sizes["depth"]), strict=True)
    )
    look = {"marker": "o", "linestyle": "", "markersize": 3.6}
    look |= {"markerfacecolor": PAPER, "markeredgewidth": 0.9}
    for layer in rings.layers.values:
        if layer in colours:
            values = rings.sel(layers=layer).values
            colour = colours[layer]
            ax.plot(rings.marker, values, color=colour, clip_on=False, zorder=4, **look)
    ax.plot([], [], color=INK, label="neural-tangents", **look)


# ------------------------------------------------------------------ quantities by depth


def degeneracy(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Four measures of a Gram matrix against depth, with the predicted asymptotes.

    Distance to the constant kernel 1/4, gap of the NNGP kernel, condition number and
    effective rank, all but the last on logarithmic axes. The axes are `(2, 2)`.
    """
    names = ("distance", "nngp_gap", "condition_number", "effective_rank")
    with drawing.style():
        axes = drawing.given(axes, 2, 2, height=2.5)
        for ax, name in zip(axes.flat, names, strict=True):
            depth.degeneracy(found, name, ax=ax, legend=False)
        drawing.figure_legend(axes)
    return axes


def regression(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Test error and accuracy of kernel ridge regression against depth.

    Points are means over splits, bands their 95 % intervals. For real targets the
    second panel shows R^2. The axes are `(1, 2)`.
    """
    classes = int(found.attrs["classes"])
    with drawing.style():
        axes = drawing.given(axes, 1, 2, height=2.9)
        error, second = axes.flat
        for name, ax in (("mse", error), ("accuracy" if classes else "r2", second)):
            draw_intervals(ax, found, name)
            ax.set_ylim(0, 1.08)
        error.axhline(1, **THEORY)
        error.set_ylabel("test MSE / variance of the targets")
        drawing.note(error, 0.02, 1, "chance: the best constant")
        second.set_ylabel("test accuracy" if classes else "test R²")
        if classes:
            second.axhline(1 / classes, **THEORY)
            drawing.note(second, 0.02, 1 / classes, "chance")
        drawing.figure_legend(axes)
    return axes


def draw_intervals(ax, found: xr.Dataset, name: str) -> None:
    """Means of a measure over splits by depth, with their 95 % intervals."""
    needs = ("depth", *(f"{name}_{what}" for what in ("mean", "low", "high")))
    families = by_family(found, needs, "the depth study")
    for label, look in looks(families).items():
        one, at = families[label], families[label].depth.values
        ax.plot(at, one[f"{name}_mean"].values, **look, label=label)
        low, high = one[f"{name}_low"].values, one[f"{name}_high"].values
        drawing.band(ax, at, low, high, look["color"])
    drawing.log_axis(ax.xaxis)
    ax.set_xlabel("depth L")


def rates(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Distances of the NTK to its limits: to 1/4, and to that of one block.

    Left the excess of the plain NTK over 1/4, times L, against depth, beside slopes of
    3/8; right the distance of residual kernels to that of one block, beside
    `L^(1-2 gamma)`. The axes are `(1, 2)`.
    """
    with drawing.style():
        axes = drawing.given(axes, 1, 2, height=2.8)
        left, right = axes.flat
        _draw_excess(left, found)
        at = found.block_depth.values
        names = [f"γ = {gamma:g}" for gamma in found.exponent.values]
        for gamma, look in zip(
            found.exponent.values, looks(names).values(), strict=True
        ):
            distance = found.shallow_distance.sel(exponent=gamma).values
            right.plot(at, distance, **look)
            predicted = distance[-1] * (at / at[-1]) ** (1 - 2 * gamma)
            right.plot(at, predicted, **THEORY)
            drawing.end_label(right, at[-1], distance[-1], f"γ = {gamma:g}")
        right.plot([], [], **THEORY, label=r"theory: $L^{1-2\gamma}$")
        right.legend(loc="lower left")
        right.set_yscale("log")
        right.set_ylabel("largest |NTK − NTK of one block|")
        for ax in (left, right):
            drawing.log_axis(ax.xaxis)
            ax.set_xlabel("depth L")
    return axes


def _draw_excess(ax, found):
    at = found.plain_depth.values
    frozen = found.plain_ntk.sel(trained="blocks").values
    excess = at[:, None] * (frozen - 0.25)
    shades = drawing.shades(found.sizes["cosine"])
    heights = drawing.apart(excess[-1], 0.055 * (excess.max() - excess.min()))
    for k, cosine in enumerate(found.cosine.values):
        ax.plot(at, excess[:, k], color=shades[k])
        slope = excess[-1, k] + 0.375 * np.log(at / at[-1])
        ax.plot(at, slope, **THEORY)
        text = f"u = {cosine:g}" if k == len(shades) - 1 else f"{cosine:g}"
        drawing.end_label(ax, at[-1], heights[k], text.replace("-", "−"))
    ax.plot([], [], **THEORY, label="theory: slope 3/8 in ln L")
    ax.legend(loc="upper left")
    ax.set_ylabel("L (NTK − 1/4), plain, at cosines u")


# ------------------------------------------------------------------------------ spectra


def spectrum(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Leading eigenvalues, what they hold of the target, and the distribution of all.

    Eigenvalues are over the number of rows. The axes are `(1, 3)`.
    """
    relative = found.assign(eigenvalue=found.eigenvalue / found.attrs["rows"])
    captured = found.rename(captured="cumulative_alignment")
    with drawing.style():
        axes = drawing.given(axes, 1, 3, height=2.7)
        first, second, third = axes.flat
        spectra.spectrum(relative, ax=first, legend=False)
        first.set_ylabel("eigenvalue λᵢ / n")
        spectra.spectrum(captured, "alignment", ax=second, legend=False)
        spectra.spectral_distribution(found, ax=third, legend=False)
        third.set_xlabel("eigenvalue λ / n")
        drawing.figure_legend(first)
    return axes


def mercer(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Eigenvalues on the sphere by degree, and over those of the Laplace kernel.

    The axes are `(1, 2)`.
    """
    laplace = found[["laplace_log10_eigenvalue"]]
    laplace = laplace.rename(laplace_log10_eigenvalue="log10_eigenvalue")
    with drawing.style():
        axes = drawing.given(axes, 1, 2, height=3.0)
        left, right = axes.flat
        spectra.mercer(found, ax=left, legend=False)
        spectra.mercer(found, relative_to=laplace, ax=right, legend=False)
        left.set_ylabel(f"log₁₀ μₖ, eigenvalue μₖ of the {found.attrs['get'].upper()}")
        right.set_ylabel("log₁₀ (μₖ / that of the Laplace kernel)")
        drawing.figure_legend(axes)
    return axes


def ridge(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Test and leave-one-out error against the ridge; `(1, 1)`."""
    with drawing.style():
        axes = drawing.given(axes, 1, 1, height=2.9)
        ax, at = axes[0, 0], found.ridge.values
        (look,) = looks(["γ = 1/2"]).values()
        ax.plot(at, found.test_error.values, **look, label="test rows")
        hollow = look | {"markerfacecolor": PAPER, "linestyle": ":"}
        ax.plot(at, found.loo_error.values, **hollow, label="leave-one-out")
        ax.set_xscale("log" if (at > 0).all() else "symlog")
        ax.set_xlabel("ridge λ, relative to the mean diagonal")
        classify = bool(found.attrs["classes"])
        ax.set_ylabel(
            "share misclassified" if classify else "error / variance of targets"
        )
        ax.set_ylim(bottom=0)
        drawing.legend(ax)
    return axes


# ---------------------------------------------------------------------- finite networks


def width_and_dispersion(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Error against width, and beside it dispersion against depth over width.

    Of `width_study`, merged with what `dispersion_of_families` returns. The axes are
    `(1, 2)`.
    """
    axes = drawing.given(axes, 1, 2, height=2.9)
    finite.width(found.drop_dims("family"), ax=axes[0, 0])
    finite.dispersion(found.drop_dims("seed"), ax=axes[0, 1])
    return axes


def training(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Outputs, loss, kernel drift while training, and errors by width; `(2, 2)`."""
    axes = drawing.given(axes, 2, 2, height=2.7)
    panels = ("outputs", "loss", "ntk_drift", "errors")
    for ax, quantity in zip(axes.flat, panels, strict=True):
        finite.training(found, quantity, ax=ax)
    return axes


def agreement(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Mean empirical kernels of finite networks less the closed form, entry by entry.

    Of `deviation`, in standard errors, over `network`, `kernel` and `entry`: the NTK
    filled, the NNGP kernel hollow. The axes are `(1, 1)`.
    """
    with drawing.style():
        axes = drawing.given(axes, 1, 1, height=2.4)
        ax, names = axes[0, 0], [str(name) for name in found.network.values]
        for place, (name, look) in enumerate(looks(names).items()):
            for kernel, side in (("nngp", -0.12), ("ntk", 0.12)):
                values = found.deviation.sel(network=name, kernel=kernel).values
                beside = place + side + np.linspace(-0.09, 0.09, len(values))
                own = look | {"linestyle": ""}
                own |= {"markerfacecolor": PAPER} if kernel == "nngp" else {}
                label = kernel.upper() if place == 0 else ""
                ax.plot(beside, values, **own, label=label)
        ax.axhspan(-3, 3, color=INK, alpha=0.06, linewidth=0)
        ax.axhline(0, **THEORY, label="theory, closed form")
        ax.set_xlim(-0.6, len(names) - 0.4)
        ax.set_xticks(range(len(names)), names)
        ax.set_ylim(-4.5, 4.5)
        ax.set_xlabel("network")
        ax.set_ylabel("(mean − closed form) / s.e.")
        drawing.legend(ax)
    return axes
