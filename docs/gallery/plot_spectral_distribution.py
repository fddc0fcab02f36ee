"""The distribution of all eigenvalues, from products with the matrix alone."""

import numpy as np

import ntk_resnet as nr

x, found = nr.load_data("digits").x[:400], {}
for label, spec in (
    ("plain, L = 10", nr.FeedForward(depth=10, trained="blocks")),
    ("γ = 1/2, L = 10", nr.ResNet(depth=10, branch_scale=nr.DepthScale(0.5))),
):
    spectrum = nr.spectrum(nr.gram_operator(spec, x), steps=60)
    found[label] = nr.spectral_distribution(spectrum, np.geomspace(1e-2, 300, 200))
nr.plot.save(nr.plot.spectral_distribution(found), "spectral_distribution.png")
