"""Training on disk: a run that was killed goes on where it was, bit for bit.

`folder/run.json` says which run it is; each batch of networks has a folder of Orbax
checkpoints, one after every record, of which the newest is kept: the state, all records
so far, and the SHA-256 of both. The last one holds the trained weights.
"""

import functools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

from ntk_resnet.finite.empirical.fingerprints import fingerprint, is_key
from ntk_resnet.models.losses import Loss
from ntk_resnet.records import results as records
from ntk_resnet.records.content import digest, write_file


class Checkpoints:
    """The folder of one run."""

    def __init__(self, folder: str | os.PathLike, about: dict[str, Any]):
        """Opens the folder, or makes it.

        Args:
            folder: where.
            about: all that decides the run, as plain data (JSON).

        Raises:
            ValueError: it is no path, holds another run, or something else; the text
                says what.
            OSError: it is not writable.
        """
        if not isinstance(folder, str | os.PathLike):
            raise ValueError(
                f"checkpoint must be the path of a folder, got {folder!r}; pass a str."
            )
        self.folder = records.check_writable(folder).absolute()
        text = json.dumps(about, indent=1)
        path = self.folder / "run.json"
        if path.exists():
            _compare(self.folder, path, json.loads(text))
        # A hidden file is all that a process leaves which was killed writing run.json.
        elif any(not p.name.startswith(".") for p in self.folder.iterdir()):
            raise ValueError(
                f"checkpoint {str(folder)!r} is a folder of something else; choose an "
                "empty one."
            )
        else:
            write_file(path, text)

    def of(self, name: str) -> "Batch":
        """The checkpoints of one batch of networks."""
        return Batch(self.folder / name)


class Batch:
    """The checkpoints of networks that are trained together."""

    def __init__(self, folder: pathlib.Path):
        import orbax.checkpoint as ocp

        if folder.exists() and not folder.is_dir():
            raise ValueError(
                f"checkpoint {str(folder.parent)!r} is damaged: {folder.name} is a "
                "file, not a folder; delete it to train these networks again."
            )
        self._ocp, self._folder = ocp, folder
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(folder, options=options)

    def save(self, index: int, state: Any, made: dict[str, np.ndarray]) -> None:
        """Keeps the state after record `index`, and all records up to it."""
        leaves = _numbered(state)
        save = self._ocp.args.StandardSave
        parts = {"state": save(leaves), "records": save(made)}
        parts["digest"] = self._ocp.args.JsonSave({"sha256": _digest(leaves, made)})
        self._manager.save(index, args=self._ocp.args.Composite(**parts))

    def restore(self, like: Any) -> tuple[Any, dict[str, np.ndarray]] | None:
        """The newest state and the records up to it; `None` if there is none.

        Args:
            like: a state of the same structure; its shardings are taken over.

        Raises:
            ValueError: the checkpoint is damaged.
        """
        index = self._manager.latest_step()
        if index is None:
            return None
        try:
            leaves, made, expected = self._read(index, like)
            intact = _digest(leaves, made) == expected
        except Exception as error:  # Orbax, codecs, JSON: whatever a bad byte can cause
            intact, reason = False, type(error).__name__
        else:
            reason = "its checksum is wrong"
        if not intact:
            raise ValueError(
                f"the checkpoint {str(self._folder / str(index))!r} is damaged "
                f"({reason}); delete {str(self._folder)!r} to train these networks "
                "again."
            )
        return _placed(leaves, like), made

    def _read(self, index, like):
        arrays, args = _numbered(like), self._ocp.args
        found = self._manager.restore(
            index,
            args=args.Composite(
                state=args.StandardRestore(arrays),
                records=args.StandardRestore(),
                digest=args.JsonRestore(),
            ),
        )
        made = {name: np.asarray(value) for name, value in found["records"].items()}
        leaves = {name: np.asarray(value) for name, value in found["state"].items()}
        return leaves, made, found["digest"]["sha256"]

    def __enter__(self) -> "Batch":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()


def _numbered(tree):
    """Leaves by number, as NumPy arrays: independent of the classes they came in.

    Without empty ones, which Orbax refuses.
    """
    leaves = jax.tree.leaves(tree)
    data = [jax.random.key_data(v) if is_key(v) else v for v in leaves]
    return {f"{k:05}": v for k, v in enumerate(jax.device_get(data)) if v.size}


def _placed(leaves, like):
    """The other way round."""

    def put(old, found):
        if found is None:
            return old
        if is_key(old):
            found = jax.random.wrap_key_data(found, impl=jax.random.key_impl(old))
        return jax.device_put(found, old.sharding)

    olds, structure = jax.tree.flatten(like)
    values = [put(old, leaves.get(f"{k:05}")) for k, old in enumerate(olds)]
    return jax.tree.unflatten(structure, values)


def _digest(*trees):
    """Of dictionaries of arrays."""
    named = (pair for tree in trees for pair in sorted(tree.items()))
    return digest(*((name, digest(np.asarray(value))) for name, value in named))


# ------------------------------------------------------------------- which run it is


def _compare(folder, path, about):
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        names = [*about, *(found.keys() - about.keys())]
    except (OSError, ValueError, AttributeError):
        raise ValueError(
            f"checkpoint {str(folder)!r} is damaged: its run.json cannot be read; "
            "delete the folder to train again."
        ) from None
    for name in names:
        there, here = found.get(name), about.get(name)
        if there != here:
            raise ValueError(
                f"checkpoint {str(folder)!r} is of another run: its {name} is {there}, "
                f"that of this one {here}; choose another folder or delete it."
            )


def digest_of(array: np.ndarray | None) -> str | None:
    """A short name for the content of an array."""
    return None if array is None else digest(array)[:16]


def describe_loss(loss: Loss, y: np.ndarray) -> str:
    """Its name, and a digest of its program with that of its gradient."""
    traced = jax.make_jaxpr(jax.value_and_grad(lambda f, y: loss.function(f, y)))(y, y)
    return f"{loss.name} ({fingerprint(traced)[:8]})"


def describe_optimizer(
    optimizer: optax.GradientTransformation, params: Sequence[Any]
) -> str:
    """The states of an optimiser by name, and a digest of its programs.

    An Optax optimiser has neither name nor settings, but they are in the text of what
    it does, at any step, with parameters like each of `params` (shapes are enough).
    """
    programs = []
    for like in params:
        memory = jax.eval_shape(optimizer.init, like)
        for traced in (
            jax.make_jaxpr(lambda p: optimizer.init(p))(like),
            jax.make_jaxpr(functools.partial(_update, optimizer))(like, memory),
        ):
            programs.append(fingerprint(traced))
    names = ", ".join(_class_names(memory)) or "stateless"
    return f"{names} ({digest(*programs)[:8]})"


def _update(optimizer, params, memory):
    """A step, with all that training gives to optimisers."""

    def value(params):
        return sum(jax.numpy.sum(leaf**2) for leaf in jax.tree.leaves(params))

    extra = {"value": value(params), "grad": params, "value_fn": value}
    update = optax.with_extra_args_support(optimizer).update
    return update(params, memory, params, **extra)


def _class_names(tree):
    if hasattr(tree, "_fields"):
        inside = [name for part in tree for name in _class_names(part)]
        return [type(tree).__name__, *inside]
    if isinstance(tree, tuple | list):
        return [name for part in tree for name in _class_names(part)]
    return []
