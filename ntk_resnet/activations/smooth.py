"""The error function and GELU in closed form, as differences that do not cancel."""

import dataclasses
import math
from typing import no_type_check

import jax
import jax.numpy as jnp

from ntk_resnet.activations.base import (
    AbstractActivation,
    Dual,
    Moments,
    at_least_tiny,
    smallest,
)


def _variance(log_variance):
    """exp, capped where erf and GELU have reached their limits to rounding.

    Large, they are a step and ReLU; small, they are linear. Squares stay in range.
    """
    return jnp.exp(jnp.minimum(at_least_tiny(log_variance), -smallest(log_variance)))


def _mismatch(log_variance1, log_variance2, aligned_cosine):
    """1 - cosine of phi(sqrt(p1) z) and phi(sqrt(p2) z); exactly 0 where p1 = p2.

    It is of second order in ln(p1/p2), so below sqrt(eps) it vanishes to rounding.
    """
    eps = jnp.finfo(log_variance1.dtype).eps
    same = jnp.abs(log_variance1 - log_variance2) < math.sqrt(eps)
    return jnp.where(same, 0, jnp.maximum(1 - aligned_cosine, 0))


def _asin_difference(a, b, sqrt_1_a2, sqrt_1_b2, a_minus_b):
    """asin(a) - asin(b) for a, b >= 0, from their exact difference."""
    return jnp.arcsin(a_minus_b * (a + b) / (a * sqrt_1_b2 + b * sqrt_1_a2))


@dataclasses.dataclass(frozen=True)
class Erf(AbstractActivation):
    r"""The error function (Williams 1997): :math:`E\,\varphi\varphi' = (2/\pi)
    \arcsin(2c / \sqrt{(1+2p_1)(1+2p_2)})`.

    Accuracy: gaps to 32 eps relative where the variances are equal, 8 eps absolute
    where they differ (`tests/activations/test_activations.py`).
    """

    def __call__(self, z):
        return jax.lax.erf(z)

    def moments(self, log_variance):
        p = _variance(log_variance)
        second = (2 / math.pi) * _erf_asin(p)
        return Moments(
            jnp.log(second) - at_least_tiny(log_variance),
            math.log(4 / math.pi) - jnp.log1p(4 * p) / 2,
            jnp.zeros_like(p),
        )

    def dual(self, log_variance1, log_variance2, gap, supplement_gap):
        p1, p2 = _variance(log_variance1), _variance(log_variance2)
        obtuse = gap > supplement_gap
        lesser = jnp.where(
            obtuse, supplement_gap, gap
        )  # erf is odd: reflect obtuse pairs
        size = jnp.sqrt((1 + 2 * p1) * (1 + 2 * p2))
        aligned = 2 * jnp.sqrt(p1 * p2) / size
        sin2 = 4 * p1 * p2 * gap * supplement_gap
        rest = 1 + 2 * p1 + 2 * p2
        difference = _asin_difference(
            aligned,
            aligned * (1 - lesser),
            jnp.sqrt(rest) / size,
            jnp.sqrt(rest + sin2) / size,
            aligned * lesser,
        )
        norm = jnp.sqrt(_erf_asin(p1) * _erf_asin(p2))
        mismatch = _mismatch(log_variance1, log_variance2, jnp.arcsin(aligned) / norm)
        after = mismatch + difference / norm
        slope1, slope2 = 1 + 4 * p1, 1 + 4 * p2
        still = jnp.sqrt(slope1 * slope2)
        moved = rest + sin2
        excess = sin2 + 4 * (p1 - p2) ** 2 / (rest + still)
        slope_gap = excess / (jnp.sqrt(moved) * (jnp.sqrt(moved) + jnp.sqrt(still)))
        # Near pi the cosine is that of the reflected pair, with the other sign.
        return Dual(
            gap=jnp.where(obtuse, 2 - after, after),
            gap_decrease=jnp.where(obtuse, after - supplement_gap, gap - after),
            slope_gap=slope_gap,
            slope_supplement_gap=2 - slope_gap,
        )

    def precise_pair(self, variance):
        from flint import arb

        p = variance
        size, factor = 1 + 2 * p, 2 / arb.pi()
        ratio, square = 2 * p / size, size * size

        @no_type_check
        def pair(u):
            c = 2 * p * u
            return factor * (ratio * u).asin(), 2 * factor * (square - c * c).rsqrt()

        return pair

    def precise_mean(self, variance):
        return 0 * variance  # odd

    def stax(self, nt_stax):
        return nt_stax.Erf()


def _erf_asin(p):
    """asin(2p/(1+2p)), by the arc tangent, which is exact also for large p."""
    return jnp.arctan2(2 * p, jnp.sqrt(1 + 4 * p))


@dataclasses.dataclass(frozen=True)
class Gelu(AbstractActivation):
    r"""`z Phi(z)` with the normal distribution function (Tsuchida et al. 2021).

    With :math:`S = (1+p_1)(1+p_2)`, :math:`D = S - c^2`, :math:`s = p_1 + p_2` and
    :math:`\nu = (1 - p_1 p_2)/S`,

    .. math::
        E\,\varphi\varphi' &=
            c\,\Big(\tfrac14 + \tfrac1{2\pi}\arcsin\tfrac{c}{\sqrt S}\Big)
            + \frac{1}{2\pi}\Big(\frac{1}{\sqrt D} - \nu\sqrt D\Big), \\
        E\,\varphi'\varphi'' &= \tfrac14 + \tfrac1{2\pi}\arcsin\tfrac{c}{\sqrt S}
            + \frac{c}{2\pi}\Big(D^{-3/2} + \frac{2+s}{S} D^{-1/2}\Big),

    the second line for the slopes, the derivative of the first in `c` (Price).

    Accuracy: gaps to 16 eps relative where the variances are equal, 16 eps absolute
    where they differ (`tests/activations/test_activations.py`).
    """

    def __call__(self, z):
        return jax.nn.gelu(z, approximate=False)

    def moments(self, log_variance):
        p = _variance(log_variance)
        root = jnp.sqrt(1 + 2 * p)
        arc = 0.25 + jnp.arctan2(p, root) / (2 * math.pi)
        gain = arc + p / ((1 + p) * root * math.pi)
        slope = arc + p / (2 * math.pi) * (root**-3 + 2 / ((1 + p) * root))
        mean = jnp.sqrt(p / (1 + p) / (2 * math.pi))
        return Moments(jnp.log(gain), jnp.log(slope), mean / jnp.sqrt(gain))

    def dual(self, log_variance1, log_variance2, gap, supplement_gap):
        p1, p2 = _variance(log_variance1), _variance(log_variance2)
        product, total = p1 * p2, p1 + p2
        aligned = jnp.sqrt(product)  # c at gap 0, where D = 1 + p1 + p2
        fall = aligned * gap  # aligned - c
        c = aligned - fall
        size = (1 + p1) * (1 + p2)
        ratio = (2 + total) / size  # 1 + nu
        excess = product * gap * supplement_gap  # D - (1 + p1 + p2)
        root0, root = jnp.sqrt(1 + total), jnp.sqrt(1 + total + excess)
        rise = excess / (root + root0)  # root - root0
        arc0, arc = jnp.arctan2(aligned, root0), jnp.arctan2(c, root)
        # sin(arc0 - arc) for c > 0. The terms c * sine and rise nearly cancel at large
        # variances, so their difference is written out.
        both = aligned * root + jnp.maximum(c, 0) * root0
        sine = excess / both
        acute = (
            jnp.maximum(c, 0) * _arcsin_minus(sine)
            - sine * fall * (root / (root + root0))
            + ratio * rise
            + rise / (root * root0)
        )
        value0 = aligned * (math.pi / 2 + arc0) + product * ratio / root0
        nu_excess = (1 - product) / size * excess
        value = c * (math.pi / 2 + arc) + (product * ratio - nu_excess) / root
        difference = jnp.where(
            c > 0, fall * (math.pi / 2 + arc0) + acute, value0 - value
        )
        turn = jnp.where(c > 0, jnp.arcsin(sine), arc0 - arc)
        inverse0, inverse = 1 / root0, 1 / root
        inverse_fall = rise * inverse * inverse0  # inverse0 - inverse
        slope_difference = (
            turn
            + fall * inverse**3
            + aligned
            * inverse_fall
            * (inverse0**2 + inverse0 * inverse + inverse**2 + ratio)
            + fall * ratio * inverse
        )
        slope0 = math.pi / 2 + arc0 + aligned * inverse0 * (inverse0**2 + ratio)
        first, second = self.moments(log_variance1), self.moments(log_variance2)
        norm = 2 * math.pi * aligned * jnp.exp((first.log_gain + second.log_gain) / 2)
        slope_norm = 2 * math.pi * jnp.exp((first.log_slope + second.log_slope) / 2)
        same = log_variance1, log_variance2
        after = _mismatch(*same, value0 / norm) + difference / norm
        slope_after = (
            _mismatch(*same, slope0 / slope_norm) + slope_difference / slope_norm
        )
        return Dual(after, gap - after, slope_after, 2 - slope_after)

    def precise_pair(self, variance):
        from flint import arb

        p = variance
        size, over = (1 + p) ** 2, 1 / (2 * arb.pi())
        nu, root, quarter = (1 - p * p) / size, 1 / (1 + p), arb(1) / 4

        @no_type_check
        def pair(u):
            c = p * u
            rest = size - c * c
            inverse = rest.rsqrt()
            arc = quarter + over * (c * root).asin()
            return (
                c * arc + over * inverse * (1 - nu * rest),
                arc + over * c * inverse * (inverse * inverse + 1 + nu),
            )

        return pair

    def precise_mean(self, variance):
        from flint import arb

        return variance / (2 * arb.pi() * (1 + variance)).sqrt()

    def stax(self, nt_stax):
        return nt_stax.Gelu()


def _arcsin_minus(w):
    """asin(w) - w, by its series below 0.3."""
    terms, coefficient = [0.0], 1.0
    for k in range(1, 16):
        coefficient *= (2 * k - 1) / (2 * k)
        terms.append(coefficient / (2 * k + 1))
    square = jnp.minimum(w, 0.3) ** 2
    series = w * jnp.polyval(jnp.asarray(terms[::-1], w.dtype), square)
    return jnp.where(w < 0.3, series, jnp.arcsin(w) - w)
