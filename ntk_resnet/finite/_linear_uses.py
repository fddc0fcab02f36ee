r"""Finds where a network uses its weights linearly, and reads what passes there.

A weight that enters the network only in one :math:`y = W h` (a dense layer, a
convolution, an embedding) has the gradient :math:`\delta \otimes h`, `delta` that of
the output with respect to `y`: two small arrays say all that a Jacobian would hold.
Here a network is the traced program of one row. A walk over its equations finds the
weights of which that is true; the program is then run with a perturbation added to each
such `y`, by which it is differentiated, and with every `h` put aside.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array

from ntk_resnet.finite._linear_layers import Layer, layer_of

Path = tuple[int, ...]
"""Of an equation: its number in the program, after those of the ones around it."""

# They move the entries of a weight, which keeps the inner products of its gradients.
_MOVES = {"reshape", "transpose", "squeeze", "rev", "copy", "copy_p", "neg"}
# Equations that run another program, and under which name they hold it.
_CALLS = {
    "jit": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
}


class Weight(NamedTuple):
    """What a variable holds: a leaf of the parameters, times a number."""

    leaf: int
    factor: float = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """The traced program of one row, and how it uses its weights.

    Its `values` are the leaves of the parameters, what is fixed, and constants.
    """

    jaxpr: core.Jaxpr
    layers: dict[Path, Layer]
    others: tuple[int, ...]  # leaves that are used in another way, or more than once

    @property
    def outputs(self) -> jax.ShapeDtypeStruct:
        """Of one row, `(k,)`."""
        return _shape(self.jaxpr.outvars[0])

    @property
    def arguments(self) -> tuple[list[jax.ShapeDtypeStruct], jax.ShapeDtypeStruct]:
        """Shapes of the values, and of the row."""
        *given, row = map(_shape, self.jaxpr.invars)
        return [*given, *map(_shape, self.jaxpr.constvars)], row

    def zeros(self) -> dict[Path, Array]:
        """Perturbations of all `y`."""
        return {
            path: jnp.zeros((*layer.loops, *layer.output.shape), layer.output.dtype)
            for path, layer in self.layers.items()
        }

    def run(
        self, values: Sequence[Any], row: Array, perturbations: dict[Path, Array]
    ) -> tuple[Array, dict[Path, Array]]:
        """The outputs `(k,)` and every `h`, with axes for loops in front."""
        given = len(self.jaxpr.invars) - 1
        operands, constants = [*values[:given], row], values[given:]
        run = functools.partial(_run, self.layers, self.jaxpr)
        (outputs,), seen = run(constants, operands, perturbations, ())
        return outputs, seen


def trace(
    function: Callable, leaves: Sequence[Any], fixed: Sequence[Any], row: Any
) -> tuple[Program, list[Any]]:
    """The program of `function(leaves, fixed, row)`, with outputs `(k,)`; constants."""
    closed = jax.make_jaxpr(function)(list(leaves), list(fixed), row)
    jaxpr = closed.jaxpr
    weights = {v: Weight(leaf) for leaf, v in enumerate(jaxpr.invars[: len(leaves)])}
    found: list[tuple[Path, Layer]] = []
    others: set[int] = set()
    returned = _walk(jaxpr, weights, (), (), found, others)
    others.update(weight.leaf for weight in returned.values())
    counts = np.bincount([layer.leaf for _, layer in found], minlength=len(leaves))
    others.update(np.flatnonzero(counts > 1).tolist())
    if not others and not found:  # a kernel of zeros: of any weight, so of a small one
        others.add(min(range(len(leaves)), key=lambda leaf: leaves[leaf].size))
    layers = {path: layer for path, layer in found if layer.leaf not in others}
    return Program(jaxpr, layers, tuple(sorted(others))), list(closed.consts)


def _shape(variable):
    return jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)


# ------------------------------------------------------------------------- the walk


def _walk(jaxpr, weights, path, loops, found, others):
    """Notes all uses of the weights; which of the outputs are weights themselves."""
    for number, equation in enumerate(jaxpr.eqns):
        held = [_held(weights, atom) for atom in equation.invars]
        if not any(held):
            continue
        here = (*path, number)
        inner = _inner(equation, held)
        if inner is not None:
            program, lengths = inner
            given = zip(program.invars, held, strict=True)
            known = {v: weight for v, weight in given if weight}
            returned = _walk(program, known, here, loops + lengths, found, others)
            if lengths:  # a loop has stacked them
                others.update(weight.leaf for weight in returned.values())
            else:
                weights |= {equation.outvars[i]: w for i, w in returned.items()}
        elif (moved := _moved(equation, held)) is not None:
            weights[equation.outvars[0]] = moved
        elif (layer := layer_of(equation, held, loops)) is not None:
            found.append((here, layer))
        else:
            others.update(weight.leaf for weight in held if weight)
    outputs = enumerate(_held(weights, atom) for atom in jaxpr.outvars)
    return {i: weight for i, weight in outputs if weight}


def _held(weights, atom):
    return None if isinstance(atom, core.Literal) else weights.get(atom)


def _inner(equation, held):
    """The program in an equation and the length of its loop; `None`: out of sight."""
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        return _opened(params[_CALLS[name]])[0], ()
    if name == "scan":
        # A weight that is the same at every step is used many times.
        same = params["num_consts"] + params["num_carry"]
        if not any(held[:same]):
            return params["jaxpr"].jaxpr, (params["length"],)
    return None


def _opened(program):
    """A program that may be closed over constants, and these."""
    return getattr(program, "jaxpr", program), getattr(program, "consts", ())


def _moved(equation, held):
    """The weight that the result is: moved, or times a number of the program's text."""
    name = equation.primitive.name
    if name in _MOVES:
        return held[0]
    if name == "convert_element_type":
        wanted = equation.outvars[0].aval.dtype
        return held[0] if jnp.issubdtype(wanted, jnp.floating) else None
    if name not in ("mul", "div"):
        return None
    at = 0 if held[0] else 1
    number = equation.invars[1 - at]
    if not isinstance(number, core.Literal) or (name, at) == ("div", 1):
        return None
    factor = float(number.val) if name == "mul" else 1 / float(number.val)
    return held[at]._replace(factor=held[at].factor * factor)


# -------------------------------------------------------------------------- the run


def _run(layers, jaxpr, consts, values, perturbations, path):
    """Outputs, and what was seen at the perturbed equations."""
    known = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= zip(jaxpr.invars, values, strict=True)
    seen = {}
    for number, equation in enumerate(jaxpr.eqns):
        here = (*path, number)
        operands = [_read(known, atom) for atom in equation.invars]
        below = {p: e for p, e in perturbations.items() if p[: len(here)] == here}
        if here in below:
            (y,) = _bind(equation, operands)
            results = [y + below[here]]
            seen[here] = operands[1 - layers[here].operand]
        elif not below:
            results = _bind(equation, operands)
        else:
            run = _run_loop if equation.primitive.name == "scan" else _run_call
            results, more = run(layers, equation, operands, below, here)
            seen |= more
        known |= zip(equation.outvars, results, strict=True)
    return [_read(known, atom) for atom in jaxpr.outvars], seen


def _run_call(layers, equation, operands, perturbations, path):
    jaxpr, consts = _opened(equation.params[_CALLS[equation.primitive.name]])
    return _run(layers, jaxpr, consts, operands, perturbations, path)


def _run_loop(layers, equation, operands, perturbations, path):
    params = equation.params
    jaxpr, constants = _opened(params["jaxpr"])
    first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
    same, carry, sliced = operands[:first], operands[first:last], operands[last:]

    def step(carry, one):
        values, perturbations = one
        results, seen = _run(
            layers, jaxpr, constants, [*same, *carry, *values], perturbations, path
        )
        return results[: len(carry)], (results[len(carry) :], seen)

    how = {name: params[name] for name in ("length", "reverse", "unroll")}
    carry, (stacked, seen) = jax.lax.scan(step, carry, (sliced, perturbations), **how)
    return [*carry, *stacked], seen


def _read(known, atom):
    return atom.val if isinstance(atom, core.Literal) else known[atom]


def _bind(equation, operands):
    primitive = equation.primitive
    params = primitive.get_bind_params(equation.params)
    results = primitive.bind(*operands, **params)
    return results if primitive.multiple_results else [results]
