"""Xiao, Pennington & Schoenholz 2020: what depth does to training and to prediction."""

import numpy as np
import xarray as xr
from scipy import optimize

import ntk_resnet as nr
from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.ledger import Claim, exact
from ntk_resnet.studies.study import Budget, Figure, Measurement, Study

SLOPES = {"ordered": 0.810, "critical": 1.0, "chaotic": 1.276}
RELU = "ReLU"  # critical too, without bias
NETWORKS = (*SLOPES, RELU)
BIAS = 0.3


def erf(weight_variance):
    """The plain network of the error function, of any depth."""
    return nr.FeedForward(
        depth=1,
        activation="erf",
        weight_variance=float(weight_variance),
        bias_variance=BIAS,
    )


def variance_of(slope):
    """q*, the fixed point of the variance where the error function has that slope."""

    def off(q):
        second = 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q))
        return slope * np.pi / 4 * np.sqrt(1 + 4 * q) * second + BIAS - q

    return optimize.brentq(off, 0.1, 10.0, xtol=1e-15, rtol=1e-15)


def weight_of(slope):
    """The weight variance there: the slope is 4/pi times it, by sqrt(1 + 4 q)."""
    return slope * np.pi / 4 * np.sqrt(1 + 4 * variance_of(slope))


def input_kernel(slope):
    """|x|^2/d of inputs whose first pre-activations have the variance q*."""
    return (variance_of(slope) - BIAS) / weight_of(slope)


# -------------------------------------------------------------------- the fixed points


def fixed_points(*, progress: Progress = quiet) -> xr.Dataset:
    """The critical error function, by `nr.phase`: `weight_variance` and `variance`."""
    off = lambda weight: float(nr.phase(erf(weight)).slope) - 1  # noqa: E731
    critical = optimize.brentq(off, 1.5, 2.5, xtol=1e-10)
    progress(1, 1, "fixed points")
    variance = float(nr.phase(erf(critical)).variance)
    return xr.Dataset({"weight_variance": critical, "variance": variance})


# ---------------------------------------------------------------- matrices over data


def matrices(
    *, points: int, depths: list[int], far: list[int], progress: Progress = quiet
) -> xr.Dataset:
    """Condition number, entries and predictions of the NTK on data, against depth.

    Inputs are spread over a sphere in ten dimensions, as large as gives the first layer
    the variance q*; labels are centred. Depths are `depths` in the ordered and the
    chaotic phase, `far` in the critical ones; numbers at other depths are NaN.

    Over (`network`, `depth`): `condition_number`, `predicted`, `off_diagonal`, the mean
    entry of the normalised matrix off the diagonal, `prediction`, the root mean square
    of predictions at new points over that of the labels, and `gap`, one minus the
    correlation of a pair. As an attribute `decay`, ln(chi_1 / chi_c) if chaotic.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(points + points // 4, 10))
    x *= np.sqrt(10 / np.sum(x**2, axis=1, keepdims=True))
    y = x[:points, 0] + x[:points, 1] * x[:points, 2]
    y -= y.mean()
    nets = {name: erf(weight_of(slope)) for name, slope in SLOPES.items()}
    nets[RELU] = nr.FeedForward(depth=1)
    pieces = []
    for done, (name, spec) in enumerate(nets.items()):
        own = far if name in ("critical", RELU) else depths
        size = 1.0 if name == RELU else input_kernel(SLOPES[name])
        report = part_of(progress, done, 1, len(nets), f"{name}, ")
        pieces.append(_against_depth(spec, own, np.sqrt(size) * x, y, report))
    every = sorted({*depths, *far})
    found = xr.concat([one.reindex(depth=every) for one in pieces], "network")
    chaotic = nr.phase(nets["chaotic"])
    attrs = {
        "points": points,
        "last": max(depths),
        "far": max(far),
        "decay": float(np.log(chaotic.slope / chaotic.correlation_slope)),
    }
    return found.assign_coords(network=list(nets)).assign_attrs(attrs)


def _against_depth(spec, depths, x, y, progress):
    swept = nr.sweep_depth(spec, depths, x=x, progress=progress)
    rows = [_of_matrix(kernel, y) for kernel in swept.ntk.values]
    found = {name: ("depth", [row[name] for row in rows]) for name in rows[0]}
    predicted = nr.predicted_condition_number(spec, len(y), depths)
    found["predicted"] = "depth", predicted.values
    found["gap"] = "depth", swept.nngp_gap.values[:, 0, 1]
    return xr.Dataset(found, coords={"depth": depths})


def _of_matrix(kernel, y):
    """What one matrix says, of training rows and new ones after them."""
    points = len(y)
    train, new = kernel[:points, :points], kernel[points:, :points]
    made = new @ np.linalg.solve(train, y)
    return {
        "condition_number": float(nr.spectrum(train).condition_number),
        "off_diagonal": float(train[~np.eye(points, dtype=bool)].mean()),
        "prediction": float(np.sqrt(np.mean(made**2) / np.mean(y**2))),
    }


def _last(values):
    """Those at the last two depths at which there are any, and these depths."""
    known = values.dropna("depth").isel(depth=[-2, -1])
    return known.values, known.depth.values


def _rate(values):
    """By how much ln of values grows a layer, at the end."""
    known, depth = _last(values)
    return float(np.diff(np.log(known))[0] / np.diff(depth)[0])


def _rate_over(name, network, known, less=0.0, power=0):
    """The rate of a variable (less something, times a power of L) over a known one."""

    def measure(found):
        one = found[name].sel(network=network) - less
        rate = known(found) if callable(known) else known
        return exact(_rate(one * one.depth.astype(float) ** power) / rate, 1e-3)

    return measure


def _power_of(network):
    """The power of depth by which predictions grow, at the end."""

    def measure(found):
        known, depth = _last(found.prediction.sel(network=network))
        return exact(np.diff(np.log(known)) / np.diff(np.log(depth)), 1e-6)

    return measure


def _over_limit(network):
    """The condition number over its limit, at the last depth."""

    def measure(found):
        one = found.sel(network=network, depth=found.attrs["far"])
        return exact(one.condition_number / one.predicted, 1e-9)

    return measure


def _twice_the_term(found):
    """4 ln L/L: the term is 2 ln L/L for ReLU, and 2.4 ln L/L for erf."""
    return 4 * np.log(found.attrs["far"]) / found.attrs["far"]


def _ordered_end(found):
    """The size of predictions at the last depth over that before, if ordered."""
    (before, last), _ = _last(found.prediction.sel(network="ordered"))
    return exact(last / before, 1e-4)


def _at_thirty(name):
    """What the chaotic network of 30 layers has."""
    return lambda found: exact(found[name].sel(network="chaotic", depth=30), 1e-9)


# ------------------------------------------------------------ far into the critical one


def approach(
    *, depths: list[int], angles: list[float], progress: Progress = quiet
) -> xr.Dataset:
    """The NTK of the critical error function at angles, far deeper than data need.

    Over (`depth`, `angle`): `shortfall`, what the normalised NTK lacks to 1/3. As an
    attribute `coefficient`, that of ln L / L in it.
    """
    swept = nr.sweep_depth(
        erf(weight_of(1.0)), depths, angles=angles, progress=progress
    )
    return xr.Dataset(
        {"shortfall": swept.ntk_gap - 2 / 3},
        coords={"depth": depths, "angle": angles},
        attrs={"coefficient": shortfall_coefficient(), "far": max(depths)},
    )


def shortfall_coefficient():
    r"""1/3 + 2/(9 beta), with beta the second derivative of the map C at 1.

    The gap d of two correlations goes to :math:`d - \beta d^2/2 + \gamma d^3/6`, so
    that :math:`1/d = \beta L/2 + (\beta/2 - \gamma/(3\beta)) \ln L + O(1)`; put into
    :math:`\Theta_{L+1} = K_{L+1} + C' \Theta_L` the logarithm gives
    :math:`2\gamma/(9\beta^2) - 1/3`, where the error function has
    :math:`\gamma = \beta + 3\beta^2`.
    """
    q = variance_of(1.0)
    share = 2 * q / (1 + 2 * q)
    return float(1 / 3 + 2 / 9 * (1 - share**2) / share**2)


def _coefficient(found):
    """d(L times shortfall) / d ln L, at the end."""
    last = found.shortfall.transpose("depth", "angle").isel(depth=[-2, -1])
    depth = last.depth.values[:, None]
    slope = np.diff(depth * last.values, axis=0) / np.diff(np.log(depth), axis=0)
    return exact(slope, 1e-6)


# ----------------------------------------------------------------------------- claims


TABLE = "table of condition numbers and predictions by phase"
TEN = "10 %, for terms of relative order 1/L"

CLAIMS = [
    Claim(
        name="11.1",
        statement="erf, bias variance 0.3: the critical weight variance",
        source="values computed independently",
        known="derived",
        of="fixed_points",
        measure=lambda found: exact(found.weight_variance, 1e-9),
        predicted=1.96307,
        tolerance=5e-6,
        reason="digits of the prediction",
    ),
    Claim(
        name="11.1",
        statement="the fixed point q* of the variance there",
        source="values computed independently",
        known="derived",
        of="fixed_points",
        measure=lambda found: exact(found.variance, 1e-9),
        predicted=1.31182,
        tolerance=5e-6,
        reason="digits of the prediction",
    ),
    Claim(
        name="11.1",
        statement="ordered: one minus a correlation falls by χ₁ a layer: the rate over "
        "ln χ₁, at L = {last}",
        source="depth scale ξ = −1/ln χ",
        known="summary",
        of="matrices",
        measure=_rate_over("gap", "ordered", np.log(SLOPES["ordered"])),
        predicted=1.0,
        tolerance=0.01,
        reason="terms of relative order χ₁^L; 1e-3 for rounding",
        figure="matrices",
    ),
    Claim(
        name="11.1",
        statement="ordered: the condition number grows as m χ₁^(−L)/L: the rate of L "
        "times it over −ln χ₁, at L = {last}",
        source=TABLE,
        known="summary",
        of="matrices",
        measure=_rate_over(
            "condition_number", "ordered", -np.log(SLOPES["ordered"]), power=1
        ),
        predicted=1.0,
        tolerance=0.1,
        reason=TEN,
        figure="matrices",
    ),
    Claim(
        name="11.1",
        statement="critical, smooth: the condition number of m = {points} points tends "
        "to (m+2)/2: over it, at L = {far}",
        source=TABLE,
        known="summary",
        of="matrices",
        measure=_over_limit("critical"),
        predicted=1.0,
        tolerance=_twice_the_term,
        reason="twice the term of order ln L/L, 9/2 of what the NTK lacks to 1/3",
        figure="matrices",
    ),
    Claim(
        name="11.1",
        statement="critical, ReLU: the condition number of m = {points} points tends "
        "to (m+3)/3: over it, at L = {far}",
        source="the limit 1/4 put into the matrix",
        known="derived",
        of="matrices",
        measure=_over_limit(RELU),
        predicted=1.0,
        tolerance=_twice_the_term,
        reason="twice the term of order ln L/L, 16/3 of (3/8) ln L/L",
        figure="matrices",
    ),
    Claim(
        name="11.1",
        statement="chaotic: the condition number tends to 1 by χ₁ a layer: the rate of "
        "its excess over −ln χ₁, at L = {last}",
        source=TABLE,
        known="summary",
        of="matrices",
        measure=_rate_over(
            "condition_number", "chaotic", -np.log(SLOPES["chaotic"]), less=1.0
        ),
        predicted=1.0,
        tolerance=0.1,
        reason="10 %, for terms of relative order L (χ_c)^L",
        figure="matrices",
    ),
    Claim(
        name="11.1",
        statement="chaotic: the condition number of {points} points at L = 30",
        source="value computed independently, 100 points",
        known="derived",
        of="matrices",
        measure=_at_thirty("condition_number"),
        predicted=1.05,
        tolerance=0.005,
        reason="digits of the prediction",
        figure="matrices",
    ),
    Claim(
        name="11.1",
        statement="chaotic: the mean normalised NTK off the diagonal at L = 30",
        source="value computed independently",
        known="derived",
        of="matrices",
        measure=_at_thirty("off_diagonal"),
        predicted=5.4e-4,
        tolerance=0.27e-4,
        reason="5 %: the number is of inputs that are not stated, and lies between "
        "5.2e-4 and 5.6e-4 as their angle does",
        figure="matrices",
    ),
    Claim(
        name="11.1",
        statement="critical, smooth: the normalised NTK off the diagonal tends to 1/3: "
        "what it lacks at L = {far}",
        source="limit of the NTK",
        known="summary",
        of="approach",
        measure=lambda found: exact(found.shortfall.isel(depth=-1), 1e-12),
        predicted=0.0,
        tolerance=lambda found: np.log(found.attrs["far"]) / found.attrs["far"],
        reason="term of order ln L/L",
        figure="approach",
    ),
    Claim(
        name="11.1",
        statement="it lacks A ln L/L, A = 1/3 + 2/(9 C″), C the map of correlations, "
        "at 1: the slope of L times it against ln L, up to L = {far}",
        source="second order of the recursion",
        known="derived",
        of="approach",
        measure=_coefficient,
        predicted=lambda found: found.attrs["coefficient"],
        tolerance=0.01,
        reason="terms of order ln² L/L at the depth before the last",
        figure="approach",
    ),
    Claim(
        name="11.1",
        statement="ordered: predictions of centred labels do not decay: their size at "
        "L = {last} over that at the depth before",
        source=TABLE,
        known="summary",
        of="matrices",
        measure=_ordered_end,
        predicted=1.0,
        tolerance=0.05,
        reason="terms of relative order 1/L",
        figure="matrices",
    ),
    *(
        Claim(
            name="11.1",
            statement=f"critical, {text}: predictions of centred labels fall as 1/L: "
            "the power of L, at L = {far}",
            source=TABLE,
            known="summary",
            of="matrices",
            measure=_power_of(network),
            predicted=-1.0,
            tolerance=0.1,
            reason="0.1, for terms of relative order ln L/L",
            figure="matrices",
        )
        for network, text in (("critical", "smooth"), (RELU, "ReLU"))
    ),
    Claim(
        name="11.1",
        statement="chaotic: they fall as L (χ_c/χ₁)^L: the rate of them over L, by "
        "ln(χ_c/χ₁), at L = {last}",
        source=TABLE,
        known="summary",
        of="matrices",
        measure=_rate_over(
            "prediction", "chaotic", lambda found: -found.attrs["decay"], power=-1
        ),
        predicted=1.0,
        tolerance=0.1,
        reason=TEN,
        figure="matrices",
    ),
]


# ---------------------------------------------------------------------------- figures


def draw_matrices(found):
    """Condition number, entries and predictions against depth."""
    panels = {
        "condition_number": "condition number of the NTK",
        "off_diagonal": "NTK off the diagonal",
        "prediction": "size of predictions",
    }
    axes = drawing.new_axes(1, 3)
    with drawing.style():
        for ax, (name, label) in zip(axes.flat, panels.items(), strict=True):
            for network, look in looks(found.network.values).items():
                one = found.sel(network=network).dropna("depth")
                text = network if network == RELU else f"erf, {network}"
                ax.plot(one.depth, one[name], **look, label=text)
            drawing.log_axes(ax)
            ax.yaxis.set_major_formatter("{x:.0e}")
            ax.set_xlabel("depth L")
            ax.set_ylabel(label)
        _limits(axes[0, 0], axes[0, 1], found)
        axes[0, 0].set_ylim(0.5, 1e8)
        axes[0, 1].set_ylim(1e-5, 2)
        axes[0, 2].set_ylim(1e-6, 3)
        drawing.figure_legend(axes)
    return axes


def _limits(left, middle, found):
    """What theory says, in the first two panels."""
    deep = found.depth.values
    for network, entry in (("critical", 1 / 3), (RELU, 1 / 4)):
        limit = found.predicted.sel(network=network).dropna("depth").values
        drawing.theory_line(left, deep[[0, -1]], np.repeat(limit[0], 2), "theory")
        drawing.theory_line(middle, deep[[0, -1]], np.repeat(entry, 2), "theory")
    one = found.sel(network="ordered").dropna("depth")
    ratio = one.condition_number[-1] / one.predicted[-1]
    drawing.theory_line(left, one.depth, ratio * one.predicted, "theory")
    chaotic = found.sel(network="chaotic").dropna("depth")
    decay = SLOPES["chaotic"] ** -chaotic.depth.astype(float)
    scale = chaotic.off_diagonal[-1] / decay[-1]
    drawing.theory_line(middle, chaotic.depth, scale * decay, "theory")


def draw_approach(found):
    """What the NTK lacks to 1/3, against depth."""
    with drawing.style():
        ax = drawing.one_axes(None)
        depth = found.depth.values
        names = [f"θ = {angle:.2g}" for angle in found.angle.values]
        for name, look, k in zip(
            names, looks(names).values(), range(len(names)), strict=True
        ):
            value = depth * found.shortfall.isel(angle=k)
            ax.plot(depth, value, **look, label=name)
            line = found.attrs["coefficient"] * np.log(depth / depth[-1])
            drawing.theory_line(ax, depth, line + float(value[-1]), "theory, slope A")
        drawing.log_axis(ax.xaxis)
        ax.set_xlabel("depth L")
        ax.set_ylabel("L (1/3 − NTK)")
        drawing.legend(ax)
    return ax


FIGURES = {
    "matrices": Figure(
        of="matrices",
        draw=draw_matrices,
        title="NTK matrices of {points} points, and what they predict, by phase",
        caption="Plain networks of the error function at χ₁ = 0.81, 1 and 1.276, and "
        "ReLU. (a) Condition number, dashed (m+2)/2, (m+3)/3, and χ₁^(−L)/L up to a "
        "factor; (b) mean entry off the diagonal of the normalised matrix, dashed 1/3, "
        "1/4 and χ₁^(−L) up to a factor; (c) root mean square of predictions at new "
        "points over that of the centred labels.",
    ),
    "approach": Figure(
        of="approach",
        draw=draw_approach,
        title="What the NTK of the critical error function lacks to 1/3",
        caption="Times depth, at four angles between inputs, against depth; dashed the "
        "slope A that the second order of the recursion gives.",
    ),
}


def answer(results, _):
    """From the matrices at the last depths."""
    if "matrices" not in results:
        return "Not measured."
    found = results["matrices"]
    deep = {name: found.sel(network=name).dropna("depth") for name in NETWORKS}
    last = {name: one.isel(depth=-1) for name, one in deep.items()}
    numbers = {name: float(one.condition_number) for name, one in last.items()}
    sizes = {name: float(one.prediction) for name, one in last.items()}
    m, near, far = (found.attrs[name] for name in ("points", "last", "far"))
    return (
        f"The condition number of {m} points, the smaller the faster training, is "
        f"{numbers['ordered']:.1e} in the ordered and {numbers['chaotic']:.4g} in the "
        f"chaotic phase at depth {near}, {numbers['critical']:.3g} in between at depth "
        f"{far}. Predictions of centred labels have {sizes['ordered']:.2g} of the "
        f"labels' size in the ordered phase, {sizes['chaotic']:.1e} in the chaotic and "
        f"{sizes['critical']:.1e} in the critical one."
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
            quick={"far": [3, 10, 30, 100, 300, 1000]},
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
    budget=Budget(quick=15, full=60),
)
