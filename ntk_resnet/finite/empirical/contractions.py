r"""The empirical NTK from the factors of the gradients, in the cheapest of three ways.

With inputs :math:`h_s` and gradients :math:`\delta^k_s` at positions s of a row, a
layer's share of the kernel is

.. math::
    \sum_{s, t} (h_s(x) \cdot h_t(x')) \, (\delta^k_s(x) \cdot \delta^l_t(x')),

* `factors`: with one position, a product of two small Gram matrices;
* `positions`: as it stands, all pairs of positions;
* `gradients`: the gradient of the weight, :math:`\sum_s h_s \otimes \delta_s`, of every
  row and output, a part of its columns at a time.

Weights without such factors have their gradients taken as they are (`jacobian`).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ntk_resnet.finite.empirical.layers import Embedding, Layer
from ntk_resnet.finite.empirical.tracing import Path, Program

PART_BYTES = 2**26
"""Memory for the largest array between factors and kernel."""

# Over rows i, j, outputs k, l and what is summed, p: by what is asked for.
_AXES = {"full": "ikp,jlp->ijkl", "diagonal": "ikp,jkp->ijk", "trace": "ikp,jkp->ij"}


class Factors(NamedTuple):
    """What one pass forward and one back through some rows says about the gradients."""

    inputs: dict[Path, Array]  # (n, *loops, *h)
    deltas: dict[Path, Array]  # (n, k, *loops, *y)
    others: list[Array]  # (n, k, size): gradients of the weights that are no layers'


def factors_of(program: Program, values: list[Any], rows: Array) -> Factors:
    """The factors of some rows; `values` are those of the program."""

    def one(row):
        def outputs(perturbations, others):
            changed = dict(zip(program.others, others, strict=True))
            given = [changed.get(i, value) for i, value in enumerate(values)]
            return program.run(given, row, perturbations)

        others = [values[leaf] for leaf in program.others]
        results, back, seen = jax.vjp(outputs, program.zeros(), others, has_aux=True)
        every = jnp.eye(results.size, dtype=results.dtype)
        deltas, gradients = jax.vmap(back)(every)
        return Factors(seen, deltas, [g.reshape(len(every), -1) for g in gradients])

    return jax.vmap(one)(rows)


def kernel_of(
    program: Program, first: Factors, second: Factors | None, outputs: str
) -> Array:
    """The NTK between two batches of rows; `None`: of one with itself, symmetric."""
    n1, n2 = (len(jax.tree.leaves(f)[0]) for f in (first, second or first))
    count = program.outputs.shape[0]
    kept = {"full": (count, count), "diagonal": (count,)}.get(outputs, ())
    total: Any = jnp.zeros((n1, n2, *kept), jnp.float32)  # or wider, as it is added to
    for path, layer in program.layers.items():
        method = cheapest(layer, n1, n2, count, outputs)[0]
        share = functools.partial(_SHARES[method], layer, outputs)
        left = _matrices(layer, first, path)
        right = None if second is None else _matrices(layer, second, path)
        total += _summed(share, left, right)
    for left, right in zip(first.others, (second or first).others, strict=True):
        total += _by_outputs(outputs, wide(left), wide(right))
    if second is None:  # exactly, whatever the order of summation was
        total = (total + turned(total, outputs)) / 2
    return total / count if outputs == "mean" else total


def turned(block: Array, outputs: str) -> Array:
    """The block on the other side of the diagonal."""
    axes = (1, 0, 3, 2) if outputs == "full" else (1, 0, 2)[: block.ndim]
    return block.transpose(axes)


def cheapest(layer: Layer, n1: int, n2: int, k: int, outputs: str) -> tuple[str, int]:
    """The way of a layer and its price, in products of two numbers."""
    s, a, b = layer.positions, layer.fan_in, layer.fan_out
    pairs, kept = n1 * n2, k * k if outputs == "full" else k
    costs = {"positions": pairs * (s * s * a + s * s * k * b + kept * s * b)}
    if s == 1:
        costs["factors"] = pairs * (a + kept * b)
    if isinstance(layer, Embedding):
        costs["positions"] = pairs * (s * s * k * b + kept * s * b)
    else:
        costs["gradients"] = (n1 + n2) * k * s * a * b + pairs * kept * a * b
        if n2 * s * (s + k * b) * 4 > 8 * PART_BYTES:
            del costs["positions"]
    method = min(costs, key=costs.__getitem__)
    return method, layer.steps * costs[method]


def _matrices(layer, factors, path):
    """Inputs `(steps, n, positions, fan_in)`, deltas `(steps, n, k, positions, m)`."""
    h, delta = factors.inputs[path], factors.deltas[path]
    loops = len(layer.loops)
    h = h.reshape(len(h), layer.steps, *h.shape[1 + loops :])
    delta = delta.reshape(*delta.shape[:2], layer.steps, *delta.shape[2 + loops :])
    inputs = jax.vmap(jax.vmap(layer.inputs))(h)
    gradients = wide(jax.vmap(jax.vmap(jax.vmap(layer.gradients)))(delta))
    return jnp.moveaxis(inputs, 1, 0), jnp.moveaxis(layer.factor * gradients, 2, 0)


def _summed(share, first, second):
    """`share` of each slice of the first axis, added up."""
    if len(jax.tree.leaves(first)[0]) == 1:
        return share(*jax.tree.map(lambda part: part[0], (first, second)))
    slices = jax.tree.map(
        lambda part: jax.ShapeDtypeStruct(part.shape[1:], part.dtype), (first, second)
    )
    shape = jax.eval_shape(share, *slices)
    total, _ = jax.lax.scan(
        lambda total, both: (total + share(*both), None),
        jnp.zeros(shape.shape, shape.dtype),
        (first, second),
    )
    return total


# -------------------------------------------------------------------- the three ways


def _by_factors(layer, outputs, first, second):
    (h1, delta1), (h2, delta2) = first, second or first
    overlaps = wide(layer.overlaps(h1[:, None], h2[None])[..., 0, 0])
    gradients = _by_outputs(outputs, delta1[:, :, 0], delta2[:, :, 0])
    return jnp.expand_dims(overlaps, range(2, gradients.ndim)) * gradients


def _by_positions(layer, outputs, first, second):
    h2, delta2 = second or first
    axes = {"full": "ksb,jlsb->jkl", "diagonal": "ksb,jksb->jk"}
    kept = axes.get(outputs, "ksb,jksb->j")

    def row(parts):
        h, delta = parts
        overlaps = wide(layer.overlaps(h[None], h2))
        return _einsum(kept, delta, _einsum("jst,jltb->jlsb", overlaps, delta2))

    return jax.lax.map(row, first)


def _by_gradients(layer, outputs, first, second):
    both = (first,) if second is None else (first, second)
    widest = max(len(delta) * delta.shape[1] for _, delta in both) * layer.fan_out
    columns = min(layer.fan_in, max(1, PART_BYTES // (4 * widest)))
    parts = -(-layer.fan_in // columns)

    def cut(h):  # (parts, n, positions, columns)
        h = jnp.pad(h, ((0, 0), (0, 0), (0, parts * columns - layer.fan_in)))
        return jnp.moveaxis(h.reshape(*h.shape[:2], parts, columns), 2, 0)

    def share(cuts, _):
        gradients = [
            _einsum("isa,iksb->ikab", wide(h), delta)
            for h, (_, delta) in zip(cuts, both, strict=True)
        ]
        flat = [g.reshape(*g.shape[:2], -1) for g in gradients]
        return _by_outputs(outputs, flat[0], flat[-1])

    return _summed(share, tuple(cut(h) for h, _ in both), None)


_SHARES = {
    "factors": _by_factors,
    "positions": _by_positions,
    "gradients": _by_gradients,
}


def _by_outputs(outputs, left, right):
    """Sums over the last axis of `(n, k, p)`, and over outputs as asked for."""
    return _einsum(_AXES.get(outputs, _AXES["trace"]), left, right)


def _einsum(axes, *operands):
    return jnp.einsum(axes, *operands, precision="highest")


def wide(values):
    """At least single precision: sums are over many terms."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
