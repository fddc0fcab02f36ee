"""Data in files of the user's: NumPy archives and CSV; and the bundled set."""

import csv
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from ntk_resnet.data.images import ARCHIVES


def read(source: Any) -> tuple[Any, Any, str]:
    """Inputs, targets and a name, from a bundled set or a file, as they are there.

    Raises:
        ValueError: the source is unknown, missing or unreadable; one line says why.
    """
    if isinstance(source, str) and source in NAMED:
        return (*NAMED[source](), source)
    if not isinstance(source, str | pathlib.Path):
        raise ValueError(f"data must be a name or a path, got {source!r}.")
    path = pathlib.Path(source)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(map(repr, [*NAMED, *ARCHIVES]))
        raise ValueError(
            f"data {str(source)!r} is neither a known name ({known}) nor the path of a "
            ".npz or .csv file; pass one of these."
        )
    if not path.is_file():
        raise ValueError(f"data file {str(path)!r} does not exist; check the path.")
    try:
        return (*reader(path), path.stem)
    except (OSError, UnicodeDecodeError, zipfile.BadZipFile, csv.Error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"data file {str(path)!r} cannot be read: {reason}.") from None


def _read_digits():
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def _read_npz(path):
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, EOFError, AttributeError):
        raise ValueError(
            f"data file {str(path)!r} is not a NumPy archive of plain arrays; write it "
            "with np.savez(path, x=x, y=y)."
        ) from None
    for key in ("x", "y"):
        if key not in arrays:
            held = ", ".join(map(repr, arrays)) or "nothing"
            raise ValueError(
                f"data file {str(path)!r} has no array {key!r}, it holds {held}; write "
                "it with np.savez(path, x=x, y=y)."
            )
    return arrays["x"], arrays["y"]


def _read_csv(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    if not rows:
        raise ValueError(f"data file {str(path)!r} is empty; it needs rows of numbers.")
    width = len(rows[0])
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise ValueError(
                f"data file {str(path)!r} has {len(row)} cells in row {number} and "
                f"{width} in row 1; every row must have as many."
            )
    header = rows[0] if _is_header(rows) else None
    rows = rows[1:] if header else rows
    if width < 2 or not rows:
        raise ValueError(
            f"data file {str(path)!r} has {len(rows)} rows of {width} columns; it "
            "needs at least one feature column, a target column and rows below any "
            "header."
        )
    target = header.index("y") if header and "y" in header else width - 1
    features = [[c for k, c in enumerate(row) if k != target] for row in rows]
    for number, row in enumerate(features, 2 if header else 1):
        for cell in row:
            if _number(cell) is None:
                raise ValueError(
                    f"data file {str(path)!r} has {cell!r} in row {number}, which is "
                    "not a number; encode text features as numbers first."
                )
    labels = [row[target] for row in rows]
    if any(not label for label in labels):
        number = labels.index("") + (2 if header else 1)
        raise ValueError(
            f"data file {str(path)!r} has no target in row {number}; fill it or drop "
            "the row."
        )
    values = [_number(label) for label in labels]
    return np.array(features, float), np.array(labels if None in values else values)


def _is_header(rows) -> bool:
    """Whether row 1 names the columns: text above a number, or names such as y."""
    first = [_number(cell) is None for cell in rows[0]]
    if len(rows) == 1:
        return all(first)
    below = [_number(cell) is None for cell in rows[1]]
    return any(a and not b for a, b in zip(first, below, strict=True))


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


NAMED: dict[str, Callable] = {"digits": _read_digits}
_READERS: dict[str, Callable] = {".npz": _read_npz, ".csv": _read_csv}
