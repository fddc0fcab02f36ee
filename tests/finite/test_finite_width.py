"""Agreement with the closed forms as the width grows: the rate, and its interval."""

import numpy as np
import pytest
from models import rows
from oracle import limit_kernels
from scipy import special
from specifications import SPECS

import ntk_resnet as nr
from ntk_resnet.finite import build, empirical_ntk, width_study
from ntk_resnet.finite.ensembles import seed_keys
from ntk_resnet.finite.width import fit_exponent, fit_shift


@pytest.mark.quick
def test_errors_are_those_of_the_networks():
    """One network made by hand, against the study's."""
    from flax import nnx

    spec, x = SPECS["preactivation_constant"], rows()
    study = width_study(spec, x, [16], 2, seed=7)
    model = build(spec, 5, 16, rngs=nnx.Rngs(seed_keys(7, 16, 2)[1]))
    kernel, exact = empirical_ntk(model, x, outputs="mean"), limit_kernels(spec, x)[1]
    error = np.linalg.norm(kernel - exact) / np.linalg.norm(exact)
    assert float(study.ntk_error[0, 1]) == pytest.approx(error, rel=1e-5)
    assert np.isnan(study.ntk_exponent)  # one width has no exponent
    assert study.attrs["seed"] == 7
    assert nr.from_json(study.attrs["spec"]) == spec


def test_error_falls_with_the_root_of_the_width():
    calls = []
    study = width_study(
        nr.ResNet(depth=2, branch_scale=nr.DepthScale(0.5)),
        rows(),
        [32, 64, 128],
        48,
        progress=lambda *call: calls.append(call),
    )
    for name in ("ntk", "nngp"):
        low, high = study[f"{name}_exponent_low"], study[f"{name}_exponent_high"]
        # The interval is right in 95 % of studies; half as wide again leaves 0.3 %.
        slack = 0.5 * (high - low) / 2
        assert low - slack < -0.5 < high + slack
        assert high - low < 0.3
        # Without bias, the mean kernel's error over its noise is of order one.
        assert (study[f"{name}_bias"] < 3 * study[f"{name}_bias_noise"]).all()
        np.testing.assert_allclose(
            study[f"{name}_error_sem"],
            study[f"{name}_error"].std("seed", ddof=1) / np.sqrt(48),
        )
    done, total, description = calls[-1]
    assert done == total == 3 * 48
    assert description == "kernels at width 128"


LARGE = [
    nr.FeedForward(depth=2, activation=activation) for activation in ("relu", "erf")
] + [
    nr.ResNet(
        depth=2,
        # The scale of each block at which deep networks keep a bounded signal.
        branch_scale=nr.DepthScale(1.0 if block == "postactivation" else 0.5),
        block=block,
        trained=trained,
        activation=activation,
    )
    for activation in ("relu", "erf")
    for block in nr.ResNet.blocks
    for trained in ("blocks", "all")
]


def label(spec):
    kind = [getattr(spec, name, "plain") for name in ("block", "trained")]
    return "-".join([*kind, type(spec.activation).__name__])


@pytest.mark.slow
@pytest.mark.parametrize("spec", LARGE, ids=label)
def test_rate_at_large_widths(spec):
    """The interval of the exponent contains -1/2 and is no wider than +-0.05.

    Intervals of 95 % times 1.64, 36 of them (3.2 standard errors), hold together in
    95 % of all runs. Sixteen rows make the errors of single networks nearly equal.
    """
    study = width_study(spec, rows(16, 16), [64, 128, 256, 512], 160)
    widest = study.isel(width=-1)
    for kernel in ("ntk", "nngp"):
        low, high = study[f"{kernel}_exponent_low"], study[f"{kernel}_exponent_high"]
        half = 1.64 * float(high - low) / 2
        assert half < 0.05
        assert abs(float(study[f"{kernel}_exponent"]) + 0.5) < half
        # The mean over networks, as a whole and along the closed form.
        assert widest[f"{kernel}_bias"] < 3 * widest[f"{kernel}_bias_noise"]
        assert abs(widest[f"{kernel}_shift"]) < 3 * widest[f"{kernel}_shift_sem"]


def bias_of_two_erf_layers(spec, x):
    r"""c where the NNGP kernel of one row is off by c / width, to first order.

    The kernel after a layer is f(q) at the variance q. The first layer's has no bias,
    and a variance v / width from the spread of phi^2 of its units; so f(q) is off by
    f''(q) v / (2 width).
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    weights = weights / weights.sum()
    f = lambda q: 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q))  # noqa: E731
    variance = spec.weight_variance * float(np.mean(x**2))
    square = special.erf(np.sqrt(variance) * nodes) ** 2
    q, step = spec.weight_variance * (square @ weights), 1e-3
    v = spec.weight_variance**2 * (square**2 @ weights - (square @ weights) ** 2)
    curvature = (f(q + step) - 2 * f(q) + f(q - step)) / step**2
    return curvature * v / 2 / f(q)


def test_bias_of_the_mean_kernel():
    """At 3 standard errors; the next order is below them from width 16 on."""
    spec, x = nr.FeedForward(depth=2, activation="erf"), rows(1)
    study = width_study(spec, x, [16, 32], 20_000)
    constant = float(study.nngp_shift_constant)
    error = float(study.nngp_shift_constant_high - constant) / 1.96
    assert constant < -6 * error  # there is a bias
    assert abs(constant - bias_of_two_erf_layers(spec, x)) < 3 * error
    off = (study.nngp_shift - constant / study.width) / study.nngp_shift_sem
    assert (abs(off) < 3).all()


def test_plain_relu_kernels_have_no_bias_on_the_diagonal():
    study = width_study(nr.FeedForward(depth=2), rows(1), [8, 16], 1000)
    for kernel in ("ntk", "nngp"):
        assert (abs(study[f"{kernel}_shift"]) < 3 * study[f"{kernel}_shift_sem"]).all()
        low, high = (study[f"{kernel}_shift_constant_{end}"] for end in ("low", "high"))
        assert abs(low + high) / 2 < 3 / 1.96 * (high - low) / 2


def test_constant_of_the_bias():
    """Exact data give it exactly; noisy ones within the error they state."""
    widths, sem = np.array([8, 16, 32]), np.array([0.1, 0.05, 0.05])
    assert fit_shift(widths, 3 / widths, sem)[0] == pytest.approx(3)
    rng = np.random.default_rng(0)
    found = [
        (constant - 3) / error
        for constant, error in (
            fit_shift(widths, 3 / widths + sem * rng.normal(size=3), sem)
            for _ in range(2000)
        )
    ]
    assert np.mean(found) == pytest.approx(0, abs=4 / np.sqrt(2000))
    assert np.std(found) == pytest.approx(1, abs=4 / np.sqrt(4000))


def test_interval_of_the_exponent_is_honest():
    """In simulated studies with the spread of real ones it holds the truth in 95 %."""
    rng, widths = np.random.default_rng(0), np.array([32, 64, 128, 256])
    hits = [
        fit.low <= -0.5 <= fit.high
        for fit in (
            fit_exponent(widths, widths[:, None] ** -0.5 * rng.gamma(6, size=(4, 8)))
            for _ in range(1000)
        )
    ]
    assert abs(np.mean(hits) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 1000)


def test_exponent_without_data_is_nan():
    assert np.isnan(fit_exponent(np.array([8]), np.ones((1, 5)))).all()
    assert np.isnan(fit_exponent(np.array([8, 16]), np.zeros((2, 5)))).all()


def test_a_kernel_of_zeros_has_no_relative_error():
    study = width_study(nr.ResNet(depth=1, branch_scale=0.0), rows(), [4], 1)
    assert np.isnan(study.ntk_error).all()
    assert np.isfinite(study.nngp_error).all()
    assert np.isnan(study.nngp_error_sem).all()  # of one seed
    assert np.isnan(study.nngp_shift_constant)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"spec": 3}, "spec"),
        ({"x": np.ones(3)}, "x has shape"),
        ({"x": np.full((2, 3), np.nan)}, "x holds nan"),
        ({"widths": []}, "widths must be"),
        ({"widths": [0, 4]}, "widths must be at least 1"),
        ({"widths": [4.5]}, "widths must be a whole number"),
        ({"widths": [4, 4]}, "widths must be distinct"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"param_dtype": int}, "param_dtype"),
        ({"param_dtype": "foo"}, "param_dtype must be a float dtype"),
    ],
)
def test_bad_arguments_are_named(as_users_run_it, changes, text):
    good = {"spec": SPECS["plain"], "x": rows(), "widths": [4], "seeds": 1}
    with pytest.raises(ValueError, match=text):
        width_study(**good | changes)
