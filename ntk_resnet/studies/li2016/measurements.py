"""Hessians at zero weights and along training, and how training goes with depth."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

import ntk_resnet as nr
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.studies.li2016.networks import (
    ShortcutNet,
    descend,
    half_square,
    initial,
    task,
)

SETUPS = {  # shortcut length, initial weights, shortcuts
    "shortcuts of 2, small": (2, "small", True),
    "shortcuts of 1, small": (1, "small", True),
    "shortcuts of 3, small": (3, "small", True),
    "shortcuts of 2, Xavier": (2, "xavier", True),
    "plain, Xavier": (1, "xavier", False),
    "plain, orthogonal": (1, "orthogonal", False),
}


def _hessian(model, x, y):
    """The dense Hessian of the mean of |f - y|^2 / 2, in float64."""
    return nr.curvature.hessian(model, x, y, half_square).dense()


def _zeros(units, length, d):
    return np.zeros((units, length, d, d))


def at_zero(*, d: int, units: list[int], progress: Progress = quiet) -> xr.Dataset:
    """Hessians of linear networks at zero weights, against the singular values of D.

    With D = mean of x (x - y)'. Over `units`: `error`, the largest distance of an
    eigenvalue for shortcuts of two matrices to +-s_i(D), each d times a unit, over the
    largest; `condition_number` and `negative_share` for these; `longer`, the largest
    entry for shortcuts of three and of four; `single`, the condition number for
    shortcuts of one, and `single_bound`, a lower bound of it for diagonal covariances,
    of inputs and targets made so. `predicted_condition_number`, s_max/s_min.
    """
    x, y = task(0, d, 40, 0.3)
    s = np.linalg.svd(x.T @ (x - y) / len(x), compute_uv=False)
    # Columns that are orthogonal, and targets that scale each of them.
    q = np.linalg.qr(np.random.default_rng(1).normal(size=(40, d)))[0] * 40**0.5
    sizes, slopes = np.linspace(1, 2, d), np.linspace(0.4, 0.8, d)
    across, goal = q * sizes, q * sizes * slopes
    rows = []
    for done, count in enumerate(units):
        progress(done, len(units), f"Hessians of {count} units")
        matrix = _hessian(ShortcutNet(_zeros(count, 2, d)), x, y)
        values = np.linalg.eigvalsh(matrix)
        known = np.sort(np.repeat([s, -s], d * count))
        longer = [_hessian(ShortcutNet(_zeros(count, n, d)), x, y) for n in (3, 4)]
        single = np.linalg.eigvalsh(
            _hessian(ShortcutNet(_zeros(count, 1, d)), across, goal)
        )
        variance, left = sizes**2, sizes**2 * (1 - slopes)
        # The eigenvalues of the diagonal's entries; one unit has the first ones alone.
        many = np.abs(count * (variance + left) - left)
        few = np.abs(left) if count > 1 else many
        rows.append(
            {
                "error": np.abs(values - known).max() / s[0],
                "condition_number": np.abs(values).max() / np.abs(values).min(),
                "negative_share": np.mean(values < 0),
                "longer": max(np.abs(h).max() for h in longer),
                "single": np.abs(single).max() / np.abs(single).min(),
                "single_bound": many.max() / few.min(),
            }
        )
    found: dict[str, Any] = {
        name: ("units", [row[name] for row in rows]) for name in rows[0]
    }
    found["predicted_condition_number"] = s[0] / s[-1]
    return xr.Dataset(
        found, coords={"units": units}, attrs={"d": d, "most": max(units)}
    )


def one_number(*, units: list[int], progress: Progress = quiet) -> xr.Dataset:
    """Shortcuts of one number each: eigenvalues R (v + D) - D, and -D.

    Over `units`: `condition_number` of the Hessian at zero, and `predicted`, with v the
    mean of x^2 and D that of x (x - y).
    """
    x, y = task(0, 1, 40, 0.3)
    v, left = float(np.mean(x**2)), float(np.mean(x * (x - y)))
    found, known = [], []
    for done, count in enumerate(units):
        progress(done, len(units), f"{count} units of one number")
        values = np.linalg.eigvalsh(_hessian(ShortcutNet(_zeros(count, 1, 1)), x, y))
        found.append(np.abs(values).max() / np.abs(values).min())
        known.append(max(abs(count * (v + left) - left), abs(left)) / abs(left))
    return xr.Dataset(
        {"condition_number": ("units", found), "predicted": ("units", known)},
        coords={"units": units},
        attrs={"most": max(units)},
    )


def activations(*, d: int, units: list[int], progress: Progress = quiet) -> xr.Dataset:
    """Units with ReLU in front and tanh inside and after, at zero weights.

    Over `units`: `condition_number`, and `predicted`, s_max/s_min of the mean of
    relu(x) (x - y)'.
    """
    x, y = task(0, d, 40, 0.3)
    s = np.linalg.svd(np.maximum(x, 0).T @ (x - y) / len(x), compute_uv=False)
    found = []
    for done, count in enumerate(units):
        progress(done, len(units), f"{count} units with activations")
        model = ShortcutNet(
            _zeros(count, 2, d), pre=jax.nn.relu, middle=jnp.tanh, post=jnp.tanh
        )
        values = np.abs(np.linalg.eigvalsh(_hessian(model, x, y)))
        found.append(values.max() / values.min())
    return xr.Dataset(
        {"condition_number": ("units", found), "predicted": s[0] / s[-1]},
        coords={"units": units},
        attrs={"d": d, "most": max(units)},
    )


def trainability(
    *,
    d: int,
    depths: list[int],
    steps: int,
    rates: list[float],
    scale: float,
    seeds: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Loss of linear networks after some steps at their best rate, against depth.

    Depth is the number of units; initial weights, of all units together, are those of
    `SETUPS`. Over (`setup`, `depth`, `seed`): `loss`, over that of zero weights, and
    `rate`, the best of those `tried`.
    """
    losses = np.empty((len(SETUPS), len(depths), seeds, len(rates)))
    total = len(SETUPS) * len(depths)
    data = [task(seed, d, 40, 0.3) for seed in range(seeds)]
    x, y = (np.stack(side).astype(np.float32) for side in zip(*data, strict=True))
    start = np.mean(half_square(x, y), axis=-1)
    keys = jax.random.split(jax.random.key(0), seeds)
    for i, (name, (length, how, shortcuts)) in enumerate(SETUPS.items()):
        for j, depth in enumerate(depths):
            progress(i * len(depths) + j, total, f"{name}, {depth} units")
            shape = depth, length, d, d
            weights = jnp.stack([initial(key, how, shape, scale) for key in keys])
            graph = nnx.split(ShortcutNet(weights[0], shortcuts=shortcuts))[0]
            history, _ = descend(
                graph, weights, x, y, jnp.asarray(rates), steps=steps, every=steps
            )
            losses[i, j] = np.asarray(history)[:, :, -1] / start[:, None]
    best = losses.argmin(axis=-1)
    over = ("setup", "depth", "seed")
    return xr.Dataset(
        {
            "loss": (over, losses.min(axis=-1)),
            "rate": (over, np.asarray(rates)[best]),
            "tried": ("of_rates", rates),
        },
        coords={"setup": list(SETUPS), "depth": depths, "seed": np.arange(seeds)},
        attrs={
            "steps": steps,
            "d": d,
            "deepest": max(depths),
            "shallow": min(depths),
        },
    )


def plateaus(
    *,
    d: int,
    units: int,
    scales: list[float],
    rate: float,
    steps: int,
    every: int,
    seeds: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """How long the loss stays where it starts, against the size of initial weights.

    Over (`length`, `scale`, `seed`): `time`, steps times rate, to half of the loss that
    can go, for shortcuts of two matrices and of three; NaN if it did not get there.
    Targets are -1/2 of the inputs, so that all singular values of D are alike, `s`.
    """
    found = np.full((2, len(scales), seeds), np.nan)
    x, _ = task(0, d, 40, 0.0)
    both = [np.repeat(a[None].astype(np.float32), seeds, 0) for a in (x, -x / 2)]
    for i, length in enumerate((2, 3)):
        for j, scale in enumerate(scales):
            progress(2 * j + i, 2 * len(scales), f"shortcuts of {length}, {scale:g}")
            keys = jax.random.split(jax.random.key(j), seeds)
            shape = units, length, d, d
            weights = jnp.stack([initial(key, "small", shape, scale) for key in keys])
            graph = nnx.split(ShortcutNet(weights[0]))[0]
            history, _ = descend(
                graph, weights, *both, jnp.asarray([rate]), steps=steps, every=every
            )
            history = np.asarray(history)[:, 0]
            below = history < history[:, :1] / 2
            first = np.argmax(below, axis=1).astype(float) * every * rate
            found[i, j] = np.where(below.any(axis=1), first, np.nan)
    return xr.Dataset(
        {"time": (("length", "scale", "seed"), found)},
        coords={"length": [2, 3], "scale": scales, "seed": np.arange(seeds)},
        attrs={"s": 1.5, "units": units, "d": d},
    )


def along(
    *, d: int, units: int, steps: int, every: int, rate: float, scale: float,
    progress: Progress = quiet,
) -> xr.Dataset:  # fmt: skip
    """The Hessian while networks of shortcuts of two and of one train.

    Over (`length`, `step`): `negative`, the size of the most negative eigenvalue over
    the largest one, and `loss` over that at zero weights.
    """
    x, y = task(0, d, 40, 0.3)
    records = steps // every + 1
    negative, losses = np.empty((2, 2, records))
    for i, length in enumerate((2, 1)):
        weights = np.asarray(
            initial(jax.random.key(0), "small", (units, length, d, d), scale), float
        )
        for record in range(records):
            progress(i * records + record, 2 * records, f"shortcuts of {length}")
            model = ShortcutNet(weights)
            values = np.linalg.eigvalsh(_hessian(model, x, y))
            negative[i, record] = max(-values[0], 0) / values[-1]
            outputs = np.asarray(model(x))
            losses[i, record] = np.mean(half_square(outputs, y))
            _, trained = descend(
                nnx.split(model)[0],
                weights[None],
                x[None],
                y[None],
                jnp.asarray([rate]),
                steps=every,
                every=every,
            )
            weights = np.asarray(trained, float)[0, 0]
    start = float(np.mean(half_square(x, y)))
    over = ("length", "step")
    return xr.Dataset(
        {
            "negative": (over, negative),
            "loss": (over, losses / start),
        },
        coords={"length": [2, 1], "step": every * np.arange(records)},
        attrs={"units": units, "d": d},
    )
