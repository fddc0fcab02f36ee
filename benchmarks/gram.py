"""What Gram matrices cost: `python benchmarks/gram.py [question ...]`, all by default.

* gram: `nr.gram` beside the product X Xᵀ at full precision, shallow and deep;
* front: `nr.kernel_fn`, called, under `jit` and under `grad`, beside `nr.gram`;
* profile: the construction of its profiles;
* peer: beside neural-tangents, our first result with all that has to be built;
* symmetry: the triangle beside the full matrix, in memory, by recursion, in a store;
* operator: products with a vector, no matrix kept;
* device: all on an accelerator, beside the bandwidth of its memory, if there is one;
* errors: against 50-digit arithmetic (`gram_errors.py`).
"""

import itertools
import os
import pathlib
import shutil
import sys
import tempfile
from typing import Any

import gram_errors
import jax
import jax.numpy as jnp
import numpy as np
from harness import Case, Prepared, compiled, measure, publish, run_questions

import ntk_resnet as nr
from ntk_resnet.kernels.gram.make_plan import make_plan
from ntk_resnet.kernels.gram.programs import tile_at
from ntk_resnet.kernels.pairs import PRODUCTS
from ntk_resnet.kernels.profile.profile import ACCURACY

DEPTHS = (1, 1000, 1_000_000)
DTYPES = ("float32", "float64")


def rows(n, d, dtype, seed=0):
    """Random inputs, on the host as those of most users."""
    return np.random.default_rng(seed).normal(size=(n, d)).astype(dtype)


# -------------------------------------------------------------------- what is timed


def ours(n, d, dtype, depth, *, fresh=False, full=False, stored=False, **how):
    """`nr.gram` with its profile at hand, or with nothing built and kept if `fresh`.

    `full` computes both triangles; `stored` writes a new store each time.
    """
    spec, x = nr.FeedForward(depth=depth), rows(n, d, dtype)
    if fresh:
        os.environ["NTK_RESNET_CACHE"] = ""
    elif how.get("engine") != "recursion":
        nr.profile(spec)
    gram, x2 = nr.gram, rows(n, d, dtype, seed=1) if full else None
    if not stored:
        return Prepared(lambda: gram(spec, x, x2, **how))
    path = pathlib.Path(tempfile.gettempdir(), f"gram-{os.getpid()}")
    return Prepared(
        lambda: gram(spec, x, x2, store=path, **how),
        after=lambda: shutil.rmtree(path),
    )


def front(n, d, dtype, depth, *, by):
    """`nr.kernel_fn` on rows of its own, `by` one of "call", "jit" and "grad"."""
    kernel = nr.kernel_fn(nr.FeedForward(depth=depth))
    x = rows(n, d, dtype)
    if by == "call":
        return Prepared(lambda: kernel(x))
    summed = jax.grad(lambda x: kernel(x).sum())
    with jax.enable_x64(dtype == "float64"):
        return compiled(kernel if by == "jit" else summed, jnp.asarray(x))


def product(n, d, dtype, *, to_host=False):
    """X Xᵀ, left where it was computed or brought to the host."""

    def square(x):
        return jax.lax.dot_general(x, x, (((1,), (1,)), ((), ())), precision="highest")

    found = compiled(square, jnp.asarray(rows(n, d, dtype)))
    return found._replace(run=lambda: np.asarray(found.run())) if to_host else found


def construction(depth):
    """`nr.profile`, each time to another accuracy, so that none is there already."""
    os.environ["NTK_RESNET_CACHE"] = ""
    spec, count = nr.FeedForward(depth=depth), itertools.count()
    profile = nr.profile
    return Prepared(lambda: profile(spec, accuracy=ACCURACY * (1 + next(count) / 1e6)))


def neural_tangents(n, d, dtype, depth):
    """The NTK by `stax.repeat`, whose compilation does not grow with depth."""
    kernel, x = nr.stax(nr.FeedForward(depth=depth))[2], rows(n, d, dtype)
    # With x64 on it computes in float64 whatever the inputs.
    with jax.enable_x64(dtype == "float64"):
        return compiled(lambda x: kernel(x, None, "ntk"), jnp.asarray(x))


def operator(n, d, dtype, depth):
    """`nr.gram_operator` times a vector, with its profile at hand."""
    matrix = nr.gram_operator(nr.FeedForward(depth=depth), rows(n, d, dtype))
    vector = rows(n, 1, dtype)[:, 0]
    return Prepared(lambda: matrix @ vector)


def tiles(n, d, dtype, depth):
    """The full matrix in a hundred tiles, left on the device."""
    x = rows(n, d, dtype)
    network, how = nr.FeedForward(depth=depth), ("ntk", True, "profile", "split")
    plan = make_plan(network, x, x, *how, max(1, n // 10), jax.local_devices()[:1])
    tiling = plan.tiling
    corners = np.array([tiling.corner(*pair) for pair in tiling.pairs()], np.int32)

    def all_of_them(data, rows):
        shape, engine = tiling.block_shape, plan.engine
        return jax.lax.map(
            lambda corner: tile_at(engine, shape, False, data, rows, *corner).values,
            corners,
        )

    return compiled(all_of_them, plan.data, plan.rows)


def copy(n, dtype):
    """As many numbers as the matrix has, each read and written once."""
    return compiled(jnp.negative, jnp.ones((n, n), dtype))


# -------------------------------------------------------------------- the questions


def ask_gram(smoke):
    n, d, depths, some = (96, 8, (20,), 1) if smoke else (4000, 64, DEPTHS, 2)
    for dtype in DTYPES[:some]:
        sizes = {"n": n, "d": d, "dtype": dtype}
        cases = [Case(f"X Xᵀ, {dtype}", product, sizes)]
        for products, depth in itertools.product(PRODUCTS[:some], depths):
            name = f"nr.gram, {products}, L = {depth:,}, {dtype}"
            more = {"depth": depth, "products": products}
            cases.append(Case(name, ours, sizes | more))
        yield measure("gram", cases, repeats=2 if smoke else 15)


def ask_front(smoke):
    sizes, depths = ((48,), (20,)) if smoke else ((1000, 4000), DEPTHS)
    for n, dtype, depth in itertools.product(sizes, DTYPES, depths):
        given = {"n": n, "d": 8 if smoke else 64, "dtype": dtype, "depth": depth}
        cases = [Case(f"nr.gram, n = {n:,}, L = {depth:,}, {dtype}", ours, given)]
        for by in ("call", "jit", "grad"):
            name = f"nr.kernel_fn, {by}, n = {n:,}, L = {depth:,}, {dtype}"
            cases.append(Case(name, front, given | {"by": by}))
        yield measure("front", cases, repeats=2 if smoke else 9)


def ask_profile(smoke):
    for depth in (20,) if smoke else DEPTHS:
        case = Case(f"nr.profile, L = {depth:,}", construction, {"depth": depth})
        yield measure("profile", [case], repeats=2)


def ask_peer(smoke):
    n, d, depth = (16, 8, 20) if smoke else (1000, 64, 1000)
    for dtype in DTYPES[: 1 if smoke else 2]:
        sizes = {"n": n, "d": d, "dtype": dtype, "depth": depth}
        cases = [
            Case(f"nr.gram, {dtype}", ours, sizes | {"fresh": True}),
            Case(f"neural-tangents, {dtype}", neural_tangents, sizes),
        ]
        yield measure("peer", cases, repeats=2 if smoke else 3)


def ask_symmetry(smoke):
    ways: list[tuple[str, dict[str, Any], int]] = [
        ("in memory", {"depth": 1000}, 15),
        ("by recursion", {"depth": 30, "engine": "recursion"}, 5),
        ("in a store", {"depth": 1000, "stored": True}, 15),
    ]
    if smoke:
        ways = [("in a store", {"depth": 20, "stored": True}, 2)]
    for name, way, repeats in ways:
        sizes = {"n": 96 if smoke else 4000, "d": 64, "dtype": "float32", **way}
        cases = [
            Case(f"{name}, triangle", ours, sizes),
            Case(f"{name}, full", ours, sizes | {"full": True}),
        ]
        yield measure("symmetry", cases, repeats=repeats)


def ask_operator(smoke):
    small, large = (96, 128) if smoke else (20_000, 50_000)
    sizes = {"d": 64, "dtype": "float32", "depth": 20 if smoke else 1000}
    cases = [
        Case(f"nr.gram, n = {small:,}", ours, sizes | {"n": small}),
        Case(f"nr.gram_operator @ v, n = {large:,}", operator, sizes | {"n": large}),
    ]
    yield with_rates(measure("operator", cases, repeats=2 if smoke else 5))


def ask_device(smoke):
    if jax.default_backend() == "cpu" and not smoke:
        return
    n, larger, depth = (40, 80, 20) if smoke else (50_000, 1_000_000, 1000)
    plain = {"n": n, "d": 64, "dtype": "float32"}
    deep = plain | {"depth": depth}
    cases = [
        Case("X Xᵀ", product, plain),
        Case("a copy of X Xᵀ", copy, {"n": n, "dtype": "float32"}),
        Case("tiles, left on the device", tiles, deep),
        Case("X Xᵀ, to the host", product, plain | {"to_host": True}),
        Case("nr.gram, to the host", ours, deep),
        Case(f"nr.gram_operator @ v, n = {n:,}", operator, deep),
    ]
    name = f"nr.gram_operator @ v, n = {larger:,}"
    large = Case(name, operator, deep | {"n": larger})
    if smoke:
        cases = cases[2:3]
    yield with_rates(measure("device", cases, repeats=2 if smoke else 5))
    if not smoke:
        yield with_rates(measure("device", [large], repeats=2))


def with_rates(found):
    """The records with the entries of the matrix, n², a second."""
    for record in found:
        record["entries_per_s"] = float(f"{_rate(record):.4g}")
    return found


def _rate(record):
    return record["sizes"]["n"] ** 2 / record["median_s"]


def timed(ask):
    """A question whose records are printed and saved as they come."""

    def show(chosen):
        for found in ask(chosen.smoke):
            publish(found, chosen.save)

    return show


QUESTIONS = {
    "gram": timed(ask_gram),
    "front": timed(ask_front),
    "profile": timed(ask_profile),
    "peer": timed(ask_peer),
    "symmetry": timed(ask_symmetry),
    "operator": timed(ask_operator),
    "device": timed(ask_device),
    "errors": gram_errors.show,
}


def main(argv: list[str] | None = None) -> int:
    return run_questions(__doc__, QUESTIONS, argv)


if __name__ == "__main__":
    sys.exit(main())
