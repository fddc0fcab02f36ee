"""How far residual kernels are from that of one block, on real data."""

import ntk_resnet as nr

x = nr.load_data("digits").x[:100]
found = {}
for label, gamma in (("γ = 1", 1.0), ("γ = 1/2", 0.5), ("γ = 1/4", 0.25)):
    spec = nr.ResNet(depth=1, branch_scale=nr.DepthScale(gamma))
    block = nr.gram(spec, x)
    found[label] = nr.kernel_distance_sweep(spec, block, [2, 10, 50, 200, 1000], x)
nr.plot.save(nr.plot.kernel_distance(found), "kernel_distance.png")
