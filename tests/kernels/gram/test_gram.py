"""Gram matrices: against 50-digit arithmetic, the kernel function, and bad input."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gram_errors import ANGLES, KERNELS, errors, exact_gaps, planted
from marks import slow_but_for

import ntk_resnet as nr
from ntk_resnet._progress import quiet
from ntk_resnet.kernels.convolution.memory import numbers_for_pairs
from ntk_resnet.kernels.gram import programs
from ntk_resnet.kernels.gram.gram import _on_device, _write_share
from ntk_resnet.kernels.gram.make_plan import make_plan
from ntk_resnet.kernels.gram.plan import Plan
from ntk_resnet.kernels.gram.programs import program
from ntk_resnet.kernels.gram.tile_store import open_store
from ntk_resnet.kernels.gram.tiling import schedule

PLAIN = nr.FeedForward(depth=1000)
RESIDUAL = nr.ResNet(depth=1000, branch_scale=nr.DepthScale(0.5))
X = np.random.default_rng(0).normal(size=(130, 7))


def assert_close(matrix, spec, x, x2=None, *, get="ntk", normalised=True):
    """Within 1e-11 of the recursion, relative to the diagonal."""
    kernel = nr.kernel_fn(spec, engine="recursion", normalised=normalised)
    size = 1.0
    if not normalised:
        rows, columns = (nr.diag(spec, v, get) for v in (x, x if x2 is None else x2))
        size = np.sqrt(np.outer(rows, columns))
    assert np.abs((matrix - kernel(x, x2, get)) / size).max() <= 1e-11


def entries_of(spec, x, **how):
    half = len(x) // 2
    pairs = np.arange(half), np.arange(half) + half
    names = [name for kernel in KERNELS for name in (kernel, f"{kernel}_gap")]
    return {name: nr.gram(spec, x, get=name, **how)[pairs] for name in names}


@pytest.mark.parametrize("spec", [PLAIN, RESIDUAL], ids=["plain", "residual"])
@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_entries_against_fifty_digits(spec, angle, dtype):
    """What the docstring promises, at near-duplicates too."""
    x = planted(angle, 4, 64, dtype)
    worst = errors(entries_of(spec, x), exact_gaps(spec, x))
    assert worst["entry"] <= {"float64": 1e-11, "float32": 5e-6}[dtype]
    bound = {"float64": 1e-11, "float32": 2e-5}[dtype]
    assert max(worst["nngp_gap"], worst["ntk_gap"]) <= bound


def test_plain_products_are_right_to_the_rounding_of_a_cosine():
    """A gap that is off by 8 eps, of 0.46 at this angle."""
    for dtype in ("float64", "float32"):
        x = planted(1.0, 6, 64, dtype)
        worst = errors(entries_of(PLAIN, x, products="plain"), exact_gaps(PLAIN, x))
        assert max(worst.values()) <= max(8 / 0.46 * np.finfo(dtype).eps, 1e-11)


@functools.cache
def by_recursion():
    """Of all rows at once: one compilation for all sizes."""
    return np.asarray(nr.kernel_fn(RESIDUAL, engine="recursion")(X))


SIZES = [(1, None), (2, 1), (9, 1000), (127, 50), (128, 128), (130, None)]


@pytest.mark.parametrize(("n", "tile"), SIZES)
def test_any_size_and_any_tile(n, tile):
    matrix = nr.gram(RESIDUAL, X[:n], tile=tile)
    assert (matrix == matrix.T).all()
    assert (np.diag(matrix) == 1).all()
    assert np.abs(matrix - by_recursion()[:n, :n]).max() <= 1e-11


@pytest.mark.parametrize("tile", slow_but_for([None, 13, 64], lambda tile: tile != 13))
def test_rectangular(tile):
    x2 = np.concatenate([X[5:9], -X[3:6], X[:40] + 1e-7])
    for normalised in (True, False):
        matrix = nr.gram(PLAIN, X, x2, tile=tile, normalised=normalised)
        assert_close(matrix, PLAIN, X, x2, normalised=normalised)
    assert (matrix.shape, matrix.dtype) == ((130, 47), np.float64)


ENGINES = {
    "bias": nr.FeedForward(depth=5, bias_variance=0.1),
    "erf": nr.ResNet(depth=4, branch_scale=0.5, activation="erf"),
    "post-activation": nr.ResNet(depth=6, branch_scale=0.2, block="postactivation"),
}


@pytest.mark.parametrize(
    ("name", "normalised"),
    slow_but_for(
        itertools.product(ENGINES, (True, False)),
        {("bias", True), ("erf", False), ("post-activation", True)},
    ),
)
def test_every_network(name, normalised):
    spec = ENGINES[name]
    for get in ("ntk", "nngp"):
        matrix = nr.gram(spec, X[:40], get=get, normalised=normalised, tile=16)
        assert_close(matrix, spec, X[:40], get=get, normalised=normalised)
    sphere = X[:40] / np.linalg.norm(X[:40], axis=1, keepdims=True)
    by_profile = nr.gram(spec, sphere, engine="profile", normalised=normalised)
    assert_close(by_profile, spec, sphere, normalised=normalised)


def test_the_profile_is_taken_where_it_applies():
    sphere = X[:20] / np.linalg.norm(X[:20], axis=1, keepdims=True)
    for spec, x, engine in (
        (PLAIN, X, "profile"),
        (ENGINES["erf"], sphere, "profile"),
        (ENGINES["erf"], X, "recursion"),
        (ENGINES["bias"], sphere, "profile"),
    ):
        operator = nr.gram_operator(spec, x)
        assert operator.plan.engine.name == engine


def test_arguments_that_change_nothing_do_not_change_the_store(tmp_path):
    path = tmp_path / "gaps.zarr"
    nr.gram(RESIDUAL, X[:9], get="ntk_gap", store=path)
    nr.gram(RESIDUAL, X[:9], get="ntk_gap", normalised=False, store=path)
    path = tmp_path / "erf.zarr"
    nr.gram(ENGINES["erf"], X[:9], store=path)
    nr.gram(ENGINES["erf"], X[:9], products="plain", store=path)


def test_large_raw_kernels_do_not_warn():
    x = X[:5] * 1e153
    assert np.isfinite(nr.gram(ENGINES["erf"].replace(activation="relu"), x)).all()
    raw = nr.gram(nr.FeedForward(depth=3), x, normalised=False)
    assert np.isfinite(raw).all()


def test_many_duplicates():
    """More near-duplicates than a block gathers: all of it is done the slow way."""
    rng = np.random.default_rng(1)
    x = np.repeat(rng.normal(size=(3, 5)), 30, axis=0)
    x = x * (1 + 1e-9 * rng.normal(size=x.shape))
    gaps = nr.gram(PLAIN, x, get="ntk_gap", tile=30)
    want = nr.sweep_depth(PLAIN, 1000, x=x).ntk_gap[0]
    np.testing.assert_allclose(gaps, want, rtol=1e-6)  # of angles of 1e-9
    np.testing.assert_array_equal(nr.gram(PLAIN, np.ones((9, 4))), np.ones((9, 9)))


REFERENCE = "neural_tangents"


def test_tiles_by_neural_tangents():
    """The reference goes through the same door: to the root of eps next to 0."""
    spec, other = nr.FeedForward(depth=3), X[:5] + 1
    ours, theirs = (nr.gram(spec, X, engine=e, tile=48) for e in ("auto", REFERENCE))
    np.testing.assert_allclose(theirs, ours, atol=1e-7)
    off = ~np.eye(len(X), dtype=bool)
    np.testing.assert_allclose(theirs[off], ours[off], atol=1e-12)
    assert (np.diag(theirs) == 1).all()
    gaps = nr.gram(spec, X, other, "nngp_gap", engine=REFERENCE)
    np.testing.assert_allclose(gaps, nr.gram(spec, X, other, "nngp_gap"), atol=1e-12)
    images = np.random.default_rng(0).normal(size=(3, 4, 4, 2))
    convolutional = nr.ConvNet(depth=2)
    theirs = nr.gram(convolutional, images, engine=REFERENCE, normalised=False)
    ours = nr.gram(convolutional, images, normalised=False)
    np.testing.assert_allclose(theirs, ours, rtol=1e-7)


def test_what_one_accelerator_keeps_in_its_memory():
    """The same numbers, put together on the device; here the device is a CPU."""
    # The last row all but equals the first: it is refined, in the tile at the corner.
    near = np.concatenate([X[:-1], X[:1] * (1 + 1e-9)])
    for x, x2 in ((X, None), (X, X[:60] + 0.5), (near, None)):
        plan = make_plan(
            RESIDUAL, x, x2, "ntk", True, "auto", "split", 48, jax.local_devices()[:1]
        )
        (matrix,) = _on_device(plan, quiet)
        assert isinstance(matrix, jax.Array)
        np.testing.assert_array_equal(matrix, nr.gram(RESIDUAL, x, x2, tile=48))


def test_precision_and_types(as_users_run_it):
    with jax.enable_x64(False):
        matrix = nr.gram(PLAIN, X)
        assert matrix.dtype == np.float64
        assert nr.gram(PLAIN, X.astype(np.float32)).dtype == np.float32
        assert nr.gram(PLAIN, np.eye(3, dtype=int)).dtype == np.float32
    np.testing.assert_array_equal(matrix, nr.gram(PLAIN, jnp.asarray(X)))


def test_progress_counts_the_tiles():
    seen = []
    nr.gram(PLAIN, X, tile=50, progress=lambda *args: seen.append(args[:2]))
    assert seen == [(k, 6) for k in range(7)]


IMAGES = np.random.default_rng(0).normal(size=(5, 4, 6, 2)).astype(np.float32)
CONVOLUTIONAL = nr.ConvNet(depth=3)


@pytest.mark.parametrize("stored", [False, True])
def test_memory_is_stated_before_the_start(stored, tmp_path, monkeypatch):
    size = numbers_for_pairs(CONVOLUTIONAL, (4, 6, 2), (2, 2)) * 4  # bytes
    events, begin = [], Plan.start

    def noted(plan, some, **options):
        events.append("tile")
        return begin(plan, some, **options)

    monkeypatch.setattr(Plan, "start", noted)
    store = tmp_path / "k.zarr" if stored else None
    say = lambda done, total, text: events.append(text)  # noqa: E731
    nr.gram(CONVOLUTIONAL, IMAGES, tile=2, store=store, progress=say)
    text = f"tiles of 2 x 2, about {size / 1e6:.3g} MB each"
    assert events[:2] == [text, "tile"]


def test_memory_of_a_tile_follows_pairs_dtype_and_what_is_computed():
    def stated(x, get="ntk", **options):
        return make_plan(CONVOLUTIONAL, x, get=get, **options).tile_bytes

    least = stated(IMAGES, tile=1)
    assert 7 * least < stated(IMAGES, tile=3) < 9 * least  # fewer images a pair
    assert stated(IMAGES, tile=50) == stated(IMAGES, tile=5)  # there are no more
    assert stated(IMAGES.astype(float), tile=1) == 2 * least
    assert stated(IMAGES, "ntk_gap", tile=1) == 2 * least  # in float64
    rows = make_plan(PLAIN, X, tile=10)
    assert rows.tile_bytes == 100 * 12 * 8


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 5, 16])
def test_every_tile_is_scheduled_once_and_shares_cost_the_same(devices, each, side):
    pairs = [(i, j) for i in range(side) for j in range(i, side)]
    seen = []
    for shares in schedule(pairs, devices, each, halves=True):
        costs = [sum(1 if i == j else 2 for i, j in share) for share in shares]
        kinds = {i == j for share in shares for i, j in share}
        full = sum(map(len, shares)) == devices * each and len(kinds) == 1
        assert len(shares) == devices
        assert max(map(len, shares)) <= each
        assert max(costs) - min(costs) <= (0 if full else 2)  # at most one whole tile
        seen += itertools.chain(*shares)
    assert sorted(seen) == pairs


def test_where_all_tiles_cost_the_same_they_stay_in_order():
    pairs = [(0, 0), (0, 1), (1, 1), (0, 2)]
    found = list(schedule(pairs, 3, 1, halves=False))
    assert found == [[[(0, 0)], [(0, 1)], [(1, 1)]], [[(0, 2)], [], []]]


@pytest.mark.slow
@pytest.mark.parametrize("spec", [*ENGINES.values(), CONVOLUTIONAL], ids=str)
def test_memory_of_a_tile_is_about_what_its_program_takes(spec):
    x = np.tile(IMAGES, (8, 1, 1, 1)) if spec is CONVOLUTIONAL else np.tile(X, (3, 1))
    plan = make_plan(spec, x, tile=30)
    shape, symmetric = plan.tiling.block_shape, plan.tiling.symmetric
    tile = program(plan.mesh, plan.engine, shape, symmetric, True)
    corners, wanted = np.zeros((1, 1, 2), np.int32), np.ones((1, 1), bool)
    compiled = tile.lower(plan.data, plan.rows, corners, wanted).compile()
    memory = compiled.memory_analysis()
    used = memory.temp_size_in_bytes + memory.output_size_in_bytes
    assert plan.tile_bytes / 4 < used < 2 * plan.tile_bytes


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"x": X[0]}, r"x has shape \(7,\)"),
        ({"x": np.full((3, 2), np.nan)}, "x holds nan at row 0"),
        ({"x": np.zeros((3, 2))}, "only zeros in row 0"),
        ({"x": [["a"]]}, "x has dtype"),
        ({"x2": X[:, :3]}, "x and x2 must have rows of one shape"),
        ({"get": "ntks"}, "get must be one of"),
        ({"engine": "networks"}, "engine must be one of"),
        ({"products": "exact"}, "products must be one of"),
        ({"normalised": 1}, "normalised must be True or False"),
        ({"tile": 0}, "tile must be at least 1"),
        ({"tile": 2.5}, "tile must be a whole number"),
        ({"devices": []}, "devices must be some of"),
        ({"devices": ["cpu"]}, "devices must be some of"),
        ({"devices": jax.devices()[:1] * 2}, "devices must be some of"),
        ({"spec": "relu"}, "spec"),
        ({"spec": RESIDUAL.replace(branch_scale=0.0)}, "nothing is trained"),
        ({"spec": ENGINES["bias"], "engine": "profile"}, "needs inputs of one norm"),
        (
            {
                "spec": nr.ResNet(depth=2000, branch_scale=2.0),
                "normalised": False,
            },
            "raw ntk is beyond the range",
        ),
    ],
)
def test_bad_input(as_users_run_it, change, text):
    with pytest.raises(ValueError, match=text) as error:
        nr.gram(**({"spec": PLAIN, "x": X} | change))
    assert "\n" not in str(error.value)


def test_not_inside_a_trace(as_users_run_it):
    with pytest.raises(ValueError, match="x is traced"):
        jax.jit(lambda x: nr.gram(PLAIN, x))(X)


# ----------------------------------------------------------- what is compiled, and when


def test_the_program_for_a_tile_is_compiled_once(monkeypatch):
    calls = []
    tile_at = programs.tile_at

    def counted(*given, **how):
        calls.append(given)
        return tile_at(*given, **how)

    monkeypatch.setattr(programs, "tile_at", counted)
    x = np.random.default_rng(0).normal(size=(7, 3))
    for depth in (2, 3):  # depth is data
        nr.gram(nr.FeedForward(depth=depth), x)
    assert len(calls) == 1


def test_a_process_without_tiles_has_no_progress(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(4, 3))
    alone = make_plan(
        nr.FeedForward(depth=2), x, None, "ntk", True, "auto", "split", None, None
    )
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    store = open_store(tmp_path / "k", alone.tiling, alone.dtype, alone.identity())
    told: list = []
    _write_share(alone, store, lambda *said: told.append(said))
    assert alone.tiling.pairs() == [(0, 0)]
    assert told == []
