r"""Both kernels of a specification as functions of one angle, at any depth.

Where all inputs have one norm, or the network is positively homogeneous (the ReLU
family without bias), both kernels depend on the inputs' angle alone, and are kept as
tables (`lookup`), so that depth costs nothing afterwards. Where all blocks are equal
their tables are composed (`composed`), else the recursion is run once, in float64, at a
few hundred angles (`scanned`).

What is tabulated keeps relative accuracy at both ends. With :math:`r=\sin(\theta/2)` up
to a right angle, these are the gap of the NNGP over :math:`r^2` and that of the NTK
over :math:`r`, to which it is proportional near 0 where the activation has a kink (over
:math:`r^2` where it has none); beyond, the gaps themselves against
:math:`\cos(\theta/2)`. All are positive and analytic, with a layer next to the ends
whose width, 1/L or the branch scale, is found by the machine.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Num

from ntk_resnet._checks import check_number
from ntk_resnet._inputs import as_floats
from ntk_resnet._precision import default_float, is_traced
from ntk_resnet.kernels.profile import composed, lookup
from ntk_resnet.kernels.profile.lookup import ACCURACY, Tables, Values
from ntk_resnet.specification.base import Specification, check_network


@dataclasses.dataclass(frozen=True, eq=False)
class Profile(Tables):
    """Both kernels of one network as functions of the angle; made by `profile`.

    The methods take angles in radians in [0, pi], scalars or arrays of any shape, in
    float32 or float64, and give the normalised kernels in the same shape and dtype,
    under `jit`, `vmap` and `grad` too: `ntk`, `nngp`, and `ntk_gap`, `nngp_gap`, one
    minus them, accurate relative to themselves. Angles that are known are looked up in
    NumPy: nothing is compiled. What is float64 while JAX's x64 mode is off is handed
    out as a NumPy array, which keeps its digits.
    """

    spec: Specification
    input_kernel: float
    """`|x|^2 / d` of the inputs."""
    accuracy: float
    """Bound of the relative error of both gaps."""

    def nngp(self, theta: Num[ArrayLike, "..."]) -> Values:
        """The NNGP divided by its diagonal."""
        return self._at("nngp", theta, value=True)

    def ntk(self, theta: Num[ArrayLike, "..."]) -> Values:
        """The NTK divided by its diagonal."""
        return self._at("ntk", theta, value=True)

    def nngp_gap(self, theta: Num[ArrayLike, "..."]) -> Values:
        """One minus the normalised NNGP."""
        return self._at("nngp", theta)

    def ntk_gap(self, theta: Num[ArrayLike, "..."]) -> Values:
        """One minus the normalised NTK."""
        return self._at("ntk", theta)

    def _at(self, kernel, theta, *, value=False):
        theta = _check_theta(theta)
        table, powers = self.table(kernel, theta.dtype), getattr(self.powers, kernel)
        if is_traced(theta):
            gap = _gap_at(table, powers, theta)
            return 1 - gap if value else gap
        gap = _gap_on_host(table, powers, np.asarray(theta))
        gap = np.asarray(1 - gap if value else gap)
        # What JAX would round stays an array of NumPy's.
        wide = gap.dtype == np.float64 and default_float() == np.float32
        return gap if wide else jax.device_put(gap)

    def log_diagonal(self, kernel: str) -> float:
        """ln of the raw kernel on the diagonal over `|x|^2 / d`."""
        return getattr(self, f"log_{kernel}_diag") - math.log(self.input_kernel)

    def table(self, kernel: str, dtype: np.dtype | type) -> lookup.Table:
        """What `gap_from` reads, in the dtype of the angles."""
        return _cast(self, kernel, np.dtype(dtype))


@functools.lru_cache(maxsize=256)
def _cast(profile, kernel, dtype):
    accuracy = max(profile.accuracy, float(np.finfo(dtype).eps)) / 10
    coefficients = getattr(profile.coefficients, kernel)
    return lookup.make_table(coefficients, profile.offsets, dtype, accuracy)


def gap_from(
    table: lookup.Table, powers: tuple[int, int], r: Values, obtuse: Any
) -> Any:
    r"""The gap, from :math:`\sin(\theta/2)`, or :math:`\cos(\theta/2)` if `obtuse`.

    In NumPy or in JAX, as `r` is.
    """
    xp = r.__array_namespace__()
    acute_factor, obtuse_factor = (r**power if power else 1 for power in powers)
    factor = xp.where(obtuse, obtuse_factor, acute_factor)
    return factor * lookup.look_up(table, r, obtuse)


@functools.partial(jax.jit, static_argnums=1)
def _gap_at(table, powers, theta):
    obtuse = theta > np.pi / 2
    # pi as rounded in float32 lies above pi; its derivative is that next to it.
    cosine = jnp.cos(theta / 2)
    cosine += jax.lax.stop_gradient(jnp.abs(cosine) - cosine)
    r = jnp.where(obtuse, cosine, jnp.sin(theta / 2))
    inside = (theta >= 0) & (theta <= theta.dtype.type(np.pi))
    return jnp.where(inside, gap_from(table, powers, r, obtuse), jnp.nan)


def _gap_on_host(table, powers, theta):
    """The same of angles that are known: nothing is compiled."""
    flat = theta.ravel()  # NumPy makes scalars of arrays without axes
    obtuse = flat > np.pi / 2
    r = np.where(obtuse, np.abs(np.cos(flat / 2)), np.sin(flat / 2))
    return gap_from(table, powers, r, obtuse).reshape(theta.shape)


def _check_theta(theta):
    theta = as_floats("theta", theta)
    if not is_traced(theta):
        host = np.asarray(theta)
        bad = ~((host >= 0) & (host <= host.dtype.type(np.pi)))
        if bad.any():
            raise ValueError(f"theta must lie in [0, pi], got {host[bad][0]!r}.")
    return theta


def profile(
    spec: Specification, *, input_kernel: float = 1.0, accuracy: float = ACCURACY
) -> Profile:
    r"""Both kernels of a network as functions of the angle between two inputs.

    Args:
        spec: the network.
        input_kernel: `|x|^2 / d` of both inputs. The normalised kernels do not depend
            on it for the ReLU family without bias.
        accuracy: of both gaps, relative; at least 1e-13. A larger one makes the tables,
            and so every entry, a little cheaper.

    Returns:
        A `Profile`, computed once for each specification. Plain networks, and blocks
        of one scale whose increments have no mean, whose activation's slopes are of one
        sign and that have no bias are composed: any depth takes milliseconds. Others
        go through all blocks, and are kept on disk as well if it took more than a
        second (in `$NTK_RESNET_CACHE`, or `ntk_resnet` in the user's folder for caches;
        set it to nothing to keep none).

    Raises:
        ValueError: bad arguments, nothing is trained (all scales zero), or the kernels
            vary on scales below 1e-12 and no table reaches the accuracy (deep networks
            in the chaotic phase; `kernel_fn(spec, engine="recursion")` has them).

    Accuracy: `accuracy`, and from there what the dtype allows, from angles of 1e-8 (and
    pi - 1e-8) in float64: to depth 1,000,000 against 50-digit arithmetic, and at 10^12,
    of what is composed, against the laws of deep networks
    (`tests/kernels/profile/test_profile.py`).
    """
    check_network(spec)
    input_kernel = check_number("input_kernel", input_kernel, positive=True)
    accuracy = check_number("accuracy", accuracy, positive=True)
    if not 1e-13 <= accuracy <= 1e-2:
        raise ValueError(
            f"accuracy must lie between 1e-13 and 0.01, got {accuracy}; it is relative."
        )
    return _profile(spec, input_kernel, accuracy)


@functools.lru_cache(maxsize=1024)
def has_profile(spec: Specification, input_kernel: float = 1.0) -> bool:
    """Whether the network has a profile at inputs of that norm; it is built to see."""
    try:
        profile(spec, input_kernel=input_kernel)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=64)
def _profile(spec, input_kernel, accuracy):
    about = {"spec": spec, "input_kernel": input_kernel, "accuracy": accuracy}
    if composed.composes(spec):
        tables = composed.tables(**about)
    else:  # imported where it is needed: it loads what reads and writes files
        from ntk_resnet.kernels.profile import scanned

        tables = scanned.tables(**about)
    fields = dataclasses.fields(tables)
    return Profile(**about, **{f.name: getattr(tables, f.name) for f in fields})
