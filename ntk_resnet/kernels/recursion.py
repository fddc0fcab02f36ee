r"""Both kernels of a specification, block by block, in gap form.

The state holds one minus the cosine of the features (`gap`), one plus it (`cogap`,
which is what vanishes at opposite inputs), and one minus the normalised NTK
(`ntk_gap`); the diagonals are logarithms. A network is then sums and products of
kernels:

* sum: kernels with shares :math:`f_k` of the two diagonals and gaps :math:`\gamma_k`
have
  the gap :math:`\frac12\sum_k(\sqrt{f_{k1}}-\sqrt{f_{k2}})^2
  + \sum_k\sqrt{f_{k1}f_{k2}}\,\gamma_k`,
* product: :math:`1-(1-\gamma_a)(1-\gamma_b)=\gamma_a+\gamma_b(1-\gamma_a)`,

all terms positive, and each block adds to the gaps an increment that is computed as
such and accumulated with compensation. So float32 is right at depth 30,000.

Sources: Jacot et al. 2018 (NTK), Huang et al. 2020 (two-layer blocks), Hayou et al.
2021 (pre-activation), Frei et al. 2019 (post-activation: increments with a mean, which
adds coherently, so the mean is carried too).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_resnet.activations.base import safe_root
from ntk_resnet.specification.base import Residual, Specification
from ntk_resnet.specification.networks import ResNet


class Sum(NamedTuple):
    """A sum under way: its rounded value, and what rounding has cut off."""

    value: Float[Array, "..."]
    rest: Float[Array, "..."]


def start(value: Float[Array, "..."]) -> Sum:
    """A sum that begins at `value`."""
    return Sum(value, jnp.zeros_like(value))


def add(total: Sum, increment: Float[Array, "..."]) -> Sum:
    """The sum after one more term, by two-sum; `value` is renormalised to the whole."""
    increment = increment + total.rest
    value = total.value + increment
    part = value - total.value
    return Sum(value, (total.value - (value - part)) + (increment - part))


class Rows(NamedTuple):
    """What is known of each input on its own; fields `(n,)`, or `()` if all agree."""

    log_variance: Sum  # ln K(x, x)
    log_growth: Sum  # ln(1 + Theta/K) on the diagonal
    mean: Sum  # E h / sqrt(K), of one feature h over random networks


class State(NamedTuple):
    """Both kernels after some blocks.

    `rows` holds one entry for `x1`, and a second for `x2` if that is another array. For
    networks without a length scale all rows agree up to |x|, and their fields are
    scalars.
    """

    rows: tuple[Rows, ...]
    gap: Sum  # 1 - cosine of the features
    cogap: Sum  # 1 + cosine
    ntk_gap: Sum  # 1 - normalised NTK of the weights before the readout


class Kernels(NamedTuple):
    """Both kernels with the readout applied: gaps of pairs, logarithms of diagonals."""

    nngp_gap: Float[Array, "..."]
    nngp_cogap: Float[Array, "..."]
    ntk_gap: Float[Array, "..."]
    log_nngp: tuple[Float[Array, "..."], ...]
    log_ntk: tuple[Float[Array, "..."], ...]


class _Shares(NamedTuple):
    """How a block composes its kernels, per row: shares that sum to 1."""

    log_variance: Array  # ln of the variance that enters the activation
    bias: Array  # the bias in the affine map
    branch: Array  # the branch in the features that leave the block
    cross: Array  # mean times increment in them (post-activation)
    log_mean_ratio: Array  # ln of mean over increment of the mean
    kept: Array  # in the NTK: the trunk's,
    through: Array  # the NTK carried through the branch,
    outer: Array  # the gradients of the weights behind the activation,
    inner: Array  # and of those before it


# ------------------------------------------------------------------------ one block


def _has_trunk(spec: Specification) -> bool:
    return isinstance(spec, ResNet)


def _block(spec: Specification) -> str:
    return spec.block if isinstance(spec, ResNet) else "feed_forward"


def step_rows(
    spec: Specification, rows: Rows, scale: Float[Array, ""]
) -> tuple[Rows, _Shares]:
    """The diagonals after one more block, and the shares that `step` needs."""
    block = _block(spec)
    log_variance, mean = rows.log_variance.value, rows.mean.value
    weight = jnp.asarray(spec.weight_variance, log_variance.dtype)
    bias = _bias_over_variance(spec, log_variance)
    if block == "preactivation":
        entering = log_variance
        moments = spec.activation.moments(entering)
        branch = weight * jnp.exp(moments.log_gain) + bias
        bias_share, inner = bias / branch, jnp.zeros_like(branch)
    else:
        affine = weight + bias
        entering = log_variance + jnp.log(affine)
        moments = spec.activation.moments(entering)
        branch = affine * jnp.exp(moments.log_gain)
        bias_share, inner = bias / affine, affine * jnp.exp(moments.log_slope)
    through = weight * jnp.exp(moments.log_slope)

    trunk = 1.0 if _has_trunk(spec) else 0.0
    square = scale * scale
    if block == "postactivation":
        push = scale * moments.mean * jnp.sqrt(branch)  # E of the increment / sqrt(K)
    else:
        push = jnp.zeros_like(branch)
    # Means of opposite signs would need a kernel that is no sum of squares: refused.
    cross = jnp.where(mean * push < 0, jnp.nan, 2 * mean * push)
    growth = square * branch + cross
    total = trunk + growth

    decay = jnp.exp(-rows.log_growth.value)  # K / (K + Theta)
    ntk_share = -jnp.expm1(-rows.log_growth.value)  # Theta / (K + Theta)
    kept = trunk * ntk_share
    carried = square * through * ntk_share
    outer = square * branch * decay * (block in ("two_layer", "preactivation"))
    inner = square * inner * decay
    gained = ntk_share * (square * through - growth) + outer + inner
    norm = kept + carried + outer + inner
    norm = jnp.where(norm > 0, norm, 1)  # all shares are 0 while nothing is trained

    root = jnp.sqrt(total)
    log_step = jnp.log1p(growth) if trunk else jnp.log(growth)
    after = Rows(
        log_variance=add(rows.log_variance, log_step),
        log_growth=add(rows.log_growth, jnp.log1p(gained / total)),
        mean=add(rows.mean, (push - mean * growth / (1 + root)) / root)
        if trunk
        else rows.mean,
    )
    positive = mean * push > 0
    shares = _Shares(
        log_variance=entering,
        bias=bias_share,
        branch=square * branch / total,
        cross=cross / total,
        log_mean_ratio=jnp.log(
            jnp.where(positive, mean, 1) / jnp.where(positive, push, 1)
        ),
        kept=kept / norm,
        through=carried / norm,
        outer=outer / norm,
        inner=inner / norm,
    )
    return after, shares


def _bias_over_variance(spec, log_variance):
    if spec.bias_variance == 0:
        return jnp.zeros_like(log_variance)
    return spec.bias_variance * jnp.exp(-log_variance)


def step(spec: Specification, state: State, scale: Float[Array, ""]) -> State:
    """The state after one more block of branch scale `scale` (1 in plain networks)."""
    stepped = [step_rows(spec, rows, scale) for rows in state.rows]
    rows = tuple(after for after, _ in stepped)
    pair = [shares for _, shares in stepped]
    gap, cogap = state.gap.value, state.cogap.value

    affine = lambda gap: _bias_increment(spec, pair, gap)  # noqa: E731
    entering = _pairs(pair, "log_variance")
    if _block(spec) == "preactivation":
        dual = spec.activation.dual(*entering, gap, cogap)
        shift = affine(dual.gap)
        branch_gap, change = dual.gap + shift, shift - dual.drop
        affine_gap, affine_cogap = gap, cogap
    else:
        shift = affine(gap)
        affine_gap, affine_cogap = gap + shift, cogap - shift
        dual = spec.activation.dual(*entering, affine_gap, affine_cogap)
        branch_gap, change = dual.gap, shift - dual.drop

    trunk = [jnp.where(_has_trunk(spec), 1 - s.branch - s.cross, 0) for s in pair]
    w_branch, w_cross = _weight(pair, "branch"), _weight(pair, "cross")
    clash = _clash(trunk, *_shares(pair, "branch", "cross"))
    cross_gap = _cross_gap(pair)
    increment = w_branch * change + w_cross * (cross_gap - gap) + clash * (1 - gap)
    new_gap, new_cogap = add(state.gap, increment), add(state.cogap, -increment)
    # Where a block removes most of the gap, the positive terms are added up instead.
    direct = start(
        clash + _geometric(trunk) * gap + w_branch * branch_gap + w_cross * cross_gap
    )
    new_gap = jax.tree.map(
        functools.partial(jnp.where, -2 * increment > gap), direct, new_gap
    )

    ntk = state.ntk_gap.value
    slope = dual.slope_gap
    inner_gap = _product(slope, dual.slope_cogap, affine_gap, affine_cogap)
    ntk_increment = (
        _weight(pair, "through") * slope * (1 - ntk)
        + _weight(pair, "outer") * (branch_gap - ntk)
        + _weight(pair, "inner") * (inner_gap - ntk)
        + _clash(*_shares(pair, "kept", "through", "outer", "inner")) * (1 - ntk)
    )
    return State(rows, new_gap, new_cogap, add(state.ntk_gap, ntk_increment))


# ------------------------------------------------------------ sums of kernels, gap form


def _pairs(pair, name) -> tuple[Array, Array]:
    """A row quantity of both inputs, shaped to broadcast over pairs."""
    return _spread([getattr(shares, name) for shares in pair])


def _spread(values) -> tuple[Array, Array]:
    first, second = values[0], values[-1]
    if first.ndim == 0:
        return first, second
    return first[:, None], second[None, :]


def _geometric(values):
    """sqrt(f1 f2) for every pair; the share itself where all rows agree."""
    if values[0].ndim == 0:
        return values[0]
    first, second = _spread([safe_root(value) for value in values])
    return first * second


def _weight(pair, name):
    return _geometric([getattr(shares, name) for shares in pair])


def _shares(pair, *names):
    return [[getattr(shares, name) for shares in pair] for name in names]


def _clash(*shares):
    """Half the squared distance between the rows' amplitudes: 0 where rows agree."""
    if shares[0][0].ndim == 0:
        return jnp.zeros_like(shares[0][0])
    roots = [_spread([safe_root(value) for value in values]) for values in shares]
    return sum((first - second) ** 2 for first, second in roots) / 2


def _product(gap1, cogap1, gap2, cogap2):
    """Gap of a product of two kernels; two obtuse pairs make an acute one."""
    return jnp.where(
        (gap1 > 1) & (gap2 > 1),
        cogap1 + cogap2 * (1 - cogap1),
        gap1 + gap2 * (1 - gap1),
    )


def _bias_increment(spec, pair, gap):
    """What adding the bias, a kernel without gap, does to a gap."""
    if spec.bias_variance == 0:
        return jnp.zeros_like(gap)
    rest = [1 - shares.bias for shares in pair]
    clash = _clash(rest, *_shares(pair, "bias"))
    return clash * (1 - gap) - _weight(pair, "bias") * gap


def _cross_gap(pair):
    """Gap of M1 m2 + M2 m1 for means M and their increments m: 1 - cosh, at most 0."""
    first, second = _pairs(pair, "log_mean_ratio")
    return -2 * jnp.sinh((first - second) / 4) ** 2


# ----------------------------------------------------------------- first and last layer


def first_rows(spec: Specification, log_variance: Float[Array, "..."]) -> Rows:
    """The rows before the first block, from ln(|x|^2 / d)."""
    zero = jnp.zeros_like(log_variance)
    if not isinstance(spec, ResNet):
        return Rows(start(log_variance), start(zero), start(zero))
    growth = zero + spec.trains_readout
    mean = zero
    if spec.input_activation:
        moments = spec.activation.moments(log_variance)
        growth = growth * jnp.exp(moments.log_slope - moments.log_gain)
        log_variance, mean = log_variance + moments.log_gain, moments.mean
    return Rows(start(log_variance), start(jnp.log1p(growth)), start(mean))


def first_state(
    spec: Specification,
    gap: Float[Array, "..."],
    cogap: Float[Array, "..."],
    *log_variances: Float[Array, "..."],
) -> State:
    """The state before the first block, from the input kernel."""
    rows = tuple(first_rows(spec, value) for value in log_variances)
    ntk_gap = jnp.zeros_like(gap)
    if isinstance(spec, ResNet):
        if spec.trains_readout:
            ntk_gap = gap
        if spec.input_activation:
            dual = spec.activation.dual(*_spread(log_variances), gap, cogap)
            if spec.trains_readout:
                ntk_gap = _product(dual.slope_gap, dual.slope_cogap, gap, cogap)
            gap, cogap = dual.gap, cogap + dual.drop
    return State(rows, start(gap), start(cogap), start(ntk_gap))


def log_diagonals(spec: Specification, rows: Rows) -> tuple[Array, Array]:
    """ln K(x, x) and ln Theta(x, x); -inf where nothing has been trained."""
    log_variance, growth = rows.log_variance.value, rows.log_growth.value
    if spec.trains_readout:  # whose gradient adds K
        return log_variance, log_variance + growth
    nothing = growth == 0
    safe = jnp.where(nothing, 1, growth)
    log_ratio = jnp.where(nothing, -jnp.inf, safe + jnp.log(-jnp.expm1(-safe)))
    return log_variance, log_variance + log_ratio


def readout(spec: Specification, state: State) -> Kernels:
    """Both kernels of the network that ends after the blocks so far.

    The NTK's gap is NaN where its diagonal is zero: nothing has been trained.
    """
    logs = [log_diagonals(spec, rows) for rows in state.rows]
    gap, ntk_gap = state.gap.value, state.ntk_gap.value
    if spec.trains_readout:
        own = [jnp.exp(-rows.log_growth.value) for rows in state.rows]
        rest = [-jnp.expm1(-rows.log_growth.value) for rows in state.rows]
        clash = _clash(own, rest)
        ntk_gap = ntk_gap + (_geometric(own) * (gap - ntk_gap) + clash * (1 - ntk_gap))
    else:
        first, second = _spread([ntk for _, ntk in logs])
        ntk_gap = jnp.where((first > -jnp.inf) & (second > -jnp.inf), ntk_gap, jnp.nan)
    return Kernels(
        gap,
        state.cogap.value,
        ntk_gap,
        tuple(nngp for nngp, _ in logs),
        tuple(ntk for _, ntk in logs),
    )


def cosine(kernels: Kernels) -> Float[Array, "..."]:
    """The normalised NNGP, exact to rounding at both ends."""
    acute = kernels.nngp_gap <= kernels.nngp_cogap
    return jnp.where(acute, 1 - kernels.nngp_gap, kernels.nngp_cogap - 1)


def quantities(kernels: Kernels) -> dict[str, Array]:
    """The normalised kernels and their gaps, by name."""
    return {
        "nngp": cosine(kernels),
        "ntk": 1 - kernels.ntk_gap,
        "nngp_gap": kernels.nngp_gap,
        "ntk_gap": kernels.ntk_gap,
    }


# ----------------------------------------------------------------------- all the blocks

_MOST_BLOCKS = 10**8  # about a gigabyte of scales, and hours


def block_scales(spec: Specification) -> Float[np.ndarray, " depth"]:
    """The branch scales in float64; ones for a plain network, which has none.

    Raises:
        ValueError: there are too many blocks to go through them one by one.
    """
    if spec.depth > _MOST_BLOCKS:
        raise ValueError(
            f"depth is {spec.depth:,}, but these kernels go block by block, at most "
            f"{_MOST_BLOCKS:,}; deeper there are profiles of plain, two-layer and "
            "pre-activation networks of the ReLU family without bias."
        )
    return spec.scales if isinstance(spec, Residual) else np.ones(spec.depth)


def propagate(
    spec: Specification, state: State, scales: Float[Array, " depth"]
) -> State:
    """The state after `len(scales)` blocks, by one scan; differentiable."""
    return jax.lax.scan(
        lambda state, scale: (step(spec, state, scale), None), state, scales
    )[0]


def shape_of(spec: Specification) -> Specification:
    """The specification without depth and scales: networks that share compilations."""
    if isinstance(spec, ResNet):
        return spec.replace(depth=1, branch_scale=1.0)
    return spec.replace(depth=1)
