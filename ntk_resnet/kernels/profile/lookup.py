r"""Smooth positive functions on (0, 3/4] as tables: one gather, one short polynomial.

The variable is :math:`y = r + s`, `s` a power of two at most the scale on which the
function varies. The leading bits of `y`, its exponent and the first three of its
mantissa, number the row, so that nothing is searched; the bits that follow are the
argument of a polynomial of low degree. A row spans an eighth of an octave, less than a
sixteenth of the distance to the next singularity, which makes the coefficients fall
geometrically: errors are relative to the function itself, wherever it is small, and the
price of an entry does not depend on how finely the function varies.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int
from scipy import fft

ROWS_PER_OCTAVE = 8
END = np.sqrt(0.5)  # the tables reach at least to here
_LEADING_BITS = 3  # log2 of ROWS_PER_OCTAVE
ACCURACY = 5e-13
"""Relative error of both gaps, unless another is asked for; it is checked at angles
that are no nodes."""
_CHECKS = 24  # angles of the check, a side
# Few shapes, few compilations: rows are padded to a multiple, and terms, for the usual
# accuracy, to as many as most networks need.
_BLOCK = 256
_TERMS = {np.dtype("float32"): 6, np.dtype("float64"): 10}


class Both(NamedTuple):
    """One thing for each kernel."""

    nngp: Any
    ntk: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """What is known of both kernels of a network as functions of the angle."""

    log_nngp_diag: float
    """ln of the raw NNGP at angle 0, in neural-tangents' normalisation."""
    log_ntk_diag: float
    """ln of the raw NTK at angle 0."""
    error: float
    """The worst relative difference from what the gaps are at the angles of the check:
    by the recursion, or by a composition in another order."""
    powers: Both
    """To which powers of the distance to 0, and to pi, the gaps are proportional."""
    offsets: Float[np.ndarray, "2"]
    """Of the tables: `s` of either side."""
    coefficients: Both
    """Of the tables, in Chebyshev's polynomials."""


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


def row_nodes(offset: float, terms: int = 14) -> Float[np.ndarray, "terms rows"]:
    """Chebyshev's nodes, in `r`, of the rows of a side with this `s`."""
    nodes = np.cos(np.pi * (np.arange(terms) + 0.5) / terms)
    edges = row_edges(offset)
    low, high = edges[:-1], edges[1:]
    return low + (high - low) * (1 + nodes[:, None]) / 2


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


def chebyshev_coefficients(
    values: Float[np.ndarray, "nodes *batch"],
) -> Float[np.ndarray, "nodes *batch"]:
    """Coefficients of the interpolant through values at Chebyshev's first nodes."""
    count = len(values)
    coefficients = fft.dct(values, type=2, axis=0) / count
    coefficients[0] /= 2
    return coefficients


def chebyshev_sum(
    coefficients: Float[np.ndarray, "nodes *batch"], t: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """The series at `t` in [-1, 1], by Clenshaw's recurrence."""
    one, two, double = coefficients[-1], np.zeros_like(t), 2 * t
    for column in coefficients[-2:0:-1]:
        one, two = column + double * one - two, one
    return coefficients[0] + t * one - two


def check_points(offset: float) -> Float[np.ndarray, " checks"]:
    """Where, in `r`, a side with this `s` is checked.

    Evenly over ln(r + s), by the golden ratio; and next to both ends.
    """
    golden = (np.arange(_CHECKS) + 0.5) * (np.sqrt(5) - 1) / 2 % 1
    inner = offset * np.expm1(golden * np.log1p(END / offset))
    return np.array([*inner, 5e-9, END])


def worst_errors(table: Table, points, exact) -> Float[np.ndarray, "2"]:
    """The worst relative error at the points of each side, whose values are given."""
    sides = zip(points, exact, (False, True), strict=True)
    return np.array(
        [np.abs(look_up(table, r, side) / own - 1).max() for r, own, side in sides]
    )


def _leading_bits(y: np.ndarray) -> np.ndarray:
    whole, mantissa = _INTEGERS[y.dtype], np.finfo(y.dtype).nmant
    return np.asarray(y).view(whole) >> (mantissa - _LEADING_BITS)


_INTEGERS = {np.dtype("float32"): np.int32, np.dtype("float64"): np.int64}


Values = Float[Array, "..."] | Float[np.ndarray, "..."]


def look_up(table: Table, r: Values, obtuse: Any) -> Any:
    """The function of the side at `r` in `[0, END]`; differentiable in `r`.

    In NumPy or in JAX, as `r` is, and so is the result.
    """
    xp, dtype = r.__array_namespace__(), np.dtype(r.dtype)
    if table.offset.dtype != dtype:  # the bits of `r` would name other rows
        raise TypeError(f"a table in {table.offset.dtype} is not for r in {dtype}.")
    whole, mantissa = _INTEGERS[dtype], np.finfo(dtype).nmant
    y = r + xp.where(obtuse, table.offset[1], table.offset[0])
    bits = y.view(whole)
    leading = bits >> (mantissa - _LEADING_BITS)
    row = leading - xp.where(obtuse, table.base[1], table.base[0])
    # 2^-exponent, by negating its bits: exact, and a constant to derivatives.
    bias = 2 * (np.finfo(dtype).maxexp - 1)
    scale = ((bias - (bits >> mantissa)) << mantissa).view(dtype)
    middle = 1 + 2 * (leading & (ROWS_PER_OCTAVE - 1)) + 2 * ROWS_PER_OCTAVE
    t = 2 * ROWS_PER_OCTAVE * (y * scale) - middle.astype(dtype)
    columns = xp.asarray(table.coefficients)
    value = xp.take(columns[-1], row, mode="clip")
    for column in columns[-2::-1]:
        value = value * t + xp.take(column, row, mode="clip")
    return value
