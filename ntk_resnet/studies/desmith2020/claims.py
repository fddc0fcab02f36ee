"""What normalisation and small scales do to signals and to the depths that train."""

import math

import numpy as np

from ntk_resnet.studies.ledger import Claim, Measured, over_seeds

BN = "statistics of residual networks with batch normalisation"


def _slope(name, activation):
    """By how much a moment grows a block, from the first to the last."""

    def measure(found):
        one = found[name].sel(activation=activation).transpose("seed", "block").values
        return over_seeds((one[:, -1] - one[:, 0]) / (one.shape[1] - 1), 0)

    return measure


def _branch(activation):
    def measure(found):
        one = found.branch_second_moment.sel(activation=activation)
        return over_seeds(one.mean("block").values, 0)

    return measure


def _share(activation):
    """(l + 1) times the share of the branch, at the last block."""

    def measure(found):
        one = found.branch_share.sel(activation=activation).isel(block=-1)
        return over_seeds(one.values * (float(one.block) + 1), 0)

    return measure


def _path_length(activation):
    """The sum of the branches' shares, over the harmonic sum."""

    def measure(found):
        one = found.branch_share.sel(activation=activation)
        harmonic = np.sum(1 / (found.block.values + 1.0))
        return over_seeds(one.sum("block").values / harmonic, 0)

    return measure


def _at(kind, blocks, name="growth"):
    """The mean over networks after so many blocks, as over_seeds gives it."""

    def measure(found):
        at = found.attrs[blocks] - 1 if name == "growth" else 0
        one = found[name].sel(kind=kind).isel(block=at)
        return over_seeds(one.values, 0, "networks")

    return measure


def _doublings(name):
    """log2 of the mean over networks, a block."""

    def measure(found):
        value, low, high, what = _at("unnormalised", "doubling", name)(found)
        blocks = found.attrs["doubling"] - (name == "gradient")
        mean, least, most = np.log2(np.maximum([value, low, high], 1e-300)) / blocks
        return Measured(mean, least, most, what)

    return measure


def _half_of_the_blocks(found):
    one = found.path_length.sel(kind="over √2").values
    return over_seeds(one / (found.attrs["depth"] / 2), 0, "networks")


def largest(found, kind):
    """log2 of the largest depth at which some rate halves the loss, of each seed."""
    best = found.loss.sel(kind=kind).min("rate").transpose("seed", "depth").values
    depths = np.log2(found.depth.values)
    return np.max(np.where(best < 0.5, depths, 0.0), axis=1)


def _deeper(kind, other):
    """How many times two the one trains deeper; two steps of the grid settle it."""

    def measure(found):
        away = largest(found, kind) - largest(found, other)
        mean = float(away.mean())
        return Measured(mean, mean - 2, mean + 2, "two doublings of the depth")

    return measure


def _rates(found):
    """The largest over the smallest best rate of SkipInit, over depths, by seed."""
    loss = found.loss.sel(kind="SkipInit").transpose("seed", "depth", "rate").values
    best = found.rate.values[loss.argmin(axis=-1)]
    return over_seeds(best.max(axis=1) / best.min(axis=1), 0)


CLAIMS = [
    Claim(
        name="6a",
        statement="without normalisation the second moment doubles in each block: log₂ "
        "of its mean over networks of width {width} over {doubling} blocks",
        source="unnormalised residual networks",
        known="read",
        of="plain",
        measure=_doublings("growth"),
        predicted=1.0,
        tolerance=0.04,
        reason="what so many networks can tell",
        figure="plain",
    ),
    *(
        Claim(
            name=f"6b-{ending}-{activation}",
            statement=f"batch normalisation, {activation} blocks: the skip path's "
            f"{text} grows a block by so much, width {{width}}",
            source=BN,
            known="read",
            of="normalised",
            measure=_slope(name, activation),
            predicted=predicted,
            tolerance=0.05,
            reason="5 %: one batch as large as the width",
            figure="normalised",
        )
        for activation, name, ending, text, predicted in (
            ("linear", "second_moment", "skip", "square", 1),
            ("linear", "variance", "variance", "variance over the batch", 1),
            ("ReLU", "second_moment", "skip", "square", 1),
            (
                "ReLU",
                "variance",
                "variance",
                "variance over the batch",
                1 - 1 / math.pi,
            ),
            (
                "ReLU",
                "square_of_means",
                "mean",
                "square of its means over the batch",
                1 / math.pi,
            ),
        )
    ),
    *(
        Claim(
            name=f"6b-branch-{activation}",
            statement=f"batch normalisation, {activation} blocks: the branch's second "
            "moment is 1 in every block: mean over {depth}",
            source=BN,
            known="read",
            of="normalised",
            measure=_branch(activation),
            predicted=1.0,
            tolerance=0.05,
            reason="5 %: one batch as large as the width",
            figure="normalised",
        )
        for activation in ("linear", "ReLU")
    ),
    Claim(
        name="6c",
        statement="batch normalisation: block l holds the share 1/(l + 1) of the "
        "signal: l + 1 times it at l = {depth}, ReLU",
        source="normalisation biases blocks to the identity",
        known="read",
        of="normalised",
        measure=_share("ReLU"),
        predicted=1.0,
        tolerance=0.1,
        reason="10 %: one batch as large as the width",
        figure="normalised",
    ),
    Claim(
        name="6c-length",
        statement="batch normalisation: the mean length of paths is Σ 1/(l + 1), about "
        "the logarithm of the depth: the sum of shares over it, {depth} ReLU blocks",
        source="the shares of blocks",
        known="derived",
        of="normalised",
        measure=_path_length("ReLU"),
        predicted=1.0,
        tolerance=0.05,
        reason="5 %: one batch as large as the width",
    ),
    Claim(
        name="6d",
        statement="SkipInit with scales 1/√d: the second moment grows by e over the "
        "network: after d = {depth} blocks",
        source="SkipInit",
        known="derived",
        of="plain",
        measure=_at("SkipInit", "depth"),
        predicted=math.e,
        tolerance=0.1 * math.e,
        reason="10 %: (1 + 1/d)^(d), and so many networks",
        figure="plain",
    ),
    Claim(
        name="6d-length",
        statement="trunk and branch over √2: paths have the mean length d/2: the sum "
        "of shares over it, d = {depth}",
        source="effective depth of networks over √2",
        known="read",
        of="plain",
        measure=_half_of_the_blocks,
        predicted=1.0,
        tolerance=0.1,
        reason="10 %: shares at width {width} fluctuate",
    ),
    Claim(
        name="6f",
        statement="without normalisation derivatives double backwards in each block: "
        "log₂ of the mean of their second moment over {doubling} blocks less one",
        source="the backward mirror of the second moment",
        known="derived",
        of="plain",
        measure=_doublings("gradient"),
        predicted=1.0,
        tolerance=0.1,
        reason="what so many networks can tell",
        figure="plain",
    ),
    *(
        Claim(
            name=f"6e-{ending}",
            statement=f"{kind} trains deeper than networks {other}: doublings of the "
            "largest depth, to {most}, at which some rate halves the loss in {steps} "
            "steps",
            source="depths that train, in order",
            known="summary",
            of="training",
            measure=_deeper(kind, other),
            predicted=0.0,
            side="above",
            reason="order only: two doublings settle it",
            figure="training",
        )
        for ending, kind, other in (
            ("bn-unnormalised", "BN", "unnormalised"),
            ("skipinit-unnormalised", "SkipInit", "unnormalised"),
            ("bn-root", "BN", "over √2"),
            ("skipinit-root", "SkipInit", "over √2"),
        )
    ),
    Claim(
        name="6e-rate",
        statement="SkipInit: the best rate hardly depends on the depth: largest over "
        "smallest of all depths to {most}",
        source="best rates of SkipInit",
        known="read",
        of="training",
        measure=_rates,
        predicted=4.0,
        side="below",
        reason="the paper's: within four times",
        figure="training",
    ),
]
