r"""Both kernels at many depths.

Where the network of depth `l` is the first `l` blocks of a deeper one, one pass goes
through the deepest and stops at each wanted depth to read the kernels. Else the
networks of the depths run side by side: a block of scale 0 is the identity, so shorter
ones are filled up with those.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from ntk_resnet._inputs import precision_of
from ntk_resnet.kernels import recursion
from ntk_resnet.kernels.engines import log_diagonals
from ntk_resnet.kernels.gram.gram import in_memory
from ntk_resnet.kernels.gram.make_plan import device_of, plan_on
from ntk_resnet.kernels.pairs import symmetric
from ntk_resnet.kernels.profile.composed import composes
from ntk_resnet.specification.base import Specification

# Pairs that are computed side by side (fewer: the overhead of an operation shows), and
# pairs times depths that one call gives back: about 64 MB a variable.
_WIDTH, _HELD = 2**15, 2**21


def kernels_at(
    spec: Specification,
    depths: list[int],
    gap: Float[Array, "..."],
    supplement_gap: Float[Array, "..."],
    log_variance: Float[Array, "..."],
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The kernels of a family of networks at each of `depths`.

    Args:
        spec: the family; its own depth plays no role.
        depths: distinct, ascending.
        gap, supplement_gap: one minus and one plus the cosine of the pairs of inputs,
            `(k,)`, or `(n, n)` between the rows of one array.
        log_variance: ln(|x|^2 / d) of the inputs, `()` or `(n,)`.

    Yields:
        The index into `depths`, and the variables of `sweep_depth` there.
    """
    shift = np.asarray(log_variance) if spec.homogeneous else 0
    with precision_of(gap):
        own = jnp.zeros((), gap.dtype) if spec.homogeneous else log_variance
        first = recursion.first_state(spec, gap, supplement_gap, own)
    passes = _one_pass if spec.nested else _side_by_side
    for index, values in passes(spec, depths, first, gap.size):
        yield (
            index,
            {
                name: value + shift if name.startswith("log") else value
                for name, value in values.items()
            },
        )


def _one_pass(spec, depths, state, pairs):
    """Through the deepest network, some stops in each call."""
    scales = spec.replace(depth=depths[-1]).scales[:, None]
    state, begin = jax.tree.map(lambda v: v[None], state), 0
    some = max(1, min(len(depths), _STOPS, _HELD // pairs))
    for at in range(0, len(depths), some):
        stops = depths[at : at + some]
        ends = stops + stops[-1:] * (some - len(stops))  # one compilation
        state, values = _run(spec, state, scales, begin, ends)
        begin = stops[-1]
        for place in range(len(stops)):
            yield at + place, {name: v[place, 0] for name, v in values.items()}


_STOPS = 32  # after which progress shows


def _side_by_side(spec, depths, first, pairs):
    """Networks of like depths together, the deepest first."""
    some = max(1, min(len(depths), _WIDTH // pairs))
    state = jax.tree.map(lambda v: jnp.broadcast_to(v, (some, *v.shape)), first)
    for end in range(len(depths), 0, -some):
        group = range(max(0, end - some), end)
        scales = np.zeros((depths[-1], some))
        for place, index in enumerate(group):
            depth = depths[index]
            scales[:depth, place] = spec.replace(depth=depth).scales
        _, values = _run(spec, state, scales, 0, [depths[end - 1]])
        for place, index in enumerate(group):
            yield index, {name: v[0, place] for name, v in values.items()}


def _run(spec, state, scales, begin, ends):
    """What `_advance` gives, with the kernels in NumPy."""
    # Not around a yield: the context must not leak into the caller's code.
    with precision_of(state.gap.value):
        scales = jnp.asarray(scales, state.gap.value.dtype)
        ends = jnp.asarray(ends)
        state, values = _advance(spec.without_depth, state, scales, begin, ends)
        return state, {name: np.asarray(value) for name, value in values.items()}


@functools.partial(jax.jit, static_argnames="shape")
def _advance(shape, state, scales, begin, ends):
    """Some networks from block `begin` to each of `ends`; `scales` `(block, network)`.

    Returns the state at the last of `ends`, and the kernels `(end, network, ...)`.
    """
    blocks = jax.vmap(functools.partial(recursion.step, shape))

    def advance_to(carry, end):
        now, state = carry
        state = jax.lax.fori_loop(
            now, end, lambda at, state: blocks(state, scales[at]), state
        )
        return (end, state), jax.vmap(functools.partial(_variables, shape))(state)

    start = jnp.asarray(begin, ends.dtype), state
    (_, state), values = jax.lax.scan(advance_to, start, ends)
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


# -------------------------------------------------------------------------- by profiles


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
