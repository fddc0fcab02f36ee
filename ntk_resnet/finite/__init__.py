"""Finite networks of a specification: Flax modules, empirical kernels, training.

`build` makes the network, `empirical_ntk` and `empirical_nngp` measure its kernels,
`width_study` and `train_study` compare many networks with the closed forms,
`dispersion_study` with one another.
"""

from ntk_resnet.finite.dispersion import dispersion_study as dispersion_study
from ntk_resnet.finite.dispersion import predicted_dispersion as predicted_dispersion
from ntk_resnet.finite.empirical.kernel import empirical_nngp as empirical_nngp
from ntk_resnet.finite.empirical.kernel import empirical_ntk as empirical_ntk
from ntk_resnet.finite.empirical.kernel import ntk_methods as ntk_methods
from ntk_resnet.finite.empirical.operator import (
    empirical_ntk_operator as empirical_ntk_operator,
)
from ntk_resnet.finite.networks import Frozen as Frozen
from ntk_resnet.finite.networks import build as build
from ntk_resnet.finite.training.study import train_study as train_study
from ntk_resnet.finite.width import width_study as width_study
