"""`ntk-resnet train`: what it trains on, prints and saves."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.cli.studies import Train, Width
from ntk_resnet.records import results as records


@pytest.fixture
def command(tmp_path):
    """A small one, on three classes."""
    rng = np.random.default_rng(0)
    classes = np.array(["a", "b", "c"])[np.arange(30) % 3]
    np.savez(tmp_path / "own.npz", x=rng.normal(size=(30, 3)), y=classes)
    (tmp_path / "net.json").write_text(nr.to_json(nr.FeedForward(depth=1)))
    return Train(
        widths=(4,),
        seeds=2,
        spec=tmp_path / "net.json",
        data=str(tmp_path / "own.npz"),
        rows=6,
        loss="softmax",
    )


def test_train(capsys, command, tmp_path):
    out = tmp_path / "out"
    options = {"batch_size": 3, "learning_rate": 1e3, "checkpoint": tmp_path / "kept"}
    code, show = dataclasses.replace(command, out=out, **options).run()
    assert code == 0
    assert "training at width 4" in capsys.readouterr().err
    show()
    text = capsys.readouterr().out
    assert "exponents: prediction" in text
    assert "warning: learning_rate 1e+03 is above" in text
    saved = records.load(out / "train.zarr")
    assert saved.sizes["output"] == 3
    assert saved.attrs["loss"] == "softmax"
    assert saved.attrs["batch_size"] == 3
    assert (out / "train.svg").exists()
    assert (tmp_path / "kept" / "run.json").exists()

    # The same again, from the checkpoint, as JSON.
    _, show = dataclasses.replace(command, json=True, **options).run()
    capsys.readouterr()
    show()
    answer = json.loads(capsys.readouterr().out)
    assert [row["width"] for row in answer["rows"]] == [4]
    final = float(saved.loss.isel(width=0, time=-1).mean())
    assert answer["rows"][0]["final_loss"] == pytest.approx(final, nan_ok=True)
    assert answer["provenance"]["stability_limit"] > 0


def test_targets_fit_the_loss(command, tmp_path):
    data = nr.load_data(command.data)
    assert set(command._targets(data)[:, 0]) == {0, 1}
    assert set(dataclasses.replace(command, loss="logistic")._targets(data)) == {-1, 1}
    squared = dataclasses.replace(command, loss="mse")._targets(data)
    np.testing.assert_allclose(squared.sum(axis=1), 0, atol=1e-15)
    np.savez(tmp_path / "real.npz", x=data.x, y=np.linspace(0, 1, 30))
    with pytest.raises(ValueError, match="loss softmax needs classes, real has real"):
        dataclasses.replace(command, data=str(tmp_path / "real.npz")).run()


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (0, "rows must be at least 1"),
        (16, "rows must be at most half of the 30 of own"),
    ],
)
def test_rows_are_named(command, rows, text):
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(command, rows=rows).run()


def test_width_shows_the_bias(capsys, command):
    small = Width(
        widths=(4, 8),
        seeds=2,
        depths=(1,),
        networks=2,
        spec=command.spec,
        data=command.data,
    )
    _, show = small.run()
    capsys.readouterr()
    show()
    text = capsys.readouterr().out
    assert "NTK bias" in text
    assert "NNGP bias" in text
    assert "bias × width: NTK " in text


@pytest.mark.parametrize("module", ["ntk_resnet", "ntk_resnet.cli"])
def test_the_command_line_as_a_module(module):
    run = subprocess.run(
        [sys.executable, "-m", module, "train", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--learning-rate" in run.stdout
