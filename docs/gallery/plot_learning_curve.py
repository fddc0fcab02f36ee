"""Test error of kernel regression on a sphere, predicted and measured."""

import ntk_resnet as nr

networks = {
    "plain, L = 100": nr.FeedForward(depth=100, trained="blocks"),
    "γ = 1/2, L = 100": nr.ResNet(depth=100, branch_scale=nr.DepthScale(0.5)),
}
target = {1: 0.5, 2: 0.3, 4: 0.2}  # power by degree
found = {
    name: nr.learning_curve_on_sphere(
        spec, 5, [20, 50, 100, 200], target, ridge=1e-3, trials=10
    )
    for name, spec in networks.items()
}
nr.plot.save(nr.plot.learning_curve(found), "learning_curve.png")
