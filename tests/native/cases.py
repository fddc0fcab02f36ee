"""Calls of neural-tangents whose values are compared between two JAX versions.

`CASES` maps a name to a function `(nt, arrays) -> array or tree of arrays`. The same
code runs under JAX 0.5.3, to make the tables (`make_tables.py`), and under today's JAX
in `tests/reference/test_neural_tangents.py`, eagerly and as `jax.jit(function of
arrays)`. So it uses nothing but `nt`, which is handed in, and public JAX.

Random weights are read from `arrays["normal"]`, so that no comparison of networks
depends on a random-number generator; only Monte Carlo draws with a key.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

CASES = {}


def make_arrays() -> dict[str, np.ndarray]:
    """Inputs, targets and weights, float64; stored with the tables."""
    rng = np.random.default_rng(20261)
    shapes = {
        "x1": (4, 6),
        "x2": (2, 6),
        "y1": (4, 2),
        "image1": (3, 5, 4, 2),
        "image2": (2, 5, 4, 2),
        "normal": (700,),
        "normal_after": (700,),
    }
    arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    arrays["pattern1"] = (rng.random((3, 5, 4, 5, 4)) < 0.3).astype(np.float64)
    arrays["pattern2"] = (rng.random((2, 5, 4, 5, 4)) < 0.3).astype(np.float64)
    return arrays


def case(function=None, **kwargs):
    """Registers `function(nt, arrays, **kwargs)`; the name tells both."""
    if function is None:
        return functools.partial(case, **kwargs)
    name = "-".join([function.__name__, *map(str, kwargs.values())])
    CASES[name] = functools.partial(function, **kwargs)
    return function


# Closed forms, entries (nngp, ntk).

ACTIVATIONS = {
    "relu": lambda stax: stax.Relu(),
    "relu_stabilised": lambda stax: stax.Relu(do_stabilize=True),
    "leaky": lambda stax: stax.LeakyRelu(0.2),
    "abs": lambda stax: stax.Abs(),
    "erf": lambda stax: stax.Erf(),
    "gelu": lambda stax: stax.Gelu(),
    "sin": lambda stax: stax.Sin(),
    "polynomial": lambda stax: stax.Polynomial((0.1, 0.5, 0.2)),
    "tanh_quadrature": lambda stax: stax.ElementwiseNumerical(jnp.tanh, deg=25),
    "user_dual": lambda stax: stax.Elementwise(nngp_fn=lambda q12, q1, q2: q12**2),
}


def dense(nt, activation):
    stax = nt.stax
    layers = []
    for _ in range(3):
        layers += [stax.Dense(8, W_std=1.4, b_std=0.2), ACTIVATIONS[activation](stax)]
    return stax.serial(*layers, stax.Dense(2))


def residual(nt, block):
    stax = nt.stax
    if block == "two_layer":
        branch = [stax.Dense(8, W_std=2**0.5), stax.Relu(), stax.Dense(8, W_std=0.3)]
    elif block == "preactivation":
        branch = [stax.Relu(), stax.Dense(8, W_std=0.4, b_std=0.1)]
    else:
        branch = [stax.Dense(8, b_std=0.1), stax.Erf(), stax.Dense(8, W_std=0.3)]
    shortcut = stax.parallel(stax.serial(*branch), stax.Identity())
    repeated = stax.serial(stax.FanOut(2), shortcut, stax.FanInSum())
    return stax.serial(stax.Dense(8), stax.repeat(repeated, 3), stax.Dense(2))


def convolution(nt, readout):
    stax = nt.stax

    def conv():
        return stax.Conv(8, (3, 3), W_std=1.3, b_std=0.1, padding="SAME")

    branch = stax.serial(stax.Relu(), conv(), stax.Relu(), conv())
    layers = [
        conv(),
        stax.FanOut(2),
        stax.parallel(branch, stax.Identity()),
        stax.FanInSum(),
    ]
    if readout == "pool":
        layers += [stax.Relu(), stax.GlobalAvgPool()]
    elif readout == "average":
        layers += [stax.AvgPool((2, 2), padding="SAME"), stax.Relu(), stax.Flatten()]
    elif readout == "attention":
        attention = functools.partial(
            stax.GlobalSelfAttention,
            linear_scaling=True,
            attention_mechanism="IDENTITY",
            W_key_std=1.1,
            W_out_std=0.9,
            b_std=0.3,
        )
        heads = {"n_chan_out": 4, "n_chan_key": 4, "n_chan_val": 4, "n_heads": 2}
        # The positional one factorises a matrix in an eval_context.
        layers += [attention(**heads), stax.Relu()]
        layers += [attention(**heads, pos_emb_type="SUM"), stax.GlobalAvgPool()]
    else:
        layers += [stax.Relu(), stax.Flatten()]
    return stax.serial(*layers, stax.Dense(2))


def layer_norm(nt):
    stax = nt.stax
    return stax.serial(
        stax.Conv(8, (3, 3), padding="SAME"),
        stax.LayerNorm(axis=(1, 2, -1)),
        stax.Relu(),
        stax.Conv(8, (3, 3), padding="VALID"),
        stax.LayerNorm(),
        stax.Gelu(),
        stax.Flatten(),
        stax.Dense(2),
    )


def evaluate(kernel_fn, x1, x2):
    """Entries of two sets, of one set, and its diagonal apart.

    On the diagonal neural-tangents' formula for the ReLU family cancels: it takes the
    root of `q11 * q22 - q12**2`, so what is rounded at 1e-16 comes out at 1e-9.
    """
    own = kernel_fn(x1, None, ("nngp", "ntk"))
    return {
        "cross": tuple(kernel_fn(x1, x2, ("nngp", "ntk"))),
        "own": tuple(jnp.where(jnp.eye(x1.shape[0]), 0, k) for k in own),
        "own_diagonal": tuple(jnp.diagonal(k) for k in own),
    }


def closed_dense(nt, arrays, activation):
    return evaluate(dense(nt, activation)[2], arrays["x1"], arrays["x2"])


for _activation in ACTIVATIONS:
    case(closed_dense, activation=_activation)


@case(block="two_layer")
@case(block="preactivation")
@case(block="smooth")
def closed_residual(nt, arrays, block):
    return evaluate(residual(nt, block)[2], arrays["x1"], arrays["x2"])


@case(readout="pool")
@case(readout="average")
@case(readout="flatten")
@case(readout="attention")
def closed_convolution(nt, arrays, readout):
    kernel_fn = convolution(nt, readout)[2]
    return evaluate(kernel_fn, arrays["image1"], arrays["image2"])


@case
def closed_layer_norm(nt, arrays):
    return evaluate(layer_norm(nt)[2], arrays["image1"], arrays["image2"])


@case
def closed_graph(nt, arrays):
    stax = nt.stax
    _, _, kernel_fn = stax.serial(
        stax.Conv(8, (3, 3), padding="SAME"),
        stax.Relu(),
        stax.Aggregate(aggregate_axis=(1, 2), batch_axis=0, channel_axis=3),
        stax.GlobalAvgPool(),
        stax.Dense(2),
    )
    pattern = (arrays["pattern1"], arrays["pattern2"])
    return tuple(
        kernel_fn(arrays["image1"], arrays["image2"], ("nngp", "ntk"), pattern=pattern)
    )


@case(device_count=0)
@case(device_count=-1)
def batched(nt, arrays, device_count):
    kernel_fn = nt.batch(residual(nt, "two_layer")[2], 2, device_count)
    return evaluate(kernel_fn, arrays["x1"], arrays["x2"])


# Predictions.


def training(nt, arrays):
    """A smooth activation, so that the training kernel is well conditioned."""
    kernel_fn = residual(nt, "smooth")[2]
    k_dd = kernel_fn(arrays["x1"], None, ("nngp", "ntk"))
    k_td = kernel_fn(arrays["x2"], arrays["x1"], ("nngp", "ntk"))
    k_tt = kernel_fn(arrays["x2"], None, ("nngp", "ntk"))
    return kernel_fn, k_dd, k_td, k_tt


@case(t=0.5)
@case(t=None)
def gradient_descent_mse(nt, arrays, t):
    _, k_dd, k_td, _ = training(nt, arrays)
    predict_fn = nt.predict.gradient_descent_mse(
        k_dd.ntk, arrays["y1"], learning_rate=0.7, diag_reg=1e-3
    )
    start = 0.1 * arrays["y1"], 0.3 * arrays["y1"][:2]
    return predict_fn(t, *start, k_td.ntk), predict_fn(t)


@case
def gradient_descent_mse_times(nt, arrays):
    _, k_dd, k_td, _ = training(nt, arrays)
    predict_fn = nt.predict.gradient_descent_mse(k_dd.ntk, arrays["y1"])
    return predict_fn(jnp.array([0.1, 3.0, 20.0]), 0.0, 0.0, k_td.ntk)


@case(t=0.5)
@case(t=None)
def gradient_descent_mse_ensemble(nt, arrays, t):
    kernel_fn, *_ = training(nt, arrays)
    predict_fn = nt.predict.gradient_descent_mse_ensemble(
        kernel_fn, arrays["x1"], arrays["y1"], diag_reg=1e-3
    )
    return tuple(predict_fn(t, arrays["x2"], ("nngp", "ntk"), compute_cov=True))


@case
def gp_inference(nt, arrays):
    _, k_dd, k_td, k_tt = training(nt, arrays)
    predict_fn = nt.predict.gp_inference(k_dd, arrays["y1"], diag_reg=1e-3)
    return tuple(predict_fn(("nngp", "ntk", "ntkgp"), k_td, k_tt))


@case(momentum=None)
@case(momentum=0.9)
def gradient_descent(nt, arrays, momentum):
    _, k_dd, k_td, _ = training(nt, arrays)

    def loss(fx, y):
        return -jnp.mean(jax.nn.log_softmax(fx) * y**2)

    predict_fn = nt.predict.gradient_descent(
        loss, k_dd.ntk, arrays["y1"], learning_rate=0.5, momentum=momentum
    )
    start = 0.1 * arrays["y1"], 0.3 * arrays["y1"][:2]
    return predict_fn(jnp.array([0.5, 2.0]), *start, k_td.ntk)


@case
def max_learning_rate(nt, arrays):
    _, k_dd, _, _ = training(nt, arrays)
    return jnp.asarray(nt.predict.max_learning_rate(k_dd.ntk, arrays["y1"].size))


# Finite networks.


def weights(init_fn, shape, normal):
    """The tree that `init_fn` draws, filled from `normal` in order."""
    tree = jax.eval_shape(lambda key: init_fn(key, shape)[1], jax.random.PRNGKey(0))
    leaves, structure = jax.tree_util.tree_flatten(tree)
    ends = np.cumsum([0] + [leaf.size for leaf in leaves])
    if ends[-1] > normal.size:
        raise ValueError(f"needs {ends[-1]} weights, `normal` has {normal.size}.")
    filled = [
        normal[a:b].reshape(leaf.shape)
        for a, b, leaf in zip(ends[:-1], ends[1:], leaves)  # noqa: B905
    ]
    return jax.tree_util.tree_unflatten(structure, filled)


def network(nt, arrays, kind):
    if kind == "dense":
        init_fn, apply_fn, _ = dense(nt, "gelu")
        inputs = arrays["x1"], arrays["x2"]
    elif kind == "residual":
        init_fn, apply_fn, _ = residual(nt, "two_layer")
        inputs = arrays["x1"], arrays["x2"]
    else:
        stax = nt.stax
        init_fn, apply_fn, _ = stax.serial(
            stax.Conv(4, (3, 3), (2, 2), b_std=0.1, padding="SAME"),
            stax.Relu(),
            stax.Conv(4, (2, 2), padding="VALID"),
            stax.Erf(),
            stax.AvgPool((2, 1)),
            stax.Flatten(),
            stax.LayerNorm(),
            stax.Dense(2),
        )
        inputs = arrays["image1"], arrays["image2"]
    return init_fn, apply_fn, inputs


@case(kind="dense")
@case(kind="residual")
@case(kind="convolution")
def linearize(nt, arrays, kind):
    init_fn, apply_fn, (x, _) = network(nt, arrays, kind)
    before = weights(init_fn, x.shape, arrays["normal"])
    after = weights(init_fn, x.shape, arrays["normal_after"])
    return {
        "network": apply_fn(before, x),
        "linear": nt.linearize(apply_fn, before)(after, x),
        "cubic": nt.taylor_expand(apply_fn, before, 3)(after, x),
    }


def empirical_ntk(nt, arrays, kind, implementation, axes="trace"):
    init_fn, apply_fn, (x1, x2) = network(nt, arrays, kind)
    params = weights(init_fn, x1.shape, arrays["normal"])
    kwargs = {
        "trace": {},
        "full": {"trace_axes": ()},
        "diagonal": {"trace_axes": (), "diagonal_axes": (-1,)},
        "vmap": {"vmap_axes": 0},
    }[axes]
    kernel_fn = nt.empirical_ntk_fn(apply_fn, implementation=implementation, **kwargs)
    return kernel_fn(x1, x2, params), kernel_fn(x1, None, params)


# Implementation 3 of 0.6.5 needs a JAX before 0.4.26; the tests compare 3 and the
# automatic choice, 0, with the table of 1.
for _kind in ("dense", "residual", "convolution"):
    for _implementation in (1, 2):
        case(empirical_ntk, kind=_kind, implementation=_implementation)
for _axes in ("full", "diagonal", "vmap"):
    case(empirical_ntk, kind="dense", implementation=1, axes=_axes)


@case
def empirical_others(nt, arrays):
    init_fn, apply_fn, (x1, x2) = network(nt, arrays, "residual")
    params = weights(init_fn, x1.shape, arrays["normal"])
    both = nt.empirical_kernel_fn(apply_fn)(x1, x2, ("nngp", "ntk"), params)
    product = nt.empirical_ntk_vp_fn(apply_fn, x1, None, params)
    return {
        "nngp": nt.empirical_nngp_fn(apply_fn)(x1, x2, params),
        "both": tuple(both),
        "product": product(arrays["y1"]),
    }


@case
def monte_carlo(nt, arrays):
    init_fn, apply_fn, _ = residual(nt, "two_layer")
    kernel_fn = nt.monte_carlo_kernel_fn(
        init_fn, apply_fn, jax.random.PRNGKey(7), n_samples=3
    )
    return tuple(kernel_fn(arrays["x1"], arrays["x2"], ("nngp", "ntk")))


@case
def monte_carlo_batched(nt, arrays):
    init_fn, apply_fn, _ = residual(nt, "preactivation")
    kernel_fn = nt.monte_carlo_kernel_fn(
        init_fn, apply_fn, jax.random.PRNGKey(7), n_samples=2, batch_size=2
    )
    return tuple(kernel_fn(arrays["x1"], arrays["x2"], ("nngp", "ntk")))


def named_leaves(tree) -> dict[str, np.ndarray]:
    """The arrays of a result by their place in it."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path) or "value": np.asarray(leaf) for path, leaf in leaves
    }
