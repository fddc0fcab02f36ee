"""Pages are well formed, fetch nothing, and say what the ledger says."""

import dataclasses
import html.parser
import re
import shutil

import numpy as np
import pytest
import small_study

import ntk_resnet as nr
from ntk_resnet.plot import drawing
from ntk_resnet.records.provenance import versions
from ntk_resnet.report import entries, pages, tables
from ntk_resnet.studies.ledger import FAILS, HOLDS, INCONCLUSIVE, NOT_RUN, Entry


class Page(html.parser.HTMLParser):
    """Checks that elements nest, and collects links, ids and words."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.ids, self.tags = [], [], [], []
        self.words = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag == "a":
            self.links.append(attrs["href"])
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag not in {"meta"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def runs():
    return list(small_study.runs().values())


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    shutil.copytree(small_study.folder() / "data", out / "data")
    pages.write(out, runs())
    return out


@pytest.fixture(scope="module")
def texts(out):
    names = ("index", *small_study.SIZES)
    return {n: (out / f"{n}.html").read_text(encoding="utf-8") for n in names}


@pytest.fixture(scope="module", params=["index", *small_study.SIZES])
def one(request, texts):
    return request.param, texts[request.param], Page(texts[request.param])


def test_elements_nest_and_ids_are_unique(one):
    name, _, page = one
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("h1") == 1
    if name != "index":
        run = small_study.runs()[name]
        drawn = [f for f in run.study.figures.values() if f.of in run.results]
        assert page.tags.count("svg") == len(drawn)


def test_nothing_is_fetched(one):
    _, text, page = one
    assert not set(page.tags) & {"script", "link", "img", "iframe", "object", "image"}
    assert "@import" not in text
    # Namespaces are names, not addresses to fetch.
    rest = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert not re.findall(r"https?:|//[a-z]", rest)
    assert not re.findall(r"url\((?!#)", rest)


def test_every_link_leads_somewhere(out, one):
    name, _, page = one
    assert len(page.links) >= (len(small_study.SIZES) if name == "index" else 5)
    for link in page.links:
        assert (out / link).exists(), link
        assert not link.startswith("/")


def test_a_page_opens_with_question_answer_and_figure(one):
    name, text, _ = one
    if name != "index":
        run = small_study.runs()[name]
        places = [text.index(part) for part in ("<h1>", '"message"', "<svg", "<table")]
        assert places == sorted(places)
        assert run.study.question in html.unescape(text)
        open_ones = [e for e in run.entries if e.verdict != HOLDS]
        assert ('id="trouble"' in text) == bool(open_ones)


def test_every_claim_stands_with_its_figure_and_in_the_table(one):
    name, text, _ = one
    if name == "index":
        return
    run = small_study.runs()[name]
    for entry in run.entries:
        if entry.verdict == NOT_RUN:
            continue  # one line for all of a kind
        said = tables.prose(entry.statement)
        shown = 2 if entry.verdict == HOLDS else 3
        assert text.count(said + ". ") + text.count(f"<td>{said}<") == shown
    for verdict, mark in entries.MARKS.items():
        count = sum(e.verdict == verdict for e in run.entries)
        assert text.count(f"<td><strong>{mark} {verdict}</strong>") == count


def test_what_was_run_is_said(one):
    name, _, page = one
    if name != "index":
        words = " ".join(page.words)
        found = versions()
        for key in ("jax", "neural_tangents", "ntk_resnet"):
            assert found[key] in words
        assert "cpu" in words
        for part in small_study.runs()[name].results:
            assert part in words


def test_the_index_counts_all_claims(texts):
    everything = [e for one in runs() for e in one.entries]
    assert entries.counts(everything) in texts["index"]
    assert f"of {len(everything)} claims" in texts["index"]


@pytest.fixture
def no_files(monkeypatch):
    """Spares the files of the figures, which `out` has: the page holds them anyway.

    To save a figure lays it out again, so such a page differs from one with files.
    """
    monkeypatch.setattr(drawing, "save", lambda axes, path: path)


@pytest.mark.usefixtures("no_files")
def test_hostile_names_are_words(tmp_path):
    run = small_study.runs()["digits"]
    found = dict(run.results)
    spectra = found["spectra"].copy(deep=True)
    spectra.attrs["data"] = '<script>alert("x")</script>'
    found["spectra"] = spectra
    pages.write(tmp_path, [run._replace(results=found)])
    page = Page((tmp_path / "digits.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags


def test_same_results_same_page(tmp_path, out):
    shutil.copytree(small_study.folder() / "data", tmp_path / "data")
    pages.write(tmp_path, [small_study.runs()["digits"]])
    assert (tmp_path / "digits.html").read_bytes() == (out / "digits.html").read_bytes()


def test_unwritable_page(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        pages.write(tmp_path / "file", [small_study.runs()["digits"]])


def test_panels_have_letters_and_single_ones_none():
    axes = nr.plot.new_axes(2, 2)
    pages.letter_panels(axes)
    assert [ax.texts[0].get_text() for ax in axes.flat] == ["a", "b", "c", "d"]
    alone = nr.plot.new_axes()
    pages.letter_panels(alone)
    assert not alone[0, 0].texts


# ------------------------------------------------------------------------------- words


LINE = Entry(
    study="s",
    claim="1a",
    statement="falls like L^(−2)",
    source="Theorem 1 (derived here)",
    predicted=1.0,
    measured=2.3333333,
    low=2.25,
    high=2.5,
    tolerance=0.25,
    verdict=FAILS,
    seconds=0.0,
    side="within",
    interval="95 % of the fit",
    reason="next term",
    figure="",
)


@pytest.mark.parametrize(
    ("side", "said"), [("below", "< 1"), ("above", "> 1"), ("within", "1 ± 0.25")]
)
def test_what_a_claim_allows_is_said(side, said):
    assert entries.predicted(LINE._replace(side=side)) == said


def test_digits_are_those_that_the_interval_leaves():
    assert entries.measured(LINE) == "2.33"
    assert entries.interval(LINE) == "[2.25, 2.5] 95 % of the fit"
    sharp = LINE._replace(low=2.3333333 - 1e-9, high=2.3333333 + 1e-9)
    assert entries.measured(sharp) == "2.33333"
    assert entries.interval(sharp) == "± 1e-09 95 % of the fit"
    wide = LINE._replace(low=-20.0, high=30.0)
    assert entries.measured(wide) == "2.3"
    assert entries.interval(LINE._replace(low=np.nan)) == "95 % of the fit"


def test_verdicts_are_counted_in_words():
    lines = [LINE._replace(verdict=v) for v in (HOLDS, HOLDS, FAILS, INCONCLUSIVE)]
    assert entries.counts(lines) == "2 of 4 claims hold, 1 fails, 1 inconclusive"
    assert entries.counts(lines[:1]) == "1 of 1 claim holds"
    assert entries.counts([LINE._replace(verdict=NOT_RUN)]).endswith("1 not run")


def test_a_claim_that_could_not_be_run_says_why():
    line = LINE._replace(verdict=NOT_RUN, reason="no files", low=np.nan, high=np.nan)
    assert "no files" in entries.item(line)
    assert "measured" not in entries.item(line)
    assert 'class="not-run"' in entries.item(line)
    several = entries.items([line, line, LINE, line._replace(reason="other")])
    assert several.count("<li") == 3
    assert f"no files; the same for {LINE.claim}" in several


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.25, "0.25"),
        (-1.0, "−1"),
        (1e-12, "1e−12"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
        (123456.0, "1.235e5"),
    ],
)
def test_numbers(value, expected):
    assert tables.number(value) == expected


def test_prose_escapes_and_raises():
    assert tables.prose("a < L^(1−2γ)") == "a &lt; L<sup>1−2γ</sup>"


def test_studies_without_figures_of_their_own_results_have_pages(tmp_path):
    """As where a measurement could not be run."""
    run = small_study.runs()["digits"]
    results = {k: v for k, v in run.results.items() if k != "ridge"}
    other = dataclasses.replace(run.study, answer=lambda results, lines: "a. b.")
    pages.write(tmp_path, [run._replace(study=other, results=results)])
    assert "digits-ridge" not in (tmp_path / "digits.html").read_text(encoding="utf-8")
