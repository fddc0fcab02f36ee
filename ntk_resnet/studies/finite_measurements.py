"""Finite networks beside their kernels: the measurements behind the report's last part.

What `finite` studies, at the sizes and on the data of the report.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from ntk_resnet import finite
from ntk_resnet.architectures import Architecture, DepthScale, FeedForward, ResNet
from ntk_resnet.data import Data, split, targets
from ntk_resnet.finite.dispersion import dispersion_of_families
from ntk_resnet.kernels import kernel_fn
from ntk_resnet.studies.depth_measurements import Progress, some_rows

WIDTH_SPEC = ResNet(depth=3, branch_scale=DepthScale(0.5))


def agreement_with_width(
    data: Data,
    *,
    widths: Sequence[int],
    seeds: int,
    spec: Architecture = WIDTH_SPEC,
    progress: Progress = None,
) -> xr.Dataset:
    """Empirical against closed-form kernels on 12 rows (`finite.width_study`)."""
    x = some_rows(data, 12).x
    return finite.width_study(spec, x, widths, seeds, seed=0, progress=progress)


def training(
    data: Data, *, widths: Sequence[int], seeds: int, progress: Progress = None
) -> xr.Dataset:
    """Training against the kernel's prediction (`finite.train_study`)."""
    train, test = split(data, train=min(16, len(data) // 2), seed=1)
    x, test = data.x[train], test[:16]
    y = targets(data)[:, :1]
    y = y / np.abs(y).max()
    kernel = np.asarray(kernel_fn(WIDTH_SPEC, normalised=False)(x))
    constant = len(x) / np.linalg.eigvalsh(kernel)[-1]  # of the fastest mode
    return finite.train_study(
        WIDTH_SPEC,
        x,
        y[train],
        widths,
        seeds,
        x_test=data.x[test],
        times=constant * np.geomspace(0.1, 30, 10),
        seed=0,
        progress=progress,
    )


def dispersion(
    *, depths: Sequence[int], networks: int, progress: Progress = None
) -> xr.Dataset:
    """Dispersion of the NTK over depth, plain and residual, at width 32."""
    families = {
        "plain": FeedForward(depth=1),
        "γ = 1/2": ResNet(depth=1, branch_scale=DepthScale(0.5)),
        "γ = 1": ResNet(depth=1, branch_scale=DepthScale(1.0)),
    }
    return dispersion_of_families(families, depths, 32, networks, progress=progress)
