"""Units whose shortcut skips n weight matrices, and their training."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx


class ShortcutNet(nnx.Module):
    """R units :math:`h + \\psi(W_n \\cdots \\phi(W_1 \\pi(h)))`, n matrices each.

    Without activations it is linear; `shortcuts=False` leaves the shortcuts out, for
    plain networks.
    """

    def __init__(
        self,
        weights: Any,
        *,
        pre: Callable = lambda h: h,
        middle: Callable = lambda h: h,
        post: Callable = lambda h: h,
        shortcuts: bool = True,
    ):
        self.weights = nnx.Param(jnp.asarray(weights))  # (R, n, d, d)
        self.pre, self.middle, self.post = pre, middle, post
        self.shortcuts = shortcuts

    def __call__(self, x):
        def unit(h, weights):
            branch = self.pre(h)
            for k, weight in enumerate(weights):
                branch = (self.middle(branch) if k else branch) @ weight.T
            branch = self.post(branch)
            return (h + branch if self.shortcuts else branch), None

        return jax.lax.scan(unit, x, self.weights[...])[0]


def half_square(outputs, y):
    """|f - y|^2 / 2 of each row."""
    return jnp.sum((outputs - y) ** 2, axis=-1) / 2


def initial(key: Any, how: str, shape: tuple[int, ...], scale: float) -> jax.Array:
    """Weights `(R, n, d, d)`: "small", normal of standard deviation `scale`; "xavier",
    of variance 1/d; "orthogonal"."""
    if how == "orthogonal":
        return jax.random.orthogonal(key, shape[-1], shape[:-2], dtype=jnp.float32)
    size = scale if how == "small" else shape[-1] ** -0.5
    return size * jax.random.normal(key, shape, jnp.float32)


@functools.partial(jax.jit, static_argnames=("graph", "steps", "every"))
def descend(graph, weights, x, y, rates, *, steps, every):
    """Losses of networks trained by gradient descent: `(seed, rate, record)`.

    A seed is initial weights, inputs and targets; a record is made every so many steps.
    Steps are clipped to the length one, so that a rate that is too large shows as a bad
    loss and not as an overflow. Also returns the weights at the end.
    """

    def train(weights, x, y, rate):
        def loss(params):
            return jnp.mean(half_square(nnx.merge(graph, params)(x), y))

        rate = rate.astype(weights.dtype)
        optimizer = optax.chain(optax.clip_by_global_norm(1.0 / rate), optax.sgd(rate))
        params = nnx.State({"weights": nnx.Param(weights)})

        def step(_, carry):
            params, memory = carry
            updates, memory = optimizer.update(jax.grad(loss)(params), memory)
            return optax.apply_updates(params, updates), memory

        def record(carry, _):
            before = loss(carry[0])
            return jax.lax.fori_loop(0, every, step, carry), before

        start = params, optimizer.init(params)
        (params, _), losses = jax.lax.scan(record, start, length=steps // every)
        losses = jnp.append(losses, loss(params))
        return jnp.where(jnp.isfinite(losses), losses, jnp.inf), params["weights"][...]

    by_rate = jax.vmap(train, (None, None, None, 0))
    return jax.vmap(by_rate, (0, 0, 0, None))(weights, x, y, rates)


def task(seed: int, d: int, rows: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Whitened inputs, and targets A x with noise; A is one plus a random matrix."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, d))
    x = x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / rows)).T
    matrix = np.eye(d) - 0.7 * rng.normal(size=(d, d)) / d**0.5
    return x, x @ matrix.T + noise * rng.normal(size=(rows, d))
