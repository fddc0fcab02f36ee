"""Kernels of images at many depths: one pass equals single networks, in any tiles."""

import json

import jax
import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.analysis.degeneracy import degeneracy
from ntk_resnet.cli import main
from ntk_resnet.kernels.convolution import depths as convolution_depths

EPS = np.finfo(float).eps
X = np.random.default_rng(0).normal(size=(5, 4, 6, 2))
FAMILIES = [
    nr.ConvNet(depth=1),
    nr.ConvNet(depth=1, readout="flatten", padding="circular"),
    nr.ConvNet(depth=1, activation="erf", bias_variance=0.1),
    nr.ConvResNet(depth=1, branch_scale=1.0, block="preactivation", trained="all"),
    nr.ConvResNet(depth=1, branch_scale=nr.DepthScale(0.5)),
    nr.ConvResNet(
        depth=1,
        branch_scale=nr.DecreasingScale(),
        block="postactivation",
        readout="flatten",
    ),
]


def assert_equal_to_single_networks(spec, depths, x):
    sweep = nr.sweep_depth(spec, depths, x=x)
    assert sweep.ntk.dims == ("depth", "row", "column")
    for depth in depths:
        raw = nr.kernel_fn(spec.replace(depth=depth), normalised=False)
        at, few = sweep.sel(depth=depth), 16 * EPS * depth
        for name, matrix in raw(x, get=("nngp", "ntk"))._asdict().items():
            own = np.diagonal(matrix)
            wanted = np.asarray(matrix) / np.sqrt(np.outer(own, own))
            np.testing.assert_allclose(at[name], wanted, atol=few, rtol=0)
            np.testing.assert_array_equal(at[f"{name}_gap"], 1 - at[name])
            np.testing.assert_allclose(at[f"log_{name}_diag"], np.log(own), atol=few)
            assert (np.diag(at[name]) == 1).all()
            assert (at[name].values == at[name].values.T).all()


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, id=str(k), marks=[] if k in (0, 4) else pytest.mark.slow)
        for k, spec in enumerate(FAMILIES)
    ],
)
def test_a_sweep_equals_one_network_at_a_time(spec):
    assert_equal_to_single_networks(spec, [1, 4], X)


def test_as_many_images_as_blocks():
    """Depth and images must not be taken for one another."""
    assert_equal_to_single_networks(nr.ConvNet(depth=1), [3], X[:3])


@pytest.mark.parametrize("spec", [FAMILIES[0], FAMILIES[4]])
def test_matrices_do_not_depend_on_tiles(spec, monkeypatch):
    x = np.random.default_rng(1).normal(size=(7, 3, 3, 1))
    seen = []
    whole = nr.sweep_depth(spec, [1, 3], x=x)
    monkeypatch.setattr(convolution_depths, "_LEAST", 3)
    monkeypatch.setattr(convolution_depths, "_HELD", 1)
    cut = nr.sweep_depth(spec, [1, 3], x=x, progress=lambda *a: seen.append(a))
    for name in whole:
        np.testing.assert_allclose(cut[name], whole[name], rtol=0, atol=32 * EPS)
    shares = [done / total for done, total, _ in seen]
    assert len(shares) == 6 * (1 if spec is FAMILIES[0] else 2)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_tiles_cover_the_triangle_and_stay_small():
    spec = nr.ConvNet(depth=1000)
    (job,) = convolution_depths._jobs(spec, [10, 1000])
    for n in (1, 5, 37, 200):
        tiles = convolution_depths._tiles(job, (n, 8, 8, 1))
        seen = np.zeros((n, n), bool)
        for row, column, side in tiles:
            assert (
                convolution_depths._held(job, (8, 8, 1), side)
                <= convolution_depths._HELD
            )
            seen[row : row + side, column : column + side] = True
        assert seen[np.triu_indices(n)].all()


@pytest.mark.slow
@pytest.mark.parametrize("readout", ["pool", "flatten"])
@pytest.mark.parametrize(("depth", "side"), [(1000, 4), (1000, 8), (200, 16)])
def test_a_tile_takes_no_more_memory_than_promised(depth, side, readout):
    """By XLA's account, also where several displacements go through together."""
    spec = nr.ConvResNet(depth=depth, branch_scale=0.5, readout=readout)
    (job,) = convolution_depths._jobs(spec, [depth])
    first, *_ = convolution_depths._tiles(job, (16, side, side, 3))
    x = np.zeros((first.side, side, side, 3))
    with jax.enable_x64():
        given = job.spec, x, x, job.scales, np.asarray(0)
        compiled = convolution_depths._between.lower(*given).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 100e6


def test_the_dtype_follows_the_images_but_gaps_keep_their_digits():
    x = np.concatenate([X[:2], X[:1] + 1e-4 * X[1:2]]).astype(np.float32)
    spec = nr.ConvNet(depth=1)
    narrow = nr.sweep_depth(spec, [8], x=x)
    wide = nr.sweep_depth(spec, [8], x=x.astype(np.float64))
    assert narrow.nngp_gap.dtype == np.float32
    off = ~np.eye(3, dtype=bool)
    for name in ("nngp_gap", "ntk_gap"):
        found, wanted = narrow[name].values[0][off], wide[name].values[0][off]
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_nothing_trained_is_nan():
    spec = nr.ConvResNet(depth=1, branch_scale=0.0, readout="flatten")
    assert np.isnan(nr.sweep_depth(spec, [2], x=X).ntk).all()
    with pytest.raises(ValueError, match="branch_scale is 0"):
        degeneracy(spec, [2], X)


@pytest.mark.parametrize("padding", ["zero", "circular"])
def test_what_the_plain_kernel_tends_to(padding):
    """Pooled 1/4 with zero padding, 1 / (1 + 3/P) if the image goes round."""
    x = np.random.default_rng(2).normal(size=(2, 3, 3, 1))
    spec = nr.ConvNet(depth=1, padding=padding)
    limit = 1 / 4 if padding == "zero" else 1 / (1 + 3 / 9)
    depths = [300, 3000]
    far = np.abs(nr.sweep_depth(spec, depths, x=x).ntk.values[:, 0, 1] - limit)
    # The distance falls like ln L / L, so over ten times the depth to 0.14 of itself.
    assert far[1] < 0.2 * far[0] < 0.02


def test_degeneracy_describes_the_matrix_and_predicts_nothing():
    spec = nr.ConvNet(depth=1, readout="flatten")
    table = degeneracy(spec, [1, 4], X)
    ntk = np.asarray(nr.kernel_fn(spec.replace(depth=4))(X))
    off = ntk[np.triu_indices(5, 1)]
    np.testing.assert_allclose(table.ntk_mean[1], off.mean(), rtol=1e-13)
    np.testing.assert_allclose(table.distance_one_block[0], 0, atol=64 * EPS)
    for name in table:
        assert table[name].isnull().all() == name.startswith("predicted")


# --------------------------------------------------------------------------- bad input


@pytest.mark.usefixtures("as_users_run_it")
def test_what_cannot_be_swept_is_one_line():
    staged = nr.ConvNet(depth=2, stages=(1, 1))
    for call, message in (
        (lambda: nr.sweep_depth(staged, [2], x=X), "has 2 stages"),
        (lambda: degeneracy(staged, [2], X), "has 2 stages"),
        (lambda: nr.sweep_depth(FAMILIES[0], [2], angles=[1.0]), "angles= is for"),
        (lambda: nr.sweep_depth(FAMILIES[0], [2], x=X[..., 0]), "array of images"),
        (lambda: nr.sweep_depth(nr.FeedForward(depth=1), [2], x=X), "one input a row"),
        (lambda: degeneracy(FAMILIES[0], [2], X[:1]), "one row"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


# -------------------------------------------------------------------------- the command


@pytest.fixture
def images(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 4, 4, 2))
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(20.0) % 2)
    return tmp_path / "own.npz"


def test_the_command_takes_convolutional_networks(capsys, tmp_path, images):
    path = tmp_path / "conv.json"
    path.write_text(nr.to_json(nr.ConvResNet(depth=1, branch_scale=nr.DepthScale(0.5))))
    args = ["depth", "--spec", path, "--data", images, "--depths", 1, 3, "--json"]
    args += ["--rows", 6, "--out", tmp_path / "out"]
    assert main.main([str(arg) for arg in args]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert [row["depth"] for row in answer["rows"]] == [1, 3]
    assert answer["rows"][0]["predicted_ntk"] is None
    assert answer["provenance"]["rows"] == 6
    assert (tmp_path / "out" / "depth.svg").exists()
    assert "depth 3" in captured.err


def test_the_command_refuses_rows_that_are_no_images(capsys, tmp_path):
    (tmp_path / "conv.json").write_text(nr.to_json(FAMILIES[0]))
    (tmp_path / "rows.csv").write_text("1,2,0\n3,5,1\n" * 10)
    args = ["depth", "--spec", tmp_path / "conv.json", "--data", tmp_path / "rows.csv"]
    assert main.main([str(arg) for arg in args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "holds no images" in captured.err
    assert captured.err.count("ntk-resnet: ") == 1
