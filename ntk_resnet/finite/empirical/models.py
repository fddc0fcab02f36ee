"""Networks as traced programs of one row."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from ntk_resnet._precision import is_traced
from ntk_resnet.finite.empirical.contractions import Factors, factors_of, kernel_of
from ntk_resnet.finite.empirical.fingerprints import called_by, fingerprint
from ntk_resnet.finite.empirical.tracing import Program, trace
from ntk_resnet.models.functions import PlainApply, VariablesApply


class TracedNetwork(NamedTuple):
    """The traced program of one row, and the numbers in it."""

    program: Program
    params: list[Any]  # leaves
    fixed: list[Any]  # leaves of what is not trained, then constants

    @classmethod
    def of(
        cls, apply: Callable, params: Any, rest: Any, x: Array | np.ndarray
    ) -> "TracedNetwork":
        """Of `apply(params, rest, x)` for rows like those of `x`.

        Modules of equal structure share one program. A function may read what changes
        from call to call, so it is traced every time, and programs of equal content
        are one. None is kept that is made inside a transformation, whose values the
        function may hold.
        """
        leaves, structure = jax.tree.flatten(params)
        fixed, fixed_structure = jax.tree.flatten(rest)
        shapes = tuple(map(_shape_of, leaves)), tuple(map(_shape_of, fixed))
        leaves, fixed = (list(map(_canonical, v)) for v in (leaves, fixed))
        row = jax.ShapeDtypeStruct(x.shape[1:], jax.dtypes.canonicalize_dtype(x.dtype))
        content = apply, structure, fixed_structure, *shapes, row
        inside = is_traced(leaves, fixed, x)
        if not inside and not isinstance(apply, PlainApply | VariablesApply):
            program, constants = _traced_once(*content)
        else:
            program, constants = _traced(*content)
            if not inside and not is_traced(constants):
                program = _first_of_equals(_Known.of(program))
        return cls(program, leaves, [*fixed, *constants])

    @property
    def values(self) -> list[Any]:
        """Those of the program."""
        return [*self.params, *self.fixed]

    def factors(self, rows: Array | np.ndarray) -> Factors:
        """Of some rows, compiled."""
        return _factors(self.program, self.values, rows)

    def kernel(self, first: Factors, second: Factors | None, outputs: str) -> Array:
        """The NTK from factors, compiled."""
        return _kernel(self.program, first, second, outputs)


@functools.lru_cache(maxsize=64)
def bytes_of_a_row(program: Program) -> int:
    """Memory for the factors of one row."""
    factors = jax.eval_shape(*_of_one_row(program))
    return sum(f.size * f.dtype.itemsize for f in jax.tree.leaves(factors))


_factors = jax.jit(factors_of, static_argnums=0)
_kernel = jax.jit(kernel_of, static_argnums=(0, 3))


def _of_one_row(program):
    """The factors of one row as a function, and the shapes of its arguments."""
    values, row = program.arguments
    rows = jax.ShapeDtypeStruct((1, *row.shape), row.dtype)
    return functools.partial(factors_of, program), values, rows


# --------------------------------------------------------------- programs that are kept


@dataclasses.dataclass(frozen=True)
class _Known:
    """A program, equal to those with the same factors."""

    fingerprint: str
    called: tuple[Callable, ...]  # held, so that no other takes the place of one
    program: Program = dataclasses.field(compare=False)

    @classmethod
    def of(cls, program):
        factors, *shapes = _of_one_row(program)
        traced = jax.make_jaxpr(factors)(*shapes)
        return cls(fingerprint(traced), called_by(traced), program)


@functools.lru_cache(maxsize=64)
def _first_of_equals(known):
    return known.program


def _traced(apply, structure, fixed_structure, leaves, fixed, row):
    def outputs(leaves, fixed, row):
        params = jax.tree.unflatten(structure, leaves)
        rest = jax.tree.unflatten(fixed_structure, fixed)
        return apply(params, rest, row[None])[0].reshape(-1)

    with jax.default_matmul_precision("highest"):
        return trace(outputs, leaves, fixed, row)


_traced_once = functools.lru_cache(maxsize=64)(_traced)


def _canonical(leaf):
    """What was made in x64 mode is float32 outside of it, as in all of JAX."""
    dtype = _shape_of(leaf).dtype
    return leaf if getattr(leaf, "dtype", dtype) == dtype else leaf.astype(dtype)


def _shape_of(leaf):
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):  # random keys
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))
