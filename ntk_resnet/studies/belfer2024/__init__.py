"""Belfer et al. 2024: the spectrum of the tangent kernel of deep residual networks."""

from ntk_resnet.studies.belfer2024.claims import CLAIMS
from ntk_resnet.studies.belfer2024.figures import FIGURES
from ntk_resnet.studies.belfer2024.measurements import (
    decay,
    descent,
    parity,
    small_angles,
)
from ntk_resnet.studies.study import Budget, Measurement, Study


def answer(results, _):
    """From the ratios of both parities."""
    found = results["parity"]
    one, half = (float(found.ratio.sel(family=f)) for f in ("γ = 1", "γ = 1/2"))
    return (
        "As fast as those of the Laplace kernel, whatever the depth: by the power −d "
        "of the degree on the sphere in d dimensions. But with branches scaled by 1/L "
        f"odd degrees are nearly absent (degree 3 has {one:.2g} of the eigenvalue of "
        f"degree 2 at depth {found.attrs['depth']}), and 1/√L brings them back "
        f"({half:.2g})."
    )


STUDY = Study(
    name="belfer2024",
    title="Spectral analysis of the neural tangent kernel for deep residual networks",
    reference="""@article{belfer2024,
  author = {Yuval Belfer and Amnon Geifman and Meirav Galun and Ronen Basri},
  title = {Spectral analysis of the neural tangent kernel for deep residual networks},
  journal = {Journal of Machine Learning Research},
  volume = {25},
  year = {2024},
  note = {arXiv:2104.03093},
}""",
    question="How fast do the eigenvalues of a deep residual network's kernel fall, "
    "and which functions does it learn late?",
    summary="On the sphere the kernel's eigenfunctions are spherical harmonics. Their "
    "eigenvalues fall with the degree by the same power as for plain networks and for "
    "the Laplace kernel. What depth changes is the shape: plain kernels become spiky, "
    "residual ones with branches scaled by L^(−γ), γ > 1/2, tend to that of two "
    "layers, in which odd functions are missing.",
    answer=answer,
    measurements={
        "decay": Measurement(
            measure=decay,
            full={"dims": [2, 3, 4, 6], "degree": 120, "far": 1500},
            quick={"dims": [2, 3], "far": 1000},
        ),
        "parity": Measurement(measure=parity, full={"depth": 50}),
        "small_angles": Measurement(
            measure=small_angles, full={"depths": [1, 3, 10, 30, 100]}
        ),
        "descent": Measurement(measure=descent, full={"points": 128, "depth": 50}),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=20, full=60),
)
