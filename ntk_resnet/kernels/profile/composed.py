"""Tables of networks whose blocks are all equal and of the ReLU family, by composition.

With the slopes of the activation of one sign and without a bias: plain networks, and
blocks of one branch scale whose increments have no mean. Everything here is a few
numbers and NumPy: no loop and no array is as long as the network is deep.
"""

import dataclasses
import functools
import math

import numpy as np

from ntk_resnet.activations.piecewise_linear import PiecewiseLinear
from ntk_resnet.kernels.profile import lookup
from ntk_resnet.kernels.profile.composition import (
    Block,
    Grid,
    Places,
    activation_alone,
    compose,
)
from ntk_resnet.kernels.profile.lookup import Both, Tables
from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.blocks import ACTIVATE, INNER, activations_behind

_NARROWEST = 2.0**-100  # layer that is resolved: no two floats of data are so near


def composes(spec: Specification) -> bool:
    """Whether the profile of a network is composed.

    Not with slopes of both signs, whose NTKs cancel, nor with increments whose means
    add up, nor for blocks of several scales or activations that are smooth.
    """
    return (
        not spec.takes_images
        and isinstance(spec.activation, PiecewiseLinear)
        and spec.activation.even_share <= 0.5
        and spec.bias_variance == 0
        and spec.common_scale is not None
        and not spec.increments_have_mean
    )


def _growths(spec):
    """Of trunk and branch: the variance behind a block over that of what enters it."""
    scale = spec.common_scale
    branch = scale * scale
    for operation in spec.operations:
        if operation == INNER:
            branch *= spec.weight_variance
        elif operation == ACTIVATE:
            branch *= spec.activation.unit_second_moment
    return spec.trunk_square(scale), branch


def branch_share(spec: Specification) -> float:
    """Of the branch in the variance behind a block; 1 without a trunk."""
    trunk, branch = _growths(spec)
    return branch / (trunk + branch) if trunk else 1.0


def _own_weight(spec):
    """The NTK of the blocks' weights over the NNGP, on the diagonal."""
    weights = len(activations_behind(spec.operations))
    return weights * spec.depth * branch_share(spec)


def log_diagonals(spec: Specification) -> tuple[float, float]:
    r"""ln of both raw kernels at `|x|^2 / d = 1`, NNGP and NTK, if `composes(spec)`.

    A block multiplies the NNGP by :math:`\tau + \rho`, with :math:`\tau` the square of
    the trunk's factor and :math:`\rho = a^2 \sigma_w^2 E\varphi(g)^2` of the branch, in
    which :math:`E\varphi(g)^2` stands for each activation. The NTK of w weights a block
    is the NNGP times :math:`w L \rho/(\tau+\rho)`; a trained readout, and a trained
    first layer, add the NNGP once each. -inf where nothing is trained.
    """
    (trunk, branch), total = _growths(spec), _own_weight(spec)
    log_growth = math.log1p(branch + (trunk - 1)) if trunk else _log(branch)
    log_nngp = spec.depth * log_growth
    if spec.input_activation:
        log_nngp += math.log(spec.activation.unit_second_moment)
    total += (1 + spec.has_trunk) * spec.trains_readout
    return log_nngp, log_nngp + _log(total)


def _log(size):
    return math.log(size) if size > 0 else -math.inf


def tables(spec: Specification, input_kernel: float, accuracy: float) -> Tables:
    """The tables of both kernels, to a relative accuracy, if `composes(spec)`.

    Raises:
        ValueError: there are none; the text says why.
    """
    logs = np.array(log_diagonals(spec)) + math.log(input_kernel)
    if not np.isfinite(logs).all():
        raise ValueError(
            "the kernels have no profile: nothing is trained (all scales 0), or they "
            "are beyond the range of float64."
        )
    block = Block(spec.activation.even_share, branch_share(spec), spec.operations)
    count = spec.depth
    # Below what is resolved one block is as good as many.
    if block.bend * count < _NARROWEST**2:
        block, count = dataclasses.replace(block, share=0.0), 1
    layers = _layers(spec, block, count)
    fewest = _layers(spec, block, min(count, 2))
    made = compose(block, count, Grid(np.minimum(layers, fewest) / 2))

    powers = Both((2, 0), (_ntk_power(spec, block, count), 0))
    offsets = 2.0 ** np.floor(np.log2(layers))
    by_series = functools.partial(_reduced, spec, made.blocks.at, powers)
    rows = [by_series(lookup.row_nodes(s), side) for side, s in enumerate(offsets)]
    checks = [lookup.check_points(s) for s in offsets]
    in_another_order = functools.partial(_reduced, spec, made.in_another_order, powers)
    exact = [in_another_order(r, side) for side, r in enumerate(checks)]
    found, error = [], 0.0
    for kernel in (0, 1):
        sides = [lookup.chebyshev_coefficients(own[kernel]) for own in rows]
        found.append(np.concatenate(sides, axis=1))
        table = lookup.make_table(found[-1], offsets, np.float64, accuracy / 10)
        own = [values[kernel] for values in exact]
        error = max(error, *lookup.worst_errors(table, checks, own))
    if not error <= accuracy:
        raise ValueError(
            f"no table of this network's kernels reaches the accuracy {accuracy:.0e}, "
            f"only {error:.0e}; use engine='recursion', or ask for less."
        )
    log_nngp, log_ntk = logs.tolist()
    return Tables(log_nngp, log_ntk, float(error), powers, offsets, Both(*found))


def _layers(spec, block, count):
    """Their widths next to 0 and to pi, in `r`, as far as they matter."""
    acute, obtuse = block.layers(count)
    if spec.has_trunk and spec.trains_readout:
        # The first layer has the loss of all blocks, mu n theta, beside r^2.
        acute = min(acute, block.bend * count / 2 or math.inf)
    return np.clip([acute, obtuse or math.inf], _NARROWEST, 0.25)


def _ntk_power(spec, block, count):
    """To which power of r the gap of the NTK is proportional next to 0."""
    if spec.trains_readout:
        bends = block.bend or block.even_share * spec.input_activation
    elif any(activations_behind(spec.operations)):
        bends = block.even_share
    else:  # its slopes act on what is before it
        bends = block.bend * (count - 1)
    return 1 if bends else 2


def _reduced(spec, passage_at, powers, r, side):
    """Both gaps over powers of `r`, on a side, from what blocks do at any places."""
    places = Places(r.ravel(), np.full(r.size, side == 1))
    gaps = _gaps(spec, places, passage_at)
    pairs = zip(gaps, powers, strict=True)
    return [gap.reshape(r.shape) / r ** power[side] for gap, power in pairs]


def _gaps(spec, places, passage_at):
    """Both gaps of the network, with its first and its last layer."""
    if spec.input_activation:
        first = activation_alone(spec.activation.even_share, places)
        passage = first.then(passage_at(places.after(first)))
    else:
        passage = passage_at(places)
    nngp_gap = places.gap * np.exp(-passage.shrinkage)
    own = _own_weight(spec)
    if not spec.trains_readout:
        return nngp_gap, passage.ntk_gap
    if not spec.has_trunk:
        return nngp_gap, (own * passage.ntk_gap + nngp_gap) / (own + 1)
    first_layer = passage.loss + (1 - passage.loss) * places.gap
    return nngp_gap, (own * passage.ntk_gap + nngp_gap + first_layer) / (own + 2)
