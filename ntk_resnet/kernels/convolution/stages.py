"""Images and pairs of them through the stages of a convolutional network."""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ntk_resnet.kernels.convolution import operations
from ntk_resnet.kernels.convolution.blocks import (
    LazyPlanes,
    Planes,
    convolve,
    windows_at,
)
from ntk_resnet.kernels.convolution.displacements import means_of
from ntk_resnet.kernels.convolution.operations import Size
from ntk_resnet.kernels.convolution.pairs import through_pairs


class StageOutputs(NamedTuple):
    """What the blocks of a stage have given beside the carry."""

    alone: Any  # the block with stride 2; `None`: there is none
    rest: Any  # all others, stacked


def run_stages(spec, part, d, scales, carry, run, by_block=None):
    """`run(windows, carry, scale, by_block)` for all blocks of a part, by scans.

    `d` is the displacement that enters. Returns the last carry, and for each stage what
    `run` gave beside it.
    """
    kept, begin = [], part.begin
    if by_block is None:
        by_block = [StageOutputs(None, None)] * len(part.stages)
    for stage, blocks in enumerate(part.stages):
        own = scales[begin : begin + blocks]
        begin += blocks
        alone = None
        if stage > 0:
            steps = windows_at(spec, part.size_in(stage - 1), d, scales.dtype, stride=2)
            carry, alone = run(steps, carry, own[0], by_block[stage].alone)
            own, d = own[1:], d // 2
        windows = windows_at(spec, part.size_in(stage), d, scales.dtype)
        carry, rest = jax.lax.scan(
            lambda carry, given: run(windows, carry, *given),  # noqa: B023
            carry,
            (own, by_block[stage].rest),
        )
        kept.append(StageOutputs(alone, rest))
    return carry, kept


class ImageStatistics(NamedTuple):
    """Images, and what pairs need to know of them; the last axis of all is images."""

    pixels: Float[Array, "pixels C n"]
    by_block: list  # part by part, stage by stage: `StageOutputs` of `BlockStatistics`
    log_scale: Float[Array, " n"]  # ln of what kernels at the readout are to be times


class Pairs(NamedTuple):
    """Images in pairs, with what is known of each."""

    one: ImageStatistics
    other: ImageStatistics
    size: Size  # of all
    scales: Float[Array, " depth"]  # of all blocks; ones for a plain network
    own: Bool[Array, "..."]  # which pairs are an image with itself
    crossed: bool  # every one of x1 with every one of x2; else one by one

    def first(self, leaf: Array) -> Array:
        """What belongs to each of the first images, shaped for the pairs."""
        return leaf[..., None] if self.crossed else leaf

    def second(self, leaf: Array, size: Size, d: Any) -> Array:
        """What belongs to each of the second images, displaced.

        `d` is counted in images of that size, those of others go as far.
        """
        if leaf.ndim == 2:
            shrinks = math.isqrt(math.prod(size) // len(leaf))
            smaller = size[0] // shrinks, size[1] // shrinks
            leaf = operations.displaced(leaf, smaller, d // shrinks)
        return leaf[..., None, :] if self.crossed else leaf


def enter(spec, pairs, ntk, d) -> Planes:
    """The planes of a displacement before the first block."""
    shifted = operations.displaced(pairs.other.pixels, pairs.size, d)
    product = "pcn,pcm->pnm" if pairs.crossed else "pcn,pcn->pn"
    nngp = jnp.einsum(product, pairs.one.pixels, shifted, precision="highest")
    nngp = nngp.reshape(len(nngp), -1) / shifted.shape[1]
    planes = Planes(nngp, jnp.zeros_like(nngp) if ntk else None)
    if spec.has_trunk:
        barrier, trained = pairs.scales[0] >= 0, spec.trains_readout
        at = windows_at(spec, pairs.size, d, nngp.dtype).outer, barrier
        convolved = convolve(spec, LazyPlanes(planes), *at, 1.0, trained=trained)
        return convolved.finish(convolved.planes)
    return planes


def through(spec, pairs, part, number, planes, d, at_each=None):
    """The planes of a displacement after a part; what `at_each` makes of each block."""
    same = pairs.own & (d[0] == 0) & (d[1] == 0)
    distinct = jnp.where(same, 0, 1).astype(planes.nngp.dtype)
    stages = zip(pairs.one.by_block[number], pairs.other.by_block[number], strict=True)
    by_block = [StageOutputs(*zip(*stage, strict=True)) for stage in stages]

    def run(windows, planes, scale, by_block):
        size = windows.inner.size
        here = d * size[0] // part.size_in(0)[0]
        first = jax.tree.map(pairs.first, by_block[0])
        second = jax.tree.map(lambda leaf: pairs.second(leaf, size, here), by_block[1])
        planes = through_pairs(spec, planes, scale, windows, first, second, distinct)
        return planes, None if at_each is None else at_each(planes)

    return run_stages(spec, part, d, pairs.scales, planes, run, by_block)


def means_between(spec, pairs, parts, number, fetch):
    """The planes that enter the next part, after the means over 2 x 2 pixels."""
    part, after = parts[number], parts[number + 1]
    places, weights = means_of(part.outputs, after.inputs, part.size)
    given = _combined(part.inputs), jnp.asarray(places), jnp.asarray(weights)

    def one_more(stored, given):
        d, targets, weights = given
        planes, _ = through(spec, pairs, part, number, fetch(d), d)
        at = targets, weights.astype(planes.nngp.dtype)
        return jax.tree.map(
            lambda stored, plane: operations.add_means(stored, plane, part.size, *at),
            stored,
            planes,
        ), None

    like = jax.eval_shape(lambda: fetch(jnp.zeros(2, int)))
    count = len(after.inputs[0]) * len(after.inputs[1])
    pixels = math.prod(part.size) // 4
    stored = jax.tree.map(
        lambda leaf: jnp.zeros((count, pixels, *leaf.shape[1:]), leaf.dtype), like
    )
    return jax.lax.scan(one_more, stored, given)[0]


def _combined(axes):
    return jnp.asarray(list(itertools.product(*axes)))


def fetch_from(stored, inputs):
    """The planes of a displacement out of those that `means_between` has made."""
    places = [np.zeros(1 + max(axis), int) for axis in inputs]
    for place, axis in zip(places, inputs, strict=True):
        place[axis] = np.arange(len(axis))
    rows, columns = map(jnp.asarray, places)

    def fetch(d):
        at = rows[d[0]] * len(inputs[1]) + columns[d[1]]
        return jax.tree.map(lambda planes: planes[at], stored)

    return fetch
