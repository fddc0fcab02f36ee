"""Kernels of many images, so many pairs at a time as stay in cache."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ntk_resnet.kernels.convolution.stages import Pairs
from ntk_resnet.kernels.gram.tiling import begins, even_side
from ntk_resnet.kernels.pairs import symmetric


def in_tiles(
    function: Callable[[Pairs], Any], pairs: Pairs, most: int, mirrored: bool
) -> Any:
    """`function(pairs)`, some pairs after the others where there are many.

    Args:
        function: gives a tree of arrays; their last axes are those of the pairs.
        pairs: of images.
        most: how many go together.
        mirrored: the images are the same twice, in one order, and all that `function`
            gives is symmetric: only the upper triangle of tiles is computed.
    """
    shape = pairs.own.shape
    sides = _sides(pairs, most, mirrored)
    corners = list(itertools.product(*map(begins, shape, sides)))
    if len(corners) == 1:
        return function(pairs)
    if mirrored:
        corners = [(row, column) for row, column in corners if row <= column]

    def one_more(found, corner):
        def put(whole, tile):
            at = *[0] * (whole.ndim - len(shape)), *corner
            return jax.lax.dynamic_update_slice(whole, tile, at)

        return jax.tree.map(put, found, function(_cut(pairs, corner, sides))), None

    like = jax.eval_shape(lambda: function(_cut(pairs, corners[0], sides)))
    nothing = jax.tree.map(
        lambda tile: jnp.zeros((*tile.shape[: -len(shape)], *shape), tile.dtype), like
    )
    found, _ = jax.lax.scan(one_more, nothing, jnp.asarray(corners))
    return jax.tree.map(symmetric, found) if mirrored else found


def _sides(pairs, most, mirrored):
    """Of tiles: activations want long second axes (measured on a CPU)."""
    if not pairs.crossed:
        return (even_side(len(pairs.own), most),)
    rows, columns = pairs.own.shape
    side = math.isqrt(most)
    if mirrored:  # so many that nearly half of them are spared, but not tiny ones
        side = even_side(rows, min(side, max(16, -(-rows // 4))))
        return side, side
    width = even_side(columns, 2 * side)
    return even_side(rows, max(1, most // width)), width


def _cut(pairs, corner, sides):
    """Some of the pairs: some of the first images, and of the others."""

    def images(leaf, begin, side):
        return jax.lax.dynamic_slice_in_dim(leaf, begin, side, leaf.ndim - 1)

    one, other = (
        jax.tree.map(lambda leaf: images(leaf, corner[axis], sides[axis]), seeing)  # noqa: B023
        for axis, seeing in ((0, pairs.one), (-1, pairs.other))
    )
    own = jax.lax.dynamic_slice(pairs.own, corner, sides)
    return pairs._replace(one=one, other=other, own=own)
