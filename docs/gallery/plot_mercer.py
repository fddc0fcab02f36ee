"""Eigenvalues of the NTK on the sphere, and over those of the Laplace kernel."""

import ntk_resnet as nr

networks = {
    "plain, L = 1": nr.FeedForward(depth=1, trained="blocks"),
    "plain, L = 10": nr.FeedForward(depth=10, trained="blocks"),
    "γ = 1, L = 10": nr.ResNet(depth=10, branch_scale=nr.DepthScale(1.0)),
}
found = {name: nr.mercer(spec, dim=3, max_degree=60) for name, spec in networks.items()}
laplace = nr.laplace_mercer(dim=3, max_degree=60)
axes = nr.plot.new_axes(1, 2, height=3.0)
nr.plot.mercer(found, ax=axes[0, 0], legend=False)
nr.plot.mercer(found, relative_to=laplace, ax=axes[0, 1], legend=False)
nr.plot.figure_legend(axes)
nr.plot.save(axes, "mercer.png")
