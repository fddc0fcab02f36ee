"""What the rates of convolutional kernels are read off: small images, large depths."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.data.datasets import Data
from ntk_resnet.kernels.depths import sweep_depth
from ntk_resnet.studies.image_measurements import FAMILIES, READOUTS

BLOCKS = (10, 100, 1000)
"""Depths of the residual networks."""

_PLAIN = {"zero": "plain", "circular": "plain, circular"}
_RESIDUAL = ("γ = 1", "γ = 1/2", "α = 1")
_SIDE = 4


def small_images(data: Data, count: int) -> np.ndarray:
    """The first images of the data, made 4 x 4 pixels by means."""
    n, height, width, channels = data.x[:count].shape
    cut = (n, _SIDE, height // _SIDE, _SIDE, width // _SIDE, channels)
    return data.x[:count].reshape(cut).mean(axis=(2, 4))


def image_rates(
    data: Data, *, longest: int, images: int = 4, progress: Progress = quiet
) -> xr.Dataset:
    r"""Normalised kernels of all pairs of a few images of 4 x 4 pixels.

    Returns:
        Over (`padding`, `readout`, `plain_depth`, `pair`) `plain_ntk` and `plain_gap`,
        of the NNGP, of plain networks up to the depth `longest`, and over (`padding`,
        `readout`) `plain_limit`, to which the NTK should tend. Over (`family`,
        `readout`, `block_depth`, `pair`) `ntk` and `gap` of residual networks with zero
        padding; over (`readout`, `pair`) `block_ntk` and `block_gap`, those of one
        block.

        `block_share` is the branch's share :math:`\lambda^2 / (1 + \lambda^2)` of a
        block with `α = 1`. Zero padding takes signal away: after many convolutions each
        keeps :math:`\lambda` of it, the leading eigenvalue of means over 3 x 3 pixels,
        and a branch has two of them.
    """
    x = small_images(data, images)
    depths = np.unique(np.geomspace(100, longest, 9).round().astype(int)).tolist()
    pieces = len(READOUTS) * (len(_PLAIN) + len(_RESIDUAL))
    plain: list[np.ndarray] = []
    residual: list[np.ndarray] = []
    one: list[np.ndarray] = []
    for readout in READOUTS:
        place = len(plain) + len(residual)
        for name in _PLAIN.values():
            spec = FAMILIES[name].replace(readout=readout)
            report = part_of(progress, place, 1, pieces, f"rates, {readout}, {name}, ")
            plain.append(_pairs(sweep_depth(spec, depths, x=x, progress=report)))
            place += 1
        for name in _RESIDUAL:
            spec = FAMILIES[name].replace(readout=readout)
            report = part_of(progress, place, 1, pieces, f"rates, {readout}, {name}, ")
            residual.append(_residual(spec, BLOCKS, x, report))
            place += 1
        one.append(residual[-1][:, 0])  # of α = 1; the first depth is a single block
    pixels = _SIDE**2
    by_readout = (len(READOUTS), -1)
    return xr.Dataset(
        _named(plain, "plain_ntk", "plain_gap", "padding", "plain_depth")
        | _named([v[:, 1:] for v in residual], "ntk", "gap", "family", "block_depth")
        | {
            "block_ntk": (
                ("readout", "pair"),
                np.reshape([v[0] for v in one], by_readout),
            ),
            "block_gap": (
                ("readout", "pair"),
                np.reshape([v[1] for v in one], by_readout),
            ),
            "plain_limit": (
                ("padding", "readout"),
                [[1 / 4, 1 / 4], [1 / 4, 1 / (1 + 3 / pixels)]],
            ),
            "block_share": _branch_share(),
        },
        coords={
            "padding": list(_PLAIN),
            "family": list(_RESIDUAL),
            "readout": list(READOUTS),
            "plain_depth": depths,
            "block_depth": list(BLOCKS),
        },
        attrs={"data": data.name, "images": len(x), "pixels": pixels},
    )


def _residual(spec, depths: Sequence[int], x, report) -> np.ndarray:
    """`_pairs` at one block and at the depths.

    The network of depth `l` is the first `l` blocks of a deeper one whose scale is a
    constant, that of depth `l`: then one compiled pass serves all scales.
    """
    wanted = [1, *depths]
    scales = [float(spec.branch_scale.values(depth)[0]) for depth in wanted]
    found = []
    for k, (depth, scale) in enumerate(zip(wanted, scales, strict=True)):
        part = part_of(report, k, 1, len(wanted))
        own = spec.replace(branch_scale=scale)
        swept = sweep_depth(own, [depth, depths[-1]], x=x, progress=part)
        found.append(_pairs(swept.sel(depth=[depth])))
    return np.concatenate(found, axis=1)


def _pairs(swept: xr.Dataset) -> np.ndarray:
    """NTK and gap of the NNGP of different images, `(2, depth, pair)`."""
    upper = np.triu_indices(swept.sizes["row"], 1)
    return np.stack([swept[n].values[:, *upper] for n in ("ntk", "nngp_gap")])


def _named(values: list[np.ndarray], ntk: str, gap: str, network: str, depth: str):
    """Both variables over (`network`, readout, depth, pair); readout was outermost."""
    shape = (len(READOUTS), -1, *values[0].shape)
    stacked = np.moveaxis(np.reshape(values, shape), (2, 1), (0, 1))
    over = (network, "readout", depth, "pair")
    return {ntk: (over, stacked[0]), gap: (over, stacked[1])}


def _branch_share() -> float:
    eigenvalue = ((1 + 2 * np.cos(np.pi / (_SIDE + 1))) / 3) ** 2
    return eigenvalue**2 / (1 + eigenvalue**2)
