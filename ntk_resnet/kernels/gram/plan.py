"""What a Gram matrix is made of: the plan of its tiles, and the program for one.

One compiled program makes a tile from the rows of the data; devices take the tiles in
turn. The results are the same for any number of them, to the last bit
(`tests/kernels/gram/test_gram_devices.py`).
"""

import collections
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ntk_resnet._inputs import precision_of
from ntk_resnet.kernels.convolution.matrices import ImageRows
from ntk_resnet.kernels.engines import Block, Engine
from ntk_resnet.kernels.gram import origin
from ntk_resnet.kernels.gram.programs import program
from ntk_resnet.kernels.gram.tiling import Tiling, bytes_for, memory_of, schedule
from ntk_resnet.kernels.overflow import all_finite, beyond
from ntk_resnet.specification.base import Specification

_AHEAD = 2  # rounds of tiles under way while one is put in its place


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("data", "rows"),
    meta_fields=("spec", "engine", "tiling", "mesh"),
)
@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is needed to make any tile."""

    spec: Specification
    engine: Engine
    data: Any  # what depends on the depth, see `Engine.block`
    rows: tuple[Any, ...]  # of one array, or of two
    tiling: Tiling
    mesh: Mesh

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.rows[0].x.dtype)

    @property
    def products(self) -> str:
        """How the angles are computed, see `pairs.distances`."""
        return getattr(self.engine, "products", "split")

    @property
    def tile_bytes(self) -> int:
        """About how much memory a device takes to compute a tile.

        For images it holds planes of its pairs and all that the blocks need to know of
        each image; the matrix, the data and the program itself come on top.
        """
        rows = self.rows[0]
        computing = rows.log_nngp if isinstance(rows, ImageRows) else rows.x
        given = self.spec, rows.x.shape[1:], np.dtype(computing.dtype)
        return bytes_for(*given, self.tiling.block_shape)

    @property
    def progress_text(self) -> str:
        """How large tiles are, to be said before the first is computed."""
        sides = "{} x {}".format(*self.tiling.block_shape)
        return f"tiles of {sides}, about {self.tile_bytes / 1e6:.3g} MB each"

    def identity(self) -> dict[str, str | int | float]:
        """What decides the matrix, for a store."""
        return origin.identity_of(
            self.spec,
            *(rows.x for rows in self.rows),
            get=" ".join(self.engine.get),
            normalised=int(self.engine.normalised),
            engine=self.engine.name,
            products=self.products,
            platform=self.mesh.local_devices[0].platform,
        )

    def tiles(
        self, pairs: Sequence[tuple[int, int]], *, checked: bool = True
    ) -> Iterator[tuple[int, int, tuple[np.ndarray, ...]]]:
        """Each of the tiles, in an order of its own, as `(i, j, values)`.

        There is an array of values for each quantity of the engine.

        Raises:
            ValueError: an entry is not a finite number, and they are to be `checked`.
        """
        halves = self.tiling.symmetric and self.engine.name == "convolution"
        under_way: collections.deque = collections.deque()
        for shares in schedule(pairs, self.mesh.size, self._each, halves=halves):
            under_way.append((shares, self.start(shares)))
            if len(under_way) > _AHEAD:
                shares, started = under_way.popleft()
                yield from self._finished(shares, started, checked)
        while under_way:
            shares, started = under_way.popleft()
            yield from self._finished(shares, started, checked)

    @property
    def _each(self) -> int:
        """How many tiles a device is given at a time.

        Those of images on the diagonal cost half, so that two share out more evenly.
        """
        return 1 + (self.mesh.size > 1 and self.engine.name == "convolution")

    def fits_its_device(self) -> bool:
        """Whether one accelerator computes it and has room for it twice."""
        device = self.mesh.local_devices[0]
        size = self.tiling.rows * self.tiling.columns * self.dtype.itemsize
        accelerator = self.mesh.size == 1 and device.platform != "cpu"
        return accelerator and 2 * size < memory_of(device)

    def start(
        self, shares: Sequence[Sequence[tuple[int, int]]], *, refine: bool = False
    ) -> Block:
        """Starts on the tiles of each device, a few or none; those of all in turn.

        Those that come out `coarse` are to be started again, to be refined. What a
        tile is thus depends on its inputs alone.
        """
        tiling, places = self.tiling, (self.mesh.size, self._each)
        corners, wanted = np.zeros((*places, 2), np.int32), np.zeros(places, bool)
        for device, share in enumerate(shares):
            wanted[device, : len(share)] = True
            for place, pair in enumerate(share):
                corners[device, place] = tiling.corner(*pair)
        compiled = program(
            self.mesh, self.engine, tiling.block_shape, tiling.symmetric, refine
        )
        with precision_of(*jax.tree.leaves(self.rows)):
            return compiled(self.data, self.rows, corners, wanted)

    def _finished(self, shares, started, checked):
        """Those of this process's devices."""
        made, coarse = [_by_device(v) for v in started.values], _by_device(started[1])
        for device in sorted(coarse):
            blocks = [np.asarray(of[device])[0] for of in made if shares[device]]
            rough = np.asarray(coarse[device])[0]
            for place, pair in enumerate(shares[device]):
                values = tuple(block[place] for block in blocks)
                if rough[place] and not self.mesh.is_multi_process:  # all would have to
                    values = self._refined(pair)
                height, width = self.tiling.shape(*pair)
                values = tuple(v[-height:, -width:] for v in values)
                if checked:
                    self.check(values)
                yield *pair, values

    def check(self, values: tuple[Any, ...]) -> None:
        """Raises the error behind an entry that is not a finite number."""
        for name, found in zip(self.engine.get, values, strict=True):
            check_finite(found, name, self.engine.normalised, self.spec)

    def _refined(self, pair):
        started = self.start([[pair]], refine=True).values
        return tuple(np.asarray(_by_device(values)[0])[0, 0] for values in started)


def _by_device(array):
    """What each of this process's devices has computed, by its number in the mesh."""
    return {s.index[0].start or 0: s.data for s in array.addressable_shards}


def check_finite(values: Any, get: str, normalised: bool, spec: Specification) -> None:
    """Raises the error behind an entry that is not a finite number."""
    if all_finite(values):
        return
    if np.isnan(values).any() or normalised:
        raise ValueError(
            f"the {get} of {spec!r} is not a number for some of these inputs: "
            "they or the scales are beyond the range of the dtype, of the activation's "
            "quadrature, or nothing is trained."
        )
    raise ValueError(beyond(get, values.dtype))
