"""The study of Bietti & Bach: its measurements, and that its verdicts can fail."""

import math

import ledger_checks
import numpy as np
import pytest
from scipy import integrate, special

import ntk_resnet as nr
from ntk_resnet.studies import bietti2021
from ntk_resnet.studies.bietti2021 import NNGP, NTK, RESIDUAL
from ntk_resnet.studies.ledger import FAILS, HOLDS, INCONCLUSIVE, judge


@pytest.fixture(scope="module")
def one():
    study = ledger_checks.small(
        bietti2021.STUDY, eigenvalues={"dims": [3], "depths": [1, 3], "degree": 80}
    )
    return ledger_checks.run(study)


def test_wrong_predictions_fail(one):
    assert all(entry.verdict == HOLDS for entry in one.entries)
    ledger_checks.check_wrong_predictions_fail(one, share=0.1)


def test_constants_of_another_depth_fail(one):
    claim = next(c for c in bietti2021.CLAIMS if "c₁ of NNGP" in c.statement)
    found = one.results["eigenvalues"].copy(deep=True)
    found["predicted_near"] = found.predicted_near.roll(depth=1)
    assert judge("", claim, found, 0.0).verdict == FAILS


def test_a_spectrum_of_noise_settles_no_exponent(one):
    rng = np.random.default_rng(0)
    spectrum = nr.mercer(nr.FeedForward(depth=3), dim=3, max_degree=80, get="nngp")
    noise = spectrum.log10_eigenvalue + rng.normal(size=spectrum.degree.size)
    fit = bietti2021._fit(spectrum.assign(log10_eigenvalue=noise), "even")
    found = one.results["eigenvalues"].copy(deep=True)
    for end, value in zip(("", "_low", "_high"), fit, strict=True):
        found[f"even{end}"][:] = value
    claim = next(c for c in bietti2021.CLAIMS if "NNGP kernels fall" in c.statement)
    assert judge("", claim, found, 0.0).verdict == INCONCLUSIVE


@pytest.mark.parametrize("nu", [0.5, 1.5])
def test_unit_constant_against_a_quadrature(nu):
    """In three dimensions, with Legendre polynomials: the exact quotient."""
    k = 30
    value, _ = integrate.quad(
        lambda s: special.eval_legendre(k, 1 - s**2) * s ** (2 * nu + 1),
        0,
        math.sqrt(2),
        limit=400,
        epsabs=1e-14,
    )  # with 1 - u = s^2, and du/2 = s ds
    quotient = math.exp(math.lgamma(k - nu) - math.lgamma(k + nu + 2))
    assert value == pytest.approx(bietti2021.unit_constant(3, nu) * quotient, rel=1e-5)
    assert quotient == pytest.approx((k + 0.5) ** (-2 - 2 * nu), rel=6 / k**2)


def kernels(u, depth, share=1.0):
    """NNGP and NTK (not normalised) by the textbook recursion."""
    rho, theta = u, u
    for _ in range(depth):
        angle = np.arccos(np.clip(rho, -1, 1))
        kappa0 = 1 - angle / np.pi
        kappa1 = rho * kappa0 + np.sin(angle) / np.pi
        rho = rho + share * (kappa1 - rho)
        theta = kappa1 + kappa0 * theta
    return rho, theta


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_predicted_constants_are_those_of_the_kernels(depth):
    """By differences that leave the singular term: up to a relative sqrt(t)."""
    t = 1e-6
    for name, share in ((NNGP, 1.0), (RESIDUAL, 1 / (depth + 1))):
        near, far = bietti2021._predicted(name, depth)
        for sign, constant in ((1, near), (-1, far)):
            end, once, more = (
                kernels(sign * (1 - s), depth, share)[0] for s in (0, t, 4 * t)
            )
            singular = -(once - end - (more - end) / 4) / t**1.5
            assert singular == pytest.approx(constant, rel=0.01)
    near, far = bietti2021._predicted(NTK, depth)
    for sign, constant in ((1, near), (-1, far)):
        end, once = (kernels(sign * (1 - s), depth)[1] for s in (0, 1e-10))
        assert (once - end) / 1e-5 == pytest.approx(constant, rel=0.01)


def test_constants_from_degrees_of_either_parity():
    k = np.arange(9)
    scaled = np.where(k % 2 == 0, 5.0, 3.0)
    assert bietti2021._constants(scaled) == (4, 1)
    assert bietti2021._constants(scaled[:-1]) == (4, 1)
