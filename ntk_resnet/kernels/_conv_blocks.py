r"""Blocks of convolutional networks, on the kernels of pixel pairs.

A convolution is a box filter of the kernel between pixels, an activation its dual:

.. math::
    S = \tfrac{\sigma_w^2}{k^2} \mathrm{box}(K) + \sigma_b^2, \qquad
    \Theta_S = S + \tfrac{\sigma_w^2}{k^2} \mathrm{box}(\Theta), \qquad
    K' = T(S), \qquad \Theta' = \dot T(S)\,\Theta_S .

A block is gone through twice: by the variances of the pixels of single images, which
are kept for every activation on the way (`Entering`), and by the pairs, which need
them.
Where the network has no length scale, every image is rescaled after each block to a
mean variance of 1, and the scale is kept as a logarithm: no depth overflows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ntk_resnet._duals.cosines import activation_cosine, slope_cosine
from ntk_resnet._duals.piecewise import PiecewiseLinear
from ntk_resnet.convolutional import Convolutional, ConvResNet
from ntk_resnet.kernels import _planes


class Planes(NamedTuple):
    """Kernels of pixel pairs, `(pixels, ...)`."""

    nngp: Float[Array, "pixels ..."]
    ntk: Any  # the same, of all weights so far; `None`: not wanted


class Entering(NamedTuple):
    """What an activation meets in each pixel of an image; fields `(pixels, n)`."""

    inverse: Float[Array, "..."]  # 1 / standard deviation; large where that is 0
    after: Float[Array, "..."]  # sqrt(E phi^2)
    slope: Float[Array, "..."]  # sqrt(E phi'^2); if homogeneous `(n,)`
    log_variance: Float[Array, "..."] | None  # for activations with a length scale


class Seen(NamedTuple):
    """What the pairs need to know of each image to go through a block."""

    entering: tuple[Entering, ...]  # one an activation
    mean: Any  # E h before the block, `(pixels, n)`, or `None`: post-activation only
    push: Any  # E of the branch, the same
    shrink: Any  # `(n,)`: what makes the mean variance 1, or `None`: has a length scale


class Images(NamedTuple):
    """Single images after some blocks."""

    variance: Float[Array, "pixels n"]
    mean: Any  # E h, `(pixels, n)`, or `None`: post-activation only
    log_scale: Float[Array, " n"]  # ln of what variances have been divided by


class Windows(NamedTuple):
    """The windows of a block's convolutions, at a displacement."""

    size: _planes.Size  # of the images that enter
    inner: _planes.Window
    outer: _planes.Window


def windows_at(
    spec: Convolutional, size: _planes.Size, d: Any, dtype: Any, stride: int = 1
) -> Windows:
    """The windows of a block that images of that size, displaced by `d`, enter."""
    given = spec.kernel_size, spec.padding, dtype
    inner = _planes.window(size, d, *given, stride)
    if stride == 1:
        return Windows(size, inner, inner)
    height, width = size
    smaller = height // stride, width // stride
    return Windows(size, inner, _planes.window(smaller, d // stride, *given))


class Pending(NamedTuple):
    """Planes, and what is still to be done to them, by the program that reads them.

    `finish` takes them with the NTK or without.
    """

    planes: Planes
    finish: Callable[[Planes], Planes] = lambda planes: planes

    def nngp(self) -> Array:
        return self.finish(Planes(self.planes.nngp, None)).nngp


def convolve(
    spec: Convolutional,
    given: Pending,
    window: _planes.Window,
    size: _planes.Size,
    held: Bool[Array, ""],
    variance: float,
    bias: float = 0.0,
    *,
    trained: bool = True,
) -> Pending:
    """Begins a convolution; `trained` adds the gradients of its own weights.

    Sums over columns are made, those over rows are left to who reads the planes.
    """
    weight = variance / spec.kernel_size**2

    def down(plane):
        flat = _flat(plane)
        return _planes.apart(held, lambda: window.down(flat)).reshape(plane.shape)

    def across(plane):
        return weight * _planes.strided(window.across(plane), size, window.stride)

    def finish(planes):
        nngp = across(planes.nngp) + bias
        if planes.ntk is None:
            return Planes(nngp, None)
        ntk = across(planes.ntk)
        return Planes(nngp, nngp + ntk if trained else ntk)

    ready = given.finish(given.planes)
    return Pending(jax.tree.map(down, ready), finish)


def _flat(plane):
    """One axis of pairs, not two short ones: twice as fast where all else is alike."""
    return plane.reshape(len(plane), -1)


def _branch(spec, planes, windows, held, activate) -> Pending:
    """The branch of a block, before its scale; `activate` takes what is pending."""
    height, width = windows.size
    stride = windows.inner.stride
    smaller = height // stride, width // stride

    def inner(given):
        of = windows.inner, windows.size, held
        return convolve(spec, given, *of, spec.weight_variance, spec.bias_variance)

    def outer(given):
        return convolve(spec, given, windows.outer, smaller, held, 1.0)

    return spec.branch(Pending(planes), inner, activate, outer)


def _trunk(spec, planes, windows) -> Planes | None:
    """What the branch is added to: the planes, or after 1 x 1 windows in steps."""
    if not isinstance(spec, ConvResNet):
        return None
    stride = windows.inner.stride
    if stride == 1:
        return planes
    nngp, ntk = jax.tree.map(
        lambda plane: _planes.strided(plane, windows.size, stride), planes
    )
    return Planes(
        nngp, nngp + ntk if ntk is not None and spec.trained == "all" else ntk
    )


# ------------------------------------------------------------------------ single images


def through_images(
    spec: Convolutional, images: Images, scale: Any, windows: Windows
) -> tuple[Images, Seen]:
    """Single images after one more block, and what pairs need to know of them."""
    entering, pushes = [], []

    def activate(given):
        moments, logs = _moments(spec, given.nngp())
        after = jnp.exp((logs + moments.log_gain) / 2)
        slope, inverse = jnp.exp(moments.log_slope / 2), jnp.exp(-logs / 2)
        if spec.homogeneous:
            entering.append(Entering(inverse, after, slope[0], None))
        else:
            entering.append(Entering(inverse, after, slope, logs))
        pushes.append(moments.mean * after)
        return Pending(Planes(after * after, None))

    before, held = Planes(images.variance, None), jnp.asarray(scale) >= 0
    variance = _branch(spec, before, windows, held, activate).nngp()
    mean, push = images.mean, None
    if (trunk := _trunk(spec, before, windows)) is not None:
        variance = trunk.nngp + scale**2 * variance
    if mean is not None:
        push = scale * pushes[0]
        if windows.inner.stride > 1:
            mean = jnp.zeros_like(push)  # projected by weights of mean zero
        variance = variance + 2 * mean * push
    after = Images(variance, mean if mean is None else mean + push, images.log_scale)
    shrink = None
    if spec.homogeneous:
        after, shrink = _rescaled(after)
        if trunk is None:  # all that the pairs know is in one activation
            (only,) = entering
            entering = [
                only._replace(after=only.after * shrink, slope=only.slope * shrink)
            ]
    return after, Seen(tuple(entering), mean, push, shrink)


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
    shrink = jax.lax.rsqrt(size)
    mean = None if images.mean is None else images.mean * shrink
    log_scale = images.log_scale + jnp.log(size)
    return Images(images.variance / size, mean, log_scale), shrink


# ---------------------------------------------------------------------- pairs of images


def through_pairs(
    spec: Convolutional,
    planes: Planes,
    scale: Any,
    windows: Windows,
    first: Seen,
    second: Seen,
    distinct: Float[Array, "..."],
) -> Planes:
    """Pairs after one more block.

    Args:
        spec, planes, scale, windows: as in `through_images`.
        first, second: the images of the pairs, shaped to broadcast, those of `second`
            displaced.
        distinct: 0 for an image with itself at no displacement, else 1.
    """
    held = jnp.asarray(scale) >= 0
    met = iter(zip(first.entering, second.entering, strict=True))

    def activate(given):
        return _activated(spec, given, held, *next(met), distinct)

    branch = _branch(spec, planes, windows, held, activate)
    trunk = _trunk(spec, planes, windows)
    if trunk is None:
        return branch.planes
    cross = None
    if first.mean is not None:
        cross = first.mean * second.push + first.push * second.mean
    factor = None if first.shrink is None else first.shrink * second.shrink
    return _joined(trunk, branch, held, scale, cross, factor)


def _joined(trunk, branch, held, scale, cross, factor):
    """The trunk with the branch, of one axis of pairs as long as there is no `cross`.

    One program for each kernel: what both need is quickly computed twice.
    """
    shape = trunk.nngp.shape
    if cross is None:
        trunk, planes = jax.tree.map(_flat, (trunk, branch.planes))
        branch = branch._replace(planes=planes)
        factor = None if factor is None else factor.reshape(-1)

    def scaled(plane):
        return plane if factor is None else plane * factor

    def nngp():
        added = scale**2 * branch.nngp()
        return scaled(trunk.nngp + (added if cross is None else added + cross))

    def ntk():
        added = branch.finish(branch.planes).ntk
        return scaled(trunk.ntk + scale**2 * added)

    after = Planes(
        _planes.apart(held, nngp),
        None if trunk.ntk is None else _planes.apart(held, ntk),
    )
    return jax.tree.map(lambda plane: plane.reshape(shape), after)


def _activated(spec, given, held, first, second, distinct) -> Pending:
    """After an activation, by a program for each kernel as in `_joined`."""

    def gap(nngp):
        cosine = nngp * (first.inverse * second.inverse)
        return jnp.clip(1 - cosine, 0, 2) * distinct

    def nngp():
        after = _cosine_after(spec, gap(given.nngp()), first, second)
        return after * (first.after * second.after)

    def ntk():
        entering = given.finish(given.planes)
        slope = _cosine_of_slopes(spec, gap(entering.nngp), first, second)
        return slope * both_slopes * entering.ntk

    both_slopes = first.slope * second.slope
    after = _planes.apart(held, nngp)
    if given.planes.ntk is None:
        return Pending(Planes(after, None))
    return Pending(Planes(after, _planes.apart(held, ntk)))


def _cosine_after(spec, gap, first, second):
    if isinstance(spec.activation, PiecewiseLinear):
        return activation_cosine(gap, spec.activation.kink)
    logs = first.log_variance, second.log_variance
    return 1 - spec.activation.dual(*logs, gap, 2 - gap).gap


def _cosine_of_slopes(spec, gap, first, second):
    if isinstance(spec.activation, PiecewiseLinear):
        return slope_cosine(gap, spec.activation.kink)
    logs = first.log_variance, second.log_variance
    return 1 - spec.activation.dual(*logs, gap, 2 - gap).slope_gap
