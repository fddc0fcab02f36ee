r"""Smooth positive functions on (0, 3/4] as tables: one gather, one short polynomial.

The variable is :math:`y = r + s`, `s` a power of two at most the scale on which the
function varies. The leading bits of `y`, its exponent and the first three of its
mantissa, number the row, so that nothing is searched; the bits that follow are the
argument of a polynomial of low degree. A row spans an eighth of an octave, less than a
sixteenth of the distance to the next singularity, which makes the coefficients fall
geometrically: errors are relative to the function itself, wherever it is small, and the
price of an entry does not depend on how finely the function varies.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import fft

ROWS_PER_OCTAVE = 8
END = np.sqrt(0.5)  # the tables reach at least to here
_LEADING_BITS = 3  # log2 of ROWS_PER_OCTAVE
ACCURACY = 5e-13
"""Relative error of both gaps, unless another is asked for; the check is against the
recursion at angles that are no nodes."""
# Few shapes, few compilations: rows are padded to a multiple, and terms, for the usual
# accuracy, to as many as most networks need.
_BLOCK = 256
_TERMS = {np.dtype("float32"): 6, np.dtype("float64"): 10}


class Table(NamedTuple):
    """Two functions, of the angle at its acute and of the supplement at its obtuse end.

    `offset` is `s` for both sides, `base` what turns leading bits into row numbers.
    """

    coefficients: Float[np.ndarray, "terms rows"] | Float[Array, "terms rows"]
    offset: Float[np.ndarray, "2"] | Float[Array, "2"]
    base: Int[np.ndarray, "2"] | Int[Array, "2"]


def row_edges(offset: float) -> Float[np.ndarray, " edges"]:
    """The edges, in `r`, of the rows of a side with this `s`: 0 to `END` or beyond."""
    octaves = np.arange(int(np.log2(offset)), 1)
    steps = np.arange(ROWS_PER_OCTAVE) / ROWS_PER_OCTAVE
    edges = (2.0 ** octaves[:, None] * (1 + steps)).ravel() - offset
    return edges[: np.searchsorted(edges, END) + 1]


def tabulate(functions, offsets: Float[np.ndarray, "2"], terms: int = 14):
    """Both functions in Chebyshev's polynomials, `(terms, rows)`, one row a column.

    The functions are positive, of `r`, and take arrays.
    """
    nodes = np.cos(np.pi * (np.arange(terms) + 0.5) / terms)
    columns = []
    for function, offset in zip(functions, offsets, strict=True):
        edges = row_edges(offset)
        low, high = edges[:-1], edges[1:]
        r = low + (high - low) * (1 + nodes[:, None]) / 2
        columns.append(chebyshev_coefficients(function(r)))
    return np.concatenate(columns, axis=1)


def make_table(
    coefficients: Float[np.ndarray, "terms rows"],
    offsets: Float[np.ndarray, "2"],
    dtype: np.dtype | type,
    accuracy: float,
) -> Table:
    """What `look_up` reads, with as many terms as the relative `accuracy` asks for."""
    sizes = np.abs(coefficients)
    tails = np.cumsum(sizes[::-1], axis=0)[::-1]  # of a sum cut before each term
    needed = (tails > accuracy * sizes[0]).any(axis=1)
    terms = max(2, int(np.flatnonzero(needed).max(initial=0)) + 1)
    if accuracy <= max(ACCURACY, np.finfo(dtype).eps) / 10:
        terms = max(terms, _TERMS[np.dtype(dtype)])
    # To powers: stable, since the coefficients fall faster than those of powers grow.
    change = np.zeros((terms, terms))
    for k in range(terms):
        change[: k + 1, k] = np.polynomial.chebyshev.cheb2poly(np.eye(k + 1)[k])
    powers = np.pad(
        change @ coefficients[:terms],
        ((0, 0), (0, -coefficients.shape[1] % _BLOCK)),
        mode="edge",
    )
    first_row = np.array([0, len(row_edges(float(offsets[0]))) - 1])
    offsets = offsets.astype(dtype)
    base = (_leading_bits(offsets) - first_row).astype(_INTEGERS[np.dtype(dtype)])
    return Table(powers.astype(dtype), offsets, base)


def likely_table(dtype: np.dtype | type) -> Table:
    """One of the shapes that most networks have."""
    dtype = np.dtype(dtype)
    sides = np.ones(2, dtype)
    columns = np.ones((_TERMS[dtype], _BLOCK), dtype)
    return Table(columns, sides, sides.astype(_INTEGERS[dtype]))


def chebyshev_coefficients(
    values: Float[np.ndarray, "nodes *batch"],
) -> Float[np.ndarray, "nodes *batch"]:
    """Coefficients of the interpolant through values at Chebyshev's first nodes."""
    count = len(values)
    coefficients = fft.dct(values, type=2, axis=0) / count
    coefficients[0] /= 2
    return coefficients


def _leading_bits(y: np.ndarray) -> np.ndarray:
    whole, mantissa = _INTEGERS[y.dtype], np.finfo(y.dtype).nmant
    return np.asarray(y).view(whole) >> (mantissa - _LEADING_BITS)


_INTEGERS = {np.dtype("float32"): np.int32, np.dtype("float64"): np.int64}


def look_up(table: Table, r: Float[Array, "..."], obtuse: Array) -> Float[Array, "..."]:
    """The function of the side at `r` in `[0, END]`; differentiable in `r`."""
    dtype = np.dtype(r.dtype)
    mantissa = np.finfo(dtype).nmant
    y = r + jnp.where(obtuse, table.offset[1], table.offset[0])
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(y), _INTEGERS[dtype])
    leading = bits >> (mantissa - _LEADING_BITS)
    row = leading - jnp.where(obtuse, table.base[1], table.base[0])
    # 2^-exponent, by negating its bits: exact, and a constant to derivatives.
    exponents = bits >> mantissa
    bias = 2 * (np.finfo(dtype).maxexp - 1)
    scale = jax.lax.bitcast_convert_type((bias - exponents) << mantissa, dtype)
    middle = 1 + 2 * (leading & (ROWS_PER_OCTAVE - 1)) + 2 * ROWS_PER_OCTAVE
    t = 2 * ROWS_PER_OCTAVE * (y * scale) - middle.astype(dtype)
    columns = jnp.asarray(table.coefficients)
    value = columns[-1].at[row].get(mode="clip")
    for column in columns[-2::-1]:
        value = value * t + column.at[row].get(mode="clip")
    return value
