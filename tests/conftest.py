"""Settings of all tests: double precision on, and the helpers for bad input."""

import warnings

with warnings.catch_warnings():
    # neural-tangents and JAX import one another's deprecated names only at import time.
    import jax

import jaxtyping
import pytest

jax.config.update("jax_enable_x64", True)


@pytest.fixture
def as_users_run_it():
    """Switches the tests' type checker off, so that our own checks of input answer."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
