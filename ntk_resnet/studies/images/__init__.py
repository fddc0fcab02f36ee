"""Convolutional kernels: what of the fully connected theory holds between images."""

from ntk_resnet.studies.images import finite, kernels, rates
from ntk_resnet.studies.ledger import all_hold
from ntk_resnet.studies.study import Budget, Study


def answer(results, entries):
    """From the spread of kernels between images, and the errors."""
    parts = []
    for name in ("flattened", "pooled"):
        found = results[name]
        spread = found.ntk_spread.isel(depth=-1)
        error = found.mse.mean("split").isel(depth=-1)
        plain, half = (
            (float(spread.sel(family=f)), float(error.sel(family=f)))
            for f in ("plain", "γ = 1/2")
        )
        parts.append(
            f"{name}, the standard deviation of the plain kernel over pairs of images "
            f"is {plain[0]:.2g} and regression with it leaves {plain[1]:.0%} of the "
            f"variance, against {half[0]:.2g} and {half[1]:.0%} with branches scaled "
            "by L^(−1/2)"
        )
    rates = all_hold(entries, "1a-images", "1b-images", "1d-images", "1f-images")
    limits = "as the theory says" if rates else "not all at the rates of the theory"
    learning = all_hold(entries, "1j-images")
    word = "Yes" if rates and learning else "Not settled in all respects"
    found = results["pooled"]
    return (
        f"{word}: the kernels of images tend to their limits {limits}. At depth "
        f"{found.attrs['last']}, on {found.attrs['data']}, {parts[0]}; {parts[1]}."
    )


STUDY = Study(
    name="images",
    title="Convolutional kernels against depth",
    reference="""@inproceedings{arora2019,
  author = {Sanjeev Arora and Simon S. Du and Wei Hu and Zhiyuan Li and Ruslan
    Salakhutdinov and Ruosong Wang},
  title = {On exact computation with an infinitely wide neural net},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {32},
  year = {2019},
}""",
    question="Do deep kernels of images degenerate as those of rows do, and do "
    "residual ones not?",
    summary="The tangent kernel of a convolutional network compares all pairs of "
    "pixels of two images (Arora et al. 2019). With a flattened readout only equal "
    "places are compared in the end, and the theory of fully connected networks "
    "carries over; with a mean over pixels, and with zero padding, limits and rates "
    "differ. They are derived here.",
    answer=answer,
    measurements={
        **kernels.MEASUREMENTS,
        "rates": rates.MEASUREMENT,
        "agreement": finite.MEASUREMENT,
    },
    claims=[*kernels.CLAIMS, *rates.CLAIMS, *finite.CLAIMS],
    figures={
        **kernels.FIGURES,
        "rates": rates.FIGURE,
        "agreement": finite.FIGURE,
    },
    budget=Budget(quick=40, full=240),
)
