"""Covering numbers of a network's layers, and the margin bound that follows."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import ArrayLike, Float, Num

from ntk_resnet._checks import check_confidence, check_number
from ntk_resnet._inputs import check_array
from ntk_resnet.analysis.bounds.lipschitz import (
    Graph,
    check_same_layers,
    graph_of,
    length,
)
from ntk_resnet.analysis.bounds.operators import distance_21
from ntk_resnet.models.functions import prepared
from ntk_resnet.models.tape import record
from ntk_resnet.records.provenance import provenance


def layer_norms(model: Any, x: Any, *, reference: Any = None) -> xr.Dataset:
    r"""What norm bounds take of each layer of a network, dense or convolutional.

    The graph of the model is found by running it. Lipschitz constants multiply along
    it, and where paths meet they add up: a chain gives the product of its norms, a
    residual block :math:`1 + \prod_i \rho_i s_i` (He, Liu and Tao 2020).

    Args:
        model: an nnx module, a pair of a linen module and its variables, or a pair
            `(apply_fn, params)`; with batch normalisation in evaluation mode.
        x: rows or images `(n, ...)`, the data that the bound is for.
        reference: a model of the same layers, such as that before training, from which
            weights are measured; `None`: from zero.

    Returns:
        A dataset over `layer`, each place where a trained weight multiplies what the
        inputs have become, in order, with the coordinate `name`: `spectral_norm` s of
        that operator and `spectral_norm_error`, `distance_21`,
        :math:`|(A - M)^\top|_{2,1}`, the sum over outputs of the lengths of the rows
        of weights; `input_norm`, the Frobenius
        norm of what meets it here, and `input_bound`, that for all weights of these
        spectral norms (of convolutions of their patches); `lipschitz_after`, the
        Lipschitz constant of the outputs in those of the layer; `fan_in`, `fan_out`.
        And `lipschitz`, that of the whole network, `data_norm`,
        :math:`|X|_F`, and `log_covering`, :math:`R = \ln(2 W^2) \bigl(\sum_u (b_u H_u
        G_u)^{2/3}\bigr)^3` with the largest fan W, so that networks of these norms have
        covering numbers :math:`\ln N(\epsilon) \le R / \epsilon^2` on the data. Biases
        and scales of normalisation count as fixed.

    Raises:
        ValueError: an operation has no Lipschitz constant, such as a product of two
            values that depend on the input; or bad arguments.

    Accuracy: spectral norms within `spectral_norm_error`; Lipschitz constants of
    activations from slopes on a grid, within 1e-6 of themselves
    (`tests/analysis/test_bounds.py`).
    """
    return _norms(graph_of_model(model, x), x, reference)


def _norms(graph, x, reference):
    after, sizes = graph.after(), graph.sizes()
    layers = graph.layers
    if not layers:
        raise ValueError("model multiplies its inputs by no weight: there is no layer.")
    shapes = np.array([layer.matrix.shape for layer in layers])
    patches = np.sqrt([layer.taps for layer in layers])
    found = {
        "spectral_norm": [layer.norm.value for layer in layers],
        "spectral_norm_error": [layer.norm.error for layer in layers],
        "distance_21": _distances(layers, x, reference),
        "input_norm": patches * [length(layer.input.value) for layer in layers],
        "input_bound": patches * [sizes[layer.input] for layer in layers],
        "lipschitz_after": [after.get(layer.output, 0.0) for layer in layers],
        "fan_in": shapes[:, 0],
        "fan_out": shapes[:, 1],
    }
    terms = found["distance_21"] * found["input_bound"] * found["lipschitz_after"]
    logs = np.log(2.0 * shapes.max() ** 2) * np.sum(terms ** (2 / 3)) ** 3
    return xr.Dataset(
        {name: ("layer", np.asarray(values)) for name, values in found.items()}
        | {
            "lipschitz": after[graph.tape.input],
            "data_norm": length(graph.tape.input.value),
            "log_covering": float(logs),
        },
        coords={"name": ("layer", [layer.name for layer in layers])},
        attrs=provenance(rows=len(graph.tape.input.value)),
    )


def _distances(layers, x, reference):
    """(2,1) norms of the weights, or of their distances to those of another model."""
    if reference is None:
        return [distance_21(layer.matrix) for layer in layers]
    others = graph_of_model(reference, x).layers
    check_same_layers("reference", layers, others)
    pairs = zip(layers, others, strict=True)
    return [distance_21(own.matrix, other.matrix) for own, other in pairs]


def graph_of_model(model: Any, x: Any) -> Graph:
    """The graph of a run of any model on rows `x`."""
    tape = record(model, x)
    with tape.made_of.precision:
        return graph_of(tape)


def margins(model: Any, x: Any, y: Num[ArrayLike, " n"]) -> Float[np.ndarray, " n"]:
    r""":math:`f_y(x) - \max_{k \ne y} f_k(x)`; of one output :math:`y f(x)`.

    Args:
        model, x: as in `layer_norms`.
        y: classes 0, 1, ...; of a model with one output -1 and 1.

    Raises:
        ValueError: labels are no classes of the model.
    """
    apply, params, rest, x = made_of = prepared(model, x)
    with made_of.precision:
        return margins_of(apply(params, rest, x), y)


def margins_of(outputs: Any, y: Any) -> Float[np.ndarray, " n"]:
    """`margins` of a model that has these outputs."""
    n = len(outputs)
    y = np.asarray(check_array("y", y, f"({n},), one class for each row of x"))
    outputs = np.array(outputs, float).reshape(n, -1)
    if outputs.shape[1] == 1:
        if not np.isin(y, (-1, 1)).all():
            raise ValueError("y must hold -1 and 1 for a model with one output.")
        return y * outputs[:, 0]
    classes = outputs.shape[1]
    if not np.isin(y, np.arange(classes)).all():
        raise ValueError(
            f"y must hold classes 0 to {classes - 1}, whole numbers, as model has "
            f"{classes} outputs."
        )
    y = y.astype(int)
    own = outputs[np.arange(len(y)), y]
    outputs[np.arange(len(y)), y] = -np.inf
    return own - outputs.max(axis=1)


def margin_bound(
    model: Any,
    x: Any,
    y: Num[ArrayLike, " n"],
    *,
    margin: float | None = None,
    confidence: float = 0.95,
    reference: Any = None,
) -> xr.Dataset:
    r"""A bound on the share of wrong answers of a trained network, by its norms.

    .. math::
        P(\text{wrong}) \le \hat R_\lambda + \frac 8{N^{3/2}} + \frac{36}N
        \sqrt{4R/\lambda^2}\, \ln N + 3 \sqrt{\frac{\ln(2/\delta)}{2N}}

    with the share :math:`\hat R_\lambda` of training rows with margins of at most
    lambda and R from `layer_norms` (Bartlett, Foster and Telgarsky 2017; He, Liu and
    Tao 2020 for residual networks).

    It is for networks of norms that are fixed before they are seen: with those of a
    trained network, without a union bound over norms and margins, it compares networks.
    It is far above 1 for all but tiny ones.

    Args:
        model, x, reference: as in `layer_norms`; `x` are the training rows.
        y: classes, as in `margins`.
        margin: lambda > 0; `None`: the median of the margins, if it is positive, else
            their largest.
        confidence: 1 - delta, between 0 and 1.

    Returns:
        The dataset of `layer_norms` and, over `row`, `row_margin`; `margin`,
        `margin_risk`, `complexity` (the third term), `bound` and `excess`, the bound
        less the risk.

    Raises:
        ValueError: as in `layer_norms`; no margin is positive and none is given.

    Accuracy: that of `layer_norms`; the constants by hand in
    `tests/analysis/test_bounds.py`.
    """
    graph = graph_of_model(model, x)
    found = _norms(graph, x, reference)
    each = margins_of(graph.tape.output.value, y)
    if margin is None:
        margin = float(np.median(each) if np.median(each) > 0 else each.max())
        if margin <= 0:
            raise ValueError(
                "margin must be given: model answers wrongly on all rows, so that no "
                "margin is positive."
            )
    margin = check_number("margin", margin, positive=True)
    confidence = check_confidence(confidence)
    n, risk = len(each), float((each <= margin).mean())
    root = np.sqrt(4 * float(found.log_covering)) / margin
    complexity = 36 / n * root * np.log(n)
    chance = 3 * np.sqrt(np.log(2 / (1 - confidence)) / (2 * n))
    excess = 8 / n**1.5 + complexity + chance
    return found.assign(
        row_margin=("row", each),
        margin=margin,
        margin_risk=risk,
        complexity=float(complexity),
        bound=float(risk + excess),
        excess=float(excess),
    )
