"""How long computations tell how far they are."""

from collections.abc import Callable
from typing import Any

Progress = Callable[[float, float, str], Any]
"""Called as `progress(done, total, text)`; a total of infinity is not known."""


def quiet(done: Any, total: Any, text: str) -> None:
    """The default, which tells nobody."""


def part_of(
    progress: Progress, begin: Any, share: Any, whole: Any, prefix: str = ""
) -> Progress:
    """The progress of a piece of the work: `share` of `whole`, starting at `begin`."""

    def tell(done, total, text):
        return progress(begin + share * done / total, whole, prefix + text)

    return tell
