r"""The dual of the ReLU family as a function of the cosine, for whole planes of pairs.

Where only the values of kernels are asked for, not their gaps, one minus the cosine may
be rounded, and polynomials are several times as fast as the library's arc cosine. With
the angle :math:`\theta` and its gap :math:`g = 1 - \cos\theta` both kernels follow from

.. math::
    \theta = \sqrt g\, \sum_k c_k g^k, \qquad
    \sin\theta - \theta\cos\theta = \int_0^g \theta\, dg
        = g^{3/2} \sum_k \frac{c_k}{k + 3/2}\, g^k,

with coefficients that fall as :math:`2^{-k}` (those of the arc sine). Up to a right
angle polynomials replace both series; beyond it the supplement is taken.
"""

import functools
import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_resnet._numerics import safe_root


def activation_cosine(
    gap: Float[Array, "..."], even_share: float
) -> Float[Array, "..."]:
    r"""The normalised kernel of activations, from `gap`, 1 - cosine :math:`u`.

    With the share :math:`\lambda` of the absolute value (`PiecewiseLinear.even_share`)
    :math:`(1-\lambda) u + \lambda\frac2\pi(\sqrt{1-u^2} + u \arcsin u)`. Errors of
    at most 2 eps of 1 for the gap as given
    (`tests/kernels/convolution/test_convolution.py`).
    """
    acute, _ = _acute(gap)
    bent = _horner(_series(gap.dtype.name, integrated=True), acute)
    even = (1 - acute) + (2 / math.pi) * acute * safe_root(acute) * bent
    return (1 - even_share) * (1 - gap) + even_share * even


def slope_cosine(gap: Float[Array, "..."], even_share: float) -> Float[Array, "..."]:
    r"""The normalised kernel of slopes, :math:`1 - 2\lambda\theta/\pi`; as above."""
    acute, obtuse = _acute(gap)
    angle = safe_root(acute) * _horner(_series(gap.dtype.name), acute)
    odd = 1 - (2 / math.pi) * angle
    return (1 - even_share) + even_share * jnp.where(obtuse, -odd, odd)


def _acute(gap):
    """The gap of the lesser one of angle and supplement, and whether it is the latter.

    At a right angle both are the same, and so are their derivatives but for the sign.
    """
    obtuse = gap > 1
    return jnp.where(obtuse, 2 - gap, gap), obtuse


def _horner(coefficients, x):
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + x.dtype.type(coefficient)
    return total


@functools.cache
def _series(dtype: str, *, integrated: bool = False) -> tuple[float, ...]:
    """A polynomial for one of the series on [0, 1], to the dtype's eps.

    The series in Chebyshev polynomials, cut off, and in powers again: by fractions, as
    a fit in float64 is off by 4 eps, and differently on different processors.
    """
    taylor, most = [Fraction(math.isqrt(2 * 10**60), 10**30)], 80  # root of 2
    for k in range(1, most):
        taylor.append(taylor[-1] * Fraction((2 * k - 1) ** 2, 4 * k * (2 * k + 1)))
    if integrated:
        taylor = [c / (k + Fraction(3, 2)) for k, c in enumerate(taylor)]
    # x^k = 2 / 4^k sum_j binom(2 k, k - j) T_j(2 x - 1), of T_0 the half.
    chebyshev = [
        sum(taylor[k] * Fraction(math.comb(2 * k, k - j), 4**k) for k in range(j, most))
        * (2 if j else 1)
        for j in range(most // 2)
    ]
    dropped = np.cumsum(np.array(chebyshev[::-1], float))[::-1]
    terms = int(np.argmax(dropped < np.finfo(dtype).eps))
    powers = np.zeros((terms, terms), object)  # of T_j(2 x - 1)
    powers[0, 0], powers[1, :2] = 1, (-1, 2)
    for j in range(2, terms):
        doubled = 2 * np.roll(powers[j - 1], 1) - powers[j - 1]
        powers[j] = 2 * doubled - powers[j - 2]
    return tuple(map(float, np.array(chebyshev[:terms], object) @ powers))
