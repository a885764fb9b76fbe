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
    |-- CacheError(OSError)            the cache cannot be read or written
    |-- NotFittedError(ValueError)     something was used before it was fitted
    `-- MissingExtraError(ImportError) an optional package is not installed
"""

from __future__ import annotations

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
    "SettingError",
    "ShapeError",
    "SourceError",
    "UnknownClassError",
    "UnknownDatasetError",
    "UnknownLayerError",
    "UnknownSourceError",
    "UnknownSubsetError",
    "nearest",
    "unknown",
]

_SHOWN = 10  # names listed at most
_CUTOFF = 0.5  # of difflib's similarity


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
        # subclasses of LookupError may quote their message
        return str(self.args[0]) if self.args else type(self).__name__


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


class CacheError(HeadstartError, OSError):
    """The cache cannot be read or written."""


class NotFittedError(HeadstartError, ValueError):
    """Something was used before it was fitted."""


class MissingExtraError(HeadstartError, ImportError):
    """A package that an optional feature needs is not installed."""


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
