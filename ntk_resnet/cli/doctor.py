"""Whether the parts this package stands on work here: what `ntk-resnet doctor` runs."""

import pathlib
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

_REFERENCE = 0.228570  # plain, depth 2, right angle; by an independent recursion
_X = np.eye(2)


class Finding(NamedTuple):
    """What one check found."""

    check: str
    works: bool
    detail: str


def examine() -> list[Finding]:
    """Runs all checks; one that raises has found that something does not work."""
    return [_try(name, check) for name, check in _CHECKS.items()]


def _try(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except Exception as error:  # that is what it is here to find
        reason = str(error).strip().splitlines() or [""]
        return Finding(name, False, f"{type(error).__name__}: {reason[0]}")


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise RuntimeError(otherwise)


def _devices() -> str:
    import jax
    import jax.numpy as jnp

    total = float(jnp.sum(jnp.arange(4.0) @ jnp.ones((4, 4))))
    _expect(total == 24, f"a product gives {total} instead of 24")
    return ", ".join(f"{d.platform}: {d.device_kind}" for d in jax.devices())


def _kernel(engine: Any) -> str:
    from ntk_resnet.kernels.function import kernel_fn
    from ntk_resnet.specification.networks import FeedForward

    value = float(kernel_fn(FeedForward(depth=2), engine=engine)(_X)[0, 1])
    _expect(abs(value - _REFERENCE) < 1e-6, f"{value} instead of {_REFERENCE}")
    return f"NTK of a plain network, depth 2, right angle: {value:.9f}"


def _network() -> str:
    from flax import nnx

    from ntk_resnet import finite
    from ntk_resnet.specification.networks import FeedForward

    model = finite.build(FeedForward(depth=2), 2, 16, rngs=nnx.Rngs(0))
    shape = finite.empirical_ntk(model, _X.astype(np.float32), outputs="mean").shape
    _expect(shape == (2, 2), f"an empirical NTK of shape {shape}")
    return "Flax network built, empirical NTK computed"


def _store() -> str:
    import xarray as xr

    from ntk_resnet.records import results as records

    with tempfile.TemporaryDirectory() as folder:
        dataset = xr.Dataset({"a": ("b", [1.0, 2.0])})
        path = records.save(dataset, pathlib.Path(folder) / "a.zarr")
        _expect(records.load(path).identical(dataset), "other numbers read than saved")
    return "a zarr store written and read back"


_CHECKS: dict[str, Callable[[], str]] = {
    "JAX computes": _devices,
    "closed forms": lambda: _kernel("recursion"),
    "neural-tangents": lambda: _kernel("neural_tangents"),
    "finite networks": _network,
    "storage": _store,
}
