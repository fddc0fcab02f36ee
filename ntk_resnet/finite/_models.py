"""Networks as functions of their parameters, and as traced programs of one row."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from ntk_resnet.finite._contractions import Factors, factors_of, kernel_of
from ntk_resnet.finite._linear_uses import Program, trace


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
class _PlainApply:
    """An `(apply_fn, params)` pair: `apply_fn(params, x)`."""

    function: Callable[[Any, Any], Any]

    def __call__(self, params, rest, x):
        del rest
        return self.function(params, x)


def as_function(model: Any) -> tuple[Callable, Any, Any]:
    """`apply, params, rest`: outputs are `apply(params, rest, x)`, `params` trained."""
    if isinstance(model, nnx.Module):
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
        return _NnxApply(graphdef), params, rest
    if hasattr(model, "unbind") and getattr(model, "scope", None) is not None:
        model = model.unbind()  # a bound linen module
    if isinstance(model, tuple) and len(model) == 2:
        function, params = model
        if hasattr(function, "apply") and hasattr(params, "get") and "params" in params:
            rest = {name: value for name, value in params.items() if name != "params"}
            return _LinenApply(function), params["params"], rest
        if callable(function):
            return _PlainApply(function), params, None
    raise ValueError(
        "model must be an nnx module, a pair (apply_fn, params) or a pair "
        f"(linen module, variables); got {type(model).__name__}."
    )


class Network(NamedTuple):
    """The traced program of one row, and the numbers in it."""

    program: Program
    values: list[Any]  # leaves of the parameters, then of what is fixed

    @classmethod
    def of(
        cls,
        apply: Callable,
        params: Any,
        rest: Any,
        x: Array | np.ndarray,
        *,
        keep: bool = True,
    ) -> "Network":
        """Of `apply(params, rest, x)` for rows like those of `x`.

        Programs of equal structures are one, and kept; not so with `keep=False`, for
        use inside transformations, of which `apply` may hold values.
        """
        leaves, structure = jax.tree.flatten(params)
        fixed, fixed_structure = jax.tree.flatten(rest)
        shapes = tuple(map(_shape_of, leaves)), tuple(map(_shape_of, fixed))
        row = jax.ShapeDtypeStruct(x.shape[1:], jax.dtypes.canonicalize_dtype(x.dtype))
        traced = _traced_once if keep else _traced
        program = traced(apply, structure, fixed_structure, *shapes, row)
        return cls(program, [*leaves, *fixed])

    def factors(self, rows: Array | np.ndarray) -> Factors:
        """Of some rows, compiled."""
        return _factors(self.program, self.values, rows)

    def kernel(self, first: Factors, second: Factors | None, outputs: str) -> Array:
        """The NTK from factors, compiled."""
        return _kernel(self.program, first, second, outputs)


@functools.lru_cache(maxsize=64)
def bytes_of_a_row(program: Program) -> int:
    """Memory for the factors of one row."""
    *values, row = program.closed.in_avals
    rows = jax.ShapeDtypeStruct((1, *row.shape), row.dtype)
    values = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in values]
    factors = jax.eval_shape(functools.partial(factors_of, program), values, rows)
    return sum(f.size * f.dtype.itemsize for f in jax.tree.leaves(factors))


_factors = jax.jit(factors_of, static_argnums=0)
_kernel = jax.jit(kernel_of, static_argnums=(0, 3))


def _shape_of(leaf):
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))


def _traced(apply, structure, fixed_structure, leaves, fixed, row):
    def outputs(leaves, fixed, row):
        params = jax.tree.unflatten(structure, leaves)
        rest = jax.tree.unflatten(fixed_structure, fixed)
        return apply(params, rest, row[None])[0].reshape(-1)

    with jax.default_matmul_precision("highest"):
        return trace(outputs, leaves, fixed, row)


_traced_once = functools.lru_cache(maxsize=64)(_traced)


# ------------------------------------------------------------------------- checks


def check_model(apply: Callable, params: Any, rest: Any, x: Array | np.ndarray) -> Any:
    """The shape and dtype of the outputs of a model that has something to train.

    Raises:
        ValueError: it is not one, or does not map rows to rows.
    """
    leaves = jax.tree.leaves(params)
    if not all(
        hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        for leaf in leaves
    ):
        raise ValueError("the parameters of model must all be arrays of a float dtype.")
    if not sum(leaf.size for leaf in leaves):
        raise ValueError("model has no trained parameters (nnx.Param).")
    shape = jax.eval_shape(apply, params, rest, x)
    if not hasattr(shape, "shape") or shape.shape[:1] != x.shape[:1]:
        raise ValueError(
            "model must map (n, ...) inputs to one array (n, ...) of outputs; got "
            f"{jax.tree.map(lambda leaf: leaf.shape, shape)} for x1 {x.shape}."
        )
    return shape


def check_rows(name: str, x: Any) -> Array | np.ndarray:
    """`x` as an array with at least one row and one column, of finite numbers."""
    if not isinstance(x, jax.Array):
        try:
            x = np.asarray(x)
        except ValueError as error:
            raise ValueError(f"{name} is not an array of numbers: {error}.") from None
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; pass a non-empty array (n, ...), one "
            "input a row."
        )
    if not (
        jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)
    ):
        raise ValueError(
            f"{name} has dtype {x.dtype}; convert it to a float dtype first."
        )
    if not isinstance(x, jax.core.Tracer) and not np.isfinite(np.asarray(x)).all():
        raise ValueError(f"{name} holds NaN or infinity; remove or replace those rows.")
    return x
