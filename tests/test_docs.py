"""The pages name what there is, all of it, and their examples run."""

import contextlib
import io
import pathlib
import re
import textwrap
from typing import NamedTuple

import pytest

import ntk_resnet as nr

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
SLOW = {"features.md", "getting_started.md", "guides/migrate.md", "idea.md"}
"""Pages whose examples take more than about ten seconds."""


class Example(NamedTuple):
    """A block of Python, and what the page says that it prints, if it says so."""

    code: str
    prints: str | None


def examples(path):
    """The blocks marked `python`; one marked `text` right below is the output."""
    fence = r"^(?P<pad>[ *-]*)```python\n(?P<code>.*?)^ *```\n"
    output = r"(?:\n *```text\n(?P<prints>.*?)^ *```\n)?"
    for found in re.finditer(fence + output, path.read_text(), re.S | re.M):
        yield Example(textwrap.dedent(found["code"]), found["prints"])


def run(path):
    """Runs the examples of a page, in turn; the names that they leave behind."""
    names: dict = {"__name__": "page"}
    for example in examples(path):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(example.code, names)
        if example.prints is not None:
            assert said.getvalue() == example.prints
    return names


def pages_with_examples():
    for path in PAGES:
        name = str(path.relative_to(DOCS))
        if any(examples(path)):
            marks = [pytest.mark.slow] if name in SLOW else []
            yield pytest.param(path, id=name, marks=marks)


@pytest.mark.parametrize("path", list(pages_with_examples()))
def test_the_examples_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(path)


def public_names():
    """Names that users see, as the API pages write them."""
    yield from (f"ntk_resnet.{name}" for name in nr.__all__ if name != "finite")
    for name, value in vars(nr.finite).items():
        if callable(value) and not name.startswith("_"):
            yield f"ntk_resnet.finite.{name}"


def test_every_public_name_is_on_an_api_page():
    text = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    named = re.findall(r"^\.\. (?:auto)?\w+:: (\S+)$", text, re.M)
    assert len(named) == len(set(named))
    assert not set(public_names()) - set(named)


@pytest.mark.parametrize(
    "path", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name
)
def test_files_that_pages_name_exist(path):
    """Files of the repository, written as code; and tests of a file, `file::test`."""
    for name, _, test in re.findall(
        r"`((?:tests|benchmarks|ntk_resnet|docs|requirements|notebooks)/[\w/.]+?\.\w+)"
        r"(::(\w+))?`",
        path.read_text(),
    ):
        assert (ROOT / name).exists(), name
        if test:
            assert f"def {test}(" in (ROOT / name).read_text(), (name, test)
