"""Moments by block, and the expansion over paths."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from foreign_models import FOREIGN
from scipy import stats

import ntk_resnet as nr
from ntk_resnet.analysis import signal
from ntk_resnet.models.tape import record

X = np.random.default_rng(0).normal(size=(6, 4))


class Residual(nnx.Module):
    """h + scale W phi(h), the last features as outputs."""

    def __init__(self, width, depth, rngs, scale=1.0, phi=jax.nn.relu):
        draw = lambda: nnx.Param(rngs.normal((width, width)) * (2 / width) ** 0.5)  # noqa: E731
        self.weights = nnx.List([draw() for _ in range(depth)])
        self.scale, self.phi = scale, phi

    def __call__(self, x):
        for weight in self.weights:
            x = x + self.scale * (self.phi(x) @ weight[...])
        return x


@pytest.mark.quick
def test_moments_are_those_of_the_values():
    model = Residual(4, 3, nnx.Rngs(0), scale=0.7)
    found = signal.moments(model, X)
    h = X
    for block, weight in enumerate(model.weights):
        branch = 0.7 * np.maximum(h, 0) @ np.asarray(weight[...])
        at = found.isel(block=block)
        for name, value in (("trunk_", h), ("branch_", branch), ("", h + branch)):
            assert at[f"{name}second_moment"] == pytest.approx(np.mean(value**2))
            assert at[f"{name}variance"] == pytest.approx(value.var(axis=0).mean())
            assert at[f"{name}square_of_means"] == pytest.approx(
                np.mean(value.mean(axis=0) ** 2)
            )
        parts = [np.mean(v**2) for v in (h, branch)]
        assert at.branch_share == pytest.approx(parts[1] / sum(parts))
        h = h + branch
    assert found.block.values.tolist() == [1, 2, 3]


def test_gradients_go_back_through_the_blocks():
    """At the last sum they are the random direction; before it, one block's more."""
    model = Residual(4, 3, nnx.Rngs(0))
    found = signal.moments(model, X, seed=3).gradient_second_moment.values
    direction = np.asarray(jax.random.normal(jax.random.key(3), X.shape, float))
    assert found[-1] == pytest.approx(np.mean(direction**2))
    last = model.weights[2][...]
    h = X
    for weight in model.weights[:2]:
        h = h + np.maximum(h, 0) @ np.asarray(weight[...])
    before = direction + (direction @ last.T) * (h > 0)
    assert found[-2] == pytest.approx(np.mean(before**2))
    assert "gradient_second_moment" not in signal.moments(model, X, seed=None)


BLOCKS = {"linen": 2, "dropout": 3, "scan": 3}


@pytest.mark.quick
@pytest.mark.parametrize("name", FOREIGN)
def test_blocks_of_others_are_found(name):
    model, x = FOREIGN[name]()
    found = signal.moments(model, x)
    assert found.sizes["block"] == BLOCKS[name]
    assert (found.branch_share > 0.01).all()
    layers = signal.moments(model, x, by="layer")
    kernels = {"linen": 7, "dropout": 8, "scan": 8}
    assert layers.sizes["layer"] == kernels[name]
    assert all("kernel" in one.lower() for one in layers.name.values)


def test_batch_normalisation_in_training_mode():
    """De and Smith: the trunk's moment grows by one a block, the branch's is one."""

    class Normalised(linen.Module):
        @linen.compact
        def __call__(self, x):
            for _ in range(20):
                y = linen.BatchNorm(use_running_average=False)(x)
                y = linen.Dense(128, kernel_init=linen.initializers.normal(128**-0.5))(
                    y
                )
                x = x + y
            return x

    x = np.random.default_rng(0).normal(size=(256, 128))
    module = Normalised()
    variables = module.init(jax.random.key(0), x)

    def apply(variables, x):
        return module.apply(variables, x, mutable=["batch_stats"])[0]

    found = signal.moments((apply, variables), x)
    np.testing.assert_allclose(found.branch_second_moment, 1, atol=0.1)
    np.testing.assert_allclose(found.second_moment, np.arange(2, 22), rtol=0.1)


def test_what_is_no_block_is_not_found():
    """Sums without weights between, such as in the formula of GELU."""
    plain = nnx.Sequential(
        nnx.Linear(4, 5, rngs=nnx.Rngs(0)), nnx.gelu, nnx.Linear(5, 2, rngs=nnx.Rngs(0))
    )
    assert signal._residual_blocks(record(plain, X)) == []
    with pytest.raises(ValueError, match='Pass by="layer"'):
        signal.moments(plain, X)
    with pytest.raises(ValueError, match="no residual block"):
        signal.expansion(plain, X)


def test_moments_of_our_networks_are_the_recursions():
    """Wide networks: 3 standard errors of 12 of them, and the gradient's mirror."""
    spec = nr.ResNet(depth=8, branch_scale=0.5, block="preactivation")
    x = np.random.default_rng(0).normal(size=(2, 16))
    found = [
        signal.moments(nr.finite.build(spec, 16, 512, rngs=nnx.Rngs(s)), x)
        for s in range(12)
    ]
    log = nr.sweep_depth(spec, range(1, 9), x=x).log_nngp_diag
    values = np.array([one.second_moment.values for one in found])
    error = values.std(axis=0, ddof=1) / np.sqrt(12)
    known = np.exp(log.values).mean(axis=1)
    assert (np.abs(values.mean(axis=0) - known) < 3 * error).all()
    back = np.array([one.gradient_second_moment.values for one in found])
    growth = back[:, 0] / back[:, -1]  # over seven blocks
    error = growth.std(ddof=1) / np.sqrt(12)
    assert abs(growth.mean() - 1.25**7) < 3 * error


# ---------------------------------------------------------------------------- expansion


@pytest.mark.quick
def test_linear_blocks_are_elementary_symmetric():
    model = Residual(4, 5, nnx.Rngs(0), phi=lambda h: h)
    found = signal.expansion(model, X, orders=5)
    matrices = [np.asarray(w[...]) for w in model.weights]
    terms = [X] + [np.zeros_like(X)] * 5
    for matrix in matrices:
        for k in range(5, 0, -1):
            terms[k] = terms[k] + terms[k - 1] @ matrix
    np.testing.assert_allclose(found.term, np.stack(terms), atol=1e-12)
    assert found.paths.values.tolist() == [math.comb(5, k) for k in range(6)]
    assert float(found.error[-1]) < 1e-14
    squares = np.array([np.mean(term**2) for term in terms])
    np.testing.assert_allclose(found.share, squares / squares.sum())


def test_shares_of_random_linear_blocks_are_binomial():
    """3 standard errors over 40 networks of 64 units."""
    n, scale = 6, 0.5
    x = np.random.default_rng(0).normal(size=(1, 64))
    squares = np.array(
        [
            signal.expansion(
                Residual(64, n, nnx.Rngs(s), scale / 2**0.5, lambda h: h), x, orders=3
            ).second_moment.values
            for s in range(40)
        ]
    )
    shares = squares / np.mean(x**2) / (1 + scale**2) ** n
    error = shares.std(axis=0, ddof=1) / np.sqrt(40)
    known = stats.binom.pmf(range(4), n, scale**2 / (1 + scale**2))
    assert (np.abs(shares.mean(axis=0) - known)[1:] < 3 * error[1:]).all()
    assert shares[:, 0] == pytest.approx(known[0])


def test_the_error_of_two_orders_is_of_the_third():
    """Smooth branches: eight times less at half the scale."""
    errors = [
        float(
            signal.expansion(
                Residual(16, 4, nnx.Rngs(0), scale, jnp.tanh), X @ np.ones((4, 16)) / 4,
                orders=2,
            ).error[2]
        )
        for scale in (0.01, 0.005)
    ]  # fmt: skip
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.1)


def test_the_expansion_of_a_scanned_model():
    model, x = FOREIGN["scan"]()
    found = signal.expansion(model, x, orders=4)
    assert found.attrs["blocks"] == 3
    assert float(found.error[4]) < float(found.error[1])


@pytest.mark.quick
def test_geometric_complexity_is_the_jacobians_size():
    linear = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    weights = np.asarray(linear.kernel[...])
    assert signal.geometric_complexity(linear, X) == pytest.approx(
        np.sum(weights**2), rel=1e-6
    )
    model, x = FOREIGN["scan"]()
    assert signal.geometric_complexity(model, x, batch_rows=4) == pytest.approx(
        signal.geometric_complexity(model, x), rel=1e-6
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m: signal.moments(m, X[0]), "x has shape"),
        (lambda m: signal.moments(m, X * np.nan), "x holds nan"),
        (lambda m: signal.moments(m, X, by="unit"), "by must be one of"),
        (lambda m: signal.moments(3, X), "model must be"),
        (lambda m: signal.expansion(m, X, orders=9), "orders must be at most 8"),
        (lambda m: signal.expansion(m, X, orders=-1), "orders must be at least 0"),
        (lambda m: signal.geometric_complexity(m, X, batch_rows=0), "batch_rows"),
    ],
)
def test_bad_arguments_are_named(as_users_run_it, call, text):
    with pytest.raises(ValueError, match=text):
        call(Residual(4, 2, nnx.Rngs(0)))
