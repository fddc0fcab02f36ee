"""What the paper says of them, and how it is read off."""

import numpy as np

from ntk_resnet.studies.belfer2024.measurements import CIRCLE, FIT, ODD, RATIOS
from ntk_resnet.studies.ledger import BOTH_HALVES, Claim, Measured, exact, fitted

EPS = np.finfo(float).eps
ROUNDING = "bound of the rounding"

# Eigenvalues are right to 1e-14, and so are powers of their logarithms nearly.
SPECTRUM = 1e-12
# At degrees of 40 and more the first ones have reached their power; of the others one
# is deeper than that, and in the other the odd degrees are still catching up.
_SOON = ["plain, L = 3", "γ = 1/2, L = 100", "α = 1, L = 10"]
_LATE = ["plain, L = 100", "γ = 1, L = 100"]


def _exponents(found, families):
    one = found.sel(family=families).transpose(..., "dim")
    return fitted(one, "exponent", BOTH_HALVES)


def _over_laplace(found):
    """Eigenvalues over the Laplace kernel's, at the last degree over half of it."""
    logs = found.log10_eigenvalue - found.laplace_log10_eigenvalue
    last = found.attrs["far"]
    both = [
        logs.sel(degree=at) - logs.sel(degree=at // 2 // 2 * 2 + at % 2)
        for at in (last, last - 1)
    ]
    return exact(10 ** np.array(both), SPECTRUM, ROUNDING)


def _ratio_of(name):
    return lambda found: exact(found.ratio.sel(family=name), SPECTRUM, ROUNDING)


def _circle_of(name):
    known = CIRCLE[name][1]
    return lambda found: exact(found.circle.sel(scale=name) / known, SPECTRUM, ROUNDING)


def _antipode(found):
    """Differences of the NTK over a small angle, each right to L eps."""
    error = 4 * np.pi * EPS * found.depth / (found.attrs["theta"] * found.antipode)
    ratio = found.antipode / found.predicted_antipode
    return exact(ratio, (error * ratio).values, ROUNDING)


def _of_circle(name):
    return lambda found: exact(found[name], 1e-12, ROUNDING)


def _product(found):
    """Steps times eigenvalue, over what a mode alone would take."""
    rate = found.attrs["rate"] * found.attrs["points"]
    alone = np.log(20) / -np.log1p(-rate * found.eigenvalue)
    steps = found.steps.values
    return Measured(steps / alone, (steps - 1) / alone, steps / alone, "whole steps")


CLAIMS = [
    Claim(
        name="8a-soon",
        statement="eigenvalues on the sphere in d dimensions fall like "
        f"(k + (d−2)/2)^(−d), even degrees {FIT} to {{degree}}: exponent, plain L = 3, "
        "γ = 1/2 and α = 1",
        source="theorem on the decay of eigenvalues",
        known="summary",
        of="decay",
        measure=lambda found: _exponents(found, _SOON),
        predicted=lambda found: -found.dim.values,
        tolerance=0.02,
        reason="terms of order 1/k² at the first degree",
        figure="decay",
    ),
    Claim(
        name="8a-late",
        statement="eigenvalues on the sphere in d dimensions fall like "
        f"(k + (d−2)/2)^(−d), even degrees {FIT} to {{degree}}: exponent, plain "
        "L = 100, and residual γ = 1, L = 100",
        source="theorem on the decay of eigenvalues",
        known="summary",
        of="decay",
        measure=lambda found: _exponents(found, _LATE),
        predicted=lambda found: -found.dim.values,
        tolerance=0.02,
        reason="terms of order 1/k² at the first degree; the theorem is about large "
        "degrees, not said how large",
        figure="decay",
    ),
    Claim(
        name="8a-far",
        statement="eigenvalues of all networks fall by the power −3 in d = 3 once "
        "degrees are far beyond depth: exponent over even degrees, half of {far} to "
        "{far}",
        source="theorem on the decay of eigenvalues",
        known="summary",
        of="decay",
        measure=lambda found: fitted(found, "far_exponent", BOTH_HALVES),
        predicted=-3.0,
        tolerance=0.02,
        reason="terms of relative order L/k",
        figure="decay",
    ),
    Claim(
        name="8e-residual",
        statement="eigenvalues over those of the Laplace kernel tend to a constant, "
        "for each parity: ratio at degree {far} over that at half of it, d = 3, all "
        "networks",
        source="the same spaces of functions as for the Laplace kernel",
        known="summary",
        of="decay",
        measure=_over_laplace,
        predicted=1.0,
        tolerance=0.02,
        reason="terms of relative order L/k",
        figure="decay",
    ),
    Claim(
        name="8e-bias",
        statement="plain networks with bias have both parities: exponents over even "
        f"and over odd degrees, {FIT} to {{degree}}, L = {{depth}}, bias variance "
        "{variance}, d = 3",
        source="Geifman et al. 2020: the power −d, as of the Laplace kernel",
        known="summary",
        of="bias",
        measure=lambda found: fitted(found, "exponent", BOTH_HALVES),
        predicted=-3.0,
        tolerance=0.02,
        reason="terms of order 1/k² at the first degree",
    ),
    Claim(
        name="8e-laplace",
        statement=f"the Laplace kernel's eigenvalues: exponents over degrees {FIT} to "
        "{degree}, even and odd, d = 3",
        source="Geifman et al. 2020: the power −d",
        known="summary",
        of="bias",
        measure=lambda found: fitted(found, "laplace", BOTH_HALVES),
        predicted=-3.0,
        tolerance=0.02,
        reason="terms of order 1/k² at the first degree",
    ),
    Claim(
        name="8e-bias-laplace",
        statement="plain network with bias, L = {depth}: eigenvalue over the Laplace "
        "kernel's, at degree {degree} over that at half of it, each parity, d = 3",
        source="Geifman et al. 2020: the same space of functions as for the Laplace "
        "kernel",
        known="summary",
        of="bias",
        measure=lambda found: exact(found.ratio, SPECTRUM, ROUNDING),
        predicted=1.0,
        tolerance=0.02,
        reason="terms of order 1/k² at half of the degree",
    ),
    Claim(
        name="8b-small-angles",
        statement="1 − NTK = c θ/π at small angles, c = L/2 and (L+1)/2 for plain "
        "networks, (1 + a (L−1))/2 with a = α²/(1+α²) for residual ones: c measured "
        "over predicted",
        source="spikiness with depth",
        known="derived",
        of="small_angles",
        measure=lambda found: exact(
            found.steepness / found.predicted, 4 * EPS * found.depth.values, ROUNDING
        ),
        predicted=1.0,
        tolerance=1e-3,
        reason="next term of relative order c θ, at θ = {theta:g}",
        figure="small_angles",
    ),
    Claim(
        name="8b-antipodes",
        statement="γ = 1/2: the NTK falls like c (π − θ)/π from antipodes, c the "
        "product of (1 + α² κ₀)/(1 + α²) over 2L: c measured over predicted",
        source="spikiness with depth",
        known="derived",
        of="small_angles",
        measure=_antipode,
        predicted=1.0,
        tolerance=1e-3,
        reason="next term of relative order c (π − θ)",
    ),
    Claim(
        name="8c-one-block",
        statement="one block: eigenvalues of odd degree from 3 on are 0: the largest "
        "over the even one before, d = 3",
        source="parity without bias",
        known="summary",
        of="parity",
        measure=lambda found: exact(found.single, EPS, ROUNDING),
        predicted=0.0,
        tolerance=1e-12,
        reason="exact; rounding of the quadrature",
        figure="parity",
    ),
    *(
        Claim(
            name=f"8c-ratio-{gamma:g}",
            statement=f"{name}: the eigenvalue of degree 3 over that of degree 2, "
            "d = 3, L = {depth}",
            source="parity imbalance and its removal at γ = 1/2",
            known="derived",
            of="parity",
            measure=_ratio_of(name),
            predicted=ratio,
            tolerance=0.02 * ratio,
            reason="2 %: the prediction has two or three digits",
            figure="parity",
        )
        for name, (gamma, ratio) in RATIOS.items()
    ),
    *(
        Claim(
            name=f"8c-circle-{gamma:g}",
            statement=f"{name}: eigenvalues of degrees 2 to 7 on the circle, "
            "L = {depth}, over the values noted before",
            source="parity imbalance and its removal at γ = 1/2",
            known="derived",
            of="parity",
            measure=_circle_of(name),
            predicted=1.0,
            tolerance=0.02,
            reason="2 %: the prediction has two or three digits",
            figure="parity",
        )
        for name, (gamma, _) in CIRCLE.items()
    ),
    Claim(
        name="8c-coefficients",
        statement="residual networks, small T = Σα²: odd eigenvalues are T times the "
        "coefficients of D, the kernel's change with T: degrees 3, 5, 7, d = 3, over T "
        "(1 − 1/L), T = 1e-8",
        source="first order in T of the kernel, derived here",
        known="derived",
        of="imbalance",
        measure=lambda found: exact(
            found.coefficient, SPECTRUM * found.coefficient.values, ROUNDING
        ),
        predicted=lambda _: list(ODD.values()),
        tolerance=lambda _: [0.005 * value for value in ODD.values()],
        reason="three digits of the prediction, and terms that vanish with T, slowly "
        "as D is singular at −1",
        figure="parity",
    ),
    Claim(
        name="8c-crossing",
        statement="residual networks, L = {depth}: odd degrees lag up to a degree like "
        "1/(α√L): where they reach half of the even eigenvalue before, T = 1/800 over "
        "T = 1/200, d = 3",
        source="imbalance for k ≲ 1/(α√L), derived here",
        known="derived",
        of="imbalance",
        measure=lambda found: exact(
            found.half[1] / found.half[0],
            2 / found.half.values[0],
            "bound of the interpolation: between odd degrees",
        ),
        predicted=2.0,
        tolerance=0.2,
        reason="terms of relative order √T, and odd degrees are two apart",
        figure="parity",
    ),
    Claim(
        name="8c-beyond",
        statement="residual networks, L = {depth}: beyond 1/(α√L) both parities have "
        "nearly equal eigenvalues: odd over the even one before at ten times that, "
        "d = 3, T = 1/200 and 1/800",
        source="imbalance for k ≲ 1/(α√L), derived here",
        known="derived",
        of="imbalance",
        measure=lambda found: exact(found.beyond, SPECTRUM, ROUNDING),
        predicted=0.8,
        side="above",
        reason="our own bound, of 0.96 at the largest degrees",
        figure="parity",
    ),
    Claim(
        name="8c-level",
        statement="on the circle π²k²μ_k is c ± c₋ for even and odd degrees: c by "
        "degrees 200 and 201, c = (1 + 9a)/2 of a residual network, γ = 1/2, L = 10, "
        "and 1/2 of one layer",
        source="kinks of the kernel at both ends, derived here",
        known="derived",
        of="imbalance",
        measure=_of_circle("level"),
        predicted=lambda _: [(1 + 9 / 11) / 2, 0.5],
        tolerance=1e-3,
        reason="terms of relative order L/k²",
    ),
    Claim(
        name="8c-split",
        statement="on the circle π²k²μ_k is c ± c₋ for even and odd degrees: c₋ by "
        "degrees 200 and 201, of a residual network, γ = 1/2, L = 10, and of one layer",
        source="kinks of the kernel at both ends, derived here",
        known="derived",
        of="imbalance",
        measure=_of_circle("split"),
        predicted=lambda _: [0.027119, 0.5],
        tolerance=lambda _: [1e-3 * 0.027119, 1e-3],
        reason="terms of relative order L/k²",
    ),
    Claim(
        name="8d-steps",
        statement="gradient descent on the circle, residual, L = {depth}, "
        "α = 1/{depth}: steps to fit cos(kθ) over those of the eigenvalue μ_k alone",
        source="experiment on the circle, depth 50, α = 1/50",
        known="summary",
        of="descent",
        measure=_product,
        predicted=1.0,
        tolerance=0.05,
        reason="frequencies that {points} points do not tell apart",
        figure="descent",
    ),
    Claim(
        name="8d-odd",
        statement="gradient descent on the circle: odd frequencies take longer than "
        "the next even ones: steps of k over those of k + 1, odd k ≥ 3",
        source="experiment on the circle, depth 50, α = 1/50",
        known="summary",
        of="descent",
        measure=lambda found: exact(_odd_over_even(found), 0, "whole steps"),
        predicted=2.0,
        side="above",
        reason="our own bound: twice as long",
        figure="descent",
    ),
]


def _odd_over_even(found):
    steps = found.steps
    odd = [k for k in found.frequency.values[:-1] if k % 2 and k >= 3]
    return steps.sel(frequency=odd).values / steps.sel(frequency=np.add(odd, 1)).values
