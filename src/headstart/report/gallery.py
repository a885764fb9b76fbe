"""Images and drawings in the report, checked to be PNG data addresses, or SVG without script or address."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from headstart.errors import SettingError
from headstart.report.records import Figure, Gallery, ReportImage

__all__ = ["drawing", "examples", "gallery"]

_PNG = "data:image/png;base64,"
_FORBIDDEN = re.compile(r"<\s*(?:script|foreignobject|style)|\b(?:href|src|on\w+)\s*=", re.IGNORECASE)
_TINY_PX = 64
_SHORT = 9  # letters of a class's name that fit between two columns


def examples(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str, bool]]:
    """Thumbnails, each with whether it is so small that its pixels should be shown."""
    return [(caption, address, _tiny("example", caption, address)) for caption, address in pairs]


def gallery(one: Gallery) -> dict[str, Any]:
    """What the template lays out: for each image whether the prediction is right, and the words below it."""
    return {
        "it": one,
        "images": [_laid_out(image) for image in one.images],
        "paired": any(image.heat for image in one.images),
        "wordy": any(len(name) > _SHORT for it in one.images for name in (it.called, it.truth, it.second)),
    }


def drawing(one: Figure) -> Markup:
    """The SVG of a figure, which the page takes as it is; `SettingError` where it is anything else."""
    text = one.svg
    if not (text.startswith("<svg") and text.endswith("</svg>")) or _FORBIDDEN.search(text):
        raise SettingError(
            f"figure {one.title!r} is {text[:40]!r}, expected one <svg> element without script or address; "
            "draw it with headstart.report.svg"
        )
    return Markup(text)


def _laid_out(image: ReportImage) -> dict[str, Any]:
    """One image; ``mark`` is empty where the true class is not known."""
    tiny = _tiny("image", image.name, image.address)
    if image.heat:
        _tiny("heat of image", image.name, image.heat)
    right = image.called == image.truth
    return {
        "it": image,
        "tiny": tiny,
        "mark": "" if not image.truth else "right" if right else "wrong",
        "share": f"{100 * min(max(image.probability, 0.0), 1.0):.1f}",
    }


def _tiny(what: str, name: str, address: str) -> bool:
    """Whether an image is so small that its pixels should be shown; `SettingError` if it is not a PNG."""
    try:
        if not address.startswith(_PNG):
            raise ValueError(address[:40])
        data = base64.b64decode(address[len(_PNG) :], validate=True)
    except (ValueError, binascii.Error) as error:
        raise SettingError(
            f"{what} {name!r} is {address[:40]!r}, expected a PNG as {_PNG}...; encode it with base64"
        ) from error
    # bytes 16 - 20 of a PNG are its width
    return int.from_bytes(data[16:20], "big") <= _TINY_PX
