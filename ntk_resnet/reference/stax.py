"""A specification as a neural-tangents network: the reference closed form.

Where neural-tangents has the kernel, ours is compared with this one; the finite network
of the same triple is a second, independent one beside `ntk_resnet.finite`.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ntk_resnet._checks import check_count
from ntk_resnet.activations import named
from ntk_resnet.reference.stax_convolution import convolutional_network
from ntk_resnet.specification.base import Specification, check_network
from ntk_resnet.specification.convolutional import Convolutional
from ntk_resnet.specification.networks import ResNet

_QUADRATURE_POINTS = 100

_MOST_LAYERS = 10**7


def stax(
    spec: Specification, width: int = 512, out_features: int = 1
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    r"""The network of a specification, made of `neural_tangents.stax` layers.

    In the NTK parametrisation and for the input kernel `x.x'/d`, so that
    `kernel_fn(x1, x2, ("nngp", "ntk"))` equals `nr.kernel_fn(spec, normalised=False)`.
    With :math:`\Sigma` and :math:`\Theta` the NNGP and the NTK of `h`, and `T`, `T'`
    the dual activation and its slope, a `"two_layer"` block, for example, maps

    .. math::
        \Sigma \mapsto \Sigma + a^2\, T(\hat\Sigma), \qquad
        \Theta \mapsto \Theta + a^2 \big( T(\hat\Sigma)
            + T'(\hat\Sigma) (\hat\Sigma + \sigma_w^2 \Theta) \big), \qquad
        \hat\Sigma = \sigma_w^2 \Sigma + \sigma_b^2 .

    Alike layers are one `stax.repeat`, whose compile time does not grow with depth;
    blocks of different scales are a `stax.serial`, which takes seconds per 100 blocks.

    Args:
        spec: the network; of a convolutional one inputs are `(n, H, W, C)`. Frozen
            weights (`trained="blocks"`) are parameters behind a
            `jax.lax.stop_gradient`, and have no share in the NTK.
        width: `m`, units of every hidden layer of the finite network, >= 1. The kernel
            does not depend on it.
        out_features: outputs of the finite network, >= 1.

    Returns:
        neural-tangents' triple. For rows `init_fn(key, (-1, d))` gives `((-1,
        out_features), params)`, `apply_fn(params, x)` maps `(n, d)` to `(n,
        out_features)`, and `kernel_fn(x1, x2, get)` gives arrays `(n1, n2)`.

    Raises:
        ValueError: an argument is out of its range, or neural-tangents has no kernel
            for the specification: `block="postactivation"` (its increments have a
            mean), or an activation of unknown kind.
        ImportError: neural-tangents 0.6.5 is not installed.

    Accuracy:
        neural-tangents forms `1 - cosine` by subtraction: with the ReLU family, kernels
        of nearly parallel inputs, and diagonals, are exact to about the root of eps
        (those of `nr.kernel_fn` to a few eps). `"tanh"`, and activations of the user's
        own without a dual, are integrated by Gauss-Hermite quadrature on 100 x 100
        points, at the price of 10,000 numbers an entry: for tanh at the default weight
        variance the NNGP to 1e-6 and the NTK to 1e-4 relative
        (`tests/reference/test_stax.py`). Do not use it for functions with a kink. Under
        `jax.jit` pass images twice, `kernel_fn(x, x, get)`: with `kernel_fn(x, None,
        get)`, and in float64 with three alike blocks or more either way, XLA's program
        for the CPU can end in a segmentation fault (jaxlib 0.10; not with its flag
        xla_cpu_max_isa=AVX2).

    References:
        Novak, Xiao, Hron, Lee, Alemi, Sohl-Dickstein and Schoenholz, Neural Tangents:
        fast and easy infinite neural networks in Python, ICLR 2020.
    """
    check_network(spec, convolutional=True)
    width = check_count("width", width)
    out_features = check_count("out_features", out_features)
    if getattr(spec, "block", None) == "postactivation":
        raise ValueError(
            'neural-tangents has no kernel for block="postactivation" (its increments '
            "have a mean); nr.kernel_fn(spec) has it."
        )
    if spec.depth > _MOST_LAYERS:
        raise ValueError(
            f"depth is {spec.depth:,}; neural-tangents goes layer by layer, at most "
            f"{_MOST_LAYERS:,} of them."
        )
    if isinstance(spec, Convolutional):
        activation = _activation(spec.activation)
        nt_stax = _neural_tangents_stax()
        return convolutional_network(spec, width, out_features, nt_stax, activation)
    if isinstance(spec, ResNet):
        return _residual_network(spec, width, out_features)
    return _plain_network(spec, width, out_features)


def _plain_network(spec, width, out_features):
    nt_stax = _neural_tangents_stax()
    layer = nt_stax.serial(
        _dense(width, spec.weight_variance, spec.bias_variance),
        _activation(spec.activation),
    )
    others = _composed([layer] * (spec.depth - 1), alike=True)
    readout = nt_stax.Dense(out_features)
    if not spec.trains_readout:
        readout = _frozen(readout)
    return nt_stax.serial(layer, *others, readout)


def _residual_network(spec, width, out_features):
    nt_stax = _neural_tangents_stax()
    first, readout = nt_stax.Dense(width), nt_stax.Dense(out_features)
    if not spec.trains_readout:
        first, readout = _frozen(first), _frozen(readout)
    if spec.input_activation:
        first = nt_stax.serial(first, _activation(spec.activation))
    scales = [float(scale) for scale in spec.scales]
    alike = len(set(scales)) == 1
    if alike:
        blocks = [_block(spec, scales[0], width)] * spec.depth
    else:
        blocks = [_block(spec, scale, width) for scale in scales]
    return nt_stax.serial(first, *_composed(blocks, alike=alike), readout)


def _block(spec, scale, width):
    """`h + a V phi(W h + b)` or `h + a (W phi(h) + b)`."""
    activation = _activation(spec.activation)
    square = scale**2
    if spec.block == "two_layer":
        inner = _dense(width, spec.weight_variance, spec.bias_variance)
        branch = [inner, activation, _dense(width, square, 0.0)]
    else:
        outer = square * spec.weight_variance, square * spec.bias_variance
        branch = [activation, _dense(width, *outer)]
    return _add_to_input(_neural_tangents_stax().serial(*branch))


def _composed(layers, *, alike):
    """The layers as arguments of `serial`; alike ones in one compiled loop."""
    if alike and len(layers) > 2:
        return [_neural_tangents_stax().repeat(layers[0], len(layers))]
    return layers


def _dense(width, weight_variance, bias_variance):
    return _neural_tangents_stax().Dense(
        width,
        W_std=math.sqrt(weight_variance),
        b_std=math.sqrt(bias_variance) if bias_variance else None,
    )


def _add_to_input(branch):
    """`h + branch(h)`, for a branch that ends in weights of its own.

    `FanOut` and `FanInSum` would do, but they warn in every call that the branches must
    be independent, and want `h` to be Gaussian, which a branch that begins with weights
    of its own does not need.
    """
    nt_stax = _neural_tangents_stax()
    init_fn, branch_apply_fn, branch_kernel_fn = branch

    def apply_fn(params, inputs, **kwargs):
        return inputs + branch_apply_fn(params, inputs, **kwargs)

    @nt_stax.requires(diagonal_spatial=nt_stax.Diagonal())
    def kernel_fn(k, **kwargs):
        increment = branch_kernel_fn(k, **kwargs)
        names = ("nngp", "ntk", "cov1", "cov2")
        pairs = {name: (getattr(k, name), getattr(increment, name)) for name in names}
        return k.replace(
            **{name: a + b for name, (a, b) in pairs.items() if a is not None}
        )

    return init_fn, apply_fn, kernel_fn


def _frozen(dense):
    """A layer of variance 1 whose weights are not trained: it passes the NTK on."""
    nt_stax = _neural_tangents_stax()
    init_fn, dense_apply_fn, dense_kernel_fn = dense

    def apply_fn(params, inputs, **kwargs):
        return dense_apply_fn(jax.lax.stop_gradient(params), inputs, **kwargs)

    @nt_stax.requires(diagonal_spatial=nt_stax.Diagonal())
    def kernel_fn(k, **kwargs):
        out = dense_kernel_fn(k, **kwargs)
        # The input's NTK is a scalar zero; later ones have the kernel's shape.
        passed = None if k.ntk is None else jnp.broadcast_to(k.ntk, out.nngp.shape)
        return out.replace(ntk=passed)

    return init_fn, apply_fn, kernel_fn


def _activation(activation):
    """The layer of an activation; do_stabilize keeps deep kernels in range."""
    nt_stax = _neural_tangents_stax()
    match activation:
        case named.PiecewiseLinear(negative=negative, positive=positive):
            return nt_stax.ABRelu(negative, positive, do_stabilize=True)
        case named.Erf():
            return nt_stax.Erf()
        case named.Gelu():
            return nt_stax.Gelu()
        case named.Activation(dual_fn=dual_fn) if dual_fn is not None:

            def covariance(c, p1, p2):
                return dual_fn(p1, p2, c)

            slope = jax.grad(covariance)  # in c, by Price's theorem
            return nt_stax.Elementwise(_function(activation), covariance, slope)
        case named.QuadratureActivation():
            function = _function(activation)
            with warnings.catch_warnings():  # that it is a quadrature: see `stax`
                warnings.simplefilter("ignore")
                return nt_stax.ElementwiseNumerical(function, _QUADRATURE_POINTS)
    raise ValueError(
        f"neural-tangents has no kernel for the activation {activation!r}; "
        "nr.kernel_fn(spec) has it, by the activation's own dual."
    )


def _function(activation):
    """A plain function, since neural-tangents asks for its name."""

    def function(z):
        return activation(z)

    return function


def _neural_tangents_stax():
    # Late, so that importing this module costs nothing and needs no neural-tangents.
    from ntk_resnet.reference.neural_tangents import neural_tangents

    return neural_tangents.stax
