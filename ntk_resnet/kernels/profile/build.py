"""Makes the tables of a profile: the recursion at a few hundred angles, and a check.

A side is 0, up to a right angle, or 1, beyond it. The recursion at dyadic distances
from the ends shows how wide the layers are that the kernels have there. A second run of
it, at Chebyshev nodes of a few panels in ln(r + s), gives what the tables are made
from, and at other angles the values that they are checked against.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from ntk_resnet.kernels import recursion
from ntk_resnet.kernels.profile import lookup
from ntk_resnet.kernels.profile.lookup import Both, Tables
from ntk_resnet.kernels.quick_jit import quick_jit
from ntk_resnet.specification.base import Specification

_PROBES = lookup.END * 2.0 ** -np.arange(40)
_ORDER = 4  # probes by which the next larger one is predicted
_NODES = 40  # of a panel
_PANEL = 2.5  # its length in ln(r + s); singularities are no nearer than about pi/2
_ROUNDS = 4
_AT_ONCE = 256  # angles of one run of the recursion: one shape, one compilation


def build(spec: Specification, input_kernel: float, accuracy: float) -> Tables:
    """The tables of both kernels, to a relative accuracy; JAX is in float64.

    Raises:
        ValueError: there are no such tables.
    """
    run = functools.partial(_gaps_at, spec, input_kernel)
    probes, diagonals = run([_PROBES, _PROBES])
    # Logarithmic slopes over the last octave, where gaps are powers of r.
    slopes = np.log2([gaps[:, -2] / gaps[:, -1] for gaps in probes])
    powers = np.clip(np.round(slopes), 0, 2).astype(int)
    if not powers[0].all():  # at angle 0 all gaps are 0
        raise ValueError(
            "the kernels have no profile: they do not tend to their diagonal down to "
            f"angles of {_PROBES[-1]:.0e}; use engine='recursion'."
        )
    probes = _reduced(probes, [_PROBES] * 2, powers)
    offsets = np.array([_layer_width(side) for side in probes])
    for _ in range(_ROUNDS):
        sides = [_Side.of(offset) for offset in offsets]
        r = [side.points for side in sides]
        logs = _reduced(run(r)[0], r, powers)
        found, errors = [], np.zeros(2)
        for kernel in (0, 1):
            own = [values[kernel] for values in logs]
            fits = [_fit(side, values) for side, values in zip(sides, own, strict=True)]
            rows = [
                lookup.chebyshev_coefficients(fit(lookup.row_nodes(offset)))
                for fit, offset in zip(fits, offsets, strict=True)
            ]
            found.append(np.concatenate(rows, axis=1))
            table = lookup.make_table(found[-1], offsets, np.float64, accuracy / 10)
            exact = [np.exp(v[s.nodes.size :]) for s, v in zip(sides, own, strict=True)]
            checks = [side.checks for side in sides]
            errors = np.maximum(errors, lookup.worst_errors(table, checks, exact))
        if errors.max() <= accuracy:
            pairs = (tuple(map(int, column)) for column in powers.T)
            return Tables(
                log_nngp_diag=diagonals[0],
                log_ntk_diag=diagonals[1],
                error=float(errors.max()),
                powers=Both(*pairs),
                offsets=offsets,
                coefficients=Both(*found),
            )
        offsets = np.where(errors <= accuracy, offsets, offsets / 8)
    raise ValueError(
        f"no table of this network's kernels reaches the accuracy {accuracy:.0e}: they "
        "vary too fast next to an end; use engine='recursion', or ask for less."
    )


def _gaps_at(spec, input_kernel, sides):
    """Both gaps at the points of both sides, and the logarithms of the diagonals."""
    r = np.concatenate(sides)
    gap, supplement_gap = 2 * r**2, 2 * (1 - r * r)
    obtuse = np.arange(r.size) >= sides[0].size
    pairs = np.where(obtuse, [supplement_gap, gap], [gap, supplement_gap])
    pairs = np.pad(pairs, ((0, 0), (0, -r.size % _AT_ONCE)), constant_values=1)
    own = spec.scales
    scales = np.zeros(4 ** int(np.ceil(np.log2(max(spec.depth, 256)) / 2)))
    scales[: spec.depth] = own
    shape, log_variance = spec.without_depth, np.log(input_kernel)
    parts = [
        _recur(shape, *some, log_variance, scales, spec.depth)
        for some in np.split(pairs, pairs.shape[1] // _AT_ONCE, axis=1)
    ]
    gaps = np.hstack([(part.nngp_gap, part.ntk_gap) for part in parts])[:, : r.size]
    if not (gaps > 0).all():
        raise ValueError(
            "the kernels have no profile: nothing is trained (all scales 0), or they "
            "are beyond the range of float64, of the activation's quadrature, or of "
            "what a cosine can tell apart."
        )
    diagonals = float(parts[0].log_nngp[0]), float(parts[0].log_ntk[0])
    return np.split(gaps, [sides[0].size], axis=1), diagonals


@functools.partial(quick_jit, static_argnums=0)
def _recur(spec, gap, supplement_gap, log_variance, scales, depth):
    state = recursion.first_state(spec, gap, supplement_gap, log_variance)
    state = jax.lax.fori_loop(
        0, depth, lambda block, state: recursion.step(spec, state, scales[block]), state
    )
    return recursion.readout(spec, state)


def _reduced(gaps, r, powers):
    """The logarithms of what is tabulated: gaps over powers of r, by side."""
    return [
        np.log(g / x ** p[:, None]) for g, x, p in zip(gaps, r, powers, strict=True)
    ]


def _layer_width(logs):
    """A power of two: about the scale at which the functions start to vary.

    Below the width of a layer a function is predicted by the next smaller probes.
    """
    steps = 2.0 ** -np.arange(1, _ORDER + 1)
    others = ~np.eye(_ORDER, dtype=bool)
    weights = [
        np.prod((1 - steps[o]) / (step - steps[o]))
        for step, o in zip(steps, others, strict=True)
    ]
    count = logs.shape[1] - _ORDER
    windows = np.stack([logs[:, 1 + j : 1 + j + count] for j in range(_ORDER)], axis=2)
    missed = np.abs(windows @ np.array(weights) - logs[:, :count]).max(axis=0)
    # A hundred times the rounding; quadratures leave more than that at tiny gaps.
    noise = np.maximum(3e-11, 1e-27 / _PROBES[:count] ** 2)
    varying = np.flatnonzero(missed > noise)
    smallest = _PROBES[varying.max()] if varying.size else 1.0
    return 2.0 ** np.floor(np.log2(min(64 * smallest, 0.25)))


class _Side(NamedTuple):
    """Where the functions of one side are wanted: at nodes, and for the check."""

    offset: float
    edges: Float[np.ndarray, " edges"]  # of the panels, in ln(r + offset)
    nodes: Float[np.ndarray, "nodes panels"]  # in r
    checks: Float[np.ndarray, " checks"]

    @classmethod
    def of(cls, offset: float) -> "_Side":
        low, high = np.log(offset), np.log(offset + lookup.row_edges(offset)[-1])
        edges = np.linspace(low, high, int(np.ceil((high - low) / _PANEL)) + 1)
        t = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)[:, None]
        nodes = edges[:-1] * (1 - t) / 2 + edges[1:] * (1 + t) / 2
        points = offset * np.expm1(nodes - low)
        return cls(offset, edges, points, lookup.check_points(offset))

    @property
    def points(self) -> Float[np.ndarray, " points"]:
        return np.append(self.nodes.ravel(), self.checks)


def _fit(side, logs):
    """The function of r whose logarithms at the points of a side are given."""
    values = logs[: side.nodes.size].reshape(side.nodes.shape)
    coefficients = lookup.chebyshev_coefficients(values)

    def function(r):
        w = np.log(r + side.offset)
        panel = np.searchsorted(side.edges, w) - 1
        panel = np.clip(panel, 0, len(side.edges) - 2)
        low, high = side.edges[panel], side.edges[panel + 1]
        t = (2 * w - low - high) / (high - low)
        return np.exp(lookup.chebyshev_sum(coefficients[:, panel], t))

    return function
