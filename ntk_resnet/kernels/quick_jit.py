"""`jax.jit` for programs that run once or twice, and that nobody traces through."""

import functools
from collections.abc import Callable
from typing import Any

import jax

# XLA then makes kernels for the CPU without MLIR, in half the time to compile; they
# run as fast to 20 % (`benchmarks/gram.py peer profile`). Other devices do not mind.
_OPTIONS = {"xla_cpu_use_fusion_emitters": False}
_has_options = True  # newer versions of XLA do not; the first call finds that out


def quick_jit(function: Callable, **static: Any) -> Callable:
    """The function, compiled quickly where this XLA has a way to; `static` as in jit.

    Not to be called while JAX traces: it takes such options at the top level alone.
    """
    quick = jax.jit(function, compiler_options=_OPTIONS, **static)
    usual = jax.jit(function, **static)

    @functools.wraps(function)
    def call(*args):
        global _has_options
        if _has_options:
            try:
                return quick(*args)
            except jax.errors.JaxRuntimeError as error:
                if "No such compile option" not in str(error):
                    raise
                _has_options = False
        return usual(*args)

    return call
