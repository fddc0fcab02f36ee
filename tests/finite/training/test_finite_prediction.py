"""Training with a fixed kernel: step by step, in the eigenbasis and as a flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from ntk_resnet.analysis.regression import gradient_flow
from ntk_resnet.finite.training.prediction import descent_path, flow_path
from ntk_resnet.models import losses
from ntk_resnet.models.losses import make_loss

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(7, 9))
KERNEL = FEATURES @ FEATURES[:5].T  # seven rows, of which five are trained on
INITIAL = RNG.normal(size=(2, 7, 3))  # of two networks with three outputs
SIGNS = np.where(RNG.normal(size=(5, 3)) > 0, 1.0, -1.0)
CLASSES = np.eye(3)[[0, 1, 2, 0, 1]]
TARGETS = {"mse": SIGNS, "logistic": SIGNS, "softmax": CLASSES}


def test_descent_on_the_squared_loss_has_powers_of_the_eigenvalues():
    rate, counts = 0.3, [0, 3, 40]
    path = descent_path(losses.mse, KERNEL, SIGNS, INITIAL, rate, counts)
    eigenvalues, vectors = np.linalg.eigh(KERNEL[:5])
    for start, found in zip(INITIAL, path, strict=True):
        for step, outputs in zip(np.cumsum(counts), found, strict=True):
            left = (1 - rate * eigenvalues / SIGNS.size) ** step
            learned = vectors @ np.diag((1 - left) / eigenvalues) @ vectors.T
            expected = start + KERNEL @ learned @ (SIGNS - start[:5])
            np.testing.assert_allclose(outputs, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", TARGETS)
def test_descent_tends_to_flow(name):
    """Euler's method: half the step, half the error."""
    y, times = TARGETS[name], np.array([0, 1.0, 4.0])
    function = make_loss(name, y).function
    flow = flow_path(function, KERNEL, y, INITIAL, times)
    errors = []
    for rate in (1 / 64, 1 / 128):
        counts = np.diff(times, prepend=0) / rate
        path = descent_path(function, KERNEL, y, INITIAL, rate, counts)
        errors.append(np.abs(path - flow).max())
    assert errors[0] < 0.05
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_flow_is_scipys(name):
    y, times = TARGETS[name], np.array([0, 0.5, 20.0])
    function = make_loss(name, y).function
    gradient = jax.jit(jax.grad(function))

    def velocity(_, f):
        return -(KERNEL @ gradient(f.reshape(7, 3)[:5], y)).ravel()

    # Each network with a kernel of its own.
    kernels = np.stack([KERNEL, 2 * KERNEL])
    path = flow_path(function, kernels, y, INITIAL, times)
    for scale, start, found in zip((1, 2), INITIAL, path, strict=True):
        solved = scipy.integrate.solve_ivp(
            velocity,
            (0, scale * 20),
            start.ravel(),
            t_eval=scale * times,
            rtol=1e-10,
            atol=1e-10,
        )
        expected = solved.y.T.reshape(3, 7, 3)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_both_solvers_of_the_squared_loss_agree():
    times = np.array([0, 0.5, 20.0])

    def unnamed(outputs, y):
        return losses.mse(outputs, y)

    solved = flow_path(unnamed, KERNEL, SIGNS, INITIAL, times)
    exact = flow_path(losses.mse, KERNEL, SIGNS, INITIAL, times)
    np.testing.assert_allclose(solved, exact, rtol=1e-6, atol=1e-6)
    start = {"initial_train": INITIAL[1, :5], "initial_test": INITIAL[1]}
    flow = gradient_flow(KERNEL[:5], KERNEL, SIGNS, times, **start)
    np.testing.assert_allclose(exact[1], flow.test, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", TARGETS)
def test_curvature_of_named_losses(name):
    """The largest eigenvalue of the Hessian over all outputs: never above, and met."""
    y = TARGETS[name]
    loss = make_loss(name, y)

    def largest(outputs):
        hessian = jax.hessian(loss.function)(outputs, y).reshape(15, 15)
        return np.linalg.eigvalsh(hessian)[-1]

    drawn = [largest(size * RNG.normal(size=y.shape)) for size in (0.1, 1, 10, 10)]
    assert max(drawn) <= loss.curvature * (1 + 1e-12)
    # Two classes at one half each are the worst case of softmax.
    worst = np.tile([0.0, 0.0, -50.0], (5, 1)) if name == "softmax" else 0 * y
    assert largest(worst) == pytest.approx(loss.curvature)


def test_curvature_of_other_losses_is_measured():
    own = make_loss(lambda f, y: jnp.mean(jax.nn.softplus(-y * f)), SIGNS)
    assert own.curvature == pytest.approx(1 / 4 / SIGNS.size, rel=1e-6)
    # Flat at 0, where its outputs begin; curved at the targets.
    huber = make_loss(
        lambda f, y: jnp.mean(jax.nn.relu(1 - jnp.abs(f - y)) ** 2), SIGNS
    )
    assert huber.curvature == pytest.approx(2 / SIGNS.size, rel=1e-6)
    assert make_loss(lambda f, y: jnp.mean(y * f), SIGNS).curvature == 0
