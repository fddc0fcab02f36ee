"""The page is well formed, fetches nothing, and all its links lead somewhere."""

import html.parser
import re
import shutil

import pytest
import small_study
import xarray as xr

from ntk_resnet.plot import drawing
from ntk_resnet.records import results as records
from ntk_resnet.records.provenance import versions
from ntk_resnet.report import report, tables
from ntk_resnet.studies import depth_claims


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


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    shutil.copytree(small_study.folder() / "data", out / "data")
    report.write(out, small_study.results(), small_study.claims())
    return out


@pytest.fixture(scope="module")
def text(out):
    return (out / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_elements_nest_and_ids_are_unique(page):
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") == 18
    assert page.tags.count("h1") == 1


def test_nothing_is_fetched(text, page):
    assert not set(page.tags) & {"script", "link", "img", "iframe", "object", "image"}
    assert "@import" not in text
    # Namespaces are names, not addresses to fetch.
    rest = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert not re.findall(r"https?:|//[a-z]", rest)
    assert not re.findall(r"url\((?!#)", rest)


def test_every_link_leads_somewhere(out, page):
    assert len(page.links) > 30
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        else:
            assert (out / link).exists(), link
            assert not link.startswith("/")


def test_every_part_has_its_zarr_and_csv_linked(page):
    for part in (*small_study.results(), "verdicts"):
        assert f"data/{part}.zarr/" in page.links
        assert f"data/{part}.csv" in page.links


def test_it_says_what_the_issue_asks_for(page):
    words = " ".join(page.words)
    for claim in small_study.claims().statement.values:
        # Superscripts split the words, so compare what comes before them.
        assert str(claim).split("^")[0] in words
    found = versions()
    for key in ("jax", "neural_tangents", "ntk_resnet"):
        assert found[key] in words
    assert "cpu" in words
    assert "FeedForward" in words


def test_message_is_three_sentences_with_the_numbers_of_the_run():
    message = report._message(small_study.results(), small_study.claims())
    assert len(re.findall(r"[a-z%]\. [A-Z\d]", message)) == 2
    r2 = float(
        small_study.results()["regression"].r2_mean.sel(family="plain").isel(depth=-1)
    )
    assert f"{r2:.0%}" in message


@pytest.fixture
def no_files(monkeypatch):
    """Spares the files of the figures, which `out` has: the page holds them anyway.

    To save a figure lays it out again, so such a page differs from one with files.
    """
    save = lambda axes, path: path  # noqa: E731
    monkeypatch.setattr(drawing, "save", save)


@pytest.mark.usefixtures("no_files")
def test_a_failed_prediction_is_shown_as_such(out, tmp_path):
    results = small_study.results()
    rates = results["rates"].copy(deep=True)
    rates["plain_ntk"] = rates.plain_ntk * 1.1
    claims = depth_claims.judge({**results, "rates": rates})
    failed = int((~claims.holds).sum())
    shutil.copytree(out / "data", tmp_path / "data")
    text = report.write(tmp_path, results, claims).read_text(encoding="utf-8")
    assert text.count("✗ does not hold") == failed >= 1
    assert f"the other {failed} are marked below" in text


def test_verdicts_are_saved_beside_the_page(out):
    xr.testing.assert_identical(
        records.load(out / "data" / "verdicts.zarr"), small_study.claims()
    )


@pytest.mark.usefixtures("no_files")
def test_pages_of_real_targets_and_hostile_names(tmp_path):
    results = dict(small_study.results())
    regression = results["teacher"].copy(deep=True)
    regression.attrs["data"] = '<script>alert("x")</script>'
    results["regression"] = regression
    shutil.copytree(small_study.folder() / "data", tmp_path / "data")
    path = report.write(tmp_path, results, depth_claims.judge(results))
    page = Page(path.read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert "accuracy only goes" not in " ".join(page.words)


@pytest.mark.usefixtures("no_files")
def test_files_of_other_runs_are_not_linked(tmp_path):
    shutil.copytree(small_study.folder() / "data", tmp_path / "data")
    results = dict(small_study.results())
    del results["teacher"]
    path = report.write(tmp_path, results, depth_claims.judge(results))
    assert "teacher" not in path.read_text(encoding="utf-8")


def test_same_results_same_page(tmp_path, out):
    shutil.copytree(small_study.folder() / "data", tmp_path / "data")
    path = report.write(tmp_path, small_study.results(), small_study.claims())
    assert path.read_bytes() == (out / "index.html").read_bytes()


def test_unwritable_page(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        report.write(tmp_path / "file", small_study.results(), small_study.claims())


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
