r"""Both kernels of a specification to as many bits as are asked for.

The recursion of `ntk_resnet.kernels.recursion` once more, in python-flint's `arb`,
whose midpoints are kept and whose radii are dropped: the kernel is a function of one
number, the cosine, so the few bits that it costs to begin there instead of with the gap
are added to the precision. Exponents are unlimited, so kernels are raw and nothing
overflows.

Every block is affine in what the activation does to a pair of Gaussians of one
variance p and covariance c: with :math:`F = E\,\varphi\varphi'`, :math:`G =
E\,\varphi'\varphi''` for the slopes, the NNGP :math:`K` and the NTK :math:`T` of the
weights before the readout,

.. math::
    c/p = e_1 K + e_0, \quad K \leftarrow s K + k_1 F + k_0, \quad
    T \leftarrow s T + t_1 F + t_0 + G\,(i_1 c/p + i_0 T).
"""

import math
from collections.abc import Callable
from typing import NamedTuple, no_type_check

from flint import arb, arb_mat, arb_poly, ctx

from ntk_resnet.activations import named
from ntk_resnet.kernels.recursion import block_scales
from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.networks import ResNet

Pair = Callable[[arb], tuple[arb, arb]]


class _Block(NamedTuple):
    """A block's coefficients, in the letters of the module; s is 1 with a trunk."""

    e1: arb
    e0: arb
    pair: Pair
    trunk: bool
    k1: arb
    k0: arb
    t1: arb
    t0: arb
    i1: arb
    i0: arb


class Network:
    """A network at inputs of one norm, in the precision of the context it is made in.

    Calling it with a cosine, an exact `arb`, gives the normalised kernel that was asked
    for.

    Raises:
        ValueError: nothing is trained, or the activation's dual is known in float64
            only, or its series is too long.
    """

    def __init__(self, spec: Specification, get: str, input_kernel: float):
        self._input = arb(input_kernel)
        self._ntk = get == "ntk"
        self._trains_readout = spec.trains_readout
        # That of plain networks belongs to their first block.
        self._trains_first = isinstance(spec, ResNet) and spec.trains_readout
        self._first, mean = None, arb(0)
        if isinstance(spec, ResNet) and spec.input_activation:
            self._first = gaussian_pair(spec.activation, self._input)
            mean = _mean(spec.activation, self._input)
        state = self._start(arb(1))
        self._blocks: list[_Block] = []
        for scale in block_scales(spec):
            block, mean = _block(spec, arb(float(scale)), state[0], mean)
            self._blocks.append(block)
            state = _step(block, *state)
        self._norm = self._readout(*state)
        if self._norm == 0:
            raise ValueError(
                "branch_scale is 0, so that nothing is trained and the NTK is zero; "
                "pass a positive scale, or trained='all'."
            )

    def __call__(self, cosine: arb) -> arb:
        state = self._start(cosine)
        for block in self._blocks:
            state = _step(block, *state)
        return (self._readout(*state) / self._norm).mid()

    def _start(self, cosine):
        nngp, slope = self._input * cosine, arb(1)
        ntk = nngp
        if self._first is not None:
            nngp, slope = self._first(cosine)
        return nngp, ntk * slope if self._trains_first else arb(0)

    def _readout(self, nngp, ntk):
        if not self._ntk:
            return nngp
        return nngp + ntk if self._trains_readout else ntk


@no_type_check  # nor the pairs: called a million times, a check costs what they do
def _step(block, nngp, ntk):
    """Both kernels after one more block."""
    e1, e0, pair, trunk, k1, k0, t1, t0, i1, i0 = block
    cosine = (e1 * nngp + e0).mid()
    second, slope = pair(cosine)
    branch = k1 * second + k0
    carried = t1 * second + t0 + slope * (i1 * cosine + i0 * ntk)
    return (nngp + branch, ntk + carried) if trunk else (branch, carried)


def _block(spec, scale, diagonal, mean):
    """The block that features of variance `diagonal` enter; the mean that leaves it."""
    kind = spec.block if isinstance(spec, ResNet) else "feed_forward"
    weight, bias = arb(spec.weight_variance), arb(spec.bias_variance)
    one, zero, square = arb(1), arb(0), scale * scale
    before = kind == "preactivation"
    e1, e0 = (one, zero) if before else (weight, bias)
    f1, f0 = (weight, bias) if before else (one, zero)
    variance = (e1 * diagonal + e0).mid()
    cross = zero
    if kind == "postactivation":
        push = scale * _mean(spec.activation, variance)
        cross, mean = 2 * mean * push, mean + push
    outer = square if kind in ("two_layer", "preactivation") else zero
    block = _Block(
        e1 / variance,
        e0 / variance,
        gaussian_pair(spec.activation, variance),
        trunk=kind != "feed_forward",
        k1=square * f1,
        k0=square * f0 + cross,
        t1=outer * f1,
        t0=outer * f0,
        i1=zero if before else square * variance,
        i0=square * weight,
    )
    return block, mean


# -------------------------------------------------------------- pairs of Gaussians


def gaussian_pair(activation: named.AbstractActivation, variance: arb) -> Pair:
    """`E phi phi'` and `E phi' phi''` as functions of the cosine.

    Raises:
        ValueError: the activation is the user's own, or a series is too long.
    """
    kind = type(activation)
    if kind not in _PAIRS:
        raise ValueError(
            f"activation {activation!r} is known in float64 only, and eigenvalues on "
            "the sphere need its dual to hundreds of bits; take a named activation."
        )
    return _PAIRS[kind](activation, variance)


def _piecewise_linear(activation, p):
    a, b = arb(activation.negative), arb(activation.positive)
    gain = (a * a + b * b) / 2
    bend = (b - a) ** 2 / (2 * arb.pi())  # gain 2 lambda / pi
    straight, p_bend = p * gain, p * bend

    @no_type_check
    def pair(u):
        if bend == 0:
            return straight * u, gain
        sine = ((1 - u) * (1 + u)).sqrt()
        angle = arb.atan2(sine, u)
        # kappa_abs - u = (2 / pi)(sine - u angle)
        return straight * u + p_bend * (sine - u * angle), gain - bend * angle

    return pair


def _erf(activation, p):
    size, factor = 1 + 2 * p, 2 / arb.pi()
    ratio, square = 2 * p / size, size * size

    @no_type_check
    def pair(u):
        c = 2 * p * u
        return factor * (ratio * u).asin(), 2 * factor * (square - c * c).rsqrt()

    return pair


def _gelu(activation, p):
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


_LONGEST_SERIES = 20_000


def _tanh(activation, p):
    r"""By Mehler's series :math:`F = \sum_k (c^k / k!) (E\,\varphi^{(k)})^2`, k odd.

    The Fourier transform of tanh' is :math:`\pi s / \sinh(\pi s / 2)`, so up to its
    sign :math:`E\,\varphi^{(k)} = \int_0^\infty s^k e^{-p s^2/2} / \sinh(\pi s/2)\,ds`:
    a positive integrand, even and analytic for |Im s| < 2, where the trapezoid rule
    converges geometrically.
    """
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
    second = arb_poly(terms)
    slope = arb_poly([(2 * i + 1) * term for i, term in enumerate(terms)])

    @no_type_check
    def pair(u):
        c = p * u
        square = c * c
        return c * second(square), slope(square)

    return pair


def _powers(values, factors, count):
    """`values` times the powers 0 to `count - 1` of `factors`."""
    for _ in range(count):
        yield values
        values = [(v * f).mid() for v, f in zip(values, factors, strict=True)]


_PAIRS: dict[type, Callable] = {
    named.PiecewiseLinear: _piecewise_linear,
    named.Erf: _erf,
    named.Gelu: _gelu,
    named.Tanh: _tanh,
}


def _mean(activation, p):
    """E phi of a Gaussian of variance p."""
    if isinstance(activation, named.PiecewiseLinear):
        rise = arb(activation.positive) - arb(activation.negative)
        return rise * (p / (2 * arb.pi())).sqrt()
    if isinstance(activation, named.Gelu):
        return p / (2 * arb.pi() * (1 + p)).sqrt()
    return arb(0)  # odd
