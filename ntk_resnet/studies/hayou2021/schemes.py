"""The schemes by which branches are scaled, and how exact numbers are."""

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet.studies.ledger import Measured, exact

EPS = np.finfo(float).eps

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


def rounded(
    values: xr.DataArray, error: xr.DataArray | float, each: str = ""
) -> Measured:
    """Numbers of a computation without chance, with a bound of their rounding.

    Args:
        values: the numbers.
        error: the bound.
        each: the inputs of which they are one each, for the words.
    """
    values, error = xr.broadcast(values, xr.DataArray(error))
    error = error.transpose(*values.dims)
    return exact(values, error.values, "bound of the rounding" + each)
