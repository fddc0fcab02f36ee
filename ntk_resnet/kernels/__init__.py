"""Closed forms of a specification: the kernels of its infinitely wide networks."""

from ntk_resnet.kernels.function import KernelFunction as KernelFunction
from ntk_resnet.kernels.function import diag as diag
from ntk_resnet.kernels.function import kernel_fn as kernel_fn
