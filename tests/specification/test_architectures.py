"""Specifications: values, equality, JSON, and refusal of what makes no sense."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.specification.base import TRAINED
from ntk_resnet.specification.blocks import check_branch
from ntk_resnet.specification.scales import BranchScale

EPS = np.finfo(float).eps


@pytest.mark.parametrize("kind", ["FeedForward", "ConvNet"])
def test_plain_networks_of_older_files_train_all_weights(kind):
    """JSON from before there was a choice has no such field."""
    spec = nr.from_json(f'{{"kind": "{kind}", "depth": 3}}')
    assert spec.trained == "all"
    assert spec == getattr(nr, kind)(depth=3)
    assert spec.trains_readout
    assert not spec.replace(trained="blocks").trains_readout


@pytest.mark.parametrize("kind", ["ResNet", "ConvResNet"])
def test_residual_networks_train_their_blocks(kind):
    spec = nr.from_json(f'{{"kind": "{kind}", "depth": 3, "branch_scale": 0.5}}')
    assert spec.trained == "blocks"
    assert spec == getattr(nr, kind)(depth=3, branch_scale=0.5)
    assert not spec.trains_readout
    assert spec.replace(trained="all").trains_readout


@pytest.mark.quick
def test_defaults_are_resolved_so_that_equal_networks_are_equal():
    assert nr.FeedForward(depth=3) == nr.FeedForward(depth=3, weight_variance=2.0)
    assert nr.ResNet(depth=3, branch_scale=0.5) == nr.ResNet(
        depth=3, branch_scale=nr.ConstantScale(0.5)
    )
    assert nr.FeedForward(depth=1, activation="leaky_relu") == nr.FeedForward(
        depth=1, activation=nr.LeakyReLU(0.01)
    )


@pytest.mark.parametrize("name", ["relu", "abs", "erf", "gelu", "tanh", "linear"])
def test_default_weight_variance_keeps_a_unit_variance(name):
    spec = nr.FeedForward(depth=1, activation=name)
    np.testing.assert_allclose(
        spec.weight_variance * spec.activation.unit_second_moment, 1, rtol=1e-14
    )


def test_one_scale_is_one_number():
    """Also where the array of all would be too large for any memory."""
    depth = 10**12
    assert nr.FeedForward(depth=depth).common_scale == 1
    for scale, common in (
        (0.3, 0.3),
        (nr.DepthScale(0.5), 1e-6),
        (nr.DecreasingScale(), None),
    ):
        spec = nr.ResNet(depth=depth, branch_scale=scale)
        assert nr.from_json(nr.to_json(spec)).common_scale == common
        short = spec.replace(depth=4)
        assert common is None or (short.scales == short.common_scale).all()


@pytest.mark.quick
def test_scales():
    assert (nr.ConstantScale(0.3).values(4) == 0.3).all()
    np.testing.assert_allclose(nr.DepthScale(0.5).values(16), np.full(16, 0.25))
    # Hayou et al. 2021: the sums of squares quoted in theory 9.3 / 9.4d.
    for depth, total in ((100, 3.17), (1000, 3.24), (10000, 3.28)):
        assert abs((nr.DecreasingScale().values(depth) ** 2).sum() - total) < 0.005
    nested = nr.DecreasingScale().values(10)
    assert (nested == nr.DecreasingScale().values(20)[:10]).all()
    halves = nr.BalancedScale()  # both over the root of 2
    np.testing.assert_allclose(halves.values(3) ** 2, 0.5, rtol=2 * EPS)
    np.testing.assert_allclose(halves.trunk_square(halves.common(3)), 0.5, rtol=4 * EPS)


BAD = [
    (lambda: nr.BalancedScale(1.0), "share must be below 1, got 1"),
    (lambda: nr.BalancedScale(-0.1), "share must be a finite number >= 0"),
    (
        lambda: nr.ResNet(
            depth=1,
            branch_scale=1.0,
            block="full_preactivation",
            input_activation=True,
        ),
        "input_activation=True has no closed form with block='full_preactivation'",
    ),
    (lambda: nr.FeedForward(depth=0), "depth must be at least 1, got 0"),
    (lambda: nr.FeedForward(depth=-3), "depth must be at least 1"),
    (lambda: nr.FeedForward(depth=2.0), "depth must be a whole number"),
    (lambda: nr.FeedForward(depth=True), "depth must be a whole number"),
    (lambda: nr.FeedForward(depth=1, activation="swish"), "activation must be one of"),
    (lambda: nr.FeedForward(depth=1, weight_variance=0), "weight_variance must be"),
    (lambda: nr.FeedForward(depth=1, weight_variance=-1), "weight_variance must be"),
    (lambda: nr.FeedForward(depth=1, bias_variance=-1), "bias_variance must be"),
    (lambda: nr.FeedForward(depth=1, bias_variance=np.nan), "bias_variance must be"),
    (lambda: nr.ResNet(depth=1, branch_scale=-0.1), "branch_scale must be"),
    (lambda: nr.ResNet(depth=1, branch_scale=np.inf), "branch_scale must be"),
    (lambda: nr.ResNet(depth=1, branch_scale="half"), "branch_scale must be"),
    (lambda: nr.ResNet(depth=1, branch_scale=1.0, block="v3"), "block must be one of"),
    (lambda: nr.ResNet(depth=1, branch_scale=1.0, trained="some"), "trained must be"),
    (lambda: nr.FeedForward(depth=1, trained="some"), "trained must be one of"),
    (lambda: nr.ConvNet(depth=1, trained=True), "trained must be one of"),
    (
        lambda: nr.ResNet(depth=1, branch_scale=1.0, input_activation="no"),
        "input_activation must be True or False",
    ),
    (
        lambda: nr.ResNet(
            depth=1, branch_scale=1.0, block="preactivation", input_activation=True
        ),
        "no closed form",
    ),
    (lambda: nr.DepthScale(-1), "gamma must be"),
    (lambda: nr.from_json("{"), "not JSON text"),
    (lambda: nr.from_json('{"kind": ["a"]}'), "a specification is an object"),
    (lambda: nr.from_json("[" * 100_000), "not JSON text"),
    (lambda: nr.from_json(3), "not JSON text"),
    (
        lambda: nr.FeedForward(depth=1, weight_variance=10**400),
        "weight_variance must be a finite number",
    ),
    (lambda: nr.LeakyReLU("a"), "slope must be a finite number"),
    (
        lambda: nr.FeedForward(depth=1, activation=nr.LeakyReLU(1e200)),
        "positive and finite",
    ),
    (lambda: nr.from_json("[]"), "a specification is an object"),
    (lambda: nr.from_json('{"kind": "RNN"}'), "a specification is an object"),
    (lambda: nr.from_json('{"kind": "ConstantScale", "alpha": 1}'), "a network was"),
    (lambda: nr.from_json('{"kind": "ResNet", "depth": 2}'), "needs branch_scale"),
    (
        lambda: nr.from_json('{"kind": "FeedForward", "depth": 2, "width": 3}'),
        "a field of FeedForward",
    ),
    (
        lambda: nr.to_json(nr.FeedForward(depth=1, activation=nr.Activation(jnp.sin))),
        "no JSON form",
    ),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_specifications_get_one_clear_line(make, words, as_users_run_it):
    with pytest.raises(ValueError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_choices_are_those_of_the_docstring():
    for kind in (nr.ResNet, nr.ConvResNet):
        assert all(f'"{block}"`:' in kind.__doc__ for block in kind.blocks)
    assert TRAINED == ("blocks", "all")


@pytest.mark.parametrize(
    "operations",
    [
        (),
        ("activate",),
        ("inner",),
        ("inner", "inner", "activate"),
        ("outer", "activate", "inner"),
        ("inner", "activate", "activate", "outer"),
        ("activate", "inner", "activate"),
        ("inner", "relu"),
    ],
)
def test_branches_without_a_closed_form_are_refused(operations):
    """Of h + phi(W phi(h)), say, the next phi is applied to no Gaussian features."""
    with pytest.raises(ValueError, match="has no closed form"):
        check_branch(operations)
    check_branch(("inner", "activate", "outer", "activate"))


@dataclasses.dataclass(frozen=True)
class Halved(BranchScale):
    """A user's own scale, with the trunk of `BalancedScale()`."""

    numbers: tuple = (0.5**0.5,) * 3

    def values(self, depth):
        return np.array(self.numbers)

    def trunk_square(self, scale):
        return 1 - scale * scale


def test_scales_of_a_users_own():
    """Their trunk is kept; their values are checked; they have no JSON form."""
    own = nr.ResNet(depth=3, branch_scale=Halved(), bias_variance=0.1)
    x = np.random.default_rng(0).normal(size=(4, 3))
    found, wanted = (
        nr.kernel_fn(spec, normalised=False)(x)
        for spec in (own, own.replace(branch_scale=nr.BalancedScale()))
    )
    np.testing.assert_allclose(found, wanted, rtol=64 * EPS)
    with pytest.raises(ValueError, match="user's own and has no JSON form"):
        nr.to_json(own)
    for numbers in ((0.5, 0.5), (0.5, -0.5, 0.5), (0.5, np.nan, 0.5)):
        with pytest.raises(ValueError, match="branch_scale must give 3 finite numbers"):
            nr.kernel_fn(own.replace(branch_scale=Halved(numbers)))(x)


def test_scales_as_data_that_leave_no_trunk():
    """An error where they are known, NaN in a trace, of rows and of images."""
    scales = np.array([0.5, 1.2, 0.3])
    for make, shape in ((nr.ResNet, (3, 4)), (nr.ConvResNet, (3, 4, 4, 1))):
        kernel = nr.kernel_fn(make(depth=3, branch_scale=nr.BalancedScale()))
        x = np.random.default_rng(0).normal(size=shape)
        with pytest.raises(ValueError, match="scales leave no trunk"):
            kernel(x, scales=scales)
        traced = jax.jit(lambda x, s: kernel(x, scales=s))(x, scales)  # noqa: B023
        off = ~np.eye(len(x), dtype=bool)
        assert np.isnan(np.asarray(traced)[off]).all()
