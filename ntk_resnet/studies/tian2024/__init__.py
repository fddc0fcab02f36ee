"""Tian and Yu 2024: a scale of the branches with which deep networks generalise."""

from ntk_resnet.studies.ledger import all_hold
from ntk_resnet.studies.study import Budget, Study
from ntk_resnet.studies.tian2024 import kernels, networks


def answer(results, entries):
    """From the errors at the largest depth, and those of finite networks."""
    found, trained = results["depths"], results["networks"]
    last = found.best.isel(depth=-1).mean("seed")
    errors = [f"{float(last.sel(family=f)):.2g} ({f})" for f in last.family.values]
    best = trained.best.mean("seed")
    each = [f"{float(best.sel(family=f)):.2g} ({f})" for f in best.family.values]
    noisy = results["interpolation"]
    share = float(noisy.best.mean() / noisy["last"].mean())
    kernels_do = all_hold(entries, "10a")
    networks_do = all_hold(entries, "10c")
    stops = all_hold(entries, "10d")
    return (
        ("One that falls faster than L^(−1/4)" if kernels_do else "Not quite as said")
        + f": at depth {found.attrs['deepest']:.0e} kernels leave at the best time, of "
        f"the variance of the target, {', '.join(errors)}. Finite networks of depth "
        f"{trained.attrs['depth']} on {trained.attrs['images']} "
        + ("are in that order" if networks_do else "are not in that order in all seeds")
        + f", {', '.join(each)}; on targets with noise of variance "
        f"{noisy.attrs['noise']} training "
        + ("has to stop early" if stops else "need not stop early in all seeds")
        + f", which leaves {share:.2g} times the error of interpolation."
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
