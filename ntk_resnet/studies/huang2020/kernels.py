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
"""Of the plain kernel, by depth: value and cosine."""

RIGHT_ANGLE = 0.16
"""The residual kernel at the cosine 0, read off the poster's figure, at all depths."""

COSINES = (-0.9, -0.5, 0.0, 0.3, 0.7, 0.95)
TABLE = {
    1: (-0.129210, -0.166667, 0.0, 0.179096, 0.522772, 0.853972),
    2: (-0.030099, -0.015420, 0.095989, 0.218526, 0.490046, 0.815474),
    5: (0.147590, 0.161934, 0.211250, 0.268931, 0.429027, 0.722367),
    10: (0.230253, 0.237753, 0.260784, 0.288835, 0.378931, 0.616828),
    50: (0.267508, 0.268807, 0.272645, 0.277471, 0.295113, 0.373480),
    200: (0.258100, 0.258413, 0.259335, 0.260496, 0.264775, 0.285042),
    2000: (0.251284, 0.251315, 0.251407, 0.251522, 0.251946, 0.253963),
}
"""The plain kernel by depth at `COSINES`, from the recursion in plain NumPy."""

_EPS = np.finfo(float).eps


def paper_kernels(*, cosines: int, progress: Progress = quiet) -> xr.Dataset:
    """The normalised NTK, `ntk`, over (family, depth, cosine), as in the paper.

    The cosines are those of equidistant angles, so that they are dense at both ends,
    where deep kernels bend. Over `shallow`, the depths of `MINIMA`: `minimum`, the
    least value of the plain kernel. Over (depth, `at`): `plain`, that kernel at
    `COSINES`.
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
    table = nr.sweep_depth(FAMILIES["plain"], DEPTHS, angles=np.arccos(COSINES)).ntk
    result["plain"] = ("depth", "at"), table.values
    return result.assign_coords(
        cosine=np.cos(theta), shallow=list(MINIMA), at=list(COSINES)
    )


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
        name="figure-minima",
        statement="plain: least values of the normalised NTK over the angle, at L = 1 "
        "and 2",
        source="minima of the curves on the authors' poster, to the digits of the "
        "recursion",
        known="derived",
        of="paper",
        measure=lambda found: exact(
            found.minimum, 1e-8, "spacing of 20,001 angles, and the rounding"
        ),
        predicted=[value for value, _ in MINIMA.values()],
        tolerance=1e-5,
        reason="digits of the prediction",
        figure="paper",
    ),
    Claim(
        name="figure-values",
        statement="plain, readout frozen: normalised NTK at the seven depths of the "
        "paper's figure and six cosines",
        source="the recursion in plain NumPy, in the convention of the authors' poster",
        known="derived",
        of="paper",
        measure=lambda found: exact(
            found.plain, 8 * _EPS * found.depth.values[:, None], "bound of the rounding"
        ),
        predicted=list(TABLE.values()),
        tolerance=1e-6,
        reason="digits of the prediction",
        figure="paper",
    ),
    Claim(
        name="figure-residual",
        statement="residual, α = 1/L: normalised NTK at a right angle is 0.16 at all "
        "depths to 2000",
        source="residual panel on the authors' poster, visually one curve",
        known="read",
        of="paper",
        measure=lambda found: exact(
            found.ntk.sel(family="γ = 1").sel(cosine=0, method="nearest"),
            8 * _EPS * found.depth.values,
            "bound of the rounding",
        ),
        predicted=RIGHT_ANGLE,
        tolerance=0.02,
        reason="as read off a figure: a fiftieth of its height",
        figure="paper",
    ),
    Claim(
        name="engines",
        statement="plain, and residual with γ = 1/2: largest difference between the "
        "closed form and neural-tangents, L ≤ 30",
        source="two computations of one kernel",
        known="derived",
        of="kernels",
        measure=lambda found: exact(
            found.deviation, _EPS, "rounding of the difference"
        ),
        predicted=1e-12,
        side="below",
        reason="both in float64: rounding of 30 layers",
        figure="ntk",
    ),
]


# -------------------------------------------------------------------------- figures


def draw_paper(found: xr.Dataset) -> np.ndarray:
    """The normalised NTK against the cosine, a panel for each family."""
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
        _draw_poster(*axes.flat)
        axes.flat[1].set_ylabel("")
        drawing.figure_legend(axes)
    return axes


def _draw_poster(plain, residual):
    """What is known of the poster's figure: two minima, and a value at u = 0."""
    look = {
        "marker": "D",
        "linestyle": "",
        "color": INK,
        "markersize": 4.5,
        "zorder": 4,
    }
    look |= {"markerfacecolor": PAPER, "markeredgewidth": 0.9}
    values, cosines = zip(*MINIMA.values(), strict=True)
    plain.plot(cosines, values, **look, label="authors' poster")
    residual.plot([0], [RIGHT_ANGLE], **look)


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
        caption="The figure of Huang et al. (2020), in their convention: the last "
        "layer is frozen, in residual networks the first one too. Normalised neural "
        "tangent kernel against the cosine u between two inputs, a curve for each "
        "depth; dashed the limit 1/4 of plain networks. Diamonds are what is known of "
        "the authors' own figure, on their poster: left the minima of the curves L = 1 "
        "and 2, right the value at u = 0, where all depths are visually one curve.",
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
