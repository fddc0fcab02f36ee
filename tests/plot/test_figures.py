"""Figures of studies show their results, and files of figures are reproducible."""

import re
import xml.etree.ElementTree

import matplotlib
import numpy as np
import pytest
import small_study

from ntk_resnet.plot import drawing, panels
from ntk_resnet.plot.families import full_name

FIGURES = [
    (study, name)
    for study, sizes in small_study.SIZES.items()
    for name, figure in small_study.study(study).figures.items()
    if figure.of in sizes and figure.of != "mnist"
]
EACH = pytest.mark.parametrize(("study", "name"), FIGURES)


def draw(study, name):
    figure = small_study.study(study).figures[name]
    return figure.draw(small_study.results(study)[figure.of])


@EACH
def test_every_panel_says_what_it_shows(study, name):
    axes = np.asarray(draw(study, name), object).ravel()
    figure = drawing.figure_of(axes)
    for ax in axes:
        if ax.axison:
            assert ax.get_ylabel() or name in ("ntk", "nngp", "paper")  # beside others
            shared = not ax.get_subplotspec().is_last_row() and ax.get_shared_x_axes()
            assert ax.get_xlabel() or figure.get_supxlabel() or shared
            assert ax.lines
    assert all(ax.figure is figure for ax in axes)


def test_drawing_leaves_results_and_global_settings_alone():
    before = dict(matplotlib.rcParams)
    for study, name in FIGURES:
        figure = small_study.study(study).figures[name]
        copy = small_study.results(study)[figure.of].copy(deep=True)
        drawing.to_svg(draw(study, name), name=name, title="t")
        assert copy.identical(small_study.results(study)[figure.of])
    assert dict(matplotlib.rcParams) == before


def test_curves_are_the_numbers():
    kernels = small_study.results()["kernels"]
    axes = draw("huang2020", "nngp")
    for ax, family in zip(axes.flat, kernels.family.values, strict=False):
        drawn = [line.get_ydata() for line in ax.lines[: kernels.sizes["depth"]]]
        np.testing.assert_array_equal(drawn, kernels.nngp.sel(family=family).values)


def test_the_papers_figure_has_its_depths_and_minima():
    """Plain: negative at depths 1 and 2 alone, 1/4 in the end. Residual: one curve."""
    found = small_study.results()["paper"]
    plain, residual = draw("huang2020", "paper").flat
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
    second = draw("huang2020", "regression").flat[1]
    assert second.get_ylabel() == "test accuracy"
    assert draw("huang2020", "teacher").flat[1].get_ylabel() == "test R²"


def test_theory_is_drawn_where_there_is_one_and_only_there():
    found = small_study.results()["degeneracy"]
    gap = panels.degeneracy(found).flat[1]
    dashed = [line for line in gap.lines if line.get_linestyle() == "--"]
    assert len(dashed) == 2  # plain and α = 1
    alone = panels.degeneracy(found.sel(family=["γ = 1"])).flat[1]
    assert not [line for line in alone.lines if line.get_linestyle() == "--"]


@EACH
def test_a_family_has_its_colour_in_every_figure(study, name):
    """All that is labelled with a family, and no other line, has its colour."""
    if name in ("ntk", "nngp", "paper", "rates"):
        return  # a curve a depth, or a cosine
    lines = [one for ax in np.ravel(draw(study, name)) for one in ax.lines]
    for family, colour in (
        ("plain", "#d55e00"),
        ("γ = 1", "#0072b2"),
        ("γ = 1/2", "#009e73"),
    ):
        own = [one for one in lines if one.get_label() == full_name(family)]
        assert {one.get_color() for one in own} <= {colour}
        others = [one for one in lines if one.get_label() in _others(family)]
        assert colour not in {one.get_color() for one in others}


def _others(family):
    names = {"plain", "plain, circular", "γ = 1", "γ = 1/2", "γ = 1/4", "α = 1"}
    return {full_name(name) for name in names - {family}}


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_files_are_the_same_every_time(tmp_path, ending):
    for name in ("a", "b"):
        drawing.save(draw("huang2020", "width"), tmp_path / f"{name}.{ending}")
    first, second = ((tmp_path / f"{n}.{ending}").read_bytes() for n in ("a", "b"))
    assert first == second
    assert b"<dc:date>" not in first


def test_a_figure_that_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match="missing"):
        drawing.save(draw("huang2020", "width"), tmp_path / "missing" / "a.svg")


def test_inline_svg_is_well_formed_and_themeable():
    svg = drawing.to_svg(
        draw("huang2020", "rates"), name="rates", title='a "title" & more'
    )
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
