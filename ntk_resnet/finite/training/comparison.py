"""Trained networks beside the predictions of their fixed kernels."""

import numpy as np

from ntk_resnet.finite.training import prediction
from ntk_resnet.finite.training.descent import History
from ntk_resnet.finite.training.setup import TrainingRun
from ntk_resnet.models.losses import values_of

POINTS = 8
"""Rows whose outputs are kept."""


def against_prediction(
    run: TrainingRun, history: History, count: int
) -> dict[str, np.ndarray]:
    """The first `count` of these networks beside their predictions.

    Returns:
        Variables of `train_study`, arrays over seed and time.
    """
    n = len(run.task.y)
    outputs = history.records["outputs"][:count].astype(np.float64)
    ntk = history.ntk[:count].astype(np.float64)
    if run.task.centred:
        outputs = outputs - outputs[:, :1]
    result = {"loss": values_of(run.loss, outputs[:, :, :n], run.task.y)}
    for name in ("ntk_drift", "weights_distance", "alignment"):
        result[name] = history.records[name][:count].astype(np.float64)
    result["outputs"] = outputs[:, :, run.judged][:, :, :POINTS]
    for name, error, kernel in (
        ("predicted", "output_error", run.kernel),
        ("own_kernel", "own_kernel_error", ntk),
    ):
        path = _predict(run, kernel, outputs[:, 0])
        distance = (outputs - path)[:, :, run.judged]
        result[f"{name}_loss"] = values_of(run.loss, path[:, :, :n], run.task.y)
        result[f"{name}_outputs"] = path[:, :, run.judged][:, :, :POINTS]
        result[error] = _rms(distance)
        result[f"max_{error}"] = np.abs(distance).max(axis=(-2, -1))
    return result


def _predict(run, kernel, initial):
    """Outputs of all rows with a fixed kernel, `(s, t, p, k)`."""
    loss, y = run.loss.function, run.task.y
    if run.descends:
        return prediction.descent_path(
            loss, kernel, y, initial, run.learning_rate, run.counts
        )
    return prediction.flow_path(loss, kernel, y, initial, run.times)


def _rms(difference):
    return np.sqrt(np.mean(difference**2, axis=(-2, -1)))


def step_error(run: TrainingRun) -> np.ndarray:
    """How far gradient descent is from gradient flow, for the closed-form kernel."""
    task, zero = run.task, np.zeros((1, len(run.kernel), run.task.y.shape[1]))
    loss, rate = run.loss.function, run.learning_rate
    with np.errstate(all="ignore"):
        steps = prediction.descent_path(
            loss, run.kernel, task.y, zero, rate, run.counts
        )
        flow = prediction.flow_path(loss, run.kernel, task.y, zero, run.times)
        return _rms((steps - flow)[0, :, run.judged])
