"""Files that are there whole or not at all, and what their content is known by."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def digest(*parts: Any) -> str:
    """SHA-256, in hexadecimal, of parts in their order.

    Arrays of NumPy's go by dtype, shape and values, bytes as they are, all else as
    JSON.
    """
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            values = part.astype(part.dtype.newbyteorder("<"), copy=False)
            data = f"{values.dtype} {values.shape} ".encode() + values.tobytes()
        else:
            data = part if isinstance(part, bytes) else json.dumps(part).encode()
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()


@contextlib.contextmanager
def written_whole(
    path: str | os.PathLike,
    doing: str,
    move: Callable[[pathlib.Path, pathlib.Path], None] | None = None,
) -> Iterator[pathlib.Path]:
    """A place beside `path` to write to, which is moved to `path` in the end.

    So `path` never holds half of anything; folders above it are made.

    Args:
        path: of a file or a folder.
        doing: what is done, for the text of the error: "write".
        move: moves the first to the second; by default what is there is replaced.

    Raises:
        OSError: the place is not writable or the disk is full; the text says where.
    """
    place = pathlib.Path(path).absolute()
    partial = place.with_name(f".{place.name}.{uuid.uuid4().hex}.partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        (move or _replace)(partial, place)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"cannot {doing} {str(path)!r}: {reason}.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _replace(new, path):
    """A folder cannot be renamed onto one that has files."""
    old = path.with_name(f".{path.name}.old-{os.getpid()}")
    if new.is_dir() and path.is_dir():
        os.rename(path, old)
    os.replace(new, path)
    shutil.rmtree(old, ignore_errors=True)


def write_file(path: str | os.PathLike, content: str | bytes) -> pathlib.Path:
    """Writes a file (text in UTF-8), all of it or nothing.

    Raises:
        OSError: the place is not writable; the text says where.
    """
    with written_whole(path, "write") as partial:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode())
    return pathlib.Path(path)
