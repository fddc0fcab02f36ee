"""Pieces of traced programs: what all walks over them need."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.extend import core


def shape_of(variable: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a variable of a program."""
    return jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)


def read(known: Mapping[Any, Any], atom: Any) -> Any:
    """The value of a variable, or of a number in the program's text."""
    return atom.val if isinstance(atom, core.Literal) else known[atom]


def bind(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """The results of an equation at these operands."""
    primitive = equation.primitive
    params = primitive.get_bind_params(equation.params)
    results = primitive.bind(*operands, **params)
    return list(results) if primitive.multiple_results else [results]


def parts_of_loop(equation: Any) -> tuple[int, int]:
    """How many operands of a `scan` are the same at every step, and how many carried.

    By their axes, since parameters say it in a way that depends on the version of JAX:
    what has one more outside than inside is sliced, or stacked, and comes last.
    """
    program, _ = opened(equation.params["jaxpr"])
    before = _more_axes(equation.invars, program.invars)
    after = _more_axes(equation.outvars, program.outvars)
    carried, same = after.count(0), before.count(0) - after.count(0)
    first = [shape_of(v) for v in program.invars[same : same + carried]]
    last = [shape_of(v) for v in program.outvars[:carried]]
    known = sorted(before) == before and sorted(after) == after and first == last
    if not known or {*before, *after} - {0, 1}:
        raise ValueError("the operands of scan are in another order")
    return same, carried


def _more_axes(outside, inside):
    return [a.aval.ndim - b.aval.ndim for a, b in zip(outside, inside, strict=True)]


def opened(program: Any) -> tuple[core.Jaxpr, Sequence[Any]]:
    """A program that may be closed over constants, and these."""
    return getattr(program, "jaxpr", program), getattr(program, "consts", ())
