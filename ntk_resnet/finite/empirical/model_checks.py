"""What a model must be: something to train, and a function of each row by itself."""

import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array

from ntk_resnet._precision import is_traced
from ntk_resnet.finite.empirical.models import TracedNetwork
from ntk_resnet.finite.empirical.tracing import Program
from ntk_resnet.models.functions import as_function, check_outputs, check_params


def checked_network(model: Any, x: Array | np.ndarray) -> TracedNetwork:
    """The traced network of a model, for rows like those of `x`.

    Raises:
        ValueError: it is no model, has nothing to train, or does not map every row to
            real outputs of its own; the last is found out in eager calls only.
    """
    apply, params, rest = as_function(model, x)
    check_params(params)
    shape = check_outputs(apply, params, rest, x)
    network = TracedNetwork.of(apply, params, rest, x)
    if network.program.outputs.size != np.prod(shape.shape[1:]):
        raise ValueError(
            f"model must map each row by itself; got {shape.shape} for x {x.shape}, "
            f"but {network.program.outputs.size} outputs for a single row."
        )
    if network.program not in _APART and not is_traced(params, rest, x, network.fixed):
        check_apart(lambda given, rows: apply(*given, rows), (params, rest), x)
        _APART.add(network.program)
    return network


_APART: weakref.WeakSet[Program] = weakref.WeakSet()
"""Programs whose rows are known not to see one another."""


def check_apart(function: Callable, given: Any, x: Array | np.ndarray) -> None:
    """Raises a `ValueError` unless each row has outputs of its own, and not by chance.

    The outputs are `function(given, x)`. Row `a` beside another one and beside copies
    of itself, in one compiled program, so that it is rounded in the same way; only its
    place may matter, by rounding. What is to be found is of order one, so a difference
    of sqrt(eps) of the coarsest dtype that rounds, relative to the outputs, is allowed.
    """
    a, b = _two_rows(x)
    mixed, alike = jnp.stack([a, b, a, a]), jnp.stack([a, a, a, a])
    with jax.default_matmul_precision("highest"):
        traced = jax.jit(function).trace(given, mixed)
        run = traced.lower().compile()
    found = [np.asarray(run(given, rows), float)[[0, 2, 3]] for rows in (mixed, alike)]
    first, *others = np.concatenate(found)
    finite = np.abs(first)[np.isfinite(first)]
    allowed = np.sqrt(_eps(traced.jaxpr.jaxpr)) * finite.max(initial=0)
    if not np.allclose(others, first, rtol=0, atol=allowed, equal_nan=True):
        raise ValueError(
            "model gives a row other outputs beside other rows, as with batch "
            "normalisation or dropout in training mode; call model.eval() first."
        )


def _two_rows(x):
    """The first row and one unlike it; if there is none, its first column all over."""
    x = np.asarray(x)
    unlike = np.flatnonzero((x != x[0]).reshape(len(x), -1).any(axis=1))
    column = np.broadcast_to(x[0][..., :1], x[0].shape)
    return x[0], x[unlike[0]] if unlike.size else column


def _eps(jaxpr):
    """That of the coarsest dtype in which a program computes."""
    floats = [d for d in _dtypes(jaxpr) if d and jnp.issubdtype(d, jnp.floating)]
    return max((float(jnp.finfo(dtype).eps) for dtype in floats), default=0.0)


def _dtypes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (getattr(v.aval, "dtype", None) for v in equation.outvars)
        for inner in core.jaxprs_in_params(equation.params):
            yield from _dtypes(inner)
