"""Kernels between all pairs of two sets of inputs, by either of our engines."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ntk_resnet._duals.base import safe_root
from ntk_resnet.architectures import Architecture
from ntk_resnet.kernels import recursion
from ntk_resnet.kernels._inputs import log_variance, pair_gaps
from ntk_resnet.kernels.profile import gap_from

QUANTITIES = ("ntk", "nngp", "ntk_gap", "nngp_gap")


def by_recursion(
    spec: Architecture,
    names: tuple[str, ...],
    normalised: bool,
    x1: Float[Array, "n1 d"],
    x2: Float[Array, "n2 d"] | None,
    scales: Float[Array, " depth"],
) -> tuple[Float[Array, "n1 n2"], ...]:
    """Each of `names`, kernels or their gaps; of `spec` only the shape counts.

    With `normalised=False` the kernels, not the gaps, are raw. `x2=None` means `x1`.
    """
    bias = spec.bias_variance
    logs = [log_variance(x, bias) for x in ((x1,) if x2 is None else (x1, x2))]
    start = [jnp.zeros((), x1.dtype)] if spec.homogeneous else logs
    gap, cogap = pair_gaps(x1, x1 if x2 is None else x2)
    if bias == 0:  # a row of zeros has no angle
        defined = (logs[0] == logs[0])[:, None] & (logs[-1] == logs[-1])
        gap = jnp.where(defined, gap, jnp.nan)
    state = recursion.first_state(spec, gap, cogap, *start)
    kernels = recursion.readout(spec, recursion.propagate(spec, state, scales))
    values = []
    for name in names:
        value = quantities(kernels)[name]
        if not normalised and name in ("nngp", "ntk"):
            norms = kernels.log_nngp if name == "nngp" else kernels.log_ntk
            if spec.homogeneous:  # it was run on unit rows: |x|^2 / d factors out
                norms = tuple(log + norms[0] for log in logs)
            value = scaled(value, norms[0], norms[-1])
        values.append(value)
    return tuple(values)


def quantities(kernels: recursion.Kernels) -> dict[str, Array]:
    """The normalised kernels and their gaps, by name."""
    return {
        "nngp": recursion.cosine(kernels),
        "ntk": 1 - kernels.ntk_gap,
        "nngp_gap": kernels.nngp_gap,
        "ntk_gap": kernels.ntk_gap,
    }


def by_profile(
    powers: tuple[tuple[int, int], ...],
    normalised: bool,
    tables: tuple[Any, ...],
    log_diagonals: tuple[Any, ...],
    x1: Float[Array, "n1 d"],
    x2: Float[Array, "n2 d"] | None,
) -> tuple[Float[Array, "n1 n2"], ...]:
    """The kernels whose tables, and raw diagonals at unit input kernel, are given."""
    gap, cogap = pair_gaps(x1, x1 if x2 is None else x2)
    obtuse = gap > cogap
    lesser = jnp.where(obtuse, cogap, gap)
    # The root has no derivative at 0; that of the kernel is set to 0 there, the mean
    # over both sides of the cusp.
    r = safe_root(lesser / 2)
    logs = [log_variance(x) for x in ((x1,) if x2 is None else (x1, x2))]
    defined = (logs[0] == logs[0])[:, None] & (logs[-1] == logs[-1])
    values = []
    for power, table, log_diagonal in zip(powers, tables, log_diagonals, strict=True):
        value = 1 - gap_from(table, power, r, obtuse)
        if not normalised:
            own = [log + log_diagonal for log in logs]
            value = scaled(value, own[0], own[-1])
        values.append(jnp.where(defined, value, jnp.nan))
    return tuple(values)


def scaled(
    value: Float[Array, "n1 n2"],
    log_diagonal1: Float[Array, " n1"],
    log_diagonal2: Float[Array, " n2"],
) -> Float[Array, "n1 n2"]:
    """The raw kernel; zero, not NaN, where its diagonal is zero."""
    log_size = (log_diagonal1[:, None] + log_diagonal2[None, :]) / 2
    zero = log_size == -jnp.inf
    # Both operands are replaced, so that the derivative is that of 0 as well.
    raw = jnp.exp(jnp.where(zero, 0, log_size)) * jnp.where(zero, 0, value)
    return jnp.where(zero, 0, raw)


def symmetric(matrix: Float[Array, "*many n n"]) -> Float[Array, "*many n n"]:
    """The upper triangle, mirrored: rounding may differ between the two."""
    return jnp.triu(matrix) + jnp.swapaxes(jnp.triu(matrix, 1), -1, -2)
