"""What is claimed of the fluctuations, and how it is read off."""

import functools
import math

import numpy as np
import xarray as xr

from ntk_resnet.studies.ledger import Claim, exact, of_error, over_seeds

TABLE = {  # by depth 4, 8 and 16 at width 32, of networks that keep the input's norm
    "γ = 1/2": [1.18, 1.18, 1.16],
    "γ = 1": [1.11, 1.08, 1.07],
    "α = 1": [1.38, 1.75, 2.76],
}
SHORT = {"γ = 1/2": "half", "γ = 1": "one", "α = 1": "constant"}


def interval(values, errors, networks):
    """Values with standard errors by the delta method, of so many networks."""
    return of_error(values, errors, networks, "over networks")


def _moment(name, known):
    """A moment of networks over what is predicted, by depth."""

    def measure(found):
        truth = found[known].values if known else 1.0
        value, error = found[name].values, found[f"{name}_sem"].values
        return interval(value / truth, error / truth, found.attrs["networks"])

    return measure


def _tilted(found):
    ratio = found.share / found.predicted
    return over_seeds(ratio.transpose("network", "cell"), 0, "networks")


def change(found, family):
    """The dispersion at the last depth over that at the first."""
    one = found.sel(family=family)
    value, error = one.dispersion.values, one.dispersion_sem.values / one.dispersion
    ratio = value[-1] / value[0]
    wide = ratio * math.hypot(error[0], error[-1])
    return interval(ratio, wide, one.networks.values)


def _grows(family):
    return functools.partial(change, family=family)


def _of_table(family):
    """Over the table's number, times what the first layer of ours adds."""

    def measure(found):
        one = found.sel(family=family)
        known = xr.DataArray(TABLE[family], {"depth": [4, 8, 16]}, ["depth"])
        at = np.intersect1d(known.depth, one.depth)
        one, known = one.sel(depth=at), known.sel(depth=at)
        truth = (1 + 2 / found.attrs["width"]) * known.values
        value, error = one.dispersion.values, one.dispersion_sem.values
        return interval(value / truth, error / truth, one.networks.values)

    return measure


def _mean_over_formula(families):
    """The mean NTK of those, by depth, over the formula's."""

    def measure(found):
        one = found.sel(family=families)
        value, error = one.ntk_mean / one.formula, one.ntk_mean_sem / one.formula
        return interval(value.values, error.values, one.networks.values[:, None])

    return measure


def plain_change(found):
    return float(found.plain[-1] / found.plain[0])


def _exactly(values, depth):
    """Numbers of the exact recursion, whose steps round by a few eps each."""
    error = 16 * np.finfo(float).eps * depth * values
    return exact(values, error, "bound of the rounding of the recursion")


def _over_limit(found):
    ratio = (found.dispersion.isel(width=-1) / found.limit).values
    return _exactly(ratio, found.ratio.values * found.attrs["wide"])


MEAN = "mean of the NTK, our extension to residual networks"
RESIDUAL = "finite width and residual networks, our extension"

CLAIMS = [
    Claim(
        name="feature-dispersion",
        statement="plain ReLU networks, width {width}: E|h_L|⁴/(E|h_L|²)² = "
        "(1 + 5/m)^(L): the sampled over the predicted",
        source="moments of ReLU networks",
        known="summary",
        of="moments",
        measure=_moment("feature_dispersion", "predicted_feature_dispersion"),
        predicted=1.0,
        tolerance=0.05,
        reason="5 %, our own: what {networks} networks can tell",
    ),
    Claim(
        name="mean",
        statement="plain ReLU networks: the mean NTK on the diagonal is L + 1 at every "
        "width: the sampled over it, width {width}",
        source="mean of the NTK",
        known="summary",
        of="moments",
        measure=_moment("ntk_mean", ""),
        predicted=1.0,
        tolerance=0.03,
        reason="3 %, our own: what {networks} networks can tell",
    ),
    Claim(
        name="dispersion",
        statement="E Θ²/(E Θ)² of plain networks, L/m up to {ratio:g}: that of "
        "{networks} networks over the exact recursion",
        source="our recursion over the layers, at any width",
        known="derived",
        of="tilted",
        measure=_tilted,
        predicted=1.0,
        tolerance=0.08,
        reason="8 %, twice the interval that so many networks give",
        figure="dispersion",
    ),
    Claim(
        name="limit",
        statement="E Θ²/(E Θ)² of plain networks tends, as depth and width grow, to "
        "e^(5l) [1/3 + 2/(9l) − (1 − e^(−6l))/(27 l²)], l = L/m: the exact one at "
        "m = {wide} over it",
        source="our correction of the limit",
        known="derived",
        of="limit",
        measure=_over_limit,
        predicted=1.0,
        tolerance=lambda found: 20 * found.ratio.values / found.attrs["wide"] + 0.002,
        reason="terms of order 1/m and l/m",
        figure="limit",
    ),
    Claim(
        name="narrow",
        statement="E Θ²/(E Θ)² of plain networks at m = 32, L = 16 is far below the "
        "limit, 7.8: the exact one, where 10,000 networks had 5.9 ± 0.7",
        source="a sample of networks drawn as they are, before this study",
        known="derived",
        of="limit",
        measure=lambda found: _exactly(
            found.dispersion.sel(ratio=0.5, width=32).values, 16
        ),
        predicted=5.9,
        tolerance=0.7,
        reason="standard error of the sample",
        figure="limit",
    ),
    *(
        Claim(
            name=f"residual-flat-{SHORT[family]}",
            statement=f"residual networks, {family}, width {{width}}: E Θ²/(E Θ)² does "
            "not grow with depth: that at L = {deep} over that at {shallow}",
            source=RESIDUAL,
            known="derived",
            of="residual",
            measure=_grows(family),
            predicted=1.05,
            side="below",
            reason="our own bound: 5 %, where plain networks grow several times",
            figure="residual",
        )
        for family in ("γ = 1/2", "γ = 1")
    ),
    Claim(
        name="residual-grows",
        statement="residual networks, α = 1, width {width}: E Θ²/(E Θ)² grows with "
        "depth: that at L = {deep} over that at {shallow}",
        source=RESIDUAL,
        known="derived",
        of="residual",
        measure=_grows("α = 1"),
        predicted=1.3,
        side="above",
        reason="our own bound: 30 %",
        figure="residual",
    ),
    Claim(
        name="residual-below-plain",
        statement="residual networks, α = 1, width {width}: E Θ²/(E Θ)² grows more "
        "slowly than in plain networks: that at L = {deep} over that at {shallow}",
        source=RESIDUAL,
        known="derived",
        of="residual",
        measure=_grows("α = 1"),
        predicted=plain_change,
        side="below",
        reason="the exact one of plain networks",
        figure="residual",
    ),
    *(
        Claim(
            name=f"residual-value-{SHORT[family]}",
            statement=f"residual networks, {family}, width {{width}}: E Θ²/(E Θ)² at "
            f"L = 4, 8 and 16 over {', '.join(map(str, TABLE[family]))}, times 1 + 2/m "
            "for our first layer",
            source="samples of two-layer blocks in another code, to three digits",
            known="derived",
            of="residual",
            measure=_of_table(family),
            predicted=1.0,
            tolerance=tolerance,
            reason=reason,
            figure="residual",
        )
        for family, tolerance, reason in (
            ("γ = 1/2", 0.03, "3 %: three digits, and as few networks"),
            ("γ = 1", 0.03, "3 %: three digits, and as few networks"),
            ("α = 1", 0.15, "15 %: few networks hold much of the second moment"),
        )
    ),
    *(
        Claim(
            name=f"residual-mean-{name}",
            statement=f"the mean NTK of residual networks, {text}, is 2 L α² "
            "(1+α²)^(L−1) at every width: the sampled over it, width {width}",
            source=MEAN,
            known="derived",
            of="residual",
            measure=_mean_over_formula(families),
            predicted=1.0,
            tolerance=0.04,
            reason="4 %, our own: what so many networks can tell",
        )
        for name, text, families in (
            ("scaled", "γ = 1/2 and 1", ["γ = 1/2", "γ = 1"]),
            ("constant", "α = 1", ["α = 1"]),
        )
    ),
    Claim(
        name="phase-ordered",
        statement="plain networks of the error function, ordered (χ₁ = {ordered:.2f}), "
        "width {width}: E Θ²/(E Θ)² does not grow with depth: that at L = {deep} over "
        "that at {shallow}",
        source="Seleznova & Kutyniok 2022, ordered phase",
        known="summary",
        of="phases",
        measure=_grows("ordered"),
        predicted=1.05,
        side="below",
        reason="our own bound: 5 %, where plain ReLU networks grow several times",
    ),
    Claim(
        name="phase-chaotic",
        statement="plain networks of the error function, chaotic (χ₁ = {chaotic:.2f}), "
        "width {width}: E Θ²/(E Θ)² grows with depth: that at L = {deep} over that at "
        "{shallow}",
        source="Seleznova & Kutyniok 2022, chaotic phase",
        known="summary",
        of="phases",
        measure=_grows("chaotic"),
        predicted=1.3,
        side="above",
        reason="our own bound: 30 %",
    ),
]
