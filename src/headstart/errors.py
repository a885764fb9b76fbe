"""Every error Headstart raises on purpose, and the sentence they all follow.

The text of an error is one line: ``<name> is <what it is>, expected <what it must be>; <what to do>``.

    HeadstartError                     catch this one to catch them all
    |-- SettingError(ValueError)       an option has a value it cannot have
    |   `-- DivergedError              training with it gave numbers that are not finite
    |-- ShapeError(ValueError)         an array has the wrong rank, size or dtype
    |-- DataError(ValueError)          a dataset cannot be used in this way
    |   |-- UnknownDatasetError(LookupError)
    |   |-- UnknownSubsetError(LookupError)
    |   |-- UnknownClassError(LookupError)
    |   |-- MissingDataError(FileNotFoundError)   a file that should be there is not
    |   |-- BrokenDataError            a file is there and cannot be read
    |   `-- FetchError(ConnectionError)           a download failed or came altered
    |-- SourceError(ValueError)        a source cannot be used in this way
    |   |-- UnknownSourceError(LookupError)
    |   `-- UnknownLayerError(LookupError)
    |-- ModelError(ValueError)         a model folder is missing, truncated or altered
    |-- RecipeError(ValueError)        a recipe is unknown or malformed
    |-- RunnerError(RuntimeError)      a cluster cannot be used, or its workers die
    |-- CacheError(OSError)            the cache cannot be read or written
    |-- UnwritableError(OSError)       a file or folder cannot be written: no space, no permission
    |-- NotFittedError(ValueError)     something was used before it was fitted
    `-- MissingExtraError(ImportError) an optional package is not installed
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = [
    "BrokenDataError",
    "CacheError",
    "DataError",
    "DivergedError",
    "FetchError",
    "HeadstartError",
    "MissingDataError",
    "MissingExtraError",
    "ModelError",
    "NotFittedError",
    "RecipeError",
    "RunnerError",
    "SettingError",
    "ShapeError",
    "SourceError",
    "UnknownClassError",
    "UnknownDatasetError",
    "UnknownLayerError",
    "UnknownSourceError",
    "UnknownSubsetError",
    "UnwritableError",
    "nearest",
    "printable",
    "unknown",
]

_SHOWN = 10  # names listed at most
_CUTOFF = 0.5  # of difflib's similarity
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters (a terminal obeys them), marks that turn the direction of text, and halves of characters."""


class HeadstartError(Exception):
    """Base of every error Headstart raises on purpose.

    Examples
    --------
    >>> import headstart as hs
    >>> try:
    ...     hs.load("mnits")
    ... except hs.HeadstartError as error:
    ...     print(type(error).__name__)
    UnknownDatasetError
    """

    def __str__(self) -> str:
        # subclasses of LookupError may quote their message; names in it may come from strangers
        return printable(str(self.args[0]), keep="\n\t") if self.args else type(self).__name__


class SettingError(HeadstartError, ValueError):
    """An option has a value it cannot have."""


class DivergedError(SettingError):
    """Training with these settings gave numbers that are not finite."""


class ShapeError(HeadstartError, ValueError):
    """An array has the wrong rank, size or dtype."""


class DataError(HeadstartError, ValueError):
    """A dataset cannot be used in this way."""


class UnknownDatasetError(DataError, LookupError):
    """No dataset goes by this name, and no file or folder is at this path."""


class UnknownSubsetError(DataError, LookupError):
    """The part after the colon names no subset of this dataset."""


class UnknownClassError(DataError, LookupError):
    """A class was named that the dataset or the model does not have."""


class MissingDataError(DataError, FileNotFoundError):
    """A file that should be there is not."""


class BrokenDataError(DataError):
    """A file is there and cannot be read: empty, truncated or not an image."""


class FetchError(DataError, ConnectionError):
    """A download failed, or what came is not what was expected."""


class SourceError(HeadstartError, ValueError):
    """A source cannot be used in this way."""


class UnknownSourceError(SourceError, LookupError):
    """No source goes by this name."""


class UnknownLayerError(SourceError, LookupError):
    """The source has no layer of this name."""


class ModelError(HeadstartError, ValueError):
    """A model folder is missing, truncated, altered or of an unknown format."""


class RecipeError(HeadstartError, ValueError):
    """A recipe is unknown or malformed."""


class RunnerError(HeadstartError, RuntimeError):
    """A cluster cannot be used, has other versions, or its workers die."""


class CacheError(HeadstartError, OSError):
    """The cache cannot be read or written."""


class UnwritableError(HeadstartError, OSError):
    """A file or folder cannot be written, for instance because the disk is full."""

    @classmethod
    def of(cls, path: str, error: OSError) -> UnwritableError:
        """The same error in one sentence that names the file; ``errno`` and ``filename`` as in any OSError."""
        reason = error.strerror or str(error) or type(error).__name__
        made = cls(
            f"file {path!r} cannot be written ({reason}), expected a place with space and permission; free some, "
            "or choose another"
        )
        made.errno, made.strerror, made.filename = error.errno, reason, path
        return made


class NotFittedError(HeadstartError, ValueError):
    """Something was used before it was fitted."""


class MissingExtraError(HeadstartError, ImportError):
    """A package that an optional feature needs is not installed."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Text for a terminal: characters that steer it or turn its direction are escaped as in JSON.

    >>> printable("cat\x1b[2J")
    'cat\\u001b[2J'
    """
    return _STEERING.sub(lambda one: one[0] if one[0] in keep else _escaped(one[0]), text)


def _escaped(sign: str) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(sign, f"\\u{ord(sign):04x}")


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not registered: what is expected, and the nearest names.

    >>> unknown("head", "rigde", ["kernel", "ridge"])
    "head 'rigde' is unknown, expected one of kernel, ridge; nearest are ridge"
    """
    from difflib import get_close_matches

    names = list(dict.fromkeys(known))
    expected = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    close = get_close_matches(name, names, n=3, cutoff=_CUTOFF)
    text = f"{kind} {name!r} is unknown, expected one of {expected}"
    return f"{text}; nearest are {', '.join(close)}" if close else text


def nearest(name: str, valid: Iterable[str], limit: int = 3, *, before: Iterable[str] = ()) -> str:
    """The valid names nearest to a wrong one, or ten of all valid names if none is near.

    ``before`` are names that are near for another reason, such as folders, and come first.

    >>> nearest("mnits", ["mnist", "kmnist", "usps"])
    'nearest are mnist, kmnist'
    >>> nearest("zzz", ["mnist", "usps"])
    'known are mnist, usps'
    >>> nearest("zzz", ["mnist", "usps"], before=["zzzz/"])
    'nearest are zzzz/'
    """
    from difflib import get_close_matches

    names = sorted(set(valid))
    close = [*before, *get_close_matches(name, names, n=limit, cutoff=_CUTOFF)][: max(limit, 1)]
    if close:
        return "nearest are " + ", ".join(close)
    return "known are " + ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
