"""Convolutional networks: what they are, and two that the literature measures."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ntk_resnet._checks import check_choice, check_count
from ntk_resnet.specification.base import Residual, Specification

PADDINGS = ("zero", "circular")
READOUTS = ("pool", "flatten")
DOWNSAMPLINGS = ("stride", "average")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convolutional(Specification):
    """What convolutional networks have in common."""

    takes_images = True

    kernel_size: int = 3
    padding: str = "zero"
    readout: str = "pool"
    stages: Any = None  # from construction on a tuple
    downsampling: str = "stride"

    def __post_init__(self):
        super().__post_init__()
        check_count("kernel_size", self.kernel_size)
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size must be odd, got {self.kernel_size}; a window needs a "
                "pixel in its middle."
            )
        check_choice("padding", self.padding, PADDINGS)
        check_choice("readout", self.readout, READOUTS)
        check_choice("downsampling", self.downsampling, DOWNSAMPLINGS)
        stages = self.depth if self.stages is None else self.stages
        stages = stages if isinstance(stages, Sequence) else (stages,)
        stages = tuple(check_count("a number in stages", blocks) for blocks in stages)
        if sum(stages) != self.depth:
            raise ValueError(
                f"stages {stages} have {sum(stages)} blocks, but depth is "
                f"{self.depth}; the numbers must add up to the depth."
            )
        object.__setattr__(self, "stages", stages)

    def check_size(self, name: str, height: int, width: int) -> None:
        """Raises a `ValueError` unless images of that size pass through all stages."""
        shrinks = 2 ** (len(self.stages) - 1)
        if height % shrinks or width % shrinks:
            raise ValueError(
                f"{name} holds images of {height} x {width} pixels; {len(self.stages)} "
                f"stages need multiples of {shrinks}."
            )
        least = min(height, width) // shrinks
        if self.padding == "circular" and self.kernel_size > least:
            raise ValueError(
                f"{name} has {least} pixels along a side of the last stage; circular "
                f"padding needs at least kernel_size = {self.kernel_size}."
            )

    def replace(self, **changes):
        """A copy with some fields changed; a network of one stage remains one."""
        if "depth" in changes and len(self.stages) == 1:
            changes = {"stages": None, **changes}
        return super().replace(**changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNet(Convolutional):
    r"""A plain convolutional network of `depth` layers, for images `(n, H, W, C)`.

    .. math::
        h_0 = x, \quad
        h_\ell = \varphi\Big(\sqrt{\sigma_w^2 / (k^2 m_{\ell-1})}\, W_\ell * h_{\ell-1}
                 + \sigma_b b_\ell\Big),

    with `k x k` windows, then the readout: `v . mean_pixels(h_L) / sqrt(m)` or
    `v . h_L / sqrt(m H W)`. All weights are standard normal; a bias is one number a
    channel.

    Args:
        depth: convolutional layers, `L >= 1`.
        trained: `"all"` weights, or `"blocks"`, the convolutions: v is frozen. The
            default of `ConvResNet` is the other one; give both the same to compare.
        kernel_size: `k`, odd.
        padding: `"zero"`, or `"circular"`: images wrap around.
        readout: `"pool"` (global average) or `"flatten"`.
        stages: layers in each stage, which add up to `depth`; `None` means one stage.
            Between stages height and width are halved.
        downsampling: how: `"stride"`, the first convolution of the later stage has
            stride 2, or `"average"`, means over 2 x 2 pixels.
        activation, weight_variance, bias_variance: as in `FeedForward`.

    Raises:
        ValueError: an argument is out of its range; the text names it.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvResNet(Convolutional, Residual):
    """A convolutional residual network of `depth` blocks, for images `(n, H, W, C)`.

    `h_0 = A * x`, then `depth` blocks, then the readout `v` as in `ConvNet`; with
    `block=`

    * `"two_layer"`: `h + a V * phi(W * h)`,
    * `"preactivation"`: `h + a W * phi(h)`,
    * `"postactivation"`: `h + a phi(W * h)`,
    * `"full_preactivation"`: `h + a V * phi(W * phi(h))` (He et al. 2016, without
      normalisation).

    All convolutions have `k x k` windows. `W` has variance `weight_variance / fan_in`
    and a bias of `bias_variance`; `A`, `V` and `v` have variance `1 / fan_in` and no
    bias. With `downsampling="stride"` the first `W` of a later stage has stride 2, and
    `h` passes through a 1 x 1 convolution `S` of stride 2 and variance `1 / fan_in`.

    Args:
        depth: number of blocks, `L >= 1`.
        branch_scale: `a`, as in `ResNet`.
        block: see above.
        trained: `"blocks"` (A, S and v frozen at initialisation) or `"all"`.
        kernel_size, padding, readout, stages, downsampling: as in `ConvNet`.
        activation, weight_variance, bias_variance: as in `FeedForward`.

    Raises:
        ValueError: an argument is out of its range; the text names it.
    """

    trained: str = "blocks"  # as of `Residual`: `Convolutional` comes first


def wide_resnet(depth: int = 28, *, branch_scale: Any = 1.0, **changes) -> ConvResNet:
    """The residual network WRN-`depth` (Zagoruyko and Komodakis 2016), in one go wide.

    `depth = 6 n + 4` layers: three stages of `n` blocks `h + a V * phi(W * phi(h))`,
    stride 2 between them, mean over pixels, all weights trained; like the kernels in
    the literature without normalisation, and without an activation before the readout.

    Raises:
        ValueError: `depth` is not `6 n + 4` with `n >= 1`.
    """
    blocks, rest = divmod(check_count("depth", depth) - 4, 6)
    if rest or blocks < 1:
        raise ValueError(
            f"depth must be 6 n + 4 with n >= 1, such as 10, 16, 22 or 28; got {depth}."
        )
    return ConvResNet(
        depth=3 * blocks,
        stages=(blocks,) * 3,
        branch_scale=branch_scale,
        block="full_preactivation",
        trained="all",
    ).replace(**changes)


_MYRTLE = {5: (2, 1, 1), 7: (2, 2, 2), 10: (3, 3, 3)}


def myrtle(layers: int, **changes) -> ConvNet:
    """The plain network Myrtle-5, 7 or 10 (Shankar et al. 2020), made for 32 x 32.

    Three stages of 3 x 3 convolutions and ReLU, means over 2 x 2 pixels between them,
    and a mean over all that is left.

    Raises:
        ValueError: `layers` is not 5, 7 or 10.
    """
    if not isinstance(layers, int) or layers not in _MYRTLE:
        raise ValueError(f"layers must be 5, 7 or 10, got {layers!r}.")
    stages = _MYRTLE[layers]
    network = ConvNet(depth=sum(stages), stages=stages, downsampling="average")
    return network.replace(**changes)
