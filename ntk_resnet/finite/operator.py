"""Products with the empirical NTK of a network, of which nothing else is in memory."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from ntk_resnet._checks import check_count
from ntk_resnet.finite._models import as_function, check_model, check_rows
from ntk_resnet.finite.empirical import ntk_block
from ntk_resnet.kernels._inputs import is_traced
from ntk_resnet.kernels.operator import check_vectors


def empirical_ntk_operator(
    model: Any, x: Any, *, batch_rows: int = 32
) -> "EmpiricalOperator":
    r"""The empirical NTK of a network as an operator: :math:`J J^\top v`.

    `nr.spectrum` takes it: trace, Frobenius norm, effective rank, leading eigenvalues,
    all without the matrix.

    Args:
        model, x: as in `empirical_ntk`.
        batch_rows: rows that go through the network at a time.

    Returns:
        An `EmpiricalOperator`, `(n k, n k)`: outputs of one row beside one another.

    Raises:
        ValueError: an argument is not as described; the text names it.
    """
    x = check_rows("x", x)
    apply, params, rest = as_function(model)
    shape = check_model(apply, params, rest, x)
    count = int(np.prod(shape.shape[1:]))
    batch_rows = min(check_count("batch_rows", batch_rows), len(x))
    return EmpiricalOperator(apply, params, rest, jnp.asarray(x), count, batch_rows)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "rest", "x"),
    meta_fields=("apply", "outputs", "batch_rows"),
)
@dataclasses.dataclass(frozen=True, eq=False)
class EmpiricalOperator:
    """An empirical NTK that is known by its products.

    `op @ v` and `op(v)` take a vector `(n k,)` or a block of them `(n k, p)`, eagerly
    and under JAX's transformations. Each costs two passes forward and one back, and
    memory for `2 p` copies of the weights and the activations of `batch_rows` rows.

    Accuracy: a sum over all parameters in the dtype of the gradients, as in
    `empirical_ntk` (`tests/test_empirical_operator.py`).
    """

    apply: Any
    params: Any
    rest: Any
    x: Any  # an array (n, ...); a pytree holds other things for a while
    outputs: int
    batch_rows: int

    symmetric = True
    spec = None  # it is one network's, not a specification's

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix: inputs times outputs."""
        return (len(self.x) * self.outputs,) * 2

    @property
    def dtype(self) -> np.dtype:
        """That of the products: of the parameters, at least single precision."""
        leaves = jax.tree.leaves(self.params)
        return np.dtype(jnp.result_type(jnp.float32, *leaves))

    def __call__(
        self, v: Num[ArrayLike, " m"] | Num[ArrayLike, "m p"]
    ) -> Float[Array, " m"] | Float[Array, "m p"]:
        """The product of the matrix with a vector or a block.

        Raises:
            ValueError: `v` has another length, or holds what is no finite number.
        """
        v = v if isinstance(v, jax.Array) else np.asarray(v)
        check_vectors(v, self.shape[1], is_traced(v))
        return _multiply(self, jnp.asarray(v, self.dtype))

    __matmul__ = __call__

    def diagonal(self) -> Float[Array, " m"]:
        """Squared lengths of the gradients, layer by layer."""
        return _diagonal(self)


@jax.jit
def _multiply(operator, v):
    columns = v.reshape(*operator.x.shape[:1], operator.outputs, -1)
    batches, weights = _batches(operator, columns)
    params, rest = operator.params, operator.rest
    with jax.default_matmul_precision("highest"):

        def outputs(params, rows):
            found = operator.apply(params, rest, rows)
            return found.reshape(len(rows), -1).astype(v.dtype)

        def add(total, batch):
            rows, weights = batch
            back = jax.vjp(lambda p: outputs(p, rows), params)[1]
            more = jax.vmap(lambda w: back(w)[0], in_axes=-1)(weights)
            return jax.tree.map(jnp.add, total, more), None

        def push(rows):
            along = lambda u: jax.jvp(  # noqa: E731
                lambda p: outputs(p, rows), (params,), (u,)
            )[1]
            return jax.vmap(along, out_axes=-1)(total)

        zeros = jax.tree.map(
            lambda leaf: jnp.zeros((columns.shape[-1], *leaf.shape), leaf.dtype), params
        )
        total, _ = jax.lax.scan(add, zeros, (batches, weights))
        found = jax.lax.map(push, batches)
    return found.reshape(-1, *found.shape[2:])[: len(columns)].reshape(v.shape)


def _batches(operator, columns):
    """The rows and their weights in batches, the last one filled up with weight 0."""
    size, x = operator.batch_rows, operator.x
    missing = -len(x) % size
    x = jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)])
    columns = jnp.pad(columns, ((0, missing), (0, 0), (0, 0)))
    return tuple(part.reshape(-1, size, *part.shape[1:]) for part in (x, columns))


@jax.jit
def _diagonal(operator):
    def row(row):
        parts = operator.apply, operator.params, operator.rest, row[None], None
        return ntk_block(*parts, "diagonal")[0, 0]

    return jax.lax.map(row, operator.x).reshape(-1).astype(operator.dtype)
