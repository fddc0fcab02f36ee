"""The paper's figure: both kernels against the angle between inputs, by depth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet import plot
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.plot import drawing
from ntk_resnet.plot.drawing import INK, PAPER, THEORY
from ntk_resnet.plot.families import full_name
from ntk_resnet.studies.families import FAMILIES, stack
from ntk_resnet.studies.ledger import Claim, exact
from ntk_resnet.studies.study import Figure

DEPTHS = (1, 2, 5, 10, 50, 200, 2000)
"""Those of the paper's figure."""

PANELS = ("plain", "γ = 1")
SECOND = ("plain", "γ = 1/2")
"""The networks that neural-tangents computes too."""

MINIMA = {1: (-0.17860, -0.652), 2: (-0.03483, -0.787)}
"""Of the plain kernel: value and cosine, by depth, read off the paper's figure."""


def paper_kernels(*, cosines: int, progress: Progress = quiet) -> xr.Dataset:
    """The normalised NTK, `ntk`, over (family, depth, cosine), as in the paper.

    The cosines are those of equidistant angles, so that they are dense at both ends,
    where deep kernels bend. Over depth: `minimum`, the least value of the plain kernel.
    """
    theta = np.linspace(np.pi, 0, cosines)
    swept = []
    for done, name in enumerate(PANELS):
        report = part_of(progress, done, 1, len(PANELS), f"{name}, ")
        found = nr.sweep_depth(FAMILIES[name], DEPTHS, angles=theta, progress=report)
        swept.append(found[["ntk"]].drop_vars("angle"))
    result = stack(swept, PANELS).rename(angle="cosine")
    fine = np.linspace(0, np.pi, 20_001)
    shallow = nr.sweep_depth(FAMILIES["plain"], list(MINIMA), angles=fine).ntk
    result["minimum"] = "shallow", shallow.values.min(axis=1)
    return result.assign_coords(cosine=np.cos(theta), shallow=list(MINIMA))


def kernels_by_angle(
    *, depths: Sequence[int], angles: int, progress: Progress = quiet
) -> xr.Dataset:
    """Both normalised kernels over (family, depth, angle), and neural-tangents' beside.

    The second engine computes the networks `SECOND` at a few depths (`layers`) and
    angles (`marker`), away from 0 and pi, where its arccos keeps half the digits;
    `deviation` is its largest difference from the closed form.
    """
    theta = np.linspace(0, np.pi, angles)
    swept = []
    pieces = len(FAMILIES) + 2
    for done, (name, spec) in enumerate(FAMILIES.items()):
        report = part_of(progress, done, 1, pieces, f"{name}, ")
        swept.append(nr.sweep_depth(spec, depths, angles=theta, progress=report))
    result = stack(swept, FAMILIES)
    progress(len(FAMILIES), pieces, "neural-tangents")
    return result.merge(_second_engine(), combine_attrs="drop_conflicts")


def _second_engine() -> xr.Dataset:
    markers, layers = np.linspace(0, np.pi, 13)[1:-1], (1, 10, 30)
    angles = np.concatenate([[0.0], markers])
    x = np.column_stack([np.cos(angles), np.sin(angles)])
    dims = ("engine", "network", "layers", "marker")
    shape = (2, len(SECOND), len(layers), len(markers))
    values = {"nngp": np.empty(shape), "ntk": np.empty(shape)}
    engines: tuple[Any, ...] = ("neural_tangents", "recursion")
    for i, engine in enumerate(engines):
        for j, name in enumerate(SECOND):
            for k, depth in enumerate(layers):
                kernel = nr.kernel_fn(
                    FAMILIES[name].replace(depth=depth), engine=engine, normalised=False
                )
                # All pairs: neural-tangents is exact on the diagonal of one array only.
                for which, raw in kernel(x, get=tuple(values))._asdict().items():
                    size = np.sqrt(np.diagonal(raw))
                    values[which][i, j, k] = (np.asarray(raw) / size / size[0])[0, 1:]
    worst = [np.max(np.abs(v[0] - v[1]), axis=(1, 2)) for v in values.values()]
    return xr.Dataset(
        {f"{name}_neural_tangents": (dims[1:], v[0]) for name, v in values.items()}
        | {"deviation": ("network", np.max(worst, axis=0))},
        coords={"network": list(SECOND), "layers": list(layers), "marker": markers},
    )


# --------------------------------------------------------------------------- claims


CLAIMS = [
    Claim(
        name="figure",
        statement="plain: the kernel's least value at depths 1 and 2",
        source="the figure of both kernels on the authors' poster",
        known="read",
        of="paper",
        measure=lambda found: exact(found.minimum, 1e-8),
        predicted=[value for value, _ in MINIMA.values()],
        tolerance=1e-5,
        reason="digits of the prediction",
        figure="paper",
    ),
    Claim(
        name="figure",
        statement="residual, α = 1/L: the kernel at a right angle, at all depths to "
        "2000, visually one curve: 1/(2π)",
        source="the figure of both kernels on the authors' poster",
        known="read",
        of="paper",
        measure=lambda found: exact(
            found.ntk.sel(family="γ = 1").sel(cosine=0, method="nearest"), 1e-12
        ),
        predicted=1 / (2 * np.pi),
        tolerance=0.02,
        reason="what an eye sees in a figure: a fiftieth of its height",
        figure="paper",
    ),
    Claim(
        name="engines",
        statement="closed form and neural-tangents: largest difference, depth ≤ 30",
        source="two computations of one kernel",
        known="derived",
        of="kernels",
        measure=lambda found: exact(found.deviation, 0.0, "none"),
        predicted=1e-12,
        side="below",
        reason="both in float64: rounding of 30 layers",
        figure="ntk",
    ),
]


# -------------------------------------------------------------------------- figures


def draw_paper(found: xr.Dataset) -> np.ndarray:
    """The normalised NTK against the cosine: a panel a family, a curve a depth."""
    with drawing.style():
        axes = drawing.new_axes(1, 2, height=2.6, sharey=True)
        by_angle = found.assign_coords(cosine=np.arccos(found.cosine))
        by_angle = by_angle.rename(cosine="angle")
        for ax, family in zip(axes.flat, found.family.values, strict=True):
            one = by_angle.sel(family=family)
            plot.kernels(one, over="cosine", ax=ax, legend=False)
            ax.axhline(0.25, **THEORY, label="theory, plain: 1/4")
            ax.set_title(full_name(str(family)), loc="left", fontweight="bold")
            ax.set_ylim(-0.25, 1.05)
        axes.flat[1].set_ylabel("")
        drawing.figure_legend(axes)
    return axes


def draw_kernels(get: str):
    """One normalised kernel against the angle: a panel a family, a curve a depth.

    Rings are neural-tangents' values, where it has the kernel. The axes are `(2, 3)`;
    the last one holds the legend.
    """

    def draw(found: xr.Dataset) -> np.ndarray:
        with drawing.style():
            axes = drawing.new_axes(2, 3, height=2.2, sharex=True, sharey=True)
            for ax, family in zip(axes.flat, found.family.values, strict=False):
                plot.kernels(found.sel(family=family), get, ax=ax, legend=False)
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

    return draw


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


_RINGS = " Rings by neural-tangents, lines by the closed form."

FIGURES = {
    "paper": Figure(
        of="paper",
        draw=draw_paper,
        title="The NTK against the cosine between inputs, by depth",
        caption="The figure of Huang et al. (2020), in their convention: all weights "
        "are trained but the first ones of a residual network and the last of any. "
        "Normalised neural tangent kernel against the cosine u between two inputs, a "
        "curve a depth; dashed the limit 1/4 of plain networks.",
    ),
    "ntk": Figure(
        of="kernels",
        draw=draw_kernels("ntk"),
        title="The NTK against the angle between inputs, by depth and family",
        caption="Normalised neural tangent kernel, with branches scaled by L^(−γ) or α."
        + _RINGS,
    ),
    "nngp": Figure(
        of="kernels",
        draw=draw_kernels("nngp"),
        title="The NNGP kernel against the angle between inputs, by depth and family",
        caption="Normalised NNGP kernel: the cosine between the features of two inputs."
        + _RINGS,
    ),
}
