"""The package as a whole: names, imports, metadata."""

import ast
import configparser
import json
import pathlib
import subprocess
import sys

import pytest
from public import MODULES, public_in

import ntk_resnet as nr

pytestmark = pytest.mark.quick

ROOT = pathlib.Path(nr.__file__).parent.parent


def test_public_names():
    assert sorted(nr.__all__) == [
        "Activation", "BalancedScale", "ConstantScale", "ConvNet", "ConvResNet",
        "DecreasingScale",
        "DepthScale", "FeedForward", "LeakyReLU", "NTKClassifier", "NTKRegressor",
        "ResNet", "__version__", "bounds", "curvature", "decay_exponent", "degeneracy",
        "diag",
        "early_stopping", "finite", "fit_power",
        "from_json", "gram", "gram_operator", "kernel_distance",
        "kernel_distance_sweep", "kernel_fn",
        "kernel_ridge", "laplace_mercer", "learning_curve", "learning_curve_on_data",
        "learning_curve_on_sphere", "load_data", "mercer", "myrtle", "neural_tangents",
        "one_block_correction", "open_gram", "parity_imbalance", "phase", "plot",
        "predicted_condition_number", "profile", "signal", "solve",
        "spectral_distribution",
        "spectrum", "stax", "sweep_depth",
        "to_json", "wide_resnet",
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


@pytest.fixture(scope="module")
def used():
    """Settings of JAX before and after, and what the kernels load, in one process."""
    return fresh(
        "import jax, json, sys; read = lambda: {k: repr(v) for k, v in "
        "jax.config.values.items()}; before = read(); import numpy as np; "
        "import ntk_resnet as nr; nr.kernel_fn(nr.FeedForward(depth=2))(np.eye(2)); "
        "loaded = sorted({m.split('.')[0] for m in sys.modules}); "
        "nr.sweep_depth(nr.FeedForward(depth=2), 3, x=np.eye(2)); nr.finite; nr.stax; "
        "nr.neural_tangents; print(json.dumps([before, read(), loaded]))"
    )


def test_the_kernels_need_neither_flax_nor_neural_tangents_nor_matplotlib(used):
    _, _, loaded = used
    heavy = {"flax", "optax", "neural_tangents", "matplotlib", "sklearn", "tensorflow"}
    assert not heavy & set(loaded)


def test_the_library_leaves_the_settings_of_jax_alone(used):
    before, after, _ = used
    assert before == after


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


def names_in(node):
    used = (getattr(n, "id", getattr(n, "attr", None)) for n in ast.walk(node))
    fixtures = (n.arg for n in ast.walk(node) if isinstance(n, ast.arg))
    return {*used, *fixtures} - {None}


def is_quick(node):
    """Whether a statement marks as quick what it stands before, or its module."""
    if isinstance(node, ast.FunctionDef):
        return any("quick" in names_in(decorator) for decorator in node.decorator_list)
    targets = getattr(node, "targets", [])
    return "pytestmark" in map(ast.unparse, targets) and "quick" in names_in(node)


def used_by_quick_tests(path):
    """Names in the quick tests of a file, and in what these use of it."""
    definitions, body = {}, ast.parse(path.read_text()).body
    for node in body:
        targets = getattr(node, "targets", [node])
        names = [getattr(n, "name", getattr(n, "id", None)) for n in targets]
        definitions |= dict.fromkeys(names, node)
    all_are = any(is_quick(node) for node in body if isinstance(node, ast.Assign))
    ahead = [
        name
        for name, node in definitions.items()
        if name and name.startswith("test_") and (all_are or is_quick(node))
    ]
    seen = set()
    while ahead:
        name = ahead.pop()
        if name not in seen and name in definitions:
            ahead += names_in(definitions[name])
        seen.add(name)
    return seen


def test_quick_tests_try_each_public_function():
    tests = pathlib.Path(__file__).parent.rglob("test_*.py")
    used = set().union(*map(used_by_quick_tests, tests))
    modules = {"__version__", "stax", "neural_tangents", *nr._MODULES}
    inside = {name for module in MODULES for name in public_in(module)}
    assert not {*nr.__all__, *inside} - modules - used - {"Curvature"}
