"""Datasets in shards or in a bucket, by their name: which reader each one has."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

from headstart.data.contents.addresses import forget, is_remote, remote_files
from headstart.data.contents.tables import open_table
from headstart.data.images.decode import EXTENSIONS
from headstart.data.names import shown
from headstart.data.readers.buckets import bucket_table_listing, folder_listing
from headstart.data.readers.files import Listing, is_system
from headstart.data.readers.hub import hub_files, hub_name
from headstart.data.readers.image_tables import image_column, table_listing
from headstart.data.readers.shards import SHARDS, described, expanded, is_pattern, listed
from headstart.data.readers.tables import TABLES
from headstart.data.readers.webdataset import CLASS_FILES, webdataset_listing
from headstart.errors import DataError

__all__ = [
    "has_image_cells",
    "is_sharded",
    "named_listing",
    "shard_listing",
    "without_file_protocol",
    "without_subset",
]

_KNOWN = {*CLASS_FILES, "state.json", "dataset_info.json", "dataset_dict.json"}
"""Files that belong to shards."""

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


def named_listing(text: str, label: str | None = None) -> Listing:
    """The images that a name of `is_sharded` means; MissingDataError if there is nothing of that name.

    With ``label``, that is the label of all images: their own are not used, and may be missing.
    """
    hub = hub_name(text)
    if hub is not None:
        return shard_listing(text, hub_files(*hub), label, name=hub[0])
    if not is_remote(text):
        return shard_listing(text, listed(text), label)
    ending = posixpath.splitext(text)[1].lower()
    if ending in TABLES and ending not in SHARDS and not is_pattern(text):
        return bucket_table_listing(text)
    if len(expanded(text)) > 1 or ending in SHARDS:
        return shard_listing(text, listed(text), label)
    forget()
    files = remote_files(text)
    shards = [one for one in files if one.lower().endswith(SHARDS) and not is_system(posixpath.basename(one))]
    images = [one for one in files if posixpath.splitext(one)[1].lower() in EXTENSIONS]
    if shards and not images:
        others = [one for one in files if one not in {*shards}]
        return shard_listing(text, shards, label, others=others)
    if not images:
        raise DataError(
            f"folder {text!r} has {len(files)} files and neither shards nor images, such as {next(iter(files))!r}, "
            f"expected {', '.join(SHARDS)} or folders of images; correct the address"
        )
    return folder_listing(text, files, label)


def shard_listing(
    text: str,
    addresses: Sequence[str],
    label: str | None = None,
    *,
    name: str = "",
    others: Sequence[str] = (),
) -> Listing:
    """The images of shards of one kind, in order.

    ``text`` is what the user has named, ``others`` are files of that folder that are no shards.
    """
    kinds = sorted({posixpath.splitext(one)[1].lower() for one in addresses})
    if len(kinds) > 1 or kinds[0] not in SHARDS:
        raise DataError(
            f"{text!r} has files of the kinds {shown(kinds)}, expected shards of one kind ({', '.join(SHARDS)}); "
            "give a pattern for those to read"
        )
    name = name or _name_of(text)
    shards, remarks = described(text, addresses)
    if kinds[0] == ".tar":
        found = webdataset_listing(name, shards, label)
    elif len(addresses) == 1 and is_remote(addresses[0]) and not has_image_cells(addresses[0]):
        return bucket_table_listing(addresses[0])
    else:
        found = table_listing(name, shards, label)
    found.remarks += remarks
    found.skipped += [
        (one, "it is no shard")
        for one in others
        if (base := posixpath.basename(one)) not in _KNOWN and not is_system(base)
    ]
    return found


def _name_of(text: str) -> str:
    """The name of a file without its ending, or of a folder; that of the folder if all files in it are meant."""
    path = PurePosixPath(text.rstrip("/"))
    stem = path.stem if path.suffix.lower() in SHARDS else path.name
    return stem if stem.strip("*?") else path.parent.name


def has_image_cells(address: str) -> bool:
    """Whether a table has images in its cells; BrokenDataError if it cannot be read."""
    return image_column(address, open_table(address).schema) is not None
