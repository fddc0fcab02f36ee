"""Correlations and kernels: what is left of them in deep networks."""

import numpy as np
import xarray as xr
from scipy.integrate import solve_ivp

import ntk_resnet as nr
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.hayou2021.schemes import SCHEMES, squares_of
from ntk_resnet.studies.ledger import Claim, exact, fitted
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
    `last`, with the ends of its interval, and `constant`, the gap at `last` over
    9 pi^2 / (2 a^2 L^2), a = alpha^2 / (1 + alpha^2). Over `cosine`: `flow`, the gap
    that the differential equation of the uniform scheme leads to.
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
        fits.append([nr.fit_power(far, one) for one in gap[late].T])
        share = alpha**2 / (1 + alpha**2)
        constants.append(gap[-1] * 2 * share**2 * last**2 / (9 * np.pi**2))
    fitted = np.array(fits)
    over = ("strong", "cosine")
    return xr.Dataset(
        {
            "gap": (("family", "depth", "cosine"), np.array(gaps)),
            "exponent": (over, fitted[..., 0]),
            "exponent_low": (over, fitted[..., 1]),
            "exponent_high": (over, fitted[..., 2]),
            "constant": (over, np.array(constants)),
            "flow": ("cosine", [_flow(u) for u in cosines]),
        },
        coords={
            "family": [*scales, "γ = 1/2"],
            "strong": list(STRONG),
            "depth": depths,
            "cosine": cosines,
        },
        attrs={"first": first, "last": last},
    )


def _flow(cosine):
    """1 - u at t = 1, where du/dt = kappa_1(u) - u from the cosine of the inputs."""

    def velocity(_, u):
        theta = np.arccos(np.clip(u, -1, 1))
        return (np.sin(theta) - theta * np.cos(theta)) / np.pi

    found = solve_ivp(velocity, (0, 1), [cosine], rtol=1e-10, atol=1e-12)
    return 1 - found.y[0, -1]


def _uniform_over_flow(found):
    gap = found.gap.sel(family="γ = 1/2").isel(depth=-1)
    return exact((gap / found.flow).values, 1e-8, "bound of the integration")


# -------------------------------------------------------------- smallest eigenvalues


NOTED = {100: 0.09810, 1000: 0.09886, 4000: 0.09892}


def smallest(
    *, points: int, draws: int, depths: list[int], progress: Progress = quiet
) -> xr.Dataset:
    """The smallest eigenvalue of Gram matrices of random points on the sphere in R^5.

    Over (`draw`, `depth`): `uniform`, of the normalised NTK with scales 1/sqrt(L) and
    two-layer blocks, `standard`, of the normalised NNGP kernel with scales 1, both with
    the bound of their rounding, `rounding`, over `draw`. `predicted`, over `depth`, is
    the gap that the correlations of the latter tend to.
    """
    uniform, standard = [], []
    for seed in range(draws):
        x = np.random.default_rng(seed).normal(size=(points, 5))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
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
            "predicted": (
                "depth",
                9 * np.pi**2 / (2 * 0.25 * np.square(depths, dtype=float)),
            ),
        },
        coords={"draw": np.arange(draws), "depth": depths},
        attrs={
            "points": points,
            "deepest": depths[-1],
            "rounding": points**2 * np.finfo(float).eps,
        },
    )


def _change(found):
    """From depth 1000 to ten times that."""
    one = found.uniform.sel(depth=10_000) / found.uniform.sel(depth=1000) - 1
    return exact(one.values, 1e-10)


def _standard_over_predicted(found):
    last = (found.standard / found.predicted).isel(depth=-1)
    error = found.attrs["rounding"] / float(found.predicted[-1])
    return exact(last.values, error)


def _noted_values(found):
    one = found.uniform.sel(draw=0, depth=list(NOTED))
    return exact(one.values, found.attrs["rounding"])


# -------------------------------------------------------------- the decreasing scheme


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


def _last_over_first(found):
    one = found.step.isel(depth=-1) / found.step.isel(depth=0)
    return exact(one.values, 1e-8)


def _at(found, name, **at):
    return exact(found.sel(depth=list(SLOW), **at)[name].values, 1e-8)


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
        ax.plot(list(SLOW), known, **drawing.THEORY, label="known, u = −0.5")
        drawing.log_axis(ax.xaxis)
        ax.set_xlabel("depth L")
        ax.set_ylabel("ln²L × (NTK at 2L − NTK at L)")
        drawing.legend(ax)
    return ax


# --------------------------------------------------------------------------- the study


CLAIMS = [
    Claim(
        name="9b",
        statement="unscaled: 1 − u falls like 1/L²: exponent over L = {first} to "
        "{last}, α = 1 and 1/2",
        source="correlations tend to 1 as Θ(L^(−2))",
        known="summary",
        of="correlations",
        measure=lambda found: fitted(found, "exponent"),
        predicted=-2.0,
        tolerance=0.02,
        reason="next term of relative order ln L / (a L)",
        figure="correlations",
    ),
    Claim(
        name="9b",
        statement="unscaled: 1 − u over 9π²/(2 a² L²), a = α²/(1 + α²), at L = {last}, "
        "α = 1 and 1/2",
        source="correlations tend to 1 as Θ(L^(−2))",
        known="derived",
        of="correlations",
        measure=lambda found: exact(found.constant.values, 1e-8),
        predicted=1.0,
        tolerance=0.01,
        reason="next term of relative order ln L / (a L)",
        figure="correlations",
    ),
    Claim(
        name="9b",
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
        name="9c",
        statement="uniform scheme: the smallest eigenvalue of the NTK's Gram matrix "
        "of {points} points in R⁵ settles: relative change from L = 1000 to 10000",
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
        name="9c",
        statement="uniform scheme: that eigenvalue is positive at L = {deepest}",
        source="the limiting kernel is universal",
        known="read",
        of="smallest",
        measure=lambda found: exact(
            found.uniform.isel(depth=-1).values, found.attrs["rounding"]
        ),
        predicted=0.0,
        side="above",
        reason="strictly positive-definite on distinct points",
        figure="smallest",
    ),
    Claim(
        name="9c",
        statement="the same at L = 100, 1000, 4000, 20 points of seed 0",
        source="values computed before",
        known="derived",
        of="smallest",
        measure=_noted_values,
        predicted=lambda _: list(NOTED.values()),
        tolerance=1e-5,
        reason="the prediction has four digits",
    ),
    Claim(
        name="9c",
        statement="unscaled, α = 1: the smallest eigenvalue of the normalised NNGP "
        "kernel's Gram matrix over 18π²/L², at L = {deepest}",
        source="unscaled networks lose their expressivity",
        known="derived",
        of="smallest",
        measure=_standard_over_predicted,
        predicted=1.0,
        tolerance=0.01,
        reason="next term of relative order ln L / L, as of the correlations",
        figure="smallest",
    ),
    Claim(
        name="9d",
        statement="decreasing scheme, u = −0.5: ln²L times the NTK's change from L to "
        "2L, at L = 100, 1000, 10000",
        source="the decreasing scheme converges",
        known="derived",
        of="decreasing",
        measure=lambda found: _at(found, "step", cosine=-0.5),
        predicted=lambda _: [step for step, _ in SLOW.values()],
        tolerance=1e-4,
        reason="the prediction has three digits",
        figure="decreasing",
    ),
    Claim(
        name="9d",
        statement="decreasing scheme, the other cosines: that step at L = {last} over "
        "the one at L = {first}",
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
        name="9d",
        statement="decreasing scheme: Σλ² at L = 100, 1000, 10000",
        source="square-summable scales",
        known="derived",
        of="decreasing",
        measure=lambda found: _at(found, "square_sum"),
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
        "each draw of points (they may coincide).",
    ),
    "decreasing": Figure(
        of="decreasing",
        draw=draw_decreasing,
        title="How slowly the decreasing scheme converges",
        caption="The change of the normalised NTK from depth L to 2L times ln²L, for "
        "pairs of inputs of cosine u; a level line is convergence like 1/ln L. "
        "Dashed: values computed independently.",
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
