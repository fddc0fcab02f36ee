"""Laws that the kernels of every specification of the table keep.

Most are of raw kernels of arrays of one shape: one program a network, so that whatever
is drawn costs nothing. Tolerances are in roundings of a block, several times what is
seen, relative to the diagonals.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import slow_but_for
from oracle import limit_kernels
from specifications import (
    IMAGES,
    ROWS,
    SPECS,
    inputs,
    is_cheap,
    is_common,
    is_typical,
    shares_programs,
)

import ntk_resnet as nr
from ntk_resnet.activations import named

EPS = np.finfo(float).eps
BOTH = ("nngp", "ntk")
RESIDUAL = [name for name in SPECS if hasattr(SPECS[name], "branch_scale")]
HOMOGENEOUS = [name for name in SPECS if SPECS[name].homogeneous]

drawn = settings(max_examples=4, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def common(names):
    return pytest.mark.parametrize("name", slow_but_for(names, is_common))


def cheap(names):
    return pytest.mark.parametrize("name", slow_but_for(names, is_cheap))


def raw(spec, *x):
    """Raw NNGP and NTK, NumPy arrays."""
    found = nr.kernel_fn(spec, normalised=False)(*x, get=BOTH)
    return [np.asarray(matrix) for matrix in found]


def assert_close(found, wanted, roundings, spec):
    """To so many roundings a block, relative to the diagonals of a square matrix.

    The quadrature of tanh is stated to 1e-9, up to the variance 4.
    """
    root = np.sqrt(np.diag(wanted))
    error = np.abs(found - wanted) / root / root[:, None]
    stated = 1e-9 if spec.activation == named.Tanh() else 0
    assert error.max() <= max(roundings * spec.depth * EPS, stated)


# ------------------------------------------------------------------------- definitions


@common(SPECS)
@drawn
@given(seed=seeds)
def test_definitions(name, seed):
    """Against all covariances at once, in NumPy, whose arccos loses over two digits."""
    spec, x = SPECS[name], inputs(name, seed=seed)
    for found, wanted in zip(raw(spec, x), limit_kernels(spec, x), strict=True):
        assert_close(found, wanted, 512, spec)


@pytest.mark.parametrize(
    "name", slow_but_for(filter(ROWS.__contains__, RESIDUAL), is_typical)
)
@drawn
@given(seed=seeds, scale=st.floats(0.01, 2), depth=st.sampled_from([1, 2, 5]))
def test_definitions_at_other_scales_and_depths(name, seed, scale, depth):
    spec = SPECS[name].replace(branch_scale=scale, depth=depth)
    x = inputs(name, seed=seed)
    for found, wanted in zip(raw(spec, x), limit_kernels(spec, x), strict=True):
        assert_close(found, wanted, 512, spec)


def is_linear_without_branches(name):
    """Of rows, and of images whose convolutions keep the mean over the pixels."""
    spec = SPECS[name]
    if not spec.takes_images:
        return not spec.input_activation
    around = spec.padding == "circular" and len(spec.stages) == 1
    return around and spec.readout == "pool"


@common(filter(is_linear_without_branches, RESIDUAL))
def test_branches_of_scale_zero_leave_the_linear_kernel(name):
    spec, x = SPECS[name].replace(branch_scale=0.0), inputs(name)
    nngp, ntk = raw(spec, x)
    x = x.mean((1, 2)) if spec.takes_images else x
    linear = x @ x.T / x.shape[1]
    assert_close(nngp, linear, 16, spec)
    if spec.trained == "all":  # the first layer and the readout
        assert_close(ntk, 2 * linear, 16, spec)
    else:
        assert not ntk.any()


# ---------------------------------------------------------------------------- matrices


@common(SPECS)
@drawn
@given(seed=seeds)
def test_symmetric_and_positive_semidefinite(name, seed):
    for matrix in raw(SPECS[name], inputs(name, seed=seed)):
        assert (matrix == matrix.T).all()
        least, *_, most = np.linalg.eigvalsh(matrix)
        assert most > 0
        # Rounding of all entries moves an eigenvalue by n times as much at most.
        assert least >= -16 * len(matrix) * EPS * most


@common(SPECS)
@drawn
@given(seed=seeds)
def test_permuted_inputs(name, seed):
    """The same bits for kernels of the angle; else the larger input may come second."""
    spec, x = SPECS[name], inputs(name, seed=seed)
    order = np.random.default_rng(seed).permutation(len(x))
    for found, whole in zip(raw(spec, x[order]), raw(spec, x), strict=True):
        wanted = whole[np.ix_(order, order)]
        if shares_programs(name):
            np.testing.assert_array_equal(found, wanted)
        else:
            # Pixels are summed in another order.
            assert_close(found, wanted, 16 if spec.takes_images else 4, spec)


@cheap(SPECS)
def test_normalised_is_raw_over_the_diagonals(name):
    spec, x = SPECS[name], inputs(name)
    normalised = nr.kernel_fn(spec)(x, get=BOTH)
    for get, found, unscaled in zip(BOTH, normalised, raw(spec, x), strict=True):
        assert (np.diag(found) == 1).all()
        own = nr.diag(spec, x, get)
        np.testing.assert_allclose(np.diag(unscaled), own, rtol=16 * spec.depth * EPS)
        assert_close(unscaled / np.sqrt(np.outer(own, own)), found, 16, spec)


# -------------------------------------------------------------------------- symmetries


@common(HOMOGENEOUS)
@drawn
@given(seed=seeds, factor=st.floats(0.1, 10))
def test_homogeneous(name, seed, factor):
    """Every input at a scale of its own: the raw kernel is bilinear in the scales."""
    spec, x = SPECS[name], inputs(name, seed=seed)
    factors = factor ** np.arange(len(x))
    scaled = x * factors.reshape(-1, *[1] * (x.ndim - 1))
    for found, one in zip(raw(spec, scaled), raw(spec, x), strict=True):
        assert_close(found, one * np.outer(factors, factors), 32, spec)


@cheap(HOMOGENEOUS)
@drawn
@given(seed=seeds)
def test_normalised_kernels_do_not_see_powers_of_two(name, seed):
    x, kernel = inputs(name, seed=seed), nr.kernel_fn(SPECS[name])
    powers = 2.0 ** np.random.default_rng(seed).integers(-300, 300, size=len(x))
    scaled = x * powers.reshape(-1, *[1] * (x.ndim - 1))
    for found, one in zip(kernel(scaled, get=BOTH), kernel(x, get=BOTH), strict=True):
        np.testing.assert_array_equal(found, one)


@common(SPECS)
@drawn
@given(seed=seeds)
def test_rotations_of_the_features(name, seed):
    """Of the channels of images, the same one at every pixel."""
    spec, x = SPECS[name], inputs(name, seed=seed)
    normal = np.random.default_rng(seed).normal(size=2 * x.shape[-1:])
    turned = x @ np.linalg.qr(normal)[0]
    for found, wanted in zip(raw(spec, turned), raw(spec, x), strict=True):
        assert_close(found, wanted, 32, spec)


def one_resolution(name):
    """Whether no convolution takes steps, which tell even pixels from odd ones."""
    spec = SPECS[name]
    return len(spec.stages) == 1 or spec.downsampling == "average"


@common(filter(one_resolution, IMAGES))
def test_mirrored_images(name):
    spec, x = SPECS[name], inputs(name)
    for mirrored in (x[:, ::-1], x[:, :, ::-1], x.swapaxes(1, 2)):
        for found, wanted in zip(raw(spec, mirrored), raw(spec, x), strict=True):
            assert_close(found, wanted, 16, spec)


@common([name for name in IMAGES if SPECS[name].padding == "circular"])
@drawn
@given(seed=seeds)
def test_shifted_images(name, seed):
    """Together, or each by itself where pixels are averaged; by steps of a stage."""
    spec, x = SPECS[name], inputs(name)
    shifts = np.random.default_rng(seed).integers(4, size=(len(x), 2))
    shifts = shifts * 2 ** (len(spec.stages) - 1)
    if spec.readout == "flatten":
        shifts[:] = shifts[0]
    shifted = [np.roll(image, by, (0, 1)) for image, by in zip(x, shifts, strict=True)]
    for found, wanted in zip(raw(spec, np.stack(shifted)), raw(spec, x), strict=True):
        assert_close(found, wanted, 16, spec)


# ------------------------------------------------------------------- what is trained


@cheap(SPECS)
def test_trained_parts_add_up(name):
    """The readout adds the NNGP kernel; the first layer something that has no sign."""
    spec, x = SPECS[name], inputs(name)
    everything, blocks = (
        raw(spec.replace(trained=trained), x) for trained in ("all", "blocks")
    )
    assert_close(everything[0], blocks[0], 4, spec)
    ends = everything[1] - blocks[1]
    assert np.linalg.eigvalsh(ends)[0] >= -16 * len(x) * EPS * np.trace(everything[1])
    if name not in RESIDUAL:
        wanted = blocks[1] + everything[0]
        assert_close(everything[1], wanted, 16, spec)


@cheap([n for n in RESIDUAL if n in ROWS or one_resolution(n)])
def test_the_first_layer_adds_the_derivative_along_the_input_kernel(name):
    """With as many features again, the covariance of two inputs is scaled by s alone.

    The kernel is linear in the weights of the first layer, whose share of the NTK is
    s times the derivative of the NNGP kernel in s.
    """
    spec, x, step = SPECS[name], inputs(name), 1e-4
    one = np.concatenate([x, 0 * x], axis=-1)

    def kernels(trained, s):
        two = np.concatenate([s * x, np.sqrt(1 - s * s) * x], axis=-1)
        return raw(spec.replace(trained=trained), one, two)

    s = 0.8
    (nngp, everything), (_, blocks) = (kernels(t, s) for t in ("all", "blocks"))
    above, below = (kernels("all", s + h)[0] for h in (step, -step))
    share = s * (above - below) / (2 * step)
    # Central differences: the step squared, of derivatives of order one.
    atol = 100 * step**2 * np.abs(everything).max()
    np.testing.assert_allclose(everything - blocks, nngp + share, rtol=0, atol=atol)
