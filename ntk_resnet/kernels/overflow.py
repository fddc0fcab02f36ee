"""Whether raw kernels are within the range of their dtype.

Normalised kernels always are. A raw one has the scale of its pair, the root of both
inputs' own kernels: above the range entries are infinite, below it zero.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def all_finite(values: Any) -> bool:
    """Whether all entries are finite numbers."""
    # A sum is cheaper than a test of each; it can overflow where no entry does.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())


def check_raw(
    name: str, values: np.ndarray, logs: Callable[[], tuple[Any, ...]]
) -> None:
    """Raises if raw entries have become infinite, or are lost below the range.

    Zeros may be right, as between opposites, so the scale of the pair decides.

    Args:
        name: of the kernel, for the message.
        values: its entries `(n1, n2)`.
        logs: gives ln of the own kernels of rows and columns, see `check_scale`; called
            only where an entry is small.

    Raises:
        ValueError: as said.
    """
    if np.isinf(values).any():
        raise ValueError(beyond(name, values.dtype))
    if np.abs(values).min(initial=1) < _least(values.dtype):
        check_scale(name, values.dtype, *logs())


def check_scale(name: str, dtype: Any, rows: Any, columns: Any = None) -> None:
    """Raises if a pair's scale is so small that its entry loses digits.

    Args:
        name: of the kernel, for the message.
        dtype: of the entries.
        rows, columns: ln of the raw kernel of each input with itself, `(n1,)` and
            `(n2,)`; `None` means `rows`. -inf where the kernel is zero, and right so:
            nothing is trained.

    Raises:
        ValueError: a scale is below the smallest normal number over eps, where not all
            entries of that relative size are normal numbers.
    """
    least = 0.0
    for logs in (rows, rows if columns is None else columns):
        logs = np.asarray(logs, np.float64)
        least += logs[np.isfinite(logs)].min(initial=np.inf) / 2
    if least < np.log(float(_least(dtype))):
        raise ValueError(beyond(name, dtype))


def beyond(name: str, dtype: Any) -> str:
    """What is said of such a kernel."""
    return (
        f"the raw {name} is beyond the range of {np.dtype(dtype)}; ask for "
        "normalised=True, or take nr.diag(..., log=True)."
    )


def _least(dtype):
    info = np.finfo(dtype)
    return info.tiny / info.eps
