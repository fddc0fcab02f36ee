"""Figures of the saved records: `python benchmarks/plot.py` writes results/*.png."""

import argparse
import itertools
import pathlib
import sys

from harness import RESULTS, latest
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

PROMISED = {"float64": 1e-11, "float32": 2e-5}  # by the docstring of `kernel_fn`
ALLOWED = {"split": 4, "plain": 2.5}  # times X Xᵀ


def of(records, question):
    """The records of a question by machine."""
    found = [record for record in records if record["question"] == question]
    found.sort(key=lambda record: record["machine"])  # stable: cases keep their order
    by_machine = itertools.groupby(found, key=lambda record: record["machine"])
    return {machine: list(group) for machine, group in by_machine}


def plot_times(records):
    """Bars of the first result, compilation included, and of those after it."""
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(records)), layout="constrained")
    axes = figure.subplots()
    rows = range(len(records))
    for key, shift, label in (
        ("first_s", -0.2, "first result, compilation included"),
        ("median_s", 0.2, "after that (median)"),
    ):
        times = [record[key] for record in records]
        places = [row + shift for row in rows]
        axes.barh(places, times, height=0.38, label=label)
    axes.set_yticks(rows, [record["case"] for record in records])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("time (s)")
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return axes


def plot_accuracy(records):
    """The worse error of the two gaps against depth, a panel for each dtype."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    exact = [r for r in records if r["sizes"]["against"] == "50 digits"]
    for axes, (dtype, promised) in zip(panels, PROMISED.items(), strict=True):
        for at, name in enumerate(dict.fromkeys(record["case"] for record in exact)):
            own = [
                (record["sizes"]["depth"], max(record["nngp"], record["ntk"]))
                for record in exact
                if record["case"] == name and record["sizes"]["dtype"] == dtype
            ]
            marker = ".x"[at // 10]  # the colours repeat after ten
            axes.plot(*zip(*sorted(own), strict=True), marker=marker, label=name)
        axes.axhline(promised, color="black", linestyle="--", label="promised")
        axes.set(xscale="log", yscale="log", title=dtype, xlabel="depth L")
    panels[0].set_ylabel("relative error of the gaps")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right upper", fontsize="small")
    return panels


def plot_ratios(records):
    """The time of Gram matrices over that of X Xᵀ, against depth."""
    axes = Figure(figsize=(6, 4), layout="constrained").subplots()
    deep = [
        record["sizes"] | record for record in records if "depth" in record["sizes"]
    ]
    lines = dict.fromkeys((record["dtype"], record["products"]) for record in deep)
    for dtype, products in lines:
        own = sorted(
            (record["depth"], record["ratio"])
            for record in deep
            if (record["dtype"], record["products"]) == (dtype, products)
        )
        depths, ratios = zip(*own, strict=True)
        axes.plot(depths, ratios, marker="o", label=f"{products}, {dtype}")
    for products, ratio in ALLOWED.items():
        axes.axhline(ratio, color="black", linestyle="--", linewidth=0.8)
        axes.annotate(f"{products}: at most {ratio}", (1, ratio), va="bottom")
    axes.set(xscale="log", xlabel="depth L", ylabel="time over that of X Xᵀ")
    axes.set_ylim(0, 1.1 * max(axes.get_ylim()[1], *ALLOWED.values()))
    axes.figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return axes


def plot_errors(records):
    """The worse error of the two gaps against the angle, a panel for each dtype."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    rows = [record["sizes"] | record for record in records]
    for axes, (dtype, promised) in zip(panels, PROMISED.items(), strict=True):
        for name, method in dict.fromkeys((r["case"], r["method"]) for r in rows):
            own = sorted(
                (row["angle"], max(row["nngp_gap"], row["ntk_gap"]))
                for row in rows
                if (row["case"], row["method"], row["dtype"]) == (name, method, dtype)
            )
            label = f"{name} network: {method}"
            axes.plot(*zip(*own, strict=True), marker=".", label=label)
        axes.axhline(promised, color="black", linestyle="--", label="promised")
        axes.set(xscale="log", yscale="log", title=dtype, xlabel="angle θ")
    panels[0].set_ylabel("relative error of the gaps")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right upper", fontsize="small")
    return panels


FIGURES = {
    "depth": plot_times,
    "accuracy": plot_accuracy,
    "gram": plot_ratios,
    "peer": plot_times,
    "symmetry": plot_times,
    "device": plot_times,
    "errors": plot_errors,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=RESULTS)
    folder = parser.parse_args(argv).folder
    records = latest(folder)
    for question, draw in FIGURES.items():
        for machine, own in of(records, question).items():
            axes = draw(own)
            path = folder / f"{question}-{machine}.png"
            figure = getattr(axes, "flat", [axes])[0].figure
            figure.suptitle(f"{machine}, jax {own[-1]['jax']}", fontsize="small")
            figure.savefig(path, dpi=120, metadata={"Software": None})
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
