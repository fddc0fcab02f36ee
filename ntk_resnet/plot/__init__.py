"""Figures of results, in one style.

Each function takes what one function of the package returns, draws it into `ax`, or
into a new figure of page width, and returns the axes. Those that compare take a mapping
`{label: result}` too. A family has one colour and marker in all of them: `"plain"`,
`"γ = 1/2"`, and at several depths `"plain, L = 10"`. Theory is thin and dashed.

```python
ax = nr.plot.kernels(nr.sweep_depth(spec, [1, 10, 100], angles=angles))
nr.plot.save(ax, "kernels.png")
axes = nr.plot.new_axes(1, 2)
nr.plot.degeneracy({"plain": a, "γ = 1/2": b}, "distance", ax=axes[0, 0], legend=False)
nr.plot.degeneracy({"plain": a, "γ = 1/2": b}, "nngp_gap", ax=axes[0, 1], legend=False)
nr.plot.figure_legend(axes)
```

Global settings of matplotlib stay as they are, and pyplot is not imported.
"""

from ntk_resnet.plot.depth import degeneracy as degeneracy
from ntk_resnet.plot.depth import kernel_distance as kernel_distance
from ntk_resnet.plot.depth import kernels as kernels
from ntk_resnet.plot.drawing import figure_legend as figure_legend
from ntk_resnet.plot.drawing import new_axes as new_axes
from ntk_resnet.plot.drawing import save as save
from ntk_resnet.plot.drawing import style as style
from ntk_resnet.plot.finite import dispersion as dispersion
from ntk_resnet.plot.finite import training as training
from ntk_resnet.plot.finite import width as width
from ntk_resnet.plot.spectra import learning_curve as learning_curve
from ntk_resnet.plot.spectra import mercer as mercer
from ntk_resnet.plot.spectra import spectral_distribution as spectral_distribution
from ntk_resnet.plot.spectra import spectrum as spectrum
