r"""Eigenvalues of a network's kernels on the sphere, by degree.

For inputs spread evenly over a sphere the eigenfunctions of both kernels are the
spherical harmonics, and their eigenvalues, one a degree, say which functions the kernel
learns and how fast (Bietti and Bach 2021; Belfer et al. 2024). How they are computed is
in `quadrature` and `recursion` (the kernels to any number of bits).
"""

from typing import Any

import numpy as np
import xarray as xr
from flint import arb, ctx

from ntk_resnet._checks import check_choice, check_count, check_number
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.analysis.sphere import quadrature
from ntk_resnet.analysis.sphere.recursion import PreciseKernel
from ntk_resnet.analysis.statistics import PowerFit, fit_power
from ntk_resnet.records.cache import cached
from ntk_resnet.records.provenance import provenance
from ntk_resnet.specification.base import Specification, check_network
from ntk_resnet.specification.blocks import activations_behind

_LONG_NAMES = {
    "eigenvalue": "eigenvalue of the normalised kernel",
    "log10_eigenvalue": "log10 of the eigenvalue",
    "multiplicity": "multiplicity",
    "log10_multiplicity": "log10 of the multiplicity",
    "tail": "1 minus the sum of eigenvalue times multiplicity",
    "error": "largest relative change when bits and nodes grow",
    "predicted_exponent": "of k + (d-2)/2, to which the eigenvalues tend",
}


def mercer(
    spec: Specification,
    *,
    dim: int,
    max_degree: int,
    get: str = "ntk",
    input_kernel: float = 1.0,
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""Eigenvalues of a kernel on the sphere in `R^dim`, for degrees 0 to `max_degree`.

    They are those of the normalised kernel, 1 at angle 0, with respect to the uniform
    probability measure, by the Funk-Hecke formula

    .. math::
        \mu_k = \frac{\Gamma(d/2)}{\sqrt\pi\,\Gamma((d-1)/2)} \int_0^\pi
        K(\cos\theta) P_k(\cos\theta) \sin^{d-2}\theta \, d\theta,

    with the Gegenbauer polynomials normalised to :math:`P_k(1) = 1`.

    Args:
        spec: the network, of a named activation.
        dim: `d` >= 2; the sphere has one dimension less.
        max_degree: the largest `k` >= 0.
        get: `"ntk"` or `"nngp"`.
        input_kernel: `|x|^2 / d` of the inputs, > 0. It does not matter for the ReLU
            family without bias.
        progress: called as `progress(done, total, text)`, a hundred times for each of
            the (mostly two) runs.

    Returns:
        A dataset over `degree`: `eigenvalue`, `multiplicity` and the log10 of both, in
        float64 whatever JAX's settings. The logarithms are right where eigenvalues
        underflow (to 0) and multiplicities overflow (to inf). Scalars: `tail`, one
        minus the sum of eigenvalue times multiplicity (as `result["tail"]`); `error`,
        the largest relative change of an eigenvalue from the run before, with fewer
        bits and nodes; `predicted_exponent`, to which power of
        :math:`k + (d-2)/2` the eigenvalues tend: `-d` for the NTK, `-(d+2)` for the
        NNGP of activations with a kink, NaN for others, whose eigenvalues fall faster
        than any power.

        An exact zero has the log10 `-inf`. All powers of the cosine have coefficients
        >= 0, so eigenvalues vanish if the even (odd) part of the kernel is zero, or,
        from degree 2 on, if it is constant (linear): odd degrees from 3 on of one ReLU
        layer, whether its readout is trained or frozen, even ones of odd activations
        without bias. These are told from small eigenvalues by what the part is beyond
        that, at a few angles: exactly zero, or below 2^-1024 in 2,048 bits.

    Raises:
        ValueError: bad arguments; nothing is trained; an activation of the user's own,
            whose dual is known in float64 only; a series of tanh of more than 20,000
            terms (large variances and degrees); a kernel that varies at angles below
            1e-19 (deep networks in the chaotic phase); eigenvalues below 2^-20000; or
            runs that do not agree to 1e-8.

    Results that took more than a second are kept on disk (`$NTK_RESNET_CACHE`).

    Accuracy: eigenvalues to 1e-14 relative, however small, logarithms to a few eps, as
    far as runs agree; the run returned has 24 bits more than the one it is compared
    with. `tail` to 1e-17 absolute. Against ball arithmetic and mpmath in
    `tests/analysis/sphere/test_mercer.py`.
    """
    check_network(spec)
    dim = check_count("dim", dim, least=2)
    max_degree = check_count("max_degree", max_degree, least=0)
    check_choice("get", get, ("ntk", "nngp"))
    input_kernel = check_number("input_kernel", input_kernel, positive=True)
    about = {
        "spec": spec,
        "get": get,
        "dim": dim,
        "max_degree": max_degree,
        "input_kernel": input_kernel,
    }
    return cached(
        "mercer",
        "analysis",
        about,
        lambda: _spectrum(
            lambda: PreciseKernel(spec, get, input_kernel),
            about,
            _predicted_exponent(spec, get, dim),
            progress,
        ),
    )


def laplace_mercer(
    *,
    dim: int,
    max_degree: int,
    rate: float = 1.0,
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""Eigenvalues of the Laplace kernel on the unit sphere, as `mercer` gives them.

    .. math::
        K(x, x') = e^{-c |x - x'|} = e^{-2 c \sin(\theta/2)}

    Its eigenvalues fall as those of the NTK (Geifman et al. 2020).

    Args:
        dim, max_degree, progress: as in `mercer`.
        rate: `c` > 0.

    Returns, raises: as `mercer`.

    Accuracy: that of `mercer` (`tests/analysis/sphere/test_mercer.py`).
    """
    dim = check_count("dim", dim, least=2)
    max_degree = check_count("max_degree", max_degree, least=0)
    rate = check_number("rate", rate, positive=True)
    about = {"kernel": "laplace", "rate": rate, "dim": dim, "max_degree": max_degree}

    def kernel(cosine):
        return (-rate * (2 * (1 - cosine)).sqrt()).exp().mid()

    compute = lambda: _spectrum(lambda: kernel, about, -float(dim), progress)  # noqa: E731
    return cached("mercer", "analysis", about, compute)


def _spectrum(make, about, exponent, progress) -> xr.Dataset:
    """The dataset of a kernel that `make` makes in the precision of the context."""
    dim, max_degree = about["dim"], about["max_degree"]
    found = quadrature.eigenvalues(make, dim, max_degree, progress)
    numbers = [quadrature.multiplicity(dim, k) for k in range(max_degree + 1)]
    with ctx.workprec(128):
        multiplicities = [arb(number) for number in numbers]
        columns = {
            "eigenvalue": [float(value) for value in found.values],
            "log10_eigenvalue": [_log10(value) for value in found.values],
            "multiplicity": [float(value) for value in multiplicities],
            "log10_multiplicity": [_log10(value) for value in multiplicities],
        }
    scalars = {
        "tail": float(found.tail),
        "error": found.error,
        "predicted_exponent": exponent,
    }
    variables: dict[str, Any] = {k: ("degree", v) for k, v in columns.items()}
    variables |= {k: ((), v) for k, v in scalars.items()}
    dataset = xr.Dataset(
        variables,
        coords={"degree": np.arange(max_degree + 1)},
        attrs=provenance(**about, bits=found.bits, nodes=found.nodes),
    )
    for name, long_name in _LONG_NAMES.items():
        dataset[name].attrs["long_name"] = long_name
    return dataset


def _log10(value):
    return float(value.log() / arb.const_log10()) if value > 0 else -np.inf


def _predicted_exponent(spec, get, dim):
    """Of kernels with a square-root singularity at angle 0, or a milder one."""
    blocks = np.count_nonzero(spec.scales)
    bent, slopes = blocks > 0 or spec.input_activation, get == "ntk"
    if not (spec.trains_readout or any(activations_behind(spec.operations))):
        # The weights of a block see the activation before them, and not its slope.
        slopes = slopes and blocks > 1
    if not (spec.activation.has_kink and bent):
        return np.nan
    return -float(dim if slopes else dim + 2)


# ------------------------------------------------------------------- what spectra tell

_PARITIES = {"even": (0,), "odd": (1,), "all": (0, 1)}


def decay_exponent(
    result: xr.Dataset, degrees: tuple[int, int], *, parity: str = "even"
) -> PowerFit:
    r"""The power of :math:`k + (d-2)/2` by which eigenvalues fall over some degrees.

    Against `ln k` the slope is off by some percent at k = 100 (Belfer et al. 2024 fit
    eigenvalues against the degree); the shift makes powers of the Laplacian's
    eigenvalue, :math:`k (k + d - 2)`, straight lines.

    Args:
        result: of `mercer` or `laplace_mercer`; `predicted_exponent` stands there.
        degrees: the first and the last one.
        parity: `"even"`, `"odd"` or `"all"`, of the degrees to fit.

    Returns:
        A `PowerFit`, with the 95 % interval of the exponent (of the scatter about the
        line, as in `fit_power`). Made from logarithms; `constant` alone can be 0 or inf
        where it is beyond float64.

    Raises:
        ValueError: fewer than two such degrees in the result, or an eigenvalue is zero.
    """
    check_choice("parity", parity, _PARITIES)
    low, high = _check_degrees(degrees, int(result.degree[-1]))
    k = np.arange(low, high + 1)
    k = k[np.isin(k % 2, _PARITIES[parity])]
    if k.size < 2:
        raise ValueError(
            f"degrees {low} to {high} hold {k.size} of parity {parity!r}; a fit needs "
            "two or more."
        )
    logs = result.log10_eigenvalue.sel(degree=k).values
    if not np.isfinite(logs).all():
        raise ValueError(
            f"the eigenvalue of degree {k[~np.isfinite(logs)][0]} is zero and has no "
            "place in a power law; choose another parity or other degrees."
        )
    # About their middle, and a root of them: powers of that are in float64's range.
    middle, root = logs.mean(), max(1.0, np.ptp(logs) / 200)
    log_shifted = np.log10(k + (int(result.attrs["dim"]) - 2) / 2)
    center = log_shifted.mean()
    fit = fit_power(10 ** (log_shifted - center), 10 ** ((logs - middle) / root))
    exponent = root * fit.exponent
    with np.errstate(over="ignore", under="ignore"):
        constant = np.float64(10) ** (
            middle + root * np.log10(fit.constant) - exponent * center
        )
    return PowerFit(exponent, root * fit.low, root * fit.high, float(constant))


def _check_degrees(degrees, last):
    try:
        low, high = degrees
    except (TypeError, ValueError):
        raise ValueError(
            f"degrees must be (first, last), two whole numbers; got {degrees!r}."
        ) from None
    low, high = (check_count("a degree", k, least=1) for k in (low, high))
    if not low < high <= last:
        raise ValueError(
            f"degrees must rise and be at most {last}, the last of the result; got "
            f"({low}, {high})."
        )
    return low, high


def parity_imbalance(result: xr.Dataset) -> xr.DataArray:
    r""":math:`\mu_k / \mu_{k-1}` for odd k >= 3: small where odd functions lag behind.

    Without bias it vanishes for one block, and stays small for residual networks whose
    kernel tends to that of one block (Belfer et al. 2024); about 1 at large degrees
    where a kernel treats both parities alike.

    Returns:
        Over the odd degrees from 3 on, `degree`. NaN where the even eigenvalue is zero.
    """
    logs = result.log10_eigenvalue.values
    odd = np.arange(3, logs.size, 2)
    even = np.where(np.isfinite(logs[odd - 1]), logs[odd - 1], np.nan)
    return xr.DataArray(
        10 ** (logs[odd] - even),
        dims="degree",
        coords={"degree": odd},
        attrs={"long_name": "eigenvalue over that of the degree before"},
    )
