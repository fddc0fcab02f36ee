"""How exact the closed forms are: `make accuracy` prints it.

First the gaps of both kernels against 50-digit arithmetic, the worst over a set of
angles for each family, depth and dtype; then the raw kernels against neural-tangents.
"""

import sys

import jax
import numpy as np
import reference
from harness import note, options, save

import ntk_resnet as nr

SMALLEST = {np.float64: 1e-6, np.float32: 1e-3}
FAMILIES = {
    "plain": nr.FeedForward(depth=1),
    "plain, readout frozen": nr.FeedForward(depth=1, trained="blocks"),
    "plain, absolute value": nr.FeedForward(depth=1, activation="abs"),
    "plain, leaky ReLU": nr.FeedForward(depth=1, activation="leaky_relu"),
    "residual, gamma 1": nr.ResNet(depth=1, branch_scale=nr.DepthScale(1.0)),
    "residual, gamma 1/2": nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5)),
    "residual, gamma 1/4": nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.25)),
    "residual, constant 1": nr.ResNet(depth=1, branch_scale=1.0),
    "residual, decreasing": nr.ResNet(depth=1, branch_scale=nr.DecreasingScale()),
    "residual, all trained": nr.ResNet(
        depth=1, branch_scale=nr.DepthScale(0.5), trained="all"
    ),
    "pre-activation": nr.ResNet(
        depth=1, branch_scale=nr.DepthScale(0.5), block="preactivation"
    ),
    "post-activation": nr.ResNet(
        depth=1, branch_scale=nr.DepthScale(1.0), block="postactivation"
    ),
    "full pre-activation": nr.ResNet(
        depth=1, branch_scale=nr.DepthScale(0.5), block="full_preactivation"
    ),
    "residual, both over the root of 2": nr.ResNet(
        depth=1, branch_scale=nr.BalancedScale()
    ),
    "residual, absolute value": nr.ResNet(
        depth=1, branch_scale=nr.DepthScale(1.0), activation="abs"
    ),
}


def angles_of(dtype):
    """From the smallest promised angle to pi, both ends approached."""
    low = SMALLEST[dtype]
    near_pi = [np.pi - 0.1, np.pi - low, np.pi]
    return np.array([low, 30 * low, 0.3, 1, 1.5707, 2.5, *near_pi], dtype)


def gap_errors(spec, angles):
    """Worst relative error of (nngp_gap, ntk_gap) over the angles, one network."""
    dtype = angles.dtype
    found = nr.sweep_depth(spec, spec.depth, angles=angles).isel(depth=0)
    exact = [
        reference.gaps_of(spec, angle, spec.scales.astype(dtype))  # as it receives them
        for angle in angles
    ]
    return tuple(
        reference.relative_error(gap.values, [pair[i] for pair in exact])
        for i, gap in enumerate((found.nngp_gap, found.ntk_gap))
    )


def neural_tangents_error(spec):
    """Worst difference of raw kernels, over the diagonals, at unequal norms,
    float64."""
    rng = np.random.default_rng(0)
    x1, x2 = (
        rng.normal(size=(6, 5)) * np.geomspace(0.3, 3, 6)[:, None],
        rng.normal(size=(4, 5)),
    )
    errors = []
    for get in ("nngp", "ntk"):
        ours = nr.kernel_fn(spec, normalised=False)(x1, x2, get)
        theirs = nr.kernel_fn(spec, normalised=False, engine="neural_tangents")(
            x1, x2, get
        )
        size = np.sqrt(np.outer(nr.diag(spec, x1, get), nr.diag(spec, x2, get)))
        errors.append(float((np.abs(ours - theirs) / size).max()))
    return tuple(errors)


def rows(families, depths, shallow):
    """(against, network, dtype, depth, nngp error, ntk error), as they are found."""
    for name in families:
        for dtype in (np.float64, np.float32):
            for depth in depths:
                spec = FAMILIES[name].replace(depth=depth)
                nngp, ntk = gap_errors(spec, angles_of(dtype))
                yield "50 digits", name, dtype.__name__, depth, nngp, ntk
    for name in families:
        if getattr(FAMILIES[name], "block", "") == "postactivation":
            continue  # neural-tangents has no kernel
        for depth in shallow:
            nngp, ntk = neural_tangents_error(FAMILIES[name].replace(depth=depth))
            yield "neural-tangents", name, "float64", depth, nngp, ntk


def main(argv: list[str] | None = None) -> int:
    """Prints the table as it is computed."""
    parser = options(__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 1000, 30_000])
    chosen = parser.parse_args(argv)
    wanted = (FAMILIES, chosen.depths, (3, 64))
    if chosen.smoke:
        wanted = (("plain", "residual, gamma 1/2"), (2,), (3,))
    jax.config.update("jax_enable_x64", True)
    print(
        f"{'against':16} {'network':25} {'dtype':8} {'depth':>6} {'nngp':>9} {'ntk':>9}"
    )
    for against, name, dtype, depth, nngp, ntk in rows(*wanted):
        print(
            f"{against:16} {name:25} {dtype:8} {depth:6} {nngp:9.1e} {ntk:9.1e}",
            flush=True,
        )
        sizes = {"against": against, "dtype": dtype, "depth": depth}
        save(note("accuracy", name, sizes, nngp=nngp, ntk=ntk), chosen.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
