"""Studies run once, go on where they were killed, and say what could not be run."""

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import ledger_checks
import numpy as np
import pytest
import xarray as xr

from ntk_resnet.studies import runner
from ntk_resnet.studies.ledger import Claim, exact
from ntk_resnet.studies.study import Budget, Figure, Measurement, NotRun, Study

CALLS = []


def squares(*, count, progress):
    CALLS.append(("squares", count))
    progress(1, 2, "half")
    return xr.Dataset({"y": ("n", np.arange(count) ** 2.0)}, attrs={"count": count})


def mean_of_data(data, *, rows, progress):
    CALLS.append(("mean", rows))
    return xr.Dataset({"y": float(data.x[:rows].mean())}, attrs={"data": data.name})


def missing(*, progress):
    raise NotRun("its files are not here")


def claim(name, of, predicted=4.0):
    return Claim(
        name=name,
        statement=f"{of}",
        source="s",
        known="derived",
        of=of,
        measure=lambda found: exact(found.y.values.max(), 0.0, "whole numbers"),
        predicted=predicted,
        reason="r",
    )


STUDY = Study(
    name="example",
    title="t",
    reference="@misc{x}",
    question="q",
    summary="s",
    answer=lambda results, entries: "a. b.",
    measurements={
        "squares": Measurement(measure=squares, full={"count": 9}, quick={"count": 3}),
        "mean": Measurement(measure=mean_of_data, full={"rows": 10}, data="rows"),
        "missing": Measurement(measure=missing),
    },
    claims=[claim("1", "squares"), claim("2", "mean"), claim("3", "missing")],
    figures={},
    budget=Budget(1, 1),
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NTK_RESNET_CACHE", str(tmp_path / "cache"))
    CALLS.clear()


def run(folder, study=STUDY, **options):
    (one,) = runner.run([study], folder=folder, **{"quick": True, **options})
    return one


def verdicts(one):
    return [entry.verdict for entry in one.entries]


def test_a_second_run_computes_nothing_and_gives_the_same(tmp_path):
    first = run(tmp_path)
    assert CALLS == [("squares", 3), ("mean", 10)]
    again = run(tmp_path)
    assert len(CALLS) == 2
    assert verdicts(first) == ["holds", "fails", "not run"]
    np.testing.assert_equal(
        [tuple(e) for e in again.entries], [tuple(e) for e in first.entries]
    )
    assert set(first.results) == {"squares", "mean"}
    assert first.entries[2].reason == "its files are not here"


def test_other_sizes_data_and_settings_are_computed_beside(tmp_path):
    run(tmp_path)
    np.savez(tmp_path / "own.npz", x=np.eye(12), y=np.arange(12.0))
    run(tmp_path, source=str(tmp_path / "own.npz"))
    assert CALLS[2:] == [("mean", 10)]  # the squares take no data
    full = run(tmp_path, quick=False)
    assert CALLS[3:] == [("squares", 9), ("mean", 10)]
    assert full.entries[0].measured == 64
    part = dataclasses.replace(STUDY.measurements["squares"], quick={"count": 4})
    other = {**STUDY.measurements, "squares": part}
    run(tmp_path, dataclasses.replace(STUDY, measurements=other))
    assert CALLS[5] == ("squares", 4)


def test_a_damaged_result_is_not_taken(tmp_path):
    """From the cache, if it is there; else it is computed again."""
    run(tmp_path / "out")
    kept = tmp_path / "out" / "example" / "quick" / "squares.zarr" / "zarr.json"
    whole = kept.read_text()
    kept.write_text("{")
    assert verdicts(run(tmp_path / "out")) == ["holds", "fails", "not run"]
    assert len(CALLS) == 2
    assert kept.read_text() == whole
    (cached,) = (tmp_path / "cache" / "studies" / "example" / "quick").glob("sq*.zarr")
    kept.write_text("{")
    (cached / "zarr.json").write_text("{")
    assert verdicts(run(tmp_path / "out")) == ["holds", "fails", "not run"]
    assert CALLS[2:] == [("squares", 3)]
    for broken in ("folder", "file"):
        shutil.rmtree(cached)
        cached.mkdir() if broken == "folder" else cached.write_text("")
        assert run(None).entries[0].verdict == "holds"
        assert cached.joinpath("zarr.json").is_file()


def test_what_is_no_store_is_told_before_the_work(tmp_path):
    place = tmp_path / "example" / "quick" / "squares.zarr"
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    with pytest.raises(ValueError, match="is not a zarr store"):
        run(tmp_path)
    assert CALLS == []


def test_results_without_a_folder_are_those_of_one(tmp_path):
    run(None)
    run(tmp_path)
    assert len(CALLS) == 2
    assert (tmp_path / "example" / "quick" / "squares.csv").exists()


def test_data_that_do_not_suit_are_told(tmp_path):
    """Rows where images are wanted; the paper's own data, which are not here."""

    def images(data, *, progress):
        return xr.Dataset({"y": 0.0})

    np.savez(tmp_path / "own.npz", x=np.eye(12), y=np.arange(12.0))
    parts = {
        "images": Measurement(measure=images, data="images"),
        "mnist": Measurement(measure=images, data="rows", source="mnist"),
    }
    other = dataclasses.replace(
        STUDY,
        measurements=parts,
        claims=[claim("1", "images"), claim("2", "mnist")],
    )
    one = run(tmp_path, other, source=str(tmp_path / "own.npz"))
    assert verdicts(one) == ["not run", "not run"]
    assert "images" in one.entries[0].reason
    assert "mnist" in one.entries[1].reason
    with pytest.raises(ValueError, match=r"nothing\.npz"):
        run(tmp_path, other, source=str(tmp_path / "nothing.npz"))


def test_a_claim_may_be_not_run_by_itself(tmp_path):
    def refuse(found):
        raise NotRun("there are no classes")

    own = dataclasses.replace(claim("1", "squares"), measure=refuse)
    other = dataclasses.replace(STUDY, claims=[own, claim("2", "squares")])
    one = run(tmp_path, other)
    assert verdicts(one) == ["not run", "holds"]
    assert one.entries[0].reason == "there are no classes"


def test_without_a_folder_results_are_kept_in_the_cache_if_there_is_one(
    tmp_path, monkeypatch
):
    run(None)
    assert len(list((tmp_path / "cache/studies/example/quick").glob("*.zarr"))) == 2
    run(None)
    assert len(CALLS) == 2
    monkeypatch.setenv("NTK_RESNET_CACHE", "")
    assert verdicts(run(None)) == ["holds", "fails", "not run"]
    assert len(CALLS) == 4


def test_claims_are_chosen_by_name(tmp_path):
    one = run(tmp_path, claims=["1"])
    assert verdicts(one) == ["holds"]
    assert CALLS == [("squares", 3)]
    several = [claim(name, "squares") for name in ("1", "1-a", "1-b", "10")]
    one = run(tmp_path, dataclasses.replace(STUDY, claims=several), claims=["1"])
    assert [entry.claim for entry in one.entries] == ["1", "1-a", "1-b"]
    with pytest.raises(ValueError, match="'9' is none of example; it has 1, 2, 3"):
        run(tmp_path, claims=["9"])


def test_unwritable_folders_are_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        run(tmp_path / "file")


def test_time_left_is_known_from_the_second_time_on(tmp_path):
    seen = []
    tell = lambda *report: seen.append(report)  # noqa: E731
    run(tmp_path / "a", progress=tell)
    assert all(math.isinf(total) for _, total, text in seen if text != "all measured")
    seen.clear()
    done = dataclasses.replace(
        STUDY,
        measurements={k: STUDY.measurements[k] for k in ("squares", "mean")},
        claims=STUDY.claims[:2],
    )
    run(tmp_path / "b", _with_count(done, 4), progress=tell)
    shares = [part / total for part, total, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert "example, squares: half" in [text for *_, text in seen]


def _with_count(study, count):
    part = dataclasses.replace(study.measurements["squares"], quick={"count": count})
    parts = {**study.measurements, "squares": part}
    return dataclasses.replace(study, measurements=parts)


def test_studies_that_name_what_they_do_not_have_are_refused():
    with pytest.raises(ValueError, match="claim 1 of example names 'cubes'"):
        dataclasses.replace(STUDY, claims=[claim("1", "cubes")])
    figure = Figure(of="cubes", draw=lambda _: None, title="", caption="")
    with pytest.raises(ValueError, match="figure 'f' of example is of 'cubes'"):
        dataclasses.replace(STUDY, figures={"f": figure})


KILLED = """
import sys, time
sys.path[:0] = [{tests!r}, {tests!r} + "/.."]
from ntk_resnet.studies import runner
from ntk_resnet.studies.study import Measurement
import test_runner, dataclasses, pathlib

def endless(*, progress):
    print("there", flush=True)
    time.sleep(600)

study = dataclasses.replace(
    test_runner.STUDY,
    measurements=dict(
        test_runner.STUDY.measurements, missing=Measurement(measure=endless)
    ),
)
runner.run([study], quick=True, folder=pathlib.Path({folder!r}))
"""


def test_a_killed_run_loses_what_it_was_at_and_nothing_else(tmp_path):
    program = KILLED.format(tests=os.path.dirname(__file__), folder=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGKILL)
    before = time.time()
    one = run(tmp_path)
    assert CALLS == []  # both were kept
    assert verdicts(one) == ["holds", "fails", "not run"]
    assert time.time() - before < 60


def test_results_tell_where_they_come_from(tmp_path):
    found = run(tmp_path).results["squares"]
    about = json.loads(found.attrs["config"])
    assert about["settings"] == {"count": 3}
    assert about["study"] == "example"
    assert {"seconds", "jax", "commit", "time_utc", "device"} <= set(found.attrs)


def test_small_studies_keep_their_claims():
    one = ledger_checks.small(STUDY, squares={"count": 5})
    assert [claim.name for claim in one.claims] == ["1"]
    assert one.measurements["squares"].settings(quick=True) == {"count": 5}
