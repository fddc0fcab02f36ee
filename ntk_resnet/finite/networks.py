r"""The specification as a Flax network of a given width, in NTK parametrisation.

All weights are standard normal; the factors :math:`\sqrt{\sigma_w^2/m}` and
:math:`\sigma_b` are in the forward pass, so gradient descent at a learning rate of
order one has the infinite-width limit that the closed forms describe. Blocks are
stacked and run by one scan: the compiled program does not grow with depth.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ntk_resnet._checks import check_count, check_width
from ntk_resnet.finite.base import Frozen as Frozen
from ntk_resnet.finite.base import Network, ends_of, normal, value_of
from ntk_resnet.finite.convolutional_networks import (
    ConvolutionalNetwork,
    check_image_shape,
)
from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.blocks import OUTER
from ntk_resnet.specification.convolutional import ConvNet, ConvResNet
from ntk_resnet.specification.networks import FeedForward, ResNet


class DenseNetwork(Network):
    """A fully connected network; its blocks are one stack."""

    def hidden(self, x: Any) -> Float[Array, "depth n m"]:
        """The features after every layer, for `x` as in `__call__`.

        Returns:
            For `FeedForward` `h_1 .. h_L`, after the activation, of shape
            `(L, n, width)`; for `ResNet` `h_0 .. h_L`, `(L + 1, n, width)`.
        """
        first = self._first(self._inputs(x))
        _, rest = jax.lax.scan(
            lambda h, w: (self._block(h, w),) * 2, first, self._stack
        )
        return jnp.concatenate([first[None], rest])

    def features(self, x: Any) -> Float[Array, "n m"]:
        """The last layer's features `h_L`, `(n, width)`, for `x` as in `__call__`."""
        first = self._first(self._inputs(x))
        last, _ = jax.lax.scan(
            lambda h, w: (self._block(h, w), None), first, self._stack
        )
        return last

    def readout_inputs(self, x: Any) -> Float[Array, "n m"]:
        return self.features(x)

    def _affine(self, h: Array, weight: Array, bias: Array | None) -> Array:
        """`sqrt(weight_variance / fan_in) W h + sqrt(bias_variance) b`."""
        return self._biased(self._linear(h, weight, self.spec.weight_variance), bias)

    def _first(self, x: Array) -> Array:
        """From inputs to the carry of the scan."""
        raise NotImplementedError

    def _block(self, h: Array, weights: dict[str, Array | None]) -> Array:
        """One layer or block; `weights` is one slice of `_stack`."""
        raise NotImplementedError

    @property
    def _stack(self) -> dict[str, Array | None]:
        """What the scan runs over, every array with a leading axis of blocks."""
        raise NotImplementedError


class FeedForwardNetwork(DenseNetwork):
    """`FeedForward` at finite width; with `trained="blocks"` v is `Frozen`.

    Attributes:
        input_weight: `(in_features, width)`; input_bias: `(width,)` or `None`.
        weights: `(depth - 1, width, width)`; biases: `(depth - 1, width)` or `None`.
        readout: `(width, out_features)`.
    """

    def __init__(
        self, spec, in_features, width, out_features, *, rngs, param_dtype, dtype
    ):
        self.spec, self.in_features = spec, in_features
        self.width, self.dtype = width, dtype
        biased = spec.bias_variance > 0
        drawn = normal(
            rngs,
            param_dtype,
            input_weight=(in_features, width),
            input_bias=(width,) if biased else None,
            weights=(spec.depth - 1, width, width),
            biases=(spec.depth - 1, width) if biased else None,
            readout=(width, out_features),
        )
        self.input_weight = nnx.Param(drawn["input_weight"])
        self.input_bias = nnx.Param(drawn["input_bias"]) if biased else None
        self.weights = nnx.Param(drawn["weights"])
        self.biases = nnx.Param(drawn["biases"]) if biased else None
        self.readout = ends_of(spec)(drawn["readout"])

    def _first(self, x):
        bias = value_of(self.input_bias)
        return self.spec.activation(self._affine(x, self.input_weight[...], bias))

    def _block(self, h, weights):
        return self.spec.activation(self._affine(h, weights["weight"], weights["bias"]))

    @property
    def _stack(self):
        return {"weight": self.weights[...], "bias": value_of(self.biases)}


class ResidualNetwork(DenseNetwork):
    """`ResNet` at finite width; with `trained="blocks"` A and v are `Frozen`.

    Attributes:
        input_weight: A, `(in_features, width)`.
        weights: W, `(depth, width, width)`; biases: `(depth, width)` or `None`.
        outer_weights: V, `(depth, width, width)`, or `None` in blocks without them.
        readout: v, `(width, out_features)`.
    """

    def __init__(
        self, spec, in_features, width, out_features, *, rngs, param_dtype, dtype
    ):
        self.spec, self.in_features = spec, in_features
        self.width, self.dtype = width, dtype
        biased, has_outer = spec.bias_variance > 0, OUTER in spec.operations
        stacked = (spec.depth, width, width)
        drawn = normal(
            rngs,
            param_dtype,
            input_weight=(in_features, width),
            weights=stacked,
            biases=(spec.depth, width) if biased else None,
            outer_weights=stacked if has_outer else None,
            readout=(width, out_features),
        )
        ends = ends_of(spec)
        self.input_weight = ends(drawn["input_weight"])
        self.weights = nnx.Param(drawn["weights"])
        self.biases = nnx.Param(drawn["biases"]) if biased else None
        self.outer_weights = nnx.Param(drawn["outer_weights"]) if has_outer else None
        self.readout = ends(drawn["readout"])

    def _first(self, x):
        h = self._linear(x, self.input_weight[...])
        return self.spec.activation(h) if self.spec.input_activation else h

    def _block(self, h, weights):
        inner = lambda h: self._affine(h, weights["weight"], weights["bias"])  # noqa: E731
        outer = lambda h: self._linear(h, weights["outer"])  # noqa: E731
        branch = self.spec.branch(h, inner, self.spec.activation, outer)
        trunk = self.spec.trunk_square(weights["scale"]) ** 0.5
        return trunk * h + weights["scale"] * branch

    @property
    def _stack(self):
        return {
            "weight": self.weights[...],
            "bias": value_of(self.biases),
            "outer": value_of(self.outer_weights),
            "scale": jnp.asarray(self.spec.scales, self.dtype),
        }


def build(
    spec: Specification,
    in_features: int | Sequence[int],
    width: int,
    out_features: int = 1,
    *,
    rngs: nnx.Rngs,
    param_dtype: Any = jnp.float32,
    dtype: Any = None,
) -> Network:
    r"""The network of `spec` with hidden layers of `width`, at random initialisation.

    Its kernels tend to those of `kernel_fn(spec, normalised=False)` as the width grows,
    with relative fluctuations of order :math:`\sqrt{L/m}` or less.

    Args:
        spec: a `FeedForward`, `ResNet`, `ConvNet` or `ConvResNet`.
        in_features: d, columns of the inputs; of images (height, width, channels).
        width: m, units or channels of every hidden layer.
        out_features: k; the limit kernels are those of one output.
        rngs: where the weights come from (stream `params`), such as `nnx.Rngs(0)`.
        param_dtype: of the weights as they are drawn, stored and trained: a float
            dtype; float64 needs JAX's x64 mode.
        dtype: of computing and of the outputs, such as `jnp.bfloat16` with weights in
            float32; `None` means `param_dtype`.

    Returns:
        An `nnx.Module`: `model(x)` is `(n, out_features)`, `model.features(x)` the last
        hidden layer, `(n, width)` or `(n, H, W, width)`, `model.readout_inputs(x)` what
        the readout makes of it; of fully connected ones `model.hidden(x)` all layers.

    Raises:
        ValueError: an argument is out of its range; the text names it.

    Accuracy:
        Second moments of every layer and the NTK agree with the closed forms within
        their own standard errors (`tests/finite/test_finite_networks.py`,
        `tests/finite/empirical/test_finite_empirical.py`; of images the readout's
        inputs and the NTK, `tests/finite/test_finite_convolutional.py`). Rounding:
        relative to their root mean square, the outputs of L layers are off by `(L + 2)
        eps` of `dtype` at most, float32 and bfloat16 alike
        (`tests/finite/test_finite_networks.py`).
    """
    check_spec(spec, convolutional=True)
    if not isinstance(rngs, nnx.Rngs):
        raise ValueError(
            f"rngs must be an nnx.Rngs, such as nnx.Rngs(0); got {rngs!r}."
        )
    param_dtype = check_dtype("param_dtype", param_dtype)
    return _KINDS[type(spec)](
        spec,
        _check_in_features(spec, in_features),
        check_width("width", width),
        check_count("out_features", out_features),
        rngs=rngs,
        param_dtype=param_dtype,
        dtype=param_dtype if dtype is None else check_dtype("dtype", dtype),
    )


_KINDS = {
    FeedForward: FeedForwardNetwork,
    ResNet: ResidualNetwork,
    ConvNet: ConvolutionalNetwork,
    ConvResNet: ConvolutionalNetwork,
}


def check_spec(spec: Any, *, convolutional: bool = False) -> None:
    """Raises a `ValueError` unless networks of `spec` can be built.

    Or if they are convolutional, where those are not allowed.
    """
    if type(spec) not in _KINDS:
        names = [kind.__name__ for kind in _KINDS]
        raise ValueError(
            f"spec must be a {', '.join(names[:-1])} or {names[-1]}, got {spec!r}."
        )
    if spec.takes_images and not convolutional:
        raise ValueError(
            f"spec must be fully connected here, got {spec!r}; networks of images are "
            "made by nr.finite.build and compared by nr.finite.width_study."
        )


def _check_in_features(spec, in_features):
    if spec.takes_images:
        return check_image_shape(spec, in_features)
    return check_count("in_features", in_features)


def check_dtype(name: str, dtype: Any) -> np.dtype:
    """`dtype` as a float dtype that JAX's settings allow."""
    try:
        given = jnp.dtype(dtype)
    except TypeError:
        given = None
    if given is None or not jnp.issubdtype(given, jnp.floating):
        raise ValueError(
            f"{name} must be a float dtype such as jnp.float32, got {dtype!r}."
        )
    if jax.dtypes.canonicalize_dtype(given) != given:
        raise ValueError(
            f"{name} float64 needs JAX's x64 mode; call "
            'jax.config.update("jax_enable_x64", True) first.'
        )
    return given
