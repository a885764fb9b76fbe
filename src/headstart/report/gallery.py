"""Pictures of the report: examples, galleries of images with what a model said of them, and drawings.

In: captions and records with pictures as data addresses or SVG. Out: what the template lays out, each
picture checked to be a PNG inside the page, or an SVG. Imports errors and records of ours. Called by page.
"""

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
    """Check thumbnails, and say whether each is so small that its pixels should be seen.

    Raises
    ------
    SettingError
        If one is not a PNG as a data address.

    Examples
    --------
    >>> examples([("a", "http://example.org/a.png")])
    Traceback (most recent call last):
    headstart.errors.SettingError: example 'a' is 'http://example.org/a.png', expected a PNG as
    data:image/png;base64,...; encode it with base64
    """
    return [(caption, address, _tiny("example", caption, address)) for caption, address in pairs]


def gallery(one: Gallery) -> dict[str, Any]:
    """Lay a gallery out: for each picture whether it is right, its images and the words below it.

    Raises
    ------
    SettingError
        If a picture or its heat is not a PNG as a data address.

    Examples
    --------
    >>> gallery(Gallery("Sure and wrong", "", ()))["pictures"]
    []
    """
    return {
        "it": one,
        "pictures": [_picture(picture) for picture in one.pictures],
        "paired": any(picture.heat for picture in one.pictures),
        "wordy": any(len(name) > _SHORT for it in one.pictures for name in (it.called, it.truth, it.second)),
    }


def drawing(one: Figure) -> Markup:
    """Check that a figure is an SVG, which the page takes as it is.

    Raises
    ------
    SettingError
        If it is something else, or has a script or an address in it.

    Examples
    --------
    >>> drawing(Figure("rates", "", '<svg viewBox="0 0 1 1"></svg>'))
    Markup('<svg viewBox="0 0 1 1"></svg>')
    """
    text = one.svg
    if not (text.startswith("<svg") and text.endswith("</svg>")) or _FORBIDDEN.search(text):
        raise SettingError(
            f"figure {one.title!r} is {text[:40]!r}, expected one <svg> element without script or address; "
            "draw it with headstart.report.svg"
        )
    return Markup(text)


def _picture(picture: ReportImage) -> dict[str, Any]:
    """One picture: ``mark`` is empty where nobody knows the truth."""
    tiny = _tiny("picture", picture.name, picture.address)
    if picture.heat:
        _tiny("heat of picture", picture.name, picture.heat)
    right = picture.called == picture.truth
    return {
        "it": picture,
        "tiny": tiny,
        "mark": "" if not picture.truth else "right" if right else "wrong",
        "share": f"{100 * min(max(picture.probability, 0.0), 1.0):.1f}",
    }


def _tiny(what: str, name: str, address: str) -> bool:
    """Whether a picture is so small that its pixels should be seen; refuse what is not a PNG."""
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
