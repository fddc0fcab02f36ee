"""Smooth activations without a closed dual: Hermite series from quadrature."""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_resnet.activations.base import AbstractActivation, Dual, Moments, at_least_tiny

# Relative error of the slope's second moment beyond which the result is NaN.
_RESOLVED = 2e-5
_STAX_POINTS = 100  # of neural-tangents' quadrature, along each axis


@functools.cache
def _hermite_table(terms: int, nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gauss-Hermite nodes, weights, and weight times the first `terms` polynomials.

    The polynomials are orthonormal under the standard normal distribution.
    """
    from scipy.special import roots_hermitenorm

    x, weight = roots_hermitenorm(nodes)
    weight = weight / math.sqrt(2 * math.pi)
    rows = np.empty((terms, nodes))
    rows[0], rows[1] = np.sqrt(weight), x * np.sqrt(weight)
    for k in range(1, terms - 1):
        rows[k + 1] = (x * rows[k] - math.sqrt(k) * rows[k - 1]) / math.sqrt(k + 1)
    return x, weight, rows * np.sqrt(weight)


class QuadratureActivation(AbstractActivation):
    r"""Any smooth activation, by its Hermite expansion (Mehler's formula).

    With :math:`a_k(p) = E\,\varphi(\sqrt p g)\,he_k(g)` from Gauss-Hermite quadrature,
    :math:`E\,\varphi\varphi' = \sum_k a_k(p_1) a_k(p_2) u^k`. In gap form
    :math:`1 - u^k = (1-u)(1 + u + \dots + u^{k-1})`, so the sum over k becomes one
    polynomial with coefficients that are tails of the series: no cancellation.

    Accuracy: for tanh 1e-12 up to variance 1, 1e-9 up to 4 and 1e-6 up to 10
    (`tests/activations/test_activations.py`); the series has 256 terms from 512 nodes.
    Where the series of the slope's second moment has not converged to 2e-5 (tanh at
    variances above 10; functions with a kink) the result is NaN, which `kernel_fn`
    refuses.
    """

    _terms = 256
    _nodes = 512

    def _coefficients(self, log_variance):
        """Unit vectors `(terms, ...)`: of phi, and of its slope."""
        _, _, table = _hermite_table(self._terms, self._nodes)
        values = self._at_nodes(self, log_variance)
        a = jnp.moveaxis(values @ jnp.asarray(table.T, values.dtype), -1, 0)
        k = jnp.arange(1, self._terms, dtype=a.dtype).reshape(-1, *(1,) * (a.ndim - 1))
        b = jnp.concatenate([jnp.sqrt(k) * a[1:], jnp.zeros_like(a[:1])])
        resolved = self._is_resolved(log_variance)
        unit = lambda v: jnp.where(  # noqa: E731
            resolved, v / jnp.sqrt(jnp.sum(v * v, axis=0)), jnp.nan
        )
        return unit(a), unit(b)

    def _is_resolved(self, log_variance):
        """Whether the series of the slope's second moment has converged.

        It is the last of all to converge: sum k a_k^2 = p E phi'^2.
        """
        _, weight, table = _hermite_table(self._terms, self._nodes)
        p = jnp.exp(at_least_tiny(log_variance))
        a = self._at_nodes(self, log_variance) @ jnp.asarray(table.T, p.dtype)
        series = jnp.asarray(np.arange(self._terms), p.dtype)
        slope = self._at_nodes(self._slope, log_variance)
        integral = p * (slope**2 @ jnp.asarray(weight, p.dtype))
        return jnp.abs(a**2 @ series - integral) <= _RESOLVED * integral

    def _slope(self, z):
        return jax.jvp(self, (z,), (jnp.ones_like(z),))[1]

    def _at_nodes(self, function, log_variance):
        x, _, _ = _hermite_table(self._terms, self._nodes)
        scale = jnp.exp(at_least_tiny(log_variance) / 2)[..., None]
        return function(scale * jnp.asarray(x, log_variance.dtype))

    def moments(self, log_variance):
        _, table, _ = _hermite_table(self._terms, self._nodes)
        weight = jnp.asarray(table, log_variance.dtype)
        values = self._at_nodes(self, log_variance)
        second = values**2 @ weight
        # Even part only: rounding would leave odd functions a mean of either sign.
        mean = (values + values[..., ::-1]) @ weight / 2
        return Moments(
            jnp.log(second) - at_least_tiny(log_variance),
            jnp.where(
                self._is_resolved(log_variance),
                jnp.log(self._at_nodes(self._slope, log_variance) ** 2 @ weight),
                jnp.nan,
            ),
            mean / jnp.sqrt(second),
        )

    def dual(self, log_variance1, log_variance2, gap, supplement_gap):
        del supplement_gap
        u = 1 - gap
        (a1, b1), (a2, b2) = map(self._coefficients, (log_variance1, log_variance2))
        zero = jnp.zeros_like(u)

        def horner(carry, coefficients):
            a1, a2, b1, b2 = coefficients
            tail, poly, slope_tail, slope_poly = carry
            tail, slope_tail = tail + a1 * a2, slope_tail + b1 * b2
            return (
                tail,
                poly * u + tail,
                slope_tail,
                slope_poly * u + slope_tail,
            ), None

        (_, poly, _, slope_poly), _ = jax.lax.scan(
            horner, (zero,) * 4, (a1[1:], a2[1:], b1[1:], b2[1:]), reverse=True
        )
        after = jnp.sum((a1 - a2) ** 2, axis=0) / 2 + gap * poly
        slope_gap = jnp.sum((b1 - b2) ** 2, axis=0) / 2 + gap * slope_poly
        return Dual(after, gap - after, slope_gap, 2 - slope_gap)

    def stax(self, nt_stax):
        with warnings.catch_warnings():  # that it is a quadrature: see `nr.stax`
            warnings.simplefilter("ignore")
            return nt_stax.ElementwiseNumerical(_function(self), _STAX_POINTS)


def _function(activation):
    """A plain function, since neural-tangents asks for its name."""

    def function(z):
        return activation(z)

    return function


@dataclasses.dataclass(frozen=True)
class Activation(QuadratureActivation):
    """An activation of the user's own.

    Args:
        function: phi, a smooth function of an array, entry by entry, in jax.numpy.
        dual_fn: optionally its dual activation in closed form, a differentiable
            `dual_fn(p1, p2, c)` that returns `E phi(z1) phi(z2)` for Gaussians of
            variances `p1, p2` and covariance `c`, entry by entry. Without it the dual
            comes from quadrature (`QuadratureActivation`). With it, gaps are
            differences of its values, so they are exact to a few eps absolute and not
            relative; `E phi'^2` still comes from quadrature.

    Equal to another one if both functions are the same objects. Has no JSON form.
    """

    function: Callable[[Any], Any]
    dual_fn: Callable[[Any, Any, Any], Any] | None = None

    def __post_init__(self):
        for name in ("function", "dual_fn"):
            value = getattr(self, name)
            if not (callable(value) or (name == "dual_fn" and value is None)):
                raise ValueError(f"{name} must be a function of arrays, got {value!r}.")

    def __call__(self, z):
        return self.function(z)

    def moments(self, log_variance):
        moments = super().moments(log_variance)
        if self.dual_fn is None:
            return moments
        p = jnp.exp(log_variance)
        log_gain = jnp.log(self.dual_fn(p, p, p)) - log_variance
        return moments._replace(log_gain=log_gain)

    def dual(self, log_variance1, log_variance2, gap, supplement_gap):
        covariance = self.dual_fn
        if covariance is None:
            return super().dual(log_variance1, log_variance2, gap, supplement_gap)
        logs = (log_variance1, log_variance2)
        p1, p2 = jnp.exp(log_variance1), jnp.exp(log_variance2)
        c = jnp.sqrt(p1 * p2) * (1 - gap)
        p1, p2, c = jnp.broadcast_arrays(p1, p2, c)
        pair, slope = jax.jvp(
            lambda c: covariance(p1, p2, c), (c,), (jnp.ones_like(c),)
        )
        own = [self.moments(log) for log in logs]
        norm = jnp.exp(sum(log + m.log_gain for log, m in zip(logs, own, strict=True)))
        slope_norm = jnp.exp(sum(m.log_slope for m in own))
        # Where the cosine is exactly 1, rounding and singular derivatives are not
        # asked.
        after, slope_after = (
            jnp.where(gap > 0, 1 - value / jnp.sqrt(size), 0)
            for value, size in ((pair, norm), (slope, slope_norm))
        )
        return Dual(after, gap - after, slope_after, 2 - slope_after)

    def stax(self, nt_stax):
        dual_fn = self.dual_fn
        if dual_fn is None:
            return super().stax(nt_stax)

        def covariance(c, p1, p2):
            return dual_fn(p1, p2, c)

        slope = jax.grad(covariance)  # in c, by Price's theorem
        return nt_stax.Elementwise(_function(self), covariance, slope)
