"""The depth study at a size that computes in seconds, for several test modules."""

import fcntl
import functools
import os
import pathlib
import tempfile

from ntk_resnet.data.datasets import load_data
from ntk_resnet.studies import depth_claims, depth_study

SIZES = depth_study.Sizes(
    angles=7,
    depths=(1, 3, 10, 30),
    rows=15,
    train=20,
    test=20,
    splits=2,
    teacher_rows=20,
    widths=(8, 16),
    width_seeds=2,
    dispersion_depths=(1, 2),
    networks=20,
    train_widths=(8, 16),
    train_seeds=2,
    longest=20_000,
    spectrum_rows=20,
    degrees=12,
    curve_sizes=(5, 10),
    curve_trials=2,
    ridges=(0.1, 1.0),
    image_depths=(1, 2),
    images=12,
    image_specs=1,
    image_networks=8,
)


@functools.cache
def folder() -> pathlib.Path:
    """A folder with the results in `data`; do not write into it."""
    # One for all processes of a run: the first makes it, the others wait and load.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    out = pathlib.Path(tempfile.gettempdir(), f"small_study_{run}")
    out.mkdir(exist_ok=True)
    with open(out / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        depth_study.run(out / "data", load_data("digits"), SIZES)
    return out


@functools.cache
def results():
    """The parts by name; copy before changing one."""
    return depth_study.run(folder() / "data", load_data("digits"), SIZES)


@functools.cache
def claims():
    """The verdicts on them."""
    return depth_claims.judge(results())
