"""Notebooks run from top to bottom, and what is committed is what their source says."""

import importlib.util
import json
import pathlib
import re

import jupytext
import pytest
from marks import slow_but_for

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
SOURCES = sorted(FOLDER.glob("[0-9]*.py"))
PICTURES = {"01_depth": 5, "02_spectra": 3}


def load_execute():
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.execute


def pictures(notebook):
    return [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def source(request):
    return request.param


def test_there_are_notebooks():
    assert [path.stem for path in SOURCES] == list(PICTURES)


@pytest.mark.parametrize(
    "source",
    slow_but_for(SOURCES, lambda path: path.stem == "02_spectra"),
    ids=lambda path: path.stem,
)
def test_it_runs_at_a_small_size(source, monkeypatch):
    monkeypatch.setenv("NTK_RESNET_SMALL", "1")
    notebook = load_execute()(source)  # an error in a cell raises
    assert len(pictures(notebook)) == PICTURES[source.stem]
    streams = [
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert not streams


def test_source_and_notebook_are_in_step(source):
    written = jupytext.read(source.with_suffix(".ipynb"))
    expected = jupytext.read(source)
    kinds = [(cell.cell_type, cell.source) for cell in written.cells]
    assert kinds == [(cell.cell_type, cell.source) for cell in expected.cells], (
        "run python notebooks/execute.py"
    )


def test_what_is_committed_was_run_in_order_and_holds_no_trace_of_a_machine(source):
    path = source.with_suffix(".ipynb")
    assert path.stat().st_size < 500_000
    notebook = jupytext.read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len(pictures(notebook)) == PICTURES[source.stem]
    text = re.sub(r'"image/png": "[^"]*"', "", path.read_text(encoding="utf-8"))
    assert not re.search(r"/(home|root|Users|tmp|work)/|\d{4}-\d\d-\d\dT\d\d:", text)
    assert "iopub" not in json.dumps(notebook.metadata)


def test_only_public_names_are_used(source):
    text = source.read_text(encoding="utf-8")
    imports = re.findall(r"^\s*(?:import|from)\s+(\S+)", text, re.MULTILINE)
    assert "ntk_resnet" in imports
    assert not [name for name in imports if name.startswith(("ntk_resnet.", "neural"))]
    assert not re.findall(r"\bnr\.(?:\w+\.)*_\w+", text)
    assert "def " not in text
