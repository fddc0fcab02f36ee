"""How long computations tell how far they are."""

from collections.abc import Callable
from typing import Any

Progress = Callable[[int, int, str], Any]
"""Called as `progress(done, total, text)`."""
