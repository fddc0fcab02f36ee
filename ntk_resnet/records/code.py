"""The code behind a result, known by what it does: not by its comments and docstrings.

A folder of the package stands for its modules and for all of the package that they
import, one after the other. What only shows results is imported by nothing that
computes, so that it does not count.
"""

import ast
import functools
import inspect
import json
import marshal
import pathlib
from collections.abc import Iterator
from typing import Any

from ntk_resnet.records.content import digest
from ntk_resnet.records.provenance import versions

COMPUTES = ("analysis", "finite", "kernels")
_ROOT = pathlib.Path(__file__).parent.parent


@functools.cache
def code_digest(*folders: str) -> str:
    """SHA-256 of the code in some folders of the package and of what it imports.

    The same for every layout of the source, comments and docstrings, and on every
    Python that reads it alike.

    Args:
        *folders: of the package; by default all that compute.
    """
    known = set[pathlib.Path]()
    found = [file for folder in folders or COMPUTES for file in _modules(folder)]
    while found:
        file = found.pop()
        if file not in known:
            known.add(file)
            found += _read(file)[1]
    return digest({_name(file): _read(file)[0] for file in sorted(known)})


def recipe(about: dict[str, Any], *folders: str) -> str:
    """What decides a result, as text: those of one recipe are equal.

    Args:
        about: what decides it besides the code and the versions, as plain data (JSON).
        *folders: as in `code_digest`.
    """
    return json.dumps(
        {**about, "code": code_digest(*folders), **versions()}, sort_keys=True
    )


def function_digest(function: Any) -> str:
    """SHA-256 of the code of a function of a module, and of what it names.

    That is what its module defines, and what of this package it imports, one after the
    other: names alone, not the rest of their modules, and modules imported as such
    whole. What it calls of `ntk_resnet` itself is in the folders of `code_digest`. The
    whole file, where the function is none of its names; its bytecode
    alone where it stands in no file, as in a notebook.
    """
    while isinstance(function, functools.partial):
        function = function.func
    file = pathlib.Path(inspect.getfile(function))
    if not file.is_file():
        return digest(marshal.dumps(function.__code__.replace(co_filename="")))
    found = dict[tuple[pathlib.Path, str], Any]()
    _follow(file, function.__name__, found)
    parts = [(_name(file), name, part) for (file, name), part in sorted(found.items())]
    return digest(parts or _read(file)[0])


def _follow(file, name, found):
    """Adds what makes a name of a module, and what that names in turn."""
    nodes = _definitions(file).get(name)
    if nodes is None or (file, name) in found:
        return
    found[file, name] = repr(
        [_meaning(node) for node in nodes if not isinstance(node, _IMPORTS)]
    )
    for node in nodes:
        if isinstance(node, _IMPORTS):
            _follow_import(node, name, found)
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                _follow(file, part.id, found)
            elif isinstance(part, _IMPORTS):
                _follow_import(part, None, found)


def _follow_import(node, name, found):
    """Adds what an import binds to a name, or, without one, all that it binds."""
    for alias in node.names:
        if name not in (None, _bound_by(alias)):
            continue
        parent = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
        whole = parent + alias.name
        if not _is_ours(whole) or whole == _ROOT.name:
            continue
        if (inside := _module_of(whole)) is not None:
            for own in _definitions(inside):
                _follow(inside, own, found)
        elif (source := _module_of(node.module)) is not None:
            _follow(source, alias.name, found)


@functools.cache
def _definitions(file: pathlib.Path) -> dict[str, list[ast.stmt]]:
    """The statements at the top of a module that define or change a name, by name."""
    found: dict[str, list[ast.stmt]] = {}
    for node in ast.parse(file.read_bytes()).body:
        for name in dict.fromkeys(_bound(node)):
            found.setdefault(name, []).append(node)
    return found


_IMPORTS = (ast.Import, ast.ImportFrom)
_ASSIGNMENTS = (ast.Assign, ast.AnnAssign, ast.AugAssign)


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a statement may define or change; of blocks, all inside."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, _IMPORTS):
        yield from map(_bound_by, node.names)
    elif isinstance(node, _ASSIGNMENTS):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            yield from _names_in(target)
    elif isinstance(node, ast.Expr):  # as NAMES.update(...)
        yield from _names_in(node)
    elif isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Store):  # of a loop, or of "with ... as"
            yield node.id
    else:
        for part in ast.iter_child_nodes(node):
            yield from _bound(part)


def _bound_by(alias):
    return alias.asname or alias.name.split(".")[0]


def _names_in(node):
    return (part.id for part in ast.walk(node) if isinstance(part, ast.Name))


def _is_ours(module):
    return (module or "").split(".")[0] == _ROOT.name


def _module_of(name):
    """The file of a module of this package; `None` if there is none."""
    path = _ROOT.joinpath(*name.split(".")[1:])
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next(filter(pathlib.Path.is_file, files), None)


def _modules(folder):
    return _ROOT.joinpath(folder).rglob("*.py")


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
