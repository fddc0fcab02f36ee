"""Neural tangent kernels of residual and plain networks, at any depth.

One frozen specification (`FeedForward`, `ResNet`, `ConvNet`, `ConvResNet`) is realised
three ways: as a neural-tangents network (`stax`), as our own closed forms
(`kernel_fn`), and as a finite Flax network (`finite.build`). Every study compares them.
Nothing heavy is imported before it is used.
"""

import importlib

from ntk_resnet._version import __version__ as __version__

_HOME = {
    "FeedForward": "specification.networks",
    "ResNet": "specification.networks",
    "ConvNet": "specification.convolutional",
    "ConvResNet": "specification.convolutional",
    "wide_resnet": "specification.convolutional",
    "myrtle": "specification.convolutional",
    "ConstantScale": "specification.scales",
    "DepthScale": "specification.scales",
    "DecreasingScale": "specification.scales",
    "BalancedScale": "specification.scales",
    "from_json": "specification.json",
    "to_json": "specification.json",
    "Activation": "activations.quadrature",
    "LeakyReLU": "activations.piecewise_linear",
    "kernel_fn": "kernels.function",
    "diag": "kernels.function",
    "profile": "kernels.profile.profile",
    "gram": "kernels.gram.gram",
    "open_gram": "kernels.gram.stored",
    "gram_operator": "kernels.gram.operator",
    "sweep_depth": "kernels.depths",
    "spectrum": "analysis.spectrum",
    "spectral_distribution": "analysis.spectrum",
    "kernel_distance": "analysis.compare",
    "kernel_distance_sweep": "analysis.compare",
    "degeneracy": "analysis.degeneracy",
    "one_block_correction": "analysis.degeneracy",
    "fit_power": "analysis.statistics",
    "phase": "analysis.phases",
    "predicted_condition_number": "analysis.phases",
    "early_stopping": "analysis.early_stopping",
    "mercer": "analysis.sphere.mercer",
    "laplace_mercer": "analysis.sphere.mercer",
    "decay_exponent": "analysis.sphere.mercer",
    "parity_imbalance": "analysis.sphere.mercer",
    "learning_curve": "analysis.learning_curve",
    "learning_curve_on_sphere": "analysis.learning_trials",
    "learning_curve_on_data": "analysis.learning_trials",
    "NTKRegressor": "analysis.estimators",
    "NTKClassifier": "analysis.estimators",
    "solve": "analysis.solve",
    "kernel_ridge": "analysis.regression",
    "load_data": "data.datasets",
    "stax": "reference.stax",
    "neural_tangents": "reference.neural_tangents",
}
_MODULES = {
    "finite": "finite",
    "plot": "plot",
    "curvature": "analysis.curvature",
    "bounds": "analysis.bounds",
    "signal": "analysis.signal",
}

__all__ = ["__version__", *_HOME, *_MODULES]


def __getattr__(name):
    if name in _HOME:
        value = getattr(importlib.import_module(f"ntk_resnet.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"ntk_resnet.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'ntk_resnet' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
