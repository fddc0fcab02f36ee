"""What is asked of eigenvalues however they were found, and checks of the arguments."""

import numpy as np

from ntk_resnet._checks import check_count
from ntk_resnet._inputs import check_array


def relative_log(values, largest):
    """`v ln(v / largest)`, whose sum S gives the effective rank.

    It is `trace / largest * exp(-S / trace)`: written so, a leading eigenvalue adds
    nothing to the sum, nor to the scatter of an estimate.
    """
    values = np.clip(np.asarray(values, float), 0, None)
    return values * np.log(np.where(values > 0, values / largest, 1))


def log_shifted(values, shift):
    """`ln(v + shift)`; where that is 0, minus infinity."""
    with np.errstate(divide="ignore"):
        return np.log(np.clip(np.asarray(values, float), 0, None) + shift)


def refuse_negative(smallest, bound):
    """Raises where an eigenvalue is further below zero than rounding explains."""
    if smallest < -bound:
        raise ValueError(
            f"matrix has the eigenvalue {smallest:.3g}, below zero by more than "
            f"rounding ({bound:.1g}); it is not a kernel matrix."
        )


def standard_error(values):
    """Of the mean over the first axis."""
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))


def check_top(top, most):
    """How many leading eigenvectors are wanted; raises if there are fewer."""
    if check_count("top", top) > most:
        raise ValueError(f"top must be at most {most} here, got {top}; ask for fewer.")
    return top


def check_targets(targets, n):
    """The targets as `(n, outputs)`, up to a scale of each output."""
    targets = np.asarray(check_array("targets", targets, f"({n},) or ({n}, outputs)"))
    targets = targets.reshape(n, -1).astype(float)
    if not targets.any(axis=0).all():
        raise ValueError("targets are zero in one output, whose power lies nowhere.")
    return targets / np.abs(targets).max(axis=0)  # only shares count: no overflow
