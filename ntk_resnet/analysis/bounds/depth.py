"""Weights as a path in depth: how far one block's are from the next one's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, ArrayLike, Float, Num

from ntk_resnet._checks import check_confidence, check_count, check_number
from ntk_resnet._inputs import check_array
from ntk_resnet._numerics import safe_root
from ntk_resnet.records.provenance import provenance


def depth_increments(weights: Num[ArrayLike, "depth *shape"]) -> xr.Dataset:
    r"""How smooth the weights of successive blocks are in depth (Marion 2023).

    With :math:`|W|_\infty` the largest entry and :math:`|W|_1` the sum of all, in
    absolute value, the depth-Lipschitz class of L blocks :math:`h + \frac 1L W_k
    \sigma(h)` has :math:`|W_k|_1 \le R_W` and :math:`|W_{k+1} - W_k|_\infty \le K_W/L`.

    Args:
        weights: of all blocks, `(L, ...)`, L at least 2.

    Returns:
        A dataset over `block`, 1 to L - 1: `largest`, :math:`|W_{k+1} - W_k|_\infty`,
        and `norm`, their Frobenius norm. And `lipschitz`, :math:`K_W`, L times the
        largest of all, `size`, :math:`R_W`, the largest :math:`|W_k|_1`, and
        `total`, the Frobenius norm of all increments together.

    Raises:
        ValueError: `weights` are no such array.

    Accuracy: differences in the dtype of the weights, sums in float64
    (`tests/analysis/test_bounds.py`).
    """
    weights = np.asarray(check_array("weights", weights, "(depth, ...)"))
    if len(weights) < 2:
        raise ValueError("weights must be of at least two blocks, (depth >= 2, ...).")
    depth, flat = len(weights), weights.reshape(len(weights), -1)
    steps = np.abs(np.diff(flat, axis=0)).astype(float)
    largest, norm = steps.max(axis=1), np.linalg.norm(steps, axis=1)
    return xr.Dataset(
        {
            "largest": ("block", largest),
            "norm": ("block", norm),
            "lipschitz": depth * float(largest.max()),
            "size": float(np.abs(flat).astype(float).sum(axis=1).max()),
            "total": float(np.linalg.norm(norm)),
        },
        coords={"block": np.arange(1, depth)},
        attrs=provenance(depth=depth),
    )


def depth_penalty(weights: Float[Array, "depth *shape"]) -> Float[Array, ""]:
    r""":math:`\bigl(\sum_k |W_{k+1} - W_k|_F^2\bigr)^{1/2}`, a term for a loss.

    To be multiplied by a strength and added to what Optax minimises (Marion 2023). Its
    gradient is 0 where all blocks are equal.

    Args:
        weights: of all blocks, `(L, ...)`.
    """
    return safe_root(jnp.sum(jnp.diff(weights, axis=0) ** 2))


def depth_lipschitz_bound(
    weights: Num[ArrayLike, "depth d d"], rows: int, *, confidence: float = 0.95
) -> xr.Dataset:
    r"""The terms of Marion's bound on test less training risk, up to their constant.

    .. math::
        R - \hat R_n \le B \left(\sqrt{\frac{(m + 1) \ln(R_W m n)}{n}} +
        \frac{m \sqrt{K_W}}{n^{1/4}} + \sqrt{\frac{\ln(1/\delta)}n}\right)

    with :math:`m = d^2` functions of depth and the norms of `depth_increments`. B grows
    exponentially with :math:`R_W` and does not depend on the depth. What is known of
    the theorem is its form, not its constants, so the terms are for comparison: of
    networks of one width, by how they depend on :math:`K_W` and n.

    Args:
        weights: of all blocks, `(L, d, d)`.
        rows: n, of the training set.
        confidence: 1 - delta.

    Returns:
        A dataset: `size_term`, `smoothness_term`, `chance_term` and their sum `bound`,
        all over B.

    Raises:
        ValueError: bad arguments.
    """
    found = depth_increments(check_array("weights", weights, "(depth, d, d)"))
    n, m = check_count("rows", rows), np.prod(np.shape(weights)[1:])
    confidence = check_confidence(confidence)
    size = np.sqrt((m + 1) * np.log(max(float(found["size"]) * m * n, 1)) / n)
    smooth = m * np.sqrt(float(found.lipschitz)) / n**0.25
    chance = np.sqrt(np.log(1 / (1 - confidence)) / n)
    return xr.Dataset(
        {
            "size_term": float(size),
            "smoothness_term": float(smooth),
            "chance_term": float(chance),
            "bound": float(size + smooth + chance),
        },
        attrs=provenance(rows=n),
    )


def smooth_weights(
    key: Any, depth: int, shape: tuple[int, ...], *, length_scale: float = 0.1
) -> Float[Array, "depth *shape"]:
    r"""Weights that vary smoothly with depth: a Gaussian process for each entry.

    Of mean 0, variance 1 and covariance :math:`\exp(-(s - t)^2 / 2 \ell^2)` at the
    depths s, t = 0, 1/L, ... (Marion 2023); to be multiplied by what a layer needs,
    such as :math:`1/\sqrt{\text{fan in}}`. Successive ones differ by
    :math:`1 / (\ell L)` in the root mean square.

    Args:
        key: of JAX's random numbers.
        depth: L.
        shape: of one block's weights.
        length_scale: l, in units of the whole depth.

    Returns:
        `(depth, *shape)`, in the default float.

    Raises:
        ValueError: bad arguments.
    """
    depth = check_count("depth", depth)
    scale = check_number("length_scale", length_scale, positive=True)
    at = np.arange(depth) / depth
    covariance = np.exp(-((at[:, None] - at) ** 2) / (2 * scale**2))
    # Of low rank to rounding: eigenvectors, not Cholesky, which would fail.
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.clip(values, 0, None))
    drawn = jax.random.normal(key, (depth, *shape))
    return jnp.tensordot(jnp.asarray(root, drawn.dtype), drawn, axes=1)
