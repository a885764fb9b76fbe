"""Files whose structure would cost a decoder hours or gigabytes, and large frames behind a small blank one."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.images.decode import decode_bytes, fault_in
from headstart.data.images.structure import check_structure, check_tags
from headstart.data.images.turns import PixelBudget

GIF = b"GIF89a\x08\0\x08\0\0\0\0"
PNG = b"\x89PNG\r\n\x1a\n"
N = 200_000


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tag(number: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", number, kind, count, value)


def tiff(*tags: bytes) -> bytes:
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(tags) + bytes(4)


SMALL = [
    tag(*one)
    for one in (
        (256, 4, 1, 8),
        (257, 4, 1, 8),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 0),
        (277, 3, 1, 1),
        (279, 4, 1, 64),
    )
]
COSTLY = {
    "comments of a GIF": GIF + b"!\xfe\0" * N,
    "one long comment": GIF + b"!\xfe" + (b"\xff" + b"a" * 255) * 5000 + b"\0",
    "blocks of one byte": GIF + b"!\xf9" + b"\x01a" * N + b"\0",
    "bytes between blocks": GIF + bytes(N),
    "chunks of a PNG": PNG
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    + chunk(b"abCd") * N,
    "segments of a JPEG": b"\xff\xd8" + b"\xff\xfe\0\2" * N,
    "fill bytes of a JPEG": b"\xff\xd8" + b"\xff" * N,
    "bytes between segments": b"\xff\xd8" + bytes(N),
    "EXIF blocks": b"\xff\xd8" + b"\xff\xe1\0\x08Exif\0\0" * 100,
    "chunks of a WebP": b"RIFF" + struct.pack("<I", N) + b"WEBP" + b"abcd\0\0\0\0" * N,
    "tags that share a value": tiff(*SMALL, *(tag(65_000 + one, 4, N, 0) for one in range(200))),
    "strips of a TIFF": tiff(*SMALL[:5], tag(273, 4, 2**30, 0)) + bytes(N),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_file_with_far_too_many_parts_is_refused_before_a_decoder_opens_it(name: str) -> None:
    fault = fault_in(COSTLY[name] + (bytes(4 * N) if "share" in name else b""))
    assert fault is not None
    assert "than any image needs" in fault or "share their values" in fault


def test_exif_whose_tags_share_a_value_costs_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = tiff(*(tag(300 + one, 4, 10_000, 0) for one in range(400))) + bytes(40_000)
    with pytest.raises(ValueError, match="share"):
        check_tags(exif)
    made = io.BytesIO()
    Image.new("L", (8, 4), 7).save(made, "WEBP", lossless=True, exif=b"Exif\0\0" + exif)
    monkeypatch.setattr(Image.Exif, "load", lambda *_: pytest.fail("was read"))
    assert decode_bytes(made.getvalue(), "x").shape == (4, 8, 3)


def frames(kind: str, side: int, **options: object) -> bytes:
    """A small blank frame, and a larger one behind it."""
    later = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side), np.uint8))
    made = io.BytesIO()
    Image.new("L", (8, 8)).save(made, kind, save_all=True, append_images=[later], **options)
    return made.getvalue()


def outgrown_gif(side: int) -> bytes:
    """A GIF whose second frame is larger than its canvas, by its header."""
    made = bytearray(frames("GIF", 8))
    places = [at for at in range(len(made)) if made[at : at + 5] == b",\0\0\0\0"]
    made[places[1] + 5 : places[1] + 9] = struct.pack("<HH", side, side)
    return bytes(made)


def test_the_largest_of_the_first_frames_is_found_by_their_headers() -> None:
    assert check_structure(frames("TIFF", 300)) == (300, 300)
    assert check_structure(frames("TIFF", 300, compression="tiff_lzw")) == (300, 300)
    assert check_structure(outgrown_gif(700)) == (700, 700)
    big = frames("TIFF", 300, big_tiff=True)
    assert big[2] == 43 and check_structure(big) == (300, 300)
    with Image.open(io.BytesIO(big)) as image:
        image.seek(1)
        assert image.size == (300, 300)


def test_a_large_frame_behind_a_small_one_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """It held the pixels of the first frame, and so decoded the second one without waiting."""
    budget = PixelBudget(100_000)
    monkeypatch.setattr("headstart.data.images.decode.claim_pixels", budget.claim)
    data, done = frames("TIFF", 300), threading.Event()

    def decode() -> None:
        with budget.turn():
            assert decode_bytes(data, "x").shape[:2] == (300, 300)
        done.set()

    thread = threading.Thread(target=decode)
    with budget.turn():
        budget.claim(50_000)
        thread.start()
        assert not done.wait(0.3)
    thread.join(10)
    assert done.is_set()


def test_ordinary_files_pass(tmp_path: Path) -> None:
    """Long animations, many IDAT chunks, many strips, progressive scans, a long profile."""
    rng = np.random.default_rng(0)
    many = [Image.fromarray(rng.integers(0, 256, (64, 64), np.uint8)) for _ in range(40)]
    whole = Image.fromarray(rng.integers(0, 256, (600, 400, 3), np.uint8))
    for number, (image, kind, options) in enumerate(
        (
            (many[0], "GIF", {"save_all": True, "append_images": many[1:], "comment": b"a" * 5000}),
            (many[0], "TIFF", {"save_all": True, "append_images": many[1:]}),
            (many[0], "PNG", {"save_all": True, "append_images": many[1:]}),
            (whole, "TIFF", {"strip_size": 100, "compression": "tiff_lzw"}),
            (whole, "JPEG", {"progressive": True, "icc_profile": rng.bytes(3_000_000)}),
            (whole, "WEBP", {"lossless": True}),
        )
    ):
        made = io.BytesIO()
        image.copy().save(made, kind, **options)
        assert fault_in(made.getvalue()) is None, number
