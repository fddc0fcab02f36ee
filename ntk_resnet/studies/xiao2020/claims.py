"""What each phase does to training and predictions."""

import numpy as np

from ntk_resnet.studies.ledger import Claim, exact
from ntk_resnet.studies.xiao2020.measurements import RELU, SLOPES


def _last(values):
    """Those at the last two depths at which there are any, and these depths."""
    known = values.dropna("depth").isel(depth=[-2, -1])
    return known.values, known.depth.values


def _rate(values):
    """By how much ln of values grows a layer, at the end."""
    known, depth = _last(values)
    return float(np.diff(np.log(known))[0] / np.diff(depth)[0])


def _rate_over(name, network, known, less=0.0, power=0):
    """The rate of a variable (less something, times a power of L) over a known one."""

    def measure(found):
        one = found[name].sel(network=network) - less
        rate = known(found) if callable(known) else known
        return exact(_rate(one * one.depth.astype(float) ** power) / rate, 1e-3)

    return measure


def _power_of(network):
    """The power of depth by which predictions grow, at the end."""

    def measure(found):
        known, depth = _last(found.prediction.sel(network=network))
        return exact(np.diff(np.log(known)) / np.diff(np.log(depth)), 1e-6)

    return measure


def _over_limit(network):
    """The condition number over its limit, at the last depth."""

    def measure(found):
        one = found.sel(network=network, depth=found.attrs["far"])
        return exact(one.condition_number / one.predicted, 1e-9)

    return measure


def _twice_the_term(found):
    """4 ln L/L: the term is 2 ln L/L for ReLU, and 2.4 ln L/L for erf."""
    return 4 * np.log(found.attrs["far"]) / found.attrs["far"]


def _ordered_end(found):
    """The size of predictions at the last depth over that before, if ordered."""
    (before, last), _ = _last(found.prediction.sel(network="ordered"))
    return exact(last / before, 1e-4)


def _at_thirty(name):
    """What the chaotic network of 30 layers has."""
    return lambda found: exact(found[name].sel(network="chaotic", depth=30), 1e-9)


def _coefficient(found):
    """d(L times shortfall) / d ln L, at the end."""
    last = found.shortfall.transpose("depth", "angle").isel(depth=[-2, -1])
    depth = last.depth.values[:, None]
    slope = np.diff(depth * last.values, axis=0) / np.diff(np.log(depth), axis=0)
    return exact(slope, 1e-6)


TABLE = "table of condition numbers and predictions by phase"

TEN = "10 %, for terms of relative order 1/L"

CLAIMS = [
    Claim(
        name="11.1",
        statement="erf, bias variance 0.3: the critical weight variance",
        source="values computed independently",
        known="derived",
        of="fixed_points",
        measure=lambda found: exact(found.weight_variance, 1e-9),
        predicted=1.96307,
        tolerance=5e-6,
        reason="digits of the prediction",
    ),
    Claim(
        name="11.1",
        statement="the fixed point q* of the variance there",
        source="values computed independently",
        known="derived",
        of="fixed_points",
        measure=lambda found: exact(found.variance, 1e-9),
        predicted=1.31182,
        tolerance=5e-6,
        reason="digits of the prediction",
    ),
    Claim(
        name="11.1",
        statement="ordered: one minus a correlation falls by χ₁ a layer: the rate over "
        "ln χ₁, at L = {last}",
        source="depth scale ξ = −1/ln χ",
        known="summary",
        of="matrices",
        measure=_rate_over("gap", "ordered", np.log(SLOPES["ordered"])),
        predicted=1.0,
        tolerance=0.01,
        reason="terms of relative order χ₁^L; 1e-3 for rounding",
        figure="matrices",
    ),
    Claim(
        name="11.1",
        statement="ordered: the condition number grows as m χ₁^(−L)/L: the rate of L "
        "times it over −ln χ₁, at L = {last}",
        source=TABLE,
        known="summary",
        of="matrices",
        measure=_rate_over(
            "condition_number", "ordered", -np.log(SLOPES["ordered"]), power=1
        ),
        predicted=1.0,
        tolerance=0.1,
        reason=TEN,
        figure="matrices",
    ),
    Claim(
        name="11.1",
        statement="critical, smooth: the condition number of m = {points} points tends "
        "to (m+2)/2: over it, at L = {far}",
        source=TABLE,
        known="summary",
        of="matrices",
        measure=_over_limit("critical"),
        predicted=1.0,
        tolerance=_twice_the_term,
        reason="twice the term of order ln L/L, 9/2 of what the NTK lacks to 1/3",
        figure="matrices",
    ),
    Claim(
        name="11.1",
        statement="critical, ReLU: the condition number of m = {points} points tends "
        "to (m+3)/3: over it, at L = {far}",
        source="the limit 1/4 put into the matrix",
        known="derived",
        of="matrices",
        measure=_over_limit(RELU),
        predicted=1.0,
        tolerance=_twice_the_term,
        reason="twice the term of order ln L/L, 16/3 of (3/8) ln L/L",
        figure="matrices",
    ),
    Claim(
        name="11.1",
        statement="chaotic: the condition number tends to 1 by χ₁ a layer: the rate of "
        "its excess over −ln χ₁, at L = {last}",
        source=TABLE,
        known="summary",
        of="matrices",
        measure=_rate_over(
            "condition_number", "chaotic", -np.log(SLOPES["chaotic"]), less=1.0
        ),
        predicted=1.0,
        tolerance=0.1,
        reason="10 %, for terms of relative order L (χ_c)^L",
        figure="matrices",
    ),
    Claim(
        name="11.1",
        statement="chaotic: the condition number of {points} points at L = 30",
        source="value computed independently, 100 points",
        known="derived",
        of="matrices",
        measure=_at_thirty("condition_number"),
        predicted=1.05,
        tolerance=0.005,
        reason="digits of the prediction",
        figure="matrices",
    ),
    Claim(
        name="11.1",
        statement="chaotic: the mean normalised NTK off the diagonal at L = 30",
        source="value computed independently",
        known="derived",
        of="matrices",
        measure=_at_thirty("off_diagonal"),
        predicted=5.4e-4,
        tolerance=0.27e-4,
        reason="5 %: the number is of inputs that are not stated, and lies between "
        "5.2e-4 and 5.6e-4 as their angle does",
        figure="matrices",
    ),
    Claim(
        name="11.1",
        statement="critical, smooth: the normalised NTK off the diagonal tends to 1/3: "
        "what it lacks at L = {far}",
        source="limit of the NTK",
        known="summary",
        of="approach",
        measure=lambda found: exact(found.shortfall.isel(depth=-1), 1e-12),
        predicted=0.0,
        tolerance=lambda found: np.log(found.attrs["far"]) / found.attrs["far"],
        reason="term of order ln L/L",
        figure="approach",
    ),
    Claim(
        name="11.1",
        statement="it lacks A ln L/L, A = 1/3 + 2/(9 C″), C the map of correlations, "
        "at 1: the slope of L times it against ln L, up to L = {far}",
        source="second order of the recursion",
        known="derived",
        of="approach",
        measure=_coefficient,
        predicted=lambda found: found.attrs["coefficient"],
        tolerance=0.01,
        reason="terms of order ln² L/L at the depth before the last",
        figure="approach",
    ),
    Claim(
        name="11.1",
        statement="ordered: predictions of centred labels do not decay: their size at "
        "L = {last} over that at the depth before",
        source=TABLE,
        known="summary",
        of="matrices",
        measure=_ordered_end,
        predicted=1.0,
        tolerance=0.05,
        reason="terms of relative order 1/L",
        figure="matrices",
    ),
    *(
        Claim(
            name="11.1",
            statement=f"critical, {text}: predictions of centred labels fall as 1/L: "
            "the power of L, at L = {far}",
            source=TABLE,
            known="summary",
            of="matrices",
            measure=_power_of(network),
            predicted=-1.0,
            tolerance=0.1,
            reason="0.1, for terms of relative order ln L/L",
            figure="matrices",
        )
        for network, text in (("critical", "smooth"), (RELU, "ReLU"))
    ),
    Claim(
        name="11.1",
        statement="chaotic: they fall as L (χ_c/χ₁)^L: the rate of them over L, by "
        "ln(χ_c/χ₁), at L = {last}",
        source=TABLE,
        known="summary",
        of="matrices",
        measure=_rate_over(
            "prediction", "chaotic", lambda found: -found.attrs["decay"], power=-1
        ),
        predicted=1.0,
        tolerance=0.1,
        reason=TEN,
        figure="matrices",
    ),
]
