"""What layers, and the branches of residual blocks, are made of.

A branch is a sequence of operations on the features, read from the input on. All that
knows networks reads it: closed forms, neural-tangents, Flax, images, eigenvalues on the
sphere. So a new block is one entry in `BLOCKS`.
"""

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
"""Branches by name. Each of the weights stands at most once in a branch."""


def activations_behind(operations: tuple[str, ...]) -> list[int]:
    """How many activations of a branch are behind each of its weights, in order."""
    return [
        operations[place:].count(ACTIVATE)
        for place, operation in enumerate(operations)
        if operation != ACTIVATE
    ]
