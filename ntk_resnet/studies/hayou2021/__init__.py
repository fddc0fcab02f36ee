"""Hayou et al. 2021: scales of the branches that keep deep residual networks stable."""

import numpy as np

from ntk_resnet.studies.hayou2021 import kernels, moments
from ntk_resnet.studies.ledger import all_hold
from ntk_resnet.studies.study import Budget, Study


def answer(results, entries):
    """From the second moments, eigenvalues, and steps of the decreasing scheme."""
    found, slow = results["growth"], results["decreasing"]
    last = found.sel(block="preactivation").isel(depth=-1)
    one, half = (float(last.log_moment.sel(scheme=s)) for s in ("α = 1", "γ = 1/2"))
    squares = float(last.square_sum.sel(scheme="decreasing"))
    small = float(results["smallest"].uniform.isel(depth=-1).min())
    steps = slow.step.isel(cosine=0).values[[0, -1]]
    stable = all_hold(entries, "9a", "9e", "9c-settles", "9c-positive")
    slowly = all_hold(entries, "9d-slow", "9d-noted")
    return (
        ("By a bounded sum of squares: at" if stable else "Not as predicted: at")
        + f" depth {found.attrs['deepest']} the second moment is {np.exp(half):.3g} "
        f"times that of the input with scales 1/√L, e^({one:.0f}) times without a "
        "scale, and with 1/√L the smallest eigenvalue of the NTK's Gram matrices is "
        f"{small:.2g} or more. The squares of the decreasing scheme sum to "
        f"{squares:.3g} there, "
        + (
            "but its kernel converges like 1/ln L only"
            if slowly
            else "and its kernel moves"
        )
        + f": from depth L to 2L by {steps[0]:.3f}/ln²L at "
        f"L = {slow.attrs['first']}, by {steps[1]:.3f}/ln²L at "
        f"L = {slow.attrs['last']}."
    )


STUDY = Study(
    name="hayou2021",
    title="Stable ResNet",
    reference="""@inproceedings{hayou2021,
  author = {Soufiane Hayou and Eugenio Clerico and Bobby He and George Deligiannidis
    and Arnaud Doucet and Judith Rousseau},
  title = {Stable {ResNet}},
  booktitle = {International Conference on Artificial Intelligence and Statistics},
  year = {2021},
  note = {arXiv:2010.12859},
}""",
    question="How are the branches of a deep residual network to be scaled so that "
    "signals and gradients neither explode nor become alike?",
    summary="In a standard residual network second moments of features and gradients "
    "grow exponentially with depth, and the features of any two inputs become alike. "
    "Scales λ whose squares have a bounded sum, 1/√L in all blocks or decreasing from "
    "block to block, keep both bounded, and the limiting kernels are universal.",
    answer=answer,
    measurements={**moments.MEASUREMENTS, **kernels.MEASUREMENTS},
    claims=sorted([*moments.CLAIMS, *kernels.CLAIMS], key=lambda claim: claim.name),
    figures={
        name: {**moments.FIGURES, **kernels.FIGURES}[name]
        for name in (
            "growth",
            "correlations",
            "smallest",
            "rates",
            "decreasing",
            "networks",
        )
    },
    budget=Budget(quick=12, full=150),
)
