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
from ntk_resnet.studies.ledger import all_hold
from ntk_resnet.studies.study import Budget, Measurement, Study


def answer(results, entries):
    """From the spread at one depth, and what is left of it at equal T."""
    found = results["scalings"]
    by_scale, by_profile = deepest(found, "scale"), deepest(found, "profile")
    errors = by_scale.error.mean("seed").values
    left = float(np.abs(missed(by_profile)).max())
    low, high = float(by_scale.ntk.min()), float(by_scale.ntk.max())
    factor = errors.max() / errors.min()
    gone = float(by_profile.distance.max())
    large = float(decreasing(found, WHOLE).distance[-1])
    growth = results["means"].log_growth.sel(kept="T").isel(value=-1)
    first, last = (int(growth.depth[k]) for k in (0, -1))
    grown = float(growth[-1] / growth[0])
    decides = all_hold(
        entries, "growth", "path-length", "kernel", "block", "error", "images"
    )
    breaks = all_hold(entries, "means", "large-blocks", "large-scales")
    return (
        ("Nearly all, where scales are small:" if decides else "Not all that we say:")
        + f" at depth {found.attrs['longest']} NTKs at 45° lie between {low:.2f} and "
        f"{high:.2f}, and test errors differ by a factor of {factor:.0f}, by the scale "
        f"of the branches, while at equal T = Σa² kernels of depth "
        f"{int(by_profile.depth[0])} differ from one limit by {gone:.1g} at most, test "
        f"errors by {left:.1%}, however T is spread. "
        + ("It breaks" if breaks else "It breaks, not wholly as said,")
        + f" with a few large blocks, where kernels differ by {large:.1g}, and in "
        f"post-activation blocks of T = {float(growth.value):g}, where the logarithm "
        f"of the growth is {grown:.1f} times as large at L = {last} as at L = {first}."
    )


# Six are deep enough for steps of 1/16: from 128 on at T = 4, from 512 on at T = 16.
PROFILE_DEPTHS = [16, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072]

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
                "profile_depths": PROFILE_DEPTHS,
                "times": [0.25, 1.0, 4.0, 16.0],
                "angles": 210,
                "seeds": 5,
                "train": 100,
            },
            quick={
                "depths": [1, 4, 16, 64, 256],
                "profile_depths": PROFILE_DEPTHS[:9],
                "times": [0.25, 1.0, 4.0],
                "angles": 120,
            },
        ),
        "blocks": Measurement(
            measure=made.blocks,
            full={
                "depths": PROFILE_DEPTHS,
                "times": [0.25, 1.0, 4.0, 16.0],
                "angles": 100,
            },
            quick={
                "depths": PROFILE_DEPTHS[:9],
                "times": [0.25, 1.0, 4.0],
                "angles": 60,
            },
        ),
        "degeneracy": Measurement(
            measure=made.degeneracy,
            full={
                "times": [1.0, 10.0, 100.0, 1e3, 1e4, 1e5],
                "alpha": 0.01,
                "deep": [1, 10, 100, 1000, 10**4, 10**5, 10**6],
            },
        ),
        "images": Measurement(
            measure=made.images,
            full={
                "networks": list(made.IMAGES),
                "depths": [16, 24, 32, 48, 64, 80, 96, 128, 192, 256],
                "gammas": [0.25, 0.5, 0.75, 1.0],
                "times": [0.25, 1.0, 4.0],
                "side": 4,
            },
            quick={
                "networks": ["circular, flatten"],
                "depths": [8, 12, 16, 24, 32, 48],
                "times": [0.25, 0.5],
            },
        ),
        "means": Measurement(
            measure=made.means,
            full={
                "depths": [16, 32, 64, 128, 256, 512, 1024, 2048],
                "times": [0.25, 1.0, 4.0],
                "angles": 60,
            },
            quick={"depths": [16, 32, 64, 128, 256, 512, 1024], "times": [0.25, 1.0]},
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=25, full=180),
)
