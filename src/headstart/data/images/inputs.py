"""Images as Python programs hold them: paths, bytes, Pillow images, arrays, tensors, file objects.

Every one becomes 8-bit pixels by the decoder and the rules that files go through, or is refused in one sentence.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.files import read_bytes
from headstart.data.images.decode import decode_bytes, from_pillow
from headstart.data.images.fit import fit_bytes, fit_image
from headstart.errors import BrokenDataError, DataError, ShapeError
from headstart.records import InputSpec

__all__ = [
    "CHANNELS",
    "CHANNELS_FIRST",
    "as_array",
    "eight_bits",
    "is_file_object",
    "is_pillow",
    "is_table",
    "local_path",
    "one_image",
    "one_prepared",
    "read_all",
    "with_channels_last",
]

CHANNELS = (1, 2, 3, 4)
"""Grey or colour, without or with transparency: the lengths that a last axis of channels may have."""
CHANNELS_FIRST = (1, 3, 4)
"""The lengths that a first axis of channels may have."""

_ADDRESSES = ("http://", "https://", "ftp://", "s3://", "gs://", "hf://", "data:")
_HALF_LEVEL = 0.5 / 255  # resizing in floating point overshoots by less; rounding removes it


def one_image(item: Any, name: str, depth_bits: int | None = None) -> NDArray[np.uint8]:
    """One image as upright pixels, (height, width, 1 or 3) uint8; a HeadstartError calls it ``name``.

    Values of 16 bits are scaled as values of ``depth_bits``, by default of as many bits as the image uses.

    >>> one_image(np.ones((2, 3)), "image 0")[..., 0].tolist()
    [[255, 255, 255], [255, 255, 255]]
    """
    found = _file_content(item, name)
    if found is not None:
        return decode_bytes(*found, depth_bits)
    if is_pillow(item):
        return from_pillow(item, name, depth_bits)
    return _from_one_array(as_array(item, name), name, depth_bits)


def one_prepared(item: Any, name: str, spec: InputSpec) -> NDArray[np.uint8]:
    """One image as a network takes it: the content of a file as `fit_bytes`, all else by its pixels."""
    found = _file_content(item, name)
    if found is not None:
        return fit_bytes(*found, spec, spec.depth_bits)
    return fit_image(one_image(item, name, spec.depth_bits), spec)


def _file_content(item: Any, name: str) -> tuple[bytes, str] | None:
    """The bytes of a path, of a bytes-like or file-like object, and its name in errors; None for anything else."""
    if isinstance(item, str | os.PathLike):
        path = local_path(item, name)
        if path.is_dir():
            raise DataError(
                f"{name} is the folder {str(path)!r}, expected a file in a list of images; "
                "pass the folder alone, or the files in it"
            )
        return read_bytes(path), str(path)
    data = None if is_pillow(item) else read_all(item, name)
    return None if data is None else (data, name.removeprefix("image "))


def is_pillow(item: Any) -> bool:
    """Whether this is an image of Pillow."""
    from PIL import Image

    return isinstance(item, Image.Image)


def is_file_object(item: Any) -> bool:
    """Whether this is read like a file: an open file, a buffer, a member of a ZIP archive."""
    return (hasattr(item, "read") or hasattr(item, "read_bytes")) and not hasattr(item, "__array__")


def is_table(item: Any) -> bool:
    """Whether this is a data frame, of pandas or another library; none is imported."""
    has_columns = hasattr(item, "columns") or hasattr(item, "column_names")
    return has_columns and hasattr(item, "shape") and hasattr(item, "__getitem__")


def local_path(item: str | os.PathLike[str], name: str) -> Path:
    """The path of a local file, ``~`` expanded; DataError for an address on the network."""
    text = os.fsdecode(item)
    if not text or "\0" in text:
        what = "contains a null character" if text else "is empty"
        raise DataError(f"{name} has a path that {what}, expected the path of a file; correct the path")
    if text.lower().startswith(_ADDRESSES):
        raise DataError(
            f"{name} is the address {_short(text)!r}, expected a file on this machine; "
            "download it, and pass its path or its bytes"
        )
    return Path(os.path.expanduser(text))


def read_all(item: Any, name: str) -> bytes | None:
    """The bytes of a bytes-like or file-like object, from its start; None for anything else."""
    if isinstance(item, bytes | bytearray):
        return bytes(item)
    if isinstance(item, memoryview):
        return item.tobytes()
    if not is_file_object(item):
        return None
    if isinstance(item, io.TextIOBase):
        raise DataError(f"{name} is a file opened as text, expected bytes; open it in mode 'rb'")
    try:
        reader = getattr(item, "read_bytes", None) or item.read
        if hasattr(item, "seekable") and item.seekable():
            item.seek(0)  # where a writer has left it is its end
        data = reader()
    except (OSError, ValueError, TypeError) as error:  # ValueError: it is closed
        raise BrokenDataError(
            f"{name} cannot be read ({error}), expected an open file with an image; open it again"
        ) from error
    if not isinstance(data, bytes | bytearray):
        raise DataError(
            f"{name} is a file object that returns {type(data).__name__}, expected bytes; open it in mode 'rb'"
        )
    return bytes(data)


def as_array(item: Any, name: str) -> NDArray[Any]:
    """An array or a tensor as a NumPy array of numbers; DataError says what else it is."""
    if isinstance(item, dict | set | frozenset) or item is None or is_table(item):
        raise DataError(_not_an_image(item, name))
    try:
        if hasattr(item, "detach"):  # a tensor of PyTorch, maybe on a GPU or with gradients
            item = item.detach().cpu()
        array = np.asarray(item)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise DataError(_not_an_image(item, name)) from error
    if isinstance(item, np.ma.MaskedArray) and np.ma.is_masked(item):
        raise DataError(
            f"{name} is an array with masked values, expected a value for every pixel; fill them, for instance with "
            ".filled(0)"
        )
    if array.dtype.kind not in "buif" or array.ndim == 0:
        raise DataError(_not_an_image(array if hasattr(item, "__array__") else item, name))
    return array


def with_channels_last(array: NDArray[Any], name: str) -> NDArray[Any]:
    """One image (height, width), (height, width, channels) or (channels, height, width) with channels last."""
    while array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3 and array.shape[2] not in CHANNELS and array.shape[0] in CHANNELS_FIRST:
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[2] not in CHANNELS or 0 in array.shape:
        raise ShapeError(
            f"{name} has shape {array.shape}, expected (height, width) or (height, width, 1 to 4); "
            "pass one image at a time, with channels last"
        )
    return array


def eight_bits(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Pixels 0 - 255 from uint8, booleans, whole numbers 0 - 255 or fractions 0 - 1, of any shape.

    ShapeError says which other values there are, and how to scale them.
    """
    if array.dtype == np.uint8 or not array.size:
        return array.astype(np.uint8, copy=False)
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind in "ui":
        if low < 0 or high > 255:
            raise ShapeError(
                f"{name} has {array.dtype} values from {low:g} to {high:g}, expected 0 to 255; "
                "scale them to that range"
            )
        return array.astype(np.uint8)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ShapeError(
            f"{name} has values that are not finite, expected 0 to 1 in {array.dtype}; replace NaN and infinity"
        )
    if low < -_HALF_LEVEL or high > 1 + _HALF_LEVEL:
        raise ShapeError(
            f"{name} has {array.dtype} values from {low:g} to {high:g}, expected 0 to 1; {_scaling(low, high)}"
        )
    scaled = np.rint(array.astype(np.float32) * np.float32(255))
    pixels: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
    return pixels


def _from_one_array(array: NDArray[Any], name: str, depth_bits: int | None) -> NDArray[np.uint8]:
    image = with_channels_last(array, name)
    if image.dtype == np.uint16:  # as a 16-bit file with these values
        height, width, channels = image.shape
        pixels = from_pillow(_pillow(image.reshape(height, width * channels)), name, depth_bits)
        pixels = pixels.reshape(height, width, channels)
    else:
        pixels = eight_bits(image, name)
    if pixels.shape[2] in (2, 4):  # transparent pixels are put on white, as in a file
        return from_pillow(_pillow(pixels), name)
    return pixels


def _pillow(pixels: NDArray[Any]) -> Any:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels))


def _scaling(low: float, high: float) -> str:
    if low < 0:
        return "pass the pixels as they were before they were normalised"
    if high <= 255:
        return "convert pixels 0 - 255 with .astype('uint8')"
    return "divide them by the largest value possible"


def _not_an_image(item: Any, name: str) -> str:
    if isinstance(item, tuple | list):
        what = f"a {type(item).__name__} of {len(item)}"
        advice = "pass images without labels, in one list"
    elif is_table(item):
        what, advice = f"a {type(item).__name__}", "pass its column of paths"
    elif isinstance(item, dict):
        what, advice = f"a dict with the keys {', '.join(map(str, item))[:80]}", "pass its image"
    elif isinstance(item, np.ndarray):
        what, advice = f"an array of {item.dtype} of shape {item.shape}", "convert it to uint8"
    elif hasattr(item, "detach"):
        what, advice = f"a tensor of {item.dtype} that NumPy cannot hold", "convert it with .float().cpu()"
    elif isinstance(item, float):
        what, advice = f"the number {item!r}", "leave it out, or fill in its path"
    else:
        what, advice = f"of type {type(item).__name__}", "convert it with numpy.asarray"
    return f"{name} is {what}, expected a path, bytes, a Pillow image or an array; {advice}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
