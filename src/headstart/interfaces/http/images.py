"""From uploaded bytes to the pixels a network takes; too large images are refused by their header."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.data.images.decode import formats_of
from headstart.data.images.fit import fit_bytes
from headstart.data.images.quiet import quiet
from headstart.data.images.structure import check_structure
from headstart.data.images.turns import turn
from headstart.errors import BrokenDataError
from headstart.interfaces.http.limits import Limits, RequestError, printable
from headstart.records import InputSpec

__all__ = ["FORMATS", "Preparer", "image_px"]

# the same as in headstart.data.images.decode: a test checks it
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
# Below both, decoding takes less time than handing over to a thread (0.06 against 0.1 ms, 2026-11-21).
_TINY_BYTES, _TINY_PX = 8 * 1024, 64 * 64
_LARGE_PX = 4_000_000
_PNG = b"\x89PNG\r\n\x1a\n"
_Arguments = ParamSpec("_Arguments")
_Made = TypeVar("_Made")


def image_px(data: bytes) -> tuple[int, int]:
    """Width and height in pixels by the headers of the frames that may be decoded; (0, 0) if it is not an image."""
    from PIL import Image

    if data.startswith(_PNG) and data.count(b"IHDR") == 1 and data[12:16] == b"IHDR" and len(data) > 24:
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])  # a fifth of the time
    try:
        largest = check_structure(data)
        with quiet(), Image.open(io.BytesIO(data), formats=formats_of(data)) as image:
            return max(largest, image.size, key=prod)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RequestError(413, f"image is too large ({error}), expected a smaller one") from error
    except Exception:  # decoders raise nearly anything on malformed bytes
        return (0, 0)


class Preparer:
    """Threads that decode images and prepare them for a network.

    Pillow releases the GIL while it decodes, so threads help. Images above 4 million pixels are decoded one
    at a time in a thread of their own, while ``turn`` is held: this bounds memory, and small images do not
    wait for them. All count in the budget of pixels of this process but tiny ones, which are decoded at once,
    because handing them to a thread takes longer: the event loop must not wait for a turn.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        n_threads: int | None = None,
        turn: AbstractContextManager[object] | None = None,
    ) -> None:
        self._limit_px = limits.image_px
        self._turn = nullcontext() if turn is None else turn
        self._threads = ThreadPoolExecutor(n_threads or os.cpu_count(), thread_name_prefix="image")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="large-image")

    async def prepare(self, data: bytes, name: str, spec: InputSpec) -> NDArray[np.uint8]:
        """One image as the network takes it."""
        if len(data) <= _TINY_BYTES and self._checked(data, name) <= _TINY_PX:
            return _prepared(data, name, spec)
        ready = await _in(self._threads, self._unless_large, data, name, spec)
        return await _in(self._large, self._in_turn, data, name, spec) if ready is None else ready

    def close(self) -> None:
        """Shut down the threads; waiting images are dropped."""
        for pool in (self._threads, self._large):
            pool.shutdown(wait=False, cancel_futures=True)

    def _unless_large(self, data: bytes, name: str, spec: InputSpec) -> NDArray[np.uint8] | None:
        if self._checked(data, name) > _LARGE_PX:
            return None
        with turn():
            return _prepared(data, name, spec)

    def _in_turn(self, data: bytes, name: str, spec: InputSpec) -> NDArray[np.uint8]:
        with self._turn, turn():
            return _prepared(data, name, spec)

    def _checked(self, data: bytes, name: str) -> int:
        """Number of pixels; `RequestError` if there are too many."""
        width, height = image_px(data)
        if width * height > self._limit_px:
            raise RequestError(
                413,
                f"image {printable(name)!r} has {width} x {height} pixels, expected at most {self._limit_px:,}; "
                "send a smaller one",
            )
        return width * height


def _prepared(data: bytes, name: str, spec: InputSpec) -> NDArray[np.uint8]:
    try:
        return fit_bytes(data, printable(name), spec, spec.depth_bits)
    except BrokenDataError as error:
        raise RequestError(422, str(error)) from error


async def _in(
    pool: Executor, function: Callable[_Arguments, _Made], *arguments: _Arguments.args, **_: _Arguments.kwargs
) -> _Made:
    return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
