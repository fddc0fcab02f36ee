"""How many numbers are kept for kernels of images, before any is computed."""

import math

import jax

from ntk_resnet.kernels.convolution.displacements import (
    AT_ONCE,
    at_once,
    numbers_in,
    parts_of,
)
from ntk_resnet.specification.blocks import ACTIVATE
from ntk_resnet.specification.convolutional import Convolutional


def pairs_at_once(spec: Convolutional, size: tuple[int, ...]) -> int:
    """How many pairs of images of that size at most go through the blocks together.

    The plane of a displacement is to stay in a CPU's cache, or to fill an accelerator;
    planes that wait for their means are to take 2^24 numbers, or 2^28.
    """
    on_cpu = jax.default_backend() == "cpu"
    plane, waiting = (4 * AT_ONCE, 2**24) if on_cpu else (2**24, 2**28)
    pairs = min(plane // math.prod(size), waiting // max(1, _waiting(spec, size)))
    return max(1, pairs)


def numbers_for_pairs(
    spec: Convolutional, shape: tuple[int, ...], sides: tuple[int, int]
) -> int:
    """At most about how many numbers the kernels of so many pairs take at a time.

    The pairs that go through the blocks together take nine planes of all displacements
    that do so too, and the planes that wait for their means; their images, one for each
    displacement and eight more. All pairs take four sums, each with what it has lost;
    all images what `numbers_per_image` says.

    Args:
        spec: the network.
        shape: of an image, `(H, W, C)`.
        sides: how many images are paired with how many others.
    """
    height, width, channels = shape
    size, pairs = (height, width), math.prod(sides)
    some = min(pairs, pairs_at_once(spec, size))
    *_, last = parts_of(spec, *size, every=spec.readout == "pool")
    entering = min(sides[1], 2 * math.isqrt(some)) * channels
    displacements = len(last.outputs[0]) * len(last.outputs[1])
    together = at_once(numbers_in(last, some, entering), displacements)
    planes = max(math.prod(size), together * math.prod(last.size_in(0)))
    through = some * (9 * planes + _waiting(spec, size))
    images = (together + 8) * math.prod(size) * entering
    return through + images + 8 * pairs + sum(sides) * numbers_per_image(spec, shape)


def numbers_per_image(spec: Convolutional, shape: tuple[int, ...]) -> int:
    """How many numbers are kept of an image: itself, three times, and on its way.

    On its way: statistics of every pixel at each activation, and once more one of
    these while the two arrays of images are separated.
    """
    activations = spec.operations.count(ACTIVATE)
    means = 2 if spec.increments_have_mean else 0
    kept = activations * (2 if spec.homogeneous else 4) + means + 1
    pixels = math.prod(shape[:2])
    all_pixels = sum(blocks * (pixels >> 2 * k) for k, blocks in enumerate(spec.stages))
    return kept * all_pixels + 3 * math.prod(shape)


def _waiting(spec, size):
    """Both kernels of the planes that enter a part after means, of a pair.

    Twice: one set is read while the next is made.
    """
    _, *later = parts_of(spec, *size, every=spec.readout == "pool")
    planes = [
        len(part.inputs[0]) * len(part.inputs[1]) * math.prod(part.size)
        for part in later  # of one stage each
    ]
    return 4 * max(planes, default=0)
