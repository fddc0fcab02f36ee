"""Puts the tables of the saved records into the README: `python benchmarks/readme.py`.

They replace what stands between the two marker comments.
"""

import pathlib
import sys
from collections.abc import Iterable, Sequence

from harness import latest, seconds
from plot import of

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
README = pathlib.Path(__file__).parent.parent / "README.md"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, all columns but the first aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def alike(records, *names) -> list[dict]:
    """The records whose sizes of these names are those of the last one."""
    last = records[-1]["sizes"]
    return [
        record
        for record in records
        if all(record["sizes"].get(name) == last.get(name) for name in names)
    ]


def depth_table(records) -> list[str]:
    """A row a family: all depths by us, ten of them by neural-tangents."""
    sizes = records[-1]["sizes"]
    families: dict[str, list[str]] = {}
    for record in alike(records, "deepest", "angles", "dtype"):
        times = [seconds(record["first_s"]), seconds(record["median_s"])]
        families.setdefault(record["sizes"]["family"], []).extend(times)
    head = [
        f"Every depth 1..{sizes['deepest']:,}, {sizes['angles']} angles, "
        f"{sizes['dtype']}",
        "first result",
        "after that",
        "neural-tangents, ten depths: first",
        "after that",
    ]
    return table(head, ([name, *times] for name, times in families.items()))


def accuracy_table(records) -> list[str]:
    """The worst error of a gap in each dtype, over networks and angles."""
    exact = [r for r in records if r["sizes"]["against"] == "50 digits"]
    depths = sorted({record["sizes"]["depth"] for record in exact})
    rows = []
    for dtype in ("float64", "float32"):
        worst = dict.fromkeys(depths, 0.0)
        for record in exact:
            if record["sizes"]["dtype"] == dtype:
                depth = record["sizes"]["depth"]
                worst[depth] = max(worst[depth], record["nngp"], record["ntk"])
        rows.append([dtype, *(f"{error:.0e}" for error in worst.values())])
    head = ["Worst relative error of a gap at depth", *(f"{d:,}" for d in depths)]
    return table(head, rows)


def gram_table(records) -> list[str]:
    """A row a kind of product and dtype, the time over that of X Xᵀ at each depth."""
    records = alike(records, "n", "d")
    sizes = records[-1]["sizes"]
    product, rows = "", dict[str, list[str]]()
    for record in records:
        own = record["sizes"]
        if "depth" not in own:
            product = seconds(record["median_s"])  # the first of its dtype's cases
            continue
        key = f"{own['products']}, {own['dtype']}"
        rows.setdefault(key, [key, product]).append(f"{record['ratio']:.2f}")
    depths = dict.fromkeys(
        r["sizes"]["depth"] for r in records if "depth" in r["sizes"]
    )
    head = [
        f"Gram matrix, n = {sizes['n']:,}, d = {sizes['d']}: time over that of X Xᵀ",
        "X Xᵀ",
        *(f"L = {depth:,}" for depth in depths),
    ]
    return table(head, rows.values())


def profile_table(records) -> list[str]:
    """The construction of profiles, in a fresh process and after it."""
    head = ["Construction of the profile", "compilation included", "after that"]
    times = ((r["case"], r["first_s"], r["median_s"]) for r in records)
    return table(head, ([name, *map(seconds, both)] for name, *both in times))


def peer_table(records) -> list[str]:
    """A row a dtype: ours, theirs, and how often the one fits into the other."""
    records = alike(records, "n", "depth")
    sizes = records[-1]["sizes"]
    head = [f"NTK, n = {sizes['n']:,}, L = {sizes['depth']:,}"]
    for when in ("first result", "after that"):
        head += [f"nr.gram: {when}", "neural-tangents", "times as fast"]
    rows = []
    for ours, theirs in zip(records[::2], records[1::2], strict=True):
        row = [ours["sizes"]["dtype"]]
        ratios = theirs["first_s"] / ours["first_s"], theirs["ratio"]
        for key, ratio in zip(("first_s", "median_s"), ratios, strict=True):
            row += [seconds(ours[key]), seconds(theirs[key]), f"{ratio:.3g}"]
        rows.append(row)
    return table(head, rows)


def symmetry_table(records) -> list[str]:
    """A row a way: the triangle and the full matrix."""
    rows = [
        [
            f"{half['case'].partition(',')[0]}, L = {half['sizes']['depth']:,}, "
            f"n = {half['sizes']['n']:,}, {half['sizes']['dtype']}",
            *map(seconds, (half["median_s"], full["median_s"])),
            f"{full['ratio']:.2f}",
        ]
        for half, full in zip(records[::2], records[1::2], strict=True)
    ]
    return table(["Symmetric matrix", "triangle", "full", "ratio"], rows)


def rates_table(records) -> list[str]:
    """A row a case: time, entries of the matrix a second, memory."""
    names = ["time", "entries a second", "peak memory"]
    rows = [
        [
            record["case"],
            seconds(record["median_s"]),
            f"{record['entries_per_s']:.2g}",
            f"{record.get('device_peak_mb', record['peak_mb']) / 1e3:.2f} GB",
        ]
        for record in records
    ]
    sizes = records[-1]["sizes"]
    return table([f"L = {sizes['depth']:,}, {sizes['dtype']}", *names], rows)


def errors_table(records) -> list[str]:
    """A row an angle: the worst errors over the networks, of each method."""
    records = alike(records, "depth", "pairs", "d")
    worst: dict[tuple, float] = {}
    for record in records:
        own = record["sizes"]
        gaps = max(record["nngp_gap"], record["ntk_gap"])
        for kind, error in (("entries", record["entry"]), ("gaps", gaps)):
            key = own["angle"], (own["method"], own["dtype"], kind)
            worst[key] = max(worst.get(key, 0.0), error)
    # Plain products promise no gaps.
    columns = dict.fromkeys(column for _, column in worst if column[0] != "plain")
    angles = dict.fromkeys(angle for angle, _ in worst)
    names = {"split": "nr.gram"}
    head = [f"Worst error at angle, L = {records[-1]['sizes']['depth']:,}"]
    head += [f"{names.get(by, by)}, {dtype}: {kind}" for by, dtype, kind in columns]
    rows = (
        [f"{angle:g}", *(f"{worst[angle, column]:.0e}" for column in columns)]
        for angle in angles
    )
    return table(head, rows)


TABLES = {
    "gram": gram_table,
    "profile": profile_table,
    "peer": peer_table,
    "errors": errors_table,
    "symmetry": symmetry_table,
    "operator": rates_table,
    "device": rates_table,
    "depth": depth_table,
    "accuracy": accuracy_table,
}


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
