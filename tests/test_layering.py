"""Imports point one way, and only the bridge imports neural-tangents."""

import ast
import pathlib

import pytest

import ntk_resnet as nr

PACKAGE = pathlib.Path(nr.__file__).parent

LAYERS = [
    {"_version", "_checks", "_progress"},
    {"_duals"},
    {"activations"},
    {"_specification"},
    {"convolutional"},
    {"architectures"},
    {"_code"},
    {"records"},
    {"_cache"},
    {"data", "_images"},
    {"_neural_tangents", "neural_tangents", "_stax_convolution", "stax", "kernels"},
    {
        "finite._rows",
        "finite._network",
        "finite.convolutional_networks",
        "finite.networks",
    },
    {"analysis"},
    {"finite"},
    {"figures", "spectral_figures", "finite_figures", "image_figures", "_drawing"},
    {"studies"},
    {"report", "_page", "_sections", "_section", "_image_sections", "_tables"},
    {"commands"},
    {"cli", "__main__"},
]


def layer_of(module):
    parts = module.split(".")
    for depth in (2, 1):
        for rank, names in enumerate(LAYERS):
            if ".".join(parts[:depth]) in names:
                return rank
    raise AssertionError(f"{module} is in no layer")


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


FILES = [p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for imported in imports_of(path):
        if imported:
            assert layer_of(imported) <= layer_of(own), f"{own} imports {imported}"


def test_only_one_module_imports_neural_tangents():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.split(".")[0] == "neural_tangents" for name in names):
                assert path.name == "_neural_tangents.py"


def test_what_computes_a_kernel_is_chosen_in_one_place():
    """The closed forms are behind one door, and all that need kernels go through it."""
    computing = {
        "profile": {"gap_from", "has_profile"},
        "recursion": {"propagate", "readout", "step_rows"},
        "images": {"matrix", "tile", "image_rows", "log_diagonals"},
        "stax": {"stax"},
    }
    # Kernels at many depths go through the blocks once, and profiles are made of them.
    by_themselves = {"depths", "_build_profile"}
    users = {}
    for path in FILES:
        if path.parent.name not in ("kernels", "analysis") or path.stem in computing:
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
    front = {"function", "gram", "operator"}
    for path in FILES:
        if path.stem in front and path.parent.name == "kernels":
            text = path.read_text()
            assert "_make_plan import" in text or "engines import" in text
