"""Generalisation bounds of trained networks, to compare networks by.

Norms of layers and margins (He, Liu and Tao 2020), how far training moves (Frei, Cao
and Gu 2019), and how smooth weights are in depth (Marion 2023); of any Flax model.
"""

from ntk_resnet.analysis.bounds.depth import depth_increments as depth_increments
from ntk_resnet.analysis.bounds.depth import (
    depth_lipschitz_bound as depth_lipschitz_bound,
)
from ntk_resnet.analysis.bounds.depth import depth_penalty as depth_penalty
from ntk_resnet.analysis.bounds.depth import smooth_weights as smooth_weights
from ntk_resnet.analysis.bounds.lazy import lazy_training as lazy_training
from ntk_resnet.analysis.bounds.margin import layer_norms as layer_norms
from ntk_resnet.analysis.bounds.margin import margin_bound as margin_bound
from ntk_resnet.analysis.bounds.margin import margins as margins
