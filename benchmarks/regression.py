"""Kernel regression at scale: `python benchmarks/regression.py`.

`nr.NTKRegressor` by conjugate gradients, which keeps no matrix, with residual kernels
1,000 blocks deep; beside it scikit-learn's `KernelRidge` on the same matrix, computed
before. Each runs once, in a process of its own. The residual is that of the solution
with float64 tiles of the full matrix, not of its triangle as in the solver.

`--points` changes the number of rows, as for an accelerator; `KernelRidge` runs on as
many of them as there is free memory for, on fewer where its process dies (OpenBLAS has
faults at large sizes), and the largest number that fits is told from its peak.
"""

import concurrent.futures
import multiprocessing
import os
import sys
import time

import harness
import jax
import numpy as np
from harness import note, options, save, seconds

import ntk_resnet as nr
from ntk_resnet.analysis.estimators import NTKRegressor

GAMMAS = (0.5, 1.0)
RIDGE = 1e-3
COPIES = 5  # of the matrix that `KernelRidge` needs room for, generously


def problem(gamma, depth, n, d):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d))
    y = x[:, 0] * x[:, 1] + np.abs(x[:, 2]) + 0.1 * rng.normal(size=n)
    return nr.ResNet(depth=depth, branch_scale=nr.DepthScale(gamma)), x, y


def ours(gamma, depth, n, d, tol):
    """`NTKRegressor`, from the data to the coefficients."""
    spec, x, y = problem(gamma, depth, n, d)
    times = []
    model = NTKRegressor(
        spec,
        ridge=RIDGE,
        solver="cg",
        tol=tol,
        progress=lambda *_: times.append(time.perf_counter()),
    )
    start = time.perf_counter()
    model.fit(x, y)
    taken = time.perf_counter() - start
    peak = harness._peak_mb()
    coefficients = model.dual_coef_
    product = np.asarray(nr.gram_operator(spec, x, x) @ coefficients)
    left = y - product - model.shift_ * coefficients
    return {
        "solve_s": taken,
        "before_first_s": times[0] - start,
        "iteration_s": float(np.median(np.diff(times))),
        "iterations": model.iterations_,
        "residual": float(np.linalg.norm(left) / np.linalg.norm(y)),
        "peak_mb": peak,
    }


def kernel_ridge(gamma, depth, n, d):
    """`KernelRidge`, from the matrix to the coefficients."""
    from sklearn.kernel_ridge import KernelRidge

    spec, x, y = problem(gamma, depth, n, d)
    before = harness._peak_mb()
    start = time.perf_counter()
    matrix = np.asarray(nr.gram(spec, x))
    computed = time.perf_counter()
    model = KernelRidge(alpha=RIDGE, kernel="precomputed").fit(matrix, y)
    taken = time.perf_counter() - computed
    peak = harness._peak_mb()
    coefficients = model.dual_coef_
    left = y - matrix @ coefficients - RIDGE * coefficients

    def largest(megabytes):
        return int(n * ((megabytes - before) / (peak - before)) ** 0.5)

    return {
        "matrix_s": computed - start,
        "solve_s": taken,
        "residual": float(np.linalg.norm(left) / np.linalg.norm(y)),
        "peak_mb": peak,
        "largest_n_here": largest(_memory() / 1e6),
        "largest_n_in_1500_mb": largest(1500),
    }


def _memory(pages="SC_PHYS_PAGES"):
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf(pages)


def alone(function, **sizes):
    """What the function returns in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, **sizes).result()


def show(name, sizes, found, folder):
    memory = f"{found['peak_mb']:6.0f} MB"
    more = "".join(
        f"  {key.removesuffix('_s').replace('_', ' ')} {seconds(value)}"
        for key, value in found.items()
        if key.endswith("_s") and key != "solve_s"
    )
    counts = "".join(
        f"  {key.replace('_', ' ')} {value:,}"
        for key, value in found.items()
        if isinstance(value, int)
    )
    print(
        f"{name:28} n = {sizes['n']:,}: {seconds(found['solve_s'])}  {memory}  "
        f"residual {found['residual']:.1e}{more}{counts}",
        flush=True,
    )
    save(note("regression", name, sizes, **found), folder)


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--points", type=int, default=20_000, help="rows of the data")
    chosen = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    n, depth, d = (300, 20, 8) if chosen.smoke else (chosen.points, 1000, 64)
    for gamma in GAMMAS:
        sizes = {"gamma": gamma, "depth": depth, "n": n, "d": d}
        found = alone(ours, **sizes, tol=1e-6)
        show(f"NTKRegressor, γ = {gamma:g}", sizes, found, chosen.save)
    fits = int((_memory("SC_AVPHYS_PAGES") / (8 * COPIES)) ** 0.5)
    for share in (1, 0.75, 0.5, 0.25):
        sizes["n"] = min(int(share * n), fits)
        try:
            found = alone(kernel_ridge, **sizes)
        except concurrent.futures.process.BrokenProcessPool:
            print(f"KernelRidge, n = {sizes['n']:,}: its process died", flush=True)
        else:
            show("KernelRidge, γ = 1", sizes, found, chosen.save)
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
