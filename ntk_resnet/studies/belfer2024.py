"""Belfer et al. 2024: the spectrum of the tangent kernel of deep residual networks."""

import numpy as np
import xarray as xr

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.ledger import Claim, Measured, exact, fitted
from ntk_resnet.studies.study import Budget, Figure, Measurement, Study

HALF, ONE = nr.DepthScale(0.5), nr.DepthScale(1.0)
NETWORKS = {
    "plain, L = 3": nr.FeedForward(depth=3, trained="blocks"),
    "plain, L = 100": nr.FeedForward(depth=100, trained="blocks"),
    "γ = 1/2, L = 100": nr.ResNet(depth=100, branch_scale=HALF),
    "γ = 1, L = 100": nr.ResNet(depth=100, branch_scale=ONE),
    "α = 1, L = 10": nr.ResNet(depth=10, branch_scale=1.0),
}
FIT = 40  # the first degree that exponents are fitted to


# ---------------------------------------------------------------- decay of eigenvalues


def decay(
    *, dims: list[int], degree: int, far: int, progress: Progress = quiet
) -> xr.Dataset:
    """Eigenvalues on spheres by degree, and the powers by which they fall.

    Over (`family`, `dim`): `exponent` of k + (d-2)/2 over even degrees from 40 to
    `degree`, its interval `exponent_low` and `exponent_high`, and those of the second
    half of the degrees up to `far` in three dimensions, `far_exponent`. Over
    (`family`, `degree`), in three dimensions, `log10_eigenvalue`, and
    `laplace_log10_eigenvalue`, of the kernel exp(-|x - x'|).
    """
    pieces = len(NETWORKS)
    fits, far_fits, logs = [], [], []
    for done, (name, spec) in enumerate(NETWORKS.items()):
        progress(done, pieces, f"eigenvalues of {name}")
        fits.append(
            [
                nr.decay_exponent(
                    nr.mercer(spec, dim=d, max_degree=degree), (FIT, degree)
                )
                for d in dims
            ]
        )
        report = part_of(progress, done, 1, pieces, f"{name}, ")
        deep = nr.mercer(spec, dim=3, max_degree=far, progress=report)
        far_fits.append(nr.decay_exponent(deep, (far // 2, far)))
        logs.append(deep.log10_eigenvalue.values)
    laplace = nr.laplace_mercer(dim=3, max_degree=far).log10_eigenvalue
    over = ("family", "dim")
    near, late = np.array(fits), np.array(far_fits)
    return xr.Dataset(
        {
            "exponent": (over, near[..., 0]),
            "exponent_low": (over, near[..., 1]),
            "exponent_high": (over, near[..., 2]),
            "far_exponent": ("family", late[:, 0]),
            "far_exponent_low": ("family", late[:, 1]),
            "far_exponent_high": ("family", late[:, 2]),
            "log10_eigenvalue": (("family", "degree"), np.array(logs)),
            "laplace_log10_eigenvalue": ("degree", laplace.values),
        },
        coords={"family": list(NETWORKS), "dim": dims, "degree": np.arange(far + 1)},
        attrs={"degree": degree, "far": far, "dim": 3},
    )


# At degrees of 40 and more the first ones have reached their power; of the others one
# is deeper than that, and in the other the odd degrees are still catching up.
_SOON = ["plain, L = 3", "γ = 1/2, L = 100", "α = 1, L = 10"]
_LATE = ["plain, L = 100", "γ = 1, L = 100"]


def _exponents(found, families):
    one = found.sel(family=families).transpose(..., "dim")
    return fitted(one, "exponent")


def _over_laplace(found):
    """Eigenvalues over the Laplace kernel's, at the last degree over half of it."""
    logs = found.log10_eigenvalue - found.laplace_log10_eigenvalue
    last = found.attrs["far"]
    both = [
        logs.sel(degree=at) - logs.sel(degree=at // 2 // 2 * 2 + at % 2)
        for at in (last, last - 1)
    ]
    return exact(10 ** np.array(both), 1e-9)


# -------------------------------------------------------------------------- parity


RATIOS = {"γ = 1/2": (0.5, 0.187), "γ = 3/4": (0.75, 0.047), "γ = 1": (1.0, 0.0086)}
CIRCLE = {
    "γ = 1": (1.0, [0.0776, 0.00118, 0.00792, 0.00062, 0.00279, 0.00042]),
    "γ = 1/2": (0.5, [0.0678, 0.0167, 0.00848, 0.00466, 0.00319, 0.00220]),
}


def parity(*, depth: int, progress: Progress = quiet) -> xr.Dataset:
    """Eigenvalues of even and odd degree of residual networks of that depth.

    Over (`family`, `degree`) in three dimensions: `log10_eigenvalue`; over (`scale`,
    `frequency`): `circle`, eigenvalues on the circle, from degree 2 to 7; over
    `exponent`: `ratio`, the eigenvalue of degree 3 over that of degree 2. `single`, the
    largest odd eigenvalue of one block, from degree 3 on, over the even one before.
    """
    nets = {
        name: nr.ResNet(depth=depth, branch_scale=nr.DepthScale(gamma))
        for name, (gamma, _) in RATIOS.items()
    }
    found = [nr.mercer(spec, dim=3, max_degree=60) for spec in nets.values()]
    ratios = [float(nr.parity_imbalance(one)[0]) for one in found]
    circle = [
        nr.mercer(nets[name], dim=2, max_degree=7).eigenvalue.values[2:]
        for name in CIRCLE
    ]
    block = nr.parity_imbalance(
        nr.mercer(nets["γ = 1"].replace(depth=1), dim=3, max_degree=60)
    )
    return xr.Dataset(
        {
            "log10_eigenvalue": (
                ("family", "degree"),
                np.array([one.log10_eigenvalue.values for one in found]),
            ),
            "ratio": ("family", ratios),
            "circle": (("scale", "frequency"), np.array(circle)),
            "single": float(np.max(np.abs(block))),
        },
        coords={
            "family": list(nets),
            "degree": np.arange(61),
            "scale": list(CIRCLE),
            "frequency": np.arange(2, 8),
        },
        attrs={"depth": depth},
    )


def _ratio_of(name):
    return lambda found: exact(found.ratio.sel(family=name), 1e-12)


def _circle_of(name):
    known = CIRCLE[name][1]
    return lambda found: exact(found.circle.sel(scale=name) / known, 1e-12)


# -------------------------------------------------------------------- small angles


SHARP = {
    "plain, all trained": nr.FeedForward(depth=1),
    "plain": nr.FeedForward(depth=1, trained="blocks"),
    "γ = 1": nr.ResNet(depth=1, branch_scale=ONE),
    "γ = 1/2": nr.ResNet(depth=1, branch_scale=HALF),
    "α = 1": nr.ResNet(depth=1, branch_scale=1.0),
}


def small_angles(*, depths: list[int], progress: Progress = quiet) -> xr.Dataset:
    """How steep kernels are at small angles, and at antipodes.

    Over (`family`, `depth`): `steepness`, pi (1 - NTK) / theta at theta = 1e-6, and
    `predicted`; over `depth`: `antipode`, pi times the NTK's slope at the angle pi of a
    residual network with gamma = 1/2, and `predicted_antipode`.
    """
    theta = 1e-6
    steep = [
        [
            float(nr.profile(spec.replace(depth=depth)).ntk_gap(theta))
            for depth in depths
        ]
        for spec in SHARP.values()
    ]
    predicted = [[_steepness(name, depth) for depth in depths] for name in SHARP]
    slope, product = [], []
    for depth in depths:
        spec = SHARP["γ = 1/2"].replace(depth=depth)
        ntk = nr.profile(spec).ntk
        slope.append(float(ntk(np.pi) - ntk(np.pi - theta)) / theta)
        scale = depth**-0.5
        path = nr.sweep_depth(
            nr.ResNet(depth=1, branch_scale=scale), range(1, depth + 1), angles=[np.pi]
        )
        kappa = 1 - np.arccos(np.clip(path.nngp.values[:-1, 0], -1, 1)) / np.pi
        factors = (1 + scale**2 * kappa) / (1 + scale**2)
        product.append(np.prod(factors) / (2 * depth))
    over = ("family", "depth")
    return xr.Dataset(
        {
            "steepness": (over, np.pi * np.array(steep) / theta),
            "predicted": (over, np.array(predicted)),
            "antipode": ("depth", np.pi * np.array(slope)),
            "predicted_antipode": ("depth", np.array(product)),
        },
        coords={"family": list(SHARP), "depth": depths},
        attrs={"theta": theta},
    )


def _steepness(name, depth):
    """The coefficient of theta / pi in 1 - NTK."""
    if name.startswith("plain"):
        return (depth + (name == "plain")) / 2
    gamma = {"γ = 1": 1.0, "γ = 1/2": 0.5, "α = 1": 0.0}[name]
    square = float(depth) ** (-2 * gamma)
    return (1 + square / (1 + square) * (depth - 1)) / 2


# --------------------------------------------------------------- gradient descent


def descent(*, points: int, depth: int, progress: Progress = quiet) -> xr.Dataset:
    """How many steps of gradient descent it takes to fit cos(k theta) on the circle.

    With the tangent kernel of a residual network of scale 1/depth on uniform points, to
    a twentieth of the error. Over `frequency`: `steps`, and `eigenvalue`, that of the
    kernel on the circle.
    """
    spec = nr.ResNet(depth=depth, branch_scale=ONE)
    theta = 2 * np.pi * np.arange(points) / points
    kernel = nr.gram(spec, np.column_stack([np.cos(theta), np.sin(theta)]))
    frequency = np.arange(1, points // 16 + 1)
    target = np.cos(theta[:, None] * frequency)
    rate = 0.05 / np.linalg.norm(kernel, 2)
    error, steps = target.copy(), np.zeros(len(frequency))
    size = np.linalg.norm(target, axis=0)
    while (large := np.linalg.norm(error, axis=0) > 0.05 * size).any():
        steps += large
        error -= rate * (kernel @ error)
        progress(len(frequency) - large.sum(), len(frequency), "gradient descent")
    known = nr.mercer(spec, dim=2, max_degree=int(frequency[-1])).eigenvalue.values[1:]
    return xr.Dataset(
        {"steps": ("frequency", steps), "eigenvalue": ("frequency", known)},
        coords={"frequency": frequency},
        attrs={"points": points, "depth": depth, "rate": float(rate)},
    )


def _product(found):
    """Steps times eigenvalue, over what a mode alone would take."""
    rate = found.attrs["rate"] * found.attrs["points"]
    alone = np.log(20) / -np.log1p(-rate * found.eigenvalue)
    steps = found.steps.values
    return Measured(steps / alone, (steps - 1) / alone, steps / alone, "whole steps")


# --------------------------------------------------------------------------- claims


CLAIMS = [
    Claim(
        name="8a",
        statement="eigenvalues on the sphere in d dimensions fall like "
        f"(k + (d−2)/2)^(−d), even degrees {FIT} to {{degree}}: exponent, plain L = 3, "
        "γ = 1/2 and α = 1",
        source="theorem on the decay of eigenvalues",
        known="summary",
        of="decay",
        measure=lambda found: _exponents(found, _SOON),
        predicted=lambda found: -found.dim.values,
        tolerance=0.02,
        reason="terms of order 1/k² at the first degree",
        figure="decay",
    ),
    Claim(
        name="8a",
        statement="the same at the same degrees of a plain network of L = 100, and of "
        "a residual one, γ = 1, L = 100",
        source="theorem on the decay of eigenvalues",
        known="summary",
        of="decay",
        measure=lambda found: _exponents(found, _LATE),
        predicted=lambda found: -found.dim.values,
        tolerance=0.02,
        reason="as above; the theorem is about large degrees, not said how large",
        figure="decay",
    ),
    Claim(
        name="8a",
        statement="all networks, plain L = 100 too, once degrees are far beyond depth: "
        "exponent over even degrees up to {far}, d = 3",
        source="theorem on the decay of eigenvalues",
        known="summary",
        of="decay",
        measure=lambda found: fitted(found, "far_exponent"),
        predicted=-3.0,
        tolerance=0.02,
        reason="terms of relative order L/k",
        figure="decay",
    ),
    Claim(
        name="8e",
        statement="eigenvalues over those of the Laplace kernel tend to a constant, "
        "for each parity: ratio at degree {far} over that at half of it, d = 3",
        source="the same spaces of functions as for the Laplace kernel",
        known="summary",
        of="decay",
        measure=_over_laplace,
        predicted=1.0,
        tolerance=0.02,
        reason="terms of relative order L/k",
        figure="decay",
    ),
    Claim(
        name="8b",
        statement="1 − NTK = c θ/π at small angles, c = L/2 and (L+1)/2 for plain "
        "networks, (1 + a (L−1))/2 with a = α²/(1+α²) for residual ones: c measured "
        "over predicted",
        source="spikiness with depth",
        known="derived",
        of="small_angles",
        measure=lambda found: exact(found.steepness / found.predicted, 1e-9),
        predicted=1.0,
        tolerance=1e-3,
        reason="next term of relative order c θ, at θ = {theta:g}",
        figure="small_angles",
    ),
    Claim(
        name="8b",
        statement="γ = 1/2: the NTK falls like c (π − θ)/π from antipodes, c the "
        "product of (1 + α² κ₀)/(1 + α²) over 2L: c measured over predicted",
        source="spikiness with depth",
        known="derived",
        of="small_angles",
        measure=lambda found: exact(found.antipode / found.predicted_antipode, 1e-7),
        predicted=1.0,
        tolerance=1e-3,
        reason="next term of relative order c (π − θ)",
    ),
    Claim(
        name="8c",
        statement="one block: eigenvalues of odd degree from 3 on are 0: the largest "
        "over the even one before, d = 3",
        source="parity without bias",
        known="summary",
        of="parity",
        measure=lambda found: exact(found.single, 1e-15),
        predicted=0.0,
        tolerance=1e-12,
        reason="exact; rounding of the quadrature",
        figure="parity",
    ),
    *(
        Claim(
            name="8c",
            statement=f"{name}: the eigenvalue of degree 3 over that of degree 2, "
            "d = 3, L = {depth}",
            source="parity imbalance and its removal at γ = 1/2",
            known="derived",
            of="parity",
            measure=_ratio_of(name),
            predicted=ratio,
            tolerance=0.02 * ratio,
            reason="2 %: the prediction has two or three digits",
            figure="parity",
        )
        for name, (_, ratio) in RATIOS.items()
    ),
    *(
        Claim(
            name="8c",
            statement=f"{name}: eigenvalues of degrees 2 to 7 on the circle, "
            "L = {depth}, over the values computed independently",
            source="parity imbalance and its removal at γ = 1/2",
            known="derived",
            of="parity",
            measure=_circle_of(name),
            predicted=1.0,
            tolerance=0.02,
            reason="2 %: the prediction has two or three digits",
            figure="parity",
        )
        for name in CIRCLE
    ),
    Claim(
        name="8d",
        statement="gradient descent on the circle, residual, L = {depth}, "
        "α = 1/{depth}: steps to fit cos(kθ) over those of the eigenvalue μ_k alone",
        source="experiment on the circle, depth 50, α = 1/50",
        known="summary",
        of="descent",
        measure=_product,
        predicted=1.0,
        tolerance=0.05,
        reason="frequencies that {points} points do not tell apart",
        figure="descent",
    ),
    Claim(
        name="8d",
        statement="odd frequencies take longer than the next even ones: steps of k "
        "over those of k + 1, odd k ≥ 3, the least",
        source="experiment on the circle, depth 50, α = 1/50",
        known="summary",
        of="descent",
        measure=lambda found: exact(_odd_over_even(found).min(), 0.01),
        predicted=2.0,
        side="above",
        reason="our own bound: twice as long",
        figure="descent",
    ),
]


def _odd_over_even(found):
    steps = found.steps
    odd = [k for k in found.frequency.values[:-1] if k % 2 and k >= 3]
    return steps.sel(frequency=odd).values / steps.sel(frequency=np.add(odd, 1)).values


# -------------------------------------------------------------------------- figures


def draw_parity(found):
    """Eigenvalues by degree: even ones as lines, odd ones as points."""
    with drawing.style():
        ax = drawing.one_axes(None)
        degree = found.degree.values
        for name, look in looks(found.family.values).items():
            logs = found.log10_eigenvalue.sel(family=name).values
            even, odd = (degree > 0) & (degree % 2 == 0), degree % 2 == 1
            marker = look.pop("marker")
            ax.plot(degree[even], 10 ** logs[even], **look, label=f"{name}, even k")
            ax.plot(
                degree[odd],
                10 ** logs[odd],
                **look,
                linestyle="",
                marker=marker,
                markersize=3,
                label=f"{name}, odd k",
            )
        drawing.log_axes(ax)
        ax.yaxis.set_major_formatter("{x:.0e}")
        ax.set_xlabel("degree k")
        ax.set_ylabel("eigenvalue μₖ of the NTK, d = 3")
        drawing.legend(ax)
    return ax


def draw_decay(found):
    """Eigenvalues over the Laplace kernel's, even degrees."""
    with drawing.style():
        ax = drawing.one_axes(None)
        even = found.isel(degree=slice(2, None, 2))
        for name, look in looks(found.family.values).items():
            ratio = (
                even.log10_eigenvalue.sel(family=name) - even.laplace_log10_eigenvalue
            )
            ax.plot(even.degree, 10**ratio, **look | {"marker": ""}, label=name)
            drawing.end_label(ax, even.degree[-1], 10 ** float(ratio[-1]), name)
        drawing.log_axes(ax)
        ax.set_xlabel("even degree k")
        ax.set_ylabel("μₖ / that of exp(−|x − x′|), d = 3")
    return ax


def draw_small_angles(found):
    """The steepness of kernels at small angles against depth."""
    with drawing.style():
        ax = drawing.one_axes(None)
        for name, look in looks(found.family.values).items():
            one = found.sel(family=name)
            ax.plot(one.depth, one.steepness, **look | {"linestyle": ""}, label=name)
            ax.plot(one.depth, one.predicted, **drawing.THEORY)
        ax.plot([], [], **drawing.THEORY, label="theory")
        drawing.log_axes(ax)
        ax.set_xlabel("depth L")
        ax.set_ylabel("c = π (1 − NTK) / θ")
        drawing.legend(ax)
    return ax


def draw_descent(found):
    """Steps of gradient descent against the eigenvalue."""
    with drawing.style():
        ax = drawing.one_axes(None)
        (look,) = looks(["γ = 1"]).values()
        for parity, face in ((0, look["color"]), (1, drawing.PAPER)):
            one = found.isel(frequency=found.frequency.values % 2 == parity)
            word = ("even", "odd")[parity]
            own = look | {"linestyle": "", "markerfacecolor": face}
            ax.plot(one.frequency, one.steps, **own, label=f"k {word}")
        rate = found.attrs["rate"] * found.attrs["points"]
        predicted = np.log(20) / -np.log1p(-rate * found.eigenvalue)
        ax.plot(found.frequency, predicted, **drawing.THEORY, label="theory, ∝ 1/μₖ")
        ax.set_yscale("log")
        ax.set_xlabel("frequency k of the target cos(kθ)")
        ax.set_ylabel("steps to a twentieth of the error")
        drawing.legend(ax)
    return ax


FIGURES = {
    "parity": Figure(
        of="parity",
        draw=draw_parity,
        title="Eigenvalues of even and odd degree, residual networks of L = {depth}",
        caption="Eigenvalues of the normalised NTK on the sphere in three dimensions "
        "by degree k, for branches scaled by L^(−γ): lines even, points odd degrees.",
    ),
    "decay": Figure(
        of="decay",
        draw=draw_decay,
        title="Eigenvalues over those of the Laplace kernel",
        caption="Even degrees, in three dimensions. A kernel whose eigenvalues fall "
        "like those of the Laplace kernel, by the power −d, is a level line; in plain "
        "networks it levels beyond degrees of about the depth.",
    ),
    "small_angles": Figure(
        of="small_angles",
        draw=draw_small_angles,
        title="How steep kernels are at small angles, against depth",
        caption="The coefficient c of θ/π in 1 − NTK: points by the closed forms at "
        "θ = {theta:g}, dashed the formulas.",
    ),
    "descent": Figure(
        of="descent",
        draw=draw_descent,
        title="Steps of gradient descent to fit a frequency on the circle",
        caption="Kernel gradient descent with the NTK of a residual network of depth "
        "{depth}, α = 1/{depth}, on {points} uniform points: steps until a twentieth "
        "of the error is left, and what the eigenvalue predicts (dashed).",
    ),
}


def answer(results, _):
    """From the ratios of both parities."""
    found = results["parity"]
    one, half = (float(found.ratio.sel(family=f)) for f in ("γ = 1", "γ = 1/2"))
    return (
        "As fast as those of the Laplace kernel, whatever the depth: by the power −d "
        "of the degree on the sphere in d dimensions. But with branches scaled by 1/L "
        f"odd degrees are nearly absent (degree 3 has {one:.2g} of the eigenvalue of "
        f"degree 2 at depth {found.attrs['depth']}), and 1/√L brings them back "
        f"({half:.2g})."
    )


STUDY = Study(
    name="belfer2024",
    title="Spectral analysis of the neural tangent kernel for deep residual networks",
    reference="""@article{belfer2024,
  author = {Yuval Belfer and Amnon Geifman and Meirav Galun and Ronen Basri},
  title = {Spectral analysis of the neural tangent kernel for deep residual networks},
  journal = {Journal of Machine Learning Research},
  volume = {25},
  year = {2024},
  note = {arXiv:2104.03093},
}""",
    question="How fast do the eigenvalues of a deep residual network's kernel fall, "
    "and which functions does it learn late?",
    summary="On the sphere the kernel's eigenfunctions are spherical harmonics. Their "
    "eigenvalues fall with the degree by the same power as for plain networks and for "
    "the Laplace kernel. What depth changes is the shape: plain kernels become spiky, "
    "residual ones with branches scaled by L^(−γ), γ > 1/2, tend to that of two "
    "layers, in which odd functions are missing.",
    answer=answer,
    measurements={
        "decay": Measurement(
            measure=decay,
            full={"dims": [2, 3, 4, 6], "degree": 120, "far": 1500},
            quick={"dims": [2, 3], "far": 1000},
        ),
        "parity": Measurement(measure=parity, full={"depth": 50}),
        "small_angles": Measurement(
            measure=small_angles, full={"depths": [1, 3, 10, 30, 100]}
        ),
        "descent": Measurement(measure=descent, full={"points": 128, "depth": 50}),
    },
    claims=CLAIMS,
    figures=FIGURES,
    budget=Budget(quick=20, full=60),
)
