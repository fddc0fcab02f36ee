"""Tian and Yu 2024: a scale of the branches with which deep networks generalise."""

import numpy as np

from ntk_resnet.studies.study import Budget, Study
from ntk_resnet.studies.tian2024 import kernels, networks


def answer(results, _):
    """From the errors at the largest depth, and those of finite networks."""
    found, trained = results["depths"], results["networks"]
    last = found.best.isel(depth=-1).mean("seed")
    errors = [f"{float(last.sel(family=f)):.2g} ({f})" for f in last.family.values]
    best = trained.best.mean("seed")
    least = str(best.family.values[int(np.argmin(best.values))])
    noisy = results["interpolation"]
    share = float(noisy.best.mean() / noisy["last"].mean())
    return (
        f"At depth {found.attrs['deepest']:.0e}, α = L^(−γ), gradient descent with the "
        "kernel leaves at the best time, of the variance of the target, "
        f"{', '.join(errors)}; of finite networks of depth {trained.attrs['depth']} on "
        f"{trained.attrs['images']} those of {least} have the least error, "
        f"{float(best.min()):.2g}, and those of α = 1 "
        f"{float(best.sel(family='α = 1')):.2g}. On targets with noise of variance "
        f"{noisy.attrs['noise']} stopping in time leaves {share:.2g} times the error "
        "of interpolation."
    )


STUDY = Study(
    name="tian2024",
    title="Improve generalization ability of deep wide residual network with a "
    "suitable scaling factor",
    reference="""@misc{tian2024,
  author = {Songtao Tian and Zixiong Yu},
  title = {Improve Generalization Ability of Deep Wide Residual Network with A
    Suitable Scaling Factor},
  year = {2024},
  note = {arXiv:2403.04545},
}""",
    question="Which scale of the branches lets very deep residual networks generalise, "
    "and does training have to stop early?",
    summary="With a constant scale α, or one that falls slowly with depth, the tangent "
    "kernel of a deep residual network degenerates and no target can be learned. With "
    "one that falls fast it tends to the kernel of a shallow network, and kernel "
    "regression that stops early attains the minimax rate.",
    answer=answer,
    measurements={**kernels.MEASUREMENTS, **networks.MEASUREMENTS},
    claims=[*kernels.CLAIMS, *networks.CLAIMS],
    figures={
        name: {**kernels.FIGURES, **networks.FIGURES}[name]
        for name in ("depths", "networks", "curve", "interpolation")
    },
    budget=Budget(quick=40, full=600),
)
