"""Barzilai et al. 2023: what skip connections change in convolutional kernels."""

import numpy as np

from ntk_resnet.studies.barzilai2023.claims import CLAIMS, difference, more_local
from ntk_resnet.studies.barzilai2023.figures import FIGURES
from ntk_resnet.studies.barzilai2023.measurements import (
    LAYERS,
    NETWORKS,
    PLAIN,
    conditioning,
    decay,
    locality,
    residual,
)
from ntk_resnet.studies.ledger import all_hold
from ntk_resnet.studies.study import Budget, Measurement, Study


def answer(results, entries):
    """From the exponents and how many of the comparisons came out as claimed."""
    away = float(np.abs(difference(results["decay"]).values).max())
    local = more_local(results["locality"], LAYERS).values
    one = results["conditioning"].condition_number
    ratio = residual(one) / one.sel(network=LAYERS)
    shares = ((ratio < 1).mean(set(ratio.dims) - {"kernel"}) * 100).to_series()
    same = "the same power" if all_hold(entries, "decay-difference") else "other powers"
    more = "are" if all_hold(entries, "locality-convolutions") else "are not always"
    better = "are" if all_hold(entries, "conditioning") else "are not always"
    return (
        f"With and without them eigenvalues fall with {same} of the frequency (they "
        f"differ by {away:.2g} at most), and residual kernels {more} more local: they "
        f"favour neighbouring pixels {local.min():.2g} to {local.max():.2g} times as "
        "much as plain ones of as many convolutions. Their Gram matrices "
        f"{better} better conditioned: in {shares['nngp']:.0f} % of the comparisons of "
        f"NNGPs, and in {shares['ntk']:.0f} % of those of NTKs."
    )


STUDY = Study(
    name="barzilai2023",
    title="A kernel perspective of skip connections in convolutional networks",
    reference="""@inproceedings{barzilai2023,
  author = {Daniel Barzilai and Amnon Geifman and Meirav Galun and Ronen Basri},
  title = {A kernel perspective of skip connections in convolutional networks},
  booktitle = {International Conference on Learning Representations},
  year = {2023},
  note = {arXiv:2211.14810},
}""",
    question="What do skip connections change in the kernels of convolutional "
    "networks?",
    summary="With or without skip connections the eigenvalues of convolutional kernels "
    "fall polynomially at a similar rate. Residual kernels are more local, and at "
    "finite depth their Gram matrices are better conditioned.",
    answer=answer,
    measurements={
        "conditioning": Measurement(
            measure=conditioning,
            full={
                "networks": list(NETWORKS),
                "images": 60,
                "depths": [1, 2, 3, 5, 10, 20, 50],
                "readouts": ["flatten", "pool"],
            },
            quick={
                "networks": [*PLAIN, "γ = 1/2"],
                "images": 40,
                "depths": [1, 3, 10, 50],
                "readouts": ["flatten"],
            },
            data="images",
        ),
        "locality": Measurement(
            measure=locality,
            full={
                "networks": list(NETWORKS),
                "pixels": 5,
                "depths": [2, 5, 10, 20, 50],
            },
            quick={"networks": [*PLAIN, "γ = 1/2"], "pixels": 4},
        ),
        "decay": Measurement(
            measure=decay,
            full={
                "networks": ["plain", "α = 1", "γ = 1/2"],
                "nodes": 513,
                "depth": 3,
                "first": 32,
            },
            quick={"networks": ["plain", "γ = 1/2"], "nodes": 257, "first": 16},
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=25, full=180),
)
