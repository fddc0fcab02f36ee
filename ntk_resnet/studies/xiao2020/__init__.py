"""Xiao, Pennington & Schoenholz 2020: what depth does to training and to prediction."""

from ntk_resnet.studies.ledger import all_hold
from ntk_resnet.studies.study import Budget, Measurement, Study
from ntk_resnet.studies.xiao2020.claims import CLAIMS
from ntk_resnet.studies.xiao2020.figures import FIGURES
from ntk_resnet.studies.xiao2020.measurements import (
    NETWORKS,
    approach,
    fixed_points,
    matrices,
)


def answer(results, entries):
    """From the matrices at the last depths."""
    found = results["matrices"]
    deep = {name: found.sel(network=name).dropna("depth") for name in NETWORKS}
    last = {name: one.isel(depth=-1) for name, one in deep.items()}
    numbers = {name: float(one.condition_number) for name, one in last.items()}
    sizes = {name: float(one.prediction) for name, one in last.items()}
    m, near, far = (found.attrs[name] for name in ("points", "last", "far"))
    phases = ("ordered", "critical", "chaotic")
    trained = all_hold(entries, *(f"{name}-condition-number" for name in phases))
    predicts = all_hold(entries, *(f"{name}-prediction" for name in phases))
    return (
        f"The condition number of {m} points, the smaller the faster training, "
        f"{'follows' if trained else 'does not follow'} the phase as predicted: it is "
        f"{numbers['ordered']:.1e} in the ordered and {numbers['chaotic']:.4g} in the "
        f"chaotic phase at depth {near}, {numbers['critical']:.3g} in between at depth "
        f"{far}. The size of predictions, over that of centred labels, "
        f"{'does too' if predicts else 'does not'}: {sizes['ordered']:.2g} in the "
        f"ordered, {sizes['chaotic']:.1e} in the chaotic and "
        f"{sizes['critical']:.1e} in the critical phase."
    )


STUDY = Study(
    name="xiao2020",
    title="Disentangling trainability and generalization in deep neural networks",
    reference="""@inproceedings{xiao2020,
  author = {Lechao Xiao and Jeffrey Pennington and Samuel S. Schoenholz},
  title = {Disentangling trainability and generalization in deep neural networks},
  booktitle = {International Conference on Machine Learning},
  year = {2020},
  note = {arXiv:1912.13053},
}""",
    question="Which very deep plain networks can be trained, and which of them predict "
    "anything?",
    summary="A deep plain network is ordered, critical or chaotic, as its weights "
    "contract, keep or stretch small differences of inputs. The phase decides the "
    "condition number of the NTK matrix, by which gradient descent is fast or slow, "
    "and how fast its predictions at new points decay with depth: ordered networks "
    "predict but train ever more slowly, chaotic ones train at once and predict "
    "nothing, and critical ones lie between.",
    answer=answer,
    measurements={
        "fixed_points": Measurement(measure=fixed_points),
        "matrices": Measurement(
            measure=matrices,
            full={
                "points": 100,
                "depths": [3, 6, 10, 15, 20, 30, 40, 60, 80],
                "far": [3, 6, 10, 30, 100, 300, 1000, 3000],
            },
            quick={"far": [3, 10, 30, 100, 300, 1000, 3000]},
        ),
        "approach": Measurement(
            measure=approach,
            full={
                "depths": [30, 100, 300, 1000, 3000, 10000, 30000, 100000],
                "angles": [0.5, 1.0, 1.6, 2.5],
            },
            quick={"depths": [30, 100, 300, 1000, 3000, 10000]},
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=12, full=60),
)
