"""The dual of the ReLU family as a function of the cosine, for whole planes of pairs.

Where only the values of kernels are asked for, not their gaps, one minus the cosine may
be rounded, and polynomials are several times as fast as the library's arc cosine.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_resnet._duals.base import safe_root


def dual_cosines(
    gap: Float[Array, "..."], kink: float
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Normalised kernels of activations and of slopes, from `gap`, 1 - cosine.

    With the share :math:`\lambda` of the absolute value (`PiecewiseLinear.kink`):
    :math:`(1-\lambda) u + \lambda\frac2\pi(\sqrt{1-u^2} + u \arcsin u)` and
    :math:`1 - 2\lambda\theta/\pi`. Errors of a few eps of 1 for the gap as given.
    """
    obtuse = gap > 1
    lesser = jnp.where(obtuse, 2 - gap, gap)  # of the acute one of angle and supplement
    acute = _acute_angle(lesser)
    cosine = 1 - lesser
    sine = safe_root(lesser * (2 - lesser))
    bent = (2 / math.pi) * (sine + cosine * (math.pi / 2 - acute))
    sign = jnp.where(obtuse, -1, 1).astype(gap.dtype)
    angle = math.pi / 2 - sign * (math.pi / 2 - acute)
    return (
        (1 - kink) * sign * cosine + kink * bent,
        1 - (2 * kink / math.pi) * angle,
    )


def _acute_angle(gap):
    """arccos(1 - gap) for 0 <= gap <= 1, as 2 arcsin or pi/2 - arcsin below 1/2."""
    near = gap < 0.5
    square = jnp.where(near, gap / 2, (1 - gap) * (1 - gap))
    arcsine = jnp.where(near, safe_root(gap / 2), 1 - gap)
    arcsine = arcsine * _horner(_arcsine_series(gap.dtype.name), square)
    return jnp.where(near, 2 * arcsine, math.pi / 2 - arcsine)


def _horner(coefficients, x):
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + x.dtype.type(coefficient)
    return total


@functools.cache
def _arcsine_series(dtype: str) -> tuple[float, ...]:
    """arcsin(s)/s as a polynomial in s^2 <= 1/4, to a fraction of the dtype's eps."""
    terms = 7 if dtype == "float32" else 15
    nodes = np.polynomial.chebyshev.chebpts1(40) / 8 + 1 / 8
    root = np.sqrt(nodes)
    fitted = np.polynomial.Chebyshev.fit(
        nodes, np.arcsin(root) / root, terms - 1, domain=[0, 0.25]
    )
    return tuple(fitted.convert(kind=np.polynomial.Polynomial).coef)
