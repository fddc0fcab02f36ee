"""What T should decide, and where it does not."""

import numpy as np
import xarray as xr

from ntk_resnet.analysis.statistics import fit_power
from ntk_resnet.studies.effective_depth.measurements import SCALES, TAIL, WHOLE
from ntk_resnet.studies.ledger import Claim, Measured, exact

OURS = "effective depth as the one parameter"
SMALL = 1 / 16
"""Sizes of steps at which the next order is taken for the whole deviation."""


def _fits(pairs) -> Measured:
    """Exponents of several power laws, `(x, y)` each, with their intervals."""
    fits = [fit_power(x, y) for x, y in pairs]
    values, low, high, _ = np.transpose(fits)
    return Measured(values, low, high, "95 % of the fit")


def profiles(found: xr.Dataset) -> xr.Dataset:
    """Networks of one of the asked T and of small steps."""
    wanted = (found.kind == "profile") & (found.step <= SMALL)
    return found.isel(network=np.flatnonzero(wanted))


def deepest(found: xr.Dataset, kind: str) -> xr.Dataset:
    """Networks of that kind and of the largest depth there is."""
    own = found.isel(network=np.flatnonzero(found.kind == kind))
    return own.isel(network=np.flatnonzero(own.depth == own.depth.max()))


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
    return exact(rest / half, 2e-12 / half.values)


def _paths(found):
    """T minus the mean length of paths, over the sum of a^4."""
    fourth = found.path_T * found.path_scale**2
    return exact((found.path_T - found.path_length) / fourth, 1e-12 / fourth.values)


def _distance_law(found):
    own = profiles(found)
    return _fits(
        (one.step.values, one.distance.values) for _, one in own.groupby("asked")
    )


def _block_law(found):
    small = found.step <= SMALL
    pairs = []
    for name in found.block.values:
        for time in found["T"].values:
            keep = small.sel(T=time).values
            own = found.distance.sel(block=name, T=time).values
            pairs.append((found.step.sel(T=time).values[keep], own[keep]))
    return _fits(pairs)


def _over_step(found):
    own = profiles(found)
    return exact(own.distance / own.step, 1e-8 / own.step.values)


def _spread_at_one_depth(found):
    ntk = deepest(found, "scale").ntk.values
    return exact(ntk.max() - ntk.min(), 1e-8)


def _spread_of_errors(found):
    errors = deepest(found, "scale").error.mean("seed").values
    return exact(errors.max() / errors.min(), 1e-6 * errors.max() / errors.min())


def _error_law(found):
    own = profiles(found).assign(off=np.abs(missed(profiles(found))))
    return _fits((one.step.values, one.off.values) for _, one in own.groupby("asked"))


def _deepest_errors(found):
    own = deepest(found, "profile")
    return exact(missed(own), 1e-5, "bound of the interpolation")


def _excess(found):
    """At the largest T, over what it should be."""
    last = found.isel(T=-1)
    known = found.constant.isel(block=[0, 1])
    return exact(last.excess.isel(block=[0, 1]) / known, 1e-6)


def _log_slope(excess, along):
    """Change with ln T between the last two, at each cosine."""
    two = excess.isel({along: [-2, -1]})
    return exact(
        two.diff(along).squeeze(along) / np.log(float(two[along][1] / two[along][0])),
        1e-6,
    )


def _image_law(found):
    pairs = []
    for time in found.time.values:
        keep = time / found.depth.values <= SMALL
        if keep.sum() > 2:
            pairs += [
                (found.depth.values[keep], one[keep])
                for one in found.distance.sel(time=time).values
            ]
    return _fits(pairs)


def _image_growth(found):
    own = found.log_growth.sel(network="circular, flatten")
    half = _like(found.time**2 / found.depth / 2, own)
    return exact((found.time - own) / half, 1e-11 / half.values)


def _mean_growth(found):
    """ln(growth), less what the sum of scales alone predicts, over T."""
    kept = found.sel(kept="S")
    total = _like(kept["sum"] ** 2 / kept.depth, kept.log_growth)
    alone = 2 * np.log(np.cosh(kept["sum"] / np.sqrt(np.pi)))
    return exact((kept.log_growth - alone) / total, 1e-11 / total.values)


def _at_equal_sum(found, values):
    return _like(values, found.log_growth.sel(kept="S"))


def _mean_slope(found):
    """Of ln(growth) in S at equal T, between the last two depths."""
    two = found.sel(kept="T").isel(depth=[-2, -1])
    slope = two.log_growth.diff("depth") / two["sum"].diff("depth")
    return exact(slope.isel(depth=0), 1e-10)


def _mean_law(found):
    kept = found.sel(kept="S").isel(depth=slice(None, -1))
    # The deepest stands for the limit: its own distance is left out of the others'.
    last = float(found.depth[-1])
    return _fits(
        (1 / kept.depth.values - 1 / last, one) for one in kept.distance.values
    )


def _stays(found):
    """The distance to the limit at the largest depth, over that at a quarter of it."""
    own = decreasing(found, WHOLE)
    far = own.distance.values
    quarter = np.flatnonzero(4 * own.depth.values == own.depth.values[-1])[0]
    return exact(far[-1] / far[quarter], 1e-6)


def _whole_over_tail(found):
    far = [float(decreasing(found, s).distance[-1]) for s in (WHOLE, TAIL)]
    return exact(far[0] / far[1], 1e-4)


def _large_alpha(found):
    own = found.isel(network=np.flatnonzero(found.scheme == list(SCALES)[-1]))
    return exact(own.sortby("depth").distance[-1], 1e-7)


# -------------------------------------------------------------------------- the claims

CLAIMS = [
    Claim(
        name="9.3",
        statement="the signal grows by exp(T): T − ln(growth) over the next order, "
        "Σa⁴/2, in all three blocks, at every depth and profile",
        source="kernels of small scales depend on T = Σa² alone",
        known="derived",
        of="blocks",
        measure=_growth,
        predicted=1.0,
        tolerance=lambda found: _like(2 / 3 * found.largest, found.log_growth),
        reason="the order after, Σa⁶/3, is at most 2/3 of the largest square",
        figure="collapse",
    ),
    Claim(
        name="7.2",
        statement="paths through the blocks have the mean length T: T − length over "
        "the next order, Σa⁴, {depth} blocks",
        source="mean path length ≈ T",
        known="derived",
        of="degeneracy",
        measure=_paths,
        predicted=1.0,
        tolerance=lambda found: found.path_scale**2,
        reason="the order after, Σa⁶",
    ),
    Claim(
        name="12a",
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
        name="12a",
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
        name="12a",
        statement="that distance is of the next order, whatever the profile: its "
        "exponent in s at each T, s ≤ 1/16",
        source=OURS,
        known="derived",
        of="scalings",
        measure=_distance_law,
        predicted=1.0,
        tolerance=0.05,
        reason="order after next, s ≤ 1/16, and profiles with coefficients of their "
        "own",
        figure="distance",
    ),
    Claim(
        name="12a",
        statement="each block has a limit of its own, and T decides within it: "
        "exponent of the distance in s, three blocks, s ≤ 1/16",
        source=OURS,
        known="derived",
        of="blocks",
        measure=_block_law,
        predicted=1.0,
        tolerance=0.05,
        reason="as above",
        figure="blocks",
    ),
    Claim(
        name="1.4",
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
        name="1.4",
        statement="not so with two activations in a row, as in full pre-activation: "
        "there T (NTK − 1/4) falls like −(3/16) ln T; slope in ln T",
        source="our own expansion of the limit's equation",
        known="derived",
        of="degeneracy",
        measure=lambda found: _log_slope(found.excess.isel(block=2), "T"),
        predicted=-3 / 16,
        tolerance=0.005,
        reason="terms of order ln²(T)/T",
        figure="degeneracy",
    ),
    Claim(
        name="12b",
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
        name="12b",
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
        name="12b",
        statement="and that difference is of the next order: its exponent in s at "
        "each T, s ≤ 1/16",
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
        name="12c",
        statement="convolutional networks too: exponent in L of the NTK's distance to "
        "that of the network four times as deep at equal T, each padding, readout and "
        "T ≤ L/16",
        source=OURS,
        known="derived",
        of="images",
        measure=_image_law,
        predicted=-1.0,
        tolerance=0.05,
        reason="order after next",
        figure="images",
    ),
    Claim(
        name="12c",
        statement="and where images wrap around their signal grows by exp(T): "
        "T − ln(growth) over T²/(2L), not pooled",
        source=OURS,
        known="derived",
        of="images",
        measure=_image_growth,
        predicted=1.0,
        tolerance=lambda found: 2 / 3 * found.time / found.depth,
        reason="the order after",
    ),
    Claim(
        name="12d",
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
        name="12d",
        statement="there S decides: ln(growth) − 2 ln cosh(S/√π), over T, against "
        "what steps of that size add",
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
        name="12d",
        statement="at equal S the NTK, too, has a limit: exponent of the distance to "
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
        name="12d",
        statement="a few large blocks break it: of the decreasing scale, whose first "
        "square is 2.08, the distance to the limit stays; at L = {longest} over that "
        "at a quarter of it",
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
        name="12d",
        statement="without its first seven blocks it joins the others: distance of "
        "the whole over that of its tail, L = {longest}",
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
        name="12d",
        statement="scales of 1 break it: the distance to the limit of equal T of the "
        "deepest network with α = 1",
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
        name="12d",
        statement="and bring the logarithm back: slope of T (NTK − 1/4) in ln T at "
        "α = 1",
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
