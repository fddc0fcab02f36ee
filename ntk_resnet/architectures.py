"""What a network is: frozen specifications, validated when they are made.

A specification is equal and hashable by value and goes to JSON and back, so that it can
be a cache key, a static argument under `jax.jit`, and part of a saved result.
"""

import dataclasses
import json
from typing import Any

from ntk_resnet import activations
from ntk_resnet._checks import check_choice
from ntk_resnet._specification import TRAINED as TRAINED
from ntk_resnet._specification import (
    Architecture,
    BranchScale,
    ConstantScale,
    DecreasingScale,
    DepthScale,
    Residual,
)
from ntk_resnet.convolutional import ConvNet, Convolutional, ConvResNet

BLOCKS = ("two_layer", "preactivation", "postactivation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedForward(Architecture):
    r"""A plain fully connected network of `depth` hidden layers.

    .. math::
        h_0 = x, \quad
        h_\ell = \varphi\Big(\sqrt{\sigma_w^2 / m_{\ell-1}}\, W_\ell h_{\ell-1}
                 + \sigma_b b_\ell\Big), \quad
        f = v \cdot h_L / \sqrt{m},

    all entries of `W, b, v` standard normal (NTK parametrisation). The readout's
    gradient adds the NNGP kernel to the NTK, :math:`\Theta_L = \Theta'_L + K_L`; with
    `trained="blocks"` it is :math:`\Theta'_L` alone. Both, normalised, tend to 1/4 with
    depth at weights of unit variance, as :math:`1/4 + (3/8) \ln L / L`.

    Args:
        depth: hidden layers, `L >= 1`.
        trained: `"all"` weights, as in neural-tangents, or `"blocks"`, the hidden
            layers: v is frozen at initialisation, as in Huang et al. 2020. The word is
            that of `ResNet`, whose default is the paper's: give both the same one to
            compare them.
        activation: a name (`"relu"`, `"leaky_relu"`, `"abs"`, `"erf"`, `"gelu"`,
            `"tanh"`, `"linear"`) or an activation object.
        weight_variance: `sigma_w^2 > 0`; `None` means `1 / E phi(g)^2`, which keeps a
            unit variance (2 for ReLU, He's initialisation).
        bias_variance: `sigma_b^2 >= 0`.

    Raises:
        ValueError: an argument is out of its range; the text names it.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet(Residual):
    r"""A fully connected residual network of `depth` blocks.

    `h_0 = A x / sqrt(d)`, then `depth` blocks, then `f = v . h_L / sqrt(m)`; with
    `block=`

    * `"two_layer"`: `h + a V phi(W h)` (Huang et al. 2020; Belfer et al. 2021),
    * `"preactivation"`: `h + a W phi(h)` (Hayou et al. 2021),
    * `"postactivation"`: `h + a phi(W h)` (Frei et al. 2019).

    `W` has variance `weight_variance / fan_in` and a bias of `bias_variance`; `A`, `V`
    and `v` have variance `1 / fan_in` and no bias.

    Args:
        depth: number of blocks, `L >= 1`.
        branch_scale: `a`, a number >= 0 (the same as `ConstantScale`), or a scale
            object such as `DepthScale(0.5)`. Where it depends on the depth, a network
            of depth `L` is not the first `L` blocks of a deeper one.
        block: see above.
        trained: `"blocks"` (A and v frozen at initialisation, as in Huang et al.) or
            `"all"`.
        input_activation: with `True`, `h_0 = phi(A x / sqrt(d))` (Frei et al. 2019);
            not with pre-activation blocks, which would apply phi to features that are
            not Gaussian, and no closed form is known.
        activation, weight_variance, bias_variance: as in `FeedForward`.

    Raises:
        ValueError: an argument is out of its range; the text names it.
    """

    input_activation: bool = False

    blocks = BLOCKS

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.input_activation, bool):
            raise ValueError(
                "input_activation must be True or False, "
                f"got {self.input_activation!r}."
            )
        if self.input_activation and self.block == "preactivation":
            raise ValueError(
                "input_activation=True has no closed form with block='preactivation' "
                "(phi of features that are not Gaussian); take another block."
            )


_KINDS = {
    kind.__name__: kind
    for kind in (
        FeedForward,
        ResNet,
        ConvNet,
        ConvResNet,
        ConstantScale,
        DepthScale,
        DecreasingScale,
    )
}


def to_dict(spec: Architecture | BranchScale) -> dict:
    """The specification as plain data, the inverse of `from_dict`."""
    result: dict = {"kind": type(spec).__name__}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if isinstance(value, BranchScale):
            value = to_dict(value)
        elif isinstance(value, activations.AbstractActivation):
            value = activations.to_data(value)
        result[field.name] = value
    return result


def from_dict(data) -> Architecture | BranchScale:
    """The specification that `to_dict` wrote; fields left out take their defaults.

    Raises:
        ValueError: not such data; the text says which part.
    """
    kind_name = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind_name, str) or kind_name not in _KINDS:
        raise ValueError(
            f"a specification is an object with kind = one of {', '.join(_KINDS)}; "
            f"got {data!r}."
        )
    kind = _KINDS[kind_name]
    fields = {name: value for name, value in data.items() if name != "kind"}
    known = {field.name for field in dataclasses.fields(kind)}
    for name in fields:
        check_choice(f"a field of {kind.__name__}", name, sorted(known))
    if "activation" in fields:
        fields["activation"] = activations.from_data(fields["activation"])
    if isinstance(fields.get("branch_scale"), dict):
        fields["branch_scale"] = from_dict(fields["branch_scale"])
    needed = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING
    }
    if missing := sorted(needed - set(fields)):
        raise ValueError(f"{kind.__name__} needs {', '.join(missing)}; got {data!r}.")
    return kind(**fields)


def to_json(spec: Architecture) -> str:
    """The specification as JSON text; `from_json` gives an equal one back.

    Raises:
        ValueError: the activation is a function of the user's, which JSON cannot hold.
    """
    return json.dumps(to_dict(spec))


def check_network(spec: Any, *, convolutional: bool = False) -> Architecture:
    """`spec`, if it is the specification of a network that is fully connected.

    Or also of a convolutional one, where `convolutional` allows them.
    """
    if not isinstance(spec, Architecture):
        raise ValueError(
            f"spec must be a network such as nr.FeedForward(depth=3), got {spec!r}."
        )
    if isinstance(spec, Convolutional) and not convolutional:
        raise ValueError(
            f"spec must be fully connected here, got {spec!r}; for images there are "
            "nr.kernel_fn, nr.gram, nr.diag and nr.sweep_depth."
        )
    return spec


def from_json(text: str) -> Architecture:
    """The specification that `to_json` wrote.

    Raises:
        ValueError: the text is not JSON, or not a specification.
    """
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, TypeError, RecursionError) as error:
        raise ValueError(f"the specification is not JSON text: {error}.") from None
    spec = from_dict(data)
    if not isinstance(spec, Architecture):
        raise ValueError(f"a network was expected, got a {type(spec).__name__}.")
    return spec
