"""Runs the notebooks in this folder and writes their .ipynb, the same every time.

    python notebooks/execute.py

Each .py file is the source; times, paths and versions of the machine are left out of
what is written.
"""

import pathlib
import warnings

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).parent


def execute(source: pathlib.Path) -> nbformat.NotebookNode:
    """The notebook of a percent-format script, with outputs."""
    notebook = jupytext.read(source)
    with warnings.catch_warnings():
        # What the kernel's transport says of itself on the way.
        warnings.simplefilter("ignore")
        NotebookClient(
            notebook, timeout=1800, kernel_name="python3", record_timing=False
        ).execute()
    notebook.metadata.pop("language_info", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        cell.metadata.pop("execution", None)
    return notebook


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("[0-9]*.py")):
        nbformat.write(execute(path), path.with_suffix(".ipynb"))
        print(path.with_suffix(".ipynb"))
