"""What skip connections should change, and what is seen."""

import functools

import numpy as np

from ntk_resnet.studies.barzilai2023.measurements import PLAIN, residual
from ntk_resnet.studies.ledger import BOTH_HALVES, Claim, exact, fitted

ROUNDING = "rounding of the kernels, 4 ε a convolution"


def _rounding_of(depth):
    """Of a normalised kernel between images, of 2L + 1 convolutions at most.

    `nr.sweep_depth` has it right to a few eps times the depth.
    """
    return 4 * (2 * depth + 1) * float(np.finfo(float).eps)


def difference(found):
    """Exponents of residual networks minus the plain one's."""
    return fitted(residual(found), "difference", BOTH_HALVES)


def near_over_far(found):
    """Eigenvalues at distance 1 over those at the largest, by network and depth."""
    return found.eigenvalue.isel(distance=0) / found.eigenvalue.isel(distance=-1)


def more_local(found, plain):
    """The same of residual networks over plain ones."""
    ratio, off = near_over_far(found), _rounding(found)
    values = residual(ratio) / ratio.sel(network=plain)
    error = values * (residual(off) + off.sel(network=plain))
    return exact(values, error.values, ROUNDING)


def _rounding(found):
    """A bound of the relative error of `near_over_far`; eigenvalues are means."""
    ends = found.eigenvalue.isel(distance=[0, -1])
    return _rounding_of(found.depth) * (1 / ends).sum("distance")


def _below(inputs, kernel, plain):
    """Residual over plain, each readout, depth and scale."""

    def measure(found):
        one = found.condition_number.sel(kernel=kernel).isel(inputs=inputs)
        ratio = residual(one) / one.sel(network=plain)
        # That of the matrix's norm, over the smallest eigenvalue; the largest is >= 1.
        size = found.attrs["images"] * _rounding_of(found.depth)
        error = ratio * size * (residual(one) + one.sel(network=plain))
        return exact(ratio, error.values, ROUNDING)

    return measure


DEPTHS = {
    "layers": "as many layers as blocks, L",
    "convolutions": "2L + 1 layers, as many convolutions",
}

CLAIMS = [
    Claim(
        name="decay-difference",
        statement="eigenvalues of plain and residual kernels fall by the same power: "
        "difference of exponents, L = {depth}, images of two pixels on circles, even "
        "frequencies {first} to {last}",
        source="abstract: decay at a similar rate with and without skip connections",
        known="read",
        of="decay",
        measure=difference,
        predicted=0.0,
        tolerance=0.05,
        reason="0.05: finite frequencies",
        figure="decay",
    ),
    Claim(
        name="decay-exponent",
        statement="eigenvalues of plain and residual kernels fall with the power −3 of "
        "the frequency, one more than the dimension of the torus: the kernels have a "
        "cone at equal images",
        source="expansion of the kernel at small angles",
        known="derived",
        of="decay",
        measure=lambda found: fitted(found, "exponent", BOTH_HALVES),
        predicted=-3.0,
        tolerance=0.1,
        reason="terms of relative order L/k",
        figure="decay",
    ),
    *(
        Claim(
            name=f"locality-{short}",
            statement="residual kernels are more local: eigenvalue of products of "
            "neighbouring pixels over that of pixels farthest apart, over the same in "
            f"plain networks of {depth}, {{pixels}} pixels, the least over L",
            source="abstract: residual kernels are more locally biased",
            known="read",
            of="locality",
            measure=functools.partial(more_local, plain=plain),
            predicted=1.0,
            side="above",
            reason="the sign of the difference",
            figure="locality",
        )
        for plain, (short, depth) in zip(PLAIN, DEPTHS.items(), strict=True)
    ),
    *(
        Claim(
            name=f"conditioning-{kernel}-{kind}-{short}",
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
        for inputs, (kind, images) in enumerate(
            {
                "random": "{images} random images",
                "data": "{images} images of {data}",
            }.items()
        )
        for plain, (short, depth) in zip(PLAIN, DEPTHS.items(), strict=True)
    ),
]
