"""Networks of many scales and depths, and the limits they have at equal T."""

import functools
from typing import Any

import jax
import numpy as np
import xarray as xr
from scipy import integrate, interpolate

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.studies.families import smooth
from ntk_resnet.studies.limits import limits
from ntk_resnet.studies.spheres import on_sphere

BLOCKS = {
    "two layers": nr.ResNet(depth=1, branch_scale=1.0),
    "pre-activation": nr.ResNet(depth=1, branch_scale=1.0, block="preactivation"),
    # Of variance 4, so that this branch, too, keeps the size of the signal.
    "full pre-activation": nr.ResNet(
        depth=1, branch_scale=1.0, block="full_preactivation", weight_variance=4.0
    ),
}
ANGLE = np.pi / 4  # at which kernels are drawn

# ----------------------------------------------------------------------------- scales


def profile_of(name: str, depth: int) -> np.ndarray:
    """How the sum of squares is spread over the blocks, `(depth,)`, of sum 1."""
    block = np.arange(1, depth + 1, dtype=float)
    square = {
        "uniform": np.ones(depth),
        "rising": block,
        "falling": block[::-1],
        "one in two": block % 2 + (depth == 1),
        "at random": np.random.default_rng(depth).exponential(size=depth),
    }[name]
    return square / square.sum()


PROFILES = ("uniform", "rising", "falling", "one in two", "at random")
SMOOTH = PROFILES[:-1]  # without chance, so that networks by depth are a curve


def kernels(spec, scales: list, angles, progress: Progress = quiet):
    """Normalised NTKs `(network, angle)`, and ln of the signal's growth `(network,)`.

    Of networks with these branch scales, all filled up with blocks of scale 0, which
    are the identity, to the depth of the deepest: so they are one program.
    """
    longest = max(map(len, scales))
    raw = nr.kernel_fn(
        spec.replace(depth=longest), engine="recursion", normalised=False
    )
    across = np.concatenate([[0.0], angles])
    rows = np.column_stack([np.cos(across), np.sin(across)])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=0)
    def both(one):
        found = raw(rows[:1], rows, get=("nngp", "ntk"), scales=one)
        return found.nngp[0, 0], found.ntk[0]

    size = min(len(scales), 32)
    padded = _padded(scales)
    padded += [padded[0]] * (-len(padded) % size)
    growth, ntk = [], []
    for begin in range(0, len(padded), size):
        progress(begin, len(padded), f"{len(scales)} networks")
        some = both(np.array(padded[begin : begin + size]))
        growth.append(np.log(2 * some[0]))  # the input kernel is 1/2
        ntk.append(some[1] / some[1][:, :1])
    count = len(scales)
    return np.concatenate(ntk)[:count, 1:], np.concatenate(growth)[:count]


def _padded(scales):
    longest = max(map(len, scales))
    return [np.pad(one, (0, longest - len(one))) for one in scales]


def _path_lengths(scales):
    """Mean lengths of paths: d ln(signal) / d ln(a^2), summed over blocks."""
    padded = np.array(_padded(scales))
    spec = BLOCKS["two layers"].replace(depth=padded.shape[1])
    raw = nr.kernel_fn(spec, engine="recursion", normalised=False)
    x = np.ones((1, 1))
    slope = jax.grad(lambda a: jax.numpy.log(raw(x, get="nngp", scales=a)[0, 0]))
    return np.sum(np.asarray(jax.jit(jax.vmap(slope))(padded)) * padded, axis=1) / 2


def _grid(count):
    """Angles, dense at both ends, where deep kernels bend; 45 degrees if 3 | count."""
    return np.pi * (1 - np.cos(np.pi * np.arange(1, count + 1) / count)) / 2


# ----------------------------------------------------------- scales, depths, profiles


def scalings(
    *,
    depths: list[int],
    profile_depths: list[int],
    times: list[float],
    angles: int,
    seeds: int,
    train: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Networks of two-layer blocks by scale and depth, beside the limit of equal T.

    Over `network`: `scheme`, its name; `kind`, "scale" (one of `SCALES`), "decreasing"
    (1 / (sqrt(l) ln(l+1)), from block 8 and from block 1) or "profile" (T is one of
    `times`, `asked`, and spread over the blocks in some way); `depth`, `T`, `step`, the
    sum of a^4 over T; `log_growth` of the signal; `path_length`, the mean length of
    paths, by the derivative of the signal with respect to scales; `ntk` at 45 degrees;
    `distance` to the limit, the largest at cosines from -0.9. Over (`network`, `seed`):
    `error`, the mean squared error of ridgeless regression with the NTK, of a smooth
    target on the sphere in five dimensions, over its variance, and `limit_error`, with
    the limit on the same points. Over `time`, a range of T: `limit_ntk`, the limit at
    45 degrees, and `curve_error`, the mean error with it.
    """
    networks = _networks(depths, profile_depths, times)
    scales = [one.pop("scales") for one in networks]
    asked = np.array([one["asked"] for one in networks])
    sums = np.array([np.sum(one**2) for one in scales])
    # Profiles of one T have one limit, whatever the rounding of their sums.
    total, place = np.unique(
        np.where(np.isnan(asked), sums, asked), return_inverse=True
    )
    grid = _grid(angles)
    report = part_of(progress, 0, 1, 2)
    ntk, growth = kernels(BLOCKS["two layers"], scales, grid, report)
    curve = np.geomspace(0.01, max(300.0, total.max()), 60)
    limit = limits("two layers", [*total, *curve], grid)
    count, last = len(scales), len(scales) + len(total)
    errors = _errors(grid, np.concatenate([ntk, limit]), seeds, train, progress)
    at = lambda values: _at(grid, values, [ANGLE])[:, 0]  # noqa: E731
    over, points = "network", ("network", "seed")
    names = networks[0]
    return xr.Dataset(
        {name: (over, [one[name] for one in networks]) for name in names}
        | {
            "depth": (over, [len(one) for one in scales]),
            "T": (over, sums),
            "step": (over, [np.sum(one**4) / np.sum(one**2) for one in scales]),
            "log_growth": (over, growth),
            "path_length": (over, _path_lengths(scales)),
            "ntk": (over, at(ntk)),
            "distance": (over, _farthest(grid, ntk - limit[place])),
            "error": (points, errors[:count]),
            "limit_error": (points, errors[count:last][place]),
            "limit_ntk": ("time", at(limit[len(total) :])),
            "curve_error": ("time", errors[last:].mean(axis=1)),
        },
        coords={"time": curve, "seed": np.arange(seeds)},
        attrs={"train": train, "longest": max(depths), "angles": angles},
    )


SCALES: dict[str, Any] = {
    "γ = 1": nr.DepthScale(1.0),
    "γ = 3/4": nr.DepthScale(0.75),
    "γ = 1/2": nr.DepthScale(0.5),
    "γ = 1/4": nr.DepthScale(0.25),
    "α = 1/10": nr.ConstantScale(0.1),
    "α = 1": nr.ConstantScale(1.0),
}
TAIL, WHOLE = "decreasing, from block 8", "decreasing, from block 1"
_MOST = 600.0  # T; signals grow by e^T, and float64 ends at e^709


def _networks(depths, profile_depths, times):
    found = []

    def add(kind, scheme, scales, asked=np.nan):
        if np.sum(scales**2) < _MOST:
            one = {"kind": kind, "scheme": scheme, "asked": asked, "scales": scales}
            found.append(one)

    for depth in depths:
        for name, scale in SCALES.items():
            add("scale", name, scale.values(depth))
        decreasing = nr.DecreasingScale().values(depth + 7)
        add("decreasing", TAIL, decreasing[7:])
        add("decreasing", WHOLE, decreasing[:depth])
    for depth in profile_depths:
        for time in times:
            for name in PROFILES:
                add("profile", name, np.sqrt(time * profile_of(name, depth)), time)
    return found


def _farthest(grid, differences):
    """The largest, at cosines of -0.9 and more: near -1 kernels converge slowly."""
    return np.max(np.abs(differences[..., np.cos(grid) >= -0.9]), axis=-1)


def _at(grid, values, angles):
    """Kernels between the grid's angles, by cubic splines."""
    nodes = np.concatenate([[0.0], grid])
    ends = np.concatenate([np.ones((len(values), 1)), values], axis=1)
    return interpolate.CubicSpline(nodes, ends, axis=1)(np.asarray(angles))


def _errors(grid, values, seeds, train, progress):
    """Errors of regression `(network, seed)` with each of these kernels."""
    found = np.empty((len(values), seeds))
    for seed in range(seeds):
        progress(seeds + seed, 2 * seeds, "regression")
        x = on_sphere(np.random.default_rng(seed), train + 500, 5)
        y = smooth(x)
        y = (y - y.mean()) / y.std()
        theta = np.arccos(np.clip(x @ x[:train].T, -1, 1))
        np.fill_diagonal(theta, 0)
        for k, one in enumerate(values):
            gram = _at(grid, one[None], theta)[0]
            gram[:train] = (gram[:train] + gram[:train].T) / 2
            fit = nr.kernel_ridge(gram[:train], gram[train:], y[:train], ridge=0.0)
            found[k, seed] = np.mean((fit[:, 0] - y[train:]) ** 2)
    return found


# ---------------------------------------------------------------------- other blocks


def blocks(
    *, depths: list[int], times: list[float], angles: int, progress: Progress = quiet
) -> xr.Dataset:
    """The distance to the limit of equal T, for several blocks and profiles.

    Over (`block`, `profile`, `T`, `depth`): `distance`, and `step`, the sum of a^4 over
    T; `log_growth` of the signal, and `largest`, the largest square of a scale.
    """
    cases = [(p, t, d) for p in PROFILES for t in times for d in depths]
    scales = [np.sqrt(t * profile_of(p, d)) for p, t, d in cases]
    shape = (len(PROFILES), len(times), len(depths))
    grid = _grid(angles)
    distances, growths = [], []
    for k, (name, spec) in enumerate(BLOCKS.items()):
        report = part_of(progress, k, 1, len(BLOCKS), f"{name}, ")
        ntk, growth = kernels(spec, scales, grid, report)
        limit = limits(name, times, grid)
        beside = limit[None, :, None]
        ntk = ntk.reshape(*shape, angles)
        distances.append(_farthest(grid, ntk - beside))
        growths.append(growth.reshape(shape))
    over = ("block", "profile", "T", "depth")
    step = np.reshape([np.sum(s**4) / np.sum(s**2) for s in scales], shape)
    return xr.Dataset(
        {
            "distance": (over, np.array(distances)),
            "log_growth": (over, np.array(growths)),
            "step": (over[1:], step),
            "largest": (over[1:], np.reshape([np.max(s**2) for s in scales], shape)),
        },
        coords={
            "block": list(BLOCKS),
            "profile": list(PROFILES),
            "T": times,
            "depth": depths,
        },
    )


# ------------------------------------------------------------------------ degeneracy


COSINES = (-0.9, -0.5, 0.0, 0.3, 0.7, 0.95)


def degeneracy(
    *,
    times: list[float],
    alpha: float,
    deep: list[int],
    progress: Progress = quiet,
) -> xr.Dataset:
    """How far kernels are from 1/4 at large T, over `T` and `cosine`.

    `excess`, for each `block`: T (NTK - 1/4) of networks of constant scale `alpha`;
    over (`block`, `cosine`) `constant`, what that tends to where it does. Over (`deep`,
    `cosine`), depths: `unscaled`, the same with alpha = 1.
    """
    angles = np.arccos(COSINES)
    excess = []
    for done, spec in enumerate(BLOCKS.values()):
        progress(done, len(BLOCKS) + 1, "deep kernels")
        row = []
        for time in times:
            deep_one = spec.replace(depth=round(time / alpha**2), branch_scale=alpha)
            total = deep_one.depth * alpha**2
            row.append(total * (0.75 - nr.profile(deep_one).ntk_gap(angles)))
        excess.append(row)
    plain = BLOCKS["two layers"]
    unscaled = [
        blocks * (0.75 - nr.profile(plain.replace(depth=blocks)).ntk_gap(angles))
        for blocks in deep
    ]
    over = ("block", "T", "cosine")
    return xr.Dataset(
        {
            "excess": (over, np.array(excess)),
            "constant": (("block", "cosine"), _constants(angles)),
            "unscaled": (("deep", "cosine"), np.array(unscaled)),
        },
        coords={
            "block": list(BLOCKS),
            "T": times,
            "cosine": list(COSINES),
            "deep": deep,
        },
        attrs={"alpha": alpha},
    )


def _constants(angles):
    """Of 1/T in the NTK's distance to 1/4; NaN in blocks with a logarithm.

    From 3 pi / theta_T = T + C + O(1/T), where theta follows the limit's equation:
    C/4 - 1/2 in two-layer, C/4 in pre-activation blocks.
    """
    rest = lambda t: np.pi / (1 - t / np.tan(t)) - 3 * np.pi / t**2  # noqa: E731
    near = 0.05  # below it the difference cancels: by its series
    series = -np.pi / 5 * near + np.pi * (1 / 225 - 2 / 315) * near**3
    late = np.array(
        [
            3 * np.pi / theta - integrate.quad(rest, near, theta)[0] - series
            for theta in angles
        ]
    )
    return np.array([late / 4 - 1 / 2, late / 4, np.full(len(angles), np.nan)])


# ---------------------------------------------------------- blocks with a mean, images


def means(
    *, depths: list[int], times: list[float], angles: int, progress: Progress = quiet
) -> xr.Dataset:
    """Post-activation blocks, whose increments have a mean, at equal T and at equal S.

    Over (`kept`, `value`, `depth`): all scales equal, T = sum of a^2 or S = sum of a
    the number `value`: `log_growth`, `ntk` at 45 degrees, `distance` to the NTK of the
    deepest network, the largest at cosines from -0.9; `sum`, S. Over `value`, of S:
    `first_order`, by how much of T ln(growth) is to exceed 2 ln cosh(S / sqrt(pi)).
    """
    spec = nr.ResNet(depth=1, branch_scale=1.0, block="postactivation")
    kept = ("T", "S")
    cases = [(k, t, d) for k in kept for t in times for d in depths]
    each = [np.sqrt(t / d) if k == "T" else t / d for k, t, d in cases]
    scales = [np.full(d, a) for a, (_, _, d) in zip(each, cases, strict=True)]
    grid = _grid(angles)
    ntk, growth = kernels(spec, scales, grid, progress)
    shape = (len(kept), len(times), len(depths))
    swept = ntk.reshape(*shape, angles)
    over = ("kept", "value", "depth")
    return xr.Dataset(
        {
            "log_growth": (over, growth.reshape(shape)),
            "ntk": (over, _at(grid, ntk, [ANGLE]).reshape(shape)),
            "distance": (
                over,
                _farthest(grid, swept - swept[:, :, -1:]),
            ),
            "sum": (over, np.reshape([np.sum(s) for s in scales], shape)),
            "first_order": ("value", [_first_order(value) for value in times]),
        },
        coords={"kept": list(kept), "value": times, "depth": depths},
    )


def _first_order(total):
    """Of the steps' size in ln(growth), over that size and the sum of scales.

    With r^2 the mean square of features and m their mean, a block of scale a adds
    a^2 r^2 + 2 a m r / sqrt(pi) to r^2 and a r / sqrt(pi) to m. What such steps differ
    from a differential equation by, to first order in a.
    """
    c = 1 / np.sqrt(np.pi)

    def slope(time, state):
        root, mean = state
        size, base = np.cosh(c * time), np.sinh(c * time)
        own = (size - c**2 * (size + base**2 / size)) / 2
        return [c * mean + own, c * root - c**2 * base / 2]

    solved = integrate.solve_ivp(slope, (0, total), [0.0, 0.0], rtol=1e-10, atol=1e-12)
    return 2 * solved.y[0, -1] / np.cosh(c * total) / total


IMAGES = {
    f"{padding}, {readout}": nr.ConvResNet(
        depth=1, branch_scale=1.0, padding=padding, readout=readout
    )
    for padding in ("circular", "zero")
    for readout in ("pool", "flatten")
}


def images(
    *,
    networks: list[str],
    depths: list[int],
    gammas: list[float],
    times: list[float],
    side: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """Convolutional networks on three random images, by scale and depth.

    Over (`network`, `gamma`, `depth`): `ntk` between the first two images, pooled or
    not, for scales L^-gamma; over (`gamma`, `depth`) `T`. Over (`network`, `time`,
    `depth`), for scales of that T: `distance`, the largest over pairs of images between
    the NTK and that of the network four times as deep, and `log_growth` of the signal
    of the first image.
    """
    x = np.random.default_rng(0).normal(size=(3, side, side, 2))
    upper = np.triu_indices(3, 1)
    longest = 4 * max(depths)

    def swept(spec, scale, depth):
        # Of one constant scale: then all depths and scales are one program.
        own = spec.replace(branch_scale=float(scale))
        one = nr.sweep_depth(own, [depth, longest], x=x).isel(depth=0)
        return one.ntk.values[upper], float(one.log_nngp_diag[0])

    by_gamma, far, growth = [], [], []
    fours = [4 * depth for depth in depths]
    for done, name in enumerate(networks):
        progress(done, len(networks), f"images, {name}")
        spec = IMAGES[name]
        by_gamma.append([[swept(spec, d**-g, d)[0][0] for d in depths] for g in gammas])
        found = [
            {d: swept(spec, np.sqrt(t / d), d) for d in {*depths, *fours}}
            for t in times
        ]
        near, deep = (
            np.array([[row[d][0] for d in at] for row in found])
            for at in (depths, fours)
        )
        far.append(np.max(np.abs(near - deep), axis=-1))
        begin = nr.diag(spec.replace(branch_scale=0.0), x[:1], "nngp", log=True)
        growth.append([[row[d][1] - float(begin[0]) for d in depths] for row in found])
    over = ("network", "time", "depth")
    total = np.array([[d ** (1 - 2 * g) for d in depths] for g in gammas])
    return xr.Dataset(
        {
            "ntk": (("network", "gamma", "depth"), np.array(by_gamma)),
            "T": (("gamma", "depth"), total),
            "distance": (over, np.array(far)),
            "log_growth": (over, np.array(growth)),
        },
        coords={
            "network": networks,
            "gamma": gammas,
            "time": times,
            "depth": depths,
        },
        attrs={"side": side},
    )
