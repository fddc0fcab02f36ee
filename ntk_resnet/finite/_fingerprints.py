"""Traced programs by their content: of one fingerprint, they compute the same."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core

_ADDRESS = re.compile(r"0x[0-9a-f]+")


def fingerprint(program: core.ClosedJaxpr) -> str:
    """SHA-256 of the text of a program and of its constants, alike in every process.

    A custom rule of differentiation has no text, only a name: where it matters, the
    program to take is that of the derivative.
    """
    text = _ADDRESS.sub("", program.pretty_print(use_color=False))
    digest = hashlib.sha256(text.encode())
    for value in _constants(program.jaxpr, program.consts):
        value = np.asarray(jax.random.key_data(value) if is_key(value) else value)
        digest.update(f"{value.dtype} {value.shape};".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def is_key(leaf: Any) -> bool:
    """Whether it is an array of random keys, of a dtype that NumPy does not know."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _constants(jaxpr: Any, consts: Any) -> Iterator[Any]:
    """The arrays that the text has by name only, also of programs inside."""
    yield from consts
    for equation in jaxpr.eqns:
        literals = (v.val for v in equation.invars if isinstance(v, core.Literal))
        yield from (value for value in literals if np.ndim(value))
        for inner in jax.tree.leaves(equation.params):
            if isinstance(inner, core.ClosedJaxpr):
                yield from _constants(inner.jaxpr, inner.consts)
            elif isinstance(inner, core.Jaxpr):
                yield from _constants(inner, ())
            elif isinstance(inner, np.ndarray | jax.Array):
                yield inner
