"""What T should decide, and where it does not."""

import numpy as np
import xarray as xr

from ntk_resnet.analysis.statistics import fit_power
from ntk_resnet.studies.effective_depth.measurements import SCALES, SMOOTH, TAIL, WHOLE
from ntk_resnet.studies.ledger import (
    BOTH_HALVES,
    Claim,
    Measured,
    curve_slope,
    exact,
    over_seeds,
    ratio_of_means,
)

EPS = np.finfo(float).eps
SOLVED = 1e-11  # to which kernels and their limits are known
ROUNDING, INTEGRATION = "bound of the rounding", "bound of the integration"
OURS = "effective depth as the one parameter"
SMALL = 1 / 16
"""Sizes of steps at which the next order is taken for the whole deviation."""


def _laws(pairs) -> Measured:
    """Exponents of several curves without chance, `(x, y)` each, x in any order."""
    slopes = []
    for x, y in pairs:
        order = np.argsort(x)
        slopes.append(curve_slope(x[order], y[order]))
    values, low, high = np.transpose(slopes)
    return Measured(values, low, high, BOTH_HALVES)


def profiles(found: xr.Dataset) -> xr.Dataset:
    """Networks of one of the asked T and of small steps."""
    wanted = (found.kind == "profile") & (found.step <= SMALL)
    return found.isel(network=np.flatnonzero(wanted))


def deepest(found: xr.Dataset, kind: str) -> xr.Dataset:
    """Networks of that kind and of the largest depth there is."""
    own = found.isel(network=np.flatnonzero(found.kind == kind))
    return own.isel(network=np.flatnonzero(own.depth == own.depth.max()))


def _curves(found: xr.Dataset) -> list[xr.Dataset]:
    """`profiles`, those of one T and one profile without chance in each."""
    own = profiles(found)
    return [
        own.isel(network=np.flatnonzero((own.asked == time) & (own.scheme == name)))
        for time in np.unique(own.asked)
        for name in SMOOTH
    ]


def off(found: xr.Dataset) -> xr.DataArray:
    """How far errors are off those with the limit, relative to these, by seed."""
    return found.error / found.limit_error - 1


def missed(found: xr.Dataset) -> xr.DataArray:
    """How far mean errors are off those with the limit, relative to these."""
    return found.error.mean("seed") / found.limit_error.mean("seed") - 1


def decreasing(found: xr.Dataset, scheme: str) -> xr.Dataset:
    """The networks of the decreasing scale, by depth."""
    own = found.isel(network=np.flatnonzero(found.scheme == scheme))
    return own.sortby("depth")


def _like(values: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """The values over the dimensions of the other, in its order."""
    return values.broadcast_like(other).transpose(*other.dims)


# ------------------------------------------------------------------- what is measured


def _growth(found):
    """T - ln(growth), over half the sum of a^4."""
    rest = _like(found["T"], found.log_growth) - found.log_growth
    half = _like(found["T"] * found.step / 2, rest)
    return exact(rest / half, _growth_rounding(found), ROUNDING)


def _growth_rounding(found):
    """Each block rounds the signal once, by eps / 2 of it."""
    half = found["T"] * found.step / 2
    return _like(EPS * found.depth / half, found.log_growth).values


def _growth_tolerance(found):
    after = _like(2 / 3 * found.largest, found.log_growth).values
    return after + _growth_rounding(found)


def _paths(found):
    """The mean length of paths over T."""
    ratio = found.path_length / found["T"]
    return exact(ratio, EPS * found.depth.values, ROUNDING)


def _distance_law(found):
    return _laws((one.step.values, one.distance.values) for one in _curves(found))


def _block_law(found):
    small, pairs = found.step <= SMALL, []
    for name in found.block.values:
        for time in found["T"].values:
            for profile in SMOOTH:
                at = {"profile": profile, "T": time}
                keep = small.sel(at).values
                own = found.distance.sel(block=name, **at).values
                pairs.append((found.step.sel(at).values[keep], own[keep]))
    return _laws(pairs)


def _over_step(found):
    own = profiles(found)
    return exact(own.distance / own.step, SOLVED / own.step.values, INTEGRATION)


def _spread_at_one_depth(found):
    ntk = deepest(found, "scale").ntk.values
    return exact(ntk.max() - ntk.min(), 2 * EPS * found.attrs["longest"], ROUNDING)


def _spread_of_errors(found):
    """The scales are those of the largest and the smallest mean."""
    errors = deepest(found, "scale").error
    means = errors.mean("seed").values
    ends = (errors.isel(network=int(k)) for k in (means.argmax(), means.argmin()))
    return ratio_of_means(*(one.values for one in ends))


def _error_law(found):
    """By seed and curve."""
    slopes = [
        [
            fit_power(one.step.values, np.abs(off(one).sel(seed=seed).values)).exponent
            for one in _curves(found)
        ]
        for seed in found.seed.values
    ]
    return over_seeds(slopes)


def _deepest_errors(found):
    return over_seeds(off(deepest(found, "profile")).transpose("seed", "network"))


def _excess(found):
    """At the largest T, over what it should be."""
    last = found.isel(T=-1)
    known = found.constant.isel(block=[0, 1])
    # The constants, of order one, are integrated from 0.05 on, below it a series.
    return exact(last.excess.isel(block=[0, 1]) / known, 1e-6, INTEGRATION)


def _log_slope(excess, along):
    """Change with ln T between the last two, at each cosine."""
    two = excess.isel({along: [-2, -1]})
    slope = two.diff(along).squeeze(along) / np.log(
        float(two[along][1] / two[along][0])
    )
    # Kernels are right to a few eps; their distance to 1/4 is T times as large.
    return exact(slope, 100 * EPS * float(two[along][1]), ROUNDING)


def _image_law(found):
    pairs = []
    for time in found.time.values:
        keep = time / found.depth.values <= SMALL
        pairs += [
            (1 / found.depth.values[keep], one[keep])
            for one in found.distance.sel(time=time).values
        ]
    return _laws(pairs)


def _image_growth(found):
    own = found.log_growth.sel(network="circular, flatten")
    half = _like(found.time**2 / found.depth / 2, own)
    error = _like(4 * EPS * found.depth, own) / half
    return exact((found.time - own) / half, error.values, ROUNDING)


def _mean_growth(found):
    """ln(growth), less what the sum of scales alone predicts, over T."""
    kept = found.sel(kept="S")
    total = _like(kept["sum"] ** 2 / kept.depth, kept.log_growth)
    alone = 2 * np.log(np.cosh(kept["sum"] / np.sqrt(np.pi)))
    error = _like(4 * EPS * kept.depth, total) / total
    return exact((kept.log_growth - alone) / total, error.values, ROUNDING)


def _at_equal_sum(found, values):
    return _like(values, found.log_growth.sel(kept="S"))


def _mean_slope(found):
    """Of ln(growth) in S at equal T, between the last two depths."""
    two = found.sel(kept="T").isel(depth=[-2, -1])
    step = two["sum"].diff("depth").isel(depth=0)
    slope = two.log_growth.diff("depth").isel(depth=0) / step
    return exact(slope, 8 * EPS * float(found.depth[-1]) / step.values, ROUNDING)


def _mean_law(found):
    kept = found.sel(kept="S").isel(depth=slice(None, -1))
    # The deepest stands for the limit: its own distance is left out of the others'.
    last = float(found.depth[-1])
    return _laws(
        (1 / kept.depth.values - 1 / last, one) for one in kept.distance.values
    )


def _ratio(over, under):
    """Of two distances to a limit."""
    error = SOLVED * (1 / over + 1 / under)
    return exact(over / under, over / under * error, INTEGRATION)


def _stays(found):
    """The distance to the limit at the largest depth, over that at a quarter of it."""
    own = decreasing(found, WHOLE)
    far = own.distance.values
    quarter = np.flatnonzero(4 * own.depth.values == own.depth.values[-1])[0]
    return _ratio(far[-1], far[quarter])


def _whole_over_tail(found):
    return _ratio(*(float(decreasing(found, s).distance[-1]) for s in (WHOLE, TAIL)))


def _large_alpha(found):
    own = found.isel(network=np.flatnonzero(found.scheme == list(SCALES)[-1]))
    return exact(own.sortby("depth").distance[-1], SOLVED, INTEGRATION)


# -------------------------------------------------------------------------- the claims

CLAIMS = [
    Claim(
        name="growth",
        statement="the signal grows by exp(T): T − ln(growth) over the next order, "
        "Σa⁴/2, in all three blocks, at every depth and profile",
        source="kernels of small scales depend on T = Σa² alone",
        known="derived",
        of="blocks",
        measure=_growth,
        predicted=1.0,
        tolerance=_growth_tolerance,
        reason="the order after, Σa⁶/3, is at most 2/3 of the largest square, and "
        "rounding",
        figure="collapse",
    ),
    Claim(
        name="path-length",
        statement="paths through the blocks have the mean length T, up to s = "
        "Σa⁴/Σa²: length over T between 1 − s and 1, all scales, depths and profiles",
        source="mean path length ≈ T, derived here from Σ a²/(1 + a²)",
        known="derived",
        of="scalings",
        measure=_paths,
        predicted=lambda found: 1 - found.step / 2,
        tolerance=lambda found: found.step / 2,
        reason="the bounds themselves, 1 − s and 1",
        figure="collapse",
    ),
    Claim(
        name="kernel-without",
        statement="without T: NTKs at 45° of networks of one depth, L = {longest}, by "
        "scale, the largest minus the smallest",
        source=OURS,
        known="derived",
        of="scalings",
        measure=_spread_at_one_depth,
        predicted=0.3,
        side="above",
        reason="our own bound: more than three quarters of what there is, 0.64 to 0.25",
        figure="collapse",
    ),
    Claim(
        name="kernel-collapse",
        statement="at equal T the NTK is that of the limit Ω^(T), up to the next "
        "order: largest distance at cosines from −0.9 over s = Σa⁴/Σa², all profiles "
        "and T with s ≤ 1/16",
        source=OURS,
        known="derived",
        of="scalings",
        measure=_over_step,
        predicted=1.0,
        side="below",
        reason="our own bound: a coefficient of order one",
        figure="distance",
    ),
    Claim(
        name="kernel-order",
        statement="at equal T the NTK's distance to the limit Ω^(T) is of the next "
        "order: its exponent in s = Σa⁴/Σa², at each T and profile but the random one, "
        "s ≤ 1/16",
        source=OURS,
        known="derived",
        of="scalings",
        measure=_distance_law,
        predicted=1.0,
        tolerance=0.05,
        reason="order after next, s ≤ 1/16",
        figure="distance",
    ),
    Claim(
        name="block-order",
        statement="each of three blocks has a limit of its own, and T decides within "
        "it: exponent in s = Σa⁴/Σa² of the NTK's distance to the limit, at each T and "
        "profile but the random one, s ≤ 1/16",
        source=OURS,
        known="derived",
        of="blocks",
        measure=_block_law,
        predicted=1.0,
        tolerance=0.05,
        reason="order after next, s ≤ 1/16",
        figure="blocks",
    ),
    Claim(
        name="degeneracy-constant",
        statement="for large T the NTK is 1/4 + c(u)/T, without a logarithm, with "
        "c = C/4 − 1/2 in two-layer and C/4 in pre-activation blocks, C(u) from the "
        "limit's equation: T (NTK − 1/4) over c at the largest T, α = {alpha}",
        source="T → ∞: 1/4 + c(u)/T",
        known="derived",
        of="degeneracy",
        measure=_excess,
        predicted=1.0,
        tolerance=0.01,
        reason="terms of order 1/T, and 3/8 α² ln T of finite scales",
        figure="degeneracy",
    ),
    Claim(
        name="degeneracy-logarithm",
        statement="with two activations in a row, as in full pre-activation, 1/T comes "
        "with a logarithm: T (NTK − 1/4) falls like −(3/16) ln T; slope in ln T",
        source="T → ∞ in the limit's equation",
        known="derived",
        of="degeneracy",
        measure=lambda found: _log_slope(found.excess.isel(block=2), "T"),
        predicted=-3 / 16,
        tolerance=0.005,
        reason="terms of order ln²(T)/T",
        figure="degeneracy",
    ),
    Claim(
        name="error-without",
        statement="without T: test errors of networks of one depth, L = {longest}, by "
        "scale, the largest over the smallest",
        source=OURS,
        known="derived",
        of="scalings",
        measure=_spread_of_errors,
        predicted=100.0,
        side="above",
        reason="our own bound: two powers of ten",
        figure="collapse",
    ),
    Claim(
        name="error-collapse",
        statement="at equal T test errors are those of the limit: relative difference, "
        "all profiles and T of the largest depth",
        source=OURS,
        known="derived",
        of="scalings",
        measure=_deepest_errors,
        predicted=0.0,
        tolerance=0.05,
        reason="the next order, s ≤ 1/30 there, times a number of order one",
        figure="collapse",
    ),
    Claim(
        name="error-order",
        statement="at equal T test errors differ from those of the limit by the next "
        "order: exponent in s = Σa⁴/Σa² of the relative difference, at each T and "
        "profile but the random one, s ≤ 1/16",
        source=OURS,
        known="derived",
        of="scalings",
        measure=_error_law,
        predicted=1.0,
        tolerance=0.1,
        reason="order after next: twice s ≤ 1/16",
        figure="distance",
    ),
    Claim(
        name="images-order",
        statement="convolutional networks, too, have a limit at equal T: exponent in "
        "1/L of the NTK's distance to that of the network four times as deep, each "
        "padding, readout and T ≤ L/16",
        source=OURS,
        known="derived",
        of="images",
        measure=_image_law,
        predicted=1.0,
        tolerance=0.05,
        reason="order after next",
        figure="images",
    ),
    Claim(
        name="images-growth",
        statement="convolutional networks, images that wrap around: the signal grows "
        "by exp(T): T − ln(growth) over T²/(2L), not pooled",
        source=OURS,
        known="derived",
        of="images",
        measure=_image_growth,
        predicted=1.0,
        tolerance=lambda found: 2 / 3 * found.time / found.depth,
        reason="the order after",
    ),
    Claim(
        name="means-slope",
        statement="where increments have a mean (post-activation) T decides nothing: "
        "at equal T, ln(growth) increases with depth, by 2/√π for each unit of "
        "S = Σa; slope at the largest depths",
        source="one-matrix blocks with ReLU outside: the scale is 1/L",
        known="derived",
        of="means",
        measure=_mean_slope,
        predicted=2 / np.sqrt(np.pi),
        tolerance=0.02 * 2 / np.sqrt(np.pi),
        reason="2 %: terms that vanish like 1/S",
        figure="means",
    ),
    Claim(
        name="means-sum",
        statement="where increments have a mean (post-activation) S = Σa decides: "
        "ln(growth) − 2 ln cosh(S/√π), over T, against what steps of that size add",
        source="one-matrix blocks with ReLU outside; our own next order",
        known="derived",
        of="means",
        measure=_mean_growth,
        predicted=lambda found: _at_equal_sum(found, found.first_order),
        tolerance=lambda found: _at_equal_sum(found, 1 / found.depth),
        reason="the order after, 1/L",
        figure="means",
    ),
    Claim(
        name="means-limit",
        statement="post-activation blocks, at equal S = Σa the NTK has a limit: "
        "exponent of the distance to "
        "the deepest network's, in 1/L",
        source="one-matrix blocks with ReLU outside",
        known="derived",
        of="means",
        measure=_mean_law,
        predicted=1.0,
        tolerance=0.05,
        reason="order after next",
        figure="means",
    ),
    Claim(
        name="large-blocks-stay",
        statement="a few large blocks break the collapse in T: of the decreasing "
        "scale, whose first square is 2.08, the NTK's distance to the limit stays; at "
        "L = {longest} over that at a quarter of it",
        source="first blocks of the decreasing scale: use the recursion, not the ODE",
        known="derived",
        of="scalings",
        measure=_stays,
        predicted=1.0,
        tolerance=0.05,
        reason="T itself still grows, by 1/ln L",
        figure="distance",
    ),
    Claim(
        name="large-blocks-tail",
        statement="the decreasing scale without its first seven blocks joins the "
        "others: the whole's distance to the limit over that of its tail, "
        "L = {longest}",
        source="first blocks of the decreasing scale: use the recursion, not the ODE",
        known="derived",
        of="scalings",
        measure=_whole_over_tail,
        predicted=10.0,
        side="above",
        reason="our own bound",
        figure="distance",
    ),
    Claim(
        name="large-scales-distance",
        statement="scales of 1 break the collapse in T: the NTK's distance to the "
        "limit of equal T, the deepest network with α = 1",
        source="small-α regime",
        known="derived",
        of="scalings",
        measure=_large_alpha,
        predicted=0.1,
        side="above",
        reason="our own bound: at small angles steps of 1 are as large as the kernel "
        "varies",
        figure="distance",
    ),
    Claim(
        name="large-scales-logarithm",
        statement="scales of 1 bring a logarithm of depth into the NTK: slope of "
        "T (NTK − 1/4) in ln T at α = 1",
        source="constant α: 3/8 ln L / L",
        known="derived",
        of="degeneracy",
        measure=lambda found: _log_slope(found.unscaled, "deep"),
        predicted=3 / 8,
        tolerance=0.005,
        reason="terms of order ln²(L)/L",
        figure="degeneracy",
    ),
]
