"""One digest of the code that decides a figure, so that a result can be told to be older than its code.

Dates will not do: git keeps none. What is hashed is the set of top-level statements of all modules, without
docstrings, comments, imports, annotations and the texts of errors. Moving or renaming a module, or moving a
function between two of them, changes nothing; another constant, formula or default does.
"""

from __future__ import annotations

import ast
import hashlib
import json
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Part", "code_digest", "defines"]

Part = tuple[Path, str]
"""A file, and the name of one definition in it or nothing for all of it."""

_NOT_HASHED = frozenset({"annotation", "returns", "type_comment", "kind", "ctx", "type_params"})
_FOR_PEOPLE = ("title", "summary")  # of a recipe


def code_digest(parts: Iterable[Part], *words: str) -> str:
    """Hash what the files compute.

    Parameters
    ----------
    parts : iterable of (Path, str)
        Python modules, or one definition of a module; TOML files; other files are hashed as they are. Their
        order and the names of the files do not count.
    *words : str
        What else the figure depends on, in order: its commands.

    Returns
    -------
    str
        Hex SHA-256.

    Raises
    ------
    SyntaxError
        If a module cannot be parsed.
    """
    found = sorted({one for path, name in parts for one in _digests(path, name)})
    return hashlib.sha256("\n".join([*words, *found]).encode()).hexdigest()


def defines(path: Path, name: str) -> bool:
    """Whether a module has a top-level definition of this name."""
    return any(name == one for one, _ in _statements(path, path.stat().st_mtime_ns))


def _digests(path: Path, name: str) -> Iterator[str]:
    """One for each statement of a module, else one for the whole file."""
    if path.suffix == ".py":
        statements = _statements(path, path.stat().st_mtime_ns)
        yield from (digest for one, digest in statements if name in ("", one))
    elif path.suffix == ".toml":
        read = tomllib.loads(path.read_text(encoding="utf-8"))
        kept = {key: value for key, value in read.items() if key not in _FOR_PEOPLE}
        yield _hashed(json.dumps(kept, sort_keys=True))
    else:
        yield hashlib.sha256(path.read_bytes()).hexdigest()


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _statements(path: Path, changed_ns: int) -> tuple[tuple[str, str], ...]:
    """Name and digest of every top-level statement that computes something; parsed anew after a change."""
    nodes = (node for node in ast.parse(path.read_bytes()).body if _computes(node))
    return tuple((name, _hashed(_told(node))) for node in nodes if (name := _name(node)) != "__all__")


def _name(node: ast.AST) -> str:
    """What a statement defines."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
    return str(getattr(targets[0], "id", getattr(targets[0], "name", "")))


def _computes(node: ast.AST) -> bool:
    """Not an import, a docstring, ``pass``, or a block of imports for the type checker alone."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Pass):
        return False
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return not isinstance(node.value.value, str)
    return not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))


def _told(node: Any) -> str:
    """A syntax tree as text; empty fields are left out, since versions of Python differ in them."""
    if isinstance(node, list):
        return "[" + ",".join(_told(one) for one in node if _computes(one)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    name = type(node).__name__
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return f"{name}({_told(node.exc.func)})"
    if isinstance(node, ast.Assert):
        return f"{name}({_told(node.test)})"
    fields = ((field, getattr(node, field, None)) for field in node._fields if field not in _NOT_HASHED)
    told = [f"{field}={_told(value)}" for field, value in fields if value not in (None, [])]
    return f"{name}({','.join(told)})"
