"""Sweeps over depth and what they say about degeneracy."""

import dataclasses

import numpy as np
import pytest
from marks import slow_but_for

import ntk_resnet as nr
from ntk_resnet.analysis.degeneracy import degeneracy, one_block_correction
from ntk_resnet.kernels import depths as many
from ntk_resnet.specification.scales import BranchScale

EPS = np.finfo(float).eps
X = np.random.default_rng(0).normal(size=(12, 6))
FAMILIES = [
    nr.FeedForward(depth=1),
    nr.FeedForward(depth=1, activation="erf", bias_variance=0.1),
    nr.ResNet(depth=1, branch_scale=0.5),
    nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5)),
    nr.ResNet(depth=1, branch_scale=nr.DecreasingScale(), block="postactivation"),
    nr.ResNet(
        depth=1, branch_scale=nr.DepthScale(1.0), bias_variance=0.1, trained="all"
    ),
    nr.FeedForward(depth=1, activation="erf", bias_variance=0.1, trained="blocks"),
]


@pytest.mark.quick
def test_the_distance_to_one_block_is_its_correction_over_the_depth():
    """On a pair at a right angle: L times the distance is |D|, whose power is -1."""
    spec = nr.ResNet(depth=1, branch_scale=nr.DepthScale(1.0))
    depths = [1000, 2000]
    distance = nr.degeneracy(spec, depths, np.eye(2)).distance_one_block.values
    (predicted,) = np.abs(nr.one_block_correction(np.array([np.pi / 2])))
    np.testing.assert_allclose(depths * distance, predicted, rtol=5e-3)  # next: 1/L
    fit = nr.fit_power(np.array(depths, float), distance)
    assert fit.exponent == pytest.approx(-1, abs=5e-3)


@pytest.mark.parametrize(
    "spec", slow_but_for(FAMILIES, [FAMILIES[i] for i in (0, 4, 5)])
)
def test_a_sweep_equals_one_network_at_a_time(spec):
    sweep = nr.sweep_depth(spec, [7, 1, 3], x=X)
    assert sweep.depth.values.tolist() == [1, 3, 7]
    assert sweep.ntk.dims == ("depth", "row", "column")
    for depth in (1, 3, 7):
        one = spec.replace(depth=depth)
        at = sweep.sel(depth=depth)
        values = nr.kernel_fn(one)(X, get=("nngp", "ntk"))
        np.testing.assert_allclose(at.nngp, values.nngp, atol=16 * EPS)
        np.testing.assert_allclose(at.ntk, values.ntk, atol=16 * EPS)
        np.testing.assert_allclose(
            at.log_ntk_diag, nr.diag(one, X, log=True), rtol=16 * EPS, atol=16 * EPS
        )
        np.testing.assert_allclose(
            at.log_nngp_diag, nr.diag(one, X, "nngp", log=True), atol=64 * EPS
        )
        assert (np.diag(at.ntk) == 1).all()
        assert (at.ntk.values == at.ntk.values.T).all()


def test_scales_that_depend_on_the_depth_are_not_prefixes():
    spec = nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5))
    angles = np.array([1.0])
    sweep = nr.sweep_depth(spec, [10, 100], angles=angles)
    prefix = nr.sweep_depth(spec.replace(branch_scale=100**-0.5), [10], angles=angles)
    alone = nr.sweep_depth(spec.replace(branch_scale=10**-0.5), [10], angles=angles)
    np.testing.assert_allclose(sweep.ntk[0], alone.ntk[0], rtol=8 * EPS)
    assert abs(float(sweep.ntk[0, 0] - prefix.ntk[0, 0])) > 1e-3


SCALED = nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5))


@pytest.mark.parametrize("spec", [nr.FeedForward(depth=1), SCALED])
@pytest.mark.parametrize("limits", [(1, 1, 1), (16, 10, 8), (24, 10**9, 3)])
def test_sweeps_do_not_depend_on_how_they_are_cut(spec, limits, monkeypatch):
    """One network at a time and several, one stop a call and several."""
    angles = np.linspace(0, np.pi, 4)
    depths = [*range(1, 40), 100]
    whole = nr.sweep_depth(spec, depths, angles=angles)
    for name, limit in zip(("_WIDTH", "_HELD", "_STOPS"), limits, strict=True):
        monkeypatch.setattr(many, name, limit)
    seen = []
    cut = nr.sweep_depth(
        spec, depths, angles=angles, progress=lambda *a: seen.append(a)
    )
    for name in whole:  # arrays of another width round differently in the last place
        np.testing.assert_allclose(cut[name], whole[name], rtol=4 * EPS, atol=4 * EPS)
    assert [done for done, _, _ in seen] == list(range(1, 41))
    assert {text for _, _, text in seen} == {f"depth {depth}" for depth in depths}


@dataclasses.dataclass(frozen=True)
class HalfTrunk(BranchScale):
    """A user's own: no block of it leaves the features as they are."""

    def values(self, depth):
        return np.full(depth, depth**-0.5)

    def trunk_square(self, scale):
        return 0.5 + 0 * scale


def test_depths_beside_one_another_are_those_alone():
    spec = nr.ResNet(depth=1, branch_scale=HalfTrunk(), bias_variance=0.1)
    angles = np.array([0.5, 2.0])
    both = nr.sweep_depth(spec, [1, 3], angles=angles)
    for depth in (1, 3):
        alone = nr.sweep_depth(spec, depth, angles=angles).sel(depth=depth)
        for name, values in alone.items():
            found = both[name].sel(depth=depth)
            np.testing.assert_allclose(found, values, rtol=64 * EPS, err_msg=name)


def test_degeneracy_keeps_the_order_of_depths():
    table = degeneracy(SCALED, [1, 5, 20, 40], X)
    for depth in (1, 5, 20, 40):
        alone = degeneracy(SCALED, depth, X)
        for name in table:
            np.testing.assert_allclose(
                table[name].sel(depth=depth), alone[name][0], rtol=1e-11
            )


@pytest.mark.quick
def test_sweeps_carry_units_and_provenance_and_follow_the_dtype():
    angles = np.array([0.5, 1.0], np.float32)
    sweep = nr.sweep_depth(FAMILIES[0], 5, angles=angles)
    assert sweep.ntk.dims == ("depth", "angle")
    assert sweep.ntk.dtype == np.float32
    assert sweep.angle.attrs["units"] == "rad"
    assert nr.from_json(sweep.attrs["spec"]) == FAMILIES[0]
    seen = []
    nr.sweep_depth(
        FAMILIES[0], [1, 2], angles=angles, progress=lambda *a: seen.append(a)
    )
    assert [a[:2] for a in seen] == [(1, 2), (2, 2)]


def test_user_activations_can_be_swept():
    import jax.numpy as jnp

    spec = nr.FeedForward(depth=1, activation=nr.Activation(jnp.sin))
    sweep = nr.sweep_depth(spec, 3, angles=np.array([1.0]))
    assert "sin" in sweep.attrs["spec"]


def test_kernels_beyond_the_quadrature_are_refused():
    """A tanh network whose variance grows with depth: the first three are numbers."""
    spec = nr.ResNet(depth=1, activation="tanh", branch_scale=1.0)
    assert np.isfinite(nr.sweep_depth(spec, [1, 3], x=X).ntk).all()
    for call in (nr.sweep_depth, nr.degeneracy):
        with pytest.raises(
            ValueError, match=r"the nngp of ResNet\(depth=20, .* not a n"
        ):
            call(spec, [1, 20], x=X)


def test_degeneracy_describes_the_matrix():
    spec = nr.FeedForward(depth=1)
    table = degeneracy(spec, [1, 100], X)
    ntk = np.asarray(nr.kernel_fn(spec.replace(depth=100))(X))
    off = ntk[np.triu_indices(12, 1)]
    at = table.sel(depth=100)
    np.testing.assert_allclose(at.ntk_mean, off.mean(), rtol=1e-13)
    np.testing.assert_allclose(at.ntk_spread, off.std(), rtol=1e-10)
    values = np.linalg.eigvalsh(ntk)
    np.testing.assert_allclose(at.condition_number, values[-1] / values[0], rtol=1e-12)
    weights = values / values.sum()
    np.testing.assert_allclose(
        at.effective_rank, np.exp(-(weights * np.log(weights)).sum()), rtol=1e-12
    )
    assert float(table.sel(depth=1).distance_one_block) == 0


def test_predictions_are_given_where_theory_has_them_and_only_there():
    gamma = lambda g: nr.ResNet(depth=1, branch_scale=nr.DepthScale(g))  # noqa: E731
    constant = nr.ResNet(depth=1, branch_scale=1.0)
    names = ["predicted_ntk", "predicted_nngp_gap"]
    critical = nr.FeedForward(
        depth=1, activation="erf", weight_variance=1.9630693, bias_variance=0.3
    )
    ordered, chaotic = (critical.replace(weight_variance=w) for w in (1.0, 4.0))
    n = len(X)
    for spec, degenerate, one_block in (
        (nr.FeedForward(depth=1), True, False),
        (nr.FeedForward(depth=1, trained="blocks"), True, False),
        (constant, True, False),
        (constant.replace(branch_scale=0.0, trained="all"), False, False),
        (gamma(1.0), False, True),
        (gamma(0.5), False, False),
        (gamma(1.0).replace(trained="all"), False, False),
        (nr.FeedForward(depth=1, bias_variance=0.1), False, False),
        (critical, False, False),
        (ordered, False, False),
        (chaotic, False, False),
    ):
        table = degeneracy(spec, [4], X)
        known = {critical: (n + 2) / 2, chaotic: 1.0}.get(spec, np.nan)
        known = (n + 3) / 3 if degenerate else known
        found = float(table.predicted_condition_number[0])
        assert found == pytest.approx(known, rel=1e-9, nan_ok=True)
        for name in names:
            assert np.isfinite(table[name]).all() == degenerate
        assert np.isfinite(table.predicted_distance_one_block).all() == one_block


def test_degeneracy_needs_pairs(as_users_run_it):
    with pytest.raises(ValueError, match="one row"):
        degeneracy(FAMILIES[0], [1], X[:1])


def test_one_block_correction_at_the_ends():
    angle = np.array([0.0, 1.0])
    assert one_block_correction(angle)[0] == 0
    assert np.isfinite(one_block_correction(angle)).all()
