"""Marion et al. 2022: which scale of branches depth needs, by how weights vary."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx
from scipy import stats

import ntk_resnet as nr
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.analysis.statistics import fit_power
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.ledger import Claim, Measured, all_hold, over_seeds
from ntk_resnet.studies.study import Budget, Figure, Measurement, Study

WEIGHTS = ("independent", "smooth")
BATCH = 10  # networks at a time, which fit into the processor's cache
SMOOTH_BETA = 0.5  # the least one: below, smooth weights leave float32's range


def network(width: int, depth: int, beta: float, in_features: int, key):
    """h + V relu(W h) / L^beta, entries of V and W independent, of variance 1/width."""
    spec = nr.ResNet(depth=depth, weight_variance=1.0, branch_scale=nr.DepthScale(beta))
    return nr.finite.build(spec, in_features, width, rngs=nnx.Rngs(key))


def _size(x):
    return np.linalg.norm(np.asarray(x, float), axis=-1)


def law(
    *, width: int, depth: int, seeds: int, progress: Progress = quiet
) -> xr.Dataset:
    """ln of |h_L| / |h_0| and of the gradient's, at 1/sqrt(L), independent weights.

    Over `seed`: `signal`, `gradient`.
    """

    def one(key):
        first, last, weights = jax.random.split(key, 3)
        start = jax.random.normal(first, (width,), jnp.float32)
        gradient = jax.random.normal(last, (width,), jnp.float32)
        model = network(width, depth, 0.5, width, weights)
        # The blocks alone: h_0 is the input.
        model.input_weight[...] = width**0.5 * jnp.eye(width, dtype=jnp.float32)
        end, back = jax.vjp(lambda h: model.features(h[None])[0], start)
        return start, end, gradient, back(gradient)[0]

    progress(0, 1, f"networks of L = {depth}")
    start, end, gradient, back = map(_size, _each(one, seeds))
    return xr.Dataset(
        {
            "signal": ("seed", np.log(end / start)),
            "gradient": ("seed", np.log(back / gradient)),
        },
        coords={"seed": np.arange(seeds)},
        attrs={
            "width": width,
            "depth": depth,
            "mean": 0.25 - 1 / (2 * width),
            "deviation": np.sqrt(1 / (2 * width)),
        },
    )


def _each(function, seeds):
    """The function of a random key, for so many keys."""
    keys = jax.random.split(jax.random.key(0), seeds)
    return jax.jit(lambda k: jax.lax.map(function, k, batch_size=BATCH))(keys)


def growth(
    *,
    width: int,
    depths: list[int],
    betas: list[float],
    seeds: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Growth and movement of features over (`weights`, `beta`, `depth`, `seed`).

    `ratio`, |h_L| / |h_0|, and `moved`, |h_L - h_0| / |h_0|; NaN of smooth weights with
    beta < 1/2.
    """
    found = np.full((2, len(WEIGHTS), len(betas), len(depths), seeds), np.nan)
    kept = [np.arange(len(betas)), np.flatnonzero(np.array(betas) >= SMOOTH_BETA)]
    ends = [_ends_of_independent, _ends_of_smooth]
    for i, weights in enumerate(WEIGHTS):
        own = [betas[j] for j in kept[i]]
        for k, depth in enumerate(depths):
            progress(i * len(depths) + k, 2 * len(depths), f"{weights}, L = {depth}")
            start, end = ends[i](width, depth, own, seeds)
            found[0, i, kept[i], k] = (_size(end) / _size(start)).T
            found[1, i, kept[i], k] = (_size(end - start) / _size(start)).T
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


def _ends_of_independent(width, depth, betas, seeds):
    """h_0 `(seed, 1, width)` and h_L `(seed, beta, width)`, the same weights."""
    x = jnp.ones((1, 1), jnp.float32)

    def one(key):
        model = network(width, depth, betas[0], 1, key)
        ends = []
        for beta in betas:
            model.spec = model.spec.replace(branch_scale=nr.DepthScale(beta))
            ends.append(model.features(x)[0])
        # The input is the number 1, so that h_0 is the only row of A.
        return model.input_weight[...], jnp.stack(ends)

    return map(np.asarray, _each(one, seeds))


def _ends_of_smooth(width, depth, betas, seeds):
    """As `_ends_of_independent`; weights turn from one draw to another with depth."""
    scales = jnp.array([depth**-beta for beta in betas], jnp.float32)[:, None]

    def one(key):
        first, inner = jax.random.split(key)
        start = jax.random.normal(first, (1, width), jnp.float32)
        drawn = jax.random.normal(inner, (2, 2, width, width), jnp.float32)
        end = jnp.broadcast_to(start, (len(betas), width))
        return start, smooth(end, drawn / np.float32(np.sqrt(width)), scales, depth)

    return map(np.asarray, _each(one, seeds))


def smooth(h, weights, scales, depth):
    """Features after all blocks, whose (W, V) turn from one pair to the other."""

    def block(number, h):
        phase = (jnp.pi * (number + 0.5) / depth).astype(jnp.float32)
        w, v = jnp.cos(phase) * weights[0] + jnp.sin(phase) * weights[1]
        return h + scales * (jax.nn.relu(h @ w.T) @ v.T)

    return jax.lax.fori_loop(0, depth, block, h)


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


def _shape(name):
    """Skewness and excess kurtosis, with the intervals that a normal law has."""

    def measure(found):
        values = found[name].values
        cumulants = np.array([stats.skew(values), stats.kurtosis(values)])
        wide = 1.96 * np.sqrt(np.array([6, 24]) / len(values))
        around = f"95 % over {len(values)} seeds, of a normal law"
        return Measured(cumulants, cumulants - wide, cumulants + wide, around)

    return measure


def _mean_square(found):
    """Of independent weights, over what it should be."""
    one = found.ratio.sel(weights="independent", beta=[0.5, 1.0]) ** 2
    beta, depth = one.beta, one.depth
    known = (1 + depth ** (-2.0 * beta) / 2) ** depth
    over = (one / known).transpose("seed", "beta", "depth")
    return over_seeds(over.values)


def _exponent(values, typical):
    """Of depth, of `typical` over seeds, with its interval over groups of seeds."""
    groups = np.array_split(values.transpose("seed", "depth").values, 8)
    depth = values.depth.values
    fits = [fit_power(depth, typical(one)).exponent for one in groups]
    return over_seeds(fits, what="groups of seeds")


def movement(found, weights, beta):
    """The exponent of depth of the root mean square movement."""
    moved = found.moved.sel(weights=weights, beta=beta)
    return _exponent(moved, lambda one: np.sqrt(np.mean(one**2, axis=0)))


def explosion(found, weights, beta):
    """The exponent of depth of the median of ln |h_L| / |h_0|, but the least depth."""
    logs = np.log(found.ratio.sel(weights=weights, beta=beta))[1:]
    return _exponent(logs, lambda one: np.median(one, axis=0))


SOURCE = "abstract: 1/√L for independent weights, 1/L for correlated ones"
LAW = "h_L at 1/√L as a product of independent factors"
QUANTITIES = {"signal": "|h_L|/|h_0|", "gradient": "|g_0|/|g_L|"}
CLAIMS = [
    *(
        Claim(
            name=f"law-mean-{name}",
            statement=f"independent weights, 1/√L: the mean of ln({what}) is "
            "1/4 − 1/(2d), d = {width}, L = {depth}",
            source=LAW,
            known="derived",
            of="law",
            measure=_mean(name),
            predicted=lambda found: found.attrs["mean"],
            tolerance=0.02,
            reason="terms of order 1/L and 1/d², and 2 % of the signal",
            figure="law",
        )
        for name, what in QUANTITIES.items()
    ),
    *(
        Claim(
            name=f"law-deviation-{name}",
            statement="independent weights, 1/√L: the standard deviation of "
            f"ln({what}) is 1/√(2d), d = {{width}}, L = {{depth}}",
            source=LAW,
            known="derived",
            of="law",
            measure=_deviation(name),
            predicted=lambda found: found.attrs["deviation"],
            tolerance=lambda found: 0.1 * found.attrs["deviation"],
            reason="10 %: terms of relative order 1/d and 1/L",
            figure="law",
        )
        for name, what in QUANTITIES.items()
    ),
    *(
        Claim(
            name=f"law-shape-{name}",
            statement=f"independent weights, 1/√L: ln({what}) is normal, skewness and "
            "excess kurtosis are 0, d = {width}, L = {depth}",
            source=LAW,
            known="derived",
            of="law",
            measure=_shape(name),
            predicted=0.0,
            tolerance=0.5,
            reason="terms of order 1/d and 1/L, and noise; a logistic law has a "
            "kurtosis of 1.2, the logarithm of an exponential one a skewness of −1.1",
            figure="law",
        )
        for name, what in QUANTITIES.items()
    ),
    Claim(
        name="second-moment",
        statement="E|h_L|²/|h_0|² = (1 + L^(−2β)/2)^L with independent weights: "
        "measured over predicted, β = 1/2 and 1, each depth",
        source="one block multiplies it by 1 + L^(−2β)/2",
        known="derived",
        of="growth",
        measure=_mean_square,
        predicted=1.0,
        tolerance=0.05,
        reason="it is exact; 5 % for the noise of the mean, which few networks hold "
        "at smaller β",
        figure="growth",
    ),
    Claim(
        name="independent-explosion",
        statement="independent weights at L^(−1/4): signals explode, "
        "ln(|h_L|/|h_0|) grows like L^(1/2), exponent of its median",
        source=f"{SOURCE}; the exponent 1 − 2β is derived here",
        known="read",
        of="growth",
        measure=lambda found: explosion(found, "independent", 0.25),
        predicted=0.5,
        tolerance=0.05,
        reason="terms of relative order L^(−1/2)/4",
        figure="growth",
    ),
    Claim(
        name="independent-limit",
        statement="independent weights at 1/√L: neither identity nor explosion, "
        "exponent of |h_L − h_0|/|h_0| in L",
        source=SOURCE,
        known="read",
        of="growth",
        measure=lambda found: movement(found, "independent", 0.5),
        predicted=0.0,
        tolerance=0.02,
        reason="terms of relative order 1/L, of the smallest L",
        figure="growth",
    ),
    Claim(
        name="independent-identity",
        statement="independent weights at 1/L: the network tends to the identity, "
        "|h_L − h_0|/|h_0| like L^(−1/2)",
        source=SOURCE,
        known="read",
        of="growth",
        measure=lambda found: movement(found, "independent", 1.0),
        predicted=-0.5,
        tolerance=0.02,
        reason="terms of relative order 1/L",
        figure="growth",
    ),
    Claim(
        name="smooth-limit",
        statement="smooth weights at 1/L: neither identity nor explosion, exponent of "
        "|h_L − h_0|/|h_0| in L",
        source=SOURCE,
        known="read",
        of="growth",
        measure=lambda found: movement(found, "smooth", 1.0),
        predicted=0.0,
        tolerance=0.05,
        reason="terms of relative order 1/L, of the smallest L",
        figure="growth",
    ),
    Claim(
        name="smooth-explosion",
        statement="smooth weights at 1/√L explode: ln(|h_L|/|h_0|) grows with depth, "
        "exponent of its median",
        source=SOURCE,
        known="read",
        of="growth",
        measure=lambda found: explosion(found, "smooth", 0.5),
        predicted=0.25,
        side="above",
        reason="our own bound: half of 1/2, which L^(1/2)/L of an equation gives",
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
                if moved.isnull().all():
                    continue
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


def answer(results, entries):
    """From the exponents of movement and of explosion."""
    found = results["growth"]
    cases = (("independent", 1.0), ("independent", 0.5), ("smooth", 1.0))
    one, half, smooth = (float(movement(found, *case).values) for case in cases)
    small = float(explosion(found, "independent", 0.25).values)
    big = float(found.ratio.sel(weights="smooth", beta=0.5)[-1].median())
    independent = "is" if all_hold(entries, "independent") else "is not shown to be"
    alike = "is" if all_hold(entries, "smooth") else "is not shown to be"
    return (
        f"With weights that are independent from block to block it {independent} 1/√L: "
        f"features move like L^({half:.2f}) with it, like L^({one:.2f}) at 1/L, and at "
        f"L^(−1/4) the logarithm of the signal grows like L^({small:.2f}). With weights"
        f" that are smooth in depth it {alike} 1/L: features move like L^({smooth:.2f})"
        f" with it, and at 1/√L the signal grows {big:.2g} times at depth "
        f"{found.attrs['deepest']}."
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
                "betas": [0.25, 0.5, 1.0],
                "seeds": 1200,
            },
            quick={"depths": [10, 30, 100], "seeds": 600},
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=16, full=60),
)
