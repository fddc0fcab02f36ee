r"""Sums and products of kernels in gap form: nothing is subtracted from one.

* sum: kernels with shares :math:`f_k` of the two diagonals and gaps :math:`\gamma_k`
  have the gap :math:`\frac12\sum_k(\sqrt{f_{k1}}-\sqrt{f_{k2}})^2
  + \sum_k\sqrt{f_{k1}f_{k2}}\,\gamma_k`,
* product: :math:`1-(1-\gamma_a)(1-\gamma_b)=\gamma_a+\gamma_b(1-\gamma_a)`.

Shares are given for the rows and for the columns: two arrays `(n1,)` and `(n2,)`, or
one for both; scalars where all inputs agree.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ntk_resnet._numerics import safe_root

Shares = Sequence[Float[Array, "..."]]
Gaps = tuple[Float[Array, "..."], Float[Array, "..."]]
"""1 - cosine and 1 + cosine."""


def spread(values: Shares) -> tuple[Array, Array]:
    """What belongs to rows and to columns, shaped to broadcast over pairs."""
    first, second = values[0], values[-1]
    if first.ndim == 0:
        return first, second
    return first[:, None], second[None, :]


def geometric_mean(values: Shares) -> Array:
    """sqrt(f1 f2) for every pair; the share itself where all inputs agree."""
    if values[0].ndim == 0:
        return values[0]
    first, second = spread([safe_root(value) for value in values])
    return first * second


def mismatch(*shares: Shares) -> Array:
    """The first sum: 0 where all inputs agree."""
    if shares[0][0].ndim == 0:
        return jnp.zeros_like(shares[0][0])
    roots = [spread([safe_root(value) for value in values]) for values in shares]
    squares: Any = sum((first - second) ** 2 for first, second in roots)
    return squares / 2


def product(one: Gaps, other: Gaps) -> Gaps:
    """Of two kernels; two obtuse pairs make an acute one."""
    (gap1, supplement_gap1), (gap2, supplement_gap2) = one, other
    gap = _product_gap(gap1, supplement_gap1, gap2, supplement_gap2)
    return gap, _product_gap(supplement_gap1, gap1, gap2, supplement_gap2)


def _product_gap(gap1, supplement_gap1, gap2, supplement_gap2):
    return jnp.where(
        (gap1 > 1) & (gap2 > 1),
        supplement_gap1 + supplement_gap2 * (1 - supplement_gap1),
        gap1 + gap2 * (1 - gap1),
    )
