"""Convolutional specifications as neural-tangents networks; used by `stax`."""

import functools
import math
import warnings
from typing import Any

import jax

from ntk_resnet.reference.branch import branch
from ntk_resnet.specification.blocks import INNER
from ntk_resnet.specification.convolutional import Convolutional


def convolutional_network(
    spec: Convolutional, width: int, out_features: int, nt_stax: Any
) -> tuple:
    """The triple of `spec`; `nt_stax` is neural-tangents' module."""
    layers = _Layers(spec, width, nt_stax)
    stages = layers.residual_stages() if spec.has_trunk else layers.plain_stages()
    readout = nt_stax.Dense(out_features)
    if not spec.trains_readout:
        readout = layers.frozen(readout)
    pool = nt_stax.GlobalAvgPool if spec.readout == "pool" else nt_stax.Flatten
    network = nt_stax.serial(*stages, pool(), readout)
    return *network[:2], _without_warnings(network[2])


class _Layers:
    def __init__(self, spec, width, nt_stax):
        self.spec, self.width, self.stax = spec, width, nt_stax

    def conv(self, variance, bias=0.0, *, stride=1, size=None):
        padding = {"zero": "SAME", "circular": "CIRCULAR"}[self.spec.padding]
        side = self.spec.kernel_size if size is None else size
        return self.stax.Conv(
            self.width,
            (side, side),
            (stride, stride),
            padding,
            W_std=math.sqrt(variance),
            b_std=math.sqrt(bias) if bias else None,
        )

    def plain_stages(self):
        for number, blocks in enumerate(self.spec.stages):
            average = self.spec.downsampling == "average"
            if number > 0 and average:
                yield self.stax.AvgPool((2, 2), (2, 2))
            stride = 1 if number == 0 or average else 2
            yield self.branch(1.0, stride)
            yield from self.repeated(self.branch(1.0), blocks - 1)

    def branch(self, scale, stride=1):
        """A layer or branch; W has the stride."""

        def convolution(operation, variance, bias):
            own = stride if operation == INNER else 1
            return self.conv(variance, bias, stride=own)

        return branch(self.spec, scale, self.stax, convolution)

    def residual_stages(self):
        stem = self.conv(1.0)
        yield stem if self.spec.trains_readout else self.frozen(stem)
        scales = self.spec.scales.tolist()
        for number, blocks in enumerate(self.spec.stages):
            own, scales = scales[:blocks], scales[blocks:]
            if number > 0 and self.spec.downsampling == "average":
                yield self.stax.AvgPool((2, 2), (2, 2))
            elif number > 0:
                yield self.residual(own.pop(0), 2)
            if len(set(own)) == 1:
                yield from self.repeated(self.residual(own[0]), len(own))
            else:
                yield from (self.residual(scale) for scale in own)

    def residual(self, scale, stride=1):
        """A block, by neural-tangents' own layers for sums."""
        trunk = self.stax.Identity()
        if stride > 1:
            trunk = self.conv(1.0, stride=stride, size=1)
            trunk = trunk if self.spec.trains_readout else self.frozen(trunk)
        if (square := self.spec.trunk_square(scale)) != 1:
            trunk = self.stax.serial(trunk, _times(square))
        sides = self.stax.parallel(trunk, self.branch(scale, stride))
        return self.stax.serial(self.stax.FanOut(2), sides, self.stax.FanInSum())

    def repeated(self, layer, count):
        if count > 2:
            return [self.stax.repeat(_same_order(layer), count)]
        return [layer] * count

    def frozen(self, layer):
        """A layer without the share of its weights in the NTK: they are not trained."""
        init_fn, trained_apply_fn, trained_kernel_fn = layer

        def apply_fn(params, inputs, **kwargs):
            return trained_apply_fn(jax.lax.stop_gradient(params), inputs, **kwargs)

        @functools.wraps(trained_kernel_fn)
        def kernel_fn(k, **kwargs):
            out = trained_kernel_fn(k, **kwargs)
            return out if out.ntk is None else out.replace(ntk=out.ntk - out.nngp)

        return init_fn, apply_fn, kernel_fn


def _times(square):
    """A layer that multiplies by a number of that square."""

    def apply_fn(params, inputs, **kwargs):
        return math.sqrt(square) * inputs

    def kernel_fn(k, **kwargs):
        names = ("nngp", "ntk", "cov1", "cov2")
        pairs = {name: getattr(k, name) for name in names}
        return k.replace(
            **{name: square * v for name, v in pairs.items() if v is not None}
        )

    return lambda rng, shape: (shape, ()), apply_fn, kernel_fn


def _same_order(layer):
    """A layer that keeps the order of the pixel axes, which convolutions exchange."""
    init_fn, apply_fn, layer_kernel_fn = layer

    @functools.wraps(layer_kernel_fn)
    def kernel_fn(k, **kwargs):
        out = layer_kernel_fn(k, **kwargs)
        return out if out.is_reversed == k.is_reversed else out.reverse()

    return init_fn, apply_fn, kernel_fn


def _without_warnings(kernel_fn):
    """That sums need independent branches, which they are, is said in every call."""

    @functools.wraps(kernel_fn)
    def quiet(*args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kernel_fn(*args, **kwargs)

    return quiet
