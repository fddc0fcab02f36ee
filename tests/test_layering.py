"""Imports point one way, and only the bridge imports neural-tangents."""

import ast
import graphlib
import importlib
import pathlib
import sys

import pytest

import ntk_resnet as nr

PACKAGE = pathlib.Path(nr.__file__).parent

# Whatever stands earlier may be imported by what stands later, never the other way.
ORDER = (
    "_version",
    "_checks",
    "_progress",
    "_numerics",
    "_precision",
    "activations",
    "specification",
    "_inputs",
    "records",
    "data",
    "models",
    "reference",
    "neural_tangents",
    "kernels",
    "analysis",
    "finite",
    "plot",
    "studies",
    "report",
    "cli",
    "__main__",
)


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "ntk_resnet"
        ):
            home = node.module.removeprefix("ntk_resnet").strip(".")
            for alias in node.names:
                inside = PACKAGE.joinpath(*home.split("."), alias.name)
                is_module = inside.is_dir() or inside.with_suffix(".py").exists()
                yield f"{home}.{alias.name}".strip(".") if is_module else home
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("ntk_resnet."):
                    yield alias.name.removeprefix("ntk_resnet.")


FILES = [p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py"]


def name_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_packages_import_one_way(path):
    own = name_of(path)
    for imported in filter(None, imports_of(path)):
        ranks = [ORDER.index(name.split(".")[0]) for name in (imported, own)]
        assert ranks[0] <= ranks[1], f"{own} imports {imported}"


def test_modules_import_in_no_circle():
    """Inside a package too, whatever the order that its modules are read in."""
    graph = {name_of(path): set(filter(None, imports_of(path))) for path in FILES}
    assert tuple(graphlib.TopologicalSorter(graph).static_order())


def test_few_modules_lie_loose():
    """A reader sees the packages first."""
    assert len(list(PACKAGE.glob("*.py"))) <= 10
    assert len(list((PACKAGE / "kernels").glob("*.py"))) <= 12


def test_no_module_is_hidden_by_a_name():
    """`import a.b.c` gives the module, whatever functions are called."""
    for path in FILES:
        if path.stem != "__main__" and name_of(path) != "neural_tangents":
            name = f"ntk_resnet.{name_of(path)}"
            assert importlib.import_module(name) is sys.modules[name]
            *_, last = name.split(".")
            parent = sys.modules[name.rpartition(".")[0]]
            assert getattr(parent, last) is sys.modules[name]


def test_only_one_module_imports_neural_tangents():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.split(".")[0] == "neural_tangents" for name in names):
                assert name_of(path) == "reference.neural_tangents"


def test_what_computes_a_kernel_is_chosen_in_one_place():
    """The closed forms are behind one door, and all that need kernels go through it."""
    computing = {
        "profile": {"gap_from", "has_profile"},
        "recursion": {"propagate", "readout", "step_rows"},
        "matrices": {"matrix", "tile", "image_rows", "log_diagonals"},
        "stax": {"stax"},
    }
    # Kernels at many depths go through the blocks once, and profiles are made of them.
    by_themselves = {"depths", "build"}
    users = {}
    for path in FILES:
        in_kernels = path.is_relative_to(PACKAGE / "kernels")
        if not in_kernels or path.stem in computing:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                home = (node.module or "").split(".")[-1]
                named = {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                home, named = node.value.id, {node.attr}
            else:
                continue
            for name in named & computing.get(home, set()):
                users.setdefault(path.stem, set()).add(f"{home}.{name}")
    assert set(users) - by_themselves == {"engines"}
    assert {name.split(".")[0] for name in users["engines"]} == set(computing)
