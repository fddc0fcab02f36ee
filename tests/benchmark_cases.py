"""Cases of `test_benchmarks`: their processes import this, not all benchmarks."""

import os
import time

import harness


def sleeping(seconds):
    return harness.Prepared(lambda: time.sleep(seconds))


def heavy(megabytes):
    return harness.Prepared(lambda: bytearray(megabytes * 10**6).count(1))


def compiled(size):
    import jax.numpy as jnp

    return harness.compiled(lambda x: x @ x, jnp.eye(size))


def failing():
    raise ValueError("this case is meant to fail")


def ending():
    os._exit(3)
