r"""What training with a fixed kernel does to the outputs, for any loss.

A network whose kernel does not move follows, in function space,
:math:`\dot f = -\Theta\, \nabla L(f)`: gradient flow. One step of gradient descent is
:math:`f \leftarrow f - \eta\,\Theta\,\nabla L(f)`, exactly so for a linearised network.
With the closed-form kernel this is the infinitely wide network; with the initial kernel
and outputs of a finite one it is that network's linearisation.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ntk_resnet.analysis.regression import gradient_flow
from ntk_resnet.models.losses import mse


def descent_path(
    loss: Callable,
    kernel: Float[np.ndarray, "*s p n"],
    y: Float[np.ndarray, "n k"],
    initial: Float[np.ndarray, "s p k"],
    learning_rate: float,
    counts: Any,
) -> Float[np.ndarray, "s t p k"]:
    r"""Outputs along gradient descent with a fixed kernel, step by step, in float64.

    For the squared loss the mode of eigenvalue :math:`\lambda` has
    :math:`(1 - \eta\lambda/(nk))^t` of its error left after t steps.

    Args:
        loss: `loss(outputs, y)`, a scalar.
        kernel: the NTK of all rows, of which the training rows come first, against the
            training rows; one for each of s networks, or one for all.
        y: targets of the training rows.
        initial: outputs of all rows of every network before the first step.
        learning_rate: eta.
        counts: `(t,)`, steps from one record to the next.

    Accuracy:
        1e-10 against powers of the eigenvalues
        (`tests/finite/training/test_finite_prediction.py`).
    """
    with jax.enable_x64():
        arrays = (jnp.asarray(a, jnp.float64) for a in (kernel, y, initial))
        counts = jnp.asarray(counts, jnp.int32)
        return np.asarray(_descend(loss, *arrays, learning_rate, counts))


@functools.partial(jax.jit, static_argnames="loss")
def _descend(loss, kernel, y, initial, learning_rate, counts):
    def one(kernel, initial):
        def step(_, f):
            return f - learning_rate * kernel @ jax.grad(loss)(f[: len(y)], y)

        def record(f, count):
            f = jax.lax.fori_loop(0, count, step, f)
            return f, f

        return jax.lax.scan(record, initial, counts)[1]

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one, (0 if kernel.ndim == 3 else None, 0))(kernel, initial)


def flow_path(
    loss: Callable,
    kernel: Float[np.ndarray, "*s p n"],
    y: Float[np.ndarray, "n k"],
    initial: Float[np.ndarray, "s p k"],
    times: Float[np.ndarray, " t"],
) -> Float[np.ndarray, "s t p k"]:
    r"""Outputs along gradient flow with a fixed kernel.

    In the eigenbasis for the squared loss (`gradient_flow`), else the differential
    equation solved by `neural_tangents.predict.gradient_descent`.

    Args:
        loss, kernel, y, initial: as in `descent_path`.
        times: t >= 0, ascending, the first of them 0.

    Accuracy:
        The solver's relative tolerance is 1.4e-8; 1e-6 against SciPy's
        (`tests/finite/training/test_finite_prediction.py`).
    """
    if loss is mse:
        several = np.broadcast_to(kernel, (len(initial), *kernel.shape[-2:]))
        pairs = zip(several, initial, strict=True)
        return np.stack([_squared(kernel, y, f, times) for kernel, f in pairs])
    with jax.enable_x64():
        arrays = (jnp.asarray(a, jnp.float64) for a in (kernel, y, initial, times))
        return np.asarray(_solve(loss, *arrays))


def _squared(kernel, y, initial, times):
    n = len(y)
    start = {"initial_train": initial[:n], "initial_test": initial}
    return gradient_flow(_nearest_psd(kernel[:n]), kernel, y, times, **start).test


def _nearest_psd(kernel):
    """A Gram matrix of gradients without the negative eigenvalues of its rounding."""
    eigenvalues, vectors = np.linalg.eigh(kernel)
    return (vectors * np.maximum(eigenvalues, 0)) @ vectors.T


@functools.partial(jax.jit, static_argnames="loss")
def _solve(loss, kernel, y, initial, times):
    from ntk_resnet.reference.neural_tangents import neural_tangents as nt

    def one(kernel, initial):
        n = len(y)
        predict = nt.predict.gradient_descent(loss, kernel[:n], y)
        return predict(times, initial[:n], initial, kernel)[1]

    return jax.vmap(one, (0 if kernel.ndim == 3 else None, 0))(kernel, initial)
