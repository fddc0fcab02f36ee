"""Convolutional specifications as Flax networks, in NTK parametrisation.

Equal blocks of a stage are stacked and run by one scan, so the compiled program grows
with the number of stages and not with depth. What a block shares with no other stands
apart: a plain network's first layer, and the blocks with stride 2.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ntk_resnet._checks import check_count
from ntk_resnet.finite.base import Network, ends_of, normal, value_of
from ntk_resnet.specification.blocks import OUTER
from ntk_resnet.specification.convolutional import Convolutional


class BlockRun(NamedTuple):
    """Blocks that follow one another in a stage: a single one, or equal ones.

    Equal ones keep height, width and channels.
    """

    begin: int  # how many come before it
    blocks: int
    single: bool
    stride: int
    averages: bool  # whether means over 2 x 2 pixels come before it


def runs_of(spec: Convolutional) -> list[BlockRun]:
    """All blocks of a network, in order."""
    runs, begin = [], 0
    for stage, blocks in enumerate(spec.stages):
        averages = stage > 0 and spec.downsampling == "average"
        stride = 2 if stage > 0 and not averages else 1
        # The first layer of a plain network has other channels.
        single = stride > 1 or (stage == 0 and not spec.has_trunk)
        if single:
            runs.append(BlockRun(begin, 1, True, stride, False))
        if blocks > single:
            runs.append(BlockRun(begin + single, blocks - single, False, 1, averages))
        begin += blocks
    return runs


class BlockWeights(nnx.Module):
    """The weights of a `BlockRun`, stacked along a leading axis unless it is single.

    Attributes:
        weight: W, `(k, k, fan_in, width)`; bias: `(width,)` or `None`.
        outer_weight: V, `(k, k, width, width)`, or `None` in blocks without it.
        projection: S, `(1, 1, width, width)`, or `None` without steps.
    """

    def __init__(self, drawn: dict[str, Array], ends: type[nnx.Variable]):
        variable = lambda kind, name: kind(drawn[name]) if name in drawn else None  # noqa: E731
        self.weight = variable(nnx.Param, "weight")
        self.bias = variable(nnx.Param, "bias")
        self.outer_weight = variable(nnx.Param, "outer_weight")
        self.projection = variable(ends, "projection")

    def arrays(self) -> dict[str, Array | None]:
        """By name, without the variables around them."""
        names = ("weight", "bias", "outer_weight", "projection")
        return {name: value_of(getattr(self, name)) for name in names}


class ConvolutionalNetwork(Network):
    """`ConvNet` or `ConvResNet` at finite width.

    With `trained="blocks"` A, every S and v are `Frozen`; all else is `nnx.Param`.

    Attributes:
        input_weight: A, `(k, k, channels, width)`; `None` in a `ConvNet`.
        runs: a `BlockWeights` for each of `runs_of(spec)`.
        readout: v, `(width, out_features)`; with `readout="flatten"` of shape
            `(H W width, out_features)`, H and W those of the last stage.
    """

    def __init__(
        self, spec, in_features, width, out_features, *, rngs, param_dtype, dtype
    ):
        self.spec, self.in_features = spec, in_features
        self.width, self.dtype = width, dtype
        ends, residual = ends_of(spec), spec.has_trunk
        drawn = normal(rngs, param_dtype, **self._shapes(out_features))
        self.input_weight = ends(drawn["input_weight"]) if residual else None
        self.runs = nnx.List(
            BlockWeights(_below(drawn, number), ends)
            for number in range(len(runs_of(spec)))
        )
        self.readout = ends(drawn["readout"])

    def _shapes(self, out_features):
        """Of all weights, in the order in which they are drawn."""
        spec, m, window = self.spec, self.width, (self.spec.kernel_size,) * 2
        height, width, channels = self.in_features
        residual = spec.has_trunk
        shapes = {"input_weight": (*window, channels, m) if residual else None}
        for number, run in enumerate(runs_of(spec)):
            stack = () if run.single else (run.blocks,)
            fan_in = m if residual or run.begin else channels
            shapes |= {
                f"{number}/weight": (*stack, *window, fan_in, m),
                f"{number}/bias": (*stack, m) if spec.bias_variance > 0 else None,
            }
            if OUTER in spec.operations:
                shapes[f"{number}/outer_weight"] = (*stack, *window, m, m)
            if residual and run.stride > 1:
                shapes[f"{number}/projection"] = (1, 1, m, m)
        shrunk = 4 ** (len(spec.stages) - 1)
        pixels = 1 if spec.readout == "pool" else height * width // shrunk
        return shapes | {"readout": (pixels * m, out_features)}

    def features(self, x: Any) -> Float[Array, "n H W m"]:
        h = self._inputs(x)
        if self.input_weight is not None:
            h = self._convolve(h, self.input_weight[...])
        for run, weights in zip(runs_of(self.spec), self.runs, strict=True):
            given = weights.arrays() | self._scales(run)
            if run.averages:
                h = _means_2x2(h)
            if run.single:
                h = self._block(h, given, run.stride)
            else:
                h, _ = jax.lax.scan(lambda h, w: (self._block(h, w), None), h, given)
        return h

    def readout_inputs(self, x: Any) -> Float[Array, "n fan_in"]:
        h = self.features(x)
        if self.spec.readout == "pool":
            return jnp.mean(h, axis=(1, 2))
        return h.reshape(len(h), -1)

    def _scales(self, run):
        if not self.spec.has_trunk:
            return {}
        scales = self.spec.scales[run.begin : run.begin + run.blocks]
        return {"scale": jnp.asarray(scales[0] if run.single else scales, self.dtype)}

    def _block(self, h, weights, stride=1):
        """One layer or block; `weights` are those of one block."""

        def inner(h):
            variance = self.spec.weight_variance
            z = self._convolve(h, weights["weight"], variance, stride)
            return self._biased(z, weights["bias"])

        outer = lambda h: self._convolve(h, weights["outer_weight"])  # noqa: E731
        added = self.spec.branch(h, inner, self.spec.activation, outer)
        if not self.spec.has_trunk:
            return added
        if weights["projection"] is not None:
            h = self._convolve(h, weights["projection"], stride=stride)
        trunk = self.spec.trunk_square(weights["scale"]) ** 0.5
        return trunk * h + weights["scale"] * added

    def _convolve(self, h, weight, variance=1.0, stride=1):
        """`sqrt(variance / (k k fan_in)) W * h`, in steps."""
        padding = "SAME"
        if self.spec.padding == "circular":
            h, padding = _wrapped(h, len(weight), stride), "VALID"
        convolved = jax.lax.conv_general_dilated(
            h,
            weight.astype(self.dtype),
            (stride, stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return math.sqrt(variance / math.prod(weight.shape[:3])) * convolved


def _below(drawn, number):
    """What has been drawn for a run."""
    prefix = f"{number}/"
    return {
        name.removeprefix(prefix): array
        for name, array in drawn.items()
        if name.startswith(prefix)
    }


def _wrapped(h, kernel_size, stride):
    """Images that go round, as far beyond each side as "SAME" pads them."""
    pads = [(0, 0)]
    for size in h.shape[1:3]:
        outputs = -(-size // stride)
        total = max((outputs - 1) * stride + kernel_size - size, 0)
        pads.append((total // 2, total - total // 2))
    return jnp.pad(h, [*pads, (0, 0)], mode="wrap")


def _means_2x2(h):
    n, height, width, channels = h.shape
    return jnp.mean(h.reshape(n, height // 2, 2, width // 2, 2, channels), axis=(2, 4))


def check_image_shape(spec: Convolutional, in_features: Any) -> tuple[int, int, int]:
    """`in_features` as (height, width, channels) that pass through all stages."""
    if np.ndim(in_features) != 1 or len(in_features) != 3:
        raise ValueError(
            "in_features must be (height, width, channels) for a convolutional "
            f"network, such as (32, 32, 3); got {in_features!r}."
        )
    height, width, channels = (
        check_count("a number in in_features", number) for number in in_features
    )
    spec.check_size("in_features", height, width)
    return height, width, channels
