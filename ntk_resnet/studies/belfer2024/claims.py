"""What the paper says of them, and how it is read off."""

import numpy as np

from ntk_resnet.studies.belfer2024.measurements import CIRCLE, FIT, RATIOS
from ntk_resnet.studies.ledger import Claim, Measured, exact, fitted

# At degrees of 40 and more the first ones have reached their power; of the others one
# is deeper than that, and in the other the odd degrees are still catching up.
_SOON = ["plain, L = 3", "γ = 1/2, L = 100", "α = 1, L = 10"]
_LATE = ["plain, L = 100", "γ = 1, L = 100"]


def _exponents(found, families):
    one = found.sel(family=families).transpose(..., "dim")
    return fitted(one, "exponent")


def _over_laplace(found):
    """Eigenvalues over the Laplace kernel's, at the last degree over half of it."""
    logs = found.log10_eigenvalue - found.laplace_log10_eigenvalue
    last = found.attrs["far"]
    both = [
        logs.sel(degree=at) - logs.sel(degree=at // 2 // 2 * 2 + at % 2)
        for at in (last, last - 1)
    ]
    return exact(10 ** np.array(both), 1e-9)


def _ratio_of(name):
    return lambda found: exact(found.ratio.sel(family=name), 1e-12)


def _circle_of(name):
    known = CIRCLE[name][1]
    return lambda found: exact(found.circle.sel(scale=name) / known, 1e-12)


def _product(found):
    """Steps times eigenvalue, over what a mode alone would take."""
    rate = found.attrs["rate"] * found.attrs["points"]
    alone = np.log(20) / -np.log1p(-rate * found.eigenvalue)
    steps = found.steps.values
    return Measured(steps / alone, (steps - 1) / alone, steps / alone, "whole steps")


CLAIMS = [
    Claim(
        name="8a",
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
        name="8a",
        statement="the same at the same degrees of a plain network of L = 100, and of "
        "a residual one, γ = 1, L = 100",
        source="theorem on the decay of eigenvalues",
        known="summary",
        of="decay",
        measure=lambda found: _exponents(found, _LATE),
        predicted=lambda found: -found.dim.values,
        tolerance=0.02,
        reason="as above; the theorem is about large degrees, not said how large",
        figure="decay",
    ),
    Claim(
        name="8a",
        statement="all networks, plain L = 100 too, once degrees are far beyond depth: "
        "exponent over even degrees up to {far}, d = 3",
        source="theorem on the decay of eigenvalues",
        known="summary",
        of="decay",
        measure=lambda found: fitted(found, "far_exponent"),
        predicted=-3.0,
        tolerance=0.02,
        reason="terms of relative order L/k",
        figure="decay",
    ),
    Claim(
        name="8e",
        statement="eigenvalues over those of the Laplace kernel tend to a constant, "
        "for each parity: ratio at degree {far} over that at half of it, d = 3",
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
        name="8b",
        statement="1 − NTK = c θ/π at small angles, c = L/2 and (L+1)/2 for plain "
        "networks, (1 + a (L−1))/2 with a = α²/(1+α²) for residual ones: c measured "
        "over predicted",
        source="spikiness with depth",
        known="derived",
        of="small_angles",
        measure=lambda found: exact(found.steepness / found.predicted, 1e-9),
        predicted=1.0,
        tolerance=1e-3,
        reason="next term of relative order c θ, at θ = {theta:g}",
        figure="small_angles",
    ),
    Claim(
        name="8b",
        statement="γ = 1/2: the NTK falls like c (π − θ)/π from antipodes, c the "
        "product of (1 + α² κ₀)/(1 + α²) over 2L: c measured over predicted",
        source="spikiness with depth",
        known="derived",
        of="small_angles",
        measure=lambda found: exact(found.antipode / found.predicted_antipode, 1e-7),
        predicted=1.0,
        tolerance=1e-3,
        reason="next term of relative order c (π − θ)",
    ),
    Claim(
        name="8c",
        statement="one block: eigenvalues of odd degree from 3 on are 0: the largest "
        "over the even one before, d = 3",
        source="parity without bias",
        known="summary",
        of="parity",
        measure=lambda found: exact(found.single, 1e-15),
        predicted=0.0,
        tolerance=1e-12,
        reason="exact; rounding of the quadrature",
        figure="parity",
    ),
    *(
        Claim(
            name="8c",
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
        for name, (_, ratio) in RATIOS.items()
    ),
    *(
        Claim(
            name="8c",
            statement=f"{name}: eigenvalues of degrees 2 to 7 on the circle, "
            "L = {depth}, over the values computed independently",
            source="parity imbalance and its removal at γ = 1/2",
            known="derived",
            of="parity",
            measure=_circle_of(name),
            predicted=1.0,
            tolerance=0.02,
            reason="2 %: the prediction has two or three digits",
            figure="parity",
        )
        for name in CIRCLE
    ),
    Claim(
        name="8d",
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
        name="8d",
        statement="odd frequencies take longer than the next even ones: steps of k "
        "over those of k + 1, odd k ≥ 3, the least",
        source="experiment on the circle, depth 50, α = 1/50",
        known="summary",
        of="descent",
        measure=lambda found: exact(_odd_over_even(found).min(), 0.01),
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
