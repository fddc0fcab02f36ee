r"""How the kernels of finite networks approach the closed forms as the width grows."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx
from jaxtyping import Float

from ntk_resnet._checks import check_count
from ntk_resnet._inputs import check_inputs, check_inputs_of
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.analysis.statistics import PowerFit, fit_power, standard_error
from ntk_resnet.finite.empirical.kernel import feature_kernel, ntk_of_rows
from ntk_resnet.finite.ensembles import over_seeds, seed_keys
from ntk_resnet.finite.networks import build, check_dtype, check_spec
from ntk_resnet.kernels.function import kernel_fn
from ntk_resnet.records.provenance import provenance
from ntk_resnet.specification.base import Specification


def width_study(
    spec: Specification,
    x: Any,
    widths: Sequence[int],
    seeds: int,
    *,
    seed: int = 0,
    param_dtype: Any = jnp.float32,
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""The error of the empirical kernels at many widths, over many initialisations.

    Both kernels of a network of width m are means over m units, so their error
    :math:`\|\hat\Theta - \Theta\|_F / \|\Theta\|_F` against the closed form should fall
    as :math:`m^{-1/2}`. Their means over networks are off by a bias of order 1/m.

    Args:
        spec: a `FeedForward`, `ResNet`, `ConvNet` or `ConvResNet`.
        x: inputs, `(n, d)`, or images, `(n, H, W, C)`; the kernels are those of all
            pairs of rows.
        widths: hidden widths, each >= 1.
        seeds: networks per width.
        seed: of the random keys; a network depends on it, on its width and its number.
        param_dtype: of the networks. The closed forms are computed in float64.
        progress: called as `progress(done, total, description)`, counting networks.

    Returns:
        A Dataset over `width` and `seed`:

        * `ntk_error`, `nngp_error` `(width, seed)`: relative Frobenius error,
        * `*_error_mean`, `*_error_sem` `(width)`: mean over seeds, its standard error
          (NaN for one seed),
        * `*_bias` `(width)`: relative Frobenius error of the kernel averaged over
          seeds, and `*_bias_noise`: the root mean square it would have without bias,
          from the spread over seeds,
        * `*_shift`, `*_shift_sem` `(width)`: the part of the bias along the closed
          form, :math:`\langle E\hat\Theta - \Theta, \Theta\rangle /
          \|\Theta\|_F^2`, and its standard error,
        * `*_shift_constant`, `*_shift_constant_low`, `*_shift_constant_high`: c where
          the shift is c / width, with a 95 % interval; see `fit_shift`,
        * `*_exponent`, `*_exponent_low`, `*_exponent_high`: of the width, with a 95 %
          interval; NaN for a single width. See `fit_exponent`.

    Raises:
        ValueError: an argument is out of its range; the text names it.

    Accuracy:
        With 112 networks of each width from 64 to 512 the exponent is -1/2 within 0.05,
        and the mean of the widest is the closed form within 3 standard errors, for
        plain networks and every block, ReLU and erf; the fitted bias of two erf layers
        is that of theory (`tests/finite/test_finite_width.py`). Of images: the exponent
        and the mean of the widest (`tests/finite/test_finite_convolutional.py`).
    """
    check_spec(spec, convolutional=True)
    if spec.takes_images:
        x = check_inputs_of(spec, "x", x).astype(np.float64)
        in_features = x.shape[1:]
    else:
        x = check_inputs("x", x, zero_rows=True).astype(np.float64)
        in_features = x.shape[1]
    pixels = x.size // x.shape[-1]  # of all images; each is as much as a row
    widths, seeds = check_widths(widths), check_count("seeds", seeds)
    seed = check_count("seed", seed, least=0)
    param_dtype = check_dtype("param_dtype", param_dtype)
    limits = kernel_fn(spec, normalised=False)(x, get=("nngp", "ntk"))
    limits = {"nngp": np.asarray(limits.nngp), "ntk": np.asarray(limits.ntk)}
    kernels: dict[str, list] = {name: [] for name in limits}
    for step, width in enumerate(widths):
        make = functools.partial(
            build, spec, in_features, width, param_dtype=param_dtype
        )
        inputs = jnp.asarray(x, param_dtype)
        batches = []
        for done, batch in over_seeds(
            functools.partial(_both_kernels, make, inputs),
            seed_keys(seed, width, seeds),
            numbers_per_seed=memory_of_kernels(make, width, pixels),
        ):
            batches.append(batch)
            total = seeds * len(widths)
            progress(seeds * step + done, total, f"kernels at width {width}")
        for name, values in kernels.items():
            values.append(np.concatenate([batch[name] for batch in batches]))

    result = xr.Dataset(
        coords={"width": widths, "seed": np.arange(seeds)},
        attrs=provenance(spec=spec, seed=seed, rows=len(x), dtype=str(param_dtype)),
    )
    for name, values in kernels.items():
        _add_errors(result, name, np.stack(values).astype(np.float64), limits[name])
    return result


def _both_kernels(make, x, key):
    model = make(rngs=nnx.Rngs(key))
    with jax.default_matmul_precision("highest"):
        return {
            "ntk": ntk_of_rows(model, x, outputs="mean"),
            "nngp": feature_kernel(model, x),
        }


def _add_errors(result, name, kernels, limit):
    """Relative errors of `kernels` `(width, seed, n, n)` against `limit` `(n, n)`."""
    axes, seeds = (-2, -1), kernels.shape[1]
    size = float(np.linalg.norm(limit)) or np.nan  # zeros have no relative error
    error = np.linalg.norm(kernels - limit, axis=axes) / size
    mean = kernels.mean(axis=1, keepdims=True)
    bias = np.linalg.norm(mean[:, 0] - limit, axis=axes) / size
    noise = np.full(len(error), np.nan)
    if seeds > 1:
        spread = (np.linalg.norm(kernels - mean, axis=axes) / size) ** 2
        noise = np.sqrt(spread.sum(axis=1) / (seeds - 1) / seeds)
    long = {"ntk": "NTK", "nngp": "NNGP kernel"}[name]
    note = {"long_name": f"relative error of the empirical {long}"}
    result[f"{name}_error"] = ("width", "seed"), error, note
    result[f"{name}_error_mean"] = "width", error.mean(axis=1)
    result[f"{name}_error_sem"] = "width", standard_error(error, axis=1)
    result[f"{name}_bias"] = "width", bias
    result[f"{name}_bias_noise"] = "width", noise
    _add_shift(result, name, np.sum((kernels - limit) * limit, axis=axes) / size**2)
    add_exponent(result, f"{name}_exponent", error)


def _add_shift(result, name, shift):
    """Mean and error of `shift` `(width, seed)`, and its part of order 1/width."""
    mean, sem = shift.mean(axis=1), standard_error(shift, axis=1)
    result[f"{name}_shift"] = "width", mean
    result[f"{name}_shift_sem"] = "width", sem
    constant, error = fit_shift(result["width"].values, mean, sem)
    note = {"long_name": "relative bias of the mean kernel, times the width"}
    result[f"{name}_shift_constant"] = (), constant, note
    result[f"{name}_shift_constant_low"] = constant - 1.96 * error
    result[f"{name}_shift_constant_high"] = constant + 1.96 * error


def fit_shift(
    widths: np.ndarray, shift: Float[np.ndarray, " width"], sem: np.ndarray
) -> tuple[float, float]:
    """c and its standard error where `shift` is c / width, given standard errors.

    Least squares, each width by the inverse of its variance. The noise of one network
    falls like the root of the width and its bias like the width, so for equal numbers
    of networks it is the narrow ones that say how large c is. NaN without errors.
    """
    weight = 1 / (widths * sem) ** 2
    variance = 1 / weight.sum()
    return float(variance * (weight * widths * shift).sum()), float(np.sqrt(variance))


# ------------------------------------------------------- shared with finite/training.py


def fit_exponent(
    widths: np.ndarray, errors: Float[np.ndarray, "width seed"]
) -> PowerFit:
    """The exponent p of `error ~ constant * width^p`; each network is one observation.

    Networks are independent, and their errors have nearly the same distribution at all
    widths up to its scale; so the logarithms have equal variances around a line, and
    least squares on all of them gives an honest interval, with `width * seed - 2`
    degrees of freedom. It is the interval of the exponent over these widths:
    corrections of higher order in 1/width count as part of it.

    NaN if there is only one width, or if an error is not a positive number.

    Accuracy:
        The interval held the exponent of a pool of 512 networks in 94 % of studies of 4
        to 32 seeds (three specifications, widths 32 to 256).
    """
    good = np.isfinite(errors).all() and (errors > 0).all()
    if len(errors) < 2 or not good:
        return PowerFit(*[np.nan] * 4)
    return fit_power(np.repeat(widths, errors.shape[1]), errors.ravel())


def add_exponent(result: xr.Dataset, name: str, errors: np.ndarray) -> None:
    """Adds `name`, `name_low` and `name_high` of errors `(width, seed)` to `result`."""
    fit = fit_exponent(result["width"].values, errors)
    result[name] = (), fit.exponent, {"long_name": "fitted exponent of the width"}
    result[f"{name}_low"], result[f"{name}_high"] = fit.low, fit.high


def count_parameters(make: Callable[..., nnx.Module]) -> int:
    """How many numbers a network holds; `make(rngs=...)` builds it."""
    shapes = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(shapes)))


def memory_of_kernels(
    make: Callable[..., nnx.Module], width: int, rows: int, outputs: int = 1
) -> int:
    """Numbers held for the empirical kernels of one network: weights and activations.

    Every unit has, for each row, its value and the gradient of every output, twice
    while they are made.
    """
    size = count_parameters(make)
    return 2 * size + 2 * rows * (1 + outputs) * -(-size // width)


def check_widths(widths: Any) -> list[int]:
    """`widths` as a list of distinct whole numbers >= 1."""
    widths = [check_count("widths", width) for width in np.atleast_1d(widths).tolist()]
    if not widths or len(set(widths)) < len(widths):
        raise ValueError(f"widths must be distinct and at least one; got {widths}.")
    return widths
