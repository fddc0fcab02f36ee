r"""Linear systems with a kernel matrix that is never in memory.

Conjugate gradients on `gram_operator`, one product a step for all right-hand sides.
Each column keeps its own step lengths: nothing breaks down where columns depend on one
another or converge at different times, as it does in block methods, and the iterations
those save are few where a preconditioner leaves few.

The products are of float32 tiles. They give a correction, whose residual is computed
with float64 tiles, and so on (iterative refinement): the residual returned is that of
the float64 matrix. Where float32 does not help, float64 takes over.
"""

import dataclasses
import json
import os
import pathlib
import time
from typing import NamedTuple

import jax
import numpy as np
import scipy.linalg
import xarray as xr
from jaxtyping import ArrayLike, Float, Num

from ntk_resnet._checks import check_count, check_number
from ntk_resnet._inputs import check_array
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.kernels.gram.operator import GramOperator, columns_of, gram_operator
from ntk_resnet.kernels.gram.origin import differences
from ntk_resnet.records import results as records
from ntk_resnet.records.code import code_digest
from ntk_resnet.records.content import digest
from ntk_resnet.records.provenance import provenance

_GAINS = {False: 1e-4, True: 1e-10}  # asked of one round in float32, in float64
_SAVE_EVERY = 60.0  # seconds


class Solution(NamedTuple):
    """What `solve` returns."""

    x: Float[np.ndarray, " n"] | Float[np.ndarray, "n k"]
    residual: float  # |b - (K + shift I) x| / |b|, the largest of all columns
    iterations: int  # products with the matrix, but for those that check


def solve(
    operator: GramOperator,
    b: Num[ArrayLike, " n"] | Num[ArrayLike, "n k"],
    *,
    shift: float,
    tol: float = 1e-6,
    rank: int = 256,
    max_iterations: int = 1000,
    checkpoint: str | os.PathLike | None = None,
    progress: Progress = quiet,
) -> Solution:
    r"""Solves :math:`(K + s I)\, x = b` by preconditioned conjugate gradients.

    The preconditioner is the randomised Nyström approximation of K (Frangella, Tropp
    and Udell 2023, algorithm 2.1 and equation 1.3), from one product with `rank`
    random columns. With `jax.distributed` all processes make the same call, and each
    gets the whole answer.

    Args:
        operator: K, the `gram_operator` of one data set, of `"ntk"` or `"nngp"`. The
            matrix is that of its data in float64, whatever its dtype.
        b: the right-hand side `(n,)`, or k of them `(n, k)`.
        shift: s >= 0, absolute.
        tol: largest relative residual of each column, in (0, 1).
        rank: of the preconditioner, at most n.
        max_iterations: products before giving up.
        checkpoint: a zarr store in which the state is kept, each minute and at the end;
            with several processes in a folder that all can read. The same call goes on
            from there and has the same answer to the last bit; with another `tol` or
            `max_iterations` it goes on too.
        progress: called as `progress(done, total, text)` after each iteration: tenths
            of decimal digits of the residual, gained and asked for, and a text with the
            residual and, at the rate so far, the time left.

    Returns:
        `x` in float64, in the shape of `b`; its relative residual, computed with
        float64 tiles; the iterations.

    Raises:
        ValueError: bad arguments; K + s I is not positive definite to rounding; the
            checkpoint is damaged, or of another problem (each difference is named).
        RuntimeError: the residual is above `tol` when the iterations are used up, or
            where float64's rounding ends its descent; the text says how far it came,
            and a checkpoint has the state.
        OSError: the checkpoint cannot be written.

    Accuracy: the residual is that of the dense float64 matrix to its rounding
    (`tests/analysis/test_solve.py`). Memory: two operators, a dozen copies of `b`, and
    five times n `rank` numbers while the preconditioner is made.
    """
    shape = _check(operator, b)
    shift = check_number("shift", shift)
    if check_number("tol", tol, positive=True) >= 1:
        raise ValueError(f"tol must be below 1, got {tol}: it is relative to b.")
    check_count("max_iterations", max_iterations)
    rank = min(check_count("rank", rank), shape[0])
    columns = np.asarray(b, np.float64).reshape(shape[0], -1)
    columns, largest = _scaled(columns, np.abs(columns).max(axis=0))
    columns, norms = _scaled(columns, _norms(columns))  # their squares are in range now

    kept = checkpoint and _Checkpoint(checkpoint, operator, columns, shift, rank)
    state = kept.load() if kept else None
    tell = _Teller(progress, tol)
    system = _System(operator, shift, rank)
    if state is None:
        state = system.begin(np.zeros_like(columns), columns, 0, False)
    while _agreed(state.residual).max() > tol:
        positive = True
        while positive and (active := system.active(state, tol)).any():
            if state.iterations >= max_iterations:
                break
            positive = system.step(state, active)
            tell(_norms(state.r).max())
            if kept:
                kept.save(state)
        before, state = state, system.refine(state, columns, tol, positive)
        if kept:
            kept.save(state, now=True)
        _check_descent(before, state, tol, max_iterations)
    tell(state.residual.max())
    x = (state.x * norms * largest).reshape(shape)
    return Solution(x, float(state.residual.max()), state.iterations)


def _check(operator, b):
    """The shape of `b`, if it is a right-hand side for this matrix."""
    if not isinstance(operator, GramOperator):
        raise ValueError(f"operator must be a gram_operator, got {operator!r}.")
    (get,) = operator.plan.engine.get
    if not operator.plan.tiling.symmetric or get not in ("ntk", "nngp"):
        raise ValueError(
            f"operator must be the 'ntk' or 'nngp' of one data set, got {operator!r}; "
            "leave x2 out."
        )
    return check_array("b", b, columns_of(operator)).shape


def _scaled(columns, size):
    """The columns divided by their sizes, those of zeros by 1, and what divided."""
    size = np.where(size > 0, size, 1)
    return columns / size, size


def _check_descent(before, state, tol, max_iterations):
    """Raises the error that says how far it came, if it goes no further."""
    if not (left := _agreed(state.residual) > tol).any():
        return
    reason = None
    if state.iterations >= max_iterations:
        reason = f"after {state.iterations} iterations; raise max_iterations, rank"
    elif before.double and (state.residual > before.residual / 2)[left].any():
        reason = "and float64's rounding keeps it there; raise tol"
    if reason:
        raise RuntimeError(
            f"the relative residual is {state.residual.max():.2g}, not {tol:.2g}, "
            f"{reason} or shift."
        )


# --------------------------------------------------------------------------- the method


@dataclasses.dataclass
class _State:
    """Where the solver stands: a solution, and a correction to it under way."""

    x: np.ndarray  # (n, k)
    residual: np.ndarray  # (k,), norms of b - (K + shift) x in float64
    d: np.ndarray  # (n, k), the correction
    r: np.ndarray  # its residual
    p: np.ndarray  # the next direction
    rho: np.ndarray  # (k,), r . P r
    iterations: int
    double: bool  # whether this correction is computed in float64


class _System:
    """K + shift I in both precisions, and its preconditioner."""

    def __init__(self, operator: GramOperator, shift: float, rank: int):
        self.double = _in_precision(operator, np.float64)
        diagonal = np.asarray(self.double.diagonal())
        far = diagonal.max() > 1e25 or diagonal.max() < 1e-25  # out of float32's range
        self.single = self.double if far else _in_precision(operator, np.float32)
        self.shift = shift
        self.vectors, self.weights = _nystrom(self.single, shift, rank)

    def product(self, v, double):
        matrix = self.double if double else self.single
        return np.asarray(matrix @ v, np.float64) + self.shift * v

    def precondition(self, r):
        return r + self.vectors @ (self.weights * (self.vectors.T @ r))

    def begin(self, x, r, iterations, double):
        """Starts on a correction of `x`, whose residual is `r`."""
        p = self.precondition(r)
        rho = np.sum(r * p, axis=0)
        return _State(
            x, _norms(r), np.zeros_like(x), r.copy(), p, rho, iterations, double
        )

    def active(self, state, tol):
        """The columns whose correction is not yet good enough."""
        goal = np.maximum(tol / 2, _GAINS[state.double] * state.residual)
        return _agreed((state.residual > tol) & (_norms(state.r) > goal))

    def step(self, state, active) -> bool:
        """One iteration; `False`, and nothing done, if the matrix is not positive."""
        p = np.where(active, state.p, 0)
        q = self.product(p, state.double)
        curvature = np.sum(p * q, axis=0)
        if _agreed(active & (curvature <= 0)).any():
            if state.double:
                raise ValueError(
                    "K + shift I is not positive definite to rounding; raise shift."
                )
            return False
        length = np.where(active, state.rho / np.where(active, curvature, 1), 0)
        state.d += length * p
        state.r -= length * q
        z = self.precondition(state.r)
        rho = np.sum(state.r * z, axis=0)
        state.p = z + np.where(active, rho / np.where(active, state.rho, 1), 0) * p
        state.rho = rho
        state.iterations += 1
        return True

    def refine(self, state, b, tol, positive):
        """The corrected solution with its true residual, and the next correction."""
        x = state.x + state.d
        r = b - self.product(x, double=True)
        slow = _norms(r) > np.maximum(tol, state.residual / 10)
        double = state.double or not positive or bool(_agreed(slow).any())
        return self.begin(x, r, state.iterations, double)


def _in_precision(operator, dtype):
    plan = operator.plan
    if plan.dtype == dtype:
        return operator
    engine = plan.engine
    (get,) = engine.get
    return gram_operator(
        plan.spec,
        np.asarray(plan.rows[0].x).astype(dtype),
        get=get,
        normalised=engine.normalised,
        engine="auto" if engine.name == "profile" else engine.name,
        products=plan.products,
        tile=plan.tiling.tile,
        devices=list(plan.mesh.devices.flat),
    )


def _nystrom(operator, shift, rank):
    """Orthonormal U and w, so that I + U diag(w) U^T is the preconditioner's inverse.

    Seen at n about 2,000: iterations within a quarter of those with pivoted Cholesky of
    that rank, and on clustered data a quarter of those with columns chosen at random.
    """
    n = operator.shape[0]
    random = np.random.default_rng(0).standard_normal((n, rank), np.float32)
    random = np.linalg.qr(random)[0]
    sketch = np.array(operator @ random, np.float64)
    # Rounding must not leave the small matrix indefinite.
    noise = np.sqrt(n) * np.finfo(operator.dtype).eps * np.linalg.norm(sketch)
    sketch += noise * random
    small = random.T @ sketch
    factor = np.linalg.cholesky((small + small.T) / 2)
    del random
    half = scipy.linalg.solve_triangular(factor, sketch.T, lower=True).T
    del sketch
    vectors, values, _ = np.linalg.svd(half, full_matrices=False)
    eigenvalues = np.maximum(values**2 - noise, noise)
    weights = (eigenvalues[-1] + shift) / (eigenvalues + shift) - 1
    return vectors, weights[:, None]


def _norms(columns):
    return np.linalg.norm(columns, axis=0)


def _agreed(values):
    """The values of the first process, so that all take the same decisions."""
    if jax.process_count() == 1:
        return values
    from jax.experimental import multihost_utils

    with jax.enable_x64():
        return np.asarray(multihost_utils.broadcast_one_to_all(values))


# ------------------------------------------------------------- checkpoints and progress


class _Checkpoint:
    """A state on disk, that of one problem."""

    def __init__(self, path, operator, b, shift, rank):
        self.path, self.saved = pathlib.Path(path), time.monotonic()
        self.identity = operator.plan.identity() | {
            "dtype": operator.plan.dtype.name,
            "shift": shift,
            "rank": rank,
            "right-hand side": digest(b)[:12],
            "code_sha256": code_digest("analysis"),
        }

    def load(self) -> _State | None:
        """The state that is there, if there is one; the same in all processes."""
        state = self._read()
        there = -1 if state is None else state.iterations
        if _agreed(there) != there:
            raise ValueError(
                f"the processes see different checkpoints at {str(self.path)!r}; "
                "name a folder that all of them can read."
            )
        return state

    def _read(self):
        if not self.path.exists():
            if jax.process_index() == 0:
                records.check_writable(self.path.parent)
            return None
        try:
            found = records.load(self.path)
        except ValueError as error:
            raise ValueError(
                f"the checkpoint {str(self.path)!r} is damaged, or none of solve: "
                f"{error}"
            ) from None
        if "identity" not in found.attrs:
            raise ValueError(
                f"{str(self.path)!r} is no checkpoint of solve; choose another path."
            )
        others = differences(json.loads(found.attrs["identity"]), self.identity)
        if named := "; ".join(others):
            raise ValueError(
                f"the checkpoint {str(self.path)!r} is of another problem: {named}; "
                "choose another path, or delete it."
            )
        fields = (field.name for field in dataclasses.fields(_State))
        return _State(**{name: _plain(found[name].values) for name in fields})

    def save(self, state: _State, *, now: bool = False) -> None:
        """Writes the state, if it is time to; with `now` all processes wait for it."""
        due = now or time.monotonic() - self.saved >= _SAVE_EVERY
        if due and jax.process_index() == 0:
            self._write(state)
        if now:
            _agreed(0)

    def _write(self, state):
        dims = {2: ("row", "column"), 1: ("column",), 0: ()}
        values = {k: np.asarray(v) for k, v in dataclasses.asdict(state).items()}
        dataset = xr.Dataset({k: (dims[v.ndim], v) for k, v in values.items()})
        dataset.attrs = provenance(identity=json.dumps(self.identity))
        records.save(dataset, self.path)
        self.saved = time.monotonic()


def _plain(values):
    return values if values.ndim else values.item()


class _Teller:
    """Progress in tenths of digits, with the time left at the rate so far."""

    def __init__(self, progress, tol):
        self.progress, self.digits = progress, -np.log10(tol)
        self.began: tuple[float, float] | None = None  # when, and with how many digits

    def __call__(self, residual: float) -> None:
        now = time.monotonic()
        gained = min(-np.log10(max(residual, 1e-300)), self.digits)
        text = f"residual {residual:.1e}"
        if self.began is None:
            self.began = now, gained
        elif gained > self.began[1]:
            rate = (now - self.began[0]) / (gained - self.began[1])
            text += f", {rate * (self.digits - gained):.0f} s left"
        done, total = (int(max(0, 10 * d)) for d in (gained, self.digits))
        self.progress(done, max(1, total), text)
