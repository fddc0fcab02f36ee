r"""Kernels against depth: sweeps, degeneracy, and the rates that theory predicts."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import ArrayLike, Float, Num
from scipy import stats

from ntk_resnet import records
from ntk_resnet.analysis.spectrum import spectrum
from ntk_resnet.architectures import Architecture, FeedForward, ResNet, to_json
from ntk_resnet.kernels import recursion
from ntk_resnet.kernels._inputs import (
    angle_gaps,
    check_angles,
    check_depths,
    check_inputs,
    log_variance,
    pair_gaps,
)
from ntk_resnet.kernels.function import precision_of

Progress = Callable[[int, int, str], Any]

_LONG_NAMES = {
    "nngp": "NNGP, normalised",
    "ntk": "NTK, normalised",
    "nngp_gap": "1 - NNGP, normalised",
    "ntk_gap": "1 - NTK, normalised",
    "log_nngp_diag": "ln of the raw NNGP on the diagonal",
    "log_ntk_diag": "ln of the raw NTK on the diagonal",
}


def sweep_depth(
    spec: Architecture,
    depths: int | Sequence[int],
    *,
    angles: Num[ArrayLike, " angle"] | None = None,
    x: Num[ArrayLike, "n d"] | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    r"""Both kernels of a family of networks at several depths, in gap form.

    `spec.depth` is replaced by each of `depths`. Where the network of depth `l` is the
    first `l` blocks of a deeper one (plain networks, scales that do not depend on the
    depth) one pass serves all depths; else each depth is a run of its own, under one
    compilation.

    Args:
        spec: the family.
        depths: whole numbers >= 1; the result has each once, ascending.
        angles: radians in [0, pi], between inputs with `|x|^2 = d`; or
        x: inputs `(n, d)`, all pairs of rows.
        progress: called as `progress(done, total, text)` after each depth.

    Returns:
        A dataset over `(depth, angle)`, or `(depth, row, column)`: `nngp` and `ntk`,
        divided by their diagonals, and `nngp_gap`, `ntk_gap`, one minus them, accurate
        relative to themselves; `log_nngp_diag`, `log_ntk_diag` over `(depth,)`, or
        `(depth, row)`, in neural-tangents' normalisation. The dtype is that of the input.
        `ntk` is NaN where nothing is trained (all scales zero).

    Raises:
        ValueError: bad inputs, or neither or both of `angles` and `x`.

    Accuracy: that of `kernel_fn` (`tests/test_recursion.py`, `tests/test_depth.py`).
    """
    depths = check_depths("depths", depths)
    if (angles is None) == (x is None):
        raise ValueError("pass either angles= or x= to say where the kernels are wanted.")
    if x is None:
        angles = check_angles("angles", angles)
        data, dims = angles, ("angle",)
    else:
        x = data = check_inputs("x", x, zero_rows=spec.bias_variance > 0)
        dims = ("row", "column")
    with precision_of(data):
        if x is None:
            gap, cogap = map(jnp.asarray, angle_gaps(angles))
            logs = jnp.zeros((), angles.dtype)
        else:
            x = jnp.asarray(x)
            gap, cogap = jax.jit(pair_gaps)(x, x)
            logs = log_variance(x)
        found = _at_depths(spec, depths, gap, cogap, logs, progress)
    names = {"nngp": dims, "ntk": dims, "nngp_gap": dims, "ntk_gap": dims}
    diagonal = dims[:1] if x is not None else ()
    names |= {"log_nngp_diag": diagonal, "log_ntk_diag": diagonal}
    coords: dict[str, Any] = {"depth": depths}
    if x is None:
        coords["angle"] = ("angle", angles, {"units": "rad", "long_name": "angle"})
    return xr.Dataset(
        {
            name: (("depth", *dims), np.stack(values), {"long_name": _LONG_NAMES[name]})
            for (name, dims), values in zip(
                names.items(), zip(*found, strict=True), strict=True
            )
        },
        coords=coords,
        attrs=records.provenance(spec=to_json(spec), dtype=str(gap.dtype)),
    )


def _at_depths(spec, depths, gap, cogap, logs, progress):
    """For each depth: nngp, ntk, both gaps, both logarithmic diagonals, as NumPy."""
    start = jnp.zeros((), gap.dtype) if spec.homogeneous else logs
    first = recursion.first_state(spec, gap, cogap, start)
    nested = isinstance(spec, FeedForward) or not spec.branch_scale.depends_on_depth
    shallow = spec.replace(depth=1)  # one compilation: the depth comes as data
    finish = jax.jit(recursion.readout, static_argnums=0)
    state, done, found = first, 0, []
    for count, depth in enumerate(depths, start=1):
        if not nested:
            state, done = first, 0
        scales = np.zeros(depths[-1])
        scales[:depth] = recursion.block_scales(spec.replace(depth=depth))
        scales = jnp.asarray(scales, gap.dtype)
        state, done = recursion.advance(shallow, state, scales, done, depth), depth
        kernels = finish(shallow, state)
        shift = logs if spec.homogeneous else 0
        values = (
            recursion.cosine(kernels),
            1 - kernels.ntk_gap,
            kernels.nngp_gap,
            kernels.ntk_gap,
            kernels.log_nngp[0] + shift,
            kernels.log_ntk[0] + shift,
        )
        found.append([np.asarray(value) for value in values])
        if progress is not None:
            progress(count, len(depths), f"depth {depth}")
    return found


def degeneracy(
    spec: Architecture,
    depths: int | Sequence[int],
    x: Num[ArrayLike, "n d"],
    *,
    progress: Progress | None = None,
) -> xr.Dataset:
    r"""How close the kernels of deep networks are to a constant, on given inputs.

    A kernel that is the same for all distinct inputs tells nothing about them: its
    regression predicts one number everywhere. The degenerate NTK of ReLU networks at
    He's variance is 1 on the diagonal and 1/4 off it.

    Args:
        spec, depths, progress: as in `sweep_depth`.
        x: at least two inputs `(n, d)`.

    Returns:
        A dataset over `depth`. Of the off-diagonal normalised NTK: `ntk_mean`,
        `ntk_spread` (standard deviation), `distance` (root mean square of NTK - 1/4); of
        the normalised NNGP `nngp_gap`, the median of 1 - value; of the normalised NTK
        matrix `condition_number` and `effective_rank`. Beside them what theory predicts
        where the kernel degenerates and the constant is known (ReLU without bias at He's
        variance; plain, or a constant positive scale), and NaN elsewhere:
        `predicted_ntk` = :math:`1/4 + (3/8) \ln L / L`, `predicted_nngp_gap` =
        :math:`9\pi^2 / (2 a_e^2 L^2)` with :math:`a_e = 1` or
        :math:`\alpha^2/(1+\alpha^2)` (both up to `O(1/L)` terms), and the limit
        `predicted_condition_number` = :math:`(n+3)/3`.

    Raises:
        ValueError: bad inputs, or fewer than two rows.
    """
    x = check_inputs("x", x, zero_rows=spec.bias_variance > 0)
    n = x.shape[0]
    if n < 2:
        raise ValueError("x has one row; degeneracy is about pairs, pass two or more.")
    upper = np.triu_indices(n, 1)
    rows = []
    depths = check_depths("depths", depths)
    for count, depth in enumerate(depths, start=1):
        # A depth at a time: all of them at once would need len(depths) n^2 numbers.
        sweep = sweep_depth(spec, depth, x=x).isel(depth=0)
        ntk = sweep.ntk.values
        matrix = spectrum(ntk)
        off = ntk[upper].astype(np.float64)
        rows.append(
            {
                "ntk_mean": off.mean(),
                "ntk_spread": off.std(),
                "distance": np.sqrt(np.mean((off - 0.25) ** 2)),
                "nngp_gap": np.median(sweep.nngp_gap.values[upper]),
                "condition_number": float(matrix.condition_number),
                "effective_rank": float(matrix.effective_rank),
            }
        )
        if progress is not None:
            progress(count, len(depths), f"depth {depth}")
    found = {name: ("depth", [row[name] for row in rows]) for name in rows[0]}
    return xr.Dataset(
        found | {k: ("depth", v) for k, v in predict(spec, depths, n).items()},
        coords={"depth": depths},
        attrs=records.provenance(spec=to_json(spec), dtype=str(x.dtype), n=n),
    )


def predict(
    spec: Architecture, depths: Sequence[int], n: int
) -> dict[str, Float[np.ndarray, " depth"]]:
    """The asymptotes of `degeneracy`; NaN for networks for which none is known."""
    depth = np.asarray(depths, float)
    speed = _degeneration_speed(spec)
    return {
        "predicted_ntk": 0.25 + 0.375 * np.log(depth) / depth + 0 * speed,
        "predicted_nngp_gap": 4.5 * np.pi**2 / (speed * depth) ** 2,
        "predicted_condition_number": np.full_like(depth, (n + 3) / 3) + 0 * speed,
    }


def _degeneration_speed(spec):
    """a_e, the share of the branch in a block; NaN where the asymptote is not known."""
    relu = spec.replace(activation="relu").activation
    he = spec.homogeneous and spec.activation == relu and spec.weight_variance == 2
    if he and isinstance(spec, FeedForward):
        return 1.0
    if he and isinstance(spec, ResNet) and spec.block != "postactivation":
        alpha = getattr(spec.branch_scale, "alpha", 0.0)
        return alpha**2 / (1 + alpha**2) if alpha > 0 else np.nan
    return np.nan


class PowerFit(NamedTuple):
    """`y = constant * x^exponent`, fitted; `low` and `high` bound the exponent at 95 %."""

    exponent: float
    low: float
    high: float
    constant: float


def fit_power(x: Num[ArrayLike, " k"], y: Num[ArrayLike, " k"]) -> PowerFit:
    """Least squares of ln y on ln x, with the 95 % interval of the slope (Student's t).

    The interval takes the residuals for independent and equal in size; it is NaN for two
    points, which determine a line but not its error.

    Raises:
        ValueError: fewer than two points, or one that is not positive and finite.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape or x.ndim != 1 or x.size < 2:
        raise ValueError(
            f"x and y must be lists of equal length >= 2, got shapes {x.shape}, {y.shape}."
        )
    for name, values in (("x", x), ("y", y)):
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"{name} must be positive and finite, got {values!r}.")
    fit = stats.linregress(np.log(x), np.log(y))
    wide = stats.t.ppf(0.975, x.size - 2) * fit.stderr if x.size > 2 else np.nan
    return PowerFit(
        float(fit.slope),
        float(fit.slope - wide),
        float(fit.slope + wide),
        float(np.exp(fit.intercept)),
    )
