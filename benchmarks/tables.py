"""Puts the tables of the saved records into the pages: `python benchmarks/tables.py`.

In `docs/benchmarks.md` they replace what stands between the two marker comments.
"""

import pathlib
import sys
from collections.abc import Iterable, Sequence

from harness import latest, seconds
from plot import of

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
PAGE = pathlib.Path(__file__).parent.parent / "docs" / "benchmarks.md"


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


def mercer_table(records) -> list[str]:
    """What was checked of eigenvalues on the sphere, and what the largest runs take."""
    cases: dict[str, list[dict]] = {}
    for record in records:
        cases.setdefault(record["case"].partition(",")[0], []).append(record)
    (checked,) = cases["against ball arithmetic"]
    rows = [
        [
            *(f"{record['sizes'][name]:,}" for name in ("dim", "max_degree", "depth")),
            seconds(record["seconds"]),
            f"{record['last_log10']:.1f}",
            f"{record['change']:.0e}",
        ]
        for record in cases["time"]
    ]
    head = ["Eigenvalues on the sphere: dimension", "degrees to", "depth"]
    head += ["time", "log10 of the last", "change with more bits and nodes"]
    exponents = [
        [
            f"{record['case'].partition(', ')[2]}, {record['sizes']['get'].upper()}",
            f"{record['sizes']['dim']}",
            f"{record['exponent']:.3f}",
            f"{record['predicted']:g}",
        ]
        for record in cases["exponent"]
    ]
    text = (
        f"Worst relative error of {checked['sizes']['cases']} scattered eigenvalues "
        f"against ball arithmetic: {checked['worst']:.0e}."
    )
    fitted = table(
        ["Decay over even degrees", "dimension", "fitted", "predicted"], exponents
    )
    return [*table(head, rows), "", text, "", *fitted]


def front_table(records) -> list[str]:
    """A row a matrix: `nr.gram`, and what `nr.kernel_fn` takes beside it, as ratios."""
    rows: dict[tuple, list[str]] = {}
    for record in records:
        sizes = record["sizes"]
        at = sizes["n"], sizes["depth"], sizes["dtype"]
        if "by" in sizes:
            rows[at].append(f"{record['ratio']:.2f}")
        else:
            name = f"n = {at[0]:,}, L = {at[1]:,}, {at[2]}"
            rows[at] = [name, seconds(record["median_s"])]
    head = ["`nr.kernel_fn` beside `nr.gram`", "`nr.gram`"]
    return table(
        [*head, "called", "inside `jit`", "`jit` of a gradient"], rows.values()
    )


def regression_table(records) -> list[str]:
    """A row a solver: time, memory, what residual was reached."""
    rows = []
    for record in records:
        more = record.get("matrix_s")
        spent = seconds(record["solve_s"])
        rows.append(
            [
                record["case"],
                f"{record['sizes']['n']:,}",
                spent if more is None else f"{spent} + {seconds(more)} for the matrix",
                f"{record['peak_mb'] / 1e3:.2f} GB",
                f"{record['residual']:.0e}",
                f"{record['iterations']}" if "iterations" in record else "–",
            ]
        )
    sizes = records[-1]["sizes"]
    head = [f"Regression, L = {sizes['depth']:,}, d = {sizes['d']}", "n", "time"]
    found = table([*head, "peak memory", "residual", "iterations"], rows)
    largest = [record for record in records if "largest_n_here" in record]
    if largest:
        found += [
            "",
            "By its peak memory `KernelRidge` fits up to n = "
            f"{largest[-1]['largest_n_here']:,} on this machine, and up to "
            f"{largest[-1]['largest_n_in_1500_mb']:,} in 1.5 GB.",
        ]
    return found


def spectrum_table(records) -> list[str]:
    """Stochastic Lanczos quadrature beside all eigenvalues."""
    rows = [
        [
            f"{record['sizes']['n']:,}",
            f"{record['sizes']['probes']}",
            seconds(record["slq_s"]),
            seconds(record["dense_s"]),
            f"{record['largest_difference']:.1e}",
            f"{record['standard_errors']:.2f}",
        ]
        for record in records
        if record["case"] == "against dense"
    ]
    head = ["All eigenvalues by products: n", "probes", "time", "dense"]
    head += ["largest difference of distributions", "in standard errors"]
    return table(head, rows)


def curves_table(records) -> list[str]:
    """A row a network: measured over predicted test error, at each size."""
    lines: list[str] = []
    for where in dict.fromkeys(record["sizes"]["where"] for record in records):
        own = [record for record in records if record["sizes"]["where"] == where]
        sizes = dict.fromkeys(record["sizes"]["n"] for record in own)
        rows: dict[str, list[str]] = {}
        for record in own:
            ratio = record["measured_test"] / record["predicted_test"]
            error = record["error"] / record["predicted_test"]
            cell = f"{ratio:.3f} ± {error:.3f}"
            rows.setdefault(record["case"], [record["case"]]).append(cell)
        head = [f"Test error on the {where}, measured over predicted"]
        lines += [*table([*head, *(f"n = {n}" for n in sizes)], rows.values()), ""]
    return lines[:-1]


def empirical_table(records) -> list[str]:
    """A row a way: times, and the memory beside arguments and result."""
    records = alike(records, "rows", "network", "width", "depth", "outputs")
    sizes = records[-1]["sizes"]
    shown = ("rows", "width", "outputs")
    head = ", ".join(f"{sizes[name]:,} {name}" for name in shown if name in sizes)
    rows = [
        [
            record["case"],
            seconds(record["first_s"]),
            seconds(record["median_s"]),
            f"{record['ratio']:.3g}",
            f"{record['temporary_mb']:.4g} MB",
        ]
        for record in records
    ]
    names = ["first result", "after that", "times ours", "memory"]
    return table([f"Empirical NTK, {sizes['network']}: {head}", *names], rows)


def agreement_table(records) -> list[str]:
    """The largest difference from Jacobian contraction."""
    rows = [[r["case"], f"{r['largest_difference']:.0e}"] for r in records]
    return table(["Empirical NTK, float64", "off Jacobian contraction by"], rows)


def images_table(records) -> list[str]:
    """A row a way: times, and the memory of programs compiled ahead of time."""
    rows = [
        [
            record["case"],
            seconds(record["first_s"]),
            seconds(record["median_s"]),
            f"{record['ratio']:.3g}",
            seconds(record["median_s"] / record["sizes"]["n"] ** 2),
            f"{record['temporary_mb']:.4g} MB" if "temporary_mb" in record else "",
        ]
        for record in alike(records, "readout", "n", "pixels")
    ]
    sizes = records[-1]["sizes"]
    side = sizes["pixels"]
    head = (
        f"Convolutional NTK, n = {sizes['n']}, {side} x {side} x 3, {sizes['readout']}"
    )
    names = ["first result", "after that", "times ours", "an entry", "memory"]
    return table([head, *names], rows)


TABLES = {
    "gram": gram_table,
    "front": front_table,
    "profile": profile_table,
    "peer": peer_table,
    "errors": errors_table,
    "symmetry": symmetry_table,
    "operator": rates_table,
    "device": rates_table,
    "depth": depth_table,
    "accuracy": accuracy_table,
    "empirical dense": empirical_table,
    "empirical resnet": empirical_table,
    "empirical device": empirical_table,
    "empirical agreement": agreement_table,
    "convolution pooled": images_table,
    "convolution devices": images_table,
    "convolution flatten": images_table,
    "convolution entry": images_table,
    "convolution deep": images_table,
    "mercer": mercer_table,
    "spectrum": spectrum_table,
    "learning curve": curves_table,
    "regression": regression_table,
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


def filled(page: str, records) -> str:
    """The text with what stands between the markers replaced.

    Raises:
        ValueError: it does not hold both markers, in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE.name} lacks {BEGIN!r} and {END!r}; add them.")
    return f"{before}{BEGIN}\n{text_of(records)}\n{END}{after}"


def main() -> int:
    PAGE.write_text(filled(PAGE.read_text(), latest()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
