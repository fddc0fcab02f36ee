"""The pages name what there is, all of it, and their examples run."""

import pathlib
import re

import pytest

import ntk_resnet as nr

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


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
