"""The limit kernels of any specification from the definitions, in NumPy and float64.

Nothing is shared with the package but the fields of the specification: covariances
between all pixels of all inputs at once, no gaps, one formula for each block and each
branch scale. Rows are images of one pixel.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import scipy.special
from branches import branch_of

import ntk_resnet as nr
from ntk_resnet.activations import named


class State(NamedTuple):
    """Covariance and NTK `(n, H, W, n, H, W)` and mean `(n, H, W)` of the features."""

    k: np.ndarray
    t: np.ndarray
    mean: np.ndarray


# ------------------------------------------------------------------------- activations


def _piecewise_linear(activation):
    """Cho and Saul's arc-cosine kernels of order 1 and 0, for two slopes."""
    a, b = activation.negative, activation.positive
    factor = (b - a) ** 2 / (2 * math.pi)

    def dual(k, size, cosine):
        theta = np.arccos(cosine)
        slope = (a * a + b * b) / 2 - factor * theta
        return factor * size * np.sin(theta) + k * slope, slope

    return dual, lambda q: (b - a) * np.sqrt(q / (2 * math.pi))


def _erf_dual(k, size, cosine):
    del size, cosine
    one = 1 + 2 * np.diag(k)
    total = np.outer(one, one)
    value = 2 / math.pi * np.arcsin(2 * k / np.sqrt(total))
    return value, 4 / math.pi / np.sqrt(total - 4 * k**2)


def _by_integration(function, slope, points=401, reach=10.0):
    """By the trapezoid rule in two independent Gaussians: geometric convergence."""
    g = np.linspace(-reach, reach, points)
    weight = (g[1] - g[0]) / math.sqrt(2 * math.pi) * np.exp(-g * g / 2)

    def expectation(f, p1, p2, u):
        second = math.sqrt(p2) * (u * g[:, None] + math.sqrt(1 - u * u) * g)
        return (weight * f(math.sqrt(p1) * g)) @ f(second) @ weight

    def dual(k, size, cosine):
        del size
        found, q = np.empty((2, *k.shape)), np.diag(k)
        for i, j in np.ndindex(k.shape):
            if i <= j:
                for place, f in enumerate((function, slope)):
                    value = expectation(f, q[i], q[j], cosine[i, j])
                    found[place, i, j] = found[place, j, i] = value
        return tuple(found)

    return dual, lambda q: function(np.sqrt(q)[..., None] * g) @ weight


_GELU = (
    lambda z: z * scipy.special.ndtr(z),
    lambda z: scipy.special.ndtr(z) + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi),
)
_TANH = (np.tanh, lambda z: 1 / np.cosh(z) ** 2)
_SMOOTH = {named.Gelu: _GELU, named.Tanh: _TANH}


def _activation(activation):
    """Duals as functions of covariance, root of the variances and cosine; the mean."""
    if isinstance(activation, named.PiecewiseLinear):
        return _piecewise_linear(activation)
    if isinstance(activation, named.Erf):
        return _erf_dual, np.zeros_like
    if type(activation) not in _SMOOTH:
        raise ValueError(f"no oracle for {activation!r}: add it and its slope here.")
    return _by_integration(*_SMOOTH[type(activation)])


# ------------------------------------------------------- trunk and branch of each block


def scales_of(spec):
    """The factors of trunk and branch of every block, each `(depth,)`."""
    block = np.arange(1, spec.depth + 1)
    one = np.ones(spec.depth)
    formulas = {
        "ConstantScale": lambda s: (one, s.alpha * one),
        "DepthScale": lambda s: (one, spec.depth**-s.gamma * one),
        "DecreasingScale": lambda _: (one, 1 / (np.sqrt(block) * np.log(block + 1))),
        "BalancedScale": lambda s: (
            math.sqrt(1 - s.share) * one,
            math.sqrt(s.share) * one,
        ),
    }
    scale = spec.branch_scale
    return formulas[type(scale).__name__](scale)


class _Network:
    """The operations of a specification on states."""

    def __init__(self, spec):
        self.spec = spec
        self.dual, self.mean = _activation(spec.activation)
        self.images = spec.takes_images

    def window(self, tensor, stride=1):
        """The mean over windows of both pixels that move together."""
        if not self.images:
            return tensor
        size = self.spec.kernel_size
        n, *sides = tensor.shape[:3]
        total = np.zeros((n, *(side // stride for side in sides)) * 2)
        rows, columns = (self._taps(side, size, stride) for side in sides)
        for row in rows:
            for column in columns:
                moved = tensor
                for axis, index in ((1, row), (2, column), (4, row), (5, column)):
                    moved = self._taken(moved, axis, index)
                total += moved
        return total / size**2

    def _taps(self, side, size, stride):
        out = side // stride
        before = max(0, (out - 1) * stride + size - side) // 2
        return [np.arange(out) * stride + k - before for k in range(size)]

    def _taken(self, tensor, axis, index):
        side = tensor.shape[axis]
        inside = (index >= 0) & (index < side) | (self.spec.padding == "circular")
        shape = [-1 if k == axis else 1 for k in range(6)]
        return np.take(tensor, index % side, axis) * inside.reshape(shape)

    def _weighted(self, h, variance, bias, stride=1):
        k = variance * self.window(h.k, stride) + bias
        t = k + variance * self.window(h.t, stride)
        return State(k, t, np.zeros(k.shape[:3]))

    def inner(self, h, *, stride):
        """W and its bias, trained."""
        return self._weighted(
            h, self.spec.weight_variance, self.spec.bias_variance, stride
        )

    def outer(self, h):
        """V, trained."""
        return self._weighted(h, 1.0, 0.0)

    def activated(self, h):
        flat = h.k.reshape(math.prod(h.k.shape[:3]), -1)
        size = np.sqrt(np.outer(np.diag(flat), np.diag(flat)))
        cosine = np.clip(flat / size, -1, 1)
        np.fill_diagonal(cosine, 1)
        k, slope = self.dual(flat, size, cosine)
        mean = self.mean(np.diag(flat)).reshape(h.k.shape[:3])
        return State(k.reshape(h.k.shape), slope.reshape(h.k.shape) * h.t, mean)

    def block(self, h, trunk, scale, stride):
        inner = functools.partial(self.inner, stride=stride)
        branch = branch_of(self.spec.block, inner, self.activated, self.outer)(h)
        if stride > 1:  # the trunk passes through a 1 x 1 convolution
            k, t = (v[:, ::2, ::2, :, ::2, ::2] for v in (h.k, h.t))
            h = State(k, t + k * self.trains_ends, np.zeros(k.shape[:3]))
        cross = np.multiply.outer(h.mean, branch.mean)
        cross = cross + np.moveaxis(cross, (3, 4, 5), (0, 1, 2))
        return State(
            trunk**2 * h.k + scale**2 * branch.k + trunk * scale * cross,
            trunk**2 * h.t + scale**2 * branch.t,
            trunk * h.mean + scale * branch.mean,
        )

    @property
    def trains_ends(self):
        return self.spec.trained == "all"


def _halved(tensor):
    """Means over 2 x 2 pixels."""
    for axis in [a for a in range(tensor.ndim) if a % 3]:
        even, odd = (
            np.take(tensor, np.arange(first, tensor.shape[axis], 2), axis)
            for first in (0, 1)
        )
        tensor = (even + odd) / 2
    return tensor


def limit_kernels(spec, x):
    """`(nngp, ntk)`, raw, of a specification between the inputs `x`."""
    net, residual = _Network(spec), isinstance(spec, nr.ResNet | nr.ConvResNet)
    x = np.asarray(x, float)
    pixels = x if net.images else x[:, None, None]
    k = np.einsum("nyxc,mvuc->nyxmvu", pixels, pixels) / pixels.shape[-1]
    h = State(k, 0 * k, np.zeros(k.shape[:3]))
    if residual:
        k = net.window(k)
        h = State(k, k * net.trains_ends, h.mean)
        if getattr(spec, "input_activation", False):
            h = net.activated(h)
        trunks, branches = scales_of(spec)
    number = 0
    for stage, blocks in enumerate(spec.stages if net.images else (spec.depth,)):
        stride = 2 if stage and spec.downsampling == "stride" else 1
        if stage and spec.downsampling == "average":
            h = State(*map(_halved, h))
        for _ in range(blocks):
            if residual:
                h = net.block(h, trunks[number], branches[number], stride)
            else:
                h = net.activated(net.inner(h, stride=stride))
            stride, number = 1, number + 1
    count = h.mean[0].size
    pooled = net.images and spec.readout == "pool"
    pattern = "nyxmvu->nm" if pooled else "nyxmyx->nm"
    nngp, ntk = (np.einsum(pattern, v) / count ** (1 + pooled) for v in (h.k, h.t))
    return nngp, ntk + net.trains_ends * nngp
