r"""What an activation does to two correlated Gaussians, in gap form.

For Gaussians :math:`z_1, z_2` of variances `p_1, p_2` and cosine `u`, the kernels of
the activations and of their slopes are :math:`E\,\varphi(z_1)\varphi(z_2)` and
:math:`E\,\varphi'(z_1)\varphi'(z_2)` (the dual activations). Both are handed out as
gaps, one minus the cosine, computed without subtracting nearly equal numbers, since
deep kernels live at cosines next to one.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_resnet._checks import check_number


class Dual(NamedTuple):
    """A pair of Gaussians after the activation; every field broadcasts over pairs."""

    gap: Float[Array, "..."]  # 1 - cosine of the activations, in [0, 2]
    drop: Float[Array, "..."]  # gap before minus gap after, computed as such
    slope_gap: Float[Array, "..."]  # 1 - cosine of the slopes, in [0, 2]
    slope_cogap: Float[Array, "..."]  # 1 + cosine of the slopes


class Moments(NamedTuple):
    """One Gaussian of variance p after the activation; every field like `p`."""

    log_gain: Float[Array, "..."]  # ln(E phi^2 / p)
    log_slope: Float[Array, "..."]  # ln(E phi'^2)
    mean: Float[Array, "..."]  # E phi / sqrt(E phi^2)


class AbstractActivation(abc.ABC):
    """An activation and its dual. Subclasses are frozen and compare by value."""

    homogeneous: bool = False
    """Whether phi(c z) = c phi(z) for all c > 0."""

    @abc.abstractmethod
    def __call__(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """phi(z), entry by entry."""

    @abc.abstractmethod
    def moments(self, log_variance: Float[Array, "..."]) -> Moments:
        """Moments of phi of a Gaussian with the variance `exp(log_variance)`."""

    @abc.abstractmethod
    def dual(
        self,
        log_variance1: Float[Array, "..."],
        log_variance2: Float[Array, "..."],
        gap: Float[Array, "..."],
        cogap: Float[Array, "..."],
    ) -> Dual:
        """The pair after the activation; `gap` is 1 - cosine, `cogap` 1 + cosine."""

    @functools.cached_property
    def unit_second_moment(self) -> float:
        """E phi(g)^2 of a standard Gaussian g, to float64 accuracy."""
        with jax.enable_x64(), jax.ensure_compile_time_eval():
            return float(jnp.exp(self.moments(jnp.zeros(())).log_gain))


# -------------------------------------------------------------------------- ReLU family


@dataclasses.dataclass(frozen=True)
class PiecewiseLinear(AbstractActivation):
    r"""`phi(z) = negative * z` below 0 and `positive * z` above: ReLU and its family.

    With :math:`\lambda = (b-a)^2 / (2(a^2+b^2))` for slopes `a, b` (1/2 for ReLU, 1 for
    the absolute value, 0 for the identity) the cosine `u = cos(theta)` becomes
    :math:`(1-\lambda) u + \lambda \kappa_{abs}(u)`,
    :math:`\kappa_{abs} = (2/\pi)(\sqrt{1-u^2} + u \arcsin u)`, and the cosine of the
    slopes is :math:`1 - 2\lambda\theta/\pi` (Cho and Saul 2009, orders 1 and 0).

    Accuracy: `gap`, `drop` and `slope_gap` to 8 eps relative for angles from 1e-6
    (1e-3 in float32) to pi (`tests/test_activations.py`, against 50-digit arithmetic).
    """

    negative: float
    positive: float
    homogeneous = True

    def __post_init__(self):
        for name in ("negative", "positive"):
            value = getattr(self, name)
            check_number(f"the size of the {name} slope", abs(value))
            object.__setattr__(self, name, float(value))
        if self.negative == self.positive == 0:
            raise ValueError("the slopes of an activation cannot both be 0.")

    @property
    def kink(self) -> float:
        """lambda, the share of the absolute value, in [0, 1]."""
        a, b = self.negative, self.positive
        return (b - a) ** 2 / (2 * (a * a + b * b))

    @property
    def unit_second_moment(self) -> float:  # exact, so that ReLU gives exactly 2
        return (self.negative**2 + self.positive**2) / 2

    def __call__(self, z):
        return jnp.where(z < 0, self.negative, self.positive) * z

    def moments(self, log_variance):
        log_gain = jnp.full_like(log_variance, math.log(self.unit_second_moment))
        mean = (self.positive - self.negative) / math.sqrt(
            2 * math.pi * self.unit_second_moment
        )
        return Moments(log_gain, log_gain, jnp.full_like(log_variance, mean))

    def dual(self, log_variance1, log_variance2, gap, cogap):
        del log_variance1, log_variance2  # homogeneous
        share = self.kink
        obtuse = gap > cogap
        lesser = jnp.where(obtuse, cogap, gap)
        bend = _bend(gap, cogap)
        # kappa_abs is even: it sees the smaller of the angle and its supplement.
        straight = jnp.where(obtuse, gap - cogap, 0)
        theta, rest = angles(gap, cogap)
        # At obtuse angles gap and drop can be nearly equal: add up, do not subtract.
        after = (1 - share) * jnp.where(obtuse, gap, lesser) + share * (lesser - bend)
        return Dual(
            gap=after,
            drop=share * (straight + bend),
            slope_gap=(2 * share / math.pi) * theta,
            slope_cogap=2 * (1 - share) + (2 * share / math.pi) * rest,
        )


def LeakyReLU(slope: float = 0.01) -> PiecewiseLinear:
    """`phi(z) = slope * z` below 0 and `z` above."""
    return PiecewiseLinear(slope, 1.0)


def _acute(gap, cogap):
    """The smaller of the angle and its supplement, exact at both ends."""
    lesser, greater = jnp.minimum(gap, cogap), jnp.maximum(gap, cogap)
    return 2 * jnp.arctan2(jnp.sqrt(lesser), jnp.sqrt(greater))


@jax.custom_jvp
def angles(
    gap: Float[Array, "..."], cogap: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The angle of which `gap` is 1 - cosine and `cogap` 1 + cosine, and pi minus it.

    The derivative, infinite at 0 and pi, is defined as 0 there: kernels have a cusp at
    coincident inputs, and their gradient is the mean over its two sides.
    """
    acute = _acute(gap, cogap)
    obtuse = gap > cogap
    return (
        jnp.where(obtuse, jnp.pi - acute, acute),
        jnp.where(obtuse, acute, jnp.pi - acute),
    )


@angles.defjvp
def _(primals, tangents):
    gap, cogap = primals
    square = gap * cogap
    sine = jnp.sqrt(jnp.where(square > 0, square, 1))
    turn = _gap_tangent(primals, tangents) * jnp.where(square > 0, 1 / sine, 0)
    return angles(gap, cogap), (turn, -turn)


def _gap_tangent(primals, tangents):
    """The tangent of gap = 2 - cogap, from the smaller, more exact of the two."""
    return jnp.where(primals[0] > primals[1], -tangents[1], tangents[0])


@jax.custom_jvp
def _bend(gap, cogap):
    """(2/pi)(sin t - t cos t) = kappa_abs(cos t) - cos t, t the acute angle."""
    t = _acute(gap, cogap)
    # 2k / (2k+1)! with alternating signs; seven terms are exact to float64 below 1/2.
    coefficients = [
        (-1) ** (k + 1) * 2 * k / math.factorial(2 * k + 1) for k in range(1, 8)
    ]
    series = t**3 * jnp.polyval(jnp.asarray(coefficients[::-1], t.dtype), t * t)
    direct = jnp.sqrt(gap * cogap) - t * jnp.abs(cogap - gap) / 2
    return (2 / math.pi) * jnp.where(t < 0.5, series, direct)


@_bend.defjvp
def _(primals, tangents):
    gap, cogap = primals
    # d/dgap of the deficit is 2 t / pi, and the acute angle falls where gap > cogap.
    sign = jnp.where(gap > cogap, -1, 1)
    slope = sign * (2 / math.pi) * _acute(gap, cogap)
    return _bend(gap, cogap), slope * _gap_tangent(primals, tangents)


# ------------------------------------------------------ smooth activations, closed form


def _variance(log_variance):
    """exp, capped where erf and GELU have reached their limits to rounding."""
    cap = 40.0 if log_variance.dtype == jnp.float32 else 300.0
    return jnp.exp(jnp.minimum(log_variance, cap))


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
    where they differ (`tests/test_activations.py`).
    """

    def __call__(self, z):
        return jax.lax.erf(z)

    def moments(self, log_variance):
        p = _variance(log_variance)
        second = (2 / math.pi) * _erf_asin(p)
        return Moments(
            jnp.log(second) - log_variance,
            math.log(4 / math.pi) - jnp.log1p(4 * p) / 2,
            jnp.zeros_like(p),
        )

    def dual(self, log_variance1, log_variance2, gap, cogap):
        p1, p2 = _variance(log_variance1), _variance(log_variance2)
        obtuse = gap > cogap
        lesser = jnp.where(obtuse, cogap, gap)  # erf is odd: reflect obtuse pairs
        size = jnp.sqrt((1 + 2 * p1) * (1 + 2 * p2))
        aligned = 2 * jnp.sqrt(p1 * p2) / size
        sin2 = 4 * p1 * p2 * gap * cogap
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
            drop=jnp.where(obtuse, after - cogap, gap - after),
            slope_gap=slope_gap,
            slope_cogap=2 - slope_gap,
        )


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

    Accuracy: gaps to 64 eps relative where the variances are equal, 16 eps absolute
    where they differ (`tests/test_activations.py`).
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

    def dual(self, log_variance1, log_variance2, gap, cogap):
        p1, p2 = _variance(log_variance1), _variance(log_variance2)
        product, total = p1 * p2, p1 + p2
        aligned = jnp.sqrt(product)  # c at gap 0, where D = 1 + p1 + p2
        fall = aligned * gap  # aligned - c
        c = aligned - fall
        size = (1 + p1) * (1 + p2)
        ratio = (2 + total) / size  # 1 + nu
        excess = product * gap * cogap  # D - (1 + p1 + p2)
        root0, root = jnp.sqrt(1 + total), jnp.sqrt(1 + total + excess)
        rise = excess / (root + root0)  # root - root0
        arc0, arc = jnp.arctan2(aligned, root0), jnp.arctan2(c, root)
        # sin(arc0 - arc) for c > 0. The terms c * sine and rise nearly cancel at large
        # variances, so their difference is written out.
        both = aligned * root + jnp.maximum(c, 0) * root0
        sine = excess / both
        acute = (
            jnp.maximum(c, 0) * _arcsin_minus(sine)
            - excess * fall * root / (both * (root + root0))
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


def _arcsin_minus(w):
    """asin(w) - w, by its series below 0.3."""
    terms, coefficient = [0.0], 1.0
    for k in range(1, 16):
        coefficient *= (2 * k - 1) / (2 * k)
        terms.append(coefficient / (2 * k + 1))
    square = jnp.minimum(w, 0.3) ** 2
    series = w * jnp.polyval(jnp.asarray(terms[::-1], w.dtype), square)
    return jnp.where(w < 0.3, series, jnp.arcsin(w) - w)


# ------------------------------------------------------- smooth activations, quadrature


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
    (`tests/test_activations.py`); the series has 256 terms from 512 nodes, and
    functions with nearer singularities or kinks converge more slowly.
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
        unit = lambda v: v / jnp.sqrt(jnp.sum(v * v, axis=0))  # noqa: E731
        return unit(a), unit(b)

    def _at_nodes(self, function, log_variance):
        x, _, _ = _hermite_table(self._terms, self._nodes)
        scale = jnp.exp(log_variance / 2)[..., None]
        return function(scale * jnp.asarray(x, log_variance.dtype))

    def moments(self, log_variance):
        _, table, _ = _hermite_table(self._terms, self._nodes)
        weight = jnp.asarray(table, log_variance.dtype)
        slope = lambda z: jax.jvp(self, (z,), (jnp.ones_like(z),))[1]  # noqa: E731
        values = self._at_nodes(self, log_variance)
        second = values**2 @ weight
        return Moments(
            jnp.log(second) - log_variance,
            jnp.log(self._at_nodes(slope, log_variance) ** 2 @ weight),
            (values @ weight) / jnp.sqrt(second),
        )

    def dual(self, log_variance1, log_variance2, gap, cogap):
        del cogap
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


@dataclasses.dataclass(frozen=True)
class Tanh(QuadratureActivation):
    """The hyperbolic tangent, by quadrature (it has no closed dual)."""

    def __call__(self, z):
        return jnp.tanh(z)


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

    def dual(self, log_variance1, log_variance2, gap, cogap):
        covariance = self.dual_fn
        if covariance is None:
            return super().dual(log_variance1, log_variance2, gap, cogap)
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


# ----------------------------------------------------------------------- names and JSON

_NAMED: dict[str, AbstractActivation] = {
    "relu": PiecewiseLinear(0.0, 1.0),
    "leaky_relu": LeakyReLU(),
    "abs": PiecewiseLinear(-1.0, 1.0),
    "erf": Erf(),
    "gelu": Gelu(),
    "tanh": Tanh(),
    "linear": PiecewiseLinear(1.0, 1.0),
}


def as_activation(activation: AbstractActivation | str) -> AbstractActivation:
    """The activation object of that name; an activation object is returned as it is."""
    if isinstance(activation, AbstractActivation):
        return activation
    if not isinstance(activation, str) or activation not in _NAMED:
        raise ValueError(
            f"activation must be one of {', '.join(map(repr, _NAMED))} or an "
            "activation object such as nr.LeakyReLU(0.1) or nr.Activation(function); "
            f"got {activation!r}."
        )
    return _NAMED[activation]


def to_data(activation: AbstractActivation) -> str | list[float]:
    """A name, or the two slopes of a piecewise linear activation."""
    for name, named in _NAMED.items():
        if activation == named:
            return name
    if isinstance(activation, PiecewiseLinear):
        return [activation.negative, activation.positive]
    raise ValueError(
        f"activation {activation!r} is the user's own and has no JSON form."
    )


def from_data(data) -> AbstractActivation:
    """The activation that `to_data` described."""
    if isinstance(data, list) and len(data) == 2:
        return PiecewiseLinear(*data)
    return as_activation(data)
