"""What each phase does to training and predictions."""

import numpy as np

from ntk_resnet.studies.ledger import Claim, exact
from ntk_resnet.studies.xiao2020.measurements import RELU, ROOT, SLOPES

EPS = np.finfo(float).eps
ROUNDING = "bound of the rounding, by layers, points and condition number"


def _root(values):
    """The fixed point changes by 0.7 of a change of the weight variance."""
    return exact(values, 10 * ROOT, "ten times the tolerance of the root")


def _slope(x, y):
    """Between the last two depths, and how much it changed from the two before."""
    slopes = np.diff(y) / np.diff(x)
    change = abs(slopes[..., -1] - slopes[..., -2])
    return exact(slopes[..., -1], change, "change from the pair of depths before")


def _rate_over(name, network, known, less=0.0, power=0):
    """The rate of ln of a variable by layer, at the end, over a known one.

    Of the variable less something, times a power of L.
    """

    def measure(found):
        one = found[name].sel(network=network).dropna("depth")
        depth = one.depth.values.astype(float)
        rate = known(found) if callable(known) else known
        logs = np.log((one.values - less) * depth**power) / rate
        return _slope(depth, logs)

    return measure


def _power_of(network):
    """The power of depth by which predictions grow, at the end."""

    def measure(found):
        one = found.prediction.sel(network=network).dropna("depth")
        return _slope(np.log(one.depth.values), np.log(one.values))

    return measure


def _rounded(values, one, points):
    """Numbers of matrices, each entry right to eps times the layers, relative."""
    relative = EPS * one.depth * points * one.condition_number
    return exact(values, relative.values * values, ROUNDING)


def _over_limit(network):
    """The condition number over its limit, at the last depth."""

    def measure(found):
        one = found.sel(network=network, depth=found.attrs["far"])
        ratio = (one.condition_number / one.predicted).values
        return _rounded(ratio, one, found.attrs["points"])

    return measure


def _twice_the_term(found):
    """4 ln L/L: the term is 2 ln L/L for ReLU, and 2.4 ln L/L for erf."""
    return 4 * np.log(found.attrs["far"]) / found.attrs["far"]


def _ordered_end(found):
    """The size of predictions at the last depth over that before, if ordered."""
    one = found.sel(network="ordered").dropna("depth")
    before, last = one.prediction.values[-2:]
    return _rounded(last / before, one.isel(depth=-1), found.attrs["points"])


def _at_thirty(name):
    """What the chaotic network of 30 layers has."""

    def measure(found):
        one = found.sel(network="chaotic", depth=30)
        return _rounded(one[name].values, one, found.attrs["points"])

    return measure


def _shortfall(found):
    last = found.shortfall.isel(depth=-1)
    return exact(
        last, EPS * found.attrs["far"], "bound of the rounding of so many layers"
    )


def _coefficient(found):
    """d(L times shortfall) / d ln L, at the end."""
    depth = found.depth.values.astype(float)
    values = depth * found.shortfall.transpose("angle", "depth").values
    return _slope(np.log(depth), values)


TABLE = "table of condition numbers and predictions by phase"

CRITICAL = "q = σ_w² E φ² + 0.3 and σ_w² E φ′² = 1, solved apart to six digits"
APART = "the recursion in another code, 100 points, to two digits"

TEN = "10 %, for terms of relative order 1/L"

CLAIMS = [
    Claim(
        name="critical-weight",
        statement="erf, bias variance 0.3: the critical weight variance σ_w²",
        source=CRITICAL,
        known="derived",
        of="fixed_points",
        measure=lambda found: _root(found.weight_variance),
        predicted=1.96307,
        tolerance=5e-6,
        reason="digits of the prediction",
    ),
    Claim(
        name="critical-variance",
        statement="erf, bias variance 0.3, at the critical weight variance: the fixed "
        "point q* of the variance",
        source=CRITICAL,
        known="derived",
        of="fixed_points",
        measure=lambda found: _root(found.variance),
        predicted=1.31182,
        tolerance=5e-6,
        reason="digits of the prediction",
    ),
    Claim(
        name="ordered-correlation",
        statement="ordered: one minus a correlation falls by χ₁ a layer: the rate over "
        "ln χ₁, at L = {last}",
        source="depth scale ξ = −1/ln χ",
        known="summary",
        of="matrices",
        measure=_rate_over("gap", "ordered", np.log(SLOPES["ordered"])),
        predicted=1.0,
        tolerance=0.01,
        reason="terms of relative order χ₁^L",
        figure="matrices",
    ),
    Claim(
        name="ordered-condition-number",
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
        name="critical-condition-number",
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
        name="relu-condition-number",
        statement="critical, ReLU: the condition number of m = {points} points tends "
        "to (m+3)/3: over it, at L = {far}",
        source="the limit 1/4 put into the matrix, derived here",
        known="derived",
        of="matrices",
        measure=_over_limit(RELU),
        predicted=1.0,
        tolerance=_twice_the_term,
        reason="twice the term of order ln L/L, 16/3 of (3/8) ln L/L",
        figure="matrices",
    ),
    Claim(
        name="chaotic-condition-number",
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
        name="chaotic-condition-number-at-30",
        statement="chaotic: the condition number of {points} points at L = 30",
        source=APART,
        known="derived",
        of="matrices",
        measure=_at_thirty("condition_number"),
        predicted=1.05,
        tolerance=0.005,
        reason="digits of the prediction",
        figure="matrices",
    ),
    Claim(
        name="chaotic-ntk-at-30",
        statement="chaotic: the mean normalised NTK off the diagonal, {points} points, "
        "at L = 30",
        source=APART,
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
        name="critical-ntk",
        statement="critical, smooth: the normalised NTK off the diagonal tends to 1/3: "
        "what it lacks at L = {far}",
        source="limit of the NTK",
        known="summary",
        of="approach",
        measure=_shortfall,
        predicted=0.0,
        tolerance=lambda found: np.log(found.attrs["far"]) / found.attrs["far"],
        reason="term of order ln L/L",
        figure="approach",
    ),
    Claim(
        name="critical-ntk-term",
        statement="critical, smooth: the normalised NTK off the diagonal is 1/3 − "
        "A ln L/L, A = 1/3 + 2/(9 C″), C the map of correlations, at 1: the slope of "
        "L times what the NTK lacks to 1/3 against ln L, up to L = {far}",
        source="second order of the recursion, derived here",
        known="derived",
        of="approach",
        measure=_coefficient,
        predicted=lambda found: found.attrs["coefficient"],
        tolerance=0.01,
        reason="terms of order ln² L/L at the depth before the last",
        figure="approach",
    ),
    Claim(
        name="ordered-prediction",
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
            name=f"{name}-prediction",
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
        for name, network, text in (
            ("critical", "critical", "smooth"),
            ("relu", RELU, "ReLU"),
        )
    ),
    Claim(
        name="chaotic-prediction",
        statement="chaotic: predictions of centred labels fall as L (χ_c/χ₁)^L: the "
        "rate of them over L, by ln(χ_c/χ₁), at L = {last}",
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
