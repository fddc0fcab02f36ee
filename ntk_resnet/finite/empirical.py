r"""Empirical kernels of finite networks.

The empirical NTK is :math:`\Theta_{ij}(x, x') = \sum_p \partial_p f_i(x)\,
\partial_p f_j(x')` over the trained parameters `p`; the empirical NNGP kernel is
that of the last layer's features. Here by contraction of Jacobians, a batch of rows at
a time.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ntk_resnet._checks import check_choice, check_count

OUTPUTS = ("full", "trace", "mean", "diagonal")
JACOBIAN_BYTES = 2**28
"""Memory for the two batches of Jacobian rows that are held at a time, together."""


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


def ntk_block(
    apply: Callable, params: Any, rest: Any, x1: Array, x2: Array | None, outputs: str
) -> Array:
    """The empirical NTK of two batches, in one piece; for use inside transformations.

    Args:
        apply: `apply(params, rest, x)` gives the outputs of the rows of `x`.
        params, rest: what is differentiated, and what is not.
        x1, x2: `(n1, ...)` and `(n2, ...)`; `None` means `x1`.
        outputs: as in `empirical_ntk`.
    """
    first = _jacobian(apply, params, rest, x1)
    second = first if x2 is None else _jacobian(apply, params, rest, x2)
    axes = {"full": "ikp,jlp->ijkl", "diagonal": "ikp,jkp->ijk"}.get(
        outputs, "ikp,jkp->ij"
    )
    contract = functools.partial(jnp.einsum, axes, precision="highest")
    kernel = _total(map(contract, first, second))
    if x2 is None:  # exactly symmetric, whatever the order of summation was
        turn = (1, 0, 3, 2) if outputs == "full" else (1, 0, 2)[: kernel.ndim]
        kernel = (kernel + kernel.transpose(turn)) / 2
    return kernel / first[0].shape[1] if outputs == "mean" else kernel


def ntk_of_rows(model: nnx.Module, x: Array, *, outputs: str) -> Array:
    """`empirical_ntk` of an nnx module in one piece, for use inside transformations."""
    return ntk_block(*as_function(model), x, None, outputs)


def ntk_against(
    apply: Callable, params: Any, rest: Any, rows: Array, x: Array
) -> Array:
    """The NTK of many rows against few, mean over outputs, `(len(rows), len(x))`.

    Holds the Jacobians of `x` and of one row at a time.
    """
    second = _jacobian(apply, params, rest, x)

    def row(row):
        first = _jacobian(apply, params, rest, row[None])
        contract = functools.partial(jnp.einsum, "ikp,jkp->ij", precision="highest")
        return _total(map(contract, first, second))[0] / first[0].shape[1]

    return jax.lax.map(row, rows)


def _total(terms):
    return functools.reduce(jnp.add, terms)


def _jacobian(apply, params, rest, x):
    """Gradients of every output of every row, a list of `(n, k, size)`, one a leaf."""

    def row(x):
        def outputs(params):
            return apply(params, rest, x[None])[0].reshape(-1)

        leaves = jax.tree.leaves(jax.jacrev(outputs)(params))
        return [leaf.reshape(leaf.shape[0], -1) for leaf in leaves]

    with jax.default_matmul_precision("highest"):
        return jax.vmap(row)(x)


_compiled_block = jax.jit(ntk_block, static_argnames=("apply", "outputs"))


def empirical_ntk(
    model: Any,
    x1: Any,
    x2: Any = None,
    outputs: str = "full",
    *,
    batch_rows: int | None = None,
) -> Float[Array, "n1 n2 *outputs"]:
    r"""The empirical neural tangent kernel of a network.

    .. math::
        \Theta_{ij}(x, x') = \sum_p \frac{\partial f_i(x)}{\partial p}
                             \frac{\partial f_j(x')}{\partial p}

    Args:
        model: any nnx module, where `p` runs over its `nnx.Param` variables (so
            `Frozen` ones do not count); a pair (linen module, variables) or a bound
            linen module, over the collection `params`; or a pair `(apply_fn, params)`
            with `apply_fn(params, x)`, over all of `params`. Rows of `x` must not see
            one another (no batch normalisation in training mode).
        x1: inputs, one a row, `(n1, ...)`.
        x2: the same, `(n2, ...)`; `None` means `x1`, at half the price, and a kernel
            that is symmetric to the last bit.
        outputs: over the k outputs (further axes are flattened), `"full"`,
            `"diagonal"` (i = j), `"trace"` (their sum) or `"mean"` (trace / k).
        batch_rows: rows whose Jacobians are held at a time; by default as many as fit
            256 MiB (`2 * batch_rows * k * parameters` numbers), but at least one.

    Returns:
        `(n1, n2, k, k)` if full, `(n1, n2, k)` if diagonal, else `(n1, n2)`; in the
        dtype of the gradients.

    Raises:
        ValueError: an argument is not as described; the text names it.

    Accuracy:
        A sum over all P parameters in the dtype of the parameters, with full-precision
        products: a relative error of the diagonal of about sqrt(P) eps
        (`tests/test_finite_empirical.py`).
    """
    check_choice("outputs", outputs, OUTPUTS)
    apply, params, rest = as_function(model)
    x1 = _check_rows("x1", x1)
    x2 = None if x2 is None else _check_rows("x2", x2)
    if x2 is not None and x1.shape[1:] != x2.shape[1:]:
        raise ValueError(
            f"x1 and x2 must have rows of one shape; got {x1.shape} and {x2.shape}."
        )
    size = _check_params(params)
    shape = jax.eval_shape(apply, params, rest, x1)
    if not hasattr(shape, "shape") or shape.shape[:1] != x1.shape[:1]:
        raise ValueError(
            "model must map (n, ...) inputs to one array (n, ...) of outputs; got "
            f"{jax.tree.map(lambda leaf: leaf.shape, shape)} for x1 {x1.shape}."
        )
    if batch_rows is None:
        numbers = JACOBIAN_BYTES // (2 * shape.dtype.itemsize)
        batch_rows = max(1, numbers // (size * math.prod(shape.shape[1:])))
    batch_rows = check_count("batch_rows", batch_rows)
    return _tiles(
        lambda a, b: _compiled_block(apply, params, rest, a, b, outputs),
        x1,
        x2,
        batch_rows,
        turn=(1, 0, 3, 2) if outputs == "full" else (1, 0, 2),
    )


def empirical_nngp(model: nnx.Module, x1: Any, x2: Any = None) -> Float[Array, "n1 n2"]:
    """The kernel of the last layer's features, `h_L(x1) . h_L(x2) / width`.

    It estimates the NNGP kernel: the covariance of the outputs over random readouts.

    Args:
        model: a network from `build`, or a module with a method `features(x)` that
            returns `(n, width)`.
        x1, x2: inputs, `(n1, d)` and `(n2, d)`; `None` means `x1`.

    Raises:
        ValueError: there are no such features, or the inputs are not finite arrays.
    """
    if not isinstance(model, nnx.Module) or not hasattr(model, "features"):
        raise ValueError(
            "model must be a module with a method features(x), such as one from "
            f"nr.finite.build; got {type(model).__name__}."
        )
    x1 = _check_rows("x1", x1)
    x2 = None if x2 is None else _check_rows("x2", x2)
    return _compiled_nngp(*nnx.split(model), x1, x2)


def feature_kernel(model: Any, x1: Array, x2: Array | None = None) -> Array:
    """`empirical_nngp` for use inside transformations."""
    with jax.default_matmul_precision("highest"):
        first = model.features(x1)
        second = first if x2 is None else model.features(x2)
        return first @ second.T / first.shape[-1]


@jax.jit
def _compiled_nngp(graphdef, state, x1, x2):
    return feature_kernel(nnx.merge(graphdef, state), x1, x2)


def _tiles(block, x1, x2, rows, turn):
    """The kernel from blocks of `rows` x `rows`, of a symmetric one only the upper."""
    firsts = [x1[i : i + rows] for i in range(0, len(x1), rows)]
    if x2 is not None:
        seconds = [x2[i : i + rows] for i in range(0, len(x2), rows)]
        return jnp.concatenate(
            [jnp.concatenate([block(a, b) for b in seconds], axis=1) for a in firsts]
        )
    tiles: dict[tuple[int, int], Array] = {}
    for i, a in enumerate(firsts):
        tiles[i, i] = block(a, None)
        for j in range(i + 1, len(firsts)):
            tiles[i, j] = block(a, firsts[j])
            tiles[j, i] = tiles[i, j].transpose(turn[: tiles[i, j].ndim])
    count = range(len(firsts))
    return jnp.concatenate(
        [jnp.concatenate([tiles[i, j] for j in count], axis=1) for i in count]
    )


def _check_params(params: Any) -> int:
    """How many numbers there are to differentiate by."""
    leaves = jax.tree.leaves(params)
    if not all(
        hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        for leaf in leaves
    ):
        raise ValueError("the parameters of model must all be arrays of a float dtype.")
    size = sum(leaf.size for leaf in leaves)
    if size == 0:
        raise ValueError("model has no trained parameters (nnx.Param).")
    return size


def _check_rows(name: str, x: Any) -> Array | np.ndarray:
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
