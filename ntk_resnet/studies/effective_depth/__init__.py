"""The effective depth: the sum of squared branch scales as the one parameter."""

import numpy as np

from ntk_resnet.studies.effective_depth import measurements as made
from ntk_resnet.studies.effective_depth.claims import (
    CLAIMS,
    decreasing,
    deepest,
    missed,
)
from ntk_resnet.studies.effective_depth.figures import FIGURES
from ntk_resnet.studies.effective_depth.measurements import WHOLE
from ntk_resnet.studies.study import Budget, Measurement, Study


def answer(results, _):
    """From the spread at one depth, and what is left of it at equal T."""
    found = results["scalings"]
    by_scale, by_profile = deepest(found, "scale"), deepest(found, "profile")
    errors = by_scale.error.mean("seed").values
    left = float(np.abs(missed(by_profile)).max())
    low, high = float(by_scale.ntk.min()), float(by_scale.ntk.max())
    factor = errors.max() / errors.min()
    off = float(by_profile.distance.max())
    large = float(decreasing(found, WHOLE).distance[-1])
    growth = results["means"].log_growth.sel(kept="T").isel(value=-1)
    value, first, last = (
        float(growth.value),
        int(growth.depth[0]),
        int(growth.depth[-1]),
    )
    grown = float(growth[-1] / growth[0])
    return (
        f"At depth {found.attrs['longest']} NTKs at 45° lie between {low:.2f} and "
        f"{high:.2f}, and test errors differ by a factor of {factor:.0f}, by the scale "
        "of the branches. At equal T = Σa², however it is spread over the blocks, "
        f"kernels differ from one limit by {off:.1g} at most, test errors by "
        f"{left:.1%}; with a few large blocks kernels differ by {large:.1g}, and in "
        f"post-activation blocks of T = {value:g} the logarithm of the growth still "
        f"grows, {grown:.1f} times from L = {first} to {last}."
    )


STUDY = Study(
    name="effective_depth",
    title="Effective depth: one parameter for residual networks",
    reference="""@misc{ntk_resnet,
  title = {ntk\\_resnet: neural tangent kernels of residual networks},
  note = {a question of our own},
}""",
    question="How much of what depth and branch scale do to a residual network is "
    "decided by the one number T, the sum of the squared scales?",
    summary="Let a block add a branch of scale a. Where branches have zero mean and "
    "scales are small, the depth of the network and its scales enter in one number, "
    "T = Σa²: the signal grows by exp(T), paths have the mean length T, and the NTK "
    "follows an equation in which T is the time. For small T it is that of one block, "
    "for large T it tends to the constant 1/4 like 1/T. Which scales make up T, and in "
    "which order, matters to the next order only.",
    answer=answer,
    measurements={
        "scalings": Measurement(
            measure=made.scalings,
            full={
                "depths": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
                "profile_depths": [16, 64, 256, 1024],
                "times": [0.25, 1.0, 4.0, 16.0],
                "angles": 200,
                "seeds": 5,
                "train": 100,
            },
            quick={
                "depths": [1, 4, 16, 64, 256],
                "profile_depths": [16, 64, 256],
                "times": [0.25, 1.0, 4.0],
                "angles": 120,
            },
        ),
        "blocks": Measurement(
            measure=made.blocks,
            full={
                "depths": [16, 64, 256, 1024],
                "times": [0.25, 1.0, 4.0, 16.0],
                "angles": 100,
            },
            quick={"depths": [16, 64, 256], "times": [0.25, 1.0, 4.0], "angles": 60},
        ),
        "degeneracy": Measurement(
            measure=made.degeneracy,
            full={
                "times": [1.0, 10.0, 100.0, 1e3, 1e4, 1e5],
                "alpha": 0.01,
                "deep": [1, 10, 100, 1000, 10**4, 10**5, 10**6],
                "depth": 100,
            },
        ),
        "images": Measurement(
            measure=made.images,
            full={
                "networks": list(made.IMAGES),
                "depths": [4, 16, 64, 256],
                "gammas": [0.25, 0.5, 0.75, 1.0],
                "times": [0.25, 1.0, 4.0],
                "side": 4,
            },
            quick={
                "networks": ["circular, flatten"],
                "depths": [4, 16, 64],
                "times": [0.25, 1.0],
            },
        ),
        "means": Measurement(
            measure=made.means,
            full={
                "depths": [16, 64, 256, 1024],
                "times": [0.25, 1.0, 4.0],
                "angles": 60,
            },
            quick={"depths": [16, 32, 64, 128, 256, 512], "times": [0.25, 1.0]},
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=30, full=180),
)
