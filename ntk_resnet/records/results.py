"""Results on disk: what was run, saved so that a broken file cannot pass for a result.

A result is an `xarray.Dataset`; on disk it is a zarr (format 3) store with the SHA-256
of its content in its attributes, which every load checks.
"""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from ntk_resnet._checks import check_writable as check_writable
from ntk_resnet.records.code import recipe
from ntk_resnet.records.content import digest, write_file, written_whole
from ntk_resnet.records.provenance import as_attribute, provenance

_DIGEST = "content_sha256"


def save(
    dataset: xr.Dataset, path: str | os.PathLike, *, csv: bool = False
) -> pathlib.Path:
    """Writes a result as a zarr store, all of it or nothing.

    The store is written beside `path` and renamed, so `path` never holds half a result;
    a store that is there already is replaced, anything else there is left alone.

    Args:
        dataset: variables and coordinates of numbers, booleans or text; attributes of
            numbers or text.
        path: where; a folder of that name is made, with the folders above it.
        csv: also write the numbers as CSV beside it (`to_csv`).

    Returns:
        The path.

    Raises:
        ValueError: the dataset holds something else (dates, objects, ...), or `path` is
            taken by something that is not a zarr store.
        OSError: the place is not writable or the disk is full; the text says where.
    """
    path = pathlib.Path(path)
    stored = _storable(dataset)
    stored.attrs[_DIGEST] = content_digest(stored)
    check_replaceable(path)
    if csv:  # before the store, whose being there says that all is
        to_csv(dataset, path.with_suffix(".csv"))
    with written_whole(path, "write the result") as partial:
        stored.to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
    return path


def load(path: str | os.PathLike) -> xr.Dataset:
    """Reads a result that `save` wrote, completely, and checks it.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: what is there is damaged, incomplete or not such a result.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no result at {str(path)!r}.")
    advice = "delete it and compute it again"
    try:
        dataset = xr.open_zarr(path, consolidated=False, chunks=None).load()
    except Exception as error:  # zarr, codecs, JSON: whatever a broken byte can cause
        raise ValueError(
            f"the result {str(path)!r} cannot be read ({type(error).__name__}); "
            f"{advice}."
        ) from None
    dataset = _with_text_as(str, dataset)
    for variable in dataset.variables.values():
        variable.encoding.clear()
    expected = dataset.attrs.pop(_DIGEST, None)
    if expected is None:
        raise ValueError(f"{str(path)!r} is not a result of ntk_resnet (no checksum).")
    if content_digest(dataset) != expected:
        raise ValueError(f"the result {str(path)!r} fails its checksum; {advice}.")
    return dataset


def check_replaceable(path: pathlib.Path) -> None:
    """Raises a `ValueError` where something other than a store is at `path`."""
    if path.exists() and not (path / "zarr.json").is_file():
        raise ValueError(
            f"path {str(path)!r} exists and is not a zarr store; remove it or "
            "choose another place."
        )


def resume(
    path: str | os.PathLike,
    config: dict[str, Any],
    compute: Callable[[], xr.Dataset],
) -> xr.Dataset:
    """The result at `path` if it is the one wanted, else a new one, saved with CSV.

    It is the one wanted if it is intact and was made with an equal `config` by the same
    version of the package's code that computes, of JAX and of neural-tangents.

    Args:
        path: the zarr store.
        config: what decides the result, as plain data (JSON).
        compute: makes the Dataset; provenance, `config` and the `seconds` it took are
            added to its attributes.
    """
    wanted = recipe(config)
    if (found := load_made_by(wanted, path)) is not None:
        return found
    check_replaceable(pathlib.Path(path))  # before the work, not after it
    save(made_by(wanted, compute), path, csv=True)
    return load(path)


def load_made_by(wanted: str, path: str | os.PathLike) -> xr.Dataset | None:
    """The result at `path`, if there is one, intact and of that recipe."""
    with contextlib.suppress(OSError, ValueError):
        found = load(path)
        if found.attrs.get("config") == wanted:
            return found
    return None


def made_by(wanted: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
    """A new result with its provenance, its recipe and the seconds that it took."""
    start = time.perf_counter()
    dataset = compute()
    seconds = round(time.perf_counter() - start, 1)
    about = {"config": wanted, "seconds": seconds}
    dataset.attrs = {**provenance(**dataset.attrs), **about}
    return dataset


def content_digest(dataset: xr.Dataset) -> str:
    """SHA-256 of names, dimensions, dtypes, values and attributes, in hexadecimal.

    Does not depend on the order of the variables, on chunks or on compression.
    """

    def attributes(owner):
        return {k: v for k, v in sorted(owner.attrs.items()) if k != _DIGEST}

    parts: list[Any] = [attributes(dataset)]
    for name in sorted(map(str, dataset.variables)):
        variable = dataset.variables[name]
        values = np.asarray(variable.values)
        if values.dtype.kind in "UOT":
            kind, data = "text", json.dumps(values.tolist()).encode()
        else:
            values = np.ascontiguousarray(values)
            if values.dtype.kind == "f":  # there are many NaNs; a store keeps only one
                values = np.where(np.isnan(values), values.dtype.type(np.nan), values)
            kind, data = values.dtype.newbyteorder("<").str, values.tobytes()
        about = list(variable.dims), list(values.shape), kind, attributes(variable)
        parts += [name, *about, data]
    return digest(*parts)


def _storable(dataset: xr.Dataset) -> xr.Dataset:
    """A copy in the types that zarr's format 3 specifies: text of variable length."""
    for name, variable in dataset.variables.items():
        kind = variable.dtype.kind
        text = kind == "O" and all(isinstance(v, str) for v in variable.values.flat)
        if kind not in "biufcUT" and not text:
            raise ValueError(
                f"variable {name!r} of the result holds {variable.dtype}; only "
                "numbers, booleans and text can be saved."
            )
    dataset = _with_text_as(object, dataset)
    owners: list[Any] = [dataset, *dataset.variables.values()]
    for owner in owners:
        owner.attrs = {key: as_attribute(value) for key, value in owner.attrs.items()}
    return dataset


def _with_text_as(dtype, dataset: xr.Dataset) -> xr.Dataset:
    """A copy of the dataset with its text in another dtype."""
    dataset = dataset.copy()
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "UTO":
            # Not astype: NumPy cannot cast its StringDType to text of fixed width.
            text = np.array(variable.values.tolist(), dtype).reshape(variable.shape)
            change = dataset.assign_coords if name in dataset.coords else dataset.assign
            dataset = change({name: xr.Variable(variable.dims, text, variable.attrs)})
    return dataset


# ---------------------------------------------------------------------------------- CSV


def to_csv(dataset: xr.Dataset, path: str | os.PathLike) -> list[pathlib.Path]:
    """Writes the numbers of a result as plain tables, one row a point.

    Variables over the same dimensions share a table: `name.csv` for those over the most
    dimensions, `name.a_b.csv` for those over `a` and `b`, `name.scalars.csv`. Numbers
    are written so that reading gives the same float back.

    Returns:
        The files, `path` first.

    Raises:
        OSError: the place is not writable; the text says where.
    """
    path = pathlib.Path(path)
    groups: dict[tuple, list] = {}
    for name, variable in dataset.data_vars.items():
        groups.setdefault(variable.dims, []).append(name)
    written: list[pathlib.Path] = []
    for dims in sorted(groups, key=len, reverse=True):
        table = dataset[groups[dims]]
        suffix = f".{'_'.join(dims) or 'scalars'}.csv" if written else ".csv"
        target = path.with_suffix(suffix)
        if dims:
            text = table.to_dataframe(dim_order=list(dims)).to_csv(lineterminator="\n")
        else:
            pairs = ((name, table[name].values.item()) for name in groups[dims])
            text = "name,value\n" + "".join(
                f"{name},{value!r}\n" for name, value in pairs
            )
        write_file(target, text)
        written.append(target)
    return written
