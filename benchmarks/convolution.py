"""What kernels of images cost: `python benchmarks/convolution.py [question ...]`.

Beside neural-tangents, jitted, in float32 the blocks of a stage as one `stax.repeat`:

* pooled: residual networks of 5 and 20 blocks, 16 images of 16 x 16 x 3, mean over all
  pixels before the readout, in both precisions; on one device, and by `nr.gram` on one
  and on two; XLA computes on one device of a CPU with all cores, so that what a second
  one adds shows beside one device on one core;
* devices: by `nr.gram` in these three ways, 64 images, 20 blocks;
* flatten: the same without the mean, 64 images;
* entry: a plain network of 21 layers (20 convolutions and the readout), 32 x 32 x 3,
  pooled, and Myrtle-5: the price of an entry;
* deep: 1,000 layers and blocks, 8 x 8, what compilation takes.
"""

import os
import sys
from unittest import mock

import jax
import numpy as np
from harness import Case, Prepared, compiled, measure, publish, run_questions

import ntk_resnet as nr
from ntk_resnet.reference.stax_convolution import _Layers


def spec_of(network, depth, readout):
    if network in ("residual", "unlike"):
        scale = nr.DepthScale(0.5) if network == "residual" else nr.DecreasingScale()
        return nr.ConvResNet(depth=depth, branch_scale=scale, readout=readout)
    if network == "myrtle":
        return nr.myrtle(depth, readout=readout)
    return nr.ConvNet(depth=depth, readout=readout)


def images(n, pixels, dtype):
    x = np.random.default_rng(0).normal(size=(n, pixels, pixels, 3))
    return x.astype(dtype)


def ours(network, depth, readout, n, pixels, dtype):
    """One compiled program for the whole matrix, on one device."""
    kernel = nr.kernel_fn(spec_of(network, depth, readout))
    return compiled(kernel, jax.numpy.asarray(images(n, pixels, dtype)))


def by_gram(devices, cores, network, depth, readout, n, pixels, dtype):
    """The matrix in tiles, on so many devices of so many cores of the CPU."""
    if hasattr(os, "sched_setaffinity"):  # else with all cores
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < cores:
            raise ValueError(f"{cores} cores are asked for; there are {len(allowed)}.")
        os.sched_setaffinity(0, allowed[:cores])
    jax.config.update("jax_num_cpu_devices", devices)
    spec, x = spec_of(network, depth, readout), images(n, pixels, dtype)
    return Prepared(lambda: nr.gram(spec, x))


def theirs(network, depth, readout, n, pixels, dtype):
    """neural-tangents. `x` is given twice: with once, XLA's program for the CPU ends
    the process in a segmentation fault at these sizes."""
    kernel = nr.stax(spec_of(network, depth, readout))[2]
    x = jax.numpy.asarray(images(n, pixels, dtype))
    # With x64 on it computes in float64 in parts, whatever the inputs.
    with jax.enable_x64(dtype == "float64"):
        return compiled(lambda x: kernel(x, x, "ntk"), x)


def unrolled(**sizes):
    """neural-tangents without loops over alike layers, whose programs end likewise."""
    with one_by_one():
        return theirs(**sizes)


def one_by_one():
    """Equal layers follow one another in what `nr.stax` gives, without a loop."""
    return mock.patch.object(_Layers, "repeated", lambda _, layer, n: [layer] * n)


BOTH = {"ours": ours, "neural-tangents": theirs}
ON_DEVICES = [
    ("nr.gram, 1 device, 1 core", {"devices": 1, "cores": 1}),
    ("nr.gram, 1 device, 2 cores", {"devices": 1, "cores": 2}),
    ("nr.gram, 2 devices, 2 cores", {"devices": 2, "cores": 2}),
]
SMOKE = {"n": 2, "pixels": 8}


def compare(question, name, sizes, chosen, *, ways=BOTH, more=(), repeats=2):
    sizes = sizes | SMOKE if chosen.smoke else sizes
    cases = [Case(f"{way}, {name}", prepare, sizes) for way, prepare in ways.items()]
    cases += [Case(f"{way}, {name}", by_gram, sizes | at) for way, at in more]
    publish(measure(question, cases, repeats=repeats), chosen.save)


def pooled(chosen):
    for depth in (5, 20):
        for dtype in ("float32", "float64"):
            # In float64 XLA's program for neural-tangents' loop over alike blocks ends
            # in a segmentation fault; unlike ones cost the same, but are no loop.
            network = {"float32": "residual", "float64": "unlike"}[dtype]
            sizes = {"network": network, "depth": depth, "readout": "pool"}
            sizes |= {"n": 16, "pixels": 16, "dtype": dtype}
            name = f"{depth} blocks, {dtype}"
            compare("convolution pooled", name, sizes, chosen, more=ON_DEVICES)


def devices(chosen):
    sizes = {"network": "residual", "depth": 20, "readout": "pool"}
    sizes |= {"n": 64, "pixels": 16, "dtype": "float32"}
    how = {"ways": {}, "more": ON_DEVICES, "repeats": 3}
    compare("convolution devices", "20 blocks, float32", sizes, chosen, **how)


def flatten(chosen):
    for dtype in ("float32", "float64"):
        sizes = {"network": "residual", "depth": 5, "readout": "flatten"}
        sizes |= {"n": 64, "pixels": 16, "dtype": dtype}
        compare("convolution flatten", f"5 blocks, {dtype}", sizes, chosen, repeats=5)


def entry(chosen):
    for name, network, depth in (("21 layers", "plain", 20), ("Myrtle-5", "myrtle", 5)):
        for dtype in ("float32", "float64"):
            sizes = {"network": network, "depth": depth, "readout": "pool"}
            sizes |= {"n": 4, "pixels": 32, "dtype": dtype}
            ways = {"ours": ours}
            if (network, dtype) != ("myrtle", "float64"):  # ends the process as well
                ways["neural-tangents"] = unrolled
            compare("convolution entry", f"{name}, {dtype}", sizes, chosen, ways=ways)


def deep(chosen):
    depth = 30 if chosen.smoke else 1000
    for network in ("plain", "residual"):
        sizes = {"network": network, "depth": depth, "readout": "pool"}
        sizes |= {"n": 4, "pixels": 8, "dtype": "float32"}
        cases = [Case(f"ours, {network}", first_result, sizes)]
        publish(measure("convolution deep", cases, repeats=3), chosen.save)


def first_result(network, depth, readout, n, pixels, dtype):
    """As a user calls it: the first call compiles."""
    kernel = nr.kernel_fn(spec_of(network, depth, readout))
    x = images(n, pixels, dtype)
    return Prepared(lambda: kernel(x))


QUESTIONS = {
    "pooled": pooled,
    "devices": devices,
    "flatten": flatten,
    "entry": entry,
    "deep": deep,
}


def main(argv: list[str] | None = None) -> int:
    return run_questions(__doc__, QUESTIONS, argv)


if __name__ == "__main__":
    sys.exit(main())
