"""A matrix cut into tiles, which are computed as blocks of one shape."""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import cast

import jax
import numpy as np

from ntk_resnet._checks import check_count
from ntk_resnet.kernels.convolution.displacements import AT_ONCE
from ntk_resnet.kernels.convolution.memory import numbers_for_pairs, pairs_at_once
from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.convolutional import Convolutional


@dataclasses.dataclass(frozen=True)
class Tiling:
    """A matrix cut into square tiles, those at the far edges smaller.

    Raises:
        ValueError: a size is not a whole number >= 1, or a symmetric matrix not square.
    """

    rows: int
    columns: int
    tile: int  # side of a tile, in entries
    symmetric: bool  # only tiles (i, j) with i <= j are stored

    def __post_init__(self):
        for name in ("rows", "columns", "tile"):
            check_count(name, getattr(self, name))
        if self.symmetric and self.rows != self.columns:
            raise ValueError(
                f"a symmetric matrix must be square, got {self.rows} rows and "
                f"{self.columns} columns; pass symmetric=False."
            )

    def pairs(self) -> list[tuple[int, int]]:
        """Row and column of every stored tile, counted in tiles, row by row."""
        down, across = -(-self.rows // self.tile), -(-self.columns // self.tile)
        return [
            (i, j)
            for i in range(down)
            for j in range(i if self.symmetric else 0, across)
        ]

    def slices(self, i: int, j: int) -> tuple[slice, slice]:
        """Rows and columns of the matrix that tile (i, j) covers.

        Raises:
            ValueError: there is no such tile, or it is not stored.
        """
        top, left = i * self.tile, j * self.tile
        inside = 0 <= top < self.rows and 0 <= left < self.columns
        if not inside or (self.symmetric and i > j):
            raise ValueError(f"({i}, {j}) is no tile of {self}; pass one of .pairs().")
        return (
            slice(top, min(top + self.tile, self.rows)),
            slice(left, min(left + self.tile, self.columns)),
        )

    def shape(self, i: int, j: int) -> tuple[int, int]:
        """Rows and columns in tile (i, j)."""
        rows, columns = self.slices(i, j)
        return rows.stop - rows.start, columns.stop - columns.start

    @property
    def block_shape(self) -> tuple[int, int]:
        """That of all computed blocks; those at the far edges overlap others."""
        return min(self.tile, self.rows), min(self.tile, self.columns)

    def corner(self, i: int, j: int) -> tuple[int, int]:
        """Where the block that holds tile (i, j) in its far corner begins."""
        rows, columns = self.slices(i, j)
        height, width = self.block_shape
        return max(0, rows.stop - height), max(0, columns.stop - width)


def even_side(count: int, most: int) -> int:
    """The longest of so few parts of `count`, of at most `most`, as there can be."""
    return -(-count // -(-count // most))


def begins(count: int, side: int) -> list[int]:
    """Where parts begin that are all of length `side`; the last may overlap another."""
    return [min(begin, count - side) for begin in range(0, count, side)]


def side_for_rows(n: int, dtype: np.dtype, device: jax.Device) -> int:
    """The side of a tile for kernels between n rows."""
    fits = int(np.sqrt(memory_of(device) / (32 * dtype.itemsize)))
    # Sixteen tiles a side, so that symmetry spares nearly half of them, but not tiny
    # ones, nor millions; on a CPU of a size for its caches.
    least, usual, most = (
        (250, 500, 2000) if device.platform == "cpu" else (1024, 4096, 8192)
    )
    side = max(min(max(least, -(-n // 16)), usual), min(n // 200, most))
    # Rows of a tile a power of two apart would compete for the same cache lines.
    side -= 4 * (side % 128 == 0 and device.platform == "cpu")
    return max(1, min(side, fits, n))


def side_for_images(
    spec: Convolutional,
    shape: tuple[int, ...],
    dtype: np.dtype,
    device: jax.Device,
    devices: int,
) -> int:
    """The side of a tile for kernels between images `(n, H, W, C)`.

    All pairs of a tile are to go through the blocks together, and all that is kept to
    fit a sixteenth of the memory; on a CPU tiles are smaller, so that symmetry spares
    more of them. Several devices get as many along a side as there are of them, or
    more: tiles on the diagonal do half of the displacements.
    """
    n, image = shape[0], shape[1:]
    most = pairs_at_once(spec, image[:2])
    if device.platform == "cpu":
        most = min(most, max(1, AT_ONCE // math.prod(image[:2])))
    side = min(math.isqrt(most), -(-n // devices))
    given = spec, image, dtype
    while side > 1 and 16 * bytes_for(*given, (side, side)) > memory_of(device):
        side -= 1
    return side


def bytes_for(
    spec: Specification,
    shape: tuple[int, ...],
    dtype: np.dtype,
    sides: tuple[int, int],
) -> int:
    """About how much is kept at a time for the pairs of inputs in a tile.

    Args:
        spec: the network.
        shape: of one input: `(d,)`, or of an image `(H, W, C)`.
        dtype: in which the kernels are computed.
        sides: how many inputs are paired with how many others.
    """
    if spec.takes_images:
        numbers = numbers_for_pairs(cast(Convolutional, spec), shape, sides)
    else:  # by XLA's account at most 6 a pair by profile, to 18 by recursion, some rows
        numbers = 12 * math.prod(sides)
    return numbers * dtype.itemsize


def memory_of(device: jax.Device) -> int:
    """Bytes that a device may use; for a CPU what the machine has."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# ------------------------------------------------------------------- which device, when

Pair = tuple[int, int]
"""Row and column of a tile, counted in tiles."""


def schedule(
    pairs: Sequence[Pair], devices: int, each: int, *, halves: bool
) -> Iterator[list[list[Pair]]]:
    """Which tiles every device computes, one round of a few after another.

    A round ends when its last device is done. So the tiles of a round cost much the
    same, and so do the shares of its devices.

    Args:
        pairs: the tiles.
        devices: how many there are.
        each: at most so many tiles a device and round.
        halves: whether tiles on the diagonal cost half of what others do.

    Returns:
        One list a round, of one list a device; some devices may be given fewer tiles
        than others, or none.
    """

    def cost(pair):
        return 1 if halves and pair[0] == pair[1] else 2

    dearest_first = sorted(pairs, key=cost, reverse=True)
    for begin in range(0, len(pairs), devices * each):
        shares: list[list[Pair]] = [[] for _ in range(devices)]
        for pair in dearest_first[begin : begin + devices * each]:
            free = [share for share in shares if len(share) < each]
            min(free, key=lambda share: sum(map(cost, share))).append(pair)
        yield shares
