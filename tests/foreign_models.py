"""Networks as their users write them, none of them ours, for tools of any model."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx


class LinenResNet(linen.Module):
    """A small convolutional ResNet with batch normalisation."""

    channels: int = 4
    classes: int = 3

    @linen.compact
    def __call__(self, x, train: bool = False):
        def norm(name):
            return linen.BatchNorm(use_running_average=not train, name=name)

        x = linen.Conv(self.channels, (3, 3), use_bias=False)(x)
        x = linen.relu(norm("first")(x))
        for block, strides in enumerate((1, 2)):
            y = linen.Conv(self.channels * strides, (3, 3), strides, use_bias=False)(x)
            y = linen.relu(norm(f"a{block}")(y))
            y = linen.Conv(self.channels * strides, (3, 3), use_bias=False)(y)
            y = norm(f"b{block}")(y)
            if strides > 1:
                x = linen.Conv(self.channels * strides, (1, 1), strides)(x)
            x = linen.relu(x + y)
        return linen.Dense(self.classes)(x.mean(axis=(1, 2)))


class Block(nnx.Module):
    """A residual block with dropout."""

    def __init__(self, features, rngs):
        self.dense1 = nnx.Linear(features, 2 * features, rngs=rngs)
        self.dense2 = nnx.Linear(2 * features, features, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, x):
        return x + self.dense2(self.dropout(nnx.gelu(self.dense1(x))))


class DropoutNet(nnx.Module):
    """Blocks in a list."""

    def __init__(self, inputs, features, classes, blocks, rngs):
        self.embed = nnx.Linear(inputs, features, rngs=rngs)
        self.blocks = nnx.List([Block(features, rngs) for _ in range(blocks)])
        self.head = nnx.Linear(features, classes, rngs=rngs)

    def __call__(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class ScannedNet(nnx.Module):
    """Blocks stacked by `nnx.vmap`, and gone through by `nnx.scan`."""

    def __init__(self, inputs, features, classes, blocks, rngs):
        @nnx.split_rngs(splits=blocks)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def stack(rngs):
            return Block(features, rngs)

        self.embed = nnx.Linear(inputs, features, rngs=rngs)
        self.blocks = stack(rngs)
        self.head = nnx.Linear(features, classes, rngs=rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def forward(x, block):
            return block(x)

        return self.head(forward(self.embed(x), self.blocks))


def rows(n=6):
    return np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32)


def images(n=4):
    return np.random.default_rng(0).normal(size=(n, 8, 8, 3)).astype(np.float32)


def linen_resnet():
    """The model, and inputs for it; its statistics as after some training."""
    module, x = LinenResNet(), images()
    variables = module.init(jax.random.key(0), x)
    _, moved = module.apply(variables, 2 * x + 0.3, train=True, mutable=["batch_stats"])
    return (module, {**variables, **moved}), x


def dropout_net():
    model = DropoutNet(5, 8, 3, blocks=3, rngs=nnx.Rngs(0))
    model.eval()
    return model, rows()


def scanned_net():
    model = ScannedNet(5, 8, 3, blocks=3, rngs=nnx.Rngs(0))
    model.eval()
    return model, rows()


FOREIGN = {"linen": linen_resnet, "dropout": dropout_net, "scan": scanned_net}


def outputs_of(model, x):
    """As the user of the model has them."""
    if isinstance(model, tuple):
        module, variables = model
        return module.apply(variables, jnp.asarray(x))
    return model(jnp.asarray(x))
