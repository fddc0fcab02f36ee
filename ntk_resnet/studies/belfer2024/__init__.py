"""Belfer et al. 2024: the spectrum of the tangent kernel of deep residual networks."""

from ntk_resnet.studies.belfer2024.claims import CLAIMS
from ntk_resnet.studies.belfer2024.figures import FIGURES
from ntk_resnet.studies.belfer2024.measurements import (
    FIT,
    bias,
    decay,
    descent,
    imbalance,
    parity,
    small_angles,
)
from ntk_resnet.studies.ledger import all_hold
from ntk_resnet.studies.study import Budget, Measurement, Study


def answer(results, entries):
    """From exponents over two ranges of degrees, and the ratios of both parities."""
    spectra, found = results["decay"], results["parity"]
    one, half = (float(found.ratio.sel(family=f)) for f in ("γ = 1", "γ = 1/2"))
    near = spectra.exponent.sel(dim=3, family="plain, L = 100")
    far = spectra.far_exponent.sel(family="plain, L = 100")
    as_fast = all_hold(entries, "8a-soon", "8a-far", "8e")
    soon = all_hold(entries, "8a-late")
    balanced = all_hold(entries, "8c")
    return (
        (
            "As fast as those of the Laplace kernel"
            if as_fast
            else "Not all as predicted"
        )
        + (", at once" if soon else ", but only at degrees beyond depth")
        + f": in three dimensions, in a plain network of L = 100, by the power "
        f"{near:.3g} at degrees {FIT} to {spectra.attrs['degree']} and {far:.3g} up to "
        f"{spectra.attrs['far']}. With branches scaled by 1/L degree 3 has {one:.2g} "
        f"of the eigenvalue of degree 2 at depth {found.attrs['depth']}, with 1/√L "
        f"{half:.2g}"
        + (", as predicted." if balanced else "; not all of that is as predicted.")
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
    "layers, in which odd degrees from 3 on are missing.",
    answer=answer,
    measurements={
        "decay": Measurement(
            measure=decay,
            full={"dims": [2, 3, 4, 6], "degree": 120, "far": 1500},
            quick={"dims": [2, 3], "far": 1000},
        ),
        "parity": Measurement(measure=parity, full={"depth": 50}),
        "imbalance": Measurement(measure=imbalance, full={"depth": 50, "degree": 285}),
        "bias": Measurement(
            measure=bias, full={"depth": 3, "variance": 0.1, "degree": 120}
        ),
        "small_angles": Measurement(
            measure=small_angles, full={"depths": [1, 3, 10, 30, 100]}
        ),
        "descent": Measurement(measure=descent, full={"points": 128, "depth": 50}),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=26, full=60),
)
