"""Limits of both kernels and how fast they are reached: claims 1a to 1g."""

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.plot import drawing
from ntk_resnet.plot.drawing import THEORY
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.families import FAMILIES
from ntk_resnet.studies.ledger import (
    BOTH_HALVES,
    Claim,
    Measured,
    curve_slope,
    exact,
    of_curve,
)
from ntk_resnet.studies.limits import limits
from ntk_resnet.studies.study import Figure

COSINES = (-0.9, -0.5, 0.0, 0.3, 0.7, 0.95)
"""Between inputs, at which rates are measured."""

TRAINED = ("blocks", "all")
GAMMAS = (0.6, 0.75, 1.0)
_EPS = np.finfo(float).eps
_BOUND = "bound of the rounding"


def _rounding(depth):
    """Of a normalised kernel: a layer is eight operations, whose errors add up."""
    return 8 * _EPS * depth


def rates(*, longest: int, progress: Progress = quiet) -> xr.Dataset:
    """What the theory's rates are read off: few angles, large depths.

    Over (`trained`, `plain_depth`, cosine) `plain_ntk`, of plain networks whose readout
    is frozen (`"blocks"`), as the paper's, or trained (`"all"`), and `opposite_ntk`,
    that of opposite inputs; over (`plain_depth`, cosine) `plain_nngp_gap`, of either;
    over (`block_depth`, cosine) `constant_ntk` (`α = 1`), `quarter_ntk` (`γ = 1/4`),
    `half_ntk` and its limit `half_limit` (`γ = 1/2`), `one_ntk` (`γ = 1`); over cosine
    `block_ntk`, of one block; over (exponent, `block_depth`) `shallow_distance`, the
    largest distance to the kernel of one block over cosines from -0.9 to 1.
    """
    angles = np.arccos(COSINES)
    long = np.unique(np.geomspace(1000, longest, 21).round().astype(int))
    blocks = np.array([100, 200, 500, 1000, 3000, 10000])
    pieces = len(TRAINED) + len(_NAMES) + len(GAMMAS)

    def sweep(spec, depths, piece, angles=angles):
        report = part_of(progress, piece, 1, pieces)
        return nr.sweep_depth(spec, depths.tolist(), angles=angles, progress=report)

    plain = [
        sweep(FAMILIES["plain"].replace(trained=trained), long, piece, [*angles, np.pi])
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
                np.stack([found.ntk.values[:, :-1] for found in plain]),
            ),
            "opposite_ntk": (
                ("trained", "plain_depth"),
                np.stack([found.ntk.values[:, -1] for found in plain]),
            ),
            "plain_nngp_gap": (
                ("plain_depth", "cosine"),
                plain[0].nngp_gap.values[:, :-1],
            ),
            **{f"{key}_ntk": (over, found.ntk.values) for key, found in named.items()},
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


def _over_halves(depth, curves):
    """The exponents of several curves."""
    slopes = [curve_slope(depth, one) for one in curves]
    value, low, high = np.transpose(slopes)
    return Measured(value, low, high, BOTH_HALVES)


def _quarter_at_1000(trained):
    def measure(found):
        ntk = _usual(found).plain_ntk.sel(trained=trained).isel(plain_depth=0)
        return exact(ntk, _rounding(1000), _BOUND)

    return measure


def _log_slope(trained):
    def measure(found):
        depth = _late(found.plain_depth.values)
        excess = found.plain_ntk.sel(trained=trained, plain_depth=depth) - 0.25
        scaled = (depth + (trained == "all"))[:, None] * excess.values
        # A slope in ln L of y is that of ln exp(y).
        return _over_halves(depth, np.exp(scaled.T))

    return measure


def _plain_gap_ratio(found):
    one = _usual(found).plain_nngp_gap.sel(plain_depth=10_000, method="nearest")
    ratio = one * 2 * float(one.plain_depth) ** 2 / (9 * np.pi**2)
    return exact(ratio, ratio * _rounding(float(one.plain_depth)), _BOUND)


_READOUTS = {
    "blocks": ("readout frozen", "L", "0.0023 to 0.0036"),
    "all": ("readout trained", "(L+1)", "0.003 to 0.0044"),
}

PLAIN = [
    *(
        Claim(
            name=f"1a-{trained}",
            statement=f"plain, {words}: normalised NTK at L = 1000, at cosines up to "
            "0.7, is 1/4",
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
    Claim(
        name="1a-opposite",
        statement="plain, readout frozen or trained: normalised NTK of opposite inputs "
        "(u = −1) at L = 1000 is 1/4",
        source="Theorem 6 of the authors' poster, at the end of its range",
        known="derived",
        of="rates",
        measure=lambda found: exact(
            found.opposite_ntk.isel(plain_depth=0), _rounding(1000), _BOUND
        ),
        predicted=0.25,
        tolerance=6e-3,
        reason="next term: (3/8 ln L + C)/L is about 0.003",
    ),
    *(
        Claim(
            name=f"1b-{trained}",
            statement=f"plain, {words}: {layers}(NTK − 1/4) grows like 3/8 ln L: "
            "slope in ln L from L = {late} to {longest}",
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
        statement="plain: (1 − NNGP) × 2L²/(9π²) at L = 10000 is 1",
        source="recursion of the angle, θ' = θ − θ²/(3π)",
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
        return of_curve(curve_slope(found.block_depth, distance))

    return measure


def _coefficient(found):
    depth = 1000
    excess = found.one_ntk.sel(block_depth=depth) - found.block_ntk
    factor = depth / nr.one_block_correction(np.arccos(found.cosine.values))
    return exact(factor * excess, np.abs(factor) * _rounding(depth), _BOUND)


def _half_error(found):
    at = found.sel(block_depth=1000)
    error = 1e-11 + _rounding(1000)
    return exact(
        at.half_ntk - at.half_limit, error, "rounding, ten times the solver's tolerance"
    )


def _half_exponents(found):
    error = np.abs(found.half_ntk - found.half_limit)
    return _over_halves(found.block_depth, error.transpose("cosine", "block_depth"))


def _quarter_exponent(found):
    """From the last two depths; the largest over cosines, since one in between is 0."""
    last = np.abs(_usual(found).quarter_ntk - 0.25).max("cosine").values[-2:]
    depth = found.block_depth.values[-2:]
    times = np.log(depth[1] / depth[0])
    error = 2 * _rounding(depth[-1]) / last.min() / times
    return exact(np.log(last[1] / last[0]) / times, error, _BOUND)


def _constant_excess(found):
    deep = _usual(found).constant_ntk.isel(block_depth=-1)
    error = _rounding(float(deep.block_depth))
    return exact(np.abs(deep - 0.25), error, _BOUND)


RESIDUAL = [
    *(
        Claim(
            name=f"1d-gamma-{gamma:g}",
            statement=f"residual, γ = {gamma:g}: largest distance of the NTK to that "
            "of one block falls like L^(1−2γ): exponent from L = 100 to {deepest}",
            source="Theorem 7 of the authors' poster, α = 1/L"
            if gamma == 1
            else "expansion of the kernel in T = L^(1−2γ)",
            known="read" if gamma == 1 else "derived",
            of="rates",
            measure=_distance_exponent(gamma),
            predicted=1 - 2 * gamma,
            tolerance=1e-2,
            reason="next term T² with T = L^(1−2γ)",
            figure="rates",
        )
        for gamma in GAMMAS
    ),
    Claim(
        name="1e",
        statement="residual, γ = 1: L × (NTK − that of one block) at L = 1000, over "
        "the predicted coefficient D(u)",
        source="expansion of the kernel in 1/L: the constant of Theorem 7's rate",
        known="derived",
        of="rates",
        measure=_coefficient,
        predicted=1.0,
        tolerance=lambda found: np.where(found.cosine < -0.8, 2e-2, 1e-2),
        reason="next term of order 1/L, near cosine −1 larger",
        figure="rates",
    ),
    Claim(
        name="1f-limit",
        statement="residual, γ = 1/2: NTK at L = 1000 less its limit, the solution of "
        "a differential equation",
        source="the recursion over blocks as a differential equation",
        known="derived",
        of="rates",
        measure=_half_error,
        predicted=0.0,
        tolerance=2e-4,
        reason="next term 0.1/L",
    ),
    Claim(
        name="1f-rate",
        statement="residual, γ = 1/2: distance of the NTK to its limit of infinite "
        "depth falls like 1/L: exponent from L = 100 to {deepest}",
        source="the recursion over blocks as a differential equation",
        known="derived",
        of="rates",
        measure=_half_exponents,
        predicted=-1.0,
        tolerance=5e-2,
        reason="next term of order 1/L at the smallest L = 100",
    ),
    Claim(
        name="1g-gamma-1/4",
        statement="residual, γ = 1/4: largest |NTK − 1/4| falls like L^(2γ−1): "
        "exponent from L = 3000 to {deepest}",
        source="expansion of the kernel in 1/T, T = L^(1−2γ)",
        known="derived",
        of="rates",
        measure=_quarter_exponent,
        predicted=-0.5,
        tolerance=5e-2,
        reason="next term of relative order (ln T)/T with T = L^(1/2): 0.046",
    ),
    Claim(
        name="1g-constant",
        statement="residual, α = 1: |NTK − 1/4| at L = {deepest}, at cosines up to "
        "0.7: small",
        source="recursion of residual kernels with a constant scale",
        known="derived",
        of="rates",
        measure=_constant_excess,
        predicted=1e-3,
        side="below",
        reason="theory: (3/8 ln L + C)/L",
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
    caption="Left: L (NTK − 1/4) of plain networks with a frozen readout, a line for "
    "each cosine u between inputs; dashed the slope 3/8 in ln L. Right: largest "
    "distance between the NTK of residual networks with branches scaled by L^(−γ) and "
    "that of one block, over cosines from −0.9 to 1; dashed L^(1−2γ).",
)
