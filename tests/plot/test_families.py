"""One family has one colour and marker, whatever is drawn beside it."""

import numpy as np
import pytest
import xarray as xr

import ntk_resnet as nr
from ntk_resnet.plot.families import _LOOKS, by_family, full_name, looks, tones
from ntk_resnet.studies import comparisons, families
from ntk_resnet.studies.images import finite, kernels

STUDIES = {
    "depth": families.FAMILIES,
    "spectra": comparisons.NETWORKS,
    "images": kernels.FAMILIES,
    "finite images": finite.NETWORKS,
}


@pytest.mark.parametrize("study", STUDIES)
def test_all_networks_of_the_studies_are_in_the_table_and_told_apart(study):
    found = looks(STUDIES[study])
    for label, look in found.items():
        family = label if label in _LOOKS else label.split(", ")[0]
        assert look["marker"] == _LOOKS[family][1]
    pairs = [(look["color"], look["marker"]) for look in found.values()]
    assert len(set(pairs)) == len(pairs)


def test_looks_do_not_depend_on_what_is_beside():
    alone = {name: looks([name])[name] for name in _LOOKS}
    assert looks(_LOOKS) == alone
    assert looks(["mine", *_LOOKS])["γ = 1"] == alone["γ = 1"]
    assert looks(["residual, γ = 1/2"])["residual, γ = 1/2"] == alone["γ = 1/2"]
    assert looks(["plain, L = 10"])["plain, L = 10"] == alone["plain"]


def test_colours_and_markers_of_the_table_are_all_different():
    for part in zip(*_LOOKS.values(), strict=True):
        assert len(set(part)) == len(part)


def test_depths_of_a_family_are_shades_from_light_to_dark():
    labels = ["plain, L = 100", "plain, L = 1", "plain, L = 10"]
    found = looks(labels)
    assert list(found) == labels
    light = {label: sum(rgb(look["color"])) for label, look in found.items()}
    assert sorted(light, key=light.get, reverse=True) == [
        "plain, L = 1",
        "plain, L = 10",
        "plain, L = 100",
    ]
    assert found["plain, L = 1"]["markerfacecolor"] == "none"
    assert "markerfacecolor" not in found["plain, L = 10"]


def rgb(colour):
    return [int(colour[k : k + 2], 16) for k in (1, 3, 5)]


def test_unknown_labels_get_the_next_free_colours_in_their_order():
    found = looks(["plain", "mine", "yours"])
    others = looks(["γ = 1", "mine", "yours"])
    assert found["mine"] == others["mine"]  # neither colour is taken
    assert found["mine"]["color"] != found["yours"]["color"]
    taken = looks(["plain, circular", "mine"])
    assert taken["mine"]["color"] == found["yours"]["color"]
    assert looks(["yours", "mine"])["yours"] == found["mine"]
    many = looks([f"network {k}" for k in range(20)])  # more than there are colours
    assert len(many) == 20


def test_tones_of_one_are_the_colour_itself():
    assert tones("#0072b2", 1) == ["#0072b2"]
    assert len(set(tones("#0072b2", 4))) == 4


def test_labels_are_said_in_words():
    assert full_name("γ = 1/2, L = 10") == "residual, γ = 1/2, L = 10"
    assert full_name("plain") == "plain"
    assert full_name("residual, γ = 1") == "residual, γ = 1"


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        (nr.FeedForward(depth=2), "plain"),
        (nr.ConvNet(depth=2), "plain"),
        (
            nr.ResNet(depth=2, branch_scale=nr.DepthScale(0.5)),
            "residual, γ = 1/2",
        ),
        (nr.ResNet(depth=2, branch_scale=nr.DepthScale(0.3)), "residual, γ = 0.3"),
        (nr.ResNet(depth=2, branch_scale=1.0), "residual, α = 1"),
        (nr.ResNet(depth=2, branch_scale=nr.DecreasingScale()), ""),
    ],
)
def test_one_result_is_named_after_its_specification(spec, label):
    swept = nr.sweep_depth(spec, [1], x=np.ones((1, 4, 4, 1)[: spec_rank(spec)]))
    assert list(by_family(swept, ["ntk"], "a function")) == [label]


def spec_rank(spec):
    return 4 if isinstance(spec, nr.ConvNet) else 2


def test_results_by_label_and_over_family_are_the_same():
    values = np.arange(6.0).reshape(2, 3)
    over = xr.Dataset(
        {"a": (("family", "n"), values)}, coords={"family": ["plain", "γ = 1"]}
    )
    by_label = {"plain": over.sel(family="plain"), "γ = 1": over.sel(family="γ = 1")}
    first, second = (by_family(results, ["a"], "f") for results in (over, by_label))
    assert list(first) == list(second) == ["plain", "residual, γ = 1"]
    for label, one in first.items():
        np.testing.assert_array_equal(one.a, second[label].a)
