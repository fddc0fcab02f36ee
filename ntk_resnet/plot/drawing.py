"""The house style of figures, the pieces they share, and figures as files.

Global matplotlib settings stay as they are: everything happens within `style`.
"""

import contextlib
import html
import io
import itertools
import os
import re
from typing import Any

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, GRID, PAPER = "#1b1b1f", "#d9d9de", "#ffffff"

STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "legend.fontsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "ntk_resnet",
    "path.simplify": True,
}
THEORY: dict[str, Any] = {
    "color": INK,
    "linewidth": 0.9,
    "linestyle": (0, (4, 2)),
    "zorder": 3,
}


PAGE, COLUMN = 7.2, 3.4
"""Widths of figures in inches: of a page, and of a column of two."""


def new_axes(
    rows: int = 1,
    columns: int = 1,
    *,
    width: float = PAGE,
    height: float = 2.6,
    **options: Any,
) -> np.ndarray:
    """Axes of the house style in a new figure: an array `(rows, columns)`.

    Args:
        rows, columns: of the grid.
        width: of the figure in inches; 7.2 fills a page, 3.4 a column.
        height: of a row in inches.
        **options: for `Figure.subplots`, as `sharey=True`.

    Example:
        `left, right = nr.plot.new_axes(1, 2).flat`
    """
    with style():
        figure = Figure(figsize=(width, height * rows + 0.35), layout="constrained")
        FigureCanvasAgg(figure)
        return figure.subplots(rows, columns, squeeze=False, **options)


@contextlib.contextmanager
def style():
    """The house style, for the duration of a `with` block."""
    with matplotlib.rc_context(rc=STYLE):
        yield


def one_axes(ax: Axes | None) -> Axes:
    """The caller's axes, or those of a new figure of page width."""
    return new_axes(height=2.9)[0, 0] if ax is None else ax


def given(axes, rows, columns, **options) -> np.ndarray:
    """The caller's axes as an array of that shape, or new ones."""
    if axes is None:
        return new_axes(rows, columns, **options)
    return np.asarray(axes, object).reshape(rows, columns)


# ------------------------------------------------------------------------------ legends


def legend(ax: Axes) -> None:
    """Above the axes, in as many columns as their width has room for."""
    handles = _labelled([ax])
    if handles:
        place = ax.get_subplotspec()
        share = len(place.colspan) / place.get_gridspec().ncols if place else 0.8
        wide = figure_of(ax).get_figwidth() * share - 0.55  # of labels
        ax.legend(
            handles.values(),
            handles.keys(),
            loc="lower left",
            bbox_to_anchor=(0, 1.01),
            borderaxespad=0,
            **_columns(handles, wide),
        )


def figure_legend(axes: Any) -> None:
    """One legend above the figure, of all that is labelled in some of its axes."""
    figure = figure_of(axes)
    handles = _labelled(np.asarray(axes, object).flat)
    with style():
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside upper left",
            **_columns(handles, figure.get_figwidth()),
        )


def _labelled(axes):
    """Handles by label, each label once, those of theory last."""
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return dict(sorted(found.items(), key=lambda item: item[0].startswith("theory")))


def _columns(labels, inches):
    """As many columns as fit; they are filled one after the other."""
    letters = [len(re.sub(r"[$\\{}^]|frac", "", label)) for label in labels]
    fitting = 1
    for columns in range(2, len(letters) + 1):
        widest = [max(column) for column in np.array_split(letters, columns)]
        if 0.06 * sum(widest) + 0.46 * columns < inches:  # a letter, the mark
            fitting = columns
    rows = -(-len(letters) // fitting)
    columns = -(-len(letters) // rows)  # no more than these rows need
    return {"ncols": columns, "columnspacing": 1.5, "handlelength": 1.8}


# ----------------------------------------------------------------------- axes and marks


def shades(count):
    """A sequential scale for ordered curves, legible on light and on dark paper."""
    return matplotlib.colormaps["plasma"](np.linspace(0.24, 0.87, count))


def log_axis(axis, steps=(1,)):
    """Logarithmic, with numbers written out at `steps` times powers of ten."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(ticker.LogLocator(subs=steps))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(ticker.NullLocator())


def log_axes(ax):
    """Both axes logarithmic, with numbers written out at powers of ten."""
    for axis in (ax.xaxis, ax.yaxis):
        log_axis(axis)


def width_axes(ax, widths):
    """Logarithmic axes with a tick at each width."""
    ax.set_xscale("log")
    ax.set_xticks(widths, [f"{width:g}" for width in widths])
    ax.set_xticks([], minor=True)
    log_axis(ax.yaxis, steps=(1, 2, 5))


def apart(values, least):
    """Heights of labels next to `values`, in the same order, at least so far apart."""
    heights = np.array(values, float)
    order = np.argsort(heights)[::-1]
    for above, below in itertools.pairwise(order):
        heights[below] = min(heights[below], heights[above] - least)
    return heights


def by_width(ax, values, look, label, power):
    """Single networks as small points, their means as a line, and a power of the width.

    The power goes through the middle of the means, in logarithms.
    """
    widths = values.width.values.astype(float)
    single = values.transpose("width", "seed").values
    aside = widths * (0.97 if "markerfacecolor" in look else 1.03)
    ax.plot(aside, single, **look | {"linestyle": ""}, alpha=0.3, markersize=2)
    mean = single.mean(axis=1)
    ax.plot(widths, mean, **look, label=label)
    middle = np.exp(np.mean(np.log(mean) - power * np.log(widths)))
    theory_line(ax, widths, middle * widths**power, "")


def theory_line(ax, x, y, label, **look):
    """What theory says, thin and dashed, where it says something: finite values."""
    known = np.isfinite(y)
    if np.any(known):
        ax.plot(np.asarray(x)[known], y[known], **THEORY | look, label=label)


def intervals(ax, x, measured, **look):
    """Values with the intervals around them: `(values, low, high, ...)`."""
    values, low, high, *_ = measured
    ends = np.maximum([values - low, high - values], 0)  # for the rounding of both
    ax.errorbar(x, values, ends, **look)


def band(ax, x, low, high, colour, alpha=0.18):
    """The colour between two curves, faint."""
    ax.fill_between(x, low, high, color=colour, alpha=alpha, linewidth=0)


def note(ax, x, y, text):
    """A small text above the height `y`, at the fraction `x` of the axes' width."""
    ax.annotate(
        text,
        (x, y),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        fontsize=7.5,
    )


def end_label(ax, x, y, text):
    """A small text to the right of a line's end."""
    ax.annotate(
        text,
        (x, y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        annotation_clip=False,
    )


# -------------------------------------------------------------------------------- files


def figure_of(axes: Any) -> Figure:
    """The figure that one axes or an array of them belongs to."""
    return np.asarray(axes, object).flat[0].get_figure(root=True)


def save(axes: Any, path: str | os.PathLike) -> None:
    """Writes the figure of the axes as SVG or PNG, the same bytes every time.

    Raises:
        OSError: the place is not writable.
    """
    with style():
        name = os.fspath(path)
        metadata = {"Date": None} if name.endswith(".svg") else {"Software": None}
        figure_of(axes).savefig(path, dpi=200, metadata=metadata)


def to_svg(axes: Any, *, name: str, title: str) -> str:
    """The figure of the axes as an SVG element to be put into a page.

    Ink, grid and paper become the CSS variables `--ink`, `--grid` and `--paper`, so
    that the page decides on light and dark; `name` keeps the ids of several figures
    apart, and `title` is what a screen reader says.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure_of(axes).savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in ((INK, "ink"), (GRID, "grid"), (PAPER, "paper")):
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    label = html.escape(title, quote=True)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
