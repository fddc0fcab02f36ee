"""The public names inside public modules."""

import ntk_resnet as nr

MODULES = ("finite", "curvature", "bounds", "signal")


def public_in(module):
    """What a user finds in one: its own names, or what a package hands on."""
    home = "ntk_resnet." if module == "finite" else getattr(nr, module).__name__
    for name, value in vars(getattr(nr, module)).items():
        own = str(getattr(value, "__module__", "")).startswith(home)
        if own and callable(value) and not name.startswith("_"):
            yield name
