"""Dherin & Munn 2025: a residual network as a sum over paths of every length."""

import math

import numpy as np
import xarray as xr
from flax import nnx
from scipy import linalg, stats

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
    over_seeds,
    slope_variables,
)
from ntk_resnet.studies.study import Budget, Figure, Measurement, Study

SCALES = {"λ = 1": 0.0, "λ = 1/√n": 0.5, "λ = 1/n": 1.0}


def _network(activation, blocks, scale, width, seed, outputs):
    """A finite network of pre-activation blocks, of as many outputs as units."""
    spec = nr.ResNet(
        depth=blocks, branch_scale=scale, block="preactivation", activation=activation
    )
    return nr.finite.build(spec, width, width, outputs, rngs=nnx.Rngs(seed))


def shares(
    *,
    blocks: int,
    scale: float,
    width: int,
    orders: int,
    networks: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Shares of paths of each length in the outputs of random linear blocks.

    Over (`network`, `order`): `share`, the mean square of the term of that order over
    its own expectation summed over all, and over `order`: `predicted`, the binomial
    law, `paths`, how many there are, and `counted`, how many the expansion of a network
    of blocks that are all the identity has.
    """
    x = np.random.default_rng(0).normal(size=(2, width))
    found = []
    for seed in range(networks):
        progress(seed, networks, "expansions of linear networks")
        model = _network("linear", blocks, scale, width, seed, width)
        terms = nr.signal.expansion(model, x, orders=orders).second_moment.values
        # The term without branches is what the readout makes of A x: the same for all.
        found.append(terms / terms[0])
    order = np.arange(orders + 1)
    square = scale**2
    law = stats.binom.pmf(order, blocks, square / (1 + square))
    whole = (1 + square) ** blocks
    one = nr.signal.expansion(_identities(blocks), np.ones((1, 1)), orders=orders)
    return xr.Dataset(
        {
            "share": (("network", "order"), np.array(found) / whole),
            "predicted": ("order", law),
            "paths": ("order", one.paths.values),
            "counted": ("order", one.term.values[:, 0, 0]),
        },
        coords={"order": order, "network": np.arange(networks)},
        attrs={"blocks": blocks, "scale": scale, "networks": networks, "width": width},
    )


def _identities(blocks):
    """Blocks h + h of one number: every path has the value one."""

    def apply(weights, x):
        for weight in weights["w"]:
            x = x + x @ weight
        return x

    return apply, {"w": np.ones((blocks, 1, 1))}


def truncation(
    *, blocks: int, width: int, scales: list[float], progress: Progress = quiet
) -> xr.Dataset:
    """What two orders leave of the outputs of smooth blocks, against their scale.

    Over `scale`: `error`, the root mean square relative to the outputs.
    """
    x = np.random.default_rng(0).normal(size=(4, width))
    errors = []
    for done, scale in enumerate(scales):
        progress(done, len(scales), "expansions of tanh networks")
        model = _network("tanh", blocks, scale, width, 0, width)
        errors.append(float(nr.signal.expansion(model, x, orders=2).error[-1]))
    slope = curve_slope(scales, errors)
    return xr.Dataset(
        {"error": ("scale", errors), **slope_variables("exponent", slope)},
        coords={"scale": scales},
        attrs={"blocks": blocks, "width": width},
    )


def coherent(
    *, width: int, depths: list[int], progress: Progress = quiet
) -> xr.Dataset:
    """Equal linear blocks of scale 1/n against the exponential of one.

    Over `depth`: `error`, |(1 + A/n)^n - e^A| over |e^A|.
    """
    matrix = np.random.default_rng(0).normal(size=(width, width)) / width**0.5
    limit, errors = linalg.expm(matrix), []
    for done, n in enumerate(depths):
        progress(done, len(depths), "powers")
        power = np.linalg.matrix_power(np.eye(width) + matrix / n, n)
        errors.append(np.linalg.norm(power - limit) / np.linalg.norm(limit))
    return xr.Dataset(
        {
            "error": ("depth", errors),
            **slope_variables("exponent", curve_slope(depths, errors)),
        },
        coords={"depth": depths},
        attrs={"width": width},
    )


def growth(*, depths: list[int], progress: Progress = quiet) -> xr.Dataset:
    """Second moments of independent ReLU blocks, by scale and depth, exactly.

    Over (`family`, `depth`): `log_moment`, over that of the input.
    """
    rows = []
    for done, (name, gamma) in enumerate(SCALES.items()):
        progress(done, len(SCALES), name)
        spec = nr.ResNet(depth=1, branch_scale=nr.DepthScale(gamma))
        swept = nr.sweep_depth(spec, depths, x=np.ones((1, 1)))
        rows.append(swept.log_nngp_diag.values[:, 0])
    return xr.Dataset(
        {"log_moment": (("family", "depth"), np.array(rows))},
        coords={"family": list(SCALES), "depth": depths},
        attrs={"deepest": max(depths)},
    )


def complexity(
    *,
    scales: list[float],
    blocks: int,
    width: int,
    rows: int,
    networks: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Geometric complexity of random networks by the scale of their branches.

    Over (`scale`, `network`): `complexity`, the mean square of the Jacobian of the
    features' readout in the inputs; `predicted` over `scale`: (1 + a^2)^n, times what
    the first and last layers make of it alone.
    """
    x = np.random.default_rng(0).normal(size=(rows, width))
    found = np.empty((len(scales), networks))
    for i, scale in enumerate(scales):
        progress(i, len(scales), f"scale {scale:g}")
        for seed in range(networks):
            model = _network("relu", blocks, scale, width, seed, 8)
            found[i, seed] = nr.signal.geometric_complexity(model, x)
    return xr.Dataset(
        {
            "complexity": (("scale", "network"), found),
            "predicted": ("scale", 8 * (1 + np.square(scales)) ** blocks),
        },
        coords={"scale": scales, "network": np.arange(networks)},
        attrs={"blocks": blocks, "width": width, "networks": networks},
    )


# ------------------------------------------------------------------------------ claims


def _share(found):
    ratio = found.share.isel(order=slice(1, None)) / found.predicted.isel(
        order=slice(1, None)
    )
    return over_seeds(ratio.transpose("network", "order"), 0, "networks")


def _moment_of(family):
    return lambda found: exact(
        np.exp(found.log_moment.sel(family=family).values[-1]),
        1e-9,
        "bound of the rounding",
    )


def _doubling(found):
    rate = found.log_moment.sel(family="λ = 1") / found.depth / math.log(2)
    return exact(rate.values, 1e-12, "bound of the rounding")


def _complexity(found):
    ratio = (found.complexity / found.predicted).transpose("network", "scale")
    return over_seeds(ratio, 0, "networks")


CLAIMS = [
    Claim(
        name="7a-paths",
        statement="of {blocks} blocks the term of order k is a sum over C(n, k) paths: "
        "counted over that, k to 5",
        source="theorem on the expansion over paths",
        known="read",
        of="shares",
        measure=lambda found: exact(
            found.counted / found.paths, 1e-12, "bound of the rounding"
        ),
        predicted=1.0,
        tolerance=1e-10,
        reason="whole numbers in float64",
    ),
    Claim(
        name="7a-shares",
        statement="of {blocks} independent linear blocks of scale {scale:g} paths of "
        "length k hold a binomial share of the outputs' square, p = λ²/(1 + λ²): "
        "measured over predicted, k from 1",
        source="our second moments of its terms",
        known="derived",
        of="shares",
        measure=_share,
        predicted=1.0,
        tolerance=0.25,
        reason="four standard errors of the longest paths, {networks} networks",
        figure="shares",
    ),
    Claim(
        name="7b",
        statement="{blocks} smooth blocks (tanh): two orders miss the outputs by the "
        "third power of the scale: exponent",
        source="theorem on the expansion, its remainder",
        known="read",
        of="truncation",
        measure=lambda found: fitted(found, "exponent", BOTH_HALVES),
        predicted=3.0,
        tolerance=0.1,
        reason="the next power, at scales to 1/10",
        figure="truncation",
    ),
    Claim(
        name="7c",
        statement="equal linear blocks of scale 1/n tend to the exponential: power of "
        "n in the error",
        source="limit of (1 + A/n)^(n)",
        known="derived",
        of="coherent",
        measure=lambda found: fitted(found, "exponent", BOTH_HALVES),
        predicted=-1.0,
        tolerance=0.05,
        reason="the next power of 1/n",
        figure="truncation",
    ),
    Claim(
        name="7d-one",
        statement="without a scale the signal doubles in each block: log₂ of the "
        "second moment over n",
        source="comparison of λ = 1, 1/√n and 1/n",
        known="summary",
        of="growth",
        measure=_doubling,
        predicted=1.0,
        tolerance=1e-9,
        reason="exact recursion",
        figure="growth",
    ),
    Claim(
        name="7d-root",
        statement="branches scaled by 1/√n: the second moment tends to e: at n = "
        "{deepest}",
        source="comparison of λ = 1, 1/√n and 1/n",
        known="summary",
        of="growth",
        measure=_moment_of("λ = 1/√n"),
        predicted=math.e,
        tolerance=lambda found: math.e / found.attrs["deepest"],
        reason="twice the next term, e/(2n)",
        figure="growth",
    ),
    Claim(
        name="7d-inverse",
        statement="branches scaled by 1/n: the second moment tends to 1: at n = "
        "{deepest}",
        source="comparison of λ = 1, 1/√n and 1/n",
        known="summary",
        of="growth",
        measure=_moment_of("λ = 1/n"),
        predicted=1.0,
        tolerance=lambda found: 2 / found.attrs["deepest"],
        reason="twice the next term, 1/n",
        figure="growth",
    ),
    Claim(
        name="7e",
        statement="geometric complexity of {blocks} random ReLU blocks grows with the "
        "scale as (1 + λ²)^(n): measured over it, width {width}",
        source="our second moments of the Jacobian",
        known="derived",
        of="complexity",
        measure=_complexity,
        predicted=1.0,
        tolerance=0.2,
        reason="20 %, ours: terms of order n/width, and {networks} networks",
        figure="complexity",
    ),
]


# ----------------------------------------------------------------------------- figures


def draw_shares(found):
    """Shares by path length, beside the binomial law."""
    with drawing.style():
        ax = drawing.one_axes(None)
        (look,) = looks(["linear blocks"]).values()
        shares = found.share.transpose("network", "order")
        own = look | {"linestyle": "", "label": "linear blocks"}
        drawing.intervals(ax, found.order, over_seeds(shares, 0, "networks"), **own)
        drawing.theory_line(ax, found.order, found.predicted, "theory, binomial")
        ax.set_xticks(found.order.values)
        ax.set_xlabel("length of the paths k")
        ax.set_ylabel("share of the outputs' square")
        drawing.legend(ax)
    return ax


def draw_truncation(found):
    """The error of two orders against the scale."""
    with drawing.style():
        ax = drawing.one_axes(None)
        (look,) = looks(["tanh blocks"]).values()
        ax.plot(found.scale, found.error, **look, label="tanh blocks")
        last = found.isel(scale=-1)
        line = float(last.error) * (found.scale / float(last.scale)) ** 3
        drawing.theory_line(ax, found.scale, line, "theory, ∝ λ³")
        drawing.log_axis(ax.xaxis, steps=(1, 2, 5))
        drawing.log_axis(ax.yaxis)
        ax.set_xlabel("scale λ")
        ax.set_ylabel("error of two orders")
        drawing.legend(ax)
    return ax


def draw_growth(found):
    """The second moment against depth."""
    with drawing.style():
        ax = drawing.one_axes(None)
        for family, look in looks(found.family.values).items():
            values = found.log_moment.sel(family=family) / math.log(10)
            ax.plot(found.depth, values, **look, label=family)
        ax.set_xscale("log")
        ax.set_ylim(-0.2, 6)
        ax.set_xlabel("blocks n")
        ax.set_ylabel("log₁₀ of the second moment")
        drawing.legend(ax)
    return ax


def draw_complexity(found):
    """Geometric complexity against the scale."""
    with drawing.style():
        ax = drawing.one_axes(None)
        (look,) = looks(["ReLU blocks"]).values()
        values = found.complexity.transpose("network", "scale")
        around = over_seeds(values, 0, "networks")
        drawing.intervals(ax, found.scale, around, **look, label="ReLU blocks")
        drawing.theory_line(ax, found.scale, found.predicted, "theory, (1 + λ²)ⁿ")
        drawing.log_axis(ax.xaxis, steps=(1, 2, 5))
        drawing.log_axis(ax.yaxis)
        ax.set_xlabel("scale λ")
        ax.set_ylabel("geometric complexity")
        drawing.legend(ax)
    return ax


FIGURES = {
    "shares": Figure(
        of="shares",
        draw=draw_shares,
        title="Share of the paths of each length",
        caption="{networks} networks of {blocks} linear blocks of scale {scale:g} and "
        "width {width}: means with 95 % intervals; dashed the binomial law.",
    ),
    "growth": Figure(
        of="growth",
        draw=draw_growth,
        title="Second moment of the features against depth, by scale",
        caption="Independent two-layer ReLU blocks, by the exact recursion.",
    ),
    "truncation": Figure(
        of="truncation",
        draw=draw_truncation,
        title="What the first two orders miss",
        caption="{blocks} tanh blocks of width {width}, relative to the outputs; "
        "dashed the third power.",
    ),
    "complexity": Figure(
        of="complexity",
        draw=draw_complexity,
        title="Geometric complexity at initialisation, by the scale of the branches",
        caption="{networks} networks of {blocks} pre-activation ReLU blocks of width "
        "{width}: means with 95 % intervals; dashed (1 + λ²)^(n).",
    ),
}


def answer(results, entries):
    """From the shares and the growth at the largest depth."""
    found, moments = results["shares"], results["growth"]
    length = float((found.predicted * found.order).sum())
    last = moments.log_moment.isel(depth=-1)
    root, inverse = (
        math.exp(float(last.sel(family=f))) for f in ("λ = 1/√n", "λ = 1/n")
    )
    begin = "Yes" if all_hold(entries, "7a", "7b", "7c") else "In part"
    return (
        f"{begin}: of n blocks C(n, k) paths go through k, and of random linear ones "
        f"with the scale {found.attrs['scale']:g} they hold a binomial share, mean "
        f"length {length:.2f} of {found.attrs['blocks']}. At n = "
        f"{moments.attrs['deepest']} the signal has "
        f"{root:.3f} times its second moment with the scale 1/√n, {inverse:.4f} times "
        "with 1/n."
    )


STUDY = Study(
    name="dherin2025",
    title="On residual network depth",
    reference="""@misc{dherin2025,
  author = {Benoit Dherin and Michael Munn},
  title = {On residual network depth},
  year = {2025},
  note = {arXiv:2510.03470},
}""",
    question="Is a deep residual network an ensemble of shallow ones, and what does "
    "scaling its branches do to that?",
    summary="A product of blocks is a sum over all choices of blocks: one path through "
    "none, n through one, and so on. Scaling the branches weighs paths by their "
    "length, so that without a scale their sum explodes with depth, and with 1/n or "
    "1/√n it stays bounded.",
    answer=answer,
    measurements={
        "shares": Measurement(
            measure=shares,
            full={
                "blocks": 12,
                "scale": 0.5,
                "width": 64,
                "orders": 5,
                "networks": 60,
            },
            quick={"blocks": 8, "networks": 20, "orders": 4},
        ),
        "growth": Measurement(
            measure=growth, full={"depths": [1, 2, 5, 10, 20, 50, 100, 1000, 10000]}
        ),
        "truncation": Measurement(
            measure=truncation,
            full={
                "blocks": 6,
                "width": 32,
                "scales": [0.003, 0.005, 0.01, 0.02, 0.03, 0.05],
            },
        ),
        "coherent": Measurement(
            measure=coherent,
            full={"width": 16, "depths": [10, 20, 50, 100, 200, 500, 1000]},
        ),
        "complexity": Measurement(
            measure=complexity,
            full={
                "scales": [0.1, 0.2, 0.3, 0.5, 0.7, 1.0],
                "blocks": 8,
                "width": 256,
                "rows": 20,
                "networks": 16,
            },
            quick={"scales": [0.1, 0.5, 1.0], "width": 128, "rows": 6, "networks": 8},
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=40, full=180),
)
