"""The hyperbolic tangent: by quadrature, and to many digits by Mehler's series."""

import dataclasses
import math
from typing import no_type_check

import jax.numpy as jnp

from ntk_resnet.activations.quadrature import QuadratureActivation

_LONGEST_SERIES = 20_000


@dataclasses.dataclass(frozen=True)
class Tanh(QuadratureActivation):
    """The hyperbolic tangent, by quadrature (it has no closed dual)."""

    def __call__(self, z):
        return jnp.tanh(z)

    def precise_pair(self, variance):
        from flint import arb_poly

        terms = _mehler_terms(variance)
        second = arb_poly(terms)
        slope = arb_poly([(2 * i + 1) * term for i, term in enumerate(terms)])

        @no_type_check
        def pair(u):
            c = variance * u
            square = c * c
            return c * second(square), slope(square)

        return pair

    def precise_mean(self, variance):
        return 0 * variance  # odd


def _mehler_terms(p):
    r"""Mehler's: of :math:`E\,\varphi\varphi' = \sum_k c^k (E\,\varphi^{(k)})^2 / k!`.

    Those of odd k, the others vanish. The Fourier transform of tanh' is
    :math:`\pi s / \sinh(\pi s / 2)`, so up to its sign
    :math:`E\,\varphi^{(k)} = \int_0^\infty s^k e^{-p s^2/2} / \sinh(\pi s/2)\,ds`: a
    positive integrand, even and analytic for |Im s| < 2, where the trapezoid rule
    converges geometrically.
    """
    from flint import arb, arb_mat, ctx

    nats, spread = (ctx.prec + 16) * math.log(2), float(p)
    length = math.ceil(40 + 1.1 * spread * (nats / math.pi) ** 2)
    if length > _LONGEST_SERIES:  # the terms fall as exp(-pi sqrt(k / p))
        raise ValueError(
            f"tanh at the variance {spread:.3g} needs a series of {length} terms in "
            f"{ctx.prec} bits; take a smaller degree or variance, or 'erf'."
        )
    step = 4 * math.pi / (nats + 2 * spread)
    # Beyond, the integrand has fallen by e^-nats from its peak.
    last = 2 * (length + math.sqrt(2 * length * nats) + nats) / math.pi
    last = min(last, math.sqrt(length / spread) + math.sqrt(2 * nats / spread))
    nodes = [arb(step) * i for i in range(1, math.ceil(last / step) + 1)]
    squares = [(s * s).mid() for s in nodes]
    half_pi = arb.pi() / 2
    weights = [
        (step * s * (-p * square / 2).exp() / (half_pi * s).sinh()).mid()
        for s, square in zip(nodes, squares, strict=True)
    ]
    # s^k for all odd k, as products of few powers: one product of matrices.
    block = math.isqrt(length // 2) + 1
    low = list(_powers([arb(1)] * len(nodes), squares, block))
    leaps = [(square**block).mid() for square in squares]
    high = list(_powers(weights, leaps, block))
    moments = (arb_mat(high) * arb_mat(low).transpose()).entries()
    moments[0] += arb(step) / arb.pi()  # half the integrand at 0, which only k = 1 has
    terms, factorial = [], arb(1)
    for i, moment in enumerate(moments):
        terms.append((moment * moment / factorial).mid())
        factorial *= (2 * i + 2) * (2 * i + 3)
    return terms


def _powers(values, factors, count):
    """`values` times the powers 0 to `count - 1` of `factors`."""
    for _ in range(count):
        yield values
        values = [(v * f).mid() for v, f in zip(values, factors, strict=True)]
