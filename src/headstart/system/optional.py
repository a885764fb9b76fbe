"""The one door to optional packages: in comes a module name, out the module or one clear sentence.

Called by whatever needs an extra. Imports nothing of ours but errors.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from headstart.errors import MissingExtraError

__all__ = ["require"]


def require(module: str, *, extra: str, for_: str) -> ModuleType:
    """Import an optional package or say how to get it.

    Parameters
    ----------
    module : str
        Import name, such as ``"torch"``.
    extra : str
        The extra of ours that installs it.
    for_ : str
        What needs it, in the user's words.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    MissingExtraError
        If the package is not installed. A package that is installed and fails
        to import raises its own error: hiding that would mislead.

    Examples
    --------
    >>> require("json", extra="train", for_="engine 'torch'").__name__
    'json'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingExtraError(
            f"{for_}: expected the package {module}, which is not installed; "
            f"install it with: pip install 'headstart[{extra}]'"
        ) from error
