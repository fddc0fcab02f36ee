"""Curvature of a training loss in the weights of any Flax model, known by its products.

The Hessian and the Gauss-Newton matrix, dense where they fit, and their spectra where
they do not.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, Num
from matfree import decomp

from ntk_resnet._checks import check_count
from ntk_resnet._inputs import NUMBERS, check_array
from ntk_resnet._precision import keep_precision, precision_of
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.analysis.lanczos import Krylov, quadrature, ritz
from ntk_resnet.analysis.statistics import standard_error
from ntk_resnet.models.functions import check_outputs, prepared, program_of
from ntk_resnet.models.losses import loss_of_outputs
from ntk_resnet.records.provenance import provenance

_COLUMNS = 64  # of a dense matrix that are computed side by side


def hessian(
    model: Any, x: Any, y: Any, loss: Any = "mse", *, batch_rows: int | None = None
) -> "Curvature":
    r"""The Hessian of a loss in the trained weights: :math:`\nabla^2_w L(f_w(x), y)`.

    Args:
        model: an nnx module (its `nnx.Param` are the weights), a pair of a linen module
            and its variables, or a pair `(apply_fn, params)`.
        x: inputs `(n, ...)`.
        y: targets, `(n,)` or `(n, outputs)`; what the loss takes, if it is a function.
        loss: `"mse"` (the mean of squares over 2), `"logistic"` (targets -1 and 1),
            `"softmax"` (one-hot rows), or a function of outputs and `y` that returns
            one number for each row, as Optax's losses do, or their mean.
        batch_rows: rows that go through the network at a time; `None`: all. Memory is a
            few times that of their activations.

    Returns:
        A matrix that is known by its products, `(p, p)` for p weights, these in the
        order of `jax.flatten_util.ravel_pytree` of the trained ones.

    Raises:
        ValueError: an argument is not as described; the text names it.

    Accuracy: exact derivatives (forward over reverse) in the dtype of the weights,
    within 1e-10 of `jax.hessian` in float64 (`tests/analysis/test_curvature.py`).
    """
    return _curvature(model, x, y, loss, batch_rows, "hessian")


def gauss_newton(
    model: Any, x: Any, y: Any, loss: Any = "mse", *, batch_rows: int | None = None
) -> "Curvature":
    r"""The Gauss-Newton matrix :math:`J^\top (\nabla^2_f L) J` of a loss.

    With J the Jacobian of all outputs in the trained weights: what the Hessian would be
    if outputs were linear in them. Not negative where the loss is convex in outputs;
    for `"mse"` its eigenvalues are those of the empirical NTK over the number of
    targets.

    Arguments, result and errors are those of `hessian`.
    """
    return _curvature(model, x, y, loss, batch_rows, "gauss_newton")


def _curvature(model, x, y, loss, batch_rows, kind):
    apply, params, rest, x = made_of = prepared(model, x)
    n = len(x)
    y = check_array("y", y, f"({n},) or ({n}, ...), one target for each row of x")
    if batch_rows is not None:
        batch_rows = min(check_count("batch_rows", batch_rows), n)
    with made_of.precision:
        outputs = check_outputs(apply, params, rest, x)
        function, y = loss_of_outputs(loss, outputs, y)
        found = Curvature(
            params, rest, x, jnp.asarray(y), apply, function, kind, batch_rows
        )
        found.check()
    return found


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "rest", "x", "y"),
    meta_fields=("apply", "loss", "kind", "batch_rows"),
)
@dataclasses.dataclass(frozen=True, eq=False)
class Curvature:
    """A Hessian or Gauss-Newton matrix that is known by its products.

    `matrix @ v` and `matrix(v)` take a vector `(p,)` or a block of them `(p, k)`,
    eagerly and under JAX's transformations. A product costs about four passes through
    the network, and memory for as many copies of the weights.

    It is of the network as it was when the matrix was made.
    """

    params: Any
    rest: Any  # variables that are not trained
    x: Any
    y: Any
    apply: Any
    loss: Any
    kind: Literal["hessian", "gauss_newton"]
    batch_rows: int | None

    @property
    def shape(self) -> tuple[int, int]:
        """Trained numbers, twice."""
        return (sum(leaf.size for leaf in jax.tree.leaves(self.params)),) * 2

    @property
    def dtype(self) -> np.dtype:
        """That of the products."""
        return np.dtype(jnp.result_type(*jax.tree.leaves(self.params)))

    def __call__(
        self, v: Num[ArrayLike, " p"] | Num[ArrayLike, "p k"]
    ) -> Float[Array | np.ndarray, " p"] | Float[Array | np.ndarray, "p k"]:
        """The product with a vector or a block.

        Raises:
            ValueError: `v` has another length, or holds what is no finite number.
        """
        p = self.shape[0]
        v = check_array("v", v, f"({p},) or a block ({p}, k)", dtype=NUMBERS)
        with precision_of(*jax.tree.leaves(self.params)):
            v = jnp.asarray(v, self.dtype)
            return keep_precision(_multiply(self, v))

    __matmul__ = __call__

    def dense(self) -> Float[np.ndarray, "p p"]:
        """The whole matrix, by its products with the unit vectors; symmetric exactly.

        Raises:
            ValueError: its entries are not finite.
        """
        p = self.shape[0]
        made = [
            np.asarray(self(np.eye(p, min(_COLUMNS, p - k), -k)))
            for k in range(0, p, _COLUMNS)
        ]
        whole = np.concatenate(made, axis=1)
        if not np.isfinite(whole).all():
            raise ValueError(
                f"the {self.kind} holds what is no finite number: the loss or its "
                "derivatives are beyond the range of the dtype, or not defined here."
            )
        return (whole + whole.T) / 2

    def check(self) -> None:
        """Raises a `ValueError` where the products do not exist."""
        try:
            jax.jit(_multiply).lower(self, jnp.zeros(self.shape[0], self.dtype))
        except TypeError as error:
            if "custom_vjp" not in str(error):
                raise
            raise ValueError(
                "model has no forward derivatives, which products need (it uses "
                "jax.custom_vjp); use jax.custom_jvp there."
            ) from None


@jax.jit
def _multiply(matrix, v):
    weights, unravel = ravel_pytree(matrix.params)
    columns = v.reshape(len(weights), -1)

    def along(batch):
        x, y = batch
        apply = program_of(matrix.apply, matrix.params, matrix.rest, x)
        function = lambda w: apply(unravel(w), matrix.rest, x)  # noqa: E731
        if matrix.kind == "hessian":
            gradient = jax.grad(lambda w: matrix.loss(function(w), y))
            return lambda one: jax.jvp(gradient, (weights,), (one,))[1]
        values, back = jax.vjp(function, weights)
        gradient = jax.grad(lambda f: matrix.loss(f, y))

        def product(one):
            moved = jax.jvp(function, (weights,), (one,))[1]
            return back(jax.jvp(gradient, (values,), (moved,))[1])[0]

        return product

    def of_batch(batch):
        return jax.vmap(along(batch), in_axes=1, out_axes=1)(columns)

    with jax.default_matmul_precision("highest"):
        n, size = len(matrix.x), matrix.batch_rows or len(matrix.x)
        whole = n // size * size
        pieces = jax.tree.map(
            lambda a: a[:whole].reshape(-1, size, *a.shape[1:]), (matrix.x, matrix.y)
        )
        total, _ = jax.lax.scan(
            lambda sum_, batch: (sum_ + size / n * of_batch(batch), None),
            jnp.zeros_like(columns),
            pieces,
        )
        if whole < n:
            left = matrix.x[whole:], matrix.y[whole:]
            total += (n - whole) / n * of_batch(left)
    return total.reshape(v.shape)


# ------------------------------------------------------------------------- the spectrum


def spectrum(
    matrix: Curvature,
    *,
    steps: int = 60,
    probes: int = 8,
    top: int = 3,
    seed: int = 0,
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""The spectrum of a Hessian or a Gauss-Newton matrix, by its products alone.

    Stochastic Lanczos quadrature (Ghorbani, Krishnan and Xiao 2019): from random start
    vectors, with full reorthogonalisation (matfree's `tridiag_sym`).

    Args:
        matrix: from `hessian` or `gauss_newton`.
        steps: products for each start vector, at most p.
        probes: start vectors, at least 2.
        top: how many eigenvalues are wanted at either end.
        seed: of the start vectors.
        progress: called as `progress(done, total, text)` for each start vector.

    Returns:
        A dataset. Over (`probe`, `step`): `node` and `weight`, the density of
        eigenvalues as the quadrature of each start vector sees it, weights of one probe
        adding up to 1 (NaN and 0 where the space was used up early). Over `end`:
        `largest` and `smallest` eigenvalues, from the outside in, and `largest_error`
        and `smallest_error`, the length of :math:`Hu - \lambda u`, within which there
        is an eigenvalue. Estimates, each with `..._error`, the standard error over
        probes: `trace`, `frobenius_norm`, `negative_share`, the share of eigenvalues
        below zero by more than rounding (`error_bound`), whose error has in it what the
        quadrature does not resolve, the weight of the nodes around zero.

    Raises:
        ValueError: an argument is not as described, or products are not finite.

    Memory: `steps` vectors of p numbers, and the products' own.

    Accuracy: eigenvalues at the ends to their error, all of them where `steps` is p;
    sums over the spectrum within 4 standard errors
    (`tests/analysis/test_curvature.py`).
    """
    if not isinstance(matrix, Curvature):
        raise ValueError(
            "matrix must come from nr.curvature.hessian or nr.curvature.gauss_newton, "
            f"got {type(matrix).__name__}."
        )
    p = matrix.shape[0]
    steps = min(check_count("steps", steps), p)
    probes = check_count("probes", probes, least=2)
    top = min(check_count("top", top), steps)
    seed = check_count("seed", seed, least=0)
    eps = float(jnp.finfo(matrix.dtype).eps)
    rng = np.random.default_rng(seed)
    spaces, ends = [], {}
    for probe in range(probes):
        progress(probe, probes, f"{steps} products each")
        space = _krylov(matrix, rng.normal(size=p), steps)
        if probe == 0:
            ends = _ends(matrix, space, top, eps)
        spaces.append(space._replace(basis=space.basis[:, :, :1]))
    progress(probes, probes, "products")
    space = Krylov(*map(np.concatenate, zip(*spaces, strict=True)))
    # `quadrature` cuts by the length of the vectors, of which one number was kept.
    nodes, weights = quadrature(space, p * eps)
    bound = eps * steps * float(np.nanmax(np.abs(nodes)))

    def estimate(function):
        values = p * np.nansum(weights * function(nodes), axis=1)
        return float(values.mean()), float(standard_error(values))

    trace, trace_error = estimate(lambda v: v)
    square, square_error = estimate(np.square)
    negative, negative_error = estimate(lambda v: np.where(v < -bound, 1 / p, 0))
    negative_error += _weight_at(nodes, weights, -bound)
    norm = float(np.sqrt(square))
    found: dict[str, Any] = ends | {
        "node": (("probe", "step"), nodes, {"long_name": "eigenvalue"}),
        "weight": (("probe", "step"), weights, {"long_name": "share"}),
        "trace": trace,
        "trace_error": trace_error,
        "frobenius_norm": norm,
        "frobenius_norm_error": square_error / (2 * norm) if norm else 0.0,
        "negative_share": negative,
        "negative_share_error": negative_error,
        "error_bound": bound,
    }
    about = provenance(
        kind=matrix.kind, weights=p, rows=len(matrix.x), seed=seed, steps=steps
    )
    return xr.Dataset(found, attrs=about | {"dtype": str(matrix.dtype)})


def _weight_at(nodes, weights, point):
    """What a share of eigenvalues below a point is uncertain by, in the mean of probes.

    At most the weight of the nodes beside it (Chebyshev, Markov and Stieltjes).
    """
    below = np.where(nodes < point, nodes, -np.inf).argmax(axis=1)
    above = np.where(nodes >= point, nodes, np.inf).argmin(axis=1)
    probes = np.arange(len(nodes))
    return float(np.maximum(weights[probes, below], weights[probes, above]).mean())


def _krylov(matrix, start, steps):
    """Lanczos' method from one start vector, on the device."""
    with precision_of(*jax.tree.leaves(matrix.params)):
        start = jnp.asarray(start, matrix.dtype)
        basis, diagonal, off, last = map(
            np.asarray, _tridiagonal(matrix, start, steps=steps)
        )
    off = np.append(off, last).astype(float)
    # Where the space is used up the next vector is 0 / 0; what came before is right.
    known = np.isfinite(diagonal)
    if not known[0]:
        raise ValueError(
            f"products with the {matrix.kind} are not finite: the loss or its "
            "derivatives are beyond the range of the dtype, or not defined here."
        )
    if not known.all():
        off[np.argmin(known) - 1 :] = 0
    diagonal = np.where(known, diagonal, 0).astype(float)
    basis = np.where(known[:, None], basis, 0)
    return Krylov(basis[None], diagonal[None], off[None])


@functools.partial(jax.jit, static_argnames="steps")
def _tridiagonal(matrix, start, *, steps):
    lanczos = decomp.tridiag_sym(
        steps, materialize=False, reortho="full", custom_vjp=False
    )
    basis, (diagonal, off), left, _ = lanczos(
        lambda v, operator: _multiply(operator, v), start, matrix
    )
    return basis, diagonal, off, jnp.linalg.norm(left)


def _ends(matrix, space, top, eps):
    """Eigenvalues at both ends, and how far they miss."""
    values, inner = ritz(space, 0, eps)
    top = min(top, len(values))
    chosen = np.append(np.arange(len(values))[: -top - 1 : -1], np.arange(top))
    basis = space.basis[0, : len(values)].T
    vectors = basis @ inner[:, chosen].astype(basis.dtype)
    missed = np.asarray(matrix(vectors)) - vectors * values[chosen].astype(basis.dtype)
    lengths = np.linalg.norm(missed.astype(float), axis=0)
    return {
        "largest": ("end", values[chosen[:top]], {"long_name": "eigenvalue"}),
        "largest_error": ("end", lengths[:top]),
        "smallest": ("end", values[chosen[top:]], {"long_name": "eigenvalue"}),
        "smallest_error": ("end", lengths[top:]),
    }
