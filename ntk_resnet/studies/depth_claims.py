"""What the theory predicts of depth, held against the study's measurements.

Each claim is a prediction, the measured value with its interval, and a tolerance that
has a reason; the verdict follows from these alone, and can fail. The labels 1a to 1j
number the predictions for the networks of Huang et al. (2020), whose readout is frozen;
1a and 1b are asked of plain networks that train it, too. Comments say where a tolerance
or a prediction is our own choice, or was changed after a first run.
"""

import numpy as np
import xarray as xr

from ntk_resnet.analysis.degeneracy import one_block_correction
from ntk_resnet.analysis.regression import kernel_ridge
from ntk_resnet.analysis.statistics import fit_power
from ntk_resnet.records.provenance import provenance
from ntk_resnet.studies import image_claims, spectrum_claims
from ntk_resnet.studies.claims import Claim, exponent, of_splits, over


def judge(results: dict[str, xr.Dataset]) -> xr.Dataset:
    """All claims that the given results allow, as a Dataset over `claim`.

    Args:
        results: parts of the study by name; claims on missing parts are left out.

    Returns:
        Variables as the fields of `Claim`, and `holds`; the coordinate is the label.
    """
    judges = _JUDGES | spectrum_claims.JUDGES | image_claims.JUDGES
    claims = [c for part, j in judges.items() if part in results for c in j(results)]
    columns = {
        field: ("claim", [getattr(claim, field) for claim in claims])
        for field in (*Claim._fields[1:], "holds")
    }
    labels = [claim.label for claim in claims]
    attrs = provenance(holding=sum(c.holds for c in claims), claims=len(claims))
    return xr.Dataset(columns, coords={"claim": labels}, attrs=attrs)


# ------------------------------------------------------------------------------ engines


def _engines(results):
    kernels = results["kernels"]
    return [
        over(
            "engines",
            "closed form and neural-tangents agree: largest difference, depth ≤ 30",
            0.0,
            kernels.deviation.values,
            1e-12,
            "both in float64: rounding of 30 layers",
            kind="plain and residual",
        )
    ]


# -------------------------------------------------------------------------------- rates


def _rates(results):
    found = results["rates"]
    return [*_plain_rates(found), *_residual_rates(found), *_degenerate_rates(found)]


def _plain_rates(found):
    depth = found.plain_depth.values.astype(float)
    usual = found.cosine.values <= 0.7
    at = int(np.argmin(np.abs(depth - 1e4)))
    ratio = found.plain_nngp_gap.values[at] * 2 * depth[at] ** 2 / (9 * np.pi**2)
    return [
        *(claim for name in _READOUTS for claim in _towards_a_quarter(found, name)),
        over(
            "1c",
            f"plain, either readout: NNGP gap × 2L²/(9π²) is 1 at L = {depth[at]:.0f}",
            1.0,
            ratio[usual],
            1e-2,
            "next term: 2(1.5 ln L + C)/L",
        ),
    ]


# What is trained: its words, its layers, and the next term of 1a.
_READOUTS = {
    "blocks": ("plain, readout frozen", "L", 0, "0.0023 to 0.0036"),
    "all": ("plain, readout trained", "(L+1)", 1, "0.003 to 0.0044"),
}


def _towards_a_quarter(found, trained):
    words, layers, more, next_term = _READOUTS[trained]
    depth = found.plain_depth.values.astype(float)
    excess = found.plain_ntk.sel(trained=trained).values - 0.25
    late = depth >= depth[-1] / 10
    scaled = (depth + more)[:, None] * excess
    return [
        over(
            "1a",
            f"{words}: normalised NTK at L = 1000 is 1/4 (cosines up to 0.7)",
            0.0,
            np.abs(excess[0, found.cosine.values <= 0.7]),
            6e-3,
            f"next term: (3/8 ln L + C)/L is {next_term}",
        ),
        over(
            "1b",
            f"{words}: {layers}(NTK − 1/4) grows like 3/8 ln L, "
            f"L = {depth[late][0]:.0f} to {depth[-1]:.0f}",
            0.375,
            np.polyfit(np.log(depth[late]), scaled[late], 1)[0],
            5e-3,
            "next term: of order (ln L)/L in the slope",
        ),
    ]


def _residual_rates(found):
    depth = found.block_depth.values.astype(float)
    claims = []
    for gamma, distance in zip(
        found.exponent.values, found.shallow_distance.values, strict=True
    ):
        fit = fit_power(depth, distance)
        claims.append(
            Claim(
                "1d",
                f"residual, γ = {gamma:g}: distance to the kernel of one block falls "
                "like L^(1−2γ): exponent",
                float(1 - 2 * gamma),
                float(fit.exponent),
                float(fit.low),
                float(fit.high),
                "95 % of the fit",
                1e-2,
                "within",
                "next term T² with T = L^(1−2γ), fitted over L = 100 to 10000",
            )
        )
    cosine = found.cosine.values
    at = int(np.argmin(np.abs(depth - 1000)))
    coefficient = depth[at] * (found.one_ntk.values[at] - _one_block(cosine))
    relative = coefficient / one_block_correction(np.arccos(cosine))
    error = found.half_ntk.values - found.half_limit.values
    slopes = np.array([-fit_power(depth, np.abs(row)).exponent for row in error.T])
    return [
        *claims,
        over(
            "1e",
            "residual, γ = 1: L × (NTK − one block) over its predicted coefficient D",
            1.0,
            relative,
            2e-2,
            "next term of order 1/L, near cosine −1 larger",
        ),
        over(
            "1f",
            "residual, γ = 1/2: NTK at L = 1000 is the limit of infinite depth",
            0.0,
            np.abs(error[at]),
            2e-4,
            "next term 0.1/L",
        ),
        over(
            "1f",
            "residual, γ = 1/2: distance to that limit falls like 1/L: exponent",
            -1.0,
            -slopes,
            5e-2,
            "next term of order 1/L at the smallest L = 100",
        ),
    ]


def _degenerate_rates(found):
    depth = found.block_depth.values.astype(float)
    usual = found.cosine.values <= 0.7
    # The theory only says that the distance times T stays bounded; the exponent is
    # ours. The largest over cosines, since somewhere in between the difference changes
    # sign.
    quarter = np.abs(found.quarter_ntk.values[:, usual] - 0.25).max(axis=1)
    slope = np.log(quarter[-1] / quarter[-2]) / np.log(depth[-1] / depth[-2])
    constant = found.constant_ntk.values[-1, usual] - 0.25
    # a_e = α²/(1+α²) = 1/2 at α = 1
    ratio = found.constant_nngp_gap.values[-1, usual] * depth[-1] ** 2 / (18 * np.pi**2)
    return [
        over(
            "1g",
            "residual, γ = 1/4: largest |NTK − 1/4| falls like L^(2γ−1): exponent from "
            f"L = {depth[-2]:.0f} to {depth[-1]:.0f}",
            -0.5,
            slope,
            5e-2,
            "next term of relative order (ln T)/T with T = L^(1/2): 0.046",
        ),
        over(
            "1g",
            f"residual, α = 1: |NTK − 1/4| at L = {depth[-1]:.0f}",
            1e-3,
            np.abs(constant),
            0.0,
            "theory: (3/8 ln L + C)/L",
            bound="below",
        ),
        over(
            "1c",
            f"residual, α = 1: NNGP gap × L²/(18π²) is 1 at L = {depth[-1]:.0f}",
            1.0,
            ratio,
            1e-2,
            "next term of order (ln L)/L",
        ),
    ]


def _one_block(u):
    theta = np.arccos(u)
    kappa0 = 1 - theta / np.pi
    return u * kappa0 + np.sin(theta) / (2 * np.pi)


# ------------------------------------------------------------------------- on real data


def _degeneracy(results):
    found = results["degeneracy"]
    deepest = found.sel(family="plain").isel(depth=-1)
    depth, n = int(deepest.depth), int(found.attrs["rows"])
    limit = 0.25 + 0.75 * np.eye(n)
    y = np.sin(np.arange(n))
    constant = n * y.mean() / (n + 3 + 4e-3)
    guess = kernel_ridge(limit, np.full((2, n), 0.25), y, ridge=1e-3)
    eigenvalues = np.linalg.eigvalsh(limit)
    return [
        over(
            "1i",
            f"the constant kernel on {n} rows predicts n ȳ/(n+3+4δ) everywhere",
            float(constant),
            guess,
            1e-10,
            "exact; rounding",
            kind="range over test points",
        ),
        over(
            "1i",
            f"the constant kernel on {n} rows has the condition number (n+3)/3",
            (n + 3) / 3,
            eigenvalues[-1] / eigenvalues[0],
            1e-10 * n,
            "exact; rounding",
        ),
        over(
            "1i",
            f"plain: condition number of the Gram matrix of the data at L = {depth} "
            "over (n+3)/3",
            1.0,
            deepest.condition_number.values / ((n + 3) / 3),
            0.25,
            "rows at small angles still differ: (3/8 ln L + h(u))/L",
        ),
    ]


def _regression(results):
    found = results["regression"]
    shallow, deep = int(found.depth[0]), int(found.depth[-1])
    claims = [
        of_splits(
            "1j",
            f"plain: test MSE / Var at L = {deep}, near chance (1)",
            found.sel(family="plain", depth=deep),
            "mse",
            0.9,
            "above",
            "the bound set for the smooth target, asked of real data too",
        )
    ]
    for family in ("γ = 1", "γ = 1/2"):
        one = found.sel(family=family)
        relative = one.mse / one.mse.sel(depth=shallow)
        worst = int(relative.mean("split").argmax("depth"))
        claims.append(
            of_splits(
                "1j",
                f"residual, {family}: test MSE at its worst depth over that at "
                f"L = {shallow} stays flat",
                relative.isel(depth=worst).to_dataset(name="relative"),
                "relative",
                1.1,
                "below",
                "flat means: within a tenth, over all depths",
            )
        )
    if found.attrs["classes"]:
        # Our own, weak claim. A sharper one, accuracy equal to that of the classifier
        # by mean kernels within 3 points, failed (7 points, 120 rows, L = 1000): that
        # is a limit for depths far above the number of rows.
        chance = 1 / found.attrs["classes"]
        lead = found.accuracy.sel(family="plain") - chance
        kept = (lead / lead.where(lead > 0).sel(depth=shallow)).sel(depth=deep)
        claims.append(
            of_splits(
                "1j",
                f"plain: accuracy's lead over chance at L = {deep}, over that at "
                f"L = {shallow}: accuracy does not collapse",
                kept.to_dataset(name="kept"),
                "kept",
                0.5,
                "above",
                "half of it is kept where the error says nothing is",
            )
        )
    return claims


def _teacher(results):
    found = results["teacher"]
    deep = int(found.depth[-1])
    claims = [
        of_splits(
            "1j",
            f"smooth target on the sphere, plain: test MSE / Var at L = {deep}",
            found.sel(family="plain", depth=deep),
            "mse",
            0.9,
            "above",
            "the bound set for this smooth target",
        )
    ]
    for family in ("γ = 1", "γ = 1/2"):
        one = found.sel(family=family)
        worst = int(one.mse.mean("split").argmax("depth"))
        claims.append(
            of_splits(
                "1j",
                f"smooth target on the sphere, residual, {family}: test MSE / Var, "
                "worst L",
                one.isel(depth=worst),
                "mse",
                0.01,
                "below",
                "the bound set for this smooth target",
            )
        )
    return claims


# ---------------------------------------------------------------------- finite networks


def _width(results):
    return [
        exponent(
            "1h",
            f"{kernel}: error of a finite network falls like width^(−1/2): exponent",
            results["width"],
            f"{key}_exponent",
            -0.5,
            "the interval must contain it",
        )
        for kernel, key in (("NTK", "ntk"), ("NNGP", "nngp"))
    ]


def _training(results):
    # Our own predictions. For the drift, width^(-1/2), an upper bound, was the first
    # one; a first run refuted it (-1.22, 95 % interval -1.72 to -0.73).
    found = results["training"]
    return [
        exponent(
            "training",
            "outputs while training: distance to the prediction falls like "
            "width^(−1/2): exponent",
            found,
            "output_error_exponent",
            -0.5,
            "the interval must contain it; drift of order 1/width comes on top",
        ),
        exponent(
            "training",
            "change of the empirical NTK by training falls like 1/width: exponent",
            found,
            "drift_exponent",
            -1.0,
            "the interval must contain it; each unit changes by order width^(−1/2) "
            "with random sign, so the mean by order 1/width (heuristic)",
        ),
    ]


_JUDGES = {
    "kernels": _engines,
    "rates": _rates,
    "degeneracy": _degeneracy,
    "regression": _regression,
    "teacher": _teacher,
    "width": _width,
    "training": _training,
}
