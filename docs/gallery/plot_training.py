"""Networks while they train, beside the prediction of infinite width."""

import numpy as np

import ntk_resnet as nr

spec = nr.ResNet(depth=3, branch_scale=nr.DepthScale(0.5))
data = nr.load_data("digits")
y = np.where(data.y[:12] % 2 == 0, 1.0, -1.0)  # even or odd
found = nr.finite.train_study(spec, data.x[:12], y, [64, 256], 4, x_test=data.x[12:16])
axes = nr.plot.new_axes(2, 2, height=2.8)
for ax, quantity in zip(
    axes.flat, ("outputs", "loss", "ntk_drift", "errors"), strict=True
):
    nr.plot.training(found, quantity, ax=ax)
nr.plot.save(axes, "training.png")
