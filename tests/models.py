"""Finite networks of the tests: made small, differentiated by hand, sampled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ntk_resnet.finite import build
from ntk_resnet.finite.empirical.kernel import feature_kernel, ntk_of_rows
from ntk_resnet.finite.ensembles import seed_keys


def rows(n=4, d=5, seed=0):
    """Inputs of different norms."""
    return np.random.default_rng(seed).normal(size=(n, d))


def make(spec, in_features=5, width=8, k=1, seed=0, dtype=jnp.float64):
    """A small Flax network of a specification."""
    return build(spec, in_features, width, k, rngs=nnx.Rngs(seed), param_dtype=dtype)


def equations(function, *args):
    """How many operations a program has, those inside its loops included."""

    def count(jaxpr):
        total = len(jaxpr.eqns)
        for equation in jaxpr.eqns:
            for value in equation.params.values():
                part = getattr(value, "jaxpr", value)
                total += count(part) if hasattr(part, "eqns") else 0
        return total

    return count(jax.make_jaxpr(function)(*args).jaxpr)


def explicit_ntk(model, x1, x2):
    """`(n1, n2, k, k)` from whole Jacobians of a Flax network, all rows at once."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    outputs = lambda params, x: nnx.merge(graphdef, params, rest)(x)  # noqa: E731
    jacobian = jax.jit(jax.jacrev(outputs))

    def flat(x):
        leaves = jax.tree.leaves(jacobian(params, x))
        return np.concatenate(
            [leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], -1
        )

    return np.einsum("ikp,jlp->ijkl", flat(x1), flat(x2))


# ------------------------------------------------------------------- against the limits


def kernel_samples(spec, x, width, seeds, *, ntk=True, seed=0):
    """NNGP, and NTK if wanted, of many networks, `(seeds, kernels, n, n)`, float64."""
    in_features = x.shape[1:] if spec.takes_images else x.shape[1]
    inputs = jnp.asarray(x, jnp.float32)

    def kernels(key):
        model = build(spec, in_features, width, rngs=nnx.Rngs(key))
        found = [feature_kernel(model, inputs)]
        if ntk:
            found.append(ntk_of_rows(model, inputs, outputs="mean"))
        return jnp.stack(found)

    # One network after the other: a batch of convolutions is slow on CPUs.
    run = jax.jit(lambda keys: jax.lax.map(kernels, keys))
    return np.asarray(run(seed_keys(seed, width, seeds)), np.float64)


def deviation(samples, exact):
    """Largest distance of the mean over networks from `exact`, in standard errors."""
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return np.max(np.abs(samples.mean(axis=0) - exact) / error)


# ------------------------------------------------------------ functions of parameters


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def dense(p, x):
    return jnp.tanh(x @ p["first"]) @ p["second"] + p["bias"]


DENSE = {"first": normal(5, 6), "second": normal(6, 3), "bias": normal(3)}


def convolutions(p, x):
    h = x.reshape(-1, 6, 5, 2)
    conv = functools.partial(
        jax.lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    h = jnp.tanh(conv(h, p["plain"], (1, 1), "SAME"))
    h = jnp.tanh(conv(h, p["strided"], (2, 1), [(1, 2), (0, 1)], rhs_dilation=(1, 2)))
    h = jnp.tanh(conv(h, p["grouped"], (1, 1), "SAME", feature_group_count=3))
    h = jnp.tanh(conv(h, p["wide"], (1, 1), [(2, 1), (-1, 1)], lhs_dilation=(2, 2)))
    h = jax.lax.conv_general_dilated(
        h, p["other"], (1, 1), "VALID", dimension_numbers=("NHWC", "OHWI", "NCHW")
    )
    return h.sum((2, 3)) if p["out"] is None else h.mean((2, 3)) @ p["out"]


CONVOLUTIONS = {
    "plain": normal(3, 3, 2, 4),
    "strided": normal(2, 2, 4, 3),
    "grouped": normal(2, 2, 1, 6),
    "wide": normal(2, 3, 6, 3),
    "other": normal(4, 2, 2, 3),
    "out": normal(4, 2),
}
