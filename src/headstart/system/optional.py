"""Imports of optional packages; a missing one is reported with the command that installs it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from headstart.errors import MissingExtraError
from headstart.system.threads import one_thread_when_forked, settle

__all__ = ["check_installed", "require"]


def require(module: str, *, extra: str, for_: str) -> ModuleType:
    """Import an optional package, or raise MissingExtraError with the extra that installs it.

    ``for_`` names the feature that needs it. An installed package that fails to import raises its own error.
    """
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise _missing(module, extra, for_) from error
    if module == "torch":
        one_thread_when_forked(found)
        settle()
    return found


def check_installed(module: str, *, extra: str, for_: str) -> None:
    """Raise MissingExtraError as `require` does, without importing the package, which may have to wait."""
    if find_spec(module) is None:
        raise _missing(module, extra, for_)


def _missing(module: str, extra: str, for_: str) -> MissingExtraError:
    return MissingExtraError(
        f"{for_}: expected the package {module}, which is not installed; "
        f"install it with: pip install 'headstart[{extra}]'"
    )
