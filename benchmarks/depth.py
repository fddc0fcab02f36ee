"""Every depth 1..L on a grid of angles: `python benchmarks/depth.py`.

`nr.sweep_depth` for all the depths; beside it neural-tangents at ten of them, in its
strongest form for depth: `stax.repeat`, whose compilation does not grow with depth, all
ten under one jit.

Plain networks train their readout too, residual ones their blocks alone: the defaults.
"""

import sys

import jax.numpy as jnp
import numpy as np
from harness import Case, Prepared, compiled, measure, options, publish

import ntk_resnet as nr

FAMILIES = {
    "FeedForward": nr.FeedForward(depth=1),
    "ResNet, γ = 1/2": nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5)),
    "ResNet, γ = 1": nr.ResNet(depth=1, branch_scale=nr.DepthScale(1.0)),
}


def ours(family, deepest, angles, dtype):
    """Both kernels at all depths 1..deepest."""
    grid = np.linspace(0, np.pi, angles, dtype=dtype)
    spec, depths = FAMILIES[family], range(1, deepest + 1)
    sweep_depth = nr.sweep_depth  # imported here, not in the first run
    return Prepared(lambda: sweep_depth(spec, depths, angles=grid).ntk.values)


def neural_tangents(family, deepest, angles, dtype):
    """Both kernels at ten depths from 1 to deepest."""
    grid = np.linspace(0, np.pi, angles)
    x1 = jnp.asarray([[1.0, 0.0]], dtype)
    x2 = jnp.asarray(np.stack([np.cos(grid), np.sin(grid)], axis=1), dtype)
    depths = np.linspace(1, deepest, 10).round().astype(int).tolist()
    kernels = [nr.stax(FAMILIES[family].replace(depth=depth))[2] for depth in depths]
    return compiled(
        lambda x1, x2: [kernel(x1, x2, ("nngp", "ntk")) for kernel in kernels], x1, x2
    )


def main(argv: list[str] | None = None) -> int:
    chosen = options(__doc__).parse_args(argv)
    deepest, angles, repeats = (12, 4, 2) if chosen.smoke else (1000, 64, 7)
    for family in list(FAMILIES)[: 1 if chosen.smoke else None]:
        sizes = {
            "family": family,
            "deepest": deepest,
            "angles": angles,
            "dtype": "float64",
        }
        cases = [
            Case(f"{family}, all depths", ours, sizes),
            Case(f"{family}, neural-tangents, 10 depths", neural_tangents, sizes),
        ]
        publish(measure("depth", cases, repeats=repeats), chosen.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
