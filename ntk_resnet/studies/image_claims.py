"""What is predicted of convolutional kernels, held against measurements on images.

The labels are those of fully connected networks where the prediction is the same, as it
is for flattened readouts; the readout's weights are frozen, as there. Those of pooled
ones are derived here. A pooled kernel is the mean over pairs of pixels; with P pixels a
share 1/P of an image's own pairs are a pixel with itself, whose kernels do not change.
All other pairs, and all of two images, go the way of two inputs of a fully connected
network, if images wrap around. With zero padding less signal reaches pairs of
different places than the same place twice, so the former keep apart, and their part of
the NTK stays bounded while the latter grows by one with each layer: what is left is the
limit of two inputs, 1/4.
"""

import numpy as np
from scipy import stats

from ntk_resnet.analysis.statistics import fit_power
from ntk_resnet.studies.claims import Claim, of_splits, over

_PAIRS = "range over pairs of images"


def _rates(results):
    found = results["image_rates"]
    return [*_plain_limits(found), *_plain_gaps(found), *_residual_rates(found)]


def _plain_limits(found):
    depth = found.plain_depth.values.astype(float)
    excess = (found.plain_ntk - found.plain_limit).transpose(..., "plain_depth", "pair")
    flat, pooled = (excess.sel(readout=name) for name in ("flatten", "pool"))
    usual = int(np.argmin(np.abs(depth - 1000)))
    last, pixels = int(depth[-1]), found.attrs["pixels"]
    # The derivative of (NTK of two images) / (1/P + (1 - 1/P) NTK) at 1/4, times 3/8.
    rate = 6 / pixels / (1 + 3 / pixels) ** 2
    late = depth > depth[-1] / 3.5
    began = f"L = {depth[late][0]:.0f} to {last}"
    return [
        over(
            "1a, images",
            f"plain, flattened: NTK at L = {depth[usual]:.0f} is 1/4, either padding",
            0.0,
            np.abs(flat.isel(plain_depth=usual)),
            6e-3,
            "next term: (3/8 ln L + C)/L",
            kind=_PAIRS,
        ),
        over(
            "1a, images",
            f"plain, pooled, circular: NTK at L = {last} is 1/(1+3/P), P = {pixels}",
            0.0,
            np.abs(pooled.sel(padding="circular").isel(plain_depth=-1)),
            1e-3,
            "next term: (c ln L + C)/L, see 1b",
            kind=_PAIRS,
        ),
        over(
            "1a, images",
            f"plain, pooled, zero padding: NTK at L = {last} is 1/4",
            0.0,
            np.abs(pooled.sel(padding="zero").isel(plain_depth=-1)),
            5e-3,
            "next term: (3/8 ln L + C)/L, C of the order of P",
            kind=_PAIRS,
        ),
        over(
            "1b, images",
            f"plain, flattened: L(NTK − 1/4) grows like 3/8 ln L, {began}",
            0.375,
            _slopes(depth[late], flat.isel(plain_depth=late).values),
            5e-3,
            "next term: of order (ln L)/L in the slope",
            kind=_PAIRS,
        ),
        over(
            "1b, images",
            "plain, pooled, circular: L(NTK − limit) grows like "
            f"6/P/(1+3/P)^(2) ln L, {began}",
            rate,
            _slopes(
                depth[late],
                pooled.sel(padding="circular").isel(plain_depth=late).values[None],
            ),
            0.06 * rate,
            "next term: of order (ln L)/L in the slope, 4 % here; deeper, rounding",
            kind=_PAIRS,
        ),
    ]


def _slopes(depth, excess):
    """Slopes of L times the excess (padding, depth, pair) in ln L."""
    scaled = depth[:, None] * excess
    return [np.polyfit(np.log(depth), one, 1)[0] for one in scaled]


def _plain_gaps(found):
    depth = found.plain_depth.values.astype(float)
    last, pixels = depth[-1], found.attrs["pixels"]
    gap = found.plain_gap.transpose(..., "plain_depth", "pair")
    ratio = gap.isel(plain_depth=-1) * 2 * last**2 / (9 * np.pi**2)
    zero = gap.sel(readout="pool", padding="zero").values
    late = depth > last / 3.5
    slopes = [fit_power(depth[late], one[late]).exponent for one in zero.T]
    return [
        over(
            "1c, images",
            f"plain, flattened: NNGP gap × 2L²/(9π²) is 1 at L = {last:.0f}",
            1.0,
            ratio.sel(readout="flatten").values,
            1e-2,
            "next term: 2(1.5 ln L + C)/L",
            kind=_PAIRS,
        ),
        over(
            "1c, images",
            f"plain, pooled, circular: NNGP gap × 2PL²/(9π²) is 1 at L = {last:.0f}",
            1.0,
            pixels * ratio.sel(readout="pool", padding="circular").values,
            1e-2,
            "next term: 2(1.5 ln L + C)/L",
            kind=_PAIRS,
        ),
        over(
            "1c, images",
            "plain, pooled, zero padding: NNGP gap falls like L^(−2): exponent",
            -2.0,
            slopes,
            2e-2,
            "next term: 2(1.5 ln L + C)/L",
            kind=_PAIRS,
        ),
    ]


def _residual_rates(found):
    depth = found.block_depth.values.astype(float)
    one, half, constant = (
        found.sel(family=f).transpose(..., "block_depth", "pair")
        for f in ("γ = 1", "γ = 1/2", "α = 1")
    )
    distance = np.abs(one.ntk - one.block_ntk).max("pair").values
    changes = np.abs(half.ntk.diff("block_depth")).max("pair").values
    share, last = float(found.block_share), depth[-1]
    flat = constant.gap.sel(readout="flatten").isel(block_depth=-1)
    ratio = flat.values * 2 * share**2 * last**2 / (9 * np.pi**2)
    kept = [
        over(
            "1d, images" if family is one else "1f, images",
            f"residual, {name}: NNGP gap at L = {last:.0f} over that of one block, "
            "either readout: the kernel does not degenerate",
            0.5,
            (family.gap / family.block_gap).isel(block_depth=-1).values,
            0.0,
            "our own bound: kept means at least half of it",
            bound="above",
            kind=_PAIRS,
        )
        for name, family in (("γ = 1", one), ("γ = 1/2", half))
    ]
    return [
        over(
            "1d, images",
            "residual, γ = 1: distance of the NTK to that of one block falls like 1/L: "
            f"exponent from L = {depth[-2]:.0f} to {last:.0f}",
            -1.0,
            [fit_power(depth[-2:], row[-2:]).exponent for row in distance],
            1e-2,
            "next term T² with T = 1/L",
            kind="both readouts",
        ),
        over(
            "1f, images",
            "residual, γ = 1/2: what ten times the depth changes in the NTK falls like "
            "1/L: exponent",
            -1.0,
            [fit_power(depth[:-1], row).exponent for row in changes],
            5e-2,
            f"next term of order 1/L at the smallest L = {depth[0]:.0f}",
            kind="both readouts",
        ),
        *kept,
        over(
            "1g, images",
            f"residual, α = 1: |NTK − 1/4| at L = {last:.0f}, either readout",
            3e-2,
            np.abs(constant.ntk.isel(block_depth=-1) - 0.25).values,
            0.0,
            "theory: (3/8 ln L + C)/L, C larger than of plain networks",
            bound="below",
            kind=_PAIRS,
        ),
        over(
            "1c, images",
            f"residual, α = 1, flattened: NNGP gap × 2a²L²/(9π²) is 1 at L = {last:.0f}"
            f", a = {share:.4f} what zero padding leaves of the branch",
            1.0,
            ratio,
            0.1,
            "next term: 2(1.5 ln L + C)/(aL)",
            kind=_PAIRS,
        ),
    ]


# ---------------------------------------------------------------------------- on images


_READOUTS = {"flatten": "flattened", "pool": "pooled"}
_LARGE = 100  # depth from which predictions for large ones are asked of digits


def _digits(results):
    found = results["images"]
    shallow, deep = int(found.depth[0]), int(found.depth[-1])
    claims = []
    for readout, words in _READOUTS.items():
        at = found.sel(readout=readout)
        if deep >= _LARGE:
            claims += [_near_chance(at, words, deep), _spread(at, words, deep)]
        for family in ("γ = 1", "γ = 1/2"):
            one = at.sel(family=family)
            relative = one.mse / one.mse.sel(depth=shallow)
            worst = int(relative.mean("split").argmax("depth"))
            claims.append(
                of_splits(
                    "1j, images",
                    f"residual, {family}, {words}: test MSE at its worst depth over "
                    f"that at L = {shallow} stays flat, to L = {deep}",
                    relative.isel(depth=worst).to_dataset(name="relative"),
                    "relative",
                    1.1,
                    "below",
                    "flat means: within a tenth, over all depths",
                )
            )
    return claims


def _near_chance(at, words, deep):
    return of_splits(
        "1j, images",
        f"plain, {words}: test MSE / Var at L = {deep}, near chance (1)",
        at.sel(family="plain", depth=deep),
        "mse",
        0.9,
        "above",
        "the bound set for fully connected networks at L = 1000",
    )


def _spread(at, words, deep):
    """Plain networks lose what tells images apart, beside a residual one that does."""
    spread = at.ntk_spread.sel(depth=deep)
    return over(
        "1j, images",
        f"plain, {words}: spread of the NTK over pairs of images at L = {deep}, over "
        "that of γ = 1/2",
        0.1,
        float(spread.sel(family="plain") / spread.sel(family="γ = 1/2")),
        0.0,
        "our own bound: a tenth",
        bound="below",
    )


# ---------------------------------------------------------------------- finite networks


def _networks(results):
    found = results["image_networks"]
    return [_agreement(found.sel(network=name)) for name in found.network.values]


def _agreement(one):
    count = one.deviation.size
    networks, width = one.attrs["networks"], one.attrs["width"]
    chance = 2 * count * stats.t.sf(3, networks - 1)
    return Claim(
        "1h, images",
        f"{one.network.item()}: mean kernels of {networks} networks of {width} "
        f"channels are the closed forms: largest distance of {count} entries in "
        "standard errors",
        3.0,
        float(one.worst.max()),
        float(one.worst.min()),
        float(one.worst.max()),
        "NNGP and NTK",
        0.0,
        "below",
        f"chance: one exceeds 3 in at most {chance:.0%} of studies, a bias of order "
        f"1/width left out; a standard error is at most "
        f"{float(one.resolved.max()):.1%} of the kernel",
    )


JUDGES = {"images": _digits, "image_rates": _rates, "image_networks": _networks}
