"""Results come back as they were saved, and damage to a store never goes unnoticed."""

import csv
import json
import os
import pathlib
import shutil
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import ntk_resnet as nr
from ntk_resnet.records import code, content
from ntk_resnet.records import results as records
from ntk_resnet.records.provenance import provenance

pytestmark = pytest.mark.quick


def example():
    return xr.Dataset(
        {
            "error": (
                ("family", "depth"),
                np.array([[0.1, np.nan, 1e-300], [1 / 3, -0.0, np.inf]]),
                {"units": "1", "long_name": "test error"},
            ),
            "holds": (("family",), np.array([True, False])),
            "statement": (("family",), ["plain falls", "L^(1-2γ)"]),
            "zeros": (("depth",), np.zeros(3, np.float32)),
            "slope": ((), -0.5),
            "note": ((), "a note"),
        },
        coords={
            "family": ["plain", "γ = 1/2"],
            "depth": [1, 10, 100],
            "label": ("family", ["a", "b"]),
        },
        attrs={"config": "{}", "seed": 3, "ridge": 1e-3},
    )


def files(path):
    return sorted(p for p in pathlib.Path(path).rglob("*") if p.is_file())


def test_round_trip_is_identical(tmp_path):
    path = records.save(example(), tmp_path / "deep" / "a.zarr")
    xr.testing.assert_identical(records.load(path), example())
    assert [p.name for p in path.parent.iterdir()] == ["a.zarr"]  # nothing left beside


def test_nan_of_either_sign_is_the_same(tmp_path):
    dataset = xr.Dataset({"a": ("b", -np.array([np.nan, np.nan]))})
    xr.testing.assert_identical(
        records.load(records.save(dataset, tmp_path / "a.zarr")), dataset
    )


def test_save_leaves_its_argument_alone_and_replaces_an_older_store(tmp_path):
    dataset = example()
    records.save(dataset, tmp_path / "a.zarr")
    xr.testing.assert_identical(dataset, example())
    smaller = dataset[["slope"]]
    records.save(smaller, tmp_path / "a.zarr")
    xr.testing.assert_identical(records.load(tmp_path / "a.zarr"), smaller)
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_no_byte_of_a_store_can_change_or_vanish_unnoticed(tmp_path):
    path = records.save(example(), tmp_path / "a.zarr")
    for file in files(path):
        content = file.read_bytes()
        for broken in (None, content[: len(content) // 2], b""):
            file.unlink() if broken is None else file.write_bytes(broken)
            with pytest.raises(ValueError, match=r"cannot be read|checksum"):
                records.load(path)
            file.write_bytes(content)
    records.load(path)


def test_changed_numbers_are_noticed(tmp_path):
    path = records.save(example(), tmp_path / "a.zarr")
    meta = path / "zarr.json"
    meta.write_text(meta.read_text().replace("0.001", "0.002"))
    with pytest.raises(ValueError, match="fails its checksum"):
        records.load(path)
    chunk = path / "error" / "c" / "0" / "0"
    meta.write_text(meta.read_text().replace("0.002", "0.001"))
    records.load(path)
    other = example()
    other["error"][0, 0] = 0.10000000000000002
    records.save(other, tmp_path / "b.zarr")
    chunk.write_bytes((tmp_path / "b.zarr" / "error/c/0/0").read_bytes())
    with pytest.raises(ValueError, match="fails its checksum"):
        records.load(path)


def test_what_is_not_a_result_is_said_to_be_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="no result at"):
        records.load(tmp_path / "missing.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(ValueError, match="cannot be read"):
        records.load(tmp_path / "empty.zarr")
    foreign = xr.Dataset({"a": ((), 1.0)})
    foreign.to_zarr(tmp_path / "foreign.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(ValueError, match="no checksum"):
        records.load(tmp_path / "foreign.zarr")


def test_save_refuses_to_replace_what_is_not_a_store(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="is not a zarr store"):
        records.save(example(), tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_save_refuses_what_zarr_cannot_hold(tmp_path):
    dates = xr.Dataset({"when": (("t",), np.array(["2020-01-01"], "datetime64[ns]"))})
    with pytest.raises(ValueError, match="'when' of the result holds datetime64"):
        records.save(dates, tmp_path / "a.zarr")
    objects = xr.Dataset({"what": (("t",), np.array([object()], object))})
    with pytest.raises(ValueError, match="'what' of the result holds object"):
        records.save(objects, tmp_path / "a.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [records.save, records.to_csv])
def test_unwritable_output_is_an_error_that_says_where(tmp_path, write):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write .*'.*a\.(zarr|csv)'"):
        write(example(), tmp_path / "file" / "a.zarr")


def test_an_interrupted_save_keeps_the_older_result(tmp_path, monkeypatch):
    path = records.save(example(), tmp_path / "a.zarr")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(content, "_replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        records.save(example()[["slope"]], path)
    xr.testing.assert_identical(records.load(path), example())
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_csv_gives_the_same_floats_back(tmp_path):
    written = records.to_csv(example(), tmp_path / "a.csv")
    assert sorted(p.name for p in written) == [
        "a.csv",
        "a.depth.csv",
        "a.family.csv",
        "a.scalars.csv",
    ]
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["family", "depth", "error", "label"]
    found = np.array([float(row["error"] or "nan") for row in rows]).reshape(2, 3)
    np.testing.assert_array_equal(found, example()["error"].values)
    assert "slope,-0.5\n" in (tmp_path / "a.scalars.csv").read_text()


def test_save_with_csv_writes_both(tmp_path):
    records.save(example(), tmp_path / "a.zarr", csv=True)
    assert (tmp_path / "a.zarr" / "zarr.json").exists()
    assert (tmp_path / "a.csv").exists()


def test_digest_does_not_depend_on_the_order_of_variables():
    dataset = example()
    turned = dataset[list(dataset.data_vars)[::-1]]
    assert records.content_digest(turned) == records.content_digest(dataset)
    renamed = dataset.rename(slope="slop")
    assert records.content_digest(renamed) != records.content_digest(dataset)


def test_provenance_is_flat_and_says_what_was_run(tmp_path):
    spec = nr.ResNet(depth=3, branch_scale=nr.DepthScale(0.5))
    found = provenance(
        spec=spec, seed=np.int64(3), depths=[1, 2], nothing=None, quick=True
    )
    assert nr.from_json(found["spec"]) == spec
    assert found["seed"] == 3
    assert found["quick"] == 1
    assert json.loads(found["depths"]) == [1, 2]
    assert "nothing" not in found
    for key in ("ntk_resnet", "jax", "neural_tangents", "device", "time_utc", "x64"):
        assert key in found
    assert all(type(value) in (str, int, float) for value in found.values())
    dataset = example().assign_attrs(found)
    xr.testing.assert_identical(
        records.load(records.save(dataset, tmp_path / "a.zarr")), dataset
    )


def test_an_activation_without_json_is_named_all_the_same():
    spec = nr.FeedForward(depth=1, activation=nr.Activation(jnp.sin))
    assert "FeedForward" in provenance(spec=spec)["spec"]


def test_write_text_is_all_or_nothing(tmp_path):
    content.write_file(tmp_path / "a" / "b.txt", "ψ")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "ψ"
    with pytest.raises(OSError, match="cannot write"):
        content.write_file(tmp_path / "a" / "b.txt" / "c.txt", "x")
    assert os.listdir(tmp_path / "a") == ["b.txt"]


# --------------------------------------------------------------------------- resuming


class Counted:
    """Computes the example, and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return example()


def test_resume_computes_once_for_each_configuration(tmp_path):
    compute, path = Counted(), tmp_path / "a.zarr"
    first = records.resume(path, {"n": 1}, compute)
    again = records.resume(path, {"n": 1}, compute)
    assert compute.calls == 1
    xr.testing.assert_identical(first, again)
    assert first.attrs["seed"] == 3
    assert "jax" in first.attrs
    assert (tmp_path / "a.csv").exists()
    records.resume(path, {"n": 2}, compute)
    assert compute.calls == 2
    records.resume(path, {"n": 1}, compute)
    assert compute.calls == 3


def test_resume_computes_a_damaged_result_again(tmp_path):
    compute, path = Counted(), tmp_path / "a.zarr"
    records.resume(path, {}, compute)
    (path / "error" / "c" / "0" / "0").write_bytes(b"noise")
    records.resume(path, {}, compute)
    assert compute.calls == 2
    records.load(path)


def test_resume_does_not_trust_results_of_other_code(tmp_path, monkeypatch):
    compute, path = Counted(), tmp_path / "a.zarr"
    records.resume(path, {}, compute)
    monkeypatch.setattr(code, "code_digest", lambda: "other")
    records.resume(path, {}, compute)
    assert compute.calls == 2


# ------------------------------------------------------------------ the code's digest

EDITS = {  # a module, an edit, and the folders whose digest it changes
    "docstring": (
        "kernels/profile/profile.py",
        ("Both kernels of one network", "Both"),
        "",
    ),
    "comment": (
        "kernels/profile/profile.py",
        ("import math", "import math  # more"),
        "",
    ),
    "said of a constant": (
        "kernels/profile/profile.py",
        ('"""Bound of the relative error of both gaps."""', '"""Another."""'),
        "",
    ),
    "layout": ("records/results.py", ("import json\n", "import json\n\n\n"), ""),
    "stylesheet": ("report/frame.py", ("<style>", "<style>h1 {color: red}"), ""),
    "table": ("report/tables.py", ("return ", "return None or "), ""),
    "figure": ("plot/depth.py", ("return ", "return None or "), ""),
    "constant": ("analysis/regression.py", ("16_384", "16_385"), "analysis finite"),
    "operation": (
        "kernels/pairs.py",
        ("half = angles.astype(np.float64) / 2", "half = angles / 2"),
        "kernels analysis finite",
    ),
    "activations": (
        "activations/named.py",
        ("return ", "return None or "),
        "all of them",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_the_digest_of_the_code_is_that_of_what_computes(name, tmp_path, monkeypatch):
    """Neither what is said of it, nor what only shows results."""
    root = tmp_path / "ntk_resnet"
    shutil.copytree(pathlib.Path(records.__file__).parent.parent, root)
    monkeypatch.setattr(code, "_ROOT", root)
    folders = ("kernels", "analysis", "finite")

    def digests():
        code.code_digest.cache_clear()
        code._read.cache_clear()
        return {folder: code.code_digest(folder) for folder in folders} | {
            "": code.code_digest()
        }

    before = digests()
    module, edit, changed = EDITS[name]
    text = (root / module).read_text()
    assert edit[0] in text
    (root / module).write_text(text.replace(*edit))
    after = digests()
    code.code_digest.cache_clear()
    code._read.cache_clear()
    for folder in folders:
        changes = folder in changed.split() or changed == "all of them"
        assert (after[folder] != before[folder]) == changes, folder
    assert (after[""] != before[""]) == bool(changed)


def test_all_that_computes_is_in_the_digest(tmp_path, monkeypatch):
    """Each module of the computing folders; those that show results are in none."""
    root = pathlib.Path(records.__file__).parent.parent
    known = set[str]()
    read = code._read.__wrapped__

    def noted(file):
        known.add(file.relative_to(root).as_posix())
        return read(file)

    monkeypatch.setattr(code, "_read", noted)
    code.code_digest.__wrapped__()
    for folder in code.COMPUTES:
        assert {
            f.relative_to(root).as_posix() for f in (root / folder).rglob("*.py")
        } <= known
    assert {
        "activations/named.py",
        "specification/networks.py",
        "specification/convolutional.py",
    } <= known
    assert not any(name.startswith(("plot/", "report/")) for name in known)


def test_check_writable(tmp_path):
    assert records.check_writable(tmp_path / "new").is_dir()
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        records.check_writable(tmp_path / "file" / "below")


STUDY = '''
"""A study."""
import numpy as np
import ntk_resnet as nr
from ntk_resnet.records.content import digest as known_by
from ntk_resnet.plot import drawing

SIZES = (1, 2)
SIZES += (5,)
COLOUR = "red"
UNITS = {}
UNITS.update(mass=1)

try:
    import faster
    FACTOR = 3
except ImportError:
    FACTOR = 4


def measure(*, count, progress):
    """Words."""
    return helper(count) + sum(SIZES), known_by


def helper(count):
    return FACTOR * count + len(UNITS) + 1  # a remark


def draw(found):
    drawing.save(found, COLOUR)


CLAIM = {"statement": "it holds", "measure": lambda found: measure}
'''


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("Words.", "Other words.", False),
        ("# a remark", "# another", False),
        ('"red"', '"blue"', False),
        ("it holds", "it may hold", False),
        ("drawing.save(found", "drawing.save(found, 2", False),
        ("UNITS) + 1", "UNITS) + 2", True),
        ("FACTOR = 3", "FACTOR = 5", True),
        ("SIZES += (5,)", "SIZES += (6,)", True),
        ("mass=1", "mass=2", True),
        ("SIZES = (1, 2)", "SIZES = (1, 3)", True),
        ("sum(SIZES)", "max(SIZES)", True),
        ("import digest as", "import write_file as", True),
    ],
)
def test_a_function_is_known_by_its_code_and_what_it_names(tmp_path, old, new, changes):
    """Not by the figures and the words that stand in its module."""
    assert old in STUDY

    def known(text, number):
        path = tmp_path / f"{number}" / "study.py"
        path.parent.mkdir()
        path.write_text(text)
        space: dict = {}
        exec(compile(text, str(path), "exec"), space)
        return code.function_digest(space["measure"])

    first, same, other = (
        known(STUDY, 1),
        known(STUDY, 2),
        known(STUDY.replace(old, new), 3),
    )
    assert first == same
    assert (other != first) == changes


@pytest.mark.parametrize(
    "line",
    [
        "from ntk_resnet.studies import first",
        "import ntk_resnet.studies.first as first",
        "try:\n    from ntk_resnet.studies import first\nexcept ImportError:\n    pass",
    ],
)
@pytest.mark.parametrize("place", ["top", "inside"])
@pytest.mark.parametrize("changed", ["first", "second"])
def test_a_module_counts_with_what_it_imports(
    tmp_path, monkeypatch, line, place, changed
):
    """Imported as a whole, at the top of the module or in the function."""

    def known(number, **changes):
        root = tmp_path / f"{number}" / "ntk_resnet"
        (root / "studies").mkdir(parents=True)
        monkeypatch.setattr(code, "_ROOT", root)
        texts = {
            "first": "from ntk_resnet.studies.second import two\nONE = two() + 1\n",
            "second": "def two():\n    return 2\n",
        } | changes
        for name, text in texts.items():
            (root / "studies" / f"{name}.py").write_text(text)
        body = "    return first.ONE\n"
        if place == "top":
            text = f"{line}\ndef measure():\n{body}"
        else:
            text = f"def measure():\n{textwrap.indent(line, ' ' * 4)}\n{body}"
        path = root / "studies" / "study.py"
        path.write_text(text)
        space: dict = {}  # the code is read in the file, and not run
        exec(compile("def measure(): pass", str(path), "exec"), space)
        return code.function_digest(space["measure"])

    other = {
        "first": "from ntk_resnet.studies.second import two\nONE = two() + 3\n",
        "second": "def two():\n    return 4\n",
    }
    assert known(1) == known(2)
    assert known(3, **{changed: other[changed]}) != known(4)


def test_functions_of_studies_are_followed_into_the_modules_they_import():
    from ntk_resnet.studies.huang2020 import rates

    found: dict = {}
    code._follow(pathlib.Path(rates.__file__), "rates", found)
    names = {(file.stem, name) for file, name in found}
    assert {("rates", "rates"), ("limits", "limits")} <= names
    assert ("families", "FAMILIES") in names
    assert ("_progress", "part_of") in names
    assert not {name for _, name in names} & {"CLAIMS", "draw", "FIGURE", "looks"}
