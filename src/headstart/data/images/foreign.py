"""What a file is that cannot be decoded, by its first bytes: the reason that messages and ``skipped`` give."""

from __future__ import annotations

import re

__all__ = ["described"]

_CONVERT = "convert it to PNG or JPEG"
_HEAD = 4096

# (offset, first bytes, what it is, what to do)
_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\xff\x0a", "a JPEG XL image", _CONVERT),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image", _CONVERT),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image", _CONVERT),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image", _CONVERT),
    (0, b"8BPS", "a Photoshop file", _CONVERT),
    (0, b"%PDF", "a PDF document", "export its pages as PNG"),
    (0, b"%!PS", "a PostScript file", _CONVERT),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript file", _CONVERT),
    (0, b"\0\0\1\0", "an icon file", _CONVERT),
    (0, b"\0\0\2\0\0\0\0\0", "a Targa image", _CONVERT),
    (0, b"\0\0\2\0", "a cursor file", _CONVERT),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image", _CONVERT),
    (0, b"#?RADIANCE", "a Radiance image", _CONVERT),
    (0, b"DDS ", "a DirectDraw image", _CONVERT),
    (0, b"qoif", "a QOI image", _CONVERT),
    (0, b"gimp xcf", "a GIMP file", _CONVERT),
    (0, b"AT&TFORM", "a DjVu document", "export its pages as PNG"),
    (0, b"\xd7\xcd\xc6\x9a", "a Windows metafile", _CONVERT),
    (0, b"SIMPLE  =", "a FITS image", _CONVERT),
    (128, b"DICM", "a DICOM image", _CONVERT),
    (0, b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (0, b"PK\x05\x06", "an empty ZIP archive", "leave it out"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it"),
    (0, b"BZh", "a bzip2 archive", "unpack it"),
    (0, b"\xfd7zXZ\0", "an xz archive", "unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it"),
    (0, b"Rar!\x1a\x07", "a RAR archive", "unpack it"),
    (257, b"ustar", "a tar archive", "unpack it"),
    (0, b"\x93NUMPY", "a NumPy array", "load it with numpy.load and pass the array"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "export its images as PNG"),
    (0, b"PAR1", "a Parquet table", "give it as the dataset instead of the folder"),
    (0, b"SQLite format 3\0", "an SQLite database", "leave it out"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a Microsoft Office or thumbnail database file", "leave it out"),
    (0, b"\0\x05\x16\x07", "a macOS resource file", "delete it; the image has the same name without ._"),
    (0, b"\0\0\0\x01Bud1", "a macOS folder description", "leave it out"),
    (0, b"\x1aE\xdf\xa3", "a video", "export its frames as PNG"),
    (0, b"\0\0\1\xba", "a video", "export its frames as PNG"),
    (0, b"FLV\x01", "a video", "export its frames as PNG"),
    (0, b"ID3", "a sound file", "leave it out"),
    (0, b"OggS", "a sound or video file", "leave it out"),
    (0, b"\x7fELF", "a program", "leave it out"),
    (0, b"MZ", "a program", "leave it out"),
)
_RIFF = {b"AVI ": ("a video", "export its frames as PNG"), b"WAVE": ("a sound file", "leave it out")}
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_HEIF = (b"mif1", b"msf1", b"mif2")
_POINTERS = (
    (b"version https://git-lfs.github.com/spec/", "Git LFS", "git lfs pull"),
    (b"/annex/objects/", "git-annex", "git annex get"),
)
_CONTROL = bytes(set(range(32)) - set(b"\t\n\f\r\x1b"))
_HTML = re.compile(r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype html|<html|<head|<body)", re.DOTALL)
_JSON = re.compile(r"\{\s*[\"}]|\[\s*[\"\[\]{\d-]")
_RAW_MARKS = (
    (0, b"FUJIFILMCCD-RAW"),
    (6, b"HEAPCCDR"),
    (8, b"CR\x02"),
    (0, b"IIU\0"),
    (0, b"IIRO"),
    (0, b"MMOR"),
)


def described(data: bytes) -> str | None:
    r"""Say what bytes are that hold no image of a format that is read; None if they are unknown.

    >>> described(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a")
    'it is a Git LFS pointer, not the image; fetch it with git lfs pull'
    >>> described(b"%PDF-1.7")
    'it is a PDF document, not an image; export its pages as PNG'
    """
    if not data:
        return "it is empty"
    if not data[:_HEAD].strip(b"\0"):
        return "it has only zero bytes at its beginning; copy or download it again"
    for mark, tool, command in _POINTERS:
        if data.startswith(mark):
            return f"it is a {tool} pointer, not the image; fetch it with {command}"
    if data[4:8] == b"ftyp":
        return _of_container(data)
    for offset, mark in _RAW_MARKS:
        if data.startswith(mark, offset):
            return f"it is a camera's raw file, whose format is not read; {_CONVERT}"
    for offset, magic, what, advice in _MAGIC:
        if data.startswith(magic, offset):
            return _not_read(what, advice)
    if data[:4] == b"RIFF" and data[8:12] in _RIFF:
        return _not_read(*_RIFF[data[8:12]])
    return _of_text(data[:_HEAD])


def _not_read(what: str, advice: str) -> str:
    if what.endswith(" image"):
        return f"it is {what}, whose format is not read; {advice}"
    return f"it is {what}, not an image; {advice}"


def _of_container(data: bytes) -> str:
    """What an ISO media file is, by its brands."""
    size = min(int.from_bytes(data[:4]), _HEAD)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, max(size, 12), 4))}
    if brands & {b"avif", b"avis"}:
        return _not_read("an AVIF image", f"install a Pillow that reads AVIF, or {_CONVERT}")
    if brands & {*_HEIC, *_HEIF}:
        return _not_read("a HEIC image", f"{_CONVERT} (a phone can also be set to take JPEG)")
    if b"crx " in brands:
        return f"it is a camera's raw file, whose format is not read; {_CONVERT}"
    return _not_read("a video", "export its frames as PNG")


def _of_text(head: bytes) -> str | None:
    """What a text is: markup or any other. None for bytes that are no text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head[: len(head) // 2 * 2].decode("utf-16", "replace").encode()
    if head.translate(None, _CONTROL) != head or sum(byte >= 0x80 for byte in head) > 0.3 * len(head):
        return None
    start = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").lstrip().lower()
    if "<svg" in start:
        return _not_read("an SVG drawing", _CONVERT)
    if _HTML.match(start):
        return _not_read("an HTML page", "download the image itself")
    if start.startswith("<?xml"):
        return _not_read("an XML file", "leave it out")
    if start.startswith("data:image/"):
        return "it is text that holds an image in base64, not the image; decode it"
    if _JSON.match(start):
        return _not_read("a JSON file", "leave it out")
    return _not_read("a text file", "leave it out")
