"""Results worth keeping between runs, in a folder that may be removed at any time."""

import contextlib
import os
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import xarray as xr

from ntk_resnet.records import results as records
from ntk_resnet.records.code import recipe
from ntk_resnet.records.content import digest
from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.json import to_json

WORTH_KEEPING = 1.0  # seconds


def cache_folder() -> pathlib.Path | None:
    """Where they lie; `None` if none are to be kept.

    `$NTK_RESNET_CACHE`, where it is set (nothing: no cache), else `ntk_resnet` in
    `$XDG_CACHE_HOME` or `~/.cache`.
    """
    named = os.environ.get("NTK_RESNET_CACHE")
    if named is not None:
        return pathlib.Path(named) if named else None
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home, "ntk_resnet")


def cached(
    kind: str, folder: str, about: dict[str, Any], compute: Callable[[], xr.Dataset]
) -> xr.Dataset:
    """The result of that kind that was kept, else a new one, kept if it took a second.

    Args:
        kind: what to call it.
        folder: of the package, where the code that computes it is.
        about: all that decides it besides the code: numbers, text and specifications.
            With an activation of the user's own, which has no name, nothing is kept.
        compute: makes it.
    """
    path = _path(kind, folder, about)
    if path is not None:
        try:
            return records.load(path)
        except (OSError, ValueError):  # none, or damaged: it is computed again
            shutil.rmtree(path, ignore_errors=True)  # what is no store is not replaced
    start = time.perf_counter()
    result = compute()
    if path is not None and time.perf_counter() - start > WORTH_KEEPING:
        with contextlib.suppress(OSError, ValueError):  # it need not be writable
            records.save(result, path)
    return result


def _path(kind, folder, about):
    home = cache_folder()
    if home is None:
        return None
    try:
        plain = {
            key: to_json(value) if isinstance(value, Specification) else value
            for key, value in about.items()
        }
    except ValueError:  # an activation of the user's own has no name
        return None
    return home / f"{kind}-{digest(recipe(plain, folder))[:32]}.zarr"
