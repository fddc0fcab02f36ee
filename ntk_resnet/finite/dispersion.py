r"""How much the NTK of a finite network fluctuates from one initialisation to the next.

Each layer multiplies the NTK on the diagonal by a random factor. In plain networks the
factors compound, so the fluctuation grows with depth over width; residual branches
that are scaled down with the depth keep it bounded (Hanin & Nica 2020).
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx
from jaxtyping import ArrayLike, Float, Num
from scipy import special

from ntk_resnet._checks import check_choice, check_count, check_number
from ntk_resnet._inputs import check_depths
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.analysis.statistics import standard_error
from ntk_resnet.finite.empirical.kernel import ntk_block
from ntk_resnet.finite.ensembles import over_seeds, seed_keys
from ntk_resnet.finite.networks import build, check_spec
from ntk_resnet.finite.width import check_widths, memory_of_kernels
from ntk_resnet.kernels.depths import sweep_depth
from ntk_resnet.models.functions import as_function
from ntk_resnet.records.provenance import provenance
from ntk_resnet.specification.base import TRAINED, Specification
from ntk_resnet.specification.networks import FeedForward


def dispersion_study(
    spec: Specification,
    depths: Sequence[int],
    widths: Sequence[int],
    seeds: int,
    *,
    input_kernel: float = 1.0,
    seed: int = 0,
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""The dispersion of the NTK on the diagonal, over many networks.

    .. math:: E[\Theta(x, x)^2] \,/\, E[\Theta(x, x)]^2

    is 1 where all networks have the same kernel. It depends on `x` by its norm alone,
    since the first layer is Gaussian, and by nothing where the network is homogeneous.

    Args:
        spec: a `FeedForward` or `ResNet`; its depth is replaced by each of `depths`.
        depths: whole numbers >= 1; the result has each once, ascending.
        widths: hidden widths, each >= 1.
        seeds: networks of each depth and width, >= 2.
        input_kernel: :math:`|x|^2/d` of the input, > 0.
        seed: of the random keys; networks of different depth or width are independent.
        progress: called as `progress(done, total, description)`, counting networks.

    Returns:
        A Dataset over `depth` and `width`, with the coordinate `ratio` = depth / width:

        * `dispersion`, `feature_dispersion`: of the NTK, and of :math:`|h_L|^2`,
        * `ntk_mean`: mean NTK over that of the closed form,
        * `*_sem`: their standard errors,
        * `predicted_dispersion`, `limit_dispersion`, `predicted_feature_dispersion`:
          see `exact_dispersion`, `predicted_dispersion` and
          `exact_feature_dispersion`; NaN but for plain ReLU networks without bias.

    Raises:
        ValueError: an argument is out of its range; the text names it.

    Accuracy:
        Standard errors are those of the delta method. They hold while the fourth
        moment is well sampled: at depth / width below 1/4 with 10,000 networks. Beyond,
        few networks hold most of the second moment: the estimate and its error are
        then both too low, more often than not
        (`tests/finite/test_finite_dispersion.py`).
    """
    check_spec(spec)
    depths, widths = check_depths("depths", depths), check_widths(widths)
    seeds = check_count("seeds", seeds, least=2)
    seed = check_count("seed", seed, least=0)
    input_kernel = check_number("input_kernel", input_kernel, positive=True)
    x = np.sqrt([[input_kernel]])
    limits = np.exp(sweep_depth(spec, depths, x=x)["log_ntk_diag"].values[:, 0])
    cells = [(depth, width) for depth in depths for width in widths]
    rows = []
    for step, (depth, width) in enumerate(cells):
        part: Any = part_of(progress, seeds * step, seeds, seeds * len(cells))
        text = f"depth {depth}, width {width}"
        tell = functools.partial(part, total=seeds, text=text)
        deep = spec.replace(depth=int(depth))
        keys = _fold_in(seed_keys(seed, width, seeds), depth)
        samples = _sample(deep, width, x, keys, tell)
        limit = limits[list(depths).index(depth)]
        rows.append(_moments(samples, limit) | _theory(deep, width))
    shape = (len(depths), len(widths))
    return xr.Dataset(
        {
            name: (("depth", "width"), np.reshape([row[name] for row in rows], shape))
            for name in rows[0]
        },
        coords={
            "depth": depths,
            "width": widths,
            "ratio": (("depth", "width"), np.divide.outer(depths, widths)),
        },
        attrs=provenance(spec=spec, seed=seed, seeds=seeds, input_kernel=input_kernel),
    )


def dispersion_of_families(
    families: dict[str, Specification],
    depths: Sequence[int],
    width: int,
    seeds: int,
    *,
    progress: Progress = quiet,
) -> xr.Dataset:
    """`dispersion_study` of several networks by name, all of one width.

    Returns:
        The same variables over `family` and `depth`.
    """
    studies, count = [], seeds * len(check_depths("depths", depths))
    for step, (name, spec) in enumerate(families.items()):
        tell = part_of(
            progress,
            count * step,
            count,
            count * len(families),
            f"dispersion, {name}, ",
        )
        study = dispersion_study(spec, depths, [width], seeds, progress=tell)
        studies.append(study.isel(width=0, drop=True))
    family = xr.Variable("family", list(families))
    return xr.concat(studies, dim=family).assign_attrs(
        provenance(
            seeds=seeds,
            width=width,
            specs={name: repr(spec) for name, spec in families.items()},
        )
    )


_fold_in = jax.vmap(jax.random.fold_in, in_axes=(0, None))


def _sample(spec, width, x, keys, tell):
    """The NTK on the diagonal and |h_L|^2 / width of each network, by name."""
    make = functools.partial(build, spec, x.shape[1], width)
    x = jnp.asarray(x, jnp.float32)

    def one(key):
        model = make(rngs=nnx.Rngs(key))
        with jax.default_matmul_precision("highest"):
            return {
                "ntk": ntk_block(*as_function(model), x, None, "mean")[0, 0],
                "features": jnp.mean(model.features(x) ** 2),
            }

    batches = []
    memory = memory_of_kernels(make, width, 1)
    for done, batch in over_seeds(one, keys, numbers_per_seed=memory):
        batches.append(batch)
        tell(done)
    return {
        name: np.concatenate([batch[name] for batch in batches]).astype(float)
        for name in batches[0]
    }


def _moments(samples, limit):
    ntk = samples["ntk"] / (limit or np.nan)  # a kernel of zeros has no relative size
    result = {
        "ntk_mean": ntk.mean(),
        "ntk_mean_sem": standard_error(ntk),
    }
    for name, values in (("", ntk), ("feature_", samples["features"])):
        ratio, error = ratio_of_moments(values)
        result |= {f"{name}dispersion": ratio, f"{name}dispersion_sem": error}
    return result


def ratio_of_moments(values: Float[np.ndarray, " k"]) -> tuple[float, float]:
    r""":math:`E[t^2]/E[t]^2` of independent samples, and its standard error.

    The delta method: to first order the estimate is off by the mean of its influence
    function, with :math:`t` in units of its mean :math:`(t^2 - r) - 2r(t - 1)`.
    """
    scaled = values / values.mean()
    ratio = np.mean(scaled**2)
    influence = scaled**2 - ratio - 2 * ratio * (scaled - 1)
    return float(ratio), float(standard_error(influence))


# ------------------------------------------------------------------------------- theory


def _theory(spec, width):
    relu = spec.replace(activation="relu").activation
    plain = isinstance(spec, FeedForward) and spec.activation == relu
    known = plain and spec.bias_variance == 0
    depth, names = spec.depth, ("predicted", "limit", "predicted_feature")
    if not known:
        return dict.fromkeys((f"{name}_dispersion" for name in names), np.nan)
    return {
        "predicted_dispersion": exact_dispersion(depth, width, trained=spec.trained),
        "limit_dispersion": float(predicted_dispersion(depth / width)),
        "predicted_feature_dispersion": exact_feature_dispersion(depth, width),
    }


def exact_feature_dispersion(depth: int, width: int) -> float:
    r""":math:`E|h_L|^4 / (E|h_L|^2)^2 = (1 + 5/m)^L` of plain ReLU networks of width m.

    Given :math:`h_{l-1}`, the entries of :math:`W_l h_{l-1}` are independent Gaussians
    g, so :math:`|h_l|^2` is :math:`|h_{l-1}|^2` times the mean of m independent copies
    of :math:`2 \varphi(g)^2`, of mean 1 and variance :math:`4 \cdot 3/2 - 1 = 5`. The
    first layer counts like any other; the number of inputs does not matter. Infinity
    out of the range of float64.
    """
    with np.errstate(over="ignore"):
        return float(np.exp(depth * np.log1p(5 / width)))


def exact_dispersion(depth: int, width: int, *, trained: str = "all") -> float:
    r"""The dispersion of the NTK of plain ReLU networks without bias, at any width m.

    Exact, by a recursion over the layers. With :math:`a_l = |h_l|^2/|h_{l-1}|^2`, the
    output :math:`f = \nu |h_L| / \sqrt m`, and :math:`T_l` the share of layer l in
    :math:`\Theta = T_1 + \dots + T_{L+1}`, `T_{L+1} = |h_L|^2/m`: the gradient towards
    :math:`h_l` has the component :math:`f / |h_l|` along :math:`h_l` (Euler's theorem)
    and is Gaussian across it. Of its entries the k active units of the layer remain:

    .. math::
        T_l = \frac{\nu^2 |h_L|^2/m + \chi^2_{k-1} T_{l+1}}{\tilde\chi^2_k}, \quad
        a_l = \frac2m \tilde\chi^2_k, \quad k \sim \mathrm{Bin}(m, 1/2),

    independent over l. So the second moments of :math:`T_l`, of the sum over the layers
    above and of :math:`\nu^2 |h_L|^2/m` obey a linear recursion. `E[Theta]` is that of
    the closed form at every width. With the readout frozen the sum ends at :math:`T_L`.

    Args:
        depth: L >= 1.
        width: m >= 1.
        trained: `"all"`, or `"blocks"`: as in `FeedForward`.

    Accuracy:
        Rounding only; equals samples of the networks within 3 standard errors, also at
        widths 1 to 4 (`tests/finite/test_finite_dispersion.py`). Infinity where the
        second moment leaves the range of float64: depth / width above 140, or less if
        narrow.
    """
    depth, width = check_count("depth", depth), check_count("width", width)
    check_choice("trained", trained, TRAINED)
    m, dead = width, 2.0**-width  # the probability that no unit of a layer is active
    # Means over k and over both chi^2, c = tilde chi^2: of a^2, a^2 / c, ...
    a2, a2_c, a2_cc = 1 + 5 / m, 2 / m, 4 / m**2 * (1 - dead)
    a2x_c, a2x_cc = 1 - 1 / m, 4 / m**2 * (m / 2 - 1 + dead)
    a2xx_cc = 4 / m**2 * (m * (m + 1) / 4 - 1 + dead)
    # Means of products of t = T_l, s = T_l + ... + T_(L+1) and f = nu^2 |h_L|^2 / m;
    # s is without T_(L+1) where the readout is frozen.
    readout = 1.0 if trained == "all" else 0.0
    tt = tf = 1.0
    ts = ss = sf = readout
    ff = 3.0
    for _ in range(depth):
        tt = a2_cc * ff + 2 * a2x_cc * tf + a2xx_cc * tt
        cross = a2_c * sf + a2x_c * ts  # of the new t and the old s
        tf = a2_c * ff + a2x_c * tf
        ts, ss = cross + tt, a2 * ss + 2 * cross + tt
        sf, ff = a2 * sf + tf, a2 * ff
    return ss / (depth + readout) ** 2 if np.isfinite(ss) else np.inf


def predicted_dispersion(ratio: Num[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
    r"""The limit of `exact_dispersion` as depth and width grow at a fixed `ratio`.

    .. math::
        E[\Theta^2]/E[\Theta]^2 \to e^{5\lambda} \Big[\frac13 + \frac{2}{9\lambda}
        - \frac{1 - e^{-6\lambda}}{27\lambda^2}\Big], \quad \lambda = L/m

    The shares of two layers at a distance of `u m` are correlated by
    :math:`e^{5\lambda} (1/3 + 2 e^{-6u}/3)`; the third that does not decay is the
    output, which both gradients contain. With :math:`e^{-4u}`, its tangent at 0, in its
    place the bracket is :math:`1/(2\lambda) - (1-e^{-4\lambda})/(8\lambda^2)`, too
    small: by 3.4 % at a ratio of 1/4.

    The readout is one layer of many: trained or frozen, the limit is the same.

    Args:
        ratio: depth / width, >= 0; any shape.

    Returns:
        1 at 0, and :math:`1 + 11\lambda/3` to first order; infinity from about 140 on.

    Accuracy:
        8 eps relative, down to ratio 0 (`tests/finite/test_finite_dispersion.py`).
    """
    try:
        ratio = np.asarray(ratio, float)
    except (TypeError, ValueError):
        raise ValueError(f"ratio must be finite numbers >= 0, got {ratio!r}.") from None
    if not (np.isfinite(ratio) & (ratio >= 0)).all():
        raise ValueError(f"ratio must be finite numbers >= 0, got {ratio!r}.")
    # (y - 1 + exp(-y)) / y^2 at y = 6 ratio, without the cancellation at 0.
    correlated = special.hyp1f1(1, 3, -6 * ratio) / 2
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(5 * ratio) * (1 + 4 * correlated) / 3)
