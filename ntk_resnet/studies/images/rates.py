"""What the rates of convolutional kernels are: small images, large depths.

The labels are those of fully connected networks where the prediction is the same, as it
is for flattened readouts; the readout's weights are frozen, as there. Those of pooled
ones are derived here. A pooled kernel is the mean over pairs of pixels; with P pixels a
share 1/P of an image's own pairs are a pixel with itself, whose kernels do not change.
All other pairs, and all of two images, go the way of two inputs of a fully connected
network, if images wrap around. With zero padding less signal reaches pairs of
different places than the same place twice, so the former keep apart, and their part of
the NTK stays bounded while the latter grows by one with each layer: what is left is the
limit of two inputs, 1/4.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.data.datasets import Data
from ntk_resnet.plot import drawing
from ntk_resnet.plot.drawing import THEORY
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.images.kernels import FAMILIES
from ntk_resnet.studies.ledger import (
    BOTH_HALVES,
    Claim,
    Measured,
    curve_slope,
    exact,
)
from ntk_resnet.studies.study import Figure, Measurement, NotRun

BLOCKS = (10, 100, 1000)
"""Depths of the residual networks."""

_PLAIN = {"zero": "plain", "circular": "plain, circular"}
_RESIDUAL = ("γ = 1", "γ = 1/2", "α = 1")
_READOUTS = ("flatten", "pool")
_SIDE = 4


def _late(depth):
    """The depths over which slopes are taken."""
    return depth[depth > depth[-1] / 3.5]


def small_images(data: Data, count: int) -> np.ndarray:
    """The first images of the data, averaged down to 4 x 4 pixels.

    Raises:
        NotRun: there are fewer, or their sides are not multiples of 4.
    """
    n, height, width, channels = data.x[:count].shape
    if n < count:
        raise NotRun(f"{data.name} has {n} images; {count} are needed.")
    if height % _SIDE or width % _SIDE:
        raise NotRun(
            f"images of {data.name} have {height} x {width} pixels; they are averaged "
            f"down to {_SIDE} x {_SIDE}, which needs multiples of {_SIDE}."
        )
    cut = (n, _SIDE, height // _SIDE, _SIDE, width // _SIDE, channels)
    return data.x[:count].reshape(cut).mean(axis=(2, 4))


def rates(
    data: Data, *, longest: int, images: int = 4, progress: Progress = quiet
) -> xr.Dataset:
    r"""Normalised kernels of all pairs of a few images of 4 x 4 pixels.

    Returns:
        Over (`padding`, `readout`, `plain_depth`, `pair`) `plain_ntk` and `plain_gap`,
        of the NNGP, of plain networks up to the depth `longest`, and over (`padding`,
        `readout`) `plain_limit`, to which the NTK should tend. Over (`family`,
        `readout`, `block_depth`, `pair`) `ntk` and `gap` of residual networks with zero
        padding; over (`readout`, `pair`) `block_ntk` and `block_gap`, those of one
        block.

        `block_share` is the branch's share :math:`\lambda^2 / (1 + \lambda^2)` of a
        block with `α = 1`. Zero padding takes signal away: after many convolutions each
        keeps :math:`\lambda` of it, the leading eigenvalue of means over 3 x 3 pixels,
        and a branch has two of them.
    """
    x = small_images(data, images)
    depths = np.unique(np.geomspace(100, longest, 25).round().astype(int)).tolist()
    pieces = len(_READOUTS) * (len(_PLAIN) + len(_RESIDUAL))
    plain: list[np.ndarray] = []
    residual: list[np.ndarray] = []
    one: list[np.ndarray] = []
    for readout in _READOUTS:
        place = len(plain) + len(residual)
        for name in _PLAIN.values():
            spec = FAMILIES[name].replace(readout=readout)
            report = part_of(progress, place, 1, pieces, f"{readout}, {name}, ")
            plain.append(_pairs(nr.sweep_depth(spec, depths, x=x, progress=report)))
            place += 1
        for name in _RESIDUAL:
            spec = FAMILIES[name].replace(readout=readout)
            report = part_of(progress, place, 1, pieces, f"{readout}, {name}, ")
            residual.append(_residual(spec, BLOCKS, x, report))
            place += 1
        one.append(residual[-1][:, 0])  # of α = 1; the first depth is a single block
    pixels = _SIDE**2
    by_readout = (len(_READOUTS), -1)
    return xr.Dataset(
        _named(plain, "plain_ntk", "plain_gap", "padding", "plain_depth")
        | _named([v[:, 1:] for v in residual], "ntk", "gap", "family", "block_depth")
        | {
            "block_ntk": (
                ("readout", "pair"),
                np.reshape([v[0] for v in one], by_readout),
            ),
            "block_gap": (
                ("readout", "pair"),
                np.reshape([v[1] for v in one], by_readout),
            ),
            "plain_limit": (
                ("padding", "readout"),
                [[1 / 4, 1 / 4], [1 / 4, 1 / (1 + 3 / pixels)]],
            ),
            "block_share": _branch_share(),
        },
        coords={
            "padding": list(_PLAIN),
            "family": list(_RESIDUAL),
            "readout": list(_READOUTS),
            "plain_depth": depths,
            "block_depth": list(BLOCKS),
        },
        attrs={
            "data": data.name,
            "images": len(x),
            "pixels": pixels,
            "longest": depths[-1],
            "late": _late(np.array(depths))[0],
            "deepest": BLOCKS[-1],
            "before": BLOCKS[-2],
            "share": _branch_share(),
        },
    )


def _residual(spec, depths: Sequence[int], x, report) -> np.ndarray:
    """`_pairs` at one block and at the depths.

    The network of depth `l` is the first `l` blocks of a deeper one whose scale is a
    constant, that of depth `l`: then one compiled pass serves all scales.
    """
    wanted = [1, *depths]
    scales = [float(spec.branch_scale.values(depth)[0]) for depth in wanted]
    found = []
    for k, (depth, scale) in enumerate(zip(wanted, scales, strict=True)):
        part = part_of(report, k, 1, len(wanted))
        own = spec.replace(branch_scale=scale)
        swept = nr.sweep_depth(own, [depth, depths[-1]], x=x, progress=part)
        found.append(_pairs(swept.sel(depth=[depth])))
    return np.concatenate(found, axis=1)


def _pairs(swept: xr.Dataset) -> np.ndarray:
    """NTK and gap of the NNGP of different images, `(2, depth, pair)`."""
    upper = np.triu_indices(swept.sizes["row"], 1)
    return np.stack([swept[n].values[:, *upper] for n in ("ntk", "nngp_gap")])


def _named(values: list[np.ndarray], ntk: str, gap: str, network: str, depth: str):
    """Both variables over (`network`, readout, depth, pair); readout was outermost."""
    shape = (len(_READOUTS), -1, *values[0].shape)
    stacked = np.moveaxis(np.reshape(values, shape), (2, 1), (0, 1))
    over = (network, "readout", depth, "pair")
    return {ntk: (over, stacked[0]), gap: (over, stacked[1])}


def _branch_share() -> float:
    eigenvalue = ((1 + 2 * np.cos(np.pi / (_SIDE + 1))) / 3) ** 2
    return eigenvalue**2 / (1 + eigenvalue**2)


# --------------------------------------------------------------------------- claims


_EPS = np.finfo(float).eps
_BOUND = "bound of the rounding"


def _rounding(depth):
    """Of a normalised kernel: a layer is about twenty operations, whose errors add."""
    return 20 * _EPS * float(depth)


def _excess(found):
    """Of the plain NTK over its limit, (padding, readout, plain_depth, pair)."""
    excess = found.plain_ntk - found.plain_limit
    return excess.transpose("padding", "readout", "plain_depth", "pair")


def _flat_at_1000(found):
    flat = _excess(found).sel(readout="flatten")
    return exact(flat.sel(plain_depth=1000, method="nearest"), _rounding(1000), _BOUND)


def _pooled_at_last(padding):
    def measure(found):
        one = {"readout": "pool", "padding": padding}
        last = _excess(found).sel(one).isel(plain_depth=-1)
        return exact(last, _rounding(last.plain_depth), _BOUND)

    return measure


def _slopes(excess):
    """Of the depth times the excess, in the logarithm of the depth, at late depths."""
    depth = _late(excess.plain_depth.values)
    late = excess.sel(plain_depth=depth).transpose(..., "plain_depth").values
    scaled = (depth * late).reshape(-1, len(depth))
    # A slope in ln L of y is that of ln exp(y); the shift leaves it alone.
    return _over_halves(depth, np.exp(scaled - scaled[:, :1]))


def _over_halves(depth, curves):
    slopes = [curve_slope(depth, one) for one in curves]
    value, low, high = np.transpose(slopes)
    return Measured(value, low, high, BOTH_HALVES)


def _gap_ratio(found, factor, **where):
    """The NNGP's gap of plain networks over its asymptote, at the last depth."""
    last = float(found.plain_depth[-1])
    gap = found.plain_gap.sel(where).isel(plain_depth=-1)
    ratio = gap * factor * 2 * last**2 / (9 * np.pi**2)
    return exact(ratio, ratio * _rounding(last), _BOUND)


def _zero_gap_exponents(found):
    gap = found.plain_gap.sel(readout="pool", padding="zero")
    depth = _late(gap.plain_depth.values)
    late = gap.sel(plain_depth=depth).transpose("pair", "plain_depth").values
    return _over_halves(depth, late)


def _distance_exponents(found):
    """Of gamma = 1 to one block, over the last two depths, by readout."""
    one = found.ntk.sel(family="γ = 1")
    distance = (
        np.abs(one - found.block_ntk).max("pair").isel(block_depth=slice(-2, None))
    )
    at = distance.block_depth.values
    return _between_two(at, distance.transpose("readout", "block_depth").values)


def _change_exponents(found):
    """Of what ten times the depth changes in gamma = 1/2, by readout."""
    half = found.ntk.sel(family="γ = 1/2")
    changes = np.abs(half.diff("block_depth")).max("pair")
    at = found.block_depth.values[:-1]
    return _between_two(at, changes.transpose("readout", "block_depth").values)


def _between_two(depth, curves):
    """The exponents of curves of two points."""
    times = np.log(depth[1] / depth[0])
    slopes = np.log(curves[:, 1] / curves[:, 0]) / times
    error = 4 * _rounding(BLOCKS[-1]) / curves.min(axis=1) / times
    return exact(slopes, error, _BOUND)


def _gap_kept(family):
    def measure(found):
        kept = found.gap.sel(family=family) / found.block_gap
        last = kept.isel(block_depth=-1)
        return exact(last, last * _rounding(last.block_depth), _BOUND)

    return measure


def _constant_excess(found):
    one = found.ntk.sel(family="α = 1").isel(block_depth=-1)
    return exact(np.abs(one - 0.25), _rounding(one.block_depth), _BOUND)


def _constant_gap_ratio(found):
    one = found.gap.sel(family="α = 1", readout="flatten").isel(block_depth=-1)
    share, last = float(found.block_share), float(found.block_depth[-1])
    ratio = one * 2 * share**2 * last**2 / (9 * np.pi**2)
    return exact(ratio, ratio * _rounding(last), _BOUND)


def _pooled_rate(found):
    """The derivative of (NTK of two images)/(1/P + (1 - 1/P) NTK) at 1/4, times 3/8."""
    pixels = found.attrs["pixels"]
    return 6 / pixels / (1 + 3 / pixels) ** 2


def _claim(
    name: str, statement: str, measure: Any, predicted: Any, reason: str, **more
):
    """A claim of these rates, which are all derived here."""
    return Claim(
        name=name,
        statement=statement,
        source="recursion of the kernel over pairs of pixels",
        known="derived",
        of="rates",
        measure=measure,
        predicted=predicted,
        reason=reason,
        figure="rates",
        **more,
    )


CLAIMS = [
    _claim(
        "1a-images-flattened",
        "convolutional, plain, flattened: NTK at L = 1000 less 1/4, either padding",
        _flat_at_1000,
        0.0,
        "next term: (3/8 ln L + C)/L",
        tolerance=6e-3,
    ),
    _claim(
        "1a-images-circular",
        "convolutional, plain, pooled, circular: NTK at L = {longest} less "
        "1/(1+3/P), P = {pixels}",
        _pooled_at_last("circular"),
        0.0,
        "next term: (c ln L + C)/L, see 1b",
        tolerance=1e-3,
    ),
    _claim(
        "1a-images-zero",
        "convolutional, plain, pooled, zero padding: NTK at L = {longest} less 1/4",
        _pooled_at_last("zero"),
        0.0,
        "next term: (3/8 ln L + C)/L, C of the order of P",
        tolerance=5e-3,
    ),
    _claim(
        "1b-images-flattened",
        "convolutional, plain, flattened: L(NTK − 1/4) grows like 3/8 ln L: "
        "slope in ln L from L = {late} to {longest}",
        lambda found: _slopes(_excess(found).sel(readout="flatten")),
        0.375,
        "next term: of order (ln L)/L in the slope",
        tolerance=5e-3,
    ),
    _claim(
        "1b-images-circular",
        "convolutional, plain, pooled, circular: L(NTK − limit) grows like "
        "6/P/(1+3/P)^(2) ln L: slope in ln L from L = {late} to {longest}",
        lambda found: _slopes(_excess(found).sel(readout="pool", padding="circular")),
        _pooled_rate,
        "next term: of order (ln L)/L in the slope, 4 % at these depths",
        tolerance=lambda found: 0.06 * _pooled_rate(found),
    ),
    _claim(
        "1c-images-flattened",
        "convolutional, plain, flattened: (1 − NNGP) × 2L²/(9π²) at L = {longest} is 1",
        lambda found: _gap_ratio(found, 1, readout="flatten"),
        1.0,
        "next term: 2(1.5 ln L + C)/L",
        tolerance=1e-2,
    ),
    _claim(
        "1c-images-circular",
        "convolutional, plain, pooled, circular: (1 − NNGP) × 2PL²/(9π²) at "
        "L = {longest} is 1, P = {pixels}",
        lambda found: _gap_ratio(
            found, found.attrs["pixels"], readout="pool", padding="circular"
        ),
        1.0,
        "next term: 2(1.5 ln L + C)/L",
        tolerance=1e-2,
    ),
    _claim(
        "1c-images-zero",
        "convolutional, plain, pooled, zero padding: 1 − NNGP falls like L^(−2): "
        "exponent from L = {late} to {longest}",
        _zero_gap_exponents,
        -2.0,
        "next term: 2(1.5 ln L + C)/L",
        tolerance=2e-2,
    ),
    _claim(
        "1d-images-rate",
        "convolutional, residual, γ = 1: distance of the NTK to that of one block "
        "falls like 1/L: exponent from L = {before} to {deepest}, either readout",
        _distance_exponents,
        -1.0,
        "next term T² with T = 1/L",
        tolerance=1e-2,
    ),
    _claim(
        "1f-images-rate",
        "convolutional, residual, γ = 1/2: change of the NTK from L to 10 L falls like "
        "1/L: exponent from L = 10 to {before}, either readout",
        _change_exponents,
        -1.0,
        f"next term of order 1/L at the smallest L = {BLOCKS[0]}",
        tolerance=5e-2,
    ),
    *(
        _claim(
            name,
            f"convolutional, residual, {family}: 1 − NNGP at L = {{deepest}} over "
            "that of one block, either readout: the kernel does not degenerate",
            _gap_kept(family),
            0.5,
            "our own bound: kept means at least half of it",
            side="above",
        )
        for name, family in (
            ("1d-images-gap", "γ = 1"),
            ("1f-images-gap", "γ = 1/2"),
        )
    ),
    _claim(
        "1g-images-constant",
        "convolutional, residual, α = 1: |NTK − 1/4| at L = {deepest}, either readout",
        _constant_excess,
        3e-2,
        "theory: (3/8 ln L + C)/L, C larger than of plain networks",
        side="below",
    ),
    _claim(
        "1c-images-constant",
        "convolutional, residual, α = 1, flattened: (1 − NNGP) × 2a²L²/(9π²) at L = "
        "{deepest} is 1, a = {share:.4f} what zero padding leaves of the branch",
        _constant_gap_ratio,
        1.0,
        "next term: 2(1.5 ln L + C)/(aL)",
        tolerance=0.1,
    ),
]


# -------------------------------------------------------------------------- figure


def draw(found: xr.Dataset) -> np.ndarray:
    """How fast kernels between images tend to their limits, as depth grows.

    Left: distance of the NTK of plain networks to its limit; middle: gap of their NNGP;
    right: distance of the NTK of residual networks to that of one block (`γ = 1`), and
    what the next depth changes in it (`γ = 1/2`), the largest over pairs of images.
    Dashed: the rates predicted. Returns the axes, `(1, 3)`.
    """
    with drawing.style():
        axes = drawing.new_axes(1, 3, height=2.7)
        ntk, gap, blocks = axes.flat
        _draw_plain(ntk, gap, found)
        _draw_blocks(blocks, found)
        for ax in axes.flat:
            drawing.log_axis(ax.xaxis)
            ax.set_yscale("log")
            ax.set_xlabel("depth L")
        ntk.set_ylabel("plain: |NTK − limit|")
        gap.set_ylabel("plain: 1 − NNGP, mean")
        blocks.set_ylabel("residual: |change of the NTK|")
        drawing.figure_legend(axes)
    return axes


_LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "flatten": ("flattened", {"linestyle": "-"}),
    "pool": ("pooled", {"linestyle": ":", "markerfacecolor": drawing.PAPER}),
}


def _draw_plain(ntk, gap, found):
    at, pixels = found.plain_depth.values.astype(float), found.attrs["pixels"]
    excess = np.abs(found.plain_ntk - found.plain_limit).max("pair")
    families = {"zero": "plain", "circular": "plain, circular"}
    table = looks(families.values())
    for padding, family in families.items():
        for readout, (word, line) in _LOOKS.items():
            one = {"padding": padding, "readout": readout}
            look = table[family] | line
            label = f"plain, {padding}, {word}"
            ntk.plot(at, excess.sel(one).values, **look, label=label)
            gap.plot(at, found.plain_gap.sel(one).mean("pair").values, **look)
    ntk.plot(at, 0.375 * np.log(at) / at, **THEORY, label="theory, see caption")
    for factor in (1, pixels):
        gap.plot(at, 4.5 * np.pi**2 / at**2 / factor, **THEORY)


def _draw_blocks(ax, found):
    at = found.block_depth.values.astype(float)
    one, half = (found.ntk.sel(family=family) for family in ("γ = 1", "γ = 1/2"))
    distance = np.abs(one - found.block_ntk).max("pair")
    changes = np.abs(half.diff("block_depth", label="lower")).max("pair")
    for name, values in (("γ = 1", distance), ("γ = 1/2", changes)):
        for readout, (word, line) in _LOOKS.items():
            y = values.sel(readout=readout).values
            look = looks([name])[name] | line
            ax.plot(at[: len(y)], y, **look, label=f"{name}, {word}")
    # Parallel to both: above all.
    ax.plot(at, 1.5 * float(changes.max()) * at[0] / at, **THEORY)


FIGURE = Figure(
    of="rates",
    draw=draw,
    title="Rates of convergence with depth, between images",
    caption="Pairs of {images} images of {data}, averaged down to 4 x 4 pixels. Left: "
    "distance of the NTK of plain networks to 1/4, pooled and circular to 1/(1+3/P) "
    "with P = {pixels} pixels; dashed (3/8 ln L)/L. Middle: the gap of their NNGP; "
    "dashed 9π²/(2L²) and 1/P of it, that of pooled kernels with circular padding. "
    "Right: largest distance of the NTK to that of one block (γ = 1), and largest "
    "change with ten times the depth (γ = 1/2), zero padding; dashed 1/L.",
)

MEASUREMENT = Measurement(measure=rates, full={"longest": 10_000}, data="images")
