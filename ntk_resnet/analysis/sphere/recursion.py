r"""Both kernels of a specification to as many bits as are asked for.

The recursion of `ntk_resnet.kernels.recursion` once more, in python-flint's `arb`,
whose midpoints are kept and whose radii are dropped: the kernel is a function of one
number, the cosine, so the few bits that it costs to begin there instead of with the gap
are added to the precision. Exponents are unlimited, so kernels are raw and nothing
overflows.

A pair of Gaussians of one variance p and covariance c gives, behind the activation,
:math:`F = E\,\varphi\varphi'`, and of the slopes :math:`G = E\,\varphi'\varphi''`. With
the NNGP :math:`K` and the NTK :math:`T` of all weights so far, the operations of a
block are

.. math::
    W: \; K \leftarrow \sigma_w^2 K + \sigma_b^2,\; T \leftarrow \sigma_w^2 T + K,
    \qquad
    \varphi: \; K \leftarrow F,\; T \leftarrow G\,T, \qquad
    V: \; T \leftarrow T + K,

and the trunk adds up with the branch, times the squares of their scales.
"""

from collections.abc import Callable
from typing import NamedTuple, no_type_check

from flint import arb

from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.blocks import INNER, OUTER


class _Block(NamedTuple):
    """A block at inputs of one norm."""

    branch: list[Callable]  # its operations on both kernels
    trunk: arb  # the square of its factor, 0 without a trunk
    scale: arb  # the same of the branch
    cross: arb  # what means add to the NNGP


class PreciseKernel:
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
        self._trains_first = spec.has_trunk and spec.trains_readout
        self._first, mean = None, arb(0)
        if spec.input_activation:
            self._first = spec.activation.precise_pair(self._input)
            mean = spec.activation.precise_mean(self._input)
        state = self._start(arb(1))
        self._blocks: list[_Block] = []
        for scale in spec.scales:
            block, mean = _block(spec, float(scale), state[0], mean)
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


@no_type_check  # nor the operations: called a million times, a check costs as much
def _step(block, nngp, ntk):
    """Both kernels after one more block."""
    inside, inside_ntk = nngp, ntk
    for operation in block.branch:
        inside, inside_ntk = operation(inside, inside_ntk)
    trunk, scale, cross = block.trunk, block.scale, block.cross
    return trunk * nngp + scale * inside + cross, trunk * ntk + scale * inside_ntk


def _block(spec, scale, diagonal, mean):
    """The block that features of variance `diagonal` enter; the mean that leaves it."""
    branch, variance = [], diagonal
    for operation in spec.operations:
        entering = variance
        if operation == INNER:
            through = _weights(arb(spec.weight_variance), arb(spec.bias_variance))
        elif operation == OUTER:
            through = _outer_weights
        else:
            through = _activation(spec.activation, entering)
        branch.append(through)
        variance = through(entering, arb(0))[0].mid()
    trunk, scale, cross = arb(spec.trunk_square(scale)), arb(scale), arb(0)
    if spec.increments_have_mean:  # that of the activation at the end
        kept = trunk.sqrt() * mean
        increment_mean = scale * spec.activation.precise_mean(entering)
        cross, mean = 2 * kept * increment_mean, kept + increment_mean
    return _Block(branch, trunk, scale * scale, cross), mean


def _weights(weight, bias):
    @no_type_check
    def through(nngp, ntk):
        nngp = weight * nngp + bias
        return nngp, weight * ntk + nngp

    return through


@no_type_check
def _outer_weights(nngp, ntk):
    return nngp, ntk + nngp


def _activation(activation, variance):
    pair, inverse = activation.precise_pair(variance), 1 / variance

    @no_type_check
    def through(nngp, ntk):
        second, slope = pair((nngp * inverse).mid())
        return second, slope * ntk

    return through
