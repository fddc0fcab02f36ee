"""How far training has moved a network, and how much there is left to learn."""

from typing import Any

import numpy as np
import xarray as xr
from scipy.special import expit

from ntk_resnet.analysis.bounds.lipschitz import check_same_layers, length
from ntk_resnet.analysis.bounds.margin import graph_of_model, margins_of
from ntk_resnet.models.tape import gradients_at
from ntk_resnet.records.provenance import provenance


def lazy_training(model: Any, initial: Any, x: Any, y: Any) -> xr.Dataset:
    r"""Distances to the initial weights, gradients and surrogate error by layer.

    The quantities of Frei, Cao and Gu (2019), for binary labels and the logistic loss
    :math:`\ln(1 + e^{-y f})`: weights stay within :math:`\tau` of where they began,
    gradients of the last layers are at least proportional to the surrogate error

    .. math:: E_S = \frac 1n \sum_i \frac 1{1 + e^{y_i f(x_i)}},

    and the share of wrong answers is at most :math:`2 E_S`.

    Args:
        model: with one output, as in `layer_norms`.
        initial: the same before training.
        x: rows `(n, ...)`.
        y: labels -1 and 1, `(n,)`.

    Returns:
        A dataset over `layer`, with the coordinate `name`, of weights as they act on
        what they multiply, factors and all: `distance`, :math:`|W - W^0|_F`,
        `relative_distance`, over :math:`|W^0|_F`, and `gradient_norm`, that of the loss
        in the weight. And `tau`, the largest distance, `surrogate_error`, `error_rate`
        (an output of 0 is wrong) and `loss`.

    Raises:
        ValueError: the models differ in their layers, or bad arguments.

    Accuracy: that of the dtype of the model (`tests/analysis/test_bounds.py`).
    """
    graph, before = graph_of_model(model, x), graph_of_model(initial, x)
    check_same_layers("initial", graph.layers, before.layers)
    tape, outputs = graph.tape, graph.tape.output.value
    each, n = margins_of(outputs, y), len(outputs)
    wrong = expit(-each)  # of each row, on the scale from 0 to 1
    slope = (-np.asarray(y) * wrong / n).reshape(outputs.shape)
    place = {op.outputs[0]: number for number, op in enumerate(tape.operations)}
    places = [place[layer.output] for layer in graph.layers]
    gradients = [
        layer.gradient_norm(delta)
        for layer, delta in zip(
            graph.layers, gradients_at(tape, places, slope), strict=True
        )
    ]
    moved = [
        length(np.subtract(own.matrix, old.matrix, dtype=np.float64))
        for own, old in zip(graph.layers, before.layers, strict=True)
    ]
    sizes = [length(old.matrix) for old in before.layers]
    return xr.Dataset(
        {
            "distance": ("layer", moved),
            "relative_distance": ("layer", np.divide(moved, sizes)),
            "gradient_norm": ("layer", gradients),
            "tau": max(moved),
            "surrogate_error": float(np.mean(wrong)),
            "error_rate": float(np.mean(each <= 0)),
            "loss": float(np.mean(np.logaddexp(0, -each))),
        },
        coords={"name": ("layer", [layer.name for layer in graph.layers])},
        attrs=provenance(rows=n),
    )
