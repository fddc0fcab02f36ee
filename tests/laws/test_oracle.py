"""The oracle of the laws against values from elsewhere."""

import numpy as np
import pytest
from oracle import limit_kernels

import ntk_resnet as nr

COSINES = np.array([-0.9, -0.5, 0, 0.3, 0.7, 0.95])
TABLE = [  # normalised NTK, computed independently, six digits
    (nr.FeedForward(depth=2), "0.087632 0.114621 0.228570 0.344867 0.589388 0.862447"),
    (nr.FeedForward(depth=5), "0.236710 0.251184 0.298699 0.353167 0.500921 0.762618"),
    (
        nr.ResNet(depth=5, branch_scale=1.0),
        "0.086285 0.130271 0.231883 0.330242 0.546948 0.825197",
    ),
    (
        nr.ResNet(depth=10, branch_scale=0.5),
        "0.050805 0.103068 0.217815 0.325344 0.553518 0.832627",
    ),
]


@pytest.mark.parametrize(("spec", "digits"), TABLE)
def test_six_digits(spec, digits):
    angle = np.arccos(COSINES)
    x = np.array([[1.0, 0.0], *np.transpose([np.cos(angle), np.sin(angle)])])
    _, ntk = limit_kernels(spec, x)
    normalised = ntk[0, 1:] / ntk[0, 0]
    np.testing.assert_allclose(normalised, np.array(digits.split(), float), atol=6e-7)
