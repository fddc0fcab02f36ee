"""A stored matrix survives kills and full disks, hiding neither damage nor origin."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
import zarr

import ntk_resnet as nr
from ntk_resnet.kernels.gram import origin, stored, tile_store
from ntk_resnet.kernels.gram.tile_store import open_store
from ntk_resnet.kernels.gram.tiling import Tiling
from ntk_resnet.records.provenance import provenance

SPEC = nr.ResNet(depth=3, branch_scale=nr.DepthScale(0.5))
X = np.random.default_rng(0).standard_normal((6, 3))
IDENTITY = {"spec": nr.to_json(SPEC), "kernel": "ntk", "seconds": 0.1}
BIG = Tiling(1500, 1500, 250, symmetric=True)  # 21 tiles of 0.5 MB


def full_matrix(tiling, dtype="float64"):
    values = np.random.default_rng(1).standard_normal((tiling.rows, tiling.columns))
    if tiling.symmetric:
        values = values + values.T
    return values.astype(dtype)


def fill(path, tiling=BIG, pairs=None, dtype="float64"):
    """Does what a run does: opens, writes the tiles that are missing, finishes."""
    store, values = (
        open_store(path, tiling, dtype, IDENTITY),
        full_matrix(tiling, dtype),
    )
    for i, j in store.missing(pairs):
        store.write(i, j, values[tiling.slices(i, j)])
    if pairs is None:
        store.finish()
    return store


def start(code, *before):
    """Another process, that runs `code` with this module imported as `t`."""
    head = f"import sys; sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})"
    return subprocess.Popen(
        (*before, sys.executable, "-c", f"{head}\nimport test_tile_store as t\n{code}"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


FORK = """
import json, os
for line in sys.stdin:
    pids = []
    for code in json.loads(line):
        pids.append(os.fork())
        if pids[-1] == 0:
            exec(code)
            os._exit(0)
    print(json.dumps(pids), flush=True)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    print(json.dumps(codes), flush=True)
"""


class Runs:
    """Processes forked from one that has imported everything: they start at once."""

    def __init__(self):
        self._parent = start(FORK)

    def begin(self, *codes):
        """Starts a process for each code and returns their ids."""
        self._parent.stdin.write(json.dumps(codes) + "\n")
        self._parent.stdin.flush()
        return json.loads(self._parent.stdout.readline())

    def end(self):
        """Waits for them and returns their exit codes."""
        return json.loads(self._parent.stdout.readline())

    def close(self):
        self._parent.communicate(timeout=60)


@pytest.fixture(scope="module")
def runs():
    runs = Runs()
    yield runs
    runs.close()


def tiles_of(path):
    """Content of every file but the metadata, which hold the time."""
    files = (p for p in pathlib.Path(path).rglob("*") if p.is_file())
    return {
        str(p.relative_to(path)): p.read_bytes() for p in files if p.name != "zarr.json"
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "k.zarr"
    fill(path)
    return tiles_of(path)


# ------------------------------------------------------------------------------- tiling

TILINGS = [
    Tiling(1, 1, 1, symmetric=True),
    Tiling(1, 1, 100, symmetric=True),
    Tiling(7, 7, 3, symmetric=True),
    Tiling(7, 7, 7, symmetric=True),
    Tiling(8, 8, 4, symmetric=True),
    Tiling(5, 5, 64, symmetric=True),
    Tiling(7, 7, 3, symmetric=False),
    Tiling(7, 4, 3, symmetric=False),
    Tiling(1, 9, 4, symmetric=False),
    Tiling(10, 2, 100, symmetric=False),
]


def name_of(tiling):
    shape = f"{tiling.rows}x{tiling.columns}-{tiling.tile}"
    return shape + "-symmetric" * tiling.symmetric


@pytest.fixture(params=TILINGS, ids=name_of)
def tiling(request):
    return request.param


def test_tiles_cover_the_matrix_once(tiling):
    count = np.zeros((tiling.rows, tiling.columns), int)
    for i, j in tiling.pairs():
        assert count[tiling.slices(i, j)].shape == tiling.shape(i, j)
        count[tiling.slices(i, j)] += 1
        if tiling.symmetric and i != j:
            count.T[tiling.slices(i, j)] += 1
    np.testing.assert_array_equal(count, 1)
    assert tiling.pairs() == sorted(tiling.pairs())


def test_what_is_no_tile_is_refused():
    tiling = Tiling(7, 7, 3, symmetric=True)
    for pair in [(3, 3), (0, 3), (-1, 0), (1, 0)]:
        with pytest.raises(ValueError, match="is no tile of"):
            tiling.slices(*pair)


def test_a_tiling_that_cannot_be_is_refused(as_users_run_it):
    with pytest.raises(ValueError, match="must be square, got 3 rows and 4 columns"):
        Tiling(3, 4, 2, symmetric=True)
    with pytest.raises(ValueError, match="tile must be at least 1, got 0"):
        Tiling(3, 3, 0, symmetric=True)
    with pytest.raises(ValueError, match="rows must be a whole number"):
        Tiling(3.5, 3, 1, symmetric=False)


# ------------------------------------------------------------------ writing and reading


@pytest.mark.quick
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip_is_bit_identical(tmp_path, tiling, dtype):
    values = full_matrix(tiling, dtype)
    store = open_store(tmp_path / "k.zarr", tiling, dtype, IDENTITY)
    assert store.missing() == tiling.pairs()
    fill(tmp_path / "k.zarr", tiling, dtype=dtype)
    assert store.missing() == []
    matrix = stored.open_gram(tmp_path / "k.zarr")
    assert (matrix.shape, matrix.ndim, matrix.dtype) == (values.shape, 2, dtype)
    assert len(matrix) == len(values)
    np.testing.assert_array_equal(np.asarray(matrix), values, strict=True)
    assert len(tiles_of(tmp_path / "k.zarr")) == len(tiling.pairs())


def test_tiles_may_come_from_jax_and_hold_anything(tmp_path):
    tiling = Tiling(4, 4, 2, symmetric=False)
    store = open_store(tmp_path / "k.zarr", tiling, np.float32, IDENTITY)
    for pair, value in zip(tiling.pairs(), (np.nan, 0.0, -0.0, np.inf), strict=True):
        store.write(*pair, jnp.full((2, 2), value, jnp.float32))
    assert store.missing() == []  # zarr would leave tiles of its fill value out
    assert store.read(0, 0).tobytes() == np.full((2, 2), np.nan, "f4").tobytes()
    assert np.signbit(store.read(1, 0)).all()


@pytest.mark.quick
def test_other_readers_of_zarr_see_the_upper_triangle(tmp_path):
    tiling = Tiling(5, 5, 2, symmetric=True)
    fill(tmp_path / "k.zarr", tiling)
    found = zarr.open_array(tmp_path / "k.zarr", mode="r")[...]
    stored_entries = np.zeros((5, 5), bool)
    for pair in tiling.pairs():
        stored_entries[tiling.slices(*pair)] = True
    wanted = np.where(stored_entries, full_matrix(tiling), np.nan)
    np.testing.assert_array_equal(found, wanted)


def test_values_that_do_not_fit_are_refused(tmp_path):
    store = open_store(
        tmp_path / "k.zarr", Tiling(5, 5, 3, symmetric=True), "float64", IDENTITY
    )
    with pytest.raises(ValueError, match=r"tile \(0, 1\) are float64 \(3, 3\); pass"):
        store.write(0, 1, np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"are float32 \(3, 2\); pass float64 \(3, 2"):
        store.write(0, 1, np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="is no tile"):
        store.write(1, 0, np.zeros((2, 3)))
    assert not tiles_of(tmp_path / "k.zarr")


INDICES = [
    2,
    -1,
    np.int64(3),
    slice(None),
    slice(1, 6, 2),
    slice(None, None, -1),
    slice(3, 3),
    ...,
    [],
    [4, 0, 0, -7],
    np.arange(2, 5),
    np.array([[1, 6], [6, 0]]),
    np.arange(7) % 3 == 0,
    np.zeros(7, bool),
]


@pytest.mark.parametrize("symmetric", [True, False])
def test_indexing_is_numpys(tmp_path, symmetric):
    tiling = Tiling(7, 7, 3, symmetric=symmetric)
    fill(tmp_path / "k.zarr", tiling)
    matrix, values = stored.open_gram(tmp_path / "k.zarr"), full_matrix(tiling)
    np.testing.assert_array_equal(matrix[...], values)
    compared = 0
    for rows in INDICES:
        np.testing.assert_array_equal(matrix[rows], values[rows], strict=True)
        for columns in [*INDICES, np.array([[1, 2]])]:
            if rows is columns is ...:
                continue
            try:
                wanted = values[rows, columns]
            except IndexError:
                with pytest.raises((IndexError, ValueError), match="shape mismatch"):
                    matrix[rows, columns]
                continue
            found = matrix[rows, columns]
            np.testing.assert_array_equal(found, wanted, strict=True)
            assert type(found) is type(wanted)
            compared += 1
    assert compared > 150
    mesh = np.ix_([6, 0, 2, 2], [5, 1])
    np.testing.assert_array_equal(matrix[mesh], values[mesh], strict=True)
    diagonal = np.arange(7)
    np.testing.assert_array_equal(matrix[diagonal, diagonal], np.diag(values))
    for bad in [(7,), (0, -8), (0, 0, 0), (None, 0), (1.5,), (True, 0), ([0.5],)]:
        with pytest.raises(IndexError):
            matrix[bad]


def test_only_the_tiles_needed_are_read_and_each_once(tmp_path, monkeypatch):
    tiling = Tiling(9, 9, 3, symmetric=True)
    fill(tmp_path / "k.zarr", tiling)
    matrix, seen = stored.open_gram(tmp_path / "k.zarr"), []
    read = tile_store.TileStore.read

    def noted(store, i, j):
        seen.append((i, j))
        return read(store, i, j)

    monkeypatch.setattr(tile_store.TileStore, "read", noted)
    np.asarray(matrix)
    assert sorted(seen) == tiling.pairs()
    seen.clear()
    matrix[7, [0, 8]]
    assert sorted(seen) == [(0, 2), (2, 2)]
    seen.clear()
    matrix[[0, 8, 0], [8, 0, 1]]
    assert sorted(seen) == [(0, 0), (0, 2)]


def test_arrays_of_a_stored_matrix(tmp_path):
    tiling = Tiling(5, 4, 3, symmetric=False)
    fill(tmp_path / "k.zarr", tiling)
    matrix, values = stored.open_gram(tmp_path / "k.zarr"), full_matrix(tiling)
    single = np.asarray(matrix, np.float32)
    np.testing.assert_array_equal(single, values.astype(np.float32), strict=True)
    np.testing.assert_array_equal(jnp.asarray(matrix), values)
    with pytest.raises(ValueError, match="without a copy"):
        np.array(matrix, copy=False)
    assert "(5, 4) float64" in repr(matrix)


# ------------------------------------------------------------------- kills and resuming


@pytest.mark.quick
def test_any_number_of_kills_costs_nothing(tmp_path, runs, undisturbed):
    """kill -9 soon after one more tile is there, at whatever the run does then."""
    path, rng, kills = tmp_path / "k.zarr", random.Random(0), 0
    there: set[tuple[int, int]] = set()
    while len(there) < len(BIG.pairs()):
        (process,) = runs.begin(f"t.fill({str(path)!r})")
        deadline = time.monotonic() + 60
        while len(finished(path)) <= len(there) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.random() / 1000)
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(process, signal.SIGKILL)
        (code,) = runs.end()
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        there = finished(path)
        store = open_store(path, BIG, "float64", IDENTITY)
        assert sorted({*store.missing(), *there}) == BIG.pairs()
        assert not there & set(store.missing())  # what is there is whole
    assert kills >= 3
    fill(path)
    assert tiles_of(path) == undisturbed  # and nothing half-written is left


def finished(path):
    """The tiles whose files are in place."""
    return {(int(p.parent.name), int(p.name)) for p in path.glob("c/*/[0-9]")}


@pytest.mark.parametrize("moment", ["making", "writing"])
def test_a_kill_just_before_a_rename_costs_nothing(tmp_path, runs, moment):
    """The worst moments, one by one; what they leave is cleared away in the end."""
    path, tiling = tmp_path / "k.zarr", Tiling(5, 5, 2, symmetric=True)
    if moment == "writing":
        open_store(path, tiling, "float64", IDENTITY)
    rename = {"making": "rename", "writing": "replace"}[moment]
    runs.begin(
        "import os, signal\n"
        f"os.{rename} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"t.fill({str(path)!r}, t.Tiling(5, 5, 2, symmetric=True))"
    )
    assert runs.end() == [-signal.SIGKILL]
    assert len(list(tmp_path.rglob("*.partial"))) == 1
    fill(path, tiling)
    assert os.listdir(tmp_path) == ["k.zarr"]
    assert set(tiles_of(path)) == {f"c/{i}/{j}" for i, j in tiling.pairs()}
    np.testing.assert_array_equal(stored.open_gram(path), full_matrix(tiling))


def test_several_processes_fill_one_store(tmp_path, runs, undisturbed):
    """All make or open it at the same moment; each writes a third of the tiles."""
    for attempt in range(3):
        path = tmp_path / str(attempt) / "k.zarr"
        part = f"t.fill({str(path)!r}, pairs=t.BIG.pairs()[{{}}::3])"
        runs.begin(*(part.format(k) for k in range(3)))
        assert runs.end() == [0, 0, 0]
        store = open_store(path, BIG, "float64", IDENTITY)
        assert store.missing() == []
        assert tiles_of(path) == undisturbed
        assert os.listdir(path.parent) == ["k.zarr"]


def test_of_two_that_make_the_same_store_one_is_first(tmp_path, monkeypatch):
    path, tiling = tmp_path / "k.zarr", Tiling(3, 3, 2, symmetric=True)
    rename = os.rename

    def after_another(source, target):
        monkeypatch.setattr(os, "rename", rename)
        open_store(path, tiling, "float64", {**IDENTITY, "kernel": "nngp"})
        rename(source, target)

    monkeypatch.setattr(os, "rename", after_another)
    with pytest.raises(ValueError, match='kernel "nngp", not "ntk"'):
        open_store(path, tiling, "float64", IDENTITY)
    assert stored.open_gram(path).attrs["kernel"] == "nngp"
    assert os.listdir(tmp_path) == ["k.zarr"]


def test_a_tile_that_another_run_finished_first_is_no_error(tmp_path, monkeypatch):
    path, tiling = tmp_path / "k.zarr", Tiling(2, 2, 2, symmetric=True)
    store = open_store(path, tiling, "float64", IDENTITY)
    replace = pathlib.Path.replace

    def after_another(source, target):
        monkeypatch.setattr(pathlib.Path, "replace", replace)
        fill(path, tiling)  # whose finish() removes our file
        return replace(source, target)

    monkeypatch.setattr(pathlib.Path, "replace", after_another)
    store.write(0, 0, full_matrix(tiling))
    assert store.missing() == []


def test_an_empty_folder_may_be_waiting(tmp_path):
    (tmp_path / "k.zarr").mkdir()
    tiling = Tiling(3, 3, 2, symmetric=True)
    assert fill(tmp_path / "k.zarr", tiling).missing() == []
    assert fill(tmp_path / "a" / "b" / "k.zarr", tiling).missing() == []


# --------------------------------------------------------------------------- full disks


def check_resumes_after(error, path):
    assert "cannot write tile (" in error
    assert f"of the store {str(path)!r}" in error
    assert "the finished tiles are kept" in error
    assert "run the same call again" in error
    assert "\n" not in error
    assert not list(path.rglob("*.partial"))
    store = open_store(path, BIG, "float64", IDENTITY)
    assert 0 < len(store.missing()) < len(BIG.pairs())
    assert fill(path).missing() == []


FILL_AND_SAY = """
try:
    t.fill({path!r})
except OSError as error:
    open({said!r}, "w").write(str(error))
"""


def test_a_full_disk_is_an_error_after_which_one_can_go_on(tmp_path, undisturbed):
    """A real one: 3 MB of memory as a file system, in a process that may mount it."""
    rights = ("unshare", "--user", "--map-root-user", "--mount")
    mount = ("sh", "-c", 'mount -t tmpfs -o size=3m none "$0" && exec "$@"')
    disk, path, said = tmp_path / "disk", tmp_path / "k.zarr", tmp_path / "said"
    disk.mkdir()
    try:
        subprocess.run((*rights, *mount, disk, "true"), check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("this system lets no user mount a file system")
    full = str(disk / "k.zarr")
    code = FILL_AND_SAY.format(path=full, said=str(said))
    code += f"import shutil; shutil.copytree({full!r}, {str(path)!r})"
    process = start(code, *rights, *mount, str(disk))
    process.communicate(timeout=300)
    assert process.returncode == 0
    error = said.read_text()
    assert "No space left on device" in error
    check_resumes_after(error.replace(full, str(path)), path)
    assert tiles_of(path) == undisturbed


def test_a_file_cut_short_by_the_system_is_the_same(tmp_path, runs, undisturbed):
    """A limit on the size of files makes a write fail in its middle."""
    path, said = tmp_path / "k.zarr", tmp_path / "said"
    fill(path, pairs=BIG.pairs()[:3])
    runs.begin(
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
        + FILL_AND_SAY.format(path=str(path), said=str(said))
    )
    assert runs.end() == [0]
    assert "File too large" in said.read_text()
    check_resumes_after(said.read_text(), path)
    assert tiles_of(path) == undisturbed


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "k.zarr"
    with pytest.raises(OSError, match=r"cannot make the store '.*k\.zarr': "):
        open_store(path, BIG, "float64", IDENTITY)


# ------------------------------------------------------------------------------- damage


@pytest.fixture
def small(tmp_path):
    """A finished store of four small tiles, and its matrix."""
    tiling = Tiling(5, 5, 3, symmetric=True)
    fill(tmp_path / "k.zarr", tiling)
    return tmp_path / "k.zarr", tiling, full_matrix(tiling)


def check_noticed_and_mended(path, tiling, values, pair, word):
    i, j = pair
    store, matrix = (
        open_store(path, tiling, "float64", IDENTITY),
        stored.open_gram(path),
    )
    message = rf"tile \({i}, {j}\) of .*\(rows 0 to 2, columns 3 to 4\) is {word}; run "
    with pytest.raises(ValueError, match=message):
        store.read(i, j)
    for read in (
        lambda: matrix[0, 4],
        lambda: matrix[4, 0],
        lambda: np.asarray(matrix),
    ):
        with pytest.raises(ValueError, match=message):
            read()
    np.testing.assert_array_equal(matrix[:3, :3], values[:3, :3])
    assert store.missing() == [pair]
    assert store.missing([(0, 0), (1, 1)]) == []
    store.write(i, j, values[tiling.slices(i, j)])
    assert store.missing() == []


def test_every_byte_of_a_tile_counts(small):
    path, tiling, values = small
    chunk = path / "c" / "0" / "1"
    content = chunk.read_bytes()
    assert len(content) == 3 * 3 * 8 + 4  # an edge tile is stored in full
    store = tile_store.TileStore(path, tile_store.read_attributes(path), mode="r")
    for place in range(len(content)):
        for bit in (0, 7):
            broken = bytearray(content)
            broken[place] ^= 1 << bit
            chunk.write_bytes(broken)
            assert store.missing() == [(0, 1)], (place, bit)
    check_noticed_and_mended(path, tiling, values, (0, 1), "damaged")
    assert chunk.read_bytes() == content


def test_every_length_of_a_tile_counts(small):
    path, tiling, values = small
    chunk = path / "c" / "0" / "1"
    content = chunk.read_bytes()
    store = tile_store.TileStore(path, tile_store.read_attributes(path), mode="r")
    wrong = [content[:length] for length in range(len(content))]
    wrong += [content + b"\0", content + content, bytes(4), bytes(len(content))]
    for broken in wrong:
        chunk.write_bytes(broken)
        assert store.missing() == [(0, 1)], len(broken)
    check_noticed_and_mended(path, tiling, values, (0, 1), "damaged")
    chunk.unlink()
    check_noticed_and_mended(path, tiling, values, (0, 1), "missing")


def test_a_disk_that_cannot_read_a_tile_counts_as_damage(small, monkeypatch):
    path, _, _ = small
    matrix = stored.open_gram(path)

    def unreadable(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(pathlib.Path, "read_bytes", unreadable)
    with pytest.raises(ValueError, match=r"tile \(0, 0\) .* is damaged"):
        matrix[0, 0]


def test_every_byte_of_the_metadata_counts(small):
    """A changed byte is noticed, or (white space) changes nothing."""
    path, tiling, _ = small
    meta = path / "zarr.json"
    content, attrs = meta.read_bytes(), stored.open_gram(path).attrs
    refusals = set()
    harmless = []
    for place in range(len(content)):
        broken = bytearray(content)
        broken[place] ^= 1 << place % 7
        meta.write_bytes(broken)
        try:
            assert stored.open_gram(path).attrs == attrs
            harmless.append(place)
        except ValueError as error:
            refusals.add(str(error).split(repr(str(path)))[1][:20])
    assert all(content[place : place + 1].isspace() for place in harmless)
    assert refusals == {" holds tiles, but it", " exists and is not a"}
    for length in range(0, len(content), 97):
        meta.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"holds tiles, but its zarr\.json"):
            open_store(path, tiling, "float64", IDENTITY)
    meta.unlink()
    with pytest.raises(ValueError, match="is missing or damaged; delete the store"):
        open_store(path, tiling, "float64", IDENTITY)
    assert len(tiles_of(path)) == 3


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", "half", "changed"])
def test_broken_metadata_without_tiles_are_written_again(tmp_path, content):
    path, tiling = tmp_path / "k.zarr", Tiling(5, 5, 3, symmetric=True)
    open_store(path, tiling, "float64", IDENTITY)
    meta = path / "zarr.json"
    text = meta.read_text()
    (path / "zarr.0123.partial").write_text("left by a kill")
    (path / "c" / "0").mkdir(parents=True)
    (path / "c" / "0" / "1.0123.partial").write_text("left by a kill")
    meta.unlink()
    if content == "half":
        meta.write_text(text[: len(text) // 2])
    elif content == "changed":
        meta.write_text(text.replace("float64", "float32"))
    elif content is not None:
        meta.write_bytes(content)
    with pytest.raises(FileNotFoundError, match="only the beginning of a store"):
        stored.open_gram(path)
    assert fill(path, tiling).missing() == []
    assert os.listdir(tmp_path) == ["k.zarr"]
    assert len(tiles_of(path)) == 3


# ----------------------------------------------------------------------------- identity


def test_what_is_there_already_is_left_alone(tmp_path):
    tiling = Tiling(3, 3, 2, symmetric=True)
    (tmp_path / "file").write_text("dear")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("dear")
    zarr.create_array(tmp_path / "array", shape=(3, 3), dtype="f8", attributes={})
    zarr.create_group(tmp_path / "group")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "zarr.json").write_text("[1]")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "folder", "array", "group", "list", "link"):
        before = sorted(tmp_path.rglob("*"))
        for attempt in (
            lambda path: open_store(path, tiling, "float64", IDENTITY),
            stored.open_gram,
        ):
            with pytest.raises(ValueError, match="exists and is not a Gram matrix"):
                attempt(tmp_path / name)
        assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(FileNotFoundError, match="there is no stored Gram matrix at"):
        stored.open_gram(tmp_path / "nothing")


def test_every_difference_is_named(tmp_path):
    path, tiling = tmp_path / "k.zarr", Tiling(6, 6, 2, symmetric=True)
    identity = origin.identity_of(SPEC, X, kernel="ntk", normalised=True)
    open_store(path, tiling, "float64", identity)
    open_store(str(path), tiling, np.float64, dict(identity))  # an equal one opens it
    y = X.copy()
    y[3, 1] = np.nextafter(y[3, 1], 9)
    more = {"kernel": "ntk", "normalised": True}
    deeper = nr.ResNet(depth=4, branch_scale=nr.DepthScale(0.25))
    plain = nr.FeedForward(depth=3)
    cases = [
        (origin.identity_of(SPEC, y, **more), ["made from other data (x1)"]),
        (origin.identity_of(SPEC, X, y, **more), ["made from other data (x2)"]),
        (
            origin.identity_of(deeper, X, **more),
            [
                "another spec: depth 3, not 4",
                "another spec: branch_scale.gamma 0.5, not 0.25",
            ],
        ),
        (
            origin.identity_of(plain, X, **more),
            [
                'another spec: kind "ResNet", not "FeedForward"',
                'another spec: block "two_layer", not "nothing"',
            ],
        ),
        ({**identity, "kernel": "nngp"}, ['kernel "ntk", not "nngp"']),
        ({**identity, "normalised": False}, ["normalised true, not false"]),
        ({**identity, "jax": "0.1"}, ["jax ", ', not "0.1"']),
        ({**identity, "code_sha256": "0"}, ["another version of ntk_resnet's code"]),
        ({**identity, "gaps": "plain"}, ['gaps "nothing", not "plain"']),
    ]
    for other, texts in cases:
        with pytest.raises(ValueError, match="holds another matrix: ") as refusal:
            open_store(path, tiling, "float64", other)
        for text in texts:
            assert text in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert str(refusal.value).count(";") == len(
            list(origin.differences(identity, other))
        )
    with pytest.raises(ValueError, match='dtype "float64", not "float32"; choose'):
        open_store(path, tiling, "float32", identity)
    with pytest.raises(ValueError, match="tile 2, not 3; choose"):
        open_store(path, Tiling(6, 6, 3, symmetric=True), "float64", identity)
    with pytest.raises(ValueError, match="columns 6, not 5; symmetric true, not false"):
        open_store(path, Tiling(6, 5, 2, symmetric=False), "float64", identity)


def test_a_store_of_another_format_is_named(tmp_path, monkeypatch):
    tiling = Tiling(3, 3, 2, symmetric=True)
    open_store(tmp_path / "k.zarr", tiling, "float64", IDENTITY)
    monkeypatch.setattr(tile_store, "FORMAT", 2)
    with pytest.raises(ValueError, match="format 1, not 2"):
        open_store(tmp_path / "k.zarr", tiling, "float64", IDENTITY)


def test_identity_is_of_the_values_not_of_the_container():
    identity = origin.identity_of(SPEC, X)
    assert identity == origin.identity_of(SPEC, jnp.asarray(X))
    assert identity == origin.identity_of(SPEC, np.asfortranarray(X))
    assert identity == origin.identity_of(SPEC, X.astype(">f8"))
    for other in (X.astype("f4"), X.reshape(3, 6), X[::-1], X[:5]):
        assert origin.identity_of(SPEC, other)["x1_sha256"] != identity["x1_sha256"]
    assert nr.from_json(identity["spec"]) == SPEC
    assert json.loads(json.dumps(identity)) == identity


def test_a_network_without_a_name_is_refused():
    spec = nr.FeedForward(depth=1, activation=nr.Activation(jnp.sin))
    with pytest.raises(ValueError, match=r"cannot be named in a store: .* in memory"):
        origin.identity_of(spec, X)


def test_attributes_say_what_and_where(tmp_path):
    tiling = Tiling(6, 6, 4, symmetric=True)
    identity = origin.identity_of(SPEC, X, kernel="ntk")
    open_store(tmp_path / "k.zarr", tiling, "float64", identity)
    attrs = stored.open_gram(tmp_path / "k.zarr").attrs
    assert identity.items() <= attrs.items()
    assert attrs["tile"] == 4
    assert set(provenance()) <= set(attrs)
    shutil.move(tmp_path / "k.zarr", tmp_path / "elsewhere")  # a store may move
    assert stored.open_gram(tmp_path / "elsewhere").attrs == attrs
