"""What the public figures draw is what the results say."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import small_study
import xarray as xr
from matplotlib.colors import same_color
from matplotlib.figure import Figure

import ntk_resnet as nr
from ntk_resnet.analysis.degeneracy import degeneracy
from ntk_resnet.finite.dispersion import dispersion_study
from ntk_resnet.plot.drawing import COLUMN, INK, figure_of
from ntk_resnet.plot.families import looks

PLAIN = nr.FeedForward(depth=1, trained="blocks")
HALF = nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5))
DEPTHS = [1, 3, 10, 30]
X = np.random.default_rng(0).normal(size=(12, 4))


@pytest.fixture(scope="module")
def swept():
    return nr.sweep_depth(HALF, DEPTHS, angles=np.linspace(0, np.pi, 9))


@pytest.fixture(scope="module")
def degenerate():
    return {"plain": degeneracy(PLAIN, DEPTHS, X), "γ = 1/2": degeneracy(HALF, 3, X)}


@pytest.fixture(scope="module")
def spectra():
    targets = X[:, :2] - X[:, :2].mean(axis=0)
    deep = HALF.replace(depth=10)
    return {
        "plain, L = 1": nr.spectrum(nr.gram(PLAIN, X), targets=targets),
        "γ = 1/2, L = 10": nr.spectrum(nr.gram(deep, X), targets=targets),
    }


@pytest.fixture(scope="module")
def on_sphere():
    return {"plain": nr.mercer(PLAIN.replace(depth=3), dim=3, max_degree=9)}


@pytest.fixture(scope="module")
def curves():
    return nr.learning_curve_on_data(HALF, X, X[:, 0] ** 2, [4, 6], trials=3)


@pytest.fixture(scope="module")
def dispersed():
    return dispersion_study(PLAIN, [1, 2], [4, 8], 30)


@pytest.fixture(scope="module")
def study():
    return small_study.results()


@pytest.fixture(scope="module")
def every(swept, degenerate, spectra, on_sphere, curves, dispersed, study):
    """All public figures, as functions of the axes."""
    distance = nr.kernel_distance_sweep(HALF, PLAIN, DEPTHS, X)
    shares = nr.spectral_distribution(spectra["plain, L = 1"], np.geomspace(0.1, 10, 5))
    return {
        "kernels": lambda **on: nr.plot.kernels(swept, **on),
        "degeneracy": lambda **on: nr.plot.degeneracy(degenerate, **on),
        "kernel_distance": lambda **on: nr.plot.kernel_distance(distance, **on),
        "spectrum": lambda **on: nr.plot.spectrum(spectra, **on),
        "spectral_distribution": lambda **on: nr.plot.spectral_distribution(
            {"plain": shares}, **on
        ),
        "mercer": lambda **on: nr.plot.mercer(on_sphere, **on),
        "learning_curve": lambda **on: nr.plot.learning_curve(curves, **on),
        "width": lambda **on: nr.plot.width(study["width"], **on),
        "training": lambda **on: nr.plot.training(study["training"], **on),
        "dispersion": lambda **on: nr.plot.dispersion(dispersed, **on),
    }


def line(ax, label):
    (found,) = (line for line in ax.lines if line.get_label() == label)
    return found


def theory(ax):
    """The lines of theory that have points: in the colour of the text, not solid."""
    lines = [one for one in ax.lines if np.size(one.get_xdata())]
    lines = [one for one in lines if same_color(one.get_color(), INK)]
    return [one for one in lines if one.get_linestyle() in ("--", ":")]


def test_all_draw_into_the_axes_given_and_leave_settings_alone(every):
    before = dict(matplotlib.rcParams)
    for draw in every.values():
        ax = Figure().subplots()
        assert draw(ax=ax) is ax
        assert ax.lines
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        assert ax.get_legend() is not None
        assert draw(ax=Figure().subplots(), legend=False).get_legend() is None
    assert dict(matplotlib.rcParams) == before


def test_new_figures_have_all_their_words_within_a_page_or_a_column(every):
    """Labels and legends lie in the figure, at both widths, and over no curve."""
    for name, draw in every.items():
        for ax in (draw(), draw(ax=nr.plot.new_axes(width=COLUMN)[0, 0])):
            figure = figure_of(ax)
            figure.canvas.draw()
            box = figure.bbox
            for part in (ax.xaxis.label, ax.yaxis.label, ax.get_legend()):
                extent = part.get_window_extent()
                assert extent.x0 >= box.x0 - 1, (name, part)
                assert extent.x1 <= box.x1 + 1, (name, part)
                assert extent.y0 >= box.y0 - 1, (name, part)
                assert extent.y1 <= box.y1 + 1, (name, part)
            legend = ax.get_legend().get_window_extent()
            assert not legend.overlaps(ax.get_window_extent()), name


def test_pyplot_is_not_imported():
    code = (
        "import sys, numpy as np, ntk_resnet as nr; nr.plot.kernels(nr.sweep_depth("
        "nr.FeedForward(depth=1), [1], angles=[0.0, 1.0])); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_all_public_functions_say_what_they_take_draw_and_return():
    functions = {name: f for name, f in vars(nr.plot).items() if callable(f)}
    tools = {"figure_legend", "new_axes", "save", "style"}
    assert len(functions) == 10 + len(tools)
    for name in set(functions) - tools:
        text = getattr(nr.plot, name).__doc__
        for part in ("Args:", "Returns:", "Raises:", "Example:", f"nr.plot.{name}("):
            assert part in text, (name, part)


@pytest.mark.parametrize("get", ["ntk", "nngp"])
@pytest.mark.parametrize("over", ["angle", "cosine"])
def test_kernels_are_a_curve_a_depth(swept, get, over):
    ax = nr.plot.kernels(swept, get, over=over)
    x = swept.angle.values
    for depth in DEPTHS:
        drawn = line(ax, f"L = {depth}")
        np.testing.assert_array_equal(drawn.get_ydata(), swept[get].sel(depth=depth))
        expected = x if over == "angle" else np.cos(x)
        np.testing.assert_array_equal(drawn.get_xdata(), expected)
    assert ("cosine" in ax.get_xlabel()) == (over == "cosine")


@pytest.mark.parametrize(
    ("quantity", "predicted"),
    [
        ("distance", lambda one: one.predicted_ntk - 0.25),
        ("ntk_mean", lambda one: one.predicted_ntk),
        ("nngp_gap", lambda one: one.predicted_nngp_gap),
        ("condition_number", lambda one: one.predicted_condition_number),
        ("effective_rank", None),
        ("ntk_spread", None),
    ],
)
def test_degeneracy_and_its_asymptotes(degenerate, quantity, predicted):
    ax = nr.plot.degeneracy(degenerate, quantity)
    for label, name in (("plain", "plain"), ("residual, γ = 1/2", "γ = 1/2")):
        drawn = line(ax, label)
        np.testing.assert_array_equal(drawn.get_ydata(), degenerate[name][quantity])
        np.testing.assert_array_equal(drawn.get_xdata(), degenerate[name].depth)
    if predicted is None:
        assert not theory(ax)
        return
    (asymptote,) = theory(ax)  # of plain networks alone
    late = degenerate["plain"].sel(depth=[10, 30])
    np.testing.assert_array_equal(asymptote.get_ydata(), predicted(late))


def test_degeneracy_of_one_block_is_predicted_where_kernels_tend_to_it():
    found = degeneracy(nr.ResNet(depth=1, branch_scale=nr.DepthScale(1.0)), [2, 20], X)
    (asymptote,) = theory(nr.plot.degeneracy(found, "distance_one_block"))
    expected = found.predicted_distance_one_block.sel(depth=[20])
    np.testing.assert_array_equal(asymptote.get_ydata(), expected)


def test_spectra_are_eigenvalues_by_index_from_one(spectra):
    ax = nr.plot.spectrum(spectra)
    drawn = line(ax, "plain, L = 1")
    values = spectra["plain, L = 1"].eigenvalue
    np.testing.assert_array_equal(drawn.get_ydata(), values)
    np.testing.assert_array_equal(drawn.get_xdata(), np.arange(1, 13))
    shares = nr.plot.spectrum(spectra, "alignment").lines[0].get_ydata()
    expected = spectra["plain, L = 1"].cumulative_alignment.mean("output")
    np.testing.assert_array_equal(shares, expected)


def test_spectra_of_operators_are_drawn_too():
    found = nr.spectrum(nr.gram_operator(HALF, X), top=3, steps=8)
    (drawn,) = nr.plot.spectrum(found).lines
    np.testing.assert_array_equal(drawn.get_ydata(), found.eigenvalue)
    at = np.geomspace(0.1, 10, 5)
    shares = nr.spectral_distribution(found, at)
    ax = nr.plot.spectral_distribution(shares)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), shares.share)
    (band,) = ax.collections
    highest = np.max(shares.share + 3 * shares.standard_error)
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(float(highest))


def test_eigenvalues_on_the_sphere_by_parity_and_their_power(on_sphere):
    ax = nr.plot.mercer(on_sphere)
    logs = on_sphere["plain"].log10_eigenvalue
    even, odd = ax.lines[:2]
    np.testing.assert_array_equal(even.get_ydata(), logs[2::2])
    np.testing.assert_array_equal(odd.get_ydata(), logs[1::2])
    np.testing.assert_array_equal(even.get_xdata(), np.arange(2, 10, 2) + 0.5)
    (power,) = theory(ax)
    slope = np.diff(power.get_ydata()) / np.diff(np.log10(power.get_xdata()))
    np.testing.assert_allclose(slope, -3)  # d = 3
    laplace = nr.laplace_mercer(dim=3, max_degree=9)
    ratio = nr.plot.mercer(on_sphere, relative_to=laplace)
    expected = (logs - laplace.log10_eigenvalue)[2::2]
    np.testing.assert_array_equal(ratio.lines[0].get_ydata(), expected)
    assert not theory(ratio)


def test_no_power_is_drawn_where_none_is_known(on_sphere):
    unknown = on_sphere["plain"].assign(predicted_exponent=np.nan)
    assert not theory(nr.plot.mercer(unknown))


def test_learning_curves_are_points_beside_the_prediction(curves):
    ax = nr.plot.learning_curve(curves)
    (predicted,) = theory(ax)
    np.testing.assert_array_equal(predicted.get_ydata(), curves.test_mse)
    (bars,) = ax.containers
    np.testing.assert_array_equal(bars[0].get_ydata(), curves.measured_test_mse)
    (low, high), _ = bars[2][0].get_segments()
    size = 3 * float(curves.measured_test_mse_error[0])
    assert (high[1] - low[1]) / 2 == pytest.approx(size)
    train = nr.plot.learning_curve(curves, "train_mse").containers[0][0]
    np.testing.assert_array_equal(train.get_ydata(), curves.measured_train_mse)


def test_a_learning_curve_that_was_not_measured_has_its_familys_colour():
    found = nr.learning_curve([1.0, 0.1], [1, 5], [0.5, 0.5], [2, 4], ridge=0.01)
    (drawn,) = nr.plot.learning_curve({"γ = 1": found}).lines
    np.testing.assert_array_equal(drawn.get_ydata(), found.test_mse)
    assert drawn.get_color() == looks(["γ = 1"])["γ = 1"]["color"]


def test_errors_by_width_are_means_and_single_networks(study):
    found = study["width"]
    ax = nr.plot.width(found)
    for kernel in ("ntk", "nngp"):
        (drawn,) = (one for one in ax.lines if f"{kernel.upper()}, " in one.get_label())
        np.testing.assert_allclose(drawn.get_ydata(), found[f"{kernel}_error_mean"])
        exponent = f"{float(found[f'{kernel}_exponent']):.2f}".replace("-", "−")
        assert f"exponent {exponent} [" in drawn.get_label()
    one = nr.plot.width(found, "ntk")
    single = [line.get_ydata() for line in one.lines[: found.sizes["seed"]]]
    np.testing.assert_array_equal(np.transpose(single), found.ntk_error)
    (power,) = theory(one)
    slope = np.diff(np.log(power.get_ydata())) / np.diff(np.log(power.get_xdata()))
    np.testing.assert_allclose(slope, -0.5)


def test_one_width_has_no_exponent(study):
    ax = nr.plot.width(study["width"].isel(width=[0]).assign(ntk_exponent=np.nan))
    assert "NTK" in [one.get_label() for one in ax.lines]


def test_training_beside_its_prediction(study):
    found = study["training"]
    ax = nr.plot.training(found, "loss")
    widths = found.width.values
    for width in widths:
        drawn = line(ax, f"m = {width}")
        np.testing.assert_allclose(
            drawn.get_ydata(), found.loss.sel(width=width).mean("seed")
        )
    (predicted,) = theory(ax)
    expected = found.predicted_loss.isel(width=-1).mean("seed")
    np.testing.assert_allclose(predicted.get_ydata(), expected)
    drift = nr.plot.training(found, "ntk_drift")
    expected = found.ntk_drift.sel(width=widths[0]).mean("seed")[1:]
    np.testing.assert_allclose(line(drift, f"m = {widths[0]}").get_ydata(), expected)
    outputs = nr.plot.training(found, "outputs")
    expected = found.outputs.isel(width=-1, output=0, point=1).mean("seed")
    np.testing.assert_allclose(line(outputs, "point 2").get_ydata(), expected)
    errors = nr.plot.training(found, "errors")
    (drawn,) = (one for one in errors.lines if "linearised" in one.get_label())
    expected = found.max_own_kernel_error.max("time").mean("seed")
    np.testing.assert_allclose(drawn.get_ydata(), expected)


def test_time_zero_and_the_kind_of_points_are_said(study):
    found = study["training"]
    loss, drift, outputs = (
        nr.plot.training(found, quantity)
        for quantity in ("loss", "ntk_drift", "outputs")
    )
    assert loss.get_xticklabels()[0].get_text() == "0"
    assert drift.get_xticklabels()[0].get_text() != "0"
    assert outputs.get_ylabel() == f"outputs at test points, m = {found.width[-1]:d}"
    own = nr.plot.training(found.drop_attrs(), "outputs")  # of no others is it said
    assert "at training points" in own.get_ylabel()


def test_dispersion_by_width_and_by_family(dispersed):
    ax = nr.plot.dispersion(dispersed)
    labels = [bars.get_label() for bars in ax.containers]
    assert labels == ["m = 4", "m = 8"]
    np.testing.assert_array_equal(
        ax.containers[1][0].get_ydata(), dispersed.dispersion.sel(width=8)
    )
    np.testing.assert_array_equal(
        ax.containers[1][0].get_xdata(), dispersed.ratio.sel(width=8)
    )
    exact = theory(ax)[0].get_ydata()
    np.testing.assert_array_equal(exact, dispersed.predicted_dispersion.sel(width=4))
    unknown = xr.full_like(dispersed.dispersion, np.nan)
    other = dispersed.assign(predicted_dispersion=unknown, limit_dispersion=unknown)
    both = nr.plot.dispersion({"plain": dispersed, "γ = 1": other})
    texts = [text.get_text() for text in both.get_legend().get_texts()]
    assert texts == [
        "plain",
        "residual, γ = 1",
        "theory, width m",
        "theory, large width",
    ]
    assert not theory(nr.plot.dispersion({"γ = 1": other}))


def test_a_second_call_draws_beside_the_first(spectra):
    first, second = spectra.items()
    ax = nr.plot.spectrum(dict([first]))
    nr.plot.spectrum(dict([second]), ax=ax)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["plain, L = 1", "residual, γ = 1/2, L = 10"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (nr.plot.kernels, "no 'ntk', 'angle'; pass what nr.sweep_depth(spec, depths"),
        (nr.plot.degeneracy, "no 'distance'; pass what nr.degeneracy"),
        (nr.plot.kernel_distance, "no 'relative_distance'; pass what nr.kernel_dist"),
        (nr.plot.spectrum, "no 'eigenvalue'; pass what nr.spectrum returns"),
        (nr.plot.spectral_distribution, "pass what nr.spectral_distribution returns"),
        (nr.plot.mercer, "no 'degree', 'log10_eigenvalue', 'predicted_exponent'"),
        (nr.plot.learning_curve, "no 'n', 'test_mse'; pass what nr.learning_curve_on"),
        (nr.plot.width, "no 'width', 'ntk_error'"),
        (nr.plot.training, "no 'width', 'time', 'loss', 'predicted_loss'; pass what"),
        (nr.plot.dispersion, "no 'ratio', 'dispersion', 'dispersion_sem', 'predicted"),
    ],
)
def test_results_of_another_function_are_told_in_one_line(draw, message):
    other = xr.Dataset({"depth": ("depth", [1, 2])})
    with pytest.raises(ValueError, match="has no") as caught:
        draw(other)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_kernels_between_data_have_no_angle():
    swept = nr.sweep_depth(PLAIN, [1], x=X)
    with pytest.raises(ValueError, match=r"no 'angle'; pass what .* angles="):
        nr.plot.kernels(swept)


def test_bad_options_are_named(swept, degenerate, spectra, on_sphere):
    with pytest.raises(ValueError, match="get must be one of 'ntk', 'nngp'"):
        nr.plot.kernels(swept, "ntq")
    with pytest.raises(ValueError, match="over must be one of 'angle', 'cosine'"):
        nr.plot.kernels(swept, over="gap")
    with pytest.raises(ValueError, match="quantity must be one of 'distance', "):
        nr.plot.degeneracy(degenerate, "loss")
    with pytest.raises(ValueError, match="'plain' has no 'nngp_gap'"):
        nr.plot.degeneracy({"plain": xr.Dataset({"depth": [1]})}, "nngp_gap")
    with pytest.raises(ValueError, match=r"pass what nr\.spectrum\(matrix, targets="):
        nr.plot.spectrum(nr.spectrum(np.eye(2)), "alignment")
    mixed = {"a": on_sphere["plain"], "b": nr.mercer(PLAIN, dim=4, max_degree=3)}
    with pytest.raises(ValueError, match="spheres of one dimension"):
        nr.plot.mercer(mixed)


@pytest.mark.usefixtures("as_users_run_it")
def test_what_is_no_result_is_told():
    with pytest.raises(ValueError, match="result is a list; pass a Dataset"):
        nr.plot.kernels([1.0])
    with pytest.raises(ValueError, match="got ndarray"):
        nr.plot.spectrum(np.eye(2))
    with pytest.raises(ValueError, match="got dict"):
        nr.plot.spectrum({})
    with pytest.raises(ValueError, match="result of 'plain' is a list"):
        nr.plot.spectrum({"plain": [1.0]})
