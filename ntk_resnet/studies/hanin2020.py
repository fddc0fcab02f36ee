"""Hanin & Nica 2020: how much the NTK of finite networks fluctuates with depth."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.finite.dispersion import exact_dispersion
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.ledger import Claim, exact, of_error, over_seeds
from ntk_resnet.studies.study import Budget, Figure, Measurement, Study

PLAIN = nr.FeedForward(depth=1)
SCALES = {"γ = 1/2": nr.DepthScale(0.5), "γ = 1": nr.DepthScale(1.0), "α = 1": 1.0}
TABLE = {  # by depth 4, 8 and 16 at width 32, of networks that keep the input's norm
    "γ = 1/2": [1.18, 1.18, 1.16],
    "γ = 1": [1.11, 1.08, 1.07],
    "α = 1": [1.38, 1.75, 2.76],
}


# --------------------------------------------------------------- networks as they are


def moments(
    *, depths: list[int], width: int, networks: int, progress: Progress = quiet
) -> xr.Dataset:
    """`nr.finite.dispersion_study` of plain networks, over `depth`."""
    found = nr.finite.dispersion_study(
        PLAIN, depths, [width], networks, progress=progress
    ).isel(width=0, drop=True)
    return found.assign_attrs(networks=networks, width=width)


def residual(
    *,
    depths: list[int],
    width: int,
    networks: dict[str, int],
    progress: Progress = quiet,
) -> xr.Dataset:
    """The same of residual networks, over (`family`, `depth`).

    With `formula`, 2 L a^2 (1 + a^2)^(L-1) over the closed form of the NTK, and over
    `depth` `plain`, the exact dispersion of plain networks.
    """
    studies, formula = [], []
    for done, (name, scale) in enumerate(SCALES.items()):
        spec = nr.ResNet(depth=1, branch_scale=scale)
        report = part_of(progress, done, 1, len(SCALES), f"{name}, ")
        one = nr.finite.dispersion_study(
            spec, depths, [width], networks[name], progress=report
        )
        studies.append(one.isel(width=0, drop=True))
        swept = nr.sweep_depth(spec, depths, x=np.ones((1, 1)))
        formula.append(
            [
                _mean_ntk(depth, spec.replace(depth=depth).scales[0]) * math.exp(-log)
                for depth, log in zip(
                    depths, swept.log_ntk_diag.values[:, 0], strict=True
                )
            ]
        )
    found = xr.concat(studies, "family").assign_coords(family=list(SCALES))
    found["formula"] = ("family", "depth"), np.array(formula)
    found["networks"] = "family", [networks[name] for name in SCALES]
    found["plain"] = "depth", [exact_dispersion(depth, width) for depth in depths]
    attrs = {"width": width, "shallow": depths[0], "deep": depths[-1]}
    return found.assign_attrs(attrs)


def _mean_ntk(depth, scale):
    """E Omega of residual networks."""
    return 2 * depth * scale**2 * (1 + scale**2) ** (depth - 1)


# ----------------------------------------------- networks drawn by their fourth moment


def tilted(
    *, cells: list[list[int]], networks: int, progress: Progress = quiet
) -> xr.Dataset:
    r"""The dispersion of plain networks, of such as make up the second moment.

    Few networks hold most of :math:`E\,\Theta^2` where depth / width is not small. So a
    layer l from 0 to L is drawn, and then weights in proportion to :math:`|h_l|^4`,
    whose mean over that of the input is :math:`r^l`, r = 1 + 5/m. Weighted by

    .. math::
        (L + 1) \Big/ \sum_l r^{-l} |h_l|^4 / |h_0|^4 \le L + 1

    they have the mean of networks as they are; at a ratio of 1/2 a thirtieth of them
    then gives the same interval. Networks are those of `nr.finite.build`, each layer up
    to l changed along what enters it, alone.

    Over (`cell`, `network`): `share`, the weighted square of the NTK over (L + 1)^2.
    Over `cell`: `predicted`, the exact dispersion, and the coordinates `depth`,
    `width`.
    """
    share = []
    for done, (depth, width) in enumerate(cells):
        progress(done, len(cells), f"depth {depth}, width {width}")
        share.append(_shares(depth, width, networks))
    depths, widths = np.transpose(cells)
    return xr.Dataset(
        {
            "share": (("cell", "network"), np.array(share)),
            "predicted": ("cell", [exact_dispersion(*cell) for cell in cells]),
        },
        coords={"depth": ("cell", depths), "width": ("cell", widths)},
        attrs={"networks": networks, "ratio": float(max(depths / widths))},
    )


def _shares(depth, width, networks):
    """Weighted squares of the NTK over (L + 1)^2, of networks of that size."""
    x = jnp.ones((1, 1), jnp.float32)
    growth = (1 + 5 / width) ** -np.arange(1.0, depth + 1)

    def one(key):
        build, change, layer = jax.random.split(key, 3)
        model = nr.finite.build(
            PLAIN.replace(depth=depth), 1, width, rngs=nnx.Rngs(build)
        )
        tilt(model, change, jax.random.randint(layer, (), 0, depth + 1))
        ntk = nr.finite.empirical_ntk(model, x, outputs="mean")[0, 0]
        squares = jnp.mean(model.hidden(x)[:, 0] ** 2, axis=1) ** 2
        return ntk**2 / (1 + squares @ growth) / (1 + depth)

    keys = jax.random.split(jax.random.key(depth * width), networks)
    size = max(1, min(networks, 2**25 // (depth * width**2)))
    run = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=size))
    return np.asarray(run(keys), float)


def tilt(model, key, last) -> None:
    """Redraws a plain ReLU network's weights along the features of the input 1.

    From their distribution times :math:`|h_l|^4`, l = `last`: with h the features of a
    layer, the pre-activations of the next one are |h| times g, Gaussian numbers, and
    up to that layer are drawn from the density of g times the square of the sum of
    relu(g)^2.
    """
    depth = model.weights.shape[0] + 1
    keys = jax.random.split(key, depth)

    def layer(h, weight, key, number):
        norm = jnp.linalg.norm(h)
        toward = h / jnp.maximum(norm, 1e-30)  # no unit may be active
        g = jnp.where(number <= last, _heavy(key, weight.shape[1]), toward @ weight)
        along = jnp.outer(toward, g - toward @ weight)
        return jax.nn.relu(g * norm * math.sqrt(2 / len(h))), weight + along

    one = jnp.ones(1, jnp.float32)
    h, first = layer(one, model.input_weight[...], keys[0], 1)
    stack = model.weights[...], keys[1:], jnp.arange(2, depth + 1)
    _, rest = jax.lax.scan(lambda h, w: layer(h, *w), h, stack)
    model.input_weight[...], model.weights[...] = first, rest


def _heavy(key, width):
    """Gaussian numbers g, their density times (sum of relu(g)^2)^2.

    That is a sum over pairs: one number by g^4, or two by g^2, each g > 0. Of n numbers
    the former weigh 3/2 n together, a share of 6/(n + 5), the latter n (n - 1)/4.
    """
    normal, chi, pick, kind = jax.random.split(key, 4)
    g = jax.random.normal(normal, (width,), jnp.float32)
    squares = jax.random.normal(chi, (2, 5), jnp.float32) ** 2
    both = jax.random.choice(pick, width, (2,), replace=False)
    # |g| by g^2 is chi of three degrees of freedom, by g^4 of five.
    two = g.at[both].set(jnp.sqrt(jnp.sum(squares[:, :3], axis=1)))
    single = g.at[both[0]].set(jnp.sqrt(jnp.sum(squares[0])))
    return jnp.where(jax.random.uniform(kind) < 6 / (width + 5), single, two)


# ---------------------------------------------------------------------------- the limit


def limit(
    *, widths: list[int], ratios: list[float], progress: Progress = quiet
) -> xr.Dataset:
    """The exact dispersion as depth and width grow together, and its limit.

    Over (`ratio`, `width`), `ratio` = depth / width: `dispersion`; over `ratio`:
    `limit`.
    """
    found = [[exact_dispersion(round(r * m), m) for m in widths] for r in ratios]
    progress(1, 1, "exact dispersion")
    return xr.Dataset(
        {
            "dispersion": (("ratio", "width"), np.array(found)),
            "limit": ("ratio", [_limit(ratio) for ratio in ratios]),
        },
        coords={"ratio": ratios, "width": widths},
        attrs={"wide": widths[-1], "narrow": widths[0]},
    )


def _limit(ratio):
    return float(nr.finite.predicted_dispersion(ratio))


# ------------------------------------------------------------------------------ claims


def _interval(values, errors, networks):
    """Values with standard errors by the delta method, of so many networks."""
    return of_error(values, errors, networks, "over networks")


def _moment(name, known):
    """A moment of networks over what is predicted, by depth."""

    def measure(found):
        truth = found[known].values if known else 1.0
        value, error = found[name].values, found[f"{name}_sem"].values
        return _interval(value / truth, error / truth, found.attrs["networks"])

    return measure


def _tilted(found):
    ratio = found.share / found.predicted
    return over_seeds(ratio.transpose("network", "cell"), 0, "networks")


def _change(found, family):
    """The dispersion at the last depth over that at the first."""
    one = found.sel(family=family)
    value, error = one.dispersion.values, one.dispersion_sem.values / one.dispersion
    ratio = value[-1] / value[0]
    wide = ratio * math.hypot(error[0], error[-1])
    return _interval(ratio, wide, one.networks.values)


def _grows(family):
    return functools.partial(_change, family=family)


def _of_table(family):
    """Over the table's number, times what the first layer of ours adds."""

    def measure(found):
        one = found.sel(family=family)
        known = xr.DataArray(TABLE[family], {"depth": [4, 8, 16]}, ["depth"])
        at = np.intersect1d(known.depth, one.depth)
        one, known = one.sel(depth=at), known.sel(depth=at)
        truth = (1 + 2 / found.attrs["width"]) * known.values
        value, error = one.dispersion.values, one.dispersion_sem.values
        return _interval(value / truth, error / truth, one.networks.values)

    return measure


def _mean_over_formula(families):
    """The mean NTK of those, by depth, over the formula's."""

    def measure(found):
        one = found.sel(family=families)
        value, error = one.ntk_mean / one.formula, one.ntk_mean_sem / one.formula
        return _interval(value.values, error.values, one.networks.values[:, None])

    return measure


def _plain_change(found):
    return float(found.plain[-1] / found.plain[0])


CLAIMS = [
    Claim(
        name="11.4",
        statement="plain ReLU networks, width {width}: E|h_L|⁴/(E|h_L|²)² = "
        "(1 + 5/m)^L: the sampled over the predicted",
        source="moments of ReLU networks",
        known="summary",
        of="moments",
        measure=_moment("feature_dispersion", "predicted_feature_dispersion"),
        predicted=1.0,
        tolerance=0.05,
        reason="5 %, our own: what {networks} networks can tell",
    ),
    Claim(
        name="11.4",
        statement="the mean NTK on the diagonal is L + 1 at every width: the sampled "
        "over it",
        source="mean of the NTK",
        known="summary",
        of="moments",
        measure=_moment("ntk_mean", ""),
        predicted=1.0,
        tolerance=0.03,
        reason="3 %, our own: what {networks} networks can tell",
    ),
    Claim(
        name="11.4",
        statement="E Θ²/(E Θ)² of plain networks, L/m up to {ratio:g}: that of "
        "{networks} networks over the exact recursion",
        source="our recursion over the layers, at any width",
        known="derived",
        of="tilted",
        measure=_tilted,
        predicted=1.0,
        tolerance=0.08,
        reason="8 %, twice the interval that so many networks give",
        figure="dispersion",
    ),
    Claim(
        name="11.4",
        statement="as both grow it tends to e^(5l) [1/3 + 2/(9l) − (1 − e^(−6l))/(27 "
        "l²)], l = L/m: the exact one at m = {wide} over it",
        source="our correction of the limit",
        known="derived",
        of="limit",
        measure=lambda found: exact(
            found.dispersion.isel(width=-1) / found.limit, 1e-9
        ),
        predicted=1.0,
        tolerance=lambda found: 20 * found.ratio.values / found.attrs["wide"] + 0.002,
        reason="terms of order 1/m and l/m",
        figure="limit",
    ),
    Claim(
        name="11.4",
        statement="at m = 32, L = 16 10,000 networks had shown 5.9 ± 0.7, where the "
        "limit is 7.8: the exact value",
        source="a sample of networks as they are",
        known="derived",
        of="limit",
        measure=lambda found: exact(found.dispersion.sel(ratio=0.5, width=32), 1e-9),
        predicted=5.9,
        tolerance=0.7,
        reason="standard error of the sample",
        figure="limit",
    ),
    *(
        Claim(
            name="11.4",
            statement=f"residual, {family}, width {{width}}: no growth with depth: the "
            "dispersion at L = {deep} over that at {shallow}",
            source="finite width and residual networks, our extension",
            known="derived",
            of="residual",
            measure=_grows(family),
            predicted=1.05,
            side="below",
            reason="our own bound: 5 %, where plain networks grow several times",
            figure="residual",
        )
        for family in ("γ = 1/2", "γ = 1")
    ),
    Claim(
        name="11.4",
        statement="residual, α = 1, width {width}: it grows with depth: L = {deep} "
        "over {shallow}",
        source="finite width and residual networks, our extension",
        known="derived",
        of="residual",
        measure=_grows("α = 1"),
        predicted=1.3,
        side="above",
        reason="our own bound: 30 %",
        figure="residual",
    ),
    Claim(
        name="11.4",
        statement="but more slowly than in plain networks: L = {deep} over {shallow}",
        source="finite width and residual networks, our extension",
        known="derived",
        of="residual",
        measure=_grows("α = 1"),
        predicted=_plain_change,
        side="below",
        reason="the exact one of plain networks",
        figure="residual",
    ),
    *(
        Claim(
            name="11.4",
            statement=f"residual, {family}, width {{width}}: the dispersion over "
            "values computed independently, times 1 + 2/m for our first layer",
            source="values computed independently",
            known="derived",
            of="residual",
            measure=_of_table(family),
            predicted=1.0,
            tolerance=tolerance,
            reason=reason,
            figure="residual",
        )
        for family, tolerance, reason in (
            ("γ = 1/2", 0.03, "3 %: three digits, and as few networks"),
            ("γ = 1", 0.03, "3 %: three digits, and as few networks"),
            ("α = 1", 0.15, "15 %: few networks hold much of the second moment"),
        )
    ),
    *(
        Claim(
            name="11.4",
            statement=f"the mean NTK of residual networks, {text}, is 2 L α² "
            "(1+α²)^(L−1) at every width: the sampled over it",
            source="mean of the NTK, our extension",
            known="derived",
            of="residual",
            measure=_mean_over_formula(families),
            predicted=1.0,
            tolerance=0.04,
            reason="4 %, as the values computed independently agree",
        )
        for text, families in (
            ("γ = 1/2 and 1", ["γ = 1/2", "γ = 1"]),
            ("α = 1", ["α = 1"]),
        )
    ),
]


# ----------------------------------------------------------------------------- figures


TICKS = (1, 1.5, 2, 3, 5, 7)


def draw_dispersion(found):
    """The dispersion against depth over width, sampled and exact."""
    with drawing.style():
        ax = drawing.one_axes(None)
        (look,) = looks(["plain"]).values()
        ratio = (found.depth / found.width).values
        values = found.share.transpose("network", "cell")
        mean, low, high, _ = over_seeds(values, 0, "networks")
        ax.errorbar(
            ratio,
            mean,
            yerr=[mean - low, high - mean],
            **look | {"linestyle": ""},
            label="networks",
        )
        for x, y, width in zip(ratio, mean, found.width.values, strict=True):
            drawing.end_label(ax, x, y, f"  m = {width}")
        order = np.argsort(ratio, kind="stable")
        own = found.predicted.values[order]
        ax.plot(
            ratio[order],
            own,
            linestyle="",
            marker="_",
            markersize=14,
            color=drawing.INK,
            label="theory, exact at this width",
        )
        line = np.geomspace(ratio.min(), ratio.max(), 100)
        known = nr.finite.predicted_dispersion(line)
        drawing.theory_line(ax, line, known, "theory, limit of large width")
        drawing.log_axis(ax.xaxis, steps=(1, 2, 5))
        drawing.log_axis(ax.yaxis, steps=TICKS)
        ax.set_xlabel("L/m")
        ax.set_ylabel("E Θ² / (E Θ)²")
        drawing.legend(ax)
    return ax


def draw_residual(found):
    """The dispersion of residual networks against depth."""
    with drawing.style():
        ax = drawing.one_axes(None)
        for family, look in looks(found.family.values).items():
            one = found.sel(family=family)
            value, low, high, _ = _interval(
                one.dispersion.values, one.dispersion_sem.values, one.networks.values
            )
            ax.errorbar(
                one.depth, value, yerr=[value - low, high - value], **look, label=family
            )
        drawing.theory_line(ax, found.depth, found.plain.values, "theory, plain")
        ax.set_xticks(found.depth.values)
        drawing.log_axis(ax.yaxis, steps=TICKS)
        ax.set_xlabel("depth L")
        ax.set_ylabel("E Θ² / (E Θ)²")
        drawing.legend(ax)
    return ax


def draw_limit(found):
    """How the exact dispersion tends to its limit."""
    with drawing.style():
        ax = drawing.one_axes(None)
        names = [f"L/m = {ratio:g}" for ratio in found.ratio.values]
        for name, (_, one), look in zip(
            names, found.groupby("ratio"), looks(names).values(), strict=True
        ):
            one = one.squeeze("ratio")
            ax.plot(one.width, one.dispersion / one.limit, **look, label=name)
        drawing.theory_line(ax, found.width, np.ones(found.width.size), "theory, limit")
        ax.set_xscale("log")
        ax.set_xticks(found.width.values, [f"{m}" for m in found.width.values])
        ax.set_xticks([], minor=True)
        ax.set_xlabel("width m")
        ax.set_ylabel("E Θ² / (E Θ)² over its limit")
        drawing.legend(ax)
    return ax


FIGURES = {
    "dispersion": Figure(
        of="tilted",
        draw=draw_dispersion,
        title="How much the NTK of plain networks fluctuates, by depth over width",
        caption="Second moment of the NTK on the diagonal over the square of its mean: "
        "points from {networks} networks each, drawn in proportion to |h_l|⁴ of "
        "a layer and weighted back, with 95 % intervals; bars the exact recursion at "
        "that width, dashed its limit.",
    ),
    "residual": Figure(
        of="residual",
        draw=draw_residual,
        title="How much the NTK of residual networks fluctuates, width {width}",
        caption="As above, of networks drawn as they are, with 95 % intervals, against "
        "depth; dashed the exact recursion of plain networks.",
    ),
    "limit": Figure(
        of="limit",
        draw=draw_limit,
        title="The exact dispersion of plain networks over its limit",
        caption="Against width, at depths in proportion to it.",
    ),
}


def answer(results, _):
    """From the exact recursion and the residual networks."""
    if "limit" not in results or "residual" not in results:
        return "Not measured."
    found, nets = results["limit"], results["residual"]
    narrow = float(found.dispersion.sel(ratio=0.5, width=found.attrs["narrow"]))
    tends = float(found.limit.sel(ratio=0.5))
    change = {f: float(_change(nets, f).values) for f in SCALES}
    shallow, deep = nets.attrs["shallow"], nets.attrs["deep"]
    return (
        "In plain networks by depth over width: at L/m = 1/2 the second moment is "
        f"{narrow:.3g} times the square of the mean at width {found.attrs['narrow']} "
        f"and tends to {tends:.3g}. From {shallow} to {deep} blocks of width "
        f"{nets.attrs['width']} that number changes by the factor "
        f"{_plain_change(nets):.2f} in plain networks, {change['α = 1']:.2f} in "
        f"residual ones with α = 1, {change['γ = 1/2']:.2f} with 1/√L and "
        f"{change['γ = 1']:.2f} with 1/L."
    )


STUDY = Study(
    name="hanin2020",
    title="Finite depth and width corrections to the neural tangent kernel",
    reference="""@inproceedings{hanin2020,
  author = {Boris Hanin and Mihai Nica},
  title = {Finite depth and width corrections to the neural tangent kernel},
  booktitle = {International Conference on Learning Representations},
  year = {2020},
  note = {arXiv:1909.05989},
}

@inproceedings{seleznova2022,
  author = {Mariia Seleznova and Gitta Kutyniok},
  title = {Analyzing finite neural networks: can we trust neural tangent kernel
           theory?},
  booktitle = {Mathematical and Scientific Machine Learning},
  year = {2022},
  note = {arXiv:2012.04477},
}""",
    question="By what does the NTK of a network at random initialisation fluctuate?",
    summary="At a fixed depth the NTK of wide networks is the same for all of them. "
    "Where depth and width grow together it stays random: its second moment grows "
    "exponentially in depth over width. The limit is derived here, and so is what "
    "happens in residual networks.",
    answer=answer,
    measurements={
        "limit": Measurement(
            measure=limit,
            full={
                "widths": [32, 64, 128, 256, 1024, 4096],
                "ratios": [0.25, 0.5, 1.0],
            },
        ),
        "moments": Measurement(
            measure=moments,
            full={"depths": [2, 4, 8], "width": 32, "networks": 40_000},
            quick={"depths": [4], "networks": 10_000},
        ),
        "tilted": Measurement(
            measure=tilted,
            full={
                "cells": [[2, 32], [4, 32], [8, 32], [16, 32], [16, 64]],
                "networks": 30_000,
            },
            quick={"cells": [[4, 32], [8, 32]], "networks": 4000},
        ),
        "residual": Measurement(
            measure=residual,
            full={
                "depths": [4, 8, 16],
                "width": 32,
                "networks": {"γ = 1/2": 4000, "γ = 1": 4000, "α = 1": 40_000},
            },
            quick={
                "depths": [4, 16],
                "networks": {"γ = 1/2": 2000, "γ = 1": 2000, "α = 1": 4000},
            },
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=30, full=240),
)
