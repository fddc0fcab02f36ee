"""Text and numbers of the report as HTML; everything put in is escaped."""

import html
import re

import numpy as np

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


def prose(text: str) -> str:
    """Text for the page: escaped, with minus signs, `L^(1/2)` set as a superscript."""
    text = re.sub(r"(?<![\w.\-])-(?=\.?\d)", "−", html.escape(text))
    return re.sub(r"\^\(([^)]*)\)", r"<sup>\1</sup>", text)


def plain(text: str) -> str:
    """Text for a terminal: `L^(1/2)` with the characters that are superscripts."""
    return re.sub(r"\^\(([^)]*)\)", lambda found: found[1].translate(_RAISED), text)


_RAISED = str.maketrans("0123456789-−+/=γdn", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻⁺ᐟ⁼ᵞᵈⁿ")


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
