"""Datasets of the Hugging Face hub: the Parquet files that it keeps of each, read where they lie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from headstart.data.contents.addresses import remote_files
from headstart.data.names import natural_order, shown
from headstart.errors import DataError, MissingDataError

__all__ = ["hub_files", "hub_name"]

_NAME = re.compile(r"hf:(?!//)((?:[\w.-]+/)?[\w.-]+)(?:/([\w.-]+))?")
_ROOTS = ("hf://datasets/{name}@refs%2Fconvert%2Fparquet", "hf://datasets/{name}")
"""Where the Parquet files of a dataset lie: the hub's own conversion, else the files of the dataset itself."""


def hub_name(text: str) -> tuple[str, str | None] | None:
    """The dataset and the configuration that ``hf:OWNER/NAME/CONFIGURATION`` names; None if it is no such name.

    >>> hub_name("hf:ylecun/mnist"), hub_name("hf:uoft-cs/cifar10/plain_text"), hub_name("hf://datasets/a/b")
    (('ylecun/mnist', None), ('uoft-cs/cifar10', 'plain_text'), None)
    """
    match = _NAME.fullmatch(text)
    return (match[1], match[2]) if match else None


def hub_files(name: str, configuration: str | None, roots: tuple[str, ...] = _ROOTS) -> list[str]:
    """The addresses of a dataset's Parquet files, in natural order.

    DataError if there are several configurations, none is called default and none is named.
    """
    if "/" not in name:
        raise DataError(
            f"dataset 'hf:{name}' has no owner, expected hf:OWNER/NAME; write both, as on its page"
        )
    for root in roots:
        home = root.format(name=name)
        try:
            files = [one for one in remote_files(home) if one.lower().endswith(".parquet")]
        except MissingDataError:
            continue
        if files:
            return _of_configuration(name, configuration, {one: _below(home, one) for one in files})
    raise MissingDataError(
        f"dataset 'hf:{name}' has no Parquet files on the hub, expected a dataset that exists and that the hub has "
        "converted; correct the name, or download the dataset and give its folder"
    )


def _below(home: str, address: str) -> PurePosixPath:
    """The path of a file below the root; the hub may write its revision in another way."""
    inside, parts = (PurePosixPath(one.rpartition("://")[2]).parts for one in (home, address))
    return PurePosixPath(*parts[len(inside) :])


def _of_configuration(name: str, configuration: str | None, files: Mapping[str, PurePosixPath]) -> list[str]:
    """Files are in a folder for each configuration; those of one level, such as data, are no configurations."""
    tops = {path.parts[0] for path in files.values() if len(path.parts) == 3}
    if not tops:
        if configuration is None:
            return list(files)
        tops = {""}
    known = natural_order(tops)
    wanted = configuration or ("default" if "default" in known else known[0] if len(known) == 1 else None)
    if wanted not in known:
        which = f"has no configuration {configuration!r}" if configuration else "has several configurations"
        raise DataError(
            f"dataset 'hf:{name}' {which}, expected one of {shown(known, 20)}; write hf:{name}/{known[0]}"
        )
    return [one for one, path in files.items() if path.parts[0] == wanted]
