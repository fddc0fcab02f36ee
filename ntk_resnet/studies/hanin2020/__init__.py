"""Hanin & Nica 2020: how much the NTK of finite networks fluctuates with depth."""

from ntk_resnet.studies.hanin2020.claims import CLAIMS, change, plain_change
from ntk_resnet.studies.hanin2020.figures import FIGURES
from ntk_resnet.studies.hanin2020.networks import (
    SCALES,
    limit,
    moments,
    residual,
    tilted,
)
from ntk_resnet.studies.study import Budget, Measurement, Study


def answer(results, _):
    """From the exact recursion and the residual networks."""
    if "limit" not in results or "residual" not in results:
        return "Not measured."
    found, nets = results["limit"], results["residual"]
    narrow = float(found.dispersion.sel(ratio=0.5, width=found.attrs["narrow"]))
    tends = float(found.limit.sel(ratio=0.5))
    grown = {f: float(change(nets, f).values) for f in SCALES}
    shallow, deep = nets.attrs["shallow"], nets.attrs["deep"]
    return (
        "In plain networks by depth over width: at L/m = 1/2 the second moment is "
        f"{narrow:.3g} times the square of the mean at width {found.attrs['narrow']} "
        f"and tends to {tends:.3g}. From {shallow} to {deep} blocks of width "
        f"{nets.attrs['width']} that number changes by the factor "
        f"{plain_change(nets):.2f} in plain networks, {grown['α = 1']:.2f} in "
        f"residual ones with α = 1, {grown['γ = 1/2']:.2f} with 1/√L and "
        f"{grown['γ = 1']:.2f} with 1/L."
    )


STUDY = Study(
    name="hanin2020",
    title="Finite depth and width corrections to the neural tangent kernel",
    reference="""@inproceedings{hanin2020,
  author = {Boris Hanin and Mihai Nica},
  title = {Finite depth and width corrections to the neural tangent kernel},
  booktitle = {International Conference on Learning Representations},
  year = {2020},
  note = {arXiv:1909.05989},
}

@inproceedings{seleznova2022,
  author = {Mariia Seleznova and Gitta Kutyniok},
  title = {Analyzing finite neural networks: can we trust neural tangent kernel
           theory?},
  booktitle = {Mathematical and Scientific Machine Learning},
  year = {2022},
  note = {arXiv:2012.04477},
}""",
    question="By what does the NTK of a network at random initialisation fluctuate?",
    summary="At a fixed depth the NTK of wide networks is the same for all of them. "
    "Where depth and width grow together it stays random: its second moment grows "
    "exponentially in depth over width. The limit is derived here, and so is what "
    "happens in residual networks.",
    answer=answer,
    measurements={
        "limit": Measurement(
            measure=limit,
            full={
                "widths": [32, 64, 128, 256, 1024, 4096],
                "ratios": [0.25, 0.5, 1.0],
            },
        ),
        "moments": Measurement(
            measure=moments,
            full={"depths": [2, 4, 8], "width": 32, "networks": 40_000},
            quick={"depths": [4], "networks": 10_000},
        ),
        "tilted": Measurement(
            measure=tilted,
            full={
                "cells": [[2, 32], [4, 32], [8, 32], [16, 32], [16, 64]],
                "networks": 30_000,
            },
            quick={"cells": [[4, 32], [8, 32]], "networks": 4000},
        ),
        "residual": Measurement(
            measure=residual,
            full={
                "depths": [4, 8, 16],
                "width": 32,
                "networks": {"γ = 1/2": 4000, "γ = 1": 4000, "α = 1": 40_000},
            },
            quick={
                "depths": [4, 16],
                "networks": {"γ = 1/2": 2000, "γ = 1": 2000, "α = 1": 4000},
            },
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=30, full=240),
)
