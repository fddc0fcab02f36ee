"""Kernels of many images, so many pairs at a time as stay in cache."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ntk_resnet.kernels._conv_stages import Pairs
from ntk_resnet.kernels._displacements import pairs_at_once
from ntk_resnet.kernels.pairs import symmetric


def in_tiles(function: Callable[[Pairs], Any], pairs: Pairs, mirrored: bool) -> Any:
    """`function(pairs)`, tile by tile where there are many pairs.

    Args:
        function: gives a tree of arrays; their last two axes are the pairs.
        pairs: every one of some images with every one of others.
        mirrored: the images are the same twice, in one order, and all that `function`
            gives is symmetric: only the upper triangle of tiles is computed.
    """
    if not pairs.crossed:
        return function(pairs)
    sides = _sides(pairs, mirrored)
    corners = list(itertools.product(*map(_begins, pairs.own.shape, sides)))
    if len(corners) == 1:
        return function(pairs)
    if mirrored:
        corners = [(row, column) for row, column in corners if row <= column]

    def one_more(found, corner):
        def put(whole, tile):
            at = *[0] * (whole.ndim - 2), *corner
            return jax.lax.dynamic_update_slice(whole, tile, at)

        return jax.tree.map(put, found, function(_cut(pairs, corner, sides))), None

    like = jax.eval_shape(lambda: function(_cut(pairs, corners[0], sides)))
    shape = pairs.own.shape
    nothing = jax.tree.map(
        lambda tile: jnp.zeros((*tile.shape[:-2], *shape), tile.dtype), like
    )
    found, _ = jax.lax.scan(one_more, nothing, jnp.asarray(corners))
    return jax.tree.map(symmetric, found) if mirrored else found


def _sides(pairs, mirrored):
    """Of tiles, chosen by measurement on a CPU: activations want long second axes."""
    rows, columns = pairs.own.shape
    most = pairs_at_once(pairs.size, jax.default_backend())
    side = math.isqrt(most)
    if mirrored:  # so many that nearly half of them are spared, but not tiny ones
        side = _even(rows, min(side, max(16, -(-rows // 4))))
        return side, side
    width = _even(columns, 2 * side)
    return _even(rows, max(1, most // width)), width


def _even(count, most):
    """The length of equal parts."""
    return -(-count // -(-count // most))


def _begins(count, side):
    """The last one may overlap, so that all are alike."""
    return [min(begin, count - side) for begin in range(0, count, side)]


def _cut(pairs, corner, sides):
    """Some of the first images with some of the others."""

    def images(leaf, begin, side):
        return jax.lax.dynamic_slice_in_dim(leaf, begin, side, leaf.ndim - 1)

    one, other = (
        jax.tree.map(lambda leaf: images(leaf, begin, side), seeing)  # noqa: B023
        for seeing, begin, side in zip(pairs[:2], corner, sides, strict=True)
    )
    own = jax.lax.dynamic_slice(pairs.own, corner, sides)
    return pairs._replace(one=one, other=other, own=own)
