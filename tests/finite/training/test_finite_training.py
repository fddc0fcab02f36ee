"""Training against gradient flow: infinite-width predictions, drift, bookkeeping."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from oracle import limit_kernels

import ntk_resnet as nr
from ntk_resnet.analysis.regression import gradient_flow
from ntk_resnet.data.datasets import split
from ntk_resnet.finite import build, empirical_ntk, train_study
from ntk_resnet.finite.ensembles import seed_keys
from ntk_resnet.finite.training.comparison import step_error
from ntk_resnet.finite.training.setup import make_run

SPEC = nr.ResNet(depth=2, branch_scale=nr.DepthScale(0.5))


def sphere(n, d=6, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def study():
    x = sphere(5)
    calls = []
    result = train_study(
        SPEC,
        x,
        x[:, 0] + x[:, 1],
        [16, 64],
        6,
        x_test=sphere(3, seed=1),
        times=[1.0, 10.0, 30.0],
        progress=lambda *call: calls.append(call),
    )
    return result, calls


def test_one_network_is_trained_as_by_hand(study):
    """The study's network, remade from its key and trained with nnx.Optimizer."""
    result, _ = study
    x, x_test = jnp.float32(sphere(5)), jnp.float32(sphere(3, seed=1))
    y = x[:, :1] + x[:, 1:2]
    model = build(SPEC, 6, 64, rngs=nnx.Rngs(seed_keys(0, 64, 6)[2]))
    start = np.asarray(model(x)), np.asarray(model(x_test))
    own = np.float64(empirical_ntk(model, jnp.concatenate([x, x_test]), outputs="mean"))
    weights = jax.tree.leaves(nnx.state(model, nnx.Param))
    before = own[:5, :5]
    optimizer = nnx.Optimizer(
        model, optax.sgd(result.attrs["learning_rate"]), wrt=nnx.Param
    )

    @nnx.jit
    def step(model, optimizer):
        loss = lambda model: jnp.mean((model(x) - y) ** 2) / 2  # noqa: E731
        optimizer.update(model, nnx.grad(loss)(model))

    for _ in range(result.attrs["steps"]):
        step(model, optimizer)
    mine = result.isel(width=1, seed=2, time=-1)
    np.testing.assert_allclose(mine.outputs, model(x_test), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        mine.loss, jnp.mean((model(x) - y) ** 2) / 2, rtol=1e-2, atol=1e-6
    )
    after = empirical_ntk(model, x, outputs="mean")
    drift = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert float(mine.ntk_drift) == pytest.approx(drift, rel=1e-2)
    cosine = np.sum(after * (y @ y.T)) / np.linalg.norm(after) / np.sum(y**2)
    assert float(mine.alignment) == pytest.approx(float(cosine), rel=1e-4)
    moved = zip(jax.tree.leaves(nnx.state(model, nnx.Param)), weights, strict=True)
    moved = np.sqrt(sum(np.sum((new - old) ** 2) for new, old in moved))
    size = np.sqrt(sum(np.sum(old**2) for old in weights))
    assert float(mine.weights_distance) == pytest.approx(moved / size, rel=1e-3)

    both = np.concatenate([sphere(5), sphere(3, seed=1)])
    ntk = limit_kernels(SPEC, both)[1]
    for kernel, name, error in (
        (ntk, "predicted", "output_error"),
        (own, "own_kernel", "own_kernel_error"),
    ):
        f = np.concatenate(start)
        for _ in range(result.attrs["steps"]):
            residual = f[:5] - np.asarray(y)
            f = f - result.attrs["learning_rate"] / 5 * kernel[:, :5] @ residual
        np.testing.assert_allclose(mine[f"{name}_outputs"], f[5:], rtol=1e-4)
        final = np.mean((f[:5] - y) ** 2) / 2
        np.testing.assert_allclose(mine[f"{name}_loss"], final, rtol=1e-3)
        distance = np.abs(mine.outputs - mine[f"{name}_outputs"])
        np.testing.assert_allclose(mine[error], np.sqrt(np.mean(distance**2)))
        np.testing.assert_allclose(mine[f"max_{error}"], distance.max())


@pytest.mark.quick
def test_bookkeeping(study):
    result, calls = study
    assert dict(result.sizes) == {
        "width": 2,
        "seed": 6,
        "time": 4,
        "point": 3,
        "output": 1,
    }
    assert (result.attrs["rows"], result.attrs["test_rows"]) == (5, 3)
    rate = result.attrs["learning_rate"]
    np.testing.assert_allclose(result.time, [0, 1, 10, 30], atol=rate / 2)
    assert result.attrs["steps"] * rate == pytest.approx(float(result.time[-1]))
    for name in ("ntk_drift", "output_error", "own_kernel_error"):
        assert (result[name].isel(time=0) < 1e-5).all()
    assert calls[-1][0] == calls[-1][1]
    assert [call[0] for call in calls] == sorted(call[0] for call in calls)
    assert len(calls) == 2 * 4
    assert all(np.isfinite(values).all() for values in result.values())
    # The finite step is negligible beside the finite width.
    assert result.step_error.max() < 0.1 * result.output_error.mean()


def test_wider_networks_stay_closer(study):
    result, _ = study
    late = result.isel(time=-1).mean("seed")
    for name in ("ntk_drift", "output_error", "own_kernel_error"):
        assert late[name][1] < late[name][0]
    assert (late.own_kernel_error < late.output_error).all()


def test_centred_networks_share_one_prediction():
    x = sphere(4)
    result = train_study(SPEC, x, x[:, :2], [8], 2, times=[5.0], centred=True, seed=3)
    predicted = result.predicted_outputs
    assert predicted.sizes["output"] == 2
    np.testing.assert_array_equal(predicted.std("seed"), 0)
    np.testing.assert_array_equal(result.outputs.isel(time=0), 0)


def test_step_error_is_that_of_gradient_descent():
    x = sphere(6)
    train, test = x[:4], x[4:]
    ntk = limit_kernels(nr.FeedForward(depth=1), x)[1]
    limit, y = (ntk[:4, :4], ntk[4:, :4]), train[:, :1]
    run = make_run(
        nr.FeedForward(depth=1),
        (train, y, test),
        times=[3.0],
        loss="mse",
        optimizer=None,
        learning_rate=0.5,
        batch_size=None,
        centred=False,
    )
    descent, outputs = np.zeros((4, 1)), np.zeros((2, 1))
    for _ in range(6):
        residual = y - descent
        descent = descent + 0.5 / 4 * limit[0] @ residual
        outputs = outputs + 0.5 / 4 * limit[1] @ residual
    flow = gradient_flow(*limit, y, [3.0]).test[0]
    expected = np.sqrt(np.mean((flow - outputs) ** 2))
    assert step_error(run)[-1] == pytest.approx(expected, rel=1e-9)


def test_any_optimizer_and_loss():
    """Adam on the logistic loss, as by hand; the prediction is gradient flow's."""
    x, rate, steps = sphere(6), 0.01, 20
    y = np.where(x[:, 0] > 0, 1.0, -1.0)
    result = train_study(
        SPEC,
        x,
        y,
        [16],
        2,
        loss="logistic",
        optimizer=optax.adam(rate),
        learning_rate=rate,
        times=[rate * steps],
    )
    model = build(SPEC, 6, 16, rngs=nnx.Rngs(seed_keys(0, 16, 2)[1]))
    optimizer = nnx.Optimizer(model, optax.adam(rate), wrt=nnx.Param)
    start, goal = np.float64(model(x)), jnp.float32(y[:, None])

    @nnx.jit
    def step(model, optimizer):
        loss = lambda model: -jnp.mean(jax.nn.log_sigmoid(goal * model(x)))  # noqa: E731
        optimizer.update(model, nnx.grad(loss)(model))

    for _ in range(steps):
        step(model, optimizer)
    mine = result.isel(width=0, seed=1, time=-1)
    np.testing.assert_allclose(mine.outputs, model(x)[:8], rtol=1e-3, atol=1e-4)
    expected = np.mean(np.log1p(np.exp(-goal * model(x))))
    assert float(mine.loss) == pytest.approx(float(expected), rel=1e-4)
    ntk = limit_kernels(SPEC, x)[1]
    f = start
    for _ in range(2000):  # Euler's method, of error 1/2000
        f = f + rate * steps / 2000 * ntk @ (goal / (1 + np.exp(goal * f))) / 6
    np.testing.assert_allclose(mine.predicted_outputs, f, rtol=1e-3, atol=1e-4)
    assert "warning" not in result.attrs


def test_limits_of_stability():
    x, y = sphere(4), np.array([[1.0, -1], [-1, 1], [1, -1], [1, -1]])
    largest = np.linalg.eigvalsh(limit_kernels(SPEC, x)[1])[-1]
    defaults = dict.fromkeys(("times", "optimizer", "learning_rate", "batch_size"))
    for loss, terms, curvature in (
        ("mse", 8, 1),
        ("logistic", 8, 1 / 4),
        ("softmax", 4, 1 / 2),
    ):
        goal = (y > 0) * 1.0 if loss == "softmax" else y
        run = make_run(SPEC, (x, goal, None), loss=loss, centred=False, **defaults)
        assert run.limit == pytest.approx(2 * terms / curvature / largest)
        assert run.learning_rate == pytest.approx(run.limit / 32)


def test_unstable_learning_rates_are_said():
    def squared(outputs, y):  # not known by name, so it is tried
        return jnp.mean((outputs - y) ** 2) / 2

    x = sphere(4)
    limit = 2 * 4 / np.linalg.eigvalsh(limit_kernels(SPEC, x)[1])[-1]
    options = {"loss": squared, "times": [500 * limit], "learning_rate": 20 * limit}
    lost = train_study(SPEC, x, x[:, 0], [8], 2, **options)
    assert lost.attrs["stability_limit"] == pytest.approx(limit)
    warning = lost.attrs["warning"]
    assert f"learning_rate {20 * limit:.3g} is above {limit:.3g}" in warning
    assert "2 of 2 networks diverged" in warning


def test_seeds_do_not_depend_on_how_many_there_are():
    data = jax.random.key_data
    many = seed_keys(5, 8, 4)
    np.testing.assert_array_equal(data(seed_keys(5, 8, 2)), data(many)[:2])
    others = [seed_keys(5, 9, 4), seed_keys(6, 8, 4)]
    every = np.concatenate([data(keys) for keys in [many, *others]])
    assert len(np.unique(every, axis=0)) == 12


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_exponents_of_training(activation):
    """Outputs approach the prediction as m^-1/2; the drift falls faster, as about 1/m.

    The second-order kernel, which moves the NTK, is of order 1/m. (Early in training of
    ReLU networks, random flips of the activation pattern dominate, at about m^-0.6.)
    """
    x = sphere(8, 8)
    spec = nr.ResNet(depth=3, branch_scale=nr.DepthScale(0.5), activation=activation)
    result = train_study(
        spec, x, 3 * x[:, 0], [64, 128, 256], 16, x_test=sphere(8, 8, 1)
    )
    low, high = result.output_error_exponent_low, result.output_error_exponent_high
    slack = 0.5 * (high - low) / 2
    assert low - slack < -0.5 < high + slack
    assert result.drift_exponent_high < -0.6
    assert result.drift_exponent_low > -1.4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_digits_follow_the_prediction(kind):
    """The largest difference of test outputs falls as m^-1/2, that by drift faster."""
    spec = nr.FeedForward(depth=2) if kind == "plain" else SPEC
    digits = nr.load_data("digits")
    two = digits.take(np.flatnonzero(digits.y < 2))
    train, test = split(two, train=16, test=16)
    x, y = two.x[train], np.where(two.y == 0, -1.0, 1.0)[train]
    constant = len(x) / np.linalg.eigvalsh(limit_kernels(spec, x)[1])[-1]
    result = train_study(
        spec,
        x,
        y,
        [64, 128, 256, 512],
        16,
        x_test=two.x[test],
        times=constant * np.geomspace(0.1, 30, 8),
        centred=True,
    )
    assert float(result.max_output_error_exponent) == pytest.approx(-0.5, abs=0.1)
    low, high = (
        result.max_output_error_exponent_low,
        result.max_output_error_exponent_high,
    )
    assert low < -0.5 < high
    assert result.max_own_kernel_error_exponent_high < -0.5
    assert result.drift_exponent_high < -0.5


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"x": np.ones(4)}, "x has shape"),
        ({"x": np.full((4, 6), np.inf)}, "x holds inf"),
        ({"y": np.ones(3)}, "y has shape"),
        ({"y": np.ones((4, 0))}, "y has shape"),
        ({"y": np.full(4, np.nan)}, "y holds nan"),
        ({"y": np.full(4, "a")}, "y has dtype"),
        ({"x_test": np.ones((2, 5))}, "x_test must have the columns of x"),
        ({"widths": [-1]}, "widths must be at least 1"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"times": [-1.0]}, "times must be"),
        ({"times": [np.nan]}, "times must be"),
        ({"times": []}, "times must be"),
        ({"times": "abc"}, "times must be a non-empty list"),
        ({"times": [[1.0], [1.0, 2.0]]}, "times must be a non-empty list"),
        ({"times": [1e12]}, "times must be at most .* 2147483647 steps"),
        ({"checkpoint": 3}, "checkpoint must be the path of a folder, got 3"),
        ({"loss": lambda f, y: np.log(f).sum()}, "loss must be .* jax.numpy"),
        ({"loss": lambda f, y: f.sum() if f.sum() > 0 else 0}, "loss must be .* choic"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number > 0"),
        ({"learning_rate": 1e6}, "learning_rate 1e[+]06 diverges"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 5}, "batch_size must be at most the 4 rows; got 5"),
        ({"optimizer": "adam"}, "optimizer must be an Optax optimiser"),
        ({"optimizer": optax.adam(0.1)}, "learning_rate must be given with an optim"),
        ({"loss": "hinge"}, "loss must be one of 'mse', 'logistic', 'softmax'"),
        ({"loss": "logistic", "y": np.zeros(4)}, "y must hold -1 and 1"),
        ({"loss": "softmax"}, "y must be [(]n, classes[)] with rows >= 0 of sum 1"),
        ({"loss": lambda f, y: f - y}, "loss must map outputs .* to one number"),
        ({"loss": lambda f, y: f.mean()}, "learning_rate must be given: the loss has"),
        ({"spec": nr.ResNet(depth=1, branch_scale=0.0)}, "spec has an NTK of zeros"),
    ],
)
def test_bad_arguments_are_named(as_users_run_it, changes, text):
    good = {
        "spec": SPEC,
        "x": sphere(4),
        "y": np.ones(4),
        "widths": [4],
        "seeds": 1,
    }
    with pytest.raises(ValueError, match=text) as caught:
        train_study(**good | changes)
    assert "\n" not in str(caught.value)


def test_nothing_is_left_switched_on():
    assert jax.config.jax_default_matmul_precision is None
