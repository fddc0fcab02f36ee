r"""Which displacements between pixels are needed where in a convolutional network.

Displacements are counted around the image, `(i + d) mod size`. Steps of 2 map `2 d` to
`d`, means over 2 x 2 pixels `2 d - 1 .. 2 d + 1` to `d`, along both axes.
"""

import dataclasses
import itertools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ntk_resnet.specification.convolutional import Convolutional


@dataclasses.dataclass(frozen=True)
class StageGroup:
    """Consecutive stages, with stride 2 between them; parts follow after means."""

    begin: int  # number of its first block
    stages: tuple[int, ...]  # blocks in each
    inputs: tuple[np.ndarray, ...]  # displacements along both axes that enter
    outputs: tuple[np.ndarray, ...]  # and that leave
    size: tuple[int, int]  # height and width of the images that leave

    def size_in(self, stage: int) -> tuple[int, int]:
        """Height and width in one of the stages."""
        steps = 2 ** (len(self.stages) - 1 - stage)
        return steps * self.size[0], steps * self.size[1]


def parts_of(
    spec: Convolutional, height: int, width: int, *, every: bool = True
) -> list[StageGroup]:
    """The network cut where means over 2 x 2 pixels are taken.

    Args:
        spec: the network.
        height, width: of the images.
        every: whether all displacements are wanted at the end, or only none, `i = j`.
    """
    begins = np.cumsum((0, *spec.stages[:-1])).tolist()
    cut = [(n,) for n in spec.stages]
    if spec.downsampling == "stride":
        begins, cut = [0], [spec.stages]
    parts: list[StageGroup] = []
    height, width = (side >> (len(spec.stages) - 1) for side in (height, width))
    wanted = [np.arange(side if every else 1) for side in (height, width)]
    for begin, stages in zip(reversed(begins), reversed(cut), strict=True):
        shrinks = 2 ** (len(stages) - 1)
        entering = [shrinks * axis for axis in wanted]
        part = StageGroup(
            begin, stages, tuple(entering), tuple(wanted), (height, width)
        )
        parts.insert(0, part)
        height, width = 2 * height * shrinks, 2 * width * shrinks
        wanted = [
            np.unique((2 * axis[:, None] + np.arange(-1, 2)) % side)
            for axis, side in zip(entering, (height, width), strict=True)
        ]
    return parts


AT_ONCE = 2**16
"""Numbers in the planes that go through the blocks together, or in one larger one."""


def at_once(numbers: int, count: int) -> int:
    """How many of `count` displacements, of so many numbers, to go through together.

    XLA's programs for few numbers spend their time on beginning and ending; those for
    many leave the cache. The last few are filled up, so little as can be.
    """
    return -(-count // -(-count // max(1, AT_ONCE // numbers)))


def numbers_in(part: StageGroup, pairs: int, entering: int) -> int:
    """In a plane of a displacement, or in the images that enter if those are more.

    `entering` counts the second images of the pairs, times their channels.
    """
    return math.prod(part.size_in(0)) * max(pairs, entering)


def half_first(part: StageGroup) -> tuple[Int[Array, "k 2"], int, int]:
    """The displacements that enter a part, in an order of which half may do.

    Returns:
        First those that are their own opposites, then one of each pair of opposites,
        then the others; how many are their own; and how many half of them are.
    """
    alone: list[tuple[int, ...]] = []
    one: list[tuple[int, ...]] = []
    other: list[tuple[int, ...]] = []
    for d in itertools.product(*(axis.tolist() for axis in part.outputs)):
        opposite = tuple(-a % side for a, side in zip(d, part.size, strict=True))
        (alone if d == opposite else one if d < opposite else other).append(d)
    shrinks = 2 ** (len(part.stages) - 1)
    listed = shrinks * jnp.array(alone + one + other)
    return listed, len(alone), len(alone) + len(one)


def means_of(
    before: tuple[np.ndarray, ...],
    after: tuple[np.ndarray, ...],
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """For each displacement before the means its four places after them.

    Args:
        before, after: displacements along both axes; all combinations are meant.
        size: height and width before.

    Returns:
        Indices into the combinations of `after` and weights, `(len(before), 2, 2)`; the
        weight is 0 where the displacement after is not wanted.
    """
    places, wanted = zip(*map(_means_along, before, after, size), strict=True)
    index = places[0][:, None, :, None] * len(after[1]) + places[1][None, :, None, :]
    weight = wanted[0][:, None, :, None] & wanted[1][None, :, None, :]
    return index.reshape(-1, 2, 2), weight.reshape(-1, 2, 2).astype(float)


def _means_along(before, after, size):
    p = np.arange(2)
    q = (p + before[:, None]) % 2
    target = ((before[:, None] - (q - p)) // 2) % (size // 2)
    place = np.searchsorted(after, target).clip(max=len(after) - 1)
    return place, after[place] == target
