r"""Blocks of convolutional networks, on the kernels of pixel pairs.

A convolution is a box filter of the kernel between pixels, an activation its dual:

.. math::
    S = \tfrac{\sigma_w^2}{k^2} \mathrm{box}(K) + \sigma_b^2, \qquad
    \Theta_S = S + \tfrac{\sigma_w^2}{k^2} \mathrm{box}(\Theta), \qquad
    K' = T(S), \qquad \Theta' = \dot T(S)\,\Theta_S .

Every block is computed twice: for the variances of the pixels of single images
(`images`), and for pairs (`pairs`), which need statistics of both images.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ntk_resnet.kernels.convolution import operations
from ntk_resnet.specification.convolutional import Convolutional


class Planes(NamedTuple):
    """Kernels of pixel pairs, `(pixels, pairs)`.

    Convolutions take one axis of pairs, twice as fast as two short ones; activations,
    which need both images of a pair, take two: `(pixels, n1, n2)`.
    """

    nngp: Float[Array, "pixels ..."]
    ntk: Any  # the same, of all weights so far; `None`: not wanted


class Windows(NamedTuple):
    """The windows of a block's convolutions, at a displacement."""

    inner: operations.Window  # maybe with a stride
    outer: operations.Window


def windows_at(
    spec: Convolutional, size: operations.Size, d: Any, dtype: Any, stride: int = 1
) -> Windows:
    """The windows of a block that images of that size, displaced by `d`, enter."""
    given = spec.kernel_size, spec.padding, dtype
    inner = operations.window(size, d, *given, stride)
    if stride == 1:
        return Windows(inner, inner)
    height, width = size
    smaller = height // stride, width // stride
    return Windows(inner, operations.window(smaller, d // stride, *given))


class LazyPlanes(NamedTuple):
    """Planes, and what is still to be done to them, by the program that reads them.

    `finish` takes them with the NTK or without.
    """

    planes: Planes
    finish: Callable[[Planes], Planes] = lambda planes: planes

    def nngp(self) -> Array:
        """That of the finished planes."""
        return self.finish(Planes(self.planes.nngp, None)).nngp

    def of_pairs(self, shape: tuple[int, ...]) -> "LazyPlanes":
        """With other axes of pairs."""
        planes = jax.tree.map(lambda p: p.reshape(len(p), *shape), self.planes)
        return self._replace(planes=planes)


def convolve(
    spec: Convolutional,
    given: LazyPlanes,
    window: operations.Window,
    barrier: Bool[Array, ""],
    variance: float,
    bias: float = 0.0,
    *,
    trained: bool = True,
) -> LazyPlanes:
    """Begins a convolution; `trained` adds the gradients of its own weights.

    Sums over columns are made, those over rows are left to who reads the planes.
    """
    weight = variance / spec.kernel_size**2

    def down(plane):
        return operations.unfused(barrier, lambda: window.down(plane))

    def across(plane):
        return weight * operations.strided(
            window.across(plane), window.size, window.stride
        )

    def finish(planes):
        nngp = across(planes.nngp) + bias
        if planes.ntk is None:
            return Planes(nngp, None)
        ntk = across(planes.ntk)
        return Planes(nngp, nngp + ntk if trained else ntk)

    ready = given.finish(given.planes)
    return LazyPlanes(jax.tree.map(down, ready), finish)


def branch_of(
    spec: Convolutional,
    planes: Planes,
    windows: Windows,
    barrier: Bool[Array, ""],
    activate: Callable[[LazyPlanes], LazyPlanes],
) -> LazyPlanes:
    """The branch of a block, before its scale; `activate` takes what is pending."""

    def inner(given):
        variances = spec.weight_variance, spec.bias_variance
        return convolve(spec, given, windows.inner, barrier, *variances)

    def outer(given):
        return convolve(spec, given, windows.outer, barrier, 1.0)

    return spec.branch(LazyPlanes(planes), inner, activate, outer)


def defined(spec: Convolutional, scale: Any) -> Bool[Array, ""]:
    """Whether a block has such a branch scale; in traces nothing else is checked."""
    scale = jnp.asarray(scale)
    return (scale >= 0) & (spec.trunk_square(scale) >= 0)


def trunk_of(
    spec: Convolutional, planes: Planes, windows: Windows, scale: Any
) -> Planes | None:
    """What the branch of that scale is added to; `None` if to nothing.

    The planes, or what 1 x 1 windows in steps make of them, times the trunk's factor.
    """
    if not spec.has_trunk:
        return None
    _, _, size, stride = windows.inner
    if stride > 1:
        nngp, ntk = jax.tree.map(lambda p: operations.strided(p, size, stride), planes)
        trained = ntk is not None and spec.trains_readout
        planes = Planes(nngp, nngp + ntk if trained else ntk)
    return jax.tree.map(lambda plane: spec.trunk_square(scale) * plane, planes)
