"""Huang et al. 2020: why deep residual networks generalise better."""

from ntk_resnet.studies.huang2020 import finite, kernels, learning, rates
from ntk_resnet.studies.ledger import all_hold
from ntk_resnet.studies.study import Budget, Measurement, Study


def answer(results, entries):
    """From the kernels and the errors on the data."""
    found, gram = results["regression"], results["degeneracy"]
    deep, shallow = int(found.depth[-1]), int(found.depth[0])
    plain, half = (
        float(gram.distance.sel(family=family).isel(depth=-1))
        for family in ("plain", "γ = 1/2")
    )
    explained = found.r2.mean("split")
    before, after, residual = (
        max(0.0, float(explained.sel(family=family, depth=depth)))
        for family, depth in (("plain", shallow), ("plain", deep), ("γ = 1/2", deep))
    )
    limits = all_hold(entries, "1a", "1d", "1f")
    learned = all_hold(entries, "1j-regression-mse")
    return (
        (
            "Their kernel keeps"
            if limits
            else "It is not settled that their kernel keeps"
        )
        + f" telling inputs apart: at depth {int(gram.depth[-1])} that of a plain "
        f"network is, on {gram.attrs['data']}, within {plain:.3f} (rms) of the "
        "constant 1/4, that of a residual one with branches scaled by L^(−1/2) "
        f"{half:.3f} away from it. Regression "
        + ("shows it" if learned else "does not clearly show it")
        + f": with the plain kernel it explains {before:.0%} of the test variance at "
        f"depth {shallow} and {after:.0%} at depth {deep}, with the residual kernel "
        f"{residual:.0%} there."
    )


STUDY = Study(
    name="huang2020",
    title="Why do deep residual networks generalize better than deep feedforward "
    "networks? A neural tangent kernel perspective",
    reference="""@inproceedings{huang2020,
  author = {Kaixuan Huang and Yuqing Wang and Molei Tao and Tuo Zhao},
  title = {Why do deep residual networks generalize better than deep feedforward
    networks? --- {A} neural tangent kernel perspective},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {33},
  year = {2020},
  note = {arXiv:2002.06262},
}""",
    question="Why do deep residual networks generalise better than deep plain ones?",
    summary="In the limit of large width a network that trains is a kernel method. The "
    "kernel of a plain ReLU network tends with depth to one that is the same for all "
    "pairs of different inputs, so that regression with it predicts a constant; that "
    "of a residual network with branches scaled by 1/L tends to the kernel of a single "
    "block. Kernels of finite networks are near these limits, and for residual ones "
    "the width that this takes grows with depth by a logarithm only.",
    answer=answer,
    measurements={
        "paper": Measurement(
            measure=kernels.paper_kernels, full={"cosines": 181}, quick={"cosines": 61}
        ),
        "kernels": Measurement(
            measure=kernels.kernels_by_angle,
            full={"depths": (1, 3, 10, 30, 100, 300, 1000), "angles": 181},
            quick={"angles": 61},
        ),
        "rates": Measurement(measure=rates.rates, full={"longest": 100_000}),
        **learning.MEASUREMENTS,
        **finite.MEASUREMENTS,
    },
    claims=[*kernels.CLAIMS, *rates.CLAIMS, *learning.CLAIMS, *finite.CLAIMS],
    figures={
        "paper": kernels.FIGURES["paper"],
        "rates": rates.FIGURE,
        **learning.FIGURES,
        **finite.FIGURES,
        "ntk": kernels.FIGURES["ntk"],
        "nngp": kernels.FIGURES["nngp"],
    },
    budget=Budget(quick=50, full=360),
)
