"""Residual networks with batch normalisation, with SkipInit, and with neither."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

KINDS = ("BN", "SkipInit", "over √2", "unnormalised")


class Normalised(nnx.Module):
    """Blocks :math:`h + W \\phi(\\mathrm{BN}(h))`, W of He's variance."""

    def __init__(self, width: int, depth: int, rngs: nnx.Rngs, relu: bool):
        size = ((2 if relu else 1) / width) ** 0.5
        shape = depth, width, width
        self.weights = nnx.Param(size * rngs.normal(shape, jnp.float32))
        self.norms = nnx.List(
            nnx.BatchNorm(
                width,
                use_running_average=False,
                use_bias=False,
                use_scale=False,
                rngs=rngs,
            )
            for _ in range(depth)
        )
        self.relu = relu

    def __call__(self, x):
        for norm, weight in zip(self.norms, self.weights[...], strict=True):
            z = norm(x)
            x = x + (jax.nn.relu(z) if self.relu else z) @ weight
        return x


class Classifier(nnx.Module):
    """A first layer, blocks :math:`h + a W \\mathrm{relu}(h)` of a kind, and a last
    layer; SkipInit trains the scales a, from 0."""

    def __init__(
        self, inputs: int, width: int, depth: int, classes: int, kind: str, rngs: Any
    ):
        def he(*shape):
            return rngs.normal(shape, jnp.float32) * (2 / shape[-2]) ** 0.5

        self.first = nnx.Param(he(inputs, width) / 2**0.5)
        self.blocks = nnx.Param(he(depth, width, width))
        self.last = nnx.Param(he(width, classes) / 2**0.5)
        self.scales = (
            nnx.Param(jnp.zeros(depth, jnp.float32)) if kind == "SkipInit" else None
        )
        self.kind = kind

    def __call__(self, x):
        def block(h, given):
            weight, scale = given
            z = h
            if self.kind == "BN":
                z = (h - h.mean(axis=0)) * jax.lax.rsqrt(h.var(axis=0) + 1e-5)
            h = h + scale * (jax.nn.relu(z) @ weight)
            return (h / 2**0.5 if self.kind == "over √2" else h), None

        weights = self.blocks[...]
        one = jnp.ones(len(weights), weights.dtype)
        scales = one if self.scales is None else self.scales[...]
        h, _ = jax.lax.scan(block, x @ self.first[...], (weights, scales))
        if self.kind == "BN":  # before the last layer too, as in pre-activation ResNets
            h = (h - h.mean(axis=0)) * jax.lax.rsqrt(h.var(axis=0) + 1e-5)
        return h @ self.last[...]


@functools.partial(jax.jit, static_argnames=("graph", "steps", "batch"))
def losses(graph, states, x, y, rates, *, steps, batch):
    """Training loss after some steps over that before: `(seed, rate)`.

    Stochastic gradient descent with momentum on batches in one order; infinite where
    it diverged.
    """

    def whole(state):
        outputs = nnx.merge(graph, state)(x)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, y))

    def train(state, rate):
        optimizer = optax.sgd(rate.astype(x.dtype), momentum=0.9)

        def step(carry, at):
            state, memory = carry
            rows = jax.lax.dynamic_slice_in_dim(x, at * batch, batch)
            labels = jax.lax.dynamic_slice_in_dim(y, at * batch, batch)

            def loss(state):
                outputs = nnx.merge(graph, state)(rows)
                return jnp.mean(
                    optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
                )

            updates, memory = optimizer.update(jax.grad(loss)(state), memory)
            return (optax.apply_updates(state, updates), memory), None

        order = jnp.arange(steps) % (len(x) // batch)
        (trained, _), _ = jax.lax.scan(step, (state, optimizer.init(state)), order)
        ratio = whole(trained) / whole(state)
        return jnp.where(jnp.isfinite(ratio), ratio, jnp.inf)

    return jax.vmap(jax.vmap(train, (None, 0)), (0, None))(states, rates)
