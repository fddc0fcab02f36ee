"""Phases of deep plain networks, their matrices and predictions."""

import numpy as np
import xarray as xr
from scipy import optimize

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.studies.spheres import on_sphere

SLOPES = {"ordered": 0.810, "critical": 1.0, "chaotic": 1.276}
RELU = "ReLU"  # critical too, without bias
NETWORKS = (*SLOPES, RELU)
BIAS = 0.3
ROOT = 1e-10
"""To which the critical weight variance is sought."""


def erf(weight_variance):
    """The plain network of the error function, of any depth."""
    return nr.FeedForward(
        depth=1,
        activation="erf",
        weight_variance=float(weight_variance),
        bias_variance=BIAS,
    )


def variance_of(slope):
    """q*, the fixed point of the variance where the error function has that slope."""

    def off(q):
        second = 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q))
        return slope * np.pi / 4 * np.sqrt(1 + 4 * q) * second + BIAS - q

    return optimize.brentq(off, 0.1, 10.0, xtol=1e-15, rtol=1e-15)


def weight_of(slope):
    """The weight variance there: the slope is 4/pi times it, by sqrt(1 + 4 q)."""
    return slope * np.pi / 4 * np.sqrt(1 + 4 * variance_of(slope))


def input_kernel(slope):
    """|x|^2/d of inputs whose first pre-activations have the variance q*."""
    return (variance_of(slope) - BIAS) / weight_of(slope)


def fixed_points(*, progress: Progress = quiet) -> xr.Dataset:
    """The critical error function, by `nr.phase`: `weight_variance` and `variance`."""
    off = lambda weight: float(nr.phase(erf(weight)).slope) - 1  # noqa: E731
    critical = optimize.brentq(off, 1.5, 2.5, xtol=ROOT)
    progress(1, 1, "fixed points")
    variance = float(nr.phase(erf(critical)).variance)
    return xr.Dataset({"weight_variance": critical, "variance": variance})


def matrices(
    *, points: int, depths: list[int], far: list[int], progress: Progress = quiet
) -> xr.Dataset:
    """Condition number, entries and predictions of the NTK on data, against depth.

    Inputs are spread over a sphere in ten dimensions, as large as gives the first layer
    the variance q*; labels are centred. Depths are `depths` in the ordered and the
    chaotic phase, `far` in the critical ones; numbers at other depths are NaN.

    Over (`network`, `depth`): `condition_number`, `predicted`, `off_diagonal`, the mean
    entry of the normalised matrix off the diagonal, `prediction`, the root mean square
    of predictions at new points over that of the labels, and `gap`, one minus the
    correlation of a pair. As an attribute `decay`, ln(chi_1 / chi_c) if chaotic.
    """
    rng = np.random.default_rng(0)
    x = np.sqrt(10) * on_sphere(rng, points + points // 4, 10)
    y = x[:points, 0] + x[:points, 1] * x[:points, 2]
    y -= y.mean()
    nets = {name: erf(weight_of(slope)) for name, slope in SLOPES.items()}
    nets[RELU] = nr.FeedForward(depth=1)
    pieces = []
    for done, (name, spec) in enumerate(nets.items()):
        own = far if name in ("critical", RELU) else depths
        size = 1.0 if name == RELU else input_kernel(SLOPES[name])
        report = part_of(progress, done, 1, len(nets), f"{name}, ")
        pieces.append(_against_depth(spec, own, np.sqrt(size) * x, y, report))
    every = sorted({*depths, *far})
    found = xr.concat([one.reindex(depth=every) for one in pieces], "network")
    chaotic = nr.phase(nets["chaotic"])
    attrs = {
        "points": points,
        "last": max(depths),
        "far": max(far),
        "decay": float(np.log(chaotic.slope / chaotic.correlation_slope)),
    }
    return found.assign_coords(network=list(nets)).assign_attrs(attrs)


def _against_depth(spec, depths, x, y, progress):
    swept = nr.sweep_depth(spec, depths, x=x, progress=progress)
    rows = [_of_matrix(kernel, y) for kernel in swept.ntk.values]
    found = {name: ("depth", [row[name] for row in rows]) for name in rows[0]}
    predicted = nr.predicted_condition_number(spec, len(y), depths)
    found["predicted"] = "depth", predicted.values
    found["gap"] = "depth", swept.nngp_gap.values[:, 0, 1]
    return xr.Dataset(found, coords={"depth": depths})


def _of_matrix(kernel, y):
    """What one matrix says, of training rows and new ones after them."""
    points = len(y)
    train, new = kernel[:points, :points], kernel[points:, :points]
    made = new @ np.linalg.solve(train, y)
    return {
        "condition_number": float(nr.spectrum(train).condition_number),
        "off_diagonal": float(train[~np.eye(points, dtype=bool)].mean()),
        "prediction": float(np.sqrt(np.mean(made**2) / np.mean(y**2))),
    }


def approach(
    *, depths: list[int], angles: list[float], progress: Progress = quiet
) -> xr.Dataset:
    """The NTK of the critical error function at angles, far deeper than data need.

    Over (`depth`, `angle`): `shortfall`, what the normalised NTK lacks to 1/3. As an
    attribute `coefficient`, that of ln L / L in it.
    """
    swept = nr.sweep_depth(
        erf(weight_of(1.0)), depths, angles=angles, progress=progress
    )
    return xr.Dataset(
        {"shortfall": swept.ntk_gap - 2 / 3},
        coords={"depth": depths, "angle": angles},
        attrs={"coefficient": shortfall_coefficient(), "far": max(depths)},
    )


def shortfall_coefficient():
    r"""1/3 + 2/(9 beta), with beta the second derivative of the map C at 1.

    The gap d of two correlations goes to :math:`d - \beta d^2/2 + \gamma d^3/6`, so
    that :math:`1/d = \beta L/2 + (\beta/2 - \gamma/(3\beta)) \ln L + O(1)`; put into
    :math:`\Theta_{L+1} = K_{L+1} + C' \Theta_L` the logarithm gives
    :math:`2\gamma/(9\beta^2) - 1/3`, where the error function has
    :math:`\gamma = \beta + 3\beta^2`.
    """
    q = variance_of(1.0)
    share = 2 * q / (1 + 2 * q)
    return float(1 / 3 + 2 / 9 * (1 - share**2) / share**2)
