"""The report's sections on convolutional kernels of images."""

import functools
from collections.abc import Iterable

from ntk_resnet.plot import study, study_images
from ntk_resnet.report import tables
from ntk_resnet.report.section import Section, rows_section


def sections(results) -> Iterable[Section]:
    if "images" in results:
        yield _images_section(results["images"])
    if "image_rates" in results:
        yield _image_rates_section(results["image_rates"])
    if "image_networks" in results:
        yield rows_section(
            "image_networks",
            "Mean kernels of finite convolutional networks, less the closed form",
            "Mean empirical kernels of {networks} random networks of depth 3 and "
            "{width} channels on three images of {data} made 4 x 4 pixels, less the "
            "closed form, in standard errors of the mean: a point an entry. See: all "
            "within the shaded three standard errors; entries move together.",
            study.agreement,
            results["image_networks"],
            ["network", "kernel"],
            {
                "network": "network",
                "kernel": "kernel",
                "worst": "largest, in s.e.",
                "resolved": "largest s.e. / kernel",
            },
        )


def _image_rates_section(found):
    depth, last = found.plain_depth.values, int(found.plain_depth[-1])
    table = [
        [
            f"{padding}, {readout}",
            *(
                tables.number(float(found[name].sel(at).isel(plain_depth=k).mean()), 5)
                for name in ("plain_ntk", "plain_gap")
                for k in (0, -1)
            ),
            tables.number(float(found.plain_limit.sel(at)), 5),
        ]
        for padding in found.padding.values
        for readout in found.readout.values
        for at in [{"padding": padding, "readout": readout}]
    ]
    heads = [
        f"{name}, L = {at}" for name in ("NTK", "NNGP gap") for at in (depth[0], last)
    ]
    return Section(
        "image_rates",
        "Rates of convergence with depth, between images",
        "Pairs of {images} images of {data} made 4 x 4 pixels. Left: the NTK of plain "
        "networks tends to 1/4, pooled and circular to 1/(1+3/P) with P = {pixels} "
        "pixels; dashed (3/8 ln L)/L. Middle: the gap of their NNGP; dashed 9π²/(2L²) "
        "and 1/P of it, which is that of pooled kernels with circular padding. "
        "Right: largest distance of the NTK to that of one block (γ = 1), and largest "
        "change with ten times the depth (γ = 1/2), zero padding; dashed 1/L. See: "
        "lines parallel to the dashed ones, so plain kernels tend to a constant with "
        "either readout, residual ones to a kernel that tells images "
        "apart.".format_map(found.attrs),
        functools.partial(study_images.image_rates, found),
        tables.table(["plain", *heads, "limit of the NTK"], table),
    )


def _images_section(found):
    return rows_section(
        "images",
        "Kernels between images and regression against depth",
        "Convolutional kernels of {rows} images of {data} ({size} pixels) against "
        "depth, above with a flattened readout, below with the mean over pixels; zero "
        "padding, but with circular padding. Left: NTK between images, "
        "mean and one standard deviation; dashed the limits of plain networks, 1/4, "
        "and pooled and circular 1/(1 + 3/P) with P pixels. Middle: gap of the NNGP, "
        "beside 9π²/(2L²) of fully connected plain networks. Right: kernel ridge "
        "regression, {train} images for training, {test} for testing, 95 % intervals "
        "over splits. See: flattened, plain networks and α = 1 fall towards 1/4, as "
        "fully connected ones do. Pooled, all begin near 1, and what depth takes away "
        "is the spread over pairs: the kernel becomes constant long before its value "
        "settles, near 1 with circular padding, with zero padding on a slow way "
        "to 1/4. The error rises towards that of a constant in both; with γ = 1 and "
        "γ = 1/2 kernel and error stay.",
        study_images.images,
        found,
        ["readout", "family", "depth"],
        {
            "readout": "readout",
            "family": "network",
            "depth": "depth",
            "ntk_mean": "mean NTK",
            "ntk_spread": "its spread",
            "nngp_gap": "NNGP gap",
            "condition_number": "condition number",
            "effective_rank": "effective rank",
            "mse_mean": "MSE / variance",
            "accuracy_mean": "accuracy",
        },
    )
