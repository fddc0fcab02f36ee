"""Agreement with the closed forms as the width grows: the rate, and its interval."""

import numpy as np
import pytest
from test_finite_oracle import SPECS, limit_kernels, rows

import ntk_resnet as nr
from ntk_resnet.finite import build, empirical_ntk, width_study
from ntk_resnet.finite.networks import seed_keys
from ntk_resnet.finite.width import fit_exponent


def test_errors_are_those_of_the_networks():
    """One network made by hand, against the study's."""
    from flax import nnx

    spec, x = SPECS["pre"], rows()
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "two_layer", "pre", "post", "two_layer_erf"])
def test_rate_at_large_widths(name):
    study = width_study(SPECS[name], rows(), [64, 128, 256, 512], 64)
    for kernel in ("ntk", "nngp"):
        low, high = study[f"{kernel}_exponent_low"], study[f"{kernel}_exponent_high"]
        slack = 0.5 * (high - low) / 2
        assert low - slack < -0.5 < high + slack
        assert high - low < 0.18


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
    ],
)
def test_bad_arguments_are_named(as_users_run_it, changes, text):
    good = {"spec": SPECS["plain"], "x": rows(), "widths": [4], "seeds": 1}
    with pytest.raises(ValueError, match=text):
        width_study(**good | changes)
