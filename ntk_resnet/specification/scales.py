"""The scales of residual branches."""

import abc
import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from ntk_resnet._checks import check_number


@dataclasses.dataclass(frozen=True)
class BranchScale(abc.ABC):
    """The factors `a_1, ..., a_L` in front of the residual branches."""

    depends_on_depth: ClassVar[bool] = True
    """Whether `a_l` changes when the network gets deeper."""

    def common(self, depth: int) -> float | None:
        """The one scale of all blocks; `None` if they differ."""
        return None

    @abc.abstractmethod
    def values(self, depth: int) -> np.ndarray:
        """`a_1 .. a_depth`, float64, of shape `(depth,)`."""

    def trunk_square(self, scale: Any) -> Any:
        """The square of the trunk's factor, where that of the branch is `scale`.

        Of a number, or an array of NumPy's or JAX's.
        """
        return 1.0

    @property
    def rule(self) -> "BranchScale":
        """One scale for all that have the same trunk: they share compilations."""
        plain = type(self).trunk_square is BranchScale.trunk_square
        return ConstantScale(1.0) if plain else self


@dataclasses.dataclass(frozen=True)
class ConstantScale(BranchScale):
    """`a_l = alpha` in every block of every network. 0 is legal: a linear kernel."""

    alpha: float
    depends_on_depth: ClassVar[bool] = False

    def __post_init__(self):
        object.__setattr__(self, "alpha", check_number("branch_scale", self.alpha))

    def common(self, depth: int) -> float:
        return self.alpha

    def values(self, depth: int) -> np.ndarray:
        return np.full(depth, self.common(depth))


@dataclasses.dataclass(frozen=True)
class DepthScale(BranchScale):
    """`a_l = L^-gamma` in a network of depth `L` (Huang et al. 2020, section 2).

    `gamma = 1/2` keeps the signal bounded and the kernel non-trivial, `1/2 < gamma <=
    1` tends to the kernel of one block, below 1/2 the kernel degenerates with depth.
    """

    gamma: float
    depends_on_depth: ClassVar[bool] = True

    def __post_init__(self):
        object.__setattr__(self, "gamma", check_number("gamma", self.gamma))

    def common(self, depth: int) -> float:
        return float(depth) ** -self.gamma

    def values(self, depth: int) -> np.ndarray:
        return np.full(depth, self.common(depth))


@dataclasses.dataclass(frozen=True)
class DecreasingScale(BranchScale):
    """`a_l = 1 / (sqrt(l) ln(l + 1))`, square-summable (Hayou et al. 2021)."""

    depends_on_depth: ClassVar[bool] = False

    def values(self, depth: int) -> np.ndarray:
        block = np.arange(1, depth + 1, dtype=float)
        return 1 / (np.sqrt(block) * np.log(block + 1))


@dataclasses.dataclass(frozen=True)
class BalancedScale(BranchScale):
    r"""`sqrt(1 - share) h + sqrt(share) f(h)` in every block.

    The variance stays what it is where the branch keeps it. At the default both are
    over the root of 2 (De and Smith 2020, section 3).

    Args:
        share: of the branch in the variance, in [0, 1). 0 is legal: a linear kernel.
    """

    share: float = 0.5
    depends_on_depth: ClassVar[bool] = False

    def __post_init__(self):
        share = check_number("share", self.share)
        if share >= 1:
            raise ValueError(f"share must be below 1, got {share}: no trunk is left.")
        object.__setattr__(self, "share", share)

    def common(self, depth: int) -> float:
        return math.sqrt(self.share)

    def values(self, depth: int) -> np.ndarray:
        return np.full(depth, self.common(depth))

    def trunk_square(self, scale: Any) -> Any:
        return 1 - scale * scale

    @property
    def rule(self) -> "BranchScale":
        return BalancedScale()
