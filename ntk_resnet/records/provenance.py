"""Where a result comes from: versions, device, commit, settings."""

import contextlib
import functools
import importlib.metadata
import json
import pathlib
import platform
import subprocess
import time
from typing import Any

import numpy as np

from ntk_resnet import _version

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "neural-tangents",
    "numpy",
    "scipy",
    "xarray",
)


def provenance(**extra: Any) -> dict[str, str | int | float]:
    """Where a result comes from, as a flat dictionary for `Dataset.attrs`.

    Args:
        **extra: what the caller knows: `spec=` (a specification becomes JSON), `seed=`,
            `dtype=`, sizes; dictionaries and sequences become JSON, `None` is left out.

    Returns:
        `extra`, and: `ntk_resnet`, `python` and the versions of the packages that
        compute; `device` and `devices`; `x64` (1 if JAX's 64-bit mode is on); `commit`
        where the package is a git checkout; `time_utc` (ISO 8601).
    """
    import jax

    device = jax.devices()[0]
    result: dict[str, str | int | float] = {
        key: as_attribute(value) for key, value in extra.items() if value is not None
    }
    result |= versions()
    result |= {
        "device": f"{device.platform}: {device.device_kind}",
        "devices": jax.device_count(),
        "x64": int(jax.config.read("jax_enable_x64")),
        "time_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if commit := _commit():
        result["commit"] = commit
    return result


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the packages that compute."""
    here = {"ntk_resnet": _version.__version__, "python": platform.python_version()}
    return here | _installed()


@functools.cache  # a file of each package is read
def _installed():
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package.replace("-", "_")] = importlib.metadata.version(package)
    return found


def as_attribute(value):
    from ntk_resnet.specification.base import Specification
    from ntk_resnet.specification.json import to_json

    if isinstance(value, Specification):
        try:
            return to_json(value)
        except ValueError:  # an activation of the user's own
            return repr(value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, dict | list | tuple):
        return json.dumps(value)
    if isinstance(value, np.ndarray):
        return json.dumps(value.tolist())
    return str(value)


@functools.cache
def _commit() -> str | None:
    """Commit of the checkout this package runs from, `+` if it has been changed."""
    folder = pathlib.Path(__file__).parent.parent

    def git(*words):
        done = subprocess.run(
            ("git", "-C", str(folder), *words),
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # not some repository around
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
