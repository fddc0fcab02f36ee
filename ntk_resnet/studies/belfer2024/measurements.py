"""Eigenvalues, their parity, small angles and gradient descent."""

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.studies.ledger import curve_slope, slope_variables

HALF, ONE = nr.DepthScale(0.5), nr.DepthScale(1.0)
NETWORKS = {
    "plain, L = 3": nr.FeedForward(depth=3, trained="blocks"),
    "plain, L = 100": nr.FeedForward(depth=100, trained="blocks"),
    "γ = 1/2, L = 100": nr.ResNet(depth=100, branch_scale=HALF),
    "γ = 1, L = 100": nr.ResNet(depth=100, branch_scale=ONE),
    "α = 1, L = 10": nr.ResNet(depth=10, branch_scale=1.0),
}
FIT = 40  # the first degree that exponents are fitted to


def exponent(spectrum: xr.Dataset, first: int, last: int, parity: int = 0):
    """The power of k + (d-2)/2 by which eigenvalues of a parity fall, `CurveSlope`."""
    degree = np.arange(first, last + 1)
    degree = degree[degree % 2 == parity]
    shifted = degree + (spectrum.attrs["dim"] - 2) / 2
    return curve_slope(shifted, spectrum.eigenvalue.sel(degree=degree))


def decay(
    *, dims: list[int], degree: int, far: int, progress: Progress = quiet
) -> xr.Dataset:
    """Eigenvalues on spheres by degree, and the powers by which they fall.

    Over (`family`, `dim`): `exponent` of k + (d-2)/2 over even degrees from 40 to
    `degree`, from `exponent_low` to `exponent_high` on halves of them, and those of the
    second half of the degrees up to `far` in three dimensions, `far_exponent`. Over
    (`family`, `degree`), in three dimensions, `log10_eigenvalue`, and
    `laplace_log10_eigenvalue`, of the kernel exp(-|x - x'|).
    """
    pieces = len(NETWORKS)
    fits, far_fits, logs = [], [], []
    for done, (name, spec) in enumerate(NETWORKS.items()):
        progress(done, pieces, f"eigenvalues of {name}")
        near = [nr.mercer(spec, dim=d, max_degree=degree) for d in dims]
        fits.append([exponent(one, FIT, degree) for one in near])
        report = part_of(progress, done, 1, pieces, f"{name}, ")
        deep = nr.mercer(spec, dim=3, max_degree=far, progress=report)
        far_fits.append(exponent(deep, far // 2, far))
        logs.append(deep.log10_eigenvalue.values)
    laplace = nr.laplace_mercer(dim=3, max_degree=far).log10_eigenvalue
    return xr.Dataset(
        {
            **slope_variables("exponent", fits, ("family", "dim")),
            **slope_variables("far_exponent", far_fits, "family"),
            "log10_eigenvalue": (("family", "degree"), np.array(logs)),
            "laplace_log10_eigenvalue": ("degree", laplace.values),
        },
        coords={"family": list(NETWORKS), "dim": dims, "degree": np.arange(far + 1)},
        attrs={"degree": degree, "far": far, "dim": 3},
    )


RATIOS = {"γ = 1/2": (0.5, 0.187), "γ = 3/4": (0.75, 0.047), "γ = 1": (1.0, 0.0086)}

CIRCLE = {
    "γ = 1": (1.0, [0.0776, 0.00118, 0.00792, 0.00062, 0.00279, 0.00042]),
    "γ = 1/2": (0.5, [0.0678, 0.0167, 0.00848, 0.00466, 0.00319, 0.00220]),
}


def parity(*, depth: int, progress: Progress = quiet) -> xr.Dataset:
    """Eigenvalues of even and odd degree of residual networks of that depth.

    Over (`family`, `degree`) in three dimensions: `log10_eigenvalue`; over (`scale`,
    `frequency`): `circle`, eigenvalues on the circle, from degree 2 to 7; over
    `exponent`: `ratio`, the eigenvalue of degree 3 over that of degree 2. `single`, the
    largest odd eigenvalue of one block, from degree 3 on, over the even one before.
    """
    nets = {
        name: nr.ResNet(depth=depth, branch_scale=nr.DepthScale(gamma))
        for name, (gamma, _) in RATIOS.items()
    }
    found = [nr.mercer(spec, dim=3, max_degree=60) for spec in nets.values()]
    ratios = [float(nr.parity_imbalance(one)[0]) for one in found]
    circle = [
        nr.mercer(nets[name], dim=2, max_degree=7).eigenvalue.values[2:]
        for name in CIRCLE
    ]
    block = nr.parity_imbalance(
        nr.mercer(nets["γ = 1"].replace(depth=1), dim=3, max_degree=60)
    )
    return xr.Dataset(
        {
            "log10_eigenvalue": (
                ("family", "degree"),
                np.array([one.log10_eigenvalue.values for one in found]),
            ),
            "ratio": ("family", ratios),
            "circle": (("scale", "frequency"), np.array(circle)),
            "single": float(np.max(np.abs(block))),
        },
        coords={
            "family": list(nets),
            "degree": np.arange(61),
            "scale": list(CIRCLE),
            "frequency": np.arange(2, 8),
        },
        attrs={"depth": depth},
    )


ODD = {3: 0.02071, 5: 0.00897, 7: 0.00593}  # coefficients of D, three dimensions
SMALL_T, SMALL_DEPTH = 1e-8, 10
TIMES = [1 / 200, 1 / 800]  # whose parities come together within 160 degrees
CIRCLES = {
    "γ = 1/2, L = 10": nr.ResNet(depth=10, branch_scale=HALF),
    "plain, L = 1": nr.FeedForward(depth=1),
}


def imbalance(*, depth: int, degree: int, progress: Progress = quiet) -> xr.Dataset:
    """Parities when T = sum of a^2 is small, and what they tend to on the circle.

    Over `odd`, degrees: `coefficient`, the eigenvalue of a residual network of T =
    1e-8 in three dimensions over T (1 - 1/L). Over `T`, of `depth` blocks: `half`, the
    degree at which odd eigenvalues reach half of the even ones before, and `beyond`,
    their ratio at ten times T^(-1/2). Over `network`: `level` and `split`, the mean of
    both parities of pi^2 k^2 mu_k on the circle at degrees 200 and 201, and half their
    difference.
    """
    scale = np.sqrt(SMALL_T / SMALL_DEPTH)
    small = nr.ResNet(depth=SMALL_DEPTH, branch_scale=float(scale))
    one = nr.mercer(small, dim=3, max_degree=max(ODD)).eigenvalue.sel(degree=list(ODD))
    half, beyond = [], []
    for done, time in enumerate(TIMES):
        progress(done, len(TIMES), f"parities at T = {time:g}")
        spec = nr.ResNet(depth=depth, branch_scale=float(np.sqrt(time / depth)))
        ratio = nr.parity_imbalance(nr.mercer(spec, dim=3, max_degree=degree))
        half.append(np.interp(0.5, ratio, ratio.degree))
        beyond.append(ratio.sel(degree=10 * time**-0.5, method="nearest"))
    ends = np.array(
        [
            nr.mercer(spec, dim=2, max_degree=201).eigenvalue[-2:]
            for spec in CIRCLES.values()
        ]
    )
    even, odd = (np.pi**2 * ends * np.array([200, 201]) ** 2).T
    return xr.Dataset(
        {
            "coefficient": ("odd", one.values / (SMALL_T * (1 - 1 / SMALL_DEPTH))),
            "half": ("T", half),
            "beyond": ("T", beyond),
            "level": ("network", (even + odd) / 2),
            "split": ("network", (even - odd) / 2),
        },
        coords={"odd": list(ODD), "T": TIMES, "network": list(CIRCLES)},
        attrs={"depth": depth},
    )


def bias(
    *, depth: int, variance: float, degree: int, progress: Progress = quiet
) -> xr.Dataset:
    """Exponents of a plain network with bias, and of the Laplace kernel, by `parity`.

    In three dimensions, `exponent` and `laplace` with their ends on both halves of the
    degrees from 40 on; `ratio`, the network's eigenvalue over the Laplace kernel's at
    the last degree, over that at half of it.
    """
    spec = nr.FeedForward(depth=depth, bias_variance=variance)
    found = nr.mercer(spec, dim=3, max_degree=degree, progress=progress)
    laplace = nr.laplace_mercer(dim=3, max_degree=degree)
    logs = found.log10_eigenvalue - laplace.log10_eigenvalue
    ends = [
        [logs.sel(degree=k) for k in (degree + p, degree // 2 + p)] for p in (0, -1)
    ]
    both = [[exponent(one, FIT, degree, p) for p in (0, 1)] for one in (found, laplace)]
    return xr.Dataset(
        slope_variables("exponent", both[0], "parity")
        | slope_variables("laplace", both[1], "parity")
        | {"ratio": ("parity", [10 ** float(last - half) for last, half in ends])},
        coords={"parity": ["even", "odd"]},
        attrs={"depth": depth, "variance": variance, "degree": degree},
    )


SHARP = {
    "plain, all trained": nr.FeedForward(depth=1),
    "plain": nr.FeedForward(depth=1, trained="blocks"),
    "γ = 1": nr.ResNet(depth=1, branch_scale=ONE),
    "γ = 1/2": nr.ResNet(depth=1, branch_scale=HALF),
    "α = 1": nr.ResNet(depth=1, branch_scale=1.0),
}


def small_angles(*, depths: list[int], progress: Progress = quiet) -> xr.Dataset:
    """How steep kernels are at small angles, and at antipodes.

    Over (`family`, `depth`): `steepness`, pi (1 - NTK) / theta at theta = 1e-6, and
    `predicted`; over `depth`: `antipode`, pi times the NTK's slope at the angle pi of a
    residual network with gamma = 1/2, and `predicted_antipode`.
    """
    theta = 1e-6
    steep = [
        [
            float(nr.profile(spec.replace(depth=depth)).ntk_gap(theta))
            for depth in depths
        ]
        for spec in SHARP.values()
    ]
    predicted = [[_steepness(name, depth) for depth in depths] for name in SHARP]
    slope, product = [], []
    for depth in depths:
        spec = SHARP["γ = 1/2"].replace(depth=depth)
        ntk = nr.profile(spec).ntk
        slope.append(float(ntk(np.pi) - ntk(np.pi - theta)) / theta)
        scale = depth**-0.5
        path = nr.sweep_depth(
            nr.ResNet(depth=1, branch_scale=scale), range(1, depth + 1), angles=[np.pi]
        )
        kappa = 1 - np.arccos(np.clip(path.nngp.values[:-1, 0], -1, 1)) / np.pi
        factors = (1 + scale**2 * kappa) / (1 + scale**2)
        product.append(np.prod(factors) / (2 * depth))
    over = ("family", "depth")
    return xr.Dataset(
        {
            "steepness": (over, np.pi * np.array(steep) / theta),
            "predicted": (over, np.array(predicted)),
            "antipode": ("depth", np.pi * np.array(slope)),
            "predicted_antipode": ("depth", np.array(product)),
        },
        coords={"family": list(SHARP), "depth": depths},
        attrs={"theta": theta},
    )


def _steepness(name, depth):
    """The coefficient of theta / pi in 1 - NTK."""
    if name.startswith("plain"):
        return (depth + (name == "plain")) / 2
    gamma = {"γ = 1": 1.0, "γ = 1/2": 0.5, "α = 1": 0.0}[name]
    square = float(depth) ** (-2 * gamma)
    return (1 + square / (1 + square) * (depth - 1)) / 2


def descent(*, points: int, depth: int, progress: Progress = quiet) -> xr.Dataset:
    """How many steps of gradient descent it takes to fit cos(k theta) on the circle.

    With the tangent kernel of a residual network of scale 1/depth on uniform points, to
    a twentieth of the error. Over `frequency`: `steps`, and `eigenvalue`, that of the
    kernel on the circle.
    """
    spec = nr.ResNet(depth=depth, branch_scale=ONE)
    theta = 2 * np.pi * np.arange(points) / points
    kernel = nr.gram(spec, np.column_stack([np.cos(theta), np.sin(theta)]))
    frequency = np.arange(1, points // 16 + 1)
    target = np.cos(theta[:, None] * frequency)
    rate = 0.05 / np.linalg.norm(kernel, 2)
    error, steps = target.copy(), np.zeros(len(frequency))
    size = np.linalg.norm(target, axis=0)
    while (large := np.linalg.norm(error, axis=0) > 0.05 * size).any():
        steps += large
        error -= rate * (kernel @ error)
        progress(len(frequency) - large.sum(), len(frequency), "gradient descent")
    known = nr.mercer(spec, dim=2, max_degree=int(frequency[-1])).eigenvalue.values[1:]
    return xr.Dataset(
        {"steps": ("frequency", steps), "eigenvalue": ("frequency", known)},
        coords={"frequency": frequency},
        attrs={"points": points, "depth": depth, "rate": float(rate)},
    )
