"""Decoding by content: formats, deep values, transparency, frames, metadata, and files that lie."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from headstart.data.images.decode import decode_bytes, examined, fault_in, formats_of, preview
from headstart.data.images.portable import portable_header, portable_values
from headstart.data.images.quiet import quiet
from image_files import deep_png, png_chunk, saved, strokes, tiff, with_chunk

RNG = np.random.default_rng(3)


def decoded(data: bytes, depth_bits: int | None = None) -> np.ndarray:
    return decode_bytes(data, "x", depth_bits)


def as_pillow(data: bytes) -> np.ndarray:
    """The pixels of an image without transparency, as Pillow gives them."""
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        return np.asarray(upright.convert("L" if image.mode in ("1", "L") else "RGB"))


@pytest.fixture
def colours() -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (21, 34, 3), dtype=np.uint8))


# formats


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF"])
def test_formats_are_pillows_to_the_bit(kind: str, colours: Image.Image) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    data = saved(colours, kind)
    assert np.array_equal(decoded(data), as_pillow(data))


def test_the_first_frame_of_an_mpo_is_read(colours: Image.Image) -> None:
    data = saved(colours, "MPO", save_all=True, append_images=[ImageOps.invert(colours)])
    assert np.array_equal(decoded(data), as_pillow(data))
    header, _ = preview(data, "x", 32)
    assert header.format == "MPO" and header.frames


def test_the_orientations_are_pillows(colours: Image.Image) -> None:
    for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        for number in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = number
            data = saved(colours, kind, exif=exif)
            assert np.array_equal(decoded(data), as_pillow(data)), (kind, number)


# 16 bits


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_values_of_few_bits_in_16_are_scaled(bits: int, channels: int) -> None:
    most = (1 << bits) - 1
    values = RNG.integers(0, most + 1, (9, 7, channels)).astype(np.uint16)
    values[0, 0] = most
    n_colours = channels - 1 if channels in (2, 4) else channels
    if channels in (2, 4):
        values[..., -1] = most
    wanted = np.rint(values[..., :n_colours] * (255 / most)).astype(np.uint8)
    files = [deep_png(values)]
    if channels != 2:
        files += [tiff(values, order=order, deflate=deflate) for order in "<>" for deflate in (False, True)]
    for data in files:
        found = examined(data)
        assert not isinstance(found, str), found
        assert found.largest == most
        assert np.array_equal(found.pixels, np.broadcast_to(wanted, found.pixels.shape))


def test_the_depth_that_is_given_counts() -> None:
    values = np.full((4, 4, 1), 255, np.uint16)
    values[0] = 0
    assert decoded(deep_png(values)).max() == 255
    assert decoded(deep_png(values), 12).max() == 16 and decoded(deep_png(values), 16).max() == 1
    bright = np.full((4, 4, 3), 60_000, np.uint16)
    assert (decoded(deep_png(bright), 12) == 255).all()


def test_colour_of_full_depth_is_pillows_to_the_bit() -> None:
    values = RNG.integers(0, 65536, (9, 7, 3)).astype(np.uint16)
    for data in (deep_png(values), tiff(values), tiff(values, order=">", deflate=True)):
        assert np.array_equal(decoded(data), as_pillow(data))
        assert np.array_equal(decoded(data, 16), as_pillow(data))


def test_deep_alpha_is_composited() -> None:
    values = np.zeros((4, 4, 4), np.uint16)
    values[..., 0], values[..., 3] = 4095, 4095
    values[0, :, 3] = 0
    found = decoded(deep_png(values))
    assert found[0].min() == 255 and (found[1:] == [255, 0, 0]).all()
    values[..., 3] = 65535  # an alpha of full depth beside colours of 12 bits
    assert (decoded(deep_png(values)) == [255, 0, 0]).all()


def test_negative_values_are_refused() -> None:
    image = Image.fromarray(np.array([[-5, 3]], np.int32))
    assert (
        fault_in(saved(image, "TIFF")) == "it has negative pixel values, expected 8 or 16 bits without sign"
    )


def test_a_portable_file_says_its_depth_itself() -> None:
    dim = b"P5 2 1 4095\n" + bytes([0, 0, 0, 255])
    assert decoded(dim).ravel().tolist() == [0, 16] and examined(dim).largest is None  # type: ignore[union-attr]
    full = b"P5 2 1 65535\n" + bytes([0, 0, 15, 255])
    assert decoded(full).ravel().tolist() == [0, 255] and examined(full).largest == 4095  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["P5", "P6"])
@pytest.mark.parametrize("largest", [1, 7, 100, 255, 256, 4095, 65534])
def test_portable_values_are_pillows(kind: str, largest: int) -> None:
    values = RNG.integers(0, largest + 1, 60)
    data = f"{kind}\n# a comment\n5 {4 if kind == 'P6' else 12}\n{largest}\n".encode()
    data += values.astype(">u2" if largest > 255 else np.uint8).tobytes()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        wanted = (np.asarray(image).astype(np.int64) + 128) // 257 if image.mode == "I" else np.asarray(image)
    assert np.array_equal(decoded(data).reshape(wanted.shape), wanted)
    assert "truncated" in str(fault_in(data[:-1]))


@pytest.mark.parametrize(
    "data",
    [
        *(b"P5" + b" " * 10_000_000, b"P6 #" + b"x" * 10_000_000, b"P5 1" + b"\n#a" * 3_000_000),
        *(b"P5", b"P4 2 2"),
    ],
    ids=["blanks", "comment", "comments", "nothing", "cut"],
)
def test_a_portable_header_without_end_is_refused_at_once(data: bytes) -> None:
    assert fault_in(data) == "its header has no end"
    portable = formats_of(b"P5 2 2 255 ")
    assert "PPM" in portable and "PPM" not in formats_of(b"Pfnord")
    with pytest.raises(ValueError, match="no end"):
        formats_of(data)


def test_text_that_begins_like_a_portable_image() -> None:
    for data in (b"P1 is my favourite", b"Python", b"P5 2 2 70000 ", b"P6 0 3 255 "):
        assert fault_in(data) == "it is a text file, not an image; leave it out"
        assert portable_header(data) is None
    assert fault_in(b"Pf 2 2 1.0 " + b" " * 10_000_000) == (
        "its pixels are floating-point numbers, whose range is unknown"
    )
    header = portable_header(b"P5 1 1 9 \x04")
    assert header is not None and portable_values(b"P5 1 1 9 \x04", header).tolist() == [[[113]]]


# transparency


def icon(colour: int, alpha: np.ndarray) -> Image.Image:
    image = Image.new("RGBA", alpha.shape[::-1], (colour, colour, colour))
    image.putalpha(Image.fromarray(alpha))
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_white_strokes_on_transparent_are_seen(mode: str) -> None:
    ink = 255 - strokes()
    image = icon(255, ink)
    data = saved(image.convert("LA") if mode == "LA" else image.quantize(8) if mode == "PA" else image)
    found = decoded(data)
    assert found.min() == 0 and found.max() == 255
    assert np.array_equal(found[..., 0] > 128, ink > 128)


def test_light_strokes_and_noise_do_not_change_that() -> None:
    ink = 255 - strokes()
    assert np.ptp(decoded(saved(icon(225, ink)))) > 200
    noisy = np.asarray(icon(255, ink)).copy()
    place = np.argwhere(ink > 0)[0]
    noisy[tuple(place)][:3] = 0
    assert (decoded(saved(Image.fromarray(noisy)))[..., 0] > 128).sum() == (ink > 128).sum() - 1


@pytest.mark.parametrize("colour", [0, 90, 180])
def test_other_strokes_stay_on_white(colour: int) -> None:
    found = decoded(saved(icon(colour, 255 - strokes())))
    assert found.max() == 255 and found.min() == colour


def test_a_document_with_a_few_transparent_pixels_stays_white() -> None:
    alpha = np.full((48, 48), 255, np.uint8)
    alpha[:2, :2] = 0
    page = np.dstack([strokes()] * 3 + [alpha])
    assert (decoded(saved(Image.fromarray(page)))[:2, :2] == 255).all()


def test_an_alpha_of_zero_everywhere_is_ignored() -> None:
    pixels = np.dstack([strokes()] * 3 + [np.zeros((48, 48), np.uint8)])
    for data in (
        saved(Image.fromarray(pixels)),
        saved(Image.fromarray(pixels), "WEBP", lossless=True, exact=True),
    ):
        assert np.array_equal(decoded(data), pixels[..., :3])
    deep = pixels.astype(np.uint16) * 257
    assert np.array_equal(decoded(deep_png(deep)), pixels[..., :3])


# frames


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_a_blank_first_frame_is_passed_over(kind: str) -> None:
    blank, drawn = Image.new("L", (48, 48), 255), Image.fromarray(strokes())
    frames = [one.convert("RGB") if kind == "WEBP" else one for one in (blank, blank, drawn)]
    options = {"lossless": True} if kind == "WEBP" else {"duration": 100} if kind != "TIFF" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(decoded(data)[..., 0], strokes())
    header, pixels = preview(data, "x", 32)
    assert header.frames and np.ptp(pixels) == 255


def test_a_drawn_first_frame_stays_and_a_blank_image_too() -> None:
    blank, drawn = Image.new("L", (48, 48), 255), Image.fromarray(strokes())
    data = saved(drawn, "GIF", save_all=True, append_images=[blank])
    assert np.array_equal(decoded(data)[..., 0], strokes())
    assert (decoded(saved(blank, "GIF")) == 255).all()
    assert not preview(saved(blank, "GIF"), "x", 32)[0].frames


# metadata

ODD_CHUNKS = {
    "large text": png_chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"x" * 2_000_000)),
    "broken exif": png_chunk(b"eXIf", b"II*\0\x08\0"),
    "large profile": png_chunk(
        b"iCCP", b"icc\0\0" + zlib.compress(np.random.default_rng(0).bytes(1_200_000))
    ),
    "wrong checksum": png_chunk(b"tEXt", b"a\0b")[:-4] + b"\0\0\0\0",
    "empty physical size": png_chunk(b"pHYs", b""),
    "broken text": png_chunk(b"iTXt", b"a\0\1\7zz\0\0"),
    "broken animation": png_chunk(b"acTL", b"\0\0"),
}


@pytest.mark.parametrize("what", ODD_CHUNKS)
def test_a_png_with_odd_metadata_is_read(what: str, colours: Image.Image) -> None:
    plain = saved(colours)
    assert np.array_equal(decoded(with_chunk(plain, ODD_CHUNKS[what])), np.asarray(colours))
    after = plain[:-12] + ODD_CHUNKS[what] + plain[-12:]
    assert np.array_equal(decoded(after), np.asarray(colours))


def test_metadata_is_no_excuse_for_torn_pixels(colours: Image.Image) -> None:
    torn = bytearray(with_chunk(saved(colours), ODD_CHUNKS["large text"]))
    assert fault_in(bytes(torn[:-40])) is not None
    torn[-30] ^= 0xFF
    assert fault_in(bytes(torn)) is not None


def test_a_transparent_colour_survives_odd_metadata() -> None:
    image = Image.fromarray(np.array([[0, 9]], np.uint8))
    data = with_chunk(saved(image, transparency=0), ODD_CHUNKS["wrong checksum"])
    assert decoded(data).ravel().tolist() == [255, 9]


def test_a_webp_with_odd_metadata_is_read(colours: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    data = saved(colours, "WEBP", lossless=True, exif=exif, icc_profile=b"x" * 100)
    at = data.index(b"EXIF")
    broken = data[: at + 8] + b"\xff" * (len(data) - at - 8)
    assert np.array_equal(decoded(broken), np.asarray(colours))
    long = data[: at + 4] + b"\xff\xff\xff\x7f" + data[at + 8 :]  # a chunk that ends behind the file
    assert np.array_equal(decoded(long), np.asarray(colours))


# TIFF


@pytest.mark.parametrize("compression", ["group4", "group3", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiffs_are_read_and_torn_ones_refused_or_read_alike(compression: str) -> None:
    noise = Image.fromarray(((RNG.random((200, 200)) > 0.5) * 255).astype(np.uint8)).convert("1")
    data = saved(noise, "TIFF", compression=compression)
    assert np.array_equal(decoded(data)[..., 0], np.asarray(noise.convert("L")))
    for number in range(12):
        torn = bytearray(data)
        at = int(RNG.integers(8, len(data) - 60))
        torn[at : at + 40] = RNG.bytes(40)
        torn = torn if number % 2 else torn[: len(torn) * number // 12]
        outcomes = set()
        for fill in (0, 255):  # what is in the memory that a decoder gets
            np.full(300_000, fill, np.uint8)
            found = examined(bytes(torn))
            outcomes.add(found if isinstance(found, str) else found.pixels.tobytes())
        assert len(outcomes) == 1


def test_a_torn_fax_page_is_refused() -> None:
    page = Image.fromarray(strokes(400)).convert("1")
    data = bytearray(saved(page, "TIFF", compression="group4"))
    data[10:30] = b"\0" * 20
    assert fault_in(bytes(data)) in ("its compressed data is damaged", "decoder error -2")


def test_a_fax_page_whose_code_ends_early_is_refused() -> None:
    """Libtiff says nothing, and the rows that are missing are what was in memory."""
    noise = Image.fromarray(((RNG.random((200, 200)) > 0.5) * 255).astype(np.uint8)).convert("1")
    data = saved(noise, "TIFF", compression="group4")
    end = b"\x00\x10\x01" * 3  # the end of a block, twelve zeros and ones
    refused = 0
    for at in range(len(data) // 4, len(data) // 4 + 16):
        refused += fault_in(data[:at] + end + b"\0" * 60 + data[at + 69 :]) is not None
    assert refused == 16
    assert fault_in(data) is None


def test_raw_files_of_cameras_are_no_thumbnails() -> None:
    values = RNG.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    raw = "it is a camera's raw file, whose format is not read; convert it to PNG or JPEG"
    assert fault_in(tiff(values)) is None
    assert fault_in(tiff(values, extra=((254, 1), (330, 8)))) == raw
    assert fault_in(tiff(values, extra=((50706, 1),))) == raw
    assert fault_in(b"II*\0\x10\0\0\0CR\x02\0" + b"\0" * 100) is not None


SPEAKS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from headstart.data.images.decode import fault_in
files = [Path(name).read_bytes() for name in sys.argv[1:]] * 4
with ThreadPoolExecutor(4) as pool:
    print(sum(fault is not None for fault in pool.map(fault_in, files)))
"""


def test_no_library_speaks_on_stderr(tmp_path: Path, colours: Image.Image) -> None:
    page = bytearray(saved(Image.fromarray(strokes(400)).convert("1"), "TIFF", compression="group4"))
    page[10:30] = b"\xff" * 20
    packed = bytearray(saved(colours, "TIFF", compression="tiff_lzw"))
    packed[20:60] = b"\xff" * 40
    bomb = b"P5 10000 10000 255\n"
    broken_mpo = saved(colours, "MPO", save_all=True, append_images=[colours]).replace(b"MPF\0II", b"MPF\0XX")
    for number, data in enumerate((page, packed, bomb, broken_mpo)):
        (tmp_path / f"{number}").write_bytes(bytes(data))
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", SPEAKS, *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == "" and int(done.stdout) >= 8


def test_silence_ends_with_the_last_thread() -> None:
    before = list(warnings.filters)
    start, stop = threading.Event(), threading.Event()

    def decode_for_long() -> None:
        with quiet():
            start.set()
            stop.wait(10)

    other = threading.Thread(target=decode_for_long)
    other.start()
    start.wait(10)
    with quiet():
        assert list(warnings.filters) != before
    assert list(warnings.filters) != before
    stop.set()
    other.join()
    assert list(warnings.filters) == before
