"""What lies beside images and is no image of a dataset: annotations, masks and thumbnails, by their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from headstart.data.names import name_words

__all__ = ["IMAGE_FOLDERS", "NO_CLASSES", "companion_folders", "reason_of"]

IMAGE_FOLDERS = {
    *("image", "images", "img", "imgs", "jpegimages", "photo", "photos", "picture", "pictures", "pics"),
}
NO_CLASSES = {
    *IMAGE_FOLDERS,
    *(
        "all",
        "data",
        "files",
        "test",
        "unknown",
        "unlabeled",
        "unlabelled",
        "unsorted",
        "unsup",
        "unsupervised",
    ),
}
"""Names of folders that hold all images of a split, where no other folder is next to them."""

_ANNOTATION_WORDS = {
    *("annotation", "annotations", "bbox", "bboxes", "boxes", "gt", "groundtruth", "label", "labels", "mask"),
    *("masks", "segmentation", "segmentations", "trimap", "trimaps", "xml", "xmls"),
}
_THUMBNAIL_WORDS = {"thumb", "thumbs", "thumbnail", "thumbnails"}
_ANNOTATIONS = "it is in a folder of annotations or masks"
_THUMBNAILS = "it is in a folder of thumbnails"

_MASK_WORDS = "masks?|seg|segmentation|gt|groundtruth|annotation|trimap"
_MASK = re.compile(rf"(?P<base>.+?)[ _-](?:{_MASK_WORDS})(?:[_-]?\d+)?")
_MASK_FIRST = re.compile(rf"(?:{_MASK_WORDS})[ _-](?P<base>.+)")
_THUMBNAIL = re.compile(r"(?P<base>.+?)[ _-](?:thumb|thumbnail|\d{2,4}x\d{2,4})")


def companion_folders(folders: Iterable[Path], *, beside_images: bool) -> Mapping[Path, str]:
    """Those folders that hold annotations, masks or thumbnails, with the reason why they are not used.

    ``beside_images`` is whether there are images or splits next to them: otherwise one of the folders must be
    called images, since masks and labels can be classes.
    """
    known = list(folders)
    if not beside_images and not any(one.name.lower() in IMAGE_FOLDERS for one in known):
        return {}
    found = {}
    for one in known:
        words = name_words(one.name)
        if not _ANNOTATION_WORDS.isdisjoint([*words, "".join(words)]):
            found[one] = _ANNOTATIONS
        elif not _THUMBNAIL_WORDS.isdisjoint(words):
            found[one] = _THUMBNAILS
    return found


def reason_of(stem: str, stems: Collection[str]) -> str | None:
    """Why a file is not used that is the mask or thumbnail of another one; ``stems`` are those of all images here.

    >>> reason_of("cell 1_mask_2", {"cell 1", "cell 1_mask_2"}), reason_of("with_mask", {"with_mask"})
    ("it is the mask of 'cell 1'", None)
    """
    for what, pattern in (("mask", _MASK), ("mask", _MASK_FIRST), ("thumbnail", _THUMBNAIL)):
        match = pattern.fullmatch(stem)
        if match and match["base"] in stems:
            return f"it is the {what} of {match['base']!r}"
    return None
