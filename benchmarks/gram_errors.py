"""How exact the entries of Gram matrices are: `python benchmarks/gram_errors.py`.

Pairs of rows are planted at known angles, down to near-duplicates, in inputs that are
rounded to the dtype; their exact kernels are those of the rounded rows, whose dot
products and recursions are computed with 50 digits. `nr.gram` by both products, and
neural-tangents beside it.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import reference
from harness import note, options, save

import ntk_resnet as nr

ANGLES = (1.0, 0.1, 0.03, 0.01, 1e-7)
NETWORKS = {
    "plain": nr.FeedForward(depth=1),
    "residual, gamma 1/2": nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5)),
}
KERNELS = ("nngp", "ntk")


def planted(angle, pairs, d, dtype):
    """Rows `(2 pairs, d)`, of many norms: row `i` and `i + pairs` at that angle."""
    rng = np.random.default_rng(0)
    first, other = rng.normal(size=(2, pairs, d))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    other -= (first * other).sum(axis=1, keepdims=True) * first
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    second = np.cos(angle) * first + np.sin(angle) * other
    norms = np.exp(rng.normal(size=(2 * pairs, 1)))
    return (norms * np.concatenate([first, second])).astype(dtype)


def exact_gaps(spec, x):
    """The gaps of both kernels for the planted pairs, as exact numbers."""
    family = spec.block if isinstance(spec, nr.ResNet) else "feed_forward"
    scales = spec.scales
    half = len(x) // 2
    found = [
        reference.gaps(
            family, reference.angle_between(a, b), scales, trained=spec.trained
        )
        for a, b in zip(x[:half], x[half:], strict=True)
    ]
    return dict(zip(KERNELS, zip(*found, strict=True), strict=True))


def by_gram(products):
    """Normalised kernels, and gaps, of the pairs by `nr.gram`."""

    def method(spec, x):
        pairs = np.arange(len(x) // 2), np.arange(len(x) // 2) + len(x) // 2
        return {
            name: nr.gram(spec, x, get=name, engine="profile", products=products)[pairs]
            for kernel in KERNELS
            for name in (kernel, f"{kernel}_gap")
        }

    return method


def by_neural_tangents(spec, x):
    """The same by neural-tangents; its gaps are one minus the normalised kernels.

    They are divided by the exact diagonals, to which the errors relate.
    """
    half, found = len(x) // 2, {}
    # With x64 on it computes in float64 whatever the inputs.
    with jax.enable_x64(x.dtype == np.float64):
        raw = _neural_tangents(spec)(jnp.asarray(x), None, KERNELS)
    for name in KERNELS:
        size = np.sqrt(nr.diag(spec, x.astype(np.float64), name))
        value = np.diagonal(np.asarray(getattr(raw, name), np.float64), half)
        found[name] = value / (size[:half] * size[half:])
        found[f"{name}_gap"] = 1 - found[name]
    return found


@functools.cache
def _neural_tangents(spec):
    return jax.jit(nr.stax(spec)[2], static_argnums=2)


METHODS = {
    "split": by_gram("split"),
    "plain": by_gram("plain"),
    "neural-tangents": by_neural_tangents,
}


def errors(found, exact):
    """Worst errors: of entries, relative to the diagonal; of gaps, to themselves."""
    worst = {"entry": 0.0}
    for kernel in KERNELS:
        gaps, name = exact[kernel], f"{kernel}_gap"
        entry = reference.absolute_error(found[kernel], [1 - gap for gap in gaps])
        worst["entry"] = max(worst["entry"], entry)
        worst[name] = reference.relative_error(found[name], gaps)
    return worst


def show(chosen) -> None:
    """Prints a line an angle, and saves it if asked to."""
    jax.config.update("jax_enable_x64", True)
    depth, pairs, d = (20, 2, 8) if chosen.smoke else (1000, 24, 64)
    networks = list(NETWORKS.items())[: 1 if chosen.smoke else None]
    print(f"{'network':20} {'dtype':8} {'by':16}{'angle':>7}   entry  NNGP gap NTK gap")
    for name, network in networks:
        spec = network.replace(depth=depth)
        for dtype in ("float64", "float32"):
            for angle in ANGLES:
                x = planted(angle, pairs, d, dtype)
                exact = exact_gaps(spec, x)
                for method, compute in METHODS.items():
                    worst = errors(compute(spec, x), exact)
                    text = " ".join(f"{error:8.1e}" for error in worst.values())
                    print(f"{name:20} {dtype:8} {method:16}{angle:7.0e} {text}")
                    sizes = {"method": method, "dtype": dtype, "angle": angle}
                    sizes |= {"depth": depth, "d": d, "pairs": pairs}
                    save(note("errors", name, sizes, **worst), chosen.save)


def main(argv: list[str] | None = None) -> int:
    show(options(__doc__).parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
