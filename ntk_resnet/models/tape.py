"""A run of any model as a list of plain operations, loops and calls written out.

Each operation knows what went in and what came out, and whether that depends on the
inputs of the model or on its weights alone.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ntk_resnet.models.functions import Prepared, prepared
from ntk_resnet.models.jaxprs import bind, opened, parts_of_loop, read

_CALLS = frozenset(
    {"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint"}
    | {"custom_jvp_call", "custom_vjp_call"}
)


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A value in the run."""

    value: Any
    varies: bool  # with the inputs of the model
    leaves: frozenset[int] = frozenset()  # of the parameters, that it is made of alone
    place: tuple[int, ...] = ()  # which slice of a stacked leaf, in loops


class Operation(NamedTuple):
    """One primitive of JAX, or a slice or stack of what a loop goes through."""

    name: str
    params: dict[str, Any]
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    at: Callable[[Sequence[Any]], list[Any]]  # results at other values of the inputs

    @property
    def varying(self) -> tuple[Node, ...]:
        """Inputs that depend on those of the model, each time they occur."""
        return tuple(node for node in self.inputs if node.varies)


Changes = Mapping[int, Callable[[Any, Sequence[Any]], Any]]
"""What to put in place of the result of some operations, by their number."""


class Tape(NamedTuple):
    """Operations in the order of the run, of those that depend on the inputs."""

    operations: list[Operation]
    input: Node
    output: Node
    names: list[str]  # of the leaves of the parameters
    made_of: Prepared

    def again(self, change: Changes) -> "Tape":
        """The same run with other results of some operations."""
        return _record(self.made_of, change)

    def weight_name(self, node: Node) -> str:
        """That of the parameter a node is made of, with its place in a stack."""
        name = " ".join(self.names[leaf] for leaf in sorted(node.leaves)) or "constant"
        return name + "".join(f"[{index}]" for index in node.place)


def record(model: Any, x: Array | np.ndarray) -> Tape:
    """Runs a model on rows `x`, and writes down what is done to them.

    Args:
        model: as `as_function` takes it.
        x: `(n, ...)`.

    Raises:
        ValueError: it is no model, or does not return one array; or `x` is no array of
            finite numbers.
    """
    made_of = prepared(model, x)
    with made_of.precision:
        return _record(made_of, {})


def _record(made_of, change):
    """A run; also inside transformations."""
    apply, params, rest, x = made_of
    named, structure = jax.tree.flatten_with_path(params)
    leaves = [leaf for _, leaf in named]
    fixed, fixed_structure = jax.tree.flatten(rest)

    def outputs(leaves, fixed, x):
        return apply(
            jax.tree.unflatten(structure, leaves),
            jax.tree.unflatten(fixed_structure, fixed),
            x,
        )

    with jax.default_matmul_precision("highest"):
        closed = jax.make_jaxpr(outputs)(leaves, fixed, x)
        if len(closed.jaxpr.outvars) != 1:
            raise ValueError(
                "model must return one array of outputs, got "
                f"{len(closed.jaxpr.outvars)} arrays."
            )
        nodes = [
            *(Node(leaf, False, frozenset({i})) for i, leaf in enumerate(leaves)),
            *(Node(leaf, False) for leaf in fixed),
            Node(jnp.asarray(x), True),
        ]
        run = _Run(change)
        (output,) = run.program(closed.jaxpr, closed.consts, nodes)
    names = [_name_of(path) for path, _ in named]
    return Tape(run.operations, nodes[-1], output, names, made_of)


def gradients_at(tape: Tape, places: Sequence[int], cotangent: Any) -> list[Array]:
    """Derivatives of `sum(cotangent * outputs)` in results of operations.

    Args:
        tape: of the run.
        places: numbers of the operations.
        cotangent: of the shape of the outputs.
    """

    def run(added):
        change = {at: lambda v, _, at=at: v + added[at] for at in places}
        return tape.again(change).output.value

    with tape.made_of.precision:
        zeros = {
            at: jnp.zeros_like(tape.operations[at].outputs[0].value) for at in places
        }
        outputs, back = jax.vjp(run, zeros)
        (found,) = back(jnp.asarray(cotangent, outputs.dtype))
    return [found[at] for at in places]


def _name_of(path):
    """`blocks.kernel` of a path of keys, without what Flax adds."""
    keys = [
        str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path
    ]
    return ".".join(key for key in keys if key not in ("value", "raw_value"))


class _Run:
    """Carries programs out, operation by operation."""

    def __init__(self, change):
        self.operations: list[Operation] = []
        self.change = change

    def program(self, jaxpr, consts, nodes):
        known = dict(zip(jaxpr.constvars, map(_constant, consts), strict=True))
        known |= zip(jaxpr.invars, nodes, strict=True)
        for equation in jaxpr.eqns:
            inputs = [_node(known, atom) for atom in equation.invars]
            known |= zip(equation.outvars, self.equation(equation, inputs), strict=True)
        return [_node(known, atom) for atom in jaxpr.outvars]

    def equation(self, equation, inputs):
        name, params = equation.primitive.name, equation.params
        if name in _CALLS:
            return self.call(equation, inputs)
        if name == "scan":
            return list(self.loop(equation, inputs))
        return self.note(
            name, params, inputs, lambda values: bind(equation, list(values))
        )

    def call(self, equation, inputs):
        params = equation.params
        inner = next(
            params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params
        )
        jaxpr, consts = opened(inner)
        return self.program(jaxpr, consts, inputs)

    def loop(self, equation, inputs) -> Iterator[Node]:
        jaxpr, consts = opened(equation.params["jaxpr"])
        first, carried = parts_of_loop(equation)
        length, backwards = equation.params["length"], equation.params["reverse"]
        same, rest = inputs[:first], inputs[first:]
        carry, sliced = rest[:carried], rest[carried:]
        stacked: list[list[Node]] = [[] for _ in jaxpr.outvars[carried:]]
        steps = reversed(range(length)) if backwards else range(length)
        for step in steps:
            here = [self.slice(node, step) for node in sliced]
            results = self.program(jaxpr, consts, [*same, *carry, *here])
            carry = results[:carried]
            for into, node in zip(stacked, results[carried:], strict=True):
                into.append(node)
        yield from carry
        for nodes, variable in zip(stacked, equation.outvars[carried:], strict=True):
            yield self.stack(nodes[::-1] if backwards else nodes, variable)

    def slice(self, node, step):
        """One step's part of what a loop goes through."""
        evaluate = lambda values: [values[0][step]]  # noqa: E731
        (part,) = self.note("slice", {}, [node], evaluate)
        return dataclasses.replace(part, place=(*node.place, step))

    def stack(self, nodes, variable):
        if not nodes:
            return _constant(jnp.zeros(variable.aval.shape, variable.aval.dtype))
        evaluate = lambda values: [jnp.stack(values)]  # noqa: E731
        (whole,) = self.note("concatenate", {}, nodes, evaluate)
        return whole

    def note(self, name, params, inputs, evaluate):
        """Carries an operation out, and writes it down if it is one on inputs."""
        given = [node.value for node in inputs]
        values = evaluate(given)
        varies = any(node.varies for node in inputs)
        if not varies:
            leaves = frozenset().union(*(node.leaves for node in inputs))
            places = {node.place for node in inputs if node.leaves}
            place = places.pop() if len(places) == 1 else ()
            return [Node(value, False, leaves, place) for value in values]
        if change := self.change.get(len(self.operations)):
            values = [change(values[0], given), *values[1:]]
        outputs = tuple(Node(value, True) for value in values)
        made = Operation(name, params, tuple(inputs), outputs, evaluate)
        self.operations.append(made)
        return list(outputs)


def _constant(value):
    return Node(value, False)


def _node(known, atom):
    found = read(known, atom)
    return found if isinstance(found, Node) else _constant(found)
