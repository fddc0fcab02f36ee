"""Closed forms of a specification: the kernels of its infinitely wide networks."""

from ntk_resnet.kernels.function import KernelFunction as KernelFunction
from ntk_resnet.kernels.function import diag as diag
from ntk_resnet.kernels.function import kernel_fn as kernel_fn
from ntk_resnet.kernels.gram import gram as gram
from ntk_resnet.kernels.operator import GramOperator as GramOperator
from ntk_resnet.kernels.operator import gram_operator as gram_operator
from ntk_resnet.kernels.profile import Profile as Profile
from ntk_resnet.kernels.profile import profile as profile
from ntk_resnet.kernels.stored import StoredGram as StoredGram
from ntk_resnet.kernels.stored import open_gram as open_gram
