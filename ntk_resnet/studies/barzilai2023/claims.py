"""What skip connections should change, and what is seen."""

import functools

import numpy as np

from ntk_resnet.studies.barzilai2023.measurements import PLAIN, residual
from ntk_resnet.studies.ledger import Claim, Measured, exact, fitted


def _exponents(found):
    return fitted(found, "exponent")


def difference(found):
    """Exponents of residual networks minus the plain one's."""
    plain = found.sel(network="plain")
    rest = residual(found)
    away = rest.exponent - plain.exponent
    wide = sum((one.exponent_high - one.exponent_low) / 2 for one in (plain, rest))
    return Measured(away, away - wide, away + wide, "95 % of both fits, added")


def near_over_far(found):
    """Eigenvalues at distance 1 over those at the largest, by network and depth."""
    return found.eigenvalue.isel(distance=0) / found.eigenvalue.isel(distance=-1)


def more_local(found, plain):
    ratio = near_over_far(found)
    return exact(residual(ratio) / ratio.sel(network=plain), 1e-6)


def _below(inputs, kernel, plain):
    """Residual over plain, the least favourable depth and scale."""

    def measure(found):
        one = found.condition_number.sel(kernel=kernel).isel(inputs=inputs)
        ratio = residual(one) / one.sel(network=plain)
        # Rounding of the smallest eigenvalue, relative to it.
        error = ratio * 1e-14 * np.maximum(residual(one), 1)
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
        measure=difference,
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
            measure=functools.partial(more_local, plain=plain),
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
