"""`reproduce`: the claims of papers, measured and judged."""

import dataclasses
import functools
import time
from typing import Annotated, Any

import tyro

from ntk_resnet.cli import terminal


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """The claims of papers, each predicted, measured and judged; exit code 1 if one
    fails."""

    studies: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")
    ] = ()
    """Names as --list prints them, or all."""
    list: bool = False
    """Print the names of the studies, and what they are about."""
    claim: tuple[str, ...] = ()
    """Only these claims of one study, and no page."""
    quick: bool = False
    """Smaller sizes."""
    data: terminal.Source = "digits"
    """As for depth, where a study takes data."""
    out: terminal.Folder = None
    """Folder for pages (index.html), figures and results; without one, none."""
    json: bool = False
    """Print the ledger as JSON."""

    def run(self):
        from ntk_resnet.studies import catalogue

        if self.list:
            return 0, functools.partial(_show_list, self.json)
        if not self.studies:
            raise ValueError(
                f"name a study, or all; there are {', '.join(catalogue.NAMES)}."
            )
        names = [name for name in dict.fromkeys(self.studies) if name != "all"]
        studies = [catalogue.study(name) for name in names]  # all of them checked
        if "all" in self.studies:
            studies = [catalogue.study(name) for name in catalogue.NAMES]
        if self.claim and len(studies) > 1:
            raise ValueError(
                f"--claim is for one study, got {len(studies)}; name the study that "
                "the claims are of."
            )
        return reproduce(self, studies, self.out, self.claim)


def reproduce(command, studies, out, claims=()):
    """Runs studies with a command's options; its exit code, and what prints it."""
    from ntk_resnet.report import pages
    from ntk_resnet.studies import runner
    from ntk_resnet.studies.ledger import FAILS

    start, page = time.perf_counter(), None
    with terminal.progress_bar() as progress:
        runs = runner.run(
            studies,
            quick=command.quick,
            claims=claims,
            source=command.data,
            folder=out and out / "data",
            progress=progress,
        )
        if out is not None and not claims:
            page = pages.write(out, runs)
    seconds = round(time.perf_counter() - start, 1)
    lines = [entry for one in runs for entry in one.entries]
    code = 1 if any(entry.verdict == FAILS for entry in lines) else 0
    return code, functools.partial(_show, command.json, lines, page, seconds)


def _show(as_json, lines, page, seconds):
    from ntk_resnet.records.provenance import provenance
    from ntk_resnet.report import entries, tables

    if as_json:
        answer = {"claims": [entry._asdict() for entry in lines], "seconds": seconds}
        answer |= {"page": page and str(page), "provenance": provenance()}
        return terminal.print_json(answer)
    columns = {name: name for name in ("study", "claim", "statement", "predicted")}
    columns |= {name: name for name in ("measured", "interval", "verdict")}
    rows = [
        {
            "study": entry.study,
            "claim": entry.claim,
            "statement": tables.plain(entry.statement),
            "predicted": tables.plain(entries.predicted(entry)),
            "measured": entries.measured(entry),
            "interval": entries.interval(entry) or entry.reason,
            "verdict": f"{entries.MARKS[entry.verdict]} {entry.verdict}",
        }
        for entry in lines
    ]
    terminal.print_table("", columns, rows)
    print(f"{entries.counts(lines)}  ({seconds:.0f} s)")
    if page is not None:
        print(page)


def _show_list(as_json):
    from ntk_resnet.studies import catalogue

    rows: list[dict[str, Any]] = []
    for name in catalogue.NAMES:
        study = catalogue.study(name)
        rows.append(
            {
                "study": name,
                "title": study.title,
                "claims": [claim.name for claim in study.claims],
                "quick": study.budget.quick,
                "full": study.budget.full,
            }
        )
    if as_json:
        return terminal.print_json({"studies": rows})
    for row in rows:  # what --claim takes for all that belong together
        groups = dict.fromkeys(name.split("-")[0] for name in row["claims"])
        row["claims"] = " ".join(groups)
    columns = {"study": "study", "title": "title", "claims": "claims"}
    columns |= {"quick": "quick, s", "full": "full, s"}
    terminal.print_table("", columns, rows)
