"""How much the NTK differs from one random network to the next."""

import ntk_resnet as nr

plain = nr.FeedForward(depth=1, trained="blocks")
residual = nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5))
found = {
    name: nr.finite.dispersion_study(spec, [2, 4, 8], [32], 2000)
    for name, spec in (("plain", plain), ("γ = 1/2", residual))
}
nr.plot.save(nr.plot.dispersion(found), "dispersion.png")
