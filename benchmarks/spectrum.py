"""How all eigenvalues are distributed, by products: `python benchmarks/spectrum.py`.

Random points on a sphere, a deep residual kernel. Stochastic Lanczos quadrature beside
all eigenvalues of the matrix in memory; then more points, where nobody wants those.

How the distributions are judged: where each eigenvalue has a weight of its own, as it
has for random probes, the largest deviation of the cumulative distribution, over all
values, has Kolmogorov's distribution in units of `sqrt(2 / (n probes))`. The claim is
that it is at most 3 standard errors, those of the place where they are largest (the
middle, `sqrt(1 / (2 n probes))`): a perfect quadrature fails it in 2.2 % of all runs.
"""

import sys
import time

import jax
import numpy as np
from harness import note, options, save, seconds
from scipy import stats

import ntk_resnet as nr
from ntk_resnet.analysis.spectrum import spectral_distribution

SPEC = nr.ResNet(depth=1000, branch_scale=nr.DepthScale(0.5))
LEVELS = 10.0 ** -np.arange(1, 6)  # of an eigenvalue over n


def timed(function):
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def against_dense(x, probes, steps):
    """Both distributions at all eigenvalues: the record, and the sampled result."""
    dense, dense_s = timed(lambda: nr.spectrum(nr.gram(SPEC, x)))
    operator = nr.gram_operator(SPEC, x)
    found, slq_s = timed(
        lambda: nr.spectrum(operator, probes=probes, steps=steps, seed=1)
    )
    values, n = np.sort(dense.eigenvalue.values), len(x)
    sampled = spectral_distribution(found, values)
    # The sampled one is continuous: it is compared with either side of each step.
    step = np.arange(1, n + 1) / n
    off = np.maximum(abs(sampled.share - step), abs(sampled.share - step + 1 / n))
    largest, error = float(off.max()), np.sqrt(0.5 / n / probes)
    logs = float(found.log_determinant - dense.log_determinant)
    record = {
        "dense_s": dense_s,
        "slq_s": slq_s,
        "largest_difference": largest,
        "standard_errors": largest / error,
        "standard_errors_measured": largest / float(sampled.standard_error.max()),
        "kolmogorov_p": float(stats.kstwobign.sf(largest * np.sqrt(n * probes / 2))),
        "log_determinant_off": logs / float(found.log_determinant_error),
    }
    return record, found


def beside(found, n):
    """The leading eigenvalues over n, and how many there are above each level."""
    shares = spectral_distribution(found, LEVELS[::-1] * n)
    return {
        "leading": np.round(found.eigenvalue.values / n, 6).tolist(),
        "above": (n * (1 - shares.share.values)).round(1).tolist(),
        "above_error": (n * shares.standard_error.values).round(1).tolist(),
        "residual": float(found.residual.max()),
    }


def main(argv: list[str] | None = None) -> int:
    chosen = options(__doc__).parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    small, large, dim = (200, 300, 10) if chosen.smoke else (4000, 20_000, 10)
    probes, steps, few = (4, 60, 2) if chosen.smoke else (16, 200, 4)
    x = np.random.default_rng(0).normal(size=(large, dim))
    sizes = {"n": small, "dim": dim, "probes": probes, "steps": steps}
    record, found = against_dense(x[:small], probes, steps)
    print(
        f"n = {small}: largest difference {record['largest_difference']:.2e}, "
        f"{record['standard_errors']:.2f} standard errors "
        f"({record['standard_errors_measured']:.2f} measured ones), Kolmogorov p = "
        f"{record['kolmogorov_p']:.2f}; ln det off by "
        f"{record['log_determinant_off']:+.2f} of its standard errors; dense "
        f"{seconds(record['dense_s'])}, by products {seconds(record['slq_s'])}",
        flush=True,
    )
    save(note("spectrum", "against dense", sizes, **record), chosen.save)
    results = [(small, probes, steps, found, record["slq_s"])]
    operator = nr.gram_operator(SPEC, x)
    steps = steps // 2
    found, taken = timed(lambda: nr.spectrum(operator, probes=few, steps=steps, seed=1))
    results.append((large, few, steps, found, taken))
    print(f"eigenvalues over n; how many above {LEVELS[::-1].tolist()}")
    for n, probes, steps, found, taken in results:
        shown = beside(found, n)
        pairs = zip(shown["above"], shown["above_error"], strict=True)
        print(
            f"n = {n:6} ({seconds(taken)}): {shown['leading'][:6]}; "
            + ", ".join(f"{count} ± {error}" for count, error in pairs),
            flush=True,
        )
        sizes = {"n": n, "dim": dim, "probes": probes, "steps": steps}
        record = note("spectrum", "eigenvalues over n", sizes, slq_s=taken, **shown)
        save(record, chosen.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
