"""Limits of both kernels and how fast they are reached: claims 1a to 1g."""

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.plot import drawing
from ntk_resnet.plot.drawing import THEORY
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.families import FAMILIES
from ntk_resnet.studies.ledger import Claim, exact, exponent
from ntk_resnet.studies.limits import limits
from ntk_resnet.studies.study import Figure

COSINES = (-0.9, -0.5, 0.0, 0.3, 0.7, 0.95)
"""Between inputs, at which rates are measured."""

TRAINED = ("blocks", "all")
GAMMAS = (0.6, 0.75, 1.0)
_ROUNDING = 1e-8  # of L (NTK - 1/4) at L = 100,000, ten times that of the NTK times L


def rates(*, longest: int, progress: Progress = quiet) -> xr.Dataset:
    """What the theory's rates are read off: few angles, large depths.

    Over (`trained`, `plain_depth`, cosine) `plain_ntk`, of plain networks whose readout
    is frozen (`"blocks"`), as the paper's, or trained (`"all"`); over (`plain_depth`,
    cosine) `plain_nngp_gap`, to which that is the same; over (`block_depth`, cosine)
    `constant_ntk`, `constant_nngp_gap` (`α = 1`), `quarter_ntk` (`γ = 1/4`), `half_ntk`
    and its limit `half_limit` (`γ = 1/2`), `one_ntk` (`γ = 1`); over cosine
    `block_ntk`, of one block; over (exponent, `block_depth`) `shallow_distance`, the
    largest distance to the kernel of one block over cosines from -0.9 to 1.
    """
    angles = np.arccos(COSINES)
    long = np.unique(np.geomspace(1000, longest, 21).round().astype(int))
    blocks = np.array([100, 300, 1000, 3000, 10000])
    pieces = len(TRAINED) + len(_NAMES) + len(GAMMAS)

    def sweep(spec, depths, piece, angles=angles):
        report = part_of(progress, piece, 1, pieces)
        return nr.sweep_depth(spec, depths.tolist(), angles=angles, progress=report)

    plain = [
        sweep(FAMILIES["plain"].replace(trained=trained), long, piece)
        for piece, trained in enumerate(TRAINED)
    ]
    named = {
        key: sweep(FAMILIES[family], blocks, piece)
        for piece, (key, family) in enumerate(_NAMES.items(), start=len(plain))
    }
    grid = np.linspace(0, np.arccos(-0.9), 200)
    one = nr.profile(FAMILIES["γ = 1"])
    distance = []
    for piece, gamma in enumerate(GAMMAS, start=pieces - len(GAMMAS)):
        spec = nr.ResNet(depth=1, branch_scale=nr.DepthScale(gamma))
        deep = sweep(spec, blocks, piece, grid).ntk.values
        distance.append(np.max(np.abs(deep - np.asarray(one.ntk(grid))), axis=1))
    over = ("block_depth", "cosine")
    return xr.Dataset(
        {
            "plain_ntk": (
                ("trained", "plain_depth", "cosine"),
                np.stack([found.ntk.values for found in plain]),
            ),
            "plain_nngp_gap": (("plain_depth", "cosine"), plain[0].nngp_gap.values),
            **{f"{key}_ntk": (over, found.ntk.values) for key, found in named.items()},
            "constant_nngp_gap": (over, named["constant"].nngp_gap.values),
            "half_limit": ("cosine", limits("two layers", [1.0], angles)[0]),
            "block_ntk": ("cosine", np.asarray(one.ntk(angles))),
            "shallow_distance": (("exponent", "block_depth"), np.array(distance)),
        },
        coords={
            "cosine": list(COSINES),
            "trained": list(TRAINED),
            "plain_depth": long,
            "block_depth": blocks,
            "exponent": list(GAMMAS),
        },
        attrs={"longest": longest, "late": int(_late(long)[0]), "deepest": 10_000},
    )


_NAMES = {
    "one": "γ = 1",
    "half": "γ = 1/2",
    "quarter": "γ = 1/4",
    "constant": "α = 1",
}


def _late(depth):
    """The last decade of depths, over which slopes are taken."""
    return depth[depth >= depth[-1] / 10]


# ------------------------------------------------------------------ plain networks


def _usual(found):
    """Cosines up to 0.7: nearer to 1 the asymptotics begin later."""
    return found.sel(cosine=found.cosine <= 0.7)


def _quarter_at_1000(trained):
    def measure(found):
        ntk = _usual(found).plain_ntk.sel(trained=trained).isel(plain_depth=0)
        return exact(ntk, 1e-10)

    return measure


def _log_slope(trained):
    def measure(found):
        depth = _late(found.plain_depth.values)
        excess = found.plain_ntk.sel(trained=trained, plain_depth=depth) - 0.25
        scaled = (depth + (trained == "all"))[:, None] * excess.values
        return exact(np.polyfit(np.log(depth), scaled, 1)[0], 10 * _ROUNDING)

    return measure


def _plain_gap_ratio(found):
    one = _usual(found).plain_nngp_gap.sel(plain_depth=10_000, method="nearest")
    ratio = one * 2 * float(one.plain_depth) ** 2 / (9 * np.pi**2)
    return exact(ratio, 1e-9)


_READOUTS = {
    "blocks": ("readout frozen", "L", "0.0023 to 0.0036"),
    "all": ("readout trained", "(L+1)", "0.003 to 0.0044"),
}

PLAIN = [
    *(
        Claim(
            name="1a",
            statement=f"plain, {words}: the normalised NTK at L = 1000 is 1/4 (cosines "
            "up to 0.7)",
            source="Theorem 6 of the authors' poster"
            if trained == "blocks"
            else "Theorem 6 in the other convention",
            known="read" if trained == "blocks" else "derived",
            of="rates",
            measure=_quarter_at_1000(trained),
            predicted=0.25,
            tolerance=6e-3,
            reason=f"next term: (3/8 ln L + C)/L is {next_term}",
            figure="rates",
        )
        for trained, (words, _, next_term) in _READOUTS.items()
    ),
    *(
        Claim(
            name="1b",
            statement=f"plain, {words}: {layers}(NTK − 1/4) grows like 3/8 ln L, "
            "L = {late} to {longest}: slope",
            source="the constant of Theorem 6's rate, polylog(L)/L",
            known="derived",
            of="rates",
            measure=_log_slope(trained),
            predicted=0.375,
            tolerance=5e-3,
            reason="next term: of order (ln L)/L in the slope",
            figure="rates",
        )
        for trained, (words, layers, _) in _READOUTS.items()
    ),
    Claim(
        name="1c",
        statement="plain, either readout: NNGP gap × 2L²/(9π²) at L = 10000 is 1",
        source="the gap's recursion",
        known="derived",
        of="rates",
        measure=_plain_gap_ratio,
        predicted=1.0,
        tolerance=1e-2,
        reason="next term: 2(1.5 ln L + C)/L",
    ),
]


# --------------------------------------------------------------- residual networks


def _distance_exponent(gamma):
    def measure(found):
        distance = found.shallow_distance.sel(exponent=gamma)
        return exponent(nr.fit_power(found.block_depth.values, distance.values))

    return measure


def _coefficient(found):
    depth = 1000
    excess = found.one_ntk.sel(block_depth=depth) - found.block_ntk
    predicted = nr.one_block_correction(np.arccos(found.cosine.values))
    return exact(depth * excess / predicted, 1e-8)


def _half_error(found):
    at = found.sel(block_depth=1000)
    return exact(at.half_ntk - at.half_limit, 1e-11)


def _half_exponents(found):
    error = np.abs(found.half_ntk - found.half_limit)
    depth = found.block_depth.values
    slopes = [nr.fit_power(depth, row).exponent for row in error.values.T]
    return exact(slopes, 1e-6)


def _quarter_exponent(found):
    """From the last two depths; the largest over cosines, since one in between is 0."""
    last = np.abs(_usual(found).quarter_ntk - 0.25).max("cosine").values[-2:]
    depth = found.block_depth.values[-2:]
    return exact(np.log(last[1] / last[0]) / np.log(depth[1] / depth[0]), 1e-8)


def _constant_excess(found):
    return exact(np.abs(_usual(found).constant_ntk.isel(block_depth=-1) - 0.25), 1e-11)


def _constant_gap_ratio(found):
    # a = alpha^2 / (1 + alpha^2) = 1/2 at alpha = 1
    gap = _usual(found).constant_nngp_gap.isel(block_depth=-1)
    return exact(gap * float(gap.block_depth) ** 2 / (18 * np.pi**2), 1e-9)


RESIDUAL = [
    *(
        Claim(
            name="1d",
            statement=f"residual, γ = {gamma:g}: distance to the kernel of one block "
            "falls like L^(1−2γ): exponent",
            source="Theorem 7 of the authors' poster, α = 1/L"
            if gamma == 1
            else "Theorem 7 for other scales",
            known="read" if gamma == 1 else "derived",
            of="rates",
            measure=_distance_exponent(gamma),
            predicted=1 - 2 * gamma,
            tolerance=1e-2,
            reason="next term T² with T = L^(1−2γ), fitted over L = 100 to 10000",
            figure="rates",
        )
        for gamma in GAMMAS
    ),
    Claim(
        name="1e",
        statement="residual, γ = 1: L × (NTK − one block) at L = 1000 over its "
        "predicted coefficient D",
        source="the constant of Theorem 7's rate",
        known="derived",
        of="rates",
        measure=_coefficient,
        predicted=1.0,
        tolerance=lambda found: np.where(found.cosine < -0.8, 2e-2, 1e-2),
        reason="next term of order 1/L, near cosine −1 larger",
        figure="rates",
    ),
    Claim(
        name="1f",
        statement="residual, γ = 1/2: NTK at L = 1000 less the limit of infinite depth",
        source="the recursion as a differential equation",
        known="derived",
        of="rates",
        measure=_half_error,
        predicted=0.0,
        tolerance=2e-4,
        reason="next term 0.1/L",
    ),
    Claim(
        name="1f",
        statement="residual, γ = 1/2: distance to that limit falls like 1/L: exponent",
        source="the recursion as a differential equation",
        known="derived",
        of="rates",
        measure=_half_exponents,
        predicted=-1.0,
        tolerance=5e-2,
        reason="next term of order 1/L at the smallest L = 100",
    ),
    Claim(
        name="1g",
        statement="residual, γ = 1/4: largest |NTK − 1/4| falls like L^(2γ−1): "
        "exponent from L = 3000 to {deepest}",
        source="γ < 1/2 degenerates",
        known="derived",
        of="rates",
        measure=_quarter_exponent,
        predicted=-0.5,
        tolerance=5e-2,
        reason="next term of relative order (ln T)/T with T = L^(1/2): 0.046",
    ),
    Claim(
        name="1g",
        statement="residual, α = 1: |NTK − 1/4| at L = {deepest} (cosines up to 0.7)",
        source="a constant scale degenerates",
        known="derived",
        of="rates",
        measure=_constant_excess,
        predicted=1e-3,
        side="below",
        reason="theory: (3/8 ln L + C)/L",
    ),
    Claim(
        name="1c",
        statement="residual, α = 1: NNGP gap × L²/(18π²) at L = {deepest} is 1",
        source="the gap's recursion",
        known="derived",
        of="rates",
        measure=_constant_gap_ratio,
        predicted=1.0,
        tolerance=1e-2,
        reason="next term of order (ln L)/L",
    ),
]

CLAIMS = PLAIN + RESIDUAL


# -------------------------------------------------------------------------- figure


def draw(found: xr.Dataset) -> np.ndarray:
    """Left the plain NTK's excess over 1/4, times L; right distances to one block."""
    with drawing.style():
        axes = drawing.new_axes(1, 2, height=2.8)
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


FIGURE = Figure(
    of="rates",
    draw=draw,
    title="Rates of convergence with depth",
    caption="Left: L times what the NTK of a plain network has over 1/4, at the "
    "cosines u between inputs at the lines' ends; dashed the slope 3/8 in ln L. Right: "
    "largest distance of the NTK of residual networks with branches scaled by L^(−γ) "
    "to that of one block, over cosines from −0.9 to 1; dashed L^(1−2γ).",
)
