"""Images to predict, wherever they lie: files, folders and globs of this machine, shards, tables, and buckets.

They come in parts of at most some images, each of which can be read in another process; nothing is decoded here.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from headstart.data.contents.addresses import forget, is_remote, remote_files
from headstart.data.contents.cells import TableCells
from headstart.data.contents.local import LocalFiles
from headstart.data.contents.objects import BucketObjects
from headstart.data.contents.protocol import Contents
from headstart.data.contents.tables import open_table, readable
from headstart.data.contents.tar import TarMembers, tar_members
from headstart.data.images.decode import EXTENSIONS
from headstart.data.names import shown
from headstart.data.readers.files import is_system
from headstart.data.readers.hub import hub_files, hub_name
from headstart.data.readers.image_files import OtherFiles, find_images
from headstart.data.readers.image_tables import image_column
from headstart.data.readers.sharded import is_sharded, without_file_protocol
from headstart.data.readers.shards import SHARDS, listed, shards_in
from headstart.data.readers.webdataset import is_label
from headstart.errors import DataError, MissingDataError

__all__ = ["image_parts"]


def image_parts(patterns: Sequence[str], others: OtherFiles, size: int) -> Iterator[Contents]:
    """Stream the images that names mean, in order, in parts of ``size`` images; the last of a name may be smaller.

    Names are paths as for `find_images`, shards of tar archives or tables with images in their cells, folders of
    these, and addresses in a bucket. What is no image is counted in ``others``. MissingDataError if there is none.
    """
    local: list[str] = []
    for pattern in map(without_file_protocol, patterns):
        shards = _shards_of(pattern)
        if shards is None and not is_remote(pattern):
            local.append(pattern)
            continue
        yield from _local_parts(local, others, size)
        local = []
        yield from _objects(pattern, others, size) if shards is None else _of_shards(shards, others, size)
    yield from _local_parts(local, others, size)


def _local_parts(patterns: Sequence[str], others: OtherFiles, size: int) -> Iterator[Contents]:
    """Files of this machine; each once, however many of the patterns name it."""
    paths = find_images(patterns, others) if patterns else iter(())
    while part := list(islice(paths, size)):
        yield LocalFiles(part)


def _shards_of(pattern: str) -> list[str] | None:
    """The shards that a name stands for; None if it stands for files or objects."""
    hub = hub_name(pattern)
    if hub is not None:
        return hub_files(*hub)
    if pattern.lower().endswith(SHARDS):
        if os.path.isfile(pattern):
            return [pattern]
        if is_sharded(pattern):
            return listed(pattern)
    if not is_remote(pattern):
        return (shards_in(Path(pattern))[0] or None) if os.path.isdir(pattern) else None
    forget()
    found = list(remote_files(pattern))
    shards = [one for one in found if one.lower().endswith(SHARDS)]
    return None if any(_is_image(one) for one in found) else shards or None


def _is_image(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in EXTENSIONS and not is_system(posixpath.basename(name))


def _objects(address: str, others: OtherFiles, size: int) -> Iterator[Contents]:
    """Objects of a bucket that have the name of an image."""
    files = remote_files(address)
    images = [one for one in files if _is_image(one)]
    for one in files:
        if not _is_image(one):
            others.note(one, "it is no image by its name")
    if not images:
        raise MissingDataError(
            f"{address!r} has no image by its name, expected some, such as of {', '.join(EXTENSIONS[:3])}; correct "
            "the address"
        )
    for first in range(0, len(images), size):
        part = images[first : first + size]
        yield BucketObjects(part, (files[one] for one in part))


def _of_shards(shards: Sequence[str], others: OtherFiles, size: int) -> Iterator[Contents]:
    """The images of shards, one after the other."""
    n_found = 0
    for address in shards:
        is_tar = address.lower().endswith(".tar")
        for part in _members(address, others, size) if is_tar else _rows(address, size):
            n_found += len(part)
            yield part
    if not n_found:
        raise MissingDataError(f"{shown(shards)} have no image, expected some; correct the name")


def _members(address: str, others: OtherFiles, size: int) -> Iterator[Contents]:
    """Members of a tar archive that have the name of an image."""
    part = TarMembers([address], [posixpath.basename(address)])
    for member in tar_members(address):
        if member.reason or not _is_image(member.name):
            if member.reason or not is_label(member.name):
                others.note(f"{address}:{member.name}", member.reason or "it is no image by its name")
            continue
        part.add(0, member)
        if len(part) == size:
            yield part
            part = TarMembers([address], [posixpath.basename(address)])
    if len(part):
        yield part


def _rows(address: str, size: int) -> Iterator[Contents]:
    """Rows of a table with images in its cells; one without an image is a row, too."""
    with readable(address):
        table = open_table(address)
        column = image_column(address, table.schema)
    if column is None:
        raise DataError(
            f"table {address!r} has the columns {shown(table.schema.names)}, expected one with the bytes of images; "
            "give the files that it names, one path a line, on standard input with -"
        )
    for first in range(0, table.n_rows, size):
        part = TableCells([address], [posixpath.basename(address)], [column])
        for row in range(first, min(first + size, table.n_rows)):
            part.add(0, row)
        yield part
