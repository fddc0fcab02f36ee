"""Gram matrices do not depend on where they are computed, nor on what goes wrong."""

import errno
import itertools
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.kernels.gram.plan import Plan

ROOT = pathlib.Path(nr.__file__).parents[1]
SPEC = nr.ResNet(depth=30, branch_scale=nr.DepthScale(0.5))
RNG = np.random.default_rng(0)
X, X2 = RNG.standard_normal((170, 6)), RNG.standard_normal((103, 6))
IMAGES = RNG.standard_normal((7, 8, 8, 2))
CONVOLUTIONAL = nr.ConvResNet(depth=2, branch_scale=0.5)
TILE = 11  # 16 tiles a side, the last of them with 5 rows
PAIRS = [(i, j) for i in range(16) for j in range(i, 16)]


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory):
    """The processes started here need not all build the same profile and programs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NTK_RESNET_CACHE", "JAX_COMPILATION_CACHE_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield


def fill(path, **options):
    """The call that is killed, starved and resumed here; always the same."""
    return nr.gram(SPEC, X, store=path, tile=TILE, **options)


def start(code, *before, **variables):
    """Another process, as users run them: that runs `code` with this module as `t`."""
    code = f"import test_gram_devices as t; nr, np, jax = t.nr, t.np, t.jax\n{code}"
    paths = os.pathsep.join([str(ROOT), str(pathlib.Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        (*before, sys.executable, "-c", code), env={**environment, **variables}
    )


def run(code, *before, **variables):
    assert start(code, *before, **variables).wait(timeout=300) == 0


def tiles_of(path):
    """Content of every file but the metadata, which hold the time and the machine."""
    files = (p for p in pathlib.Path(path).rglob("*") if p.is_file())
    return {
        str(p.relative_to(path)): p.read_bytes() for p in files if p.name != "zarr.json"
    }


def finished(path):
    """The tiles that are in their place."""
    files = pathlib.Path(path).glob("c/*/*")
    return {(int(p.parent.name), int(p.name)) for p in files if p.name.isdigit()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "k.zarr"
    seen = []
    matrix = fill(path, progress=lambda *args: seen.append(args[:2]))
    assert seen == [(k, 136) for k in range(137)]
    np.testing.assert_array_equal(matrix, nr.gram(SPEC, X, tile=TILE))
    return tiles_of(path)


@pytest.fixture
def computed(monkeypatch):
    """The tiles that this process starts to compute, as they come."""
    pairs, begin = [], Plan.start

    def noted(plan, shares):
        pairs.extend(itertools.chain(*shares))
        return begin(plan, shares)

    monkeypatch.setattr(Plan, "start", noted)
    return pairs


def check_resumes(path, missing, computed, undisturbed):
    """Only what is missing is computed, and all is as if nothing had happened."""
    computed.clear()
    fill(path)
    assert sorted(computed) == sorted(missing)
    assert tiles_of(path) == undisturbed
    assert os.listdir(path.parent) == [path.name]


# ------------------------------------------------------------------- devices, processes

FOUR_DEVICES = """
assert len(jax.devices()) == 4
t.fill("k.zarr")
for dtype in {dtypes}:
    x, x2 = t.X.astype(dtype), t.X2.astype(dtype)
    np.save(f"square-{{dtype}}", nr.gram(t.SPEC, x, tile=t.TILE))
    if {rectangular}:
        np.save(f"rectangle-{{dtype}}", nr.gram(t.SPEC, x, x2, "nngp", tile=48))
"""


@pytest.mark.parametrize(
    ("dtypes", "rectangular"),
    [
        (["float64"], False),
        pytest.param(["float32", "float64"], True, marks=pytest.mark.slow),
    ],
)
def test_four_devices_do_what_one_does(
    tmp_path, monkeypatch, undisturbed, dtypes, rectangular
):
    """Bit for bit, with JAX's x64 mode off there and on here; 136 tiles, 4 a round."""
    monkeypatch.chdir(tmp_path)
    flags = "--xla_force_host_platform_device_count=4"
    run(
        FOUR_DEVICES.format(dtypes=dtypes, rectangular=rectangular),
        XLA_FLAGS=flags,
    )
    assert tiles_of("k.zarr") == undisturbed
    for dtype in dtypes:
        x, x2 = X.astype(dtype), X2.astype(dtype)
        wanted = nr.gram(SPEC, x, tile=TILE)
        np.testing.assert_array_equal(np.load(f"square-{dtype}.npy"), wanted)
        if rectangular:
            wanted = nr.gram(SPEC, x, x2, "nngp", tile=48)
            np.testing.assert_array_equal(np.load(f"rectangle-{dtype}.npy"), wanted)


@pytest.mark.slow
def test_images_on_four_devices(tmp_path, monkeypatch):
    """Bit for bit, killed in the midst and begun again."""
    monkeypatch.chdir(tmp_path)
    fill = "nr.gram(t.CONVOLUTIONAL, t.IMAGES, tile=2, store='k.zarr'{})"
    stop = "lambda done, *_: done < 5 or os.kill(os.getpid(), 9)"
    flags = "--xla_force_host_platform_device_count=4"
    killed = start(f"import os; {fill.format(f', progress={stop}')}", XLA_FLAGS=flags)
    assert killed.wait(timeout=300) == -signal.SIGKILL
    assert 5 <= len(finished("k.zarr")) < 10
    run(fill.format(""), XLA_FLAGS=flags)
    wanted = nr.gram(CONVOLUTIONAL, IMAGES, tile=2)
    np.testing.assert_array_equal(nr.open_gram("k.zarr"), wanted)


BOTH = """
jax.distributed.initialize("localhost:{port}", num_processes=2, process_id={process})
assert (jax.process_count(), len(jax.devices())) == (2, 2 * {local})
"""

HALF_A_STORE = """
seen = []
matrix = t.fill("k.zarr", progress=lambda *args: seen.append(args[:2]))
assert seen == [(k, 68) for k in range(69)], seen  # each its half
assert np.isfinite(matrix).all()  # each sees the work of both
try:
    nr.gram(t.SPEC, t.X)
except ValueError as error:
    assert "name a folder that all of them can write to" in str(error)
else:
    raise AssertionError("each would have half a matrix")
"""

PRODUCTS = """
for dtype in ("float32", "float64"):
    op = nr.gram_operator(t.SPEC, t.X.astype(dtype), tile=t.TILE)
    np.save(f"{dtype}-{jax.process_index()}", op @ t.X[:, :2])
    np.save(f"twice-{dtype}-{jax.process_index()}", op @ (op @ t.X[:, 0]))
"""

ONE_FULL_DISK = """
def full(source, target):
    raise OSError(28, "No space left on device")

if jax.process_index() == 1:
    t.pathlib.Path.replace = full
try:
    t.fill("k.zarr")
except OSError as error:
    expected = ["another process could not make its", "No space left on device"]
    assert expected[jax.process_index()] in str(error)
else:
    raise AssertionError("half of the store is missing")
"""


def run_two(code, local=1):
    """Two processes with so many devices each, which know of each other."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={local}"
    both = [BOTH.format(port=port, process=k, local=local) + code for k in (0, 1)]
    processes = [start(code, XLA_FLAGS=flags) for code in both]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("local", [1, 2])
def test_two_processes_fill_one_store(tmp_path, monkeypatch, undisturbed, local):
    monkeypatch.chdir(tmp_path)
    run_two(HALF_A_STORE, local)
    assert tiles_of("k.zarr") == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("local", [1, 2])
def test_two_processes_share_the_products(tmp_path, monkeypatch, local):
    """Shares are summed in another order: within the rounding of the terms."""
    monkeypatch.chdir(tmp_path)
    run_two(PRODUCTS, local)
    matrix = nr.gram(SPEC, X)
    for dtype in ("float32", "float64"):
        first, second = (np.load(f"{dtype}-{k}.npy") for k in (0, 1))
        np.testing.assert_array_equal(first, second)
        bound = 8 * np.finfo(dtype).eps * np.abs(X[:, :2]).sum(axis=0)
        assert (np.abs(first - matrix @ X[:, :2]) < bound).all()
        twice = np.load(f"twice-{dtype}-0.npy")
        np.testing.assert_array_equal(twice, np.load(f"twice-{dtype}-1.npy"))


@pytest.mark.slow
def test_a_full_disk_of_one_process_ends_both(
    tmp_path, monkeypatch, computed, undisturbed
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "k.zarr"
    np.asarray(fill(path))
    for file in path.glob("c/*/*"):
        file.unlink()
    run_two(ONE_FULL_DISK)
    assert sorted(finished(path)) == PAIRS[::2]
    check_resumes(path, PAIRS[1::2], computed, undisturbed)


# ------------------------------------------------------------------- kills and resuming


def kill_soon(path, count, delay=0.0):
    """Starts a run and kills it once the store holds `count` tiles, after a delay."""
    process = start(f"t.fill({str(path)!r}, progress=lambda *_: t.time.sleep(0.002))")
    deadline = time.monotonic() + 120
    while len(finished(path)) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    return finished(path)


@pytest.mark.quick
def test_a_killed_run_is_resumed(tmp_path, undisturbed, computed):
    path = tmp_path / "k.zarr"
    there = kill_soon(path, 40)
    assert 40 <= len(there) < len(PAIRS)
    check_resumes(path, set(PAIRS) - there, computed, undisturbed)
    check_resumes(path, [], computed, undisturbed)


@pytest.mark.slow
def test_it_may_be_killed_again_and_again(tmp_path, undisturbed, computed):
    """Before there is a tile, while the store is made, and in the middle of tiles."""
    path, rng = tmp_path / "k.zarr", random.Random(0)
    there: set[tuple[int, int]] = set()
    for count in (0, 0, 1, 20, 50, 80, 110):
        delay = rng.random() * (4 if count == 0 else 0.01)
        before, there = there, kill_soon(path, count, delay)
        assert before <= there
    assert len(there) < len(PAIRS)
    check_resumes(path, set(PAIRS) - there, computed, undisturbed)


@pytest.fixture(scope="module")
def whole(undisturbed, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "k.zarr"
    fill(path)
    return path


@pytest.fixture
def copy(whole, tmp_path):
    return pathlib.Path(shutil.copytree(whole, tmp_path / "k.zarr"))


def test_damaged_tiles_are_computed_again(copy, computed, undisturbed):
    chunks = {pair: copy.joinpath("c", *map(str, pair)) for pair in PAIRS[30:33]}
    flipped, cut, gone = chunks.values()
    content = bytearray(flipped.read_bytes())
    content[100] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-7])
    gone.unlink()
    with pytest.raises(ValueError, match="run the call that made the store again"):
        np.asarray(nr.open_gram(copy))
    check_resumes(copy, list(chunks), computed, undisturbed)


def test_the_tile_side_is_that_of_the_store(copy, computed):
    nr.gram(SPEC, X, store=copy)
    assert computed == []


def test_a_store_of_another_matrix_is_refused(copy, computed, undisturbed):
    other = X.copy()
    other[-1, -1] = np.nextafter(other[-1, -1], 9)
    cases = [
        ((SPEC, other), {}, "made from other data (x1)"),
        ((SPEC, X, X2), {}, "made from other data (x2)"),
        ((SPEC, X, X), {}, "symmetric true, not false"),
        ((SPEC, X.astype(np.float32)), {}, 'dtype "float64", not "float32"'),
        ((SPEC.replace(depth=31), X), {}, "another spec: depth 30, not 31"),
        (
            (nr.FeedForward(depth=30), X),
            {},
            'another spec: kind "ResNet", not "FeedFor',
        ),
        ((SPEC, X), {"get": "nngp"}, 'get "ntk", not "nngp"'),
        ((SPEC, X), {"normalised": False}, "normalised 1, not 0"),
        ((SPEC, X), {"engine": "recursion"}, 'engine "profile", not "recursion"'),
        ((SPEC, X), {"products": "plain"}, 'products "split", not "plain"'),
        ((SPEC, X), {"tile": 12}, "tile 11, not 12"),
    ]
    for args, options, difference in cases:
        with pytest.raises(ValueError, match="holds another matrix: ") as refusal:
            nr.gram(*args, store=copy, **options)
        assert difference in str(refusal.value)
        assert "\n" not in str(refusal.value)
    assert computed == []
    assert tiles_of(copy) == undisturbed


# --------------------------------------------------------------------------- full disks


def test_a_full_disk_ends_the_run_and_keeps_the_tiles(
    tmp_path, monkeypatch, computed, undisturbed
):
    path, replace, count = tmp_path / "k.zarr", pathlib.Path.replace, 0

    def until_full(source, target):
        nonlocal count
        count += 1
        if count > 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "replace", until_full)
        with pytest.raises(OSError, match="No space left on device; the fin") as error:
            fill(path)
    assert "run the same call again to go on" in str(error.value)
    there = finished(path)
    assert 40 < len(there) < 50  # and zarr.json
    check_resumes(path, set(PAIRS) - there, computed, undisturbed)


SMALL_DISK = """
try:
    t.fill({full!r})
except OSError as error:
    open({said!r}, "w").write(str(error))
t.shutil.copytree({full!r}, {path!r})
"""


@pytest.mark.slow
def test_a_disk_that_really_is_full(tmp_path, computed, undisturbed):
    """400 kB of memory as a file system, in a process that may mount it."""
    rights = ("unshare", "--user", "--map-root-user", "--mount")
    mount = ("sh", "-c", 'mount -t tmpfs -o size=400k none "$0" && exec "$@"')
    disk, said = tmp_path / "disk", tmp_path / "said"
    path = tmp_path / "rescued" / "k.zarr"
    disk.mkdir()
    try:
        before = (*rights, *mount, str(disk))
        subprocess.run((*before, "true"), check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("this system lets no user mount a file system")
    code = SMALL_DISK.format(full=str(disk / "k.zarr"), said=str(said), path=str(path))
    run(code, *before)
    assert "No space left on device" in said.read_text()
    there = finished(path)
    assert 0 < len(there) < len(PAIRS)
    check_resumes(path, set(PAIRS) - there, computed, undisturbed)


def test_the_library_leaves_the_settings_of_jax_alone(tmp_path):
    with jax.enable_x64(False):
        fill(tmp_path / "k.zarr")
        assert jax.numpy.zeros(()).dtype == np.float32
