"""What every study in the catalogue is: public, whole, and honest about its sources."""

import ast
import importlib
import pathlib
import re
import string

import pytest

import ntk_resnet as nr
from ntk_resnet.studies import catalogue
from ntk_resnet.studies.ledger import KNOWN, not_run

PACKAGE = pathlib.Path(nr.__file__).parent
DOCS = PACKAGE.parent / "docs" / "api"
DOCUMENTED = {
    name
    for page in DOCS.glob("*.md")
    for name in re.findall(r"^\.\. auto\w+:: ntk_resnet\.(\S+)", page.read_text(), re.M)
}
DOCUMENTED |= {f"{nr._HOME[name]}.{name}" for name in DOCUMENTED & set(nr._HOME)}
# The frame of studies, words for people, and how long things take.
FRAME = ("studies", "plot", "_progress", "_checks", "records.provenance")
NAMES = pytest.mark.parametrize("name", catalogue.NAMES)


def files_of(name):
    module = importlib.import_module(f"ntk_resnet.studies.{name}")
    path = pathlib.Path(module.__file__)
    return list(path.parent.glob("*.py")) if path.stem == "__init__" else [path]


def test_the_catalogue_is_all_there_is():
    frame = {"catalogue", "comparisons", "families", "ledger", "limits", "runner"}
    frame |= {"splits", "study", "__init__"}
    there = {p.stem for p in (PACKAGE / "studies").iterdir() if p.name[0] != "_"}
    assert there - frame == set(catalogue.NAMES)
    with pytest.raises(ValueError, match="study must be one of 'huang2020'"):
        catalogue.study("huang2021")


@NAMES
def test_measurements_use_public_functions_only(name):
    """The documented ones; what studies share is theirs too."""
    shared = [PACKAGE / "studies" / f"{s}.py" for s in ("families", "limits", "splits")]
    for path in [*files_of(name), *shared]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            home = (node.module or "").removeprefix("ntk_resnet").strip(".")
            if not (node.module or "").startswith("ntk_resnet") or not home:
                continue
            for alias in node.names:
                public = f"{home}.{alias.name}" in DOCUMENTED
                inside = any(home == f or home.startswith(f + ".") for f in FRAME)
                assert public or inside, f"{path.name}: {home}.{alias.name}"


@NAMES
def test_a_study_says_what_it_is_about(name):
    study = catalogue.study(name)
    assert study.name == name
    assert study.question.endswith("?")
    assert study.reference.startswith("@")
    assert study.summary
    assert study.figures
    assert 0 < study.budget.quick < study.budget.full <= 1500


@NAMES
def test_each_claim_has_a_source_a_reason_and_a_measurement(name):
    study = catalogue.study(name)
    assert len(study.claims) >= 3
    used = {claim.of for claim in study.claims}
    used |= {figure.of for figure in study.figures.values()}
    assert used == set(study.measurements)
    for claim in study.claims:
        assert claim.known in KNOWN
        assert claim.source
        assert claim.reason
        assert claim.statement[-1] not in ".;,"
        if claim.side == "within":
            assert callable(claim.tolerance) or claim.tolerance > 0
    for parts in zip(*((c.statement, c.name) for c in study.claims), strict=True):
        assert len(parts) == len(set(parts)), "two claims of one name, or statement"
    for claim in study.claims:  # what is said of the result stays open
        assert "{" not in not_run(name, claim, "no data").statement


@NAMES
def test_words_name_attributes_only(name):
    """As `{depth}`: not positions, and no expressions."""
    study = catalogue.study(name)
    texts = [t for c in study.claims for t in (c.statement, c.reason)]
    texts += [t for f in study.figures.values() for t in (f.title, f.caption)]
    for text in texts:
        for _, field, _, _ in string.Formatter().parse(text):
            assert field is None or field.isidentifier(), text


def test_quick_budgets_fit_into_six_minutes_and_full_ones_into_sixty():
    budgets = [catalogue.study(name).budget for name in catalogue.NAMES]
    assert sum(one.quick for one in budgets) < 360
    assert sum(one.full for one in budgets) <= 3600
