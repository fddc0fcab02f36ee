"""Traced programs by their content: of one fingerprint, they compute the same."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core

from ntk_resnet.records.content import digest

_ADDRESS = re.compile(r"0x[0-9a-f]+")


def fingerprint(program: core.ClosedJaxpr) -> str:
    """SHA-256 of the text of a program and of its constants, alike in every process.

    Functions that it calls back have only names there (see `called_by`), and so have
    custom rules of differentiation: where these matter, take the derivative's program.
    """
    parts: list[Any] = [_ADDRESS.sub("", program.pretty_print(use_color=False))]
    for value in _parts(program.jaxpr, program.consts):
        if hasattr(value, "__array__") and not isinstance(value, type):
            value = jax.random.key_data(value) if is_key(value) else value
            parts.append(np.asarray(value))
    return digest(*parts)


def called_by(program: core.ClosedJaxpr) -> tuple[Callable, ...]:
    """The functions of Python that a program calls back."""
    return tuple(v for v in _parts(program.jaxpr, program.consts) if callable(v))


def is_key(leaf: Any) -> bool:
    """Whether it is an array of random keys, of a dtype that NumPy does not know."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _parts(jaxpr: Any, consts: Any) -> Iterator[Any]:
    """Constants, and parameters of equations, also of programs inside."""
    yield from consts
    for equation in jaxpr.eqns:
        literals = (v.val for v in equation.invars if isinstance(v, core.Literal))
        yield from (value for value in literals if np.ndim(value))
        for inner in jax.tree.leaves(equation.params):
            if isinstance(inner, core.ClosedJaxpr):
                yield from _parts(inner.jaxpr, inner.consts)
            elif isinstance(inner, core.Jaxpr):
                yield from _parts(inner, ())
            else:
                yield inner
