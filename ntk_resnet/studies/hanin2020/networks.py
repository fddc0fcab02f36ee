"""Networks as they are, and such as make up the second moment."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.finite.dispersion import exact_dispersion

PLAIN = nr.FeedForward(depth=1)
SCALES = {"γ = 1/2": nr.DepthScale(0.5), "γ = 1": nr.DepthScale(1.0), "α = 1": 1.0}


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
    """`nr.finite.dispersion_study` of residual networks, over (`family`, `depth`).

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


def phases(
    *,
    depths: list[int],
    width: int,
    networks: int,
    weight_variances: dict[str, float],
    progress: Progress = quiet,
) -> xr.Dataset:
    """`nr.finite.dispersion_study` of plain networks of the error function, by phase.

    With a bias of variance 0.3, and an input at the fixed point of the variance. Over
    (`family`, `depth`), the phases; their slopes chi_1 are attributes.
    """
    studies, slopes = [], {}
    for done, (name, weight) in enumerate(weight_variances.items()):
        spec = nr.FeedForward(
            depth=1, activation="erf", weight_variance=weight, bias_variance=0.3
        )
        phase = nr.phase(spec)
        slopes[name] = float(phase.slope)
        one = nr.finite.dispersion_study(
            spec,
            depths,
            [width],
            networks,
            input_kernel=(float(phase.variance) - 0.3) / weight,
            progress=part_of(progress, done, 1, len(weight_variances), f"{name}, "),
        )
        studies.append(one.isel(width=0, drop=True))
    found = xr.concat(studies, "family").assign_coords(family=list(weight_variances))
    found["networks"] = "family", [networks] * len(weight_variances)
    attrs = {"width": width, "shallow": depths[0], "deep": depths[-1], **slopes}
    return found.assign_attrs(attrs)


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
