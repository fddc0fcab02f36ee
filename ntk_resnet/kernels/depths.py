r"""Both kernels at many depths.

Where the network of depth `l` is the first `l` blocks of a deeper one, one pass goes
through the deepest and stops at each wanted depth to read the kernels. Else the
networks of the depths run side by side: a block of scale 0 is the identity, so shorter
ones are filled up with those.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, ArrayLike, Float, Num

from ntk_resnet._inputs import check_angles, check_depths, check_inputs_of
from ntk_resnet._precision import precision_of
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.kernels import recursion
from ntk_resnet.kernels.convolution.depths import matrices_at
from ntk_resnet.kernels.engines import log_diagonals
from ntk_resnet.kernels.gram.gram import in_memory
from ntk_resnet.kernels.gram.make_plan import device_of, plan_on
from ntk_resnet.kernels.gram.plan import check_finite
from ntk_resnet.kernels.pairs import angle_gaps, distances, gaps, prepare, symmetric
from ntk_resnet.kernels.profile.composed import composes
from ntk_resnet.records.provenance import provenance
from ntk_resnet.specification.base import Specification, check_network

_LONG_NAMES = {
    "nngp": "NNGP, normalised",
    "ntk": "NTK, normalised",
    "nngp_gap": "1 - NNGP, normalised",
    "ntk_gap": "1 - NTK, normalised",
    "log_nngp_diag": "ln of the raw NNGP on the diagonal",
    "log_ntk_diag": "ln of the raw NTK on the diagonal",
}


def sweep_depth(
    spec: Specification,
    depths: int | Sequence[int],
    *,
    angles: Num[ArrayLike, " angle"] | Sequence[float] | None = None,
    x: Num[ArrayLike, "n *features"] | None = None,
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""Both kernels of a family of networks at several depths, in gap form.

    `spec.depth` is replaced by each of `depths`. Where the network of depth `l` is the
    first `l` blocks of a deeper one (plain networks, scales that do not depend on the
    depth) one pass serves all depths; else the networks run side by side
    (`ntk_resnet.kernels.depths`; of images, `ntk_resnet.kernels.convolution.depths`).
    Where it is cheaper, kernels between rows of data are those of `gram`, depth by
    depth.

    Args:
        spec: the family; a convolutional one has one stage.
        depths: whole numbers >= 1; the result has each once, ascending.
        angles: radians in [0, pi], between inputs with `|x|^2 = d`; or
        x: inputs `(n, d)`, all pairs of rows; of convolutional networks images
            `(n, H, W, C)`.
        progress: called as `progress(done, total, text)` for each depth as it is done:
            several in a row, and the deepest may come first; of convolutional networks
            for each tile of a matrix.

    Returns:
        A dataset over `(depth, angle)`, or `(depth, row, column)`: `nngp` and `ntk`,
        divided by their diagonals, and `nngp_gap`, `ntk_gap`, one minus them, accurate
        relative to themselves (between images absolutely, to a few float64 eps times
        the depth); `log_nngp_diag`, `log_ntk_diag` over `(depth,)`, or
        `(depth, row)`, in neural-tangents' normalisation. The dtype is that of the
        input. `ntk` is NaN where nothing is trained (all scales zero, or their
        squares).

    Raises:
        ValueError: bad inputs, neither or both of `angles` and `x`, a convolutional
            network with `angles` or of several stages, or kernels that are not a number
            (a variance beyond the quadrature of the activation).

    Accuracy: that of `kernel_fn` (`tests/kernels/test_recursion.py`,
    `tests/analysis/test_depth.py`, `tests/kernels/convolution/test_image_depths.py`).
    """
    check_family(spec, angles)
    depths = check_depths("depths", depths)
    if (angles is None) == (x is None):
        raise ValueError(
            "pass either angles= or x= to say where the kernels are wanted."
        )
    pairs: tuple[str, ...]
    coords: dict[str, Any] = {"depth": depths}
    if x is None:
        angles = data = check_angles("angles", angles)
        pairs = ("angle",)
        about = {"units": "rad", "long_name": "angle"}
        coords["angle"] = ("angle", angles, about)
    else:
        x = data = check_inputs_of(spec, "x", x)
        pairs = ("row", "column")
    found: dict[str, np.ndarray] = {}
    for index, values in kernels_by_depth(spec, depths, angles, x, progress):
        for name, value in values.items():
            if name not in found:
                found[name] = np.empty((len(depths), *value.shape), value.dtype)
            found[name][index] = value
    variables = {}
    for name, long_name in _LONG_NAMES.items():
        dims = ("depth", *(pairs[:-1] if name.startswith("log") else pairs))
        variables[name] = (dims, found[name], {"long_name": long_name})
    return xr.Dataset(
        variables,
        coords=coords,
        attrs=provenance(spec=spec, dtype=str(data.dtype)),
    )


def check_family(spec: Any, angles: Any = None) -> None:
    check_network(spec, convolutional=True)
    if not spec.takes_images:
        return
    if len(spec.stages) > 1:
        raise ValueError(
            f"spec has {len(spec.stages)} stages, between which a depth cannot be "
            "divided; pass a network of one stage."
        )
    if angles is not None:
        raise ValueError(
            "angles= is for fully connected networks, whose kernels depend on nothing "
            "else; pass images as x= (n, height, width, channels)."
        )


def kernels_by_depth(
    spec: Any, depths: list[int], angles: Any, x: Any, progress: Progress
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The index into `depths` and the variables of `sweep_depth`, in no set order."""
    for index, values in _by_depth(spec, depths, angles, x, progress):
        # Where nothing is trained, or scales whose squares are 0, there is no NTK.
        none = np.isneginf(values["log_ntk_diag"]).all()
        for name in ("nngp",) if none else ("nngp", "ntk"):
            deep = spec.replace(depth=depths[index])
            check_finite(values[f"{name}_gap"], name, True, deep)
        yield index, values


def _by_depth(spec, depths, angles, x, progress):
    if spec.takes_images:
        yield from matrices_at(spec, depths, x, progress)
        return
    if x is not None and by_profiles(spec, depths, len(x)):
        found = profiles_at(spec, depths, x)
    else:
        found = kernels_at(spec, depths, *pairs_of(spec, angles, x))
    for count, (index, values) in enumerate(found, 1):
        yield index, values
        progress(count, len(depths), f"depth {depths[index]}")


class Pairs(NamedTuple):
    """Pairs of inputs: one minus and one plus the cosine, and ln(|x|^2 / d)."""

    gap: jax.Array
    supplement_gap: jax.Array
    log_variance: jax.Array


def pairs_of(spec: Specification, angles: Any, x: Any) -> Pairs:
    with precision_of(angles, x):
        if x is None:
            gap, supplement_gap = map(jnp.asarray, angle_gaps(angles))
            return Pairs(gap, supplement_gap, jnp.zeros((), gap.dtype))
        rows = prepare(x, spec.bias_variance)
        gap, supplement_gap = _pair_gaps(rows)
        return Pairs(gap, supplement_gap, jnp.asarray(rows.log_variance))


@jax.jit
def _pair_gaps(rows):
    return tuple(map(symmetric, gaps(distances(rows, rows, 0, "split", True))))


# ------------------------------------------------------------------ through the blocks

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
    with precision_of(state.gap.value):  # to the device once, not in each call
        scales = spec.replace(depth=depths[-1]).scales[:, None]
        scales = jnp.asarray(scales, state.gap.value.dtype)
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
_BESIDE = 4  # networks; the shorter ones of more would wait for the deepest


def _side_by_side(spec, depths, first, pairs):
    """Networks of like depths together, the deepest first."""
    some = min(len(depths), _BESIDE, _WIDTH // pairs, _HELD // depths[-1])
    # Else a block of scale 0 changes what passes it.
    some = max(1, some) if spec.trunk_square(0.0) == 1 else 1
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
