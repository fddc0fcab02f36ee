"""The settings of Sphinx; `make docs` builds the pages into `docs/_build/html`."""

import pathlib
import runpy

import ntk_resnet

project = "ntk_resnet"
version = release = ntk_resnet.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

default_role = "literal"  # docstrings write `name` for code
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Accuracy", "Memory"]
napoleon_use_rtype = False
napoleon_attr_annotations = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes are said in the text; as types they fill the page

html_theme = "furo"
html_show_copyright = False
html_title = f"ntk_resnet {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]


def setup(app):
    """Draws the pictures of the gallery, beside the pages that show them."""
    make = runpy.run_path(str(pathlib.Path(__file__).parent / "gallery" / "make.py"))
    app.connect("config-inited", lambda app, config: make["main"]())
