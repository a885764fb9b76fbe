"""Datasets on disk: a folder of class folders, or of images with a table beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headstart.data.dataset import Dataset
from headstart.data.names import name_words, shown, split_name, splits_in
from headstart.data.readers.companions import NO_CLASSES, companion_folders
from headstart.data.readers.csv import pixel_header
from headstart.data.readers.files import ImageFile, is_image, is_system, read_files
from headstart.data.readers.layout import Layout, find_layout
from headstart.data.readers.tables import TABLES, Found, columns_of, found_in
from headstart.errors import DataError, HeadstartError

__all__ = ["read_folder"]

_NOTES = (".txt", ".md", ".rst", ".html", ".csv", ".json", ".yaml", ".yml", "")
_FOLDS = {"fold", "batch", "chunk", "shard"}
_VARIANTS = {
    *(
        "set",
        "part",
        "data",
        "group",
        "source",
        "session",
        "round",
        "run",
        "version",
        "folder",
        "original",
        "originals",
    ),
    *(
        "raw",
        "processed",
        "preprocessed",
        "augmented",
        "augmentation",
        "aug",
        "resized",
        "cropped",
        "small",
        "large",
    ),
    *("color", "colour", "colored", "gray", "grey", "grayscale", "greyscale", "rgb", "segmented", "px"),
}
"""Words for folders of the same images, or of parts of a dataset, where each has the folders of all classes."""


def read_folder(folder: Path, *, strict: bool = False) -> Dataset:
    """Read a folder with one folder per class, directly or under train, val and test, or with a table of labels.

    Class folders are searched to any depth; hidden files and those of operating systems are ignored. Every other
    file that is not used is in ``skipped`` with its reason; an error if ``strict``. DataError if there are no
    class folders, if one has no readable image, or if the layout has more than one reading. Files are read in
    threads; the order is that of their names.
    """
    layout = find_layout(folder)
    name = folder.resolve().name
    found, faults = _tables_beside(folder, layout)
    if found and (layout.flat or len(layout.class_folders) < 2):
        return _from_tables(name, layout, found, strict=strict)
    if not layout.files and (not layout.class_folders or _only_tables(layout)):
        _refuse_without_classes(folder, layout, faults)
    _refuse_other_labels(folder, layout, found)
    remarks = [*_refuse_parts(folder, layout), *_label_by_tables(layout, found)]
    return read_files(
        name,
        layout.files,
        [one.label for one in layout.class_folders],
        layout.skipped,
        strict=strict,
        remarks=remarks,
    )


def _tables_beside(folder: Path, layout: Layout) -> tuple[list[Found], list[HeadstartError]]:
    """Tables next to the images, or in folders of splits, of which half the rows have files; why others are none."""
    places = [place for _, place in (*layout.flat, *layout.unlabelled)]
    above = [place.parent for place in places if place.name.lower() in NO_CLASSES and folder in place.parents]
    homes = dict.fromkeys([folder, layout.root, *above, *places])
    found, faults = [], []
    for home in homes:
        for table in sorted(path for path in layout.tree.files(home) if path.suffix.lower() in TABLES):
            if is_system(table.name) or not table.is_file() or "submission" in table.name.lower():
                continue
            try:
                one = found_in(table, *columns_of(table), folder=home, tree=layout.tree)
            except HeadstartError as error:
                faults.append(error)
                continue
            if 2 * sum(path is not None for path in one.paths) >= len(one.paths):
                found.append(one)
    return found, faults


def _from_tables(name: str, layout: Layout, found: Sequence[Found], *, strict: bool) -> Dataset:
    """A dataset of the rows of a table, or of one table in each split; other files are skipped."""
    homes = [one.table.parent for one in found]
    by_name = _splits_by_name(found)
    if not by_name and (len(set(homes)) < len(homes) or (len(homes) > 1 and layout.root in homes)):
        raise DataError(
            f"folder {str(layout.root)!r} has {shown(one.table.name for one in found)}, which label the same images, "
            f"expected one table; give the one to use instead of the folder, such as {str(found[0].table)!r}"
        )
    if by_name:
        parts = [[replace(file, split=by_name[one.table]) for file in one.files()] for one in found]
        return _of_files(name, layout, found, [file for part in parts for file in part], strict=strict)
    files = [file for one in found for file in one.files()]
    splits = {place: split for split, place in layout.flat if split is not None}
    if all(file.split is None for file in files):
        within = [next((splits[up] for up in file.path.parents if up in splits), None) for file in files]
        if len(set(within)) > 1 and None not in within:
            files = [replace(file, split=split) for file, split in zip(files, within, strict=True)]
    return _of_files(name, layout, found, files, strict=strict)


def _splits_by_name(found: Sequence[Found]) -> dict[Path, str]:
    """The split of each table, if they are called train.csv, test.csv and the like and label different images."""
    named = {one.table: split_name(one.table.stem) or "" for one in found}
    paths = [path for one in found for path in one.paths]
    if len(found) < 2 or "" in named.values() or len({*named.values()}) < len(named):
        return {}
    is_disjoint = sum(len({*one.paths}) for one in found) == len({*paths})
    return named if is_disjoint and all(one.rows.splits is None for one in found) else {}


def _of_files(
    name: str, layout: Layout, found: Sequence[Found], files: Sequence[ImageFile], *, strict: bool
) -> Dataset:
    """The dataset of these files; all others are skipped."""
    used = {file.path for file in files} | {one.table for one in found}
    tables = shown(one.table.name for one in found[:1])
    others = [(path, reason) for path, reason in layout.skipped if Path(path) not in used]
    unnamed = [(str(path), f"{tables} does not name it") for path in _images_of(layout) if path not in used]
    listed = {path for path, _ in unnamed}
    remarks = [f"labels are those of {str(one.table)!r}" for one in found]
    return read_files(
        name,
        files,
        [],
        [*(one for one in others if one[0] not in listed), *unnamed],
        strict=strict,
        remarks=[*remarks, *(remark for one in found for remark in one.rows.remarks)],
    )


def _images_of(layout: Layout) -> list[Path]:
    """Images in class folders and in folders that hold images only."""
    flat = [path for _, place in layout.flat for path in layout.tree.below([place]) if is_image(path)]
    return list(dict.fromkeys([*(file.path for file in layout.files), *flat]))


def _refuse_without_classes(folder: Path, layout: Layout, faults: Sequence[HeadstartError]) -> None:
    n_images = len(_images_of(layout))
    here = [path for path in layout.tree.files(layout.root) if path.suffix.lower() == ".csv" and not n_images]
    pixels = max((path for path in here if pixel_header(path)), key=pixel_header, default=None)
    if pixels is not None:
        raise DataError(
            f"folder {str(folder)!r} has no images, but the table {pixels.name!r} holds their pixels, expected the "
            f"table itself; give {str(pixels)!r} instead of the folder"
        )
    table = f" (its table cannot be used: {str(faults[0]).partition('; ')[0]})" if faults else ""
    others = [one for one in layout.skipped if Path(one[0]).suffix.lower() not in _NOTES]
    if not n_images and not faults and others:
        table = f" ({others[0][0]!r} is not used: {others[0][1]})"
    advice = "sort the images into folders named for their classes, or write a table with the columns path and label"
    flat = [str(place.relative_to(layout.root)) for split, place in layout.flat if split is not None]
    if flat:
        raise DataError(
            f"folder {str(folder)!r} has images directly in {shown(flat)} and no class folders there{table}, "
            f"expected one folder per class in every split; {advice}"
        )
    raise DataError(
        f"folder {str(folder)!r} has {n_images} images and no class folders{table}, expected one folder per class; "
        f"{advice}"
    )


def _only_tables(layout: Layout) -> bool:
    """Whether the files in class folders are tables, as in a download of shards."""
    return any(Path(path).suffix.lower() in (".parquet", ".arrow") for path, _ in layout.skipped)


def _refuse_other_labels(folder: Path, layout: Layout, found: Sequence[Found]) -> None:
    """A table that labels the images of class folders in another way: nobody can say which is meant."""
    of_folder = {file.path: file.label for file in layout.files}
    for one in found:
        rows = zip(one.paths, one.rows.labels, strict=True)
        both = [(of_folder[path], label) for path, label in rows if path in of_folder]
        classes = {label for _, label in both}
        if both and len(classes) > 1 and len({*both}) > max(len(classes), len({name for name, _ in both})):
            raise DataError(
                f"folder {str(folder)!r} has class folders and the table {one.table.name!r} with other labels, "
                f"expected one of them; give {str(one.table)!r} to use its labels, or move it away"
            )


def _label_by_tables(layout: Layout, found: Sequence[Found]) -> list[str]:
    """Add the images of splits without class folders that a table labels with the same classes; a remark for each."""
    classes, remarks = {one.label for one in layout.class_folders}, []
    for split, home in layout.unlabelled:
        for one in found:
            inside = all(path is not None and home in path.parents for path in one.paths)
            if not inside or not {*one.rows.labels} <= classes:
                continue
            files = [replace(file, split=split) for file in one.files()]
            used = {str(one.table), *(str(file.path) for file in files)}
            layout.files += files
            layout.skipped = [skipped for skipped in layout.skipped if skipped[0] not in used]
            remarks.append(f"labels of {split} are those of {str(one.table)!r}")
            break
    return remarks


def _refuse_parts(folder: Path, layout: Layout) -> list[str]:
    """Folders of folds, sources or variants with the same folders in each are no classes; a remark if they may be."""
    paths = [one.path for one in layout.class_folders if one.split is None]
    labels = list(dict.fromkeys(one.label for one in layout.class_folders))
    if len(labels) < 2:
        return []
    mentioned = [splits_in(label) for label in labels]
    if all(mentioned) and len(set().union(*mentioned)) > 1:
        raise DataError(
            f"folder {str(folder)!r} has {shown(labels)}, which are named for splits, expected folders of classes; "
            "name the folders train, val and test and put one folder for each class into them"
        )
    inner = [_class_like(layout.tree.folders(path)) for path in paths]
    again = next((path for path, names in zip(paths, inner, strict=True) if len(names & {*labels}) > 1), None)
    if again is not None:
        raise DataError(
            f"folder {str(folder)!r} has the classes {shown(labels)}, and {again.name!r} has folders of the same "
            "names, expected each class once; move it away if it is a copy"
        )
    same = len(inner) > 1 and len(set(inner)) == 1 and len(inner[0]) > 1
    words = {tuple(name_words(label)) for label in labels}
    kinds = {word for one in words for word in one} if all(words) else set()
    if kinds and (kinds <= _FOLDS or (same and kinds <= _FOLDS | _VARIANTS)):
        raise DataError(
            f"folder {str(folder)!r} has {shown(labels)}, expected folders of classes or of splits; give one of "
            "them, or merge them, or write a table and name their number in the column group"
        )
    if not same:
        return []
    return [
        f"classes are {shown(labels)}, and each has the same folders, such as {shown(sorted(inner[0]), 2)}: if those "
        "are the classes, merge the others"
    ]


def _class_like(folders: Sequence[Path]) -> frozenset[str]:
    """Names of folders that may be classes: no annotations, no masks, no folder for all images."""
    companions = companion_folders(folders, beside_images=True)
    return frozenset(
        one.name for one in folders if one not in companions and one.name.lower() not in NO_CLASSES
    )
