"""Text and numbers of the report as HTML; everything put in is escaped."""

import html
import itertools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ntk_resnet.plot.families import full_name

MERCER = {
    "family": "network",
    "exponent": "fitted exponent",
    "exponent_low": "95 % from",
    "exponent_high": "to",
    "predicted_exponent": "predicted",
    "imbalance": "μ₃ / μ₂",
    "tail": "beyond the last degree",
}
"""Columns of the table of eigenvalues on the sphere, of the page and the terminal."""


def paper_table(paper):
    """At the cosines nearest to -0.9, -0.5, 0, 0.3, 0.7 and 0.95."""
    at = [-0.9, -0.5, 0.0, 0.3, 0.7, 0.95]
    near = paper.sel(cosine=at, method="nearest")
    head = ["network", "depth", *(f"u = {u:.3f}" for u in near.cosine.values)]
    rows = [
        [full_name(family), depth, *map(number, values)]
        for family, deep in zip(near.family.values, near.ntk.values, strict=True)
        for depth, values in zip(near.depth.values.tolist(), deep, strict=True)
    ]
    return table(head, rows)


def kernel_table(kernels, which):
    angles = np.linspace(0, len(kernels.angle) - 1, 7).round().astype(int)
    head = ["network", "depth", *(f"θ = {t:.2f}" for t in kernels.angle.values[angles])]
    rows = [
        [
            full_name(family),
            depth,
            *map(number, kernels[which].values[i, j, angles]),
        ]
        for i, family in enumerate(kernels.family.values.tolist())
        for j, depth in enumerate(kernels.depth.values.tolist())
    ]
    return table(head, rows)


def degeneracy_table(found):
    columns = {
        "ntk_mean": "mean NTK",
        "predicted_ntk": "predicted",
        "ntk_spread": "its spread",
        "distance": "distance to 1/4",
        "nngp_gap": "NNGP gap",
        "predicted_nngp_gap": "predicted",
        "condition_number": "condition number",
        "predicted_condition_number": "predicted limit",
        "effective_rank": "effective rank",
    }
    head = ["network", "depth", *columns.values()]
    rows = []
    for family in found.family.values.tolist():
        for depth in found.depth.values.tolist():
            one = found.sel(family=family, depth=depth)
            numbers = [number(float(one[name])) for name in columns]
            rows.append([full_name(family), depth, *numbers])
    return table(head, rows)


def regression_table(found):
    measures = {"mse": "MSE / variance", "r2": "R²", "accuracy": "accuracy"}
    if not found.attrs["classes"]:
        measures.pop("accuracy")
    head = ["network", "depth", *(f"{label} ± 95 %" for label in measures.values())]
    rows = []
    for family in found.family.values.tolist():
        for depth in found.depth.values.tolist():
            one = found.sel(family=family, depth=depth)
            cells = []
            for name in measures:
                mean, high = float(one[f"{name}_mean"]), float(one[f"{name}_high"])
                cells.append(f"{mean:.4f} ± {high - mean:.4f}")
            rows.append([full_name(family), depth, *cells])
    return table(head, rows)


def rates_table(found):
    head = ["γ", *(f"L = {depth}" for depth in found.block_depth.values)]
    rows = [
        [
            f"{gamma:g}",
            *map(number, found.shallow_distance.sel(exponent=gamma).values),
        ]
        for gamma in found.exponent.values
    ]
    cosines = found.cosine.values
    head_plain = ["plain, L", "readout", *(f"u = {u:g}" for u in cosines)]
    rows_plain = [
        [int(depth), readout, *(number(v, 6) for v in row)]
        for depth in found.plain_depth.values[::4]
        for readout, row in zip(
            ("frozen", "trained"),
            found.plain_ntk.sel(plain_depth=depth, trained=["blocks", "all"]).values,
            strict=True,
        )
    ]
    return table(head, rows) + table(head_plain, rows_plain)


def width_table(found):
    head = ["width", "NTK error", "± s.e.", "NNGP error", "± s.e."]
    rows = []
    for width in found.width.values.tolist():
        one = found.sel(width=width)
        names = [
            f"{k}_error_{what}" for k in ("ntk", "nngp") for what in ("mean", "sem")
        ]
        rows.append([width, *(number(float(one[name])) for name in names)])
    return table(head, rows)


def training_table(found):
    head = ["width", "final loss", "predicted", "outputs − prediction", "change of NTK"]
    rows = []
    for width in found.width.values.tolist():
        one = found.sel(width=width).isel(time=-1)
        names = ("loss", "predicted_loss", "output_error", "ntk_drift")
        rows.append([width, *(number(float(one[name].mean())) for name in names)])
    return table(head, rows)


def rows_table(found, over, columns):
    """A line a point of the dimensions `over`; `columns` are names and their labels."""
    rows = []
    for point in itertools.product(*(found[dim].values.tolist() for dim in over)):
        one = found.sel(dict(zip(over, point, strict=True)))
        cells = [one[name].values.item() for name in columns]
        rows.append([number(c) if isinstance(c, float) else c for c in cells])
    return table(list(columns.values()), rows)


def prose(text: str) -> str:
    """Text for the page: escaped, and `L^(1/2)` set as a superscript."""
    return re.sub(r"\^\(([^)]*)\)", r"<sup>\1</sup>", html.escape(text))


def plain(text: str) -> str:
    """Text for a terminal: `L^(1/2)` with the characters that are superscripts."""
    return re.sub(r"\^\(([^)]*)\)", lambda found: found[1].translate(_RAISED), text)


_RAISED = str.maketrans("0123456789-−+/=γdn", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻⁺ᐟ⁼ᵞᵈⁿ")


def predicted(claim: Mapping[str, Any]) -> str:
    """What a claim allows: a bound, a value and its tolerance, or just a value."""
    value = number(claim["prediction"], 5)
    return {"below": f"< {value}", "above": f"> {value}", "interval": value}.get(
        claim["bound"], f"{value} ± {claim['tolerance']:.2g}"
    )


def interval(claim: Mapping[str, Any]) -> str:
    """That around what was measured, and of what kind it is; nothing without one."""
    if not np.isfinite(claim["low"]):
        return ""
    low, high = number(claim["low"]), number(claim["high"])
    return f"[{low}, {high}] {claim['interval']}"


def verdicts(claims) -> str:
    rows = []
    for label in range(claims.sizes["claim"]):
        one = claims.isel(claim=label)
        claim = {name: one[name].values.item() for name in one.variables}
        allowed = html.escape(predicted(claim))
        measured = number(claim["measured"], 5)
        if around := interval(claim):
            measured += f'<span class="interval">{html.escape(around)}</span>'
        holds = claim["holds"]
        verdict = "✓ holds" if holds else "✗ does not hold"
        rows.append(
            f'<tr class="{"holds" if holds else "fails"}">'
            f"<td>{html.escape(claim['claim'])}</td>"
            f"<td>{prose(claim['statement'])}</td>"
            f'<td data-label="predicted">{allowed}'
            f'<span class="interval">{prose(claim["reason"])}</span></td>'
            f'<td data-label="measured">{measured}</td>'
            f"<td><strong>{verdict}</strong></td></tr>"
        )
    head = "".join(
        f"<th>{name}</th>"
        for name in ("claim", "prediction", "predicted", "measured", "verdict")
    )
    return (
        '<div class="wide"><table class="verdicts"><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def table(head: list, rows: list[list]) -> str:
    """Plain cells as an HTML table; everything is escaped."""
    cells = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table class="numbers"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def number(value: float, digits: int = 4) -> str:
    if not np.isfinite(value):
        return "–" if np.isnan(value) else "∞"
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "−")
