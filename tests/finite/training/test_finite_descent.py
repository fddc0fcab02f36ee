"""The training loop: minibatches, line searches, several devices."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
import xarray as xr

import ntk_resnet as nr
from ntk_resnet.finite import train_study
from ntk_resnet.finite.ensembles import BATCH_BYTES
from ntk_resnet.finite.training import descent

ROOT = pathlib.Path(nr.__file__).parents[1]
SPEC = nr.FeedForward(depth=1)
X = np.random.default_rng(0).standard_normal((7, 4))
Y = np.sign(X[:, :1])


def study(seeds=3, **options):
    """Small, and the same in every process."""
    options = {"times": [2.0, 8.0], "x_test": X[:2] / 2, **options}
    return train_study(SPEC, X, Y, [16], seeds, **options)


def test_an_epoch_takes_every_row_once():
    """Three rows at a time of seven: two steps an epoch, one row waits for the next."""
    task = descent.Task(X, Y, None, None, 3, False)
    start = descent.Start(jax.random.split(jax.random.key(0), 2), *[None] * 4)

    def step(start, state, rows):
        del start
        return jax.vmap(lambda seen, rows: seen.at[rows].add(1))(state, rows)

    @jax.jit
    def count_rows(state, first, count):
        return descent._by_batches(task, step, start, state, first, count)

    def seen(first, count, state=None):
        state = np.zeros((2, 7), int) if state is None else state
        return np.asarray(count_rows(state, first, count))

    for epoch in range(3):
        rows = seen(2 * epoch, 2)
        assert rows.max() == 1
        assert (rows.sum(axis=1) == 6).all()
    assert (seen(0, 2) != seen(2, 2)).any()  # another order every epoch
    assert (seen(0, 1)[0] != seen(0, 1)[1]).any()  # and for every network
    in_two = seen(3, 5, seen(0, 3))
    np.testing.assert_array_equal(seen(0, 8), in_two)  # in the middle of an epoch


@pytest.fixture(scope="module")
def whole():
    """Every batch holds all rows."""
    return study(6, batch_size=7)


def test_a_batch_of_all_rows_is_the_full_batch(whole):
    """Up to the order of summation, which training does not amplify."""
    full = study(6)
    assert whole.attrs["batch_size"] == 7
    for name in ("outputs", "loss", "weights_distance"):
        np.testing.assert_allclose(whole[name], full[name], rtol=1e-4, atol=1e-5)


def test_line_searches_get_what_they_ask_for():
    found = study(2, optimizer=optax.lbfgs(), learning_rate=1.0, times=[10.0])
    loss = found.loss.isel(width=0)
    assert (loss.isel(time=-1) < 1e-3 * loss.isel(time=0)).all()


@pytest.mark.slow
def test_four_devices_compute_what_one_does(whole, tmp_path):
    """Six seeds on four devices, filled up to eight: equal up to float32 rounding."""
    code = (
        "import test_finite_descent as t, jax; assert jax.device_count() == 4; "
        "jax.config.update('jax_enable_x64', True); "
        f"t.study(6, batch_size=7).to_netcdf({str(tmp_path / 'four.nc')!r}, "
        "engine='scipy')"
    )
    paths = os.pathsep.join([str(ROOT), str(pathlib.Path(__file__).parent)])
    flags = "--xla_force_host_platform_device_count=4"
    environment = {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    run = subprocess.run(
        (sys.executable, "-c", code), env=os.environ | environment, timeout=300
    )
    assert run.returncode == 0
    with xr.open_dataset(tmp_path / "four.nc", engine="scipy") as four:
        for name in ("outputs", "ntk_drift", "weights_distance", "alignment"):
            # Some 100 steps of rounding errors that training does not amplify.
            np.testing.assert_allclose(
                four[name], whole[name], rtol=1e-4, atol=100 * np.finfo("float32").eps
            )


def test_batches_cover_the_seeds():
    devices = ["a", "b", "c", "d"]
    for seeds, numbers, size, used in (
        (3, 1, 3, 3),  # fewer seeds than devices: no device computes for nothing
        (6, 1, 8, 4),
        (10, BATCH_BYTES, 4, 4),  # memory for one a device
    ):
        some, several = descent.batches(seeds, numbers, devices)
        several = list(several)
        assert len(some) == used
        assert {len(index) for _, index in several} == {size}
        counted = np.concatenate([index[:count] for count, index in several])
        np.testing.assert_array_equal(counted, np.arange(seeds))
