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
        bietti2021.STUDY,
        eigenvalues={"dims": [3], "depths": [1, 3], "degree": 80},
        steps={"depths": [1, 3]},
    )
    return ledger_checks.run(study)


def test_wrong_predictions_fail(one):
    assert all(entry.verdict == HOLDS for entry in one.entries)
    ledger_checks.check_wrong_predictions_fail(one, share=0.1)


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def claim_of(name):
    return next(c for c in bietti2021.CLAIMS if c.name == name)


def test_constants_of_another_depth_fail(one):
    found = one.results["eigenvalues"].copy(deep=True)
    found["predicted_near"] = found.predicted_near.roll(depth=1)
    for name in ("nngp-near", "ntk-near"):
        assert judge("", claim_of(name), found, 0.0).verdict == FAILS


def test_a_power_that_depth_does_not_change_fails(one):
    found = one.results["steps"].copy(deep=True)
    for end in ("", "_low", "_high"):
        found[f"power{end}"][:] = 0.5
    assert judge("", claim_of("step"), found, 0.0).verdict == FAILS


def test_a_spectrum_of_noise_settles_no_exponent(one):
    rng = np.random.default_rng(0)
    spectrum = nr.mercer(nr.FeedForward(depth=3), dim=3, max_degree=80, get="nngp")
    noise = spectrum.log10_eigenvalue + rng.normal(size=spectrum.degree.size)
    fit = bietti2021._fit(noise, 3, 0)
    found = one.results["eigenvalues"].copy(deep=True)
    for end, value in zip(("", "_low", "_high"), fit, strict=True):
        found[f"even{end}"][:] = value
    assert judge("", claim_of("nngp-even"), found, 0.0).verdict == INCONCLUSIVE


def test_fits_are_of_one_parity_in_the_second_half_of_degrees():
    k = np.arange(41)
    power = np.where(k % 2 == 0, -3.0, -2.0)
    logs = power * np.log10(k + 0.5) + np.where(k < 20, 5.0, 0.0)
    logs = ledger_checks.dataset({"y": ("degree", logs)}, {"degree": k}).y
    np.testing.assert_allclose(bietti2021._fit(logs, 3, 0), -3, rtol=1e-12)
    np.testing.assert_allclose(bietti2021._fit(logs, 3, 1), -2, rtol=1e-12)
    assert np.isnan(bietti2021._fit(logs.where(k % 2 == 0, -np.inf), 3, 1)).all()


def test_step_kernels_are_compositions_of_one():
    """1 - angle/pi, the angle that of the layer before; gaps to a few eps absolute."""
    angles = np.geomspace(1e-2, 1, 6)
    found = bietti2021.steps(depths=[2], angles=list(angles))
    own = np.arccos(1 - angles / np.pi) / np.pi
    eps = np.finfo(float).eps
    np.testing.assert_allclose(found.gap.values[0], own, rtol=16 * eps / angles[0] ** 2)


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
