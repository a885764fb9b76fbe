"""Images in tar archives: found by one pass over the headers, read by their offset. Nothing is unpacked."""

from __future__ import annotations

import tarfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.data.contents.addresses import is_remote, open_file, read_part, size_of
from headstart.data.contents.protocol import Names, Unread
from headstart.data.files import LIMIT_BYTES
from headstart.errors import BrokenDataError

__all__ = ["Member", "TarMembers", "tar_members"]

_BLOCK = 512
_LONGEST_NAME_BYTES = 2**20
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


@dataclass(frozen=True)
class Member:
    """A member of an archive; ``reason`` says why it is no file."""

    name: str
    offset: int
    size_bytes: int
    reason: str | None = None


def tar_members(address: str) -> Iterator[Member]:
    """The members of an archive in order, without folders; BrokenDataError where it is cut or altered.

    A member without a name marks an archive that ends without the end mark.
    """
    size_bytes = size_of(address)
    with _Reader(address) as reader:
        yield from _members(address, reader, size_bytes)


class _Reader:
    """Reads headers: a local file stays open meanwhile."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._file = None if is_remote(address) else open_file(address)

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def at(self, first: int, n_bytes: int) -> bytes:
        if self._file is None:
            return read_part(self._address, first, n_bytes)
        self._file.seek(first)
        return self._file.read(n_bytes)


def _members(address: str, reader: _Reader, size_bytes: int) -> Iterator[Member]:
    known: dict[str, str] = {}
    of_all: dict[str, str] = {}
    first, last = 0, ""
    while first < size_bytes:
        header = reader.at(first, _BLOCK)
        if len(header) < _BLOCK:
            raise _cut(address, last)
        if not header.strip(b"\0"):
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise _no_tar(address, header, first, last) from error
        body = first + _BLOCK
        if info.type in (*_LONG_NAMES, *_EXTENDED):
            if info.size > _LONGEST_NAME_BYTES:
                raise _no_tar(address, header, first, last)
            text = reader.at(body, info.size)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                known["path"] = text.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif info.type in _EXTENDED:
                (of_all if info.type == tarfile.XGLTYPE else known).update(_extended(text))
            first = body + _rounded(info.size)
            continue
        said = {**of_all, **known}
        name, known = said.get("path", info.name), {}
        has_body = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
        n_bytes = int(said.get("size", info.size)) if has_body else 0
        if body + n_bytes > size_bytes:
            raise _cut(address, name)
        if not info.isdir():
            yield Member(name, body, n_bytes, _reason(info, said))
        first, last = body + _rounded(n_bytes), name
    if not last:
        raise BrokenDataError(
            f"shard {address!r} is empty, expected a tar archive with images; write it again, or leave it out"
        )
    yield Member("", first, 0)


def _rounded(n_bytes: int) -> int:
    return -(-n_bytes // _BLOCK) * _BLOCK


def _extended(text: bytes) -> dict[str, str]:
    """Records ``<length> <key>=<value>`` of a POSIX header; those that cannot be read are left out."""
    found = {}
    while text:
        length = text.split(b" ", 1)[0]
        if not length.isdigit() or not 0 < int(length) <= len(text):
            break
        key, _, value = text[len(length) + 1 : int(length)].rstrip(b"\n").partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        text = text[int(length) :]
    return found


def _reason(info: tarfile.TarInfo, said: dict[str, str]) -> str | None:
    if info.issym() or info.islnk():
        return "it is a link in an archive, which is not followed; put the file into the archive"
    if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in said):
        return "it is a sparse file; pack it again without --sparse"
    return None if info.isreg() else "it is no file"


def _cut(address: str, name: str) -> BrokenDataError:
    return BrokenDataError(
        f"shard {address!r} ends within {name!r}, expected a whole tar archive; fetch or write it again"
    )


def _no_tar(address: str, header: bytes, first: int, last: str) -> BrokenDataError:
    packed = next(
        (kind for mark, kind in _COMPRESSED.items() if first == 0 and header.startswith(mark)), None
    )
    if packed:
        return BrokenDataError(
            f"shard {address!r} is compressed with {packed}, expected a plain tar archive, of which parts can be "
            "read; decompress it"
        )
    where = f"is damaged after {last!r}" if last else "is no tar archive"
    return BrokenDataError(
        f"shard {address!r} {where}, expected a whole tar archive; fetch or write it again"
    )


class TarMembers:
    """Members of tar shards; append-only, so that it can be read while the shards are still being searched.

    ``shown`` are the names of the shards in messages.
    """

    def __init__(self, shards: Sequence[str], shown: Sequence[str]) -> None:
        self._shards, self._shown = tuple(shards), tuple(shown)
        self._shard_of, self._offsets, self._sizes = array("i"), array("q"), array("q")
        self._names = Names()

    @property
    def paths(self) -> None:
        """None: members are no files of their own."""
        return

    def add(self, shard: int, member: Member) -> None:
        """Append a member of a shard."""
        self._names.append(member.name)
        self._shard_of.append(shard)
        self._offsets.append(member.offset)
        self._sizes.append(member.size_bytes)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, place: int) -> str:
        """``train-0003.tar:cat/001.jpg``."""
        return f"{self._shown[self._shard_of[place]]}:{self._names[place]}"

    def read(self, place: int) -> bytes:
        """The bytes of a member; Unread if the shard has become shorter."""
        if self._sizes[place] > LIMIT_BYTES:
            raise Unread(f"it has {self._sizes[place]:,} bytes, more than {LIMIT_BYTES:,}", "leave it out")
        data = self.head(place, self._sizes[place])
        if len(data) < self._sizes[place]:
            raise Unread("its shard has changed since the dataset was read", "load the dataset again")
        return data

    def head(self, place: int, n_bytes: int) -> bytes:
        """The first bytes of a member."""
        n_bytes = min(n_bytes, self._sizes[place])
        return read_part(self._shards[self._shard_of[place]], self._offsets[place], n_bytes)

    def subset(self, indices: NDArray[np.intp]) -> TarMembers:
        """Select members in this order, with the shards that hold them."""
        used, shard_of = np.unique(np.asarray(self._shard_of)[indices], return_inverse=True)
        some = TarMembers([self._shards[one] for one in used], [self._shown[one] for one in used])
        some._shard_of = array("i", shard_of.astype(np.int32).tobytes())
        some._offsets = array("q", np.asarray(self._offsets)[indices].tobytes())
        some._sizes = array("q", np.asarray(self._sizes)[indices].tobytes())
        some._names = Names(self._names[int(index)] for index in indices)
        return some
