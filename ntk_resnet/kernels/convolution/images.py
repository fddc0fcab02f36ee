"""Single images through the blocks of a convolutional network.

What every activation on the way meets is kept for the pairs. Where the network has no
length scale, every image is rescaled after each block to a mean variance of 1, and the
scale is kept as a logarithm: no depth overflows.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntk_resnet.kernels.convolution.blocks import (
    LazyPlanes,
    Planes,
    Windows,
    branch_of,
    defined,
    trunk_of,
)
from ntk_resnet.specification.convolutional import Convolutional


class Entering(NamedTuple):
    """What an activation meets in each pixel of an image; fields `(pixels, n)`."""

    inverse: Float[Array, "..."]  # 1 / standard deviation; large where that is 0
    after: Float[Array, "..."]  # sqrt(E phi^2)
    slope: Float[Array, "..."]  # sqrt(E phi'^2); if homogeneous `(n,)`
    log_variance: Float[Array, "..."] | None  # for activations with a length scale


class BlockStatistics(NamedTuple):
    """What the pairs need to know of each image to go through a block."""

    entering: tuple[Entering, ...]  # one an activation
    mean: Any  # E of the trunk, `(pixels, n)`, or `None`: increments have none
    increment_mean: Any  # E of the branch, the same
    rescaling: Any  # `(n,)`: to a mean variance of 1; `None`: has a length scale


class Images(NamedTuple):
    """Single images after some blocks."""

    variance: Float[Array, "pixels n"]
    mean: Any  # E h, `(pixels, n)`, or `None`: increments have none
    log_scale: Float[Array, " n"]  # ln of what variances have been divided by


def through_images(
    spec: Convolutional, images: Images, scale: Any, windows: Windows
) -> tuple[Images, BlockStatistics]:
    """Single images after one more block, and what pairs need to know of them.

    `scale` is not negative; all is NaN if it is.
    """
    entering, means = [], []

    def activate(given):
        moments, logs = _moments(spec, given.nngp())
        after = jnp.exp((logs + moments.log_gain) / 2)
        slope, inverse = jnp.exp(moments.log_slope / 2), jnp.exp(-logs / 2)
        if spec.homogeneous:
            entering.append(Entering(inverse, after, slope[0], None))
        else:
            entering.append(Entering(inverse, after, slope, logs))
        means.append(moments.mean * after)
        return LazyPlanes(Planes(after * after, None))

    before, barrier = Planes(images.variance, None), defined(spec, scale)
    variance = branch_of(spec, before, windows, barrier, activate).nngp()
    mean, increment = images.mean, None
    if (trunk := trunk_of(spec, before, windows, scale)) is not None:
        variance = trunk.nngp + scale**2 * variance
    if mean is not None:
        mean, increment = spec.trunk_square(scale) ** 0.5 * mean, scale * means[-1]
        if windows.inner.stride > 1:
            mean = jnp.zeros_like(increment)  # projected by weights of mean zero
        variance = variance + 2 * mean * increment
    mean_after = mean if mean is None else mean + increment
    after = Images(variance, mean_after, images.log_scale)
    rescaling = None
    if spec.homogeneous:
        after, rescaling = _rescaled(after)
        if trunk is None:  # all that the pairs know is in one activation
            (only,) = entering
            both = only.after * rescaling, only.slope * rescaling
            entering = [only._replace(after=both[0], slope=both[1])]
    return after, BlockStatistics(tuple(entering), mean, increment, rescaling)


def _moments(spec, variance):
    """Moments of the activation, and logarithms of the variances as they are used."""
    # Pixels without signal: a floor keeps ratios finite. Where all the signal of an
    # image comes near it, rounding has eaten it, and nothing is known.
    limits = jnp.finfo(variance.dtype)
    logs = jnp.log(jnp.maximum(variance, limits.tiny))
    if not spec.homogeneous and spec.bias_variance == 0:
        lost = jnp.mean(variance, axis=0) < limits.tiny / limits.eps
        logs = jnp.where(lost, jnp.nan, logs)
    return spec.activation.moments(logs), logs


def _rescaled(images):
    """To a mean variance of 1; and by what standard deviations have been multiplied."""
    size = jnp.mean(images.variance, axis=0)
    rescaling = jax.lax.rsqrt(size)
    mean = None if images.mean is None else images.mean * rescaling
    log_scale = images.log_scale + jnp.log(size)
    return Images(images.variance / size, mean, log_scale), rescaling
