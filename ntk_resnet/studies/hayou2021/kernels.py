"""Correlations and kernels: what is left of them in deep networks."""

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.hayou2021.schemes import EPS, SCHEMES, rounded, squares_of
from ntk_resnet.studies.ledger import (
    BOTH_HALVES,
    Claim,
    curve_slope,
    exact,
    fitted,
    slope_variables,
)
from ntk_resnet.studies.limits import features
from ntk_resnet.studies.spheres import on_sphere
from ntk_resnet.studies.study import Figure, Measurement

UNIFORM, STANDARD = SCHEMES["γ = 1/2"], SCHEMES["α = 1"]


# -------------------------------------------------------------------- correlations


STRONG = {"α = 1": 1.0, "α = 1/2": 0.5}


def correlations(
    *,
    cosines: list[float],
    first: int,
    last: int,
    count: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """How far features of two inputs stay apart.

    Over (`family`, `depth`, `cosine`): `gap`, one minus the cosine of the features;
    over (`strong`, `cosine`) the `exponent` by which it falls from depth `first` to
    `last`, from `exponent_low` to `exponent_high` on halves of it, and `constant`, the
    gap at `last` over 9 pi^2 / (2 a^2 L^2), a = alpha^2 / (1 + alpha^2). Over `cosine`:
    `flow`, the gap that the differential equation of the uniform scheme leads to.
    """
    angles = np.arccos(cosines)
    far = np.geomspace(first, last, count).round().astype(int)
    depths = sorted({1, 3, 10, 30, 100, 300, 1000, 3000, *far.tolist()})
    scales = {name: nr.ConstantScale(alpha) for name, alpha in STRONG.items()}
    scales["decreasing"] = SCHEMES["decreasing"]
    gaps = []
    for done, scale in enumerate(scales.values()):
        progress(done, len(scales) + 1, f"correlations to depth {last}")
        spec = nr.ResNet(depth=1, branch_scale=scale, block="preactivation")
        found = nr.sweep_depth(spec, depths, angles=angles)
        gaps.append(found.nngp_gap.values)
    uniform = [
        nr.profile(
            nr.ResNet(depth=d, branch_scale=UNIFORM, block="preactivation")
        ).nngp_gap(angles)
        for d in depths
    ]
    gaps.append(np.array(uniform))
    late = [depths.index(d) for d in far]
    fits, constants = [], []
    for alpha, gap in zip(STRONG.values(), gaps, strict=False):
        fits.append([curve_slope(far, one) for one in gap[late].T])
        share = alpha**2 / (1 + alpha**2)
        constants.append(gap[-1] * 2 * share**2 * last**2 / (9 * np.pi**2))
    over = ("strong", "cosine")
    return xr.Dataset(
        {
            "gap": (("family", "depth", "cosine"), np.array(gaps)),
            **slope_variables("exponent", fits, over),
            "constant": (over, np.array(constants)),
            "flow": ("cosine", 1 - features("pre-activation", [1.0], angles)[0]),
        },
        coords={
            "family": [*scales, "γ = 1/2"],
            "strong": list(STRONG),
            "depth": depths,
            "cosine": cosines,
        },
        attrs={"first": first, "last": last},
    )


def _uniform_over_flow(found):
    gap = found.gap.sel(family="γ = 1/2").isel(depth=-1)
    # The equation is solved to about 1e-12, of a gap that is 0.05 or more.
    ratio = gap / found.flow
    return exact(ratio, 1e-10, "bound of the integration")


def _constant(found):
    """Each of the blocks rounds the gap."""
    return rounded(found.constant, 4 * EPS * found.attrs["last"])


# -------------------------------------------------------------- smallest eigenvalues


NOTED = {100: 0.09810, 1000: 0.09886, 4000: 0.09892}


def smallest(
    *, points: int, draws: int, depths: list[int], progress: Progress = quiet
) -> xr.Dataset:
    """The smallest eigenvalue of Gram matrices of random points on the sphere in R^5.

    Over (`draw`, `depth`): `uniform`, of the normalised NTK with scales 1/sqrt(L) and
    two-layer blocks, `standard`, of the normalised NNGP kernel with scales 1. Over
    `depth`: `rounding`, a bound of that of the former, and `predicted`, the gap that
    the correlations of the latter tend to.
    """
    uniform, standard = [], []
    for seed in range(draws):
        x = on_sphere(np.random.default_rng(seed), points, 5)
        grams = [nr.gram(nr.ResNet(depth=d, branch_scale=UNIFORM), x) for d in depths]
        uniform.append([np.linalg.eigvalsh(gram)[0] for gram in grams])
        spec = nr.ResNet(depth=1, branch_scale=STANDARD, block="preactivation")
        gaps = nr.sweep_depth(spec, depths, x=x).nngp_gap.values
        standard.append([np.linalg.eigvalsh(1 - gap)[0] for gap in gaps])
        progress(seed + 1, draws, "draws of points")
    over = ("draw", "depth")
    return xr.Dataset(
        {
            "uniform": (over, np.array(uniform)),
            "standard": (over, np.array(standard)),
            # Of the entries, after so many blocks, and of the eigenvalues.
            "rounding": ("depth", points * (points + np.array(depths)) * EPS),
            "predicted": (
                "depth",
                9 * np.pi**2 / (2 * 0.25 * np.square(depths, dtype=float)),
            ),
        },
        coords={"draw": np.arange(draws), "depth": depths},
        attrs={"points": points, "deepest": depths[-1], "draws": draws},
    )


EACH = ", each draw of points"


def _change(found):
    """From depth 1000 to ten times that."""
    one, far = (found.sel(depth=depth) for depth in (1000, 10_000))
    error = (one.rounding + far.rounding) / one.uniform
    return rounded(far.uniform / one.uniform - 1, error, EACH)


def _positive(found):
    last = found.isel(depth=-1)
    return rounded(last.uniform, last.rounding, EACH)


def _standard_over_predicted(found):
    last = found.isel(depth=-1)
    # Entries are near 1, so that their own rounding is all there is.
    error = found.attrs["points"] ** 2 * EPS / last.predicted
    return rounded(last.standard / last.predicted, error, EACH)


def _noted_values(found):
    one = found.sel(draw=0, depth=list(NOTED))
    return rounded(one.uniform, one.rounding)


# -------------------------------------------------------------- the decreasing scheme


NOTED_AT = -0.5
SLOW = {100: (0.0448, 3.17), 1000: (0.0450, 3.24), 10_000: (0.0449, 3.28)}


def decreasing(
    *, cosines: list[float], depths: list[int], progress: Progress = quiet
) -> xr.Dataset:
    """How slowly the NTK of the decreasing scheme converges, two-layer blocks.

    Over (`depth`, `cosine`): `step`, ln(L)^2 times the change of the normalised NTK
    from depth L to 2L; over `depth` the `square_sum` of the scales.
    """
    both = sorted({*depths, *(2 * depth for depth in depths)})
    spec = nr.ResNet(depth=1, branch_scale=SCHEMES["decreasing"])
    ntk = nr.sweep_depth(spec, both, angles=np.arccos(cosines)).ntk
    steps = ntk.sel(depth=[2 * d for d in depths]).values - ntk.sel(depth=depths).values
    sums = [squares_of("decreasing", depth).sum() for depth in depths]
    return xr.Dataset(
        {
            "step": (("depth", "cosine"), np.log(depths)[:, None] ** 2 * steps),
            "square_sum": ("depth", sums),
        },
        coords={"depth": depths, "cosine": cosines},
        attrs={"first": depths[0], "last": depths[-1]},
    )


def _rounding_of_step(found):
    """That of two kernels after 2 L blocks, times ln^2 L."""
    return 4 * EPS * found.depth * np.log(found.depth) ** 2


def _last_over_first(found):
    """At cosines whose steps are not known."""
    others = found.sel(cosine=found.cosine != NOTED_AT)
    first, last = others.step.isel(depth=0), others.step.isel(depth=-1)
    error = _rounding_of_step(found).isel(depth=-1) / np.abs(first)
    return rounded(last / first, error)


def _noted_steps(found):
    one = found.sel(depth=list(SLOW))
    return rounded(one.step.sel(cosine=NOTED_AT), _rounding_of_step(one))


def _square_sums(found):
    one = found.square_sum.sel(depth=list(SLOW))
    return rounded(one, EPS * one.depth * one)


# -------------------------------------------------------------------------- figures


def draw_correlations(found):
    """1 - u against depth for one pair of inputs."""
    with drawing.style():
        ax = drawing.one_axes(None)
        one = found.isel(cosine=0)
        for name, look in looks(["α = 1", "decreasing", "γ = 1/2", "α = 1/2"]).items():
            ax.plot(one.depth, one.gap.sel(family=name), **look, label=name)
        depth = one.depth.values[one.depth.values >= 30]
        for alpha in STRONG.values():
            share = alpha**2 / (1 + alpha**2)
            ax.plot(depth, 9 * np.pi**2 / (2 * share**2 * depth**2), **drawing.THEORY)
        ax.axhline(float(one.flow), **drawing.THEORY, label="theory")
        drawing.log_axes(ax)
        ax.set_ylim(1e-8, 4)
        ax.yaxis.set_major_formatter("{x:.0e}")
        ax.set_xlabel("depth L")
        ax.set_ylabel(f"1 − u, inputs at u = {float(one.cosine):g}")
        drawing.legend(ax)
    return ax


def draw_smallest(found):
    """Smallest eigenvalues against depth, one point a draw."""
    with drawing.style():
        ax = drawing.one_axes(None)
        names = {"uniform": "γ = 1/2", "standard": "α = 1"}
        labels = {"uniform": "NTK, γ = 1/2", "standard": "normalised NNGP, α = 1"}
        for name, look in zip(names, looks(names.values()).values(), strict=True):
            values = found[name].transpose("depth", "draw").values
            own = look | {"linestyle": ""}
            ax.plot(found.depth, values[:, 0], **own, label=labels[name])
            ax.plot(found.depth, values[:, 1:], **own)
        ax.plot(found.depth, found.predicted, **drawing.THEORY, label="theory, 18π²/L²")
        drawing.log_axes(ax)
        ax.yaxis.set_major_formatter("{x:.0e}")
        ax.set_xlabel("depth L")
        ax.set_ylabel("smallest eigenvalue")
        drawing.legend(ax)
    return ax


def draw_decreasing(found):
    """The NTK's change over a doubling of depth, times ln^2 L."""
    with drawing.style():
        ax = drawing.one_axes(None)
        cosines = found.cosine.values
        colours = drawing.shades(len(cosines))
        heights = drawing.apart(found.step.values[-1], 0.006)
        for colour, cosine, height in zip(colours, cosines, heights, strict=True):
            step = found.step.sel(cosine=cosine)
            ax.plot(found.depth, step, color=colour, marker="o")
            label = f"  u = {cosine:g}".replace("-", "−")
            drawing.end_label(ax, found.depth[-1], height, label)
        known = [step for step, _ in SLOW.values()]
        ax.plot(list(SLOW), known, **drawing.THEORY, label="theory, u = −0.5")
        drawing.log_axis(ax.xaxis)
        ax.set_xlabel("depth L")
        ax.set_ylabel("ln²L × (NTK at 2L − NTK at L)")
        drawing.legend(ax)
    return ax


# --------------------------------------------------------------------------- the study


NOTES = "computed here before, by a recursion of its own"

CLAIMS = [
    Claim(
        name="9b-exponent",
        statement="unscaled networks: 1 − u falls like 1/L²: exponent over L = {first} "
        "to {last}, α = 1 and 1/2",
        source="correlations tend to 1 as Θ(L^(−2))",
        known="summary",
        of="correlations",
        measure=lambda found: fitted(found, "exponent", BOTH_HALVES),
        predicted=-2.0,
        tolerance=0.02,
        reason="next term of relative order ln L / (a L)",
        figure="correlations",
    ),
    Claim(
        name="9b-constant",
        statement="unscaled networks: 1 − u over 9π²/(2 a² L²), a = α²/(1 + α²), at "
        "L = {last}, α = 1 and 1/2",
        source="correlations tend to 1 as Θ(L^(−2))",
        known="derived",
        of="correlations",
        measure=_constant,
        predicted=1.0,
        tolerance=0.01,
        reason="next term of relative order ln L / (a L)",
        figure="correlations",
    ),
    Claim(
        name="9b-uniform",
        statement="uniform scheme, λ = 1/√L: 1 − u at L = {last} over that of "
        "du/dt = κ₁(u) − u at t = 1",
        source="the limiting Gaussian process of the uniform scheme",
        known="summary",
        of="correlations",
        measure=_uniform_over_flow,
        predicted=1.0,
        tolerance=1e-3,
        reason="next term of relative order 1/L",
        figure="correlations",
    ),
    Claim(
        name="9c-settles",
        statement="uniform scheme: the smallest eigenvalue of the NTK's Gram matrix "
        "of {points} points in R⁵ settles: relative change from L = 1000 to 10000, "
        "each of {draws} draws",
        source="the limiting kernel is universal",
        known="derived",
        of="smallest",
        measure=_change,
        predicted=0.0,
        tolerance=0.01,
        reason="1 %: the kernel's next term is of order 1/L",
        figure="smallest",
    ),
    Claim(
        name="9c-positive",
        statement="uniform scheme: the smallest eigenvalue of the NTK's Gram matrix "
        "of {points} points in R⁵ is positive at L = {deepest}, each of {draws} draws",
        source="the limiting kernel is universal",
        known="read",
        of="smallest",
        measure=_positive,
        predicted=0.0,
        side="above",
        reason="strictly positive-definite on distinct points",
        figure="smallest",
    ),
    Claim(
        name="9c-noted",
        statement="uniform scheme: the smallest eigenvalue of the NTK's Gram matrix "
        "at L = 100, 1000, 4000, 20 points in R⁵ of seed 0",
        source=NOTES,
        known="derived",
        of="smallest",
        measure=_noted_values,
        predicted=lambda _: list(NOTED.values()),
        tolerance=1e-5,
        reason="the prediction has four digits",
    ),
    Claim(
        name="9c-unscaled",
        statement="unscaled networks, α = 1: the smallest eigenvalue of the normalised "
        "NNGP kernel's Gram matrix over 18π²/L², at L = {deepest}, each of {draws} "
        "draws of {points} points in R⁵",
        source="unscaled networks lose their expressivity",
        known="derived",
        of="smallest",
        measure=_standard_over_predicted,
        predicted=1.0,
        tolerance=0.01,
        reason="next term of relative order ln L / L, as in correlations",
        figure="smallest",
    ),
    Claim(
        name="9d-noted",
        statement="decreasing scheme, u = −0.5: ln²L times the NTK's change from L to "
        "2L, at L = 100, 1000, 10000",
        source=NOTES,
        known="derived",
        of="decreasing",
        measure=_noted_steps,
        predicted=lambda _: [step for step, _ in SLOW.values()],
        tolerance=1e-4,
        reason="the prediction has three digits",
        figure="decreasing",
    ),
    Claim(
        name="9d-slow",
        statement="decreasing scheme, cosines other than −0.5: ln²L times the NTK's "
        "change from L to 2L, at L = {last} over that at L = {first}",
        source="the decreasing scheme converges",
        known="derived",
        of="decreasing",
        measure=_last_over_first,
        predicted=1.0,
        tolerance=0.1,
        reason="next term of relative order ln 2 / ln L",
        figure="decreasing",
    ),
    Claim(
        name="9d-squares",
        statement="decreasing scheme: Σλ² at L = 100, 1000, 10000",
        source=NOTES,
        known="derived",
        of="decreasing",
        measure=_square_sums,
        predicted=lambda _: [total for _, total in SLOW.values()],
        tolerance=0.005,
        reason="the prediction has three digits",
    ),
]


FIGURES = {
    "correlations": Figure(
        of="correlations",
        draw=draw_correlations,
        title="How far the features of two inputs stay apart",
        caption="One minus the cosine u of the features of two inputs, preactivation "
        "blocks. Dashed: 9π²/(2 a² L²) for scales that do not fall with depth, and for "
        "γ = 1/2 what the differential equation leads to.",
    ),
    "smallest": Figure(
        of="smallest",
        draw=draw_smallest,
        title="Smallest eigenvalues of Gram matrices against depth",
        caption="{points} random points on the sphere in five dimensions, a mark for "
        "each draw of points (they may coincide). Dashed: the gap 1 − u of α = 1.",
    ),
    "decreasing": Figure(
        of="decreasing",
        draw=draw_decreasing,
        title="How slowly the decreasing scheme converges",
        caption="The change of the normalised NTK from depth L to 2L times ln²L, for "
        "pairs of inputs of cosine u; a level line is convergence like 1/ln L. "
        "Dashed: what a recursion of its own gave before, u = −0.5.",
    ),
}

MEASUREMENTS = {
    "correlations": Measurement(
        measure=correlations,
        full={
            "cosines": [-0.5, -0.9, 0.0, 0.3, 0.7, 0.95],
            "first": 10_000,
            "last": 100_000,
            "count": 8,
        },
    ),
    "smallest": Measurement(
        measure=smallest,
        full={
            "points": 20,
            "draws": 20,
            "depths": [100, 300, 1000, 3000, 4000, 10_000, 100_000],
        },
        quick={"draws": 5},
    ),
    "decreasing": Measurement(
        measure=decreasing,
        full={
            "cosines": [-0.9, -0.5, 0.0, 0.7, 0.95],
            "depths": [100, 1000, 10_000, 100_000],
        },
        quick={"depths": [100, 1000, 10_000]},
    ),
}
