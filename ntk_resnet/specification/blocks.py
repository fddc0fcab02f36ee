"""What layers, and the branches of residual blocks, are made of.

A branch is a sequence of operations on the features, read from the input on. All
realisations read it: closed forms, neural-tangents, Flax, images, eigenvalues on the
sphere. So a new block is one entry in `BLOCKS`.
"""

import itertools

INNER = "inner"
"""Weights W of variance `weight_variance / fan_in`, and their bias."""
ACTIVATE = "activate"
"""The activation."""
OUTER = "outer"
"""Weights V of variance `1 / fan_in`, without a bias."""

LAYER = (INNER, ACTIVATE)
"""A layer of a plain network."""

BLOCKS = {
    "two_layer": (INNER, ACTIVATE, OUTER),
    "preactivation": (ACTIVATE, INNER),
    "postactivation": (INNER, ACTIVATE),
    "full_preactivation": (ACTIVATE, INNER, ACTIVATE, OUTER),
}
"""Branches by name, each as `check_branch` asks for."""


def check_branch(operations: tuple[str, ...]) -> None:
    """That the closed forms hold: activations are applied to Gaussian features.

    Raises:
        ValueError: a word is unknown; W does not stand there once, or V twice or before
            W; there is no activation, or one right behind another; or the branch begins
            and ends in one, so that features behind a block are no longer Gaussian when
            the next one activates them.
    """
    unknown = set(operations) - {INNER, ACTIVATE, OUTER}
    weights = [name for name in operations if name != ACTIVATE]
    pairs = itertools.pairwise(operations)
    ends = {*operations[:1], *operations[-1:]}
    if (
        unknown
        or weights not in ([INNER], [INNER, OUTER])
        or ACTIVATE not in operations
        or (ACTIVATE, ACTIVATE) in pairs
        or ends == {ACTIVATE}
    ):
        raise ValueError(
            f"the branch {operations!r} has no closed form; it must have 'inner' once, "
            "'outer' at most once and behind it, activations between or beside them, "
            "and not one at both ends."
        )


for _operations in BLOCKS.values():
    check_branch(_operations)


def activations_behind(operations: tuple[str, ...]) -> list[int]:
    """How many activations of a branch are behind each of its weights, in order."""
    return [
        operations[place:].count(ACTIVATE)
        for place, operation in enumerate(operations)
        if operation != ACTIVATE
    ]
