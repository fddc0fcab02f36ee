"""Spectra and learning curves as figures; see `figures` for how they are made."""

from typing import Any

import numpy as np
import xarray as xr

from ntk_resnet.plot import drawing
from ntk_resnet.plot.drawing import THEORY, style

_LOOKS = {
    "plain, L = 1": ("#e69f00", "o"),
    "plain, L = 10": ("#d55e00", "^"),
    "plain, L = 100": ("#8c3a00", "v"),
    "γ = 1/2, L = 100": ("#009e73", "D"),
    "γ = 1, L = 100": ("#0072b2", "s"),
}
_OTHERS = ("#56b4e9", "X")  # a network that is none of the study's


def plot_spectra(spectra: xr.Dataset, *, axes: Any = None):
    """Leading eigenvalues, what they hold of the target, and the distribution of all.

    Returns the axes, `(1, 3)`.
    """
    n = spectra.attrs["rows"]
    with style():
        axes = drawing.given(axes, 1, 3, height=2.7)
        leading, captured, shares = axes.flat
        index = spectra.index.values
        for name in spectra.family.values:
            one, look = spectra.sel(family=name), _look(name)
            leading.plot(index, one.eigenvalue.values / n, **look, markevery=0.1)
            captured.plot(index, one.captured.values, **look, markevery=0.1)
            look = {"color": look["color"]}
            share, error = one.share.values, one.standard_error.values
            shares.plot(spectra["at"].values, share, **look)
            low, high = share - 3 * error, share + 3 * error
            shares.fill_between(spectra["at"].values, low, high, alpha=0.2, **look)
        for ax in (leading, captured):
            drawing.log_axis(ax.xaxis)
            ax.set_xlabel("index i")
        leading.set_yscale("log")
        leading.set_ylabel("eigenvalue λᵢ / n")
        captured.set_ylabel("target's power in the first i")
        captured.set_ylim(0, 1.02)
        shares.set_xscale("log")
        shares.set_xlabel("eigenvalue λ / n")
        shares.set_ylabel("share of eigenvalues at most λ")
        _legend(leading, spectra)
    return axes


def plot_mercer(mercer: xr.Dataset, *, axes: Any = None):
    """Eigenvalues by degree, even ones as a line, odd ones as points, and their power.

    Left all networks beside the predicted power; right each over that of the Laplace
    kernel. Returns the axes, `(1, 2)`.
    """
    dim, degree = mercer.attrs["dim"], mercer.degree.values
    shifted = degree + (dim - 2) / 2
    with style():
        axes = drawing.given(axes, 1, 2, height=3.0)
        left, right = axes.flat
        laplace = mercer.laplace_log10_eigenvalue.values
        for name in mercer.family.values:
            colour, marker = _LOOKS.get(str(name), _OTHERS)
            logs = mercer.log10_eigenvalue.sel(family=name).values
            for parity in (0, 1):
                shown = (degree % 2 == parity) & (degree > 0) & np.isfinite(logs)
                look = {"color": colour, "alpha": 1 - 0.5 * parity}
                look |= {"markersize": 3, "marker": marker if parity else ""}
                look |= {"linestyle": "" if parity else "-"}
                left.plot(shifted[shown], logs[shown], **look)
                right.plot(shifted[shown], (logs - laplace)[shown], **look)
        _draw_power(left, mercer, shifted)
        for ax in (left, right):
            ax.set_xscale("log")
            ax.set_xlabel(f"k + (d − 2)/2, degree k, d = {dim}")
        kernel = mercer.attrs["get"].upper()
        left.set_ylabel(f"log₁₀ of the eigenvalue μₖ, {kernel}")
        right.set_ylabel("log₁₀ of μₖ over the Laplace kernel's")
        left.plot([], [], color="k", label="even degrees")
        left.plot([], [], "ok", alpha=0.5, markersize=3, label="odd degrees")
        left.legend(loc="lower left")
        _legend(left, mercer, markers=False)
    return axes


def _draw_power(ax, mercer, shifted):
    """The predicted power of the degree, through the last even eigenvalue of each."""
    for name in mercer.family.values:
        one = mercer.sel(family=name)
        logs, power = one.log10_eigenvalue.values, float(one.predicted_exponent)
        finite = np.flatnonzero(np.isfinite(logs) & (one.degree.values % 2 == 0))
        if not np.isfinite(power) or finite.size == 0:
            continue
        last = finite[-1]
        late = shifted >= shifted[last] / 4
        line = logs[last] + power * np.log10(shifted / shifted[last])
        ax.plot(shifted[late], line[late], **THEORY)
    text = rf"theory: $(k+\frac{{d-2}}{{2}})^{{{power:g}}}$"
    ax.plot(
        [], [], **THEORY, label=text.replace("-", "−") if np.isfinite(power) else ""
    )


def plot_learning_curves(curves: xr.Dataset, *, axes: Any = None):
    """Test error against the number of examples: measured points, predicted lines.

    Error bars are three standard errors over trials. Returns the axes, `(1, 1)`.
    """
    with style():
        axes = drawing.given(axes, 1, 1, height=3.2)
        ax = axes[0, 0]
        n = curves.n.values
        for name in curves.family.values:
            one, look = curves.sel(family=name), _look(name)
            ax.plot(n, one.test_mse.values, **THEORY)
            ax.errorbar(
                n,
                one.measured_test_mse.values,
                3 * one.measured_test_mse_error.values,
                linestyle="",
                elinewidth=0.9,
                **look,
            )
        ax.set_xscale("log")
        ax.set_xticks(n, [str(size) for size in n])
        ax.set_xticks([], minor=True)
        ax.set_yscale("log")
        ax.set_xlabel("training points n")
        ax.set_ylabel("test mean squared error")
        _legend(ax, curves, theory="predicted from the spectrum")
    return axes


def plot_ridge(regression: xr.Dataset, *, axes: Any = None):
    """Test and leave-one-out error against the ridge. Returns the axes, `(1, 1)`."""
    with style():
        axes = drawing.given(axes, 1, 1, height=2.9)
        ax, ridge = axes[0, 0], regression.ridge.values
        for name, label, (colour, marker) in (
            ("test_error", "test rows", _LOOKS["plain, L = 10"]),
            ("loo_error", "leave-one-out", _LOOKS["γ = 1, L = 100"]),
        ):
            values = regression[name].values
            ax.plot(ridge, values, color=colour, marker=marker, label=label)
        ax.set_xscale("log" if (ridge > 0).all() else "symlog")
        ax.set_xlabel("ridge λ, relative to the mean diagonal")
        classify = bool(regression.attrs["classes"])
        ax.set_ylabel(
            "share misclassified" if classify else "error / variance of targets"
        )
        ax.set_ylim(bottom=0)
        ax.legend()
    return axes


def _look(name) -> dict[str, Any]:
    colour, marker = _LOOKS.get(str(name), _OTHERS)
    look: dict[str, Any] = {"color": colour, "marker": marker}
    if name == "plain, L = 1":  # its curves are often those of γ = 1: rings around them
        look |= {"markersize": 8, "markerfacecolor": "none"}
    return look


def _legend(ax, dataset, theory=None, markers=True):
    handles = []
    for name in dataset.family.values:
        look = _look(name) if markers else {"color": _look(name)["color"]}
        handles.append(ax.plot([], [], **look, label=str(name))[0])
    if theory:
        handles.append(ax.plot([], [], **THEORY, label=theory)[0])
    ax.figure.legend(handles=handles, loc="outside upper left", ncols=3)
