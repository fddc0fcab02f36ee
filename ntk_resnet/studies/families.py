"""The networks that studies compare, and results that are over them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet.data.datasets import Data, split

FAMILIES: dict[str, Any] = {
    "plain": nr.FeedForward(depth=1, trained="blocks"),
    "γ = 1": nr.ResNet(depth=1, branch_scale=nr.DepthScale(1.0)),
    "γ = 1/2": nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5)),
    "γ = 1/4": nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.25)),
    "α = 1": nr.ResNet(depth=1, branch_scale=1.0),
}
"""Plain, and residual with branches scaled by `L^-γ` or `α`.

In all of them the blocks alone are trained, and the readout is frozen, as in Huang et
al. 2020.
"""


def specs_as_data(families: Mapping[str, Any]) -> dict[str, Any]:
    """Specifications as plain data, by name."""
    return {name: json.loads(nr.to_json(spec)) for name, spec in families.items()}


def stack(datasets: Iterable[xr.Dataset], families: Iterable[str]) -> xr.Dataset:
    """One Dataset over `family` from one for each family."""
    family = xr.Variable("family", list(families))
    return xr.concat(
        [dataset.drop_attrs(deep=False) for dataset in datasets],
        dim="family",
        join="exact",
    ).assign_coords(family=family)


def some_rows(data: Data, most: int) -> Data:
    """At most that many rows, drawn with a fixed seed, classes in proportion."""
    if len(data) <= most:
        return data
    rows, _ = split(data, train=most, test=1, seed=0)
    return data.take(np.sort(rows))


def smooth(x: np.ndarray) -> np.ndarray:
    """A smooth target on the sphere: `x1 + 2.5 x2 x3`."""
    return x[:, 0] + 2.5 * x[:, 1] * x[:, 2]
