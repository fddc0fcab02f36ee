"""Flax models of anyone's as functions of their parameters."""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen, nnx
from flax.errors import TraceContextError
from jax.dtypes import canonicalize_dtype
from jax.extend import core

from ntk_resnet._inputs import check_rows
from ntk_resnet._precision import precision_of


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
class VariablesApply:
    """A function that applies linen modules to variables, of their `params` alone."""

    function: Callable[[Any, Any], Any]

    def __call__(self, params, rest, x):
        return self.function({**rest, "params": params}, x)


@dataclasses.dataclass(frozen=True)
class PlainApply:
    """An `(apply_fn, params)` pair: `apply_fn(params, x)`."""

    function: Callable[[Any, Any], Any]

    def __call__(self, params, rest, x):
        del rest
        return self.function(params, x)


class Prepared(NamedTuple):
    """A model as `apply(params, rest, x)`, `params` trained, and inputs for it."""

    apply: Callable
    params: Any
    rest: Any
    x: Any

    @property
    def precision(self) -> contextlib.AbstractContextManager:
        """That of the weights, in which the model computes."""
        return precision_of(*jax.tree.leaves(self.params))


def prepared(model: Any, x: Any) -> Prepared:
    """Any model and rows `x`, checked.

    Raises:
        ValueError: it is no model or has nothing to train, or `x` is no array of finite
            numbers `(n, ...)`.
    """
    x = check_rows("x", x)
    apply, params, rest = as_function(model, x)
    check_params(params)
    found = Prepared(apply, params, rest, x)
    with found.precision:
        return found._replace(x=jnp.asarray(x, canonicalize_dtype(x.dtype)))


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
                return VariablesApply(function), params["params"], rest
        if callable(function):
            return PlainApply(function), params, None
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


def program_of(apply: Callable, params: Any, rest: Any, x: Any) -> Callable:
    """`apply` as a program for arguments of these shapes, for use in transformations.

    Modules with transformations of their own, such as `nnx.scan`, want all that they
    hold traced together: as part of the program it is.
    """
    closed = jax.make_jaxpr(apply)(params, rest, x)
    run = core.jaxpr_as_fun(closed)

    def call(params, rest, x):
        (outputs,) = run(*jax.tree.leaves((params, rest, x)))
        return outputs

    return call


def check_outputs(apply: Callable, params: Any, rest: Any, x: Any) -> Any:
    """Shape and dtype of `apply(params, rest, x)`.

    Raises:
        ValueError: it is not one array of floats, a row of outputs for each of `x`.
    """
    # A function of its own, for what JAX remembers of equal ones may have changed.
    try:
        shape = jax.eval_shape(lambda *arguments: apply(*arguments), params, rest, x)
    except TraceContextError:
        raise ValueError(
            "model changes a flax variable that apply_fn holds, such as the count of "
            "random keys drawn; give the module itself, or let apply_fn call a copy: "
            "nnx.merge(graphdef, params, rest, copy=True)(x)."
        ) from None
    if not hasattr(shape, "shape") or shape.shape[:1] != x.shape[:1]:
        raise ValueError(
            "model must map (n, ...) inputs to one array (n, ...) of outputs; got "
            f"{jax.tree.map(lambda leaf: leaf.shape, shape)} for x1 {x.shape}."
        )
    if not shape.size or not jnp.issubdtype(shape.dtype, jnp.floating):
        raise ValueError(
            "model must have outputs of a float dtype, at least one a row; got "
            f"{shape.dtype} {shape.shape} for x1 {x.shape}."
        )
    return shape


def check_params(params: Any) -> None:
    """Raises a `ValueError` unless there are weights to train, all of them floats."""
    leaves = jax.tree.leaves(params)
    if not all(
        hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        for leaf in leaves
    ):
        raise ValueError("the parameters of model must all be arrays of a float dtype.")
    if not sum(leaf.size for leaf in leaves):
        raise ValueError("model has no trained parameters (nnx.Param).")
