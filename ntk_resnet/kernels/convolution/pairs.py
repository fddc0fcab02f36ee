"""Pairs of images through the blocks of a convolutional network.

The two kernels are computed by programs of their own: what both need is quickly
computed twice, and nothing but planes goes through memory.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_resnet.kernels.convolution import operations
from ntk_resnet.kernels.convolution.blocks import (
    LazyPlanes,
    Planes,
    Windows,
    branch_of,
    defined,
    trunk_of,
)
from ntk_resnet.kernels.convolution.images import BlockStatistics
from ntk_resnet.specification.convolutional import Convolutional


def through_pairs(
    spec: Convolutional,
    planes: Planes,
    scale: Any,
    windows: Windows,
    first: BlockStatistics,
    second: BlockStatistics,
    distinct: Float[Array, "..."],
) -> Planes:
    """Pairs after one more block.

    Args:
        spec, planes, scale, windows: as in `through_images`.
        first, second: the images of the pairs, shaped to broadcast, those of `second`
            displaced.
        distinct: 0 for an image with itself at no displacement, else 1.
    """
    barrier = defined(spec, scale)
    at_activations = iter(zip(first.entering, second.entering, strict=True))

    def activate(given):
        return _activated(spec, given, barrier, *next(at_activations), distinct)

    branch = branch_of(spec, planes, windows, barrier, activate)
    trunk = trunk_of(spec, planes, windows, scale)
    if trunk is None:
        return branch.planes
    cross = factor = None
    if first.mean is not None:
        cross = first.mean * second.increment_mean + first.increment_mean * second.mean
        cross = cross.reshape(trunk.nngp.shape)
    if first.rescaling is not None:
        factor = (first.rescaling * second.rescaling).reshape(-1)
    return _joined(trunk, branch, barrier, scale, cross, factor)


def _joined(trunk, branch, barrier, scale, cross, factor):
    """The trunk, the branch and what its mean adds, times a factor of each pair."""

    def scaled(plane):
        return plane if factor is None else plane * factor

    def nngp():
        added = scale**2 * branch.nngp()
        return scaled(trunk.nngp + (added if cross is None else added + cross))

    def ntk():
        added = branch.finish(branch.planes).ntk
        return scaled(trunk.ntk + scale**2 * added)

    after = operations.unfused(barrier, nngp)
    has_ntk = trunk.ntk is not None
    return Planes(after, operations.unfused(barrier, ntk) if has_ntk else None)


def _activated(spec, given, barrier, first, second, distinct) -> LazyPlanes:
    """After an activation."""
    shape = np.broadcast_shapes(first.inverse.shape, second.inverse.shape)[1:]
    given = given.of_pairs(shape)

    def gap(nngp):
        cosine = nngp * (first.inverse * second.inverse)
        return jnp.clip(1 - cosine, 0, 2) * distinct

    def nngp():
        after, _ = _cosines(spec, gap(given.nngp()), first, second)
        return after * (first.after * second.after)

    def ntk():
        entering = given.finish(given.planes)
        _, slope = _cosines(spec, gap(entering.nngp), first, second)
        return slope * both_slopes * entering.ntk

    both_slopes = first.slope * second.slope
    after = operations.unfused(barrier, nngp)
    of_weights = None if given.planes.ntk is None else operations.unfused(barrier, ntk)
    return LazyPlanes(Planes(after, of_weights)).of_pairs((-1,))


def _cosines(spec, gap, first, second):
    """After the activation, and of slopes; XLA leaves out the one that is not read."""
    return spec.activation.cosines(first.log_variance, second.log_variance, gap)
