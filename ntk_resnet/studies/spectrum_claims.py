"""What the theory predicts of spectra and learning curves, held against measurements.

The labels are those of the papers' claims: 8a of Belfer et al. (2024), 11.6 of Bordelon
et al. (2020) and Simon et al. (2021).
"""

import numpy as np

from ntk_resnet.studies.claims import over

_EARLY = ("plain, L = 1", "plain, L = 10", "γ = 1/2, L = 100")


def _mercer(results):
    found = results["mercer"]
    power = -float(found.attrs["dim"])
    last = int(found.degree[-1])
    early = found.family.isin(_EARLY)
    shared = "eigenvalues on the sphere fall like (k + (d−2)/2)^(−d): exponent over "
    shared += f"even degrees {last // 3} to {last}, "
    return [
        over(
            "8a",
            shared + "plain L ≤ 10 and γ = 1/2",
            power,
            found.exponent.values[early],
            0.02,
            "finite degrees",
            kind="range over networks",
        ),
        over(
            "8a, deep",
            shared + "plain L = 100 and γ = 1",
            power,
            found.exponent.values[~early],
            0.02,
            "as above; expected to fail below degrees of about L, and, with γ = 1, "
            "of about L^(1/2) where both parities join",
            kind="range over networks",
        ),
    ]


def _curves(results):
    return [_learning(results["curves"], "11.6", 0.05, "on the sphere")]


def _data_curves(results):
    found = results["data_curves"]
    return [_learning(found, "11.6, data", 0.1, f"on {found.attrs['data']}")]


def _learning(found, label, share, where):
    """Every point is to be within a share of the prediction, or 3 standard errors."""
    missed = np.abs(found.measured_test_mse - found.test_mse).values
    allowed = np.maximum(
        share * found.test_mse, 3 * found.measured_test_mse_error
    ).values
    return over(
        label,
        f"the test error {where} is that predicted from the spectrum, at every size "
        f"of the training set: distance over the larger of {share:.0%} and 3 s.e.",
        1.0,
        [float(np.max(missed / allowed))],
        0.0,
        f"theory for Gaussian features; {found.attrs['trials']} trials",
        bound="below",
    )


JUDGES = {"mercer": _mercer, "curves": _curves, "data_curves": _data_curves}
