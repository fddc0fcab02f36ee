"""Kernels of ReLU-family networks in 50-digit arithmetic: the tests' independent
oracle.

Plain recursions of theory (cosines, no gap form, no logarithms), one network at one
angle at a time, with python-flint's ball arithmetic. Zonal: unit input kernel, no bias.
"""

import numpy as np
from flint import arb, ctx

from ntk_resnet.specification.scales import BalancedScale

DIGITS = 80  # 50 are left after 1 - cos of an angle of 1e-15


def dual(u, share):
    """Cosine of the activations and of their slopes; `share` is 1/2 for ReLU."""
    theta = u.acos()
    pi = arb.pi()
    kappa_abs = 2 / pi * ((1 - u * u).sqrt() + u * (pi / 2 - theta))
    return (1 - share) * u + share * kappa_abs, 1 - 2 * share * theta / pi


def gaps(
    family, angle, scales, *, share=0.5, moment=0.5, trained="blocks", balanced=False
):
    """(1 - NNGP, 1 - NTK), both normalised, of one network at one angle.

    `family` is "feed_forward" or a block of `nr.ResNet`; `scales` is the float branch
    scale of each block (their number is the depth); trunks have the factor 1, or if
    `balanced` the root of 1 - scale^2. He's variance, the inverse of `moment`, which is
    E phi(g)^2. A plain network whose readout is frozen has all the gradients but the
    readout's, `Theta_L - rho_L`.
    """
    ctx.dps = DIGITS
    share = arb(float(share))
    u0 = _cos(angle)
    k, v = u0, arb(1)  # covariance and variance of the trunk
    ntk, size = (u0, arb(1)) if trained == "all" else (arb(0), arb(0))
    mean = arb(0)
    if family == "feed_forward":
        ntk, size = u0, arb(1)  # Theta_l = rho_l + slope Theta_{l-1}
    # E phi / sqrt(E phi^2) for slopes (a, b) with kink `share`: (b-a)/sqrt(pi
    # (a^2+b^2))
    drift = (2 * share / arb.pi()).sqrt()
    for scale in scales:
        a = arb(float(scale))
        kappa, slope = dual(k / v, share)
        before = k, v, ntk, size
        if family == "feed_forward":
            k, v = kappa * v, v
            ntk, size = k + slope * ntk, v + size
        elif family == "full_preactivation":
            kappa2, slope2 = dual(kappa, share)
            half = a * a * arb(float(moment))
            ntk = ntk + half * (v * kappa2 + slope2 * (v * kappa + slope * ntk))
            size = size + half * (v + v + size)
            k, v = k + half * v * kappa2, v + half * v
        elif family == "two_layer":
            ntk = ntk + a * a * (v * kappa + slope * (k + ntk))
            size = size + a * a * (v + (v + size))
            k, v = k + a * a * v * kappa, v + a * a * v
        elif family == "preactivation":
            ntk = ntk + a * a * (v * kappa + slope * ntk)
            size = size + a * a * (v + size)
            k, v = k + a * a * v * kappa, v + a * a * v
        elif family != "postactivation":
            raise ValueError(f"no formula for the block {family!r}: add one here.")
        else:
            ntk = ntk + a * a * slope * (k + ntk)
            size = size + a * a * (v + size)
            push = drift * v.sqrt()
            kept = mean * (1 - a * a).sqrt() if balanced else mean
            cross = 2 * a * kept * push
            mean = kept + a * push
            k, v = k + a * a * v * kappa + cross, v + a * a * v + cross
        if balanced:
            less = a * a  # of the trunk's square
            k, v, ntk, size = (
                now - less * then
                for now, then in zip((k, v, ntk, size), before, strict=True)
            )
        k, v, ntk, size = (_mid(value) for value in (k, v, ntk, size))
        mean = _mid(mean)
    if family == "feed_forward" and trained == "blocks":
        ntk, size = ntk - k, size - v
    if family != "feed_forward" and trained == "all":
        ntk, size = ntk + k, size + v
    return 1 - k / v, 1 - ntk / size


def angle_between(row1, row2):
    """The exact angle of two rows of floats, for `gaps`."""
    ctx.dps = DIGITS
    row1, row2 = ([arb(float(value)) for value in row] for row in (row1, row2))
    cosine = _dot(row1, row2) / (_dot(row1, row1) * _dot(row2, row2)).sqrt()
    return _mid(_mid(cosine).acos())


def _dot(row1, row2):
    return sum((a * b for a, b in zip(row1, row2, strict=True)), arb(0))


def _cos(angle):
    """cos of the float or exact angle, which may exceed pi by its rounding."""
    return _mid((angle if isinstance(angle, arb) else arb(float(angle))).cos())


def _mid(value):
    """Drop the ball's radius: rounding errors of 60 digits do not matter here."""
    return arb(value.mid())


def relative_error(actual, exact):
    """|actual / exact - 1|, worst over arrays of floats and of exact numbers."""
    return absolute_error(actual, exact, relative=True)


def absolute_error(actual, exact, *, relative=False):
    """|actual - exact|, worst over arrays of floats and of exact numbers."""
    ctx.dps = DIGITS
    errors = [
        abs(float(((arb(float(got)) - want) / (want if relative else 1)).mid()))
        for got, want in zip(np.ravel(actual), exact, strict=True)
    ]
    return max(errors)


def smooth_gaps(activation, angle, depth, weight_variance, bias_variance):
    """The same for plain networks with erf or GELU, unit input kernel, any bias."""
    ctx.dps = DIGITS
    weight, bias = arb(float(weight_variance)), arb(float(bias_variance))
    k, q = _cos(angle), arb(1)
    ntk, size = arb(0), arb(0)  # of the hidden weights
    value, slope = {"erf": (_erf, _erf_slope), "gelu": (_gelu, _gelu_slope)}[activation]
    for _ in range(depth):
        c, p = weight * k + bias, weight * q + bias
        ntk = _mid(slope(p, c) * (c + weight * ntk))
        size = _mid(slope(p, p) * (p + weight * size))
        k, q = _mid(value(p, c)), _mid(value(p, p))
    return 1 - k / q, 1 - (ntk + k) / (size + q)


def _erf(p, c):
    return 2 / arb.pi() * (2 * c / (1 + 2 * p)).asin()


def _erf_slope(p, c):
    return 4 / arb.pi() / ((1 + 2 * p) ** 2 - 4 * c * c).sqrt()


def _gelu(p, c):
    d = (1 + p) ** 2 - c * c
    n = p * p + c * c * (1 - 2 * p / (1 + p))
    half = 2 * arb.pi()
    return c / 4 + c * (c / (1 + p)).asin() / half + n / (half * d.sqrt())


def _gelu_slope(p, c):
    # d/dc of `_gelu`, term by term.
    d = (1 + p) ** 2 - c * c
    v = 1 - 2 * p / (1 + p)
    n, root = p * p + c * c * v, d.sqrt()
    total = (c / (1 + p)).asin() + c / root + 2 * c * v / root + n * c / (d * root)
    return arb(1) / 4 + total / (2 * arb.pi())


def gaps_of(spec, angle, scales=None):
    """`gaps` of a specification, whose scales may be rounded to another dtype."""
    return gaps(
        spec.block if spec.has_trunk else "feed_forward",
        angle,
        spec.scales if scales is None else scales,
        share=spec.activation.even_share,
        moment=spec.activation.unit_second_moment,
        trained=spec.trained,
        balanced=isinstance(getattr(spec, "branch_scale", None), BalancedScale),
    )
