"""What every study's tests ask: its verdicts can fail, and noise settles nothing."""

import dataclasses

import numpy as np
import xarray as xr

from ntk_resnet.studies import runner
from ntk_resnet.studies.ledger import FAILS, HOLDS, INCONCLUSIVE, judge


def small(study, **settings):
    """The study with smaller settings for its measurements, by name, and no others."""
    parts = {
        name: dataclasses.replace(study.measurements[name], quick=changes)
        for name, changes in settings.items()
    }
    claims = [claim for claim in study.claims if claim.of in parts]
    figures = {k: f for k, f in study.figures.items() if f.of in parts}
    return dataclasses.replace(
        study, measurements=parts, claims=claims, figures=figures
    )


def with_claims(study, claims):
    """The study with these claims alone."""
    return dataclasses.replace(study, claims=claims)


def run(study):
    """What became of a small study."""
    (one,) = runner.run([study], quick=True)
    return one


def check_wrong_predictions_fail(one, share=0.5):
    """Each claim that holds fails with another exponent, constant or side.

    A prediction of another size, by that share of it (of 0: a prediction of 1); of a
    bound, the other side of it.
    """
    holding = [e for e in one.entries if e.verdict == HOLDS]
    assert holding, "no claim holds at these sizes"
    for claim in one.study.claims:
        found = one.results.get(claim.of)
        if found is None or judge("", claim, found, 0.0).verdict != HOLDS:
            continue
        if claim.side == "within":
            known = (
                claim.predicted(found) if callable(claim.predicted) else claim.predicted
            )
            known = np.asarray(known, float)
            wrong = np.where(known == 0, 1.0, (1 + share) * known)
            other = dataclasses.replace(claim, predicted=lambda _, wrong=wrong: wrong)
        else:
            side = {"below": "above", "above": "below"}[claim.side]
            other = dataclasses.replace(claim, side=side)
        assert judge("", other, found, 0.0).verdict == FAILS, claim


def check_noise_is_inconclusive(claim, found, names, seed=0):
    """A claim on a mean or a fit, of a result whose variables `names` are noise.

    Noise of either sign about the prediction, ten times as large.
    """
    rng = np.random.default_rng(seed)
    noisy = found.copy()
    for name in names:
        values = found[name]
        size = 10 * max(1.0, float(np.abs(values).max()))
        noisy[name] = values.dims, size * rng.standard_t(1, size=values.shape)
    assert judge("", claim, noisy, 0.0).verdict == INCONCLUSIVE


def dataset(variables, coords, **attrs):
    """A result as measurements return it."""
    return xr.Dataset(variables, coords=coords, attrs=attrs)


def check_the_answer_follows_the_verdicts(one):
    """It says something else where claims fail."""
    answer = one.study.answer(one.results, one.entries)
    failing = [entry._replace(verdict=FAILS) for entry in one.entries]
    holding = [entry._replace(verdict=HOLDS) for entry in one.entries]
    answers = {one.study.answer(one.results, lines) for lines in (failing, holding)}
    assert len(answers) == 2
    assert answer
