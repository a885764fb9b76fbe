"""A source or a model, and data, are two names in a row: whether they are swapped."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from headstart.data.readers.catalog import KNOWN
from headstart.errors import SettingError
from headstart.sources.model_folder import is_model_folder
from headstart.sources.registry import kind_named

__all__ = ["check_model_first", "check_order", "is_source_only"]


def check_order(source: str, data: str, networks: Collection[str] = ()) -> None:
    """SettingError if the name of the data is that of a source or network only, swapped with the other or not."""
    if not is_source_only(data, networks):
        return
    if is_source_only(source, networks):
        raise SettingError(
            f"data is {data!r}, which is a source, expected a dataset: a name, a folder of class folders, or a "
            "table; name your images"
        )
    raise SettingError(
        f"source is {source!r} and data is {data!r}, expected the source first; swap them: {data} {source}"
    )


def is_source_only(name: str, networks: Collection[str] = ()) -> bool:
    """Whether a name is that of a source, or of one of some networks, and of no dataset."""
    return _is_source(name, networks) and not _is_data(name)


def _is_source(name: str, networks: Collection[str]) -> bool:
    return name in networks or is_model_folder(name) or bool(name and kind_named(name).prefix)


def check_model_first(model: str, others: Collection[str]) -> None:
    """SettingError if the first name is no model folder and one of the others is."""
    swapped = [] if is_model_folder(model) else [name for name in others if is_model_folder(name)]
    if swapped:
        raise SettingError(
            f"model is {model!r}, and {swapped[0]!r} is a model folder, expected the model first; swap them"
        )


def _is_data(name: str) -> bool:
    """Whether a name may be that of a dataset: in the catalog, or a file or folder that is no model."""
    return name.partition(":")[0] in KNOWN or (
        Path(os.path.expanduser(name)).exists() and not is_model_folder(name)
    )
