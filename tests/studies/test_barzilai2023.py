"""The study of Barzilai et al. 2023: its measurements, and that verdicts can fail."""

import ledger_checks
import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.studies import barzilai2023
from ntk_resnet.studies.barzilai2023 import measurements
from ntk_resnet.studies.ledger import INCONCLUSIVE, judge

TWO = ["plain", "γ = 1/2"]
THREE = [*barzilai2023.PLAIN, "γ = 1/2"]


@pytest.fixture(scope="module")
def one():
    study = ledger_checks.small(
        barzilai2023.STUDY,
        decay={"networks": TWO, "nodes": 129, "depth": 2, "first": 8},
        locality={"networks": THREE, "pixels": 3, "depths": [3]},
        conditioning={
            "networks": THREE,
            "images": 8,
            "depths": [2, 10],
            "readouts": ["flatten"],
        },
    )
    return ledger_checks.run(study)


def test_wrong_predictions_fail(one):
    ledger_checks.check_wrong_predictions_fail(one)


def test_the_answer_follows_the_verdicts(one):
    ledger_checks.check_the_answer_follows_the_verdicts(one)


def test_eigenvalues_are_those_of_the_gram_matrix_of_a_grid():
    """On all images of a grid of the torus, by a dense eigensolver."""
    spec, count = nr.ConvResNet(depth=2, branch_scale=1.0, readout="flatten"), 8
    angle = 2 * np.pi * np.arange(count) / count
    grid = np.stack(np.meshgrid(angle, angle, indexing="ij"), axis=-1)
    x = np.stack([np.cos(grid), np.sin(grid)], axis=-1).reshape(-1, 1, 2, 2)
    dense = np.linalg.eigvalsh(np.asarray(nr.gram(spec, x)) / count**2)
    half = measurements.torus(spec, count // 2 + 1)
    # Frequencies between 0 and half the count stand for a cosine and a sine.
    times = np.array([1, 2, 2, 2, 1])
    known = np.repeat(half.ravel(), np.outer(times, times).ravel())
    np.testing.assert_allclose(np.sort(known), dense, atol=1e-12)  # of a trace of 1


def test_condition_numbers_are_those_of_kernels_one_by_one(one):
    found = one.results["conditioning"].condition_number.isel(inputs=1)
    data = nr.load_data("digits", images=True)
    rows = np.sort(np.random.default_rng(0).permutation(len(data))[:8])
    x = data.x[rows]
    spec = barzilai2023.NETWORKS["γ = 1/2"].replace(depth=10)
    values = np.linalg.eigvalsh(np.asarray(nr.gram(spec, x)))
    given = found.sel(kernel="ntk", network="γ = 1/2", depth=10).item()
    # Of a well-conditioned matrix, whose entries are right to 1e-10.
    assert given == pytest.approx(values[-1] / values[0], rel=1e-6)


def test_eigenvalues_of_noise_settle_no_exponent(one):
    found = one.results["decay"].copy()
    for name in ("exponent", "difference"):
        for end, off in (("_low", -3), ("_high", 3)):
            found[name + end] = found[name] + off
    for claim in barzilai2023.CLAIMS:
        if claim.of == "decay":
            assert judge("", claim, found, 0.0).verdict == INCONCLUSIVE
