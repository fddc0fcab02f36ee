"""Lanczos' method on matrices that are known by their products."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg
from jaxtyping import Float
from matfree import decomp


class Krylov(NamedTuple):
    """Tridiagonal matrices `V' K V`, one for each start vector.

    `off[:, -1]` is the length of what is left over after the last step.
    """

    basis: Float[jax.Array, "k m n"]
    diagonal: Float[np.ndarray, "k m"]
    off: Float[np.ndarray, "k m"]


class Quadrature(NamedTuple):
    """Gauss quadrature of the spectral measures of the start vectors.

    Nodes ascend; where the Krylov space was used up early they are NaN, of weight 0.
    The weights of a start vector sum to 1.
    """

    nodes: Float[np.ndarray, "k m"]
    weights: Float[np.ndarray, "k m"]


def krylov(
    product: Any,
    starts: Float[np.ndarray, "k n"],
    steps: int,
    tick: Callable[[], Any] | None = None,
) -> Krylov:
    """`steps` steps from every start vector, side by side, reorthogonalised in full.

    Args:
        product: a pytree that is called with a block `(n, k)`, as `GramOperator` is.
        starts: in the dtype of the products, of any length but 0.
        steps: at most n.
        tick: called after each product.
    """

    @jax.custom_batching.custom_vmap
    def multiply(v, product):
        return product(v)

    @multiply.def_vmap
    def _(size, batched, block, product):  # one block product instead of k products
        if tick is not None:
            jax.debug.callback(tick)
        return product(block.T).T, True

    # Not tridiag_sym: it averages the lengths with noise where the space is used up.
    method = decomp.hessenberg(steps, reortho="full", custom_vjp=False)

    @jax.jit
    def run(product, starts):
        return jax.vmap(lambda v: method(lambda u: multiply(u, product), v))(starts)

    found = jax.block_until_ready(run(product, starts))
    inner = np.asarray(found.J_small, np.float64)
    last = np.linalg.norm(np.asarray(found.residual, np.float64), axis=1)
    below = np.diagonal(inner, -1, axis1=1, axis2=2)
    return Krylov(
        found.Q_tall,
        np.diagonal(inner, axis1=1, axis2=2),
        np.concatenate([below, last[:, None]], axis=1),
    )


def ritz(
    space: Krylov, at: int, eps: float
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m m"]]:
    """Eigenvalues, ascending, and vectors of one tridiagonal matrix.

    It is cut where a length is zero to rounding: from there on it holds noise.
    """
    diagonal, off = space.diagonal[at], space.off[at]
    steps, n = len(diagonal), space.basis.shape[2]
    scale = np.fmax.accumulate(np.abs(diagonal) + np.abs(off))
    ended = ~(off > n * eps * scale)  # also of NaN
    steps = int(np.argmax(ended)) + 1 if ended.any() else steps
    return scipy.linalg.eigh_tridiagonal(diagonal[:steps], off[: steps - 1])


def quadrature(space: Krylov, eps: float) -> Quadrature:
    """The Gauss rules behind the tridiagonal matrices (Golub and Welsch 1969)."""
    nodes = np.full(space.diagonal.shape, np.nan)
    weights = np.zeros(space.diagonal.shape)
    for at in range(len(nodes)):
        values, vectors = ritz(space, at, eps)
        nodes[at, : len(values)] = values
        weights[at, : len(values)] = vectors[0] ** 2
    return Quadrature(nodes, weights)
