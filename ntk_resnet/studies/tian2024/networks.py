"""Finite networks of all scales, trained on images from the same initial weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from flax import nnx

import ntk_resnet as nr
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.data.datasets import Data, split, targets
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.ledger import Claim
from ntk_resnet.studies.study import Figure, Measurement, NotRun
from ntk_resnet.studies.tian2024.kernels import LARGE, SCALES, TIMES, share_of

GOOD = [name for name in SCALES if name not in LARGE]


def networks(
    data: Data,
    *,
    depth: int,
    width: int,
    train: int,
    test: int,
    steps: int,
    every: int,
    seeds: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Test errors of finite networks while they learn, and of the kernels.

    Gradient descent at Polyak's learning rate, so that no scale needs one of its own;
    outputs are less those at the start and over the root of their variance there, which
    grows with the scale. A seed is a split of the data and one set of initial weights.
    Over (`family`, `seed`, `step`): `error` and `loss`, mean squares on test and
    training rows over those of the targets; over (`family`, `seed`): `best`, the least
    test error, and `kernel`, that of the closed-form NTK.
    """
    if len(data) < train + test:
        raise NotRun(f"{data.name} has {len(data)} rows, {train + test} are needed.")
    parts = [split(data, train=train, test=test, seed=seed) for seed in range(seeds)]
    x, y = np.sqrt(data.x.shape[1]) * data.x, targets(data)
    y = y / np.sqrt(np.mean(y**2))
    rows = [[values[part] for part in both] for both in parts for values in (x, y)]
    inputs, wanted = (
        [jnp.asarray(np.stack(side), jnp.float32) for side in zip(*some, strict=True)]
        for some in (rows[::2], rows[1::2])
    )
    spec = nr.ResNet(depth=depth, branch_scale=1.0)
    begin, descend = _programs(spec, x.shape[1], width, y.shape[1], steps, every)
    weights = begin(jax.random.split(jax.random.key(0), seeds))
    history, kernels = [], []
    for done, (name, scale) in enumerate(SCALES.items()):
        progress(done, len(SCALES), f"networks, {name}")
        factors = scale.values(depth)
        growth = float(np.prod(1 + factors**2))
        own = jnp.asarray(factors, jnp.float32), jnp.float32(growth**-0.5)
        history.append(jax.device_get(descend(*weights, *own, *inputs, *wanted)))
        kernels.append(
            [
                _kernel_error(spec.replace(branch_scale=scale), x, y, *part)
                for part in parts
            ]
        )
    error, loss = (np.array([one[k] for one in history], float) for k in (0, 1))
    over = ("family", "seed", "step")
    return xr.Dataset(
        {
            "error": (over, error),
            "loss": (over, loss),
            "best": (over[:2], error.min(-1)),
            "kernel": (over[:2], np.array(kernels)),
        },
        coords={
            "family": list(SCALES),
            "seed": np.arange(seeds),
            "step": np.arange(0, steps + 1, every),
        },
        attrs={
            "depth": depth,
            "width": width,
            "train": train,
            "steps": steps,
            "seeds": seeds,
            "images": data.name,
        },
    )


def structure(spec, features, width, classes):
    """What a network is but for its weights."""
    shapes = nnx.eval_shape(
        lambda: nr.finite.build(spec, features, width, classes, rngs=nnx.Rngs(0))
    )
    return nnx.split(shapes, nnx.Param, ...)[0]


def outputs(graph, params, rest, scales, x):
    """Of h + V phi(W h): the scales are data and go into V."""
    model = nnx.merge(graph, jax.tree.map(lambda leaf: leaf, params), rest)
    model.outer_weights[...] = model.outer_weights[...] * scales[:, None, None]
    return model(x)


def _programs(spec, features, width, classes, steps, every):
    """What makes networks of many keys, and what trains them at given scales."""
    graph = structure(spec, features, width, classes)
    optimizer = optax.polyak_sgd(max_learning_rate=1e9)

    def make(key):
        model = nr.finite.build(spec, features, width, classes, rngs=nnx.Rngs(key))
        return nnx.split(model, nnx.Param, ...)[1:]

    def descend(params, rest, scales, size, x, x_test, y, y_test):
        start = [outputs(graph, params, rest, scales, side) for side in (x, x_test)]

        def error(params, side):
            inputs, wanted = ((x, y), (x_test, y_test))[side]
            moved = outputs(graph, params, rest, scales, inputs) - start[side]
            return jnp.mean((size * moved - wanted) ** 2)

        def step(_, state):
            params, memory = state
            value, slope = jax.value_and_grad(error)(params, 0)
            updates, memory = optimizer.update(slope, memory, params, value=value)
            return optax.apply_updates(params, updates), memory

        def record(state, _):
            now = error(state[0], 1), error(state[0], 0)
            return jax.lax.fori_loop(0, every, step, state), now

        state = params, optimizer.init(params)
        return jax.lax.scan(record, state, length=steps // every + 1)[1]

    over = (0, 0, None, None, 0, 0, 0, 0)
    return jax.jit(jax.vmap(make)), jax.jit(jax.vmap(descend, over))


def _kernel_error(spec, x, y, train, test):
    k, k_test = nr.gram(spec, x[train]), nr.gram(spec, x[test], x[train])
    found = nr.early_stopping(k, k_test, y[train], y[test], TIMES)
    return float(found.best_test_mse)


def _wins(found, name):
    """By seed, whether a small scale's error is below a large one's, of all pairs."""
    errors = found[name].transpose("seed", "family")
    pairs = [errors.sel(family=g) < errors.sel(family=b) for g in GOOD for b in LARGE]
    return np.stack([pair.values for pair in pairs], -1)


def draw_networks(found):
    """Errors against steps, and the least ones by seed."""
    with drawing.style():
        left, right = drawing.new_axes(1, 2).flat
        family = found.family.values
        for place, (name, look) in enumerate(looks(family).items()):
            one = found.sel(family=name)
            line = look | {"marker": ""}
            left.plot(found.step, one.error.mean("seed"), **line, label=name)
            aside = place + np.linspace(-0.2, 0.2, len(found.seed))
            right.plot(aside, one.best, **look | {"linestyle": ""})
            kernel = [one.kernel.mean()] * 2
            right.plot([place - 0.35, place + 0.35], kernel, **drawing.THEORY)
        right.plot([], [], **drawing.THEORY, label="theory, closed-form NTK")
        left.set_xlabel("steps of gradient descent")
        left.set_ylabel("test error / variance")
        drawing.log_axis(left.yaxis, steps=(1, 2, 5))
        right.set_xticks(range(len(family)), family)
        right.set_ylabel("least test error / variance")
        right.set_ylim(bottom=0)
        drawing.legend(left)
        drawing.legend(right)
    return np.array([left, right])


def full_sizes() -> dict[str, int]:
    """Those of a full run: larger where JAX has an accelerator."""
    if jax.default_backend() == "cpu":
        sizes = {"depth": 24, "width": 128, "train": 256, "test": 500, "steps": 100}
    else:
        sizes = {"depth": 50, "width": 512, "train": 1000, "test": 700, "steps": 300}
    return sizes | {"every": 5, "seeds": 8}


MEASUREMENTS = {
    "networks": Measurement(
        measure=networks,
        full=full_sizes,
        quick={
            "depth": 16,
            "width": 64,
            "train": 128,
            "test": 256,
            "steps": 100,
            "seeds": 6,
        },
        data="rows",
    ),
}

CLAIMS = [
    Claim(
        name="10c-networks",
        statement="finite networks on {images}, width {width}, L = {depth}, {train} "
        "rows: γ = 1/2, 3/4, 1 have less test error at the best step than γ = 1/4 and "
        "α = 1: share of seeds, each pair",
        source="experiments with images",
        known="derived",
        of="networks",
        measure=lambda found: share_of(_wins(found, "best")),
        predicted=0.5,
        side="above",
        reason="sign test: what chance gives",
        figure="networks",
    ),
    Claim(
        name="10c-kernels",
        statement="closed-form kernels on {images}, L = {depth}, {train} rows: "
        "γ = 1/2, 3/4, 1 have less test error at the best time than γ = 1/4 and α = 1: "
        "share of seeds, each pair",
        source="experiments with images",
        known="derived",
        of="networks",
        measure=lambda found: share_of(_wins(found, "kernel")),
        predicted=0.5,
        side="above",
        reason="sign test: what chance gives",
        figure="networks",
    ),
]

FIGURES = {
    "networks": Figure(
        of="networks",
        draw=draw_networks,
        title="Finite networks of width {width} and depth {depth} on {images}",
        caption="Gradient descent on {train} rows, {seeds} seeds. Left: means over "
        "seeds of the error on other rows, over that of a constant. Right: the least "
        "one of each seed, and the mean of the closed-form kernel's at the best time "
        "(dashed).",
    ),
}
