"""Results by family of networks, and one colour and marker for a family everywhere."""

import fractions
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib.colors
import numpy as np
import xarray as xr

Results = xr.Dataset | Mapping[str, xr.Dataset]
"""One result, with or without a dimension `family`, or several by label."""

_LOOKS = {
    "plain": ("#d55e00", "o"),
    "γ = 1": ("#0072b2", "s"),
    "γ = 1/2": ("#009e73", "D"),
    "γ = 1/4": ("#e69f00", "^"),
    "α = 1": ("#cc79a7", "v"),
    "plain, circular": ("#56b4e9", "X"),
}
# Okabe and Ito's palette, told apart by colour-blind readers too; without black, which
# is theory's.
_PALETTE = ("#56b4e9", "#cc79a7", "#e69f00", "#009e73", "#0072b2", "#d55e00", "#f0e442")
_MARKERS = ("X", "v", "^", "D", "s", "o", "P")


def looks(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each label, as keywords of `Axes.plot`.

    The part before a comma names the family: `"plain, L = 10"` has the colour and the
    marker of `"plain"`. Where a figure shows a family several times, they are shades of
    its colour, the shallowest network light and as a ring. Labels of no family in the
    table have, in their order, the first colours that nothing else in the figure has.
    """
    labels = list(labels)
    members: dict[str, list[str]] = {}
    for label in labels:
        members.setdefault(_family_of(label), []).append(label)
    taken = {_LOOKS[family][0] for family in members if family in _LOOKS}
    pairs = list(zip(_PALETTE, _MARKERS, strict=True))
    free = [pair for pair in pairs if pair[0] not in taken] or pairs
    unknown = [family for family in members if family not in _LOOKS]
    table = _LOOKS | {name: free[k % len(free)] for k, name in enumerate(unknown)}
    found = {}
    for family, own in members.items():
        colour, marker = table[family]
        own = sorted(own, key=_depth_of)
        for shade, label in zip(tones(colour, len(own)), own, strict=True):
            # The plain network on top where lines meet.
            order = 2.5 if family == "plain" else 2
            found[label] = {"color": shade, "marker": marker, "zorder": order}
        if len(own) > 1:
            found[own[0]] |= {"markersize": 8, "markerfacecolor": "none"}
    return {label: found[label] for label in labels}


def tones(colour: str, count: int) -> list[str]:
    """So many shades of a colour, from light to dark; of one, the colour itself."""
    if count == 1:
        return [colour]
    rgb, found = np.array(matplotlib.colors.to_rgb(colour)), []
    for share in np.linspace(-0.45, 0.45, count):
        towards = np.ones(3) if share < 0 else np.zeros(3)
        mixed = rgb + abs(share) * (towards - rgb)
        found.append(matplotlib.colors.to_hex(mixed))
    return found


def full_name(label: str) -> str:
    """The label in words: `γ = 1/2` is a residual network's."""
    return f"residual, {label}" if label.startswith(("γ", "α")) else label


def by_family(
    results: Any, needs: Iterable[str], made_by: str
) -> dict[str, xr.Dataset]:
    """Results by the full names of their labels, checked to hold the variables `needs`.

    One result without a dimension `family` is named after the specification in its
    attributes, `"plain"` or `"γ = 1/2"`; `""` where that tells no family.

    Args:
        results: a Dataset, or several by label.
        needs: the variables and coordinates that the figure is drawn from.
        made_by: the function that returns such a Dataset, for the message.

    Raises:
        ValueError: a variable is missing, or there is no Dataset.
    """
    if isinstance(results, xr.Dataset):
        check(results, needs, made_by)
        if "family" in results.dims:
            names = [str(name) for name in results["family"].values]
            return {full_name(k): results.sel(family=k) for k in names}
        return {full_name(_label_of(results)): results}
    if not isinstance(results, Mapping) or not results:
        raise ValueError(
            f"pass a Dataset of {made_by}, or several by label as in "
            f"{{'plain': ...}}; got {type(results).__name__}."
        )
    for label, result in results.items():
        check(result, needs, made_by, f" of {label!r}")
    return {full_name(str(label)): result for label, result in results.items()}


def check(result: Any, needs: Iterable[str], made_by: str, whose: str = "") -> None:
    """That a Dataset holds these variables or coordinates; else an error that says so.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(result, xr.Dataset):
        raise ValueError(
            f"the result{whose} is a {type(result).__name__}; pass a Dataset of "
            f"{made_by}."
        )
    if missing := [name for name in needs if name not in result.variables]:
        raise ValueError(
            f"the Dataset{whose} has no {', '.join(map(repr, missing))}; pass what "
            f"{made_by} returns."
        )


def _family_of(label):
    label = label.removeprefix("residual, ")
    return label if label in _LOOKS else label.split(", ")[0]


def _depth_of(label):
    found = re.search(r"L = (\d+)", label)
    return int(found[1]) if found else 0


def _label_of(result):
    spec = json.loads(result.attrs.get("spec", "{}"))
    if spec.get("kind") in ("FeedForward", "ConvNet"):
        return "plain"
    scale = spec.get("branch_scale", {})
    for name, symbol in (("gamma", "γ"), ("alpha", "α")):
        if name in scale:
            value = fractions.Fraction(scale[name]).limit_denominator(8)
            exact = abs(float(value) - scale[name]) < 1e-12
            return f"{symbol} = {value if exact else format(scale[name], '.3g')}"
    return ""
