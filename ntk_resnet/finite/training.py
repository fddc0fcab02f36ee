r"""Training finite networks beside gradient flow with a fixed kernel.

An infinitely wide network trained on the squared loss is a linear model with the NTK of
its initialisation, so its outputs are known in closed form at every time. A finite one
differs for two reasons: its kernel is not the limit (of order `m^-1/2`), and it moves
while it learns (the kernel drift). `train_study` measures both.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from flax import nnx

from ntk_resnet import records
from ntk_resnet._checks import check_count, check_number
from ntk_resnet.analysis.regression import gradient_flow
from ntk_resnet.architectures import Architecture
from ntk_resnet.finite.empirical import as_function, ntk_against
from ntk_resnet.finite.networks import build, check_spec, over_seeds, seed_keys
from ntk_resnet.finite.width import (
    Progress,
    add_exponent,
    check_widths,
    count_parameters,
)
from ntk_resnet.kernels import kernel_fn
from ntk_resnet.kernels._inputs import check_inputs

STEP = 1 / 16
"""Default learning rate, in units of the time constant of the fastest mode."""
POINTS = 8
"""Rows whose outputs are kept."""


class _Run(NamedTuple):
    """What all networks of a study share."""

    x: np.ndarray  # training inputs, (n, d)
    y: np.ndarray  # targets, (n, k)
    x_test: np.ndarray | None  # where outputs are compared, (p, d); None: on x
    learning_rate: float
    counts: np.ndarray  # steps from one record to the next, the first is 0
    centred: bool

    @property
    def times(self) -> np.ndarray:
        return self.learning_rate * np.cumsum(self.counts)

    @property
    def rows(self) -> np.ndarray:
        return self.x if self.x_test is None else np.concatenate([self.x, self.x_test])

    @property
    def judged(self) -> slice:
        """Where among the rows outputs are compared."""
        return slice(0 if self.x_test is None else len(self.x), None)


def train_study(
    spec: Architecture,
    x: Any,
    y: Any,
    widths: Sequence[int],
    seeds: int,
    *,
    x_test: Any = None,
    times: Any = None,
    learning_rate: float | None = None,
    centred: bool = False,
    seed: int = 0,
    param_dtype: Any = jnp.float32,
    progress: Progress | None = None,
) -> xr.Dataset:
    r"""Full-batch training at many widths, beside the closed-form prediction.

    Plain gradient descent (`optax.sgd`) on :math:`\frac1{2nk}\sum (f - y)^2`. Time is
    the learning rate times the number of steps, so that an infinitely wide network
    follows `gradient_flow` with the closed-form NTK, started from its own initial
    outputs, up to the finite step.

    Args:
        spec: a `FeedForward` or `ResNet`.
        x: training inputs, `(n, d)`.
        y: targets, `(n,)` or `(n, k)`.
        widths: hidden widths, each >= 1.
        seeds: networks per width.
        x_test: where outputs are compared, `(p, d)`; by default the training inputs.
        times: when to record, finite and >= 0, rounded to whole steps; time 0 is added.
            By default ten times, logarithmic up to 100 time constants `nk / lambda_max`
            of the fastest mode.
        learning_rate: by default 1/16 of that time constant. From 2 on it diverges.
        centred: with `True`, the initial outputs are subtracted from the network's, so
            that it starts at 0.
        seed: of the random keys; a network depends on it, on its width and its number.
        param_dtype: of the networks. The prediction is computed in float64.
        progress: called as `progress(done, total, description)`, counting networks.

    Returns:
        A Dataset over `width`, `seed`, `time` (and `point`, `output`):

        * `loss`, and `predicted_loss`: of the prediction (closed form, infinite width),
        * `output_error`: root mean square distance of the outputs on `x_test` to the
          prediction, in units of y,
        * `own_kernel_error`: the same distance to gradient flow with the network's own
          initial NTK: what is left when only the drift of the kernel (and the finite
          step) counts,
        * `ntk_drift`: relative Frobenius change of the empirical NTK on `x` since
          initialisation,
        * `outputs`, `predicted_outputs`: on the first rows of `x_test` (at most 8),
        * `step_error` `(time)`: root mean square distance, on `x_test`, of gradient
          descent to gradient flow with the closed-form kernel, started from 0,
        * `drift_exponent`, `output_error_exponent`, `own_kernel_error_exponent`, each
          with `_low` and `_high` (95 %): of the width; the drift at the last time, the
          errors as root mean square over all times but 0. NaN for a single width.

        attrs: provenance, `learning_rate`, `steps`.

    Raises:
        ValueError: an argument is out of its range; the text names it.
    """
    check_spec(spec)
    x, y, x_test = _check_data(x, y, x_test)
    widths, seeds = check_widths(widths), check_count("seeds", seeds)
    seed = check_count("seed", seed, least=0)
    kernel = kernel_fn(spec, normalised=False)
    train = np.asarray(kernel(x))
    limit = train, train if x_test is None else np.asarray(kernel(x_test, x))
    run = _plan(limit[0], x, y, x_test, times, learning_rate, centred)

    rows: list[list[dict[str, np.ndarray]]] = []
    for number, width in enumerate(widths):
        make = functools.partial(
            build, spec, x.shape[1], width, y.shape[1], param_dtype=param_dtype
        )
        rows.append([])
        for done, batch in over_seeds(
            functools.partial(_train, make, run),
            seed_keys(seed, width, seeds),
            numbers_per_seed=_peak(count_parameters(make), run),
        ):
            for outputs, ntk in zip(batch["outputs"], batch["ntk"], strict=True):
                with np.errstate(all="ignore"):  # a network may have diverged
                    rows[-1].append(_judge(run, limit, outputs, ntk))
            if progress is not None:
                total = seeds * len(widths)
                progress(seeds * number + done, total, f"training at width {width}")
    return _dataset(spec, run, limit, widths, rows, seed, param_dtype)


# -------------------------------------------------------------------------- one network


def _train(make, run, key):
    """One network, from initialisation to the last record; all inside one program.

    Returns outputs `(time, rows, k)` and the NTK between all rows (training, then test)
    and the training rows, `(time, rows, n)`.
    """
    with jax.default_matmul_precision("highest"):
        apply, params, rest = as_function(make(rngs=nnx.Rngs(key)))
        dtype = jax.tree.leaves(params)[0].dtype
        x, y, rows = (jnp.asarray(a, dtype) for a in (run.x, run.y, run.rows))
        goal = y + apply(params, rest, x) if run.centred else y

        def loss(params):
            return jnp.mean((apply(params, rest, x) - goal) ** 2) / 2

        optimizer = optax.sgd(run.learning_rate)

        def step(_, state):
            params, memory = state
            updates, memory = optimizer.update(jax.grad(loss)(params), memory, params)
            return optax.apply_updates(params, updates), memory

        def record(state, count):
            params, _ = state = jax.lax.fori_loop(0, count, step, state)
            return state, {
                "outputs": apply(params, rest, rows),
                "ntk": ntk_against(apply, params, rest, rows, x),
            }

        return jax.lax.scan(
            record, (params, optimizer.init(params)), jnp.asarray(run.counts)
        )[1]


def _judge(run, limit, outputs, ntk):
    """The history of one network beside its predictions."""
    n = len(run.x)
    outputs, ntk = outputs.astype(np.float64), ntk.astype(np.float64)
    if run.centred:
        outputs = outputs - outputs[0]
    judged = outputs[:, run.judged]

    def flow(train, test):
        start = {"initial_train": outputs[0, :n], "initial_test": judged[0]}
        return gradient_flow(train, test, run.y, run.times, **start)

    predicted = flow(*limit)
    own = flow(_nearest_psd(ntk[0, :n]), ntk[0, run.judged])
    moved = np.linalg.norm(ntk[:, :n] - ntk[0, :n], axis=(1, 2))
    size = float(np.linalg.norm(ntk[0, :n])) or np.nan  # a dead network of width 1, say
    return {
        "loss": np.mean((outputs[:, :n] - run.y) ** 2, axis=(1, 2)) / 2,
        "predicted_loss": np.mean((predicted.train - run.y) ** 2, axis=(1, 2)) / 2,
        "output_error": _rms(judged - predicted.test),
        "own_kernel_error": _rms(judged - own.test),
        "ntk_drift": moved / size,
        "outputs": judged[:, :POINTS],
        "predicted_outputs": predicted.test[:, :POINTS],
    }


def _rms(difference):
    return np.sqrt(np.mean(difference**2, axis=(1, 2)))


def _nearest_psd(kernel):
    """A Gram matrix of gradients without the negative eigenvalues of its rounding."""
    eigenvalues, vectors = np.linalg.eigh(kernel.astype(np.float64))
    return (vectors * np.maximum(eigenvalues, 0)) @ vectors.T


# ---------------------------------------------------------------------- the whole study


def _plan(kernel, x, y, x_test, times, learning_rate, centred):
    """Learning rate and steps, from the fastest mode of the closed-form kernel."""
    largest = np.linalg.eigvalsh(kernel)[-1]
    if not largest > 0:
        raise ValueError(
            "spec has an NTK of zeros on x: nothing is trained; use a branch_scale > 0 "
            'or trained="all".'
        )
    fastest = y.size / largest  # its time constant
    if learning_rate is None:
        learning_rate = STEP * fastest
    learning_rate = check_number("learning_rate", learning_rate, positive=True)
    if learning_rate >= 2 * fastest:
        raise ValueError(
            f"learning_rate {learning_rate:.3g} diverges: it must be below "
            f"2 n k / lambda_max = {2 * fastest:.3g}; leave it out for 1/32 of that."
        )
    if times is None:
        times = fastest * np.geomspace(0.1, 100, 10)
    times = np.atleast_1d(np.asarray(times, np.float64))
    if (
        times.ndim != 1
        or not times.size
        or not (np.isfinite(times) & (times >= 0)).all()
    ):
        raise ValueError("times must be a non-empty list of finite numbers >= 0.")
    if not (np.rint(times / learning_rate) > 0).any():
        raise ValueError(
            f"times must reach the first step, at {learning_rate:.3g}; got {times}."
        )
    steps = np.unique(np.rint(np.append(times, 0) / learning_rate)).astype(np.int32)
    counts = np.diff(steps, prepend=0).astype(np.int32)
    return _Run(x, y, x_test, learning_rate, counts, bool(centred))


def _peak(parameters, run):
    """Numbers held for one seed: Jacobians of training rows, copies of the weights."""
    return parameters * ((len(run.x) + 2) * run.y.shape[1] + 6)


def _dataset(spec, run, limit, widths, rows, seed, param_dtype):
    stacked = {
        name: np.array([[one[name] for one in row] for row in rows])
        for name in rows[0][0]
    }
    shape = stacked["outputs"].shape
    result = xr.Dataset(
        coords={
            "width": widths,
            "seed": np.arange(shape[1]),
            "time": ("time", run.times, {"units": "learning rate times steps"}),
            "point": np.arange(shape[3]),
            "output": np.arange(shape[4]),
        },
        attrs=records.provenance(
            spec=spec,
            seed=seed,
            rows=len(run.x),
            dtype=str(jnp.dtype(param_dtype)),
            learning_rate=run.learning_rate,
            steps=int(run.counts.sum()),
            centred=run.centred,
        ),
    )
    for name, values in stacked.items():
        extra = ("point", "output") if values.ndim == 5 else ()
        result[name] = ("width", "seed", "time", *extra), values
    result["step_error"] = "time", _step_error(run, limit)
    later = run.times > 0
    add_exponent(result, "drift_exponent", stacked["ntk_drift"][..., -1])
    for name in ("output_error", "own_kernel_error"):
        overall = np.sqrt(np.mean(stacked[name][..., later] ** 2, axis=-1))
        add_exponent(result, f"{name}_exponent", overall)
    return result


def _step_error(run, limit):
    """How far gradient descent is from gradient flow, for the closed-form kernel."""
    train, test = limit
    eigenvalues, vectors = np.linalg.eigh(train)
    eigenvalues = np.maximum(eigenvalues, np.finfo(float).eps * eigenvalues[-1])
    rate = eigenvalues / run.y.size
    descent = (1 - run.learning_rate * rate) ** np.cumsum(run.counts)[:, None]
    late = np.exp(-run.times[:, None] * rate) - descent  # residual modes, (t, modes)
    modes = np.einsum("ti,ik->tik", late / eigenvalues, vectors.T @ run.y)
    return _rms(np.einsum("pi,tik->tpk", test @ vectors, modes))


def _check_data(x, y, x_test):
    x = np.asarray(check_inputs("x", x, zero_rows=True), np.float64)
    if x_test is not None:
        x_test = check_inputs("x_test", x_test, zero_rows=True)
        x_test = np.asarray(x_test, np.float64)
    if x_test is not None and x_test.shape[1] != x.shape[1]:
        raise ValueError(
            f"x_test must have the columns of x; got {x_test.shape} and {x.shape}."
        )
    y = np.asarray(y)
    if y.dtype.kind not in "fiu" or y.ndim not in (1, 2) or len(y) != len(x):
        raise ValueError(
            f"y has dtype {y.dtype} and shape {y.shape}; pass numbers ({len(x)},) or "
            f"({len(x)}, outputs), one row for each row of x."
        )
    y = y.astype(np.float64).reshape(len(x), -1)
    if y.size == 0 or not np.isfinite(y).all():
        raise ValueError("y must be finite and not empty; it holds NaN or infinity.")
    return x, y, x_test
