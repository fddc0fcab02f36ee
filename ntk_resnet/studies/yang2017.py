"""Yang & Schoenholz 2017: gradients of residual networks of bounded activations."""

import math

import numpy as np
import xarray as xr
from scipy import optimize

import ntk_resnet as nr
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.ledger import (
    BOTH_HALVES,
    Claim,
    all_hold,
    curve_slope,
    exact,
    fitted,
    slope_variables,
)
from ntk_resnet.studies.study import Budget, Figure, Measurement, Study

BLOCKS = {  # variances of W, its bias, V and its bias
    "σₐ² = 1/2": (1.69, 0.05, 1.0, 0.5),
    "σₐ = 0": (1.69, 0.05, 1.0, 0.0),
    "σ_w = 2": (4.0, 0.1, 0.5, 0.25),
}
WEIGHT, BIAS = 1.69, 0.05  # of the networks of the package; V has variance 1, no bias


# ------------------------------------------------------------ blocks of tanh, with bias


def tanh_blocks(*, depths: list[int], progress: Progress = quiet) -> xr.Dataset:
    r"""Variance and gradients of networks x + V tanh(W x + b) + a, by the recursion.

    That of the mean field, :math:`p' = p + \sigma_v^2 E\varphi(z)^2 + \sigma_a^2` with
    :math:`z \sim N(0, \sigma_w^2 p + \sigma_b^2)`, from p = 1; gradients grow by
    :math:`1 + \sigma_v^2 \sigma_w^2 E\varphi'(z)^2` a block.

    Over (`block`, `depth`): `variance`, and `log_growth`, that of squared gradients on
    their way from that depth to the first block. Over `block`: `slope`, what the
    variance is to gain a block, and `rate`, A.
    """
    rows = []
    for done, sigmas in enumerate(BLOCKS.values()):
        progress(done, len(BLOCKS), "blocks of tanh")
        rows.append(_through_blocks(*sigmas, max(depths)))
    found = np.array(rows)[:, :, depths]  # (block, quantity, depth)
    slope = [v + a for _, _, v, a in BLOCKS.values()]
    rate = [
        4 / 3 * math.sqrt(2 / math.pi * w / (v + a)) * v
        for w, _, v, a in BLOCKS.values()
    ]
    return xr.Dataset(
        {
            "variance": (("block", "depth"), found[:, 0]),
            "log_growth": (("block", "depth"), found[:, 1]),
            "slope": ("block", slope),
            "rate": ("block", rate),
        },
        coords={"block": list(BLOCKS), "depth": depths},
        attrs={"first": depths[-2], "last": depths[-1]},
    )


def _through_blocks(w, b, v, a, depth):
    """p and the sum of ln(1 + v w E phi'^2), at every depth from 0 on."""
    z = np.arange(
        0.001, 9, 0.002
    )  # by the midpoint rule, which converges geometrically
    weight = 0.002 * np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2)
    p, log_growth, found = 1.0, 0.0, []
    for _ in range(depth + 1):
        found.append((p, log_growth))
        square = np.tanh(math.sqrt(w * p + b) * z) ** 2
        p += v * (weight @ square) + a
        log_growth += math.log1p(v * w * (weight @ (1 - square) ** 2))
    return np.transpose(found)


# ------------------------------------------------------------ networks of the package


def networks(
    *, depths: list[int], relu_depths: list[int], progress: Progress = quiet
) -> xr.Dataset:
    """Residual networks of the error function, and of ReLU, by `nr.sweep_depth`.

    With a bias in W and none in V. Over `depth`: `variance`, `log_growth`, and
    `correlation`, of inputs at the angle 1/2; over `relu_depth`: `relu_log_variance`
    and `relu_log_growth`. The growth of squared gradients is what the weights of the
    first layer have in the NTK: without them, and without the readout, less is left.
    """
    options = {"branch_scale": 1.0, "weight_variance": WEIGHT, "bias_variance": BIAS}
    erf = nr.ResNet(depth=1, activation="erf", **options)
    relu = nr.ResNet(depth=1, activation="relu", **options)
    bounded = _variance_and_growth(erf, depths, progress)
    linear = _variance_and_growth(relu, relu_depths, progress)
    return xr.Dataset(
        {
            "variance": ("depth", np.exp(bounded[0])),
            "log_growth": ("depth", bounded[1]),
            "correlation": ("depth", bounded[2]),
            "relu_log_variance": ("relu_depth", linear[0]),
            "relu_log_growth": ("relu_depth", linear[1]),
        },
        coords={"depth": depths, "relu_depth": relu_depths},
        attrs={"first": depths[-2], "last": depths[-1], "relu_last": relu_depths[-1]},
    )


def _variance_and_growth(spec, depths, progress):
    """ln of the trunk's variance, ln of the gradients' growth, and a correlation."""
    both = spec.replace(trained="all"), spec.replace(trained="blocks")
    everything, blocks = (
        nr.sweep_depth(one, depths, angles=[0.5], progress=progress) for one in both
    )
    whole = everything.log_ntk_diag.values
    rest = np.exp(blocks.log_ntk_diag.values - whole)
    readout = np.exp(everything.log_nngp_diag.values - whole)
    growth = whole + np.log1p(-rest - readout)
    return everything.log_nngp_diag.values, growth, everything.nngp.values[:, 0]


# ------------------------------------------------------------------------ correlations


def correlations(
    *,
    depths: list[int],
    outer_bias: list[float],
    starts: list[float],
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""Correlations in blocks of the error function with a bias after V, by recursion.

    Near the fixed point e* of :math:`C(e) = (1 + a)\,e`, C(e) = (2/pi) asin e + a, it
    is :math:`de/d\ln l = (C(e) - (1 + a) e)/(1 + a)` plus what the variance lacks, of
    order 1/sqrt(l): so that

    .. math:: e - e^* = A\, l^{-s} + K\, l^{-1/2} + \dots, \quad
        s = 1 - C'(e^*)/(1 + a) < 1/2

    where K is the same from any first correlation. Differences of two have no K.

    Over (`outer_bias`, `start`, `depth`), variances and first correlations, of which
    there are two: `correlation`; over (`outer_bias`, `start`): `extrapolated`, by both
    powers. Over `outer_bias`: `fixed_point` e* < 1, `power`, -s, and `second`, C''(e*)
    over 1 + a; `apart`, the power of depth by which correlations of the two starts
    approach each other, with the slopes of both halves, `apart_low`, `apart_high`.
    """
    rows, last = [], max(depths)
    for a in outer_bias:
        fixed, power, second = _fixed_point(a)
        own = np.array([_correlation(a, last, start) for start in starts])[:, depths]
        slope = curve_slope(depths, np.abs(own[1] - own[0]))
        row = {"correlation": (("start", "depth"), own), "fixed_point": fixed}
        weights = _weights(depths, power)
        row |= {"extrapolated": ("start", own @ weights)}
        row |= {"rounding": np.finfo(float).eps * last * np.abs(weights).sum()}
        row |= {"power": power, "second": second, **slope_variables("apart", slope)}
        rows.append(xr.Dataset(row))
    progress(1, 1, "correlations")
    coords = {"outer_bias": outer_bias, "start": starts, "depth": depths}
    attrs = {"first": depths[0], "last": depths[-1]}
    return xr.concat(rows, "outer_bias").assign_coords(coords).assign_attrs(attrs)


def _fixed_point(a):
    """e*, the power of depth of the approach, and C'' over 1 + a there."""
    off = lambda e: 2 / math.pi * math.asin(e) + a - (1 + a) * e  # noqa: E731
    fixed = optimize.brentq(off, 1e-9, 1 - 1e-9)
    slope = 2 / math.pi / math.sqrt(1 - fixed**2) / (1 + a)
    return fixed, slope - 1, slope * fixed / (1 - fixed**2)


def _correlation(a, depth, start):
    """The correlation at every depth from 0 on."""
    p, covariance, found = 1.0, start, []
    for _ in range(depth + 1):
        found.append(covariance / p)
        q, c = WEIGHT * p + BIAS, WEIGHT * covariance + BIAS
        covariance += 2 / math.pi * math.asin(2 * c / (1 + 2 * q)) + a
        p += 2 / math.pi * math.asin(2 * q / (1 + 2 * q)) + a
    return found


def _weights(depths, power):
    """Of values at depths, for the limit of a constant, l^power and 1/sqrt(l).

    Through three of them.
    """
    at = [0, len(depths) // 2, -1]
    depth = np.array(depths, float)[at]
    terms = np.stack([depth**0, depth**power, depth**-0.5])
    weights = np.zeros(len(depths))
    weights[at] = np.linalg.solve(terms, [1.0, 0.0, 0.0])
    return weights


# ----------------------------------------------------------------------------- claims

EPS = np.finfo(float).eps
ROUNDING = "bound of the rounding of so many layers"


def _slope(values, power, over=1.0, dim="depth"):
    """Of values against a power of depth, between the last two depths, over another.

    Values are sums over layers; growths also lose the share that the first layer has in
    the NTK, one of as many: rounding is below eps times the square of depth.
    """
    last = values.isel({dim: [-2, -1]})
    depth = last[dim].values.astype(float)
    scale = np.diff(depth**power)[0] * np.asarray(over)
    slope = last.diff(dim).isel({dim: 0}).values / scale
    return exact(slope, 2 * EPS * depth[-1] ** 2 / scale, ROUNDING)


def _exponent(values):
    """The power of depth by which correlations fall, between the last two depths."""
    last = values.isel(depth=[-2, -1])
    steps = np.diff(np.log(last.depth.values))
    error = 2 * EPS * last.depth.values[-1] / last.values[-1] / steps
    return exact(np.diff(np.log(last.values)) / steps, error, ROUNDING)


ERF_RATE = 4 / math.pi * math.sqrt(WEIGHT)
SIGN = 1 - 2 / math.pi
EXPLOSION = math.log1p(WEIGHT / 2)
"""Of ReLU, by block."""


def _lacking(found):
    """|e - e*| at the first depth."""
    return abs(found.correlation.isel(depth=0) - found.fixed_point)


def _terms_of_the_power(found):
    """How far the power is off where e is not at e*, and by what the variance lacks."""
    lacking = _lacking(found).max("start")
    return (found.second * lacking).values + found.attrs["first"] ** -0.5


ROOT_TERMS = "2 %, for terms of relative order 1/√l"
BLOCKS_OF = "full residual blocks of tanh; derived here too"
BOUNDED = "the recursion of the error function, derived here"
APPROACH = "polynomial approach to the fixed point; the recursion, derived here"

CLAIMS = [
    Claim(
        name="tanh-variance",
        statement="tanh: the variance grows linearly, by σ_v² + σₐ² a block: its slope "
        "over that, from {first} to {last} blocks",
        source=BLOCKS_OF,
        known="summary",
        of="tanh_blocks",
        measure=lambda found: _slope(found.variance, 1, found.slope),
        predicted=1.0,
        tolerance=0.02,
        reason=ROOT_TERMS,
        figure="growth",
    ),
    Claim(
        name="tanh-gradients",
        statement="tanh: squared gradients grow as exp(A√l), A = (4/3)√(2/π) σ_v² σ_w "
        "/ √(σ_v² + σₐ²): the slope of ln against √l over A, from {first} to {last}",
        source=BLOCKS_OF,
        known="summary",
        of="tanh_blocks",
        measure=lambda found: _slope(found.log_growth, 0.5, found.rate),
        predicted=1.0,
        tolerance=0.02,
        reason=ROOT_TERMS,
        figure="growth",
    ),
    Claim(
        name="erf-variance",
        statement="erf: the variance grows linearly: its slope, from {first} to {last} "
        "blocks, over σ_v²",
        source=BOUNDED,
        known="derived",
        of="networks",
        measure=lambda found: _slope(found.variance, 1),
        predicted=1.0,
        tolerance=0.02,
        reason=ROOT_TERMS,
    ),
    Claim(
        name="erf-gradients",
        statement="erf: squared gradients grow as exp(A√l), A = (4/π) σ_v σ_w: the "
        "slope of ln against √l over A, from {first} to {last}",
        source=BOUNDED,
        known="derived",
        of="networks",
        measure=lambda found: _slope(found.log_growth, 0.5, ERF_RATE),
        predicted=1.0,
        tolerance=0.02,
        reason=ROOT_TERMS,
        figure="networks",
    ),
    Claim(
        name="relu-variance",
        statement="ReLU: the variance grows exponentially, by ln(1 + σ_v² σ_w²/2) a "
        "block: its rate over that, up to {relu_last} blocks",
        source="blocks of ReLU",
        known="summary",
        of="networks",
        measure=lambda found: _slope(
            found.relu_log_variance, 1, EXPLOSION, "relu_depth"
        ),
        predicted=1.0,
        tolerance=1e-6,
        reason="exact but for the bias, whose share falls exponentially",
    ),
    Claim(
        name="relu-gradients",
        statement="ReLU: squared gradients grow exponentially, by ln(1 + σ_v² σ_w²/2) "
        "a block: their rate over that, up to {relu_last} blocks",
        source="blocks of ReLU",
        known="summary",
        of="networks",
        measure=lambda found: _slope(found.relu_log_growth, 1, EXPLOSION, "relu_depth"),
        predicted=1.0,
        tolerance=1e-6,
        reason="exact but for the bias, whose share falls exponentially",
        figure="networks",
    ),
    Claim(
        name="correlation-power",
        statement="erf, no bias after V: correlations fall to 0 as a power of depth, "
        "−(1 − 2/π): the power from {first} to {last} blocks",
        source=APPROACH,
        known="derived",
        of="networks",
        measure=lambda found: _exponent(found.correlation),
        predicted=-SIGN,
        tolerance=lambda found: found.attrs["first"] ** -0.5,
        reason="term of order 1/√l at {first}",
        figure="networks",
    ),
    Claim(
        name="fixed-point",
        statement="erf, a bias after V: correlations tend to e* < 1, (1 + σₐ²) e* = "
        "(2/π) asin e* + σₐ² at σ_v = 1: their limit, extrapolated from {first} to "
        "{last} blocks",
        source=APPROACH,
        known="derived",
        of="correlations",
        measure=lambda found: exact(
            found.extrapolated, found.rounding.values[:, None], ROUNDING
        ),
        predicted=lambda found: found.fixed_point.values[:, None],
        tolerance=lambda found: _lacking(found).values ** 2,
        reason="what is left out is of second order: the square of e − e* at {first}",
    ),
    Claim(
        name="fixed-point-power",
        statement="erf, a bias after V: correlations approach e* as a power of depth, "
        "−(1 − (2/π) (1 − e*²)^(−1/2)/(1 + σₐ²)): that by which two of them approach "
        "each other, from {first} to {last} blocks",
        source=APPROACH,
        known="derived",
        of="correlations",
        measure=lambda found: fitted(found, "apart", BOTH_HALVES),
        predicted=lambda found: found.power.values,
        tolerance=_terms_of_the_power,
        reason="second order of the map of correlations times e − e* at {first}, and "
        "1/√l there",
    ),
]


# ---------------------------------------------------------------------------- figures


def draw_growth(found):
    """The variance and the gradients of blocks of tanh, against depth."""
    axes = drawing.new_axes(1, 2)
    left, right = axes.flat
    with drawing.style():
        depth = found.depth.values
        for name, look in looks(found.block.values).items():
            one = found.sel(block=name)
            left.plot(depth, one.variance, **look, label=name)
            drawing.theory_line(left, depth, float(one.slope) * depth, "theory")
            _against_root(right, depth, one.log_growth.values, look, float(one.rate))
        drawing.log_axes(left)
        left.set_xlabel("depth l")
        left.set_ylabel("variance p of the trunk")
        drawing.figure_legend(axes)
    return axes


def _against_root(ax, depth, values, look, rate, label=None):
    """Values against the root of depth, and a line of that slope through the last."""
    root = depth**0.5
    ax.plot(root, values, **look, label=label)
    drawing.theory_line(ax, root, values[-1] + rate * (root - root[-1]), "theory")
    ax.set_xlabel("√l")
    ax.set_ylabel("ln of the growth of gradients²")


def draw_networks(found):
    """Gradients of erf and of ReLU, and correlations of erf, against depth."""
    axes = drawing.new_axes(1, 2)
    left, right = axes.flat
    with drawing.style():
        both = looks(["erf", "ReLU"])
        depth, deep = found.depth.values, found.relu_depth.values
        growth = found.relu_log_growth.values
        _against_root(
            left, depth, found.log_growth.values, both["erf"], ERF_RATE, "erf"
        )
        left.plot(deep**0.5, growth, **both["ReLU"], label="ReLU")
        line = growth[-1] + EXPLOSION * (deep - deep[-1])
        drawing.theory_line(left, deep**0.5, line, "theory")
        right.plot(depth, found.correlation, **both["erf"])
        known = (depth / depth[-1]) ** -SIGN * float(found.correlation[-1])
        drawing.theory_line(right, depth, known, "theory")
        for axis in (right.xaxis, right.yaxis):
            drawing.log_axis(axis, steps=(1, 2, 5) if axis is right.yaxis else (1,))
        right.set_xlabel("depth l")
        right.set_ylabel("correlation of two inputs, erf")
        drawing.figure_legend(axes)
    return axes


FIGURES = {
    "growth": Figure(
        of="tanh_blocks",
        draw=draw_growth,
        title="Variance and gradients in residual blocks of tanh",
        caption="(a) Variance of the trunk, dashed (σ_v² + σₐ²) l; (b) growth "
        "of squared gradients from depth l to the input, dashed the slope A. Blocks "
        "have σ_w² = 1.69, σ_v = 1 and a bias after V of variance σₐ², or σ_w = 2, "
        "σ_v² = 1/2 and σₐ² = 1/4.",
    ),
    "networks": Figure(
        of="networks",
        draw=draw_networks,
        title="Gradients and correlations in residual networks of erf and of ReLU",
        caption="σ_w² = 1.69, σ_v = 1, no bias after V. (a) Growth of squared "
        "gradients, dashed the slope A for erf, ln(1 + σ_w²/2) a block for ReLU; (b) "
        "correlation of two inputs, dashed the power −(1 − 2/π).",
    ),
}


def answer(results, entries):
    """From the gradients of tanh, and of ReLU."""
    tanh, nets = results["tanh_blocks"], results["networks"]
    ratio = _slope(tanh.log_growth, 0.5, tanh.rate).values
    relu = float(_slope(nets.relu_log_growth, 1, dim="relu_depth").values)
    depth = tanh.attrs["last"]
    growth = float(tanh.log_growth.isel(block=0, depth=-1))
    bounded = all_hold(entries, "tanh-gradients", "erf-gradients")
    linear = all_hold(entries, "relu-gradients")
    near = all_hold(entries, "correlation-power", "fixed-point")
    return (
        f"With a bounded activation {'' if bounded else 'not '}like exp(A√l): over "
        f"{depth} blocks of tanh squared gradients grow by e^{growth:.0f}, at "
        f"{float(ratio.min()):.3f} to {float(ratio.max()):.3f} times the predicted A. "
        f"With ReLU they {'grow' if linear else 'do not grow'} exponentially at the "
        f"predicted rate: by e^{relu:.2f} a block. Correlations of bounded activations "
        f"{'approach' if near else 'do not approach'} their fixed point by the "
        "predicted power of depth."
    )


STUDY = Study(
    name="yang2017",
    title="Mean field residual networks: on the edge of chaos",
    reference="""@inproceedings{yang2017,
  author = {Greg Yang and Samuel S. Schoenholz},
  title = {Mean field residual networks: on the edge of chaos},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2017},
  note = {arXiv:1712.08969},
}""",
    question="How fast do gradients grow through a deep residual network?",
    summary="A plain network of tanh is at the edge of chaos only at special weights. "
    "Residual ones of a bounded activation are always near it: their variance grows "
    "linearly, gradients slower than exponentially, and correlations approach their "
    "fixed point as a power of depth. With ReLU all of it is exponential. The formulas "
    "are derived here. The package resolves tanh at small variances only, so blocks of "
    "tanh go by a recursion of this study, those of erf by the package.",
    answer=answer,
    measurements={
        "tanh_blocks": Measurement(
            measure=tanh_blocks, full={"depths": [1, 5, 20, 50, 100, 200, 500, 2000]}
        ),
        "networks": Measurement(
            measure=networks,
            full={
                "depths": [1, 10, 100, 1000, 10000, 50000, 100000],
                "relu_depths": [1, 10, 50, 100, 200],
            },
            quick={"depths": [1, 10, 100, 1000, 5000, 10000]},
        ),
        "correlations": Measurement(
            measure=correlations,
            full={
                "depths": [10000, 15000, 20000, 30000, 50000, 70000, 100000],
                "outer_bias": [0.25, 0.5, 1.0],
                "starts": [0.1, 0.9],
            },
            quick={"depths": [1000, 1500, 2000, 3000, 5000, 7000, 10000]},
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=5, full=60),
)
