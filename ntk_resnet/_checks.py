"""Checks of what a user passes in: one clear line that says what to do instead."""

import numbers
import os
import pathlib
import sys
import tempfile
from typing import Any


def check_count(name: str, value: Any, *, least: int = 1) -> int:
    """`value` as an int, if it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(
            f"{name} must be a whole number, got {value!r}; pass an int >= {least}."
        )
    if value < least:
        raise ValueError(
            f"{name} must be at least {least}, got {value}; pass an int >= {least}."
        )
    return int(value)


def check_width(name: str, value: Any) -> int:
    """A width whose square weight matrix, in float32, is at most 16 GiB."""
    if check_count(name, value) > 2**16:
        raise ValueError(
            f"{name} must be at most {2**16}, got {value}: one weight matrix would be "
            f"{value**2 / 2**28:.3g} GiB."
        )
    return int(value)


def check_number(name: str, value: Any, *, positive: bool = False) -> float:
    """`value` as a float, if it is finite and not negative (or zero, if `positive`)."""
    bound = "> 0" if positive else ">= 0"
    good = isinstance(value, numbers.Real) and not isinstance(value, bool)
    good = good and abs(value) <= sys.float_info.max  # also of int; False for NaN
    if not (good and (value > 0 if positive else value >= 0)):
        raise ValueError(
            f"{name} must be a finite number {bound}, got {value!r}; "
            f"pass a float {bound}."
        )
    return float(value)


def check_confidence(value: Any) -> float:
    """`confidence` as a float, if it is above 0 and below 1."""
    confidence = check_number("confidence", value, positive=True)
    if confidence >= 1:
        raise ValueError(f"confidence must be below 1, got {confidence:g}.")
    return confidence


def check_choice(name: str, value: Any, choices) -> Any:
    """`value`, if it is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {known}; got {value!r}.")
    return value


def check_writable(folder: str | os.PathLike) -> pathlib.Path:
    """Makes the folder if need be, and writes and removes a file in it.

    Raises:
        OSError: that failed; the text says where.
    """
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            f"cannot write to the folder {str(folder)!r}: {reason}; choose another."
        ) from None
