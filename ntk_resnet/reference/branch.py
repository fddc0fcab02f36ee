"""The operations of a layer, or of a block's branch, as neural-tangents' layers."""

from collections.abc import Callable
from typing import Any

from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.blocks import ACTIVATE, INNER


def branch(
    spec: Specification,
    scale: float,
    nt_stax: Any,
    weights: Callable[[str, float, float], Any],
) -> Any:
    """The layers in a row; the last weights have the branch scale.

    Args:
        spec: the network.
        scale: of the branch, 1 for a plain layer.
        nt_stax: neural-tangents' module.
        weights: the layer of an operation, its weights' variance and that of its bias.
    """
    layers, square = [], scale**2
    for operation in reversed(spec.operations):
        if operation == ACTIVATE:
            layers.append(spec.activation.stax(nt_stax))
            continue
        variance, bias = 1.0, 0.0
        if operation == INNER:
            variance, bias = spec.weight_variance, spec.bias_variance
        layers.append(weights(operation, square * variance, square * bias))
        square = 1.0
    return nt_stax.serial(*reversed(layers))
