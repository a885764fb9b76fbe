"""Datasets in shards or in a bucket, by their name: which reader each one has."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

from headstart.data.contents.addresses import forget, is_remote, remote_files
from headstart.data.contents.tables import open_table
from headstart.data.dataset import Dataset
from headstart.data.images.decode import EXTENSIONS
from headstart.data.names import shown
from headstart.data.readers.buckets import read_bucket_folder, read_bucket_table
from headstart.data.readers.hub import hub_files, hub_name
from headstart.data.readers.image_tables import image_column, read_image_tables
from headstart.data.readers.shards import SHARDS, described, expanded, is_pattern, listed
from headstart.data.readers.tables import TABLES
from headstart.data.readers.webdataset import read_webdataset
from headstart.errors import DataError

__all__ = [
    "has_image_cells",
    "is_sharded",
    "read_named",
    "read_shards",
    "without_file_protocol",
    "without_subset",
]

_PREFIX = re.compile(r"hf:(?!//)|[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def without_subset(text: str) -> tuple[str, str]:
    """A name and the subset after its last colon, empty if there is none; the colon of ``s3://`` is no such colon.

    >>> without_subset("s3://bucket/train.tar:odd"), without_subset("s3://bucket/train.tar")
    (('s3://bucket/train.tar', 'odd'), ('s3://bucket/train.tar', ''))
    >>> without_subset("hf:ylecun/mnist"), without_subset("mnist:odd")
    (('hf:ylecun/mnist', ''), ('mnist', 'odd'))
    """
    match = _PREFIX.match(text)
    prefix = match[0] if match else ""
    base, _, subset = text[len(prefix) :].rpartition(":")
    if not base or (prefix and "/" in subset):
        return text, ""
    return prefix + base, subset


def without_file_protocol(text: str) -> str:
    """The path of ``file://`` addresses; any other name as it is.

    >>> without_file_protocol("file:///data/two%20words"), without_file_protocol("s3://bucket/a")
    ('/data/two words', 's3://bucket/a')
    """
    if not text.lower().startswith("file://"):
        return text
    return unquote(text[len("file://") :].removeprefix("localhost"))


def is_sharded(text: str) -> bool:
    """Whether a name is an address in a bucket, a dataset of the hub, or a pattern of shards."""
    endings = (*SHARDS, "}", "*")
    return (
        is_remote(text) or hub_name(text) is not None or (is_pattern(text) and text.lower().endswith(endings))
    )


def read_named(text: str, *, strict: bool) -> Dataset:
    """Read what a name of `is_sharded` means; MissingDataError if there is nothing of that name."""
    hub = hub_name(text)
    if hub is not None:
        return read_shards(text, hub_files(*hub), strict=strict, name=hub[0])
    if not is_remote(text):
        return read_shards(text, listed(text), strict=strict)
    ending = posixpath.splitext(text)[1].lower()
    if ending in TABLES and ending not in SHARDS and not is_pattern(text):
        return read_bucket_table(text, strict=strict)
    if len(expanded(text)) > 1 or ending in SHARDS:
        return read_shards(text, listed(text), strict=strict)
    forget()
    files = remote_files(text)
    shards = [one for one in files if one.lower().endswith(SHARDS)]
    images = [one for one in files if posixpath.splitext(one)[1].lower() in EXTENSIONS]
    if shards and not images:
        return read_shards(text, shards, strict=strict)
    if not images:
        raise DataError(
            f"folder {text!r} has {len(files)} files and neither shards nor images, such as {next(iter(files))!r}, "
            f"expected {', '.join(SHARDS)} or folders of images; correct the address"
        )
    return read_bucket_folder(text, files, strict=strict)


def read_shards(text: str, addresses: Sequence[str], *, strict: bool, name: str = "") -> Dataset:
    """Read shards of one kind, in order; ``text`` is what the user has named."""
    kinds = sorted({posixpath.splitext(one)[1].lower() for one in addresses})
    if len(kinds) > 1 or kinds[0] not in SHARDS:
        raise DataError(
            f"{text!r} has files of the kinds {shown(kinds)}, expected shards of one kind ({', '.join(SHARDS)}); "
            "give a pattern for those to read"
        )
    name = name or _name_of(text)
    shards, remarks = described(text, addresses)
    if kinds[0] == ".tar":
        return read_webdataset(name, shards, strict=strict, remarks=remarks)
    if len(addresses) == 1 and is_remote(addresses[0]) and not has_image_cells(addresses[0]):
        return read_bucket_table(addresses[0], strict=strict)
    return read_image_tables(name, shards, strict=strict, remarks=remarks)


def _name_of(text: str) -> str:
    """The name of a file without its ending, or of a folder; that of the folder if all files in it are meant."""
    path = PurePosixPath(text.rstrip("/"))
    stem = path.stem if path.suffix.lower() in SHARDS else path.name
    return stem if stem.strip("*?") else path.parent.name


def has_image_cells(address: str) -> bool:
    """Whether a table has images in its cells; BrokenDataError if it cannot be read."""
    return image_column(address, open_table(address).schema) is not None
