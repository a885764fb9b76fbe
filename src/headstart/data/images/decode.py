"""From the bytes of an image file to 8-bit pixels: the only place that decodes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from headstart.data.images.foreign import described
from headstart.data.images.metadata import without_metadata
from headstart.data.images.portable import PortableHeader, portable_header, portable_values
from headstart.data.images.quiet import quiet
from headstart.data.images.reduced import AVERAGED, Header, Read, Reduction, reduce_jpeg, reduced_to
from headstart.data.images.structure import MOST_FRAMES, check_structure
from headstart.data.images.tiff import check_fax, check_tiff, noticed
from headstart.data.images.turns import claim_pixels
from headstart.data.images.upright import orientation_of, upright
from headstart.data.images.values import depth_of, from_deep, shallow
from headstart.errors import BrokenDataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.TiffImagePlugin import TiffImageFile

__all__ = [
    "EXTENSIONS",
    "FORMATS",
    "decode_bytes",
    "decode_reduced",
    "examined",
    "fault_in",
    "formats_of",
    "from_pillow",
    "preview",
    "squished",
]

EXTENSIONS = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".gif", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif"),
)
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
"""The only decoders that read untrusted bytes; EPS, for example, would start Ghostscript."""
_CHECK_PX = 64
_LIMIT_SIDE_PX = 65_535
_BLANK_RANGE = 2  # of 255
_OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16B"}  # what a rawmode calls the low byte of its values
_SURELY_16_BITS = 64  # a high byte that no value of 14 bits has


class _Deep:
    """Values of 16 bits, scaled with the depth of the dataset, else of the file; remembers the largest one."""

    def __init__(self, bits: int | None) -> None:
        self._bits = bits
        self.largest: int | None = None

    def scaled(self, values: NDArray[np.uint16]) -> NDArray[np.uint8]:
        self.note(int(values.max()))
        return from_deep(values, self.bits)

    @property
    def is_16_or_open(self) -> bool:
        return self._bits in (None, 16)

    def note(self, largest: int) -> None:
        self.largest = max(largest, self.largest or 0)

    @property
    def bits(self) -> int:
        return depth_of(self.largest or 0) if self._bits is None else self._bits


def decode_bytes(data: bytes, name: str, depth_bits: int | None = None) -> NDArray[np.uint8]:
    """Decode an image, upright, to (height, width, 1 or 3) uint8; BrokenDataError names it as ``name``.

    One channel if the file is grey, else red, green, blue. Transparent pixels are put on white, or on black
    where what is visible is white; an alpha of 0 everywhere is ignored. Of several frames the first that is
    not blank is read. Values of 16-bit files are scaled to 8 bits as values of ``depth_bits`` (8, 10, 12, 14
    or 16), by default of as many bits as the file uses. Colour profiles and other metadata are ignored.
    Images above Pillow's limit against decompression bombs (89 million pixels) are refused.

    >>> decode_bytes(b"P5 2 1 255 " + bytes([0, 255]), "two.pgm")[..., 0].tolist()
    [[0, 255]]
    """
    return decode_reduced(data, name, None, depth_bits).pixels


def decode_reduced(
    data: bytes, name: str, reduction: Reduction | None, depth_bits: int | None = None
) -> Read:
    """As `decode_bytes`, but a JPEG in grey or colour may be decoded at a reduced size.

    Of CMYK the inks would be averaged rather than the colours, so these are decoded at full size.
    """
    found = _read(data, reduction, depth_bits, AVERAGED)
    if isinstance(found, str):
        raise _broken(name, found)
    return found


def from_pillow(image: Image, name: str, depth_bits: int | None = None) -> NDArray[np.uint8]:
    """The pixels of an image of Pillow, which stays as it is, by the rules of `decode_bytes`."""
    try:
        _check_size(image.width, image.height)
        image.load()
        return _frame(b"", image, 0, _Deep(depth_bits))
    except Exception as error:  # its file may be broken, and is read only now
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrokenDataError(
            f"{name} cannot be read ({reason}), expected a complete Pillow image of 8 or 16 bits; open it again, "
            "or convert it to 'RGB'"
        ) from error


def examined(data: bytes, side_px: int = _CHECK_PX // 4) -> Read | str:
    """A file as far as a check of its pixels goes: decoded as by `preview`, or why it cannot be.

    Reads every byte as `decode_bytes` does, but decodes JPEG at a reduced scale, which is several times
    faster.
    """
    return _read(data, reduced_to(4 * side_px), None)


def fault_in(data: bytes) -> str | None:
    """Why an image cannot be decoded, or None."""
    found = examined(data)
    return found if isinstance(found, str) else None


def preview(
    data: bytes, name: str, side_px: int, depth_bits: int | None = None
) -> tuple[Header, NDArray[np.uint8]]:
    """An image's header, and its pixels upright, (height, width, 1 or 3) uint8.

    JPEG is decoded at a reduced scale near ``side_px``, all else at full size; BrokenDataError if that fails.
    """
    found = _read(data, reduced_to(4 * side_px), depth_bits)
    if isinstance(found, str):
        raise _broken(name, found)
    return found.header, found.pixels


def squished(pixels: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """One image (height, width, 1 or 3) resized to (side_px, side_px, 3)."""
    from PIL import Image

    small = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    return np.asarray(small.resize((side_px, side_px), Image.Resampling.BILINEAR))


def _broken(name: str, fault: str) -> BrokenDataError:
    reason, _, advice = fault.partition("; ")
    return BrokenDataError(
        f"image {name!r} cannot be read ({reason}), expected a complete image in one of {', '.join(FORMATS)}; "
        f"{advice or 'replace it or leave it out'}"
    )


def _read(
    data: bytes, reduction: Reduction | None, depth_bits: int | None, modes: tuple[str, ...] | None = None
) -> Read | str:
    """Decode an image, or say why that is impossible; without its metadata if that is what fails.

    A JPEG of one of these modes, by default of any, is reduced.
    """
    fault = _attempt(data, reduction, depth_bits, modes)
    if not isinstance(fault, str):
        return fault
    bare = without_metadata(data)
    found = fault if bare is None else _attempt(bare, reduction, depth_bits, modes)
    return fault if isinstance(found, str) else found


def _attempt(
    data: bytes, reduction: Reduction | None, depth_bits: int | None, modes: tuple[str, ...] | None
) -> Read | str:
    from PIL import Image, UnidentifiedImageError

    try:
        portable = portable_header(data)
        if portable is not None and portable.slow:
            return _portable(data, portable)
        is_scaled = portable is not None and portable.largest != 65535  # by the largest value in its header
        with quiet(), _opened(data) as image:
            header = Header(image.width, image.height, image.mode, str(image.format), _has_frames(image))
            reduced = None if reduction is None else reduce_jpeg(image, reduction, modes)
            deep = _Deep(16 if is_scaled else depth_bits)
            pixels = _frame(data, image, 0, deep)
            if header.frames and header.format != "MPO" and _is_blank(pixels):
                pixels = _later_frame(data, image, deep, pixels)
            area, factor = reduced or ((0, 0, pixels.shape[1], pixels.shape[0]), 1)
            return Read(header, pixels, None if is_scaled else deep.largest, area, factor)
    except UnidentifiedImageError:
        return described(data) or "it is not an image"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "it has too many pixels"
    except Exception as error:  # decoders raise nearly anything on malformed bytes
        return str(error).splitlines()[0] if str(error) else type(error).__name__


def _portable(data: bytes, header: PortableHeader) -> Read:
    _check_size(header.width_px, header.height_px)
    pixels, area = portable_values(data, header), (0, 0, header.width_px, header.height_px)
    mode = "L" if header.kind == "P5" else "RGB"
    return Read(Header(header.width_px, header.height_px, mode, "PPM"), pixels, None, area)


def formats_of(data: bytes) -> tuple[str, ...]:
    """The decoders that may open these bytes; ValueError if they are a portable image whose header has no end.

    Pillow's own test for portable images is two bytes, and it reads their headers byte by byte.
    """
    is_other = data[:1] == b"P" and portable_header(data) is None
    return tuple(name for name in FORMATS if name != "PPM") if is_other else FORMATS


@contextmanager
def _opened(data: bytes) -> Iterator[Image]:
    """The image, not decoded; an image that is too large, or no image after all, is refused by its header."""
    from PIL import Image

    if data[:2] in (b"Pf", b"PF") and data[2:3].isspace():
        raise ValueError("its pixels are floating-point numbers, whose range is unknown")
    largest_px = prod(check_structure(data))
    with Image.open(io.BytesIO(data), formats=formats_of(data)) as image:
        if (
            largest_px > image.width * image.height
        ):  # of a later frame: who holds pixels does not wait for more
            claim_pixels(largest_px)
        _check_size(image.width, image.height)
        if image.format == "TIFF":
            check_tiff(cast("TiffImageFile", image), len(data))
        yield image


def _check_size(width_px: int, height_px: int) -> None:
    """Refuse an image by its header, before its pixels are decoded, or wait until they fit into memory."""
    from PIL.Image import MAX_IMAGE_PIXELS

    if MAX_IMAGE_PIXELS is not None and width_px * height_px > MAX_IMAGE_PIXELS:
        raise ValueError(f"it has {width_px} x {height_px} pixels, more than {MAX_IMAGE_PIXELS}")
    if max(width_px, height_px) > _LIMIT_SIDE_PX:  # few pixels, but resizing would take gigabytes
        raise ValueError(f"it has a side of {max(width_px, height_px)} pixels, more than {_LIMIT_SIDE_PX}")
    claim_pixels(width_px * height_px)


def _has_frames(image: Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # of a GIF whose second frame is damaged
        return False


def _is_blank(pixels: NDArray[np.uint8]) -> bool:
    """Whether all pixels have nearly one colour."""
    return bool(np.ptp(pixels, axis=(0, 1)).max() <= _BLANK_RANGE)


def _later_frame(data: bytes, image: Image, deep: _Deep, first: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The first of the next frames that is not blank; the first frame if there is none."""
    for number in range(1, MOST_FRAMES):
        try:
            image.seek(number)
            _check_size(image.width, image.height)
            pixels = _frame(data, image, number, deep)
        except Exception:  # the end, or a damaged frame
            return first
        if not _is_blank(pixels):
            return pixels
    return first


def _frame(data: bytes, image: Image, number: int, deep: _Deep) -> NDArray[np.uint8]:
    """The pixels of the current frame, upright."""
    rawmode = _rawmode(image)
    if image.format == "TIFF":
        with noticed():
            check_fax(cast("TiffImageFile", image), data, number)
    _load(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is unknown")
    if image.mode.startswith("I"):
        pixels = deep.scaled(_whole_16_bits(np.asarray(image)))[..., None]
    elif ";16" in rawmode and image.mode in ("RGB", "RGBA"):
        pixels = _deep_colour(data, image, number, rawmode, deep)
    else:
        pixels = shallow(image)
    return upright(pixels, orientation_of(image))


def _load(image: Image) -> None:
    with noticed() if image.format == "TIFF" else nullcontext():
        image.load()


def _rawmode(image: Image) -> str:
    """What Pillow calls the layout of the stored pixels, such as ``RGB;16B``."""
    tile: list[Any] = getattr(image, "tile", [])
    arguments = tile[0].args if tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _whole_16_bits(values: NDArray[Any]) -> NDArray[np.uint16]:
    if values.dtype != np.uint16:
        if values.min() < 0:
            raise ValueError("it has negative pixel values, expected 8 or 16 bits without sign")
        if values.max() > 65535:
            raise ValueError("its pixels are 32-bit numbers, expected 8 or 16 bits")
    return values.astype(np.uint16, copy=False)


def _deep_colour(data: bytes, image: Image, number: int, rawmode: str, deep: _Deep) -> NDArray[np.uint8]:
    """Colour of 16 bits per channel, of which Pillow gives the high bytes.

    Where these leave the depth open, the file is decoded once more for the low bytes.
    """
    from PIL import Image as pillow

    high = np.asarray(image)
    colours = high[..., :3]
    if colours.max() >= _SURELY_16_BITS and deep.is_16_or_open:
        deep.note(int(colours.max()) << 8 | 255)
        return shallow(image)
    values: NDArray[np.uint16] = high.astype(np.uint16) * 256 + _low_bytes(data, number, rawmode, high)
    scaled = deep.scaled(values[..., :3])
    if deep.bits == 16:
        return shallow(image)
    if high.shape[2] == 3:
        return scaled
    alpha = from_deep(values[..., 3], depth_of(max(int(values[..., 3].max()), (1 << deep.bits) - 1)))
    return shallow(pillow.fromarray(np.dstack([scaled, alpha])))


def _low_bytes(data: bytes, number: int, rawmode: str, high: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode with a layout in which the low bytes stand where Pillow expects the high ones."""
    channels, _, order = rawmode.partition(";")
    is_grey = channels == "LA"  # has no other layout: its four bytes are read as four channels
    other = "RGBA" if is_grey else f"{channels};{_OTHER_BYTE[order]}"
    with _opened(data) as image:
        if number:
            image.seek(number)
        tile = image.tile[0]  # type: ignore[attr-defined]
        arguments = (other, *tile.args[1:]) if isinstance(tile.args, tuple) else other
        image.tile = [one._replace(args=arguments) for one in image.tile]  # type: ignore[attr-defined]
        _load(image)
        found = np.asarray(image)
    return found[..., [1, 1, 1, 3]] if is_grey else found.reshape(high.shape)
