"""Li et al. 2016: why shortcuts of two layers train at any depth."""

from ntk_resnet.studies.ledger import all_hold
from ntk_resnet.studies.li2016 import measurements as made
from ntk_resnet.studies.li2016.claims import CLAIMS, TWO
from ntk_resnet.studies.li2016.figures import FIGURES
from ntk_resnet.studies.study import Budget, Measurement, Study


def answer(results, entries):
    """From the condition numbers, and the losses at the largest depth."""
    found, trained = results["at_zero"], results["trainability"]
    last = found.isel(units=-1)
    deep = trained.loss.isel(depth=-1).mean("seed")
    of_two, plain = (float(deep.sel(setup=s)) for s in (TWO, "plain, Xavier"))
    begin = (
        "At zero weights"
        if all_hold(entries, "2a", "2b", "2c")
        else "Not as derived: at zero weights"
    )
    return (
        f"{begin} the Hessian of a linear network of {found.attrs['most']} units has "
        f"the condition number {float(last.condition_number):.3g} with shortcuts of "
        f"two, {float(found.condition_number[0]):.3g} for one unit, where shortcuts "
        f"of one give {float(last.single):.3g} after {float(found.single[0]):.3g}. "
        f"From small weights networks of {trained.attrs['deepest']} such units train "
        f"to {of_two:.3g} of the initial loss, plain ones from Xavier's weights to "
        f"{plain:.3g}."
    )


STUDY = Study(
    name="li2016",
    title="Demystifying ResNet",
    reference="""@misc{li2016,
  author = {Sihan Li and Jiantao Jiao and Yanjun Han and Tsachy Weissman},
  title = {Demystifying {ResNet}},
  year = {2016},
  note = {arXiv:1611.01186},
}""",
    question="Why do residual networks train at any depth, and why do their shortcuts "
    "skip two layers?",
    summary="Near zero weights a residual network with shortcuts of two layers has a "
    "Hessian whose condition number does not depend on the depth. With shortcuts of "
    "one layer it grows, and with longer ones the Hessian vanishes. From small "
    "weights, shortcuts of two train as well at any depth, where other initial "
    "weights and lengths do not.",
    answer=answer,
    measurements={
        "at_zero": Measurement(
            measure=made.at_zero,
            full={"d": 5, "units": [1, 2, 4, 8]},
            quick={"d": 3, "units": [1, 2, 4]},
        ),
        "one_number": Measurement(
            measure=made.one_number,
            full={"units": [2, 4, 8, 16, 32, 64]},
            quick={"units": [2, 8, 64]},
        ),
        "activations": Measurement(
            measure=made.activations,
            full={"d": 5, "units": [1, 2, 4]},
            quick={"d": 3, "units": [1, 3]},
        ),
        "trainability": Measurement(
            measure=made.trainability,
            full={
                "d": 10,
                "depths": [1, 2, 4, 8, 16, 32, 64],
                "steps": 300,
                "rates": [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5],
                "scale": 0.02,
                "seeds": 10,
            },
            quick={
                "depths": [1, 8, 32],
                "steps": 200,
                "rates": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3],
                "seeds": 5,
            },
        ),
        "plateaus": Measurement(
            measure=made.plateaus,
            full={
                "d": 5,
                "units": 4,
                "scales": [0.005, 0.01, 0.02, 0.04],
                "rate": 0.02,
                "steps": 6000,
                "every": 5,
                "seeds": 10,
            },
            quick={"scales": [0.01, 0.02, 0.04], "steps": 3000, "seeds": 5},
        ),
        "along": Measurement(
            measure=made.along,
            full={
                "d": 4,
                "units": 4,
                "steps": 2000,
                "every": 100,
                "rate": 0.05,
                "scale": 0.01,
            },
            quick={"d": 3, "units": 3, "every": 250},
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=62, full=240),
)
