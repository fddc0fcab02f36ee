"""Systems solved without the matrix are solved: against the dense float64 one."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.analysis import solve as module
from ntk_resnet.analysis.solve import solve
from ntk_resnet.records import results as records

ROOT = pathlib.Path(nr.__file__).parents[1]
SPEC = nr.ResNet(depth=30, branch_scale=nr.DepthScale(0.5))
RNG = np.random.default_rng(0)
X = RNG.standard_normal((150, 5))
B = RNG.standard_normal((150, 3))
SHIFT = 1e-3
HOW = {"shift": SHIFT, "tol": 1e-8, "rank": 10}


def operator(spec=SPEC, x=X, **how):
    return nr.gram_operator(spec, x, tile=40, **how)


def dense(spec=SPEC, x=X, shift=SHIFT, **how):
    matrix = nr.kernel_fn(spec, normalised=how.pop("normalised", True))(x)
    return np.asarray(matrix, np.float64) + shift * np.eye(len(x))


def residual(matrix, x, b):
    """The largest of all columns, relative."""
    x, b = (v.reshape(len(v), -1) for v in (x, b))
    rest = np.linalg.norm(b - matrix @ x, axis=0)
    return (rest / np.linalg.norm(b, axis=0)).max()


# ------------------------------------------------------------------------- the solution


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-11])
def test_the_residual_is_that_of_the_dense_matrix(tol):
    """To the entries' accuracy, 1e-11 of normalised kernels, times |x| / |b| < 100."""
    found = solve(operator(), B, shift=SHIFT, tol=tol, rank=10)
    assert found.x.shape == B.shape
    assert found.x.dtype == np.float64
    assert found.residual <= tol
    assert residual(dense(), found.x, B) == pytest.approx(
        found.residual, abs=1e-11, rel=1e-3
    )
    if tol < 1e-10:
        np.testing.assert_allclose(
            found.x, np.linalg.solve(dense(), B), atol=1e-8 * np.abs(found.x).max()
        )


@pytest.mark.quick
def test_float32_data_are_solved_in_float64():
    x = X.astype(np.float32)
    found = solve(operator(x=x), B[:, 0].astype(np.float32), **HOW)
    assert found.x.shape == (150,)
    b = B[:, 0].astype(np.float32).astype(float)
    assert residual(dense(x=x.astype(float)), found.x, b) <= 1.01e-8


def test_columns_may_be_zero_dependent_or_of_any_size():
    b = np.stack([B[:, 0], 0 * B[:, 0], 3 * B[:, 0], B[:, 1]], axis=1)
    x = solve(operator(), b, **HOW).x
    assert not x[:, 1].any()
    some = [0, 2, 3]
    assert residual(dense(), x[:, some], b[:, some]) <= 1.01e-8
    for size in (1e-290, 1e290):
        far = solve(operator(), size * B[:, 0], **HOW).x / size
        assert residual(dense(), far, B[:, 0]) <= 1.01e-8


def test_a_column_has_its_solution_in_any_company():
    """Each is converged to its own residual; the others do not matter."""
    alone, among = solve(operator(), B[:, 0], **HOW).x, solve(operator(), B, **HOW).x
    for x in (alone, among[:, 0]):
        assert residual(dense(), x, B[:, 0]) <= 1.01e-8


def test_float64_takes_over_where_float32_is_of_no_use():
    """Condition number 1e10, beyond the 1e7 of float32; repeated rows."""
    x, b = np.repeat(X[:40], 2, axis=0), np.repeat(B[:40, 0], 2)
    shift = 1e-8
    precisions = []
    with pytest.MonkeyPatch.context() as patch:
        product = module._System.product
        patch.setattr(
            module._System,
            "product",
            lambda self, v, double: (
                precisions.append(double) or product(self, v, double)
            ),
        )
        b = b + 1e-6 * np.tile([1, -1], 40)
        found = solve(operator(x=x), b, shift=shift, tol=1e-7, rank=5)
    assert residual(dense(x=x, shift=shift), found.x, b) <= 2e-7
    first = precisions.index(True)
    assert 0 < first < precisions.count(False) + precisions.count(True) - 1


def test_kernels_beyond_the_range_of_float32():
    """The raw diagonal is about 2^200."""
    spec = nr.ResNet(depth=200, branch_scale=1.0)
    op = operator(spec, normalised=False)
    mean = float(np.mean(op.diagonal()))
    assert mean > 1e50
    found = solve(op, B[:, 0], shift=1e-3 * mean, tol=1e-8)
    matrix = dense(spec, shift=1e-3 * mean, normalised=False)
    assert residual(matrix, found.x, B[:, 0]) <= 1.01e-8


def test_the_preconditioner_spares_iterations():
    """Half of a spectrum that decays fast: from the condition number 1e5 to 1e2."""
    x = RNG.standard_normal((250, 3))
    counts = [
        solve(operator(x=x), x[:, 0], shift=1e-3, rank=rank).iterations
        for rank in (1, 120)
    ]
    assert counts[1] < counts[0] / 4


# ----------------------------------------------------------------------------- refusals


def test_an_unreached_residual_is_an_error_that_says_how_far():
    with pytest.raises(RuntimeError, match=r"residual is \d\S*, not 1e-08, after 3 it"):
        solve(operator(), B, **HOW, max_iterations=3)
    with pytest.raises(
        RuntimeError, match=r"is \S+e-1\d, not 1e-30, and float64's round"
    ):
        solve(operator(), B, **HOW | {"tol": 1e-30})


def test_a_singular_system_without_solution_is_refused():
    x = np.repeat(X[:40], 2, axis=0)
    with pytest.raises((ValueError, RuntimeError), match=r"raise .*shift"):
        solve(operator(x=x), B[:80, 0], shift=0.0, rank=5)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"operator": np.eye(150)}, "operator must be a gram_operator"),
        ({"operator": {"get": "ntk_gap"}}, "operator must be the 'ntk' or 'nngp'"),
        ({"operator": {"x2": X}}, "leave x2 out"),
        ({"b": B[:7]}, r"b has shape \(7, 3\); pass \(150,\)"),
        ({"b": B[:, :0]}, "b has shape"),
        ({"b": B + np.nan}, "b holds nan"),
        ({"b": B.astype(complex)}, "b has dtype complex"),
        ({"shift": -1.0}, "shift must be"),
        ({"tol": 0.0}, "tol must be"),
        ({"tol": 1.0}, "tol must be below 1"),
        ({"rank": 0}, "rank must be"),
        ({"max_iterations": 0}, "max_iterations must be"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_bad_arguments_are_named(changes, text):
    given = {"operator": {}, "b": B, "shift": SHIFT} | changes
    if isinstance(given["operator"], dict):
        given["operator"] = operator(**given["operator"])
    with pytest.raises(ValueError, match=text):
        solve(given.pop("operator"), given.pop("b"), **given)


# ----------------------------------------------------------------------------- progress


def test_progress_tells_the_residual_and_the_time_left():
    seen = []
    solve(operator(), B, **HOW, progress=lambda *args: seen.append(args))
    assert {total for _, total, _ in seen} == {80}
    assert seen[0][0] == 0
    assert seen[-1][0] == 80
    assert all("residual" in text for *_, text in seen)
    assert "s left" in seen[5][2]


# -------------------------------------------------------------------------- checkpoints


def start(code, **variables):
    """Another process, as users run them: that runs `code` with this module as `t`."""
    code = f"import test_solve as t; np, jax = t.np, t.jax\n{code}"
    paths = os.pathsep.join([str(ROOT), str(pathlib.Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        (sys.executable, "-c", code), env={**environment, **variables}
    )


KILLED = """
import os, signal
t.module._SAVE_EVERY = 0.0
seen = []
def progress(*args):
    seen.append(args)
    if len(seen) == {kill_at}:
        os.kill(os.getpid(), signal.SIGKILL)
t.solve(t.operator(), t.B, **t.HOW, checkpoint={path!r}, progress=progress)
"""


@pytest.fixture(scope="module")
def undisturbed():
    """As in the other process, with JAX's x64 mode off."""
    with jax.enable_x64(False):
        return solve(operator(), B, **HOW)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What a solve leaves that is killed after a dozen iterations."""
    path = tmp_path_factory.mktemp("killed") / "state.zarr"
    process = start(KILLED.format(kill_at=14, path=str(path)))
    assert process.wait(timeout=300) == -signal.SIGKILL
    return path


@pytest.fixture
def copy(killed, tmp_path):
    return pathlib.Path(shutil.copytree(killed, tmp_path / "state.zarr"))


def test_a_killed_solve_continues_to_the_same_answer(copy, undisturbed, monkeypatch):
    there = int(records.load(copy)["iterations"])
    assert 10 <= there < undisturbed.iterations
    seen = []
    with jax.enable_x64(False):
        found = solve(
            operator(),
            B,
            **HOW,
            checkpoint=copy,
            progress=lambda *args: seen.append(args),
        )
    np.testing.assert_array_equal(found.x, undisturbed.x)
    assert found.iterations == undisturbed.iterations
    assert len(seen) <= undisturbed.iterations - there + 2
    # The end is kept too, and a smaller residual goes on from there.
    again = solve(operator(), B, **HOW, checkpoint=copy)
    np.testing.assert_array_equal(again.x, undisturbed.x)
    further = solve(operator(), B, **HOW | {"tol": 1e-10}, checkpoint=copy)
    assert further.residual <= 1e-10
    assert further.iterations > undisturbed.iterations
    assert os.listdir(copy.parent) == [copy.name]


def test_a_checkpoint_of_another_problem_is_refused(copy):
    cases = [
        ((operator(x=X + 1e-9), B), {}, "made from other data (x1)"),
        ((operator(SPEC.replace(depth=31)), B), {}, "another spec: depth 30, not 31"),
        ((operator(get="nngp"), B), {}, 'get "ntk", not "nngp"'),
        ((operator(x=X.astype(np.float32)), B), {}, 'dtype "float64", not "float32"'),
        ((operator(), B + 1e-9), {}, "right-hand side"),
        ((operator(), B), {"shift": 2e-3}, "shift 0.001, not 0.002"),
        ((operator(), B), {"rank": 11}, "rank 10, not 11"),
    ]
    for args, changes, difference in cases:
        with pytest.raises(ValueError, match="is of another problem: ") as refusal:
            solve(*args, **HOW | changes, checkpoint=copy)
        assert difference in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_a_damaged_checkpoint_is_noticed(copy, tmp_path):
    chunk = max((p for p in copy.rglob("*") if p.is_file()), key=os.path.getsize)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(ValueError, match="delete it and compute it again"):
        solve(operator(), B, **HOW, checkpoint=copy)
    other = records.save(nr.spectrum(np.eye(3)), tmp_path / "spectrum.zarr")
    with pytest.raises(ValueError, match="is no checkpoint of solve"):
        solve(operator(), B, **HOW, checkpoint=other)


# ------------------------------------------------------------------- devices, processes


@pytest.mark.slow
def test_four_devices_have_the_same_answer(tmp_path, undisturbed):
    """To the rounding of products, which sum in another order, grown by |x| / |b|."""
    code = f"""
assert len(jax.devices()) == 4
found = t.solve(t.operator(), t.B, **t.HOW)
np.save({str(tmp_path / "x")!r}, found.x)
"""
    flags = "--xla_force_host_platform_device_count=4"
    assert start(code, XLA_FLAGS=flags).wait(timeout=300) == 0
    x = np.load(tmp_path / "x.npy")
    assert residual(dense(), x, B) <= 1.01e-8
    np.testing.assert_allclose(x, undisturbed.x, atol=1e-6 * np.abs(x).max())


TWO_PROCESSES = """
jax.distributed.initialize("localhost:{port}", num_processes=2, process_id={process})
assert (jax.process_count(), len(jax.devices())) == (2, 2)
t.module._SAVE_EVERY = 0.0
op, path = t.operator(), {path!r} + "/state.zarr"
try:
    t.solve(op, t.B, **t.HOW, max_iterations=9, checkpoint=path)
except RuntimeError as error:
    assert "after 9 iterations" in str(error)
else:
    raise AssertionError("it should have taken more")
found = t.solve(op, t.B, **t.HOW, checkpoint=path)
np.save({path!r} + "/{process}", found.x)
"""


@pytest.mark.slow
def test_two_processes_have_the_same_answer(tmp_path, undisturbed):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    path = str(tmp_path)
    processes = [
        start(TWO_PROCESSES.format(port=port, process=k, path=path)) for k in range(2)
    ]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    first, second = (np.load(tmp_path / f"{k}.npy") for k in range(2))
    np.testing.assert_array_equal(first, second)
    assert residual(dense(), first, B) <= 1.01e-8
    atol = 1e-6 * np.abs(first).max()
    np.testing.assert_allclose(first, undisturbed.x, atol=atol)
