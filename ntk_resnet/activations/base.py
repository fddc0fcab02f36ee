r"""What an activation does to two correlated Gaussians, in gap form.

For Gaussians :math:`z_1, z_2` of variances `p_1, p_2` and cosine `u`, the kernels of
the activations and of their slopes are :math:`E\,\varphi(z_1)\varphi(z_2)` and
:math:`E\,\varphi'(z_1)\varphi'(z_2)` (the dual activations). Both are handed out as
gaps, one minus the cosine, computed without subtracting nearly equal numbers, since
deep kernels live at cosines next to one.
"""

import abc
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Dual(NamedTuple):
    """A pair of Gaussians after the activation; every field broadcasts over pairs."""

    gap: Float[Array, "..."]  # 1 - cosine of the activations, in [0, 2]
    gap_decrease: Float[Array, "..."]  # gap before minus gap after, computed as such
    slope_gap: Float[Array, "..."]  # 1 - cosine of the slopes, in [0, 2]
    slope_supplement_gap: Float[Array, "..."]  # 1 + cosine of the slopes


class Moments(NamedTuple):
    """One Gaussian of variance p after the activation; every field like `p`."""

    log_gain: Float[Array, "..."]  # ln(E phi^2 / p)
    log_slope: Float[Array, "..."]  # ln(E phi'^2)
    mean: Float[Array, "..."]  # E phi / sqrt(E phi^2)


class AbstractActivation(abc.ABC):
    """An activation and its dual. Subclasses are frozen and compare by value."""

    homogeneous: bool = False
    """Whether phi(c z) = c phi(z) for all c > 0."""

    @property
    def has_kink(self) -> bool:
        """Whether phi' jumps at 0."""
        return False

    @abc.abstractmethod
    def __call__(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """phi(z), entry by entry."""

    @abc.abstractmethod
    def moments(self, log_variance: Float[Array, "..."]) -> Moments:
        """Moments of phi of a Gaussian with the variance `exp(log_variance)`."""

    @abc.abstractmethod
    def dual(
        self,
        log_variance1: Float[Array, "..."],
        log_variance2: Float[Array, "..."],
        gap: Float[Array, "..."],
        supplement_gap: Float[Array, "..."],
    ) -> Dual:
        """The pair after the activation; gaps are 1 - cosine and 1 + cosine."""

    def cosines(
        self, log_variance1: Any, log_variance2: Any, gap: Float[Array, "..."]
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Cosines of the activations and of their slopes, where gaps do not matter.

        Both variances may be `None` if the activation is homogeneous.
        """
        dual = self.dual(log_variance1, log_variance2, gap, 2 - gap)
        return 1 - dual.gap, 1 - dual.slope_gap

    def precise_pair(self, variance: Any) -> Callable[[Any], tuple[Any, Any]]:
        """`E phi phi'` and `E phi' phi''` of the cosine, in python-flint's `arb`.

        For Gaussians of one variance, and in the precision of the context.

        Raises:
            ValueError: there are none to so many bits.
        """
        raise ValueError(
            f"activation {self!r} is known in float64 only, and eigenvalues on the "
            "sphere need its dual to hundreds of bits; take a named activation, or "
            "give it a method `precise_pair`."
        )

    def precise_mean(self, variance: Any) -> Any:
        """`E phi` of a Gaussian, likewise; only of blocks that end in an activation.

        Raises:
            ValueError: it is not known to so many bits.
        """
        raise ValueError(
            f"activation {self!r} has no `precise_mean`, which blocks that end in an "
            "activation need for eigenvalues on the sphere; take another block."
        )

    def stax(self, nt_stax: Any) -> Any:
        """The layer of neural-tangents, of its module `stax`.

        Raises:
            ValueError: it has no kernel for this activation.
        """
        raise ValueError(
            f"neural-tangents has no kernel for the activation {self!r}; "
            "nr.kernel_fn(spec) has it, by the activation's own dual."
        )

    @functools.cached_property
    def unit_second_moment(self) -> float:
        """E phi(g)^2 of a standard Gaussian g, to float64 accuracy."""
        with jax.enable_x64(), jax.ensure_compile_time_eval():
            return float(jnp.exp(self.moments(jnp.zeros(())).log_gain))


def smallest(log_variance: Float[Array, "..."]) -> float:
    """ln of a variance so small that smooth activations are linear to rounding."""
    return -40.0 if log_variance.dtype == jnp.float32 else -300.0


def at_least_tiny(log_variance: Float[Array, "..."]) -> Float[Array, "..."]:
    """`log_variance`, no smaller than `smallest`: moments and squares do not underflow.

    Gains, that is ratios to the variance, have reached their limit there.
    """
    return jnp.maximum(log_variance, smallest(log_variance))
