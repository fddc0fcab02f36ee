"""Finite networks beside their kernels: the measurements behind the report's last part.

What `finite` studies, at the sizes and on the data of the report.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

from ntk_resnet import finite
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.analysis.statistics import standard_error
from ntk_resnet.data.datasets import Data, split, targets
from ntk_resnet.finite.dispersion import dispersion_of_families
from ntk_resnet.finite.empirical.kernel import feature_kernel, ntk_of_rows
from ntk_resnet.finite.ensembles import seed_keys
from ntk_resnet.kernels.function import kernel_fn
from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.convolutional import ConvNet, ConvResNet
from ntk_resnet.specification.networks import FeedForward, ResNet
from ntk_resnet.specification.scales import DepthScale
from ntk_resnet.studies.depth_measurements import some_rows
from ntk_resnet.studies.image_rates import small_images

WIDTH_SPEC = ResNet(depth=3, branch_scale=DepthScale(0.5))

_HALF = ConvResNet(depth=3, branch_scale=DepthScale(0.5))
IMAGE_SPECS: dict[str, Specification] = {
    "γ = 1/2": _HALF,
    "plain": ConvNet(depth=3, trained="blocks"),
    "γ = 1/2, flattened": _HALF.replace(readout="flatten"),
    "γ = 1/2, post-activation": _HALF.replace(block="postactivation"),
}
"""Convolutional networks whose finite ones are drawn, pooled unless they say so.

The blocks alone are trained in all of them.
"""

KERNELS = ("nngp", "ntk")


def agreement_with_width(
    data: Data,
    *,
    widths: Sequence[int],
    seeds: int,
    spec: Specification = WIDTH_SPEC,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Empirical against closed-form kernels on 12 rows (`finite.width_study`)."""
    x = some_rows(data, 12).x
    return finite.width_study(spec, x, widths, seeds, seed=0, progress=progress)


def training(
    data: Data, *, widths: Sequence[int], seeds: int, progress: Progress = quiet
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
    *, depths: Sequence[int], networks: int, progress: Progress = quiet
) -> xr.Dataset:
    """Dispersion of the NTK over depth, plain and residual, at width 32."""
    families = {
        "plain": FeedForward(depth=1, trained="blocks"),
        "γ = 1/2": ResNet(depth=1, branch_scale=DepthScale(0.5)),
        "γ = 1": ResNet(depth=1, branch_scale=DepthScale(1.0)),
    }
    return dispersion_of_families(families, depths, 32, networks, progress=progress)


def agreement_on_images(
    data: Data,
    *,
    specs: int,
    networks: int,
    width: int = 128,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Mean empirical kernels of convolutional networks beside the closed forms.

    Three images of 4 x 4 pixels, the first `specs` of `IMAGE_SPECS`, and so many
    networks of each. One width: the mean over networks is off by a bias of order
    1/width, to be smaller than its standard error, of order (width networks)^(-1/2).

    Returns:
        Over (`network`, `kernel`, `entry`), the entries of the upper triangle: `mean`,
        its standard error `sem`, the closed form `exact`, and `deviation`, the
        difference in standard errors; over (`network`, `kernel`) `worst`, the largest
        of these, and `resolved`, the largest of `sem / exact`.
    """
    x = small_images(data, 3)
    names = list(IMAGE_SPECS)[:specs]
    upper = np.triu_indices(len(x))
    drawn, exact = [], []
    for done, name in enumerate(names):
        report = part_of(progress, done, 1, len(names), f"finite networks, {name}, ")
        spec, keys = IMAGE_SPECS[name], seed_keys(done, width, networks)
        drawn.append(_kernels_drawn(spec, x, keys, width, report)[..., *upper])
        limits = kernel_fn(spec, normalised=False)(x, get=KERNELS)
        exact.append([np.asarray(limit)[upper] for limit in limits])
    over = ("network", "kernel", "entry")
    samples = np.array(drawn)  # (network, seed, kernel, entry)
    sem = standard_error(samples, axis=1)
    found = xr.Dataset(
        {
            "mean": (over, samples.mean(axis=1)),
            "sem": (over, sem),
            "exact": (over, np.array(exact)),
        },
        coords={"network": names, "kernel": list(KERNELS)},
        attrs={"data": data.name, "width": width, "networks": networks},
    )
    deviation = (found["mean"] - found["exact"]) / found["sem"]
    relative = found["sem"] / found["exact"]
    return found.assign(
        deviation=deviation,
        worst=np.abs(deviation).max("entry"),  # type: ignore[arg-type]
        resolved=relative.max("entry"),
    )


def _kernels_drawn(spec, x, keys, width, progress):
    """Both empirical kernels of each network, `(networks, kernel, n, n)`, float64."""
    inputs = jnp.asarray(x, jnp.float32)

    def one(key):
        model = finite.build(spec, x.shape[1:], width, rngs=nnx.Rngs(key))
        with jax.default_matmul_precision("highest"):
            ntk = ntk_of_rows(model, inputs, outputs="mean")
            return jnp.stack([feature_kernel(model, inputs), ntk])

    # One network after the other: a batch of convolutions is slow on CPUs.
    run = jax.jit(lambda keys: jax.lax.map(one, keys))
    found = np.asarray(run(keys), np.float64)
    progress(1, 1, f"width {width}")
    return found
