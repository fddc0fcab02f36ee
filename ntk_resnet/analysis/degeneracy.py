r"""How kernels degenerate with depth, and the rates that theory predicts."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import ArrayLike, Float, Num

from ntk_resnet._inputs import check_depths, check_inputs_of
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.analysis.phases import limit_condition_number
from ntk_resnet.analysis.spectrum import spectrum
from ntk_resnet.kernels.depths import check_family, kernels_by_depth, pairs_of
from ntk_resnet.kernels.profile.composed import branch_share, composes
from ntk_resnet.records.provenance import provenance
from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.blocks import ACTIVATE
from ntk_resnet.specification.networks import FeedForward, ResNet


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
          :math:`9\pi^2 / (2 a_e^2 L^2)` with :math:`a_e = 1` or the share of the branch
          in the variance behind a block, :math:`\alpha^2/(1+\alpha^2)`, and the limit
          `predicted_condition_number` = :math:`(n+3)/3` (blocks with one activation
          whose increments have no mean), all up to terms smaller by `1/ln L` or
          `ln L / L`;
        * two-layer blocks, alone trained, of scale :math:`L^{-\gamma}`, `gamma > 1/2`,
          tend to one block: `predicted_distance_one_block` = :math:`L^{1-2\gamma}`
          times the root mean square of D(u) (`one_block_correction`).

    Raises:
        ValueError: bad inputs, fewer than two rows, or a convolutional network of
            several stages.
    """
    check_family(spec)
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
    ((_, shallow),) = kernels_by_depth(spec, [1], None, data, quiet)
    one_block = shallow["ntk"][upper].astype(np.float64)
    rows: list[dict[str, float]] = [{}] * len(depths)
    # Each depth is let go: all of them at once would be len(depths) n^2 numbers.
    for index, values in kernels_by_depth(spec, depths, None, data, progress):
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
        gap = np.asarray(pairs_of(spec, None, data).gap)[upper]
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
    one_block = _rms(one_block_correction(angle))
    return {
        "predicted_ntk": 0.25 + 0.375 * np.log(depth) / depth + 0 * speed,
        "predicted_nngp_gap": 4.5 * np.pi**2 / (speed * depth) ** 2,
        "predicted_condition_number": condition,
        "predicted_distance_one_block": depth**rate * one_block + 0 * rate,
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
