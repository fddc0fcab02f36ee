r"""Empirical kernels of finite networks.

The empirical NTK is :math:`\Theta_{ij}(x, x') = \sum_p \partial_p f_i(x)\,
\partial_p f_j(x')` over the trained parameters `p`; the empirical NNGP kernel is
that of the last layer's features. Here from the factors of the gradients, layer by
layer, a batch of rows at a time: no Jacobian is formed where a weight is used linearly.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ntk_resnet._checks import check_choice, check_count
from ntk_resnet._inputs import check_pair, check_rows
from ntk_resnet._precision import is_traced
from ntk_resnet.finite.empirical.contractions import (
    cheapest,
    factors_of,
    kernel_of,
    turned,
    wide,
)
from ntk_resnet.finite.empirical.model_checks import check_apart, checked_network
from ntk_resnet.finite.empirical.models import TracedNetwork, bytes_of_a_row
from ntk_resnet.models.functions import as_function

OUTPUTS = ("full", "trace", "mean", "diagonal")
FACTOR_BYTES = 2**29
"""Memory for the factors of two batches of rows, which are held at a time."""


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
    network = TracedNetwork.of(apply, params, rest, x1)
    first = factors_of(network.program, network.values, x1)
    second = None if x2 is None else factors_of(network.program, network.values, x2)
    return kernel_of(network.program, first, second, outputs)


def ntk_of_rows(model: nnx.Module, x: Array, *, outputs: str) -> Array:
    """`empirical_ntk` of an nnx module in one piece, for use inside transformations."""
    return ntk_block(*as_function(model), x, None, outputs)


def ntk_against(
    apply: Callable, params: Any, rest: Any, rows: Array, x: Array
) -> Array:
    """The NTK of many rows against few, mean over outputs, `(len(rows), len(x))`."""
    return ntk_block(apply, params, rest, rows, x, "mean")


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
            `Frozen` ones do not count); a pair (linen module, variables), a bound
            linen module or a pair (function, variables) that applies linen modules,
            such as `module.apply`, over the collection `params`, with all others (such
            as `batch_stats`) held fixed; or any other pair `(apply_fn, params)` with
            `apply_fn(params, x)`, over all of `params`. Rows of `x` must not see one
            another, nor chance (no batch normalisation or dropout in training mode);
            eager calls find that out.
        x1: inputs, one a row, `(n1, ...)`.
        x2: the same, `(n2, ...)`; `None` means `x1`, at half the price, and a kernel
            that is symmetric to the last bit.
        outputs: over the k outputs (further axes are flattened), `"full"`,
            `"diagonal"` (i = j), `"trace"` (their sum) or `"mean"` (trace / k).
        batch_rows: rows whose factors are held at a time; by default as many as fit
            256 MiB, but at least one. They are, for every row and layer, its input and
            the gradients of the k outputs with respect to its output.

    Returns:
        `(n1, n2, k, k)` if full, `(n1, n2, k)` if diagonal, else `(n1, n2)`; in the
        dtype of the gradients, float32 at least, and float32 while JAX's x64 mode is
        off, in which it computes any network so.

    Raises:
        ValueError: an argument is not as described; the text names it.

    Accuracy:
        A sum over all P parameters in the dtype of the parameters, with full-precision
        products: a relative error of the diagonal of about sqrt(P) eps
        (`tests/finite/empirical/test_finite_empirical.py`).
    """
    check_choice("outputs", outputs, OUTPUTS)
    x1, x2 = _pair(x1, x2)
    network = checked_network(model, x1)
    if batch_rows is None:
        size = max(1, bytes_of_a_row(network.program))
        batch_rows = max(1, FACTOR_BYTES // (2 * size))
    batch_rows = check_count("batch_rows", batch_rows)
    return _tiles(network, x1, x2, batch_rows, outputs)


class Method(NamedTuple):
    """How the share of one weight in the kernel is computed."""

    parameter: str
    shape: tuple[int, ...]
    method: str  # "factors", "positions", "gradients" or "jacobian"
    products: int  # of two numbers, once its factors are there


def ntk_methods(
    model: Any, x1: Any, x2: Any = None, outputs: str = "full"
) -> list[Method]:
    """What `empirical_ntk` would do for each weight, and what it would cost.

    Args:
        model, x1, x2, outputs: as there; in one batch of rows.

    Returns:
        A `Method` for each trained weight that the network uses: `"factors"`,
        `"positions"` or `"gradients"`, the cheapest by the products that it needs, for
        one that enters linearly, in one place; else `"jacobian"`. Besides, all methods
        share one pass forward and k passes back.

    Raises:
        ValueError: as there.
    """
    check_choice("outputs", outputs, OUTPUTS)
    x1, x2 = _pair(x1, x2)
    n1, n2 = len(x1), len(x1 if x2 is None else x2)
    program = checked_network(model, x1).program
    named = jax.tree_util.tree_leaves_with_path(as_function(model, x1)[1])
    count = program.outputs.shape[0]
    pairs = n1 * n2 * (count * count if outputs == "full" else count)
    found = {leaf: ("jacobian", pairs * named[leaf][1].size) for leaf in program.others}
    for layer in program.layers.values():
        found[layer.leaf] = cheapest(layer, n1, n2, count, outputs)
    return [
        Method(jax.tree_util.keystr(named[leaf][0]), named[leaf][1].shape, *how)
        for leaf, how in sorted(found.items())
    ]


def empirical_nngp(model: nnx.Module, x1: Any, x2: Any = None) -> Float[Array, "n1 n2"]:
    """The kernel of the last layer's features, `h_L(x1) . h_L(x2) / width`.

    It estimates the NNGP kernel: the covariance of the outputs over random readouts.
    For convolutional networks `h_L` is what meets the readout: the mean over pixels,
    or all pixels, and `width` their number times the channels.

    Args:
        model: a network from `build`, or a module with a method `features(x)` that
            returns `(n, width)`, each row by itself.
        x1, x2: inputs, `(n1, ...)` and `(n2, ...)`; `None` means `x1`.

    Returns:
        `(n1, n2)`, in the dtype of the features, float32 at least.

    Raises:
        ValueError: there are no such features, or the inputs are not finite arrays.

    Accuracy:
        A mean over the features with full-precision products: a few eps of the dtype
        of the features, relative to the diagonal
        (`tests/finite/empirical/test_finite_empirical.py`).
    """
    if not isinstance(model, nnx.Module) or not hasattr(model, "features"):
        raise ValueError(
            "model must be a module with a method features(x), such as one from "
            f"nr.finite.build; got {type(model).__name__}."
        )
    x1, x2 = _pair(x1, x2)
    graphdef, state = nnx.split(model)
    _check_features(graphdef, state, x1)
    return _compiled_nngp(graphdef, state, x1, x2)


def _pair(x1, x2):
    """Inputs as models take them, in one dtype: a program is made for one."""
    x1, x2 = check_pair(("x1", x1), ("x2", x2), check_rows)
    if x2 is None:
        return x1, None
    dtype = jnp.promote_types(
        *(jax.dtypes.canonicalize_dtype(x.dtype) for x in (x1, x2))
    )
    return x1.astype(dtype), x2.astype(dtype)


def _features_of(model):
    """Of convolutional networks those that the readout takes, without pixels."""
    return getattr(model, "readout_inputs", model.features)


def _check_features(graphdef, state, x):
    def features(state, rows):
        return _features_of(nnx.merge(graphdef, state))(rows)

    shape = jax.eval_shape(features, state, x)
    real = hasattr(shape, "dtype") and jnp.issubdtype(shape.dtype, jnp.floating)
    if not real or shape.ndim != 2 or len(shape) != len(x) or not shape.size:
        found = jax.tree.map(lambda leaf: leaf.shape, shape)
        raise ValueError(
            "model.features(x) must be one float array (n, width), one row an input; "
            f"got {found} for x1 {x.shape}."
        )
    if not is_traced(state, x):
        check_apart(features, state, x)


def feature_kernel(model: Any, x1: Array, x2: Array | None = None) -> Array:
    """`empirical_nngp` for use inside transformations."""
    features = _features_of(model)
    with jax.default_matmul_precision("highest"):
        first = wide(features(x1))
        second = first if x2 is None else wide(features(x2))
        return first @ second.T / first.shape[-1]


@jax.jit
def _compiled_nngp(graphdef, state, x1, x2):
    return feature_kernel(nnx.merge(graphdef, state), x1, x2)


def _tiles(network, x1, x2, rows, outputs):
    """The kernel from blocks of `rows` x `rows`, of a symmetric one only the upper."""
    firsts = _cut(x1, rows)
    seconds = None if x2 is None else _cut(x2, rows)
    lines: list[list[Array]] = []
    for number, part in enumerate(firsts):
        first, line = network.factors(part), []
        if seconds is None:
            line = [turned(above[number], outputs) for above in lines]
            line.append(network.kernel(first, None, outputs))
        for other in firsts[number + 1 :] if seconds is None else seconds:
            line.append(network.kernel(first, network.factors(other), outputs))
        lines.append(line)
    return jnp.concatenate([jnp.concatenate(line, axis=1) for line in lines])


def _cut(x, rows):
    return [x[i : i + rows] for i in range(0, len(x), rows)]
