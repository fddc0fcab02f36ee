"""What a stored matrix is of, told exactly, and how two of them differ, in words."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from ntk_resnet.records.code import code_digest
from ntk_resnet.records.content import digest
from ntk_resnet.records.provenance import versions
from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.json import to_json

_SAME = "that of x1"


def identity_of(
    spec: Specification,
    x1: Float[Array, "n1 ..."] | Float[np.ndarray, "n1 ..."],
    x2: Float[Array, "n2 ..."] | Float[np.ndarray, "n2 ..."] | None = None,
    **more: str | int | float,
) -> dict[str, str | int | float]:
    """What decides the numbers in a Gram matrix, as a flat dictionary.

    Args:
        spec: the network.
        x1: inputs of the rows.
        x2: inputs of the columns; `None` where they are those of the rows.
        **more: what else decides: `kernel=`, `normalised=`, ...

    Returns:
        `spec` (JSON), `x1_sha256` and `x2_sha256` (of values, dtype and shape), `more`,
        and the versions of what computes: `ntk_resnet`, `code_sha256`, `jax`, `jaxlib`,
        `numpy`.

    Raises:
        ValueError: the network has no JSON form (an activation of the user's own), so
            that a later run could not tell it from another.
    """
    try:
        text = to_json(spec)
    except ValueError as error:
        raise ValueError(
            f"spec cannot be named in a store: {error} Compute in memory instead."
        ) from None
    found = versions()
    computes = ("ntk_resnet", "jax", "jaxlib", "numpy")
    return {
        "spec": text,
        "x1_sha256": digest(np.asarray(x1)),
        "x2_sha256": _SAME if x2 is None else digest(np.asarray(x2)),
        **more,
        **{name: found[name] for name in computes},
        "code_sha256": code_digest("kernels"),
    }


_SAID = {
    "x1_sha256": "it was made from other data (x1)",
    "x2_sha256": "it was made from other data (x2)",
    "code_sha256": "it was made by another version of ntk_resnet's code",
}


def differences(
    found: dict[str, str | int | float], wanted: dict[str, str | int | float]
) -> Iterator[str]:
    """Each way in which a store's identity differs from the wanted one, in words."""
    found, wanted = dict(_leaves(found)), dict(_leaves(wanted))
    retyped = found.get("dtype") != wanted.get("dtype")
    for name in {**found, **wanted}:
        if retyped and name in ("x1_sha256", "x2_sha256"):
            continue  # data of another dtype have another checksum, equal or not
        a, b = (json.dumps(of.get(name, "nothing")) for of in (found, wanted))
        if a != b:  # compared as text: 1 is not True, and NaN is NaN
            text = f"{name.removeprefix('spec.')} {a}, not {b}"
            if name.startswith("spec."):
                text = f"another spec: {text}"
            yield _SAID.get(name, text)


def _leaves(identity, prefix="") -> Iterator[tuple[str, Any]]:
    """Names and values, with the dictionary inside `spec` spread out."""
    for name, value in identity.items():
        if name == "spec" and not prefix:
            value = json.loads(value)
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
