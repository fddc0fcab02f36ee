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
    frame |= {"spheres", "splits", "study", "__init__"}
    there = {p.stem for p in (PACKAGE / "studies").iterdir() if p.name[0] != "_"}
    assert there - frame == set(catalogue.NAMES)
    with pytest.raises(ValueError, match="study must be one of 'huang2020'"):
        catalogue.study("huang2021")


SHARED = ("comparisons", "families", "limits", "spheres", "splits")


@NAMES
def test_measurements_use_public_functions_only(name):
    """The documented ones; what studies share is theirs too."""
    shared = [PACKAGE / "studies" / f"{s}.py" for s in SHARED]
    for path in [*files_of(name), *shared]:
        for used in used_names(ast.parse(path.read_text())):
            assert is_public(used), f"{path.name}: {used}"


def test_what_is_not_public_is_seen_however_it_is_imported():
    for text in (
        "from ntk_resnet.analysis.phases import _layer",
        "from ntk_resnet.analysis import phases",
        "from ntk_resnet import _inputs",
        "import ntk_resnet.analysis.phases",
        "import ntk_resnet.analysis.phases as own",
        "import ntk_resnet as nr\nnr._inputs.check(1)",
        "import ntk_resnet as nr\nnr.analysis.phases._layer(1)",
    ):
        assert not all(map(is_public, used_names(ast.parse(text)))), text
    text = "import ntk_resnet as nr\nnr.gram(nr.finite.build(nr.ResNet().depth))"
    assert all(map(is_public, used_names(ast.parse(text))))


def used_names(tree):
    """What a module uses of the package, without the package's name."""
    package = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            package |= {a.asname or a.name for a in node.names if a.name == nr.__name__}
        else:
            continue
        yield from (
            one.removeprefix(f"{nr.__name__}.")
            for one in names
            if one.startswith(f"{nr.__name__}.")
        )
    inner = {n.value for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node not in inner:
            first, _, rest = ast.unparse(node).partition(".")
            if first in package and re.fullmatch(r"[\w.]+", rest):  # no calls in it
                yield rest


def is_public(used):
    """Whether it is documented, or an attribute of something that is."""
    parts = used.split(".")
    starts = {".".join(parts[: k + 1]) for k in range(len(parts))}
    return bool(starts & (DOCUMENTED | set(FRAME)))


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


def test_budgets_fit_into_what_is_promised():
    """Studies of kernels in six minutes, or sixty; with those of training in ten, or
    in 150."""
    budgets = {name: catalogue.study(name).budget for name in catalogue.NAMES}
    training = ("li2016", "desmith2020", "dherin2025")
    kernels = [budget for name, budget in budgets.items() if name not in training]
    assert sum(one.quick for one in kernels) < 360
    assert sum(one.full for one in kernels) <= 3600
    assert sum(one.quick for one in budgets.values()) < 600
    assert sum(one.full for one in budgets.values()) <= 9000
