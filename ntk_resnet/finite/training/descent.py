"""Many networks of one width trained at a time: compiled programs and the loop.

Two programs, both vectorised over seeds and split over the devices: `begin` makes the
networks, `advance` trains them from one record to the next and measures, all on the
devices. Only measurements come back.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ntk_resnet.finite.empirical.kernel import ntk_against, ntk_block
from ntk_resnet.finite.ensembles import seed_batches
from ntk_resnet.models.functions import as_function


class Task(NamedTuple):
    """What all networks of a study share."""

    rows: np.ndarray  # inputs, (p, d); the training rows come first
    y: np.ndarray  # targets of the training rows, (n, k)
    loss: Callable[[Any, Any], Any]
    optimizer: optax.GradientTransformation
    batch_size: int | None  # None: all rows in every step
    centred: bool  # whether initial outputs are subtracted


class Start(NamedTuple):
    """What a network was before training; arrays lead with the axis of seeds."""

    keys: Any  # random keys
    params: Any
    rest: Any  # weights that are not trained
    ntk: Any  # of all rows against the training rows, (s, p, n)
    outputs: Any  # of the training rows, (s, n, k)


class DescentState(NamedTuple):
    """What training changes; arrays lead with the axis of seeds."""

    params: Any
    memory: Any  # of the optimiser


class DescentData(NamedTuple):
    """On the devices, in the dtype of the networks."""

    rows: Any  # (p, d)
    y: Any  # (n, k)


class Programs(NamedTuple):
    """Compiled for networks of one width."""

    begin: Callable[[Any], tuple[Start, DescentState]]  # of keys
    # Of start, state, first step and count.
    advance: Callable[..., tuple[DescentState, dict[str, Any]]]


class History(NamedTuple):
    """Networks trained together."""

    ntk: np.ndarray  # initial NTK, (s, p, n)
    records: dict[str, np.ndarray]  # measurements, (s, t, ...)


def compile_programs(
    make: Callable[..., nnx.Module], task: Task, devices: list[Any]
) -> Programs:
    """The programs for networks `make(rngs=...)`, seeds in equal parts over devices."""
    abstract = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    apply, params, _ = as_function(abstract)
    split, whole = PartitionSpec("seeds"), PartitionSpec()
    mesh = Mesh(np.array(devices), ("seeds",))

    def over_devices(function, in_specs, **options):
        spread = jax.shard_map(
            function, mesh=mesh, in_specs=in_specs, out_specs=split, check_vma=False
        )
        return jax.jit(spread, **options)

    begin = over_devices(
        jax.vmap(functools.partial(_begin, make, apply, task), (None, 0)),
        (whole, split),
    )
    advance = over_devices(
        functools.partial(_advance, apply, task),
        (whole, split, split, whole, whole),
        donate_argnums=2,  # weights give way to the next ones: no second copy
    )
    dtype = jax.tree.leaves(params)[0].dtype
    data = jax.device_put(
        DescentData(task.rows.astype(dtype), task.y.astype(dtype)),
        NamedSharding(mesh, whole),
    )
    return Programs(functools.partial(begin, data), functools.partial(advance, data))


def train(
    programs: Programs,
    keys: Any,
    counts: np.ndarray,
    checkpoint: Any = None,
    report: Callable[[int], Any] = lambda made: None,
) -> History:
    """Trains the networks of `keys` from record to record.

    Args:
        programs: of their width.
        keys: `(s,)`, s a multiple of the number of devices.
        counts: `(t,)`, steps from one record to the next; the first is 0.
        checkpoint: where the state is kept after every record, with `restore(like)` and
            `save(index, state, records)`, or `None`.
        report: called with the number of records so far, also with those that a
            checkpoint had.
    """
    start, state = programs.begin(keys)
    # Not the arrays of `start`: these are given away in every call.
    state = jax.tree.map(jnp.copy, state)
    ntk, made = jax.device_get(start.ntk), []
    found = checkpoint.restore(state) if checkpoint is not None else None
    if found is not None:
        state, kept = found
        made = [{k: v[i] for k, v in kept.items()} for i in range(len(kept["outputs"]))]
        report(len(made))
    for index in range(len(made), len(counts)):
        first = np.int32(counts[:index].sum())
        state, record = programs.advance(start, state, first, np.int32(counts[index]))
        made.append(jax.device_get(record))
        if checkpoint is not None:
            checkpoint.save(index, state, _stacked(made, axis=0))
        report(len(made))
    return History(ntk, _stacked(made, axis=1))


def batches(
    seeds: int, numbers_per_seed: int, devices: list[Any]
) -> tuple[list[Any], Iterator[tuple[int, np.ndarray]]]:
    """The devices that so many seeds use, and their batches (`seed_batches`)."""
    devices = devices[:seeds]
    return devices, seed_batches(seeds, numbers_per_seed, len(devices))


def _stacked(made, axis):
    return {name: np.stack([one[name] for one in made], axis) for name in made[0]}


# ----------------------------------------------------------------- inside the programs


def _begin(make, apply, task, data, key):
    """One network at initialisation, ready for training."""
    with jax.default_matmul_precision("highest"):
        _, params, rest = as_function(make(rngs=nnx.Rngs(key)))
        x = data.rows[: len(data.y)]
        ntk = ntk_against(apply, params, rest, data.rows, x)
        start = Start(key, params, rest, ntk, apply(params, rest, x))
        return start, DescentState(params, _strong(task.optimizer.init(params)))


def _advance(apply, task, data, start, state, first, count):
    """The networks `count` steps later, and their measurements there."""
    with jax.default_matmul_precision("highest"):
        step = jax.vmap(functools.partial(_step, apply, task, data))
        if task.batch_size is None:
            every = functools.partial(step, start, rows=None)
            state = jax.lax.fori_loop(0, count, lambda _, s: every(s), state)
        else:
            state = _by_batches(task, step, start, state, first, count)
        measure = functools.partial(_measure, apply, data)
        return state, jax.vmap(measure)(start, state)


def _by_batches(task, step, start, state, first, count):
    """The steps, each on the next rows of an order that is drawn anew every epoch."""
    epoch = len(task.y) // task.batch_size  # steps; the rest of the rows waits

    def shuffled(index):
        def order(key):
            key = jax.random.fold_in(jax.random.fold_in(key, 1), index // epoch)
            return jax.random.permutation(key, len(task.y))

        return jax.vmap(order)(start.keys)

    def one(index, carry):
        state, order = carry
        order = jax.lax.cond(index % epoch == 0, lambda: shuffled(index), lambda: order)
        begin = index % epoch * task.batch_size
        rows = jax.lax.dynamic_slice_in_dim(order, begin, task.batch_size, axis=1)
        return step(start, state, rows=rows), order

    carry = state, shuffled(first)
    return jax.lax.fori_loop(first, first + count, one, carry)[0]


def _step(apply, task, data, start, state, rows):
    """One step of one network on all training rows, or on those numbered `rows`."""
    chosen = slice(0, len(data.y)) if rows is None else rows
    x, y = data.rows[chosen], data.y[chosen]

    def loss(params):
        outputs = apply(params, start.rest, x)
        return task.loss(
            outputs - start.outputs[chosen] if task.centred else outputs, y
        )

    value, gradient = jax.value_and_grad(loss)(state.params)
    # What line searches ask for; other optimisers ignore it.
    updates, memory = optax.with_extra_args_support(task.optimizer).update(
        gradient, state.memory, state.params, value=value, grad=gradient, value_fn=loss
    )
    return DescentState(optax.apply_updates(state.params, updates), memory)


def _measure(apply, data, start, state):
    """What is recorded of one network."""
    (rows, y), n = data, len(data.y)
    x, before = rows[:n], start.ntk[:n]
    now = ntk_block(apply, state.params, start.rest, x, None, "mean")
    moved = jax.tree.map(jnp.subtract, state.params, start.params)
    goal = y @ y.T
    return {
        "outputs": apply(state.params, start.rest, rows),
        # Of a dead network of width 1, say, 0 / 0.
        "ntk_drift": _size(now - before) / _size(before),
        "weights_distance": _size(moved) / _size(start.params),
        "alignment": jnp.sum(now * goal) / (_size(now) * _size(goal)),
    }


def _size(tree):
    """Euclidean norm of all numbers of a tree, added up in float32 or better."""

    def square(leaf):
        return jnp.sum(leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) ** 2)

    return jnp.sqrt(sum(map(square, jax.tree.leaves(tree))))


def _strong(tree):
    """Without weak types, which a checkpoint would lose."""

    def strong(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        return jax.lax.convert_element_type(leaf, leaf.dtype)

    return jax.tree.map(strong, tree)
