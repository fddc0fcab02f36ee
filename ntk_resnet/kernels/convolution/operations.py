r"""Planes of pixel pairs: what convolutions, steps and means over pixels do to them.

A plane holds, for one displacement `d = (a, b)`, the kernel between pixel `i` of one
image and pixel `i + d` of another, for all pixels `i`, row by row along the first axis,
and many pairs of images. With stride 1 planes of different displacements never mix.
Displacements are counted around the image, `(i + d) mod size`: so a plane is full, and
holds the displacements `a` and `a - H`, which in a network with zero padding do not
touch: a window that crosses the seam between them is cut off there.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Size = tuple[int, ...]
"""Height and width of images."""


def displaced(
    image: Float[Array, "pixels ..."], size: Size, d: Int[Array | np.ndarray, "2"]
) -> Float[Array, "pixels ..."]:
    """The image at pixels `i + d`."""
    down, across = (
        (jnp.arange(length) + shift) % length
        for length, shift in zip(size, d, strict=True)
    )
    return _pixels_of(image, (down[:, None] * size[1] + across).reshape(-1))


def as_grid(plane: Array, size: Size) -> Array:
    """With one axis for rows of pixels and one for those in a row."""
    return plane.reshape(*size, *plane.shape[1:])


def as_rows(grid: Array) -> Array:
    """With all pixels along one axis again."""
    return grid.reshape(-1, *grid.shape[2:])


def hidden_from_compiler(scales: Array) -> Array:
    """The same, of which XLA does not know that they are constants (see `unfused`)."""
    return jax.lax.optimization_barrier(scales)


def unfused(barrier: Bool[Array, ""], function: Callable[[], Any]) -> Any:
    """`function()` as a computation of its own; NaN unless `barrier`.

    Else XLA fuses it into what reads it, and computes an activation anew for each pixel
    of a window. On CPUs it drops optimization barriers before it fuses, but not a
    condition whose value it cannot know: `barrier` must depend on data, or on what is
    `hidden_from_compiler`.
    """

    def on_cpu():
        return jax.lax.cond(barrier, function, not_a_number)

    def not_a_number():
        shapes = jax.eval_shape(function)
        return jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)

    def elsewhere():
        return jax.lax.optimization_barrier(function())

    return jax.lax.platform_dependent(cpu=on_cpu, default=elsewhere)


# ------------------------------------------------------------------------- convolutions


class Window(NamedTuple):
    """What the windows of a convolution sum up, for pairs of pixels that move together.

    First `down` the columns of an image, then `across` its rows.
    """

    down: Callable[[Array], Array]  # plane to plane, of any trailing axes
    across: Callable[[Array], Array]
    size: Size  # of the images that enter
    stride: int


def window(
    size: Size, d: Any, kernel_size: int, padding: str, dtype: Any, stride: int = 1
) -> Window:
    """The windows of a convolution in images of that size, at a displacement."""
    sums: list[Any] = []
    for axis, (length, shift) in enumerate(zip(size, d, strict=True)):
        taps = list(_taps(length, shift, kernel_size, padding, stride))
        steps = tuple(step * (size[1] if axis == 0 else 1) for step, _ in taps)
        weights = jnp.stack([inside for _, inside in taps]).astype(dtype)
        weights = weights[:, :, None] if axis == 0 else weights[:, None, :]
        weights = jnp.broadcast_to(weights, (len(taps), *size)).reshape(len(taps), -1)
        sums.append(functools.partial(_summed, steps, weights))
    down, across = sums
    return Window(down, across, size, stride)


def _taps(length, shift, kernel_size, padding, stride):
    """How far to go along an axis, and from where both pixels arrive in their images.

    With circular padding a step that leaves an image goes on at its other end: that is
    another step for each number of times it wraps around.
    """
    # As lax.conv pads with "SAME": stride 2 begins at the first pixel's own window.
    padded = (-(-length // stride) - 1) * stride + kernel_size - length
    before = max(0, padded) // 2
    here = np.arange(length)
    for tap in range(-before, kernel_size - before):
        wraps = (here + tap) // length
        if padding == "zero":
            there = (here + shift) % length + tap
            if (wraps == 0).any():
                yield tap, (wraps == 0) & (there >= 0) & (there < length)
        else:
            yield from ((tap - r * length, wraps == r) for r in np.unique(wraps))


def _summed(steps, weights, plane):
    """Where a weight is 0 it does not matter which pixel is read."""
    total = None
    for step, weight in zip(steps, weights, strict=True):
        share = plane  # without a step all stay inside: weights are 1
        if step != 0:
            weight = weight.reshape(-1, *[1] * (plane.ndim - 1))
            share = _moved(plane, step) * weight
        total = share if total is None else total + share
    return total


def _moved(plane, step):
    """The pixels `step` further on, and the first after the last."""
    return _pixels_of(plane, (np.arange(len(plane)) + step) % len(plane))


def _pixels_of(plane, numbers):
    """By index, as XLA makes slow programs of `roll` for CPUs.

    They choose between the two parts that are joined for one number at a time.
    """
    return plane.at[numbers].get(mode="promise_in_bounds", unique_indices=True)


def strided(plane: Array, size: Size, stride: int) -> Array:
    """Every so many pixels, along both axes."""
    if stride == 1:
        return plane
    return as_rows(as_grid(plane, size)[::stride, ::stride])


def add_means(
    stored: Float[Array, "targets pixels ..."],
    plane: Float[Array, "more_pixels ..."],
    size: Size,
    targets: Int[Array, "2 2"],
    weights: Float[Array, "2 2"],
) -> Float[Array, "targets pixels ..."]:
    """`stored` with a plane's share of the means over 2 x 2 pixels of both images.

    The pixels `(2 i + p, 2 j + q)` add to the displacement `j - i`, a sixteenth each.

    Args:
        stored: planes of the displacements wanted after the means.
        plane: one displacement before.
        size: of the images before.
        targets, weights: for each `p`, to which plane of `stored`, from
            `displacements.means_of`.
    """
    grid = as_grid(plane, size)
    for p in (0, 1):
        for q in (0, 1):
            share = as_rows(grid[p::2, q::2]) * (weights[p, q] / 16)
            stored = stored.at[targets[p, q]].add(share)
    return stored
