"""The sections of the report, in its order."""

import functools
import json
from collections.abc import Iterable

from ntk_resnet import plot
from ntk_resnet.plot import study
from ntk_resnet.report import image_sections, tables
from ntk_resnet.report.section import Section, rows_section


def sections(results) -> Iterable[Section]:
    if "paper" in results:
        found = results["paper"]
        yield Section(
            "paper",
            "The NTK against the cosine between inputs, by depth",
            "Normalised neural tangent kernel against the cosine between two inputs, "
            "at the depths of the figure of Huang et al. (2020), in their convention, "
            "as everywhere here: all weights are trained but the first ones of a "
            "residual network and the last of any. See: the deeper a plain network, "
            "the nearer to 1/4 everywhere but at 1; below zero at depths 1 and 2; with "
            "branches scaled by 1/L all depths give one curve, 1/(2π) at a right "
            "angle.",
            functools.partial(study.paper, found),
            tables.paper_table(found),
        )
    if "kernels" in results:
        yield from _kernel_sections(results["kernels"])
    if "degeneracy" in results:
        found = results["degeneracy"]
        yield Section(
            "degeneracy",
            "Gram matrices of real data against depth",
            "The NTK Gram matrix of "
            f"{found.attrs['rows']} rows of {found.attrs['data']} against depth. See: "
            "plain networks and α = 1 run into the constant kernel along the predicted "
            "curves; γ = 1 and γ = 1/2 stay where they are. A small condition number "
            "is no good sign here: the degenerate kernel is the best conditioned one, "
            "at (n+3)/3.",
            functools.partial(study.degeneracy, found),
            tables.degeneracy_table(found),
        )
    for name, title, caption in (
        (
            "regression",
            "Regression on real data: error and accuracy against depth",
            "Kernel ridge regression on {data}: {train} rows for training, {test} for "
            "testing, ridge {ridge:g} of the mean diagonal; means over {splits} random "
            "splits with 95 % intervals (the splits share rows, so the intervals are "
            "of splitting, not of new data). See: predictions of the deep plain kernel "
            "shrink to a constant, and the squared error rises to that of the best "
            "constant. Their order is kept much longer, so accuracy falls late: once "
            "differences between the classes' shares outweigh what is left.",
        ),
        (
            "teacher",
            "Regression of a known smooth target: error against depth",
            "The target x₁ + 2.5 x₂x₃ on the sphere in five dimensions, {train} rows "
            "for training and {test} for testing, {splits} splits. See: with γ = 1 and "
            "1/2 the error stays below 1 % at every depth.",
        ),
    ):
        if name in results:
            yield _regression_section(name, title, caption, results[name])
    if "rates" in results:
        found = results["rates"]
        yield Section(
            "rates",
            "Rates of convergence with depth",
            "Left: the NTK of a plain network exceeds 1/4 by (3/8 ln L + C)/L, with "
            "the same 3/8 at every cosine between the inputs (at the lines' ends), and "
            "another C if the readout is trained too. "
            "Right: the kernel of a residual network approaches that of a single block "
            "like L^(1−2γ). See: lines parallel to the dashed ones.",
            functools.partial(study.rates, found),
            tables.rates_table(found),
        )
    yield from _spectral_sections(results)
    yield from image_sections.sections(results)
    if "width" in results:
        found = results["width"]
        yield Section(
            "width",
            "Error of the kernels of finite networks against width",
            f"Random finite networks ({_depth_of(found)}) on {found.attrs['rows']} "
            "rows: relative Frobenius error of the empirical kernel against the closed "
            "form. Small points are single networks, lines their means. See: both "
            "errors fall along the dashed line of exponent −1/2.",
            functools.partial(plot.width, found),
            tables.width_table(found),
        )
    if "dispersion" in results:
        found = results["dispersion"]
        yield rows_section(
            "dispersion",
            "Dispersion of the NTK over networks, against depth over width",
            "E[Θ²]/E[Θ]² of the NTK on the diagonal over {seeds} random networks of "
            "width {width} (bars: 2 standard errors); for plain networks the exact "
            "theory at this width (dashed) and its limit of large width (dotted). See: "
            "it grows with depth over width in plain networks and not in residual ones "
            "whose branches are scaled down.",
            plot.dispersion,
            found,
            ["family", "depth"],
            {
                "family": "network",
                "depth": "depth",
                "dispersion": "E[Θ²]/E[Θ]²",
                "dispersion_sem": "± s.e.",
                "predicted_dispersion": "theory",
                "ntk_mean": "mean / closed form",
                "ntk_mean_sem": "± s.e.",
            },
        )
    if "training" in results:
        found = results["training"]
        yield Section(
            "training",
            "Trained networks beside the kernel's prediction",
            f"Full-batch gradient descent ({_depth_of(found)}, {found.attrs['rows']} "
            "rows), and what a fixed kernel predicts of the same steps (dashed). Top "
            "left: outputs at two points, means over the widest networks (dots), in "
            "the band of their predictions, one standard deviation over networks. "
            "Top right: the loss. Bottom left: change of the empirical NTK. Bottom "
            "right: largest difference of the outputs to the prediction of the closed "
            "form, and of the network's own kernel, by width. See: wider networks "
            "follow more closely, in their own kernel's steps most closely of all.",
            functools.partial(study.training, found),
            tables.training_table(found),
        )


def _kernel_sections(kernels):
    deviation = float(kernels.deviation.max())
    shared = (
        "Rings are computed by neural-tangents, lines by the closed form; they differ "
        f"by at most {deviation:.1e}."
    )
    yield Section(
        "kernels",
        "The NTK against the angle between inputs, by depth",
        "Normalised neural tangent kernel against the angle between two inputs. See: "
        "with depth the plain kernel tends to 1/4 everywhere but at angle 0, so does a "
        "residual one with γ < 1/2 or with a constant factor; γ = 1 and γ = 1/2 keep a "
        "shape. " + shared,
        functools.partial(study.kernels, kernels, "ntk"),
        tables.kernel_table(kernels, "ntk"),
        picture="kernels_ntk",
    )
    yield Section(
        "kernels",
        "The NNGP kernel against the angle between inputs, by depth",
        "Normalised NNGP kernel (the cosine between the features of two inputs). See: "
        "in a "
        "deep plain network all inputs end up pointing the same way. " + shared,
        functools.partial(study.kernels, kernels, "nngp"),
        tables.kernel_table(kernels, "nngp"),
        picture="kernels_nngp",
    )


def _regression_section(name, title, caption, found):
    words = {**found.attrs, "splits": found.sizes["split"]}
    return Section(
        name,
        title,
        caption.format_map(words),
        functools.partial(study.regression, found),
        tables.regression_table(found),
    )


def _depth_of(found) -> str:
    spec = json.loads(found.attrs["spec"])
    kind = {"ResNet": "residual", "FeedForward": "plain"}[spec["kind"]]
    return f"{kind}, depth {spec['depth']}"


def _spectral_sections(results) -> Iterable[Section]:
    if "spectra" in results:
        found = results["spectra"]
        yield rows_section(
            "spectra",
            "Eigenvalues of Gram matrices of real data",
            "The NTK Gram matrix of {rows} rows of {data}: leading eigenvalues, the "
            "share of the targets in their eigenvectors, and the distribution of all. "
            "See: with depth the plain kernel keeps one large eigenvalue, of the "
            "constant, and all others become alike; the residual ones keep the order "
            "that data have.",
            study.spectrum,
            found,
            ["family"],
            {
                "family": "network",
                "condition_number": "condition number",
                "predicted_condition_number": "predicted limit",
                "effective_rank": "effective rank",
                "log_determinant": "ln det, ridge 0.001",
            },
        )
    if "mercer" in results:
        found = results["mercer"]
        yield rows_section(
            "mercer",
            "Eigenvalues on the sphere, by degree",
            "Eigenvalues of the NTK on the sphere in {dim} dimensions "
            "by degree: lines even, points odd degrees; right, over those of the "
            "Laplace kernel exp(−|x − x'|). See: the same power for all, plain "
            "networks reaching it at degrees beyond their depth; with γ = 1 odd "
            "degrees have far smaller eigenvalues than even ones for long.",
            study.mercer,
            found,
            ["family"],
            tables.MERCER,
        )
    for name, title in (
        ("curves", "Learning curves on the sphere, predicted and measured"),
        ("data_curves", "Learning curves on real data, predicted and measured"),
    ):
        if name in results:
            yield _curves_section(name, title, results[name])
    if "ridge" in results:
        yield _ridge_section(results["ridge"])


def _ridge_section(found):
    errors = "misclassified" if found.attrs["classes"] else "MSE / variance"
    return rows_section(
        "ridge",
        "Test and leave-one-out error against the ridge",
        "Kernel ridge regression on {train} rows of {data}, {test} others for testing, "
        "with a residual network of depth 1,000, γ = 1/2. The leave-one-out error "
        "comes in closed form with the fit. See: both are smallest at about the same "
        "ridges.",
        study.ridge,
        found,
        ["ridge"],
        {
            "ridge": "ridge",
            "test_error": errors,
            "loo_error": "leave-one-out",
            "log_marginal_likelihood": "ln marginal likelihood",
        },
    )


def _curves_section(name, title, found):
    return rows_section(
        name,
        title,
        "Test error of kernel ridge regression (ridge {ridge:g} of the mean diagonal) "
        "on {data} against the number of training points: means over {trials} trials "
        "with three standard errors, and what the eigenvalues and the target's power "
        "in the eigenspaces predict (dashed). See: points on the lines. Where a kernel "
        "has learned all of a target, or rows differ much in leverage, the theory is "
        "known to be too low.",
        plot.learning_curve,
        found,
        ["family", "n"],
        {
            "family": "network",
            "n": "n",
            "test_mse": "predicted test MSE",
            "measured_test_mse": "measured",
            "measured_test_mse_error": "± s.e.",
        },
    )
