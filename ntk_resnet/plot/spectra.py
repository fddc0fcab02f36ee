"""Eigenvalues, on data and on the sphere, and the learning curves that they predict."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ntk_resnet._checks import check_choice
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import Results, by_family, check, looks


def spectrum(
    found: Results,
    quantity: str = "eigenvalue",
    *,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Eigenvalues of kernel matrices, largest first, or what they hold of the targets.

    Args:
        found: from `nr.spectrum`: `eigenvalue` over `index`, or of an operator over
            `leading`; several by label, or with a dimension `family`, are compared.
        quantity: `"eigenvalue"`, or `"alignment"`, the share of the targets' power in
            the first i eigenvectors (`cumulative_alignment`, of `nr.spectrum` with
            `targets=`), the mean over outputs.
        ax: where to draw; `None` for a new figure.
        legend: whether to name families above the axes.

    Returns:
        The axes; the index i counts from 1.

    Raises:
        ValueError: `found` is of another function, or the quantity is none of these.

    Example:
        `nr.plot.spectrum({"plain": nr.spectrum(k1), "γ = 1/2": nr.spectrum(k2)})`
    """
    check_choice("quantity", quantity, ("eigenvalue", "alignment"))
    shares = quantity == "alignment"
    families = (
        by_family(found, ["cumulative_alignment"], "nr.spectrum(matrix, targets=...)")
        if shares
        else by_family(found, ["eigenvalue"], "nr.spectrum")
    )
    with drawing.style():
        ax = drawing.one_axes(ax)
        for label, look in looks(families).items():
            one = families[label]
            if shares:
                alignment = one.cumulative_alignment
                values = alignment.mean([d for d in alignment.dims if d == "output"])
            else:
                values = one.eigenvalue
            index = np.arange(1, values.size + 1)
            ax.plot(index, values.values, **look, markevery=0.1, label=label)
        drawing.log_axis(ax.xaxis)
        ax.set_xlabel("index i")
        if shares:
            ax.set_ylim(0, 1.02)
            ax.set_ylabel("targets' power in the first i")
        else:
            ax.set_yscale("log")
            ax.set_ylabel("eigenvalue λᵢ")
        if legend:
            drawing.legend(ax)
    return ax


def spectral_distribution(
    found: Results, *, ax: Axes | None = None, legend: bool = True
) -> Axes:
    """The share of eigenvalues that are at most λ, in bands of three standard errors.

    Args:
        found: from `nr.spectral_distribution`: `share` and `standard_error` over `at`;
            several by label, or with a dimension `family`, are compared.
        ax: where to draw; `None` for a new figure.
        legend: whether to name families above the axes.

    Returns:
        The axes.

    Raises:
        ValueError: `found` is of another function.

    Example:
        `nr.plot.spectral_distribution(nr.spectral_distribution(nr.spectrum(k), at))`
    """
    needs = ("at", "share", "standard_error")
    families = by_family(found, needs, "nr.spectral_distribution")
    with drawing.style():
        ax = drawing.one_axes(ax)
        for label, look in looks(families).items():
            one, colour = families[label], look["color"]
            at, share, error = (one[name].values for name in needs)
            ax.plot(at, share, color=colour, label=label)
            drawing.band(ax, at, share - 3 * error, share + 3 * error, colour)
        ax.set_xscale("log")
        ax.set_xlabel("eigenvalue λ")
        ax.set_ylabel("share of eigenvalues ≤ λ")
        if legend:
            drawing.legend(ax)
    return ax


def mercer(
    found: Results,
    *,
    relative_to: xr.Dataset | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Eigenvalues on the sphere by degree: even ones as a line, odd ones as points.

    Args:
        found: from `nr.mercer`: `log10_eigenvalue` over `degree`, and
            `predicted_exponent`; several by label, or with a dimension `family`, all of
            one dimension of the sphere, are compared.
        relative_to: what `nr.laplace_mercer` or `nr.mercer` returned for the same
            degrees: draws the ratio to its eigenvalues, without theory.
        ax: where to draw; `None` for a new figure.
        legend: whether to name families above the axes.

    Returns:
        The axes: log10 of the eigenvalue against k + (d-2)/2 for degrees k >= 1.
        Eigenvalues of zero are left out. The predicted power is dashed through the last
        even eigenvalue, where there is one.

    Raises:
        ValueError: `found` or `relative_to` is of another function, or of spheres in
            different dimensions.

    Example:
        `nr.plot.mercer(nr.mercer(spec, dim=3, max_degree=100))`
    """
    needs = ("degree", "log10_eigenvalue")
    families = by_family(found, (*needs, "predicted_exponent"), "nr.mercer")
    dims = {one.attrs.get("dim") for one in families.values()}
    if None in dims or len(dims) > 1:
        raise ValueError(
            f"mercer draws spheres of one dimension, attrs['dim']; got {dims}."
        )
    dim: Any = dims.pop()
    below = 0.0
    if relative_to is not None:
        check(relative_to, needs, "nr.laplace_mercer", " relative_to")
        below = relative_to.log10_eigenvalue
    with drawing.style():
        ax = drawing.one_axes(ax)
        for label, look in looks(families).items():
            one = families[label]
            logs = one.log10_eigenvalue - below
            shifted = logs.degree.values + (dim - 2) / 2
            _draw_parities(ax, shifted, logs, look, label)
            if relative_to is None:
                _draw_power(ax, shifted, logs, float(one.predicted_exponent))
        ax.plot([], [], "ok", alpha=0.5, markersize=3, label="odd k")
        drawing.log_axis(ax.xaxis, steps=(1, 2, 5))
        ax.set_xlabel(f"k + (d − 2)/2, degree k, d = {dim}")
        ratio = "μₖ" if relative_to is None else "(μₖ / reference)"
        ax.set_ylabel(f"log₁₀ {ratio}, eigenvalue μₖ")
        if legend:
            drawing.legend(ax)
    return ax


def _draw_parities(ax, shifted, logs, look, label):
    degree, values = logs.degree.values, logs.values
    for parity in (0, 1):
        shown = (degree % 2 == parity) & (degree > 0) & np.isfinite(values)
        kind: dict = {"linestyle": "", "marker": look["marker"], "markersize": 3}
        if parity == 0:
            kind = {"label": label}
        colour = {"color": look["color"], "alpha": 1 - 0.5 * parity}
        ax.plot(shifted[shown], values[shown], **colour, **kind)


def _draw_power(ax, shifted, logs, power):
    """The predicted power of the degree, through the last even eigenvalue."""
    finite = np.flatnonzero(np.isfinite(logs.values) & (logs.degree.values % 2 == 0))
    if not np.isfinite(power) or finite.size == 0:
        return
    last = finite[-1]
    late = shifted >= shifted[last] / 4
    line = logs.values[last] + power * np.log10(shifted[late] / shifted[last])
    text = rf"theory, $(k+\frac{{d-2}}{{2}})^{{{power:g}}}$".replace("{-", "{−")
    drawing.theory_line(ax, shifted[late], line, text)


def learning_curve(
    found: Results,
    quantity: str = "test_mse",
    *,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Error against the number of training points: predicted, and measured if it was.

    Args:
        found: from `nr.learning_curve`, `nr.learning_curve_on_sphere` or
            `nr.learning_curve_on_data`: the quantity over `n`, and of the last two
            `measured_` with its standard error; several by label, or with a dimension
            `family`, are compared.
        quantity: `"test_mse"` or `"train_mse"`.
        ax: where to draw; `None` for a new figure.
        legend: whether to name families above the axes.

    Returns:
        The axes. Measured means are points with bars of three standard errors and the
        prediction is dashed; where nothing was measured, it has the family's colour.

    Raises:
        ValueError: `found` is of another function, or the quantity is none of these.

    Example:
        `nr.plot.learning_curve(nr.learning_curve_on_data(spec, x, y, [50, 100, 200]))`
    """
    check_choice("quantity", quantity, ("test_mse", "train_mse"))
    families = by_family(found, ("n", quantity), "nr.learning_curve_on_data")
    sizes = sorted({int(n) for one in families.values() for n in one.n.values})
    with drawing.style():
        ax = drawing.one_axes(ax)
        for label, look in looks(families).items():
            one = families[label]
            n, predicted = one.n.values, one[quantity].values
            if f"measured_{quantity}" not in one:
                ax.plot(n, predicted, "--", color=look["color"], label=label)
                continue
            drawing.theory_line(ax, n, predicted, "theory")
            ax.errorbar(
                n,
                one[f"measured_{quantity}"].values,
                3 * one[f"measured_{quantity}_error"].values,
                **look | {"linestyle": "", "elinewidth": 0.9, "label": label},
            )
        ax.set_xscale("log")
        ax.set_xticks(sizes, [str(n) for n in sizes])
        ax.set_xticks([], minor=True)
        ax.set_yscale("log")
        ax.set_xlabel("training points n")
        ax.set_ylabel(f"{quantity.split('_')[0]} mean squared error")
        if legend:
            drawing.legend(ax)
    return ax
