"""What shortcuts of each length do to the Hessian and to training."""

import numpy as np

from ntk_resnet.studies.ledger import Claim, Measured, exact, over_seeds

EPS = float(np.finfo(float).eps)
ZERO = "Hessian at the zero initial point"


def _of(name, share=1e4):
    """A number of eigenvalues, to their rounding."""

    def measure(found):
        values = found[name].values
        return exact(values, share * EPS * np.abs(values), "bound of the rounding")

    return measure


def _over(name, known):
    def measure(found):
        ratio = (found[name] / found[known]).values
        return exact(ratio, 1e4 * EPS * ratio, "bound of the rounding")

    return measure


def _spread(found):
    """Loss at the worst depth over that at the best, each seed by itself."""
    one = found.loss.sel(setup="shortcuts of 2, small").transpose("seed", "depth")
    return over_seeds(one.max("depth") / one.min("depth"), 0)


def _against(setup):
    """Loss of another setup over that of shortcuts of two, at the largest depth."""

    def measure(found):
        deep = found.loss.isel(depth=-1)
        return over_seeds(deep.sel(setup=setup) / deep.sel(setup=TWO), 0)

    return measure


TWO = "shortcuts of 2, small"


def _rate_slope(setup):
    """The power of depth by which the best rate changes, of each seed.

    The best one is known to half a step of the grid at either end of the depths.
    """

    def measure(found):
        rate = found.rate.sel(setup=setup).transpose("seed", "depth").values
        logs = np.log(found.depth.values)
        keep = logs >= np.log(4)  # from where the units' sum is what limits the rate
        slopes = np.polyfit(logs[keep], np.log(rate[:, keep]).T, 1)[0]
        value, low, high, what = over_seeds(slopes, 0)
        step = np.diff(np.log(found.tried.values)).max() / np.ptp(logs[keep])
        return Measured(value, low - step, high + step, f"{what}, and the grid")

    return measure


def _plateau_power(found):
    """The power of 1/scale in the time on the plateau, shortcuts of three."""
    time = found.time.sel(length=3).transpose("scale", "seed").values
    logs = -np.log(found.scale.values)
    return over_seeds(np.polyfit(logs, np.log(time), 1)[0], 0)


def _plateau_slope(found):
    """d time / d ln(1/scale) times s, shortcuts of two."""
    time = found.time.sel(length=2).transpose("scale", "seed").values
    logs = -np.log(found.scale.values)
    return over_seeds(np.polyfit(logs, time, 1)[0] * found.attrs["s"], 0)


CLAIMS = [
    Claim(
        name="2a",
        statement="linear units, shortcuts of two matrices, zero weights: eigenvalues "
        "of the Hessian are ±sᵢ(D), D = Σxx − Σxy, each d times a unit: largest "
        "distance over the largest, 1 to {most} units, d = {d}",
        source=ZERO,
        known="derived",
        of="at_zero",
        measure=lambda found: exact(
            found.error.values, 1e3 * EPS, "bound of the rounding"
        ),
        predicted=0.0,
        tolerance=1e-10,
        reason="eigenvalues in float64",
        figure="at_zero",
    ),
    Claim(
        name="2a-condition",
        statement="shortcuts of two: the condition number at zero weights does not "
        "depend on the depth: that of 1 to {most} units over s_max/s_min of D",
        source="theorem on shortcuts of length two",
        known="summary",
        of="at_zero",
        measure=_over("condition_number", "predicted_condition_number"),
        predicted=1.0,
        tolerance=1e-9,
        reason="eigenvalues in float64",
        figure="at_zero",
    ),
    Claim(
        name="2b",
        statement="shortcuts of two: half of the eigenvalues at zero weights are "
        "negative, a strict saddle: their share",
        source=ZERO,
        known="derived",
        of="at_zero",
        measure=lambda found: exact(found.negative_share.values, 0.0, "counted"),
        predicted=0.5,
        tolerance=1e-12,
        reason="a count",
    ),
    Claim(
        name="2c",
        statement="shortcuts of three and of four: the Hessian at zero weights "
        "vanishes: its largest entry",
        source="theorem on shortcuts of length three and more",
        known="summary",
        of="at_zero",
        measure=lambda found: exact(found.longer.values, EPS, "bound of the rounding"),
        predicted=1e-8,
        side="below",
        reason="rounding of entries of order one",
    ),
    Claim(
        name="2d",
        statement="shortcuts of one number: the condition number at zero weights is "
        "max(|R(v + D) − D|, |D|)/|D|, to R = {most} units: measured over it",
        source=ZERO,
        known="derived",
        of="one_number",
        measure=_over("condition_number", "predicted"),
        predicted=1.0,
        tolerance=1e-6,
        reason="eigenvalues in float64, the smallest a few hundredths of the largest",
        figure="at_zero",
    ),
    Claim(
        name="2d-growth",
        statement="shortcuts of one matrix, diagonal covariances: the condition number "
        "at zero weights grows at least like that of the diagonal entries, linearly in "
        "R: measured over max|R(v + D) − D|/min|D|, to R = {most}",
        source="theorem on shortcuts of length one",
        known="summary",
        of="at_zero",
        measure=_over("single", "single_bound"),
        predicted=1.0 - 1e-9,
        side="above",
        reason="the diagonal's eigenvalues are among all",
        figure="at_zero",
    ),
    Claim(
        name="2e",
        statement="units with ReLU in front and tanh inside and after, shortcuts of "
        "two: the condition number at zero weights is s_max/s_min of E relu(x)(x − "
        "y)ᵀ, 1 to {most} units: measured over it",
        source="theorem on activations",
        known="derived",
        of="activations",
        measure=_over("condition_number", "predicted"),
        predicted=1.0,
        tolerance=1e-9,
        reason="eigenvalues in float64",
    ),
    Claim(
        name="2f",
        statement="linear networks, small initial weights, shortcuts of two: the loss "
        "after {steps} steps at the best rate hardly depends on the depth: worst over "
        "best of {shallow} to {deepest} units",
        source="experiments: shortcuts of two and small weights train at any depth",
        known="summary",
        of="trainability",
        measure=_spread,
        predicted=1.2,
        side="below",
        reason="20 %, ours",
        figure="training",
    ),
    Claim(
        name="2f-xavier",
        statement="plain networks from Xavier's weights train worse at depth: loss at "
        "{deepest} layers over that of shortcuts of two, small weights, both at their "
        "best rates",
        source="experiments: shortcuts of two beat Xavier's weights",
        known="summary",
        of="trainability",
        measure=_against("plain, Xavier"),
        predicted=1.2,
        side="above",
        reason="20 %, ours",
        figure="training",
    ),
    Claim(
        name="2f-orthogonal",
        statement="plain networks from orthogonal weights train worse at depth: loss "
        "at {deepest} layers over that of shortcuts of two, small weights",
        source="experiments: shortcuts of two beat orthogonal weights",
        known="summary",
        of="trainability",
        measure=_against("plain, orthogonal"),
        predicted=1.2,
        side="above",
        reason="20 %, ours",
        figure="training",
    ),
    Claim(
        name="2f-single",
        statement="shortcuts of one, small weights, train worse at depth: loss at "
        "{deepest} units over that of shortcuts of two",
        source="experiments: shortcuts of two beat other lengths",
        known="summary",
        of="trainability",
        measure=_against("shortcuts of 1, small"),
        predicted=1.2,
        side="above",
        reason="20 %, ours",
        figure="training",
    ),
    Claim(
        name="2f-rate",
        statement="shortcuts of one, small weights: the best rate falls like 1/R: "
        "power of R, 4 to {deepest} units",
        source="λ_max ≈ R(v + D), our expansion",
        known="derived",
        of="trainability",
        measure=_rate_slope("shortcuts of 1, small"),
        predicted=-1.0,
        tolerance=0.5,
        reason="ours: no rate of its own at all depths, 0, is twice as far off",
        figure="training",
    ),
    Claim(
        name="2f-plateau",
        statement="shortcuts of three: the time on the initial plateau grows like one "
        "over the size of the initial weights: power",
        source="ẇ = s w², our expansion",
        known="derived",
        of="plateaus",
        measure=_plateau_power,
        predicted=1.0,
        tolerance=0.2,
        reason="20 %, ours: scales are not small throughout",
        figure="plateaus",
    ),
    Claim(
        name="2f-escape",
        statement="shortcuts of two: the time on the initial plateau grows like "
        "ln(1/scale)/s: s dt/d ln(1/scale)",
        source="amplitudes grow as e^(st), our expansion",
        known="derived",
        of="plateaus",
        measure=_plateau_slope,
        predicted=1.0,
        tolerance=0.2,
        reason="20 %, ours: scales are not small throughout",
        figure="plateaus",
    ),
    Claim(
        name="hessian-along",
        statement="shortcuts of two, {units} units: while training the saddle is left: "
        "size of the most negative eigenvalue over the largest, at the end",
        source="experiments on the Hessian along training",
        known="summary",
        of="along",
        measure=lambda found: exact(
            found.negative.sel(length=2).values[-1], 1e-6, "bound of the rounding"
        ),
        predicted=0.01,
        side="below",
        reason="ours: it starts at one",
        figure="along",
    ),
]
