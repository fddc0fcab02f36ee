r"""Planes of pixel pairs: what convolutions, steps and means over pixels do to them.

A plane holds, for one displacement `d = (a, b)`, the kernel between pixel `i` of one
image and pixel `i + d` of another, for all pixels `i` and many pairs of images. With
stride 1 planes of different displacements never mix. Displacements are counted around
the image, `(i + d) mod size`: so a plane is full, `H x W`, and holds the displacements
`a` and `a - H`, which in a network with zero padding do not touch: a window that
crosses the seam between them is cut off there.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def displaced(
    image: Float[Array, "H W ..."], d: Int[Array, "2"]
) -> Float[Array, "H W ..."]:
    """The image at pixels `i + d`."""
    return jnp.roll(image, -d, (0, 1))


def apart(function: Callable[..., Any], held: Bool[Array, ""], *args: Any) -> Any:
    """`function(*args)` as a computation of its own; NaN unless `held`.

    Else XLA fuses it into what reads it, and computes an activation anew for each of
    the nine pixels of a window. On CPUs it drops optimization barriers before it fuses,
    but not a condition that it cannot know.
    """

    def on_cpu(*args):
        return jax.lax.cond(held, function, _not_a_number, *args)

    def _not_a_number(*args):
        shapes = jax.eval_shape(function, *args)
        return jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)

    def elsewhere(*args):
        return jax.lax.optimization_barrier(function(*args))

    return jax.lax.platform_dependent(*args, cpu=on_cpu, default=elsewhere)


def box(
    plane: Float[Array, "H W ..."],
    d: Any,
    kernel_size: int,
    padding: str,
    held: Bool[Array, ""],
    stride: int = 1,
) -> Float[Array, "H_out W_out ..."]:
    """Sums over the windows of a convolution, of pixel pairs that move together."""
    for axis in (0, 1):
        along = functools.partial(_box_along, axis, kernel_size, padding, stride)
        plane = apart(along, held, plane, jnp.asarray(d[axis]))
    return plane


def _box_along(axis, kernel_size, padding, stride, plane, shift):
    size = plane.shape[axis]
    # As lax.conv pads with "SAME": steps of 2 begin at the first pixel's own window.
    before = max(0, (-(-size // stride) - 1) * stride + kernel_size - size) // 2
    total = None
    for tap in range(-before, kernel_size - before):
        moved = jnp.roll(plane, -tap, axis) if tap else plane
        if padding == "zero" and tap:
            inside = _inside(size, shift, tap)
            shape = [-1 if k == axis else 1 for k in range(plane.ndim)]
            moved = moved * inside.astype(plane.dtype).reshape(shape)
        total = moved if total is None else total + moved
    return _strided_along(total, stride, axis)


def strided(plane: Array, stride: int) -> Array:
    """Every so many pixels, along both axes."""
    return _strided_along(_strided_along(plane, stride, 0), stride, 1)


def _strided_along(plane, stride, axis):
    if stride == 1:
        return plane
    return jax.lax.slice_in_dim(plane, 0, None, stride, axis)


def _inside(size: int, shift: Int[Array, ""], tap: int) -> Bool[Array, " size"]:
    """Whether both pixels of a pair, moved by `tap`, are still in their images."""
    here = jnp.arange(size)
    there = (here + shift) % size + tap
    return (here + tap >= 0) & (here + tap < size) & (there >= 0) & (there < size)


def add_means(
    bank: Float[Array, "targets H_half W_half ..."],
    plane: Float[Array, "H W ..."],
    targets: Int[Array, "2 2"],
    weights: Float[Array, "2 2"],
) -> Float[Array, "targets H_half W_half ..."]:
    """`bank` with a plane's share of the means over 2 x 2 pixels of both images.

    The pixels `(2 i + p, 2 j + q)` add to the displacement `j - i`, a sixteenth each.

    Args:
        bank: planes of the displacements wanted after the means.
        plane: one displacement before.
        targets, weights: for each `p`, to which plane of the bank, from
            `_displacements.means_of`.
    """
    for p in (0, 1):
        for q in (0, 1):
            share = plane[p::2, q::2] * (weights[p, q] / 16)
            bank = bank.at[targets[p, q]].add(share)
    return bank
