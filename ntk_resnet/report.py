"""The depth study as one web page: self-contained, with its data beside it.

`write` takes the study's results (as saved) and writes `index.html`, the figures as
separate files, and nothing else: no script, no font and no picture is fetched.
"""

import dataclasses
import functools
import html
import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import xarray as xr

from ntk_resnet import _page, _tables, figures, records


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
    def short(self) -> str:
        """What the contents call it."""
        return _SHORT[self.stem]

    @property
    def stem(self) -> str:
        return self.picture or self.name


_SHORT = {
    "kernels_ntk": "Tangent kernels",
    "kernels_nngp": "Feature kernels",
    "degeneracy": "Real data",
    "regression": "Regression",
    "teacher": "Known target",
    "rates": "Rates",
    "width": "Finite width",
    "training": "Training",
}


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
    sections, body = list(_sections(results)), []
    for section in sections:
        axes = section.draw()
        for ending in ("svg", "png"):
            figures.save(axes, out / "figures" / f"{section.stem}.{ending}")
        svg = figures.to_svg(axes, name=section.stem, title=section.title)
        body.append(_figure(out, section, svg))
    page = _page.PAGE.substitute(
        style=_page.STYLE,
        title=html.escape(_title(results)),
        message=_message(results, claims),
        contents=_contents(sections),
        count=_count(claims),
        verdicts=_tables.verdicts(claims),
        figures="\n".join(body),
        runs=_runs(results),
        provenance=_provenance(claims),
        files=_files(out, ["verdicts", *results], [s.stem for s in sections]),
    )
    return records.write_file(out / "index.html", page)


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
    return _tables.prose(f"{first} {second}. {third}")


def _sections(results) -> Iterable[Section]:
    if "kernels" in results:
        yield from _kernel_sections(results["kernels"])
    if "degeneracy" in results:
        found = results["degeneracy"]
        yield Section(
            "degeneracy",
            "On real data, the plain kernel becomes constant",
            "The NTK Gram matrix of "
            f"{found.attrs['rows']} rows of {found.attrs['data']} against depth. See: "
            "plain networks and α = 1 run into the constant kernel along the predicted "
            "curves; γ = 1 and γ = 1/2 stay where they are. A small condition number "
            "is no good sign here: the degenerate kernel is the best conditioned one, "
            "at (n+3)/3.",
            functools.partial(figures.plot_degeneracy, found),
            _tables.degeneracy_table(found),
        )
    for name, title, caption in (
        (
            "regression",
            "Squared error and accuracy against depth",
            "Kernel ridge regression on {data}: {train} rows for training, {test} for "
            "testing, ridge {ridge:g} of the mean diagonal; means over {splits} random "
            "splits with 95 % intervals (the splits share rows, so the intervals are "
            "of splitting, not of new data). See: predictions of the deep plain kernel "
            "shrink to a constant, and the squared error rises to that of the best "
            "constant. Their order is kept much longer, so accuracy falls late: once "
            "differences between the classes' shares outweigh what is left.",
        ),
        (
            "teacher",
            "The same on a smooth target that is known",
            "The target x₁ + 2.5 x₂x₃ on the sphere in five dimensions, {train} rows "
            "for training and {test} for testing, {splits} splits. See: with γ = 1 and "
            "1/2 the error stays below 1 % at every depth.",
        ),
    ):
        if name in results:
            yield _regression_section(name, title, caption, results[name])
    if "rates" in results:
        found = results["rates"]
        yield Section(
            "rates",
            "The rates are those of the theory",
            "Left: the NTK of a plain network exceeds 1/4 by (3/8 ln L + C)/L, with "
            "the same 3/8 at every cosine between the inputs (at the lines' ends). "
            "Right: the kernel of a residual network approaches that of a single block "
            "like L^(1−2γ). See: lines parallel to the dashed ones.",
            functools.partial(figures.plot_rates, found),
            _tables.rates_table(found),
        )
    if "width" in results:
        found = results["width"]
        yield Section(
            "width",
            "Finite networks have these kernels, up to width^(−1/2)",
            f"Random finite networks ({_depth_of(found)}) on {found.attrs['rows']} "
            "rows: relative Frobenius error of the empirical kernel against the closed "
            "form. Small points are single networks, lines their means. See: both "
            "errors fall along the dashed line of exponent −1/2.",
            functools.partial(figures.plot_width, found),
            _tables.width_table(found),
        )
    if "training" in results:
        found = results["training"]
        yield Section(
            "training",
            "Trained networks follow the kernel's prediction",
            f"Full-batch gradient descent ({_depth_of(found)}, {found.attrs['rows']} "
            "rows). Left: outputs at four points (dots) beside gradient flow with the "
            "closed-form kernel (dashed), started from the network's own outputs. "
            "Middle: the loss. Right: change of the empirical NTK, and distance of the "
            "outputs to the prediction, at the end of training. See: wider networks "
            "follow more closely.",
            functools.partial(figures.plot_training, found),
            _tables.training_table(found),
        )


def _kernel_sections(kernels):
    deviation = float(kernels.deviation.max())
    shared = (
        "Rings are computed by neural-tangents, lines by the closed form; they differ "
        f"by at most {deviation:.1e}."
    )
    yield Section(
        "kernels",
        "Depth flattens the plain tangent kernel, not the residual one",
        "Normalised neural tangent kernel against the angle between two inputs. See: "
        "with depth the plain kernel tends to 1/4 everywhere but at angle 0, so does a "
        "residual one with γ < 1/2 or with a constant factor; γ = 1 and γ = 1/2 keep a "
        "shape. " + shared,
        functools.partial(figures.plot_kernels, kernels, "ntk"),
        _tables.kernel_table(kernels, "ntk"),
        picture="kernels_ntk",
    )
    yield Section(
        "kernels",
        "The same for the kernel of the features",
        "Normalised NNGP kernel (the cosine between the features of two inputs). See: "
        "in a "
        "deep plain network all inputs end up pointing the same way. " + shared,
        functools.partial(figures.plot_kernels, kernels, "nngp"),
        _tables.kernel_table(kernels, "nngp"),
        picture="kernels_nngp",
    )


def _regression_section(name, title, caption, found):
    words = {**found.attrs, "splits": found.sizes["split"]}
    return Section(
        name,
        title,
        caption.format_map(words),
        functools.partial(figures.plot_regression, found),
        _tables.regression_table(found),
    )


def _depth_of(found) -> str:
    spec = json.loads(found.attrs["spec"])
    kind = {"ResNet": "residual", "FeedForward": "plain"}[spec["kind"]]
    return f"{kind}, depth {spec['depth']}"


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
    table = _tables.table(["part", "seconds", "sizes", "settings"], rows)
    specs = "".join(
        f"<dt>{html.escape(figures.LABELS.get(key, key))}</dt>"
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
    keys = (*records.versions(), "device", "devices", "x64", "commit", "time_utc")
    rows = [[key, claims.attrs[key]] for key in keys if key in claims.attrs]
    return _tables.table(["", ""], rows)


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
        f'<section id="{section.stem}"><h2>{_tables.prose(section.title)}</h2>'
        f'<figure><div class="wide plot">{svg}</div>'
        f"<figcaption>{_tables.prose(section.caption)}</figcaption></figure>"
        f"<details><summary>The numbers</summary>{section.table}</details>"
        f'<p class="links">{linked}</p></section>'
    )
