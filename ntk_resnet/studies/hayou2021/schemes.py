"""The schemes by which branches are scaled."""

import numpy as np

import ntk_resnet as nr

SCHEMES = {
    "α = 1": nr.ConstantScale(1.0),
    "γ = 1/4": nr.DepthScale(0.25),
    "γ = 1/2": nr.DepthScale(0.5),
    "γ = 1": nr.DepthScale(1.0),
    "decreasing": nr.DecreasingScale(),
}


def squares_of(scheme: str, depth: int) -> np.ndarray:
    """The squares of the scales, a block each."""
    return SCHEMES[scheme].values(depth) ** 2
