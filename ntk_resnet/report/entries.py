"""Lines of the ledger as text, for pages and the terminal."""

import html
from collections.abc import Sequence

import numpy as np

from ntk_resnet.report.tables import number, prose
from ntk_resnet.studies.ledger import FAILS, HOLDS, INCONCLUSIVE, NOT_RUN, Entry

MARKS = {HOLDS: "✓", FAILS: "✗", INCONCLUSIVE: "?", NOT_RUN: "–"}


def predicted(entry: Entry) -> str:
    """What a claim allows: a bound, or a value and its tolerance."""
    value = number(entry.predicted, 5)
    if entry.side == "within":
        return f"{value} ± {entry.tolerance:.2g}" if entry.tolerance else value
    return f"{'<' if entry.side == 'below' else '>'} {value}"


def interval(entry: Entry) -> str:
    """That around what was measured, and of what kind it is; nothing without one."""
    if np.isnan(entry.low) or np.isnan(entry.high):
        return entry.interval
    digits = _digits(entry)
    low, high = number(entry.low, digits), number(entry.high, digits)
    if low == high:  # known to more digits than anyone reads
        wide = max(entry.high - entry.measured, entry.measured - entry.low)
        return f"± {wide:.1g} {entry.interval}"
    return f"[{low}, {high}] {entry.interval}"


def measured(entry: Entry) -> str:
    """What was measured, with as many digits as its interval has meaning."""
    return number(entry.measured, _digits(entry))


def _digits(entry):
    wide = entry.high - entry.low
    if not wide > 0 or not np.isfinite(wide) or entry.measured == 0:
        return 5
    return int(np.clip(np.ceil(np.log10(abs(entry.measured) / wide)) + 2, 2, 6))


def counts(entries: list[Entry]) -> str:
    """As "12 of 14 claims hold, 1 fails, 1 inconclusive"."""
    found = {v: sum(e.verdict == v for e in entries) for v in MARKS}
    total, holding = len(entries), found.pop(HOLDS)
    words = "claim holds" if total == 1 else "claims hold"
    text = f"{holding} of {total} {words}"
    if found[FAILS]:
        text += f", {found[FAILS]} {'fails' if found[FAILS] == 1 else 'fail'}"
    for verdict in (INCONCLUSIVE, NOT_RUN):
        if found[verdict]:
            text += f", {found[verdict]} {verdict}"
    return text


def item(entry: Entry) -> str:
    """A claim as an item of a list: verdict, statement, prediction and measurement."""
    text = f"<strong>{MARKS[entry.verdict]} {html.escape(entry.verdict)}</strong> "
    text += f"{html.escape(entry.claim)}: {prose(entry.statement)}. "
    if entry.verdict == NOT_RUN:
        text += f'<span class="interval">{prose(entry.reason)}</span>'
    else:
        text += (
            f'<span class="interval">predicted {predicted(entry)}, measured '
            f"{measured(entry)} {html.escape(interval(entry))}</span>"
        )
    return f'<li class="{_class(entry)}">{text}</li>'


def items(entries: Sequence[Entry]) -> str:
    """A list of claims; those that could not be run once for each reason."""
    run = [item(entry) for entry in entries if entry.verdict != NOT_RUN]
    others: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.verdict == NOT_RUN:
            others.setdefault(entry.reason, []).append(entry)
    for reason, (first, *more) in others.items():
        if more:
            names = ", ".join(entry.claim for entry in more)
            reason = f"{reason.rstrip('.')}; the same for {names}"
        run.append(item(first._replace(reason=reason)))
    return f'<ul class="claims">{"".join(run)}</ul>' if run else ""


def table(entries: list[Entry]) -> str:
    """All verdicts, a row each."""
    rows = []
    for entry in entries:
        around = html.escape(interval(entry))
        rows.append(
            f'<tr class="{_class(entry)}">'
            f"<td>{html.escape(entry.claim)}</td>"
            f"<td>{prose(entry.statement)}"
            f'<span class="interval">{prose(entry.source)}</span></td>'
            f'<td data-label="predicted">{predicted(entry)}'
            f'<span class="interval">{prose(entry.reason)}</span></td>'
            f'<td data-label="measured">{measured(entry)}'
            f'<span class="interval">{around}</span></td>'
            f"<td><strong>{MARKS[entry.verdict]} {entry.verdict}</strong></td></tr>"
        )
    names = ("claim", "statement and source", "predicted", "measured", "verdict")
    head = "".join(f"<th>{name}</th>" for name in names)
    return (
        '<div class="wide"><table class="verdicts"><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _class(entry):
    return entry.verdict.replace(" ", "-")
