r"""What training minimises: a mean over rows of a function of outputs and targets."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_resnet._checks import check_choice

POWER_STEPS = 50
"""Steps of the power method for the curvature of a loss that is not known by name."""


class Loss(NamedTuple):
    """A loss, and how strongly it can be curved."""

    name: str
    function: Callable[[Any, Any], Any]  # outputs (n, k), targets (n, k) -> scalar mean
    curvature: float  # largest eigenvalue of its Hessian in the outputs of all rows


def mse(outputs, y):
    r""":math:`\frac1{2nk}\sum (f - y)^2`, as in `gradient_flow`."""
    return jnp.mean((outputs - y) ** 2) / 2


def logistic(outputs, y):
    r""":math:`\frac1{nk}\sum \log(1 + e^{-y f})` for targets of -1 and 1."""
    return jnp.mean(jax.nn.softplus(-y * outputs))


def softmax(outputs, y):
    r""":math:`-\frac1n\sum y \log\operatorname{softmax}(f)`, `y` one-hot."""
    return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(outputs), axis=-1))


_NAMED: dict[str, tuple[Callable, float]] = {
    # The largest curvature of one term: of f^2/2, of softplus, of logsumexp.
    "mse": (mse, 1.0),
    "logistic": (logistic, 1 / 4),
    "softmax": (softmax, 1 / 2),
}


def make_loss(loss: Any, y: np.ndarray) -> Loss:
    """The loss of that name, or the caller's own, with its curvature at targets `y`.

    That of a named loss is its maximum over all outputs; that of a function is the
    larger of the values at outputs 0 and at outputs equal to the targets.

    Raises:
        ValueError: there is no such loss, or the targets do not fit it.
    """
    if callable(loss):
        _check_function(loss, y, y)
        name = getattr(loss, "__name__", type(loss).__name__)
        return Loss(name, loss, _curvature(loss, y))
    check_choice("loss", loss, _NAMED)
    _check_targets(loss, y)
    function, curvature = _NAMED[loss]
    terms = len(y) if loss == "softmax" else y.size
    return Loss(loss, function, curvature / terms)


def loss_of_outputs(
    loss: Any, outputs: jax.ShapeDtypeStruct, y: np.ndarray
) -> tuple[Callable[[Any, Any], Any], np.ndarray]:
    """A loss of a model's outputs `(n, ...)` as they are, and targets as it takes them.

    Args:
        loss: a name, or a function of outputs and targets that returns one number, or
            one for each row, as Optax's do, of which the mean is taken.
        outputs: their shape.
        y: targets `(n, ...)`.

    Raises:
        ValueError: there is no such loss, the targets do not fit it, or the function
            cannot be traced or does not return numbers.
    """
    if callable(loss):
        function = _MeanOf(loss)
        _check_function(function, outputs, y)
        return function, y
    check_choice("loss", loss, _NAMED)
    y = np.asarray(y, float).reshape(len(y), -1)
    if outputs.size != y.size:
        raise ValueError(
            f"y must have one row of targets for each row of outputs {outputs.shape}; "
            f"got {y.shape}."
        )
    _check_targets(loss, y)
    return _OfRows(_NAMED[loss][0]), y


@dataclasses.dataclass(frozen=True)
class _MeanOf:
    """A loss of the caller's; equal for equal functions, which compile once."""

    function: Callable[[Any, Any], Any]

    def __call__(self, outputs, y):
        return jnp.mean(self.function(outputs, y))


@dataclasses.dataclass(frozen=True)
class _OfRows:
    """A loss of outputs `(n, k)`."""

    function: Callable[[Any, Any], Any]

    def __call__(self, outputs, y):
        return self.function(outputs.reshape(len(outputs), -1), y)


def values_of(loss: Loss, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The loss of many outputs `(..., n, k)`, in float64."""
    with jax.enable_x64():
        targets, function = jnp.asarray(y), loss.function
        for _ in outputs.shape[:-2]:
            function = jax.vmap(function, (0, None))
        return np.asarray(function(jnp.asarray(outputs), targets))


def _check_targets(loss, y):
    if loss == "logistic" and not np.isin(y, (-1, 1)).all():
        raise ValueError(
            f"y must hold -1 and 1 for the logistic loss, got {y[np.abs(y) != 1][0]:g}."
        )
    distributions = (y >= 0).all() and np.allclose(y.sum(axis=1), 1)
    if loss == "softmax" and not (y.shape[1] > 1 and distributions):
        raise ValueError(
            "y must be (n, classes) with rows >= 0 of sum 1, such as one-hot rows, for "
            f"the softmax loss; got shape {y.shape}, first row {y[0].tolist()}."
        )


def _check_function(function, outputs, y):
    try:
        shape = jax.eval_shape(function, outputs, y)
    except (TypeError, jax.errors.JAXTypeError) as error:
        raise ValueError(
            "loss must be a function that JAX can trace, written with jax.numpy and "
            f"without choices by value; it raised {type(error).__name__}."
        ) from None
    if getattr(shape, "shape", None) != ():
        raise ValueError(
            f"loss must map outputs {outputs.shape} and y {y.shape} to one number; got "
            f"{shape}."
        )


def _curvature(function, y):
    """Largest absolute eigenvalue of the Hessian in the outputs: power method."""

    def at(outputs):
        def product(_, v):
            v = v / jnp.linalg.norm(v)
            gradient = jax.grad(lambda f: function(f, targets))
            return jax.jvp(gradient, (outputs,), (v,))[1]

        start = jax.random.normal(jax.random.key(0), outputs.shape, outputs.dtype)
        return jnp.linalg.norm(jax.lax.fori_loop(0, POWER_STEPS, product, start))

    with jax.enable_x64():
        targets = jnp.asarray(y)
        found = jax.jit(lambda: jnp.stack([at(0 * targets), at(targets)]))()
    # Where it is flat, 0 / 0 came out: no direction is curved.
    return float(np.nanmax(np.append(found, 0.0)))
