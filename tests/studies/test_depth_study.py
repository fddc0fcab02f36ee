"""The study resumes, its measurements are what they say, and its verdicts can fail."""

import dataclasses
import shutil

import numpy as np
import pytest
import small_study
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._progress import quiet
from ntk_resnet.data.datasets import Data
from ntk_resnet.records import results as records
from ntk_resnet.studies import (
    depth_claims,
    depth_study,
    finite_measurements,
    image_measurements,
    spectrum_measurements,
)
from ntk_resnet.studies import depth_measurements as measures

# ------------------------------------------------------------------------- measurements


def test_limit_of_infinite_depth_has_the_values_of_the_theory():
    # by an independent quadrature, to six digits
    expected = [-0.014441, 0.047345, 0.192847, 0.325310, 0.585624, 0.862631]
    found = measures.continuous_limit(np.arccos(measures.COSINES))
    np.testing.assert_allclose(found, expected, atol=5e-7)


def test_kernels_by_angle_agree_with_kernel_fn_and_with_the_second_engine():
    found = small_study.results()["kernels"]
    x = np.array([[1.0, 0.0], [np.cos(0.5 * np.pi), np.sin(0.5 * np.pi)]])
    middle = found.sel(angle=np.pi / 2, method="nearest")
    for family, spec in measures.FAMILIES.items():
        for depth in small_study.SIZES.depths:
            expected = float(nr.kernel_fn(spec.replace(depth=depth))(x)[0, 1])
            value = float(middle.ntk.sel(family=family, depth=depth))
            assert value == pytest.approx(expected, rel=1e-12, abs=1e-14)
    assert float(found.deviation.max()) < 1e-12


def test_regression_on_a_known_kernel():
    gram = np.eye(4)
    fitted = np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]]) - 0.5
    train, test = np.array([0, 1]), np.array([2, 3])
    # The test rows see nothing of the training rows: predictions are 0.
    mse, r2, accuracy = measures.fit_split(gram, fitted, True, train, test)
    assert (mse, r2, accuracy) == (1, 0, 0.5)
    gram[:2, 2:] = gram[2:, :2] = np.eye(2)
    mse, r2, accuracy = measures.fit_split(gram, fitted, True, train, test)
    assert mse == pytest.approx((measures.RIDGE / (1 + measures.RIDGE)) ** 2)
    assert accuracy == 1
    assert np.isnan(measures.fit_split(gram, fitted, False, train, test)[2])


def test_intervals_are_those_of_student():
    dataset = xr.Dataset({"a": (("family", "split"), [[1.0, 2.0, 3.0]])})
    found = measures.with_intervals(dataset, ("a",), "split")
    half = 4.302653 / np.sqrt(3)  # t_{0.975, 2} times the standard error
    np.testing.assert_allclose(found.a_low, 2 - half, rtol=1e-6)
    np.testing.assert_allclose(found.a_high, 2 + half, rtol=1e-6)
    one = measures.with_intervals(dataset.isel(split=[0]), ("a",), "split")
    assert np.isnan(one.a_low).all()


def test_rank_of_the_constant_kernel():
    found = small_study.results()["degeneracy"]
    n = small_study.SIZES.rows
    expected = nr.spectrum(0.25 + 0.75 * np.eye(n)).effective_rank
    plain = found.predicted_effective_rank.sel(family="plain")
    np.testing.assert_allclose(plain, float(expected), rtol=1e-12)
    assert found.predicted_effective_rank.sel(family="γ = 1").isnull().all()


def test_tiny_data_sets_are_enough():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    tiny = Data(x, x[:, 0], None, "tiny")
    found = measures.regression_on_data(
        tiny, depths=(1,), train=300, test=300, splits=2
    )
    assert found.attrs["train"] == found.attrs["test"] == 5
    assert np.isfinite(found.mse).all()
    assert found.accuracy.isnull().all()


def test_convolutional_kernels_are_those_of_their_networks():
    found = small_study.results()["images"]
    digits = nr.load_data("digits", images=True)
    x = measures.some_rows(digits, small_study.SIZES.images).x
    spec = image_measurements.FAMILIES["γ = 1/2"].replace(depth=2, readout="flatten")
    off = np.asarray(nr.kernel_fn(spec)(x))[np.triu_indices(len(x), 1)]
    at = found.sel(readout="flatten", family="γ = 1/2", depth=2)
    np.testing.assert_allclose(at.ntk_mean, off.mean(), rtol=1e-12)
    np.testing.assert_allclose(at.ntk_spread, off.std(), rtol=1e-12)
    assert found.circular_limit.values.tolist() == [1 / 4, 1 / (1 + 3 / 64)]
    assert (found.attrs["train"], found.attrs["test"]) == (8, 4)
    assert np.isfinite(found.mse).all()


# ---------------------------------------------------------------------------- resuming


def test_a_second_run_computes_nothing(monkeypatch):
    small_study.folder()

    def fail(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(depth_study.Part, "compute", fail)
    data = nr.load_data("digits")
    again = depth_study.run(small_study.folder() / "data", data, small_study.SIZES)
    for name, found in small_study.results().items():
        xr.testing.assert_identical(found, again[name])


def count_parts(monkeypatch):
    computed = []
    compute = depth_study.Part.compute

    def counted(part, progress=quiet):
        computed.append(part.measure.__name__)
        return compute(part, progress)

    monkeypatch.setattr(depth_study.Part, "compute", counted)
    return computed


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    computed = count_parts(monkeypatch)
    shutil.copytree(small_study.folder() / "data", tmp_path / "data")
    for name in ("width", "training"):
        shutil.rmtree(tmp_path / "data" / f"{name}.zarr")
    (tmp_path / "data" / "rates.zarr" / "zarr.json").write_text("{")  # damaged
    data = nr.load_data("digits")
    depth_study.run(tmp_path / "data", data, small_study.SIZES)
    assert computed == ["rates", "agreement_with_width", "training"]


def test_other_settings_and_other_data_are_computed_anew(tmp_path, monkeypatch):
    data = nr.load_data("digits")
    first = depth_study.parts(data, small_study.SIZES)
    other_size = dataclasses.replace(small_study.SIZES, rows=14)
    for name, part in depth_study.parts(data, other_size).items():
        same = part.configuration() == first[name].configuration()
        assert same == (name != "degeneracy")
    turned = dataclasses.replace(data, y=data.y[::-1])
    on_data = {"degeneracy", "regression", "spectra", "data_curves", "ridge"}
    on_data |= {"width", "training"}
    for name, part in depth_study.parts(turned, small_study.SIZES).items():
        same = part.configuration() == first[name].configuration()
        assert same == (name not in on_data)


def test_unwritable_output_is_found_out_before_computing(tmp_path, monkeypatch):
    computed = count_parts(monkeypatch)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        depth_study.run(
            tmp_path / "file" / "data", nr.load_data("digits"), small_study.SIZES
        )
    assert not computed


def test_progress_goes_from_nothing_to_everything(tmp_path):
    seen = []
    shutil.copytree(small_study.folder() / "data", tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "degeneracy.zarr")
    depth_study.run(
        tmp_path / "data",
        nr.load_data("digits"),
        small_study.SIZES,
        lambda *report: seen.append(report),
    )
    shares = [done / total for done, total, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert any("Gram matrix of plain, depth 3" in text for *_, text in seen)


# ---------------------------------------------------------------------------- verdicts


def judged(**changed):
    claims = depth_claims.judge({**small_study.results(), **changed})
    return [
        (str(label), str(text), bool(holds))
        for label, text, holds in zip(
            claims.claim.values,
            claims.statement.values,
            claims.holds.values,
            strict=True,
        )
    ]


def verdict(claims, label, text):
    (found,) = [holds for one, words, holds in claims if one == label and text in words]
    return found


def test_the_rates_hold():
    claims = judged()
    for label in ("1a", "1b", "1c", "1d", "1e", "1f", "1g", "1i", "engines"):
        rows = [c for c in claims if c[0] == label and "the data" not in c[1]]
        assert rows
        # 1b and 1g are asymptotic; the small study stops before their depth
        assert all(holds for *_, holds in rows), rows


@pytest.mark.parametrize("trained", ["blocks", "all"])
@pytest.mark.parametrize(("factor", "label"), [(1.1, "1a"), (1.001, "1b")])
def test_a_wrong_plain_kernel_fails_in_its_convention_alone(trained, factor, label):
    wrong = small_study.results()["rates"].copy(deep=True)
    wrong["plain_ntk"].loc[{"trained": trained}] *= factor
    claims = judged(rates=wrong)
    for name, words in (("blocks", "readout frozen"), ("all", "readout trained")):
        assert verdict(claims, label, words) == (name != trained)


def test_what_is_compared_trains_the_same_weights():
    """As Huang et al. do: not the first ones of residual networks, and no readout."""
    for networks in (
        measures.FAMILIES,
        spectrum_measurements.NETWORKS,
        image_measurements.FAMILIES,
        finite_measurements.IMAGE_SPECS,
    ):
        assert {spec.trained for spec in networks.values()} == {"blocks"}


@pytest.mark.parametrize(
    ("part", "variable", "factor", "label", "text"),
    [
        ("kernels", "deviation", 1e4, "engines", "neural-tangents"),
        ("rates", "plain_nngp_gap", 1.03, "1c", "plain"),
        ("rates", "constant_nngp_gap", 1.03, "1c", "α = 1"),
        ("rates", "half_limit", 1.001, "1f", "L = 1000"),
        ("rates", "quarter_ntk", 1.1, "1g", "γ = 1/4"),
        ("rates", "constant_ntk", 1.1, "1g", "α = 1"),
        ("rates", "one_ntk", 1.001, "1e", "coefficient D"),
        ("degeneracy", "condition_number", 3.0, "1i", "the data"),
        ("regression", "mse", 0.1, "1j", "near chance"),
        ("teacher", "mse", 0.01, "1j", "sphere, plain"),
    ],
)
def test_a_wrong_measurement_fails(part, variable, factor, label, text):
    wrong = small_study.results()[part].copy(deep=True)
    wrong[variable] = wrong[variable] * factor
    assert not verdict(judged(**{part: wrong}), label, text)


def test_wrong_exponents_fail():
    rates = small_study.results()["rates"].copy(deep=True)
    rates["shallow_distance"] = rates.shallow_distance * rates.block_depth**0.05
    assert not verdict(judged(rates=rates), "1d", "γ = 1:")
    width = small_study.results()["width"].copy(deep=True)
    for end in ("", "_low", "_high"):
        width[f"ntk_exponent{end}"] = width[f"ntk_exponent{end}"] * 0 - 0.25
    assert not verdict(judged(width=width), "1h", "NTK")
    training = small_study.results()["training"].copy(deep=True)
    for end in ("", "_low", "_high"):
        training[f"drift_exponent{end}"] = training[f"drift_exponent{end}"] * 0 - 0.5
    assert not verdict(judged(training=training), "training", "change")


@pytest.mark.parametrize("deepest_only", [True, False])
def test_accuracy_at_chance_fails(deepest_only):
    regression = small_study.results()["regression"].copy(deep=True)
    guessing = xr.where(regression.depth >= 30 * deepest_only, 0.1, 1.0)
    regression["accuracy"] = xr.where(guessing < 1, guessing, regression.accuracy)
    assert not verdict(judged(regression=regression), "1j", "collapse")


def test_rising_error_of_a_residual_network_fails():
    regression = small_study.results()["regression"].copy(deep=True)
    rising = xr.where(regression.family == "γ = 1/2", regression.depth**0.5, 1.0)
    regression["mse"] = regression.mse * rising
    claims = judged(regression=regression)
    assert not verdict(claims, "1j", "γ = 1/2: test MSE at its worst")


def test_nan_never_holds():
    width = small_study.results()["width"].copy(deep=True)
    for end in ("", "_low", "_high"):
        width[f"nngp_exponent{end}"] = width[f"nngp_exponent{end}"] * np.nan
    assert not verdict(judged(width=width), "1h", "NNGP")
    claim = depth_claims.Claim(
        "a", "b", 0.0, np.nan, np.nan, np.nan, "", 1.0, "within", ""
    )
    assert not any(
        claim._replace(bound=bound).holds
        for bound in ("within", "above", "below", "interval")
    )


def test_missing_parts_leave_their_claims_out():
    found = depth_claims.judge({"rates": small_study.results()["rates"]})
    assert set(found.claim.values) == {"1a", "1b", "1c", "1d", "1e", "1f", "1g"}


def test_claims_can_be_saved(tmp_path):
    claims = small_study.claims()
    path = records.save(claims, tmp_path / "claims.zarr", csv=True)
    xr.testing.assert_identical(records.load(path), claims)
