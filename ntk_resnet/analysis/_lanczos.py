"""Lanczos' method on matrices that are known by their products."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float


class Krylov(NamedTuple):
    """Tridiagonal matrices `V' K V`, one for each start vector.

    `off[:, -1]` is the length of what is left over after the last step.
    """

    basis: Float[np.ndarray, "k m n"]
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
    product: Callable[[np.ndarray], np.ndarray],
    starts: Float[np.ndarray, "k n"],
    steps: int,
    tick: Callable[[], Any],
) -> Krylov:
    """`steps` steps from every start vector, side by side, reorthogonalised in full.

    The loop is the host's, in the dtype of the starts: beside a product, whose work is
    that of the whole matrix, the rest is little.

    Args:
        product: takes a block `(n, k)` to its product with the matrix.
        starts: in the dtype of the products, of any length but 0.
        steps: at most n.
        tick: called after each product.
    """
    count, n = starts.shape
    basis = np.zeros((count, steps, n), starts.dtype)
    diagonal, off = np.zeros((2, count, steps))
    vectors = _unit(starts, np.linalg.norm(starts, axis=1))
    for step in range(steps):
        basis[:, step] = vectors
        rest = product(vectors.T).T
        tick()
        known = basis[:, : step + 1]
        for _ in range(2):  # twice is enough (Giraud et al. 2005)
            along = known @ rest[:, :, None]
            rest = rest - (known.swapaxes(1, 2) @ along)[:, :, 0]
            diagonal[:, step] += along[:, -1, 0]
        off[:, step] = np.linalg.norm(rest, axis=1)
        vectors = _unit(rest, off[:, step])
    return Krylov(basis, diagonal, off)


def _unit(vectors, lengths):
    """Of length 1, or zeros where there is nothing left."""
    lengths = np.where(lengths > 0, lengths, 1)[:, None]
    return (vectors / lengths).astype(vectors.dtype)


def ritz(
    space: Krylov, at: int, eps: float
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m m"]]:
    """Eigenvalues, ascending, and vectors of one tridiagonal matrix.

    It is cut where a length is zero to rounding: from there on it holds noise.
    """
    diagonal, off = space.diagonal[at], space.off[at]
    steps, n = len(diagonal), space.basis.shape[2]
    scale = np.fmax.accumulate(np.abs(diagonal) + np.abs(off))
    ended = off <= n * eps * scale
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
