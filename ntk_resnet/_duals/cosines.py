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

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_resnet._duals.base import safe_root


def activation_cosine(gap: Float[Array, "..."], kink: float) -> Float[Array, "..."]:
    r"""The normalised kernel of activations, from `gap`, 1 - cosine :math:`u`.

    With the share :math:`\lambda` of the absolute value (`PiecewiseLinear.kink`)
    :math:`(1-\lambda) u + \lambda\frac2\pi(\sqrt{1-u^2} + u \arcsin u)`. Errors of a
    few eps of 1 for the gap as given.
    """
    acute, _ = _acute(gap)
    bent = _horner(_series(gap.dtype.name, integrated=True), acute)
    even = (1 - acute) + (2 / math.pi) * acute * safe_root(acute) * bent
    return (1 - kink) * (1 - gap) + kink * even


def slope_cosine(gap: Float[Array, "..."], kink: float) -> Float[Array, "..."]:
    r"""The normalised kernel of slopes, :math:`1 - 2\lambda\theta/\pi`; as above."""
    acute, obtuse = _acute(gap)
    angle = safe_root(acute) * _horner(_series(gap.dtype.name), acute)
    odd = 1 - (2 / math.pi) * angle
    return (1 - kink) + kink * jnp.where(obtuse, -odd, odd)


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
    """A polynomial for one of the series on [0, 1], to the dtype's eps."""
    k = np.arange(80)
    ratios = (2 * k[1:] - 1) ** 2 / (4 * k[1:] * (2 * k[1:] + 1))
    taylor = math.sqrt(2) * np.cumprod([1.0, *ratios])
    if integrated:
        taylor = taylor / (k + 1.5)
    nodes = np.polynomial.chebyshev.chebpts1(60) / 2 + 0.5
    values = np.polynomial.polynomial.polyval(nodes, taylor)
    fitted = np.polynomial.Chebyshev.fit(nodes, values, 24, domain=[0, 1])
    dropped = np.cumsum(np.abs(fitted.coef[::-1]))[::-1]
    fitted = fitted.truncate(int(np.argmax(dropped < np.finfo(dtype).eps)))
    return tuple(fitted.convert(kind=np.polynomial.Polynomial).coef)
