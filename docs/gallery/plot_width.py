"""Error of the kernels of finite networks against their width."""

import ntk_resnet as nr

spec = nr.ResNet(depth=3, branch_scale=nr.DepthScale(0.5))
x = nr.load_data("digits").x[:10]
found = nr.finite.width_study(spec, x, [32, 64, 128, 256], 10)
nr.plot.save(nr.plot.width(found), "width.png")
