"""Which folders of a dataset are classes, which are splits, and which files are neither.

A layout is what the maker of a folder meant by it: wrapper folders are seen through, the folders of operating
systems are ignored, and every other file is either in a class or listed with the reason why it is not.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headstart.data.names import shown, split_name
from headstart.data.readers.files import ImageFile, Skipped, fault_of
from headstart.data.readers.tree import Tree
from headstart.errors import DataError

__all__ = ["ClassFolder", "Layout", "find_layout"]

_IMAGE_FOLDERS = {
    "image",
    "images",
    "img",
    "imgs",
    "jpegimages",
    "photo",
    "photos",
    "picture",
    "pictures",
    "pics",
}
_ANNOTATION_FOLDERS = {
    *("annotation", "annotations", "bbox", "bboxes", "bounding_boxes", "gt", "groundtruth", "ground_truth"),
    *(
        "label",
        "labels",
        "mask",
        "masks",
        "segmentation",
        "segmentations",
        "trimap",
        "trimaps",
        "xml",
        "xmls",
    ),
}
_MASK_ENDINGS = ("_mask", "-mask", "_seg", "_segmentation", "_gt", "_annotation")

_UNLABELLED = "it is not in a class folder, so it has no label"
_ANNOTATION = "it is in a folder of annotations or masks"


@dataclass(frozen=True)
class ClassFolder:
    """A folder with the images of one class, in one split if the dataset has splits."""

    path: Path
    label: str
    split: str | None = None


@dataclass
class Layout:
    """Class folders, the images in them, and every other file with its reason.

    ``flat`` are folders with images and no class folders: only a table can say what these show.
    """

    root: Path
    tree: Tree
    class_folders: list[ClassFolder] = field(default_factory=list)
    files: list[ImageFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    flat: list[tuple[str | None, Path]] = field(default_factory=list)

    def skip(self, files: Iterable[Path], reason: str) -> None:
        """List files that are not used: images for this reason, others because they are none."""
        self.skipped += [(str(path), fault_of(path) or reason) for path in files]


def find_layout(folder: Path) -> Layout:
    """The layout of a folder; DataError if it has more than one reading."""
    tree = Tree()
    root, passed = _see_through(tree, folder)
    layout = Layout(root, tree)
    for outer in passed:
        layout.skip(tree.files(outer), "it is not in the folder that holds the dataset")
        layout.skip(tree.below(_annotations(tree.folders(outer))), _ANNOTATION)
    folders = tree.folders(root)
    annotations = _annotations(folders)
    layout.skip(tree.below(annotations), _ANNOTATION)
    folders = [one for one in folders if one not in annotations]
    splits = [one for one in folders if split_name(one.name) and tree.folders(_see_through(tree, one)[0])]
    if splits:
        _read_splits(layout, splits, [one for one in folders if one not in splits])
    else:
        _read_classes(layout, folders)
    return layout


def _read_splits(layout: Layout, splits: Sequence[Path], others: Sequence[Path]) -> None:
    """Class folders under folders for splits; images elsewhere have no label."""
    words = [split_name(one.name) for one in splits]
    if len(set(words)) != len(words):
        raise DataError(
            f"folder {str(layout.root)!r} has {shown(one.name for one in splits)}, expected one folder per split; "
            "merge those that mean the same"
        )
    tree = layout.tree
    foreign = [one for one in others if tree.folders(_see_through(tree, one)[0]) and tree.has_images(one)]
    flat_train = [one for one in others if split_name(one.name) == "train" and tree.images(one)]
    if foreign or flat_train:
        raise DataError(
            f"folder {str(layout.root)!r} has {shown(one.name for one in foreign + flat_train)} next to "
            f"{shown(one.name for one in splits)}, expected folders for splits only, or folders for classes only; "
            "move the others away"
        )
    layout.skip(tree.below(others), _UNLABELLED)
    layout.skip(layout.tree.files(layout.root), _UNLABELLED)
    for one in splits:
        inner, passed = _see_through(tree, one)
        for place in (*passed, inner):
            layout.skip(tree.files(place), _UNLABELLED)
        _add_classes(layout, tree.folders(inner), split_name(one.name))


def _read_classes(layout: Layout, folders: Sequence[Path]) -> None:
    """Class folders directly below the root, or none: images alone, or splits of images alone."""
    splits = [one for one in folders if split_name(one.name) and layout.tree.images(one)]
    classes = [one for one in folders if one not in splits]
    if classes and {split_name(one.name) for one in splits} == {"train"}:
        splits, classes = (
            [],
            list(folders),
        )  # a class of vehicles: nobody keeps unlabelled images for training
    held = [one for one in classes if layout.tree.has_images(one)]
    if splits and held and any(split_name(one.name) == "train" for one in splits):
        raise DataError(
            f"folder {str(layout.root)!r} has images in {shown(one.name for one in splits)} next to "
            f"{shown(one.name for one in held)}, expected class folders under every split, or class folders only; "
            "move the images of each class into a folder of its name"
        )
    if not held:
        layout.flat = [(split_name(one.name), one) for one in splits]
    elif len(held) == 1 and held[0].name.lower() in _IMAGE_FOLDERS and not layout.tree.folders(held[0]):
        layout.flat, splits, classes = [(None, held[0])], [*splits, held[0]], []
    if layout.tree.images(layout.root) and not held:
        layout.flat.append((None, layout.root))
    layout.skip(layout.tree.files(layout.root), _UNLABELLED)
    layout.skip(layout.tree.below(splits), _UNLABELLED)
    if layout.flat and not held:
        layout.skip(layout.tree.below(classes), _UNLABELLED)
    else:
        _add_classes(layout, classes, None)


def _add_classes(layout: Layout, folders: Sequence[Path], split: str | None) -> None:
    for folder in folders:
        label = _class_name(folder)
        inner = layout.tree.folders(folder)
        parts = [(split_name(one.name), one) for one in inner]
        if split is None and parts and all(name for name, _ in parts) and not layout.tree.images(folder):
            layout.skip(layout.tree.files(folder), _UNLABELLED)
            for name, one in parts:
                _add_class(layout, ClassFolder(one, label, name))
        else:
            _add_class(layout, ClassFolder(folder, label, split))
    kinds = {one.split is None for one in layout.class_folders}
    if len(kinds) > 1:
        whole = [one.label for one in layout.class_folders if one.split is None]
        raise DataError(
            f"folder {str(layout.root)!r} has splits in some class folders and none in {shown(whole)}, expected "
            "the same in all; split these, too, or merge the splits of the others"
        )


def _add_class(layout: Layout, folder: ClassFolder) -> None:
    layout.class_folders.append(folder)
    for path, reason in _walk(layout.tree, folder.path, set()):
        if reason is None:
            layout.files.append(ImageFile(path, folder.label, folder.split))
        else:
            layout.skipped.append((str(path), reason))


def _walk(tree: Tree, folder: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, str | None]]:
    """Files of a class folder in the order of their names, each with the reason if it is not used."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    images = tree.images(folder)
    stems = {path.stem.lower() for path in images}
    for path in tree.files(folder):
        base = next((path.stem.lower()[: -len(end)] for end in _MASK_ENDINGS if _base(path, end)), None)
        yield path, f"it is the mask of {base!r}" if base in stems else fault_of(path)
    folders = tree.folders(folder)
    annotations = _annotations(folders, beside_images=bool(images))
    for child in folders:
        for path, reason in _walk(tree, child, seen):
            yield path, reason or (_ANNOTATION if child in annotations else None)


def _base(path: Path, end: str) -> bool:
    return path.stem.lower().endswith(end) and len(path.stem) > len(end)


def _annotations(folders: Sequence[Path], *, beside_images: bool = False) -> list[Path]:
    """Folders of masks or annotations, if one of their neighbours is called images."""
    if not beside_images and not any(one.name.lower() in _IMAGE_FOLDERS for one in folders):
        return []
    return [one for one in folders if one.name.lower() in _ANNOTATION_FOLDERS]


def _see_through(tree: Tree, folder: Path) -> tuple[Path, list[Path]]:
    """Go down while a folder only wraps another one with folders: where the dataset is, and the wrappers."""
    passed: list[Path] = []
    while True:
        folders = tree.folders(folder)
        annotations = _annotations(folders)
        inner = [one for one in folders if one not in annotations]
        if len(inner) != 1 or tree.images(folder):
            return folder, passed
        doubled = inner[0].name.lower() == folder.name.lower()
        wraps = split_name(inner[0].name) is None and tree.folders(inner[0])
        if not (doubled or wraps):
            return folder, passed
        passed.append(folder)
        folder = inner[0]


def _class_name(folder: Path) -> str:
    """The name of a class folder in NFC; DataError if it is not UTF-8."""
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"class folder {os.fsencode(folder)!r} has a name that is not UTF-8, expected one that every system "
            "reads alike; rename the folder"
        ) from error
    return unicodedata.normalize("NFC", folder.name)
