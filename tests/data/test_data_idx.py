"""IDX files: read whole, or refused with the bytes expected and found."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from headstart.data.readers.idx import check_pair, parse_idx
from headstart.errors import BrokenDataError


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_read_plain_or_packed(pack: type) -> None:
    assert np.array_equal(parse_idx(pack(idx(IMAGES)), "x", 3), IMAGES)
    assert np.array_equal(parse_idx(pack(idx(IMAGES[0, 0])), "x", 1), IMAGES[0, 0])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", r"^IDX file 'x' is empty \(0 bytes\), expected a header and values; fetch it again$"),
        (
            idx(IMAGES)[:-1],
            r"^IDX file 'x' holds 39 bytes, expected 40 for shape \(2, 3, 4\); fetch it again$",
        ),
        (idx(IMAGES) + b"!", r"^IDX file 'x' holds more than 40 bytes, expected 40 for shape"),
        (gzip.compress(idx(IMAGES)[:-1], mtime=0), r"^IDX file 'x' holds 39 bytes, expected 40"),
        (gzip.compress(idx(IMAGES) + b"!", mtime=0), r"^IDX file 'x' holds more than 40 bytes, expected 40"),
        (gzip.compress(idx(IMAGES), mtime=0)[:-12], r"^IDX file 'x' holds \d+ bytes, expected 40"),
        (
            idx(IMAGES[0]),
            r"^IDX file 'x' starts with '00000802' and 16 header bytes, expected '00000803' and 16 for 3",
        ),
        (b"\0\0\x0d\x03" + idx(IMAGES)[4:], r"^IDX file 'x' starts with '00000d03' and 16"),
        (
            idx(IMAGES)[:9],
            r"^IDX file 'x' starts with '00000803' and 9 header bytes, expected '00000803' and 16",
        ),
        (b"<html>no such file here</html>", r"^IDX file 'x' starts with '3c68746d' and 16"),
        (
            b"\x1f\x8bnot gzip at all",
            r"^IDX file 'x' cannot be unpacked \(.*\), expected a whole gzip file; fetch it ag",
        ),
        (
            b"\0\0\x08\x03" + b"\xff" * 12,
            r"^IDX file 'x' claims shape \(4294967295, .*\), expected at most \d+ bytes; f",
        ),
    ],
)
def test_what_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(BrokenDataError, match=sentence):
        parse_idx(data, "x", 3)


def test_an_altered_byte_fails_the_check_sum() -> None:
    packed = bytearray(gzip.compress(idx(IMAGES), mtime=0))
    packed[-5] ^= 1  # in the CRC
    with pytest.raises(
        BrokenDataError, match=r"^IDX file 'x' cannot be unpacked \(.*incorrect data check\), expected"
    ):
        parse_idx(bytes(packed), "x", 3)


def test_a_count_that_differs() -> None:
    check_pair(IMAGES, IMAGES[0, 0, :2], ("images", "labels"))
    with pytest.raises(
        BrokenDataError,
        match=r"^IDX file 'labels' has 4 labels \(12 bytes\), expected 2 \(10 bytes\) to match the images in",
    ):
        check_pair(IMAGES, IMAGES[0, 0], ("images", "labels"))
