r"""Blocks of convolutional networks, on the kernels of pixel pairs.

A convolution is a box filter of the kernel between pixels, an activation its dual:

.. math::
    S = \tfrac{\sigma_w^2}{k^2} \mathrm{box}(K) + \sigma_b^2, \qquad
    \Theta_S = S + \tfrac{\sigma_w^2}{k^2} \mathrm{box}(\Theta), \qquad
    K' = T(S), \qquad \Theta' = \dot T(S)\,\Theta_S .

One `block` serves twice: on the variances of the pixels of single images, which it
keeps for every activation on the way (`Entering`), and on the pairs, which need them.
Where the network has no length scale, every image is rescaled after each block to a
mean variance of 1, and the scale is kept as a logarithm: no depth overflows.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ntk_resnet._duals.cosines import dual_cosines
from ntk_resnet._duals.piecewise import PiecewiseLinear
from ntk_resnet.convolutional import Convolutional, ConvResNet
from ntk_resnet.kernels import _planes


class Planes(NamedTuple):
    """Kernels of pixel pairs, `(H, W, ...)`."""

    nngp: Float[Array, "H W ..."]
    ntk: Any  # the same, of all weights so far; `None`: not wanted


class Entering(NamedTuple):
    """What an activation meets in each pixel of an image; fields `(H, W, n)`."""

    inverse: Float[Array, "..."]  # 1 / standard deviation; large where that is 0
    after: Float[Array, "..."]  # sqrt(E phi^2)
    slope: Float[Array, "..."]  # sqrt(E phi'^2); if homogeneous `(n,)`
    log_variance: Float[Array, "..."] | None  # for activations with a length scale


class Seen(NamedTuple):
    """What the pairs need to know of each image to go through a block."""

    entering: tuple[Entering, ...]  # one an activation
    mean: Any  # E h before the block, `(H, W, n)`, or `None`: post-activation only
    push: Any  # E of the branch, the same
    shrink: Any  # `(n,)`: what makes the mean variance 1, or `None`: has a length scale


class Images(NamedTuple):
    """Single images after some blocks."""

    variance: Float[Array, "H W n"]
    mean: Any  # E h, `(H, W, n)`, or `None`: post-activation only
    log_scale: Float[Array, " n"]  # ln of what variances have been divided by


def convolve(
    spec: Convolutional,
    planes: Planes,
    d: Any,
    held: Bool[Array, ""],
    variance: float,
    bias: float = 0.0,
    *,
    stride: int = 1,
    trained: bool = True,
) -> Planes:
    """After a convolution; `trained` adds the gradients of its own weights."""
    weight = variance / spec.kernel_size**2
    size, padding = spec.kernel_size, spec.padding

    def filtered(plane):
        return weight * _planes.box(plane, d, size, padding, held, stride)

    nngp = filtered(planes.nngp) + bias
    if planes.ntk is None:
        return Planes(nngp, None)
    if trained:
        return Planes(nngp, filtered(planes.nngp + planes.ntk) + bias)
    return Planes(nngp, filtered(planes.ntk))


def block(
    spec: Convolutional,
    planes: Planes,
    d: Any,
    scale: Any,
    activate: Callable[[Planes], Planes],
    stride: int = 1,
) -> tuple[Planes | None, Planes]:
    """The trunk and the branch of a block (a plain layer is a branch alone).

    The branch is multiplied by the square of `scale`, which is not negative. `activate`
    is called once for every activation, in their order. `d` is the displacement before
    steps are taken.
    """
    weight, bias = spec.weight_variance, spec.bias_variance
    after = [axis // stride for axis in d]
    held = jnp.asarray(scale) >= 0
    inner = functools.partial(convolve, spec, d=d, held=held, variance=weight)
    inner = functools.partial(inner, bias=bias, stride=stride)
    if not isinstance(spec, ConvResNet):
        return None, activate(inner(planes))
    branch = planes
    if spec.block in ("preactivation", "full_preactivation"):
        branch = activate(branch)
    branch = inner(branch)
    if spec.block != "preactivation":
        branch = activate(branch)
    if spec.block in ("two_layer", "full_preactivation"):
        branch = convolve(spec, branch, after, held, 1.0)
    branch = jax.tree.map(lambda plane: scale**2 * plane, branch)
    return _projected(spec, planes, stride), branch


def _projected(spec, planes, stride):
    """The trunk: itself, or after a convolution of 1 x 1 pixels in steps."""
    if stride == 1:
        return planes
    nngp, ntk = jax.tree.map(lambda plane: _planes.strided(plane, stride), planes)
    return Planes(
        nngp, nngp + ntk if ntk is not None and spec.trained == "all" else ntk
    )


def _sum(trunk, branch):
    return branch if trunk is None else jax.tree.map(jnp.add, trunk, branch)


# ------------------------------------------------------------------------ single images


def through_images(
    spec: Convolutional, images: Images, scale: Any, stride: int = 1
) -> tuple[Images, Seen]:
    """Single images after one more block, and what pairs need to know of them."""
    entering, pushes = [], []

    def activate(planes):
        # Pixels without signal: a floor keeps ratios finite. Where all the signal of an
        # image comes near it, rounding has eaten it, and nothing is known.
        limits = jnp.finfo(planes.nngp.dtype)
        logs = jnp.log(jnp.maximum(planes.nngp, limits.tiny))
        if not spec.homogeneous and spec.bias_variance == 0:
            lost = jnp.mean(planes.nngp, axis=(0, 1)) < limits.tiny / limits.eps
            logs = jnp.where(lost, jnp.nan, logs)
        moments = spec.activation.moments(logs)
        after = jnp.exp((logs + moments.log_gain) / 2)
        slope, inverse = jnp.exp(moments.log_slope / 2), jnp.exp(-logs / 2)
        if spec.homogeneous:
            entering.append(Entering(inverse, after, slope[0, 0], None))
        else:
            entering.append(Entering(inverse, after, slope, logs))
        pushes.append(moments.mean * after)
        return Planes(after * after, None)

    trunk, branch = block(
        spec, Planes(images.variance, None), (0, 0), scale, activate, stride
    )
    variance, mean, push = _sum(trunk, branch).nngp, images.mean, None
    if mean is not None:
        push = scale * pushes[0]
        if stride > 1:
            mean = jnp.zeros_like(push)  # projected by weights of mean zero
        variance = variance + 2 * mean * push
    before = mean
    mean = None if mean is None else mean + push
    if not spec.homogeneous:
        return Images(variance, mean, images.log_scale), Seen(
            tuple(entering), before, push, None
        )
    size = jnp.mean(variance, axis=(0, 1))
    shrink = jax.lax.rsqrt(size)
    after = Images(
        variance / size,
        None if mean is None else mean * shrink,
        images.log_scale + jnp.log(size),
    )
    return after, Seen(tuple(entering), before, push, shrink)


# ---------------------------------------------------------------------- pairs of images


def through_pairs(
    spec: Convolutional,
    planes: Planes,
    d: Any,
    scale: Any,
    first: Seen,
    second: Seen,
    distinct: Float[Array, "..."],
    stride: int = 1,
) -> Planes:
    """Pairs after one more block.

    Args:
        spec, planes, scale, stride: as in `block`.
        d: the displacement.
        first, second: the images of the pairs, shaped to broadcast, those of `second`
            displaced.
        distinct: 0 for an image with itself at no displacement, else 1.
    """
    met = iter(zip(first.entering, second.entering, strict=True))
    trunk, branch = block(
        spec,
        planes,
        d,
        scale,
        lambda planes: _planes.apart(
            functools.partial(_activated, spec),
            jnp.asarray(scale) >= 0,
            planes,
            *next(met),
            distinct,
        ),
        stride,
    )
    after = _sum(trunk, branch)
    if first.mean is not None:
        cross = first.mean * second.push + first.push * second.mean
        after = after._replace(nngp=after.nngp + cross)
    if first.shrink is None:
        return after
    factor = first.shrink * second.shrink
    return jax.tree.map(lambda plane: plane * factor, after)


def _activated(spec, planes, first, second, distinct):
    activation = spec.activation
    cosine = planes.nngp * (first.inverse * second.inverse)
    gap = jnp.clip(1 - cosine, 0, 2) * distinct
    if isinstance(activation, PiecewiseLinear):
        after, slope = dual_cosines(gap, activation.kink)
    else:
        logs = first.log_variance, second.log_variance
        dual = activation.dual(*logs, gap, 2 - gap)
        after, slope = 1 - dual.gap, 1 - dual.slope_gap
    nngp = after * (first.after * second.after)
    if planes.ntk is None:
        return Planes(nngp, None)
    return Planes(nngp, slope * (first.slope * second.slope) * planes.ntk)
