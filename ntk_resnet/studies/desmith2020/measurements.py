"""Moments by block at initialisation, and the depths that train."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

import ntk_resnet as nr
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.data.datasets import Data, split
from ntk_resnet.studies.desmith2020.networks import (
    KINDS,
    Classifier,
    Normalised,
    losses,
)
from ntk_resnet.studies.study import NotRun

_MOMENTS = (
    "second_moment",
    "variance",
    "square_of_means",
    "branch_second_moment",
    "branch_share",
)


def normalised(
    *, width: int, depth: int, seeds: int, progress: Progress = quiet
) -> xr.Dataset:
    """Moments by block of networks with batch normalisation in training mode.

    Inputs are normal, as many as units. Over (`activation`, `seed`, `block`): those of
    `nr.signal.moments`.
    """
    found = []
    for i, name in enumerate(("linear", "ReLU")):
        runs = []
        for seed in range(seeds):
            progress(i * seeds + seed, 2 * seeds, f"batch normalisation, {name}")
            x = np.random.default_rng(seed).normal(size=(width, width))
            model = Normalised(width, depth, nnx.Rngs(seed), name == "ReLU")
            one = nr.signal.moments(model, x.astype(np.float32), seed=None)
            runs.append(one[list(_MOMENTS)])
        found.append(xr.concat(runs, "seed"))
    result = xr.concat(found, "activation").assign_coords(
        activation=["linear", "ReLU"], seed=np.arange(seeds)
    )
    return result.assign_attrs(width=width, depth=depth)


def plain(
    *, width: int, doubling: int, depth: int, seeds: int, progress: Progress = quiet
) -> xr.Dataset:
    """Moments by block without normalisation, of finite networks and exactly.

    Pre-activation blocks `h + a W relu(h)`. Over (`kind`, `seed`, `block`): `growth`,
    the second moment over that of the first layer, and `gradient`, that of the
    derivatives over that at the last block; for `doubling` blocks of scale one, and
    `depth` of scale 1/sqrt(depth) and of trunk and branch both over sqrt 2. NaN beyond
    a network's blocks. Over `kind`: `path_length`, the sum of the branches' shares.
    """
    specs = {
        "unnormalised": (nr.ConstantScale(1.0), doubling),
        "SkipInit": (nr.DepthScale(0.5), depth),
        "over √2": (nr.BalancedScale(0.5), depth),
    }
    x = np.random.default_rng(0).normal(size=(8, 32))
    most = max(doubling, depth)
    growth, gradient = np.full((2, len(specs), seeds, most), np.nan)
    shares = np.empty((len(specs), seeds))
    for i, (scale, blocks) in enumerate(specs.values()):
        spec = nr.ResNet(depth=blocks, branch_scale=scale, block="preactivation")
        for seed in range(seeds):
            progress(i * seeds + seed, len(specs) * seeds, f"{blocks} blocks")
            model = nr.finite.build(spec, 32, width, rngs=nnx.Rngs(seed))
            one = nr.signal.moments(model, x, seed=seed)
            first = float(one.trunk_second_moment[0])
            if scale == nr.BalancedScale(0.5):  # its trunk is divided already
                first *= 2
            growth[i, seed, :blocks] = one.second_moment / first
            back = one.gradient_second_moment
            gradient[i, seed, :blocks] = back / back[-1]
            shares[i, seed] = float(one.branch_share.sum())
    over = ("kind", "seed", "block")
    return xr.Dataset(
        {
            "growth": (over, growth),
            "gradient": (over, gradient),
            "path_length": (("kind", "seed"), shares),
        },
        coords={
            "kind": list(specs),
            "seed": np.arange(seeds),
            "block": np.arange(1, most + 1),
        },
        attrs={"width": width, "doubling": doubling, "depth": depth},
    )


def training(
    data: Data,
    *,
    depths: list[int],
    width: int,
    rates: list[float],
    steps: int,
    batch: int,
    seeds: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Loss of classifiers of each kind after some steps, against depth and rate.

    Over (`kind`, `depth`, `rate`, `seed`): `loss`, over that before training.
    """
    rows = 8 * batch
    if not data.classes:
        raise NotRun(f"the data have no classes: {data.name} has real targets")
    if len(data) <= rows:
        raise NotRun(f"{data.name} has {len(data)} rows, {rows + 1} are needed.")
    part, _ = split(data, train=rows, seed=0)
    x = data.x[part]
    x = jnp.asarray((x - x.mean()) / x.std(), jnp.float32)
    y = jnp.asarray(data.y[part], jnp.int32)
    found = np.empty((len(KINDS), len(depths), len(rates), seeds))
    for i, kind in enumerate(KINDS):
        for j, depth in enumerate(depths):
            progress(i * len(depths) + j, len(KINDS) * len(depths), f"{kind}, {depth}")
            models = [
                nnx.split(
                    Classifier(
                        x.shape[1],
                        width,
                        depth,
                        len(data.classes),
                        kind,
                        nnx.Rngs(seed),
                    )
                )
                for seed in range(seeds)
            ]
            states = jax.tree.map(lambda *v: jnp.stack(v), *(s for _, s in models))
            ratios = losses(
                models[0][0],
                states,
                x,
                y,
                jnp.asarray(rates, jnp.float32),
                steps=steps,
                batch=batch,
            )
            found[i, j] = np.asarray(ratios).T
    return xr.Dataset(
        {"loss": (("kind", "depth", "rate", "seed"), found)},
        coords={
            "kind": list(KINDS),
            "depth": depths,
            "rate": rates,
            "seed": np.arange(seeds),
        },
        attrs={"width": width, "steps": steps, "data": data.name, "most": max(depths)},
    )
