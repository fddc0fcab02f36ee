"""What empirical kernels cost: `python benchmarks/empirical.py [question ...]`.

The NTK of a finite network beside neural-tangents' three ways, on the same network, a
plain function of its weights:

* dense: 8 hidden layers of width 1,024, 128 inputs, one output;
* resnet: the layout of ResNet-18 at base width 16, 32 images of 32 x 32 x 3, the kernel
  of all pairs of 10 outputs;
* device: the dense network of Novak, Sohl-Dickstein & Schoenholz 2022 (3 hidden layers
  of width 2,048, 3,072 columns, 16 inputs, 8 outputs), on an accelerator if there is
  one;
* agreement: in double precision, with Jacobian contraction, on smaller networks.
"""

import functools
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from harness import Case, compiled, measure, note, publish, run_questions, save

from ntk_resnet import neural_tangents as nt
from ntk_resnet.finite import empirical_ntk

WAYS = {
    "Jacobian contraction": 1,
    "NTK-vector products": 2,
    "structured derivatives": 3,
}


# -------------------------------------------------------------------- the networks


def dense(params, x):
    """ReLU layers and a readout."""
    *hidden, readout = params
    for weight, bias in hidden:
        x = jax.nn.relu(x @ weight + bias)
    return x @ readout


def dense_params(rng, columns, width, depth, outputs):
    sizes = [columns, *[width] * depth]
    hidden = [
        (_weight(rng, (a, b), a), np.zeros(b)) for a, b in itertools.pairwise(sizes)
    ]
    return [*hidden, _weight(rng, (width, outputs), width)]


def resnet(params, x):
    """Blocks of two convolutions, halved where they project, and pooled at the end."""
    x = jax.nn.relu(_conv(x, params["first"]))
    for first, second, projection in params["blocks"]:
        stride = 1 if projection is None else 2
        branch = _conv(jax.nn.relu(_conv(x, first, stride)), second)
        x = x if projection is None else _conv(x, projection, stride)
        x = jax.nn.relu(x + branch)
    return x.mean((1, 2)) @ params["readout"]


def resnet_params(rng, channels, width, stages, outputs):
    blocks, before = [], width
    for stage in range(stages):
        after = width * 2**stage
        for size in (before, after):
            halved = size != after
            blocks.append(
                (
                    _weight(rng, (3, 3, size, after), 9 * size),
                    _weight(rng, (3, 3, after, after), 9 * after),
                    _weight(rng, (1, 1, size, after), size) if halved else None,
                )
            )
        before = after
    return {
        "first": _weight(rng, (3, 3, channels, width), 9 * channels),
        "blocks": blocks,
        "readout": _weight(rng, (before, outputs), before),
    }


def _conv(x, weight, stride=1):
    names = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, weight, (stride, stride), "SAME", dimension_numbers=names
    )


def _weight(rng, shape, fan_in):
    return rng.normal(size=shape) * np.sqrt(2 / fan_in)


NETWORKS = {
    "dense": (dense, dense_params, ("columns", "width", "depth", "outputs")),
    "resnet": (resnet, resnet_params, ("channels", "width", "stages", "outputs")),
}


def model_and_rows(network, rows, dtype="float32", pixels=None, **sizes):
    """`(apply, params)` and the inputs."""
    rng = np.random.default_rng(0)
    apply, make, names = NETWORKS[network]
    params = make(rng, *(sizes[name] for name in names))
    shape = (sizes[names[0]],) if pixels is None else (pixels, pixels, sizes[names[0]])
    x = rng.normal(size=(rows, *shape))
    params, x = jax.tree.map(lambda v: jnp.asarray(v, dtype), (params, x))
    return (apply, params), x


# -------------------------------------------------------------------- what is timed


def ours(**sizes):
    """`empirical_ntk`."""
    (apply, params), x = model_and_rows(**sizes)
    return compiled(lambda params, x: empirical_ntk((apply, params), x), params, x)


def theirs(implementation, **sizes):
    """`nt.empirical_ntk_fn`, every pair of outputs."""
    (apply, params), x = model_and_rows(**sizes)
    kernel = nt.empirical_ntk_fn(apply, trace_axes=(), implementation=implementation)
    # Beside it and not by it: with x64 on it computes in float64 whatever the inputs.
    with jax.enable_x64(False):
        params, x = jax.tree.map(lambda v: jnp.asarray(v, "float32"), (params, x))
        return compiled(lambda params, x: kernel(x, None, params), params, x)


# -------------------------------------------------------------------- the questions

SIZES = {
    "dense": {
        "network": "dense",
        "rows": 128,
        "columns": 64,
        "width": 1024,
        "depth": 8,
        "outputs": 1,
    },
    "resnet": {
        "network": "resnet",
        "rows": 32,
        "pixels": 32,
        "channels": 3,
        "width": 16,
        "stages": 4,
        "outputs": 10,
    },
    "device": {
        "network": "dense",
        "rows": 16,
        "columns": 3072,
        "width": 2048,
        "depth": 3,
        "outputs": 8,
    },
}
SMALL = {"rows": 4, "width": 8, "depth": 2, "stages": 2, "pixels": 8, "outputs": 2}


def compare(question, chosen):
    """The time and memory of all ways, side by side."""
    smoke = chosen.smoke
    if question == "device" and jax.default_backend() == "cpu" and not smoke:
        return
    sizes = smaller(SIZES[question]) if smoke else SIZES[question]
    cases = [Case("ours", ours, sizes)]
    for name, number in WAYS.items():
        cases.append(Case(name, theirs, sizes | {"implementation": number}))
    # Two rounds: they take minutes each.
    publish(measure(f"empirical {question}", cases, repeats=2), chosen.save)


def smaller(sizes):
    return {name: SMALL.get(name, size) for name, size in sizes.items()}


def agree(chosen):
    """The largest difference from Jacobian contraction, over the largest entry."""
    for question in ("dense", "resnet"):
        sizes = SIZES[question] | {"rows": 6, "width": 64 if question == "dense" else 4}
        sizes = (smaller(sizes) if chosen.smoke else sizes) | {"dtype": "float64"}
        with jax.enable_x64():
            (apply, params), x = model_and_rows(**sizes)
            want = nt.empirical_ntk_fn(apply, trace_axes=(), implementation=1)(
                x, None, params
            )
            found = empirical_ntk((apply, params), x)
        off = float(abs(found - want).max() / abs(want).max())
        record = note("empirical agreement", question, sizes, largest_difference=off)
        print(f"agreement, {question}: {off:.1e}")
        save(record, chosen.save)


QUESTIONS = {
    **{question: functools.partial(compare, question) for question in SIZES},
    "agreement": agree,
}


def main(argv: list[str] | None = None) -> int:
    return run_questions(__doc__, QUESTIONS, argv)


if __name__ == "__main__":
    sys.exit(main())
