r"""Eigenvalues of kernels on spheres, by quadrature to as many bits as they need.

A kernel K of the cosine alone has the spherical harmonics for eigenfunctions, and by
the Funk-Hecke formula its eigenvalue of degree k is

.. math::
    \mu_k = \frac{\Gamma(d/2)}{\sqrt\pi\,\Gamma((d-1)/2)}
    \int_0^\pi K(\cos\theta) P_k(\cos\theta) \sin^{d-2}\theta \, d\theta,

:math:`P_k` the Gegenbauer polynomials with :math:`P_k(1) = 1`. The integral cancels:
:math:`P_k` is of size :math:`N_k^{-1/2}`, N the multiplicity, and :math:`N_k \mu_k \le
1`. So the working precision has half the bits of N more than the result.

The kernels are analytic in the angle, with layers next to 0 and pi: Gauss-Legendre on
panels that halve towards both ends, with as many nodes as bounds on Bernstein ellipses
ask for.
"""

import itertools
import math
from collections.abc import Callable
from operator import mul
from typing import NamedTuple

import numpy as np
from flint import arb, ctx

from ntk_resnet._progress import Progress, quiet

Zonal = Callable[[arb], arb]
"""A kernel as a function of the cosine, 1 at 1; takes and gives midpoints."""


_AGREEMENT = 1e-10  # between the two runs, relative; the error of the second is smaller
_REFUSED = 1e-8
_RUNS = (40, 1.0), (64, 1.1)  # bits of margin, and nodes relative to the bound
_MOST_BITS = 20_000
_ROUNDS = 6
_DEEPEST = 64  # halvings: layers down to angles of 1e-19


class Eigenvalues(NamedTuple):
    """Eigenvalues by degree, exact zeros as 0; `error` is the change between runs."""

    values: list[arb]
    tail: arb
    error: float
    bits: int
    nodes: int


def multiplicity(dim: int, degree: int) -> int:
    """The number of spherical harmonics of one degree on the sphere in R^dim."""
    if degree == 0:
        return 1
    return (2 * degree + dim - 2) * math.comb(degree + dim - 3, dim - 2) // degree


def eigenvalues(
    make: Callable[[], Zonal],
    dim: int,
    max_degree: int,
    progress: Progress = quiet,
) -> Eigenvalues:
    """All degrees from 0 to `max_degree`, to 1e-8 relative or better.

    Two runs, the second with 24 more bits and a tenth more nodes, must agree to 1e-10;
    else precision and nodes grow and both are repeated.

    Args:
        make: makes the kernel in the precision of the context.
        dim, max_degree: of the space around the sphere, >= 2, and >= 0.
        progress: called as `progress(done, total, text)` while a run goes on.

    Raises:
        ValueError: the kernel varies on scales below 1e-19, the eigenvalues fall below
            2^-20000, or the runs still disagree.
    """
    shape = _look_at(make)
    degrees = [k for k in range(max_degree + 1) if not shape.vanishes(k)]
    extra, density, error = shape.faint, 1.0, math.inf
    for _ in range(_ROUNDS):
        coarse, fine = (
            _Rule(dim, max_degree, shape.layer, extra + margin, more * density)
            for margin, more in _RUNS
        )
        first = _run(make, coarse, progress)
        lost = _first_lost(first, degrees, coarse)
        if lost is not None:
            extra = _more_bits(first, degrees, lost, coarse)
            continue
        second = _run(make, fine, progress)
        with ctx.workprec(fine.bits):
            error = max((_change(first[k], second[k]) for k in degrees), default=0.0)
        if error <= _AGREEMENT:
            break
        extra, density = extra + 64, 1.4 * density
    if not error <= _REFUSED:
        raise ValueError(
            f"the eigenvalues to degree {max_degree} in dimension {dim} change by "
            f"{error:.0e} when precision and nodes grow; take a smaller max_degree."
        )
    with ctx.workprec(fine.bits):
        values = [arb(0) if shape.vanishes(k) else v for k, v in enumerate(second)]
        whole = sum((multiplicity(dim, k) * v for k, v in enumerate(values)), arb(0))
        ended = all(map(shape.vanishes, (max_degree + 1, max_degree + 2)))
        tail = arb(0) if ended else (1 - whole).mid()
    return Eigenvalues(values, tail, error, fine.bits, fine.nodes)


def _change(first, second):
    return float(abs(first / second - 1).mid()) if second > 0 else math.inf


def _first_lost(values, degrees, rule):
    """The first degree whose eigenvalue does not stand out of the rounding errors."""
    for k in degrees:
        floor = _RUNS[0][0] - rule.bits - _log2_multiplicity(rule.dim, k) / 2
        if not (values[k] > 0 and log2(values[k]) > floor):
            return k
    return None


def _more_bits(values, degrees, lost, rule):
    """Bits to add if the eigenvalues go on to fall as fast as those before `lost`."""
    good = max((k for k in degrees if 0 < k < lost), default=None)
    extra = 2.0 * rule.extra
    if good is not None:
        fallen = -log2(values[good]) - _log2_multiplicity(rule.dim, good)
        extra = max(extra, 1.1 * fallen * rule.max_degree / good)
    if extra > _MOST_BITS:
        raise ValueError(
            f"the eigenvalues to degree {rule.max_degree} in dimension {rule.dim} "
            f"fall below 2^-{_MOST_BITS}; take a smaller max_degree."
        )
    return math.ceil(extra)


def log2(value: arb) -> float:
    """log2 of a positive midpoint, of any exponent."""
    mantissa, exponent = map(int, value.man_exp())
    bits = mantissa.bit_length()
    return math.log2(mantissa / (1 << bits)) + (bits + exponent)


def _log2_multiplicity(dim, degree):
    return math.log2(multiplicity(dim, degree))


# -------------------------------------------------------------- what the kernel is like


_TOO_NARROW = (
    "the kernel varies at angles below 1e-19, where it cannot be integrated; take a "
    "network that is less deep, or less chaotic."
)


class _Shape(NamedTuple):
    """Which parts of a kernel there are, and where its layers end."""

    zero: tuple[bool, ...]  # the even, the odd part
    straight: tuple[bool, ...]  # constant, linear
    faint: int  # bits by which what is not straight is smaller than 1
    layer: int  # the lowest panel begins at pi 2^-(layer + 1)

    def vanishes(self, degree: int) -> bool:
        """Whether the eigenvalue is exactly zero.

        The coefficients of all powers of the cosine are >= 0 in these kernels, so a
        degree vanishes if and only if no power of its parity from there on occurs.
        """
        parity = degree % 2
        return self.zero[parity] or (degree > 1 and self.straight[parity])


# The last one is for kernels that are all but zero further from 1.
_COSINES = ((5, 7), (1, 3), (1, 5), (4, 5), (1, 9), (2**20 - 1, 2**20))


def _look_at(make):
    """The shape, from the kernel at a few cosines, and next to the ends.

    A part is called zero, or straight, if what it is beyond that is exactly zero, or
    below 2^-1024 in 2,048 bits.
    """
    for bits in (256, 512, 1024, 2048):
        with ctx.workprec(bits):
            kernel = make()
            points = [(arb(a) / b).mid() for a, b in _COSINES]
            pairs = [(kernel(t), kernel(-t)) for t in points]
            even = [a + b for a, b in pairs]
            odd = [(a - b) / t for (a, b), t in zip(pairs, points, strict=True)]
            sizes = [_log2_size(values) for values in (even, odd)]
            bends = [_log2_size([v - part[0] for v in part]) for part in (even, odd)]
        known = [size == -math.inf or size > -bits / 2 for size in sizes + bends]
        if all(known):
            break
    zero, straight = (
        tuple(size <= -bits / 2 for size in part) for part in (sizes, bends)
    )
    curved = [size for size, flat in zip(bends, straight, strict=True) if not flat]
    faint = math.ceil(max(0.0, -min(curved, default=0.0)))
    if all(zero):
        raise ValueError(_TOO_NARROW)
    small = min(size for size in sizes if size > -bits / 2)
    with ctx.workprec(256 + math.ceil(-2 * min(small, 0.0)) + 2 * faint):
        return _Shape(zero, straight, faint, _layer(make()))


def _log2_size(values):
    largest = max(abs(value.mid()) for value in values)
    return log2(largest) if largest > 0 else -math.inf


def _layer(kernel):
    """Halvings down to where the kernel is a power of the distance to 0, and to pi.

    A layer of width w shows in the differences between dyadic angles: their ratio is
    within a quarter of its limit, a power of 2, below w / 3.
    """
    deepest = 0
    angles = [(arb.pi() / 2 ** (j + 1)).mid() for j in range(_DEEPEST + 7)]
    for side in (1, -1):
        values = [kernel((side * angle.cos()).mid()) for angle in angles]
        steps = [abs((a - b).mid()) for a, b in itertools.pairwise(values)]
        pairs = itertools.pairwise(steps)
        ratios = [float(a / b) if b > 0 else math.inf for a, b in pairs]
        settled = 1.5 < ratios[-1] < math.inf  # the kernel has come to its value
        limit = 2 ** round(math.log2(ratios[-1])) if settled else math.nan
        unsettled = [j for j, r in enumerate(ratios) if not abs(r / limit - 1) < 0.25]
        deepest = max(deepest, *(j + 1 for j in unsettled), 0)
    return deepest


# ----------------------------------------------------------------------- the quadrature


class _Rule:
    """Bits and nodes for all degrees up to one.

    Of the `extra` bits all but those that the kernel needs are a margin; `density`
    multiplies the nodes.
    """

    def __init__(self, dim, max_degree, layer, extra, density):
        self.dim, self.max_degree, self.extra = dim, max_degree, extra
        half = _log2_multiplicity(dim, max_degree) / 2
        wanted = 4 * math.log2(max_degree + dim) + 2 * layer + extra
        self.bits = math.ceil(half + wanted)
        # Closer to the ends the weight sin^(d-2) is below all that is asked for.
        end = math.ceil((2 * half + wanted) / (dim - 2)) + 1 if dim > 2 else math.inf
        if min(layer, end) > _DEEPEST:
            raise ValueError(_TOO_NARROW)
        edges = [2.0**-j for j in range(1, min(layer, end) + 1)]
        # (lower, upper) over pi / 2; the middle panel is its own mirror image.
        self.panels = [(edges[0], 2 - edges[0])] if edges else []
        self.panels += [(b, a) for a, b in itertools.pairwise(edges)]
        if layer <= end:
            self.panels.append((0.0, edges[-1]) if edges else (0.0, 2.0))
        self.counts = [
            self._count(math.pi / 4 * (b - a), (half + wanted) * math.log(2), density)
            for a, b in self.panels
        ]
        self.nodes = 2 * sum(self.counts) - sum(self.counts[:1])

    def _count(self, half_width, nats, density):
        """Nodes for an error of e^-nats on the panel; even.

        On the Bernstein ellipse rho, whose half axis is y, the integrand is at most of
        size exp((k + nu) y) cosh(y)^nu, nu = (d - 2) / 2, times that on the panel.
        """
        nu = (self.dim - 2) / 2
        needed = []
        for rho in np.linspace(1.05, 4, 60):
            y = half_width * (rho - 1 / rho) / 2
            growth = (self.max_degree + nu) * y + nu * math.log(math.cosh(y))
            needed.append((nats + growth) / (2 * math.log(rho)))
        return 8 * math.ceil(density * min(needed) / 8)

    def points(self):
        """Cosines and weights of the nodes below pi/2; the others mirror them."""
        scale = (arb(self.dim) / 2).gamma() / (arb(self.dim - 1) / 2).gamma()
        scale /= arb.const_sqrt_pi()
        rules = {n: _gauss_legendre(n) for n in sorted(set(self.counts))}
        for (lower, upper), n in zip(self.panels, self.counts, strict=True):
            center, half = ((upper + s * lower) * arb.pi() / 4 for s in (1, -1))
            for x, weight in rules[n]:
                angle = center + half * x
                if upper <= 1 or x < 0:
                    size = scale * half * weight * angle.sin() ** (self.dim - 2)
                    yield angle.cos().mid(), size.mid()


def _gauss_legendre(n):
    pairs = [arb.legendre_p_root(n, i, weight=True) for i in range(n // 2)]
    return [(s * x.mid(), w.mid()) for x, w in pairs for s in (1, -1)]


def _run(make, rule, progress):
    """The eigenvalues of all degrees by one rule."""
    with ctx.workprec(rule.bits):
        kernel = make()
        cosines, even, odd = [], [], []
        for cosine, weight in rule.points():
            here, there = kernel(cosine), kernel(-cosine)
            cosines.append(cosine)
            even.append((weight * (here + there)).mid())
            odd.append((weight * (here - there)).mid())
            done = 2 * len(cosines)
            if done * 100 // rule.nodes > (done - 2) * 100 // rule.nodes:
                progress(done, rule.nodes, f"{rule.bits} bits")
        return _moments(rule.dim, rule.max_degree, cosines, even, odd)


def _moments(dim, max_degree, cosines, even, odd):
    """Sums of P_k times the even or odd weights, by the recurrence of monic P_k."""
    leading, found = arb(1), []
    previous, current = [arb(0)] * len(cosines), [arb(1)] * len(cosines)
    for k in range(max_degree + 1):
        weights = odd if k % 2 else even
        found.append((leading * sum(map(mul, weights, current), arb(0))).mid())
        leading *= arb(2 * k + dim - 2) / (k + dim - 2) if k else 1
        below = k * (k + dim - 3), (2 * k + dim - 2) * (2 * k + dim - 4)
        back = arb(below[0]) / below[1] if k > 1 else arb(k) / dim
        rows = zip(cosines, previous, current, strict=True)
        previous, current = current, [(t * b - back * a).mid() for t, a, b in rows]
    return found
