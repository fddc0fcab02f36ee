"""Simon et al. 2023: learning curves of kernel regression from the spectrum."""

from ntk_resnet.studies.ledger import all_hold
from ntk_resnet.studies.simon2023 import measurements as made
from ntk_resnet.studies.simon2023.claims import CLAIMS, mixture, ratio_to_theory
from ntk_resnet.studies.simon2023.figures import FIGURES
from ntk_resnet.studies.simon2023.measurements import NETWORKS
from ntk_resnet.studies.study import Budget, Measurement, Study


def answer(results, entries):
    """From the ratios to theory, and whether learnabilities add up."""
    ratio = ratio_to_theory(results["sphere"], "error", mixture).values
    good = all_hold(entries, "test-error", "training-error", "noise", "learnability")
    sums = all_hold(entries, "sum-without-ridge")
    found = results["on_data"]
    on_data = (found.measured_test_mse / found.test_mse).values
    return (
        f"On the sphere they {'do' if good else 'do not all do so within 5 %'}: test "
        f"errors are {_range(ratio)} of what the spectrum predicts; on "
        f"{found.attrs['data']} they are {_range(on_data)} of it, "
        f"{'' if all_hold(entries, 'data') else 'not all '}within 10 %. Without ridge "
        f"what is learned of all modes {'adds' if sums else 'does not add'} up to the "
        "number of examples."
    )


def _range(values):
    return f"{values.min():.2f} to {values.max():.2f}"


STUDY = Study(
    name="simon2023",
    title="The eigenlearning framework: learning curves from the spectrum",
    reference="""@article{simon2023,
  author = {James B. Simon and Madeline Dickens and Dhruva Karkada
            and Michael R. DeWeese},
  title = {The eigenlearning framework: a conservation law perspective on kernel
           regression and wide neural networks},
  journal = {Transactions on Machine Learning Research},
  year = {2023},
}
@inproceedings{bordelon2020,
  author = {Blake Bordelon and Abdulkadir Canatar and Cengiz Pehlevan},
  title = {Spectrum dependent learning curves in kernel regression and wide neural
           networks},
  booktitle = {International Conference on Machine Learning},
  year = {2020},
}""",
    question="Do a kernel's eigenvalues predict how the error of regression falls with "
    "the number of examples, for plain and residual networks?",
    summary="Regression with a kernel learns a share L = μ/(μ + κ) of each "
    "eigenfunction of eigenvalue μ. Without ridge these learnabilities add up to the "
    "number of examples n, which fixes κ; what is not learned is test error, times a "
    "factor by which the kernel overfits. Theory takes eigenfunctions for Gaussian.",
    answer=answer,
    measurements={
        "sphere": Measurement(
            measure=made.sphere,
            full={
                "networks": list(NETWORKS),
                "sizes": [32, 64, 128, 256],
                "trials": 100,
                "functions": 20,
                "test": 500,
            },
            quick={
                "networks": ["plain, L = 100", "γ = 1/2, L = 100"],
                "sizes": [32, 128],
                "trials": 24,
                "test": 300,
            },
        ),
        "gaussian": Measurement(
            measure=made.gaussian,
            full={
                "modes": 200,
                "sizes": [50, 100, 200],
                "ridge": 0.01,
                "noise": 0.1,
                "trials": 1000,
            },
            quick={"sizes": [50, 100], "trials": 500},
        ),
        "conservation": Measurement(
            measure=made.conservation,
            full={
                "points": 128,
                "sizes": [8, 16, 32, 64],
                "depth": 100,
                "trials": 100,
                "ridge": 0.1,
            },
            quick={"trials": 30},
        ),
        "on_data": Measurement(
            measure=made.on_data,
            full={
                "networks": list(NETWORKS)[1:],
                "sizes": [50, 100, 200, 400, 800],
                "rows": 2000,
                "trials": 15,
            },
            quick={
                "networks": list(NETWORKS)[1:3],
                "sizes": [50, 100, 200],
                "rows": 600,
                "trials": 8,
            },
            data="rows",
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=12, full=240),
)
