"""Second moments of features and gradients, and how they grow with depth."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

import ntk_resnet as nr
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.hayou2021.schemes import EPS, SCHEMES, rounded, squares_of
from ntk_resnet.studies.ledger import Claim, over_seeds
from ntk_resnet.studies.study import Figure, Measurement

SLACK = 1e-9  # of bounds that are exact: rounding of up to 10^5 blocks
OVER = ("block", "scheme", "depth")
STABLE = ["γ = 1/2", "γ = 1", "decreasing"]
# Of each kind of block: c, the second moment of its branch over that of its input, and
# how many of its matrices are trained.
BLOCKS = {
    "preactivation": (1.0, 1),
    "two_layer": (1.0, 2),
    "full_preactivation": (0.5, 2),
}


# ----------------------------------------------------------- growth of second moments


def growth(*, depths: list[int], progress: Progress = quiet) -> xr.Dataset:
    """Second moments of features and of gradients, by the recursion.

    Over (`block`, `scheme`, `depth`): `log_moment`, ln of the second moment of the
    features over that of the inputs, `log_gradient`, ln of the NTK on the diagonal,
    and what the products predict, `predicted_moment` and `predicted_gradient`. Over
    (`scheme`, `depth`) `square_sum` and `largest_square` of the scales, over `block`
    the `share` c of a branch.
    """
    shape = (len(BLOCKS), len(SCHEMES), len(depths))
    log_moment, log_gradient = np.empty(shape), np.empty(shape)
    predicted = np.empty((2, *shape))
    for i, (block, (share, matrices)) in enumerate(BLOCKS.items()):
        for j, (name, scale) in enumerate(SCHEMES.items()):
            spec = nr.ResNet(depth=1, branch_scale=scale, block=block)
            found = nr.sweep_depth(spec, depths, angles=[1.0])
            log_moment[i, j] = found.log_nngp_diag
            log_gradient[i, j] = found.log_ntk_diag
            for k, depth in enumerate(depths):
                squares = share * squares_of(name, depth)
                moment = np.sum(np.log1p(squares))
                # Each matrix's part lacks the growth through its own block.
                parts = matrices * np.sum(squares / (1 + squares))
                predicted[:, i, j, k] = moment, moment + np.log(parts)
        progress(i + 1, len(BLOCKS), f"blocks {block}")
    known = [[squares_of(name, depth) for depth in depths] for name in SCHEMES]
    over = OVER
    return xr.Dataset(
        {
            "log_moment": (over, log_moment),
            "log_gradient": (over, log_gradient),
            "predicted_moment": (over, predicted[0]),
            "predicted_gradient": (over, predicted[1]),
            "square_sum": (over[1:], [[s.sum() for s in row] for row in known]),
            "largest_square": (over[1:], [[s.max() for s in row] for row in known]),
            "share": ("block", [share for share, _ in BLOCKS.values()]),
            "matrices": ("block", [number for _, number in BLOCKS.values()]),
        },
        coords={"block": list(BLOCKS), "scheme": list(SCHEMES), "depth": depths},
        attrs={"deepest": depths[-1]},
    )


def _difference(found, name):
    """ln measured less ln predicted, over one plus it: sums over L blocks."""
    predicted = found[f"predicted_{name}"]
    off = (found[f"log_{name}"] - predicted) / (1 + np.abs(predicted))
    return rounded(off, 4 * EPS * found.depth)


def _gradients_of_stable(found):
    """ln of the mean growth of squared gradients, over c times the sum of squares."""
    one = found.sel(scheme=STABLE)
    total = one.share * one.square_sum
    grown = one.log_gradient - np.log(one.matrices * total)
    error = 4 * EPS * one.depth * (1 + np.abs(one.log_gradient)) / total
    return rounded(grown / total, error)


def _rates(found):
    """ln of the second moment over the sum of squared scales, in units of c."""
    ratio = (found.log_moment / (found.share * found.square_sum)).transpose(*OVER)
    return rounded(ratio, 4 * EPS * found.depth * ratio)


def _least_rate(found):
    """ln(1 + s) / s is least at the largest s, and rounding."""
    largest = found.share * found.largest_square
    bound = np.log1p(largest) / largest - SLACK
    return bound.transpose(*OVER).values


# ----------------------------------------------------------------- finite networks


def networks(
    *,
    depth: int,
    width: int,
    networks: int,
    together: int,
    seed: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Second moments of finite networks, block by block.

    Over (`scheme`, `network`, `block`): `moment`, the mean square of the features over
    units and four inputs; over (`scheme`, `block`): what the product of growth factors
    predicts, `predicted`.
    """
    spec = nr.ResNet(depth=depth, branch_scale=1.0, block="preactivation")
    x = 2 * jnp.eye(4, dtype=jnp.float32)
    scales = jnp.asarray([s.values(depth) for s in SCHEMES.values()], jnp.float32)

    def moments(key):
        model = nr.finite.build(spec, 4, width, rngs=nnx.Rngs(key))
        graph, state = nnx.split(model)

        def of(scale):  # a W phi(h): the scales are data and go into the weights
            scaled = nnx.merge(graph, jax.tree.map(lambda leaf: leaf, state))
            weights = scaled.weights[...]
            scaled.weights[...] = weights * scale[:, None, None]
            return jnp.mean(scaled.hidden(x) ** 2, (1, 2))

        return jax.lax.map(of, scales)

    keys = jax.random.split(jax.random.key(seed), networks)
    progress(0, 1, f"{networks} networks")
    found = jax.jit(lambda k: jax.lax.map(moments, k, batch_size=together))(keys)
    factors = [np.r_[0.0, squares_of(name, depth)] for name in SCHEMES]
    return xr.Dataset(
        {
            "moment": (
                ("scheme", "network", "block"),
                np.asarray(found, float).swapaxes(0, 1),
            ),
            "predicted": (("scheme", "block"), np.cumprod(1 + np.array(factors), 1)),
        },
        coords={"scheme": list(SCHEMES), "block": np.arange(depth + 1)},
        attrs={"depth": depth, "width": width, "networks": networks, "seed": seed},
    )


def _growth_of_networks(found):
    """The mean over networks of the last second moment, over its prediction."""
    last = (found.moment / found.predicted).isel(block=-1)
    return over_seeds(last.transpose("network", "scheme").values, what="networks")


# -------------------------------------------------------------------------- figures


def draw_growth(found):
    """ln of the second moment against depth, with the sums of ln(1 + lambda^2)."""
    with drawing.style():
        ax = drawing.one_axes(None)
        one = found.sel(block="preactivation")
        for name, look in looks(found.scheme.values).items():
            at = one.sel(scheme=name)
            ax.plot(at.depth, at.log_moment, **look | {"linestyle": ""}, label=name)
            ax.plot(at.depth, at.predicted_moment, **drawing.THEORY)
        ax.plot([], [], **drawing.THEORY, label="theory, Σ ln(1 + λ²)")
        drawing.log_axes(ax)
        ax.set_xlabel("depth L")
        ax.set_ylabel("ln of the second moment")
        drawing.legend(ax)
    return ax


def draw_rates(found):
    """ln of the second moment over the sum of squared scales, against depth."""
    with drawing.style():
        ax = drawing.one_axes(None)
        one = found.sel(block="preactivation")
        for name, look in looks(found.scheme.values).items():
            at = one.sel(scheme=name)
            ax.plot(at.depth, at.log_moment / at.square_sum, **look, label=name)
        ax.axhline(1, **drawing.THEORY, label="theory, at most c")
        drawing.log_axis(ax.xaxis)
        ax.set_ylim(0, 1.1)
        ax.set_xlabel("depth L")
        ax.set_ylabel("ln(second moment) / Σλ²")
        drawing.legend(ax)
    return ax


def draw_networks(found):
    """Second moments of finite networks by block, means with their intervals."""
    with drawing.style():
        ax = drawing.one_axes(None)
        ratio = (found.moment / found.predicted).transpose("network", "scheme", "block")
        mean = over_seeds(ratio.values, what="networks")
        names = list(found.scheme.values)
        for k, (name, look) in enumerate(looks(names).items()):
            drawing.intervals(
                ax,
                found.block.values + 0.12 * (k - 2),
                (mean.values[k], mean.low[k], mean.high[k]),
                **look | {"linestyle": ""},
                elinewidth=1,
                label=name,
            )
        ax.axhline(1, **drawing.THEORY, label="theory")
        ax.set_xlabel("block ℓ")
        ax.set_ylabel("second moment / Π(1 + λ²)")
        drawing.legend(ax)
    return ax


# --------------------------------------------------------------------------- the study


CLAIMS = [
    Claim(
        name="9a-features",
        statement="features: ln of the second moment at depth L is the sum of "
        "ln(1 + c λ²), c = σ²/2 for one matrix behind ReLU, all blocks without mean, "
        "all schemes, L up to {deepest}: relative difference",
        source="growth of the second moment, at least (1 + σ²/2)^L unscaled",
        known="derived",
        of="growth",
        measure=lambda found: _difference(found, "moment"),
        predicted=0.0,
        tolerance=1e-9,
        reason="exact; rounding of {deepest} blocks",
        figure="growth",
    ),
    Claim(
        name="9a-gradients",
        statement="gradients: the NTK on the diagonal is the same product, each "
        "matrix's part without its own block's factor, all blocks and schemes, L up to "
        "{deepest}: relative difference of the ln",
        source="growth of the gradient's second moment",
        known="derived",
        of="growth",
        measure=lambda found: _difference(found, "gradient"),
        predicted=0.0,
        tolerance=1e-9,
        reason="exact; rounding of {deepest} blocks",
    ),
    Claim(
        name="9a-stable",
        statement="stable schemes: the mean growth of squared gradients lies between "
        "1 and exp(c Σλ²): its ln over c Σλ², L up to {deepest}",
        source="stable networks' gradients are bounded above and below",
        known="summary",
        of="growth",
        measure=_gradients_of_stable,
        predicted=0.5,
        tolerance=0.5 + 1e-6,
        reason="the bounds themselves, 0 and 1, and rounding",
    ),
    Claim(
        name="9a-networks",
        statement="finite networks of width {width}, preactivation blocks, L = "
        "{depth}, all schemes: mean second moment over the product of 1 + λ²",
        source="growth of the second moment",
        known="derived",
        of="networks",
        measure=_growth_of_networks,
        predicted=1.0,
        tolerance=0.05,
        reason="terms of relative order L/m at L = {depth}, m = {width}",
        figure="networks",
    ),
    Claim(
        name="9e-above",
        statement="ln of the second moment is at most c Σλ²: its ratio to that, all "
        "schemes, blocks and depths",
        source="growth by exp(c Σλ²)",
        known="summary",
        of="growth",
        measure=_rates,
        predicted=1.0 + SLACK,
        side="below",
        reason="ln(1 + s) ≤ s, and rounding",
        figure="rates",
    ),
    Claim(
        name="9e-below",
        statement="ln of the second moment is at least c Σλ² ln(1 + s)/s, "
        "s = c max λ²: its ratio to c Σλ², all schemes, blocks and depths",
        source="growth by exp(c Σλ²)",
        known="derived",
        of="growth",
        measure=_rates,
        predicted=_least_rate,
        side="above",
        reason="ln(1 + s)/s falls with s, and rounding",
        figure="rates",
    ),
]


FIGURES = {
    "growth": Figure(
        of="growth",
        draw=draw_growth,
        title="Growth of the second moment with depth",
        caption="Preactivation blocks: points by the recursion, dashed the sums over "
        "blocks. α = 1 is the standard network; γ is the exponent of the scale "
        "L^(−γ); decreasing, λ = 1/(√ℓ ln(ℓ + 1)) in block ℓ.",
    ),
    "rates": Figure(
        of="growth",
        draw=draw_rates,
        title="ln of the second moment over the sum of squared scales",
        caption="Preactivation blocks, for which c = 1, by the recursion.",
    ),
    "networks": Figure(
        of="networks",
        draw=draw_networks,
        title="Second moments of finite networks, block by block",
        caption="Means over {networks} networks of width {width} and their 95 % "
        "intervals, preactivation blocks, over the product of the growth factors.",
    ),
}

MEASUREMENTS = {
    "growth": Measurement(
        measure=growth,
        full={"depths": [1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 100_000]},
        quick={"depths": [1, 10, 100, 1000, 10_000]},
    ),
    "networks": Measurement(
        measure=networks,
        full={
            "depth": 16,
            "width": 256,
            "networks": 2000,
            "together": 20,
            "seed": 0,
        },
        quick={"depth": 6, "networks": 240},
    ),
}
