"""Three studies at sizes that compute in seconds, for several test modules."""

import fcntl
import functools
import os
import pathlib
import tempfile

import ledger_checks

from ntk_resnet.studies import catalogue, runner

_DEPTHS = (1, 3, 10, 30)
_REGRESSION = {"depths": _DEPTHS, "train": 20, "test": 20, "splits": 5}
_IMAGES = {"families": ["plain", "γ = 1", "γ = 1/2"], "depths": (1, 2), "rows": 15}
SIZES = {
    "huang2020": {
        "paper": {"cosines": 7},
        "kernels": {"depths": _DEPTHS, "angles": 7},
        "rates": {"longest": 50_000},
        "limit": {"rows": 20},
        "noise": {"depth": 30, "rows": 20, "seeds": 5},
        "degeneracy": {"depths": _DEPTHS, "rows": 15},
        "regression": _REGRESSION,
        "two_classes": _REGRESSION,
        "teacher": _REGRESSION | {"rows": 40},
        "mnist": _REGRESSION,
        "concentration": {
            "networks": ["γ = 1", "plain", "γ = 3/4", "γ = 1/2"],
            "depths": (1, 2),
            "widths": (8,),
            "seeds": 5,
        },
        "width": {"widths": (8, 16), "seeds": 5},
        "training": {"widths": (8, 16), "seeds": 2},
    },
    "images": {
        "flattened": _IMAGES | {"splits": 5},
        "pooled": _IMAGES | {"splits": 5},
        "rates": {},
        "agreement": {"networks": ["γ = 1/2"], "seeds": 8, "width": 32},
    },
    "digits": {
        "spectra": {"rows": 100},
        "ridge": {"ridges": (0.1, 1.0), "rows": 50},
        "leave_one_out": {"rows": 10, "ridges": (0.1,)},
    },
}


_study = catalogue.study  # tests may put `study` in its place


def study(name):
    """The study of that name at its small sizes."""
    return ledger_checks.small(_study(name), **SIZES[name])


@functools.cache
def folder() -> pathlib.Path:
    """A folder with the results in `data`; do not write into it."""
    # One for all processes of a run: the first makes it, the others wait and load.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    out = pathlib.Path(tempfile.gettempdir(), f"small_study_{run}")
    out.mkdir(exist_ok=True)
    with open(out / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        runner.run([study(name) for name in SIZES], quick=True, folder=out / "data")
    return out


@functools.cache
def runs():
    """What became of the studies, by name."""
    studies = [study(name) for name in SIZES]
    found = runner.run(studies, quick=True, folder=folder() / "data")
    return {one.study.name: one for one in found}


def results(name="huang2020"):
    """The results of one of them by measurement; copy before changing one."""
    return runs()[name].results
