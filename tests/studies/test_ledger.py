"""A claim holds, fails or settles nothing as its interval lies."""

import dataclasses
import math

import ledger_checks
import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.studies import ledger
from ntk_resnet.studies.ledger import Claim, Measured, exact, judge, over_seeds

RNG = np.random.default_rng(0)


def claim(low, high, value=None, **changes):
    middle = (low + high) / 2 if value is None else value
    usual = Claim(
        name="1a",
        statement="at L = {depth}",
        source="Theorem 1",
        known="derived",
        of="part",
        measure=lambda found: Measured(middle, low, high, "95 % of something"),
        predicted=-0.5,
        tolerance=0.1,
        reason="next term of order 1/{depth}",
    )
    return dataclasses.replace(usual, **changes)


FOUND = ledger_checks.dataset({}, {}, depth=7)


def verdict(low, high, **changes):
    return judge("study", claim(low, high, **changes), FOUND, 0.0).verdict


@pytest.mark.parametrize(
    ("low", "high", "side", "expected"),
    [
        (-0.55, -0.45, "within", "holds"),
        (-0.55, -0.06, "within", "inconclusive"),  # confirms no exponent of -0.5
        (-0.9, 0.0, "within", "inconclusive"),
        (-0.39, -0.2, "within", "fails"),
        (-0.9, -0.61, "within", "fails"),
        (-0.9, -0.6, "below", "holds"),
        (-0.9, -0.3, "below", "inconclusive"),
        (-0.39, -0.3, "below", "fails"),
        (-0.3, 0.0, "above", "holds"),
        (-0.7, 0.0, "above", "inconclusive"),
        (-0.9, -0.61, "above", "fails"),
        (np.nan, np.nan, "within", "inconclusive"),
        (np.nan, np.nan, "below", "inconclusive"),
        (-0.5, np.nan, "within", "inconclusive"),
        (-np.inf, np.inf, "within", "inconclusive"),
        (np.inf, np.inf, "below", "fails"),
    ],
)
def test_the_interval_decides(low, high, side, expected):
    tolerance = 0.1 if side == "within" else 0.0
    assert verdict(low, high, side=side, tolerance=tolerance) == expected or (
        side != "within" and verdict(low, high, side=side, tolerance=0.1) == expected
    )


def test_of_several_values_one_that_fails_fails_all():
    def several(*values):
        return lambda found: exact(values, 0.01, "bound")

    for values, expected, shown in (
        ((-0.5, -0.45, -0.42), "holds", -0.42),
        ((-0.5, -0.45, -0.2), "fails", -0.2),
        ((-0.5, -0.405, -0.45), "inconclusive", -0.405),
        ((-0.5, -0.405, -0.2), "fails", -0.2),
        ((-0.5, np.nan, -0.45), "inconclusive", np.nan),
    ):
        line = judge("s", claim(0, 0, measure=several(*values)), FOUND, 0.0)
        assert line.verdict == expected
        np.testing.assert_equal(line.measured, shown)
        assert line.interval.endswith("worst of 3")


def test_predictions_may_differ_from_value_to_value():
    found = ledger_checks.dataset({}, {"n": [1.0, 2.0]}, depth=7)
    one = claim(
        0,
        0,
        measure=lambda found: exact(found.n**2, 0.0, "whole numbers"),
        predicted=lambda found: found.n.values**2,
        tolerance=lambda found: 0.1 * found.n.values,
    )
    assert judge("s", one, found, 0.0).verdict == "holds"
    wrong = dataclasses.replace(one, predicted=lambda found: found.n.values**3)
    line = judge("s", wrong, found, 0.0)
    assert (line.verdict, line.predicted, line.measured) == ("fails", 8.0, 4.0)
    assert line.tolerance == 0.2


def test_a_line_says_what_was_found():
    line = judge("study", claim(-0.55, -0.45), FOUND, 1.5)
    assert line.statement == "at L = 7"
    assert line.reason == "next term of order 1/7"
    assert line.source == "Theorem 1 (derived here)"
    assert (line.predicted, line.tolerance, line.seconds) == (-0.5, 0.1, 1.5)
    assert (line.low, line.high) == (-0.55, -0.45)


def test_what_could_not_be_run_has_no_numbers():
    line = ledger.not_run("study", claim(0, 0), "no data")
    assert (line.verdict, line.reason) == ("not run", "no data")
    assert line.statement == "at L = …"
    assert all(math.isnan(v) for v in (line.measured, line.low, line.high))
    several = ledger.not_run("study", claim(0, 0, predicted=lambda _: [1, 2]), "why")
    assert math.isnan(several.predicted)


# ------------------------------------------------------------------------ intervals


def test_intervals_over_seeds_are_student_s_and_hold_the_mean_as_often_as_they_say():
    assert over_seeds([1.0, 2.0, 3.0, 4.0, 5.0])[:3] == pytest.approx(
        (3, 3 - 2.776445 * np.sqrt(0.5), 3 + 2.776445 * np.sqrt(0.5)), rel=1e-6
    )
    found = over_seeds(RNG.normal(size=(6, 4000)))
    covered = np.mean((found.low < 0) & (found.high > 0))
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)


def test_ratios_of_means_hold_the_ratio_as_often_as_they_say():
    over, under = RNG.exponential(2, (40, 4000)), RNG.exponential(1, (40, 4000))
    found = ledger.ratio_of_means(over, under)
    covered = np.mean((found.low < 2) & (found.high > 2))
    assert covered > 0.93  # of skew numbers


@pytest.mark.parametrize(
    "function", [over_seeds, lambda v: ledger.ratio_of_means(v, v)]
)
def test_few_seeds_are_no_interval(function):
    with pytest.raises(ValueError, match="has 4 seeds; an interval needs 5"):
        function(np.ones(4))


def test_the_exponent_of_a_fit():
    fit = nr.fit_power([1.0, 2.0, 4.0, 8.0], [1.0, 4.1, 15.9, 64.0])
    assert ledger.exponent(fit)[:3] == (fit.exponent, fit.low, fit.high)


def test_the_slope_of_a_curve_is_as_certain_as_it_is_straight():
    x = np.geomspace(1, 100, 9)
    straight = ledger.curve_slope(x, 3 / x**2)
    assert straight == pytest.approx((-2, -2, -2))
    bent = ledger.curve_slope(x, x + 100)  # from 0 to 1
    assert 0 < bent.low < 0.1 < bent.value < 0.2 < bent.high < 0.5
    assert ledger.of_curve(bent).interval == ledger.BOTH_HALVES
    with pytest.raises(ValueError, match="six points"):
        ledger.curve_slope(x[:5], x[:5])


def test_claims_that_belong_together_are_named_by_what_they_share():
    def entry(name, verdict):
        return ledger.Entry(
            "s", name, "", "", 0, 0, 0, 0, 0, verdict, 0, "within", "", "", ""
        )

    lines = [
        entry("1a-slope", ledger.HOLDS),
        entry("1a-limit", ledger.NOT_RUN),
        entry("1b", ledger.FAILS),
        entry("2", ledger.NOT_RUN),
    ]
    assert ledger.all_hold(lines, "1a")
    assert ledger.all_hold(lines, "1a-slope")
    assert not ledger.all_hold(lines, "1a", "1b")
    assert not ledger.all_hold(lines, "2")
    assert not ledger.all_hold(lines, "1")
