"""The package as a whole: names, imports, layers, metadata."""

import ast
import configparser
import json
import pathlib
import subprocess
import sys

import pytest

import ntk_resnet as nr

ROOT = pathlib.Path(nr.__file__).parent.parent
PACKAGE = ROOT / "ntk_resnet"


def test_public_names():
    assert sorted(nr.__all__) == [
        "Activation", "ConstantScale", "DecreasingScale", "DepthScale", "FeedForward",
        "LeakyReLU", "ResNet", "__version__", "diag", "finite", "from_json",
        "kernel_fn", "kernel_ridge", "load_data", "neural_tangents", "spectrum", "stax",
        "sweep_depth", "to_json",
    ]  # fmt: skip
    for name in nr.__all__:
        assert getattr(nr, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'kernal_fn'"):
        nr.kernal_fn  # noqa: B018


def fresh(code):
    """What a fresh interpreter prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_importing_the_package_imports_nothing_heavy():
    loaded = fresh(
        "import ntk_resnet, sys, json; print(json.dumps(sorted({m.split('.')[0] "
        "for m in sys.modules})))"
    )
    heavy = {"jax", "flax", "optax", "xarray", "matplotlib", "sklearn", "scipy"}
    assert not heavy & set(loaded)


def test_the_kernels_need_neither_flax_nor_neural_tangents_nor_matplotlib():
    loaded = fresh(
        "import ntk_resnet as nr, numpy as np, sys, json; "
        "nr.kernel_fn(nr.FeedForward(depth=2))(np.eye(2)); "
        "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    heavy = {"flax", "optax", "neural_tangents", "matplotlib", "sklearn", "tensorflow"}
    assert not heavy & set(loaded)


def test_the_library_leaves_the_settings_of_jax_alone():
    before, after = fresh(
        "import jax, json; read = lambda: {k: repr(v) for k, v in "
        "jax.config.values.items()}; before = read(); import numpy as np; "
        "import ntk_resnet as nr; nr.kernel_fn(nr.FeedForward(depth=2))(np.eye(2)); "
        "nr.sweep_depth(nr.FeedForward(depth=2), 3, x=np.eye(2)); nr.finite; nr.stax; "
        "nr.neural_tangents; print(json.dumps([before, read()]))"
    )
    assert before == after


LAYERS = [
    {"_version", "_checks"},
    {"_duals"},
    {"activations"},
    {"architectures"},
    {"data", "records"},
    {"_neural_tangents", "stax", "kernels", "finite.networks"},
    {"analysis"},
    {"finite"},
    {"figures", "_drawing"},
    {"studies"},
    {"report", "_page", "_tables"},
    {"cli"},
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


def test_metadata():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["name"] == "ntk_resnet"
    assert setup["metadata"]["license_expression"] == "Apache-2.0"
    needs = setup["options"]["install_requires"].split()
    assert "neural-tangents==0.6.5" in needs
    assert "jax>=0.10" in needs
    assert {"cuda12", "cuda13"} <= set(setup["options.extras_require"])
    import tomllib

    assert "project" not in tomllib.loads((ROOT / "pyproject.toml").read_text())
    for lock in (ROOT / "requirements").glob("py*.txt"):
        assert "tensorflow" not in lock.read_text()


def test_the_environment_holds_no_tensorflow():
    import importlib.util

    assert importlib.util.find_spec("tensorflow") is None
    assert importlib.util.find_spec("tf2jax") is None
