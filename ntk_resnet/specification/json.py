"""Specifications as JSON, and back."""

import dataclasses
import json

from ntk_resnet._checks import check_choice
from ntk_resnet.activations import named
from ntk_resnet.activations.base import AbstractActivation
from ntk_resnet.specification.base import Specification
from ntk_resnet.specification.convolutional import ConvNet, ConvResNet
from ntk_resnet.specification.networks import FeedForward, ResNet
from ntk_resnet.specification.scales import BranchScale


def _kinds() -> dict[str, type]:
    """Networks and the package's branch scales by name."""
    networks = (FeedForward, ResNet, ConvNet, ConvResNet)
    scales = filter(_is_ours, BranchScale.__subclasses__())
    return {kind.__name__: kind for kind in (*networks, *scales)}


def _is_ours(kind):
    """A user's class may be another tomorrow: its name says too little."""
    return kind.__module__ == BranchScale.__module__


def to_dict(spec: Specification | BranchScale) -> dict:
    """The specification as plain data, the inverse of `from_dict`."""
    if isinstance(spec, BranchScale) and not _is_ours(type(spec)):
        raise ValueError(
            f"branch_scale {spec!r} is the user's own and has no JSON form."
        )
    result: dict = {"kind": type(spec).__name__}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if isinstance(value, BranchScale):
            value = to_dict(value)
        elif isinstance(value, AbstractActivation):
            value = named.to_data(value)
        result[field.name] = value
    return result


def from_dict(data) -> Specification | BranchScale:
    """The specification that `to_dict` wrote; fields left out take their defaults.

    Raises:
        ValueError: not such data; the text says which part.
    """
    kind_name = data.get("kind") if isinstance(data, dict) else None
    kinds = _kinds()
    if not isinstance(kind_name, str) or kind_name not in kinds:
        raise ValueError(
            f"a specification is an object with kind = one of {', '.join(kinds)}; "
            f"got {data!r}."
        )
    kind = kinds[kind_name]
    fields = {name: value for name, value in data.items() if name != "kind"}
    known = {field.name for field in dataclasses.fields(kind)}
    for name in fields:
        check_choice(f"a field of {kind.__name__}", name, sorted(known))
    if "activation" in fields:
        fields["activation"] = named.from_data(fields["activation"])
    if isinstance(fields.get("branch_scale"), dict):
        fields["branch_scale"] = from_dict(fields["branch_scale"])
    needed = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING
    }
    if missing := sorted(needed - set(fields)):
        raise ValueError(f"{kind.__name__} needs {', '.join(missing)}; got {data!r}.")
    return kind(**fields)


def to_json(spec: Specification) -> str:
    """The specification as JSON text; `from_json` gives an equal one back.

    Raises:
        ValueError: the activation or the branch scale is the user's own, which JSON
            cannot hold.
    """
    return json.dumps(to_dict(spec))


def from_json(text: str) -> Specification:
    """The specification that `to_json` wrote.

    Raises:
        ValueError: the text is not JSON, or not a specification.
    """
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, TypeError, RecursionError) as error:
        raise ValueError(f"the specification is not JSON text: {error}.") from None
    spec = from_dict(data)
    if not isinstance(spec, Specification):
        raise ValueError(f"a network was expected, got a {type(spec).__name__}.")
    return spec
