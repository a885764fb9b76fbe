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

from headstart.data.names import name_words, shown, split_name
from headstart.data.readers.companions import IMAGE_FOLDERS, NO_CLASSES, companion_folders, reason_of
from headstart.data.readers.files import ImageFile, Skipped, fault_of
from headstart.data.readers.tree import Tree
from headstart.errors import DataError

__all__ = ["ClassFolder", "Layout", "find_layout"]

_UNLABELLED = "it is not in a class folder, so it has no label"
_OUTSIDE = "it is not in the folder that holds the dataset"
_FEW_LOOSE = 3  # images beside the folder that holds the dataset, such as a preview


@dataclass(frozen=True)
class ClassFolder:
    """A folder with the images of one class, in one split if the dataset has splits."""

    path: Path
    label: str
    split: str | None = None


@dataclass
class Layout:
    """Class folders, the images in them, and every other file with its reason.

    ``flat`` are folders with images and no class folders: only a table can say what these show. ``unlabelled``
    are such splits next to splits with class folders.
    """

    root: Path
    tree: Tree
    class_folders: list[ClassFolder] = field(default_factory=list)
    files: list[ImageFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    flat: list[tuple[str | None, Path]] = field(default_factory=list)
    unlabelled: list[tuple[str, Path]] = field(default_factory=list)

    def skip(self, files: Iterable[Path], reason: str) -> None:
        """List files that are not used: images for this reason, others because they are none."""
        self.skipped += [(str(path), fault_of(path) or reason) for path in files]


def find_layout(folder: Path) -> Layout:
    """The layout of a folder; DataError if it has more than one reading."""
    layout = Layout(folder, Tree())
    layout.root = root = _entered(layout, folder, _OUTSIDE)
    tree = layout.tree
    folders = tree.folders(root)
    splits = [one for one in folders if split_name(one.name) and _holds_classes(tree, one)]
    folders = _skip_companions(layout, folders, beside_images=bool(splits))
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
    flat = {one: home for one in others if (home := _flat_home(tree, one)) and split_name(one.name)}
    foreign = [
        one
        for one in others
        if one not in flat and tree.folders(_see_through(tree, one)) and tree.has_images(one)
    ]
    flat_train = [one for one in flat if split_name(one.name) == "train"]
    if foreign or flat_train:
        raise DataError(
            f"folder {str(layout.root)!r} has {shown(one.name for one in foreign + flat_train)} next to "
            f"{shown(one.name for one in splits)}, expected folders for splits only, or folders for classes only; "
            "move the others away"
        )
    layout.unlabelled = [(split_name(one.name) or "", home) for one, home in flat.items()]
    layout.skip(tree.below(others), _UNLABELLED)
    layout.skip(layout.tree.files(layout.root), _UNLABELLED)
    for one in splits:
        inner = _entered(layout, one, _UNLABELLED)
        layout.skip(tree.files(inner), _UNLABELLED)
        classes = _skip_companions(layout, tree.folders(inner), beside_images=False)
        _add_classes(layout, classes, split_name(one.name))


def _read_classes(layout: Layout, folders: Sequence[Path]) -> None:
    """Class folders directly below the root, or none: images alone, or splits of images alone."""
    tree = layout.tree
    homes = {one: home for one in folders if split_name(one.name) and (home := _flat_home(tree, one))}
    if _are_classes(homes, folders):
        homes = {}
    splits = list(homes)
    classes = [one for one in folders if one not in homes]
    held = [one for one in classes if tree.has_images(one)]
    if splits and held and (len(held) == 1 or any(split_name(one.name) == "train" for one in splits)):
        raise DataError(
            f"folder {str(layout.root)!r} has images in {shown(one.name for one in splits)} next to "
            f"{shown(one.name for one in held)}, expected class folders under every split, or class folders only; "
            "move the images of each class into a folder of its name, or rename a class that is called like a split"
        )
    if not held:
        layout.flat = [(split_name(one.name), home) for one, home in homes.items()]
    elif len(held) == 1 and held[0].name.lower() in IMAGE_FOLDERS and not tree.folders(held[0]):
        layout.flat, splits, classes = [(None, held[0])], [*splits, held[0]], []
    if tree.images(layout.root) and not held:
        layout.flat.append((None, layout.root))
    layout.skip(tree.files(layout.root), _UNLABELLED)
    layout.skip(tree.below(splits), _UNLABELLED)
    if layout.flat and not held:
        layout.skip(tree.below(classes), _UNLABELLED)
        return
    unlabelled = [one for one in classes if "unlabeled" in name_words(one.name.lower().replace("ll", "l"))]
    layout.skip(tree.below(unlabelled), _UNLABELLED)
    _add_classes(layout, [one for one in classes if one not in unlabelled], None)


def _are_classes(splits: Iterable[Path], folders: Sequence[Path]) -> bool:
    """Whether folders of images that are called like splits are classes: vehicles, or valid and invalid ones."""
    names = [one.name.lower() for one in splits]
    others = [one.name.lower() for one in folders if one.name.lower() not in names]
    if {split_name(name) for name in names} == {"train"}:
        return bool(others)  # nobody keeps unlabelled images for training
    opposites = (
        {f"in{name}" for name in names} | {f"un{name}" for name in names} | {f"not{name}" for name in names}
    )
    return bool(names) and not opposites.isdisjoint("".join(name_words(name)) for name in others)


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
        parted = next(one.path.parent for one in layout.class_folders if one.split is not None)
        raise DataError(
            f"folder {str(layout.root)!r} has splits in some class folders and none in {shown(whole)}, expected "
            "the same in all; split these, too, or merge the splits of the others, or give the folder that holds "
            f"the dataset, such as {str(parted)!r}"
        )


def _add_class(layout: Layout, folder: ClassFolder) -> None:
    layout.class_folders.append(folder)
    above = [one for one in folder.path.parents if one == layout.root or layout.root in one.parents]
    seen = {(status.st_dev, status.st_ino) for status in (one.stat() for one in above)}  # a link may lead up
    for path, reason in _walk(layout.tree, folder.path, seen):
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
        yield path, reason_of(path.stem.lower(), stems) or fault_of(path)
    folders = tree.folders(folder)
    companions = companion_folders(folders, beside_images=bool(images))
    for child in folders:
        for path, reason in _walk(tree, child, seen):
            yield path, reason or companions.get(child)


def _skip_companions(layout: Layout, folders: Sequence[Path], *, beside_images: bool) -> list[Path]:
    """List the files of folders of annotations and the like as skipped; the other folders."""
    companions = companion_folders(folders, beside_images=beside_images)
    for one, reason in companions.items():
        layout.skip(layout.tree.below([one]), reason)
    return [one for one in folders if one not in companions]


def _holds_classes(tree: Tree, folder: Path) -> bool:
    """Whether a folder of a split has folders of classes in it, not only one for all its images."""
    home = _see_through(tree, folder)
    return bool(_inner(tree, home)) and _flat_home(tree, folder) is None


def _flat_home(tree: Tree, folder: Path) -> Path | None:
    """The folder that directly holds all images of a split without classes; None if there is none."""
    home = _see_through(tree, folder)
    inner = [one for one in _inner(tree, home) if tree.has_images(one)]
    if len(inner) == 1 and inner[0].name.lower() in NO_CLASSES and not tree.folders(inner[0]):
        return inner[0]
    return folder if not inner and tree.images(folder) else home if not inner and tree.images(home) else None


def _inner(tree: Tree, folder: Path) -> list[Path]:
    """Folders in a folder that are none of annotations, masks or thumbnails."""
    folders = tree.folders(folder)
    companions = companion_folders(folders, beside_images=False)
    return [one for one in folders if one not in companions]


def _see_through(tree: Tree, folder: Path) -> Path:
    """Go down while a folder only wraps another one with folders: where the dataset, or a split of it, is."""
    while (inner := _wrapped(tree, folder)) is not None:
        folder = inner
    return folder


def _entered(layout: Layout, folder: Path, reason: str) -> Path:
    """Where the dataset is, as `_see_through`; all that lies beside the way is skipped."""
    tree = layout.tree
    while (inner := _wrapped(tree, folder)) is not None:
        layout.skip(tree.files(folder), reason)
        others = _skip_companions(layout, tree.folders(folder), beside_images=False)
        layout.skip(tree.below([one for one in others if one != inner]), reason)
        folder = inner
    return folder


def _wrapped(tree: Tree, folder: Path) -> Path | None:
    """The folder that this one only wraps; None if it may be a class or hold classes itself."""
    folders = _inner(tree, folder)
    loose = tree.images(folder)
    if len(folders) > 1:
        folders = [one for one in folders if tree.has_images(one)]
        if len(folders) != 1 or folders[0].name.lower() not in (*IMAGE_FOLDERS, "data", "dataset"):
            return None
    if len(folders) != 1:
        return None
    inner, is_split = folders[0], split_name(folder.name) is not None
    doubled = inner.name.lower() == folder.name.lower() or (
        is_split and split_name(inner.name) == split_name(folder.name)
    )
    if doubled:
        return None if loose else inner
    within, n_loose = tree.folders(inner), len(loose) + len(tree.images(inner))
    if n_loose:
        several = len([one for one in within if tree.has_images(one)]) > 1
        within = within if several and n_loose <= _FEW_LOOSE and not is_split else []
    return inner if split_name(inner.name) is None and within else None


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
