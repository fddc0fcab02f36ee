"""Norms of inputs, from the smallest numbers to the largest.

Rows are divided by powers of two first, on the host where nothing is traced: a device
may flush subnormal numbers to zero. Inside a trace rows that lose digits so are NaN.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_resnet._precision import flushed, in_trace, is_traced
from ntk_resnet.specification.base import Specification


def log_variances(
    x: Any, bias_variance: float = 0.0
) -> Float[Array, " n"] | Float[np.ndarray, " n"]:
    """ln(|x|^2 / d) of every row, on the host where nothing is traced.

    NaN for rows of zeros, and inside a trace for those whose digits are lost. With a
    bias the kernel of a row of zeros is defined, and the result is no smaller than
    e^-60 of the bias, where the row no longer matters in either dtype: a floor instead
    of -inf keeps ratios of variances finite.
    """
    if not in_trace(x):
        host = np.asarray(x)
        return host_log_variances(host, bias_variance).astype(host.dtype)
    x = jnp.asarray(x)
    reduced, exponents = over_powers_of_two(x)
    mean_square = jnp.mean(reduced**2, axis=1)
    logs = jnp.log(jnp.where(mean_square > 0, mean_square, 1))
    logs = logs + 2 * math.log(2) * exponents[:, 0].astype(x.dtype)
    lost = flushed(x)
    if bias_variance == 0:
        return jnp.where((mean_square > 0) & ~lost, logs, jnp.nan)
    floor = _floor(bias_variance)
    logs = jnp.where(mean_square > 0, jnp.maximum(logs, floor), floor)
    return jnp.where(lost & (logs > floor), jnp.nan, logs)


def host_log_variances(
    x: Float[np.ndarray, "n d"], bias_variance: float = 0.0
) -> Float[np.ndarray, " n"]:
    """The same in float64, of either dtype."""
    size = np.abs(x).max(axis=1).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.mean((x / size[:, None]) ** 2, axis=1)) + 2 * np.log(size)
    return logs if bias_variance == 0 else np.fmax(logs, _floor(bias_variance))


def _floor(bias_variance):
    return math.log(bias_variance) - 60


def over_powers_of_two(x):
    """Rows with a largest entry in [1/2, 1), exactly: no square over- or underflows."""
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=1, keepdims=True))
    exponents = jnp.frexp(size)[1]
    return jnp.ldexp(x, -exponents), exponents


def common_norm(spec: Specification, *inputs: Any) -> float:
    """`|x|^2 / d` of all rows, for networks whose profile depends on it; else 1.

    Raises:
        ValueError: the rows differ in norm by more than rounding, or are traced.
    """
    if spec.homogeneous:
        return 1.0
    if is_traced(inputs):
        raise ValueError(
            "engine='profile' must see the norms of the inputs of this network, which "
            "a trace hides; use engine='recursion' there."
        )
    given = [np.asarray(x) for x in inputs if x is not None]
    logs = np.concatenate([host_log_variances(x) for x in given])
    if not np.isfinite(logs).all():
        raise ValueError("a row of zeros has no angle: remove it for engine='profile'.")
    # Below the rounding of data and logarithm the norm differs between parts of the
    # same data, which are to share one profile.
    size = 2 ** np.ceil(np.log2(max(1, np.abs(logs).max())))
    step = 8 * float(np.finfo(np.result_type(*given)).eps) + size * 2.0**-50
    if not np.ptp(logs) <= step:
        raise ValueError(
            "engine='profile' needs inputs of one norm for a network with a bias or an "
            "activation that is not homogeneous; these differ by a factor "
            f"{np.exp(np.ptp(logs) / 2):.6g}; use engine='recursion'."
        )
    return float(np.exp(np.round(logs.mean() / step) * step))
