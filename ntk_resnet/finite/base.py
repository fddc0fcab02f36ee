"""What all finite networks have in common: frozen weights, inputs, readout."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ntk_resnet._inputs import check_rows
from ntk_resnet.specification.base import Specification


class Frozen(nnx.Variable):
    """A weight that keeps its initial value: not an `nnx.Param`, so never trained."""


class Network(nnx.Module):
    """A finite network of a specification; made by `build`.

    Weights are stored with `fan_in` and `fan_out` as the last axes, those of equal
    blocks stacked along a leading one, and cast to `dtype` a layer at a time. Trained
    ones are `nnx.Param`, frozen ones `Frozen`.
    """

    spec: Any  # a Specification
    in_features: Any  # d, or (height, width, channels)
    width: int
    dtype: np.dtype
    readout: nnx.Variable

    def features(self, x: Any) -> Float[Array, "n *pixels m"]:
        """The features `h_L` of the last layer, for `x` as in `__call__`.

        Returns:
            `(n, width)`; of convolutional networks `(n, H, W, width)`, with the height
            and width of the last stage.
        """
        raise NotImplementedError

    def readout_inputs(self, x: Any) -> Float[Array, "n fan_in"]:
        """What meets the readout: the last features, or their pixels' mean or list."""
        raise NotImplementedError

    def __call__(self, x: Any) -> Float[Array, "n k"]:
        """The outputs, of shape `(n, out_features)`: `v . h_L / sqrt(width)`.

        For convolutional networks with the mean of `h_L` over pixels, or `v . h_L /
        sqrt(width H W)`.

        Args:
            x: `(n, in_features)`, one input a row, or images `(n, H, W, C)`; cast to
                the dtype of computing.

        Raises:
            ValueError: `x` is not such an array of finite numbers; in a trace only the
                shape is checked.
        """
        return self._linear(self.readout_inputs(x), self.readout[...])

    def _inputs(self, x: Any) -> Array:
        """`x` in the dtype of computing, checked."""
        x = check_rows("x", x)
        sizes = tuple(np.atleast_1d(self.in_features).tolist())
        if x.shape[1:] != sizes:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; this network takes (n, "
                f"{', '.join(map(str, sizes))}), one input a row."
            )
        return jnp.asarray(x, self.dtype)

    def _linear(self, h: Array, weight: Array, variance: float = 1.0) -> Array:
        """`sqrt(variance / fan_in) W h`."""
        return math.sqrt(variance / h.shape[-1]) * (h @ weight.astype(self.dtype))

    def _biased(self, z: Array, bias: Array | None) -> Array:
        """`z + sqrt(bias_variance) b`."""
        if bias is None:
            return z
        return z + math.sqrt(self.spec.bias_variance) * bias.astype(self.dtype)


def ends_of(spec: Specification) -> type[nnx.Variable]:
    """What the weights outside the blocks are: the readout, and A of residual ones."""
    return nnx.Param if spec.trains_readout else Frozen


def value_of(variable: nnx.Variable | None) -> Array | None:
    """The array in a variable."""
    return None if variable is None else variable[...]


def normal(
    rngs: nnx.Rngs, dtype: Any, **shapes: tuple[int, ...] | None
) -> dict[str, Array]:
    """Standard normal arrays of those shapes (none for `None`), from a single draw.

    One draw, because a random generator takes longer to compile than a network.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items() if shape}
    flat = jax.random.normal(rngs.params(), (sum(sizes.values()),), dtype)
    parts = jnp.split(flat, np.cumsum(list(sizes.values()))[:-1])
    return {
        name: part.reshape(shapes[name])
        for name, part in zip(sizes, parts, strict=True)
    }
