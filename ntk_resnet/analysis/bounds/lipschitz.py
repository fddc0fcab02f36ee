"""How far a network can move when an input or a weight moves: any Flax model's graph.

A run of the model is written down (`models.tape`). Each operation has a Lipschitz
constant in each of its inputs; along the graph constants multiply, and where paths meet
they add up: a chain gives the product of its norms, a residual block one plus that of
its branch.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_resnet.analysis.bounds.operators import (
    Norm,
    convolution_norm,
    matrix_norm,
)
from ntk_resnet.models.tape import Node, Operation, Tape

# Operations on each number by itself.
ELEMENTWISE = frozenset(
    {"add", "add_any", "sub", "mul", "div", "neg", "max", "min", "clamp", "select_n"}
    | {"tanh", "erf", "erfc", "logistic", "exp", "exp2", "expm1", "log", "log1p"}
    | {"sqrt", "rsqrt", "cbrt", "integer_pow", "pow", "square", "abs", "sign", "copy"}
    | {"sin", "cos", "tan", "atan", "atan2", "asin", "acos", "sinh", "cosh", "asinh"}
    | {"gt", "ge", "lt", "le", "eq", "ne", "and", "or", "not", "xor", "is_finite"}
    | {"convert_element_type", "stop_gradient", "floor", "ceil", "round"}
)
# Operations that only move numbers, or leave some out.
_MOVES = frozenset(
    {"reshape", "transpose", "squeeze", "expand_dims", "rev", "slice", "pad"}
    | {"concatenate", "split", "reduce_max", "reduce_min", "dynamic_slice"}
)


class Layer(NamedTuple):
    """A place where a weight multiplies what the inputs have become."""

    name: str
    norm: Norm  # spectral, as the operator that it is there
    matrix: np.ndarray  # the weight as (fan_in, fan_out)
    taps: int  # at most so many outputs see one number of the input
    operation: Operation
    weight: int  # which of its operands

    @property
    def input(self) -> Node:
        """What meets the weight."""
        return self.operation.inputs[1 - self.weight]

    @property
    def output(self) -> Node:
        """What comes of it."""
        return self.operation.outputs[0]

    def gradient_norm(self, delta: Any) -> float:
        """Frobenius norm of the derivative in the weight, from that in the output."""
        values = [node.value for node in self.operation.inputs]

        def of(weight):
            values[self.weight] = weight
            return self.operation.at(values)[0]

        (gradient,) = jax.vjp(of, values[self.weight])[1](delta)
        return length(gradient)


class Graph(NamedTuple):
    """The operations of a model with their Lipschitz constants."""

    edges: list[tuple[list[tuple[Node, float]], Operation | None, Node]]
    layers: list[Layer]
    tape: Tape

    def after(self) -> dict[Node, float]:
        """Lipschitz constants of the outputs in each value of the run."""
        found = {self.tape.output: 1.0}
        for sources, _, target in reversed(self.edges):
            through = found.get(target, 0.0)
            for node, constant in sources:
                found[node] = found.get(node, 0.0) + constant * through
        return found

    def sizes(self) -> dict[Node, float]:
        """Bounds on the Frobenius norm of each value, for weights of these norms.

        By the triangle inequality from that of the inputs, biases and values at 0 of
        functions as they are.
        """
        first = self.tape.input
        found = {first: length(first.value)}
        for sources, operation, target in self.edges:
            bound = sum(constant * found[node] for node, constant in sources)
            found[target] = bound + _offset(operation, target)
        return found


def graph_of(tape: Tape) -> Graph:
    """The graph of a run.

    Raises:
        ValueError: an operation has no Lipschitz constant, or none is known here.
    """
    edges: list[Any] = []
    layers: list[Layer] = []
    functions: dict[Node, _Function] = {}

    def settled(node):
        """A value that operations take: functions of one number become an edge."""
        function = functions.pop(node, None)
        if function is not None:
            edges.append(([(function.base, function.constant())], function, node))
        return node

    for operation in tape.operations:
        function = _function_of(operation, functions)
        if function is not None:
            (out,) = operation.outputs
            functions[out] = function
            continue
        for node in operation.varying:
            settled(node)
        constants, layer = _constants(operation, tape)
        if layer is not None:
            layers.append(layer)
        sources = list(zip(operation.varying, constants, strict=True))
        edges.extend((sources, operation, out) for out in operation.outputs)
    settled(tape.output)
    return Graph(edges, layers, tape)


# ------------------------------------------------------------- functions of one number

_EVALUATE = (
    "Nor has normalisation by statistics of the values themselves: call model.eval() "
    "first if there is batch normalisation."
)
_NEAR = np.linspace(0, 30, 20_001)
_FAR = np.geomspace(30, 1e6, 400)[1:]
_GRID = np.concatenate([-_FAR[::-1], -_NEAR[:0:-1], _NEAR, _FAR])


@dataclasses.dataclass(frozen=True, eq=False)
class _Function:
    """What was made of each number of a value by itself, with the same constants."""

    base: Node
    operation: Operation
    parts: tuple[Any, ...]  # of its operands: functions, the base, or numbers

    def __call__(self, numbers):
        """Its values, `(k,)`."""
        values = []
        for part in self.parts:
            if isinstance(part, _Function):
                values.append(part(numbers))
            elif part is self.base:
                values.append(numbers)
            else:
                values.append(jnp.full(numbers.shape, part))
        return self.operation.at(values)[0]

    @property
    def outputs(self):
        return self.operation.outputs

    def constant(self) -> float:
        """The largest slope on a grid of |z| <= 10^6; refused where it grows there."""
        dtype = self.base.value.dtype
        grid = jnp.asarray(_GRID, dtype)
        slopes = jax.jvp(self, (grid,), (jnp.ones_like(grid),))[1]
        slopes = np.abs(np.asarray(slopes, float))
        inside = slopes[len(_FAR) : -len(_FAR)].max()
        if not np.isfinite(slopes).all() or slopes.max() > 1.001 * inside + 1e-6:
            raise ValueError(
                f"model uses a function of one number (it ends in "
                f"{self.operation.name!r}) whose slope is not bounded, so that it has "
                f"no Lipschitz constant. {_EVALUATE}"
            )
        return float(slopes.max())


def _function_of(operation, functions):
    """The operation as a function of one number; `None` if it is none."""
    if operation.name not in ELEMENTWISE or len(operation.outputs) != 1:
        return None
    parts, bases = [], set()
    for node in operation.inputs:
        if not node.varies:
            number = _number(node.value)
            if number is None:
                return None
            parts.append(number)
            continue
        part = functions.get(node, node)
        bases.add(part.base if isinstance(part, _Function) else node)
        parts.append(part)
    if len(bases) != 1:
        return None
    (base,) = bases
    if base.value.shape != operation.outputs[0].value.shape:
        return None
    return _Function(base, operation, tuple(parts))


def _number(value):
    """The one number that all entries are; `None` if they differ."""
    value = np.asarray(value)
    if not value.size:
        return None
    first = value.flat[0]
    return first if value.size == 1 or (value == first).all() else None


# ------------------------------------------------------------- operations by themselves


def _constants(operation: Operation, tape: Tape) -> tuple[Sequence[float], Any]:
    """Lipschitz constants in the operands that vary; and the layer, if it is one."""
    name, params, inputs = operation.name, operation.params, operation.inputs
    varying = operation.varying
    ones = [1.0] * len(varying)
    out = operation.outputs[0]
    if name in ("add", "add_any", "sub", "max", "min", "clamp"):
        return [_spread(node, out) for node in varying], None
    if name in _MOVES:
        return ones, None
    if name == "broadcast_in_dim":
        return [_spread(varying[0], out)], None
    if name == "select_n" and not inputs[0].varies:
        return ones, None
    if name in ("mul", "div") and len(varying) == 1:
        return [_scaling(operation) * _spread(varying[0], out)], None
    if name == "reduce_sum":
        return [math.sqrt(varying[0].value.size / out.value.size)], None
    if name in ("reduce_window_sum", "reduce_window_max", "reduce_window_min"):
        return [_window(name, params)], None
    if name in ("dot_general", "conv_general_dilated") and len(varying) == 1:
        layer = _layer(operation, tape)
        trained = any(node.leaves for node in inputs)
        return [layer.norm.value], layer if trained else None
    raise ValueError(
        f"model does {name!r} with {len(varying)} values that depend on the input "
        f"(shapes {[tuple(n.value.shape) for n in varying]}), for which no Lipschitz "
        "constant is known: products of two such values, as in attention, have none. "
        f"{_EVALUATE}"
    )


def _spread(node, out):
    """By how much the length of a value grows as it is repeated."""
    return math.sqrt(out.value.size / node.value.size)


def _scaling(operation):
    """The largest factor of a product with fixed numbers."""
    first, second = operation.inputs
    if operation.name == "mul":
        fixed = second if first.varies else first
        return float(np.abs(np.asarray(fixed.value)).max())
    if not first.varies:
        raise ValueError(
            "model divides by a value that depends on the input: no Lipschitz constant "
            "is known."
        )
    return float((1 / np.abs(np.asarray(second.value))).max())


def _window(name, params):
    sizes, strides = params["window_dimensions"], params["window_strides"]
    dilations = params.get("window_dilation") or (1,) * len(sizes)
    if any(d != 1 for d in (*dilations, *(params.get("base_dilation") or ()))):
        raise ValueError("model pools with dilation, which is not known here.")
    overlap = math.prod(
        math.ceil(size / stride) for size, stride in zip(sizes, strides, strict=True)
    )
    seen = math.prod(sizes) if name == "reduce_window_sum" else 1
    return math.sqrt(overlap * seen)


def _layer(operation, tape):
    at = 0 if operation.inputs[1].varies else 1
    weight, given = operation.inputs[at], operation.inputs[1 - at]
    name, value = tape.weight_name(weight), np.asarray(weight.value)
    if operation.name == "dot_general":
        contracted, batch = (s[at] for s in operation.params["dimension_numbers"])
        free = [a for a in range(value.ndim) if a not in (*contracted, *batch)]
        order = [*batch, *contracted, *free]
        lead = math.prod(value.shape[a] for a in batch)
        fan_in = math.prod(value.shape[a] for a in contracted)
        stack = value.transpose(order).reshape(lead, fan_in, -1)
        matrix, taps, norm = stack.reshape(lead * fan_in, -1), 1, matrix_norm(stack)
    else:
        if at == 0:
            raise ValueError("model convolves a weight with its input as the kernel.")
        spec = operation.params["dimension_numbers"].rhs_spec
        out, into, *space = spec
        matrix = value.transpose([*space, into, out]).reshape(-1, value.shape[out])
        taps = math.prod(
            math.ceil(value.shape[axis] / stride)
            for axis, stride in zip(
                space, operation.params["window_strides"], strict=True
            )
        )
        norm = convolution_norm(value, operation.params, given.value.shape)
    return Layer(name, norm, matrix, taps, operation, at)


# ------------------------------------------------------------------------------- sizes


def length(value: Any) -> float:
    """The Frobenius norm, in float64."""
    return float(np.linalg.norm(np.asarray(value, np.float64).ravel()))


def _offset(operation, target):
    """The length of what an operation makes of zeros."""
    if isinstance(operation, _Function):
        number = float(operation(jnp.zeros(1, operation.base.value.dtype))[0])
        return abs(number) * math.sqrt(target.value.size)
    if operation.name not in ELEMENTWISE:
        return 0.0
    values = [n.value * 0 if n.varies else n.value for n in operation.inputs]
    return length(operation.at(values)[0])


def check_same_layers(
    name: str, layers: Sequence[Layer], others: Sequence[Layer]
) -> None:
    """Raises a `ValueError` where a model has other layers than the first one."""
    own, found = (
        [(layer.name, layer.matrix.shape) for layer in model]
        for model in (layers, others)
    )
    if own != found:
        raise ValueError(f"{name} must be a model of the same layers as model.")
