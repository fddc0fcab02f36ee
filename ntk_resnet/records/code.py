"""The code behind a result, known by what it does: not by its comments and docstrings.

A folder of the package stands for its modules and for all of the package that they
import, one after the other. What only shows results is imported by nothing that
computes, so that it does not count.
"""

import ast
import functools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from ntk_resnet.records.content import digest
from ntk_resnet.records.provenance import versions

COMPUTES = ("analysis", "finite", "kernels", "studies")
_ROOT = pathlib.Path(__file__).parent.parent


@functools.cache
def code_digest(*places: str | pathlib.Path) -> str:
    """SHA-256 of the code in some places and of what it imports of the package.

    The same for every layout of the source, comments and docstrings, and on every
    Python that reads it alike.

    Args:
        *places: folders of the package, by default all that compute; or files, there or
            anywhere.
    """
    known = set[pathlib.Path]()
    found = [file for place in places or COMPUTES for file in _modules(place)]
    while found:
        file = found.pop()
        if file not in known:
            known.add(file)
            found += _read(file)[1]
    return digest({_name(file): _read(file)[0] for file in sorted(known)})


def recipe(about: dict[str, Any], *places: str | pathlib.Path) -> str:
    """What decides a result, as text: those of one recipe are equal.

    Args:
        about: what decides it besides the code and the versions, as plain data (JSON).
        *places: as in `code_digest`.
    """
    return json.dumps(
        {**about, "code": code_digest(*places), **versions()}, sort_keys=True
    )


def _modules(place):
    path = _ROOT.joinpath(place)
    return [path] if path.is_file() else path.rglob("*.py")


def _name(file):
    """The path in the package, so that it may lie anywhere."""
    inside = file.is_relative_to(_ROOT)
    return file.relative_to(_ROOT).as_posix() if inside else file.name


@functools.cache
def _read(file: pathlib.Path) -> tuple[str, list[pathlib.Path]]:
    """The digest of one module, and the modules that it imports."""
    tree = ast.parse(file.read_bytes())
    return digest(repr(_meaning(tree))), list(_imports(tree))


def _meaning(node: Any) -> Any:
    """A syntax tree as nested lists, without strings that stand by themselves.

    Empty fields are left out: newer Pythons have more of them.
    """
    if isinstance(node, list):
        return [_meaning(part) for part in node if not _is_text(part)]
    if not isinstance(node, ast.AST):
        return node
    fields = ((name, _meaning(value)) for name, value in ast.iter_fields(node))
    return type(node).__name__, [f for f in fields if f[1] not in (None, [])]


def _is_text(node):
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _imports(tree: ast.AST) -> Iterator[pathlib.Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, *inside = name.split(".")
            if package == _ROOT.name:
                yield from _files_of(inside)


def _files_of(inside):
    """What the import of a module, or of a name in one, runs: its packages too."""
    for depth in range(1, len(inside) + 1):
        path = _ROOT.joinpath(*inside[:depth])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                yield file
