"""Fully connected networks."""

import dataclasses

from ntk_resnet.specification.base import Residual, Specification
from ntk_resnet.specification.blocks import ACTIVATE


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedForward(Specification):
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
    * `"postactivation"`: `h + a phi(W h)` (Frei et al. 2019),
    * `"full_preactivation"`: `h + a V phi(W phi(h))` (He et al. 2016, "Identity
      mappings", without normalisation).

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
            not with blocks that begin with phi: it would be applied to features that
            are not Gaussian, and no closed form is known.
        activation, weight_variance, bias_variance: as in `FeedForward`.

    Raises:
        ValueError: an argument is out of its range; the text names it.
    """

    input_activation: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.input_activation, bool):
            raise ValueError(
                "input_activation must be True or False, "
                f"got {self.input_activation!r}."
            )
        if self.input_activation and self.operations[0] == ACTIVATE:
            raise ValueError(
                f"input_activation=True has no closed form with block={self.block!r} "
                "(phi of features that are not Gaussian); take another block."
            )
