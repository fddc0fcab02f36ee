"""Eigenvalues of kernel matrices of real data, and what they hold of the classes."""

import numpy as np

import ntk_resnet as nr

networks = {
    "plain, L = 1": nr.FeedForward(depth=1, trained="blocks"),
    "plain, L = 100": nr.FeedForward(depth=100, trained="blocks"),
    "γ = 1/2, L = 100": nr.ResNet(depth=100, branch_scale=nr.DepthScale(0.5)),
}
data = nr.load_data("digits")
x, classes = data.x[:300], np.eye(10)[data.y[:300]]
targets = classes - classes.mean(axis=0)
found = {
    name: nr.spectrum(nr.gram(spec, x), targets=targets)
    for name, spec in networks.items()
}
axes = nr.plot.new_axes(1, 2)
nr.plot.spectrum(found, ax=axes[0, 0], legend=False)
nr.plot.spectrum(found, "alignment", ax=axes[0, 1], legend=False)
nr.plot.figure_legend(axes)
nr.plot.save(axes, "spectrum.png")
