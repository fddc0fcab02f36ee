"""neural-tangents by the bridge, for `from ntk_resnet.neural_tangents import stax`.

The name stands for neural-tangents itself, and the names below it for its modules, so
that none is ever there twice.
"""

import sys

from ntk_resnet.reference.neural_tangents import neural_tangents

for _name, _module in list(sys.modules.items()):
    if _name.startswith("neural_tangents."):
        sys.modules[f"ntk_resnet.{_name}"] = _module
sys.modules[__name__] = neural_tangents
