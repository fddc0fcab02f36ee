r"""From rows of the data to the angles between them, as exactly as the dtype allows.

The gap of a pair, 1 - cosine, must not be subtracted from a rounded cosine: at an angle
of 1e-2 float32 would leave two digits of it. So every unit row is split into a part on
a grid, :math:`h = \mathrm{round}(2^b x)/2^b`, and the rest `l`: with `b` half the
digits of the dtype :math:`1 - h \cdot h'` is exact, in whatever order it is summed, and
the products with `l` are small. What is left of the error matters for near-duplicates
alone, which are few: they are found, and their gaps computed from the difference of the
rows. That is as much to compile as all the rest, so a block can be made without it
first, to see whether it has any.

On processors float64 products of float32 rows are cheaper than that, and as exact.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ntk_resnet._precision import is_traced
from ntk_resnet.kernels.norms import log_variances, over_powers_of_two
from ntk_resnet.kernels.quick_jit import quick_jit

PRODUCTS = ("split", "plain")


class PreparedRows(NamedTuple):
    """Inputs, ready for the products; all fields have one row an input."""

    x: Any  # `(n, d)`
    coarse: Any  # the unit row, on the grid; or whole, in float64
    fine: Any  # the rest of it, rounded; or `None`
    finest: Any  # what that has cut off; or `None`
    log_variance: Any  # ln(|x|^2 / d); NaN: the row has no angle


class Distances(NamedTuple):
    """How far apart the rows of two sets are."""

    lesser: Float[Array, "n1 n2"]  # the smaller one of 1 - cosine and 1 + cosine
    obtuse: Bool[Array, "n1 n2"]  # whether it is the latter
    coarse: Bool[Array, ""]  # whether some are near-duplicates that are not refined


# ------------------------------------------------------------------------------- rows


def prepare(x: Any, bias_variance: float = 0.0, *, wide: bool = False) -> PreparedRows:
    """The rows of the data; rows of zeros are at a right angle to all others.

    Unit rows of float32 data are kept in float64 if `wide`, and are not traced.
    """
    logs = log_variances(x, bias_variance)
    if is_traced(logs):
        x = jnp.asarray(x)
        coarse, fine, finest = _in_parts(x)
        return PreparedRows(x, coarse, fine, finest, logs)
    host = np.asarray(x)
    if host.dtype == np.float32:
        if wide:
            return PreparedRows(host, _units(host), None, None, logs)
        coarse, fine, finest = _in_parts_on_host(host)
        return PreparedRows(host, coarse, fine, finest, logs)
    exponents = np.frexp(np.abs(host).max(axis=1, keepdims=True))[1]
    coarse, fine, finest = _quickly_in_parts(np.ldexp(host, -exponents))
    return PreparedRows(host, coarse, fine, finest, logs)


def _in_parts(x):
    """The unit rows: on the grid, the rest, and what rounding has cut off of that."""
    head, tail = unit_rows(x)
    coarse, fine = grid_and_rest(head, tail)
    return coarse, fine, ((head - coarse) - fine) + tail


_quickly_in_parts = quick_jit(_in_parts)


def _in_parts_on_host(x):
    """The same of float32 in float64, some rows at a time, with nothing to compile."""
    coarse, fine, finest = (np.empty_like(x) for _ in range(3))
    some = max(1, 2**20 // x.shape[1])
    for begin in range(0, len(x), some):
        part = slice(begin, begin + some)
        unit = _units(x[part])
        coarse[part] = _on_grid(unit, x.dtype)
        fine[part] = unit - coarse[part]
        finest[part] = unit - coarse[part] - fine[part]
    return coarse, fine, finest


def _units(x):
    """The unit rows of float32 data, in float64."""
    wide = x.astype(np.float64)
    norm = np.sqrt(np.sum(wide * wide, axis=1, keepdims=True))
    return np.divide(wide, np.where(norm > 0, norm, 1), out=wide)


def unit_rows(
    x: Float[Array, "n d"],
) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """Unit rows as an unevaluated sum of two arrays, the second below rounding."""
    x, _ = over_powers_of_two(x)
    square = jnp.sum(x * x, axis=1, keepdims=True)
    norm = jnp.sqrt(jnp.where(square > 0, square, 1))
    head = x / norm
    tail = _minus_product(x, head, norm) / norm
    # The norm is rounded, so that the rows are not unit: what is left of their length.
    coarse, fine = grid_and_rest(head, tail)
    excess = jnp.sum(coarse * coarse, axis=1, keepdims=True) - 1
    excess += jnp.sum((head + coarse + tail) * fine, axis=1, keepdims=True)
    return head, jax.lax.stop_gradient(tail - head * (excess / 2))


def grid_and_rest(
    head: Float[Array, "n d"], tail: Float[Array, "n d"]
) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """`head + tail` as a part on a grid and the rest.

    The grid has half the digits of the dtype after the point: products of such parts of
    unit rows are exact in whatever order they are summed.
    """
    coarse = jax.lax.stop_gradient(_on_grid(head, head.dtype))
    return coarse, (head - coarse) + tail


def _on_grid(head, dtype):
    """Rounded to half the digits of that dtype after the point."""
    grid = 2.0 ** (jnp.finfo(dtype).nmant // 2)
    return head.__array_namespace__().round(head * grid) / grid


def _minus_product(x, head, norm):
    """x - head * norm, nearly exact: both factors are split into half mantissas."""
    double = x.dtype == jnp.float64
    halve = lambda v: jax.lax.reduce_precision(  # noqa: E731
        v, 11 if double else 8, 25 if double else 11
    )
    head_high, norm_high = halve(head), halve(norm)
    head_low, norm_low = head - head_high, norm - norm_high
    rest = x - head_high * norm_high
    rest = rest - head_high * norm_low - head_low * norm_high
    return rest - head_low * norm_low


# -------------------------------------------------------------------------- distances


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def distances(
    rows1: PreparedRows,
    rows2: PreparedRows,
    shift: Int[Array, ""] | int,
    products: str,
    refine: bool,
) -> Distances:
    """How far apart the rows of two sets are.

    Args:
        rows1, rows2: the inputs.
        shift: row `i` of the first is row `i - shift` of the second: these are at
            distance 0 exactly. Out of range: none.
        products: `"split"`, exact to a few eps, or `"plain"`, one product.
        refine: compute near-duplicates from the difference of the rows.
    """
    dtype, d = rows1.x.dtype, rows1.x.shape[1]
    if rows1.fine is None or products == "plain":
        rows = (rows1, rows2)
        units = (r.coarse if r.fine is None else r.coarse + r.fine for r in rows)
        cosine = _product(*units)
        lesser, obtuse = jnp.maximum(1 - jnp.abs(cosine), 0), cosine < 0
    else:
        exact = _product(rows1.coarse, rows2.coarse)
        rest = _product(
            jnp.concatenate([rows1.coarse + rows1.fine, rows1.fine], axis=1),
            jnp.concatenate([rows2.fine, rows2.coarse], axis=1),
        )
        obtuse = exact + rest < 0
        lesser = jnp.where(obtuse, (1 + exact) + rest, (1 - exact) - rest)
    own = own_entries(lesser.shape, shift)
    lesser = jnp.where(own, 0, lesser)
    if products == "plain":
        return Distances(lesser, obtuse, jnp.asarray(False))
    near = (lesser < _resolved(lesser.dtype, dtype, d)) & ~own
    lesser = lesser.astype(dtype)
    if not refine:
        return Distances(lesser, obtuse, near.any())
    lesser = _refined(lesser, obtuse, near, rows1, rows2)
    return Distances(lesser, obtuse, jnp.asarray(False))


@distances.defjvp
def _(products, refine, primals, tangents):
    """From the differences of the rows, which keeps the digits of near-duplicates.

    One row of the first at a time, and again in the pass backward, so that nothing of
    size n1 n2 d is kept.
    """
    found = distances(*primals, products, refine)
    (coarse1, rest1), (coarse2, rest2) = map(_in_two, primals[:2])
    change1, change2 = (sum(_in_two(rows)) for rows in tangents[:2])

    @jax.checkpoint
    def against_all(row):
        coarse, rest, change, obtuse = row
        sign = jnp.where(obtuse, -1, 1).astype(coarse.dtype)[:, None]
        difference = (coarse - sign * coarse2) + (rest - sign * rest2)
        return jnp.sum(difference * (change - sign * change2), axis=1)

    turn = jax.lax.map(against_all, (coarse1, rest1, change1, found.obtuse))
    still: Any = [np.zeros(part.shape, jax.dtypes.float0) for part in found[1:]]
    return found, Distances(turn, still[0], still[1])


def own_entries(
    shape: tuple[int, ...], shift: Int[Array, ""] | int
) -> Bool[Array, "n1 n2"]:
    """Where row `i` of the first inputs is row `i - shift` of the second."""
    index = [jax.lax.broadcasted_iota(np.int32, shape, axis) for axis in (0, 1)]
    return index[0] - index[1] == shift


def _in_two(rows):
    return rows.coarse, rows.fine + rows.finest


def _product(a, b):
    return jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), precision="highest")


def _resolved(computed, dtype, d):
    """Gaps above this are right to 32 eps (float64: 2^10 eps) by the products alone.

    The rest has entries of up to 2^-b/2, so rounding leaves about
    eps 2^-b sqrt(d / 12) times a few; in float64 it is the rounding of a sum.
    """
    if computed != dtype:
        error = 2 * (4 + np.sqrt(d)) * np.finfo(computed).eps
        return error / (32 * np.finfo(dtype).eps)
    digits = np.finfo(dtype).nmant // 2
    error = 2 * np.finfo(dtype).eps * 2.0**-digits * np.sqrt(d / 12)
    return error / (np.finfo(dtype).eps * (32 if dtype == np.float32 else 1024))


def _refined(lesser, obtuse, near, rows1, rows2):
    """`lesser` with the entries of near-duplicates computed from the rows' difference.

    One row at a time of those that have any: mostly there are few.
    """
    parts1, parts2 = ([p for p in r[1:4] if p is not None] for r in (rows1, rows2))
    sign = jnp.where(obtuse, -1, 1).astype(lesser.dtype)

    def one_more(state):
        lesser, left = state
        row = jnp.argmax(left)
        # From the finest to the coarsest.
        difference = sum(
            part1[row] - sign[row][:, None] * part2
            for part1, part2 in zip(parts1[::-1], parts2[::-1], strict=True)
        )
        exact = (jnp.sum(difference**2, axis=1) / 2).astype(lesser.dtype)
        exact = jnp.where(near[row], exact, lesser[row])
        return lesser.at[row].set(exact), left.at[row].set(False)

    start = lesser, near.any(axis=1)
    return jax.lax.while_loop(lambda state: state[1].any(), one_more, start)[0]


def gaps(
    found: Distances,
) -> tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]]:
    """1 - cosine and 1 + cosine of every pair."""
    greater = 2 - found.lesser
    return (
        jnp.where(found.obtuse, greater, found.lesser),
        jnp.where(found.obtuse, found.lesser, greater),
    )


def angle_gaps(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 - cos and 1 + cos of float32 or float64 angles, exact to an ulp or two."""
    half = angles.astype(np.float64) / 2
    gap, supplement_gap = 2 * np.sin(half) ** 2, 2 * np.cos(half) ** 2
    return gap.astype(angles.dtype), supplement_gap.astype(angles.dtype)


# --------------------------------------------------------------------------- matrices


def defined(rows1: PreparedRows, rows2: PreparedRows) -> Bool[Array, "n1 n2"]:
    """Which pairs have an angle."""
    known = [rows.log_variance == rows.log_variance for rows in (rows1, rows2)]
    return known[0][:, None] & known[1]


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
