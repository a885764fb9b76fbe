"""Whether the pixels of a dataset's images can be read: a file of features has none."""

from __future__ import annotations

from headstart.data.stores import ImageStore

__all__ = ["has_pixels", "why_no_pixels"]


def has_pixels(images: ImageStore) -> bool:
    """Whether images can be decoded; a store that has ``no_pixels``, a sentence, has their digests only."""
    return why_no_pixels(images) is None


def why_no_pixels(images: ImageStore) -> str | None:
    """Why images cannot be decoded, such as "3 of 10 image files are not there"; None if they can."""
    reason: str | None = getattr(images, "no_pixels", None)
    return reason
