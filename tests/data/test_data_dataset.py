"""What a dataset accepts, what it answers, and each sentence it refuses with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from headstart.data import (
    ArrayImages,
    Dataset,
    FileImages,
    check_same_classes,
    from_arrays,
    natural_order,
    require_classes,
)
from headstart.errors import BrokenDataError, DataError, MissingDataError, ShapeError


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 4, 5), dtype=np.uint8)


@pytest.fixture
def pets(pixels: np.ndarray) -> Dataset:
    return from_arrays(
        pixels,
        ["dog", "cat", "dog", "cow", "cat", "cow"],
        groups=[1, 1, 2, 2, 3, 3],
        splits=["train", "train", "train", "train", "valid", "test"],
        name="pets",
    )


def test_columns_are_names_and_splits_have_one_spelling(pets: Dataset) -> None:
    assert pets.classes == ("cat", "cow", "dog")
    assert pets.codes().tolist() == [2, 0, 2, 1, 0, 1]
    assert pets.codes().dtype == np.int64
    assert pets.counts() == {"cat": 2, "cow": 2, "dog": 2}
    assert pets.groups is not None and pets.groups.tolist() == ["1", "1", "2", "2", "3", "3"]
    assert pets.splits is not None and pets.splits[4] == "val"


def test_numbers_are_in_natural_order() -> None:
    assert natural_order(["10", "9", "1"]) == ("1", "9", "10")
    assert natural_order(["a10", "a9b", "a", "1"]) == ("1", "a", "a9b", "a10")
    assert from_arrays(np.zeros((2, 1, 1), np.uint8), np.array([10, 9])).classes == ("9", "10")


def test_a_part_keeps_the_codes_of_the_whole(pets: Dataset) -> None:
    part = pets.subset([3, 0])
    assert part.labels.tolist() == ["cow", "dog"]
    assert part.codes().tolist() == [1, 2]
    assert part.counts() == {"cat": 0, "cow": 1, "dog": 1}
    assert pets.split("validation").labels.tolist() == ["cat"]
    assert len(pets.split("train")) == 4


def test_codes_by_the_order_of_a_model(pets: Dataset) -> None:
    assert pets.codes(["dog", "cow", "cat"]).tolist() == [0, 2, 0, 1, 2, 1]
    with pytest.raises(
        DataError, match=r"^dataset 'pets' has class 'cow', expected only 'dog', 'cat'; leave"
    ):
        pets.codes(["dog", "cat"])


def test_pixels_cannot_be_written_to(pets: Dataset, pixels: np.ndarray) -> None:
    assert isinstance(pets.images, ArrayImages)
    assert pets.images.pixels.shape == (6, 4, 5, 1)
    with pytest.raises(ValueError, match="read-only"):
        pets.images.pixels[0] = 0
    pixels[0] = 0  # the caller's own array stays writable


def test_a_run_of_images_is_not_copied(pets: Dataset) -> None:
    assert isinstance(pets.images, ArrayImages)
    run, picked = pets.images.subset(np.array([1, 2, 3])), pets.images.subset(np.array([1, 3]))
    assert np.shares_memory(run.pixels, pets.images.pixels)
    assert np.array_equal(picked.pixels, pets.images.pixels[[1, 3]])


@pytest.mark.parametrize("change", ["pixel", "label", "group", "split", "order", "shape"])
def test_fingerprint_sees_every_change(pixels: np.ndarray, change: str) -> None:
    columns = {"labels": ["a", "b"] * 3, "groups": ["g"] * 5 + ["h"], "splits": ["train"] * 5 + ["test"]}

    def made(images: np.ndarray) -> str:
        return from_arrays(
            images, columns["labels"], groups=columns["groups"], splits=columns["splits"]
        ).fingerprint

    before, images = made(pixels), pixels.copy()
    assert before == made(images)
    if change == "pixel":
        images[5, 3, 4] ^= 1
    elif change == "order":
        images = images[::-1]
    elif change == "shape":
        images = images.reshape(6, 5, 4)
    else:
        columns[change + "s"][0] = {"label": "b", "group": "h", "split": "val"}[change]
    assert made(images) != before


def test_fingerprint_is_blind_to_name_and_place(tmp_path: Path, pixels: np.ndarray) -> None:
    assert (
        from_arrays(pixels, range(6), name="a").fingerprint
        == from_arrays(pixels, range(6), name="b").fingerprint
    )
    stores = []
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(b"content")
        stores.append(FileImages([tmp_path / folder / "1.png"]))
    assert stores[0].fingerprint == stores[1].fingerprint
    assert stores[0].digests == (hashlib.sha256(b"content").digest(),)


def test_fingerprint_parts_columns() -> None:
    """Names that read the same when run together are told apart."""
    images = np.zeros((2, 1, 1), np.uint8)
    assert from_arrays(images, ["a", "bc"]).fingerprint != from_arrays(images, ["ab", "c"]).fingerprint
    assert (
        from_arrays(images, ["a", "b"], groups=["x", "y"]).fingerprint
        != from_arrays(images, ["a", "b"]).fingerprint
    )


def test_a_file_that_changes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    path.write_bytes(b"old")
    images = FileImages([path, path], [hashlib.sha256(b"old").digest()] * 2).subset(np.array([1]))
    assert images.read(0) == b"old"
    path.write_bytes(b"new")
    with pytest.raises(
        BrokenDataError, match=r"^image '.*1.png' has changed since the dataset was read, expected it as"
    ):
        images.read(0)
    path.unlink()
    with pytest.raises(
        MissingDataError, match=r"^image '.*1.png' does not exist, expected a file; correct the path$"
    ):
        images.read(0)
    with pytest.raises(
        BrokenDataError,
        match=r"^image '.*' cannot be read \(it is a folder, not a file\), expected a readable",
    ):
        FileImages([tmp_path]).read(0)


def test_repr_is_one_short_line() -> None:
    images, labels = np.zeros((3, 8, 8), np.uint8), ["a", "b", "a"]
    assert repr(from_arrays(images, labels, name="pets")) == "Dataset('pets', n_images=3, n_classes=2)"
    divided = from_arrays(images, labels, name="pets", splits=["test", "train", "train"])
    assert repr(divided) == "Dataset('pets', n_images=3, n_classes=2, train, test)"


def test_stores_are_used_by_their_protocol(tmp_path: Path, pixels: np.ndarray) -> None:
    one, other = ArrayImages(pixels), ArrayImages(pixels[:2])
    (tmp_path / "1.pgm").write_bytes(b"P5 2 1 255 ab")
    files = FileImages([tmp_path / "1.pgm"])
    assert (one.image_shape, files.image_shape) == (one.pixels.shape[1:], None)
    assert (one.paths, files.pixels) == (None, None)
    assert (one.image_name(1), files.image_name(0)) == ("image 1", str(tmp_path / "1.pgm"))
    assert files.image(0).ravel().tolist() == list(b"ab") and (one.image(1) == one.pixels[1]).all()
    header, preview = one.preview(1, 32)
    assert (header.height_px, header.width_px) == preview.shape[:2]
    assert one.joined(files) is None and files.joined(one) is None
    assert one.joined(ArrayImages(np.zeros((1, 2, 3), np.uint8))) is None
    both, twice = one.joined(other), files.joined(files)
    assert both is not None and (both.pixels == np.concatenate([one.pixels, other.pixels])).all()
    assert twice is not None and twice.digests == files.digests * 2


def test_digests_must_match_paths() -> None:
    with pytest.raises(
        ShapeError, match=r"^digests has 1 entries, expected 2 to match paths; pass one per file$"
    ):
        FileImages(["a", "b"], [b""])


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((2, 3, 3)), r"^images has dtype float64, expected uint8; scale to 0 - 255 and convert"),
        (
            np.zeros((2, 3, 8, 8), np.uint8),
            r"^images has shape \(2, 3, 8, 8\), expected \(n_images, height, width\) or",
        ),
        (np.zeros((2, 0, 8), np.uint8), r"^images has shape \(2, 0, 8\), expected"),
        (
            np.zeros(4),
            r"^images has dtype float64, expected uint8; .*; also images has shape \(4,\), expected",
        ),
        ([[1]], r"^images is of type list, expected a uint8 array; convert it with numpy.asarray$"),
    ],
)
def test_images_that_are_none(images: np.ndarray, sentence: str) -> None:
    with pytest.raises(ShapeError, match=sentence):
        from_arrays(images, ["a", "b"])


@pytest.mark.parametrize(
    ("columns", "kind", "sentence"),
    [
        (
            {"labels": ["a"]},
            ShapeError,
            r"^labels has 1 entries, expected 2 to match images; pass one per image$",
        ),
        (
            {"labels": [["a"], ["b"]]},
            ShapeError,
            r"^labels has shape \(2, 1\), expected \(2,\); pass a 1-D array$",
        ),
        (
            {"labels": ["a", ""]},
            DataError,
            r"^labels has 1 empty names, expected a name per image; fill them in, or",
        ),
        (
            {"labels": [0.5, 1.0]},
            DataError,
            r"^labels has dtype float64, expected names or whole numbers, none missing;",
        ),
        ({"labels": ["a", None]}, DataError, r"^labels has dtype object, expected names or whole numbers"),
        ({"groups": ["a"]}, ShapeError, r"^groups has 1 entries, expected 2 to match images"),
        (
            {"splits": ["train", "tset"]},
            DataError,
            r"^split 'tset' is unknown, expected train, val or test; rename it$",
        ),
        (
            {"labels": ["a"], "splits": ["a", "b"]},
            DataError,
            r"^labels has 1 .*; also split 'a' .*; also split 'b'",
        ),
    ],
)
def test_columns_that_do_not_fit(columns: dict, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence) as caught:
        from_arrays(np.zeros((2, 3, 3), np.uint8), **{"labels": ["a", "b"], **columns})
    assert type(caught.value) is kind


def test_classes_must_cover_the_labels() -> None:
    images, labels = np.zeros((2, 3, 3), np.uint8), np.array(["ant", "bee"])
    with pytest.raises(
        DataError, match=r"^label 'bee' is not among the classes, expected one of them, nearest are bees"
    ):
        Dataset("x", ArrayImages(images), labels, ("ant", "bees"))
    with pytest.raises(
        DataError, match=r"^classes repeats 'ant', expected each name once; drop the repeats$"
    ):
        Dataset("x", ArrayImages(images), labels, ("ant", "bee", "ant"))
    with pytest.raises(
        DataError, match=r"^labels has dtype int64, expected names \(str\); from_arrays turns whole"
    ):
        Dataset("x", images, np.array([0, 1]), ("0", "1"))  # type: ignore[arg-type]


def test_nothing_is_no_dataset(pets: Dataset) -> None:
    with pytest.raises(
        DataError, match=r"^dataset 'arrays' has no images, expected at least 1; check what was selected"
    ):
        from_arrays(np.zeros((0, 3, 3), np.uint8), np.array([], dtype=str))
    with pytest.raises(DataError, match=r"^dataset 'pets' has no images"):
        pets.subset([])


@pytest.mark.parametrize(
    ("indices", "sentence"),
    [
        ([6], r"^indices has values 6 to 6, expected 0 to 5; use indices of this dataset$"),
        ([-1], r"^indices has values -1 to -1, expected 0 to 5"),
        ([0.5], r"^indices has shape \(1,\) and dtype float64, expected 1-D whole numbers or 6 booleans"),
        ([True], r"^indices has shape \(1,\) and dtype bool, expected 1-D whole numbers or 6 booleans"),
    ],
)
def test_indices_that_are_not_there(pets: Dataset, indices: list, sentence: str) -> None:
    with pytest.raises(ShapeError, match=sentence):
        pets.subset(indices)


def test_a_split_that_is_not_there(pets: Dataset) -> None:
    part = pets.subset([0, 5])
    with pytest.raises(
        DataError, match=r"^split 'val' is not in dataset 'pets', expected one of train, test; choose"
    ):
        part.split("val")
    with pytest.raises(DataError, match=r"^dataset 'x' has no splits, expected a split 'test'; hold"):
        from_arrays(np.zeros((1, 3, 3), np.uint8), ["a"], name="x").split("test")


def test_a_test_set_may_lack_a_class_and_have_no_other(pets: Dataset) -> None:
    check_same_classes(pets, pets.subset([5, 4, 2]))
    check_same_classes(pets, pets.subset([4]))
    with pytest.raises(
        DataError, match=r"has the extra class 'cow', expected only classes of 'pets.*; choose the same"
    ):
        check_same_classes(pets.subset([0, 1]), pets.subset([4, 5]))


def test_one_class_is_nothing_to_learn(pets: Dataset) -> None:
    require_classes(pets, at_least=3)
    with pytest.raises(
        DataError, match=r"^dataset 'pets\[train\]' has class 'dog' only, expected at least 2 with images"
    ):
        require_classes(pets.subset([0, 2]))
