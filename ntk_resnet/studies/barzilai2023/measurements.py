"""Eigenvalues on circles, locality, and condition numbers."""

import itertools

import numpy as np
import xarray as xr
from scipy import fft

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.data.datasets import Data
from ntk_resnet.studies.ledger import curve_slope, slope_variables

LAYERS = "plain, 2L + 1 layers"
"""As many convolutions as in a residual network of L blocks, and its first layer."""

PLAIN = ("plain", LAYERS)
NETWORKS = {
    **dict.fromkeys(PLAIN, nr.ConvNet(depth=1, trained="blocks", readout="flatten")),
    "α = 1": nr.ConvResNet(depth=1, branch_scale=1.0, readout="flatten"),
    "γ = 1/2": nr.ConvResNet(
        depth=1, branch_scale=nr.DepthScale(0.5), readout="flatten"
    ),
}


def residual(found):
    """Those of the result's networks that are not plain."""
    return found.sel(network=[n for n in found.network.values if n not in PLAIN])


def _swept(name, depths, x, progress, **changes):
    """Both kernels at these depths; those of `LAYERS` stand for as many blocks."""
    layers = [2 * depth + 1 for depth in depths] if name == LAYERS else depths
    return nr.sweep_depth(
        NETWORKS[name].replace(**changes), layers, x=x, progress=progress
    )


def torus(spec, nodes: int) -> np.ndarray:
    """Eigenvalues of the NTK on images of two pixels, each a point of a circle.

    Not pooled, the kernel of two images depends on the angles between their pixels at
    the same place alone, evenly in each, so that products of cosines and sines are its
    eigenfunctions and its Fourier coefficients the eigenvalues: `(frequency,
    frequency)`, from 0 to `nodes` - 1, of either pixel.
    """
    angle = np.pi * np.arange(nodes) / (nodes - 1)
    images = _images(np.meshgrid(angle, angle, indexing="ij"))
    values = np.asarray(nr.kernel_fn(spec)(images[:1], images))
    return _coefficients(values.reshape(nodes, nodes))


def _images(angles):
    """Images of a row of pixels from the grids of angles of each."""
    grid = np.stack([one.ravel() for one in angles], axis=-1)
    return np.stack([np.cos(grid), np.sin(grid)], axis=-1)[:, None]


def _coefficients(table):
    """Means of K cos(k1 t1) cos(k2 t2) ... over grids of the circle; K is even."""
    return fft.dctn(table, type=1) / np.prod([2 * (n - 1) for n in table.shape])


def decay(
    *,
    networks: list[str],
    nodes: int,
    depth: int,
    first: int,
    progress: Progress = quiet,
) -> xr.Dataset:
    """How eigenvalues fall with the frequency on images of two pixels.

    Over (`network`, `direction`, `frequency`): `eigenvalue` of the frequencies (k, 0)
    and (k, k), k even; over (`network`, `direction`) the `exponent` of k, from `first`
    to a quarter of the frequencies on the grid, and `difference`, that of the ratio to
    the plain network's eigenvalues, each with the slopes of both halves, `..._low` and
    `..._high`.
    """
    last = (nodes - 1) // 4
    frequency = np.arange(2, last + 1, 2)
    found = []
    for done, name in enumerate(networks):
        progress(done, len(networks), f"eigenvalues, {name}")
        table = torus(NETWORKS[name].replace(depth=depth), nodes)
        found.append([table[frequency, 0], table[frequency, frequency]])
    over = ("network", "direction")
    eigenvalue = np.array(found)
    ratio = eigenvalue / eigenvalue[networks.index("plain")]
    keep = frequency >= first
    return xr.Dataset(
        {
            "eigenvalue": ((*over, "frequency"), eigenvalue),
            **_slopes("exponent", frequency[keep], eigenvalue[..., keep]),
            **_slopes("difference", frequency[keep], ratio[..., keep]),
        },
        coords={
            "network": networks,
            "direction": ["one pixel", "both pixels"],
            "frequency": frequency,
        },
        attrs={"depth": depth, "first": first, "last": int(last)},
    )


def _slopes(name, frequency, curves):
    """Those of curves `(network, direction, frequency)`, as variables."""
    found = [[curve_slope(frequency, one) for one in rows] for rows in curves]
    return slope_variables(name, found, ("network", "direction"))


def locality(
    *,
    networks: list[str],
    pixels: int,
    depths: list[int],
    progress: Progress = quiet,
) -> xr.Dataset:
    """Eigenvalues of products of two pixels by the distance between these.

    Pixels are one of four points of a circle, so that images are few. Over (`network`,
    `depth`, `distance`): `eigenvalue`, the mean over pairs of pixels at that distance,
    of frequency 1 in both and 0 in all others.
    """
    quarter = np.pi / 2 * np.arange(3)
    x = _images(np.meshgrid(*[quarter] * pixels, indexing="ij"))
    pairs = list(itertools.combinations(range(pixels), 2))
    index = [tuple(int(k in pair) for k in range(pixels)) for pair in pairs]
    apart = np.array([j - i for i, j in pairs])
    found = []
    for done, name in enumerate(networks):
        report = part_of(progress, done, 1, len(networks), f"locality, {name}, ")
        swept = _swept(name, depths, x, report)
        rows = []
        for values in swept.ntk.values[:, 0]:  # those to the image of angles 0
            table = _coefficients(values.reshape((3,) * pixels))
            each = np.array([table[one] for one in index])
            rows.append([each[apart == r].mean() for r in range(1, pixels)])
        found.append(rows)
    return xr.Dataset(
        {"eigenvalue": (("network", "depth", "distance"), np.array(found))},
        coords={
            "network": networks,
            "depth": depths,
            "distance": np.arange(1, pixels),
        },
        attrs={"pixels": pixels},
    )


def conditioning(
    data: Data,
    *,
    networks: list[str],
    images: int,
    depths: list[int],
    readouts: list[str],
    progress: Progress = quiet,
) -> xr.Dataset:
    """Condition numbers of Gram matrices against depth, of the same images each.

    Over (`inputs`, `kernel`, `readout`, `network`, `depth`): `condition_number`;
    `inputs` are images of the data, and as many of that size whose pixels are
    independent normal numbers.
    """
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(data))[:images])
    chosen = data.take(rows).x
    inputs = {"random": rng.normal(size=chosen.shape), data.name: chosen}
    kernels, total = ("ntk", "nngp"), 2 * len(readouts) * len(networks)
    shape = (2, 2, len(readouts), len(networks), len(depths))
    found, done = np.empty(shape), 0
    for i, x in enumerate(inputs.values()):
        for j, readout in enumerate(readouts):
            for k, name in enumerate(networks):
                report = part_of(progress, done, 1, total, f"{readout}, {name}, ")
                swept = _swept(name, depths, x, report, readout=readout)
                for m, kernel in enumerate(kernels):
                    found[i, m, j, k] = np.linalg.cond(swept[kernel].values)
                done += 1
    return xr.Dataset(
        {
            "condition_number": (
                ("inputs", "kernel", "readout", "network", "depth"),
                found,
            )
        },
        coords={
            "inputs": list(inputs),
            "kernel": list(kernels),
            "readout": readouts,
            "network": networks,
            "depth": depths,
        },
        attrs={"images": len(rows), "data": data.name, "deepest": max(depths)},
    )
