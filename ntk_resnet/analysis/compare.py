r"""How far two kernels on the same data are apart, also along depth."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import ArrayLike, Float, Int, Num

from ntk_resnet._checks import check_choice
from ntk_resnet._inputs import (
    FLOATS,
    check_array,
    check_depths,
    check_inputs,
    check_symmetric,
)
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.kernels.gram.gram import gram
from ntk_resnet.records.provenance import provenance
from ntk_resnet.specification.base import Specification, check_network

_LONG_NAMES = {
    "alignment": "centred kernel alignment",
    "alignment_gap": "1 - centred kernel alignment",
    "relative_distance": "Frobenius norm of the difference, relative to the second",
}


def kernel_distance(
    k1: Float[ArrayLike, "n n"], k2: Float[ArrayLike, "n n"]
) -> xr.Dataset:
    r"""How far two kernel matrices on the same data are apart.

    With :math:`H = I - 11^\top / n`, the centred matrices :math:`A = H K_1 H` and
    :math:`B = H K_2 H`, and Frobenius norms and products,

    .. math::
        \text{alignment} = \frac{\langle A, B\rangle}{\|A\| \|B\|}, \qquad
        \text{relative distance} = \frac{\|K_1 - K_2\|}{\|K_2\|}.

    Args:
        k1, k2: `(n, n)`, symmetric, n >= 2.

    Returns:
        A dataset of the scalars `alignment`, which is 1 where the kernels agree up to a
        factor and a constant, `alignment_gap`, one minus it, without cancellation, and
        `relative_distance`. The alignment is NaN where a centred matrix is zero to
        rounding (a constant kernel).

    Raises:
        ValueError: not two such matrices of finite numbers, or `k2` is zero.

    Source: Cortes, Mohri & Rostamizadeh 2012. Accuracy: `n eps` of the matrices' dtype
    (`tests/analysis/test_compare.py`); of two kernels near a constant, which differ
    little from it, pass what `gram` gives for a gap: centring takes the constant away,
    and only the sign is turned.
    """
    first, second = _check("k1", k1), _check("k2", k2)
    if first.shape != second.shape:
        raise ValueError(
            f"k1 and k2 have shapes {first.shape} and {second.shape}; pass kernels "
            "on the same data."
        )
    if not second.any():
        raise ValueError("k2 is all zeros, and no distance is relative to it.")
    # By powers of two, exactly, against overflow of the squares.
    size = 2.0 ** np.floor(np.log2(max(np.abs(first).max(), np.abs(second).max())))
    first, second = first / size, second / size
    found = _centred(first, second) | {
        "relative_distance": np.linalg.norm(first - second) / np.linalg.norm(second)
    }
    return xr.Dataset(
        {k: ((), v, {"long_name": _LONG_NAMES[k]}) for k, v in found.items()},
        attrs=provenance(n=len(first)),
    )


def kernel_distance_sweep(
    spec: Specification,
    other: Specification | Float[ArrayLike, "n n"],
    depths: int | Sequence[int] | Int[np.ndarray, " depth"],
    x: Num[ArrayLike, "n d"],
    *,
    get: str = "ntk",
    progress: Progress = quiet,
) -> xr.Dataset:
    """`kernel_distance` of two families of networks, or of one and a limit, by depth.

    Args:
        spec: the first family; its depth is replaced by each of `depths`.
        other: the second, whose depth is replaced likewise; or the normalised kernel
            matrix on `x` of a limit, `(n, n)`, which stays. By default plain networks
            train their readouts and residual ones do not; to compare them give both the
            same `trained`.
        depths: whole numbers >= 1; the result has each once, ascending.
        x: inputs `(n, d)`, two or more.
        get: `"ntk"` or `"nngp"`, normalised.
        progress: called as `progress(done, total, text)` after each depth.

    Returns:
        The variables of `kernel_distance` over `depth`, computed from the gaps of the
        kernels: right also where both are nearly constant.

    Raises:
        ValueError: bad inputs, named in the text.
    """
    check_network(spec)
    check_choice("get", get, ("ntk", "nngp"))
    wanted = check_depths("depths", depths)
    data = check_inputs("x", x, zero_rows=spec.bias_variance > 0)
    if len(data) < 2:
        raise ValueError("x has one row; pass two or more.")
    gap_at = lambda net, l: np.asarray(  # noqa: E731, E741
        gram(net.replace(depth=l), data, get=f"{get}_gap"), float
    )
    if not isinstance(other, Specification):
        limit = 1 - _check("other", other)
        if limit.shape != (len(data),) * 2:
            raise ValueError(
                f"other has shape {limit.shape}; pass a network, or a kernel matrix "
                f"({len(data)}, {len(data)}) on x."
            )
    found: dict[str, list] = {name: [] for name in _LONG_NAMES}
    for done, depth in enumerate(wanted, 1):
        first = gap_at(spec, depth)
        second = gap_at(other, depth) if isinstance(other, Specification) else limit
        size = np.linalg.norm(1 - second)
        found["relative_distance"].append(np.linalg.norm(first - second) / size)
        for name, value in _centred(first, second).items():
            found[name].append(value)
        progress(done, len(wanted), f"depth {depth}")
    attrs = provenance(spec=spec, get=get, n=len(data))
    if isinstance(other, Specification):
        attrs |= provenance(other=other)
    return xr.Dataset(
        {k: ("depth", v, {"long_name": _LONG_NAMES[k]}) for k, v in found.items()},
        coords={"depth": wanted},
        attrs=attrs,
    )


def _centred(k1, k2):
    """Alignment and its gap, half the squared distance of the unit matrices."""
    unit = []
    for matrix in (k1, k2):
        rows = matrix.mean(axis=0)
        centred = matrix - rows - rows[:, None] + rows.mean()
        size = np.linalg.norm(centred)
        rounding = len(matrix) * np.finfo(float).eps * np.linalg.norm(matrix)
        unit.append(
            centred / size if size > rounding else np.full_like(centred, np.nan)
        )
    gap = np.sum((unit[0] - unit[1]) ** 2) / 2
    return {"alignment": 1 - gap, "alignment_gap": gap}


def _check(name, matrix):
    shape = "a square one (n, n) of two rows or more"
    matrix = check_array(name, matrix, shape, dtype=FLOATS)
    if len(matrix) < 2:
        raise ValueError(f"{name} has one row; pass {shape}.")
    matrix = np.asarray(matrix)
    check_symmetric(name, matrix)
    return matrix.astype(float)
