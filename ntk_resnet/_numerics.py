"""Arithmetic that several packages share: compensated sums, and a root safe at 0."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Sum(NamedTuple):
    """A compensated sum: its rounded value, and what rounding has cut off."""

    value: Float[Array, "..."]
    rest: Float[Array, "..."]

    @classmethod
    def start(cls, value: Float[Array, "..."]) -> "Sum":
        """A sum that begins at `value`."""
        return cls(value, jnp.zeros_like(value))

    def add(self, increment: Float[Array, "..."]) -> "Sum":
        """With one more term, by two-sum; `value` is renormalised to the whole."""
        increment = increment + self.rest
        value = self.value + increment
        part = value - self.value
        return Sum(value, (self.value - (value - part)) + (increment - part))


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
