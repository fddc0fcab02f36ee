"""The branch of each kind of block once more: formulas that the tests compare with."""

BRANCHES = {
    "two_layer": lambda w, phi, v: lambda h: v(phi(w(h))),
    "preactivation": lambda w, phi, v: lambda h: w(phi(h)),
    "postactivation": lambda w, phi, v: lambda h: phi(w(h)),
    "full_preactivation": lambda w, phi, v: lambda h: v(phi(w(phi(h)))),
}
"""From W with its bias, the activation and V; a new block is one line here."""


def branch_of(block, w, phi, v):
    """The branch, of whatever the three are functions of."""
    if block not in BRANCHES:
        raise KeyError(f"no formula for block={block!r}: add it to tests/branches.py.")
    return BRANCHES[block](w, phi, v)
