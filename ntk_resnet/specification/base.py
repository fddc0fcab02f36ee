"""What a network is: frozen specifications, validated when they are made.

A specification is equal and hashable by value and goes to JSON and back, so that it can
be a cache key, a static argument under `jax.jit`, and part of a saved result.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ntk_resnet._checks import check_choice, check_count, check_number
from ntk_resnet.activations import named
from ntk_resnet.specification import blocks
from ntk_resnet.specification.scales import BranchScale, ConstantScale

TRAINED = ("blocks", "all")
MOST = 10**15  # blocks: their number is exact in float64
MOST_ONE_BY_ONE = 10**8  # about a gigabyte of scales, and hours


@dataclasses.dataclass(frozen=True, kw_only=True)
class Specification:
    """What all networks have in common."""

    takes_images: ClassVar[bool] = False
    """Whether inputs are images `(n, H, W, C)`; else rows `(n, d)`."""
    has_trunk: ClassVar[bool] = False
    """Whether blocks add a branch to what enters them, after a first layer."""
    input_activation = False  # no field here; only some networks have the choice

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
    def operations(self) -> tuple[str, ...]:
        """What a layer, or the branch of a block, is made of: see `blocks`."""
        return blocks.LAYER

    @property
    def trains_readout(self) -> bool:
        """Whether the readout is trained, and the first layer of residual networks.

        Otherwise the blocks alone are: of plain networks, all layers but the readout.
        """
        return self.trained == "all"

    @property
    def trains_nothing(self) -> bool:
        """Whether no weight is trained that matters: an NTK of zeros."""
        return False

    @property
    def common_scale(self) -> float | None:
        """The one branch scale of all blocks, 1 without branches; `None` if they
        differ."""
        return 1.0

    @property
    def scales(self) -> np.ndarray:
        """`a_1 .. a_L`, float64, of shape `(depth,)`; ones without branches.

        Raises:
            ValueError: there are too many to go through them one by one.
        """
        if self.depth > MOST_ONE_BY_ONE:
            raise ValueError(
                f"depth is {self.depth:,}, but these kernels go block by block, at "
                f"most {MOST_ONE_BY_ONE:,}; deeper there are profiles of ReLU networks "
                "without bias whose blocks are equal and whose increments have no mean."
            )
        scales = np.asarray(self._scales(), float)
        good = scales.shape == (self.depth,) and np.isfinite(scales).all()
        if not (good and (scales >= 0).all()):
            raise ValueError(
                f"branch_scale must give {self.depth} finite numbers >= 0, one for "
                f"each block, got {scales!r} from {self!r}."
            )
        return scales

    def _scales(self):
        return np.ones(self.depth)

    def trunk_square(self, scale: Any) -> Any:
        """The square of the trunk's factor, where that of the branch is `scale`.

        0 without a trunk.
        """
        return 0.0

    @property
    def nested(self) -> bool:
        """Whether the network is the first blocks of every deeper one."""
        return True

    @property
    def increments_have_mean(self) -> bool:
        """Whether blocks add something whose mean, over weights, is not zero."""
        return self.has_trunk and self.operations[-1] == blocks.ACTIVATE

    @property
    def homogeneous(self) -> bool:
        """Whether the kernels are `|x| |x'|` times a function of the angle alone."""
        return self.activation.homogeneous and self.bias_variance == 0

    @property
    def without_scales(self) -> "Specification":
        """One network for all that differ in their branch scales alone."""
        return self

    @property
    def without_depth(self) -> "Specification":
        """One network for all that differ in depth and branch scales alone."""
        return self.without_scales.replace(depth=1)

    def branch(
        self,
        h: Any,
        inner: Callable[[Any], Any],
        activate: Callable[[Any], Any],
        outer: Callable[[Any], Any],
    ) -> Any:
        """What a layer, or the branch of a block, makes of `h`, before its scale.

        Each of its operations is called where it stands: on networks, and on what is
        known of infinite ones.
        """
        does = {blocks.INNER: inner, blocks.ACTIVATE: activate, blocks.OUTER: outer}
        return functools.reduce(lambda h, name: does[name](h), self.operations, h)

    def check_size(self, name: str, height: int, width: int) -> None:
        """Raises a `ValueError` unless images of that size pass through the network."""

    def replace(self, **changes):
        """A copy with some fields changed; the other fields stay as they are."""
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Residual(Specification):
    """What residual networks have in common."""

    branch_scale: Any  # a BranchScale, or a number that is made one
    block: str = "two_layer"
    trained: str = "blocks"

    has_trunk = True
    blocks: ClassVar[tuple[str, ...]] = tuple(blocks.BLOCKS)
    """The kinds of block that there are."""

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.branch_scale, BranchScale):
            object.__setattr__(self, "branch_scale", ConstantScale(self.branch_scale))
        check_choice("block", self.block, blocks.BLOCKS)

    @property
    def operations(self) -> tuple[str, ...]:
        return blocks.BLOCKS[self.block]

    @property
    def common_scale(self) -> float | None:
        return self.branch_scale.common(self.depth)

    @property
    def trains_nothing(self) -> bool:
        # Scales that differ are not all 0.
        return not self.trains_readout and self.common_scale == 0

    def _scales(self):
        return self.branch_scale.values(self.depth)

    def trunk_square(self, scale: Any) -> Any:
        return self.branch_scale.trunk_square(scale)

    @property
    def nested(self) -> bool:
        return not self.branch_scale.depends_on_depth

    @property
    def without_scales(self) -> "Specification":
        return self.replace(branch_scale=self.branch_scale.rule)


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
