"""The kernels of a specification as a function of two arrays of inputs."""

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from ntk_resnet._checks import check_choice
from ntk_resnet.architectures import Architecture, ResNet, check_network
from ntk_resnet.kernels import recursion
from ntk_resnet.kernels._inputs import (
    check_inputs,
    default_float,
    is_traced,
    log_variance,
    pair_gaps,
)

ENGINES = ("auto", "recursion", "neural_tangents")
KERNELS = ("nngp", "ntk")


def kernel_fn(
    spec: Architecture,
    *,
    engine: Literal["auto", "recursion", "neural_tangents"] = "auto",
    normalised: bool = True,
) -> "KernelFunction":
    r"""The infinite-width kernels of a network as a function of inputs.

    `k = kernel_fn(spec)` is called as neural-tangents' kernel functions are,
    `k(x1, x2=None, get="ntk")`, and `nt.batch` and `nt.predict` accept it.

    Args:
        spec: the network.
        engine: `"recursion"`, our own closed form (`ntk_resnet.kernels.recursion`),
            exact at any depth; `"neural_tangents"`, the reference, wherever it has the
            kernel (its own diagonal, of `k(x)`, is exact to the root of eps only);
            `"auto"`, the recursion. `k.engine` says which one it is.
        normalised: divide by the diagonals, :math:`K(x,x')/\sqrt{K(x,x)K(x',x')}`, so
            that coincident inputs give exactly 1. With `False` the kernels are in
            neural-tangents' normalisation: NTK parametrisation, input kernel `x.x'/d`.

    Returns:
        A `KernelFunction`.

    Raises:
        ValueError: `spec` is not a network specification, or no such engine.
    """
    check_network(spec)
    check_choice("engine", engine, ENGINES)
    if not isinstance(normalised, bool):
        raise ValueError(f"normalised must be True or False, got {normalised!r}.")
    return KernelFunction(spec, "recursion" if engine == "auto" else engine, normalised)


@dataclasses.dataclass(frozen=True)
class KernelFunction:
    """Both kernels of one network; made by `kernel_fn`, equal and hashable by value."""

    spec: Architecture
    engine: str
    normalised: bool

    def __call__(
        self,
        x1: Num[ArrayLike, "n1 d"],
        x2: Num[ArrayLike, "n2 d"] | None = None,
        get: str | Sequence[str] = "ntk",
        *,
        scales: Float[ArrayLike, " depth"] | None = None,
    ):
        r"""The kernel matrix between the rows of `x1` and of `x2`.

        Args:
            x1: inputs `(n1, d)`; float32 and float64 are computed in their own
                precision (float64 also where JAX's x64 mode is off), integers in the
                default float.
            x2: inputs `(n2, d)`; `None` means `x1`, and gives an exactly symmetric
                matrix with an exact diagonal.
            get: `"ntk"`, `"nngp"`, or a tuple of them.
            scales: the branch scales `a_1 .. a_L` of a residual network as data, in
                place of the specification's, so that one can differentiate with
                respect to them.

        Returns:
            An array `(n1, n2)`, or for a tuple a namedtuple of such arrays. Works under
            `jit`, `vmap` and `grad`; at coincident inputs of `x1` and `x2` the NTK has
            a cusp and the gradient is the mean of its two sides.

        Raises:
            ValueError: bad inputs, named in the text; or a raw kernel beyond the
                dtype's range. In a trace, bad values give NaN or infinity instead.

        Accuracy:
            Relative error of both gaps, 1 - normalised value, and of the values
            relative to 1: at most 1e-11 in float64 and 2e-5 in float32 at the angle of
            the inputs up to depth 30,000 for the ReLU family without bias
            (`tests/test_recursion.py`; the errors seen are a few eps). Raw values:
            1e-12 relative in float64 to depth 64. Memory: about ten matrices `(n1,
            n2)`.
        """
        names = tuple(get) if isinstance(get, tuple | list) else (get,)
        for name in names:
            check_choice("get", name, KERNELS)
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"get must name each kernel once, as in ('nngp', 'ntk'), got {get!r}."
            )
        zero_rows = self.spec.bias_variance > 0
        first = check_inputs("x1", x1, zero_rows=zero_rows)
        second = None
        if x2 is not None:
            second = check_inputs("x2", x2, zero_rows=zero_rows)
            if first.shape[1] != second.shape[1]:
                raise ValueError(
                    f"x1 has rows of length {first.shape[1]} and x2 of length "
                    f"{second.shape[1]}; they must agree."
                )
        check_scales(self.spec, scales)
        with precision_of(first, second, scales):
            values = self._evaluate(names, first, second, scales)
        if not is_traced(values):
            self._check_range(names, values, scales)
        if isinstance(get, str):
            return values[0]
        return collections.namedtuple("Kernels", names)(*values)

    def _evaluate(self, names, x1, x2, scales):
        if self.engine == "neural_tangents":
            if scales is not None:
                raise ValueError(
                    "scales as data need engine='recursion'; for neural-tangents put "
                    "them into the specification."
                )
            return _by_neural_tangents(self.spec, self.normalised, names, x1, x2)
        if scales is None:
            scales = recursion.block_scales(self.spec)
        dtype = jnp.result_type(x1, *([] if x2 is None else [x2]))
        x1 = jnp.asarray(x1, dtype)
        x2 = x2 if x2 is None else jnp.asarray(x2, dtype)
        scales = jnp.asarray(scales, dtype)
        shape = recursion.shape_of(self.spec)
        return _by_recursion(shape, self.normalised, names, x1, x2, scales)

    def _check_range(self, names, values, scales):
        scales = recursion.block_scales(self.spec) if scales is None else scales
        if not np.any(scales):
            return  # nothing is trained: a block NTK of zeros, normalised NaN
        for name, value in zip(names, values, strict=True):
            host = np.asarray(value)
            if np.isfinite(host).all() and host.any(axis=1).all():
                continue
            if self.normalised or np.isnan(host).any():
                raise ValueError(_not_a_number(name, host.dtype, self.spec))
            raise ValueError(
                f"the raw {name} is beyond the range of {host.dtype}; ask for "
                "normalised=True, or take nr.diag(..., log=True)."
            )


def diag(
    spec: Architecture,
    x: Num[ArrayLike, "n d"],
    get: Literal["ntk", "nngp"] = "ntk",
    *,
    log: bool = False,
) -> Float[Array, " n"]:
    """The raw kernel of every input with itself, without the matrix.

    Args:
        spec: the network.
        x: inputs `(n, d)`.
        get: `"ntk"` or `"nngp"`.
        log: return the natural logarithm, which never overflows; -inf where the kernel
            is zero (a block NTK whose scales are all zero).

    Raises:
        ValueError: bad inputs, or a value beyond the dtype's range (never with `log`).

    Accuracy: the logarithm to a few eps of its size (`tests/test_kernel_fn.py`).
    """
    check_network(spec)
    check_choice("get", get, KERNELS)
    x = check_inputs("x", x, zero_rows=spec.bias_variance > 0)
    with precision_of(x):
        x = jnp.asarray(x)
        scales = jnp.asarray(recursion.block_scales(spec), x.dtype)
        logs = _log_diag(recursion.shape_of(spec), x, scales)[KERNELS.index(get)]
        values = logs if log else jnp.exp(logs)
    if is_traced(values):
        return values
    if np.isnan(values).any():
        raise ValueError(_not_a_number(get, values.dtype, spec))
    if not log and not np.isfinite(values).all():
        raise ValueError(
            f"the diagonal of the raw {get} is beyond the range of {values.dtype}; "
            "pass log=True."
        )
    return values


def _not_a_number(name, dtype, spec):
    return (
        f"the {name} is not a number here: inputs or scales are beyond the range of "
        f"{dtype}, or the variance is beyond the quadrature of activation "
        f"{spec.activation!r}, or its mean changes sign between blocks."
    )


def check_scales(spec: Architecture, scales: Any) -> None:
    """Branch scales passed as data: one finite, non-negative number for each block."""
    if scales is None:
        return
    if not isinstance(spec, ResNet):
        raise ValueError("scales belong to residual networks; this network has none.")
    if jnp.shape(scales) != (spec.depth,):
        raise ValueError(
            f"scales has shape {jnp.shape(scales)}; pass one number for each of the "
            f"{spec.depth} blocks."
        )
    if is_traced(scales):
        return
    host = np.asarray(scales)
    good = host.dtype.kind in "fiu" and np.isfinite(host).all() and (host >= 0).all()
    if not good:
        raise ValueError(f"scales must be finite numbers >= 0, got {scales!r}.")


def precision_of(*arrays: Any) -> contextlib.AbstractContextManager:
    """A context with x64 on if float64 data are given eagerly; nothing else changes."""
    wide = any(getattr(a, "dtype", None) == np.float64 for a in arrays)
    if wide and default_float() == np.float32 and not is_traced(arrays):
        return jax.enable_x64()
    return contextlib.nullcontext()


# ----------------------------------------------------------------------- our own engine


@functools.partial(jax.jit, static_argnames=("spec", "normalised", "names"))
def _by_recursion(spec, normalised, names, x1, x2, scales):
    bias = spec.bias_variance
    logs = [log_variance(x, bias) for x in ((x1,) if x2 is None else (x1, x2))]
    scales = jnp.where(scales < 0, jnp.nan, scales)
    start = [jnp.zeros((), x1.dtype)] if spec.homogeneous else logs
    gap, cogap = pair_gaps(x1, x1 if x2 is None else x2)
    if bias == 0:  # a row of zeros has no angle
        defined = (logs[0] == logs[0])[:, None] & (logs[-1] == logs[-1])
        gap = jnp.where(defined, gap, jnp.nan)
    state = recursion.first_state(spec, gap, cogap, *start)
    kernels = recursion.readout(spec, recursion.propagate(spec, state, scales))
    values = []
    for name in names:
        value = recursion.cosine(kernels) if name == "nngp" else 1 - kernels.ntk_gap
        if not normalised:
            norms = kernels.log_nngp if name == "nngp" else kernels.log_ntk
            if spec.homogeneous:  # it was run on unit rows: |x|^2 / d factors out
                norms = tuple(log + norms[0] for log in logs)
            value = _scaled(value, norms)
        values.append(symmetric(value) if x2 is None else value)
    return tuple(values)


def _scaled(value, log_diagonals):
    """The raw kernel; zero, not NaN, where its diagonal is zero."""
    log_size = (log_diagonals[0][:, None] + log_diagonals[-1][None, :]) / 2
    zero = log_size == -jnp.inf
    # Both operands are replaced, so that the derivative is that of 0 as well.
    raw = jnp.exp(jnp.where(zero, 0, log_size)) * jnp.where(zero, 0, value)
    return jnp.where(zero, 0, raw)


def symmetric(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The upper triangle, mirrored: rounding may differ between the two."""
    return jnp.triu(matrix) + jnp.triu(matrix, 1).T


@functools.partial(jax.jit, static_argnames="spec")
def _log_diag(spec, x, scales):
    logs = log_variance(x, spec.bias_variance)
    first = jnp.zeros((), x.dtype) if spec.homogeneous else logs
    rows = jax.lax.scan(
        lambda rows, scale: (recursion.step_rows(spec, rows, scale)[0], None),
        recursion.first_rows(spec, first),
        scales,
    )[0]
    results = recursion.log_diagonals(spec, rows)
    return tuple(logs + log if spec.homogeneous else log for log in results)


# ---------------------------------------------------------------------- neural-tangents


@functools.cache
def _reference_kernel(spec: Architecture) -> Callable:
    from ntk_resnet.stax import stax

    return stax(spec)[2]


def _by_neural_tangents(spec, normalised, names, x1, x2):
    kernel = _reference_kernel(spec)
    x1 = jnp.asarray(x1)
    x2 = x2 if x2 is None else jnp.asarray(x2)
    values = kernel(x1, x2, names)
    if not normalised:
        return tuple(values)
    # By our diagonals: neural-tangents' own cancel to the root of eps.
    scales = jnp.asarray(recursion.block_scales(spec), values[0].dtype)
    logs = [
        dict(zip(KERNELS, _log_diag(recursion.shape_of(spec), x, scales), strict=True))
        for x in ((x1,) if x2 is None else (x1, x2))
    ]
    return tuple(
        value * jnp.exp(-(logs[0][name][:, None] + logs[-1][name][None, :]) / 2)
        for name, value in zip(names, values, strict=True)
    )
