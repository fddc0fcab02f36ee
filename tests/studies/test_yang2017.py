"""The study of Yang & Schoenholz: its measurements, and that verdicts can fail."""

import math

import ledger_checks
import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet._progress import quiet
from ntk_resnet.studies import yang2017
from ntk_resnet.studies.ledger import FAILS, curve_slope, judge


@pytest.fixture(scope="module")
def one():
    study = ledger_checks.small(
        yang2017.STUDY,
        tanh_blocks={},
        networks={"depths": [1, 500, 2000], "relu_depths": [1, 50, 100]},
        correlations={"depths": [1000, 1500, 2000, 3000, 5000, 7000, 10000]},
    )
    return ledger_checks.run(study)


def test_wrong_predictions_fail(one):
    ledger_checks.check_wrong_predictions_fail(one)


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def test_correlations_that_stay_fail():
    """As far from e* as at first: e = 1/2 and 0.6, at any depth."""
    depths = [1000, 1500, 2000, 3000, 5000, 7000, 10000]
    fixed, power, second = yang2017._fixed_point(0.25)
    stays = np.repeat([[0.5], [0.6]], len(depths), axis=1)
    slope = curve_slope(depths, stays[1] - stays[0])
    limits = stays @ yang2017._weights(depths, power)
    found = ledger_checks.dataset(
        {
            "correlation": (("outer_bias", "start", "depth"), [stays]),
            "extrapolated": (("outer_bias", "start"), [limits]),
            "rounding": ("outer_bias", [1e-9]),
            "fixed_point": ("outer_bias", [fixed]),
            "power": ("outer_bias", [power]),
            "second": ("outer_bias", [second]),
            **{
                f"apart{end}": ("outer_bias", [value])
                for end, value in zip(("", "_low", "_high"), slope, strict=True)
            },
        },
        {"outer_bias": [0.25], "start": [0.1, 0.9], "depth": depths},
        first=1000,
        last=10000,
    )
    judged = {c.name: judge("", c, found, 0.0) for c in yang2017.CLAIMS[-2:]}
    assert judged["fixed-point"].verdict == FAILS
    assert judged["fixed-point-power"].verdict == FAILS


def test_weights_take_both_powers_out():
    depths = [10, 20, 30, 50, 100]
    depth = np.array(depths, float)
    weights = yang2017._weights(depths, -0.3)
    for power, limit in ((0, 1), (-0.3, 0), (-0.5, 0)):
        rounding = np.finfo(float).eps * np.abs(weights).sum()
        assert abs(weights @ depth**power - limit) < 10 * rounding


def test_the_fixed_point_and_its_slopes():
    """By differences of the map: to the root of eps, or its fourth for the second."""
    fixed, power, second = yang2017._fixed_point(0.5)
    e = fixed + np.array([-1e-4, 0.0, 1e-4])
    map_of = (2 / np.pi * np.arcsin(e) + 0.5) / 1.5
    assert map_of[1] == pytest.approx(fixed, rel=1e-10)
    assert (map_of[2] - map_of[0]) / 2e-4 == pytest.approx(1 + power, rel=1e-6)
    assert np.diff(map_of, 2)[0] / 1e-8 == pytest.approx(second, rel=1e-5)


def test_blocks_of_tanh_are_the_package_s_where_it_resolves_them():
    w, b = 0.5, 0.1
    spec = nr.ResNet(
        depth=1,
        activation="tanh",
        branch_scale=1.0,
        weight_variance=w,
        bias_variance=b,
    )
    log_p, growth, _ = yang2017._variance_and_growth(spec, [1, 4], quiet)
    own = yang2017._through_blocks(w, b, 1.0, 0.0, 4)
    np.testing.assert_allclose(np.exp(log_p), own[0, [1, 4]], rtol=1e-10)
    np.testing.assert_allclose(growth, own[1, [1, 4]], rtol=1e-9)


def test_networks_are_those_of_an_own_recursion(one):
    """p' = p + (2/pi) asin(2q/(1+2q)), and 1 + w (4/pi)/sqrt(1+4q) for gradients."""
    p, growth = 1.0, 0.0
    for _ in range(500):
        q = yang2017.WEIGHT * p + yang2017.BIAS
        growth += math.log1p(yang2017.WEIGHT * 4 / math.pi / math.sqrt(1 + 4 * q))
        p += 2 / math.pi * math.asin(2 * q / (1 + 2 * q))
    found = one.results["networks"].sel(depth=500)
    assert float(found.variance) == pytest.approx(p, rel=1e-9)
    assert float(found.log_growth) == pytest.approx(growth, rel=1e-9)


def test_correlations_without_a_bias_are_the_package_s():
    spec = nr.ResNet(
        depth=1,
        activation="erf",
        branch_scale=1.0,
        weight_variance=yang2017.WEIGHT,
        bias_variance=yang2017.BIAS,
    )
    swept = nr.sweep_depth(spec, [5, 20], angles=[np.pi / 3])
    own = np.array(yang2017._correlation(0.0, 20, 0.5))[[5, 20]]
    np.testing.assert_allclose(swept.nngp.values[:, 0], own, rtol=1e-9)


def test_slopes_and_exponents_of_what_is_known():
    depth = np.array([1.0, 4.0, 9.0])
    found = ledger_checks.dataset({"y": ("depth", 7 * depth**0.5)}, {"depth": depth})
    assert yang2017._slope(found.y, 0.5).values == pytest.approx(7)
    assert yang2017._slope(found.y, 0.5, over=2.0).values == pytest.approx(3.5)
    assert yang2017._exponent(found.y).values == pytest.approx(0.5)
