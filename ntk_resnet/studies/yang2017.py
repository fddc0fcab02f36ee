"""Yang & Schoenholz 2017: gradients of residual networks of bounded activations."""

import math

import numpy as np
import xarray as xr
from scipy import optimize

import ntk_resnet as nr
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.ledger import Claim, exact
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
    *, depths: list[int], outer_bias: list[float], progress: Progress = quiet
) -> xr.Dataset:
    """Correlations in blocks of the error function with a bias after V, by recursion.

    Over (`outer_bias`, `depth`), variances: `correlation`, from a half on; over
    `outer_bias`: `fixed_point` e* < 1 of :math:`(1 + a)\\,e = (2/\\pi) \\arcsin e + a`.
    """
    rows = [_correlation(a, max(depths)) for a in outer_bias]
    progress(1, 1, "correlations")
    off = lambda e, a: 2 / math.pi * math.asin(e) + a - (1 + a) * e  # noqa: E731
    fixed = [optimize.brentq(off, 1e-9, 1 - 1e-9, args=(a,)) for a in outer_bias]
    return xr.Dataset(
        {
            "correlation": (
                ("outer_bias", "depth"),
                np.array(rows)[:, depths],
            ),
            "fixed_point": ("outer_bias", fixed),
        },
        coords={"outer_bias": outer_bias, "depth": depths},
        attrs={"last": depths[-1]},
    )


def _correlation(a, depth):
    """The correlation at every depth from 0 on."""
    p, covariance, found = 1.0, 0.5, []
    for _ in range(depth + 1):
        found.append(covariance / p)
        q, c = WEIGHT * p + BIAS, WEIGHT * covariance + BIAS
        covariance += 2 / math.pi * math.asin(2 * c / (1 + 2 * q)) + a
        p += 2 / math.pi * math.asin(2 * q / (1 + 2 * q)) + a
    return found


# ----------------------------------------------------------------------------- claims


def _slope(values, power, dim="depth"):
    """Of values against a power of depth, between the last two depths."""
    last = values.isel({dim: [-2, -1]})
    steps = np.diff(last[dim].values.astype(float) ** power)[0]
    return last.diff(dim).isel({dim: 0}).values / steps


def _exponent(values):
    """The power of depth by which values grow, between the last two depths."""
    last = values.isel(depth=[-2, -1])
    return np.diff(np.log(last.values)) / np.diff(np.log(last.depth.values))


ERF_RATE = 4 / math.pi * math.sqrt(WEIGHT)
SIGN = 1 - 2 / math.pi
EXPLOSION = math.log1p(WEIGHT / 2)


def _explosion(name):
    """The rate of a logarithm of ReLU's, by block, over the predicted one."""
    return lambda found: exact(_slope(found[name], 1, "relu_depth") / EXPLOSION, 1e-9)


CLAIMS = [
    Claim(
        name="11.5",
        statement="tanh: the variance grows linearly, by σ_v² + σₐ² a block: its slope "
        "over that, from {first} to {last} blocks",
        source="full residual blocks of tanh; derived here too",
        known="summary",
        of="tanh_blocks",
        measure=lambda found: exact(_slope(found.variance, 1) / found.slope, 1e-9),
        predicted=1.0,
        tolerance=0.02,
        reason="2 %, for terms of relative order 1/√l",
        figure="growth",
    ),
    Claim(
        name="11.5",
        statement="tanh: squared gradients grow as exp(A√l), A = (4/3)√(2/π) σ_v² σ_w "
        "/ √(σ_v² + σₐ²): the slope of ln against √l over A, from {first} to {last}",
        source="full residual blocks of tanh; derived here too",
        known="summary",
        of="tanh_blocks",
        measure=lambda found: exact(_slope(found.log_growth, 0.5) / found.rate, 1e-9),
        predicted=1.0,
        tolerance=0.02,
        reason="2 %, for terms of relative order 1/√l",
        figure="growth",
    ),
    Claim(
        name="11.5",
        statement="erf: the variance grows linearly: its slope, from {first} to {last} "
        "blocks, over σ_v²",
        source="the same for another bounded activation",
        known="derived",
        of="networks",
        measure=lambda found: exact(_slope(found.variance, 1), 1e-6),
        predicted=1.0,
        tolerance=0.02,
        reason="2 %, for terms of relative order 1/√l",
    ),
    Claim(
        name="11.5",
        statement="erf: squared gradients grow as exp(A√l), A = (4/π) σ_v σ_w: the "
        "slope of ln against √l over A, from {first} to {last}",
        source="the same for another bounded activation",
        known="derived",
        of="networks",
        measure=lambda found: exact(_slope(found.log_growth, 0.5) / ERF_RATE, 1e-6),
        predicted=1.0,
        tolerance=0.02,
        reason="2 %, for terms of relative order 1/√l",
        figure="networks",
    ),
    *(
        Claim(
            name="11.5",
            statement=f"ReLU: {what} grows exponentially, by ln(1 + σ_v² σ_w²/2) a "
            "block: its rate over that, up to {relu_last} blocks",
            source="blocks of ReLU",
            known="summary",
            of="networks",
            measure=_explosion(name),
            predicted=1.0,
            tolerance=1e-6,
            reason="exact but for the bias, whose share falls exponentially",
            figure="networks" if "growth" in name else "",
        )
        for what, name in (
            ("the variance", "relu_log_variance"),
            ("the square of gradients", "relu_log_growth"),
        )
    ),
    Claim(
        name="11.5",
        statement="bounded activation, no bias after V: correlations fall to 0 as a "
        "power of depth, −(1 − 2/π): the power from {first} to {last}",
        source="polynomial approach to the fixed point; the exponent is ours",
        known="derived",
        of="networks",
        measure=lambda found: exact(_exponent(found.correlation), 1e-9),
        predicted=-SIGN,
        tolerance=lambda found: found.attrs["first"] ** -0.5,
        reason="term of order 1/√l at {first}",
        figure="networks",
    ),
    Claim(
        name="11.5",
        statement="with a bias after V they approach e* < 1, (1 + σₐ²) e* = (2/π) "
        "asin e* + σₐ² at σ_v = 1: e* less them at {last} blocks",
        source="polynomial approach to the fixed point",
        known="derived",
        of="correlations",
        measure=lambda found: exact(
            found.fixed_point - found.correlation.isel(depth=-1), 1e-9
        ),
        predicted=0.0,
        tolerance=lambda found: 2 * found.attrs["last"] ** -SIGN,
        reason="they approach no more slowly than by the power above",
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


def answer(results, _):
    """From the gradients of tanh, and of ReLU."""
    if "tanh_blocks" not in results or "networks" not in results:
        return "Not measured."
    tanh, nets = results["tanh_blocks"], results["networks"]
    ratio = _slope(tanh.log_growth, 0.5) / tanh.rate
    relu = float(_slope(nets.relu_log_growth, 1, "relu_depth"))
    depth = tanh.attrs["last"]
    growth = float(tanh.log_growth.isel(block=0, depth=-1))
    return (
        f"With a bounded activation like exp(A√l): over {depth} blocks of tanh squared "
        f"gradients grow by e^{growth:.0f}, at {float(ratio.min()):.3f} to "
        f"{float(ratio.max()):.3f} times the predicted A. With ReLU they grow "
        f"exponentially, by e^{relu:.2f} a block."
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
                "depths": [10, 100, 1000, 10000, 100000],
                "outer_bias": [0.25, 0.5, 1.0],
            },
            quick={"depths": [10, 100, 1000, 10000]},
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=12, full=60),
)
