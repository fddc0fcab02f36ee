r"""Where signals in deep plain networks go: the ordered, critical and chaotic phase.

From layer to layer the variance of a pre-activation and the correlation of two follow
maps, whose fixed points decide what the kernel of a deep network looks like, and with
it the condition number of its matrix (Poole et al. 2016; Schoenholz et al. 2017; Xiao,
Pennington & Schoenholz 2020).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy import optimize

from ntk_resnet._checks import check_count
from ntk_resnet._inputs import check_depths
from ntk_resnet.records.provenance import provenance
from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.networks import FeedForward

CRITICAL = 1e-5
"""A slope as near to 1 as this is critical: its depth scale is 100,000 layers."""

_FAR = 60.0  # ln of a variance that is infinite, or zero, for all purposes
_EPS = float(np.finfo(float).eps)


def phase(spec: FeedForward) -> xr.Dataset:
    r"""The fixed points of a deep plain network, and its phase.

    The variance of a pre-activation goes from q to
    :math:`V(q) = \sigma_w^2\,E\,\varphi(\sqrt q\,g)^2 + \sigma_b^2`, from the value of
    inputs with :math:`|x|^2 = d`; the correlation c of two, at the fixed point
    :math:`q^*`, to :math:`C(c) = (\sigma_w^2\,E\,\varphi\varphi' + \sigma_b^2)/q^*`.

    Args:
        spec: a plain network; its depth plays no role.

    Returns:
        A dataset of scalars:

        * `variance` :math:`q^*`; 0 or infinite where the variance tends there, and NaN
          where every variance is fixed (ReLU at He's variance without bias);
        * `slope` :math:`\chi_1 = \sigma_w^2\,E\,\varphi'(\sqrt{q^*} g)^2`, and
          `depth_scale` :math:`\xi_1 = 1/|\ln\chi_1|`, in layers;
        * `correlation` :math:`c^*`, the stable fixed point; `correlation_slope`
          :math:`\chi_{c^*} = C'(c^*)`, and `correlation_depth_scale`
          :math:`\xi_{c^*} = -1/\ln\chi_{c^*}`: infinite where it is 1;
        * `ntk_limit`, the normalised NTK of two distinct inputs at infinite depth: 1
          (ordered), 1/3 (critical, smooth), 1/4 (critical with a kink, as ReLU), 0
          (chaotic), whether the readout is trained or frozen.

        The attribute `phase` is `"ordered"`, `"critical"` or `"chaotic"`, as the slope
        of C at 1 is below, at (to 1e-5) or above 1. That is :math:`\chi_1` where
        :math:`q^*` is finite. Where it is infinite, and without a length scale
        (piecewise linear, no bias), the slope of C is 1, whatever the weight variance,
        on which the normalised kernels then do not depend.
        `correlation`, its slope and `ntk_limit` are NaN where the inputs decide: linear
        networks; :math:`q^* = 0`, where the network becomes linear; and
        :math:`q^* = \infty` with a bias or a smooth activation.

    Raises:
        ValueError: not a plain network, or a variance on the way to the fixed point at
            which the activation's quadrature is not resolved.

    Accuracy: against the NUM values of erf and matrices at finite depth
    (`tests/analysis/test_phases.py`).
    """
    if not isinstance(spec, FeedForward):
        raise ValueError(
            "spec must be a plain network such as nr.FeedForward(depth=3), got "
            f"{spec!r}; phases are known of those."
        )
    with jax.enable_x64():
        found, name = _fixed_points(spec)
    attrs = provenance(spec=spec, phase=name)
    return xr.Dataset(found, attrs=attrs)


def predicted_condition_number(
    spec: FeedForward,
    points: int,
    depths: int | Sequence[int] | Int[np.ndarray, " depth"],
) -> xr.DataArray:
    r"""What theory says of the condition number of the normalised NTK matrix.

    For m distinct inputs of norm :math:`\sqrt d`, in the limit of depth L:

    * critical: :math:`(m+3)/3` with a kink (ReLU), :math:`(m+2)/2` smooth, up to terms
      of order `ln L / L` and `1 / L`;
    * chaotic: 1;
    * ordered: it grows as :math:`m\,\chi_1^{-L}/L`, with a kink as
      :math:`m\,\chi_1^{-L/2}`; that without its factor is returned: the factor is the
      data's and does not depend on L.

    Args:
        spec: a plain network; its depth plays no role.
        points: m >= 2.
        depths: whole numbers >= 1.

    Returns:
        Over `depth`, with the attribute `phase`; NaN where `phase` says that the inputs
        decide, infinity beyond the range of float64.

    Raises:
        ValueError: bad arguments.

    Source: Xiao, Pennington & Schoenholz 2020, table 1; (m+3)/3 and the ordered phase
    with a kink are derived from the recursion. Accuracy: against matrices, in
    `tests/analysis/test_phases.py`.
    """
    points, depths = (
        check_count("points", points, least=2),
        check_depths("depths", depths),
    )
    found = phase(spec)
    depth, limit = np.asarray(depths, float), float(found.ntk_limit)
    if limit == 1:
        kink = spec.activation.has_kink
        rate = -math.log(float(found.slope)) / (2 if kink else 1)
        with np.errstate(over="ignore"):
            values = points * np.exp(rate * depth) / (1 if kink else depth)
    else:
        values = np.full_like(depth, 1 + points * limit / (1 - limit))
    about = {"long_name": "predicted condition number", "phase": found.attrs["phase"]}
    return xr.DataArray(values, {"depth": depths}, ["depth"], attrs=about)


def limit_condition_number(
    spec: Specification, points: int, depths: int | Sequence[int]
) -> Float[np.ndarray, " depth"]:
    """The limit of the normalised NTK matrix's condition number, of any network.

    That of `predicted_condition_number`; NaN of networks that are not plain, of a
    single point, and in the ordered phase, of which the growth is known but not the
    factor.

    Args:
        spec: a network; its depth plays no role.
        points: distinct inputs of one norm.
        depths: one or more, whole numbers >= 1.

    Returns:
        One number for each depth.
    """
    unknown = np.full(np.size(depths), np.nan)
    if not isinstance(spec, FeedForward) or points < 2:
        return unknown
    found = predicted_condition_number(spec, points, depths)
    return unknown if found.attrs["phase"] == "ordered" else found.values


class _Layer(NamedTuple):
    """The map of one layer at a variance q: relative growth, and slope."""

    growth: float  # V(q) / q
    slope: float  # sigma_w^2 E phi'^2


def _layer(spec, log_q):
    moments = spec.activation.moments(jnp.asarray(log_q))
    growth = spec.weight_variance * math.exp(moments.log_gain)
    growth += spec.bias_variance * math.exp(-log_q)
    slope = spec.weight_variance * math.exp(moments.log_slope)
    if math.isnan(growth + slope):
        raise ValueError(
            f"the moments of {spec.activation!r} are not resolved at the variance "
            f"{math.exp(log_q):.3g}; take smaller variances."
        )
    return _Layer(growth, slope)


def _fixed_points(spec):
    """The variables of `phase`, and its name."""
    log_q = _log_fixed_variance(spec)
    inside = abs(log_q) < _FAR
    layer = _layer(spec, log_q)
    # The slope of C at 1; at q* = 0 the name goes by chi_1, as is the custom.
    by_custom = inside or (log_q < 0 and not spec.homogeneous)
    at_one = layer.slope if by_custom else layer.slope / layer.growth
    name = "ordered" if at_one < 1 else "chaotic"
    name = "critical" if abs(at_one - 1) <= CRITICAL else name
    correlation, slope, limit = (
        1.0,
        at_one,
        {"ordered": 1.0, "critical": 1 / 3}.get(name),
    )
    if name == "chaotic" and inside:
        correlation, slope = _fixed_correlation(spec, log_q, layer.slope)
        limit = 0.0
    kinked = spec.activation.has_kink
    if name == "critical" and kinked:
        limit = 0.25
    if not inside and not (spec.homogeneous and kinked):
        correlation = slope = limit = math.nan
    variance = {-_FAR: 0.0, _FAR: math.inf}.get(log_q, math.exp(log_q))
    if spec.homogeneous and abs(layer.growth - 1) < 8 * _EPS:
        variance = math.nan
    found = {
        "variance": (variance, "variance of a pre-activation, q*"),
        "slope": (layer.slope, "slope of the correlation map at 1, chi_1"),
        "depth_scale": (_depth_scale(layer.slope), "xi_1, in layers"),
        "correlation": (correlation, "correlation, c*"),
        "correlation_slope": (slope, "slope of the correlation map at c*"),
        "correlation_depth_scale": (_depth_scale(slope), "xi_c*, in layers"),
        "ntk_limit": (limit, "normalised NTK of distinct inputs at infinite depth"),
    }
    variables = {k: ((), v, {"long_name": text}) for k, (v, text) in found.items()}
    return variables, name


def _depth_scale(slope):
    if slope == 0 or math.isnan(slope):
        return slope
    distance = abs(math.log(slope))
    return math.inf if distance <= CRITICAL else 1 / distance


def _log_fixed_variance(spec):
    """ln q*, found from where inputs with |x|^2 = d begin; far out: 0 or infinity.

    V increases for all activations here, so that the iterates do too, or decrease, up
    to the first fixed point on their way.
    """
    growth = lambda log_q: math.log(_layer(spec, log_q).growth)  # noqa: E731
    begin = math.log(spec.weight_variance + spec.bias_variance)
    first = growth(begin)
    if abs(first) < 8 * _EPS:
        return _FAR if spec.homogeneous else begin
    way = math.copysign(0.25, first)
    last, here = begin, begin + way
    while abs(here) < _FAR:
        if growth(here) * first < -8 * _EPS * abs(first):
            return optimize.brentq(growth, last, here, xtol=1e-15, rtol=4 * _EPS)
        last, here = here, here + way
    return math.copysign(_FAR, way)


def _fixed_correlation(spec, log_q, slope):
    """c* < 1 of a chaotic network, and the slope of the map there."""
    at = jnp.asarray(log_q)
    gain = spec.weight_variance * math.exp(spec.activation.moments(at).log_gain)
    dual = lambda gap: spec.activation.dual(at, at, gap, 2 - gap)  # noqa: E731
    opened = lambda gap: gain * float(dual(jnp.asarray(gap)).gap) - gap  # noqa: E731
    # C has a power series with coefficients >= 0: one fixed point in [0, 1).
    gap = 1.0 if opened(1.0) >= -8 * _EPS else optimize.brentq(opened, 1e-9, 1.0)
    return 1 - gap, slope * (1 - float(dual(jnp.asarray(gap)).slope_gap))
