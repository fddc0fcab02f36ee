"""Studies as web pages: one a study and an index, each self-contained.

A page opens with the question, the answer and the figure that shows it, then what does
not hold, then each group of claims with its figure; all verdicts, and what was run,
stand at the end. No script, no font and no picture is fetched.
"""

import html
import json
import pathlib
import string
from collections.abc import Sequence

import numpy as np

from ntk_resnet._checks import check_writable
from ntk_resnet.plot import drawing
from ntk_resnet.records.content import write_file
from ntk_resnet.records.provenance import versions
from ntk_resnet.report import entries, frame, tables
from ntk_resnet.studies.ledger import HOLDS, KNOWN
from ntk_resnet.studies.runner import Run
from ntk_resnet.studies.study import NotRun


def write(out: pathlib.Path, runs: Sequence[Run]) -> pathlib.Path:
    """Writes a page for each run, its figures as SVG and PNG, and the index.

    Args:
        out: the folder; pages of other studies that are in it stay, out of the index.
        runs: of `studies.runner.run`.

    Returns:
        The path of the index, `out/index.html`.

    Raises:
        OSError: `out` is not writable.
    """
    check_writable(out / "figures")
    for one in runs:
        write_file(out / f"{one.study.name}.html", _page(out, one))
    return write_file(out / "index.html", _index(runs))


# ------------------------------------------------------------------------------- a page


def _page(out, one):
    study = one.study
    groups = [
        _group(out, one, number, name)
        for number, name in enumerate(_drawn(one), start=1)
    ]
    first, *others = groups or [""]
    return frame.STUDY.substitute(
        style=frame.STYLE,
        title=html.escape(study.title),
        question=html.escape(study.question),
        answer=tables.prose(_answer(one)),
        counts=entries.counts(one.entries),
        first=first,
        trouble=_trouble(one),
        groups="\n".join(others),
        rest=_rest(one),
        verdicts=entries.table(one.entries),
        summary=tables.prose(study.summary),
        reference=html.escape(study.reference),
        runs=_what_was_run(one),
        provenance=_provenance(one),
    )


def _answer(one):
    """The study's answer; where what it is read off was not run, that."""
    try:
        return one.study.answer(_Needed(one.results), one.entries)
    except NotRun as why:
        return f"Not answered here: {why}"


class _Needed(dict):
    """Results, of which one that is asked for may be missing."""

    def __missing__(self, name):
        raise NotRun(f"the measurement {name!r} was not run.")


def _drawn(one):
    """The figures whose measurement was made."""
    return [n for n, figure in one.study.figures.items() if figure.of in one.results]


def _group(out, one, number, name):
    """A figure with its caption, the claims that it shows, and its files."""
    study, figure = one.study, one.study.figures[name]
    found = one.results[figure.of]
    title = string.Formatter().vformat(figure.title, (), found.attrs)
    axes = figure.draw(found)
    letter_panels(axes)
    stem = f"{study.name}-{name}"
    for ending in ("svg", "png"):
        drawing.save(axes, out / "figures" / f"{stem}.{ending}")
    svg = drawing.to_svg(axes, name=stem, title=title)
    own = [entry for entry in one.entries if entry.figure == name]
    files = [f"figures/{stem}.{ending}" for ending in ("svg", "png")]
    folder = out / "data" / study.name / one.size
    files += [
        path.relative_to(out).as_posix()
        for path in sorted(folder.glob(f"{figure.of}.*"), key=lambda p: len(p.name))
    ]
    links = " · ".join(_link(file, pathlib.Path(file).name) for file in files)
    caption = string.Formatter().vformat(figure.caption, (), found.attrs)
    return (
        f'<section id="figure-{name}"><h2>{tables.prose(title)}</h2>'
        f'<figure><div class="wide plot">{svg}</div><figcaption>'
        f"<strong>Figure {number}.</strong> {tables.prose(caption)}"
        f"</figcaption></figure>{entries.items(own)}"
        f'<p class="links">{links}</p></section>'
    )


def letter_panels(axes) -> None:
    """Letters a, b, ... at the upper left of the panels of a figure; none on one."""
    panels = np.asarray(axes, object).ravel()
    if len(panels) > 1:
        for letter, ax in zip(string.ascii_lowercase, panels, strict=False):
            ax.annotate(
                letter,
                (0, 1),
                xycoords="axes fraction",
                xytext=(-30, 5),
                textcoords="offset points",
                fontweight="bold",
                fontsize=9.5,
            )


def _trouble(one):
    """What does not hold, up front."""
    open_ones = [entry for entry in one.entries if entry.verdict != HOLDS]
    if not open_ones:
        return ""
    return (
        '<section id="trouble"><h2>What does not hold, or is not settled</h2>'
        f"{entries.items(open_ones)}</section>"
    )


def _rest(one):
    shown = set(_drawn(one))
    own = [entry for entry in one.entries if entry.figure not in shown]
    return f"<h2>Also tested</h2>{entries.items(own)}" if own else ""


def _what_was_run(one):
    rows = []
    for name, found in one.results.items():
        about = json.loads(found.attrs["config"])
        settings = ", ".join(f"{k} = {v}" for k, v in about["settings"].items())
        rows.append([name, found.attrs["seconds"], about.get("data", ""), settings])
    return tables.table(["measurement", "seconds", "data", "settings"], rows)


def _provenance(one):
    for found in one.results.values():
        keys = (*versions(), "device", "devices", "x64", "commit", "time_utc")
        rows = [[key, found.attrs[key]] for key in keys if key in found.attrs]
        return tables.table(["", ""], rows)
    return ""


def _link(target, text):
    return f'<a href="{html.escape(target)}">{html.escape(text)}</a>'


# ---------------------------------------------------------------------------- the index


def _index(runs):
    cards = []
    for one in runs:
        study = one.study
        known = {claim.known for claim in study.claims}
        sources = ", ".join(word for key, word in KNOWN.items() if key in known)
        cards.append(
            f'<section id="{study.name}"><h2>'
            f"{_link(f'{study.name}.html', study.title)}</h2>"
            f'<p class="links">{study.name}: {entries.counts(one.entries)} '
            f"({sources})</p><p><em>{html.escape(study.question)}</em></p>"
            f"<p>{tables.prose(_answer(one))}</p></section>"
        )
    everything = [entry for one in runs for entry in one.entries]
    return frame.INDEX.substitute(
        style=frame.STYLE,
        counts=entries.counts(everything),
        studies="\n".join(cards),
    )
