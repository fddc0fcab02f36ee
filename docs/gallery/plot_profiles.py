"""Both kernels of one network against the angle: NNGP and NTK."""

import numpy as np

import ntk_resnet as nr

spec = nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.25))
swept = nr.sweep_depth(spec, [1, 10, 100, 1000], angles=np.linspace(0, np.pi, 181))
axes = nr.plot.new_axes(1, 2)
nr.plot.kernels(swept, "nngp", ax=axes[0, 0], legend=False)
nr.plot.kernels(swept, "ntk", ax=axes[0, 1], legend=False)
nr.plot.figure_legend(axes)
nr.plot.save(axes, "profiles.png")
