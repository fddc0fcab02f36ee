"""Products with the empirical NTK of a network, of which nothing else is in memory."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from ntk_resnet._checks import check_count
from ntk_resnet._inputs import NUMBERS, check_array, check_rows
from ntk_resnet.finite.empirical.contractions import factors_of, kernel_of, wide
from ntk_resnet.finite.empirical.model_checks import checked_network
from ntk_resnet.finite.empirical.tracing import Program
from ntk_resnet.kernels.gram.operator import columns_of


def empirical_ntk_operator(
    model: Any, x: Any, *, batch_rows: int = 32
) -> "EmpiricalOperator":
    r"""The empirical NTK of a network as an operator: :math:`J J^\top v`.

    `nr.spectrum` takes it: trace, Frobenius norm, effective rank, leading eigenvalues,
    all without the matrix.

    Args:
        model, x: as in `empirical_ntk`; the precision too.
        batch_rows: rows that go through the network at a time.

    Returns:
        An `EmpiricalOperator`, `(n k, n k)`: outputs of one row beside one another.

    Raises:
        ValueError: an argument is not as described; the text names it.
    """
    x = check_rows("x", x)
    x = jnp.asarray(x.astype(jax.dtypes.canonicalize_dtype(x.dtype)))
    network = checked_network(model, x)
    _check_forward(network)
    batch_rows = min(check_count("batch_rows", batch_rows), len(x))
    return EmpiricalOperator(
        network.params, network.fixed, x, network.program, batch_rows
    )


def _check_forward(network):
    values, row = network.program.arguments
    params, fixed = values[: len(network.params)], values[len(network.params) :]

    def along(params, fixed, row):
        outputs = functools.partial(_outputs, network.program, fixed=fixed, row=row)
        return jax.jvp(outputs, (params,), (params,))

    try:
        jax.jit(along).lower(params, fixed, row)  # tracing alone does not notice
    except TypeError:
        raise ValueError(
            "model has no forward derivatives, which products need (it uses "
            "jax.custom_vjp); use jax.custom_jvp there, or empirical_ntk."
        ) from None


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "fixed", "x"),
    meta_fields=("program", "batch_rows"),
)
@dataclasses.dataclass(frozen=True, eq=False)
class EmpiricalOperator:
    """An empirical NTK that is known by its products.

    `op @ v` and `op(v)` take a vector `(n k,)` or a block of them `(n k, p)`, eagerly
    and under JAX's transformations. Each costs two passes forward and one back, and
    memory for `2 p` copies of the weights and the activations of `batch_rows` rows.

    It is the network as it was when the operator was made.

    Accuracy: sums over parameters in the dtype of the gradients, over rows in single
    precision at least (`tests/finite/empirical/test_empirical_operator.py`).
    """

    params: Any  # values of the program that are trained
    fixed: Any  # and the others
    x: Any  # an array (n, ...); a pytree holds other things for a while
    program: Program
    batch_rows: int

    symmetric = True
    spec = None  # it is one network's, not a specification's

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix: inputs times outputs."""
        return (len(self.x) * self.program.outputs.size,) * 2

    @property
    def dtype(self) -> np.dtype:
        """That of the products: of the parameters, at least single precision."""
        return np.dtype(jnp.result_type(jnp.float32, *self.params))

    def __call__(
        self, v: Num[ArrayLike, " m"] | Num[ArrayLike, "m p"]
    ) -> Float[Array, " m"] | Float[Array, "m p"]:
        """The product of the matrix with a vector or a block.

        Raises:
            ValueError: `v` has another length, or holds what is no finite number.
        """
        v = check_array("v", v, columns_of(self), dtype=NUMBERS)
        return _multiply(self, jnp.asarray(v, self.dtype))

    __matmul__ = __call__

    def diagonal(self) -> Float[Array, " m"]:
        """Squared lengths of the gradients, layer by layer."""
        return _diagonal(self)


@jax.jit
def _multiply(operator, v):
    columns = v.reshape(len(operator.x), operator.program.outputs.size, -1)
    batches, weights = _batches(operator, columns)
    params = operator.params

    def outputs(rows):
        one = functools.partial(_outputs, operator.program, fixed=operator.fixed)
        every = jax.vmap(lambda params, row: one(params, row=row), (None, 0))
        return lambda params: every(params, rows).astype(v.dtype)

    def add(total, batch):
        rows, weights = batch
        back = jax.vjp(outputs(rows), params)[1]
        more = jax.vmap(lambda w: back(w)[0], in_axes=-1)(weights)
        return [t + wide(m) for t, m in zip(total, more, strict=True)], None

    def push(rows):
        def along(direction):
            return jax.jvp(outputs(rows), (params,), (direction,))[1]

        # Of the dtype of the weights, as the derivative wants it.
        directions = [t.astype(p.dtype) for t, p in zip(total, params, strict=True)]
        return jax.vmap(along, out_axes=-1)(directions)

    zeros = [wide(jnp.zeros((columns.shape[-1], *p.shape), p.dtype)) for p in params]
    with jax.default_matmul_precision("highest"):
        total, _ = jax.lax.scan(add, zeros, (batches, weights))
        found = jax.lax.map(push, batches)
    return found.reshape(-1, *found.shape[2:])[: len(columns)].reshape(v.shape)


def _outputs(program, params, *, fixed, row):
    """Outputs of one row, `(k,)`."""
    return program.run([*params, *fixed], row, {})[0]


def _batches(operator, columns):
    """The rows and their weights in batches, the last one filled up with weight 0."""
    size, x = operator.batch_rows, operator.x
    missing = -len(x) % size
    x = jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)])
    columns = jnp.pad(columns, ((0, missing), (0, 0), (0, 0)))
    return tuple(part.reshape(-1, size, *part.shape[1:]) for part in (x, columns))


@jax.jit
def _diagonal(operator):
    program, values = operator.program, [*operator.params, *operator.fixed]

    def row(row):
        factors = factors_of(program, values, row[None])
        return kernel_of(program, factors, None, "diagonal")[0, 0]

    return jax.lax.map(row, operator.x).reshape(-1).astype(operator.dtype)
