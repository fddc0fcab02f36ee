"""De & Smith 2020: batch normalisation makes residual blocks nearly the identity."""

from ntk_resnet.studies.desmith2020 import measurements as made
from ntk_resnet.studies.desmith2020.claims import CLAIMS, largest
from ntk_resnet.studies.desmith2020.figures import FIGURES
from ntk_resnet.studies.desmith2020.networks import KINDS
from ntk_resnet.studies.ledger import all_hold
from ntk_resnet.studies.study import Budget, Measurement, Study


def answer(results, entries):
    """From the last block's share, and the depths that train."""
    found, trained = results["normalised"], results["training"]
    last = found.sel(activation="ReLU").isel(block=-1)
    depths = {k: 2 ** float(largest(trained, k).mean()) for k in KINDS}
    words = ", ".join(f"{depths[k]:.0f} ({k})" for k in KINDS)
    begin = (
        "It gives the skip path the larger part"
        if all_hold(entries, "6b", "6c")
        else "Not quite as the paper has it"
    )
    return (
        f"{begin}: at block {found.attrs['depth']} the branch holds "
        f"{float(last.branch_share.mean()):.2%} of the signal, where without "
        "normalisation it holds half. Of depths to "
        f"{trained.attrs['most']} those that halve the loss in "
        f"{trained.attrs['steps']} steps go to {words}, in the mean of the logarithm."
    )


STUDY = Study(
    name="desmith2020",
    title="Batch normalization biases residual blocks towards the identity function "
    "in deep networks",
    reference="""@inproceedings{desmith2020,
  author = {Soham De and Samuel L. Smith},
  title = {Batch normalization biases residual blocks towards the identity function in
    deep networks},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020},
  note = {arXiv:2002.10444},
}""",
    question="Why can residual networks with batch normalisation be so deep, and what "
    "can take its place?",
    summary="Without normalisation the signal of a residual network doubles in each "
    "block. Batch normalisation on the branch keeps the branch at one while the skip "
    "path grows by one a block, so that block l changes the signal by 1/(l + 1) only. "
    "One trained scale a branch, zero at the start, does the same (SkipInit).",
    answer=answer,
    measurements={
        "normalised": Measurement(
            measure=made.normalised,
            full={"width": 256, "depth": 128, "seeds": 8},
            quick={"width": 192, "depth": 48, "seeds": 5},
        ),
        "plain": Measurement(
            measure=made.plain,
            full={"width": 512, "doubling": 20, "depth": 64, "seeds": 24},
            quick={"width": 384, "doubling": 10, "depth": 32, "seeds": 16},
        ),
        "training": Measurement(
            measure=made.training,
            full={
                "depths": [4, 8, 16, 32, 64, 128, 256],
                "width": 64,
                "rates": [0.001, 0.005, 0.02, 0.1],
                "steps": 150,
                "batch": 128,
                "seeds": 5,
            },
            quick={"depths": [4, 32, 256], "width": 24, "steps": 60, "batch": 64},
            data="rows",
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=60, full=900),
)
