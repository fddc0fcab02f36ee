r"""What an activation does to two correlated Gaussians, in gap form.

For Gaussians :math:`z_1, z_2` of variances `p_1, p_2` and cosine `u`, the kernels of
the activations and of their slopes are :math:`E\,\varphi(z_1)\varphi(z_2)` and
:math:`E\,\varphi'(z_1)\varphi'(z_2)` (the dual activations). Both are handed out as
gaps, one minus the cosine, computed without subtracting nearly equal numbers, since
deep kernels live at cosines next to one.
"""

import abc
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Dual(NamedTuple):
    """A pair of Gaussians after the activation; every field broadcasts over pairs."""

    gap: Float[Array, "..."]  # 1 - cosine of the activations, in [0, 2]
    drop: Float[Array, "..."]  # gap before minus gap after, computed as such
    slope_gap: Float[Array, "..."]  # 1 - cosine of the slopes, in [0, 2]
    slope_cogap: Float[Array, "..."]  # 1 + cosine of the slopes


class Moments(NamedTuple):
    """One Gaussian of variance p after the activation; every field like `p`."""

    log_gain: Float[Array, "..."]  # ln(E phi^2 / p)
    log_slope: Float[Array, "..."]  # ln(E phi'^2)
    mean: Float[Array, "..."]  # E phi / sqrt(E phi^2)


class AbstractActivation(abc.ABC):
    """An activation and its dual. Subclasses are frozen and compare by value."""

    homogeneous: bool = False
    """Whether phi(c z) = c phi(z) for all c > 0."""

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
        cogap: Float[Array, "..."],
    ) -> Dual:
        """The pair after the activation; `gap` is 1 - cosine, `cogap` 1 + cosine."""

    @functools.cached_property
    def unit_second_moment(self) -> float:
        """E phi(g)^2 of a standard Gaussian g, to float64 accuracy."""
        with jax.enable_x64(), jax.ensure_compile_time_eval():
            return float(jnp.exp(self.moments(jnp.zeros(())).log_gain))


@jax.custom_jvp
def safe_root(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The square root, of no less than 0, with derivative 0 at 0.

    Not by `where(x > 0, sqrt(where(x > 0, x, 1)), 0)`: the compiler may compute `x`
    twice, once with a fused multiply-add, so that a difference that vanishes is 0 for
    one condition and positive for the other; the result is then 1.
    """
    return jnp.where(x > 0, jnp.sqrt(jnp.maximum(x, 0)), 0)


@safe_root.defjvp
def _(primals, tangents):
    root = safe_root(*primals)
    tiny = jnp.finfo(root.dtype).tiny
    slope = jnp.where(root > tiny, 0.5 / jnp.maximum(root, tiny), 0)
    return root, slope * tangents[0]


def smallest(log_variance: Float[Array, "..."]) -> float:
    """ln of a variance so small that smooth activations are linear to rounding."""
    return -40.0 if log_variance.dtype == jnp.float32 else -300.0


def at_least_tiny(log_variance: Float[Array, "..."]) -> Float[Array, "..."]:
    """`log_variance`, no smaller than `smallest`: moments and squares do not underflow.

    Gains, that is ratios to the variance, have reached their limit there.
    """
    return jnp.maximum(log_variance, smallest(log_variance))
