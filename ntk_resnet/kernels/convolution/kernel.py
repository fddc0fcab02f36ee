r"""Closed forms of convolutional networks, one displacement between pixels at a time.

With stride 1 the kernel between pixels `i` and `i + d` of two images depends on that of
the same displacement `d` in the layer before alone. So a small plane, all pixels of
many pairs of images, runs through all blocks on its own, in cache, under one scan; the
readout adds the planes up. Steps of 2 map a displacement `d` to `2 d`: of the earlier
stages only every other displacement is needed, along both axes. Means over 2 x 2 pixels
mix neighbouring displacements, whose planes are kept between such stages.

For a symmetric block half of the displacements are enough: the plane of `-d` is that of
`d` with the images of each pair exchanged.

Sources: Arora et al. 2019 and Novak et al. 2019 (convolutional kernels).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_resnet._inputs import flushed
from ntk_resnet._numerics import Sum
from ntk_resnet.kernels.convolution import operations
from ntk_resnet.kernels.convolution.displacements import (
    at_once,
    half_first,
    numbers_in,
    parts_of,
)
from ntk_resnet.kernels.convolution.images import Images, through_images
from ntk_resnet.kernels.convolution.memory import pairs_at_once
from ntk_resnet.kernels.convolution.stages import (
    ImageStatistics,
    Pairs,
    enter,
    fetch_from,
    means_between,
    run_stages,
    through,
)
from ntk_resnet.kernels.convolution.tiles import in_tiles
from ntk_resnet.specification.convolutional import Convolutional

# ------------------------------------------------------------------------ single images


def image_statistics(
    spec: Convolutional, x: Float[Array, "n H W C"], scales: Float[Array, " depth"]
) -> ImageStatistics:
    """Single images through the network.

    Where it has no length scale, they are divided by their own first.
    """
    scales = operations.hidden_from_compiler(scales)
    size = x.shape[1:3]
    if spec.bias_variance == 0:  # beside one they do not matter
        lost = flushed(x.reshape(len(x), -1))
        x = jnp.where(lost[:, None, None, None], jnp.nan, x)
    x = operations.as_rows(jnp.moveaxis(x, 0, -1))
    log_scale = jnp.zeros(x.shape[-1], x.dtype)
    if spec.homogeneous:
        largest = jnp.max(jnp.abs(x), axis=(0, 1))
        x = x / largest
        square = jnp.mean(x * x, axis=(0, 1))
        x = x / jnp.sqrt(square)
        log_scale = 2 * jnp.log(largest) + jnp.log(square)
    parts = parts_of(spec, *size, every=False)
    own, by_block = jnp.asarray(True), list[Any]()
    so_far = ImageStatistics(x, by_block, log_scale)
    alone = Pairs(so_far, so_far, size, scales, own, crossed=False)
    fetch: Callable = lambda d: enter(spec, alone, False, d)  # noqa: E731
    variance = fetch(jnp.zeros(2, int)).nngp
    mean = jnp.zeros_like(variance) if spec.increments_have_mean else None
    images = Images(variance, mean, log_scale)
    for number, part in enumerate(parts):

        def run(windows, images, scale, _):
            return through_images(spec, images, scale, windows)

        nowhere = np.zeros(2, int)
        images, kept = run_stages(spec, part, nowhere, scales, images, run)
        by_block.append(kept)
        if number + 1 < len(parts):
            inputs = parts[number + 1].inputs
            stored = means_between(spec, alone, parts, number, fetch)
            fetch = fetch_from(stored, inputs)
            images = Images(
                fetch(jnp.zeros(2, int)).nngp,
                None if images.mean is None else _mean_2x2(images.mean, part.size),
                images.log_scale,
            )
    return ImageStatistics(x, by_block, images.log_scale)


def _mean_2x2(image, size):
    height, width = (side // 2 for side in size)
    means = jnp.mean(image.reshape(height, 2, width, 2, -1), axis=(1, 3))
    return operations.as_rows(means)


def image_statistics_of_both(
    spec: Convolutional,
    x1: Float[Array, "n1 H W C"],
    x2: Float[Array, "n2 H W C"],
    scales: Float[Array, " depth"],
) -> tuple[ImageStatistics, ImageStatistics, ImageStatistics]:
    """Both arrays together, the first and the second; once, to compile half as much."""
    seeing = image_statistics(spec, jnp.concatenate([x1, x2]), scales)
    return seeing, *(
        jax.tree.map(lambda leaf: leaf[..., part], seeing)  # noqa: B023
        for part in (slice(len(x1)), slice(len(x1), None))
    )


# -------------------------------------------------------------------------- the kernels


class Kernel(NamedTuple):
    """Both kernels at the readout, `(n1, n2)` or `(n,)`, up to the images' scales."""

    nngp: Float[Array, "..."]
    ntk: Any  # the same; `None`: not wanted


def kernels(
    spec: Convolutional,
    pairs: Pairs,
    *,
    ntk: bool,
    half: Any = False,
    each: bool = False,
) -> Kernel:
    """The kernels of pairs of images.

    Args:
        spec: the network; its scales play no role.
        pairs: the images.
        ntk: whether the NTK is wanted beside the NNGP.
        half: whether the pairs are each image with every one, in the same order, or
            with itself, so that half of the displacements do; a traced value is not
            differentiable.
        each: the kernels of all networks that end after one of the blocks, as a first
            axis; of networks of one stage.
    """
    pairs = pairs._replace(scales=operations.hidden_from_compiler(pairs.scales))
    parts = parts_of(spec, *pairs.size, every=spec.readout == "pool")
    sums = functools.partial(_sums, spec, parts, ntk, half, each)
    # Without a displacement the kernel of a pair is that of the images exchanged.
    mirrored = pairs.crossed and half is True and spec.readout == "flatten"
    most = pairs_at_once(spec, pairs.size)
    totals = in_tiles(sums, pairs, most, mirrored)
    return _read_out(spec, totals, parts[-1].size, half, pairs)


def _sums(spec, parts, ntk, half, each, pairs):
    """What `_over_displacements` gives, of the kernels after the last block."""
    fetch: Callable = lambda d: enter(spec, pairs, ntk, d)  # noqa: E731
    for number in range(len(parts) - 1):
        stored = means_between(spec, pairs, parts, number, fetch)
        fetch = fetch_from(stored, parts[number + 1].inputs)
    last = parts[-1]

    def sums(d):
        at_each = pixel_sums if each else None
        planes, kept = through(spec, pairs, last, len(parts) - 1, fetch(d), d, at_each)
        return kept[0].rest if each else pixel_sums(planes)

    def pixel_sums(planes):
        # Row by row, not to lose digits.
        grids = [
            None if plane is None else operations.as_grid(plane, last.size)
            for plane in planes
        ]
        return Kernel(*jax.tree.map(lambda g: jnp.sum(jnp.sum(g, 0), 0), grids))

    return _over_displacements(sums, last, pairs, half)


def _over_displacements(sums, part, pairs, half):
    """The sums over displacements that are their own opposites, and over all others."""
    displacements, alone, least = half_first(part)
    count: Any = len(displacements)
    if half is not False:
        count = least if half is True else jnp.where(half, least, count)
    found = jax.eval_shape(sums, displacements[0])
    entering = math.prod(pairs.other.pixels.shape[1:])
    numbers = numbers_in(part, pairs.own.size, entering)
    numbers = max(numbers, *(leaf.size for leaf in jax.tree.leaves(found)))
    together = at_once(numbers, count if half is False else least)

    def some_more(k, totals):
        number = together * k + jnp.arange(together)
        lone = number < alone
        counts = jnp.stack([lone, (number < count) & ~lone])

        def added(values, total):
            share = counts.reshape(2, together, *[1] * (values.ndim - 1))
            return total.add(jnp.sum(share * values, axis=1))

        more = jax.vmap(sums)(displacements[jnp.minimum(number, count - 1)])
        return jax.tree.map(added, more, totals)

    start = jax.tree.map(
        lambda like: Sum.start(jnp.zeros((2, *like.shape), like.dtype)), found
    )
    totals = jax.lax.fori_loop(0, -(-count // together), some_more, start)

    def of_pairs(total):
        *others, _ = total.value.shape
        return total.value.reshape(*others, *pairs.own.shape)

    is_sum = lambda leaf: isinstance(leaf, Sum)  # noqa: E731
    return jax.tree.map(of_pairs, totals, is_leaf=is_sum)


def _read_out(spec, totals, size, half, pairs):
    pixels = size[0] * size[1]
    share = 1 / (pixels**2 if spec.readout == "pool" else pixels)

    def finished(total):
        once, twice = total
        square = pairs.crossed and twice.shape[-1] == twice.shape[-2]
        opposite = jnp.swapaxes(twice, -1, -2) if square else twice
        return share * (once + twice + jnp.where(half, opposite, 0))

    found = jax.tree.map(finished, totals)
    if found.ntk is not None and spec.trains_readout:
        return found._replace(ntk=found.ntk + found.nngp)  # the readout's gradient
    return found
