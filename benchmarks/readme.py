"""Puts the tables of the saved records into the README: `python benchmarks/readme.py`.

They replace what stands between the two marker comments.
"""

import pathlib
import sys

from harness import latest, seconds
from plot import of

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
README = pathlib.Path(__file__).parent.parent / "README.md"


def depth_table(records) -> list[str]:
    """A row a family: all depths by us, ten of them by neural-tangents."""
    sizes = records[-1]["sizes"]
    lines = [
        f"| Every depth 1..{sizes['deepest']:,}, {sizes['angles']} angles, "
        f"{sizes['dtype']} | first result | after that "
        "| neural-tangents, ten depths: first | after that |",
        "|---|---:|---:|---:|---:|",
    ]
    families: dict[str, list[str]] = {}
    for record in records:
        if record["sizes"] == sizes | {"family": record["sizes"]["family"]}:
            times = [seconds(record["first_s"]), seconds(record["median_s"])]
            families.setdefault(record["sizes"]["family"], []).extend(times)
    return lines + [f"| {name} | {' | '.join(t)} |" for name, t in families.items()]


def accuracy_table(records) -> list[str]:
    """The worst error of a gap in each dtype, over networks and angles."""
    exact = [r for r in records if r["sizes"]["against"] == "50 digits"]
    depths = sorted({record["sizes"]["depth"] for record in exact})
    lines = [
        "| Worst relative error of a gap at depth | "
        + " | ".join(f"{depth:,}" for depth in depths)
        + " |",
        "|---|" + "---:|" * len(depths),
    ]
    for dtype in ("float64", "float32"):
        worst = dict.fromkeys(depths, 0.0)
        for record in exact:
            if record["sizes"]["dtype"] == dtype:
                depth = record["sizes"]["depth"]
                worst[depth] = max(worst[depth], record["nngp"], record["ntk"])
        cells = " | ".join(f"{error:.0e}" for error in worst.values())
        lines.append(f"| {dtype} | {cells} |")
    return lines


TABLES = {"depth": depth_table, "accuracy": accuracy_table}


def text_of(records) -> str:
    """What stands between the markers: the tables of each question and machine."""
    parts = []
    for question, table in TABLES.items():
        for machine, own in of(records, question).items():
            jax, commit = own[-1]["jax"], own[-1].get("commit", "unknown")
            caption = f"*{machine}, jax {jax}, commit {commit}*"
            parts.append("\n".join([*table(own), "", caption]))
    return "\n\n".join(parts)


def filled(readme: str, records) -> str:
    """The text with what stands between the markers replaced.

    Raises:
        ValueError: it does not hold both markers, in order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the README lacks the lines {BEGIN!r} and {END!r}; add them.")
    return f"{before}{BEGIN}\n{text_of(records)}\n{END}{after}"


def main() -> int:
    README.write_text(filled(README.read_text(), latest()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
