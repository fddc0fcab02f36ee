"""A Gram matrix on disk, read piece by piece as if it were a NumPy array."""

import os
import pathlib
from typing import Any

import numpy as np

from ntk_resnet.kernels.gram.tile_store import TileStore, read_attributes


def open_gram(path: str | os.PathLike) -> "StoredGram":
    """A Gram matrix that `gram(..., store=path)` wrote, to be read piece by piece.

    Raises:
        FileNotFoundError: there is none at `path`.
        ValueError: what is there is damaged or something else.
    """
    path = pathlib.Path(path)
    return StoredGram(TileStore(path, read_attributes(path), mode="r"))


class StoredGram:
    """A Gram matrix on disk that is indexed as a NumPy array is.

    `matrix[rows, columns]`, with whole numbers, slices, masks and index arrays, is the
    same as `np.asarray(matrix)[rows, columns]`, but reads only the tiles it needs, each
    once; of a symmetric matrix the lower half is the mirrored upper one. Reading raises
    `ValueError` where a tile is missing or damaged.

    Attributes:
        shape, ndim, dtype: as of an array.
        symmetric: whether rows and columns are the same inputs.
        attrs: what the matrix is of and where it was computed, in one flat dictionary.
    """

    ndim = 2

    def __init__(self, store: TileStore):
        self._store = store
        self._tiling = store.tiling
        self.shape = (store.tiling.rows, store.tiling.columns)
        self.dtype = store.dtype
        self.symmetric = store.tiling.symmetric
        self.attrs = store.attrs

    def __repr__(self) -> str:
        return f"<StoredGram {self.shape} {self.dtype} at {str(self._store.path)!r}>"

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a stored matrix cannot become an array without a copy.")
        return self[:, :].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        keys = keys if len(keys) > 1 else (*keys, slice(None))
        if len(keys) != 2:
            raise IndexError(f"a matrix takes two indices, got {len(keys)}.")
        (rows, columns), listed = zip(*map(_positions, keys, self.shape), strict=True)
        grid = rows.ndim == columns.ndim == 2 and rows.shape[1] == columns.shape[0] == 1
        if all(listed) and not grid:  # NumPy pairs the entries of two index arrays
            rows, columns = np.broadcast_arrays(rows, columns)
            return self._points(rows.ravel(), columns.ravel()).reshape(rows.shape)
        shape = (rows.size, columns.size) if all(listed) else rows.shape + columns.shape
        return self._block(rows.ravel(), columns.ravel()).reshape(shape)[()]

    def _block(self, rows, columns) -> np.ndarray:
        """All pairs of the rows and columns."""
        rows, put_rows = np.unique(rows, return_inverse=True)
        columns, put_columns = np.unique(columns, return_inverse=True)
        result = np.empty((rows.size, columns.size), self.dtype)
        side, mirrored = self._tiling.tile, self._tiling.symmetric
        places: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for i in np.unique(rows // side).tolist():
            for j in np.unique(columns // side).tolist():
                stored = (j, i) if mirrored and i > j else (i, j)
                places.setdefault(stored, []).append((i, j))
        for stored, cut in places.items():
            tile = self._store.read(*stored)
            for i, j in cut:
                to_rows, from_rows = _within(rows, i, side)
                to_columns, from_columns = _within(columns, j, side)
                values = tile if (i, j) == stored else tile.T
                result[to_rows, to_columns] = values[from_rows][:, from_columns]
        return result[_run(put_rows)][:, _run(put_columns)]

    def _points(self, rows, columns) -> np.ndarray:
        """One entry for each row and the column beside it."""
        side = self._tiling.tile
        if self._tiling.symmetric:
            turned = rows // side > columns // side
            rows, columns = (
                np.where(turned, columns, rows),
                np.where(turned, rows, columns),
            )
        result = np.empty(rows.size, self.dtype)
        tiles = np.stack([rows // side, columns // side], axis=1)
        order = np.lexsort(tiles.T)
        changes = np.flatnonzero(np.any(np.diff(tiles[order], axis=0), axis=1)) + 1
        for chosen in np.split(order, changes) if order.size else ():
            tile = self._store.read(*tiles[chosen[0]].tolist())
            result[chosen] = tile[rows[chosen] % side, columns[chosen] % side]
        return result


def _positions(index, size) -> tuple[np.ndarray, bool]:
    """The positions an index picks on an axis, and whether it was an index array."""
    if index is Ellipsis or isinstance(index, slice):
        return np.arange(size)[index], False
    index = np.asarray(index)
    if index.size == 0 and index.dtype.kind == "f":  # NumPy's idea of []
        index = index.astype(int)
    if index.dtype.kind not in "iu" and not (index.dtype.kind == "b" and index.ndim):
        raise IndexError(
            f"only whole numbers, slices, masks and index arrays pick from a stored "
            f"matrix, got {index.dtype}."
        )
    positions = np.asarray(np.arange(size)[index])
    return positions, positions.ndim > 0


def _within(positions, tile, side):
    """Which of the sorted positions a tile holds, and where in the tile they are."""
    start, stop = np.searchsorted(positions, [tile * side, (tile + 1) * side])
    return slice(start, stop), _run(positions[start:stop] - tile * side)


def _run(positions):
    """The positions as a slice where they are a run: a copy instead of a gather."""
    if positions.size and (np.diff(positions) == 1).all():
        return slice(positions[0], positions[-1] + 1)
    return positions
