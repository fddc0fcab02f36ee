"""Figures show what is in the results, and their files are safe and reproducible."""

import re
import xml.etree.ElementTree

import matplotlib
import numpy as np
import pytest
import small_study
from matplotlib.figure import Figure

from ntk_resnet.plot import (
    depth as figures,
)
from ntk_resnet.plot import (
    finite as finite_figures,
)
from ntk_resnet.plot import (
    images as image_figures,
)

PLOTS = {
    "paper": figures.plot_paper_kernels,
    "kernels": figures.plot_kernels,
    "degeneracy": figures.plot_degeneracy,
    "regression": figures.plot_regression,
    "teacher": figures.plot_regression,
    "rates": figures.plot_rates,
    "width": figures.plot_width,
    "training": figures.plot_training,
    "images": image_figures.plot_convolutional,
    "image_rates": image_figures.plot_image_rates,
    "image_networks": finite_figures.plot_agreement,
}


def draw(name):
    return PLOTS[name](small_study.results()[name])


@pytest.mark.parametrize("name", PLOTS)
def test_every_panel_says_what_it_shows(name):
    axes = np.asarray(draw(name), object).ravel()
    figure = figures.figure_of(axes)
    for ax in axes:
        if ax.axison:
            assert ax.get_ylabel() or name in ("kernels", "paper")  # beside others
            shared = not ax.get_subplotspec().is_last_row() and ax.get_shared_x_axes()
            assert ax.get_xlabel() or figure.get_supxlabel() or shared
            assert ax.lines
    assert all(ax.figure is figure for ax in axes)


def test_drawing_leaves_results_and_global_settings_alone():
    before = dict(matplotlib.rcParams)
    results = small_study.results()
    copies = {name: results[name].copy(deep=True) for name in PLOTS}
    for name in PLOTS:
        figures.to_svg(draw(name), name=name, title="t")
        assert copies[name].identical(results[name])
    assert dict(matplotlib.rcParams) == before


def test_curves_are_the_numbers():
    kernels = small_study.results()["kernels"]
    axes = figures.plot_kernels(kernels, "nngp")
    for ax, family in zip(axes.flat, kernels.family.values, strict=False):
        drawn = [line.get_ydata() for line in ax.lines[: kernels.sizes["depth"]]]
        np.testing.assert_array_equal(drawn, kernels.nngp.sel(family=family).values)


def test_the_papers_figure_has_its_depths_and_minima():
    """Plain: negative at depths 1 and 2 alone, 1/4 in the end. Residual: one curve."""
    found = small_study.results()["paper"]
    plain, residual = figures.plot_paper_kernels(found).flat
    depths = found.depth.values.tolist()
    assert depths == [1, 2, 5, 10, 50, 200, 2000]
    curves = [line.get_ydata() for line in plain.lines[: len(depths)]]
    np.testing.assert_array_equal(curves, found.ntk.sel(family="plain").values)
    assert [curve.min() < 0 for curve in curves] == [True] * 2 + [False] * 5
    middle = found.ntk.sel(cosine=0, method="nearest")
    assert abs(float(middle.sel(family="plain", depth=2000)) - 0.251407) < 5.1e-7
    curves = [line.get_ydata() for line in residual.lines[: len(depths)]]
    assert np.ptp(curves, axis=0).max() < 0.05
    assert abs(float(middle.sel(family="γ = 1", depth=1)) - 1 / (2 * np.pi)) < 1e-12


def test_regression_of_real_targets_shows_r2_instead_of_accuracy():
    assert draw("regression").flat[1].get_ylabel() == "test accuracy"
    assert draw("teacher").flat[1].get_ylabel() == "test R²"


def test_theory_is_drawn_where_there_is_one_and_only_there():
    found = small_study.results()["degeneracy"]
    gap = figures.plot_degeneracy(found).flat[1]
    dashed = [line for line in gap.lines if line.get_linestyle() == "--"]
    assert len(dashed) == 2  # plain and α = 1
    alone = figures.plot_degeneracy(found.sel(family=["γ = 1"])).flat[1]
    assert not [line for line in alone.lines if line.get_linestyle() == "--"]


def test_axes_of_the_callers_are_used():
    figure = Figure()
    ax = figure.subplots()
    assert figures.plot_width(small_study.results()["width"], ax=ax) is ax
    given = Figure().subplots(1, 2)
    drawn = figures.plot_rates(small_study.results()["rates"], axes=given)
    assert drawn.flat[0] is given[0]


def test_a_network_that_is_none_of_the_study_has_its_own_look():
    found = small_study.results()["degeneracy"].sel(family=["plain"])
    renamed = found.assign_coords(family=["mine"])
    figures.plot_degeneracy(renamed)


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_files_are_the_same_every_time(tmp_path, ending):
    for name in ("a", "b"):
        figures.save(draw("width"), tmp_path / f"{name}.{ending}")
    first, second = ((tmp_path / f"{n}.{ending}").read_bytes() for n in ("a", "b"))
    assert first == second
    assert b"<dc:date>" not in first


def test_a_figure_that_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match="missing"):
        figures.save(draw("width"), tmp_path / "missing" / "a.svg")


def test_inline_svg_is_well_formed_and_themeable():
    svg = figures.to_svg(draw("rates"), name="rates", title='a "title" & more')
    root = xml.etree.ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'a "title" & more'
    assert "width" not in root.attrib
    assert "viewBox" in root.attrib
    assert "var(--ink)" in svg
    assert not re.search(r"#1b1b1f|#d9d9de|#ffffff", svg)
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert len(ids) == len(set(ids))
    assert all(one.startswith("rates-") for one in ids)
    used = re.findall(r'(?:href="#|url\(#)([^")]*)', svg)
    assert set(used) <= set(ids)
