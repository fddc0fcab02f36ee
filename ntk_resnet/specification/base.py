"""What a network is: frozen specifications, validated when they are made.

A specification is equal and hashable by value and goes to JSON and back, so that it can
be a cache key, a static argument under `jax.jit`, and part of a saved result.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ntk_resnet._checks import check_choice, check_count, check_number
from ntk_resnet.activations import named
from ntk_resnet.specification.scales import BranchScale, ConstantScale

TRAINED = ("blocks", "all")
MOST = 10**15  # blocks: their number is exact in float64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Specification:
    """What all networks have in common."""

    takes_images: ClassVar[bool] = False
    """Whether inputs are images `(n, H, W, C)`; else rows `(n, d)`."""

    depth: int
    trained: str = "all"
    # Names and None are accepted; from construction on these hold the resolved values.
    activation: Any = "relu"
    weight_variance: Any = None
    bias_variance: float = 0.0

    def __post_init__(self):
        settle = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        settle("depth", check_count("depth", self.depth))
        if self.depth > MOST:
            raise ValueError(f"depth must be at most 10^15, got {self.depth}.")
        check_choice("trained", self.trained, TRAINED)
        settle("activation", named.as_activation(self.activation))
        if self.weight_variance is None:
            moment = self.activation.unit_second_moment
            if not 0 < moment < float("inf"):
                raise ValueError(
                    f"activation {self.activation!r} has E phi(g)^2 = {moment}; take "
                    "one for which it is positive and finite."
                )
            settle("weight_variance", 1 / moment)
        settle(
            "weight_variance",
            check_number("weight_variance", self.weight_variance, positive=True),
        )
        settle("bias_variance", check_number("bias_variance", self.bias_variance))

    @property
    def trains_readout(self) -> bool:
        """Whether the readout is trained, and the first layer of residual networks.

        Otherwise the blocks alone are: of plain networks, all layers but the readout.
        """
        return self.trained == "all"

    @property
    def common_scale(self) -> float | None:
        """The one branch scale of all blocks, 1 without branches; `None` if they
        differ."""
        return 1.0

    @property
    def trains_nothing(self) -> bool:
        """Whether no weight is trained that matters: an NTK of zeros."""
        return False

    @property
    def homogeneous(self) -> bool:
        """Whether the kernels are `|x| |x'|` times a function of the angle alone."""
        return self.activation.homogeneous and self.bias_variance == 0

    def branch(
        self,
        h: Any,
        inner: Callable[[Any], Any],
        activate: Callable[[Any], Any],
        outer: Callable[[Any], Any],
    ) -> Any:
        """What a layer, or the branch of a block, makes of `h`, before its scale.

        Of `inner`, the weights W and their bias, `activate`, and `outer`, V, each is
        called where it stands: on networks, and on what is known of infinite ones.
        """
        return activate(inner(h))

    def replace(self, **changes):
        """A copy with some fields changed; the other fields stay as they are."""
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Residual(Specification):
    """What residual networks have in common."""

    branch_scale: Any  # a BranchScale, or a number that is made one
    block: str = "two_layer"
    trained: str = "blocks"

    blocks: ClassVar[tuple[str, ...]]
    """The kinds of block that there are."""

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.branch_scale, BranchScale):
            object.__setattr__(self, "branch_scale", ConstantScale(self.branch_scale))
        check_choice("block", self.block, self.blocks)

    @property
    def has_outer_weights(self) -> bool:
        """Whether blocks have a second weight, V."""
        return self.block in ("two_layer", "full_preactivation")

    def branch(self, h, inner, activate, outer):
        if self.block in ("preactivation", "full_preactivation"):
            h = activate(h)
        h = inner(h)
        if self.block != "preactivation":
            h = activate(h)
        return outer(h) if self.has_outer_weights else h

    @property
    def common_scale(self) -> float | None:
        return self.branch_scale.common(self.depth)

    @property
    def trains_nothing(self) -> bool:
        # Scales that differ are positive.
        return not self.trains_readout and self.common_scale == 0

    @property
    def scales(self) -> np.ndarray:
        """`a_1 .. a_L`, float64, of shape `(depth,)`."""
        return self.branch_scale.values(self.depth)


def check_network(spec: Any, *, convolutional: bool = False) -> Specification:
    """`spec`, if it is the specification of a network that is fully connected.

    Or also of a convolutional one, where `convolutional` allows them.
    """
    if not isinstance(spec, Specification):
        raise ValueError(
            f"spec must be a network such as nr.FeedForward(depth=3), got {spec!r}."
        )
    if spec.takes_images and not convolutional:
        raise ValueError(
            f"spec must be fully connected here, got {spec!r}; for images there are "
            "nr.kernel_fn, nr.gram, nr.diag and nr.sweep_depth."
        )
    return spec
