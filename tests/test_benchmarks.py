"""The benchmarks run, at their smallest, and what they save is what they show."""

import json
import warnings

import accuracy
import benchmark_cases
import convolution
import depth
import empirical
import gram
import harness
import learning_curve
import mercer
import plot
import pytest
import regression
import spectrum
import tables


def test_times_are_those_of_the_runs():
    cases = [
        harness.Case("short", benchmark_cases.sleeping, {"seconds": 0.02}),
        harness.Case("long", benchmark_cases.sleeping, {"seconds": 0.1}),
    ]
    short, long = harness.measure("sleep", cases, repeats=3)
    assert long["question"] == "sleep"
    assert long["sizes"] == {"seconds": 0.1}
    # A sleep is never shorter than asked; how much longer is up to the machine.
    assert long["median_s"] >= 0.1
    assert long["first_s"] >= 0.1
    assert short["ratio"] == 1
    assert long["ratio"] > 1
    assert long["ratio_to"] == "short"
    assert {"jax", "device", "machine", "time_utc"} <= set(long)


def test_memory_is_that_of_the_case_and_compilation_stands_apart():
    cases = [
        harness.Case("heavy", benchmark_cases.heavy, {"megabytes": 300}),
        harness.Case("light", benchmark_cases.compiled, {"size": 8}),
    ]
    heavy, light = harness.measure("memory", cases, repeats=2)
    # What it allocates, but for pages that the imports have let go of.
    assert 270 <= heavy["peak_mb"] - heavy["before_mb"] <= 350
    assert light["peak_mb"] - light["before_mb"] < 100
    assert light["compile_s"] > light["median_s"]
    assert light["first_s"] > light["compile_s"]


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (benchmark_cases.failing, r"(.|\n)*ValueError: this case is meant to fail"),
        (benchmark_cases.ending, "ended with exit code 3"),
    ],
)
def test_a_case_that_fails_is_named(prepare, why):
    with pytest.raises(RuntimeError, match=f"the case 'broken'.*failed: .*{why}"):
        harness.measure("errors", [harness.Case("broken", prepare, {})])


def test_the_last_of_equal_cases_counts(tmp_path):
    record = {"machine": "m", "question": "q", "case": "c", "sizes": {"n": 1}}
    for value, sizes in ((1, {"n": 1}), (2, {"n": 2}), (3, {"n": 1})):
        harness.save(record | {"value": value, "sizes": sizes}, tmp_path)
    assert [found["value"] for found in harness.latest(tmp_path)] == [2, 3]


def test_times_are_written_with_three_digits():
    assert [harness.seconds(t) for t in (12.34, 0.01234, 1.234e-5)] == [
        "12.3 s",
        "12.3 ms",
        "12.3 µs",
    ]


FEW, MANY = (
    (depth,),
    (
        accuracy,
        convolution,
        gram,
        mercer,
        spectrum,
        learning_curve,
        regression,
        empirical,
    ),
)


@pytest.fixture(
    scope="module", params=[FEW, pytest.param(MANY, marks=pytest.mark.slow)]
)
def saved(request, tmp_path_factory):
    """The folder of a smoke run of some benchmarks."""
    folder = tmp_path_factory.mktemp("results")
    for benchmark in request.param:
        assert benchmark.main(["--smoke", "--save", str(folder)]) == 0
    return folder


def test_every_benchmark_saves_its_records(saved):
    (path,) = saved.glob("*.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert {record["question"] for record in records} <= set(tables.TABLES)
    for record in records:
        assert path.stem == record["machine"]
        assert record["x64"] == 1
        if record["question"] == "accuracy":
            assert max(record["nngp"], record["ntk"]) <= 2e-5
        elif record["question"] == "errors":
            if record["sizes"]["method"] == "split":
                _check_errors(record)
        elif record["question"] == "mercer":
            assert record.get("worst", 0) <= 1e-12
        elif record["question"] == "empirical agreement":
            assert record["largest_difference"] <= 1e-10
        elif record["question"] == "regression":
            assert record["residual"] <= 1e-6
        elif "first_s" in record:
            assert record["first_s"] > record["median_s"] > 0


def _check_errors(record):
    """What the docstring of `gram` promises; the inputs are the rounded ones."""
    double = record["sizes"]["dtype"] == "float64"
    assert record["entry"] <= (1e-11 if double else 5e-6)
    assert max(record["nngp_gap"], record["ntk_gap"]) <= (1e-11 if double else 2e-5)


def test_figures_and_tables_are_made_from_the_records(saved, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot.main([str(saved)])
    drawn = capsys.readouterr().out.split()
    questions = {record["question"] for record in harness.latest(saved)}
    assert len(drawn) == len(questions & set(plot.FIGURES))
    records = harness.latest(saved)
    before, after = "# Title\n", "\nThe rest.\n"
    text = f"{before}{tables.BEGIN}\nold\n{tables.END}{after}"
    new = tables.filled(text, records)
    assert new.startswith(before)
    assert new.endswith(after)
    assert "old" not in new
    assert new.count("| ---") >= len(questions)
    assert tables.filled(new, records) == new
    with pytest.raises(ValueError, match="md lacks "):
        tables.filled("no markers", records)


def test_the_page_shows_the_saved_records():
    text = tables.PAGE.read_text()
    assert tables.filled(text, harness.latest()) == text
