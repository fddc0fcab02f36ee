"""Marion et al. 2022: which scale of branches depth needs, by how weights vary."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ntk_resnet._progress import Progress, quiet
from ntk_resnet.analysis.statistics import fit_power
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.ledger import Claim, Measured, over_seeds
from ntk_resnet.studies.study import Budget, Figure, Measurement, Study

WEIGHTS = ("independent", "smooth")
BATCH = 250  # networks at a time

# h + V relu(W h) / L^beta, all entries of V and W of variance 1/d. With independent
# weights those of every block are drawn when it is passed, so that depth costs no
# memory; smooth ones turn from one matrix to another as the depth goes by.


def _matrices(weights, key, block, depth, width):
    draw = functools.partial(jax.random.normal, dtype=jnp.float32)
    if weights == "independent":
        drawn = draw(jax.random.fold_in(key, block), (2, width, width))
    else:
        ends = draw(key, (2, 2, width, width))
        phase = (jnp.pi * (block + 0.5) / depth).astype(jnp.float32)
        drawn = jnp.cos(phase) * ends[0] + jnp.sin(phase) * ends[1]
    return drawn / np.float32(np.sqrt(width))


def _step(weights, depth, scales, key, h, block):
    """Features after a block `(scale, width)`, one row for each scale."""
    w, v = _matrices(weights, key, block, depth, h.shape[-1])
    return h + scales[:, None] * (jax.nn.relu(h @ w.T) @ v.T)


def _start(key, width):
    return jax.random.normal(key, (width,), jnp.float32)


def _size(x):
    return np.linalg.norm(np.asarray(x, float), axis=-1)


def law(*, width: int, depth: int, seeds: int, progress: Progress = quiet):
    """ln of |h_L| / |h_0| and of the gradient's, at 1/sqrt(L), independent weights.

    Over `seed`: `signal`, `gradient`.
    """
    scales = np.array([depth**-0.5], np.float32)

    @jax.jit
    @jax.vmap
    def networks(key):
        first, last, inner = jax.random.split(key, 3)
        start, gradient = _start(first, width), _start(last, width)
        step = functools.partial(_step, "independent", depth, scales, inner)
        again = jax.checkpoint(lambda h, block: (step(h, block), None))
        blocks = jnp.arange(depth)
        through = lambda h: jax.lax.scan(again, h[None], blocks)[0][0]  # noqa: E731
        end, back = jax.vjp(through, start)
        return start, end, gradient, back(gradient)[0]

    parts = []
    for begin in range(0, seeds, BATCH):
        progress(begin, seeds, f"networks of L = {depth}")
        keys = [jax.random.key(seed) for seed in range(begin, begin + BATCH)]
        parts.append([_size(part) for part in networks(jnp.stack(keys))])
    start, end, gradient, back = np.concatenate(parts, axis=1)[:, :seeds]
    grown, back = end / start, back / gradient
    return xr.Dataset(
        {"signal": ("seed", np.log(grown)), "gradient": ("seed", np.log(back))},
        coords={"seed": np.arange(seeds)},
        attrs={
            "width": width,
            "depth": depth,
            "mean": 0.25 - 1 / (2 * width),
            "deviation": np.sqrt(1 / (2 * width)),
        },
    )


def growth(
    *,
    width: int,
    depths: list[int],
    betas: list[float],
    seeds: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Growth and movement of features over (`weights`, `beta`, `depth`, `seed`).

    `ratio`, |h_L| / |h_0|, and `moved`, |h_L - h_0| / |h_0|.
    """
    found = np.empty((2, len(WEIGHTS), len(betas), len(depths), seeds))
    keys = jax.random.split(jax.random.key(0), seeds)
    for i, weights in enumerate(WEIGHTS):
        # The depth is data: one program for all.
        @jax.jit
        @functools.partial(jax.vmap, in_axes=(0, None, None))
        def networks(key, depth, scales, weights=weights):
            first, inner = jax.random.split(key)
            start = _start(first, width)
            step = functools.partial(_step, weights, depth, scales, inner)
            h = jnp.broadcast_to(start, (len(betas), width))
            return start, jax.lax.fori_loop(0, depth, lambda b, h: step(h, b), h)

        for k, depth in enumerate(depths):
            progress(i * len(depths) + k, 2 * len(depths), f"{weights}, L = {depth}")
            scales = np.array([depth**-beta for beta in betas], np.float32)
            start, end = map(np.asarray, networks(keys, depth, scales))
            found[0, i, :, k] = (_size(end) / _size(start)[:, None]).T
            moved = _size(end - start[:, None]) / _size(start)[:, None]
            found[1, i, :, k] = moved.T
    over = ("weights", "beta", "depth", "seed")
    return xr.Dataset(
        {"ratio": (over, found[0]), "moved": (over, found[1])},
        coords={
            "weights": list(WEIGHTS),
            "beta": betas,
            "depth": depths,
            "seed": np.arange(seeds),
        },
        attrs={"width": width, "deepest": max(depths)},
    )


# ------------------------------------------------------------------ what is measured


def _mean(name):
    return lambda found: over_seeds(found[name].values)


def _deviation(name):
    """The standard deviation, with the interval that a normal law has."""

    def measure(found):
        values = found[name].values
        size = values.std(ddof=1)
        # Of ln s the standard error is 1 / sqrt(2 (n - 1)).
        wide = np.exp(1.96 / np.sqrt(2 * (len(values) - 1)))
        around = f"95 % over {len(values)} seeds, of a normal law"
        return Measured(size, size / wide, size * wide, around)

    return measure


def _mean_square(found):
    """Of independent weights, over what it should be."""
    one = found.ratio.sel(weights="independent") ** 2
    beta, depth = found.beta, found.depth
    known = (1 + depth ** (-2.0 * beta) / 2) ** depth
    over = (one / known).transpose("seed", "beta", "depth")
    return over_seeds(over.values)


def _exponent(found, weights, beta):
    """Of the root mean square movement in depth, its interval over groups of seeds."""
    moved = found.moved.sel(weights=weights, beta=beta).transpose("seed", "depth")
    groups = np.array_split(moved.values, 8)
    fits = [
        fit_power(found.depth.values, np.sqrt(np.mean(one**2, axis=0))).exponent
        for one in groups
    ]
    return over_seeds(fits, what="groups of seeds")


def _explodes(found):
    """Of the median of ln |h_L| / |h_0| in depth, smooth weights at 1/sqrt(L)."""
    logs = np.log(found.ratio.sel(weights="smooth", beta=0.5))
    groups = np.array_split(logs.transpose("seed", "depth").values, 8)
    late = found.depth.values[1:]
    fits = [fit_power(late, np.median(g, axis=0)[1:]).exponent for g in groups]
    return over_seeds(fits, what="groups of seeds")


SOURCE = "scaling ResNets in the large-depth regime"
CLAIMS = [
    *(
        Claim(
            name=f"scaling, {name}",
            statement=f"independent weights, 1/√L: the mean of ln(|{what}|) is "
            "1/4 − 1/(2d), d = {width}, L = {depth}",
            source=SOURCE,
            known="derived",
            of="law",
            measure=_mean(name),
            predicted=lambda found: found.attrs["mean"],
            tolerance=0.02,
            reason="terms of order 1/L and 1/d², and 2 % of the signal",
            figure="law",
        )
        for name, what in (("signal", "h_L|/|h_0"), ("gradient", "g_0|/|g_L"))
    ),
    *(
        Claim(
            name=f"scaling, {name}",
            statement=f"its standard deviation is 1/√(2d), {name}",
            source=SOURCE,
            known="derived",
            of="law",
            measure=_deviation(name),
            predicted=lambda found: found.attrs["deviation"],
            tolerance=lambda found: 0.1 * found.attrs["deviation"],
            reason="10 %: terms of relative order 1/d and 1/L",
            figure="law",
        )
        for name in ("signal", "gradient")
    ),
    Claim(
        name="scaling, second moment",
        statement="E|h_L|²/|h_0|² = (1 + L^(−2β)/2)^L with independent weights: "
        "measured over predicted, each β and depth",
        source=SOURCE,
        known="derived",
        of="growth",
        measure=_mean_square,
        predicted=1.0,
        tolerance=0.05,
        reason="it is exact; 5 % for the noise of the mean",
        figure="growth",
    ),
    Claim(
        name="scaling, regimes",
        statement="independent weights at 1/L: the network tends to the identity, "
        "|h_L − h_0|/|h_0| like L^(−1/2)",
        source=SOURCE,
        known="read",
        of="growth",
        measure=lambda found: _exponent(found, "independent", 1.0),
        predicted=-0.5,
        tolerance=0.02,
        reason="terms of relative order 1/L",
        figure="growth",
    ),
    Claim(
        name="scaling, regimes",
        statement="smooth weights at 1/L: neither identity nor explosion, exponent of "
        "|h_L − h_0|/|h_0| in L",
        source=SOURCE,
        known="read",
        of="growth",
        measure=lambda found: _exponent(found, "smooth", 1.0),
        predicted=0.0,
        tolerance=0.05,
        reason="terms of relative order 1/L, of the smallest L",
        figure="growth",
    ),
    Claim(
        name="scaling, regimes",
        statement="smooth weights at 1/√L explode: ln(|h_L|/|h_0|) grows with depth, "
        "exponent of its median",
        source=SOURCE,
        known="read",
        of="growth",
        measure=_explodes,
        predicted=0.25,
        side="above",
        reason="our own bound: half of 1/2, which L^(1/2)/L of an equation gives",
        figure="growth",
    ),
    Claim(
        name="scaling, regimes",
        statement="independent weights at 1/√L: neither, exponent of |h_L − h_0|/|h_0|",
        source=SOURCE,
        known="read",
        of="growth",
        measure=lambda found: _exponent(found, "independent", 0.5),
        predicted=0.0,
        tolerance=0.02,
        reason="terms of relative order 1/L, of the smallest L",
        figure="growth",
    ),
]

# --------------------------------------------------------------------------- figures


def draw_law(found):
    """Histograms of both logarithms, and the normal law."""
    panels = drawing.new_axes(1, 2, height=2.5, sharey=True)
    mean, size = found.attrs["mean"], found.attrs["deviation"]
    x = np.linspace(mean - 4 * size, mean + 4 * size, 200)
    density = np.exp(-(((x - mean) / size) ** 2) / 2) / size / np.sqrt(2 * np.pi)
    labels = {
        "signal": r"$\ln\,|h_L| / |h_0|$",
        "gradient": r"$\ln\,|g_0| / |g_L|$",
    }
    with drawing.style():
        styles = looks(labels.values()).values()
        pairs = zip(panels.flat, labels.items(), styles, strict=True)
        for ax, (name, label), look in pairs:
            bins = np.linspace(x[0], x[-1], 31)
            own = {"density": True, "color": look["color"], "alpha": 0.6}
            ax.hist(found[name], bins=bins, **own)
            drawing.theory_line(ax, x, density, "theory")
            ax.set_xlabel(label)
            drawing.legend(ax)
        panels[0, 0].set_ylabel("density")
    return panels


def draw_growth(found):
    """How far features move, against depth, by scale and kind of weights."""
    panels = drawing.new_axes(1, 2, height=2.7, sharey=True)
    labels = [f"β = {beta:g}" for beta in found.beta.values]
    colours = [look["color"] for look in looks(labels).values()]
    with drawing.style():
        for ax, weights in zip(panels.flat, found.weights.values, strict=True):
            for beta, label, colour in zip(
                found.beta.values, labels, colours, strict=True
            ):
                moved = found.moved.sel(weights=weights, beta=beta)
                low, middle, high = (
                    moved.quantile(q, "seed").values for q in (0.1, 0.5, 0.9)
                )
                look = {"color": colour, "marker": "o", "label": label}
                ax.plot(found.depth, middle, **look)
                drawing.band(ax, found.depth.values, low, high, colour)
                if weights == "independent":
                    # E|h_L - h_0|^2 is E|h_L|^2 - |h_0|^2: increments have mean 0.
                    depth = found.depth.values.astype(float)
                    square = (1 + depth ** (-2 * beta) / 2) ** depth - 1
                    drawing.theory_line(ax, depth, np.sqrt(square), "theory")
            ax.set_title(f"{weights} weights")
            drawing.width_axes(ax, found.depth.values)
            drawing.log_axis(ax.yaxis)
            ax.set_xlabel("depth L")
        panels[0, 0].set_ylabel(r"$|h_L - h_0| / |h_0|$")
    drawing.figure_legend(panels)
    return panels


FIGURES = {
    "growth": Figure(
        of="growth",
        draw=draw_growth,
        title="How far features move through a network, by the scale L^(−β)",
        caption="Networks of width {width}, h + V ReLU(W h)/L^(β): medians over seeds "
        "with a band from a tenth to nine tenths. Dashed: the root mean square.",
    ),
    "law": Figure(
        of="law",
        draw=draw_law,
        title="Signal and gradient at 1/√L with independent weights",
        caption="Histograms over networks of d = {width}, L = {depth}. Dashed: the "
        "normal law of mean 1/4 − 1/(2d) and variance 1/(2d).",
    ),
}


def answer(results, _):
    """From the exponents of movement."""
    found = results["growth"]
    cases = (("independent", 1.0), ("independent", 0.5), ("smooth", 1.0))
    one, half, smooth = (float(_exponent(found, *case).values) for case in cases)
    big = float(found.ratio.sel(weights="smooth", beta=0.5)[-1].median())
    return (
        "It depends on the weights. Independent from block to block they need 1/√L "
        f"(features move like L^({half:.2f})), and at 1/L they leave the identity "
        f"(L^({one:.2f})); smooth in depth they need 1/L (L^({smooth:.2f})), and at "
        f"1/√L the signal grows {big:.2g} times at depth {found.attrs['deepest']}."
    )


STUDY = Study(
    name="scaling2022",
    title="Scaling ResNets in the large-depth regime",
    reference="""@article{marion2022,
  author = {Pierre Marion and Adeline Fermanian and G{\\'e}rard Biau
            and Jean-Philippe Vert},
  title = {Scaling {ResNets} in the large-depth regime},
  journal = {arXiv:2206.06929},
  year = {2022},
}""",
    question="By which power of the depth must branches be scaled at initialisation?",
    summary="With weights that are independent from block to block, branches scaled by "
    "1/√L are the only choice that neither explodes nor tends to the identity: the "
    "limit is a stochastic differential equation. With weights that vary smoothly with "
    "depth, the choice is 1/L, and the limit an ordinary one.",
    answer=answer,
    measurements={
        "law": Measurement(
            measure=law,
            full={"width": 40, "depth": 200, "seeds": 1500},
            quick={"depth": 30, "seeds": 1500},
        ),
        "growth": Measurement(
            measure=growth,
            full={
                "width": 40,
                "depths": [10, 30, 100, 300],
                "betas": [0.5, 1.0],
                "seeds": 1200,
            },
            quick={"depths": [10, 30, 100], "seeds": 600},
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=20, full=60),
)
