"""Convolutional kernels as depth grows: what the report measures of them, on images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.analysis.spectrum import spectrum
from ntk_resnet.data.datasets import Data
from ntk_resnet.kernels.depths import sweep_depth
from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.convolutional import ConvNet, ConvResNet
from ntk_resnet.specification.scales import DepthScale
from ntk_resnet.studies import depth_measurements as measures

FAMILIES: dict[str, Specification] = {
    "plain": ConvNet(depth=1, trained="blocks"),
    "plain, circular": ConvNet(depth=1, trained="blocks", padding="circular"),
    "γ = 1": ConvResNet(depth=1, branch_scale=DepthScale(1.0)),
    "γ = 1/2": ConvResNet(depth=1, branch_scale=DepthScale(0.5)),
    "α = 1": ConvResNet(depth=1, branch_scale=1.0),
}
"""The networks compared, with zero padding where nothing else is said.

The blocks alone are trained in all of them.
"""

READOUTS = ("flatten", "pool")


def convolutional_kernels(
    data: Data,
    *,
    depths: Sequence[int],
    rows: int,
    splits: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""Degeneracy and regression with kernels between images, against depth.

    Both are of the same matrices, on at most `rows` images; two thirds of these, drawn
    again and again, train the regressions, and the others test them.

    Returns:
        Over (readout, family, depth): of the normalised NTK between different images
        `ntk_mean` and `ntk_spread` (standard deviation); of the normalised NNGP
        `nngp_gap`, the median of 1 - value; `condition_number` and `effective_rank` of
        the NTK matrix; and what `regression_on_data` returns. Over `readout`:
        `circular_limit`, to which the NTK of plain ReLU networks tends where the image
        goes round: 1/4, or pooled :math:`1 / (1 + 3/P)` with `P` pixels, since of an
        image's own pairs of pixels only those of a pixel with itself keep their NTK,
        and all others fall to a quarter of it.
    """
    chosen = measures.some_rows(data, rows)
    train = round(2 * len(chosen) / 3)
    pieces = len(READOUTS) * len(FAMILIES)
    found: list[xr.Dataset] = []
    for readout in READOUTS:
        for name, spec in FAMILIES.items():
            report = part_of(progress, len(found), 1, pieces, f"{readout}, {name}, ")
            family = spec.replace(readout=readout)
            swept = sweep_depth(family, depths, x=chosen.x, progress=report)
            fitted = measures.fit_splits(swept.ntk.values, chosen, train, splits)
            found.append(_described(swept).merge(_errors(swept.depth, fitted)))
    count = len(FAMILIES)
    stacked = [
        measures.stack(found[k : k + count], FAMILIES) for k in range(0, pieces, count)
    ]
    result = xr.concat(stacked, dim="readout", join="exact").assign_coords(
        readout=list(READOUTS)
    )
    pixels = int(np.prod(chosen.x.shape[1:3]))
    result["circular_limit"] = ("readout", [1 / 4, 1 / (1 + 3 / pixels)])
    result = measures.with_intervals(result, measures.MEASURES, "split")
    return result.assign_attrs(
        data=data.name,
        rows=len(chosen),
        train=train,
        test=len(chosen) - train,
        ridge=measures.RIDGE,
        classes=0 if data.classes is None else len(data.classes),
        size=" x ".join(map(str, chosen.x.shape[1:3])),
    )


def _described(swept: xr.Dataset) -> xr.Dataset:
    """How close the kernels of a sweep are to a constant, over `depth`."""
    upper = np.triu_indices(swept.sizes["row"], 1)
    off = swept.ntk.values[:, *upper]
    spectra = [spectrum(matrix) for matrix in swept.ntk.values]
    values: dict[str, Any] = {
        "ntk_mean": off.mean(axis=1),
        "ntk_spread": off.std(axis=1),
        "nngp_gap": np.median(swept.nngp_gap.values[:, *upper], axis=1),
        "condition_number": [float(one.condition_number) for one in spectra],
        "effective_rank": [float(one.effective_rank) for one in spectra],
    }
    over = {name: ("depth", value) for name, value in values.items()}
    return xr.Dataset(over, coords={"depth": swept.depth.values})


def _errors(depth: xr.DataArray, fitted: Any) -> xr.Dataset:
    """What `fit_splits` gave, by name, over (depth, split)."""
    values = np.array(fitted)
    over = {
        name: (("depth", "split"), values[..., k])
        for k, name in enumerate(measures.MEASURES)
    }
    splits = np.arange(values.shape[1])
    return xr.Dataset(over, coords={"depth": depth.values, "split": splits})
