"""Products with a Gram matrix that is never in memory: its tiles are made as needed.

One compiled loop makes a tile after the other and adds its products to the result, of a
symmetric matrix those of the tile and of its mirror image. So the price of a product is
that of the matrix, and its memory that of the data, the vectors and a few tiles.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike, Float, Num

from ntk_resnet._inputs import check_array
from ntk_resnet._numerics import Sum
from ntk_resnet._precision import default_float, is_traced, keep_precision, precision_of
from ntk_resnet.kernels.function import diag
from ntk_resnet.kernels.gram.make_plan import make_plan
from ntk_resnet.kernels.gram.plan import Plan
from ntk_resnet.kernels.gram.programs import own_part, tile_at
from ntk_resnet.specification.base import Specification


@runtime_checkable
class KernelOperator(Protocol):
    """A kernel matrix that is known by its products; a pytree."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @property
    def dtype(self) -> np.dtype:
        """Of the products."""

    @property
    def symmetric(self) -> bool:
        """Whether rows and columns are the same inputs."""

    def __call__(self, v: Any) -> Array | np.ndarray:
        """The product with a vector `(n,)` or a block `(n, k)`."""

    def diagonal(self) -> Array | np.ndarray:
        """The diagonal of a symmetric matrix."""


def gram_operator(
    spec: Specification,
    x: Num[ArrayLike, "n1 ..."],
    x2: Num[ArrayLike, "n2 ..."] | None = None,
    get: str = "ntk",
    *,
    normalised: bool = True,
    engine: str = "auto",
    products: str = "split",
    tile: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> "GramOperator":
    """The kernel matrix of a data set as an operator, in memory linear in its rows.

    Args:
        spec: the network.
        x: inputs of the rows, `(n1, d)`, or images `(n1, H, W, C)`.
        x2: inputs of the columns, likewise; `None` means `x`: half the work, and an
            operator that is symmetric to rounding.
        get, normalised, engine, products: as in `gram`.
        tile: side of the tiles; chosen from the device's memory by default.
        devices: among which the tiles are divided; all of the default kind by default.
            With `jax.distributed` these are the devices of all processes: all make the
            same operator and the same products, and each gets the whole result.

    Returns:
        A `GramOperator`.

    Raises:
        ValueError: bad inputs, named in the text.
    """
    how = get, normalised, engine, products, tile, devices
    return GramOperator(make_plan(spec, x, x2, *how, everywhere=True))


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("plan",), meta_fields=()
)
@dataclasses.dataclass(frozen=True, eq=False)
class GramOperator:
    """A Gram matrix that is known by its products; made by `gram_operator`.

    `op @ v` and `op(v)` take a vector `(n2,)` or a block of them `(n2, k)`, eagerly and
    under `jit`, `vmap` and reverse-mode derivatives with respect to `v`. It is a pytree
    of the data: to a jitted function pass it as an argument, since what such a function
    closes over is copied into its program. Eager results in float64 are NumPy arrays
    while JAX's x64 mode is off, where a `jax.Array` would lose its digits.

    Accuracy: entries as in `gram`. A product is within 4 eps of the matrix's, relative
    to the largest entry times the sum of the sizes in `v`: terms are summed by tiles,
    tiles with compensation (`tests/kernels/gram/test_operator.py`).
    """

    plan: Plan

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.plan.tiling.rows, self.plan.tiling.columns

    @property
    def dtype(self) -> np.dtype:
        """That of the entries and of all products; vectors are converted to it."""
        return self.plan.dtype

    @property
    def symmetric(self) -> bool:
        """Whether rows and columns are the same inputs."""
        return self.plan.tiling.symmetric

    @property
    def spec(self) -> Specification:
        """The network."""
        return self.plan.spec

    @property
    def T(self) -> "GramOperator":
        """The transposed matrix."""
        tiling = _transposed(self.plan.tiling)
        rows = self.plan.rows[::-1]
        return GramOperator(dataclasses.replace(self.plan, tiling=tiling, rows=rows))

    def __repr__(self) -> str:
        engine = self.plan.engine.name
        return (
            f"<GramOperator {self.shape} {self.dtype} by {engine}, {self.plan.spec!r}>"
        )

    def __call__(
        self, v: Num[ArrayLike, " n2"] | Num[ArrayLike, "n2 k"]
    ) -> Float[Array | np.ndarray, " n1"] | Float[Array | np.ndarray, "n1 k"]:
        """The product of the matrix with a vector or a block.

        Raises:
            ValueError: `v` has another length, or holds what is no finite number;
                entries or products beyond the dtype's range. In a trace these give NaN
                or infinity instead; but float64 data with JAX's x64 mode off raise.
        """
        v = self._check(v)
        plan = self.plan
        static = plan.engine, plan.tiling, plan.mesh
        if is_traced(v, plan):
            return _product(*static, plan.data, plan.rows, v)
        with precision_of(plan.rows[0].x):
            v = jax.device_put(
                jnp.asarray(v, plan.dtype), NamedSharding(plan.mesh, PartitionSpec())
            )
            product = _product(*static, plan.data, plan.rows, v)
            if not is_traced(product) and not jnp.isfinite(product).all():
                self._explain(v)
        return keep_precision(product)

    __matmul__ = __call__

    def diagonal(self) -> Float[Array | np.ndarray, " n"]:
        """The diagonal of a symmetric matrix: 1 if normalised, 0 of a gap, else `diag`.

        Raises:
            ValueError: the matrix has other columns than rows.
        """
        if not self.plan.tiling.symmetric:
            raise ValueError(
                "the rows and columns of this matrix are different inputs, so that its "
                "diagonal means nothing; leave x2 out."
            )
        engine, x = self.plan.engine, self.plan.rows[0].x
        (get,) = engine.get
        if not engine.normalised:
            return diag(self.plan.spec, x, "nngp" if get == "nngp" else "ntk")
        with precision_of(x):
            fill = jnp.zeros if get.endswith("_gap") else jnp.ones
            diagonal = fill(len(x), x.dtype)
        return keep_precision(diagonal)

    def _check(self, v):
        v = check_array("v", v, columns_of(self))
        if is_traced(v, self.plan):
            if self.dtype == np.float64 and default_float() == np.float32:
                raise ValueError(
                    "x is float64, but JAX's x64 mode is off in this trace; switch it "
                    "on (jax_enable_x64), or pass x in float32."
                )
            return v.astype(self.dtype)
        return v

    def _explain(self, v):
        """Raises the error behind a product that is not finite."""
        for _ in self.plan.tiles(self.plan.tiling.pairs()):
            pass  # it is an entry's
        largest = float(jnp.abs(v).max())
        raise ValueError(
            f"the product is beyond the range of {self.dtype}; v has entries of "
            f"{largest:.3g}: scale it down."
        )


def columns_of(operator: KernelOperator) -> str:
    """The shapes of what an operator multiplies."""
    n = operator.shape[1]
    return f"({n},) or a block ({n}, k)"


def _transposed(tiling):
    return dataclasses.replace(tiling, rows=tiling.columns, columns=tiling.rows)


# ------------------------------------------------------------------------ the products


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _product(engine, tiling, mesh, data, rows, v):
    return _multiply(engine, tiling, mesh, data, rows, v)


def _forward(engine, tiling, mesh, data, rows, v):
    if any(
        leaf.perturbed for leaf in jax.tree.leaves((data, rows), is_leaf=_is_primal)
    ):
        raise ValueError(
            "a product with a Gram operator has derivatives with respect to v alone; "
            "use kernel_fn for those with respect to the inputs."
        )
    data, rows, v = jax.tree.map(lambda p: p.value, (data, rows, v), is_leaf=_is_primal)
    return _multiply(engine, tiling, mesh, data, rows, v), (data, rows)


def _is_primal(value):
    return hasattr(value, "perturbed")


def _backward(engine, tiling, mesh, kept, cotangent):
    data, rows = kept
    if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
        cotangent = jnp.zeros(cotangent.shape, cotangent.dtype)
    args = engine, _transposed(tiling), mesh, data, rows[::-1]
    return None, None, _product(*args, cotangent)


_product.defvjp(_forward, _backward, symbolic_zeros=True)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _multiply(engine, tiling, mesh, data, rows, v):
    """The product, its tiles divided among the devices."""

    def share(data, rows, v, tiles):
        total = Sum.start(jnp.zeros((tiling.rows, v.shape[1]), v.dtype))
        step = functools.partial(_add_tile, engine, tiling, data, rows, v)
        total, _ = jax.lax.scan(lambda t, tile: (step(t, tile), None), total, tiles)
        return sum(jax.lax.psum(tuple(total), "tile"))

    split, whole = PartitionSpec("tile"), PartitionSpec()
    product = jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(whole, whole, whole, split),
        out_specs=whole,
        check_vma=False,
    )
    block = v if v.ndim == 2 else v[:, None]
    return product(data, rows, block, _shares(tiling, mesh.size)).reshape(
        (tiling.rows, *v.shape[1:])
    )


def _shares(tiling, count):
    """All tiles and their blocks' corners, dealt in turn into shares of one length.

    Shares are filled up with tiles below all rows.
    """
    pairs = tiling.pairs()
    below = (pairs[-1][0] + 1, 0), (0, 0)
    work = [(pair, tiling.corner(*pair)) for pair in pairs]
    work += [below] * (-len(work) % count)
    return (
        np.array(work, np.int32)
        .reshape(-1, count, 2, 2)
        .swapaxes(0, 1)
        .reshape(-1, 2, 2)
    )


def _add_tile(engine, tiling, data, rows, v, total, work):
    tile, begins = work
    shape = tiling.block_shape
    (values,), _ = tile_at(engine, shape, tiling.symmetric, data, rows, *begins)
    own1, own2 = own_part(tiling, tile, begins)
    total = _add(total, values, v, begins, (own1, own2))
    if tiling.symmetric:
        off_diagonal = own2 & (tile[0] != tile[1])
        total = _add(total, values.T, v, begins[::-1], (off_diagonal, own1))
    return total


def _add(total, values, v, begins, own):
    """The sum after the product of a block of the matrix with its rows of `v`."""
    cut = jax.lax.dynamic_slice_in_dim
    put = jax.lax.dynamic_update_slice_in_dim
    some = jnp.where(own[1][:, None], cut(v, begins[1], len(own[1])), 0)
    product = jnp.matmul(values, some, precision="highest")
    product = jnp.where(own[0][:, None], product, 0)
    part = jax.tree.map(lambda a: cut(a, begins[0], len(own[0])), total)
    part = part.add(product)
    return jax.tree.map(lambda a, b: put(a, b, begins[0], 0), total, part)
