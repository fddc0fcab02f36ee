"""Activations by name, and as JSON."""

from ntk_resnet.activations.base import AbstractActivation as AbstractActivation
from ntk_resnet.activations.base import Dual as Dual
from ntk_resnet.activations.base import Moments as Moments
from ntk_resnet.activations.piecewise_linear import LeakyReLU as LeakyReLU
from ntk_resnet.activations.piecewise_linear import PiecewiseLinear as PiecewiseLinear
from ntk_resnet.activations.quadrature import Activation as Activation
from ntk_resnet.activations.quadrature import (
    QuadratureActivation as QuadratureActivation,
)
from ntk_resnet.activations.smooth import Erf as Erf
from ntk_resnet.activations.smooth import Gelu as Gelu
from ntk_resnet.activations.tanh import Tanh as Tanh

_NAMED: dict[str, AbstractActivation] = {
    "relu": PiecewiseLinear(0.0, 1.0),
    "leaky_relu": LeakyReLU(),
    "abs": PiecewiseLinear(-1.0, 1.0),
    "erf": Erf(),
    "gelu": Gelu(),
    "tanh": Tanh(),
    "linear": PiecewiseLinear(1.0, 1.0),
}


def as_activation(activation: AbstractActivation | str) -> AbstractActivation:
    """The activation object of that name; an activation object is returned as it is."""
    if isinstance(activation, AbstractActivation):
        return activation
    if not isinstance(activation, str) or activation not in _NAMED:
        raise ValueError(
            f"activation must be one of {', '.join(map(repr, _NAMED))} or an "
            "activation object such as nr.LeakyReLU(0.1) or nr.Activation(function); "
            f"got {activation!r}."
        )
    return _NAMED[activation]


def to_data(activation: AbstractActivation) -> str | list[float]:
    """A name, or the two slopes of a piecewise linear activation."""
    for name, named in _NAMED.items():
        if activation == named:
            return name
    if isinstance(activation, PiecewiseLinear):
        return [activation.negative, activation.positive]
    raise ValueError(
        f"activation {activation!r} is the user's own and has no JSON form."
    )


def from_data(data) -> AbstractActivation:
    """The activation that `to_data` described."""
    if isinstance(data, list) and len(data) == 2:
        return PiecewiseLinear(*data)
    return as_activation(data)
