"""Barzilai et al. 2023: what skip connections change in convolutional kernels."""

import functools
import itertools

import numpy as np
import xarray as xr
from scipy import fft

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.analysis.statistics import fit_power
from ntk_resnet.data.datasets import Data
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.ledger import Claim, Measured, exact, fitted
from ntk_resnet.studies.study import Budget, Figure, Measurement, Study

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


def _residual(found):
    """Those of the result's networks that are not plain."""
    return found.sel(network=[n for n in found.network.values if n not in PLAIN])


def _swept(name, depths, x, progress, **changes):
    """Both kernels at these depths; those of `LAYERS` stand for as many blocks."""
    layers = [2 * depth + 1 for depth in depths] if name == LAYERS else depths
    return nr.sweep_depth(
        NETWORKS[name].replace(**changes), layers, x=x, progress=progress
    )


# --------------------------------------------------- eigenvalues on products of circles


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
    to an eighth of the frequencies on the grid, and its interval.
    """
    last = (nodes - 1) // 4
    frequency = np.arange(2, last + 1, 2)
    found, fits = [], []
    for done, name in enumerate(networks):
        progress(done, len(networks), f"eigenvalues, {name}")
        table = torus(NETWORKS[name].replace(depth=depth), nodes)
        lines = [table[frequency, 0], table[frequency, frequency]]
        keep = frequency >= first
        found.append(lines)
        fits.append([fit_power(frequency[keep], one[keep])[:3] for one in lines])
    over = ("network", "direction")
    exponents = np.array(fits)
    return xr.Dataset(
        {
            "eigenvalue": ((*over, "frequency"), np.array(found)),
            "exponent": (over, exponents[..., 0]),
            "exponent_low": (over, exponents[..., 1]),
            "exponent_high": (over, exponents[..., 2]),
        },
        coords={
            "network": networks,
            "direction": ["one pixel", "both pixels"],
            "frequency": frequency,
        },
        attrs={"depth": depth, "first": first, "last": int(last)},
    )


def _exponents(found):
    return fitted(found, "exponent")


def _difference(found):
    """Exponents of residual networks minus the plain one's."""
    plain = found.sel(network="plain")
    rest = _residual(found)
    away = rest.exponent - plain.exponent
    wide = sum((one.exponent_high - one.exponent_low) / 2 for one in (plain, rest))
    return Measured(away, away - wide, away + wide, "95 % of both fits, added")


# ---------------------------------------------------------------------------- locality


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


def _near_over_far(found):
    """Eigenvalues at distance 1 over those at the largest, by network and depth."""
    return found.eigenvalue.isel(distance=0) / found.eigenvalue.isel(distance=-1)


def _more_local(found, plain):
    ratio = _near_over_far(found)
    return exact(_residual(ratio) / ratio.sel(network=plain), 1e-6)


# ---------------------------------------------------------------------- conditioning


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


def _below(inputs, kernel, plain):
    """Residual over plain, the least favourable depth and scale."""

    def measure(found):
        one = found.condition_number.sel(kernel=kernel).isel(inputs=inputs)
        ratio = _residual(one) / one.sel(network=plain)
        # Rounding of the smallest eigenvalue, relative to it.
        error = ratio * 1e-14 * np.maximum(_residual(one), 1)
        return exact(ratio, error.values)

    return measure


DEPTHS = ("as many layers as blocks, L", "2L + 1 layers, as many convolutions")
CLAIMS = [
    Claim(
        name="decay",
        statement="eigenvalues of plain and residual kernels fall by the same power: "
        "difference of exponents, L = {depth}, images of two pixels on circles, even "
        "frequencies {first} to {last}",
        source="abstract: decay at a similar rate with and without skip connections",
        known="read",
        of="decay",
        measure=_difference,
        predicted=0.0,
        tolerance=0.05,
        reason="0.05: finite frequencies",
        figure="decay",
    ),
    Claim(
        name="decay",
        statement="that power is −3, one more than the dimension of the torus: the "
        "kernels have a cone at equal images",
        source="our own expansion at small angles",
        known="derived",
        of="decay",
        measure=_exponents,
        predicted=-3.0,
        tolerance=0.1,
        reason="terms of relative order L/k",
        figure="decay",
    ),
    *(
        Claim(
            name="locality",
            statement="residual kernels are more local: eigenvalue of products of "
            "neighbouring pixels over that of pixels farthest apart, over the same in "
            f"plain networks of {depth}, {{pixels}} pixels, the least over L",
            source="abstract: residual kernels are more locally biased",
            known="read",
            of="locality",
            measure=functools.partial(_more_local, plain=plain),
            predicted=1.0,
            side="above",
            reason="the sign of the difference",
            figure="locality",
        )
        for plain, depth in zip(PLAIN, DEPTHS, strict=True)
    ),
    *(
        Claim(
            name="conditioning",
            statement="residual Gram matrices have the smaller condition number: "
            f"residual over plain of {depth}, {kernel.upper()}, {images}, the largest "
            "over L to {deepest}",
            source="abstract: favourable condition numbers at finite depths",
            known="read",
            of="conditioning",
            measure=_below(inputs, kernel, plain),
            predicted=1.0,
            side="below",
            reason="the sign of the difference",
            figure="conditioning",
        )
        for kernel in ("ntk", "nngp")
        for inputs, images in enumerate(
            ("{images} random images", "{images} images of {data}")
        )
        for plain, depth in zip(PLAIN, DEPTHS, strict=True)
    ),
]

# ---------------------------------------------------------------------------- figures


def draw_decay(found):
    """Eigenvalues against the frequency, in both directions."""
    panels = drawing.new_axes(1, 2, height=2.6, sharey=True)
    with drawing.style():
        for ax, direction in zip(panels.flat, found.direction.values, strict=True):
            one = found.eigenvalue.sel(direction=direction)
            for name, look in looks(found.network.values).items():
                own = look | {"markersize": 3, "linestyle": ""}
                ax.plot(found.frequency, one.sel(network=name), **own, label=name)
            k = found.frequency.values[-8:].astype(float)
            last = float(one.isel(network=0, frequency=-1))
            line = 2 * last * (k / k[-1]) ** -3
            drawing.theory_line(ax, k, line, "theory, ∝ k⁻³")
            drawing.log_axis(ax.xaxis, steps=(1, 2, 5))
            drawing.log_axis(ax.yaxis)
            ax.yaxis.set_major_formatter("{x:.0e}")
            ax.set_title(f"frequency in {direction}")
            ax.set_xlabel("frequency k, even")
        panels[0, 0].set_ylabel("eigenvalue of the NTK")
    drawing.figure_legend(panels)
    return panels


def draw_locality(found):
    """Eigenvalues by distance of the pixels, and near over far against depth."""
    panels = drawing.new_axes(1, 2, height=2.6)
    left, right = panels.flat
    middle = found.depth.values[len(found.depth) // 2]
    ratio = _near_over_far(found)
    with drawing.style():
        for name, look in looks(found.network.values).items():
            one = found.eigenvalue.sel(network=name, depth=middle)
            left.plot(found.distance, one / one[0], **look, label=name)
            right.plot(found.depth, ratio.sel(network=name), **look, label=name)
        left.set_xticks(found.distance.values)
        left.set_xlabel("distance of the two pixels")
        left.set_ylabel("eigenvalue / that of neighbours")
        left.set_title(f"L = {middle}")
        right.set_xlabel("depth L")
        right.set_ylabel("neighbours / farthest apart")
        drawing.width_axes(right, found.depth.values)
        drawing.log_axis(left.yaxis, steps=(1, 2, 5))
    drawing.figure_legend(panels)
    return panels


def draw_conditioning(found):
    """Condition numbers against depth."""
    panels = drawing.new_axes(
        len(found.kernel), len(found.inputs), height=2.2, sharex=True
    )
    dashes = dict(zip(found.readout.values, ("-", ":"), strict=False))
    with drawing.style():
        for row, kernel in zip(panels, found.kernel.values, strict=True):
            for ax, inputs in zip(row, found.inputs.values, strict=True):
                for name, look in looks(found.network.values).items():
                    for readout, dash in dashes.items():
                        one = found.condition_number.sel(
                            kernel=kernel,
                            inputs=inputs,
                            network=name,
                            readout=readout,
                        )
                        word = ", pooled" if readout == "pool" else ""
                        own = look | {"linestyle": dash, "markersize": 3}
                        ax.plot(found.depth, one, **own, label=name + word)
                drawing.width_axes(ax, found.depth.values)
                ax.set_title(f"{kernel.upper()}, {inputs} images")
            row[0].set_ylabel("condition number")
        for ax in panels[-1]:
            ax.set_xlabel("depth L")
    drawing.figure_legend(panels)
    return panels


FIGURES = {
    "conditioning": Figure(
        of="conditioning",
        draw=draw_conditioning,
        title="Condition numbers of kernels between {images} images, against depth",
        caption="Gram matrices of plain and residual convolutional kernels of equal "
        "depth on the same images: of {data}, and random ones of the same size.",
    ),
    "locality": Figure(
        of="locality",
        draw=draw_locality,
        title="Eigenvalues of products of two pixels, by their distance",
        caption="Images of a row of {pixels} pixels, each one of four points of a "
        "circle: the eigenvalue of frequency 1 in two pixels, a mean over pairs at that"
        " distance (left), and neighbours over the largest distance (right).",
    ),
    "decay": Figure(
        of="decay",
        draw=draw_decay,
        title="Eigenvalues on images of two pixels, L = {depth}",
        caption="Each pixel is a point of a circle, and eigenvalues are the kernel's "
        "Fourier coefficients: frequencies (k, 0) (left) and (k, k) (right).",
    ),
}


def answer(results, entries):
    """From the exponents and how many of the comparisons came out as claimed."""
    found = results["decay"]
    away = _difference(found).values
    local = _more_local(results["locality"], LAYERS).values
    text = (
        "The power by which eigenvalues fall differs by "
        f"{float(np.abs(away).max()):.2g} at most, and residual kernels favour "
        f"neighbouring pixels {local.min():.2g} to {local.max():.2g} times as much as "
        "plain ones of as many convolutions."
    )
    if "conditioning" in results:
        one = results["conditioning"].condition_number
        ratio = _residual(one) / one.sel(network=LAYERS)
        shares = ((ratio < 1).mean(set(ratio.dims) - {"kernel"}) * 100).to_series()
        text += (
            f" Their Gram matrices have the smaller condition number in "
            f"{shares['nngp']:.0f} % of the comparisons of NNGPs, and in "
            f"{shares['ntk']:.0f} % of those of NTKs."
        )
    return text


STUDY = Study(
    name="barzilai2023",
    title="A kernel perspective of skip connections in convolutional networks",
    reference="""@inproceedings{barzilai2023,
  author = {Daniel Barzilai and Amnon Geifman and Meirav Galun and Ronen Basri},
  title = {A kernel perspective of skip connections in convolutional networks},
  booktitle = {International Conference on Learning Representations},
  year = {2023},
  note = {arXiv:2211.14810},
}""",
    question="What do skip connections change in the kernels of convolutional "
    "networks?",
    summary="With or without skip connections the eigenvalues of convolutional kernels "
    "fall polynomially at a similar rate. Residual kernels are more local, and at "
    "finite depth their Gram matrices are better conditioned.",
    answer=answer,
    measurements={
        "conditioning": Measurement(
            measure=conditioning,
            full={
                "networks": list(NETWORKS),
                "images": 60,
                "depths": [1, 2, 3, 5, 10, 20, 50],
                "readouts": ["flatten", "pool"],
            },
            quick={
                "networks": [*PLAIN, "γ = 1/2"],
                "images": 40,
                "depths": [1, 3, 10, 50],
                "readouts": ["flatten"],
            },
            data="images",
        ),
        "locality": Measurement(
            measure=locality,
            full={
                "networks": list(NETWORKS),
                "pixels": 5,
                "depths": [2, 5, 10, 20, 50],
            },
            quick={"networks": [*PLAIN, "γ = 1/2"], "pixels": 4},
        ),
        "decay": Measurement(
            measure=decay,
            full={
                "networks": ["plain", "α = 1", "γ = 1/2"],
                "nodes": 513,
                "depth": 3,
                "first": 32,
            },
            quick={"networks": ["plain", "γ = 1/2"], "nodes": 257, "first": 16},
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=32, full=180),
)
