"""What a network is: frozen specifications, validated when they are made.

A specification is equal and hashable by value and goes to JSON and back, so that it can
be a cache key, a static argument under `jax.jit`, and part of a saved result.
"""

import abc
import dataclasses
import json
from typing import Any, ClassVar

import numpy as np

from ntk_resnet import activations
from ntk_resnet._checks import check_choice, check_count, check_number


@dataclasses.dataclass(frozen=True)
class BranchScale(abc.ABC):
    """The factors `a_1, ..., a_L` in front of the residual branches."""

    depends_on_depth: ClassVar[bool]
    """Whether `a_l` changes when the network gets deeper."""

    @abc.abstractmethod
    def values(self, depth: int) -> np.ndarray:
        """`a_1 .. a_depth`, float64, of shape `(depth,)`."""


@dataclasses.dataclass(frozen=True)
class ConstantScale(BranchScale):
    """`a_l = alpha` in every block of every network. 0 is legal: a linear kernel."""

    alpha: float
    depends_on_depth: ClassVar[bool] = False

    def __post_init__(self):
        object.__setattr__(self, "alpha", check_number("branch_scale", self.alpha))

    def values(self, depth: int) -> np.ndarray:
        return np.full(depth, self.alpha)


@dataclasses.dataclass(frozen=True)
class DepthScale(BranchScale):
    """`a_l = L^-gamma` in a network of depth `L` (Huang et al. 2020, section 2).

    `gamma = 1/2` keeps the signal bounded and the kernel non-trivial, `1/2 < gamma <=
    1` tends to the kernel of one block, below 1/2 the kernel degenerates with depth.
    """

    gamma: float
    depends_on_depth: ClassVar[bool] = True

    def __post_init__(self):
        object.__setattr__(self, "gamma", check_number("gamma", self.gamma))

    def values(self, depth: int) -> np.ndarray:
        return np.full(depth, float(depth) ** -self.gamma)


@dataclasses.dataclass(frozen=True)
class DecreasingScale(BranchScale):
    """`a_l = 1 / (sqrt(l) ln(l + 1))`, square-summable (Hayou et al. 2021)."""

    depends_on_depth: ClassVar[bool] = False

    def values(self, depth: int) -> np.ndarray:
        block = np.arange(1, depth + 1, dtype=float)
        return 1 / (np.sqrt(block) * np.log(block + 1))


BLOCKS = ("two_layer", "preactivation", "postactivation")
TRAINED = ("blocks", "all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """What plain and residual networks have in common."""

    depth: int
    # Names and None are accepted; from construction on these hold the resolved values.
    activation: Any = "relu"
    weight_variance: Any = None
    bias_variance: float = 0.0

    def __post_init__(self):
        settle = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        settle("depth", check_count("depth", self.depth))
        settle("activation", activations.as_activation(self.activation))
        if self.weight_variance is None:
            moment = self.activation.unit_second_moment
            if not 0 < moment < float("inf"):
                raise ValueError(
                    f"activation {self.activation!r} has E phi(g)^2 = {moment}; take "
                    "one for which it is positive and finite."
                )
            settle("weight_variance", 1 / moment)
        settle(
            "weight_variance",
            check_number("weight_variance", self.weight_variance, positive=True),
        )
        settle("bias_variance", check_number("bias_variance", self.bias_variance))

    @property
    def homogeneous(self) -> bool:
        """Whether the kernels are `|x| |x'|` times a function of the angle alone."""
        return self.activation.homogeneous and self.bias_variance == 0

    def replace(self, **changes):
        """A copy with some fields changed; the other fields stay as they are."""
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedForward(Architecture):
    r"""A plain fully connected network of `depth` hidden layers.

    .. math::
        h_0 = x, \quad
        h_\ell = \varphi\Big(\sqrt{\sigma_w^2 / m_{\ell-1}}\, W_\ell h_{\ell-1}
                 + \sigma_b b_\ell\Big), \quad
        f = v \cdot h_L / \sqrt{m},

    all entries of `W, b, v` standard normal (NTK parametrisation), and all of them
    trained. At unit-variance weights the normalised NTK tends to 1/4 with depth.

    Args:
        depth: hidden layers, `L >= 1`.
        activation: a name (`"relu"`, `"leaky_relu"`, `"abs"`, `"erf"`, `"gelu"`,
            `"tanh"`, `"linear"`) or an activation object.
        weight_variance: `sigma_w^2 > 0`; `None` means `1 / E phi(g)^2`, which keeps a
            unit variance (2 for ReLU, He's initialisation).
        bias_variance: `sigma_b^2 >= 0`.

    Raises:
        ValueError: an argument is out of its range; the text names it.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet(Architecture):
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

    branch_scale: Any  # a BranchScale, or a number that is made one
    block: str = "two_layer"
    trained: str = "blocks"
    input_activation: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.branch_scale, BranchScale):
            object.__setattr__(self, "branch_scale", ConstantScale(self.branch_scale))
        check_choice("block", self.block, BLOCKS)
        check_choice("trained", self.trained, TRAINED)
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

    @property
    def scales(self) -> np.ndarray:
        """`a_1 .. a_L`, float64, of shape `(depth,)`."""
        return self.branch_scale.values(self.depth)


_KINDS = {
    kind.__name__: kind
    for kind in (FeedForward, ResNet, ConstantScale, DepthScale, DecreasingScale)
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


def check_network(spec: Any) -> Architecture:
    """`spec`, if it is the specification of a network."""
    if not isinstance(spec, Architecture):
        raise ValueError(
            f"spec must be a network such as nr.FeedForward(depth=3), got {spec!r}."
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
