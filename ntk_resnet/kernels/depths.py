r"""Both kernels at many depths, in one compiled pass that computes each block once.

Where the network of depth `l` is the first `l` blocks of a deeper one, the pass goes
through the deepest and stops at each wanted depth to read the kernels. Else every depth
is a job of its own, and the jobs run side by side in lanes: each lane takes the next
job as soon as its last one ends, the longest jobs first, so that all lanes end at about
the same time and no block is computed for nothing.
"""

import functools
import heapq
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from ntk_resnet._precision import precision_of
from ntk_resnet.kernels import recursion
from ntk_resnet.kernels.engines import log_diagonals
from ntk_resnet.kernels.gram.gram import in_memory
from ntk_resnet.kernels.gram.make_plan import device_of, plan_on
from ntk_resnet.kernels.pairs import symmetric
from ntk_resnet.kernels.profile.composed import composes
from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.networks import ResNet

# Pairs that are computed side by side (fewer: the overhead of an operation shows).
_WIDTH = 2**15
# What one compiled call may hold (pairs, times depths) and do (pairs, times blocks):
# about 64 MB a variable, and a few seconds on two cores, after which progress shows.
_HELD, _DONE = 2**21, 2**27


def kernels_at(
    spec: Specification,
    depths: list[int],
    gap: Float[Array, "..."],
    cogap: Float[Array, "..."],
    log_variance: Float[Array, "..."],
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The kernels of a family of networks at each of `depths`, in no set order.

    Args:
        spec: the family; its own depth plays no role.
        depths: distinct, ascending.
        gap, cogap: one minus and one plus the cosine of the pairs of inputs, `(k,)`, or
            `(n, n)` between the rows of one array.
        log_variance: ln(|x|^2 / d) of the inputs, `()` or `(n,)`.

    Yields:
        The index into `depths`, and the variables of `sweep_depth` there.
    """
    jobs, stops = _timetable(spec, depths, max(1, _WIDTH // gap.size))
    lanes = 1 + max(job.lane for job in jobs)
    with precision_of(gap):
        own_norms = jnp.zeros((), gap.dtype) if spec.homogeneous else log_variance
        first = recursion.first_state(spec, gap, cogap, own_norms)
        state = jax.tree.map(lambda v: jnp.broadcast_to(v, (lanes, *v.shape)), first)
    shift = np.asarray(log_variance) if spec.homogeneous else 0
    restart = None if spec.nested else first
    shape = spec.without_depth  # one compilation: depth and scales are data
    for batch in _batches(jobs, stops, lanes * gap.size, gap.size):
        scales = _scales(spec, jobs, batch, lanes)
        # Not around the yield: the context must not leak into the caller's code.
        with precision_of(gap):
            state, values = _run(
                shape,
                restart,
                state,
                jnp.asarray(scales, gap.dtype),
                jnp.asarray([stop.time - batch.begin for stop in batch.stops]),
                jnp.asarray([stop.lane for stop in batch.stops]),
            )
            values = {name: np.asarray(value) for name, value in values.items()}
        for row, stop in enumerate(batch.stops[: batch.wanted]):
            here = {name: value[row] for name, value in values.items()}
            here["log_nngp_diag"] = here["log_nngp_diag"] + shift
            here["log_ntk_diag"] = here["log_ntk_diag"] + shift
            yield stop.which, here


def by_profiles(spec: Specification, depths: list[int], n: int) -> bool:
    """Whether n rows of data are served best by the profile of each depth.

    A composition costs about as much as 2^14 pairs in one block, and to compile the
    pass through the blocks as much as thirty compositions.
    """
    through = depths[-1] if spec.nested else sum(depths)
    cheaper = len(depths) <= 30 or len(depths) * 2**14 <= through * n * n
    return cheaper and composes(spec) and not spec.trains_nothing


def profiles_at(
    spec: Specification, depths: list[int], x: Num[ArrayLike, "n d"]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """As `kernels_at`, between the rows of `x`, by the tiles of a Gram matrix."""
    x, get = np.asarray(x), ("nngp_gap", "ntk_gap")
    device = device_of(x)
    for index, depth in enumerate(depths):
        deep = spec.replace(depth=depth)
        plan = plan_on(device, deep, get, True, "profile", (x,))
        gaps = [np.asarray(gap) for gap in in_memory(plan)]
        with precision_of(x):
            logs = [np.asarray(log) for log in log_diagonals(deep, x)]
        here = dict(zip(get, gaps, strict=True))
        here |= {"nngp": 1 - gaps[0], "ntk": 1 - gaps[1]}
        yield index, here | {"log_nngp_diag": logs[0], "log_ntk_diag": logs[1]}


@functools.partial(jax.jit, static_argnames="shape")
def _run(shape, restart, state, scales, times, lanes):
    """The state of all lanes at the last of `times`, the kernels at each of them.

    `scales` is `(time, lane)`; at each stop the lane read starts again at `restart`.
    """
    blocks = jax.vmap(functools.partial(recursion.step, shape))

    def advance_to(carry, stop):
        now, state = carry
        time, lane = stop
        state = jax.lax.fori_loop(
            now, time, lambda at, state: blocks(state, scales[at]), state
        )
        values = _variables(shape, jax.tree.map(lambda v: v[lane], state))
        if restart is not None:
            state = jax.tree.map(lambda v, new: v.at[lane].set(new), state, restart)
        return (time, state), values

    start = (jnp.zeros((), times.dtype), state)
    (_, state), values = jax.lax.scan(advance_to, start, (times, lanes))
    return state, values


def _variables(shape, state):
    kernels = recursion.readout(shape, state)
    pairs = recursion.quantities(kernels)
    if kernels.nngp_gap.ndim == 2:
        pairs = jax.tree.map(symmetric, pairs)
    return {
        **pairs,
        "log_nngp_diag": kernels.log_nngp[0],
        "log_ntk_diag": kernels.log_ntk[0],
    }


# ------------------------------------------------------------------------ the timetable


class _Job(NamedTuple):
    """The network of one depth, which enters its lane at a time counted in blocks."""

    lane: int
    begin: int
    depth: int


class _Stop(NamedTuple):
    """When a lane holds the network of `depths[which]`."""

    time: int
    lane: int
    which: int


class _Batch(NamedTuple):
    """Stops of one compiled call; those after the first `wanted` only fill it up."""

    begin: int
    span: int
    stops: list[_Stop]
    wanted: int


def _nested(spec: Specification) -> bool:
    """Whether a network is the first blocks of every deeper one."""
    return not (isinstance(spec, ResNet) and spec.branch_scale.depends_on_depth)


def _timetable(spec, depths, most_lanes) -> tuple[list[_Job], list[_Stop]]:
    """Jobs and their stops, these in order of time."""
    if spec.nested:
        stops = [_Stop(depth, 0, index) for index, depth in enumerate(depths)]
        return [_Job(0, 0, depths[-1])], stops
    lanes = min(most_lanes, math.ceil(sum(depths) / depths[-1]))
    free = [(0, lane) for lane in range(lanes)]  # when each lane is free, as a heap
    jobs, stops = [], []
    for index, depth in reversed(list(enumerate(depths))):
        begin, lane = free[0]
        heapq.heapreplace(free, (begin + depth, lane))
        jobs.append(_Job(lane, begin, depth))
        stops.append(_Stop(begin + depth, lane, index))
    return jobs, sorted(stops)


def _batches(jobs, stops, width, pairs) -> Iterator[_Batch]:
    """The stops cut into batches of one size, so that one compilation serves all."""
    calls = math.ceil(stops[-1].time * width / _DONE)
    size = max(1, min(math.ceil(len(stops) / calls), _HELD // pairs))
    parts = [stops[i : i + size] for i in range(0, len(stops), size)]
    begins = [0, *(part[-1].time for part in parts)]
    span = max(end - begin for begin, end in itertools.pairwise(begins))
    for begin, part in zip(begins, parts, strict=False):
        filled = part + part[-1:] * (size - len(part))
        yield _Batch(begin, span, filled, len(part))


def _scales(spec, jobs, batch, lanes) -> Float[np.ndarray, "span lanes"]:
    """The branch scale of every lane's block at every time of the batch."""
    scales = np.zeros((batch.span, lanes))
    for lane, begin, depth in jobs:
        low = max(begin, batch.begin)
        high = min(begin + depth, batch.begin + batch.span)
        if low < high:
            own = spec.replace(depth=depth).scales
            rows = slice(low - batch.begin, high - batch.begin)
            scales[rows, lane] = own[low - begin : high - begin]
    return scales
