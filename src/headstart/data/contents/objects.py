"""Images that are objects of a bucket, one for each image; read in order, the next ones are fetched ahead of time."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from headstart.data.contents.addresses import explained, file_system
from headstart.data.contents.blocks import blocks
from headstart.data.contents.protocol import Names, Unread
from headstart.data.files import LIMIT_BYTES
from headstart.errors import MissingDataError

__all__ = ["BucketObjects"]

_FOLLOWS = 64  # places from one read to the next one that count as reading in order
_AHEAD_BYTES, _MOST_AHEAD = 16 * 2**20, 32


class BucketObjects:
    """Objects by their addresses, with their sizes in bytes; 0 where it is not known."""

    def __init__(self, addresses: Iterable[str], sizes: Iterable[int]) -> None:
        self._addresses, self._sizes = Names(addresses), array("q", sizes)
        self._last, self._key = -1, object()  # not those of an older listing

    @property
    def paths(self) -> None:
        """None: objects are no files of this machine."""
        return

    def __len__(self) -> int:
        return len(self._sizes)

    def name(self, place: int) -> str:
        """The address."""
        return self._addresses[place]

    def read(self, place: int) -> bytes:
        """The bytes of an object; Unread if it does not exist, FetchError if the network fails."""
        if self._sizes[place] > LIMIT_BYTES:
            raise Unread(f"it has {self._sizes[place]:,} bytes, more than {LIMIT_BYTES:,}", "leave it out")
        follows, self._last = 0 <= place - self._last <= _FOLLOWS, place
        if not follows and not blocks().has((self._key, self._addresses[place])):
            return self._load(place)[0]
        n_ahead = min(_AHEAD_BYTES // max(self._sizes[place], 1), _MOST_AHEAD)
        for later in range(place + 1, min(place + 1 + n_ahead, len(self))):
            blocks().ahead((self._key, self._addresses[later]), partial(self._load, later))
        found = blocks().get((self._key, self._addresses[place]), partial(self._load, place))
        return cast("bytes", found)

    def _load(self, place: int) -> tuple[bytes, int]:
        address = self._addresses[place]
        system, path = file_system(address)
        try:
            with explained(address):
                data = bytes(system.cat_file(path))
        except MissingDataError as error:
            raise Unread("it does not exist", "correct the address", missing=True) from error
        return data, len(data)

    def head(self, place: int, n_bytes: int) -> bytes:
        """The first bytes of an object; none if it does not exist."""
        system, path = file_system(self._addresses[place])
        try:
            with explained(self._addresses[place]):
                return bytes(system.cat_file(path, start=0, end=n_bytes))
        except MissingDataError:
            return b""

    def subset(self, indices: NDArray[np.intp]) -> BucketObjects:
        """Select objects in this order."""
        some = BucketObjects(
            (self._addresses[int(index)] for index in indices), np.asarray(self._sizes)[indices].tolist()
        )
        some._key = self._key
        return some
