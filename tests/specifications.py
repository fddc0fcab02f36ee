"""One table of specifications: what the tests in `laws` hold for every network.

A new block comes in by itself; a new branch scale, activation or setting is one row.
"""

import numpy as np

import ntk_resnet as nr

SCALES = {
    "constant": nr.ConstantScale(0.7),
    "by_depth": nr.DepthScale(0.5),
    "decreasing": nr.DecreasingScale(),
    "balanced": nr.BalancedScale(share=0.3),
}
# Blocks whose trunk may start with phi(A x): those that begin with weights.
AFTER_AN_ACTIVATION = ("two_layer", "postactivation")


def plain_networks():
    yield "plain", nr.FeedForward(depth=3)
    yield "plain_blocks", nr.FeedForward(depth=3, trained="blocks")
    yield (
        "plain_relu_bias",
        nr.FeedForward(depth=4, bias_variance=0.2, weight_variance=1.7),
    )
    yield (
        "plain_erf_bias",
        nr.FeedForward(depth=2, activation="erf", bias_variance=0.3),
    )
    for activation in ("gelu", "tanh", "abs", "linear", "leaky_relu"):
        spec = nr.FeedForward(depth=2, activation=activation, trained="blocks")
        yield f"plain_{activation}", spec


def residual_networks():
    for block in nr.ResNet.blocks:
        for name, scale in SCALES.items():
            trained = "blocks" if name == "constant" else "all"
            yield (
                f"{block}_{name}",
                nr.ResNet(depth=3, branch_scale=scale, block=block, trained=trained),
            )
        if block in AFTER_AN_ACTIVATION:
            spec = nr.ResNet(depth=3, branch_scale=0.7, block=block)
            spec = spec.replace(input_activation=True, trained="all")
            yield f"{block}_input_activation", spec
        for activation, trained in (
            ("erf", "all"),
            ("gelu", "blocks"),
            ("relu", "all"),
        ):
            spec = nr.ResNet(
                depth=2,
                branch_scale=nr.DecreasingScale(),
                block=block,
                trained=trained,
                activation=activation,
                bias_variance=0.3,
                weight_variance=0.9,
            )
            yield f"{block}_{activation}_bias", spec
        yield (
            f"{block}_leaky_relu",
            nr.ResNet(
                depth=2, branch_scale=0.8, block=block, activation=nr.LeakyReLU(0.2)
            ),
        )


def convolutional_networks():
    yield "images_plain", nr.ConvNet(depth=3, stages=(2, 1), bias_variance=0.1)
    yield (
        "images_plain_average",
        nr.ConvNet(
            depth=2,
            kernel_size=5,
            stages=(1, 1),
            downsampling="average",
            readout="flatten",
            trained="blocks",
        ),
    )
    yield (
        "images_plain_erf",
        nr.ConvNet(depth=2, activation="erf", padding="circular", bias_variance=0.1),
    )
    for name, scale in SCALES.items():
        spec = nr.ConvResNet(depth=2, branch_scale=scale, block="postactivation")
        yield f"images_postactivation_{name}", spec
    for block in nr.ConvResNet.blocks:
        spec = nr.ConvResNet(depth=2, branch_scale=0.7, block=block)
        circular = spec.replace(padding="circular", trained="all")
        yield f"images_{block}", circular
        yield (
            f"images_{block}_stride",
            spec.replace(stages=(1, 1), branch_scale=nr.DepthScale(0.5)),
        )
        yield (
            f"images_{block}_average",
            spec.replace(
                stages=(1, 1),
                downsampling="average",
                readout="flatten",
                trained="all",
                bias_variance=0.2,
                branch_scale=nr.DecreasingScale(),
            ),
        )
        yield f"images_{block}_erf", circular.replace(activation="erf", depth=1)


SPECS = {
    **dict(plain_networks()),
    **dict(residual_networks()),
    **dict(convolutional_networks()),
}
"""Every kind of network, block, branch scale and setting, by a name."""

ROWS = [name for name, spec in SPECS.items() if not spec.takes_images]
IMAGES = [name for name, spec in SPECS.items() if spec.takes_images]


def shares_programs(name):
    """Whether its kernels are a profile's, whose programs all such networks share."""
    return name in ROWS and SPECS[name].homogeneous


_OWN = {
    *(f"{block}_erf_bias" for block in ("plain", *nr.ResNet.blocks)),
    *(f"images_{block}" for block in ("plain", *nr.ConvResNet.blocks)),
}


def is_common(name):
    """Whether `make test` puts it through the laws of one program a network.

    All that share programs, and one of each block that compiles its own.
    """
    return shares_programs(name) or name in _OWN


def is_cheap(name):
    """Whether `make test` puts it through the laws of several programs a network."""
    return shares_programs(name) or name == "plain_erf_bias"


def is_typical(name):
    """One row of the table for each fully connected block, and a plain network."""
    return name.removesuffix("_constant") in ("plain", *nr.ResNet.blocks)


def inputs(name, n=5, seed=0):
    """Inputs for a row of the table: of several norms, two of them near each other."""
    shape = (4, 4, 2) if SPECS[name].takes_images else (6,)
    x = np.random.default_rng(seed).normal(size=(n, *shape))
    x = x * np.linspace(0.6, 1.5, n).reshape(-1, *[1] * len(shape))
    x[-1] = 1.1 * x[0] + 0.02 * x[-1]
    if "tanh" in name:  # variances for which its quadrature has many digits
        x = x / np.sqrt(np.mean(x * x, axis=-1).max())
    return x
