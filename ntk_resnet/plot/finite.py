"""Figures of finite networks: the dispersion of their kernels."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ntk_resnet.plot import depth as figures
from ntk_resnet.plot import drawing
from ntk_resnet.plot.drawing import THEORY, new_axes, style

_LOOKS = (("#d55e00", "o"), ("#009e73", "D"), ("#0072b2", "s"), ("#e69f00", "^"))


def plot_dispersion(dispersion: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """E[NTK^2] / E[NTK]^2 against depth over width, with error bars of 2 s.e.

    Args:
        dispersion: from `dispersion_study`, a line a width; or over `family` in place
            of `width`, a line a family.
        ax: where to draw; `None` for a new figure.

    Theory, where there is one, is dashed: exact at these widths, and dotted its limit.
    """
    over = "family" if "family" in dispersion.dims else "width"
    with style():
        ax = new_axes(height=2.9)[0, 0] if ax is None else ax
        for k, name in enumerate(dispersion[over].values):
            one = dispersion.sel({over: name})
            colour, marker = _LOOKS[k % len(_LOOKS)]
            ax.errorbar(
                one.ratio.values,
                one.dispersion.values,
                2 * one.dispersion_sem.values,
                fmt=marker,
                color=colour,
                capsize=2,
                label=str(name) if over == "family" else f"width {name}",
            )
            _theory(ax, one)
        ax.plot([], [], **THEORY, label="theory at this width")
        ax.plot([], [], **_LIMIT, label="its limit, large width")
        drawing.log_axis(ax.xaxis, steps=(1, 2, 5))
        drawing.log_axis(ax.yaxis, steps=(1, 1.2, 1.5, 2, 3, 5))
        ax.set_xlabel("depth / width")
        ax.set_ylabel(r"dispersion of the NTK, $E[\Theta^2] / E[\Theta]^2$")
        handles, labels = ax.get_legend_handles_labels()
        # Networks before theory.
        ax.legend(handles[2:] + handles[:2], labels[2:] + labels[:2], loc="upper left")
    return ax


_LIMIT: dict[str, Any] = {**THEORY, "linestyle": ":"}


def _theory(ax, one):
    for name, look in (("predicted_dispersion", THEORY), ("limit_dispersion", _LIMIT)):
        if np.isfinite(one[name]).any():
            ax.plot(one.ratio.values, one[name].values, **look)


def plot_finite_width(width: xr.Dataset, *, axes: Any = None):
    """Error against width, and beside it dispersion against depth over width.

    Args:
        width: from `width_study`, merged with what `dispersion_of_families` returns.
        axes: two axes, or `None` for new ones.

    Returns:
        The axes, `(1, 2)`.
    """
    with style():
        axes = drawing.given(axes, 1, 2, height=2.9)
    figures.plot_width(width, ax=axes[0, 0])
    plot_dispersion(width, ax=axes[0, 1])
    return axes


def plot_agreement(found: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Mean empirical kernels of finite networks less the closed form, entry by entry.

    Args:
        found: `deviation`, in standard errors, over `network`, `kernel` and `entry`.
        ax: where to draw; `None` for a new figure.
    """
    with style():
        ax = new_axes(height=2.4)[0, 0] if ax is None else ax
        places = np.arange(found.sizes["network"])
        for k, kernel in enumerate(found.kernel.values):
            colour, marker = _LOOKS[k]
            for place, name in zip(places, found.network.values, strict=True):
                values = found.deviation.sel(network=name, kernel=kernel).values
                beside = (
                    place + 0.24 * (k - 0.5) + np.linspace(-0.09, 0.09, len(values))
                )
                label = str(kernel).upper() if place == 0 else None
                ax.plot(beside, values, marker, color=colour, label=label)
        ax.axhspan(-3, 3, color=THEORY["color"], alpha=0.06, linewidth=0)
        ax.axhline(0, **THEORY, label="closed form")
        ax.set_xlim(-0.6, places[-1] + 0.6)
        ax.set_xticks(places, found.network.values)
        ax.set_ylim(-4.5, 5.5)
        ax.set_xlabel("network")
        ax.set_ylabel("(mean − closed form) / s.e.")
        ax.legend(loc="upper left", ncols=3)
    return ax
