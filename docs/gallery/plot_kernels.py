"""The NTK of plain and residual networks, as in the figure of Huang et al. (2020)."""

import numpy as np

import ntk_resnet as nr

networks = {
    "plain": nr.FeedForward(depth=1, trained="blocks"),
    "residual, γ = 1": nr.ResNet(depth=1, branch_scale=nr.DepthScale(1.0)),
}
depths = [1, 2, 5, 10, 50, 200, 2000]
axes = nr.plot.new_axes(1, 2, sharey=True)
for ax, (name, spec) in zip(axes.flat, networks.items(), strict=True):
    swept = nr.sweep_depth(spec, depths, angles=np.linspace(0, np.pi, 181))
    nr.plot.kernels(swept, over="cosine", ax=ax, legend=False)
    ax.set_title(name, fontsize=8.5)
nr.plot.figure_legend(axes)
nr.plot.save(axes, "kernels.png")
