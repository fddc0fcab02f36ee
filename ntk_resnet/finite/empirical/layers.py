"""Layers that are linear in a weight: what goes in, and the gradient that comes back.

Both as matrices with one row for each position of the input at which the weight is
applied: one for a dense layer of vectors, one a pixel for a convolution.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """The equation `y = factor W h` in which a weight is used; of one row."""

    leaf: int  # of the parameters
    factor: float
    operand: int  # which of the equation's operands is W
    params: dict[str, Any]  # of the equation
    weight: tuple[int, ...]  # shape of W
    output: jax.ShapeDtypeStruct  # y, at one step of the loops around
    loops: tuple[int, ...]  # their lengths, outermost first

    @property
    def fan_out(self) -> int:
        """Columns of the gradients."""
        raise NotImplementedError

    def inputs(self, h: Array) -> Array:
        """What meets the weight, `(positions, fan_in)`."""
        raise NotImplementedError

    def gradients(self, delta: Array) -> Array:
        """The gradient with respect to `y`, `(positions, fan_out)`."""
        raise NotImplementedError

    def overlaps(self, first: Array, second: Array) -> Array:
        """Inner products of inputs, `(..., positions, positions)`."""
        return jnp.einsum("...sa,...ta->...st", first, second, precision="highest")

    @property
    def fan_in(self) -> int:
        """Columns of the inputs."""
        return math.prod(self.weight) // self.fan_out

    @property
    def positions(self) -> int:
        """At how many places of a row the weight is applied."""
        return math.prod(self.output.shape) // self.fan_out

    @property
    def steps(self) -> int:
        """Of the loops around it: each has a slice of the weight of its own."""
        return math.prod(self.loops)


class Dense(Layer):
    """A product over some axes of the input and of the weight."""

    @property
    def fan_out(self):
        contracted = self.params["dimension_numbers"][0][self.operand]
        return math.prod(self.weight) // math.prod(self.weight[i] for i in contracted)

    def inputs(self, h):
        contracted = self.params["dimension_numbers"][0][1 - self.operand]
        h = jnp.moveaxis(h, contracted, range(-len(contracted), 0))
        return h.reshape(-1, self.fan_in)

    def gradients(self, delta):
        if self.operand == 0:  # the axes of W come first
            return delta.reshape(self.fan_out, -1).T
        return delta.reshape(-1, self.fan_out)


class Convolution(Layer):
    """A convolution; the input is cut into one patch for each pixel of the output."""

    @property
    def fan_out(self):
        return self.weight[self.params["dimension_numbers"].rhs_spec[0]]

    def inputs(self, h):
        params, numbers = self.params, self.params["dimension_numbers"]
        h = jnp.transpose(h, numbers.lhs_spec)  # (rows, channels, *pixels)
        inner = [(0, 0, 0)] * 2 + [
            (low, high, dilation - 1)
            for (low, high), dilation in zip(
                params["padding"], params["lhs_dilation"], strict=True
            )
        ]
        h = jax.lax.pad(h, jnp.zeros((), h.dtype), inner)
        sizes = [self.output.shape[axis] for axis in numbers.out_spec[2:]]
        kernel = [range(self.weight[axis]) for axis in numbers.rhs_spec[2:]]
        patches = [self._shifted(h, sizes, at) for at in itertools.product(*kernel)]
        stacked = jnp.stack(patches, axis=-1)  # (rows, channels, *pixels, kernel)
        return jnp.moveaxis(stacked, 1, -1).reshape(-1, self.fan_in)

    def gradients(self, delta):
        delta = jnp.transpose(delta, self.params["dimension_numbers"].out_spec)
        return jnp.moveaxis(delta, 1, -1).reshape(-1, self.fan_out)

    def _shifted(self, h, sizes, at):
        strides, dilations = self.params["window_strides"], self.params["rhs_dilation"]
        begins = [0, 0, *(i * d for i, d in zip(at, dilations, strict=True))]
        steps = [1, 1, *strides]
        lengths = [*h.shape[:2], *sizes]
        ends = [
            begin + step * (length - 1) + 1
            for begin, step, length in zip(begins, steps, lengths, strict=True)
        ]
        return jax.lax.slice(h, begins, ends, steps)


class Embedding(Layer):
    """Rows of a table; the inputs are their numbers, `(positions,)`."""

    @property
    def fan_out(self):
        return math.prod(self.weight[1:])

    def inputs(self, h):
        return h.reshape(-1)

    def gradients(self, delta):
        return delta.reshape(-1, self.fan_out)

    def overlaps(self, first, second):
        """Where both ask for the same row; one that does not exist has no gradient."""
        inside = (first >= 0) & (first < self.weight[0])
        same = first[..., :, None] == second[..., None, :]
        return (same & inside[..., None]).astype(self.output.dtype)


Parameters = dict[str, list[set[str]]]
"""Names of equations, and of their parameters in all versions of JAX that are known."""

LAYER_PARAMETERS: Parameters = {
    "dot_general": [
        {"dimension_numbers", "precision", "preferred_element_type", "out_sharding"}
    ],
    "conv_general_dilated": [
        {"dimension_numbers", "window_strides", "padding", "lhs_dilation"}
        | {"rhs_dilation", "feature_group_count", "batch_group_count"}
        | {"precision", "preferred_element_type", "out_sharding"}
    ],
    "gather": [
        {"dimension_numbers", "slice_sizes", "mode", "fill_value"}
        | {"indices_are_sorted", "unique_indices"}
    ],
}
"""The equations that may be layers."""


def layer_of(
    equation: Any, held: Sequence[Any], loops: tuple[int, ...]
) -> Layer | None:
    """The layer that an equation is; `None`: it is none of a kind known here.

    `held` says which operands are weights (see `tracing.Weight`).
    """
    if sum(weight is not None for weight in held) != 1:
        return None
    operand = next(i for i, weight in enumerate(held) if weight)
    weight, y = equation.invars[operand].aval, equation.outvars[0].aval
    kind = _kind(equation, operand, weight.shape, y.ndim)
    if kind is None or 0 in weight.shape:
        return None
    layer = kind(
        *held[operand],
        operand,
        dict(equation.params),
        weight.shape,
        jax.ShapeDtypeStruct(y.shape, y.dtype),
        loops,
    )
    # Here and not later, so that what cannot be read is found out.
    h = jax.eval_shape(layer.inputs, equation.invars[1 - operand].aval)
    delta = jax.eval_shape(layer.gradients, layer.output)
    fits = len(h) == len(delta) == layer.positions
    return layer if fits and delta.shape[1] == layer.fan_out else None


def _kind(equation, operand, shape, axes):
    """The class for a weight of that shape and a result of so many axes."""
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        in_parallel = params["dimension_numbers"][1]
        return None if any(in_parallel) else Dense
    if name == "conv_general_dilated" and operand == 1:
        groups = params["feature_group_count"], params["batch_group_count"]
        return Convolution if groups == (1, 1) else None
    if name == "gather" and operand == 0:
        numbers = params["dimension_numbers"]
        first = numbers.start_index_map == numbers.collapsed_slice_dims == (0,)
        whole = tuple(params["slice_sizes"]) == (1, *shape[1:])
        alone = not numbers.operand_batching_dims
        last = numbers.offset_dims == tuple(range(axes + 1 - len(shape), axes))
        clipped = params["mode"] == jax.lax.GatherScatterMode.CLIP
        plain = first and whole and alone and last and not clipped
        return Embedding if plain else None
    return None
