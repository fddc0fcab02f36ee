"""The verdicts on convolutional kernels can fail; what they judge is what it says."""

import numpy as np
import pytest
import small_study
import xarray as xr

import ntk_resnet as nr
from ntk_resnet.studies import finite_measurements, image_claims, image_rates
from ntk_resnet.studies import image_measurements as measures

DIGITS = nr.load_data("digits", images=True)


def changed(part, **variables):
    """A part of the small study, some of its variables multiplied."""
    found = small_study.results()[part].copy(deep=True)
    for name, factor in variables.items():
        found[name] = found[name] * factor
    return found


def verdict(part, found, label, text):
    claims = image_claims.JUDGES[part]({part: found})
    (one,) = [c for c in claims if c.label == label and text in c.statement]
    return one.holds


# ----------------------------------------------------------------- what is measured


def test_small_images_are_means_of_pixels():
    small = image_rates.small_images(DIGITS, 3)
    assert small.shape == (3, 4, 4, 1)
    by_hand = DIGITS.x[1, 2:4, 4:6, 0].mean()
    np.testing.assert_allclose(small[1, 1, 2, 0], by_hand, rtol=1e-14)


@pytest.mark.parametrize(
    ("family", "depth"), [("γ = 1/2", 10), ("γ = 1", 100), ("α = 1", 100)]
)
def test_rates_are_of_the_networks_they_name(family, depth):
    """Not of the constant scales with which one pass serves all."""
    found = small_study.results()["image_rates"]
    x = image_rates.small_images(DIGITS, found.attrs["images"])
    kernel = nr.kernel_fn(measures.FAMILIES[family].replace(depth=depth))
    both = kernel(x, get=("nngp", "ntk"))
    upper = np.triu_indices(len(x), 1)
    at = found.sel(family=family, readout="pool", block_depth=depth)
    few = {"rtol": 0, "atol": 1e-13 * depth}
    np.testing.assert_allclose(at.ntk, np.asarray(both.ntk)[upper], **few)
    np.testing.assert_allclose(at.gap, 1 - np.asarray(both.nngp)[upper], **few)


def test_plain_rates_and_one_block_have_their_readout_and_padding():
    found = small_study.results()["image_rates"]
    x = image_rates.small_images(DIGITS, found.attrs["images"])[:2]
    one = nr.ConvResNet(depth=1, branch_scale=1.0, readout="flatten")
    at = found.sel(readout="flatten").isel(pair=0)
    assert float(at.block_ntk) == pytest.approx(float(nr.kernel_fn(one)(x)[0, 1]))
    plain = measures.FAMILIES["plain, circular"].replace(depth=100, readout="flatten")
    value = float(at.plain_ntk.sel(padding="circular", plain_depth=100))
    assert value == pytest.approx(float(nr.kernel_fn(plain)(x)[0, 1]), abs=1e-11)


def test_what_zero_padding_leaves_of_a_branch():
    """The leading eigenvalue of means over 3 x 3 pixels, by hand."""
    line = (np.eye(4) + np.eye(4, k=1) + np.eye(4, k=-1)) / 3
    leading = np.linalg.eigvalsh(np.kron(line, line))[-1]
    share = float(small_study.results()["image_rates"].block_share)
    assert share == pytest.approx(leading**2 / (1 + leading**2))


def test_agreement_is_between_the_networks_and_their_closed_form():
    found = small_study.results()["image_networks"]
    x, upper = image_rates.small_images(DIGITS, 3), np.triu_indices(3)
    (name,) = found.network.values
    spec = finite_measurements.IMAGE_SPECS[name]
    limit = np.asarray(nr.kernel_fn(spec, normalised=False)(x))[upper]
    at = found.sel(network=name, kernel="ntk")
    np.testing.assert_allclose(at.exact, limit, rtol=1e-12)
    assert (np.abs(at["mean"] / at.exact - 1) < 6 * at.resolved).all()
    np.testing.assert_allclose(at.deviation * at["sem"], at["mean"] - at.exact)
    assert float(at.worst) == np.abs(at.deviation).max()


@pytest.mark.slow
def test_finite_networks_agree_and_three_percent_would_show():
    found = finite_measurements.agreement_on_images(DIGITS, specs=4, networks=256)
    claims = image_claims.JUDGES["image_networks"]({"image_networks": found})
    assert len(claims) == 4
    assert all(claim.holds for claim in claims)
    assert float(found.resolved.max()) < 0.03
    off = (found["mean"] * 1.1 - found.exact) / found["sem"]
    assert (np.abs(off).max("entry") > 4).all()


# ------------------------------------------------------------------------- verdicts


def test_the_rates_between_images_hold():
    found = small_study.results()["image_rates"]
    claims = image_claims.JUDGES["image_rates"]({"image_rates": found})
    assert len(claims) == 14
    assert [claim.statement for claim in claims if not claim.holds] == []


@pytest.mark.parametrize(
    ("variable", "factor", "label", "text"),
    [
        ("plain_ntk", 1.01, "1a, images", "flattened"),
        ("plain_ntk", 1.002, "1a, images", "pooled, circular"),
        ("plain_limit", 1.002, "1a, images", "pooled, circular"),
        ("plain_ntk", 1.03, "1a, images", "zero padding"),
        ("plain_ntk", 1.0001, "1b, images", "flattened"),
        ("plain_ntk", 1.0001, "1b, images", "pooled, circular"),
        ("plain_gap", 1.03, "1c, images", "plain, flattened"),
        ("plain_gap", 1.03, "1c, images", "pooled, circular"),
        ("block_ntk", 1.0001, "1d, images", "exponent"),
        ("gap", 0.4, "1d, images", "does not degenerate"),
        ("gap", 0.4, "1f, images", "does not degenerate"),
        ("ntk", 1.1, "1g, images", "α = 1"),
        ("gap", 0.9, "1c, images", "α = 1"),
    ],
)
def test_a_wrong_measurement_fails(variable, factor, label, text):
    wrong = changed("image_rates", **{variable: factor})
    assert not verdict("image_rates", wrong, label, text)


def test_wrong_exponents_fail():
    found = small_study.results()["image_rates"]
    slower = changed("image_rates", plain_gap=found.plain_depth**0.05)
    assert not verdict("image_rates", slower, "1c, images", "exponent")
    drifting = changed("image_rates", ntk=1 + 1e-3 * np.log(found.block_depth))
    assert not verdict("image_rates", drifting, "1f, images", "exponent")


def test_networks_off_their_closed_form_fail():
    found = small_study.results()["image_networks"]
    assert verdict("image_networks", found, "1h, images", "γ = 1/2")
    for worst in (5.0, np.nan):
        off = found.assign(worst=found.worst * 0 + worst)
        assert not verdict("image_networks", off, "1h, images", "γ = 1/2")


def test_an_error_that_rises_fails():
    found = small_study.results()["images"]
    rising = xr.where(found.depth > 1, 2.0, 1.0)
    for family in ("γ = 1,", "γ = 1/2,"):
        for readout in ("flattened", "pooled"):
            what = ("1j, images", f"{family} {readout}")
            assert verdict("images", found, *what)
            assert not verdict("images", changed("images", mse=rising), *what)


@pytest.mark.parametrize("readout", ["flattened", "pooled"])
def test_chance_is_asked_of_deep_networks_only(readout):
    def judged(deep, **variables):
        found = changed("images", **variables).assign_coords(depth=[1, deep])
        claims = image_claims.JUDGES["images"]({"images": found})
        text = f"plain, {readout}"
        return [claim.holds for claim in claims if text in claim.statement]

    found = small_study.results()["images"]
    assert judged(99) == []
    plain = found.family == "plain"
    chance = (plain / found.mse).where(plain, 1.0)
    assert judged(100, mse=chance, ntk_spread=0.05 * plain + ~plain) == [True, True]
    assert judged(100, mse=0.5 * chance) == [False, False]
