"""A specification as a neural-tangents network: the reference closed form.

Where neural-tangents has the kernel, ours is compared with this one; the finite network
of the same triple is a second, independent one beside `ntk_resnet.finite`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ntk_resnet._checks import check_count
from ntk_resnet.reference.branch import branch
from ntk_resnet.reference.stax_convolution import convolutional_network
from ntk_resnet.specification.base import Specification, check_network

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

    Equal layers are one `stax.repeat`, whose compile time does not grow with depth;
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
        get)`, and in float64 with three equal blocks or more either way, XLA's program
        for the CPU can end in a segmentation fault (jaxlib 0.10; not with its flag
        xla_cpu_max_isa=AVX2).

    References:
        Novak, Xiao, Hron, Lee, Alemi, Sohl-Dickstein and Schoenholz, Neural Tangents:
        fast and easy infinite neural networks in Python, ICLR 2020.
    """
    network: Any = check_network(spec, convolutional=True)
    width = check_count("width", width)
    out_features = check_count("out_features", out_features)
    if spec.increments_have_mean:
        raise ValueError(
            f"neural-tangents has no kernel for block={network.block!r}, whose "
            "increments have a mean; nr.kernel_fn(spec) has it."
        )
    if spec.depth > _MOST_LAYERS:
        raise ValueError(
            f"depth is {spec.depth:,}; neural-tangents goes layer by layer, at most "
            f"{_MOST_LAYERS:,} of them."
        )
    if spec.takes_images:
        nt_stax = _neural_tangents_stax()
        return convolutional_network(network, width, out_features, nt_stax)
    if spec.has_trunk:
        return _residual_network(spec, width, out_features)
    return _plain_network(spec, width, out_features)


def _plain_network(spec, width, out_features):
    nt_stax = _neural_tangents_stax()
    layer = _branch(spec, 1.0, width)
    others = _repeated([layer] * (spec.depth - 1), equal=True)
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
        first = nt_stax.serial(first, spec.activation.stax(nt_stax))
    scales = [float(scale) for scale in spec.scales]
    equal = len(set(scales)) == 1
    if equal:
        blocks = [_block(spec, scales[0], width)] * spec.depth
    else:
        blocks = [_block(spec, scale, width) for scale in scales]
    return nt_stax.serial(first, *_repeated(blocks, equal=equal), readout)


def _block(spec, scale, width):
    return _add_to_input(_branch(spec, scale, width), spec.trunk_square(scale))


def _branch(spec, scale, width):
    dense = lambda _, variance, bias: _dense(width, variance, bias)  # noqa: E731
    return branch(spec, scale, _neural_tangents_stax(), dense)


def _repeated(layers, *, equal):
    """The layers as arguments of `serial`; equal ones in one compiled loop."""
    if equal and len(layers) > 2:
        return [_neural_tangents_stax().repeat(layers[0], len(layers))]
    return layers


def _dense(width, weight_variance, bias_variance):
    return _neural_tangents_stax().Dense(
        width,
        W_std=math.sqrt(weight_variance),
        b_std=math.sqrt(bias_variance) if bias_variance else None,
    )


def _add_to_input(branch, trunk_square):
    """`t h + branch(h)`, t^2 = `trunk_square`, if the branch ends in its own weights.

    `FanOut` and `FanInSum` would do, but they warn in every call that the branches must
    be independent, and want `h` to be Gaussian, which a branch that begins with weights
    of its own does not need.
    """
    nt_stax = _neural_tangents_stax()
    init_fn, branch_apply_fn, branch_kernel_fn = branch

    def apply_fn(params, inputs, **kwargs):
        trunk = math.sqrt(trunk_square) * inputs
        return trunk + branch_apply_fn(params, inputs, **kwargs)

    @nt_stax.requires(diagonal_spatial=nt_stax.Diagonal())
    def kernel_fn(k, **kwargs):
        increment = branch_kernel_fn(k, **kwargs)
        names = ("nngp", "ntk", "cov1", "cov2")
        pairs = {name: (getattr(k, name), getattr(increment, name)) for name in names}
        return k.replace(
            **{
                name: trunk_square * a + b
                for name, (a, b) in pairs.items()
                if a is not None
            }
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


def _neural_tangents_stax():
    # Late, so that importing this module costs nothing and needs no neural-tangents.
    from ntk_resnet.reference.neural_tangents import neural_tangents

    return neural_tangents.stax
