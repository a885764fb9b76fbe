"""What foreign bytes are called, and that nothing readable is called foreign."""

from __future__ import annotations

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from headstart.data.images.decode import fault_in
from headstart.data.images.foreign import described
from image_files import saved


def iso(*brands: bytes) -> bytes:
    body = brands[0] + b"\0\0\0\0" + b"".join(brands[1:])
    return (8 + len(body)).to_bytes(4) + b"ftyp" + body + b"\0" * 50


def archived() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", "x")
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "it is empty"),
        (b"\0" * 5000 + b"x", "it has only zero bytes at its beginning; copy or download it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n",
            "it is a Git LFS pointer, not the image; fetch it with git lfs pull",
        ),
        (iso(b"heic", b"mif1"), "it is a HEIC image, whose format is not read; convert it to PNG or JPEG"),
        (iso(b"mif1", b"heix"), "it is a HEIC image"),
        (iso(b"isom", b"mp42"), "it is a video, not an image; export its frames as PNG"),
        (iso(b"crx ", b"isom"), "it is a camera's raw file"),
        (b"<!DOCTYPE html><html>", "it is an HTML page, not an image; download the image itself"),
        (b"\xef\xbb\xbf\n  <!-- a -->\n<html lang='de'>", "it is an HTML page"),
        ("<html>é".encode("latin-1"), "it is an HTML page"),
        ("<html>".encode("utf-16"), "it is an HTML page"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "it is an SVG drawing"),
        (b"<svg width='3'></svg>", "it is an SVG drawing"),
        (b"<?xml version='1.0'?><note/>", "it is an XML file"),
        (b'{"error": "not found"}', "it is a JSON file"),
        (b"path,label\na.png,cat\n", "it is a text file, not an image; leave it out"),
        (b"data:image/png;base64,iVBORw0KGgo", "it is text that holds an image in base64"),
        (b"%PDF-1.7\n", "it is a PDF document, not an image; export its pages as PNG"),
        (archived(), "it is a ZIP archive, not an image; unpack it"),
        (tarred(), "it is a tar archive"),
        (array(), "it is a NumPy array"),
        (b"8BPS\0\1", "it is a Photoshop file"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "it is a JPEG XL image, whose format is not read"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "it is a JPEG 2000 image"),
        (b"\0" * 128 + b"DICM", "it is a DICOM image"),
        (b"RIFF\0\0\0\0AVI LIST", "it is a video"),
        (b"\0\5\x16\7\0\2\0\0", "it is a macOS resource file"),
    ],
)
def test_foreign_bytes_are_named(data: bytes, sentence: str) -> None:
    assert str(described(data)).startswith(sentence)
    assert str(fault_in(data)).startswith(sentence)


def test_unknown_bytes_have_no_name() -> None:
    noise = np.random.default_rng(0).bytes(3000)
    assert described(noise) is None and fault_in(noise) == "it is not an image"
    assert described(b"\x01\x02\x03 some words") is None


def test_a_saved_image_with_a_wrong_name_is_none_of_these() -> None:
    for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"):
        data = saved(Image.new("RGB", (9, 9), (1, 2, 3)), kind)
        assert fault_in(data) is None
