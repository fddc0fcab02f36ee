"""Bietti & Bach 2021: the eigenvalues of deep and shallow ReLU kernels fall alike."""

import math

import jax.numpy as jnp
import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.ledger import (
    BOTH_HALVES,
    Claim,
    Measured,
    all_hold,
    curve_slope,
    exact,
    fitted,
    slope_variables,
)
from ntk_resnet.studies.study import Budget, Figure, Measurement, Study

NNGP, NTK, RESIDUAL = "NNGP", "NTK", "γ = 1/2"
KERNELS = {
    NNGP: (nr.FeedForward(depth=1), "nngp"),
    NTK: (nr.FeedForward(depth=1), "ntk"),
    RESIDUAL: (nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5)), "nngp"),
}
POWERS = {NNGP: 1.5, NTK: 0.5, RESIDUAL: 1.5}
"""nu: of 1 - u, the first power in the kernel that is not whole."""


# ------------------------------------------------------------------------- measurement


def eigenvalues(
    *, dims: list[int], depths: list[int], degree: int, progress: Progress = quiet
) -> xr.Dataset:
    """Eigenvalues on spheres by degree, the powers by which they fall, and constants.

    Of the kernels of `KERNELS`, the NTK not normalised. Over (`kernel`, `dim`,
    `depth`): `even`, the exponent of k + (d-2)/2 over even degrees of the second half,
    with the slopes of both its halves, `even_low`, `even_high`, and `odd` likewise; of
    eigenvalues over those of one layer, `beyond`; `near` and `far`, the constants at
    angle 0 and at pi that the last degrees tell, and `predicted_near`,
    `predicted_far`. Over (`kernel`, `depth`, `degree`), of the first of `dims`:
    `scaled`, eigenvalues over C(d, nu) (k + (d-2)/2)^(1-d-2nu), which tends to the sum
    of both constants (even), or their difference.
    """
    cells = [(name, dim) for name in KERNELS for dim in dims]
    rows = []
    for done, (name, dim) in enumerate(cells):
        report = part_of(progress, done, 1, len(cells), f"{name}, d = {dim}, ")
        rows.append(_by_depth(name, dim, depths, degree, report))
    found = xr.concat(rows, "cell").assign_coords(depth=depths)
    cell = {"kernel": [name for name, _ in cells], "dim": [dim for _, dim in cells]}
    found = found.assign_coords({k: ("cell", v) for k, v in cell.items()})
    found = found.set_index(cell=["kernel", "dim"]).unstack("cell")
    found = found.sel(kernel=list(KERNELS))
    found["scaled"] = found.scaled.sel(dim=dims[0], drop=True)
    return found.assign_attrs(
        degree=degree, from_degree=degree // 2, deepest=depths[-1]
    )


def _by_depth(name, dim, depths, degree, progress):
    """One kernel at all depths, on one sphere."""
    spec, get = KERNELS[name]
    rows, first = [], None
    for done, depth in enumerate(depths):
        progress(done, len(depths), f"depth {depth}")
        deep = spec.replace(depth=depth)
        one = nr.mercer(deep, dim=dim, max_degree=degree, get=get)
        first = one if first is None else first
        ratio = one.log10_eigenvalue - first.log10_eigenvalue
        fits = {
            "even": _fit(one.log10_eigenvalue, dim, 0),
            "odd": _fit(one.log10_eigenvalue, dim, 1),
            "beyond": _fit(ratio, dim, 0),
        }
        size = depth + 1 if name == NTK else 1  # the NTK's diagonal
        scaled = size * _scaled(one, dim, POWERS[name])
        near, far = _predicted(name, depth)
        row = {"predicted_near": near, "predicted_far": far}
        for fit, slope in fits.items():
            row |= slope_variables(fit, slope)
        row["near"], row["far"] = _constants(scaled)
        rows.append(xr.Dataset(row | {"scaled": ("degree", scaled)}))
    return xr.concat(rows, "depth").assign_coords(degree=np.arange(degree + 1))


def _fit(logs, dim, parity):
    """The exponent over the second half of degrees, and those of its halves.

    NaN where eigenvalues of that parity vanish.
    """
    k = logs.degree.values
    k = k[(k >= k[-1] // 2) & (k % 2 == parity)]
    logs = logs.sel(degree=k).values
    if not np.isfinite(logs).all():
        return (math.nan,) * 3
    return curve_slope(k + (dim - 2) / 2, 10 ** (logs - logs[-1]))


def _scaled(spectrum, dim, nu):
    """Eigenvalues over those that (1 - u)^nu has at large degrees."""
    shifted = spectrum.degree.values + (dim - 2) / 2
    logs = (dim + 2 * nu - 1) * np.log10(np.maximum(shifted, 0.5))
    return 10 ** (spectrum.log10_eigenvalue.values + logs) / unit_constant(dim, nu)


def unit_constant(dim: int, nu: float) -> float:
    r"""C(d, nu): (1 - u)^nu has eigenvalues :math:`C (k + (d-2)/2)^{1-d-2\nu}`.

    By Rodrigues' formula they are exactly

    .. math::
        C\,\Gamma(k-\nu) / \Gamma(k+\nu+d-1), \quad C = 2^{\nu+d-2}
        \frac{\Gamma(d/2)\,\Gamma(\nu+(d-1)/2)}{\sqrt\pi\,\Gamma(-\nu)},

    and the quotient is that power up to a relative 1/k^2.
    """
    gammas = math.gamma(dim / 2) * math.gamma(nu + (dim - 1) / 2)
    return 2 ** (nu + dim - 2) * gammas / (math.sqrt(math.pi) * math.gamma(-nu))


def _constants(scaled):
    """Half the sum and half the difference of even and odd, at the last degrees."""
    even, odd = scaled[-2], (scaled[-3] + scaled[-1]) / 2
    if len(scaled) % 2 == 0:  # the last degree is odd
        return (even + odd) / 2, (even - odd) / 2
    return (odd + even) / 2, (odd - even) / 2


def _predicted(name, depth):
    r"""The constants of :math:`(1 \mp u)^\nu` in the kernel, near angle 0 and pi.

    :math:`\kappa_0 = 1 - (\sqrt2/\pi) t^{1/2}`, :math:`\kappa_1 = 1 - t + (2\sqrt2 /
    3\pi) t^{3/2}` at u = 1 - t. Near 0 every layer adds its own to what passes; near pi
    only the first layer is singular, and those above pass it on by their slope.
    """
    square = 1 / depth if name == RESIDUAL else math.inf
    share = 1 / (1 + 1 / square) if name == RESIDUAL else 1.0
    passed, u = 1.0, -1.0
    for layer in range(depth):
        theta = math.acos(u)
        kappa0 = 1 - theta / math.pi
        kappa1 = u * kappa0 + math.sin(theta) / math.pi
        passed *= 1.0 if layer == 0 else 1 - share + share * kappa0
        u += share * (kappa1 - u)
    if name == NTK:
        root = -math.sqrt(2) / math.pi
        return root * depth * (depth + 1) / 2, root * passed
    power = 2 * math.sqrt(2) / (3 * math.pi)
    return power * share * depth, power * share * passed


# -------------------------------------------------------------------- step activation


def steps(
    *, depths: list[int], angles: list[float], progress: Progress = quiet
) -> xr.Dataset:
    r"""NNGP kernels of plain networks of the step function, at small angles.

    One layer has the kernel :math:`1 - \theta/\pi`. Over (`depth`, `angle`): `gap`, one
    minus the kernel. Over `depth`: `power`, that of 1 - cos(angle) in it, with the
    slopes of both halves, `power_low`, `power_high`.
    """
    u = np.cos([0.0, *angles]), np.sin([0.0, *angles])
    x = np.stack(u, axis=1)
    gaps, slopes = [], []
    for done, depth in enumerate(depths):
        progress(done, len(depths), f"step, depth {depth}")
        spec = nr.FeedForward(depth=depth, activation=STEP, weight_variance=1.0)
        kernel = np.asarray(nr.kernel_fn(spec)(x[:1], x, get="nngp"))[0]
        gaps.append(1 - kernel[1:] / kernel[0])
        slopes.append(curve_slope(2 * np.sin(np.array(angles) / 2) ** 2, gaps[-1]))
    return xr.Dataset(
        {
            "gap": (("depth", "angle"), np.array(gaps)),
            **slope_variables("power", slopes, "depth"),
        },
        coords={"depth": depths, "angle": angles},
        attrs={"deepest": depths[-1]},
    )


def _step(z):
    """Of mean square one."""
    return math.sqrt(2) * jnp.heaviside(z, 0.5)


def _step_dual(p1, p2, c):
    """One minus angle over pi; quotients, that the angle is exactly 0 at p1 = p2 = c.

    Its root of eps would else be seen.
    """
    cosine = jnp.sign(c) * jnp.sqrt((c / p1) * (c / p2))
    return 1 - jnp.arccos(jnp.clip(cosine, -1, 1)) / jnp.pi


STEP = nr.Activation(_step, _step_dual)


# ------------------------------------------------------------------------------ claims


def _exponents(kernel, name, depths=slice(None)):
    """Fitted exponents of a kernel, with their intervals."""

    def measure(found):
        one = found.sel(kernel=kernel, depth=depths).transpose("depth", "dim", ...)
        return fitted(one, name, BOTH_HALVES)

    return measure


def _over(name, kernel):
    """Constants that the last degrees tell, over the predicted ones.

    Eigenvalues are right to 1e-14; half the sum and half the difference of even and odd
    ones are off by that of the larger constant.
    """

    def measure(found):
        one = found.sel(kernel=kernel)
        largest = np.maximum(abs(one.predicted_near), abs(one.predicted_far))
        known = one[f"predicted_{name}"]
        error = 1e-14 * largest / abs(known)
        return exact(one[name] / known, error, "bound of the rounding of eigenvalues")

    return measure


DEEP = slice(2, None)
FIT = "the second half of degrees up to {degree}"
TERMS = "terms of relative order (L/k)²"
PAPER = "theorem on kernels that are singular at ±1, and its corollaries"

CLAIMS = [
    Claim(
        name="nngp-even",
        statement="NNGP kernels fall like k^(−d−2), at any depth up to {deepest}: "
        f"exponent over even ones of {FIT}",
        source=PAPER,
        known="read",
        of="eigenvalues",
        measure=_exponents(NNGP, "even"),
        predicted=lambda found: -found.dim.values - 2.0,
        tolerance=0.02,
        reason=TERMS,
        figure="degrees",
    ),
    Claim(
        name="nngp-odd",
        statement="NNGP kernels of two layers or more fall like k^(−d−2) over odd "
        f"degrees too: exponent over odd ones of {FIT}",
        source=PAPER,
        known="read",
        of="eigenvalues",
        measure=_exponents(NNGP, "odd", DEEP),
        predicted=lambda found: -found.dim.values - 2.0,
        tolerance=0.02,
        reason=TERMS,
        figure="degrees",
    ),
    Claim(
        name="ntk-of-any-depth",
        statement="NTKs of all depths fall alike: the exponent of their eigenvalues "
        f"over those of one layer, over even ones of {FIT}",
        source=PAPER,
        known="read",
        of="eigenvalues",
        measure=_exponents(NTK, "beyond", DEEP),
        predicted=0.0,
        tolerance=0.02,
        reason=TERMS,
        figure="degrees",
    ),
    Claim(
        name="ntk-over-nngp",
        statement="the NTK falls by two powers less than the NNGP kernel: exponent of "
        "the NTK less that of the NNGP kernel, odd degrees, from two layers on",
        source=PAPER,
        known="read",
        of="eigenvalues",
        measure=lambda found: _apart(found),
        predicted=2.0,
        tolerance=0.04,
        reason=TERMS + ", of either",
        figure="degrees",
    ),
    Claim(
        name="nngp-near",
        statement="NNGP kernels: the constant at angle 0 is c₁ = L (2√2/3π), linear in "
        "depth: half the sum of even and odd μₖ/(C(d, ν) k^(1−d−2ν)), over that",
        source=PAPER + "; constants by depth",
        known="read",
        of="eigenvalues",
        measure=_over("near", NNGP),
        predicted=1.0,
        tolerance=0.01,
        reason=TERMS,
        figure="constants",
    ),
    Claim(
        name="ntk-near",
        statement="NTKs, not normalised: the constant at angle 0 is c₁ = −(√2/π) "
        "L(L+1)/2, quadratic in depth: half the sum of even and odd "
        "μₖ/(C(d, ν) k^(1−d−2ν)), over that",
        source=PAPER + "; constants by depth, the formula derived here",
        known="read",
        of="eigenvalues",
        measure=_over("near", NTK),
        predicted=1.0,
        tolerance=0.01,
        reason=TERMS,
        figure="constants",
    ),
    *(
        Claim(
            name=f"{name}-far",
            statement=f"{text}: the constant at angle π, c₋₁, is that of the first "
            "layer times the slopes of the layers above: half the difference of even "
            "and odd μₖ/(C(d, ν) k^(1−d−2ν)), over that",
            source=PAPER + "; the recursion derived here",
            known="derived",
            of="eigenvalues",
            measure=_over("far", kernel),
            predicted=1.0,
            tolerance=0.01,
            reason=TERMS,
            figure="constants",
        )
        for name, text, kernel in (
            ("nngp", "NNGP kernels", NNGP),
            ("ntk", "NTKs, not normalised", NTK),
        )
    ),
    Claim(
        name="residual-even",
        statement="NNGP kernels of residual networks, γ = 1/2, fall like k^(−d−2): "
        f"exponent over even ones of {FIT}",
        source="our extension to residual networks",
        known="derived",
        of="eigenvalues",
        measure=_exponents(RESIDUAL, "even"),
        predicted=lambda found: -found.dim.values - 2.0,
        tolerance=0.02,
        reason=TERMS,
        figure="degrees",
    ),
    Claim(
        name="residual-near",
        statement="NNGP kernels of residual networks, γ = 1/2: the constant at angle 0 "
        "does not grow with depth, c₁ = L/(L+1) times that of one plain layer: c₁ over "
        "that",
        source="our extension to residual networks",
        known="derived",
        of="eigenvalues",
        measure=_over("near", RESIDUAL),
        predicted=1.0,
        tolerance=0.01,
        reason=TERMS,
        figure="constants",
    ),
    Claim(
        name="step",
        statement="step activation: depth does change the power: the NNGP kernel of L "
        "layers up to {deepest} (a network of depth L + 1) is 1 − c (1 − u)^ν near "
        "angle 0, ν = 1/2^L: ν",
        source="theorem for the step activation, ν = 1/2^(depth − 1)",
        known="read",
        of="steps",
        measure=lambda found: fitted(found, "power", BOTH_HALVES),
        predicted=lambda found: 0.5**found.depth.values,
        tolerance=1e-3,
        reason="terms of relative order x/12, x the gap that the layer before leaves, "
        "below 0.1 at the angles taken",
    ),
]


def _apart(found):
    one = found.sel(depth=DEEP)
    ntk, nngp = one.sel(kernel=NTK), one.sel(kernel=NNGP)
    return Measured(
        (ntk.odd - nngp.odd).values,
        (ntk.odd_low - nngp.odd_high).values,
        (ntk.odd_high - nngp.odd_low).values,
        "slopes of both halves of either curve",
    )


# ----------------------------------------------------------------------------- figures


def draw_constants(found):
    """The constants at angle 0 and pi against depth."""
    axes = drawing.new_axes(1, 2)
    symbols = {"near": "|c₁|", "far": "|c₋₁|"}
    with drawing.style():
        for ax, (name, symbol) in zip(axes.flat, symbols.items(), strict=True):
            for kernel, look in looks(found.kernel.values).items():
                one = abs(found.isel(dim=0).sel(kernel=kernel))
                label = f"NNGP, residual, {kernel}" if kernel == RESIDUAL else kernel
                ax.plot(one.depth, one[name], **look | {"linestyle": ""}, label=label)
                known = one[f"predicted_{name}"].values
                drawing.theory_line(ax, one.depth, known, "theory")
            drawing.log_axes(ax)
            ax.set_xlabel("depth L")
            ax.set_ylabel(symbol)
        drawing.figure_legend(axes)
    return axes


def draw_degrees(found):
    """Eigenvalues over the power by which they fall, against degree."""
    axes = drawing.new_axes(1, 2)
    with drawing.style():
        for ax, kernel in zip(axes.flat, (NNGP, NTK), strict=True):
            names = {f"{kernel}, L = {depth}": depth for depth in found.depth.values}
            for label, look in looks(names).items():
                one = found.scaled.sel(kernel=kernel, depth=names[label])
                look = look | {"marker": "", "linewidth": 1.2}
                for parity, dashes in ((0, "-"), (1, (0, (1, 2)))):
                    k = one.degree.values[2:][one.degree.values[2:] % 2 == parity]
                    value = abs(one.sel(degree=k).values)
                    if (value > 0).all():
                        ax.plot(k, value, **look, linestyle=dashes)
                drawing.end_label(ax, k[-1], abs(float(one[-1])), label.split(", ")[1])
            drawing.log_axes(ax)
            ax.set_xlabel("degree k")
            nu = POWERS[kernel]
            power = "d" if nu == 0.5 else f"(d+{2 * nu - 1:g})"
            ax.set_ylabel(f"μₖ k^{power} / C, {kernel}")
    return axes


FIGURES = {
    "constants": Figure(
        of="eigenvalues",
        draw=draw_constants,
        title="The constants of the decay against depth",
        caption="(a) From the singularity at angle 0, (b) at π: points from the last "
        "degrees up to {degree}, dashed the recursion.",
    ),
    "degrees": Figure(
        of="eigenvalues",
        draw=draw_degrees,
        title="Eigenvalues over the power by which they fall",
        caption="Of plain networks, against degree; lines even, dotted odd degrees. A "
        "level line falls by the predicted power. (a) NNGP kernels, (b) NTKs, not "
        "normalised.",
    ),
}


def answer(results, entries):
    """From the exponents and the constants."""
    found = results["eigenvalues"].isel(dim=0)
    deep = found.isel(depth=-1)
    depth, d = int(deep.depth), int(deep.dim)
    exponent = {k: float(deep.even.sel(kernel=k)) for k in (NNGP, NTK)}
    growth = found.near / found.near.isel(depth=0)
    times = {k: float(growth.sel(kernel=k, depth=depth)) for k in (NNGP, NTK)}
    same = all_hold(entries, "nngp-even", "nngp-odd", "ntk-of-any-depth")
    grow = all_hold(entries, "nngp-near", "ntk-near")
    step = results["steps"].isel(depth=-1)
    halved = "is halved" if all_hold(entries, "step") else "is not halved"
    return (
        f"{'Not in' if same else 'Also in'} the power by which eigenvalues of ReLU "
        f"kernels fall: on the sphere in {d} dimensions it is {exponent[NTK]:.3f} for "
        f"the NTK and {exponent[NNGP]:.3f} for the NNGP kernel of {depth} layers"
        f"{', as for one' if same else ', unlike one'}. The constant is "
        f"{times[NTK]:.4g} and {times[NNGP]:.4g} times that of one layer, "
        f"{'as' if grow else 'not as'} predicted. With the step activation the power "
        f"ν of 1 − u {halved} by each layer: it is {float(step.power):.4g} with "
        f"{int(step.depth)}."
    )


STUDY = Study(
    name="bietti2021",
    title="Deep equals shallow for ReLU networks in kernel regimes",
    reference="""@inproceedings{bietti2021,
  author = {Alberto Bietti and Francis Bach},
  title = {Deep equals shallow for {ReLU} networks in kernel regimes},
  booktitle = {International Conference on Learning Representations},
  year = {2021},
  note = {arXiv:2009.14397},
}""",
    question="Does depth change which functions a ReLU network's kernel can learn?",
    summary="On the sphere the decay of a kernel's eigenvalues follows from its "
    "singularities at angles 0 and π, and composing ReLU layers does not change their "
    "power: kernels of any depth have the spaces of functions of a shallow one. What "
    "depth changes are constants: of the NNGP kernel (of random features) linearly, of "
    "the NTK quadratically. With the step activation each layer halves the power, so "
    "that depth does change it; here at angle 0, not in eigenvalues.",
    answer=answer,
    measurements={
        "eigenvalues": Measurement(
            measure=eigenvalues,
            full={"dims": [3, 5], "depths": [1, 2, 3, 5, 10, 20], "degree": 600},
            quick={"dims": [3], "depths": [1, 2, 5, 10], "degree": 200},
        ),
        "steps": Measurement(
            measure=steps,
            full={
                "depths": [1, 2, 3, 4],
                "angles": [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2],
            },
            quick={"depths": [1, 3]},
        ),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=6, full=60),
)
