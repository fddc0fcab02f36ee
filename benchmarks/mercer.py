"""Eigenvalues on the sphere against ball arithmetic: `python benchmarks/mercer.py`.

Forty scattered cases: the integral of one eigenvalue by `flint.acb.integral`, with
certified error bounds, of a recursion written down anew (Huang et al. 2020, in the
notation of Belfer et al. 2024); the time of all degrees beside that of the one. Then
the sizes of the largest runs, fitted exponents, and the imbalance of the parities.

Plain networks train their readout too, residual ones their blocks alone: the defaults.
"""

import math
import sys
import time
from typing import NamedTuple

import jax
import numpy as np
from flint import acb, arb, ctx
from harness import note, options, save, seconds

import ntk_resnet as nr
from ntk_resnet.analysis.sphere.mercer import decay_exponent, mercer, parity_imbalance

jax.config.update("jax_enable_x64", True)


class Scattered(NamedTuple):
    """One eigenvalue of ReLU networks; `gamma` is None for plain ones."""

    dim: int
    degree: int
    depth: int
    gamma: float | None
    get: str

    @property
    def spec(self) -> nr.FeedForward | nr.ResNet:
        if self.gamma is None:
            return nr.FeedForward(depth=self.depth)
        return nr.ResNet(depth=self.depth, branch_scale=nr.DepthScale(self.gamma))


def scattered(count: int) -> list[Scattered]:
    """Dimensions 2 to 1,000, degrees to 120, depths to 100."""
    rng = np.random.default_rng(0)
    found = []
    for at in range(count):
        dim = round(2 * 500 ** rng.random())
        degree = round(2 * min(60, 2000 / dim) ** rng.random())
        depth = round(2 * 50 ** rng.random())
        gamma = (None, 0.5, 0.75, 1.0, 0.0)[at % 5]
        found.append(Scattered(dim, degree, depth, gamma, ("ntk", "nngp")[at % 3 == 2]))
    return found


# --------------------------------------------------------------------- ball arithmetic


def certified(case: Scattered) -> arb:
    """The eigenvalue as a ball that is proven to hold it."""
    dim, k = case.dim, case.degree
    ways = 1 if k == 0 else (2 * k + dim - 2) * math.comb(k + dim - 3, dim - 2) // k
    target = math.log2(ways) + 8 * math.log2(k + dim) + 50  # bits below 1
    scale = None if case.gamma is None else float(case.spec.scales[0])
    end = math.ceil(target / (dim - 1))  # at both ends 2^-end is left out
    # The polynomials' terms cancel by up to (1 + sqrt 2)^2 a degree.
    with ctx.workprec(math.ceil(target) + 2 * end + 3 * k + 40):
        nu = arb(dim - 2) / 2

        def integrand(x, analytic):
            # As it loses no digits next to 0 and to pi.
            low = x.real.mid() < 1.5
            u = 1 - 2 * (x / 2).sin() ** 2 if low else 2 * (x / 2).cos() ** 2 - 1
            value = u.gegenbauer_c(k, acb(nu)) if dim > 2 else u.chebyshev_t(k)
            value *= _kernel(u, case.depth, scale, case.get, analytic)
            return value * x.sin() ** (dim - 2)

        cut = arb(2) ** -end
        small = arb(2) ** -math.ceil(target)
        norm = acb(1).gegenbauer_c(k, acb(nu)).real if dim > 2 else arb(1)
        total = acb.integral(
            integrand,
            acb(cut),
            acb(arb.pi() - cut),
            rel_tol=small,
            abs_tol=small * norm,
            eval_limit=10**6,
        )
        # |K P| <= 1, and sin x <= x.
        rest = arb(0, (2 * cut ** (dim - 1) / (dim - 1)).upper())
        measure = (nu + 1).gamma() / ((nu + arb(0.5)).gamma() * arb.pi().sqrt())
        return measure * (total.real / norm + rest)


def _kernel(u, depth, scale, get, analytic):
    """The normalised kernel: of the plain network, or the residual one."""
    square = acb(0) if scale is None else acb(scale) ** 2
    total = u if scale is None else acb(0)
    for _ in range(depth):
        kappa0, kappa1 = _arc_cosine(u, analytic)
        if scale is None:
            total, u = kappa1 + kappa0 * total, kappa1
        else:
            total *= (1 + square * kappa0) / (1 + square)
            total += kappa1 + u * kappa0
            u = (u + square * kappa1) / (1 + square)
    if get == "nngp":
        return u
    return total / (depth + 1 if scale is None else 2 * depth)


def _arc_cosine(u, analytic):
    """kappa_0 and kappa_1; the second by the mean value theorem, since it is kappa_1'
    = kappa_0: its ball does not grow with depth."""
    if analytic and u.imag.contains(0) and not abs(u.real) < 1:
        nowhere = acb("nan")
        return nowhere, nowhere
    kappa0 = (acb.pi() - u.acos()) / acb.pi()
    middle = acb(u.real.mid(), u.imag.mid())
    angle = middle.acos()
    kappa1 = (angle.sin() + middle * (acb.pi() - angle)) / acb.pi()
    return kappa0, kappa1 + kappa0 * (u - middle)


class Compared(NamedTuple):
    """Our relative error at most, and the times of both ways."""

    error: float
    ours_s: float
    certified_s: float


def compare(case: Scattered) -> Compared:
    start = time.perf_counter()
    result = mercer(case.spec, dim=case.dim, max_degree=case.degree, get=case.get)
    ours = float(result.log10_eigenvalue[case.degree])
    value = float(result.eigenvalue[case.degree])
    middle = time.perf_counter()
    ball = certified(case)
    end = time.perf_counter()
    with ctx.workprec(128):
        if value >= sys.float_info.min:
            error = float((arb(value) / ball - 1).abs_upper())
        elif ours == -math.inf:  # an exact zero: the ball must hold it
            error = 0.0 if ball.contains(0) else math.inf
        else:  # below the range of float64: by the logarithm
            change = arb(ours) * arb.const_log10() - ball.log()
            error = float(change.abs_upper())
    return Compared(error, middle - start, end - middle)


# -------------------------------------------------------------------------- the command

_LARGE = (  # dim, max_degree, depth
    (10, 200, 100),
    (3, 1000, 100),
    (1000, 100, 1000),
    (1000, 1000, 1000),
)


def main(argv: list[str] | None = None) -> int:
    chosen = options(__doc__).parse_args(argv)
    _certify(4 if chosen.smoke else 40, chosen.save)
    for sizes in [(3, 20, 10)] if chosen.smoke else _LARGE:
        _time(*sizes, chosen.save)
    for dim in (3,) if chosen.smoke else (2, 3, 4, 6):
        _exponents(dim, chosen.save)
    _imbalance(chosen.save)
    return 0


def _certify(count, folder):
    worst, times = 0.0, [0.0, 0.0]
    for case in scattered(count):
        found = compare(case)
        print(
            f"mercer   {tuple(case)!s:34} error {found.error:8.1e}  all degrees "
            f"{seconds(found.ours_s):>8}  certified {seconds(found.certified_s):>8}",
            flush=True,
        )
        worst = max(worst, found.error)
        times = [a + b for a, b in zip(times, found[1:], strict=True)]
    print(f"mercer   worst of {count}: {worst:.1e}, {times[0]:.3g} s, {times[1]:.3g} s")
    record = {"worst": worst, "ours_s": times[0], "certified_s": times[1]}
    save(note("mercer", "against ball arithmetic", {"cases": count}, **record), folder)


def _time(dim, max_degree, depth, folder):
    spec = nr.FeedForward(depth=depth)
    start = time.perf_counter()
    result = mercer(spec, dim=dim, max_degree=max_degree)
    record = {
        "seconds": time.perf_counter() - start,
        "change": float(result.error),
        "last_log10": float(result.log10_eigenvalue[-1]),
        "bits": result.attrs["bits"],
        "nodes": result.attrs["nodes"],
    }
    sizes = {"dim": dim, "max_degree": max_degree, "depth": depth}
    print(f"mercer   {sizes} {record}", flush=True)
    save(note("mercer", "time, FeedForward", sizes, **record), folder)


def _exponents(dim, folder):
    for name, spec in {
        "FeedForward": nr.FeedForward(depth=3),
        "ResNet": nr.ResNet(depth=10, branch_scale=nr.DepthScale(0.5)),
    }.items():
        for get in ("ntk", "nngp"):
            result = mercer(spec, dim=dim, max_degree=120, get=get)
            fit = decay_exponent(result, (40, 120))
            predicted = float(result.predicted_exponent)
            print(
                f"mercer   {name} {get} d={dim}: exponent {fit.exponent:.4f} in "
                f"[{fit.low:.4f}, {fit.high:.4f}], predicted {predicted:g}",
                flush=True,
            )
            sizes = {"dim": dim, "get": get}
            record = {"exponent": fit.exponent, "predicted": predicted}
            save(note("mercer", f"exponent, {name}", sizes, **record), folder)


def _imbalance(folder):
    for gamma, expected in ((0.5, 0.187), (0.75, 0.047), (1.0, 0.0086)):
        spec = nr.ResNet(depth=50, branch_scale=nr.DepthScale(gamma))
        ratio = float(parity_imbalance(mercer(spec, dim=3, max_degree=3))[0])
        print(f"mercer   gamma {gamma}: mu_3 / mu_2 = {ratio:.4g}, known {expected}")
        record = {"ratio": ratio, "known": expected}
        save(note("mercer", "parity imbalance", {"gamma": gamma}, **record), folder)


if __name__ == "__main__":
    sys.exit(main())
