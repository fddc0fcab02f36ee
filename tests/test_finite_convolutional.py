"""Finite convolutional networks: the formulas by hand, and the limits they tend to."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_finite_empirical import explicit
from test_finite_networks import equations

import ntk_resnet as nr
from ntk_resnet.finite import Frozen, build, empirical_nngp, empirical_ntk
from ntk_resnet.finite.empirical import feature_kernel, ntk_of_rows
from ntk_resnet.finite.networks import seed_keys

BLOCKS = (None, *nr.ConvResNet.blocks)  # None: a plain network
PADDINGS, READOUTS = ("zero", "circular"), ("pool", "flatten")
DOWNSAMPLINGS = ("stride", "average")


def images(n=3, height=8, width=8, channels=2, seed=0):
    """Of different norms; the second is close to the first."""
    x = np.random.default_rng(seed).normal(size=(n, height, width, channels))
    x[1] = x[0] + 0.5 * x[1]
    return x


def spec_of(block, stages=(2, 1), **settings):
    depth = sum(stages)
    if block is None:
        return nr.ConvNet(depth=depth, stages=stages, **settings)
    return nr.ConvResNet(
        depth=depth, stages=stages, block=block, branch_scale=0.7, **settings
    )


def make(spec, shape=(8, 8, 2), width=4, k=1, seed=0, dtype=jnp.float64):
    return build(spec, shape, width, k, rngs=nnx.Rngs(seed), param_dtype=dtype)


# --------------------------------------------------------------- the formulas, by hand


def convolved(h, weight, stride, padding, variance=1.0):
    """A convolution pixel by pixel, from its definition."""
    k, _, fan_in, fan_out = weight.shape
    sizes = h.shape[1:3]
    out = [-(-size // stride) for size in sizes]
    # The window of the first pixel begins so far before it that all that windows reach
    # beyond the image is shared by both sides, the odd pixel behind.
    beyond = [(o - 1) * stride + k - size for o, size in zip(out, sizes, strict=True)]
    before = [max(total, 0) // 2 for total in beyond]
    result = np.zeros((len(h), *out, fan_out))
    for i, j, a, b in itertools.product(*map(range, out), range(k), range(k)):
        row, column = stride * i + a - before[0], stride * j + b - before[1]
        if padding == "circular":
            row, column = row % sizes[0], column % sizes[1]
        elif not (0 <= row < sizes[0] and 0 <= column < sizes[1]):
            continue
        result[:, i, j] += h[:, row, column] @ weight[a, b]
    return np.sqrt(variance / (k * k * fan_in)) * result


def all_blocks(model):
    """The weights of every block by name, one after the other, as NumPy arrays."""
    for run in model.runs:
        given = {n: np.asarray(v) for n, v in run.arrays().items() if v is not None}
        if given["weight"].ndim == 4:
            yield given
        else:
            for block in range(len(given["weight"])):
                yield {name: array[block] for name, array in given.items()}


def by_hand(model, x):
    """The forward pass from the docstrings of the specifications; ReLU."""
    spec = model.spec
    residual, phi = isinstance(spec, nr.ConvResNet), lambda z: np.maximum(z, 0)
    conv = functools.partial(convolved, padding=spec.padding)
    h = conv(x, np.asarray(model.input_weight[...]), 1) if residual else x
    weights = list(all_blocks(model))
    assert len(weights) == spec.depth
    first = set(np.cumsum(spec.stages)[:-1].tolist())  # blocks that begin a later stage
    for number, given in enumerate(weights):
        stride = 2 if number in first and spec.downsampling == "stride" else 1
        if number in first and spec.downsampling == "average":
            corners = itertools.product((0, 1), (0, 1))
            h = sum(h[:, p::2, q::2] for p, q in corners) / 4
        bias = np.sqrt(spec.bias_variance) * given.get("bias", 0)
        before_w = phi(h) if residual and spec.block.endswith("preactivation") else h
        z = conv(before_w, given["weight"], stride, variance=spec.weight_variance)
        z = z + bias
        if not residual:
            h = phi(z)
            continue
        branch = z if spec.block == "preactivation" else phi(z)
        if spec.block in ("two_layer", "full_preactivation"):
            branch = conv(branch, given["outer_weight"], 1)
        if stride == 2:
            projection = given["projection"][0, 0]
            h = h[:, ::2, ::2] @ projection / np.sqrt(len(projection))
        h = h + spec.scales[number] * branch
    pixels = h.shape[1] * h.shape[2]
    read = h.mean((1, 2)) if spec.readout == "pool" else h.reshape(len(h), -1)
    readout = np.asarray(model.readout[...])
    size = model.width * (pixels if spec.readout == "flatten" else 1)
    return h, read @ readout / np.sqrt(size)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("downsampling", DOWNSAMPLINGS)
@pytest.mark.parametrize("block", BLOCKS)
def test_forward_pass_is_that_of_the_formulas(block, downsampling, padding):
    """Three stages of different images; scales, biases and readouts vary along."""
    spec = spec_of(
        block,
        (1, 2, 2),
        padding=padding,
        downsampling=downsampling,
        readout="flatten" if downsampling == "stride" else "pool",
        bias_variance=0.3 if padding == "zero" else 0.0,
    )
    if block is not None:
        spec = spec.replace(branch_scale=nr.DecreasingScale())
    model, x = make(spec, (12, 16, 2), width=3, k=2), images(2, 12, 16)
    features, outputs = by_hand(model, x)
    np.testing.assert_allclose(model.features(x), features, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(model(x), outputs, rtol=1e-12, atol=1e-13)
    assert model(x).shape == (2, 2)


@pytest.mark.parametrize("kernel_size", [1, 5])
@pytest.mark.parametrize("padding", PADDINGS)
def test_windows_of_other_sizes(kernel_size, padding):
    spec = spec_of("two_layer", kernel_size=kernel_size, padding=padding)
    model, x = make(spec, (10, 12, 2), width=3), images(2, 10, 12)
    np.testing.assert_allclose(model(x), by_hand(model, x)[1], rtol=1e-12, atol=1e-13)


# ------------------------------------------------------------------- against the limits


def samples_of(spec, x, width, seeds, *, ntk, seed=0):
    """NNGP, and NTK if wanted, of many networks, `(seeds, kernels, n, n)`, float64."""

    def kernels(key):
        model = build(spec, x.shape[1:], width, rngs=nnx.Rngs(key))
        inputs = jnp.asarray(x, jnp.float32)
        found = [feature_kernel(model, inputs)]
        if ntk:
            found.append(ntk_of_rows(model, inputs, outputs="mean"))
        return jnp.stack(found)

    # One network after the other: a batch of convolutions is slow on CPUs.
    run = jax.jit(lambda keys: jax.lax.map(kernels, keys))
    return np.asarray(run(seed_keys(seed, width, seeds)), np.float64)


def limits_of(spec, x, *, ntk):
    names = ("nngp", "ntk") if ntk else ("nngp",)
    return np.stack(nr.kernel_fn(spec, normalised=False)(x, get=names))


def deviation(samples, exact):
    """Largest distance of the mean over networks from `exact`, in standard errors."""
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return np.max(np.abs(samples.mean(axis=0) - exact) / error)


GRID = list(itertools.product(BLOCKS, PADDINGS, DOWNSAMPLINGS, READOUTS))
# Every block with every setting of each of the others; the others in pairs.
FAST = {("zero", "stride", "pool"), ("circular", "average", "flatten")}
FAST_PLAIN = {("zero", "average", "flatten"), ("circular", "stride", "pool")}


def marked(case):
    fast = FAST if case[0] in ("two_layer", "postactivation") else FAST_PLAIN
    return pytest.param(*case, marks=[] if case[1:] in fast else [pytest.mark.slow])


@pytest.mark.parametrize(
    ("block", "padding", "downsampling", "readout"), [marked(case) for case in GRID]
)
def test_second_moments_of_the_last_features(block, padding, downsampling, readout):
    """Mean over 192 networks of 64 channels, of 6 entries: 4 standard errors.

    One (2 to 3 %) is above the bias of order 1/width.
    """
    spec = spec_of(
        block,
        padding=padding,
        downsampling=downsampling,
        readout=readout,
        activation="relu" if readout == "pool" else "erf",
        bias_variance=0.2 if padding == "zero" else 0.0,
    )
    samples = samples_of(spec, images(), 64, 192, ntk=False)
    assert deviation(samples, limits_of(spec, images(), ntk=False)) < 4
