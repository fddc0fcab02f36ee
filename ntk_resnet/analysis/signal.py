"""How signals go through any Flax model: moments by block, paths of its branches.

Residual blocks are found in the graph of a run: where two values are added of which one
is made of the other, by weights, the former is the branch and the latter the trunk.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ntk_resnet._checks import check_choice, check_count
from ntk_resnet.models.functions import prepared, program_of
from ntk_resnet.models.tape import Tape, gradients_at, record
from ntk_resnet.records.provenance import provenance

_PRODUCTS = ("dot_general", "conv_general_dilated")
_NO_BLOCK = (
    "model has no residual block, no sum of a value and of what weights make of it."
)


def moments(
    model: Any, x: Any, *, by: str = "block", seed: int | None = 0
) -> xr.Dataset:
    r"""First and second moments of what passes through a model, forward and back.

    Args:
        model: an nnx module, a pair of a linen module and its variables, or a pair
            `(apply_fn, params)`; in training or evaluation mode, as it is called.
        x: rows or images `(n, ...)`.
        by: `"block"`: the residual blocks; `"layer"`: the results of all products with
            weights.
        seed: of the random direction in the space of outputs along which derivatives
            are taken; `None`: none are.

    Returns:
        A dataset over `block` (or `layer`), from the first to the last. Of the sums of
        trunk and branch: `second_moment`, the mean of squares over rows and units,
        `square_of_means`, that of the means over rows (and pixels) of each unit, and
        `variance`, their difference; the same with `trunk_` and `branch_` in front of
        what is added, and `branch_share`, the branch's second moment over that of trunk
        and branch together. `gradient_second_moment`, the mean square of the
        derivatives of a row's outputs along a direction of random numbers of variance
        one. By layer, those of the products, and `name`, the weight.

    Raises:
        ValueError: there is no residual block, or bad arguments.

    Accuracy: sums of squares in float64, of numbers in the dtype of the model
    (`tests/analysis/test_signal.py`).
    """
    check_choice("by", by, ("block", "layer"))
    tape = record(model, x)
    if by == "block":
        blocks = _residual_blocks(tape)
        found = [_of_block(tape.operations[at], trunk) for at, trunk in blocks]
        places = [at for at, _ in blocks]
    else:
        places = _layers(tape)
        found = [_of_layer(tape, tape.operations[at]) for at in places]
    if not places:
        raise ValueError(
            f'{_NO_BLOCK} Pass by="layer".'
            if by == "block"
            else "model multiplies its inputs by no weight."
        )
    if seed is not None:
        for one, gradient in zip(found, _gradients(tape, places, seed), strict=True):
            one["gradient_second_moment"] = _second_moment(gradient)
    variables = {name: (by, [one[name] for one in found]) for name in found[0]}
    result = xr.Dataset(
        variables,
        coords={by: np.arange(1, len(places) + 1)},
        attrs=provenance(rows=len(tape.input.value), seed=seed),
    )
    return result.set_coords("name") if by == "layer" else result


def expansion(model: Any, x: Any, orders: int = 4) -> xr.Dataset:
    r"""A residual model as a sum over paths: its Taylor series in the branches' scale.

    Each branch :math:`F_i` is multiplied by one number t: of n blocks

    .. math::
        \prod_i (1 + t F_i)\, x = \sum_k t^k\, T_k(x),

    where :math:`T_k` is the sum over the :math:`\binom nk` ordered choices of k blocks
    if branches are linear, and has terms of higher derivatives from the third order on
    if they are not (Dherin and Munn 2025).

    Args:
        model, x: as in `moments`; where branches are not smooth (ReLU) derivatives
            are those that JAX takes at t = 0.
        orders: the highest power of t, at most 8.

    Returns:
        A dataset over `order` from 0: `second_moment` of :math:`T_k` over rows and
        outputs, `share` of their sum, `paths`, :math:`\binom nk`, and `error`, the root
        mean square of the outputs less the terms up to that order, over that of the
        outputs. And `term` `(order, row, output)`.

    Raises:
        ValueError: there is no residual block, or bad arguments.

    Accuracy: derivatives are exact, in the dtype of the model
    (`tests/analysis/test_signal.py`).
    """
    orders = check_count("orders", orders, least=0)
    if orders > 8:
        raise ValueError(f"orders must be at most 8, got {orders}.")
    tape = record(model, x)
    blocks = _residual_blocks(tape)
    if not blocks:
        raise ValueError(_NO_BLOCK)

    def scaled(t):
        change = {
            at: lambda _, given, trunk=trunk: given[trunk] + t * given[1 - trunk]
            for at, trunk in blocks
        }
        return tape.again(change).output.value

    with tape.made_of.precision:
        one = jnp.ones((), tape.output.value.dtype)
        terms = [np.asarray(v, float) for v in _taylor(scaled, 0 * one, orders)]
    outputs = np.asarray(tape.output.value, float)
    left, errors = outputs, []
    for term in terms:
        left = left - term
        errors.append(_root(left) / _root(outputs))
    squares = np.array([np.mean(term**2) for term in terms])
    n, rows = len(blocks), len(outputs)
    return xr.Dataset(
        {
            "second_moment": ("order", squares),
            "share": ("order", squares / squares.sum()),
            "paths": ("order", [float(math.comb(n, k)) for k in range(orders + 1)]),
            "error": ("order", errors),
            "term": (
                ("order", "row", "output"),
                np.stack([term.reshape(rows, -1) for term in terms]),
            ),
        },
        coords={"order": np.arange(orders + 1)},
        attrs=provenance(blocks=n, rows=rows),
    )


def geometric_complexity(model: Any, x: Any, *, batch_rows: int = 64) -> float:
    r"""The mean over rows of :math:`|\partial f(x) / \partial x|_F^2` (Dherin 2022).

    Args:
        model, x: as in `moments`; each row by itself.
        batch_rows: rows whose Jacobians are in memory together.

    Accuracy: that of derivatives in the dtype of the model
    (`tests/analysis/test_signal.py`).
    """
    batch_rows = check_count("batch_rows", batch_rows)
    apply, params, rest, x = made_of = prepared(model, x)
    with made_of.precision:
        program = program_of(apply, params, rest, x[:1])

        def of_row(row):
            jacobian = jax.jacrev(lambda r: program(params, rest, r[None])[0])(row)
            return jnp.sum(jacobian**2)

        size = min(batch_rows, len(x))
        squares = jax.jit(lambda x: jax.lax.map(of_row, x, batch_size=size))(x)
        return float(np.asarray(squares, float).mean())


# ----------------------------------------------------------------------------- moments


def _second_moment(value):
    return float(np.mean(np.asarray(value, np.float64) ** 2))


def _moments_of(value, prefix=""):
    value = np.asarray(value, np.float64)
    value = value.reshape(-1, value.shape[-1])  # rows and pixels, units
    second = float(np.mean(value**2))
    means = float(np.mean(value.mean(axis=0) ** 2))
    return {
        f"{prefix}second_moment": second,
        f"{prefix}square_of_means": means,
        f"{prefix}variance": second - means,
    }


def _of_block(operation, trunk):
    (out,), given = operation.outputs, operation.inputs
    found = _moments_of(out.value)
    found |= _moments_of(given[trunk].value, "trunk_")
    found |= _moments_of(given[1 - trunk].value, "branch_")
    both = found["trunk_second_moment"] + found["branch_second_moment"]
    found["branch_share"] = found["branch_second_moment"] / both if both else math.nan
    return found


def _layers(tape):
    """Numbers of the products with weights."""
    return [
        number
        for number, operation in enumerate(tape.operations)
        if operation.name in _PRODUCTS and len(operation.varying) == 1
    ]


def _of_layer(tape, operation):
    (weight,) = (node for node in operation.inputs if not node.varies)
    found: dict[str, Any] = _moments_of(operation.outputs[0].value)
    return found | {"name": tape.weight_name(weight)}


def _gradients(tape, places, seed):
    """Derivatives of outputs along a random direction."""
    with tape.made_of.precision:
        outputs = tape.output.value
        key = jax.random.key(seed)
        direction = jax.random.normal(key, outputs.shape, outputs.dtype)
    return gradients_at(tape, places, direction)


# -------------------------------------------------------------------------- the graph


def _residual_blocks(tape: Tape) -> list[tuple[int, int]]:
    """The sums of a trunk and a branch: their number, and which operand is the trunk.

    The trunk is what the branch is made of, through at least one product with weights;
    where neither operand is made of the other (a projection on the shortcut), the one
    with fewer products behind it, if both have an ancestor other than the inputs.
    """
    # Sets of values as bits of a number: what each is made of, and what of that has
    # met a weight since.
    place = {tape.input: 0}
    made, weighted, products = {tape.input: 0}, {tape.input: 0}, {tape.input: 0}
    found = []
    for number, operation in enumerate(tape.operations):
        varying = operation.varying
        if operation.name in ("add", "add_any") and len(varying) == 2:
            trunk = _trunk(varying, place, made, weighted, products)
            if trunk is not None:
                found.append((number, trunk))
        before = behind = 0
        for node in varying:
            before |= made[node] | 1 << place[node]
            behind |= weighted[node]
        product = operation.name in _PRODUCTS
        for out in operation.outputs:
            place[out] = len(place)
            made[out] = before
            weighted[out] = before if product else behind
            products[out] = product + max(products[node] for node in varying)
    return found


def _trunk(pair, place, made, weighted, products):
    """Which of two values that are added is the trunk; `None`: neither."""
    for trunk in (0, 1):
        if weighted[pair[1 - trunk]] >> place[pair[trunk]] & 1:
            return trunk
    first, second = (products[node] for node in pair)
    common = weighted[pair[0]] & weighted[pair[1]]
    if first == second or not common:
        return None
    return int(first > second)


def _taylor(function, at, orders):
    """The coefficients of the Taylor series of a function of one number."""
    one, terms = jnp.ones_like(at), []
    for order in range(orders + 1):
        terms.append(function(at) / math.factorial(order))
        function = _derivative(function, one)
    return terms


def _derivative(function, one):
    return lambda t: jax.jvp(function, (t,), (one,))[1]


def _root(values):
    return float(np.sqrt(np.mean(values**2)))
