"""Random points on spheres."""

import numpy as np


def on_sphere(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """Independent points spread evenly over the unit sphere in `R^dim`, `(row, dim)`.

    Args:
        rng: draws them.
        rows, dim: how many, and of how many coordinates.
    """
    x = rng.normal(size=(rows, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True)
