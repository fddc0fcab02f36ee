r"""Both kernels of a specification as functions of one angle, at any depth.

Where all inputs have one norm, or the network is positively homogeneous (the ReLU
family without bias), both kernels depend on the inputs' angle alone. The recursion over
the blocks is run once, in float64, at a few hundred angles, and what it gives is kept
as a table (`ntk_resnet.kernels._lookup`), so that depth costs nothing afterwards.

What is tabulated keeps relative accuracy at both ends. With :math:`r=\sin(\theta/2)` up
to a right angle, these are the gap of the NNGP over :math:`r^2` and that of the NTK
over :math:`r`, to which it is proportional near 0 where the activation has a kink (over
:math:`r^2` where it has none); beyond, the gaps themselves against
:math:`\cos(\theta/2)`. All are positive and analytic, with a layer next to the ends
whose width, 1/L or the branch scale, is found by the machine.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, ArrayLike, Float, Num

from ntk_resnet import records
from ntk_resnet._cache import cached
from ntk_resnet._checks import check_number
from ntk_resnet._duals.piecewise import PiecewiseLinear
from ntk_resnet.architectures import Architecture, check_network
from ntk_resnet.kernels import _lookup
from ntk_resnet.kernels._build_profile import Both, Tables, build
from ntk_resnet.kernels._inputs import (
    as_floats,
    host_log_variance,
    is_traced,
    keep_precision,
    precision_of,
)
from ntk_resnet.kernels._lookup import ACCURACY


@dataclasses.dataclass(frozen=True, eq=False)
class Profile(Tables):
    """Both kernels of one network as functions of the angle; made by `profile`.

    The methods take angles in radians in [0, pi], scalars or arrays of any shape, in
    float32 or float64, and give the normalised kernels in the same shape and dtype,
    under `jit`, `vmap` and `grad` too: `ntk`, `nngp`, and `ntk_gap`, `nngp_gap`, one
    minus them, accurate relative to themselves. Where float64 is asked for while JAX's
    x64 mode is off, they are NumPy arrays: a `jax.Array` would lose its digits.
    """

    spec: Architecture
    input_kernel: float
    """`|x|^2 / d` of the inputs."""
    accuracy: float
    """Bound of the relative error of both gaps."""

    def nngp(self, theta: Num[ArrayLike, "..."]) -> Float[Array | np.ndarray, "..."]:
        """The NNGP divided by its diagonal."""
        return self._at("nngp", theta, value=True)

    def ntk(self, theta: Num[ArrayLike, "..."]) -> Float[Array | np.ndarray, "..."]:
        """The NTK divided by its diagonal."""
        return self._at("ntk", theta, value=True)

    def nngp_gap(
        self, theta: Num[ArrayLike, "..."]
    ) -> Float[Array | np.ndarray, "..."]:
        """One minus the normalised NNGP."""
        return self._at("nngp", theta)

    def ntk_gap(self, theta: Num[ArrayLike, "..."]) -> Float[Array | np.ndarray, "..."]:
        """One minus the normalised NTK."""
        return self._at("ntk", theta)

    def _at(self, kernel, theta, *, value=False):
        theta = _check_theta(theta)
        with precision_of(theta):
            theta = jnp.asarray(theta)
            table = self.table(kernel, theta.dtype)
            gap = _gap_at(table, getattr(self.powers, kernel), theta)
            found = 1 - gap if value else gap
        return keep_precision(found)

    def log_diagonal(self, kernel: str) -> float:
        """ln of the raw kernel on the diagonal over `|x|^2 / d`."""
        return getattr(self, f"log_{kernel}_diag") - math.log(self.input_kernel)

    def table(self, kernel: str, dtype: np.dtype | type) -> _lookup.Table:
        """What `gap_from` reads, in the dtype of the angles."""
        return _cast(self, kernel, np.dtype(dtype))


@functools.lru_cache(maxsize=256)
def _cast(profile, kernel, dtype):
    accuracy = max(profile.accuracy, float(np.finfo(dtype).eps)) / 10
    coefficients = getattr(profile.coefficients, kernel)
    return _lookup.make_table(coefficients, profile.offsets, dtype, accuracy)


def gap_from(
    table: _lookup.Table,
    powers: tuple[int, int],
    r: Float[Array, "..."],
    obtuse: Array,
) -> Float[Array, "..."]:
    r"""The gap, from :math:`\sin(\theta/2)`, or :math:`\cos(\theta/2)` if `obtuse`."""
    acute_factor, obtuse_factor = (r**power if power else 1 for power in powers)
    factor = jnp.where(obtuse, obtuse_factor, acute_factor)
    return factor * _lookup.look_up(table, r, obtuse)


@functools.partial(jax.jit, static_argnums=1)
def _gap_at(table, powers, theta):
    obtuse = theta > np.pi / 2
    # pi as rounded in float32 lies above pi; its derivative is that next to it.
    cosine = jnp.cos(theta / 2)
    cosine += jax.lax.stop_gradient(jnp.abs(cosine) - cosine)
    r = jnp.where(obtuse, cosine, jnp.sin(theta / 2))
    inside = (theta >= 0) & (theta <= theta.dtype.type(np.pi))
    return jnp.where(inside, gap_from(table, powers, r, obtuse), jnp.nan)


def _check_theta(theta):
    theta = as_floats("theta", theta)
    if not is_traced(theta):
        host = np.asarray(theta)
        bad = ~((host >= 0) & (host <= host.dtype.type(np.pi)))
        if bad.any():
            raise ValueError(f"theta must lie in [0, pi], got {host[bad][0]!r}.")
    return theta


def profile(
    spec: Architecture, *, input_kernel: float = 1.0, accuracy: float = ACCURACY
) -> Profile:
    r"""Both kernels of a network as functions of the angle between two inputs.

    Args:
        spec: the network.
        input_kernel: `|x|^2 / d` of both inputs. The normalised kernels do not depend
            on it for the ReLU family without bias.
        accuracy: of both gaps, relative; at least 1e-13. A larger one makes the tables,
            and so every entry, a little cheaper.

    Returns:
        A `Profile`, computed once for each specification, and kept on disk as well if
        it took more than a second (in `$NTK_RESNET_CACHE`, or `ntk_resnet` in the
        user's folder for caches; set it to nothing to keep none).

    Raises:
        ValueError: bad arguments, nothing is trained (all scales zero), or the kernels
            vary on scales below 1e-12 and no table reaches the accuracy (deep networks
            in the chaotic phase; `kernel_fn(spec, engine="recursion")` has them).

    Accuracy: `accuracy`, and from there what the dtype allows, from angles of 1e-8 (and
    pi - 1e-8) in float64, to depth 1,000,000 (`tests/test_profile.py`).
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
def has_profile(spec: Architecture, input_kernel: float = 1.0) -> bool:
    """Whether the network has a profile at inputs of that norm; it is built to see."""
    try:
        profile(spec, input_kernel=input_kernel)
    except ValueError:
        return False
    return True


def common_norm(spec: Architecture, *inputs: Any) -> float:
    """`|x|^2 / d` of all rows, for networks whose profile depends on it; else 1.

    Raises:
        ValueError: the rows differ in norm by more than rounding, or are traced.
    """
    if spec.homogeneous:
        return 1.0
    if is_traced(inputs):
        raise ValueError(
            "engine='profile' must see the norms of the inputs of this network, which "
            "a trace hides; use engine='recursion' there."
        )
    given = [np.asarray(x) for x in inputs if x is not None]
    logs = np.concatenate([host_log_variance(x.astype(np.float64)) for x in given])
    if not np.isfinite(logs).all():
        raise ValueError("a row of zeros has no angle: remove it for engine='profile'.")
    # Below the rounding of data and logarithm the norm differs between parts of the
    # same data, which are to share one profile.
    size = 2 ** np.ceil(np.log2(max(1, np.abs(logs).max())))
    step = 8 * float(np.finfo(np.result_type(*given)).eps) + size * 2.0**-50
    if not np.ptp(logs) <= step:
        raise ValueError(
            "engine='profile' needs inputs of one norm for a network with a bias or an "
            "activation that is not homogeneous; these differ by a factor "
            f"{np.exp(np.ptp(logs) / 2):.6g}; use engine='recursion'."
        )
    return float(np.exp(np.round(logs.mean() / step) * step))


def likely_powers(spec: Architecture, get: str) -> tuple[int, int]:
    """The `powers` that most networks have, for one of `QUANTITIES`.

    A kink makes the NTK linear in the angle next to 0.
    """
    bent = isinstance(spec.activation, PiecewiseLinear) and spec.activation.kink > 0
    return (1 if bent and get.startswith("ntk") else 2), 0


@functools.lru_cache(maxsize=64)
def _profile(spec, input_kernel, accuracy):
    about = {"spec": spec, "input_kernel": input_kernel, "accuracy": accuracy}

    def compute():
        # A thread of its own knows nothing of a trace that the caller may be in.
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            tables = thread.submit(_built, *about.values()).result()
        return _to_dataset(tables).assign_attrs(records.provenance(**about))

    return Profile(
        **about, **_from_dataset(cached("profile", "kernels", about, compute))
    )


def _built(spec, input_kernel, accuracy):
    """In float64 and on the host, whatever the caller's settings."""
    with jax.enable_x64(), _on_host():
        return build(spec, input_kernel, accuracy)


def _on_host():
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to have no CPU
        return contextlib.nullcontext()


_NUMBERS = ("log_nngp_diag", "log_ntk_diag", "error")


def _to_dataset(tables):
    return xr.Dataset(
        {
            "offsets": ("side", tables.offsets),
            "powers": (("kernel", "side"), np.array(tables.powers)),
            **{name: getattr(tables, name) for name in _NUMBERS},
            **{
                name: (("term", "row"), coefficients)
                for name, coefficients in tables.coefficients._asdict().items()
            },
        }
    )


def _from_dataset(dataset):
    return {
        **{name: dataset[name].item() for name in _NUMBERS},
        "powers": Both(*map(tuple, dataset.powers.values.tolist())),
        "offsets": dataset.offsets.values,
        "coefficients": Both(*(dataset[name].values for name in Both._fields)),
    }
