"""The one door to the closed forms: prepared rows in, a block of kernels out.

What computes the kernels of a network on given inputs is chosen here and nowhere else.
An engine is all that a compiled program depends on; what changes with the depth, tables
of a profile or branch scales, is data.
"""

import abc
import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ntk_resnet._checks import check_choice
from ntk_resnet._numerics import safe_root
from ntk_resnet.kernels import recursion
from ntk_resnet.kernels.convolution import matrices
from ntk_resnet.kernels.norms import common_norm, log_variances, over_powers_of_two
from ntk_resnet.kernels.pairs import (
    defined,
    distances,
    gaps,
    own_entries,
    prepare,
    scaled,
    symmetric,
)
from ntk_resnet.kernels.profile.composed import composes
from ntk_resnet.kernels.profile.composed import log_diagonals as at_unit_kernel
from ntk_resnet.kernels.profile.lookup import Both
from ntk_resnet.kernels.profile.profile import gap_from, has_profile, profile
from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.convolutional import Convolutional

ENGINES = ("auto", "profile", "recursion", "convolution", "neural_tangents")
KERNELS = ("nngp", "ntk")
QUANTITIES = ("ntk", "nngp", "ntk_gap", "nngp_gap")


class Block(NamedTuple):
    """The entries between two sets of rows."""

    values: tuple[Float[Array, "n1 n2"], ...]  # of each quantity that was asked for
    coarse: Bool[Array, ""]  # whether some are near-duplicates that are not refined


@dataclasses.dataclass(frozen=True)
class Engine(abc.ABC):
    """How a block of kernels is computed."""

    name: ClassVar[str]
    get: tuple[str, ...]  # of `QUANTITIES`
    normalised: bool

    @abc.abstractmethod
    def block(
        self,
        data: Any,
        rows1: Any,
        rows2: Any,
        shift: Int[Array, ""] | int,
        refine: bool,
    ) -> Block:
        """The entries between two sets of rows.

        Args:
            data: what depends on the depth.
            rows1, rows2: the inputs, prepared.
            shift: row `i` of the first is row `i - shift` of the second: entries whose
                gap is 0 exactly. At 0 the block is made symmetric. Out of range: none.
            refine: compute near-duplicates from the difference of the rows.
        """


@dataclasses.dataclass(frozen=True)
class ProfileEngine(Engine):
    """One polynomial of the angle an entry, whatever the depth; `data` has tables."""

    name = "profile"
    products: str
    powers: tuple[tuple[int, int], ...]  # of the profile, for each quantity

    def block(self, data, rows1, rows2, shift, refine):
        lesser, obtuse, coarse = distances(rows1, rows2, shift, self.products, refine)
        known = defined(rows1, rows2)
        # The root has no derivative at 0; that of the kernel is set to 0 there, the
        # mean over both sides of the cusp.
        r = safe_root(lesser / 2)
        values = []
        for name, powers, (table, log_diagonal) in zip(
            self.get, self.powers, data, strict=True
        ):
            value = gap_from(table, powers, r, obtuse)
            if not name.endswith("_gap"):
                value = 1 - value
            if not self.normalised:
                own = [rows.log_variance + log_diagonal for rows in (rows1, rows2)]
                value = scaled(value, *own)
            values.append(jnp.where(known, value, jnp.nan))
        return Block(_mirrored(values, shift), coarse)


@dataclasses.dataclass(frozen=True)
class RecursionEngine(Engine):
    """Block by block; `data` are the branch scales."""

    name = "recursion"
    shape: Specification  # without depth and scales

    def block(self, data, rows1, rows2, shift, refine):
        spec, logs = self.shape, [rows1.log_variance, rows2.log_variance]
        data = jnp.where(data < 0, jnp.nan, data)  # inside a trace nothing is checked
        found = distances(rows1, rows2, shift, "split", refine)
        gap, supplement_gap = gaps(found)
        if spec.bias_variance == 0:  # a row of zeros has no angle
            gap = jnp.where(defined(rows1, rows2), gap, jnp.nan)
        else:
            empty1, empty2 = (~jnp.any(r.coarse != 0, axis=1) for r in (rows1, rows2))
            both = empty1[:, None] & empty2
            gap = jnp.where(both, 0, gap)
            supplement_gap = jnp.where(both, 2, supplement_gap)
        start = [jnp.zeros((), gap.dtype)] if spec.homogeneous else logs
        state = recursion.first_state(spec, gap, supplement_gap, *start)
        kernels = recursion.readout(spec, recursion.propagate(spec, state, data))
        values = []
        for name in self.get:
            value = recursion.quantities(kernels)[name]
            if not self.normalised:
                norms = kernels.log_nngp if name == "nngp" else kernels.log_ntk
                if spec.homogeneous:  # it was run on unit rows: |x|^2 / d factors out
                    norms = tuple(log + norms[0] for log in logs)
                value = scaled(value, norms[0], norms[-1])
            values.append(value)
        return Block(_mirrored(values, shift), found.coarse)


@dataclasses.dataclass(frozen=True)
class ConvolutionEngine(Engine):
    """Images, displacement by displacement; `data` are the branch scales."""

    name = "convolution"
    shape: Convolutional  # without scales

    def block(self, data, rows1, rows2, shift, refine):
        del refine  # planes hold kernels, not gaps
        values = [
            matrices.tile(self.shape, name, self.normalised, data, rows1, rows2, shift)
            for name in self.get
        ]
        return Block(_mirrored(values, shift), jnp.asarray(False))


@dataclasses.dataclass(frozen=True)
class ReferenceEngine(Engine):
    """neural-tangents, a matrix at a time; `data` is nothing.

    Coincident inputs are exact to the root of eps, an input with itself is 1.
    """

    name = "neural_tangents"
    spec: Specification

    def block(self, data, rows1, rows2, shift, refine):
        del data, refine
        kernels = tuple(name.removesuffix("_gap") for name in self.get)
        x1, x2 = rows1.x, rows2.x
        found = _reference(self.spec)(x1, None if rows1 is rows2 else x2, kernels)
        values = list(found)
        if self.normalised:
            # By our diagonals: neural-tangents' own cancel to the root of eps.
            logs = [log_diagonals(self.spec, x) for x in (x1, x2)]
            own = own_entries((len(x1), len(x2)), shift)
            for place, kernel in enumerate(kernels):
                value = scaled(values[place], *(-getattr(log, kernel) for log in logs))
                values[place] = jnp.where(own, 1, value)
        for place, name in enumerate(self.get):
            if name.endswith("_gap"):
                values[place] = 1 - values[place]
        return Block(_mirrored(values, shift), jnp.asarray(False))


class ReferenceRows(NamedTuple):
    """Inputs as they are."""

    x: Float[Array, "n ..."]


@functools.cache
def _reference(spec):
    from ntk_resnet.reference.stax import stax

    return stax(spec)[2]


def _mirrored(values, shift):
    if values[0].shape[0] != values[0].shape[1]:
        return tuple(values)
    if isinstance(shift, int):  # a whole matrix: known while it is traced
        return tuple(map(symmetric, values) if shift == 0 else values)
    mirror = lambda values: tuple(map(symmetric, values))  # noqa: E731
    return jax.lax.cond(shift == 0, mirror, lambda values: values, tuple(values))


# --------------------------------------------------------------------------- the choice


class Choice(NamedTuple):
    """An engine, what it needs to know of the depth, and the inputs."""

    engine: Engine
    data: Any
    rows: tuple[Any, ...]  # of one array, or of two


def check_engine(spec: Specification, engine: str) -> None:
    """Raises a `ValueError` if there is no such engine, or not for such networks."""
    check_choice("engine", engine, ENGINES)
    convolutional = spec.takes_images
    others = ("profile", "recursion") if convolutional else ("convolution",)
    if engine in others:
        kind = "convolutional" if convolutional else "fully connected"
        raise ValueError(
            f"engine={engine!r} is not for {kind} networks; pass engine='auto'."
        )


def usual_engine(spec: Specification, scales: Any = None) -> str:
    """What serves inputs of every norm; with `scales`, also branch scales as data."""
    if spec.takes_images:
        return "convolution"
    one_for_all = scales is None and spec.homogeneous and has_profile(spec)
    return "profile" if one_for_all else "recursion"


def choose(
    spec: Specification,
    get: tuple[str, ...],
    normalised: bool,
    engine: str,
    products: str,
    arrays: tuple[Any, ...],
    scales: Any = None,
    *,
    wide: bool = False,
) -> Choice:
    """What computes these kernels of a network on these inputs.

    Args:
        spec: the network.
        get: of `QUANTITIES`; all of them raw, or all normalised.
        normalised: which of the two.
        engine: of `ENGINES`; `"auto"` is the profile wherever one serves these inputs.
        products: of the profile, see `pairs.distances`.
        arrays: one array of inputs, or two of one dtype; they may be traced.
        scales: branch scales in place of those of the network, for its
            `usual_engine`.
        wide: see `pairs.prepare`.

    Raises:
        ValueError: the engine has no kernels of this network on these inputs.
    """
    if scales is not None and engine != usual_engine(spec, scales):
        raise ValueError(
            "scales as data need engine='recursion' (images: 'convolution'); for "
            "others put them into the specification."
        )
    if engine == "neural_tangents":
        inputs = [jnp.asarray(x) for x in arrays]
        if normalised and spec.homogeneous and inputs[0].ndim == 2:
            inputs = [over_powers_of_two(x)[0] for x in inputs]  # squares stay in range
        reference = ReferenceEngine(get, normalised, spec)
        return Choice(reference, (), tuple(map(ReferenceRows, inputs)))
    if spec.takes_images:
        return _for_images(spec, get, normalised, products, arrays, scales)
    rows = tuple(prepare(x, spec.bias_variance, wide=wide) for x in arrays)
    dtype = np.dtype(arrays[0].dtype)
    norm = _norm_for(spec, engine, arrays)
    if norm is None or not (engine == "profile" or has_profile(spec, norm)):
        scales = spec.scales if scales is None else scales
        by_blocks = RecursionEngine(get, normalised, spec.without_depth)
        return Choice(by_blocks, jnp.asarray(scales, dtype), rows)
    found = profile(spec, input_kernel=norm)
    kernels = [name.removesuffix("_gap") for name in get]
    powers = tuple(getattr(found.powers, kernel) for kernel in kernels)
    data = tuple(
        (found.table(kernel, dtype), np.asarray(found.log_diagonal(kernel), dtype))
        for kernel in kernels
    )
    return Choice(ProfileEngine(get, normalised, products, powers), data, rows)


def _norm_for(spec, engine, arrays):
    """That of the inputs, for a profile; `None`: the recursion is to be used."""
    if engine == "recursion":
        return None
    try:
        return common_norm(spec, *arrays)
    except ValueError:
        if engine == "profile":
            raise
        return None


def _for_images(spec, get, normalised, products, arrays, scales):
    if products == "plain":
        raise ValueError('products="plain" is for fully connected networks.')
    scales = spec.scales if scales is None else scales
    rows = tuple(matrices.image_rows(spec, x, scales, get) for x in arrays)
    engine = ConvolutionEngine(get, normalised, spec.without_scales)
    return Choice(engine, scales.astype(rows[0].log_nngp.dtype), rows)


def matrices_of_images(
    spec: Convolutional,
    get: tuple[str, ...],
    normalised: bool,
    arrays: tuple[Any, ...],
    scales: Any = None,
) -> tuple[Float[Array, "n1 n2"], ...]:
    """All entries at once: no image's own kernel is computed twice; traceable."""
    scales = spec.scales if scales is None else scales
    x1, x2 = arrays if len(arrays) > 1 else (*arrays, None)
    return matrices.matrix(spec, get, normalised, x1, x2, scales)


# ---------------------------------------------------------------------------- diagonals


def log_diagonals(spec: Specification, x: Any, scales: Any = None) -> Both:
    """ln of the raw kernels of every input with itself, `(n,)`; traceable."""
    if scales is None and composes(spec):  # whatever the depth
        logs = jnp.asarray(log_variances(x))
        return Both(*(logs + own for own in at_unit_kernel(spec)))
    scales = spec.scales if scales is None else scales
    if spec.takes_images:
        return Both(*matrices.log_diagonals(cast(Convolutional, spec), x, scales))
    logs = jnp.asarray(log_variances(x, spec.bias_variance))
    scales = jnp.asarray(scales, logs.dtype)
    return Both(*_log_diagonals(spec.without_depth, logs, scales))


@functools.partial(jax.jit, static_argnums=0)
def _log_diagonals(spec, logs, scales):
    first = jnp.zeros((), logs.dtype) if spec.homogeneous else logs
    rows = jax.lax.scan(
        lambda rows, scale: (recursion.step_rows(spec, rows, scale)[0], None),
        recursion.first_rows(spec, first),
        scales,
    )[0]
    results = recursion.log_diagonals(spec, rows)
    return tuple(logs + log if spec.homogeneous else log for log in results)
