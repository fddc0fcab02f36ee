"""The ReLU family, exact at angles next to 0 and to pi."""

import dataclasses
import math
from typing import no_type_check

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntk_resnet._checks import check_number
from ntk_resnet.activations.base import AbstractActivation, Dual, Moments
from ntk_resnet.activations.cosines import activation_cosine, slope_cosine


@dataclasses.dataclass(frozen=True)
class PiecewiseLinear(AbstractActivation):
    r"""`phi(z) = negative * z` below 0 and `positive * z` above: ReLU and its family.

    With :math:`\lambda = (b-a)^2 / (2(a^2+b^2))` for slopes `a, b` (1/2 for ReLU, 1 for
    the absolute value, 0 for the identity) the cosine `u = cos(theta)` becomes
    :math:`(1-\lambda) u + \lambda \kappa_{abs}(u)`,
    :math:`\kappa_{abs} = (2/\pi)(\sqrt{1-u^2} + u \arcsin u)`, and the cosine of the
    slopes is :math:`1 - 2\lambda\theta/\pi` (Cho and Saul 2009, orders 1 and 0).

    Accuracy: `gap`, `gap_decrease` and `slope_gap` to 8 eps relative for angles from
    1e-6 (1e-3 in float32) to pi (`tests/activations/test_activations.py`, against
    50-digit arithmetic).
    """

    negative: float
    positive: float
    homogeneous = True

    def __post_init__(self):
        for name in ("negative", "positive"):
            value = getattr(self, name)
            size = abs(value) if isinstance(value, int | float) else value
            check_number(f"the size of the {name} slope", size)
            object.__setattr__(self, name, float(value))
        if self.negative == self.positive == 0:
            raise ValueError("the slopes of an activation cannot both be 0.")

    @property
    def has_kink(self) -> bool:
        return self.negative != self.positive

    @property
    def even_share(self) -> float:
        """lambda, the share of the even part |z| in E phi^2, in [0, 1]."""
        a, b = self.negative, self.positive
        return (b - a) * (b - a) / (2 * (a * a + b * b))

    @property
    def unit_second_moment(self) -> float:  # exact, so that ReLU gives exactly 2
        return (self.negative * self.negative + self.positive * self.positive) / 2

    def __call__(self, z):
        return jnp.where(z < 0, self.negative, self.positive) * z

    def moments(self, log_variance):
        log_gain = jnp.full_like(log_variance, math.log(self.unit_second_moment))
        mean = (self.positive - self.negative) / math.sqrt(
            2 * math.pi * self.unit_second_moment
        )
        return Moments(log_gain, log_gain, jnp.full_like(log_variance, mean))

    def dual(self, log_variance1, log_variance2, gap, supplement_gap):
        del log_variance1, log_variance2  # homogeneous
        share = self.even_share
        obtuse = gap > supplement_gap
        lesser = jnp.where(obtuse, supplement_gap, gap)
        bend = _bend(gap, supplement_gap)
        # kappa_abs is even: it sees the smaller of the angle and its supplement.
        straight = jnp.where(obtuse, gap - supplement_gap, 0)
        theta, rest = angles(gap, supplement_gap)
        # At obtuse angles both can be nearly equal: add up, do not subtract.
        after = (1 - share) * jnp.where(obtuse, gap, lesser) + share * (lesser - bend)
        return Dual(
            gap=after,
            gap_decrease=share * (straight + bend),
            slope_gap=(2 * share / math.pi) * theta,
            slope_supplement_gap=2 * (1 - share) + (2 * share / math.pi) * rest,
        )

    def cosines(self, log_variance1, log_variance2, gap):
        del log_variance1, log_variance2  # homogeneous
        return activation_cosine(gap, self.even_share), slope_cosine(
            gap, self.even_share
        )

    def precise_pair(self, variance):
        from flint import arb  # loaded by those who ask for many digits

        a, b = arb(self.negative), arb(self.positive)
        gain = (a * a + b * b) / 2
        bend = (b - a) ** 2 / (2 * arb.pi())  # gain 2 lambda / pi
        straight, bent = variance * gain, variance * bend

        @no_type_check
        def pair(u):
            if bend == 0:
                return straight * u, gain
            sine = ((1 - u) * (1 + u)).sqrt()
            angle = arb.atan2(sine, u)
            # kappa_abs - u = (2 / pi)(sine - u angle)
            return straight * u + bent * (sine - u * angle), gain - bend * angle

        return pair

    def precise_mean(self, variance):
        from flint import arb

        rise = arb(self.positive) - arb(self.negative)
        return rise * (variance / (2 * arb.pi())).sqrt()

    def stax(self, nt_stax):
        # do_stabilize keeps deep kernels in range.
        return nt_stax.ABRelu(self.negative, self.positive, do_stabilize=True)


def LeakyReLU(slope: float = 0.01) -> PiecewiseLinear:
    """`phi(z) = slope * z` below 0 and `z` above."""
    return PiecewiseLinear(slope, 1.0)


def _acute(gap, supplement_gap):
    """The smaller of the angle and its supplement, exact at both ends."""
    lesser, greater = jnp.minimum(gap, supplement_gap), jnp.maximum(gap, supplement_gap)
    return 2 * jnp.arctan2(jnp.sqrt(lesser), jnp.sqrt(greater))


@jax.custom_jvp
def angles(
    gap: Float[Array, "..."], supplement_gap: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The angle of these gaps, 1 - cosine and 1 + cosine, and its supplement.

    The derivative, infinite at 0 and pi, is defined as 0 there: kernels have a cusp at
    coincident inputs, and their gradient is the mean over its two sides.
    """
    acute = _acute(gap, supplement_gap)
    obtuse = gap > supplement_gap
    return (
        jnp.where(obtuse, jnp.pi - acute, acute),
        jnp.where(obtuse, acute, jnp.pi - acute),
    )


@angles.defjvp
def _(primals, tangents):
    gap, supplement_gap = primals
    square = gap * supplement_gap
    sine = jnp.sqrt(jnp.where(square > 0, square, 1))
    turn = _gap_tangent(primals, tangents) * jnp.where(square > 0, 1 / sine, 0)
    return angles(gap, supplement_gap), (turn, -turn)


def _gap_tangent(primals, tangents):
    """Of gap = 2 - supplement_gap, from the smaller, more exact of the two."""
    return jnp.where(primals[0] > primals[1], -tangents[1], tangents[0])


@jax.custom_jvp
def _bend(gap, supplement_gap):
    """(2/pi)(sin t - t cos t) = kappa_abs(cos t) - cos t, t the acute angle."""
    t = _acute(gap, supplement_gap)
    # 2k / (2k+1)! with alternating signs; seven terms are exact to float64 below 1/2.
    coefficients = [
        (-1) ** (k + 1) * 2 * k / math.factorial(2 * k + 1) for k in range(1, 8)
    ]
    series = t**3 * jnp.polyval(jnp.asarray(coefficients[::-1], t.dtype), t * t)
    direct = jnp.sqrt(gap * supplement_gap) - t * jnp.abs(supplement_gap - gap) / 2
    return (2 / math.pi) * jnp.where(t < 0.5, series, direct)


@_bend.defjvp
def _(primals, tangents):
    gap, supplement_gap = primals
    # d/dgap of the deficit is 2 t / pi; the acute angle falls where gap is greater.
    sign = jnp.where(gap > supplement_gap, -1, 1)
    slope = sign * (2 / math.pi) * _acute(gap, supplement_gap)
    return _bend(gap, supplement_gap), slope * _gap_tangent(primals, tangents)
