"""How many numbers are kept for kernels of images, before any is computed."""

import math

from ntk_resnet.convolutional import Convolutional, ConvResNet
from ntk_resnet.kernels._displacements import (
    at_once,
    numbers_in,
    pairs_at_once,
    parts_of,
)


def numbers_for_pairs(
    spec: Convolutional, shape: tuple[int, ...], pairs: int, platform: str
) -> int:
    """At most about how many numbers the kernels of so many pairs take at a time.

    Nine planes of all displacements that go through the blocks together, the images for
    each of them and some eight times more, and both kernels of the planes that enter a
    part after means, twice: one set is read while the next is made. For the pairs that
    go through together; of all, sums, and what is kept of the images.

    Args:
        spec: the network.
        shape: of an image, `(H, W, C)`.
        pairs: how many there are, of as many images as others.
        platform: of the device, `"cpu"` or another.
    """
    height, width, channels = shape
    some = min(pairs, pairs_at_once((height, width), platform))
    *_, last = parts = parts_of(spec, height, width, every=spec.readout == "pool")
    entering = math.isqrt(some) * channels
    displacements = len(last.outputs[0]) * len(last.outputs[1])
    together = at_once(numbers_in(last, some, entering), displacements)
    planes = max(height * width, together * math.prod(last.size_in(0)))
    banks = [
        len(part.inputs[0]) * len(part.inputs[1]) * math.prod(part.size)
        for part in parts[1:]  # of one stage each
    ]
    through = some * (9 * planes + 4 * max(banks, default=0))
    images = (together + 8) * height * width * entering
    seen = 2 * math.isqrt(pairs) * numbers_per_image(spec, shape)
    return through + images + seen + (8 * pairs if some < pairs else 0)


def numbers_per_image(spec: Convolutional, shape: tuple[int, ...]) -> int:
    """How many numbers are kept of an image on its way through all blocks.

    What each activation meets in every pixel, and once more one of them while the
    images are told apart.
    """
    height, width, _ = shape
    block = spec.block if isinstance(spec, ConvResNet) else None
    activations = 2 if block == "full_preactivation" else 1
    means = 2 if block == "postactivation" else 0
    kept = activations * (2 if spec.homogeneous else 4) + means + 1
    met = sum(blocks * height * width >> 2 * k for k, blocks in enumerate(spec.stages))
    return kept * met
