"""The depth study as one web page: self-contained, with its data beside it.

`write` takes the study's results (as saved) and writes `index.html`, the figures as
separate files, and nothing else: no script, no font and no picture is fetched.
"""

import html
import json
import pathlib

import xarray as xr

from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import full_name
from ntk_resnet.records import results as records
from ntk_resnet.records.content import write_file
from ntk_resnet.records.provenance import versions
from ntk_resnet.report import chapters, frame, tables


def write(
    out: pathlib.Path, results: dict[str, xr.Dataset], claims: xr.Dataset
) -> pathlib.Path:
    """Writes the page, its figures (SVG, PNG) and the verdicts (zarr, CSV) into `out`.

    Args:
        out: the folder; the results lie in `out/data` as `depth_study.run` saved them.
        results: parts of the study by name; all but `regression` and `degeneracy` may
            be missing, their sections are then left out.
        claims: what `depth_claims.judge` made of them.

    Returns:
        The path of the page, `out/index.html`.

    Raises:
        OSError: `out` is not writable.
    """
    records.check_writable(out / "figures")
    records.save(claims, out / "data" / "verdicts.zarr", csv=True)
    sections, body = list(chapters.sections(results)), []
    for section in sections:
        axes = section.draw()
        for ending in ("svg", "png"):
            drawing.save(axes, out / "figures" / f"{section.stem}.{ending}")
        svg = drawing.to_svg(axes, name=section.stem, title=section.title)
        body.append(_figure(out, section, svg))
    page = frame.PAGE.substitute(
        style=frame.STYLE,
        title=html.escape(_title(results)),
        message=_message(results, claims),
        contents=_contents(sections),
        count=_count(claims),
        verdicts=tables.verdicts(claims),
        figures="\n".join(body),
        runs=_runs(results),
        provenance=_provenance(claims),
        files=_files(out, ["verdicts", *results], [s.stem for s in sections]),
    )
    return write_file(out / "index.html", page)


# ---------------------------------------------------------------------------- the words


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
        f"{found.attrs['data']}, within {distance['plain']:.3f} (rms) of the constant "
        f"1/4, that of a residual network with branches scaled by L^(−1/2) is "
        f"{distance['γ = 1/2']:.3f} away from it."
    )
    second = (
        f"Regression with the plain kernel explains {plain[1]:.0%} of the test "
        f"variance at depth {deep} after {plain[0]:.0%} at depth {shallow}; with the "
        f"residual kernel it explains {residual[1]:.0%} after {residual[0]:.0%}"
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
        + (
            "."
            if holding == total
            else f"; the other {total - holding} are marked below."
        )
    )
    return tables.prose(f"{first} {second}. {third}")


def _count(claims) -> str:
    return f"{int(claims.holds.sum())} of {claims.sizes['claim']} hold"


# ---------------------------------------------------------- what was run, and the files


def _runs(results) -> str:
    config = json.loads(results["regression"].attrs["config"])
    rows = []
    for name, found in results.items():
        sizes = ", ".join(f"{k} {v}" for k, v in found.sizes.items() if v > 1)
        extra = {
            key: found.attrs[key]
            for key in (
                "train",
                "test",
                "rows",
                "ridge",
                "steps",
                "learning_rate",
                "seed",
            )
            if key in found.attrs
        }
        settings = ", ".join(f"{key} = {_short(value)}" for key, value in extra.items())
        rows.append([name, found.attrs["seconds"], sizes, settings])
    table = tables.table(["part", "seconds", "sizes", "settings"], rows)
    specs = "".join(
        f"<dt>{html.escape(full_name(key))}</dt>"
        f"<dd><code>{html.escape(json.dumps(spec, ensure_ascii=False))}</code></dd>"
        for key, spec in config["families"].items()
    )
    return (
        f"{table}<p>Data: <code>{html.escape(config['data'])}</code>, SHA-256 of "
        f"inputs and targets <code>{config['data_sha256'][:16]}…</code>. Random "
        "splits, networks and inputs are seeded from 0 on. The networks, at depth "
        "1:</p>"
        f'<dl class="specs">{specs}</dl>'
    )


def _short(value):
    return f"{value:.3g}" if isinstance(value, float) else value


def _provenance(claims) -> str:
    keys = (*versions(), "device", "devices", "x64", "commit", "time_utc")
    rows = [[key, claims.attrs[key]] for key in keys if key in claims.attrs]
    return tables.table(["", ""], rows)


def _files(out: pathlib.Path, parts: list[str], pictures: list[str]) -> str:
    """Links to what belongs to this page, by folder; other files are left out."""
    links = [link for part in parts for link in _data_links(out, part)]
    links += [f"figures/{stem}.{end}" for stem in pictures for end in ("svg", "png")]
    items = [f"<li>{_link(link)}</li>" for link in links]
    return f'<ul class="files">{"".join(items)}</ul>'


def _data_links(out, part):
    found = sorted((out / "data").glob(f"{part}.*"), key=lambda path: len(path.name))
    return [f"data/{path.name}" + ("/" if path.is_dir() else "") for path in found]


def _link(target, text=None):
    return f'<a href="{html.escape(target)}">{html.escape(text or target)}</a>'


def _contents(sections) -> str:
    """Links to the sections of the page."""
    named = [("verdicts", "Verdicts"), *((s.stem, s.short) for s in sections)]
    named += [("run", "What was run"), ("files", "Files")]
    return "".join(_link(f"#{anchor}", text) for anchor, text in named)


def _figure(out, section, svg) -> str:
    links = [f"figures/{section.stem}.{ending}" for ending in ("svg", "png")]
    links += _data_links(out, section.name)
    linked = " · ".join(_link(link, link.split("/", 1)[1]) for link in links)
    return (
        f'<section id="{section.stem}"><h2>{tables.prose(section.title)}</h2>'
        f'<figure><div class="wide plot">{svg}</div>'
        f"<figcaption>{tables.prose(section.caption)}</figcaption></figure>"
        f"<details><summary>The numbers</summary>{section.table}</details>"
        f'<p class="links">{linked}</p></section>'
    )
