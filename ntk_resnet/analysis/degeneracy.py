r"""Kernels against depth: sweeps, degeneracy, and the rates that theory predicts."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import ArrayLike, Float, Num

from ntk_resnet._inputs import check_angles, check_depths, check_inputs_of
from ntk_resnet._precision import precision_of
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.analysis.phases import limit_condition_number
from ntk_resnet.analysis.spectrum import spectrum
from ntk_resnet.kernels.convolution.depths import matrices_at
from ntk_resnet.kernels.depths import by_profiles, kernels_at, profiles_at
from ntk_resnet.kernels.pairs import angle_gaps, distances, gaps, prepare, symmetric
from ntk_resnet.kernels.profile.composed import branch_share, composes
from ntk_resnet.records.provenance import provenance
from ntk_resnet.specification.base import Specification, check_network
from ntk_resnet.specification.blocks import ACTIVATE
from ntk_resnet.specification.networks import FeedForward, ResNet

_LONG_NAMES = {
    "nngp": "NNGP, normalised",
    "ntk": "NTK, normalised",
    "nngp_gap": "1 - NNGP, normalised",
    "ntk_gap": "1 - NTK, normalised",
    "log_nngp_diag": "ln of the raw NNGP on the diagonal",
    "log_ntk_diag": "ln of the raw NTK on the diagonal",
}


def sweep_depth(
    spec: Specification,
    depths: int | Sequence[int],
    *,
    angles: Num[ArrayLike, " angle"] | Sequence[float] | None = None,
    x: Num[ArrayLike, "n *features"] | None = None,
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""Both kernels of a family of networks at several depths, in gap form.

    `spec.depth` is replaced by each of `depths`. Where the network of depth `l` is the
    first `l` blocks of a deeper one (plain networks, scales that do not depend on the
    depth) one pass serves all depths; else the networks run side by side
    (`ntk_resnet.kernels.depths`; of images, `ntk_resnet.kernels.convolution.depths`).
    Where it is cheaper, kernels between rows of data are those of `gram`, depth by
    depth.

    Args:
        spec: the family; a convolutional one has one stage.
        depths: whole numbers >= 1; the result has each once, ascending.
        angles: radians in [0, pi], between inputs with `|x|^2 = d`; or
        x: inputs `(n, d)`, all pairs of rows; of convolutional networks images
            `(n, H, W, C)`.
        progress: called as `progress(done, total, text)` for each depth as it is done:
            several in a row, and the deepest may come first; of convolutional networks
            for each tile of a matrix.

    Returns:
        A dataset over `(depth, angle)`, or `(depth, row, column)`: `nngp` and `ntk`,
        divided by their diagonals, and `nngp_gap`, `ntk_gap`, one minus them, accurate
        relative to themselves (between images absolutely, to a few float64 eps times
        the depth); `log_nngp_diag`, `log_ntk_diag` over `(depth,)`, or
        `(depth, row)`, in neural-tangents' normalisation. The dtype is that of the
        input. `ntk` is NaN where nothing is trained (all scales zero).

    Raises:
        ValueError: bad inputs, neither or both of `angles` and `x`, or a convolutional
            network with `angles` or of several stages.

    Accuracy: that of `kernel_fn` (`tests/kernels/test_recursion.py`,
    `tests/analysis/test_depth.py`, `tests/kernels/convolution/test_image_depths.py`).
    """
    _check_family(spec, angles)
    depths = check_depths("depths", depths)
    if (angles is None) == (x is None):
        raise ValueError(
            "pass either angles= or x= to say where the kernels are wanted."
        )
    pairs: tuple[str, ...]
    coords: dict[str, Any] = {"depth": depths}
    if x is None:
        angles = data = check_angles("angles", angles)
        pairs = ("angle",)
        about = {"units": "rad", "long_name": "angle"}
        coords["angle"] = ("angle", angles, about)
    else:
        x = data = check_inputs_of(spec, "x", x)
        pairs = ("row", "column")
    found: dict[str, np.ndarray] = {}
    for index, values in _kernels(spec, depths, angles, x, progress):
        for name, value in values.items():
            if name not in found:
                found[name] = np.empty((len(depths), *value.shape), value.dtype)
            found[name][index] = value
    variables = {}
    for name, long_name in _LONG_NAMES.items():
        dims = ("depth", *(pairs[:-1] if name.startswith("log") else pairs))
        variables[name] = (dims, found[name], {"long_name": long_name})
    return xr.Dataset(
        variables,
        coords=coords,
        attrs=provenance(spec=spec, dtype=str(data.dtype)),
    )


def _check_family(spec: Any, angles: Any = None) -> None:
    check_network(spec, convolutional=True)
    if not spec.takes_images:
        return
    if len(spec.stages) > 1:
        raise ValueError(
            f"spec has {len(spec.stages)} stages, between which a depth cannot be "
            "divided; pass a network of one stage."
        )
    if angles is not None:
        raise ValueError(
            "angles= is for fully connected networks, whose kernels depend on nothing "
            "else; pass images as x= (n, height, width, channels)."
        )


def _kernels(
    spec: Any, depths: list[int], angles: Any, x: Any, progress: Progress
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The index into `depths` and the variables of `sweep_depth`, in no set order."""
    if spec.takes_images:
        yield from matrices_at(spec, depths, x, progress)
        return
    if x is not None and by_profiles(spec, depths, len(x)):
        found = profiles_at(spec, depths, x)
    else:
        found = kernels_at(spec, depths, *_pairs(spec, angles, x))
    for count, (index, values) in enumerate(found, 1):
        yield index, values
        progress(count, len(depths), f"depth {depths[index]}")


class _Pairs(NamedTuple):
    """Pairs of inputs: one minus and one plus the cosine, and ln(|x|^2 / d)."""

    gap: jax.Array
    supplement_gap: jax.Array
    log_variance: jax.Array


def _pairs(spec: Specification, angles: Any, x: Any) -> _Pairs:
    with precision_of(angles, x):
        if x is None:
            gap, supplement_gap = map(jnp.asarray, angle_gaps(angles))
            return _Pairs(gap, supplement_gap, jnp.zeros((), gap.dtype))
        rows = prepare(x, spec.bias_variance)
        gap, supplement_gap = _pair_gaps(rows)
        return _Pairs(gap, supplement_gap, jnp.asarray(rows.log_variance))


@jax.jit
def _pair_gaps(rows):
    return tuple(map(symmetric, gaps(distances(rows, rows, 0, "split", True))))


def degeneracy(
    spec: Specification,
    depths: int | Sequence[int],
    x: Num[ArrayLike, "n *features"],
    *,
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""How close the kernels of deep networks are to a constant, on given inputs.

    A kernel that is the same for all distinct inputs tells nothing about them: its
    regression predicts one number everywhere. The degenerate NTK of ReLU networks at
    He's variance is 1 on the diagonal and 1/4 off it. By default a `FeedForward` trains
    its readout and a `ResNet` does not: give both the same `trained` to compare them.

    Args:
        spec, depths, progress: as in `sweep_depth`.
        x: at least two inputs `(n, d)`, or images `(n, H, W, C)`.

    Returns:
        A dataset over `depth`. Of the off-diagonal normalised NTK: `ntk_mean`,
        `ntk_spread` (standard deviation), `distance` (root mean square of NTK - 1/4)
        and `distance_one_block` (that of its difference from the same family at depth
        1); of the normalised NNGP `nngp_gap`, the median of 1 - value; of the
        normalised NTK matrix `condition_number` and `effective_rank`. Beside them what
        theory predicts, NaN where it says nothing, for ReLU at He's variance without
        bias, and for other plain networks the limit of the condition number
        (`analysis.phases`, NaN in the ordered phase, where only its growth is known);
        nothing of convolutional networks:

        * plain networks and residual ones with a constant positive scale degenerate,
          whatever is trained:
          `predicted_ntk` = :math:`1/4 + (3/8) \ln L / L`, `predicted_nngp_gap` =
          :math:`9\pi^2 / (2 a_e^2 L^2)` with :math:`a_e = 1` or
          :math:`\alpha^2/(1+\alpha^2)`, and the limit `predicted_condition_number` =
          :math:`(n+3)/3`, all up to terms smaller by `1/ln L` or `ln L / L`;
        * two-layer blocks, alone trained, of scale :math:`L^{-\gamma}`, `gamma > 1/2`,
          tend to one block: `predicted_distance_one_block` = :math:`L^{1-2\gamma}`
          times the root mean square of D(u) (`one_block_correction`).

    Raises:
        ValueError: bad inputs, fewer than two rows, or a convolutional network of
            several stages.
    """
    _check_family(spec)
    data = check_inputs_of(spec, "x", x)
    n = data.shape[0]
    if n < 2:
        raise ValueError("x has one row; degeneracy is about pairs, pass two or more.")
    depths = check_depths("depths", depths)
    if spec.trains_nothing:
        raise ValueError(
            "branch_scale is 0, so that nothing is trained and the NTK is zero; pass a "
            "positive scale, or trained='all'."
        )
    upper = np.triu_indices(n, 1)
    ((_, shallow),) = _kernels(spec, [1], None, data, quiet)
    one_block = shallow["ntk"][upper].astype(np.float64)
    rows: list[dict[str, float]] = [{}] * len(depths)
    # Each depth is let go: all of them at once would be len(depths) n^2 numbers.
    for index, values in _kernels(spec, depths, None, data, progress):
        matrix = spectrum(values["ntk"])
        off = values["ntk"][upper].astype(np.float64)
        rows[index] = {
            "ntk_mean": off.mean(),
            "ntk_spread": off.std(),
            "distance": _rms(off - 0.25),
            "distance_one_block": _rms(off - one_block),
            "nngp_gap": np.median(values["nngp_gap"][upper]),
            "condition_number": float(matrix.condition_number),
            "effective_rank": float(matrix.effective_rank),
        }
    found = {name: ("depth", [row[name] for row in rows]) for name in rows[0]}
    gap = np.full(upper[0].shape, np.nan)  # of images: there is no one angle
    if not spec.takes_images:
        gap = np.asarray(_pairs(spec, None, data).gap)[upper]
    found |= {k: ("depth", v) for k, v in _predict(spec, depths, gap, n).items()}
    return xr.Dataset(
        found,
        coords={"depth": depths},
        attrs=provenance(spec=spec, dtype=str(data.dtype), n=n),
    )


def _rms(values):
    return float(np.sqrt(np.mean(values**2)))


def one_block_correction(
    angle: Float[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    r"""D(u) of residual networks that tend to one block, at `u = cos(angle)`.

    For ReLU two-layer blocks with scale :math:`L^{-\gamma}`, `gamma > 1/2`, the
    normalised NTK is :math:`\bar\Omega_1(u) + L^{1-2\gamma} D(u) + \dots`, with

    .. math::
        D = \tfrac14 \Big[
        (\kappa_1 - u)\Big(2\kappa_0 + \frac{u}{\pi\sqrt{1-u^2}}\Big)
        - (1-\kappa_0)(\kappa_1 + u\kappa_0)\Big].

    Derived from the recursion (Huang et al. 2020 prove the limit), checked against it
    (`tests/studies/test_claims.py`). Singular at the angle pi; 0 at the angle 0.
    """
    u, sine = np.cos(angle), np.sin(angle)
    kappa0 = 1 - angle / np.pi
    kappa1 = u + (sine - angle * u) / np.pi
    cusp = u / (np.pi * np.where(sine > 0, sine, 1))
    return (
        (kappa1 - u) * (2 * kappa0 + cusp) - (1 - kappa0) * (kappa1 + u * kappa0)
    ) / 4


def _predict(spec, depths, gap, n):
    """The asymptotes of `degeneracy`, by name."""
    depth = np.asarray(depths, float)
    speed = _degeneration_speed(spec)
    rate = _one_block_exponent(spec)
    angle = 2 * np.arcsin(np.sqrt(np.clip(gap, 0, 2) / 2))
    condition = limit_condition_number(spec, n, depths)
    if not isinstance(spec, FeedForward):
        condition = np.full(len(depths), (n + 3) / 3 + 0 * speed)
    return {
        "predicted_ntk": 0.25 + 0.375 * np.log(depth) / depth + 0 * speed,
        "predicted_nngp_gap": 4.5 * np.pi**2 / (speed * depth) ** 2,
        "predicted_condition_number": condition,
        "predicted_distance_one_block": depth**rate * _rms(one_block_correction(angle)),
    }


def _he_relu(spec):
    relu = spec.replace(activation="relu").activation
    return spec.homogeneous and spec.activation == relu and spec.weight_variance == 2


def _one_block_exponent(spec):
    """1 - 2 gamma where the kernel tends to that of one block, else NaN."""
    huang = isinstance(spec, ResNet) and spec.block == "two_layer"
    huang = huang and not spec.trains_readout and not spec.input_activation
    gamma = getattr(spec.branch_scale, "gamma", 0.0) if huang else 0.0
    return 1 - 2 * gamma if _he_relu(spec) and gamma > 0.5 else np.nan


def _degeneration_speed(spec):
    """a_e, the share of the branch in a block; NaN where the asymptote is not known.

    With two activations in a block the terms of order ln L / L are others.
    """
    known = _he_relu(spec) and composes(spec) and spec.nested
    known = known and spec.operations.count(ACTIVATE) == 1
    share = branch_share(spec) if known else 0.0
    return share if share > 0 else np.nan
