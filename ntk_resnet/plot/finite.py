"""Finite networks beside theory: by width, while training, and their spread."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ntk_resnet._checks import check_choice
from ntk_resnet.plot import drawing
from ntk_resnet.plot.drawing import THEORY
from ntk_resnet.plot.families import Results, by_family, looks, tones

_TRAINING = "nr.finite.train_study"


def width(
    found: Results,
    get: tuple[str, ...] | str = ("ntk", "nngp"),
    *,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Relative error of empirical kernels against width, beside width^(-1/2).

    Args:
        found: from `nr.finite.width_study`: `ntk_error` and `nngp_error` over
            (`width`, `seed`), with their fitted exponents; several by label are
            compared.
        get: `"ntk"`, drawn filled, `"nngp"`, drawn hollow, or both.
        ax: where to draw; `None` for a new figure.
        legend: whether to name families, kernels and exponents above the axes.

    Returns:
        The axes. Small points are single networks, lines their means; theory goes
        through the middle of the means.

    Raises:
        ValueError: `found` is of another function, or `get` is none of these.

    Example:
        `nr.plot.width(nr.finite.width_study(spec, x, [64, 128, 256], 20))`
    """
    kernels = (get,) if isinstance(get, str) else get
    for kernel in kernels:
        check_choice("get", kernel, ("ntk", "nngp"))
    needs = ("width", *(f"{k}_{what}" for k in kernels for what in _WIDTH))
    families = by_family(found, needs, "nr.finite.width_study")
    with drawing.style():
        ax = drawing.one_axes(ax)
        for label, look in looks(families).items():
            one = families[label]
            for kernel in kernels:
                own = look | ({"markerfacecolor": "w"} if kernel == "nngp" else {})
                text = _exponent(one, kernel)
                text = f"{label}, {text}" if len(families) > 1 else text
                drawing.by_width(ax, one[f"{kernel}_error"], own, text, -0.5)
        ax.plot([], [], **THEORY, label=r"theory, $m^{-1/2}$")
        widths = np.unique(np.concatenate([one.width for one in families.values()]))
        drawing.width_axes(ax, widths)
        ax.set_xlabel("width m")
        ax.set_ylabel("relative error of the kernel")
        if legend:
            drawing.legend(ax)
    return ax


_WIDTH = ("error", "exponent", "exponent_low", "exponent_high")


def _exponent(one, kernel):
    exponent, low, high = (float(one[f"{kernel}_{name}"]) for name in _WIDTH[1:])
    if np.isnan(exponent):  # of a single width
        return kernel.upper()
    return f"{kernel.upper()}, exponent {exponent:.2f} [{low:.2f}, {high:.2f}]".replace(
        "-", "−"
    )


# ----------------------------------------------------------------------------- training


def training(
    found: xr.Dataset,
    quantity: str = "loss",
    *,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Networks while they train, beside the prediction of infinite width.

    Args:
        found: from `nr.finite.train_study`.
        quantity: against time, `"loss"`, a curve a width, beside the prediction and its
            range over the widest networks; `"outputs"` of the widest ones at two
            points, beside the mean of the predictions in bands of one standard
            deviation over networks; `"ntk_drift"`, the relative change of the empirical
            NTK. Or `"errors"` against width: the largest distance of the outputs to the
            prediction, and to that of the network's own kernel, and the final change of
            the NTK, beside the powers expected.
        ax: where to draw; `None` for a new figure.
        legend: whether to name widths or quantities above the axes.

    Returns:
        The axes. Lines and dots are means over networks. Time 0 stands at half the
        first recorded time.

    Raises:
        ValueError: `found` is of another function, or the quantity is none of these.

    Example:
        `nr.plot.training(nr.finite.train_study(spec, x, y, [64, 256], 8), "outputs")`
    """
    draw, needs = _DRAWN[check_choice("quantity", quantity, _DRAWN)]
    ((label, found),) = by_family(found, ("width", *needs), _TRAINING).items()
    colour = looks([label])[label]["color"]
    with drawing.style():
        ax = drawing.one_axes(ax)
        draw(ax, found, colour)
        if legend:
            drawing.legend(ax)
    return ax


def _draw_loss(ax, found, colour):
    shown = _shown_times(found)
    last = found.predicted_loss.isel(width=-1).transpose("seed", "time").values
    drawing.band(ax, shown, last.min(axis=0), last.max(axis=0), drawing.INK, 0.12)
    drawing.theory_line(ax, shown, last.mean(axis=0), "theory, widest")
    _by_time(ax, found.loss, shown)
    ax.set_yscale("log")
    ax.set_ylabel("training loss")
    _time_axis(ax, shown, from_zero=True)


def _draw_drift(ax, found, colour):
    shown = _shown_times(found)
    _by_time(ax, found.ntk_drift.isel(time=slice(1, None)), shown[1:])
    ax.set_yscale("log")
    ax.set_ylabel("relative change of the NTK")
    _time_axis(ax, shown, from_zero=False)


def _by_time(ax, values, shown):
    """Means over networks, a curve a width."""
    shades = drawing.shades(values.sizes["width"])
    for width, shade in zip(values.width.values, shades, strict=True):
        mean = values.sel(width=width).mean("seed").values
        look = {"color": shade, "markersize": 3, "label": f"m = {width}"}
        ax.plot(shown, mean, "o-", **look)


def _draw_outputs(ax, found, colour):
    """Means over networks at two points, in the bands of their predictions."""
    one, shown = found.isel(width=-1, output=0), _shown_times(found)
    points = min(2, found.sizes["point"])
    for k, shade in enumerate(tones(colour, points)):
        predicted = one.predicted_outputs.isel(point=k)
        mean, spread = predicted.mean("seed").values, predicted.std("seed").values
        drawing.band(ax, shown, mean - spread, mean + spread, shade)
        drawing.theory_line(ax, shown, mean, "theory ± 1 s.d.")
        measured = one.outputs.isel(point=k).mean("seed").values
        ax.plot(shown, measured, "o", color=shade, label=f"point {k + 1}")
    where = "test" if "test_rows" in found.attrs else "training"
    ax.set_ylabel(f"outputs at {where} points, m = {int(one.width)}")
    _time_axis(ax, shown, from_zero=True)


def _draw_errors(ax, found, colour):
    rows = (
        ("max_output_error", "outputs − prediction", "s", -0.5),
        ("max_own_kernel_error", "outputs − linearised", "D", -1),
        ("ntk_drift", "change of the NTK", "o", -1),
    )
    for (name, label, marker, power), shade in zip(rows, tones(colour, 3), strict=True):
        drift = name == "ntk_drift"
        values = found[name].isel(time=-1) if drift else found[name].max("time")
        exponent = float(found[f"{'drift' if drift else name}_exponent"])
        if np.isfinite(exponent):
            label += f": {exponent:.2f}".replace("-", "−")
        look = {"color": shade, "marker": marker}
        drawing.by_width(ax, values, look, label, power)
    ax.plot([], [], **THEORY, label=r"theory, $m^{-1/2}$, $m^{-1}$")
    drawing.width_axes(ax, found.width.values)
    ax.set_xlabel("width m")
    ax.set_ylabel("largest difference, final change")


_ERRORS = ("max_output_error", "max_own_kernel_error")
_DRAWN: dict[str, Any] = {
    "loss": (_draw_loss, ("time", "loss", "predicted_loss")),
    "outputs": (_draw_outputs, ("time", "outputs", "predicted_outputs")),
    "ntk_drift": (_draw_drift, ("time", "ntk_drift")),
    "errors": (
        _draw_errors,
        ("ntk_drift", "drift_exponent", *_ERRORS, *(f"{e}_exponent" for e in _ERRORS)),
    ),
}


def _shown_times(found):
    """Time 0 has no place on a logarithmic axis: it stands at half the first one."""
    time = found.time.values
    return np.where(time > 0, time, time[time > 0][0] / 2)


def _time_axis(ax, shown, *, from_zero):
    """Logarithmic, with a tick that says 0 where time 0 is shown."""
    drawing.log_axis(ax.xaxis)
    first, last = np.log10(shown[[1, -1]])
    ticks = 10.0 ** np.arange(np.ceil(first), np.floor(last) + 1)
    if not ticks.size:
        ticks = np.unique(shown[[1, -1]])
    labels = [f"{float(f'{tick:.3g}'):g}" for tick in ticks]
    if from_zero:
        ticks, labels = np.append(shown[0], ticks), ["0", *labels]
    ax.set_xticks(ticks, labels)
    ax.set_xlabel("time t (learning rate × steps)")


# --------------------------------------------------------------------------- dispersion


def dispersion(found: Results, *, ax: Axes | None = None, legend: bool = True) -> Axes:
    """E[NTK^2] / E[NTK]^2 on the diagonal against depth / width.

    Args:
        found: from `nr.finite.dispersion_study`: `dispersion` with its standard error
            and what theory predicts, over (`depth`, `width`) with the coordinate
            `ratio`; several by label, or with a dimension `family`, are compared.
        ax: where to draw; `None` for a new figure.
        legend: whether to name families or widths above the axes.

    Returns:
        The axes. Bars are two standard errors; theory, where there is one, is dashed at
        these widths, and dotted in the limit of large width.

    Raises:
        ValueError: `found` is of another function.

    Example:
        `nr.plot.dispersion(nr.finite.dispersion_study(spec, [2, 4, 8], [32], 1000))`
    """
    measured = ("ratio", "dispersion", "dispersion_sem")
    needs = (*measured, "predicted_dispersion", "limit_dispersion")
    families = by_family(found, needs, "nr.finite.dispersion_study")
    with drawing.style():
        ax = drawing.one_axes(ax)
        for label, look, one in _networks(families):
            ax.errorbar(
                one.ratio.values,
                one.dispersion.values,
                2 * one.dispersion_sem.values,
                **look | {"linestyle": "", "capsize": 2, "label": label},
            )
            for name, text, line in _THEORIES:
                drawing.theory_line(
                    ax, one.ratio.values, one[name].values, text, linestyle=line
                )
        drawing.log_axis(ax.xaxis, steps=(1, 2, 5))
        drawing.log_axis(ax.yaxis, steps=(1, 1.2, 1.5, 2, 3, 5))
        ax.set_xlabel("depth / width, L / m")
        ax.set_ylabel(r"$E[\Theta^2] / E[\Theta]^2$ of the NTK Θ")
        if legend:
            drawing.legend(ax)
    return ax


_THEORIES = (
    ("predicted_dispersion", "theory, width m", THEORY["linestyle"]),
    ("limit_dispersion", "theory, large width", ":"),
)


def _networks(families):
    """Label, look and result over depth: of each family, or of each width of one."""
    one, *others = families.values()
    if not others and "width" in one.dims:
        shades = drawing.shades(one.sizes["width"])
        for width, shade in zip(one["width"].values, shades, strict=True):
            look = {"color": shade, "marker": "o"}
            yield f"m = {width}", look, one.sel(width=width)
        return
    for label, look in looks(families).items():
        one = families[label]
        widths = one["width"].values if "width" in one.dims else [None]
        for width in widths:
            yield label, look, one if width is None else one.sel(width=width)
