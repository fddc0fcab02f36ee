"""Finite convolutional networks beside the closed forms."""

from typing import Any

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.data.datasets import Data
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.images.rates import small_images
from ntk_resnet.studies.ledger import Claim, of_error
from ntk_resnet.studies.study import Figure, Measurement

_HALF = nr.ConvResNet(depth=3, branch_scale=nr.DepthScale(0.5))
NETWORKS: dict[str, Any] = {
    "γ = 1/2": _HALF,
    "plain": nr.ConvNet(depth=3, trained="blocks"),
    "γ = 1/2, flattened": _HALF.replace(readout="flatten"),
    "γ = 1/2, post-activation": _HALF.replace(block="postactivation"),
}
"""Pooled unless they say so; the blocks alone are trained in all of them."""

KERNELS = ("nngp", "ntk")


def agreement(
    data: Data,
    *,
    networks: list[str],
    seeds: int,
    width: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Mean empirical kernels less the closed forms, on three images of 4 x 4 pixels.

    Over (`network`, `kernel`), relative to the closed form: `shift`, the part of the
    difference along it, and its standard error `sem`.
    """
    x = small_images(data, 3)
    shift, sem = [], []
    for done, name in enumerate(networks):
        report = part_of(progress, done, 1, len(networks), f"{name}, ")
        found = nr.finite.width_study(
            NETWORKS[name], x, [width], seeds, seed=done, progress=report
        )
        shift.append([float(found[f"{kernel}_shift"][0]) for kernel in KERNELS])
        sem.append([float(found[f"{kernel}_shift_sem"][0]) for kernel in KERNELS])
    over = ("network", "kernel")
    return xr.Dataset(
        {"shift": (over, np.array(shift)), "sem": (over, np.array(sem))},
        coords={"network": networks, "kernel": list(KERNELS)},
        attrs={"data": data.name, "width": width, "seeds": seeds},
    )


def _shift(found):
    count = found.attrs["seeds"]
    return of_error(found["shift"], found["sem"], count, f"over {count} networks")


CLAIMS = [
    Claim(
        name="1h-images",
        statement="mean kernels of {seeds} finite convolutional networks of {width} "
        "channels less the closed forms, relative, along the closed forms",
        source="law of large numbers over channels",
        known="derived",
        of="agreement",
        measure=_shift,
        predicted=0.0,
        tolerance=lambda found: 5 / found.attrs["width"],
        reason="a bias of order 1/width, of three layers with variance about 5/width",
        figure="agreement",
    )
]


def draw(found: xr.Dataset) -> Any:
    """The relative difference by network, with 95 % intervals."""
    with drawing.style():
        ax, names = drawing.one_axes(None), [str(name) for name in found.network.values]
        for place, (name, look) in enumerate(looks(names).items()):
            for kernel, side in (("nngp", -0.1), ("ntk", 0.1)):
                one = found.sel(network=name, kernel=kernel)
                own = look | {"linestyle": ""}
                own |= {"markerfacecolor": drawing.PAPER} if kernel == "nngp" else {}
                label = kernel.upper() if place == 0 else ""
                ax.errorbar(
                    [place + side],
                    one["shift"],
                    2 * one.sem,
                    **own,
                    capsize=2,
                    label=label,
                )
        ax.axhline(0, **drawing.THEORY, label="theory, closed form")
        ax.set_xlim(-0.6, len(names) - 0.4)
        ax.set_xticks(range(len(names)), names)
        ax.set_xlabel("network")
        ax.set_ylabel("(mean − closed form) / closed form")
        drawing.legend(ax)
    return ax


FIGURE = Figure(
    of="agreement",
    draw=draw,
    title="Mean kernels of finite convolutional networks, less the closed form",
    caption="{seeds} random networks of depth 3 and {width} channels on three images "
    "of {data}, averaged down to 4 x 4 pixels; bars are 95 % intervals.",
)

MEASUREMENT = Measurement(
    measure=agreement,
    full={"networks": list(NETWORKS), "seeds": 256, "width": 128},
    quick={"networks": ["γ = 1/2"], "seeds": 128},
    data="images",
)
