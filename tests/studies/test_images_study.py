"""The study of convolutional kernels: its measurements, and its verdicts can fail."""

import dataclasses

import ledger_checks
import numpy as np
import pytest
import small_study
import xarray as xr

import ntk_resnet as nr
from ntk_resnet.studies import families
from ntk_resnet.studies.images import finite, kernels, rates
from ntk_resnet.studies.ledger import FAILS, HOLDS, INCONCLUSIVE, judge
from ntk_resnet.studies.study import NotRun

DIGITS = nr.load_data("digits", images=True)


@pytest.fixture(scope="module")
def one():
    return small_study.runs()["images"]


def results():
    return small_study.results("images")


def changed(of, **factors):
    """A result of the small study, some of its variables multiplied."""
    found = results()[of].copy(deep=True)
    for name, factor in factors.items():
        found[name] = found[name] * factor
    return found


def verdict(found, name):
    (claim,) = [c for c in small_study.study("images").claims if c.name == name]
    return judge("", claim, found, 0.0).verdict


# --------------------------------------------------------------------- what is measured


def test_kernels_are_those_of_their_networks():
    found = results()["flattened"]
    x = families.some_rows(DIGITS, small_study.SIZES["images"]["flattened"]["rows"]).x
    spec = kernels.FAMILIES["γ = 1/2"].replace(depth=2, readout="flatten")
    off = np.asarray(nr.kernel_fn(spec)(x))[np.triu_indices(len(x), 1)]
    at = found.sel(family="γ = 1/2", depth=2)
    np.testing.assert_allclose(at.ntk_mean, off.mean(), rtol=1e-12)
    np.testing.assert_allclose(at.ntk_spread, off.std(), rtol=1e-12)
    limits = [float(results()[k].circular_limit) for k in ("flattened", "pooled")]
    assert limits == [1 / 4, 1 / (1 + 3 / 64)]
    assert (found.attrs["train"], found.attrs["test"]) == (10, 5)
    assert np.isfinite(found.mse).all()


def test_small_images_are_means_of_pixels():
    small = rates.small_images(DIGITS, 3)
    assert small.shape == (3, 4, 4, 1)
    by_hand = DIGITS.x[1, 2:4, 4:6, 0].mean()
    np.testing.assert_allclose(small[1, 1, 2, 0], by_hand, rtol=1e-14)


@pytest.mark.parametrize(
    ("family", "depth"), [("γ = 1/2", 10), ("γ = 1", 100), ("α = 1", 100)]
)
def test_rates_are_of_the_networks_they_name(family, depth):
    """Not of the constant scales with which one pass serves all."""
    found = results()["rates"]
    x = rates.small_images(DIGITS, found.attrs["images"])
    kernel = nr.kernel_fn(kernels.FAMILIES[family].replace(depth=depth))
    both = kernel(x, get=("nngp", "ntk"))
    upper = np.triu_indices(len(x), 1)
    at = found.sel(family=family, readout="pool", block_depth=depth)
    few = {"rtol": 0, "atol": 1e-13 * depth}
    np.testing.assert_allclose(at.ntk, np.asarray(both.ntk)[upper], **few)
    np.testing.assert_allclose(at.gap, 1 - np.asarray(both.nngp)[upper], **few)


def test_plain_rates_and_one_block_have_their_readout_and_padding():
    found = results()["rates"]
    x = rates.small_images(DIGITS, found.attrs["images"])[:2]
    one = nr.ConvResNet(depth=1, branch_scale=1.0, readout="flatten")
    at = found.sel(readout="flatten").isel(pair=0)
    assert float(at.block_ntk) == pytest.approx(float(nr.kernel_fn(one)(x)[0, 1]))
    plain = kernels.FAMILIES["plain, circular"].replace(depth=100, readout="flatten")
    value = float(at.plain_ntk.sel(padding="circular", plain_depth=100))
    assert value == pytest.approx(float(nr.kernel_fn(plain)(x)[0, 1]), abs=1e-11)


def test_what_zero_padding_leaves_of_a_branch():
    """The leading eigenvalue of means over 3 x 3 pixels, by hand."""
    line = (np.eye(4) + np.eye(4, k=1) + np.eye(4, k=-1)) / 3
    leading = np.linalg.eigvalsh(np.kron(line, line))[-1]
    share = float(results()["rates"].block_share)
    assert share == pytest.approx(leading**2 / (1 + leading**2))


@pytest.mark.slow
def test_finite_networks_agree_and_ten_percent_would_show():
    names = list(finite.NETWORKS)
    found = finite.agreement(DIGITS, networks=names, seeds=256, width=128)
    assert verdict(found, "1h-images") == HOLDS
    off = found.assign(shift=found["shift"] + 0.1)
    assert verdict(off, "1h-images") == FAILS


# ----------------------------------------------------------------------------- verdicts


def test_the_rates_between_images_hold(one):
    lines = [e for e in one.entries if e.figure == "rates"]
    assert len(lines) == 14
    assert [e.statement for e in lines if e.verdict != HOLDS] == []


def test_wrong_predictions_fail(one):
    ledger_checks.check_wrong_predictions_fail(one)


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


@pytest.mark.parametrize(
    ("variable", "factor", "name"),
    [
        ("plain_ntk", 1.03, "1a-images-flattened"),
        ("plain_ntk", 1.002, "1a-images-circular"),
        ("plain_limit", 1.002, "1a-images-circular"),
        ("plain_ntk", 1.03, "1a-images-zero"),
        ("plain_ntk", 1.0001, "1b-images-flattened"),
        ("plain_ntk", 1.0001, "1b-images-circular"),
        ("plain_gap", 1.03, "1c-images-flattened"),
        ("plain_gap", 1.03, "1c-images-circular"),
        ("block_ntk", 1.0001, "1d-images-rate"),
        ("gap", 0.4, "1d-images-gap"),
        ("gap", 0.4, "1f-images-gap"),
        ("ntk", 1.1, "1g-images-constant"),
        ("gap", 0.85, "1c-images-constant"),
    ],
)
def test_a_wrong_measurement_fails(variable, factor, name):
    assert verdict(changed("rates", **{variable: factor}), name) == FAILS


def test_wrong_exponents_fail():
    found = results()["rates"]
    slower = changed("rates", plain_gap=found.plain_depth**0.05)
    assert verdict(slower, "1c-images-zero") == FAILS
    drifting = changed("rates", ntk=1 + 1e-3 * np.log(found.block_depth))
    assert verdict(drifting, "1f-images-rate") == FAILS


def test_images_that_do_not_suit_are_told_before_the_work():
    odd = dataclasses.replace(DIGITS, x=DIGITS.x[:, :7])
    few = DIGITS.take(np.arange(3))
    with pytest.raises(NotRun, match=r"7 x 8 pixels; .* multiples of 4"):
        rates.rates(odd, longest=100)
    with pytest.raises(NotRun, match="3 images; 4 are needed"):
        rates.rates(few, longest=100)
    with pytest.raises(NotRun, match="3 images; 15 are needed"):
        kernels.kernels(
            few, readout="pool", families=["plain"], depths=(1,), rows=15, splits=5
        )


def test_networks_off_their_closed_form_fail_and_few_settle_nothing():
    found = results()["agreement"]
    off = found.assign(shift=found["shift"] * 0 + 5.0)
    assert verdict(off, "1h-images") == FAILS
    few = found.assign(sem=found["sem"] * 0 + 1.0)
    assert verdict(few, "1h-images") == INCONCLUSIVE


@pytest.mark.parametrize("of", ["flattened", "pooled"])
def test_an_error_that_rises_fails(of):
    rising = xr.where(results()[of].depth > 1, 2.0, 1.0)
    for family in ("gamma-1", "gamma-1/2"):
        found = changed(of, mse=rising)
        assert verdict(found, f"1j-images-{of}-mse-{family}") == FAILS


@pytest.mark.parametrize("of", ["flattened", "pooled"])
def test_a_plain_kernel_that_learns_fails(of):
    found = changed(of)
    plain = found.family == "plain"
    chance = found.mse.where(~plain, 1.0)
    spread = xr.ones_like(found.group_spread)
    good = found.assign(mse=chance, group_spread=spread.where(~plain, 0.05))
    bad = found.assign(mse=0.5 * chance, group_spread=spread.where(~plain, 0.5))
    uneven = spread.where(~plain | (found.group > 0), 9.0)
    for end in ("mse-plain", "spread"):
        assert verdict(good, f"1j-images-{of}-{end}") == HOLDS
        assert verdict(bad, f"1j-images-{of}-{end}") == FAILS
    noisy = good.assign(group_spread=uneven.where(~plain | (found.group == 0), 0.01))
    assert verdict(noisy, f"1j-images-{of}-spread") == INCONCLUSIVE
