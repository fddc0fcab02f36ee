"""Networks as functions of their parameters, and as traced programs of one row."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen, nnx
from jaxtyping import Array

from ntk_resnet._precision import is_traced
from ntk_resnet.finite.empirical.contractions import Factors, factors_of, kernel_of
from ntk_resnet.finite.empirical.fingerprints import called_by, fingerprint
from ntk_resnet.finite.empirical.tracing import Program, trace


@dataclasses.dataclass(frozen=True)
class _NnxApply:
    """An nnx module as a function of its parameters; equal for equal structures."""

    graphdef: Any

    def __call__(self, params, rest, x):
        return nnx.merge(self.graphdef, params, rest)(x)


@dataclasses.dataclass(frozen=True)
class _LinenApply:
    """A linen module as a function of its `params` collection."""

    module: Any

    def __call__(self, params, rest, x):
        return self.module.apply({**rest, "params": params}, x)


@dataclasses.dataclass(frozen=True)
class _VariablesApply:
    """A function that applies linen modules to variables, of their `params` alone."""

    function: Callable[[Any, Any], Any]

    def __call__(self, params, rest, x):
        return self.function({**rest, "params": params}, x)


@dataclasses.dataclass(frozen=True)
class _PlainApply:
    """An `(apply_fn, params)` pair: `apply_fn(params, x)`."""

    function: Callable[[Any, Any], Any]

    def __call__(self, params, rest, x):
        del rest
        return self.function(params, x)


def as_function(model: Any, x: Any = None) -> tuple[Callable, Any, Any]:
    """`apply, params, rest`: outputs are `apply(params, rest, x)`, `params` trained.

    `x` are inputs, of which a pair (function, variables) needs the shape.
    """
    if isinstance(model, nnx.Module):
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
        return _NnxApply(graphdef), params, rest
    if hasattr(model, "unbind") and getattr(model, "scope", None) is not None:
        model = model.unbind()  # a bound linen module
    if isinstance(model, tuple) and len(model) == 2:
        function, params = model
        if isinstance(params, Mapping) and "params" in params:
            rest = {name: value for name, value in params.items() if name != "params"}
            if hasattr(function, "apply"):
                return _LinenApply(function), params["params"], rest
            if _applies_linen(function, params, x):
                return _VariablesApply(function), params["params"], rest
        if callable(function):
            return _PlainApply(function), params, None
    raise ValueError(
        "model must be an nnx module, a pair (apply_fn, params) or a pair "
        f"(linen module, variables); got {type(model).__name__}."
    )


def _applies_linen(function, params, x):
    """Whether a mapping holds collections of variables, and linen modules take them.

    Any mapping may have an entry called `params`, so the function is looked at.
    """
    if not all(isinstance(collection, Mapping) for collection in params.values()):
        return False
    found = []

    def look(method, args, kwargs, context):
        found.append(context.module)
        return method(*args, **kwargs)

    with linen.intercept_methods(look):
        # Without a compiled function's memory, and by a function that JAX has not seen.
        plain = inspect.unwrap(function, stop=inspect.ismethod)
        jax.eval_shape(lambda *arguments: plain(*arguments), params, x)
    return bool(found)


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
        if not inside and not isinstance(apply, _PlainApply | _VariablesApply):
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
