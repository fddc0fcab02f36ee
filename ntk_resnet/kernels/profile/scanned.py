"""Tables of any network, by the recursion; those that took long are kept on disk."""

import concurrent.futures
import contextlib

import jax
import numpy as np
import xarray as xr

from ntk_resnet.kernels.profile.build import build
from ntk_resnet.kernels.profile.lookup import Both, Tables
from ntk_resnet.records.cache import cached
from ntk_resnet.records.provenance import provenance
from ntk_resnet.specification.base import Specification


def tables(spec: Specification, input_kernel: float, accuracy: float) -> Tables:
    """The tables of both kernels, to a relative accuracy.

    Raises:
        ValueError: there are none.
    """
    about = {"spec": spec, "input_kernel": input_kernel, "accuracy": accuracy}

    def compute():
        # A thread of its own knows nothing of a trace that the caller may be in.
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            built = thread.submit(_built, *about.values()).result()
        return _to_dataset(built).assign_attrs(provenance(**about))

    return _from_dataset(cached("profile", "kernels", about, compute))


def _built(spec, input_kernel, accuracy):
    """In float64 and on the host, whatever the caller's settings."""
    with jax.enable_x64(), _on_host():
        return build(spec, input_kernel, accuracy)


def _on_host():
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to have no CPU
        return contextlib.nullcontext()


_NUMBERS = ("log_nngp_diag", "log_ntk_diag", "error")


def _to_dataset(tables):
    return xr.Dataset(
        {
            "offsets": ("side", tables.offsets),
            "powers": (("kernel", "side"), np.array(tables.powers)),
            **{name: getattr(tables, name) for name in _NUMBERS},
            **{
                name: (("term", "row"), coefficients)
                for name, coefficients in tables.coefficients._asdict().items()
            },
        }
    )


def _from_dataset(dataset):
    return Tables(
        **{name: dataset[name].item() for name in _NUMBERS},
        powers=Both(*map(tuple, dataset.powers.values.tolist())),
        offsets=dataset.offsets.values,
        coefficients=Both(*(dataset[name].values for name in Both._fields)),
    )
