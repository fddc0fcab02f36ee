r"""Both kernels of a specification, block by block, in gap form.

The state holds one minus the cosine of the features (`gap`), one plus it
(`supplement_gap`, which vanishes at opposite inputs), and one minus the normalised NTK
(`ntk_gap`); the diagonals are logarithms. A block adds sums and products of kernels
(`gap_form`) whose terms are all positive: to the gaps an increment that is computed as
such, and added with compensation. So float32 is right at depth 30,000.

Sources: Jacot et al. 2018 (NTK), Huang et al. 2020 (two-layer blocks), Hayou et al.
2021 (pre-activation), Frei et al. 2019 (post-activation: increments with a mean, which
adds coherently, so the mean is carried too).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntk_resnet._numerics import Sum
from ntk_resnet.kernels.gap_form import geometric_mean, mismatch, product, spread
from ntk_resnet.specification.base import Specification


class Diagonals(NamedTuple):
    """What is known of each input on its own; fields `(n,)`, or `()` if all agree."""

    log_variance: Sum  # ln K(x, x)
    log_growth: Sum  # ln(1 + Theta/K) on the diagonal
    mean: Sum  # E h / sqrt(K), of one feature h over random networks


class KernelState(NamedTuple):
    """Both kernels after some blocks.

    `rows` holds one entry for `x1`, and a second for `x2` if that is another array. For
    networks without a length scale all rows agree up to |x|, and their fields are
    scalars.
    """

    rows: tuple[Diagonals, ...]
    gap: Sum  # 1 - cosine of the features
    supplement_gap: Sum  # 1 + cosine
    ntk_gap: Sum  # 1 - normalised NTK of the weights before the readout


class Kernels(NamedTuple):
    """Both kernels with the readout applied: gaps of pairs, logarithms of diagonals."""

    nngp_gap: Float[Array, "..."]
    nngp_supplement_gap: Float[Array, "..."]
    ntk_gap: Float[Array, "..."]
    log_nngp: tuple[Float[Array, "..."], ...]
    log_ntk: tuple[Float[Array, "..."], ...]


class _Shares(NamedTuple):
    """How a block composes its kernels, per row: shares that sum to 1."""

    entering: tuple[Array, ...]  # ln of the variance that enters each activation
    bias: Array  # the bias, in the affine map of W
    branch: Array  # the branch in the features that leave the block
    cross: Array  # trunk times branch in them, where increments have a mean
    log_mean_ratio: Array  # ln of the mean of features over that of the increment
    trunk_ntk: Array  # in the NTK: that of the trunk,
    branch_ntk: Array  # the same carried through the branch,
    weights: tuple[Array, ...]  # the gradients of each of the block's own weights


# ------------------------------------------------------------------------ one block


class _BranchRows(NamedTuple):
    """One input on its way through a branch, relative to the variance that enters."""

    entering: tuple[Array, ...]  # ln of the variance at each activation so far
    variance: Array
    bias: Array  # its share in the output of W
    mean: Array  # E phi / sqrt(E phi^2) of the last activation
    slope: Array  # what the NTK that enters is multiplied by
    weights: tuple[Array, ...]  # the NTK of each of the weights so far


def _through_branch(spec: Specification, log_variance: Array) -> _BranchRows:
    """One input through the branch of a block, or a plain layer."""
    weight = jnp.asarray(spec.weight_variance, log_variance.dtype)
    bias = _bias_over_variance(spec, log_variance)
    one, zero = jnp.ones_like(log_variance), jnp.zeros_like(log_variance)

    def inner(rows):
        variance = weight * rows.variance + bias
        return rows._replace(
            variance=variance,
            bias=bias / variance,
            slope=weight * rows.slope,
            weights=(*(weight * own for own in rows.weights), variance),
        )

    def activate(rows):
        entering = log_variance + jnp.log(rows.variance)
        moments = spec.activation.moments(entering)
        slope = jnp.exp(moments.log_slope)
        return rows._replace(
            entering=(*rows.entering, entering),
            variance=rows.variance * jnp.exp(moments.log_gain),
            mean=moments.mean,
            slope=slope * rows.slope,
            weights=tuple(slope * own for own in rows.weights),
        )

    def outer(rows):
        return rows._replace(weights=(*rows.weights, rows.variance))

    start = _BranchRows((), one, zero, zero, one, ())
    return spec.branch(start, inner, activate, outer)


def step_rows(
    spec: Specification, rows: Diagonals, scale: Float[Array, ""]
) -> tuple[Diagonals, _Shares]:
    """The diagonals after one more block, and the shares that `step` needs."""
    mean = rows.mean.value
    branch = _through_branch(spec, rows.log_variance.value)
    trunk_square, square = spec.trunk_square(scale), scale * scale
    trunk = trunk_square**0.5
    if spec.increments_have_mean:  # to the mean: E of the increment / sqrt(K)
        added = scale * branch.mean * jnp.sqrt(branch.variance)
    else:
        added = jnp.zeros_like(branch.variance)
    # Means of opposite signs would need a kernel that is no sum of squares: refused.
    cross = jnp.where(mean * added < 0, jnp.nan, 2 * trunk * mean * added)
    growth = square * branch.variance + cross
    total = trunk_square + growth

    decay = jnp.exp(-rows.log_growth.value)  # K / (K + Theta)
    ntk_share = -jnp.expm1(-rows.log_growth.value)  # Theta / (K + Theta)
    trunk_ntk = trunk_square * ntk_share
    branch_ntk = square * branch.slope * ntk_share
    weights = tuple(square * own * decay for own in branch.weights)
    gained = ntk_share * (square * branch.slope - growth) + sum(weights)
    norm = trunk_ntk + branch_ntk + sum(weights)
    norm = jnp.where(norm > 0, norm, 1)  # all shares are 0 while nothing is trained

    root = jnp.sqrt(total)
    if spec.has_trunk:
        log_step = jnp.log1p(growth + (trunk_square - 1))
        step = (added - mean * growth / (trunk + root)) / root
        mean_after = rows.mean.add(step)
    else:
        log_step, mean_after = jnp.log(growth), rows.mean
    after = Diagonals(
        log_variance=rows.log_variance.add(log_step),
        log_growth=rows.log_growth.add(jnp.log1p(gained / total)),
        mean=mean_after,
    )
    positive = mean * added > 0
    shares = _Shares(
        entering=branch.entering,
        bias=branch.bias,
        branch=square * branch.variance / total,
        cross=cross / total,
        log_mean_ratio=jnp.log(
            jnp.where(positive, mean, 1) / jnp.where(positive, added, 1)
        ),
        trunk_ntk=trunk_ntk / norm,
        branch_ntk=branch_ntk / norm,
        weights=tuple(own / norm for own in weights),
    )
    return after, shares


def _bias_over_variance(spec, log_variance):
    if spec.bias_variance == 0:
        return jnp.zeros_like(log_variance)
    return spec.bias_variance * jnp.exp(-log_variance)


class _BranchPairs(NamedTuple):
    """Pairs on their way through a branch."""

    gap: Array
    supplement_gap: Array
    change: Array  # of the gap since it entered, computed as such
    slope: Any  # gap and 1 + cosine of what the NTK is times
    weights: tuple[tuple[Array, Array], ...]  # the same of the NTK of each weight


def _pairs_through_branch(
    spec: Specification, pair: list[_Shares], gap: Array, supplement_gap: Array
) -> _BranchPairs:
    """Pairs through the branch of a block, or a plain layer."""
    entering = iter(zip(*(shares.entering for shares in pair), strict=True))

    def inner(pairs):
        shift = _bias_increment(spec, pair, pairs.gap)
        gap, supplement_gap = pairs.gap + shift, pairs.supplement_gap - shift
        weights = (*pairs.weights, (gap, supplement_gap))
        change = pairs.change + shift
        return _BranchPairs(gap, supplement_gap, change, pairs.slope, weights)

    def activate(pairs):
        dual = spec.activation.dual(
            *spread(next(entering)), pairs.gap, pairs.supplement_gap
        )
        slope = dual.slope_gap, dual.slope_supplement_gap
        through = lambda other: slope if other is None else product(slope, other)  # noqa: E731
        return _BranchPairs(
            dual.gap,
            pairs.supplement_gap + dual.gap_decrease,
            pairs.change - dual.gap_decrease,
            through(pairs.slope),
            tuple(map(through, pairs.weights)),
        )

    def outer(pairs):
        return pairs._replace(
            weights=(*pairs.weights, (pairs.gap, pairs.supplement_gap))
        )

    start = _BranchPairs(gap, supplement_gap, jnp.zeros_like(gap), None, ())
    return spec.branch(start, inner, activate, outer)


def step(
    spec: Specification, state: KernelState, scale: Float[Array, ""]
) -> KernelState:
    """The state after one more block of branch scale `scale` (1 in plain networks)."""
    stepped = [step_rows(spec, rows, scale) for rows in state.rows]
    rows = tuple(after for after, _ in stepped)
    pair = [shares for _, shares in stepped]
    gap, supplement_gap = state.gap.value, state.supplement_gap.value
    branch = _pairs_through_branch(spec, pair, gap, supplement_gap)

    trunk = [jnp.where(spec.has_trunk, 1 - s.branch - s.cross, 0) for s in pair]
    w_branch, w_cross = _weight(pair, "branch"), _weight(pair, "cross")
    unequal = mismatch(trunk, *_shares(pair, "branch", "cross"))
    cross_gap = _cross_gap(pair)
    increment = (
        w_branch * branch.change + w_cross * (cross_gap - gap) + unequal * (1 - gap)
    )
    new_gap = state.gap.add(increment)
    new_supplement_gap = state.supplement_gap.add(-increment)
    # Where a block removes most of the gap, the positive terms are added up instead.
    kept = unequal + geometric_mean(trunk) * gap
    direct = Sum.start(kept + w_branch * branch.gap + w_cross * cross_gap)
    new_gap = jax.tree.map(
        functools.partial(jnp.where, -2 * increment > gap), direct, new_gap
    )

    ntk = state.ntk_gap.value
    slope_gap, _ = branch.slope
    own_shares = list(zip(*(shares.weights for shares in pair), strict=True))
    ntk_increment = _weight(pair, "branch_ntk") * slope_gap * (1 - ntk)
    for own, (own_gap, _) in zip(own_shares, branch.weights, strict=True):
        ntk_increment = ntk_increment + geometric_mean(own) * (own_gap - ntk)
    unequal = mismatch(*_shares(pair, "trunk_ntk", "branch_ntk"), *own_shares)
    ntk_increment = ntk_increment + unequal * (1 - ntk)
    return KernelState(
        rows, new_gap, new_supplement_gap, state.ntk_gap.add(ntk_increment)
    )


# ---------------------------------------------------------------- shares of both inputs


def _shares(pair, *names):
    return [[getattr(shares, name) for shares in pair] for name in names]


def _weight(pair, name):
    return geometric_mean(*_shares(pair, name))


def _bias_increment(spec, pair, gap):
    """What adding the bias, a kernel without gap, does to a gap."""
    if spec.bias_variance == 0:
        return jnp.zeros_like(gap)
    rest = [1 - shares.bias for shares in pair]
    (bias,) = _shares(pair, "bias")
    return mismatch(rest, bias) * (1 - gap) - geometric_mean(bias) * gap


def _cross_gap(pair):
    """Gap of M1 m2 + M2 m1 for means M and their increments m: 1 - cosh, at most 0."""
    first, second = spread(*_shares(pair, "log_mean_ratio"))
    return -2 * jnp.sinh((first - second) / 4) ** 2


# ----------------------------------------------------------------- first and last layer


def first_rows(spec: Specification, log_variance: Float[Array, "..."]) -> Diagonals:
    """The rows before the first block, from ln(|x|^2 / d)."""
    zero = jnp.zeros_like(log_variance)
    if not spec.has_trunk:
        return Diagonals(Sum.start(log_variance), Sum.start(zero), Sum.start(zero))
    growth = zero + spec.trains_readout
    mean = zero
    if spec.input_activation:
        moments = spec.activation.moments(log_variance)
        growth = growth * jnp.exp(moments.log_slope - moments.log_gain)
        log_variance, mean = log_variance + moments.log_gain, moments.mean
    return Diagonals(
        Sum.start(log_variance), Sum.start(jnp.log1p(growth)), Sum.start(mean)
    )


def first_state(
    spec: Specification,
    gap: Float[Array, "..."],
    supplement_gap: Float[Array, "..."],
    *log_variances: Float[Array, "..."],
) -> KernelState:
    """The state before the first block, from the input kernel."""
    rows = tuple(first_rows(spec, value) for value in log_variances)
    ntk_gap = jnp.zeros_like(gap)
    trains_first = spec.has_trunk and spec.trains_readout
    if trains_first:
        ntk_gap = gap
    if spec.input_activation:
        dual = spec.activation.dual(*spread(log_variances), gap, supplement_gap)
        if trains_first:
            ntk_gap, _ = product(
                (dual.slope_gap, dual.slope_supplement_gap), (gap, supplement_gap)
            )
        gap, supplement_gap = dual.gap, supplement_gap + dual.gap_decrease
    return KernelState(
        rows, Sum.start(gap), Sum.start(supplement_gap), Sum.start(ntk_gap)
    )


def log_diagonals(spec: Specification, rows: Diagonals) -> tuple[Array, Array]:
    """ln K(x, x) and ln Theta(x, x); -inf where nothing has been trained."""
    log_variance, growth = rows.log_variance.value, rows.log_growth.value
    if spec.trains_readout:  # whose gradient adds K
        return log_variance, log_variance + growth
    nothing = growth == 0
    safe = jnp.where(nothing, 1, growth)
    log_ratio = jnp.where(nothing, -jnp.inf, safe + jnp.log(-jnp.expm1(-safe)))
    return log_variance, log_variance + log_ratio


def readout(spec: Specification, state: KernelState) -> Kernels:
    """Both kernels of the network that ends after the blocks so far.

    The NTK's gap is NaN where its diagonal is zero: nothing has been trained.
    """
    logs = [log_diagonals(spec, rows) for rows in state.rows]
    gap, ntk_gap = state.gap.value, state.ntk_gap.value
    if spec.trains_readout:
        own = [jnp.exp(-rows.log_growth.value) for rows in state.rows]
        rest = [-jnp.expm1(-rows.log_growth.value) for rows in state.rows]
        unequal = mismatch(own, rest)
        change = geometric_mean(own) * (gap - ntk_gap) + unequal * (1 - ntk_gap)
        ntk_gap = ntk_gap + change
    else:
        first, second = spread([ntk for _, ntk in logs])
        ntk_gap = jnp.where((first > -jnp.inf) & (second > -jnp.inf), ntk_gap, jnp.nan)
    return Kernels(
        gap,
        state.supplement_gap.value,
        ntk_gap,
        tuple(nngp for nngp, _ in logs),
        tuple(ntk for _, ntk in logs),
    )


def cosine(kernels: Kernels) -> Float[Array, "..."]:
    """The normalised NNGP, exact to rounding at both ends."""
    acute = kernels.nngp_gap <= kernels.nngp_supplement_gap
    return jnp.where(acute, 1 - kernels.nngp_gap, kernels.nngp_supplement_gap - 1)


def quantities(kernels: Kernels) -> dict[str, Array]:
    """The normalised kernels and their gaps, by name."""
    return {
        "nngp": cosine(kernels),
        "ntk": 1 - kernels.ntk_gap,
        "nngp_gap": kernels.nngp_gap,
        "ntk_gap": kernels.ntk_gap,
    }


# ----------------------------------------------------------------------- all the blocks


def propagate(
    spec: Specification, state: KernelState, scales: Float[Array, " depth"]
) -> KernelState:
    """The state after `len(scales)` blocks, by one scan; differentiable."""
    return jax.lax.scan(
        lambda state, scale: (step(spec, state, scale), None), state, scales
    )[0]
