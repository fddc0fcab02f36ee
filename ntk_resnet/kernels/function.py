"""The kernels of a specification as a function of two arrays of inputs."""

import collections
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from ntk_resnet._checks import check_choice
from ntk_resnet._inputs import check_inputs_of, check_pair
from ntk_resnet._precision import is_traced, keep_precision, precision_of
from ntk_resnet.kernels.engines import (
    KERNELS,
    check_engine,
    log_diagonals,
    usual_engine,
)
from ntk_resnet.kernels.gram.gram import in_memory
from ntk_resnet.kernels.gram.make_plan import device_of, plan_on
from ntk_resnet.kernels.gram.programs import matrices
from ntk_resnet.kernels.overflow import all_finite, check_raw
from ntk_resnet.specification.base import Specification, check_network


def kernel_fn(
    spec: Specification,
    *,
    engine: Literal[
        "auto", "profile", "recursion", "convolution", "neural_tangents"
    ] = "auto",
    normalised: bool = True,
) -> "KernelFunction":
    r"""The infinite-width kernels of a network as a function of inputs.

    `k = kernel_fn(spec)` is called as neural-tangents' kernel functions are,
    `k(x1, x2=None, get="ntk")`, and `nt.batch` and `nt.predict` accept it. Called as it
    is, it works as `gram` does, tile by tile; inside a trace in one program.

    Args:
        spec: the network.
        engine: `"recursion"`, our own closed form (`ntk_resnet.kernels.recursion`),
            exact at any depth, block by block; `"profile"`, the same as a function of
            the angle (`ntk_resnet.kernels.profile`), so that depth costs nothing: for
            the ReLU family without bias, and for any network on inputs of one norm
            (checked; inside a trace it is an error); `"convolution"`, the closed form
            of convolutional networks (`ntk_resnet.kernels.convolution`) and their only
            one of ours; `"neural_tangents"`, the
            reference, wherever it has the kernel (its own diagonal, of `k(x)`, is exact
            to the root of eps only); `"auto"`, the profile where it serves inputs of
            every norm, else the recursion, for images the convolution. `k.engine` says
            which one it is.
        normalised: divide by the diagonals, :math:`K(x,x')/\sqrt{K(x,x)K(x',x')}`, so
            that coincident inputs give exactly 1. With `False` the kernels are in
            neural-tangents' normalisation: NTK parametrisation, input kernel `x.x'/d`.

    Returns:
        A `KernelFunction`.

    Raises:
        ValueError: `spec` is not a network specification, or no such engine.
    """
    check_network(spec, convolutional=True)
    check_engine(spec, engine)
    if not isinstance(normalised, bool):
        raise ValueError(f"normalised must be True or False, got {normalised!r}.")
    return KernelFunction(spec, engine, normalised)


@dataclasses.dataclass(frozen=True)
class KernelFunction:
    """Both kernels of one network; made by `kernel_fn`, equal and hashable by value."""

    spec: Specification
    requested: str
    normalised: bool

    def __call__(
        self,
        x1: Num[ArrayLike, "n1 ..."],
        x2: Num[ArrayLike, "n2 ..."] | None = None,
        get: str | Sequence[str] = "ntk",
        *,
        scales: Float[ArrayLike, " depth"] | None = None,
    ):
        r"""The kernel matrix between the rows of `x1` and of `x2`.

        Args:
            x1: inputs `(n1, d)`, images `(n1, H, W, C)`; float32 and float64 are
                computed in their own precision (float64 also where JAX's x64 mode is
                off), integers in the default float.
            x2: inputs `(n2, ...)`; `None` means `x1`, and gives an exactly symmetric
                matrix with an exact diagonal.
            get: `"ntk"`, `"nngp"`, or a tuple of them.
            scales: the branch scales `a_1 .. a_L` of a residual network as data, in
                place of the specification's, so that one can differentiate with
                respect to them.

        Returns:
            An array `(n1, n2)`, or for a tuple a namedtuple of such arrays: a
            `jax.Array`, but of NumPy where it is float64 while JAX's x64 mode is off
            (the next operation would make a `jax.Array` float32). Works under `jit`,
            `vmap` and `grad`; at coincident inputs of `x1` and `x2` the NTK has a cusp
            and the gradient is the mean of its two sides.

            Where nothing is trained (all scales 0, the blocks alone) the raw NTK is 0,
            and normalised NaN.

        Raises:
            ValueError: bad inputs, named in the text; or a raw kernel beyond the
                dtype's range. In a trace, bad values give NaN or infinity instead.

        Accuracy:
            Relative error of both gaps, 1 - normalised value, and of the values
            relative to 1: at most 1e-11 in float64 and 2e-5 in float32 at the angle of
            the inputs up to depth 30,000 for the ReLU family without bias
            (`tests/kernels/test_recursion.py`; the errors seen are a few eps). Raw
            values: 1e-12 relative in float64 to depth 64. Rows of any norm, subnormal
            numbers included, are as exact; in a trace, where a device takes those for
            zero, rows whose angles that changes are NaN (`tests/test_inputs.py`).
            Memory: the matrices asked for and about twelve tiles, as `gram`; of a
            derivative about ten matrices `(n1, n2)`.

            Images: values to 1e-10 in float64 and 1e-5 in float32, relative to 1; deep
            networks are computed in float64 for that
            (`convolution.matrices.computing_dtype`).
            Pixels with equal surroundings, as in constant areas, and equal images that
            are not recognised as one, are off by the root of eps, weighted by their
            share (`tests/kernels/convolution/test_convolution.py`). Memory: some pairs
            at a time, about ten arrays of 2^18 numbers (accelerators 2^24), or of the
            pixels of a pair where those are more; with averages between stages 2^24
            numbers (2^28) for planes that enter the later ones, or `4 (H W / 4)^2`
            where those are more. Of all pairs about eight numbers; of all images three
            copies and, for each pixel and block, three numbers, or up to nine with two
            activations a block, means or a length scale
            (`tests/kernels/convolution/test_image_tiles.py`).
        """
        names = tuple(get) if isinstance(get, tuple | list) else (get,)
        for name in names:
            check_choice("get", name, KERNELS)
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"get must name each kernel once, as in ('nngp', 'ntk'), got {get!r}."
            )
        check = functools.partial(check_inputs_of, self.spec)
        first, second = check_pair(("x1", x1), ("x2", x2), check)
        check_scales(self.spec, scales)
        with precision_of(first, second, scales):
            values = self._evaluate(names, first, second, scales)
        values = keep_precision(values)
        if not is_traced(values):
            self._check_range(names, values, first, second, scales)
        if isinstance(get, str):
            return values[0]
        return collections.namedtuple("Kernels", names)(*values)

    @property
    def engine(self) -> str:
        """What computes the kernel: `"auto"` is settled when this is first asked."""
        return usual_engine(self.spec) if self.requested == "auto" else self.requested

    def _evaluate(self, names, x1, x2, scales):
        dtype = np.result_type(*(v.dtype for v in (x1, x2) if v is not None))
        dtype = jax.dtypes.canonicalize_dtype(dtype)  # float32 in a trace without x64
        arrays = tuple(v.astype(dtype) for v in (x1, x2) if v is not None)
        engine = self.requested
        if engine == "auto":
            engine = usual_engine(self.spec, scales)
        how = self.spec, names, self.normalised, engine
        device = device_of(*arrays)
        if device is None or is_traced(scales) or engine in _WHOLE:
            return matrices(*how, arrays, scales)
        found = in_memory(plan_on(device, *how, arrays, scales), checked=False)
        return tuple(jax.device_put(values, device) for values in found)

    def _check_range(self, names, values, x1, x2, scales):
        if scales is None:
            idle = self.spec.trains_nothing
        else:
            idle = not (np.any(scales) or self.spec.trains_readout)
        for name, value in zip(names, values, strict=True):
            if idle and name == "ntk":
                continue  # zeros, and normalised NaN: nothing is trained
            host = np.asarray(value)
            if not all_finite(host) and (self.normalised or np.isnan(host).any()):
                raise ValueError(_not_a_number(name, host.dtype, self.spec))
            if not self.normalised:
                check_raw(name, host, lambda: self._own(name, x1, x2, scales))  # noqa: B023

    def _own(self, name, x1, x2, scales):
        """ln of the raw kernel of each input with itself."""
        given = [x for x in (x1, x2) if x is not None]
        with precision_of(*given, scales):
            logs = [log_diagonals(self.spec, x, scales) for x in given]
        return tuple(getattr(log, name) for log in logs)


def diag(
    spec: Specification,
    x: Num[ArrayLike, "n ..."],
    get: Literal["ntk", "nngp"] = "ntk",
    *,
    log: bool = False,
) -> Float[Array | np.ndarray, " n"]:
    """The raw kernel of every input with itself, without the matrix.

    Args:
        spec: the network.
        x: inputs `(n, d)`, or images `(n, H, W, C)`.
        get: `"ntk"` or `"nngp"`.
        log: return the natural logarithm, which never overflows; -inf where the kernel
            is zero (a block NTK whose scales are all zero).

    Returns:
        `(n,)`; of NumPy where it is float64 while JAX's x64 mode is off.

    Raises:
        ValueError: bad inputs, or a value beyond the dtype's range (never with `log`).

    Accuracy: the logarithm to a few eps of its size
    (`tests/kernels/test_kernel_fn.py`).
    """
    check_network(spec, convolutional=True)
    check_choice("get", get, KERNELS)
    x = check_inputs_of(spec, "x", x)
    with precision_of(x):
        logs = getattr(log_diagonals(spec, x), get)
        values = logs if log else jnp.exp(logs)
    values = keep_precision(values)
    if is_traced(values):
        return values
    if np.isnan(values).any():
        raise ValueError(_not_a_number(get, values.dtype, spec))
    lost = np.isinf(values) | ((np.asarray(values) == 0) & np.isfinite(logs))
    if not log and lost.any():
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


def check_scales(spec: Specification, scales: Any) -> None:
    """Branch scales passed as data: one finite, non-negative number for each block."""
    if scales is None:
        return
    if not spec.has_trunk:
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
    if not np.all(spec.trunk_square(host) >= 0):
        raise ValueError(
            f"scales leave no trunk with {type(spec).__name__}'s branch_scale: its "
            f"factor squared is {spec.trunk_square(host)}; pass smaller ones."
        )


_WHOLE = ("neural_tangents", "convolution")  # engines that take all inputs at once
