"""Commands print what they are asked for, and every mistake is one line and a code."""

import dataclasses
import json
import pathlib
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import small_study

import ntk_resnet as nr
from ntk_resnet.cli import doctor, main, terminal
from ntk_resnet.kernels.convolution.memory import numbers_for_pairs
from ntk_resnet.plot import drawing
from ntk_resnet.records import results as records
from ntk_resnet.report import tables
from ntk_resnet.studies import catalogue, runner
from ntk_resnet.studies.families import some_rows


def run(capsys, *args):
    code = main.main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "net.json"
    path.write_text(nr.to_json(nr.ResNet(depth=1, branch_scale=0.5)))
    return path


# ---------------------------------------------------------------------------- commands


def test_depth(capsys, spec, tmp_path):
    out = tmp_path / "out"
    code, text, _ = run(
        capsys, "depth", "--spec", spec, "--depths", 1, 10, "--out", out, "--json"
    )
    assert code == 0
    answer = json.loads(text)
    assert [row["depth"] for row in answer["rows"]] == [1, 10]
    assert answer["rows"][0]["family"] == "net"
    assert answer["provenance"]["rows"] == 300
    saved = records.load(out / "depth.zarr")
    assert float(saved.ntk_mean[0, 1]) == answer["rows"][1]["ntk_mean"]
    assert {pathlib.Path(path).name for path in answer["saved"]} == {
        "depth.zarr",
        "depth.csv",
        "depth.svg",
    }


def test_depth_prints_a_table_for_people(capsys, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=rng.normal(size=(20, 3)), y=np.arange(20.0))
    code, text, err = run(
        capsys, "depth", "--depths", 1, 3, "--data", tmp_path / "own.npz"
    )
    assert code == 0
    assert "NTK of 20 rows of own" in text
    assert "γ = 1/2" in text
    assert "Gram matrix" in err
    assert "Gram matrix" not in text


def test_width(capsys, spec, tmp_path):
    few = ("--widths", 8, 16, "--seeds", 2, "--depths", 2, "--networks", 10)
    args = ("width", *few, "--spec", spec)
    code, text, err = run(capsys, *args, "--json", "--out", tmp_path / "out")
    assert code == 0
    answer = json.loads(text)
    assert [row["width"] for row in answer["rows"]] == [8, 16]
    assert answer["ntk_exponent_low"] < answer["ntk_exponent"]
    assert (tmp_path / "out" / "width.svg").exists()
    assert "kernels at width 8" in err


@pytest.mark.quick
def test_gram(capsys, spec, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=rng.normal(size=(20, 3)), y=np.arange(20.0))
    args = ("gram", "--spec", spec, "--data", tmp_path / "own.npz")
    args += ("--store", tmp_path / "k.zarr", "--json")
    code, text, _ = run(capsys, *args)
    assert code == 0
    answer = json.loads(text)
    assert (answer["rows"], answer["engine"]) == (20, "profile")
    x = nr.load_data(tmp_path / "own.npz").x
    network = nr.from_json(spec.read_text())
    np.testing.assert_array_equal(nr.open_gram(answer["store"]), nr.gram(network, x))
    assert run(capsys, *args)[0] == 0  # finds it complete
    code, text, err = run(capsys, *args, "--get", "nngp")
    assert (code, text, err.count("\n")) == (2, "", 1)
    assert 'get "ntk", not "nngp"' in err


def test_gram_of_images_states_the_memory_of_a_tile(capsys, tmp_path):
    (tmp_path / "net.json").write_text(nr.to_json(nr.ConvNet(depth=2)))
    x = np.random.default_rng(0).normal(size=(10, 3, 5, 1))
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(10.0))
    args = ("gram", "--spec", tmp_path / "net.json", "--data", tmp_path / "own.npz")
    args += ("--store", tmp_path / "k.zarr")
    code, text, err = run(capsys, *args, "--json")
    assert code == 0
    numbers = numbers_for_pairs(nr.ConvNet(depth=2), (3, 5, 1), (10, 10))
    expected = 8 * numbers  # float64
    assert json.loads(text)["tile_bytes"] == expected
    first = next(line for line in err.splitlines() if "tiles" in line)
    assert first.split()[0] == "0%"
    assert f"tiles of 10 x 10, about {expected / 1e6:.3g} MB each" in first
    code, text, _ = run(capsys, *args)
    assert "tile_bytes" in text
    assert str(expected) in text


@pytest.fixture
def own(tmp_path):
    """Real targets on 30 rows."""
    rng = np.random.default_rng(0)
    path = tmp_path / "own.npz"
    np.savez(path, x=rng.normal(size=(30, 3)), y=rng.normal(size=30))
    return path


@pytest.fixture
def classes(tmp_path):
    """Two classes, 30 rows."""
    path = tmp_path / "classes.npz"
    x = np.random.default_rng(0).normal(size=(30, 3))
    np.savez(path, x=x, y=np.where(x[:, 0] > 0, "right", "left"))
    return path


@pytest.mark.parametrize(
    ("args", "rows"),
    [
        (("spectrum", "--rows", 20), {"condition_number", "effective_rank"}),
        (("mercer", "--max-degree", 9, "--dim", 4), {"exponent", "imbalance"}),
        (
            ("learning-curve", "--sizes", 5, 9, "--trials", 2),
            {"test_mse", "measured_test_mse"},
        ),
        (
            ("learning-curve", "--sizes", 5, 9, "--trials", 2, "--data", "OWN"),
            {"test_mse", "measured_train_mse_error"},
        ),
        (
            ("regress", "--ridges", 0.01, 1, "--data", "CLASSES"),
            {"test_error", "loo_error"},
        ),
        pytest.param(
            ("regress", "--ridges", 0.01, 1),  # the digits
            {"test_error", "loo_error"},
            marks=pytest.mark.slow,
        ),
        (("regress", "--ridges", 0.01, "--data", "OWN"), {"log_marginal_likelihood"}),
    ],
)
def test_spectra_and_what_they_predict(
    capsys, spec, own, classes, tmp_path, args, rows
):
    name = args[0].replace("-", "_")
    args = [{"OWN": own, "CLASSES": classes}.get(arg, arg) for arg in args]
    args += ["--spec", spec, "--out", tmp_path / "out"]
    code, text, _ = run(capsys, *args, "--json")
    assert code == 0
    answer = json.loads(text)
    assert rows <= set(answer["rows"][0])
    saved = records.load(tmp_path / "out" / f"{name}.zarr")
    for key in rows:
        value = saved[key].values.flat[0]
        assert answer["rows"][0][key] == (None if np.isnan(value) else value)
    assert (tmp_path / "out" / f"{name}.svg").exists()
    code, text, _ = run(capsys, *args)  # as a table
    assert code == 0
    assert f"{name}.svg" in text


def test_the_network_of_a_file_is_called_by_its_name(capsys, spec):
    args = ("mercer", "--max-degree", 2, "--spec", spec, "--json")
    answer = json.loads(run(capsys, *args)[1])
    assert [row["family"] for row in answer["rows"]] == ["net"]
    found = nr.mercer(nr.from_json(spec.read_text()), dim=3, max_degree=2)
    assert answer["log10_eigenvalue"] == [found.log10_eigenvalue.values.tolist()]


@pytest.fixture
def small_studies(monkeypatch, tmp_path):
    """The catalogue at sizes that are measured already, in `tmp_path`."""
    monkeypatch.setattr(catalogue, "NAMES", tuple(small_study.SIZES))
    monkeypatch.setattr(catalogue, "study", small_study.study)
    shutil.copytree(small_study.folder() / "data", tmp_path / "data")


@pytest.mark.usefixtures("small_studies")
def test_report(capsys, tmp_path, monkeypatch):
    code, text, err = run(capsys, "report", "--quick", "--out", tmp_path, "--json")
    assert code == 1  # some claims fail at such sizes
    answer = json.loads(text)
    assert pathlib.Path(answer["page"]) == tmp_path / "index.html"
    assert {row["study"] for row in answer["claims"]} == {"huang2020", "digits"}
    assert {row["claim"] for row in answer["claims"]} >= {
        "1a-blocks",
        "1j-smooth-plain",
        "training-drift",
    }
    asked = {"study", "claim", "statement", "source", "predicted", "measured"}
    asked |= {"low", "high", "tolerance", "verdict", "seconds"}
    assert all(asked <= set(row) for row in answer["claims"])
    assert "100%" in err
    # Again, without the files of the figures.
    monkeypatch.setattr(drawing, "save", lambda axes, path: path)
    code, text, _ = run(capsys, "report", "--quick", "--out", tmp_path)
    assert code == 1
    assert "index.html" in text
    assert "claims hold" in text
    # Every verdict with what was allowed, and the interval of what was measured.
    assert "^(" not in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    within = [row for row in answer["claims"] if row["side"] == "within"]
    assert any(f"± {within[0]['tolerance']:.2g}" in line for line in lines)
    ranges = [row for row in answer["claims"] if "splits" in row["interval"]]
    assert len(ranges) > 3
    for row in ranges[:3]:
        start = f"{row['study']} {row['claim']}"
        assert any(line.startswith(start) and "[" in line for line in lines)


@pytest.mark.usefixtures("small_studies")
def test_reproduce_some_claims_of_a_study(capsys, tmp_path):
    args = ("reproduce", "huang2020", "--claim", "1a", "1i", "--quick", "--json")
    code, text, _ = run(capsys, *args, "--out", tmp_path)
    answer = json.loads(text)
    names = {row["claim"].partition("-")[0] for row in answer["claims"]}
    assert names == {"1a", "1i"}
    assert answer["page"] is None
    assert not (tmp_path / "index.html").exists()
    failing = any(row["verdict"] == "fails" for row in answer["claims"])
    assert code == int(failing)


@pytest.mark.usefixtures("small_studies")
def test_reproduce_lists_its_studies(capsys):
    code, text, _ = run(capsys, "reproduce", "--list", "--json")
    assert code == 0
    rows = json.loads(text)["studies"]
    assert [row["study"] for row in rows] == list(small_study.SIZES)
    assert "1a-blocks" in rows[0]["claims"]
    code, text, _ = run(capsys, "reproduce", "--list")
    assert code == 0
    assert "huang2020" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "name a study, or all; there are huang2020"),
        (("huang2021",), "study must be one of 'huang2020'"),
        (("huang2020", "--claim", "9z"), "claim '9z' is none of huang2020; it has"),
        (("huang2020", "digits", "--claim", "1a"), "--claim is for one study, got 2"),
        (("digits", "--data", "nowhere"), "nowhere"),
    ],
)
def test_reproduce_says_what_it_cannot_do(capsys, args, message):
    code, out, err = run(capsys, "reproduce", *args)
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("ntk-resnet: ")]
    assert len(lines) == 1
    assert message in lines[0]


def test_exponents_are_superscripts_in_a_terminal():
    assert tables.plain("6/P/(1+3/P)^(2) ln L") == "6/P/(1+3/P)² ln L"
    assert tables.plain("L^(−1/2), L^(1−2γ)") == "L⁻¹ᐟ², L¹⁻²ᵞ"


@pytest.mark.parametrize("command", ["width", "train", "mercer"])
def test_what_has_no_convolutional_networks_says_so(capsys, tmp_path, command):
    (tmp_path / "net.json").write_text(nr.to_json(nr.ConvNet(depth=1)))
    code, _, err = run(capsys, command, "--spec", tmp_path / "net.json")
    assert code == 2
    assert "spec must be fully connected here" in err


@pytest.mark.parametrize("command", ["spectrum", "regress", "learning-curve"])
def test_convolutional_networks_get_images(capsys, tmp_path, command):
    """As `gram` and `depth` do; what holds none is told what to pass."""
    (tmp_path / "net.json").write_text(nr.to_json(nr.ConvNet(depth=1)))
    rng = np.random.default_rng(0)
    for name, shape in {"images": (12, 3, 3, 1), "rows": (12, 4)}.items():
        y = rng.normal(size=12)
        np.savez(tmp_path / f"{name}.npz", x=rng.normal(size=shape), y=y)
    options = {
        "spectrum": ("--rows", 10),
        "regress": ("--ridges", 0.1),
        "learning-curve": ("--sizes", 4, "--trials", 2),
    }[command]
    given = (command, "--spec", tmp_path / "net.json", *options, "--json", "--data")
    code, text, _ = run(capsys, *given, tmp_path / "images.npz")
    assert code == 0
    rows = json.loads(text)["rows"]
    data = nr.load_data(tmp_path / "images.npz", images=True)
    if command == "spectrum":
        chosen = some_rows(data, 10)
        right = nr.spectrum(nr.gram(nr.ConvNet(depth=1), chosen.x))
        found = rows[0]["effective_rank"]
        np.testing.assert_allclose(found, right.effective_rank, rtol=1e-10)
    code, text, err = run(capsys, *given, tmp_path / "rows.npz")
    assert code == 2
    assert "(n, height, width, channels)" in err


def test_an_unwritable_place_is_told_before_anything_is_read(
    capsys, tmp_path, monkeypatch
):
    def nothing(*args, **options):
        raise AssertionError("read")

    monkeypatch.setattr(terminal, "read_data", nothing)
    monkeypatch.setattr(terminal, "read_spec", nothing)
    (tmp_path / "file").write_text("in the way")
    place = tmp_path / "file" / "below"
    for command in (
        "report",
        "reproduce",
        "depth",
        "width",
        "train",
        "spectrum",
        "mercer",
    ):
        code, out, err = run(capsys, command, "--out", place)
        assert (code, out) == (2, "")
        assert "cannot write" in err
    for command in ("learning-curve", "regress"):
        assert run(capsys, command, "--out", place)[0] == 2
    given = "gram", "--spec", tmp_path / "net.json", "--store", place / "k.zarr"
    assert "cannot write" in run(capsys, *given)[2]


@pytest.mark.quick
def test_doctor(capsys, monkeypatch):
    code, text, _ = run(capsys, "doctor", "--json")
    answer = json.loads(text)
    assert code == 0, answer
    assert answer["works"]
    assert {"neural-tangents", "storage"} <= {c["check"] for c in answer["checks"]}

    def broken():
        raise ImportError("no such\nthing")

    monkeypatch.setitem(doctor._CHECKS, "neural-tangents", broken)
    code, text, _ = run(capsys, "doctor")
    assert code == 1
    assert "ImportError: no such" in text
    assert "NO" in text


def test_json_has_neither_nan_nor_infinity(capsys):
    terminal.print_json({"a": [float("nan"), 1.0], "b": (float("inf"),)})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.0], "b": [None]}


# ---------------------------------------------------------------------------- mistakes


KINDS = (
    "unknown data",
    "missing data",
    "nan",
    "depth 0",
    "no depths",
    "missing spec",
    "broken spec",
    "no network",
    "binary spec",
    "negative scale",
    "width 0",
    "seeds 0",
    "unwritable",
    "unwritable depth",
    "unwritable width",
    "rows 0",
    "no sizes",
    "dim 1",
    "no degree",
    "one trial",
    "too many points",
    "negative ridge",
    "all for testing",
)


def bad(tmp_path):
    """Arguments that cannot be used, and what the line must say."""
    x = np.random.default_rng(0).normal(size=(20, 3))
    x[3, 1] = np.nan
    np.savez(tmp_path / "nan.npz", x=x, y=np.arange(20))
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "scale.json").write_text('{"kind": "DepthScale", "gamma": 1}')
    (tmp_path / "negative.json").write_text(
        '{"kind": "ResNet", "depth": 1, "branch_scale": -1}'
    )
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    return {
        "unknown data": (("depth", "--data", "mnits"), "'mnits' is neither"),
        "missing data": (("report", "--data", "no.npz"), "does not exist"),
        "nan": (
            ("depth", "--data", tmp_path / "nan.npz"),
            "x of nan has nan at [3, 1]",
        ),
        "depth 0": (("depth", "--depths", "0"), "got 0"),
        "no depths": (("depth", "--depths"), "depths"),
        "missing spec": (("depth", "--spec", "no.json"), "'no.json' cannot be read"),
        "broken spec": (("depth", "--spec", tmp_path / "broken.json"), "not JSON"),
        "no network": (("width", "--spec", tmp_path / "scale.json"), "a network was"),
        "binary spec": (("depth", "--spec", tmp_path / "binary.json"), "is not text"),
        "negative scale": (
            ("width", "--spec", tmp_path / "negative.json"),
            "branch_scale must be a finite number >= 0, got -1",
        ),
        "width 0": (("width", "--widths", "0"), "got 0"),
        "seeds 0": (("width", "--seeds", "0"), "seeds must be at least 1"),
        "unwritable": (("report", "--out", tmp_path / "file" / "x"), "cannot write"),
        "unwritable depth": (("depth", "--out", tmp_path / "file"), "cannot write"),
        "unwritable width": (("width", "--out", tmp_path / "file"), "cannot write"),
        "rows 0": (("spectrum", "--rows", "0"), "rows must be at least 1"),
        "no sizes": (("learning-curve", "--sizes"), "sizes"),
        "dim 1": (("mercer", "--dim", "1"), "dim must be at least 2"),
        "no degree": (
            ("mercer", "--max-degree", "-1"),
            "max_degree must be at least 0",
        ),
        "one trial": (("learning-curve", "--trials", "1"), "trials must be at least 2"),
        "too many points": (
            ("learning-curve", "--data", "digits", "--sizes", "1797"),
            "leaves none of the 1797 rows",
        ),
        "negative ridge": (("regress", "--ridges", "-1"), "ridge must be"),
        "all for testing": (("regress", "--test", "1"), "test must lie between"),
    }


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("kind", KINDS)
def test_a_mistake_is_one_line_and_code_2(capsys, tmp_path, kind):
    kinds = bad(tmp_path)
    assert set(kinds) == set(KINDS)
    args, message = kinds[kind]
    code, out, err = run(capsys, *args)
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("ntk-resnet: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "args", [(), ("reprot",), ("depth", "--depth", "3"), ("width", "--seeds", "many")]
)
def test_arguments_that_make_no_sense_exit_with_2(capsys, args):
    with pytest.raises(SystemExit) as caught:
        main.main(list(args))
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("small_studies")
def test_interrupted_report_keeps_what_was_finished(capsys, tmp_path, monkeypatch):
    home = tmp_path / "data" / "huang2020" / "quick"
    shutil.rmtree(home / "width.zarr")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.records, "made_by", interrupt)
    code, out, err = run(capsys, "report", "--quick", "--out", tmp_path)
    assert code == 130
    assert out == ""
    assert "finished parts are kept" in err
    assert (home / "kernels.zarr" / "zarr.json").exists()


def test_a_fault_of_ours_is_not_passed_off_as_the_users(monkeypatch):
    def fault(_):
        raise TypeError("a bug")

    monkeypatch.setattr(main.COMMANDS["doctor"], "run", fault)
    with pytest.raises(TypeError, match="a bug"):
        main.main(["doctor"])


# ---------------------------------------------------------------------------- start-up


def test_help_is_quick_and_imports_nothing_heavy():
    program = (
        "import sys; from ntk_resnet.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'jax', 'xarray', 'matplotlib', 'flax', 'sklearn', 'zarr', 'numpy'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert done.returncode == 0, done.stderr
    assert "report" in done.stdout
    assert spent < 1  # seconds of processor time; the clock depends on who else runs


def test_every_command_has_json_and_help():
    for command in main.COMMANDS.values():
        assert command.__doc__
        assert "json" in {field.name for field in dataclasses.fields(command)}
