"""Many networks of one kind: their random keys, and batches that fit the memory."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

BATCH_BYTES = 2**28
"""Memory for the seeds that a device runs at a time."""


def over_seeds(
    function: Callable[[Array], Any], keys: Array, *, numbers_per_seed: int
) -> Iterator[tuple[int, Any]]:
    """`function(key)` for many keys, vectorised over as many as fit the memory.

    Args:
        function: of one key; a pytree of arrays comes out. Compiled once.
        keys: `(seeds,)`, random keys.
        numbers_per_seed: how many numbers one seed holds at its peak.

    Yields:
        `(done, results)`: seeds finished so far, and those of the last batch, as NumPy
        arrays with a leading axis of seeds.
    """
    vectorised = jax.jit(jax.vmap(function))
    done = 0
    for count, index in seed_batches(len(keys), numbers_per_seed):
        results = jax.device_get(vectorised(keys[index]))
        done += count
        yield done, jax.tree.map(lambda leaf: leaf[:count], results)  # noqa: B023


def seed_batches(
    seeds: int, numbers_per_seed: int, devices: int = 1
) -> Iterator[tuple[int, np.ndarray]]:
    """Seeds in batches of one size that fit the memory, in equal parts for devices.

    Yields:
        How many seeds of a batch count, and their numbers: the last batch is filled up,
        so that there is one shape to compile for.
    """
    fit = max(1, BATCH_BYTES // (4 * numbers_per_seed)) * devices
    number = -(-seeds // fit)
    size = -(-seeds // (number * devices)) * devices
    for begin in range(0, seeds, size):
        index = np.minimum(np.arange(begin, begin + size), seeds - 1)
        yield min(size, seeds - begin), index


def seed_keys(seed: int, width: int, seeds: int) -> Array:
    """Random keys of `seeds` networks; the first ones do not depend on their number."""
    key = jax.random.fold_in(jax.random.key(seed), width)
    return jax.vmap(functools.partial(jax.random.fold_in, key))(np.arange(seeds))
