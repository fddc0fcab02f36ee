"""How constant the kernels of deep networks are on real data."""

import ntk_resnet as nr

networks = {
    "plain": nr.FeedForward(depth=1, trained="blocks"),
    "γ = 1": nr.ResNet(depth=1, branch_scale=nr.DepthScale(1.0)),
    "γ = 1/2": nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5)),
    "α = 1": nr.ResNet(depth=1, branch_scale=1.0),
}
x = nr.load_data("digits").x[:100]
depths = [1, 3, 10, 30, 100, 300, 1000]
found = {name: nr.degeneracy(spec, depths, x) for name, spec in networks.items()}
axes = nr.plot.new_axes(1, 2)
nr.plot.degeneracy(found, "distance", ax=axes[0, 0], legend=False)
nr.plot.degeneracy(found, "nngp_gap", ax=axes[0, 1], legend=False)
nr.plot.figure_legend(axes)
nr.plot.save(axes, "degeneracy.png")
