r"""Blocks of a Gram matrix, from the rows of the data.

The gap of a pair must not be subtracted from a rounded cosine: at an angle of 1e-2
float32 would leave two digits of it. So every unit row is split into a part on a grid,
:math:`h = \mathrm{round}(2^b x)/2^b`, and the rest `l`: with `b` half the digits of the
dtype :math:`1 - h \cdot h'` is exact, in whatever order it is summed, and the products
with `l` are small. What is left of the error matters for near-duplicates alone, which
are few: they are found, and their gaps computed from the difference of the rows. That
is as much to compile as all the rest, so a block can be made without it first, to see
whether it has any.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ntk_resnet.architectures import Architecture
from ntk_resnet.kernels import images, pairs
from ntk_resnet.kernels._inputs import (
    host_log_variance,
    log_variance,
    on_grid,
    split,
    unit_rows,
)
from ntk_resnet.kernels._quick_jit import quick_jit
from ntk_resnet.kernels.profile import gap_from

PRODUCTS = ("split", "plain")


class Rows(NamedTuple):
    """Inputs, ready for the products; all fields have one row an input."""

    x: Float[Array, "n d"]
    coarse: Float[Array, "n d"]  # the unit row, on the grid of `split`
    fine: Float[Array, "n d"]  # the rest of it, rounded
    finest: Float[Array, "n d"]  # what that has cut off
    log_variance: Float[Array, " n"]  # ln(|x|^2 / d)


@dataclasses.dataclass(frozen=True)
class Entries:
    """How an entry is computed: what a compiled program depends on."""

    shape: Architecture | None  # of the network, for the recursion; else None
    get: str
    normalised: bool
    products: str
    powers: tuple[int, int] | None  # of the profile; else None


def prepare(x: Float[Array, "n d"], bias_variance: float) -> Rows:
    """The rows of the data; rows of zeros are at a right angle to all others.

    Not while JAX traces.
    """
    if x.dtype == np.float32:
        return _prepared_on_host(np.asarray(x), bias_variance)
    return _prepared(x, bias_variance)


@functools.partial(quick_jit, static_argnums=1)
def _prepared(x, bias_variance):
    head, tail = unit_rows(x)
    coarse, fine = split(head, tail)
    finest = ((head - coarse) - fine) + tail
    return Rows(x, coarse, fine, finest, log_variance(x, bias_variance))


def _prepared_on_host(x, bias_variance):
    """The same in float64, some rows at a time: there is nothing to compile."""
    coarse, fine, finest = (np.empty_like(x) for _ in range(3))
    logs: Any = np.empty(len(x), x.dtype)
    some = max(1, 2**20 // x.shape[1])
    for begin in range(0, len(x), some):
        part = slice(begin, begin + some)
        wide = x[part].astype(np.float64)
        norm = np.sqrt(np.sum(wide * wide, axis=1, keepdims=True))
        unit = wide / np.where(norm > 0, norm, 1)
        coarse[part] = on_grid(unit, x.dtype)
        fine[part] = unit - coarse[part]
        finest[part] = unit - coarse[part] - fine[part]
        logs[part] = host_log_variance(wide, bias_variance)
    return Rows(x, coarse, fine, finest, logs)


class Block(NamedTuple):
    """The entries between two sets of rows."""

    values: Float[Array, "n1 n2"]
    coarse: Bool[Array, ""]  # whether some are near-duplicates that are not refined


def block(
    entries: Entries,
    data: Any,
    rows1: Rows | images.ImageRows,
    rows2: Rows | images.ImageRows,
    shift: Int[Array, ""],
    refine: bool,
) -> Block:
    """The entries between two sets of rows.

    Args:
        entries: what is computed.
        data: what depends on the depth: the profile's table and the logarithm of its
            raw diagonal, or the branch scales.
        rows1, rows2: the inputs.
        shift: row `i` of the first is row `i - shift` of the second: entries whose gap
            is 0 exactly. At 0 the block is made symmetric. Out of range: none.
        refine: compute near-duplicates from the difference of the rows.
    """
    if isinstance(rows1, images.ImageRows):
        of = entries.get, entries.normalised, data
        values = images.tile(entries.shape, *of, rows1, rows2, shift)
        coarse = jnp.asarray(False)
    elif entries.powers is None:  # the difference of equal rows is exactly 0
        values, coarse = _by_recursion(entries, data, rows1, rows2), jnp.asarray(False)
    else:
        lesser, obtuse, near = _distances(entries, rows1, rows2, shift)
        if refine:
            lesser = _refined(lesser, obtuse, near, rows1, rows2)
        values = _by_profile(entries, data, lesser, obtuse, rows1, rows2)
        coarse = jnp.asarray(False) if refine else near.any()
    if values.shape[0] == values.shape[1]:
        values = jax.lax.cond(shift == 0, pairs.symmetric, lambda v: v, values)
    return Block(values, coarse)


def _by_recursion(entries, scales, rows1, rows2):
    names, x1, x2 = (entries.get,), rows1.x, rows2.x
    normalised = entries.normalised
    return pairs.by_recursion(entries.shape, names, normalised, x1, x2, scales)[0]


def _by_profile(entries, data, lesser, obtuse, rows1, rows2):
    table, log_diagonal = data
    gap = gap_from(table, entries.powers, jnp.sqrt(lesser / 2), obtuse)
    if entries.get.endswith("_gap"):
        return gap
    if entries.normalised:
        return 1 - gap
    logs = (rows.log_variance + log_diagonal for rows in (rows1, rows2))
    return pairs.scaled(1 - gap, *logs)


def _distances(entries, rows1, rows2, shift):
    """The smaller of 1 - cosine and 1 + cosine, whether it is the latter, and which
    are those of near-duplicates, to be refined."""
    if entries.products == "plain":
        cosine = _product(rows1.coarse + rows1.fine, rows2.coarse + rows2.fine)
        lesser, obtuse = jnp.maximum(1 - jnp.abs(cosine), 0), cosine < 0
    else:
        exact = _product(rows1.coarse, rows2.coarse)
        rest = _product(
            jnp.concatenate([rows1.coarse + rows1.fine, rows1.fine], axis=1),
            jnp.concatenate([rows2.fine, rows2.coarse], axis=1),
        )
        obtuse = exact + rest < 0
        lesser = jnp.where(obtuse, (1 + exact) + rest, (1 - exact) - rest)
    index = [jax.lax.broadcasted_iota(int, lesser.shape, axis) for axis in (0, 1)]
    own = index[0] - index[1] == shift
    lesser = jnp.where(own, 0, lesser)
    if entries.products == "plain":
        return lesser, obtuse, jnp.zeros(lesser.shape, bool)
    near = (lesser < _resolved(lesser.dtype, rows1.x.shape[1])) & ~own
    return lesser, obtuse, near


def _product(a, b):
    return jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), precision="highest")


def _resolved(dtype, d):
    """Gaps above this are right to 32 eps (float64: 2^10 eps) by the products alone.

    The rest has entries of up to 2^-b/2, so rounding leaves about
    eps 2^-b sqrt(d / 12) times a few.
    """
    digits = np.finfo(dtype).nmant // 2
    error = 2 * np.finfo(dtype).eps * 2.0**-digits * np.sqrt(d / 12)
    return error / (np.finfo(dtype).eps * (32 if dtype == np.float32 else 1024))


def _refined(lesser, obtuse, near, rows1, rows2):
    """`lesser` with the entries of near-duplicates computed from the rows' difference.

    One row at a time of those that have any: mostly there are few.
    """
    parts1, parts2 = ((r.coarse, r.fine, r.finest) for r in (rows1, rows2))
    sign = jnp.where(obtuse, -1, 1).astype(lesser.dtype)

    def one_more(state):
        lesser, left = state
        row = jnp.argmax(left)
        coarse, fine, finest = (
            part1[row] - sign[row][:, None] * part2
            for part1, part2 in zip(parts1, parts2, strict=True)
        )
        exact = jnp.sum((coarse + (fine + finest)) ** 2, axis=1) / 2
        exact = jnp.where(near[row], exact, lesser[row])
        return lesser.at[row].set(exact), left.at[row].set(False)

    start = lesser, near.any(axis=1)
    return jax.lax.while_loop(lambda state: state[1].any(), one_more, start)[0]
