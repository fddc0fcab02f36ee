"""Hanin & Nica 2020: how much the NTK of finite networks fluctuates with depth."""

from ntk_resnet.studies.hanin2020.claims import CLAIMS, change, plain_change
from ntk_resnet.studies.hanin2020.figures import FIGURES
from ntk_resnet.studies.hanin2020.networks import (
    SCALES,
    limit,
    moments,
    phases,
    residual,
    tilted,
)
from ntk_resnet.studies.ledger import all_hold
from ntk_resnet.studies.study import Budget, Measurement, Study


def answer(results, entries):
    """From the exact recursion and the residual networks."""
    found, nets = results["limit"], results["residual"]
    narrow = float(found.dispersion.sel(ratio=0.5, width=found.attrs["narrow"]))
    tends = float(found.limit.sel(ratio=0.5))
    grown = {f: float(change(nets, f).values) for f in SCALES}
    shallow, deep = nets.attrs["shallow"], nets.attrs["deep"]
    tending = "tends" if all_hold(entries, "limit") else "does not tend"
    flat = all_hold(entries, "residual-flat")
    return (
        "In plain networks by depth over width: at L/m = 1/2 the second moment is "
        f"{narrow:.3g} times the square of the mean at width {found.attrs['narrow']} "
        f"and {tending} to the predicted {tends:.3g}. From {shallow} to "
        f"{deep} blocks of width {nets.attrs['width']} that number changes by "
        f"the factor {plain_change(nets):.2f} in plain networks, "
        f"{grown['α = 1']:.2f} in residual ones with α = 1, "
        f"{grown['γ = 1/2']:.2f} with 1/√L and {grown['γ = 1']:.2f} with 1/L: branches "
        f"that are scaled down {'keep it bounded' if flat else 'do not bound it'}."
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
    "happens in residual networks. Seleznova and Kutyniok find that it depends on the "
    "phase: in ordered networks the NTK does not become random.",
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
        "phases": Measurement(
            measure=phases,
            full={
                "depths": [4, 8, 16],
                "width": 32,
                "networks": 4000,
                "weight_variances": {"ordered": 1.0, "chaotic": 4.0},
            },
            quick={"depths": [4, 16], "networks": 1000},
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=30, full=240),
)
