"""The depth study as one web page: self-contained, with its data beside it.

`write` takes the study's results (as saved) and writes `index.html`, the figures as
separate files, and nothing else: no script, no font and no picture is fetched.
"""

import dataclasses
import html
import json
import pathlib
import string
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import xarray as xr

from ntk_resnet import figures, records

@dataclasses.dataclass(frozen=True)
class Section:
    """A figure with its words and numbers."""

    name: str  # of the part of the study, and of its files
    title: str
    caption: str
    draw: Callable[[], Any]
    table: str  # HTML
    picture: str = ""  # file name of the figure; the part's name by default

    @property
    def stem(self) -> str:
        return self.picture or self.name


def write(
    out: pathlib.Path, results: dict[str, xr.Dataset], claims: xr.Dataset
) -> pathlib.Path:
    """Writes the page and its figures (SVG and PNG) into `out`.

    Args:
        out: the folder; the results lie in `out/data` as `depth_study.run` saved them.
        results: parts of the study by name; sections of missing parts are left out.
        claims: what `depth_claims.judge` made of them.

    Returns:
        The path of the page, `out/index.html`.

    Raises:
        OSError: `out` is not writable.
    """
    records.check_writable(out / "figures")
    body = []
    for section in _sections(results):
        axes = section.draw()
        for ending in ("svg", "png"):
            figures.save(axes, out / "figures" / f"{section.stem}.{ending}")
        svg = figures.to_svg(axes, name=section.stem, title=section.title)
        body.append(_figure(out, section, svg))
    page = _PAGE.substitute(
        style=_STYLE,
        title=html.escape(_title(results)),
        message=_message(results, claims),
        count=_count(claims),
        verdicts=_verdicts(claims),
        figures="\n".join(body),
        runs=_runs(results),
        provenance=_provenance(claims),
        files=_files(out),
    )
    return records.write_text(out / "index.html", page)


# ----------------------------------------------------------------------------- the words


def _title(results) -> str:
    name = results["regression"].attrs["data"] if "regression" in results else ""
    return "Deep plain and residual kernels" + (f" on {name}" if name else "")


def _message(results, claims) -> str:
    """Three sentences, with the numbers of this run."""
    found, gram = results["regression"], results["degeneracy"]
    deep, shallow = found.depth.values[-1], found.depth.values[0]
    at = lambda name, family, depth: float(  # noqa: E731
        found[f"{name}_mean"].sel(family=family, depth=depth)
    )
    distance = {
        family: float(gram.distance.sel(family=family).isel(depth=-1))
        for family in ("plain", "γ = 1/2")
    }
    plain, residual = (
        (at("r2", family, shallow), at("r2", family, deep))
        for family in ("plain", "γ = 1/2")
    )
    first = (
        f"At depth {deep} the normalised tangent kernel of a plain ReLU network is, on "
        f"{found.attrs['data']}, within {distance['plain']:.3f} (rms) of the constant 1/4, "
        f"that of a residual network with branches scaled by L^(-1/2) is "
        f"{distance['γ = 1/2']:.3f} away from it."
    )
    second = (
        f"Regression with the plain kernel explains {plain[1]:.0%} of the test variance "
        f"at depth {deep} after {plain[0]:.0%} at depth {shallow}; with the residual "
        f"kernel it explains {residual[1]:.0%} after {residual[0]:.0%}"
    )
    if found.attrs["classes"]:
        accuracy = at("accuracy", "plain", shallow), at("accuracy", "plain", deep)
        second += (
            ", while the plain kernel's accuracy only goes from "
            f"{accuracy[0]:.0%} to {accuracy[1]:.0%}, since what is left of it still "
            "orders the classes"
        )
    holding, total = int(claims.holds.sum()), claims.sizes["claim"]
    third = (
        f"{holding} of {total} predictions of the theory hold within their tolerances"
        + ("." if holding == total else f"; the other {total - holding} are marked below.")
    )
    return html.escape(f"{first} {second}. {third}")


def _sections(results) -> Iterable[Section]:
    if "kernels" in results:
        yield from _kernel_sections(results["kernels"])
    if "degeneracy" in results:
        found = results["degeneracy"]
        yield Section(
            "degeneracy",
            "On real data, the plain kernel loses its rank and its range",
            "The NTK Gram matrix of "
            f"{found.attrs['rows']} rows of {found.attrs['data']} against depth. See: plain "
            "networks and α = 1 run into the constant kernel along the predicted curves; "
            "γ = 1 and γ = 1/2 stay where they are. A small condition number is no good "
            "sign here: the degenerate kernel is the best conditioned one, at (n+3)/3.",
            lambda: figures.plot_degeneracy(found),
            _degeneracy_table(found),
        )
    for name, title, caption in (
        (
            "regression",
            "Squared error shows the degeneracy, accuracy hardly does",
            "Kernel ridge regression on {data}: {train} rows for training, {test} for "
            "testing, ridge {ridge:g} of the mean diagonal; means over {splits} random "
            "splits with 95 % intervals (the splits share rows, so the intervals are of "
            "splitting, not of new data). See: predictions of the deep plain kernel shrink "
            "to a constant, and the squared error rises to that of the best constant.",
        ),
        (
            "teacher",
            "The same on a smooth target that is known",
            "The target x₁ + 2.5 x₂x₃ on the sphere in five dimensions, {train} rows for "
            "training and {test} for testing, {splits} splits. See: with γ = 1 and 1/2 "
            "the error stays below 1 % at every depth.",
        ),
    ):
        if name in results:
            yield _regression_section(name, title, caption, results[name])
    if "rates" in results:
        found = results["rates"]
        yield Section(
            "rates",
            "The rates are those of the theory",
            "Left: the NTK of a plain network exceeds 1/4 by (3/8 ln L + C)/L, with the "
            "same 3/8 at every cosine between the inputs (at the lines' ends). Right: the "
            "kernel of a residual network approaches that of a single block like "
            "L^(1−2γ). See: lines parallel to the dashed ones.",
            lambda: figures.plot_rates(found),
            _rates_table(found),
        )
    if "width" in results:
        found = results["width"]
        yield Section(
            "width",
            "Finite networks have these kernels, up to width^(−1/2)",
            f"Random finite networks ({_depth_of(found)}) on {found.attrs['rows']} rows: "
            "relative Frobenius error of the empirical kernel against the closed form. Small "
            "points are single networks, lines their means. See: both errors fall along "
            "the dashed line of exponent −1/2.",
            lambda: figures.plot_width(found),
            _width_table(found),
        )
    if "training" in results:
        found = results["training"]
        yield Section(
            "training",
            "Trained networks follow the kernel's prediction",
            f"Full-batch gradient descent ({_depth_of(found)}, {found.attrs['rows']} rows). "
            "Left: outputs at four points (dots) beside gradient flow with the closed-form "
            "kernel (dashed), started from the network's own outputs. Middle: the loss. "
            "Right: change of the empirical NTK, and distance of the outputs to the "
            "prediction, at the end of training. See: wider networks follow more closely.",
            lambda: figures.plot_training(found),
            _training_table(found),
        )


def _kernel_sections(kernels):
    deviation = float(kernels.deviation.max())
    shared = (
        "Rings are computed by neural-tangents, lines by the closed form; they differ by "
        f"at most {deviation:.1e}."
    )
    yield Section(
        "kernels",
        "Depth flattens the plain tangent kernel, not the residual one",
        "Normalised neural tangent kernel against the angle between two inputs. See: with "
        "depth the plain kernel tends to 1/4 everywhere but at angle 0, so does a residual "
        "one with γ < 1/2 or with a constant factor; γ = 1 and γ = 1/2 keep a shape. "
        + shared,
        lambda: figures.plot_kernels(kernels, "ntk"),
        _kernel_table(kernels, "ntk"),
        picture="kernels_ntk",
    )
    yield Section(
        "kernels",
        "The same for the kernel of the features",
        "Normalised NNGP kernel (the cosine between the features of two inputs). See: in a "
        "deep plain network all inputs end up pointing the same way. " + shared,
        lambda: figures.plot_kernels(kernels, "nngp"),
        _kernel_table(kernels, "nngp"),
        picture="kernels_nngp",
    )


def _regression_section(name, title, caption, found):
    words = {**found.attrs, "splits": found.sizes["split"]}
    return Section(
        name,
        title,
        caption.format_map(words),
        lambda: figures.plot_regression(found),
        _regression_table(found),
    )


def _depth_of(found) -> str:
    spec = json.loads(found.attrs["spec"])
    kind = {"ResNet": "residual", "FeedForward": "plain"}[spec["kind"]]
    return f"{kind}, depth {spec['depth']}"


# ---------------------------------------------------------------------------- the tables


def _kernel_table(kernels, which):
    angles = np.linspace(0, len(kernels.angle) - 1, 7).round().astype(int)
    head = ["network", "depth", *(f"θ = {t:.2f}" for t in kernels.angle.values[angles])]
    rows = [
        [figures.LABELS[family], depth, *map(_number, kernels[which].values[i, j, angles])]
        for i, family in enumerate(kernels.family.values.tolist())
        for j, depth in enumerate(kernels.depth.values.tolist())
    ]
    return _table(head, rows)


def _degeneracy_table(found):
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
            numbers = [_number(float(one[name])) for name in columns]
            rows.append([figures.LABELS[family], depth, *numbers])
    return _table(head, rows)


def _regression_table(found):
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
            rows.append([figures.LABELS[family], depth, *cells])
    return _table(head, rows)


def _rates_table(found):
    head = ["γ", *(f"L = {depth}" for depth in found.block_depth.values)]
    rows = [
        [f"{gamma:g}", *map(_number, found.shallow_distance.sel(exponent=gamma).values)]
        for gamma in found.exponent.values
    ]
    cosines = found.cosine.values
    head_plain = ["plain, L", *(f"u = {u:g}" for u in cosines)]
    rows_plain = [
        [int(depth), *(_number(v, 6) for v in found.plain_ntk.sel(plain_depth=depth).values)]
        for depth in found.plain_depth.values[::4]
    ]
    return _table(head, rows) + _table(head_plain, rows_plain)


def _width_table(found):
    head = ["width", "NTK error", "± s.e.", "NNGP error", "± s.e."]
    rows = []
    for width in found.width.values.tolist():
        one = found.sel(width=width)
        names = [f"{k}_error_{what}" for k in ("ntk", "nngp") for what in ("mean", "sem")]
        rows.append([width, *(_number(float(one[name])) for name in names)])
    return _table(head, rows)


def _training_table(found):
    head = ["width", "final loss", "predicted", "outputs − prediction", "change of NTK"]
    rows = []
    for width in found.width.values.tolist():
        one = found.sel(width=width).isel(time=-1)
        names = ("loss", "predicted_loss", "output_error", "ntk_drift")
        rows.append([width, *(_number(float(one[name].mean())) for name in names)])
    return _table(head, rows)


def _count(claims) -> str:
    return f"{int(claims.holds.sum())} of {claims.sizes['claim']} hold"


def _verdicts(claims) -> str:
    rows = []
    for label in range(claims.sizes["claim"]):
        one = claims.isel(claim=label)
        value = lambda name, one=one: one[name].values.item()  # noqa: E731
        bound, prediction = value("bound"), _number(value("prediction"), 5)
        allowed = {"below": f"&lt; {prediction}", "above": f"&gt; {prediction}"}.get(
            bound, f"{prediction} ± {value('tolerance'):.2g}"
        )
        measured = _number(value("measured"), 5)
        if np.isfinite(value("low")):
            low, high = _number(value("low"), 4), _number(value("high"), 4)
            measured += (
                f'<span class="interval">[{low}, {high}] '
                f"{html.escape(value('interval'))}</span>"
            )
        holds = value("holds")
        verdict = "✓ holds" if holds else "✗ does not hold"
        rows.append(
            f'<tr class="{"holds" if holds else "fails"}">'
            f"<td>{html.escape(value('claim'))}</td>"
            f"<td>{html.escape(value('statement'))}</td><td>{allowed}"
            f'<span class="interval">{html.escape(value("reason"))}</span></td>'
            f"<td>{measured}</td><td><strong>{verdict}</strong></td></tr>"
        )
    head = "".join(
        f"<th>{name}</th>"
        for name in ("claim", "prediction", "predicted", "measured", "verdict")
    )
    return (
        '<div class="wide"><table class="verdicts"><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _table(head: list, rows: list[list]) -> str:
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


def _number(value: float, digits: int = 4) -> str:
    if not np.isfinite(value):
        return "–" if np.isnan(value) else "∞"
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "−")


# ------------------------------------------------------------- what was run, and the files


def _runs(results) -> str:
    rows = []
    for name, found in results.items():
        config = json.loads(found.attrs["config"])
        sizes = ", ".join(f"{k} {v}" for k, v in found.sizes.items() if v > 1)
        extra = {
            key: found.attrs[key]
            for key in ("train", "test", "rows", "ridge", "steps", "learning_rate", "seed")
            if key in found.attrs
        }
        settings = ", ".join(f"{key} = {_short(value)}" for key, value in extra.items())
        rows.append([name, sizes, settings, found.attrs["seconds"]])
    table = _table(["part", "sizes", "settings", "seconds"], rows)
    specs = "".join(
        f"<dt>{html.escape(figures.LABELS.get(key, key))}</dt>"
        f"<dd><code>{html.escape(json.dumps(spec, ensure_ascii=False))}</code></dd>"
        for key, spec in config["families"].items()
    )
    return (
        f"{table}<p>Data: <code>{html.escape(config['data'])}</code>, SHA-256 of inputs "
        f"and targets <code>{config['data_sha256'][:16]}…</code>. Random splits, networks "
        "and inputs are seeded from 0 on. The networks, at depth 1:</p>"
        f'<dl class="specs">{specs}</dl>'
    )


def _short(value):
    return f"{value:.3g}" if isinstance(value, float) else value


def _provenance(claims) -> str:
    keys = (*records.versions(), "device", "devices", "x64", "commit", "time_utc")
    rows = [[key, claims.attrs[key]] for key in keys if key in claims.attrs]
    return _table(["", ""], rows)


def _files(out: pathlib.Path) -> str:
    """Links to everything beside the page, by folder."""
    items = []
    for path in sorted([*(out / "data").glob("*"), *(out / "figures").glob("*")]):
        if path.name.startswith("."):
            continue
        target = path.relative_to(out).as_posix() + ("/" if path.is_dir() else "")
        items.append(f'<li><a href="{html.escape(target)}">{html.escape(target)}</a></li>')
    return f'<ul class="files">{"".join(items)}</ul>'


def _figure(out, section, svg) -> str:
    links = [f"figures/{section.stem}.svg", f"figures/{section.stem}.png"]
    data = sorted((out / "data").glob(f"{section.name}.*"))
    links += [f"data/{path.name}" + ("/" if path.is_dir() else "") for path in data]
    linked = " · ".join(
        f'<a href="{html.escape(link)}">{html.escape(link.split("/", 1)[1])}</a>'
        for link in links
    )
    return (
        f'<section id="{section.stem}"><h2>{html.escape(section.title)}</h2>'
        f'<figure><div class="wide plot">{svg}</div>'
        f"<figcaption>{html.escape(section.caption)}</figcaption></figure>"
        f"<details><summary>The numbers</summary>{section.table}</details>"
        f'<p class="links">{linked}</p></section>'
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #ffffff; --grid: #d9d9de;
  --soft: #5d5d68; --panel: #f5f5f7; --good: #00694b; --bad: #b03000; --link: #005a9c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ec; --paper: #17171a;
  --grid: #3a3a42; --soft: #a4a4b0; --panel: #212126; --good: #4cc9a0; --bad: #ff8a5c;
  --link: #7cc0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 920px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 3rem 0 .75rem; }
.message { font-size: 1.12rem; border-left: 4px solid #009e73; padding-left: 1rem;
  margin: 0 0 1.5rem; }
a { color: var(--link); }
figure { margin: 0; }
figcaption { color: var(--soft); max-width: 46rem; margin-top: .5rem; }
.wide { overflow-x: auto; }
.plot svg { display: block; width: 100%; min-width: 600px; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--grid);
  vertical-align: top; }
.verdicts { min-width: 680px; }
.verdicts td:nth-child(3), .verdicts td:nth-child(4) { min-width: 10rem; }
.verdicts td:last-child { white-space: nowrap; }
.numbers { width: auto; margin-bottom: 1rem; font-variant-numeric: tabular-nums; }
.numbers td { white-space: nowrap; padding: .2rem .8rem .2rem .3rem; }
.numbers th { padding: .2rem .8rem .2rem .3rem; vertical-align: bottom; }
.interval { display: block; color: var(--soft); font-size: .8rem; }
.holds strong { color: var(--good); } .fails strong { color: var(--bad); }
.fails { background: var(--panel); }
details { margin: .75rem 0; background: var(--panel); border-radius: 6px;
  padding: .5rem .9rem; }
summary { cursor: pointer; font-weight: 600; }
.links { font-size: .85rem; color: var(--soft); margin: .25rem 0; }
.specs dt { font-weight: 600; margin-top: .5rem; } .specs dd { margin: 0; }
code { font-size: .82rem; overflow-wrap: anywhere; }
.files { columns: 18rem; padding-left: 1.1rem; font-size: .875rem; }
@media (max-width: 600px) { main { padding: 1.25rem 1rem 3rem; }
  h1 { font-size: 1.5rem; } .message { font-size: 1.02rem; } }
"""

_PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
<p class="message">$message</p>
<section id="verdicts"><h2>Predicted and measured: $count</h2>
$verdicts
</section>
$figures
<section id="run"><h2>What was run</h2>
$runs
<details><summary>Versions, device and time</summary>$provenance</details>
</section>
<section id="files"><h2>Files beside this page</h2>
<p>Every result is a zarr store (format 3, opened by <code>xarray.open_zarr</code>) with
its full provenance in the attributes; the CSV files hold the same numbers.</p>
$files
</section>
</main>
</body>
</html>
""")
