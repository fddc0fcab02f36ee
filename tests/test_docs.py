"""The pages name what there is, all of it, and their examples run."""

import contextlib
import io
import pathlib
import re
import textwrap
import warnings
from typing import NamedTuple

import numpy as np
import pytest
from public import MODULES, public_in

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


def two_columns(path):
    """Rows of a table of code: what stands left and right."""
    code = r"```(?:{code-block} )?python\n(.*?)\n *```"
    rows = re.findall(rf"^\* - {code}\n  - {code}$", path.read_text(), re.S | re.M)
    return [tuple(map(textwrap.dedent, row)) for row in rows]


@pytest.mark.slow
def test_both_columns_give_the_same():
    """To what neural-tangents' own rounding leaves: the root of eps, on diagonals."""
    page = DOCS / "guides" / "migrate.md"
    before = page.read_text().partition(":::")[0]
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", before, re.S):
        exec(code, names)
    left, right = dict(names), dict(names)
    rows = two_columns(page)
    assert len(rows) == 7
    for old, new in rows:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of neural-tangents, on FanInSum
            exec(old, left)
        exec(new, right)
        last = re.findall(r"^(\w+) = ", new, re.M)[-1]
        np.testing.assert_allclose(left[last], right[last], rtol=1e-6, atol=1e-6)


def public_names():
    """Names that users see, as the API pages write them."""
    yield from (f"ntk_resnet.{name}" for name in nr.__all__ if name not in MODULES)
    for module in MODULES:
        yield from (f"ntk_resnet.{module}.{name}" for name in public_in(module))


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
