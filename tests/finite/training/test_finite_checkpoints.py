"""A training that is killed goes on where it was; a wrong or damaged one is refused."""

import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_resnet as nr
from ntk_resnet.finite import train_study
from ntk_resnet.finite.empirical.fingerprints import is_key
from ntk_resnet.finite.training import checkpoints, descent
from ntk_resnet.models.losses import make_loss

ROOT = pathlib.Path(nr.__file__).parents[1]
SPEC = nr.FeedForward(depth=1)
X = np.random.default_rng(0).standard_normal((6, 4))
OPTIONS = {"widths": [8], "seeds": 2, "batch_size": 4, "learning_rate": 0.1}


def train(folder, **changes):
    """The call that is killed here: Adam, which has a state, and minibatches."""
    options = {"times": np.arange(1, 13.0), "optimizer": optax.adam(0.01), **OPTIONS}
    return train_study(SPEC, X, X[:, 0], checkpoint=folder, **options | changes)


def slowly(folder):
    """The same in a process that waits for its murderer after every record."""
    jax.config.update("jax_enable_x64", True)
    train(folder, progress=lambda *_: time.sleep(0.05))


def kill_at(folder, records):
    """Starts the training, kills it after so many records, at any moment."""
    code = f"import test_finite_checkpoints as t; t.slowly({str(folder)!r})"
    paths = os.pathsep.join([str(ROOT), str(pathlib.Path(__file__).parent)])
    environment = os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen((sys.executable, "-c", code), env=environment)
    try:
        batch = folder / "width-8-seeds-0-2"
        deadline = time.monotonic() + 200
        while not any(
            p.name.isdigit() and int(p.name) >= records for p in batch.glob("*")
        ):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(random.random() * 0.1)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def weights_of(folder):
    """The final state, every leaf as bytes."""
    with checkpoints.Batch(folder / "width-8-seeds-0-2") as batch:
        index = batch._manager.latest_step()
        assert index == 12
        found = batch._manager.restore(
            index,
            args=batch._ocp.args.Composite(state=batch._ocp.args.StandardRestore()),
        )
    return {name: np.asarray(leaf).tobytes() for name, leaf in found["state"].items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    result = train(folder)
    without = train(None)
    without.attrs["time_utc"] = result.attrs["time_utc"]
    assert result.identical(without)
    return folder, result


def check_same(undisturbed, folder, result):
    for name, values in undisturbed[1].items():
        np.testing.assert_array_equal(result[name], values, err_msg=name)
    assert weights_of(folder) == weights_of(undisturbed[0])


@pytest.mark.quick
def test_a_killed_training_ends_with_the_same_bits(undisturbed, tmp_path):
    kill_at(tmp_path, 4)
    calls = []
    result = train(tmp_path, progress=lambda *call: calls.append(call))
    check_same(undisturbed, tmp_path, result)
    assert len(calls) < 1 + 13 - 4  # the first ones were read, and told at once
    assert calls[-1][0] == calls[-1][1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_moment(undisturbed, tmp_path, seed):
    random.seed(seed)
    for records in sorted(random.sample(range(13), 2)):  # twice
        kill_at(tmp_path, records)
    check_same(undisturbed, tmp_path, train(tmp_path))


def test_a_finished_training_is_read(undisturbed, monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(descent, "_advance", never)
    folder, result = undisturbed
    again = train(folder)
    np.testing.assert_array_equal(again.outputs, result.outputs)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"seed": 1}, "its seed is 0, that of this one 1"),
        ({"widths": [4]}, "its widths is .8., that of this one .4."),
        ({"batch_size": 3}, "its batch_size is 4, that of this one 3"),
        ({"optimizer": optax.adam(0.02)}, "its optimizer is ScaleByAdamState"),
        ({"optimizer": None}, "its optimizer is ScaleByAdamState"),
        ({"loss": lambda f, y: jnp.mean(jnp.abs(f - y))}, "its loss is mse"),
        ({"times": [1.0]}, "its steps is"),
        ({"x_test": X}, "its x is"),
    ],
)
def test_another_run_is_refused(undisturbed, changes, text):
    with pytest.raises(ValueError, match=f"is of another run: {text}"):
        train(undisturbed[0], **changes)


def late(rate):
    """A schedule that differs long after what a few steps could show."""
    return optax.sgd(optax.piecewise_constant_schedule(0.1, {100: rate}))


OPTIMIZERS = {
    "late": (late, 0.01, 10.0),
    "clip": (lambda c: optax.chain(optax.clip_by_global_norm(c)), 100.0, 1000.0),
    "state": (lambda b: optax.inject_hyperparams(optax.sgd)(b), 0.1, 0.2),
    "array": (lambda b: optax.scale_by_schedule(table(b, jnp)), 1.0, 2.0),
    "NumPy": (lambda b: optax.scale_by_schedule(table(b, np)), 1.0, 2.0),
    "key": (lambda seed: optax.noisy_sgd(0.1, key=jax.random.key(seed)), 0, 1),
    "names": (lambda b: optax.masked(optax.sgd(0.1), lambda t: mask(t, b)), "w", "v"),
}


def table(last, library):
    values = library.append(library.ones(1000), last)
    return jax.jit(lambda count: jnp.asarray(values)[count])


def mask(tree, name):
    return jax.tree_util.tree_map_with_path(lambda p, _: name in str(p[0]), tree)


PARAMS = {"w": jax.ShapeDtypeStruct((3, 2), "float32"), "v": np.zeros(2, np.float32)}


@pytest.mark.quick
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_told_apart(name):
    make, one, other = OPTIMIZERS[name]
    found = [
        checkpoints.describe_optimizer(make(setting), [PARAMS])
        for setting in (one, other, one)
    ]
    assert found[0] == found[2] != found[1]


@pytest.mark.quick
def test_losses_are_told_apart():
    """Alike at the targets, and by name."""

    def of(size):
        def huber(f, y):
            return jnp.mean(optax.losses.huber_loss(f, y, delta=size))

        return checkpoints.describe_loss(make_loss(huber, X), X)

    assert of(100.0) == of(100.0) != of(1000.0)


def test_an_optimizer_that_goes_by_names_is_described(tmp_path):
    masked = optax.masked(optax.sgd(0.1), lambda t: mask(t, "weights"))
    result = train(tmp_path, optimizer=masked, times=[0.1])
    assert result.attrs["steps"] == 1


def test_a_file_in_place_of_a_batch_is_named(undisturbed, tmp_path):
    shutil.copy(undisturbed[0] / "run.json", tmp_path)
    (tmp_path / "width-8-seeds-0-2").write_text("")
    with pytest.raises(ValueError, match="width-8-seeds-0-2 is a file, not a folder"):
        train(tmp_path)


def test_a_damaged_checkpoint_is_noticed(tmp_path):
    """A wrong or a missing byte in any file: an error, or it was one that is not read.

    Orbax keeps more than it reads, and checks no data.
    """
    state = {"w": np.random.default_rng(0).standard_normal((2, 30))}
    like = jax.tree.map(jnp.asarray, state)
    made = {"outputs": np.arange(40.0).reshape(2, 20)}
    folder, complaints = tmp_path / "batch", []
    with checkpoints.Batch(folder) as batch:
        batch.save(0, like, made)
        files = [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size]
        for path in files:
            content = path.read_bytes()
            middle = len(content) // 2
            wrong = content[:middle] + bytes([content[middle] ^ 4])
            for damaged in (wrong + content[middle + 1 :], content[:-1], b""):
                path.write_bytes(damaged)
                try:
                    found, records = batch.restore(like)
                except ValueError as error:
                    complaints.append(str(error))
                else:
                    np.testing.assert_array_equal(found["w"], state["w"])
                    np.testing.assert_array_equal(records["outputs"], made["outputs"])
            path.write_bytes(content)
    assert len(complaints) >= 6
    for text in complaints:
        assert re.search(rf"0' is damaged \(.*\); delete '{folder}' to train", text)


def test_a_damaged_description_is_noticed(undisturbed, tmp_path):
    shutil.copytree(undisturbed[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"its run.json cannot be read"):
        train(tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is a folder of something else"):
        train(tmp_path)


@pytest.mark.quick
def test_states_with_random_keys_come_back(tmp_path):
    """Noisy gradient descent keeps a key, of a dtype that files do not know."""
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    state = descent.DescentState(
        params, optax.noisy_sgd(0.1, key=jax.random.key(1)).init(params)
    )
    with checkpoints.Batch(tmp_path / "b") as batch:
        assert batch.restore(state) is None
        batch.save(0, state, {"outputs": np.ones((1, 2))})
        found, made = batch.restore(state)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(
            *(jax.random.key_data(v) if is_key(v) else v for v in (new, old))
        )
    np.testing.assert_array_equal(made["outputs"], np.ones((1, 2)))
