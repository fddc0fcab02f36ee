"""Fluctuations of the NTK from network to network, against exact theory."""

import decimal
import json
import math

import numpy as np
import pytest
from specifications import SPECS

import ntk_resnet as nr
from ntk_resnet.finite import dispersion, dispersion_study, predicted_dispersion
from ntk_resnet.finite.dispersion import (
    dispersion_of_families,
    exact_dispersion,
    exact_feature_dispersion,
    ratio_of_moments,
)

PLAIN = nr.FeedForward(depth=1)
MEASURED = [  # depth, width, dispersion, standard error of 10,000 networks
    (2, 32, 1.216, 0.004),
    (4, 32, 1.520, 0.010),
    (8, 32, 2.46, 0.06),
    (16, 64, 2.54, 0.08),
]


def errors(study, name, truth):
    """How many standard errors each value of a study is away from the truth."""
    return np.abs((study[name] - truth) / study[f"{name}_sem"]).values


def agrees_with_theory(study):
    """Mean, dispersion and that of the features, each within 3 standard errors."""
    np.testing.assert_array_less(errors(study, "ntk_mean", 1), 3)
    for name in ("dispersion", "feature_dispersion"):
        np.testing.assert_array_less(errors(study, name, study[f"predicted_{name}"]), 3)


def test_wide_and_narrow_networks_agree_with_theory():
    agrees_with_theory(dispersion_study(PLAIN, [1, 2], [2, 32], 3000))


def test_so_do_networks_whose_readout_is_frozen():
    frozen = PLAIN.replace(trained="blocks")
    agrees_with_theory(dispersion_study(frozen, [1, 2], [2, 32], 3000))


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["blocks", "all"])
def test_very_narrow_networks_agree_with_theory(trained):
    """A layer without an active unit, which ends everything, is common here."""
    plain = PLAIN.replace(trained=trained)
    agrees_with_theory(dispersion_study(plain, [1, 2], [1, 2, 3, 4], 40_000))


@pytest.mark.slow
def test_dispersion_over_depth_and_width():
    study = dispersion_study(PLAIN, [2, 4, 8], [32], 10_000)
    agrees_with_theory(study)
    wide = dispersion_study(PLAIN, [16], [64], 10_000)
    agrees_with_theory(wide)
    for depth, width, value, error in MEASURED:
        found = (wide if width == 64 else study).sel(depth=depth, width=width)
        error = math.hypot(error, found.dispersion_sem)
        assert abs(found.dispersion - value) < 3 * error
        # The limit is larger than networks of these sizes by up to 5 % and 1.5 s.e.
        limit = float(found.limit_dispersion)
        assert abs(found.dispersion - limit) < 0.08 * limit + 3 * found.dispersion_sem


@pytest.mark.quick
@pytest.mark.parametrize(("depth", "width", "value", "error"), MEASURED)
def test_theory_agrees_with_an_independent_table(depth, width, value, error):
    assert abs(exact_dispersion(depth, width) - value) < 3 * error
    limit = predicted_dispersion(depth / width)
    assert abs(limit - value) < 0.08 * value + 3 * error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "largest"),
    [
        (nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5)), 1.3),
        (nr.ResNet(depth=1, branch_scale=nr.DepthScale(1.0)), 1.2),
        (nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5), trained="all"), 1.35),
        (
            nr.ResNet(depth=1, branch_scale=nr.DepthScale(1.0), block="preactivation"),
            1.3,
        ),
    ],
)
def test_residual_networks_do_not_disperse_with_depth(spec, largest):
    """Sixteen times the depth adds nothing, where a plain network goes to 6.5."""
    study = dispersion_study(spec, [4, 16, 64], [32], 2000)
    value, error = study.dispersion.values[:, 0], study.dispersion_sem.values[:, 0]
    assert (value < largest + 3 * error).all()
    assert value[-1] < value[0] + 3 * math.hypot(error[0], error[-1])


def test_a_residual_network_disperses_less_than_a_plain_one():
    residual = nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5))
    study = dispersion_study(residual, [8], [32], 1000)
    assert study.dispersion + 5 * study.dispersion_sem < exact_dispersion(8, 32)
    # E Theta is that of the closed form at every width with these blocks, too.
    assert errors(study, "ntk_mean", 1) < 3
    assert np.isnan(study.predicted_dispersion)


@pytest.mark.slow
def test_residual_networks_agree_with_an_independent_table():
    """Its networks keep the norm of the input: theirs times E|A x|^4 / (E|A x|^2)^2."""
    input_layer = 1 + 2 / 32
    for scale, table in (
        (nr.DepthScale(0.5), [1.18, 1.18, 1.16]),
        (nr.DepthScale(1.0), [1.11, 1.08, 1.07]),
        (1.0, [1.38, 1.75, 2.76]),
    ):
        study = dispersion_study(
            nr.ResNet(depth=1, branch_scale=scale), [4, 8, 16], [32], 4000
        )
        error = 0.005 + np.hypot(1, 1) * study.dispersion_sem.values[:, 0]
        off = study.dispersion.values[:, 0] - input_layer * np.array(table)
        assert (np.abs(off) < 3 * error).all()


@pytest.mark.parametrize("width", [1, 2, 7, 100])
def test_one_layer_by_hand(width):
    """Theta is 2/m times a sum of chi^2 of 2 degrees over the active units."""
    assert exact_dispersion(1, width) == pytest.approx(1 + 3 / width, rel=1e-14)
    # The readout frozen: 2/m times a sum over the active units of v^2, of mean 1.
    frozen = exact_dispersion(1, width, trained="blocks")
    assert frozen == pytest.approx(1 + 5 / width, rel=1e-14)
    assert exact_feature_dispersion(1, width) == pytest.approx(1 + 5 / width, rel=1e-14)


def test_the_exact_value_tends_to_the_limit():
    """The difference is of order 1/depth: it halves as depth and width double, and
    without that order hardly anything is left."""
    for ratio in (1 / 16, 1 / 4, 1):
        off = [
            exact_dispersion(depth, round(depth / ratio)) / predicted_dispersion(ratio)
            - 1
            for depth in (256, 512, 1024)
        ]
        assert abs(2 * off[-1] - off[-2]) < 0.02 * abs(off[-1])
        np.testing.assert_allclose(np.divide(off[1:], off[:-1]), 0.5, atol=0.02)


def exactly(ratio):
    """The formula of the limit with 60 digits."""
    with decimal.localcontext(prec=60):
        r = decimal.Decimal(ratio)
        bracket = 1 / decimal.Decimal(3) + 2 / (9 * r)
        bracket -= (1 - (-6 * r).exp()) / (27 * r**2)
        return float((5 * r).exp() * bracket)


def test_the_limit_is_accurate_at_all_ratios():
    ratios = np.array([1e-12, 1e-8, 1e-5, 1e-3, 0.02, 0.1, 0.25, 0.7, 1, 3, 10, 100])
    expected = [exactly(ratio) for ratio in ratios]
    eps = np.finfo(float).eps
    # exp(5 r) adds the rounding of its argument.
    relative = np.abs(predicted_dispersion(ratios) / expected - 1)
    assert (relative < 8 * eps * np.maximum(1, ratios)).all()
    assert predicted_dispersion(0) == predicted_dispersion(1e-300) == 1
    assert predicted_dispersion(1000) == np.inf


def test_theory_out_of_range_is_infinite():
    assert exact_dispersion(2000, 1) == exact_dispersion(3000, 8) == np.inf
    assert exact_feature_dispersion(5000, 32) == np.inf


def test_theory_is_left_alone_where_there_is_none(monkeypatch):
    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr(dispersion, "exact_dispersion", never)
    study = dispersion_study(SPECS["two_layer_constant"], [1], [2], 2)
    assert np.isnan(study.predicted_dispersion)


def test_ratio_of_moments_and_its_error():
    """Against the exact ratio of a gamma distribution, in 2000 small studies."""
    rng, shape = np.random.default_rng(0), 4.0
    found, error = np.transpose(
        [ratio_of_moments(rng.gamma(shape, size=400)) for _ in range(2000)]
    )
    assert np.mean(found) == pytest.approx(1 + 1 / shape, rel=3e-3)  # bias 1/400
    assert np.mean(error) == pytest.approx(np.std(found), rel=0.1)
    assert ratio_of_moments(7 * np.ones(3)) == (1, 0)


@pytest.mark.quick
def test_what_comes_out():
    calls = []
    spec = SPECS["two_layer_relu_bias"]
    study = dispersion_study(
        spec,
        [3, 1],
        [4],
        5,
        input_kernel=2.0,
        seed=3,
        progress=lambda *call: calls.append(call),
    )
    assert study.dispersion.dims == ("depth", "width")
    assert study.depth.values.tolist() == [1, 3]
    assert np.isnan(study.limit_dispersion).all()
    assert calls[-1] == (10, 10, "depth 3, width 4")
    assert nr.from_json(study.attrs["spec"]) == spec
    assert study.attrs["seeds"] == 5
    again = dispersion_study(spec, [3], [4], 5, input_kernel=2.0, seed=3)
    np.testing.assert_array_equal(study.dispersion[1:], again.dispersion)


def test_families():
    calls = []
    families = {"plain": PLAIN, "residual": SPECS["two_layer_constant"]}
    study = dispersion_of_families(
        families, [2], 8, 20, progress=lambda *call: calls.append(call)
    )
    alone = dispersion_study(SPECS["two_layer_constant"], [2], [8], 20).isel(width=0)
    found = study.sel(family="residual")
    np.testing.assert_array_equal(found.dispersion, alone.dispersion)
    assert calls[-1] == (40, 40, "dispersion, residual, depth 2, width 8")
    text = json.loads(study.attrs["specs"])["residual"]
    assert repr(SPECS["two_layer_constant"]) in text


@pytest.mark.slow
def test_mean_of_networks_that_are_not_homogeneous():
    """Where the norm of the input matters: erf at an input kernel of 2, 3 s.e."""
    study = dispersion_study(
        SPECS["plain_erf_bias"], [2], [256], 1000, input_kernel=2.0
    )
    assert errors(study, "ntk_mean", 1) < 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"spec": 3}, "spec must be"),
        ({"depths": [0]}, "depths must be"),
        ({"widths": [4, 4]}, "widths must be distinct"),
        ({"seeds": 1}, "seeds must be at least 2"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"input_kernel": 0.0}, "input_kernel must be"),
    ],
)
def test_bad_arguments_are_named(as_users_run_it, changes, text):
    good = {"spec": PLAIN, "depths": [1], "widths": [4], "seeds": 2}
    with pytest.raises(ValueError, match=text):
        dispersion_study(**good | changes)


@pytest.mark.parametrize("bad", [-0.1, math.nan, [0.1, math.inf], "a", [[1], [1, 2]]])
def test_bad_ratios_are_named(as_users_run_it, bad):
    with pytest.raises(ValueError, match="ratio must be finite numbers >= 0"):
        predicted_dispersion(bad)
