"""The study of Tian and Yu: its measurements, and that its verdicts can fail."""

import jax
import jax.numpy as jnp
import ledger_checks
import numpy as np
import pytest
from flax import nnx

import ntk_resnet as nr
from ntk_resnet.studies import tian2024
from ntk_resnet.studies.study import NotRun
from ntk_resnet.studies.tian2024 import kernels, networks


@pytest.fixture(scope="module")
def one():
    study = ledger_checks.small(
        tian2024.STUDY,
        depths={"points": 30, "test": 200, "depths": [1, 10_000, 10**10], "seeds": 5},
        curve={"sizes": [20, 40, 80], "test": 200, "seeds": 6},
        interpolation={"points": 30, "depth": 1, "test": 100, "seeds": 80},
        networks={
            "depth": 2,
            "width": 16,
            "train": 30,
            "test": 50,
            "steps": 4,
            "every": 2,
            "seeds": 2,
        },
    )
    return ledger_checks.run(study)


def one_block(x1, x2):
    """The NTK of one block, normalised."""
    u = np.clip(x1 @ x2.T / kernels.DIM, -1, 1)
    theta = np.arccos(u)
    kappa0 = 1 - theta / np.pi
    return (u * kappa0 + (u * (np.pi - theta) + np.sin(theta)) / np.pi) / 2


def errors_by_hand(x, y, x_test, y_test):
    """Test errors of gradient flow at all times, in the kernel's own basis."""
    values, vectors = np.linalg.eigh(one_block(x, x))
    learned = -np.expm1(-np.outer(kernels.TIMES[1:-1], values) / len(y))
    modes = learned / values * (vectors.T @ y)
    outputs = modes @ (one_block(x_test, x) @ vectors).T
    return np.mean((outputs - y_test) ** 2, 1)


def test_wrong_predictions_fail(one):
    ledger_checks.check_wrong_predictions_fail(one)


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def test_networks_are_larger_on_an_accelerator(monkeypatch):
    own = networks.full_sizes()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    larger = networks.full_sizes()
    assert own.keys() == larger.keys()
    assert all(larger[name] >= own[name] for name in own)
    assert larger["width"] > own["width"]


def test_too_few_rows_are_not_run(one):
    """Figures and claims of the kernels stand without those of the networks."""
    few = nr.load_data("digits").take(np.arange(60))
    sizes = one.study.measurements["networks"].settings(quick=True)
    with pytest.raises(NotRun, match="has 60 rows, 80 are needed"):
        networks.networks(few, **sizes)
    for name, figure in one.study.figures.items():
        assert (figure.of == "networks") == (name == "networks")
    for claim in one.study.claims:
        assert (claim.of == "networks") == claim.name.startswith("10c")


def test_errors_of_one_block_are_those_by_hand(one):
    rng = np.random.default_rng(3)
    x, x_test = kernels._sphere(rng, 30), kernels._sphere(rng, 200)
    both = kernels._function(rng, np.concatenate([x, x_test]), kernels.TARGET)
    y = both[:30] + np.sqrt(0.1) * rng.normal(size=30)
    errors = errors_by_hand(x, y, x_test, both[30:]) / np.mean(both[30:] ** 2)
    found = one.results["depths"].sel(depth=1, seed=3)
    # Angles by arccos are off by 1e-8 near 0.
    np.testing.assert_allclose(found.best, errors.min(), rtol=1e-5)
    assert np.ptp(found.best.values) == 0  # at L = 1 all scales are 1


def test_the_curve_and_its_exponent_are_those_by_hand(one):
    found = one.results["curve"]
    powers, rng = kernels.rough_power(), np.random.default_rng(2)
    x, x_test = kernels._sphere(rng, 80), kernels._sphere(rng, 200)
    both = kernels._function(rng, np.concatenate([x, x_test]), powers)
    y = both[:80] + np.sqrt(found.attrs["noise"]) * rng.normal(size=80)
    for n in found.n.values:
        errors = errors_by_hand(x[:n], y[:n], x_test, both[80:])
        # The kernel of depth 10^6 is that of one block to 1e-6; the time is one of
        # those there are.
        near = np.abs(errors / float(found.error.sel(seed=2, n=n)) - 1)
        assert near.min() < 1e-3
    slope = np.polyfit(np.log(found.n), np.log(found.error.mean("seed")), 1)[0]
    # The mean of the jackknife's values is the fit less its bias.
    assert float(found.exponent.mean()) == pytest.approx(slope, abs=0.2)


def test_the_jackknife_of_equal_curves_has_no_spread():
    values = kernels._jackknife([1, 2, 4], np.array([[8.0, 4.0, 2.0]] * 5))
    np.testing.assert_allclose(values, -1, rtol=1e-12)


def test_the_rough_target_falls_like_the_fourth_power_of_degree():
    power = kernels.rough_power()
    # Eigenvalues in three dimensions like (k + 1/2)^-3, over k.
    assert power[30] / power[60] == pytest.approx((60.5 / 30.5) ** 3 * 2, rel=0.02)
    assert sum(power.values()) == pytest.approx(1)


def test_functions_have_their_power():
    rng = np.random.default_rng(0)
    x = kernels._sphere(rng, 4000)
    y = kernels._function(rng, x, {3: 0.7})
    # Of 4000 points: a standard error of about 2 %.
    assert np.mean(y**2) == pytest.approx(0.7, rel=0.1)


def test_the_end_of_gradient_flow_is_interpolation(one):
    rng = np.random.default_rng(4)
    x = kernels._sphere(rng, 130)
    y = kernels._function(rng, x, kernels.TARGET)
    found = one.results["interpolation"]
    noisy = y[:30] + np.sqrt(found.attrs["noise"]) * rng.normal(size=30)
    weights = np.linalg.solve(one_block(x[:30], x[:30]), noisy)
    error = np.mean((one_block(x[30:], x[:30]) @ weights - y[30:]) ** 2)
    last = found["last"].sel(family="γ = 1", seed=4)
    assert float(last) == pytest.approx(error, rel=1e-4)


def test_scales_as_data_are_those_of_the_specification():
    spec = nr.ResNet(depth=3, branch_scale=nr.DepthScale(0.25))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    keys = jax.random.split(jax.random.key(1), 1)
    graph = networks.structure(spec.replace(branch_scale=1.0), 4, 8, 2)
    whole = nr.finite.build(spec, 4, 8, 2, rngs=nnx.Rngs(keys[0]))
    _, params, rest = nnx.split(whole, nnx.Param, ...)
    scales = jnp.asarray(spec.scales, jnp.float32)
    outputs = networks.outputs(graph, params, rest, scales, x)
    np.testing.assert_allclose(outputs, whole(x), rtol=1e-5)  # float32


def test_networks_start_at_nothing_and_learn(one):
    found = one.results["networks"]
    np.testing.assert_allclose(found.error.isel(step=0), 1, atol=0.1)
    assert (found.loss.isel(step=-1) < found.loss.isel(step=0)).all()
    np.testing.assert_array_equal(found.best, found.error.min("step"))


@pytest.mark.parametrize(
    ("name", "of", "noisy"),
    [
        ("10a-large", "depths", "best"),
        ("10b-minimax", "curve", "exponent"),
        ("10c-networks", "networks", "best"),
    ],
)
def test_noise_is_inconclusive(one, name, of, noisy):
    claim = next(c for c in one.study.claims if c.name == name)
    ledger_checks.check_noise_is_inconclusive(claim, one.results[of], [noisy])
