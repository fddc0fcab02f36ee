r"""Training finite networks beside the prediction of a fixed kernel.

An infinitely wide network is a linear model with the NTK of its initialisation, so its
outputs are known at every time. A finite one differs for two reasons: its kernel is not
the limit (of order `m^-1/2`), and it moves while it learns (the kernel drift).
`train_study` measures both.
"""

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from ntk_resnet._checks import check_count
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.finite.ensembles import seed_keys
from ntk_resnet.finite.networks import build, check_spec
from ntk_resnet.finite.training import descent
from ntk_resnet.finite.training.checkpoints import Checkpoints
from ntk_resnet.finite.training.comparison import against_prediction, step_error
from ntk_resnet.finite.training.setup import identity, make_run
from ntk_resnet.finite.width import (
    add_exponent,
    check_widths,
    count_parameters,
    memory_of_kernels,
)
from ntk_resnet.records.provenance import provenance
from ntk_resnet.specification.base import Specification

ERRORS = (
    "output_error",
    "own_kernel_error",
    "max_output_error",
    "max_own_kernel_error",
)


def train_study(
    spec: Specification,
    x: Any,
    y: Any,
    widths: Sequence[int],
    seeds: int,
    *,
    x_test: Any = None,
    times: Any = None,
    loss: str | Callable = "mse",
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    centred: bool = False,
    seed: int = 0,
    param_dtype: Any = jnp.float32,
    checkpoint: str | os.PathLike | None = None,
    progress: Progress = quiet,
) -> xr.Dataset:
    r"""Training at many widths, beside the prediction of a fixed kernel.

    Time is the learning rate times the number of steps. With a kernel :math:`\Theta`
    that does not move, a step of gradient descent on the loss L changes the outputs by
    :math:`-\eta\,\Theta\,\nabla L(f)`; with the closed-form NTK, from a network's own
    initial outputs, that is the prediction of infinite width, and with its own initial
    NTK the linearised network. Both are computed step by step, exactly as training is;
    for a minibatch of the squared loss they are the mean over batches. Another
    optimiser is compared with gradient flow, :math:`\dot f = -\Theta\,\nabla L(f)`.

    Args:
        spec: a `FeedForward` or `ResNet`.
        x: training inputs, `(n, d)`.
        y: targets, `(n,)` or `(n, k)`.
        widths: hidden widths, each >= 1.
        seeds: networks per width. They are split over the local devices.
        x_test: where outputs are compared, `(p, d)`; by default the training inputs.
        times: when to record, finite and >= 0, rounded to whole steps; time 0 is added.
            By default ten times, logarithmic up to 100 time constants of the fastest
            mode, 1 / (c lambda_max) with c the largest curvature of the loss in the
            outputs: `nk / lambda_max` for the squared loss.
        loss: `"mse"`, :math:`\frac1{2nk}\sum (f - y)^2`; `"logistic"`, the mean of
            :math:`\log(1 + e^{-yf})` over all targets, which are -1 or 1; `"softmax"`,
            the mean cross-entropy over rows, targets one-hot; or a function
            `(outputs, y) -> scalar`, a mean over rows, differentiable by JAX.
        optimizer: any Optax optimiser; by default gradient descent, `optax.sgd`.
        learning_rate: of gradient descent; by default 1/16 of that time constant. With
            an `optimizer` it must be given, and says how much time a step counts.
        batch_size: rows of a step, drawn without replacement in an order that changes
            every epoch; rows that do not fill a batch wait for the next. By default
            all rows.
        centred: with `True`, the initial outputs are subtracted from the network's, so
            that it starts at 0.
        seed: of the random keys; a network depends on it, on its width and its number.
        param_dtype: of the networks. The predictions are computed in float64.
        checkpoint: a folder. The state is kept there after every record; the same call,
            after the first one was killed, goes on from there and ends with the same
            bits. The trained weights stay there.
        progress: called as `progress(done, total, description)` after every record,
            counting trained weights times steps.

    Returns:
        A Dataset over `width`, `seed`, `time` (and `point`, `output`):

        * `loss`; `predicted_loss`, of the prediction; `own_kernel_loss`, of the
          linearised network,
        * `output_error`: root mean square distance of the outputs on `x_test` to the
          prediction, in units of y; `max_output_error`: the largest distance,
        * `own_kernel_error`, `max_own_kernel_error`: the same distances to the
          linearised network: what is left when only the drift of the kernel counts,
        * `ntk_drift`: relative Frobenius change of the empirical NTK on `x` since
          initialisation,
        * `weights_distance`: change of the trained weights since initialisation,
          relative to their norm then,
        * `alignment`: of the empirical NTK on `x` with the targets, the cosine between
          it and :math:`y y^T`,
        * `outputs`, `predicted_outputs`, `own_kernel_outputs`: on the first rows of
          `x_test` (at most 8),
        * `step_error` `(time)`: root mean square distance, on `x_test`, of gradient
          descent to gradient flow with the closed-form kernel, started from 0,
        * `drift_exponent`, and `..._exponent` of the four errors, each with `_low` and
          `_high` (95 %): of the width; the drift at the last time, the errors as root
          mean square, the `max` ones as the largest, over all times but 0. NaN for a
          single width.

        attrs: provenance, `rows`, `test_rows` (where there are), `loss`,
        `learning_rate`, `stability_limit`, 2 / (c lambda_max) with the closed-form
        kernel, `steps`, and `warning` where the learning rate is above it or networks
        diverged.

    Raises:
        ValueError: an argument is out of its range, gradient descent on the squared
            loss is above its limit, or the checkpoint is damaged or of another run; the
            text names it.

    Accuracy:
        Wider networks come closer to the prediction, as the width to the power -1/2
        (`tests/finite/training/test_finite_training.py`); on several devices results
        are those of one up to the rounding of float32
        (`tests/finite/training/test_finite_descent.py`).
    """
    check_spec(spec)
    widths, seeds = check_widths(widths), check_count("seeds", seeds)
    seed = check_count("seed", seed, least=0)
    run = make_run(
        spec,
        (x, y, x_test),
        times=times,
        loss=loss,
        optimizer=optimizer,
        learning_rate=learning_rate,
        batch_size=batch_size,
        centred=bool(centred),
    )
    columns, outputs = run.task.rows.shape[1], run.task.y.shape[1]
    make = functools.partial(
        build, spec, columns, out_features=outputs, param_dtype=param_dtype
    )
    makes = {width: functools.partial(make, width=width) for width in widths}
    sizes = {width: count_parameters(makes[width]) for width in widths}
    dtype = str(jnp.dtype(param_dtype))
    about = {"spec": spec, "seed": seed, "seeds": seeds, "dtype": dtype}
    folder = None
    if checkpoint is not None:
        whole = identity(run, {**about, "widths": widths}, makes.values())
        folder = Checkpoints(checkpoint, whole)
    tell = _teller(progress, run, sizes, seeds)
    found = []
    for width in widths:
        devices, batches = descent.batches(
            seeds, _peak(makes[width], width, run), jax.local_devices()
        )
        programs = descent.compile_programs(makes[width], run.task, devices)
        keys = seed_keys(seed, width, seeds)
        found.append(_networks(run, programs, keys, batches, width, folder, tell))
    return _dataset(run, widths, found, about)


# ------------------------------------------------------------------ networks of a width


def _networks(run, programs, keys, batches, width, folder, tell):
    """What is said of all networks of one width, arrays that lead with the seed."""
    found = []
    for count, index in batches:
        name = f"width-{width}-seeds-{index[0]}-{len(index)}"
        report = functools.partial(tell, width, int(index[0]), count)
        with contextlib.ExitStack() as stack:
            place = folder and stack.enter_context(folder.of(name))
            history = descent.train(programs, keys[index], run.counts, place, report)
        with np.errstate(all="ignore"):  # a network may have diverged
            found.append(against_prediction(run, history, count))
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _peak(make, width, run):
    """Numbers held for one seed: its kernel's, and weights as optimisers keep them."""
    outputs = run.task.y.shape[1]
    kernels = memory_of_kernels(make, width, len(run.task.rows), outputs)
    return kernels + 6 * count_parameters(make)


def _teller(progress, run, sizes, seeds):
    """Reports progress as weights times steps, so that time goes with it."""
    steps = np.cumsum(run.counts).tolist()
    total = sum(sizes.values()) * seeds * steps[-1]

    def tell(width, begin, count, made):
        narrower = itertools.takewhile(lambda other: other != width, sizes)
        done = seeds * steps[-1] * sum(sizes[other] for other in narrower)
        done += sizes[width] * (begin * steps[-1] + count * steps[made - 1])
        progress(done, total, f"training at width {width}")

    return tell


# ---------------------------------------------------------------------- the whole study


def _dataset(run, widths, found, about):
    stacked = {name: np.stack([one[name] for one in found]) for name in found[0]}
    shape = stacked["outputs"].shape
    result = xr.Dataset(
        coords={
            "width": widths,
            "seed": np.arange(shape[1]),
            "time": ("time", run.times, {"units": "learning rate times steps"}),
            "point": np.arange(shape[3]),
            "output": np.arange(shape[4]),
        },
        attrs=provenance(
            **about,
            rows=len(run.task.y),
            test_rows=len(run.task.rows) - len(run.task.y) or None,
            loss=run.loss.name,
            learning_rate=run.learning_rate,
            stability_limit=run.limit,
            steps=int(run.counts.sum()),
            batch_size=run.task.batch_size,
            centred=run.task.centred,
            warning=_warning(run, stacked["loss"]),
        ),
    )
    for name, values in stacked.items():
        extra = ("point", "output") if values.ndim == 5 else ()
        result[name] = ("width", "seed", "time", *extra), values
    result["step_error"] = "time", step_error(run)
    add_exponent(result, "drift_exponent", stacked["ntk_drift"][..., -1])
    later = run.times > 0
    for name in ERRORS:
        values = stacked[name][..., later]
        overall = (
            values.max(axis=-1)
            if name.startswith("max")
            else np.sqrt(np.mean(values**2, axis=-1))
        )
        add_exponent(result, f"{name}_exponent", overall)
    return result


def _warning(run, losses):
    """What a reader has to know about the learning rate, or `None`."""
    lines = []
    if run.learning_rate >= run.limit:
        lines.append(
            f"learning_rate {run.learning_rate:.3g} is above {run.limit:.3g}, where "
            "gradient descent becomes unstable (2 / (curvature of the loss * "
            "lambda_max))."
        )
    bad = ~(losses[..., -1] <= losses[..., 0])
    if bad.any():
        lines.append(
            f"{int(bad.sum())} of {bad.size} networks diverged: the loss at the end is "
            "above that at the start."
        )
    return " ".join(lines) or None
