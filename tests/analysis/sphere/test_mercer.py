"""Spectra on the sphere: against ball arithmetic, mpmath, the recursion and theory."""

import math

import mercer as benchmark
import mpmath as mp
import numpy as np
import pytest
from flint import arb, ctx

import ntk_resnet as nr
from ntk_resnet.analysis.sphere import quadrature, recursion
from ntk_resnet.analysis.sphere.mercer import (
    decay_exponent,
    laplace_mercer,
    mercer,
    parity_imbalance,
)
from ntk_resnet.records import cache
from ntk_resnet.records import results as records

EPS = np.finfo(float).eps
PLAIN = nr.FeedForward(depth=3)


def residual(depth, gamma, **more):
    return nr.ResNet(depth=depth, branch_scale=nr.DepthScale(gamma), **more)


# ------------------------------------------------------------------- the eigenvalues


@pytest.mark.parametrize("case", benchmark.scattered(5), ids=str)
def test_against_ball_arithmetic(case):
    assert benchmark.compare(case).error <= 4 * EPS


@pytest.mark.slow
@pytest.mark.parametrize("case", benchmark.scattered(40)[5:], ids=str)
def test_forty_cases_against_ball_arithmetic(case):
    # The balls' own radii are in the error.
    assert benchmark.compare(case).error <= 1e-8


@mp.workdps(25)
def test_against_mpmath():
    """The NNGP of one GELU layer, by the covariance integrated over two Gaussians."""
    p = mp.mpf(spec_variance := 0.8)
    spec = nr.FeedForward(depth=1, activation="gelu", weight_variance=spec_variance)
    h = mp.mpf(1) / 6
    grid = [(i * h, mp.npdf(i * h) * h) for i in range(-60, 61)]
    gelu = lambda z: z * mp.ncdf(z)  # noqa: E731
    first = [gelu(mp.sqrt(p) * g) * weight for g, weight in grid]
    # Hermite coefficients by the trapezoid rule, and Mehler's formula.
    square, orders = [], 40
    low, high = [mp.mpf(1)] * len(grid), [g for g, _ in grid]
    for k in range(orders):
        square.append(sum(f * v for f, v in zip(first, low, strict=True)) ** 2)
        low, high = (
            high,
            [
                (g * b - mp.sqrt(k + 1) * a) / mp.sqrt(k + 2)
                for (g, _), a, b in zip(grid, low, high, strict=True)
            ],
        )
    # On S^2, u^j has in degree k the coefficient j! / ((j-k)!! (j+k+1)!!).
    total = sum(square)
    found = mercer(spec, dim=3, max_degree=4, get="nngp")
    assert found.eigenvalue[3] == 0  # GELU is z/2 and an even function
    for k in (0, 1, 2, 4):
        exact = sum(
            square[j] * mp.factorial(j) / (mp.fac2(j - k) * mp.fac2(j + k + 1))
            for j in range(k, orders, 2)
        )
        assert float(found.eigenvalue[k]) / float(exact / total) == pytest.approx(
            1, rel=1e-13
        )


SPECS = {
    f"{name} {kind}": (nr.FeedForward if kind == "plain" else nr.ResNet)(
        depth=4,
        activation=name,
        bias_variance=0.2,
        **({} if kind == "plain" else more),
    )
    for name in ("relu", "leaky_relu", "abs", "erf", "gelu", "tanh", "linear")
    for kind, more in {
        "plain": {},
        "two layers": {"block": "two_layer", "input_activation": True},
        "before": {"block": "preactivation", "trained": "all"},
        "after": {"block": "postactivation", "input_activation": True},
    }.items()
    for more in [{"branch_scale": nr.DecreasingScale(), **more}]
    # Float64 rounds the mean of tanh to either sign, and then gives NaN.
    if (name, kind) != ("tanh", "after")
}


@pytest.mark.parametrize("name", SPECS)
def test_the_kernels_are_those_of_the_recursion(name):
    spec = SPECS[name].replace(weight_variance=0.7)
    angles = np.array([1e-3, 0.1, 0.5, 1.2, 1.9, 2.8, 3.1])
    swept = nr.sweep_depth(spec, spec.depth, angles=angles)
    for get in ("ntk", "nngp"):
        with ctx.workprec(160):
            network = recursion.PreciseKernel(spec, get, 1.0)
            ours = [float(network(arb(t).cos().mid())) for t in angles]
        # Float64's tanh is a series of 256 terms from 512 nodes.
        tolerance = 1e-12 if "tanh" in name else 1e-13
        np.testing.assert_allclose(ours, swept[get][0], rtol=0, atol=tolerance)


def test_the_norm_of_the_inputs_counts_where_it_should():
    erf = nr.FeedForward(depth=2, activation="erf")
    one, four = (mercer(erf, dim=4, max_degree=3, input_kernel=q) for q in (1.0, 4.0))
    x = np.array([[2.0, 2, 2, 2], [2, 2, 2, -2]])  # |x|^2 / d = 4
    entry = nr.kernel_fn(erf)(x)[0, 1]
    # A truncated expansion at u = 1/2: U_k(u)/(k+1) on S^3.
    long = mercer(erf, dim=4, max_degree=60, input_kernel=4.0)
    k = long.degree.values
    gegenbauer = np.sin((k + 1) * np.pi / 3) / ((k + 1) * np.sin(np.pi / 3))
    total = float((long.eigenvalue * long.multiplicity * gegenbauer).sum())
    assert total == pytest.approx(float(entry), abs=float(long["tail"]) + 1e-13)
    assert abs(float(one.eigenvalue[1] / four.eigenvalue[1]) - 1) > 1e-2
    assert float(four.eigenvalue[3] / long.eigenvalue[3]) == pytest.approx(1, abs=1e-14)
    relu = [mercer(PLAIN, dim=4, max_degree=3, input_kernel=q) for q in (1.0, 4.0)]
    np.testing.assert_array_equal(relu[0].eigenvalue, relu[1].eigenvalue)


@pytest.mark.parametrize("dim", [2, 3, 10, 300])
def test_sum_with_tail_is_one(dim):
    for spec in (PLAIN, residual(20, 0.5), PLAIN.replace(activation="erf")):
        found = mercer(spec, dim=dim, max_degree=12)
        total = float((found.eigenvalue * found.multiplicity).sum() + found["tail"])
        assert abs(total - 1) <= 8 * EPS
        assert found["tail"] > 0
        assert found.error <= 1e-10


def test_multiplicities():
    assert [quadrature.multiplicity(2, k) for k in range(4)] == [1, 2, 2, 2]
    assert [quadrature.multiplicity(3, k) for k in range(4)] == [1, 3, 5, 7]
    # Homogeneous polynomials of degree k less those of degree k - 2.
    for dim, k in ((7, 5), (40, 11)):
        polynomials = [math.comb(k + dim - 1, dim - 1) for k in (k, k - 2)]
        assert quadrature.multiplicity(dim, k) == polynomials[0] - polynomials[1]


def test_logarithms_beyond_float64():
    found = mercer(nr.FeedForward(depth=2), dim=1000, max_degree=400)
    last = found.isel(degree=-1)
    assert last.eigenvalue == 0
    assert last.multiplicity == np.inf
    number = quadrature.multiplicity(1000, 400)
    digits = len(str(number))
    assert float(last.log10_multiplicity) == pytest.approx(
        math.log10(number / 10 ** (digits - 1)) + digits - 1, abs=1e-12
    )
    assert -np.inf < last.log10_eigenvalue < -308
    share = last.log10_eigenvalue + last.log10_multiplicity
    assert -12 < share < 0
    shallow = found.sel(degree=10)
    assert float(shallow.log10_eigenvalue) == pytest.approx(
        math.log10(shallow.eigenvalue), abs=1e-13
    )


def test_float64_whatever_jax_is_set_to():
    import jax

    wide = mercer(PLAIN, dim=5, max_degree=6)
    with jax.enable_x64(False):
        narrow = mercer(PLAIN, dim=5, max_degree=6)
    assert narrow.eigenvalue.dtype == np.float64
    np.testing.assert_array_equal(wide.eigenvalue, narrow.eigenvalue)


# --------------------------------------------------------------------- exact zeros


def zeros(spec, get="ntk"):
    found = mercer(spec, dim=4, max_degree=9, get=get)
    gone = found.degree.values[found.eigenvalue.values == 0].tolist()
    np.testing.assert_array_equal(
        np.isneginf(found.log10_eigenvalue), found.eigenvalue == 0
    )
    assert (found.eigenvalue >= 0).all()
    return gone


def test_zeros_are_exact_and_only_where_theory_has_them():
    layer = nr.FeedForward(depth=1)
    assert zeros(layer) == zeros(layer, "nngp") == [3, 5, 7, 9]
    assert zeros(nr.ResNet(depth=1, branch_scale=0.3)) == [3, 5, 7, 9]
    assert zeros(nr.FeedForward(depth=2)) == []
    assert zeros(layer.replace(bias_variance=1e-12)) == []
    assert zeros(layer.replace(activation=nr.LeakyReLU(1 - 1e-12))) == [3, 5, 7, 9]
    assert zeros(layer.replace(activation="abs")) == [1, 3, 5, 7, 9]
    assert zeros(layer.replace(activation="erf")) == [0, 2, 4, 6, 8]
    assert zeros(layer.replace(activation="tanh")) == [0, 2, 4, 6, 8]
    assert zeros(layer.replace(activation="linear")) == [0, *range(2, 10)]


@pytest.mark.quick
def test_small_is_not_zero():
    """Branches of 1e-30 bend the kernel by 1e-60."""
    found = mercer(
        nr.ResNet(depth=2, branch_scale=1e-30), dim=3, max_degree=6, get="nngp"
    )
    one = mercer(nr.FeedForward(depth=1), dim=3, max_degree=6, get="nngp")
    assert -130 < found.log10_eigenvalue[3] < -115
    # To first order, twice a^2 that of one layer.
    np.testing.assert_allclose(
        found.eigenvalue[2::2] / 2e-60, one.eigenvalue[2::2], rtol=1e-12
    )


def test_geometric_decay_is_followed():
    """One erf layer: powers r^k of the cosine; degree 151 is about 1e-100."""
    erf = nr.FeedForward(depth=1, activation="erf", weight_variance=0.5)
    short, long = (
        mercer(erf, dim=3, max_degree=k, get="nngp").eigenvalue for k in (31, 151)
    )
    np.testing.assert_allclose(short[1::2], long[1:32:2], rtol=4 * EPS)
    rates = np.log10(long.values[143::2] / long.values[141:-2:2])
    assert (rates < -1).all()
    assert np.ptp(rates) < 0.01


# ------------------------------------------------------------------------- theory 8


@pytest.mark.parametrize("dim", [2, 3, 4, 6])
@pytest.mark.parametrize("get", ["ntk", "nngp"])
@pytest.mark.parametrize("spec", [PLAIN, residual(10, 0.5)], ids=["plain", "residual"])
def test_decay_exponents(spec, get, dim):
    found = mercer(spec, dim=dim, max_degree=120, get=get)
    fit = decay_exponent(found, (40, 120))
    expected = -dim if get == "ntk" else -dim - 2
    assert found.predicted_exponent == expected
    assert abs(fit.exponent - expected) <= 0.02
    assert fit.low < fit.exponent < fit.high


def test_fits_of_eigenvalues_beyond_float64_and_of_a_known_law():
    result = mercer(PLAIN, dim=4, max_degree=60)
    k = result.degree.values
    law = np.log10(3.0) - 400 * np.log10(k + 1.0)
    fit = decay_exponent(result.assign(log10_eigenvalue=("degree", law)), (10, 60))
    assert fit.exponent == pytest.approx(-400, rel=1e-12)
    assert fit.constant == pytest.approx(3, rel=1e-9)
    odd = decay_exponent(result, (11, 59), parity="odd")
    every = decay_exponent(result, (10, 60), parity="all")
    assert -4.5 < odd.exponent < -3.5
    assert every.exponent != odd.exponent


@pytest.mark.quick
@pytest.mark.parametrize(
    ("gamma", "ratio"), [(0.5, 0.187), (0.75, 0.047), (1.0, 0.0086)]
)
def test_parity_imbalance(gamma, ratio):
    found = parity_imbalance(mercer(residual(50, gamma), dim=3, max_degree=9))
    assert found.degree.values.tolist() == [3, 5, 7, 9]
    assert float(found[0]) == pytest.approx(ratio, rel=0.02)


def test_imbalance_of_vanishing_parities():
    odd = mercer(nr.FeedForward(depth=1, activation="erf"), dim=3, max_degree=5)
    assert np.isnan(parity_imbalance(odd)).all()
    for trained in ("blocks", "all"):
        layer = mercer(nr.FeedForward(depth=1, trained=trained), dim=3, max_degree=7)
        np.testing.assert_array_equal(parity_imbalance(layer), 0)
        assert (layer.eigenvalue[[0, 1, 2, 4, 6]] > 0).all()
        np.testing.assert_array_equal(layer.eigenvalue[[3, 5, 7]], 0)
        assert (layer.log10_eigenvalue[[3, 5, 7]] == -np.inf).all()


def test_one_relu_layer_with_its_readout_frozen():
    """By hand on S^2: integrals of u kappa0 = u/2 + u asin(u)/pi times 1, u, P_2.

    Two layers have odd degrees again.
    """
    frozen = nr.FeedForward(depth=1, trained="blocks")
    found = mercer(frozen, dim=3, max_degree=4)
    np.testing.assert_allclose(
        found.eigenvalue[:3], [1 / 8, 1 / 6, 7 / 128], rtol=1e-14
    )
    deeper = mercer(frozen.replace(depth=2), dim=3, max_degree=5)
    assert (deeper.eigenvalue[[3, 5]] > 0).all()


def test_values_on_the_circle():
    for alpha, known in (
        (1 / 50, (0.0776, 0.00118, 0.00792, 0.00062, 0.00279, 0.00042)),
        (50**-0.5, (0.0678, 0.0167, 0.00848, 0.00466, 0.00319, 0.00220)),
    ):
        found = mercer(nr.ResNet(depth=50, branch_scale=alpha), dim=2, max_degree=7)
        # As printed: three digits, five decimals.
        np.testing.assert_allclose(found.eigenvalue[2:], known, rtol=5e-3, atol=5e-6)


def test_antipode_coefficient():
    """On the circle pi^2 k^2 mu_k tends to c + c_- at even k and to c - c_- at odd."""
    square, depth, last = 0.1, 10, 400
    spec = nr.ResNet(depth=depth, branch_scale=math.sqrt(square))
    u, product = -1.0, 1.0
    for _ in range(depth - 1):
        angle = math.acos(u)
        u += square / (1 + square) * (math.sin(angle) - angle * u) / math.pi
        product *= (1 + square * (1 - math.acos(u) / math.pi)) / (1 + square)
    found = mercer(spec, dim=2, max_degree=last)
    scaled = np.pi**2 * found.degree.values**2 * found.eigenvalue.values
    odd, even = scaled[-2], scaled[-1]
    # The next term is smaller by (depth / k)^2.
    assert (even - odd) / 2 == pytest.approx(product / (2 * depth), rel=1e-3)
    slope = (1 + square / (1 + square) * (depth - 1)) / 2
    assert (even + odd) / 2 == pytest.approx(slope, rel=1e-3)


def test_predicted_exponents_of_other_networks():
    last_only = residual(1, 1.0, block="preactivation")
    predict = lambda spec, get="ntk": float(  # noqa: E731
        mercer(spec, dim=3, max_degree=1, get=get).predicted_exponent
    )
    assert predict(last_only) == -5  # only the weights behind the activation
    assert predict(last_only.replace(depth=2)) == -3
    assert predict(last_only.replace(trained="all")) == -3
    for name in ("erf", "gelu", "tanh", "linear"):
        assert np.isnan(predict(PLAIN.replace(activation=name)))
    still = nr.ResNet(depth=2, branch_scale=0.0)
    assert np.isnan(predict(still, "nngp"))
    fit = decay_exponent(mercer(last_only, dim=3, max_degree=80), (30, 80))
    assert abs(fit.exponent + 5) <= 0.02


@pytest.mark.quick
def test_laplace_kernel():
    found = laplace_mercer(dim=3, max_degree=120, rate=2.0)
    assert abs(decay_exponent(found, (40, 120)).exponent + 3) <= 0.02
    assert found.predicted_exponent == -3
    # mu_0 on the sphere in R^3: int_0^1 exp(-4 s) 2 s ds, s = sin(theta / 2).
    exact = (1 - 5 * math.exp(-4)) / 8
    assert float(found.eigenvalue[0]) == pytest.approx(exact, rel=8 * EPS)
    total = float((found.eigenvalue * found.multiplicity).sum() + found["tail"])
    assert abs(total - 1) <= 8 * EPS


# ------------------------------------------------------------- progress, disk, refusals


def test_progress_is_reported():
    calls = []
    mercer(PLAIN, dim=3, max_degree=5, progress=lambda *call: calls.append(call))
    done, total, text = calls[-1]
    assert done == total
    assert "bits" in text
    assert len(calls) > 20


def test_long_results_are_kept_and_damaged_ones_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("NTK_RESNET_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "WORTH_KEEPING", 0.0)
    first = mercer(PLAIN, dim=3, max_degree=4)
    (path,) = tmp_path.iterdir()
    runs = []
    count = lambda *call: runs.append(call)  # noqa: E731
    again = mercer(PLAIN, dim=3, max_degree=4, progress=count)
    assert not runs
    assert again.identical(first)
    for chunk in path.rglob("c"):  # the data of a variable
        if chunk.is_file():
            chunk.write_bytes(b"broken")
    for chunk in path.rglob("0"):
        chunk.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"checksum|cannot be read"):
        records.load(path)
    mended = mercer(PLAIN, dim=3, max_degree=4, progress=count)
    assert runs
    np.testing.assert_array_equal(mended.eigenvalue, first.eigenvalue)
    mercer(PLAIN, dim=3, max_degree=4, get="nngp")
    laplace_mercer(dim=3, max_degree=4)
    assert len(list(tmp_path.iterdir())) == 3


def own_activation(z):
    return z


GOOD = {"spec": PLAIN, "dim": 3, "max_degree": 2}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spec": "relu"}, "spec must be a network"),
        ({"dim": 1}, "dim must be at least 2"),
        ({"dim": 3.0}, "dim must be a whole number"),
        ({"max_degree": -1}, "max_degree must be at least 0"),
        ({"get": "both"}, "get must be one of"),
        ({"input_kernel": 0.0}, "input_kernel must be a finite number > 0"),
        ({"input_kernel": math.nan}, "input_kernel must be a finite number > 0"),
        ({"spec": nr.ResNet(depth=2, branch_scale=0.0)}, "nothing is trained"),
        (
            {"spec": PLAIN.replace(activation=nr.Activation(own_activation))},
            "known in float64 only",
        ),
        (
            {"spec": PLAIN.replace(activation="tanh", weight_variance=2000.0)},
            "tanh at the variance 2e\\+03 needs a series",
        ),
        (
            {"spec": nr.FeedForward(depth=99, activation="erf", weight_variance=99.0)},
            "varies at angles below 1e-19",
        ),
    ],
)
def test_bad_arguments_get_one_clear_line(changes, words, as_users_run_it):
    arguments = GOOD | changes
    spec = arguments.pop("spec")
    with pytest.raises(ValueError, match=words) as caught:
        mercer(spec, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("degrees", "parity", "words"),
    [
        (5, "even", r"degrees must be \(first, last\)"),
        ((4, 2), "even", "must rise"),
        ((0, 4), "even", "at least 1"),
        ((2, 99), "even", "at most 9"),
        ((2, 3), "even", "hold 1 of parity 'even'"),
        ((2, 9), "none", "parity must be one of"),
        ((3, 9), "odd", "the eigenvalue of degree 3 is zero"),
    ],
)
def test_bad_fits_get_one_clear_line(degrees, parity, words, as_users_run_it):
    found = mercer(nr.FeedForward(depth=1), dim=3, max_degree=9)
    with pytest.raises(ValueError, match=words) as caught:
        decay_exponent(found, degrees, parity=parity)
    assert "\n" not in str(caught.value)


def test_bad_rates_get_one_clear_line(as_users_run_it):
    with pytest.raises(ValueError, match="rate must be a finite number > 0"):
        laplace_mercer(dim=3, max_degree=2, rate=-1.0)


@pytest.mark.slow
def test_kernels_that_are_all_but_zero_away_from_angle_zero():
    """exp(-c |x - x'|) on S^2: the mean is an integral over the chord."""
    rate = 1200.0
    found = laplace_mercer(dim=3, max_degree=2, rate=rate)
    with mp.workdps(40):
        mean = mp.quad(lambda s: s * mp.exp(-rate * s) / 2, [0, mp.mpf(1) / 50, 2])
    assert float(found.eigenvalue[0]) == pytest.approx(float(mean), rel=1e-14)
    chaotic = nr.FeedForward(depth=3000, activation="erf", weight_variance=4.0)
    with pytest.raises(ValueError, match="less deep, or less chaotic"):
        mercer(chaotic, dim=3, max_degree=4)
