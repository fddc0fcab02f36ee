"""Finite networks beside the limits: error by width and depth, and training."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

import ntk_resnet as nr
from ntk_resnet import plot
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.data.datasets import Data, split, targets
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import full_name, looks
from ntk_resnet.plot.panels import training as draw_training
from ntk_resnet.studies.families import some_rows
from ntk_resnet.studies.ledger import (
    Claim,
    Measured,
    fitted,
    of_error,
    over_seeds,
    ratio_of_means,
)
from ntk_resnet.studies.study import Figure, Measurement

SPEC = nr.ResNet(depth=3, branch_scale=nr.DepthScale(0.5))
"""The network of the studies of width and of training."""

NETWORKS = {
    "γ = 1": nr.ResNet(depth=1, branch_scale=nr.DepthScale(1.0)),
    "plain": nr.FeedForward(depth=1, trained="blocks"),
    "γ = 3/4": nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.75)),
    "γ = 1/2": nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5)),
}


def width(
    data: Data,
    *,
    widths: Sequence[int],
    seeds: int,
    spec: Any = SPEC,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Empirical against closed-form kernels on 12 rows (`nr.finite.width_study`)."""
    x = some_rows(data, 12).x
    return nr.finite.width_study(spec, x, widths, seeds, seed=0, progress=progress)


def concentration(
    *,
    networks: Sequence[str],
    depths: Sequence[int],
    widths: Sequence[int],
    seeds: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Error of the NTK of two inputs at the cosine 0.3, in the units of the theorems.

    Over (`family`, `depth`, `width`, `seed`): `error`, the empirical kernel less the
    limit, over 2 L α² of residual networks (Theorem 4), over L of plain ones (Theorem
    5).
    """
    cells = list(itertools.product(networks, depths, widths))
    errors = []
    for done, (name, depth, width) in enumerate(cells):
        progress(done, len(cells), f"{name}, depth {depth}, width {width}")
        errors.append(_errors(NETWORKS[name].replace(depth=depth), width, seeds))
    shape = (len(networks), len(depths), len(widths), seeds)
    return xr.Dataset(
        {"error": (("family", "depth", "width", "seed"), np.reshape(errors, shape))},
        coords={
            "family": list(networks),
            "depth": list(depths),
            "width": list(widths),
            "seed": np.arange(seeds),
        },
        attrs={
            "shallow": depths[0],
            "deep": depths[-1],
            "seeds": seeds,
            "widest": widths[-1],
        },
    )


_PAIR = np.sqrt(8) * np.eye(2, 8)
_PAIR[1] = 0.3 * _PAIR[0] + np.sqrt(1 - 0.3**2) * _PAIR[1]


def _errors(spec, width, seeds):
    """Those of the kernel between both inputs, of so many networks."""
    depth = spec.depth
    unit = depth if isinstance(spec, nr.FeedForward) else 2 * depth * _squared(spec)
    limit = float(nr.kernel_fn(spec, normalised=False)(_PAIR)[0, 1])
    x = jnp.asarray(_PAIR, jnp.float32)

    def one(key):
        model = nr.finite.build(spec, x.shape[1], width, rngs=nnx.Rngs(key))
        return nr.finite.empirical_ntk(model, x, outputs="mean")[0, 1]

    key = jax.random.fold_in(jax.random.key(depth), width)
    size = max(1, min(seeds, 2**25 // (depth * width**2)))  # that fit the memory
    run = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=size))
    found = np.asarray(run(jax.random.split(key, seeds)), float)
    return (found - limit) / unit


def _squared(spec):
    """α² of the blocks."""
    return float(spec.branch_scale.values(spec.depth)[0]) ** 2


def training(
    data: Data, *, widths: Sequence[int], seeds: int, progress: Progress = quiet
) -> xr.Dataset:
    """Training against the kernel's prediction (`nr.finite.train_study`)."""
    train, test = split(data, train=min(16, len(data) // 2), seed=1)
    x, test = data.x[train], test[:16]
    y = targets(data)[:, :1]
    y = y / np.abs(y).max()
    kernel = np.asarray(nr.kernel_fn(SPEC, normalised=False)(x))
    constant = len(x) / np.linalg.eigvalsh(kernel)[-1]  # of the fastest mode
    return nr.finite.train_study(
        SPEC,
        x,
        y[train],
        widths,
        seeds,
        x_test=data.x[test],
        times=constant * np.geomspace(0.1, 30, 10),
        seed=0,
        progress=progress,
    )


# --------------------------------------------------------------------------- claims


def _fitted(name):
    def measure(found):
        count = found.sizes["seed"]
        return fitted(found, name, f"95 % of the fit, {count} networks a width")

    return measure


def _bias(name):
    """The mean over the widest networks along the closed form, less it."""

    def measure(found):
        last = found.isel(width=-1)
        count = found.sizes["seed"]
        mean, error = last[f"{name}_shift"], last[f"{name}_shift_sem"]
        return of_error(mean, error, count, f"over {count} seeds")

    return measure


def _growth(found, family):
    """The root mean square error at the last depth over that at the first."""
    squares = found.error.sel(family=family).isel(width=-1) ** 2
    *ends, interval = ratio_of_means(squares.isel(depth=-1), squares.isel(depth=0))
    value, low, high = np.sqrt(ends)
    return Measured(value, low, high, interval)


def _growth_of(family):
    return lambda found: _growth(found, family)


def _power_of(family):
    """As a power of the depth."""

    def measure(found):
        times = np.log(found.attrs["deep"] / found.attrs["shallow"])
        *ends, interval = _growth(found, family)
        value, low, high = np.log(ends) / times
        return Measured(value, low, high, interval)

    return measure


_GAMMAS = {"γ = 1": 1.0, "γ = 3/4": 0.75, "γ = 1/2": 0.5}


def _theorem_4(gamma):
    """The error that the theorem's width allows, as a power of the depth.

    The width is eps^-4 L^(2 - 2 gamma) (ln(320 (L^2 + 1)/delta) + 1), so that eps at
    one width grows like the fourth root of the rest; delta is 1/20.
    """
    return lambda found: (
        (1 - gamma) / 2
        + _power_of_logarithm(
            found, lambda depth: np.log(320 * (depth**2 + 1) * 20) + 1
        )
    )


def _theorem_5(found):
    """The width is eps^-4 L^6 ln(L/delta), delta again 1/20."""
    return 1.5 + _power_of_logarithm(found, lambda depth: np.log(depth * 20))


def _power_of_logarithm(found, logarithm):
    """Of its fourth root, as a power of the depth between the first and the last."""
    ends = np.array([found.attrs["shallow"], found.attrs["deep"]], float)
    return np.diff(np.log(logarithm(ends)))[0] / np.diff(np.log(ends))[0] / 4


_UNITS = "root mean square error of the NTK at width {widest}, in units of"

CLAIMS = [
    *(
        Claim(
            name=f"1h-{key}-exponent",
            statement=f"{kernel}: relative error of a finite residual network falls "
            "like width^(−1/2): exponent",
            source="central limit theorem over the units of a layer",
            known="derived",
            of="width",
            measure=_fitted(f"{key}_exponent"),
            predicted=-0.5,
            tolerance=0.1,
            reason="a bias of order 1/width comes on top",
            figure="width",
        )
        for kernel, key in (("NTK", "ntk"), ("NNGP", "nngp"))
    ),
    *(
        Claim(
            name=f"1h-{key}-bias",
            statement=f"{kernel}: mean over the widest residual networks less the "
            "closed form, relative, along the closed form",
            source="law of large numbers over the units of a layer",
            known="derived",
            of="width",
            measure=_bias(key),
            predicted=0.0,
            tolerance=0.08,
            reason="three standard errors at relative deviations of about 1/√width",
            figure="width",
        )
        for kernel, key in (("NTK", "ntk"), ("NNGP", "nngp"))
    ),
    *(
        Claim(
            name=f"theorem 4-gamma-{family[4:]}",
            statement=f"residual, {family}: {_UNITS} 2Lα², from L = {{shallow}} to "
            "{deep}: as a power of L, at most (1−γ)/2 and a logarithm",
            source="Theorem 4 of the authors' poster: width ε^(−4) L^(2−2γ) ln L "
            "suffices for an error of 2Lα²ε",
            known="read",
            of="concentration",
            measure=_power_of(family),
            predicted=_theorem_4(gamma),
            side="below",
            reason="the theorem's width, solved for ε at a fixed width",
            figure="concentration",
        )
        for family, gamma in _GAMMAS.items()
    ),
    Claim(
        name="theorem 4-no-growth",
        statement=f"residual, γ = 1: {_UNITS} 2Lα², at L = {{deep}} over that at "
        "L = {shallow}: it does not grow",
        source="consequence of Theorem 4, up to its logarithm",
        known="derived",
        of="concentration",
        measure=_growth_of("γ = 1"),
        predicted=1.3,
        side="below",
        reason="our own bound, with room for the logarithm",
        figure="concentration",
    ),
    Claim(
        name="theorem 5-bound",
        statement=f"plain: {_UNITS} L, from L = {{shallow}} to {{deep}}: as a power of "
        "L, at most 3/2 and a logarithm",
        source="Theorem 5 of the authors' poster, of Arora et al.: width L^6 ε^(−4) "
        "ln L suffices for an error of Lε",
        known="read",
        of="concentration",
        measure=_power_of("plain"),
        predicted=_theorem_5,
        side="below",
        reason="the theorem's width, solved for ε at a fixed width; an upper bound, "
        "which only an error that grows faster contradicts",
        figure="concentration",
    ),
    Claim(
        name="theorem 5-growth",
        statement=f"plain: {_UNITS} L, at L = {{deep}} over that at L = {{shallow}}: "
        "it grows",
        source="contrast to Theorem 4 with γ = 1",
        known="derived",
        of="concentration",
        measure=_growth_of("plain"),
        predicted=2.0,
        side="above",
        reason="our own bound: at least twice",
        figure="concentration",
    ),
    Claim(
        name="training-outputs",
        statement="residual networks while they train: distance of their outputs to "
        "the limit kernel's prediction falls like width^(−1/2): exponent",
        source="fluctuations of the kernel at initialisation",
        known="derived",
        of="training",
        measure=_fitted("output_error_exponent"),
        predicted=-0.5,
        tolerance=0.25,
        reason="half way to the next powers, 0 and −1",
        figure="training",
    ),
    Claim(
        name="training-drift",
        statement="residual networks: change of the empirical NTK by training falls "
        "like 1/width: exponent",
        source="each unit changes by order width^(−1/2), with random sign (heuristic)",
        known="derived",
        of="training",
        measure=_fitted("drift_exponent"),
        predicted=-1.0,
        tolerance=0.25,
        reason="half way to the next powers, −1/2 and −3/2",
        figure="training",
    ),
]


# -------------------------------------------------------------------------- figures


def draw_concentration(found: xr.Dataset) -> np.ndarray:
    """Error against depth, a panel for each width."""
    with drawing.style():
        axes = drawing.new_axes(1, found.sizes["width"], height=2.7, sharey=True)
        for ax, width in zip(axes.flat, found.width.values, strict=True):
            for name, look in looks(found.family.values).items():
                error = found.error.sel(family=name, width=width)
                around = _rms(error.transpose("seed", "depth"))
                own = look | {"capsize": 2, "label": full_name(str(name))}
                drawing.intervals(ax, found.depth, around, **own)
            for axis, steps in ((ax.xaxis, (1,)), (ax.yaxis, (1, 2, 5))):
                drawing.log_axis(axis, steps=steps)
            ax.set_xticks(found.depth.values, found.depth.values)
            ax.set_xlabel("depth L")
            ax.set_title(f"width {width}", loc="left")
        axes.flat[0].set_ylabel("rms error of the NTK / 2Lα² (plain: / L)")
        drawing.figure_legend(axes)
    return axes


def _rms(errors):
    """The root mean square over seeds; its interval is that of its logarithm."""
    squares = over_seeds(errors**2)
    wide = (squares.high - squares.values) / squares.values / 2
    return [np.sqrt(squares.values) * np.exp(side * wide) for side in (0, -1, 1)]


FIGURES = {
    "concentration": Figure(
        of="concentration",
        draw=draw_concentration,
        title="Error of the kernels of finite networks against depth",
        caption="Empirical NTK between two inputs at the cosine 0.3, less its limit, "
        "in the units of Theorems 4 and 5: over 2Lα² of residual networks, over L of "
        "plain ones. Root mean squares over {seeds} networks, with 95 % intervals.",
    ),
    "width": Figure(
        of="width",
        draw=plot.width,
        title="Error of the kernels of finite networks against width",
        caption="Residual networks of depth 3, γ = 1/2, on {rows} rows: relative error "
        "of the empirical kernels. Small points are single networks, lines their "
        "means; dashed the power −1/2.",
    ),
    "training": Figure(
        of="training",
        draw=draw_training,
        title="Trained networks beside the kernel's prediction",
        caption="Full-batch gradient descent of residual networks of depth 3, γ = 1/2, "
        "and what a fixed kernel predicts of the same steps (dashed). Outputs at two "
        "points, means over the widest networks (dots), in the band of their "
        "predictions, one standard deviation over networks; the loss; the change of "
        "the empirical NTK; and by width the largest difference of the outputs to the "
        "prediction of the closed form, and of the network's own kernel.",
    ),
}

MEASUREMENTS = {
    "concentration": Measurement(
        measure=concentration,
        full={
            "networks": ["γ = 1", "plain", "γ = 3/4", "γ = 1/2"],
            "depths": (4, 16, 64),
            "widths": (64, 256),
            "seeds": 192,
        },
        quick={"depths": (4, 64), "widths": (64,), "seeds": 128},
    ),
    "width": Measurement(
        measure=width,
        full={"widths": (32, 64, 128, 256, 512), "seeds": 40},
        quick={"widths": (32, 64, 128), "seeds": 80},
        data="rows",
    ),
    "training": Measurement(
        measure=training,
        full={"widths": (32, 64, 128, 256), "seeds": 24},
        quick={"widths": (32, 128), "seeds": 16},
        data="rows",
    ),
}
