"""A Gram matrix on disk, tile by tile: a run may stop anywhere, and another goes on.

On disk it is a zarr (format 3) array whose chunks are the tiles. Each tile is written
beside its place and renamed, so it is there or it is not, and ends with its CRC-32C.
The attributes say what the matrix is of (`identity`) and where it was computed
(`provenance`), and carry the SHA-256 of all the metadata. Of a symmetric matrix only
the tiles on and above the diagonal are there; other readers of zarr see NaN below it.
"""

import contextlib
import dataclasses
import glob
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterable
from typing import Any

import numpy as np
import zarr
import zarr.codecs
from jaxtyping import Array, Float

from ntk_resnet.kernels.gram.origin import differences
from ntk_resnet.kernels.gram.tiling import Tiling
from ntk_resnet.records.content import written_whole
from ntk_resnet.records.provenance import provenance

FORMAT = 1  # of the store; a change that older code would misread raises it
_FORMAT, _DIGEST = "ntk_resnet_gram", "metadata_sha256"


# ------------------------------------------------------------------------------ writing


def open_store(
    path: str | os.PathLike,
    tiling: Tiling,
    dtype: str | type | np.dtype,
    identity: dict[str, str | int | float],
) -> "TileStore":
    """The store at `path`, made if there is none: all of it or nothing.

    Several processes may open the same one at once.

    Args:
        path: a folder of that name is made, with the folders above it.
        tiling: size of the matrix and of its tiles.
        dtype: of the entries.
        identity: what decides their values (`identity_of`); numbers and text.

    Raises:
        ValueError: the store there is of another matrix (each difference is named), has
            lost the description of the tiles it holds, or is not such a store at all.
        OSError: the place is not writable or the disk is full; the text says where.
    """
    path = pathlib.Path(path)
    wanted = {**identity, **_layout(tiling, dtype)}
    try:
        attrs = read_attributes(path)
    except FileNotFoundError:
        _create(path, tiling, dtype, wanted)
        attrs = read_attributes(path)  # ours, or that of a process which was faster
    if others := list(differences(attrs["identity"], wanted)):
        raise ValueError(
            f"the store {str(path)!r} holds another matrix: {'; '.join(others)}; "
            "choose another path, or delete the store."
        )
    return TileStore(path, attrs, mode="r+")


def _layout(tiling, dtype) -> dict[str, str | int | float]:
    """The part of the identity that says how the matrix is stored."""
    layout = dataclasses.asdict(tiling)
    return {"dtype": np.dtype(dtype).name, **layout, "format": FORMAT}


def _create(path, tiling, dtype, identity) -> None:
    """Makes an empty store beside `path` and renames it."""
    with written_whole(path, "make the store", _move) as staging:
        array = zarr.create_array(
            staging,
            shape=(tiling.rows, tiling.columns),
            chunks=(min(tiling.tile, tiling.rows), min(tiling.tile, tiling.columns)),
            dtype=np.dtype(dtype),
            fill_value=np.nan,
            filters=None,
            serializer=zarr.codecs.BytesCodec(endian="little"),
            compressors=zarr.codecs.Crc32cCodec(),
            chunk_key_encoding={"name": "default", "separator": "/"},
            attributes={
                _FORMAT: FORMAT,
                "identity": identity,
                "provenance": provenance(),
            },
        )
        metadata = json.loads((staging / "zarr.json").read_text())
        array.update_attributes({_DIGEST: _digest(metadata)})


def _move(staging, path) -> None:
    """Moves a new store to `path`, unless there is one by now."""
    try:
        os.rename(staging, path)  # onto nothing or an empty folder, else it fails
    except OSError:
        if not path.is_dir():
            raise
        try:
            read_attributes(path)
        except FileNotFoundError:  # the broken beginning of a store
            os.replace(staging / "zarr.json", path / "zarr.json")


def _digest(metadata: dict) -> str:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


def read_attributes(path: pathlib.Path) -> dict[str, Any]:
    """What is written about the store at `path`, checked.

    Raises:
        FileNotFoundError: there is none, or only the beginning of one, without tiles.
        ValueError: there is something else, or tiles whose description is damaged.
    """
    taken = ValueError(
        f"path {str(path)!r} exists and is not a Gram matrix of ntk_resnet; remove it "
        "or choose another place."
    )
    if not os.path.lexists(path):
        raise FileNotFoundError(f"there is no stored Gram matrix at {str(path)!r}.")
    if not path.is_dir():
        raise taken
    metadata = None
    with contextlib.suppress(FileNotFoundError, ValueError):  # not UTF-8, not JSON
        metadata = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    if metadata is not None:
        attrs = metadata.get("attributes") if isinstance(metadata, dict) else None
        if not isinstance(attrs, dict) or _FORMAT not in attrs:
            raise taken
        if attrs.pop(_DIGEST, None) == _digest(metadata):
            return attrs
    names = {entry.name for entry in path.iterdir() if entry.suffix != ".partial"}
    if not names <= {"zarr.json", "c"}:
        raise taken
    if any(p.is_file() and p.suffix != ".partial" for p in path.glob("c/*/*")):
        raise ValueError(
            f"the store {str(path)!r} holds tiles, but its zarr.json, which says what "
            "they are of, is missing or damaged; delete the store and compute it again."
        )
    raise FileNotFoundError(f"only the beginning of a store is at {str(path)!r}.")


class TileStore:
    """Reads, checks and writes the tiles of one stored matrix.

    Attributes:
        path: where it is.
        tiling: size of the matrix and of its tiles.
        dtype: of the entries.
        attrs: identity and provenance, in one flat dictionary.
    """

    def __init__(self, path: pathlib.Path, attrs: dict[str, Any], *, mode: str):
        identity = attrs["identity"]
        self.path = path
        self.attrs = {**attrs["provenance"], **identity}
        fields = dataclasses.fields(Tiling)
        self.tiling = Tiling(**{f.name: identity[f.name] for f in fields})
        self.dtype = np.dtype(identity["dtype"])
        # Else a tile of nothing but NaN would be left out, as zarr's fill value. (A
        # `config` given to zarr 3.1's open_array has no effect.)
        array = zarr.open_array(path, mode=mode)
        self._array: Any = array.with_config({"write_empty_chunks": True})

    def missing(
        self, pairs: Iterable[tuple[int, int]] | None = None
    ) -> list[tuple[int, int]]:
        """Those of the tiles (default: all) that are absent or damaged.

        Reads every tile that is there.
        """
        wanted = self.tiling.pairs() if pairs is None else pairs
        return [pair for pair in wanted if not self._is_intact(*pair)]

    def _is_intact(self, i, j) -> bool:
        try:
            self.read(i, j)
        except ValueError:
            return False
        return True

    def read(self, i: int, j: int) -> Float[np.ndarray, "h w"]:
        """Tile (i, j).

        Raises:
            ValueError: it is absent, its length or its checksum is wrong, or the disk
                cannot read it.
        """
        rows, columns = self.tiling.slices(i, j)
        try:
            # Asked first, because for an absent tile zarr returns its fill value.
            if (self.path / "c" / str(i) / str(j)).is_file():
                return self._array[rows, columns]
            fault = "missing"
        except (OSError, ValueError):
            fault = "damaged"
        raise ValueError(
            f"tile ({i}, {j}) of the matrix stored at {str(self.path)!r} (rows "
            f"{rows.start} to {rows.stop - 1}, columns {columns.start} to "
            f"{columns.stop - 1}) is {fault}; run the call that made the store again: "
            "it computes only such tiles."
        )

    def write(
        self,
        i: int,
        j: int,
        values: Float[Array, "h w"] | Float[np.ndarray, "h w"],
    ) -> None:
        """Writes tile (i, j), all of it or nothing; one that is there is replaced.

        Raises:
            ValueError: there is no such tile, or it has another shape or dtype.
            OSError: the disk is full, or something else is wrong with the place.
        """
        where, shape = self.tiling.slices(i, j), self.tiling.shape(i, j)
        values = np.asarray(values)
        if values.shape != shape or values.dtype != self.dtype:
            raise ValueError(
                f"values of tile ({i}, {j}) are {values.dtype} {values.shape}; pass "
                f"{self.dtype} {shape}."
            )
        try:
            self._array[where] = values
        except OSError as error:
            # Another process has finished the same tile and then the whole store.
            if isinstance(error, FileNotFoundError) and self._is_intact(i, j):
                return
            reason = error.strerror or str(error)
            raise OSError(
                f"cannot write tile ({i}, {j}) of the store {str(self.path)!r}: "
                f"{reason}; the finished tiles are kept: put that right and run the "
                "same call again to go on."
            ) from None

    def finish(self) -> None:
        """Removes what killed runs left half-written; for when all tiles are there."""
        path = self.path.absolute()
        beside = f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}.partial"
        for folder in path.parent.glob(beside):
            shutil.rmtree(folder, ignore_errors=True)
        for file in path.rglob("*.partial"):
            file.unlink(missing_ok=True)
