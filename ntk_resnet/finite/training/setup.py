"""What a training study does, decided before it starts: data, learning rate, steps."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from ntk_resnet._checks import check_count, check_number
from ntk_resnet._inputs import check_array, check_inputs
from ntk_resnet.finite.training import checkpoints, descent
from ntk_resnet.kernels.function import kernel_fn
from ntk_resnet.models.functions import as_function
from ntk_resnet.models.losses import Loss, make_loss, mse
from ntk_resnet.records.code import code_digest
from ntk_resnet.records.provenance import provenance, versions
from ntk_resnet.specification.base import Specification

STEP = 1 / 16
"""Default learning rate, in units of the time constant of the fastest mode."""

MOST_STEPS = 2**31 - 1
"""Steps are counted in int32."""


class TrainingRun(NamedTuple):
    """What all networks of a study share."""

    task: descent.Task
    loss: Loss
    judged: slice  # where among the rows outputs are compared
    kernel: np.ndarray  # closed-form NTK of all rows against the training rows
    learning_rate: float
    limit: float  # of its stability
    counts: np.ndarray  # steps from one record to the next, the first is 0
    descends: bool  # by plain gradient descent, not by an optimiser of the caller's

    @property
    def times(self) -> np.ndarray:
        return self.learning_rate * np.cumsum(self.counts)


def make_run(
    spec: Specification,
    data: tuple[Any, Any, Any],
    *,
    times: Any,
    loss: Any,
    optimizer: Any,
    learning_rate: Any,
    batch_size: Any,
    centred: bool,
) -> TrainingRun:
    """The arguments of `train_study`, checked; `data` are `x`, `y` and `x_test`."""
    x, y, x_test = _check_data(*data)
    kernel = _kernel(spec, x, x_test)
    largest = np.linalg.eigvalsh(kernel[: len(x)])[-1]
    if not largest > 0:
        raise ValueError(
            "spec has an NTK of zeros on x: nothing is trained; use a branch_scale > 0 "
            'or trained="all".'
        )
    loss = make_loss(loss, y)
    # Of the fastest mode; infinite where the loss is flat.
    constant = 1 / (largest * loss.curvature) if loss.curvature > 0 else np.inf
    rate = _check_rate(learning_rate, optimizer, loss, constant)
    if times is None:
        times = np.geomspace(0.1, 100, 10)
        times *= constant if np.isfinite(constant) else rate / STEP
    task = descent.Task(
        rows=x if x_test is None else np.concatenate([x, x_test]),
        y=y,
        loss=loss.function,
        optimizer=optax.sgd(rate) if optimizer is None else optimizer,
        batch_size=_check_batch(batch_size, len(x)),
        centred=centred,
    )
    return TrainingRun(
        task=task,
        loss=loss,
        judged=slice(0 if x_test is None else len(x), None),
        kernel=kernel,
        learning_rate=rate,
        limit=2 * constant,
        counts=_check_times(times, rate),
        descends=optimizer is None,
    )


def identity(
    run: TrainingRun, about: dict[str, Any], makes: Iterable[Callable[..., nnx.Module]]
) -> dict[str, Any]:
    """All that decides a run, as plain data: what a checkpoint is known by.

    `makes` make its networks, of each width.
    """
    params = [
        as_function(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))[1]  # noqa: B023
        for make in makes
    ]
    task, device = run.task, jax.local_devices()[0]
    # A cause before what follows from it: the first difference is the one that is told.
    return versions() | {
        "code": code_digest("finite")[:16],
        "device": f"{device.platform}: {device.device_kind}",
        "devices": jax.local_device_count(),
        "x64": bool(jax.config.read("jax_enable_x64")),
        **{key: provenance(value=value)["value"] for key, value in about.items()},
        "x": checkpoints.digest_of(task.rows),
        "y": checkpoints.digest_of(task.y),
        "training rows": len(task.y),
        "loss": checkpoints.describe_loss(run.loss, task.y),
        "learning_rate": run.learning_rate,
        "optimizer": checkpoints.describe_optimizer(task.optimizer, params),
        "batch_size": task.batch_size,
        "steps": run.counts.tolist(),
        "centred": task.centred,
    }


# ------------------------------------------------------------------------------ checks


def _check_data(x, y, x_test):
    x = np.asarray(check_inputs("x", x, zero_rows=True), np.float64)
    if x_test is not None:
        x_test = check_inputs("x_test", x_test, zero_rows=True)
        x_test = np.asarray(x_test, np.float64)
    if x_test is not None and x_test.shape[1] != x.shape[1]:
        raise ValueError(
            f"x_test must have the columns of x; got {x_test.shape} and {x.shape}."
        )
    n = len(x)
    shape = f"({n},) or ({n}, outputs), one row for each row of x"
    y = np.asarray(check_array("y", y, shape), np.float64).reshape(n, -1)
    return x, y, x_test


def _kernel(spec, x, x_test):
    """The closed-form NTK of all rows against the training rows."""
    kernel = kernel_fn(spec, normalised=False)
    train = np.asarray(kernel(x))
    return train if x_test is None else np.concatenate([train, kernel(x_test, x)])


def _check_rate(learning_rate, optimizer, loss, constant):
    if optimizer is not None and not isinstance(
        optimizer, optax.GradientTransformation
    ):
        raise ValueError(
            "optimizer must be an Optax optimiser such as optax.adam(1e-3), got "
            f"{optimizer!r}."
        )
    if learning_rate is None:
        if optimizer is not None:
            raise ValueError(
                "learning_rate must be given with an optimizer: the time that one step "
                "counts, usually the optimizer's own rate."
            )
        if not np.isfinite(constant):
            raise ValueError(
                "learning_rate must be given: the loss has no curvature to choose it "
                "by."
            )
        learning_rate = STEP * constant
    rate = check_number("learning_rate", learning_rate, positive=True)
    if rate >= 2 * constant and optimizer is None and loss.function is mse:
        raise ValueError(
            f"learning_rate {rate:.3g} diverges: it must be below "
            f"2 n k / lambda_max = {2 * constant:.3g}; leave it out for 1/32 of that."
        )
    return rate


def _check_times(times, learning_rate):
    """Steps from one record to the next, the first is 0."""
    try:
        times = np.atleast_1d(np.asarray(times, np.float64))
    except (TypeError, ValueError):
        times = np.empty(0)
    good = times.ndim == 1 and times.size and np.isfinite(times).all()
    if not good or (times < 0).any():
        raise ValueError("times must be a non-empty list of finite numbers >= 0.")
    last = np.rint(times.max() / learning_rate)
    if last < 1:
        raise ValueError(
            f"times must reach the first step, at {learning_rate:.3g}; got {times}."
        )
    if last > MOST_STEPS:
        raise ValueError(
            f"times must be at most {MOST_STEPS * learning_rate:.3g}, {MOST_STEPS} "
            f"steps of learning_rate {learning_rate:.3g}; got {times.max():.3g}."
        )
    steps = np.unique(np.rint(np.append(times, 0) / learning_rate)).astype(np.int32)
    return np.diff(steps, prepend=0).astype(np.int32)


def _check_batch(batch_size, rows):
    if batch_size is None:
        return None
    if check_count("batch_size", batch_size) > rows:
        raise ValueError(
            f"batch_size must be at most the {rows} rows; got {batch_size}."
        )
    return batch_size
