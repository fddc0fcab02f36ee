"""Kernels of many images, some pairs at a time, and what memory they take for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but_for

import ntk_resnet as nr
from ntk_resnet.kernels.convolution import kernel as convolution_kernel
from ntk_resnet.kernels.convolution import matrices
from ntk_resnet.kernels.convolution.matrices import _matrix
from ntk_resnet.kernels.convolution.memory import numbers_for_pairs, numbers_per_image
from ntk_resnet.kernels.gram.make_plan import make_plan
from ntk_resnet.kernels.gram.programs import program
from ntk_resnet.kernels.gram.tiling import begins, even_side

EPS = np.finfo(float).eps
HALF = {"branch_scale": nr.DepthScale(0.5)}


def pictures(n, side, seed=0):
    return np.random.default_rng(seed).normal(size=(n, side, side, 2))


# ---------------------------------------------------- the same values, and derivatives

NETWORKS = [
    nr.ConvResNet(depth=3, **HALF),
    nr.ConvResNet(depth=3, **HALF, readout="flatten"),
    nr.ConvNet(depth=2, readout="flatten", padding="circular", activation="erf"),
    nr.ConvNet(depth=2, stages=(1, 1), readout="flatten", downsampling="average"),
    nr.ConvNet(depth=2, stages=(1, 1), downsampling="average"),
    nr.ConvResNet(depth=2, **HALF, stages=(1, 1), block="postactivation"),
]


@pytest.fixture
def few_at_once(monkeypatch):
    """As if four pairs filled the cache."""
    monkeypatch.setattr(convolution_kernel, "pairs_at_once", lambda *_: 4)
    _matrix.clear_cache()
    yield
    _matrix.clear_cache()


def kernels_of(spec):
    x1, x2 = pictures(7, 6), pictures(5, 6, seed=1)
    kernel = nr.kernel_fn(spec)
    return [*kernel(x1, get=("nngp", "ntk")), kernel(x1, x2)]


@pytest.mark.parametrize("spec", slow_but_for(NETWORKS, NETWORKS[:2].count))
def test_matrices_do_not_depend_on_tiles(spec, few_at_once, monkeypatch):
    """Seven images in tiles of two, of which the last overlaps; 16 eps a block."""
    cut = kernels_of(spec)
    monkeypatch.undo()
    _matrix.clear_cache()
    for found, whole in zip(cut, kernels_of(spec), strict=True):
        size = np.abs(whole).max()
        np.testing.assert_allclose(found, whole, rtol=0, atol=48 * EPS * size)
    assert (cut[1] == cut[1].T).all()
    assert (np.diagonal(cut[1]) == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("readout", ["pool", "flatten"])
def test_derivatives_do_not_depend_on_tiles(readout, few_at_once, monkeypatch):
    spec = nr.ConvResNet(depth=2, **HALF, readout=readout)
    x = pictures(5, 4)
    weights = np.random.default_rng(2).normal(size=(5, 5))

    def value(x):
        return (weights * nr.kernel_fn(spec, normalised=False)(x)).sum()

    cut = jax.grad(value)(x)
    monkeypatch.undo()
    _matrix.clear_cache()
    whole = jax.grad(value)(x)
    np.testing.assert_allclose(cut, whole, rtol=0, atol=256 * EPS * np.abs(whole).max())


def test_tiles_cover_the_matrix_and_share_it_out_evenly():
    for count in range(1, 70):
        for most in range(1, 20):
            side = even_side(count, most)
            found = begins(count, side)
            covered = {k for begin in found for k in range(begin, begin + side)}
            assert side <= most
            assert covered == set(range(count))
            assert len(found) == -(-count // most)


def test_own_kernels_do_not_depend_on_how_many_images_go_together(monkeypatch):
    spec, x = nr.ConvResNet(depth=3, **HALF), pictures(7, 4)
    whole = matrices.log_diagonals(spec, jnp.asarray(x), np.ones(3))
    some = 3 * numbers_per_image(spec, x.shape[1:])
    monkeypatch.setattr(matrices, "_KEPT", some)
    seen, logs = [], matrices._logs
    monkeypatch.setattr(
        matrices, "_logs", lambda *args: seen.append(len(args[1])) or logs(*args)
    )
    cut = matrices.log_diagonals(spec, jnp.asarray(x), np.ones(3))
    assert seen == [3, 3, 3]
    np.testing.assert_allclose(cut, whole, rtol=0, atol=32 * EPS)


# ------------------------------------------------------------------------------ memory

DEEP = [
    nr.ConvNet(depth=500),
    nr.ConvResNet(depth=200, **HALF, block="postactivation"),
    nr.ConvResNet(
        depth=100, **HALF, block="full_preactivation", activation="erf", stages=(99, 1)
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("spec", [nr.myrtle(5), nr.ConvResNet(depth=5, **HALF), *DEEP])
def test_memory_is_what_tiles_are_chosen_by(spec):
    """By XLA's account; a few arrays of one plane may come and go."""
    x, scales = pictures(6, 16), np.ones(spec.depth)
    of = spec.without_scales, ("ntk",), False, x, None, scales
    used = _matrix.lower(*of).compile().memory_analysis().temp_size_in_bytes
    expected = 8 * numbers_for_pairs(spec, x.shape[1:], (6, 6))
    assert expected / 3 < used < 1.3 * expected


@pytest.mark.slow
@pytest.mark.parametrize("spec", DEEP, ids=str)
def test_memory_of_a_tile_counts_what_is_kept_of_each_image(spec):
    plan = make_plan(spec, pictures(8, 8), tile=8)
    tile = program(plan.mesh, plan.engine, (8, 8), True, False)
    given = plan.data, plan.rows, np.zeros((1, 1, 2), np.int32), np.ones((1, 1), bool)
    used = tile.lower(*given).compile().memory_analysis().temp_size_in_bytes
    assert plan.tile_bytes / 2 < used < 1.3 * plan.tile_bytes


AVERAGES = nr.ConvNet(depth=2, stages=(1, 1), downsampling="average")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "sides", "shape"),
    [
        (AVERAGES, (1, 2000), (16, 16, 3)),
        (nr.myrtle(5), (1, 300), (32, 32, 3)),
        (nr.ConvNet(depth=2), (1, 4096), (8, 8, 3)),
        (nr.ConvNet(depth=2), (128, 256), (8, 8, 512)),
        (nr.ConvResNet(depth=5, **HALF, readout="flatten"), (700, 700), (8, 8, 1)),
    ],
)
def test_memory_of_many_images(spec, sides, shape):
    """One with many, many channels, many of all; with the images' own kernels."""
    x1, x2 = (np.zeros((n, *shape)) for n in sides)
    of = spec.without_scales, ("ntk",), True, x1, x2, np.ones(spec.depth)
    used = _matrix.lower(*of).compile().memory_analysis().temp_size_in_bytes
    stated = 8 * numbers_for_pairs(spec, shape, sides)
    assert used < 1.3 * stated


@pytest.mark.slow
@pytest.mark.parametrize(("n", "side"), [(256, 32), (64, 64)])
def test_memory_of_own_kernels(n, side):
    spec = nr.myrtle(5) if side == 32 else AVERAGES
    of = spec.without_scales, np.zeros((n, side, side, 3)), np.ones(spec.depth), True
    used = matrices._logs.lower(*of).compile().memory_analysis().temp_size_in_bytes
    assert used < 8 * matrices._KEPT


@pytest.mark.parametrize("readout", ["pool", "flatten"])
def test_memory_does_not_grow_with_the_pairs(readout):
    """Four times as many images: four times what is kept of each, and of the sums."""
    spec = nr.ConvNet(depth=2, readout=readout)

    def used(n):
        of = spec.without_scales, ("nngp",), False, pictures(n, 8), None, np.ones(2)
        return _matrix.lower(*of).compile().memory_analysis().temp_size_in_bytes

    def stated(n):
        return 8 * numbers_for_pairs(spec, (8, 8, 2), (n, n))

    few, many = used(100), used(400)
    assert many < 1.3 * stated(400)
    assert many - few < 1.3 * (stated(400) - stated(100))
    assert many < 8 * 64 * 400**2 / 2  # not one plane of all pairs
