"""Finite networks beside the limits: error by width and depth, and training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet import plot
from ntk_resnet._progress import Progress, part_of, quiet
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
    """Relative error of the NTK of two inputs at the cosine 0.3, by width and depth.

    Over (`family`, `depth`, `width`, `seed`): `error`, in the Frobenius norm.
    """
    x = np.zeros((2, 8))
    x[0, 0], x[1, 0], x[1, 1] = 1.0, 0.3, np.sqrt(1 - 0.3**2)
    pieces = len(networks) * len(depths)
    errors: list[np.ndarray] = []
    for name in networks:
        for depth in depths:
            spec = NETWORKS[name].replace(depth=depth)
            text = f"{name}, depth {depth}, "
            report = part_of(progress, len(errors), 1, pieces, text)
            found = nr.finite.width_study(
                spec, x * np.sqrt(8), widths, seeds, seed=depth, progress=report
            )
            errors.append(found.ntk_error.values)
    shape = (len(networks), len(depths), len(widths), seeds)
    return xr.Dataset(
        {"error": (("family", "depth", "width", "seed"), np.reshape(errors, shape))},
        coords={
            "family": list(networks),
            "depth": list(depths),
            "width": list(widths),
            "seed": np.arange(seeds),
        },
        attrs={"shallow": depths[0], "deep": depths[-1], "seeds": seeds},
    )


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
    """The error at the last depth over that at the first, of the widest networks."""
    error = found.error.sel(family=family).isel(width=-1)
    return ratio_of_means(error.isel(depth=-1), error.isel(depth=0))


def _growth_of(family):
    return lambda found: _growth(found, family)


def _power_of(family):
    """As a power of the depth."""

    def measure(found):
        times = np.log(found.attrs["deep"] / found.attrs["shallow"])
        *ends, interval = _growth(found, family)
        value, low, high = (float(np.log(end) / times) for end in ends)
        return Measured(value, low, high, interval)

    return measure


_GAMMAS = {"γ = 1": 1.0, "γ = 3/4": 0.75, "γ = 1/2": 0.5}


def _theorem_4(gamma):
    """The error that the theorem's width allows, as a power of the depth.

    The width is eps^-4 L^(2 - 2 gamma) (ln(320 (L^2 + 1)/delta) + 1), so that eps at
    one width grows like the fourth root of the rest; delta is 1/20.
    """

    def allowed(found):
        ends = np.array([found.attrs["shallow"], found.attrs["deep"]], float)
        logs = np.log(np.log(320 * (ends**2 + 1) * 20) + 1)
        return (1 - gamma) / 2 + np.diff(logs)[0] / np.diff(np.log(ends))[0] / 4

    return allowed


CLAIMS = [
    *(
        Claim(
            name="1h",
            statement=f"{kernel}: relative error of a finite network falls like "
            "width^(−1/2): exponent",
            source="the limit of large width",
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
            name="1h",
            statement=f"{kernel}: the mean over the widest networks is the closed "
            "form: relative difference along it",
            source="the limit of large width",
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
            name="theorem 4",
            statement=f"residual, {family}: error at one width against depth, L = "
            f"{{shallow}} to {{deep}}: as a power of L, at most (1−γ)/2 and a "
            "logarithm",
            source="Theorem 4 of the authors' poster: width ε^(−4) L^(2−2γ) ln L is "
            "enough",
            known="read",
            of="concentration",
            measure=_power_of(family),
            predicted=_theorem_4(gamma),
            side="below",
            reason="ε at one width, from the theorem's width",
            figure="concentration",
        )
        for family, gamma in _GAMMAS.items()
    ),
    Claim(
        name="theorem 4",
        statement="residual, γ = 1: error at one width at L = {deep} over that at "
        "L = {shallow}: no growth",
        source="consequence of Theorem 4, but for a logarithm",
        known="derived",
        of="concentration",
        measure=_growth_of("γ = 1"),
        predicted=1.3,
        side="below",
        reason="our own bound, for the logarithm",
        figure="concentration",
    ),
    Claim(
        name="theorem 5",
        statement="plain: error at one width against depth, L = {shallow} to {deep}: "
        "as a power of L, at most 3/2",
        source="Theorem 5 of the authors' poster, of Arora et al.: width L^6 ε^(−4)",
        known="read",
        of="concentration",
        measure=_power_of("plain"),
        predicted=1.5,
        side="below",
        reason="ε at one width, from the theorem's width",
        figure="concentration",
    ),
    Claim(
        name="theorem 5",
        statement="plain: error at one width at L = {deep} over that at L = {shallow}: "
        "it grows",
        source="beside residual networks",
        known="derived",
        of="concentration",
        measure=_growth_of("plain"),
        predicted=2.0,
        side="above",
        reason="our own bound: twice",
        figure="concentration",
    ),
    Claim(
        name="training",
        statement="outputs while training: distance to the limit kernel's prediction "
        "falls like width^(−1/2): exponent",
        source="the limit of large width",
        known="derived",
        of="training",
        measure=_fitted("output_error_exponent"),
        predicted=-0.5,
        tolerance=0.25,
        reason="half way to the next powers, 0 and −1",
        figure="training",
    ),
    Claim(
        name="training",
        statement="change of the empirical NTK by training falls like 1/width: "
        "exponent",
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
    """Error against depth: a panel a width, means with 95 % intervals."""
    with drawing.style():
        axes = drawing.new_axes(1, found.sizes["width"], height=2.7, sharey=True)
        for ax, width in zip(axes.flat, found.width.values, strict=True):
            for name, look in looks(found.family.values).items():
                error = found.error.sel(family=name, width=width)
                mean, low, high, _ = over_seeds(error.transpose("seed", "depth"))
                ax.errorbar(
                    found.depth,
                    mean,
                    [mean - low, high - mean],
                    **look,
                    capsize=2,
                    label=full_name(str(name)),
                )
            for axis, steps in ((ax.xaxis, (1,)), (ax.yaxis, (1, 2, 5))):
                drawing.log_axis(axis, steps=steps)
            ax.set_xticks(found.depth.values, found.depth.values)
            ax.set_xlabel("depth L")
            ax.set_title(f"width {width}", loc="left")
        axes.flat[0].set_ylabel("relative error of the NTK")
        drawing.figure_legend(axes)
    return axes


FIGURES = {
    "concentration": Figure(
        of="concentration",
        draw=draw_concentration,
        title="Error of the kernels of finite networks against depth",
        caption="Relative error of the empirical NTK of two inputs at the cosine 0.3: "
        "means over {seeds} networks, with 95 % intervals.",
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
            "widths": (128, 512),
            "seeds": 48,
        },
        quick={"depths": (4, 64), "widths": (128,), "seeds": 64},
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
