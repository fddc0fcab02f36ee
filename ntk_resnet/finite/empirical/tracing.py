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
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array

from ntk_resnet.finite.empirical.layers import (
    LAYER_PARAMETERS,
    Layer,
    Parameters,
    layer_of,
)
from ntk_resnet.models.jaxprs import bind, opened, parts_of_loop, read, shape_of

Path = tuple[int, ...]
"""Of an equation: its number in the program, after those of the ones around it."""

# The parameters of the equations that are understood here, in all versions of JAX. With
# others, an equation may mean something else: it is one of no kind known here.
_MOVES: Parameters = {  # of a weight's entries: its gradients' inner products stay
    "reshape": [{"new_sizes", "dimensions", "sharding"}],
    "transpose": [{"permutation"}],
    "squeeze": [{"dimensions"}],
    "rev": [{"dimensions"}],
    "copy": [set()],
    "neg": [set()],
    "convert_element_type": [{"new_dtype", "weak_type", "sharding"}],
}
_PRODUCTS: Parameters = {"mul": [{"out_dtype"}], "div": [set()]}
_CALLS: Parameters = {  # of another program, in `jaxpr`
    "jit": [
        {"jaxpr", "name", "inline", "keep_unused", "donated_invars", "ctx_mesh"}
        | {"in_shardings", "out_shardings", "in_layouts", "out_layouts"}
        | {"compiler_options_kvs"}
    ],
    "remat2": [{"jaxpr", "policy", "prevent_cse", "differentiated"}],
    "scan": [
        {"jaxpr", "length", "reverse", "unroll", *counts}
        for counts in (("num_consts", "num_carry"), ("ft_in", "ft_out"))
    ],
}
PARAMETERS: Parameters = _MOVES | _PRODUCTS | _CALLS | LAYER_PARAMETERS


class Weight(NamedTuple):
    """What a variable holds: a leaf of the parameters, times a number."""

    leaf: int
    factor: float = 1.0


class Call(NamedTuple):
    """The program that an equation runs, and what is a weight in it."""

    program: core.Jaxpr
    weights: dict[Any, Weight]
    loops: tuple[int, ...]  # the length of a loop


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
        return shape_of(self.jaxpr.outvars[0])

    @property
    def arguments(self) -> tuple[list[jax.ShapeDtypeStruct], jax.ShapeDtypeStruct]:
        """Shapes of the values, and of the row."""
        *given, row = map(shape_of, self.jaxpr.invars)
        return [*given, *map(shape_of, self.jaxpr.constvars)], row

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


# ------------------------------------------------------------------------- the walk


def _walk(jaxpr, weights, path, loops, found, others):
    """Notes all uses of the weights; which of the outputs are weights themselves."""
    for number, equation in enumerate(jaxpr.eqns):
        held = [_held(weights, atom) for atom in equation.invars]
        if not any(held):
            continue
        here = (*path, number)
        match _use(equation, held, loops):
            case Call(program, known, steps):
                returned = _walk(program, known, here, loops + steps, found, others)
                if steps:  # a loop has stacked them
                    others.update(weight.leaf for weight in returned.values())
                else:
                    weights |= {equation.outvars[i]: w for i, w in returned.items()}
            case Weight() as moved:
                weights[equation.outvars[0]] = moved
            case Layer() as layer:
                found.append((here, layer))
            case None:
                others.update(weight.leaf for weight in held if weight)
    outputs = enumerate(_held(weights, atom) for atom in jaxpr.outvars)
    return {i: weight for i, weight in outputs if weight}


def _held(weights, atom):
    return None if isinstance(atom, core.Literal) else weights.get(atom)


def _use(equation, held, loops):
    """What an equation makes of weights: one of no kind known here, `None`."""
    name = equation.primitive.name
    if set(equation.params) not in PARAMETERS.get(name, ()):
        return None
    try:
        if name in _CALLS:
            return _call(equation, held)
        if name in LAYER_PARAMETERS:
            return layer_of(equation, held, loops)
        return _moved(equation, held)
    except Exception:  # a parameter is not of the form that it had, whatever it has now
        return None


def _call(equation, held):
    """The program in an equation; `None`: a weight in it is used at many steps."""
    program, _ = opened(equation.params["jaxpr"])
    weights = {v: w for v, w in zip(program.invars, held, strict=True) if w}
    if equation.primitive.name != "scan":
        return Call(program, weights, ())
    same, carried = parts_of_loop(equation)
    steps = (operator.index(equation.params["length"]),)
    return None if any(held[: same + carried]) else Call(program, weights, steps)


def _moved(equation, held):
    """The weight that the result is: moved, or times a number of the program's text."""
    name = equation.primitive.name
    if name in _MOVES:
        of_floats = jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating)
        return held[0] if of_floats else None
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
        operands = [read(known, atom) for atom in equation.invars]
        below = {p: e for p, e in perturbations.items() if p[: len(here)] == here}
        if here in below:
            (y,) = bind(equation, operands)
            results = [y + below[here]]
            seen[here] = operands[1 - layers[here].operand]
        elif not below:
            results = bind(equation, operands)
        else:
            run = _run_loop if equation.primitive.name == "scan" else _run_call
            results, more = run(layers, equation, operands, below, here)
            seen |= more
        known |= zip(equation.outvars, results, strict=True)
    return [read(known, atom) for atom in jaxpr.outvars], seen


def _run_call(layers, equation, operands, perturbations, path):
    jaxpr, consts = opened(equation.params["jaxpr"])
    return _run(layers, jaxpr, consts, operands, perturbations, path)


def _run_loop(layers, equation, operands, perturbations, path):
    params = equation.params
    jaxpr, constants = opened(params["jaxpr"])
    first, carried = parts_of_loop(equation)
    same, rest = operands[:first], operands[first:]
    carry, sliced = rest[:carried], rest[carried:]

    def step(carry, one):
        values, perturbations = one
        results, seen = _run(
            layers, jaxpr, constants, [*same, *carry, *values], perturbations, path
        )
        return results[: len(carry)], (results[len(carry) :], seen)

    how = {name: params[name] for name in ("length", "reverse", "unroll")}
    carry, (stacked, seen) = jax.lax.scan(step, carry, (sliced, perturbations), **how)
    return [*carry, *stacked], seen
