"""Limit kernels in twenty lines of NumPy: the oracle of the tests of finite networks.

Raw kernels of any specification straight from the definitions, float64, no gap form;
Gaussian expectations by closed forms for ReLU and erf.
"""

import math

import numpy as np
import pytest

import ntk_resnet as nr


def expectations(activation, k):
    """E phi phi', E phi' phi'' and E phi for Gaussians of covariance `k`."""
    q = np.diag(k)
    size = np.sqrt(np.outer(q, q))
    if activation == "relu":
        u = np.clip(k / size, -1, 1)
        theta = np.arccos(u)
        values = size * (np.sin(theta) + (math.pi - theta) * u) / (2 * math.pi)
        return values, (math.pi - theta) / (2 * math.pi), np.sqrt(q / (2 * math.pi))
    if activation == "erf":
        total = np.outer(1 + 2 * q, 1 + 2 * q)
        values = 2 / math.pi * np.arcsin(2 * k / np.sqrt(total))
        return values, 4 / math.pi / np.sqrt(total - 4 * k**2), 0 * q
    raise NotImplementedError(activation)


def activation_name(spec):
    return {nr.FeedForward(depth=1, activation=name).activation: name
            for name in ("relu", "erf")}[spec.activation]  # fmt: skip


def limit_kernels(spec, x):
    """`(nngp, ntk)` of a specification on the rows of `x`."""
    dual = lambda k: expectations(activation_name(spec), k)  # noqa: E731
    affine = lambda k: spec.weight_variance * k + spec.bias_variance  # noqa: E731
    k, everything = x @ x.T / x.shape[1], spec.trained == "all"
    if isinstance(spec, nr.FeedForward):
        ntk = 0 * k
        for _ in range(spec.depth):
            before = affine(k)
            k, slope, _ = dual(before)
            ntk = slope * (spec.weight_variance * ntk + before)
        return k, ntk + everything * k
    ntk, mean = everything * k, np.zeros(len(x))
    if spec.input_activation:
        k, slope, mean = dual(k)
        ntk = slope * ntk
    for a in spec.scales:
        before = affine(k)
        if spec.block == "preactivation":
            phi, slope, _ = dual(k)
            ntk = ntk + a**2 * (spec.weight_variance * slope * ntk + affine(phi))
            k = k + a**2 * affine(phi)
            continue
        phi, slope, drift = dual(before)
        ntk = ntk + a**2 * slope * (spec.weight_variance * ntk + before)
        if spec.block == "two_layer":
            ntk, k = ntk + a**2 * phi, k + a**2 * phi
        else:  # increments with a mean: E h phi' = E h E phi' over units
            k = k + a**2 * phi + a * (np.outer(mean, drift) + np.outer(drift, mean))
            mean = mean + a * drift
    return k, ntk + everything * k


SPECS = {
    "plain": nr.FeedForward(depth=3),
    "plain_blocks": nr.FeedForward(depth=3, trained="blocks"),
    "plain_erf_bias": nr.FeedForward(depth=2, activation="erf", bias_variance=0.3),
    "two_layer": nr.ResNet(depth=4, branch_scale=0.5),
    "two_layer_all_bias": nr.ResNet(
        depth=2, branch_scale=0.7, trained="all", bias_variance=0.2
    ),
    "two_layer_erf": nr.ResNet(depth=3, branch_scale=0.6, activation="erf"),
    "two_layer_input": nr.ResNet(depth=2, branch_scale=0.7, input_activation=True),
    "pre": nr.ResNet(depth=3, branch_scale=0.6, block="preactivation"),
    "pre_all_erf_bias": nr.ResNet(
        depth=2,
        branch_scale=0.8,
        block="preactivation",
        trained="all",
        activation="erf",
        bias_variance=0.3,
    ),
    "post": nr.ResNet(depth=4, branch_scale=0.25, block="postactivation"),
    "post_input_all": nr.ResNet(
        depth=3,
        branch_scale=nr.DepthScale(1.0),
        block="postactivation",
        trained="all",
        input_activation=True,
    ),
    "post_erf_bias": nr.ResNet(
        depth=3,
        branch_scale=0.6,
        block="postactivation",
        activation="erf",
        bias_variance=0.2,
        input_activation=True,
    ),
}
"""Every block, bias and trained setting with ReLU or erf; shared by the tests."""
_SLOW = {"two_layer_erf", "two_layer_input", "post"}
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if name in _SLOW else [])
    for name in SPECS
]


def rows(n=4, d=5, seed=0):
    """Inputs of different norms."""
    return np.random.default_rng(seed).normal(size=(n, d))


COSINES = np.array([-0.9, -0.5, 0, 0.3, 0.7, 0.95])
TABLE = [  # normalised NTK, computed independently, six digits
    (nr.FeedForward(depth=2), "0.087632 0.114621 0.228570 0.344867 0.589388 0.862447"),
    (nr.FeedForward(depth=5), "0.236710 0.251184 0.298699 0.353167 0.500921 0.762618"),
    (
        nr.ResNet(depth=5, branch_scale=1.0),
        "0.086285 0.130271 0.231883 0.330242 0.546948 0.825197",
    ),
    (
        nr.ResNet(depth=10, branch_scale=0.5),
        "0.050805 0.103068 0.217815 0.325344 0.553518 0.832627",
    ),
]


@pytest.mark.parametrize(("spec", "digits"), TABLE)
def test_oracle_reproduces_the_table(spec, digits):
    angle = np.arccos(COSINES)
    x = np.array([[1.0, 0.0], *np.transpose([np.cos(angle), np.sin(angle)])])
    _, ntk = limit_kernels(spec, x)
    normalised = ntk[0, 1:] / ntk[0, 0]
    np.testing.assert_allclose(normalised, np.array(digits.split(), float), atol=6e-7)


@pytest.mark.parametrize("name", NAMES)
def test_oracle_equals_the_closed_form(name):
    """Two derivations of each limit, so that a statistical test can rely on either."""
    x = rows()
    kernels = nr.kernel_fn(SPECS[name], normalised=False)(x, get=("nngp", "ntk"))
    for mine, theirs in zip(limit_kernels(SPECS[name], x), kernels, strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-12, atol=1e-13)
