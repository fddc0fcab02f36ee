"""Settings of all tests: double precision on, and the helpers for bad input."""

import gc
import os
import pathlib
import warnings

with warnings.catch_warnings():
    # neural-tangents and JAX import one another's deprecated names only at import time.
    import jax

import jaxtyping
import pytest

jax.config.update("jax_enable_x64", True)
os.environ["NTK_RESNET_CACHE"] = ""  # nothing is taken from earlier runs


@pytest.fixture
def as_users_run_it():
    """Switches the tests' type checker off, so that our own checks of input answer."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def few_memory_maps():
    """Forgets compiled programs before Linux runs out of memory maps for them.

    Each holds several, a process may have 65,530, and one too many ends it with a
    segmentation fault: a few tests of large programs are enough.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()
