"""Files of features as a dataset: what is read, what may be changed, what is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.data.embedded.images import EmbeddedImages, image_digests, table_of
from headstart.data.embedded.parts import Part
from headstart.data.embedded.reader import is_features
from headstart.data.images.thumbnails import png_bytes
from headstart.data.readable import has_pixels, why_no_pixels
from headstart.data.readers.load import from_arrays, load
from headstart.errors import BrokenDataError, DataError, HeadstartError, MissingDataError
from headstart.interfaces.python import embed

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

N, SHARD = 50, 20


@pytest.fixture(scope="module")
def images() -> Dataset:
    """50 digits of two classes as a dataset of a program."""
    digits = load("digits:0-1").subset(np.arange(N))
    pixels = digits.images.pixels
    assert pixels is not None
    splits = np.where(np.arange(N) < 40, "train", "test")
    return from_arrays(pixels, digits.labels, groups=np.arange(N) // 5, splits=splits, name="mine")


@pytest.fixture(scope="module")
def written(images: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file and one folder of three parts."""
    home = tmp_path_factory.mktemp("features")
    embed("pixels", images, home / "one.parquet")
    embed("pixels", images, home / "three", shard_size=SHARD)
    return home


@pytest.fixture
def one(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(written / "one.parquet", tmp_path))


@pytest.fixture
def three(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written / "three", tmp_path / "three"))


def everything(dataset: Dataset) -> np.ndarray[Any, Any]:
    """The vectors of a dataset of features."""
    images = dataset.images
    assert isinstance(images, EmbeddedImages)
    return images.table.vectors(images.rows)


def expected(images: Dataset) -> np.ndarray[Any, Any]:
    """Features of the source pixels."""
    pixels = images.images.pixels
    assert pixels is not None
    return pixels.reshape(len(pixels), -1).astype(np.float32) / 255


def write(path: Path, change: Callable[[Any], Any]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def with_column(table: Any, name: str, values: Any) -> Any:
    return table.set_column(table.schema.get_field_index(name), name, values)


@pytest.mark.parametrize("name", ["one.parquet", "three"])
def test_what_was_written_is_read(written: Path, images: Dataset, name: str) -> None:
    found = load(written / name)
    assert found.name == "mine" and found.classes == images.classes
    assert found.labels.tolist() == images.labels.tolist()
    assert found.splits is not None and images.splits is not None and found.groups is not None
    assert found.splits.tolist() == images.splits.tolist()
    assert found.groups.tolist() == [str(i // 5) for i in range(N)]
    np.testing.assert_allclose(everything(found), expected(images), atol=1e-6)
    assert [found.images.image_name(i) for i in (0, 49)] == ["image 0", "image 49"]


def test_vectors_come_in_the_order_that_a_selection_has(written: Path) -> None:
    found = load(written / "three")
    order = np.random.default_rng(0).permutation(N)[:33]
    whole = everything(found)
    assert np.array_equal(everything(found.subset(order)), whole[order])
    assert np.array_equal(everything(found.subset(order).subset(np.arange(5))), whole[order[:5]])


def test_digests_are_those_by_which_models_know_images(written: Path, images: Dataset) -> None:
    from headstart.data.checks.seen import recognise, record

    found = load(written / "one.parquet").images
    assert np.array_equal(image_digests(found), image_digests(images.images))
    seen = record([("learned", found)])
    assert recognise(images.images, seen).of("learned").all()
    assert recognise(found, record([("learned", images.images)])).of("learned").all()
    assert not len(seen.places), "nothing is described without pixels"


def test_without_pixels_each_way_to_them_is_one_sentence(written: Path) -> None:
    store = load(written / "one.parquet").images
    assert not has_pixels(store) and why_no_pixels(store) == "they were in memory, not in files"
    spec: Any = None
    for read in (
        lambda: store.image(3),
        lambda: store.prepared(3, spec),
        lambda: store.look(3),
        lambda: store.preview(3, 8),
    ):
        with pytest.raises(MissingDataError, match="image 'image 3' is known by its features only"):
            read()


def test_a_named_dataset_on_this_machine_has_its_pixels_again(tmp_path: Path) -> None:
    embed("pixels", "digits:3-4", tmp_path / "f.parquet")
    found, plain = load(tmp_path / "f.parquet"), load("digits:3-4")
    assert has_pixels(found.images) and found.images.fingerprint == plain.images.fingerprint
    assert found.fingerprint == plain.fingerprint


def photos(folder: Path, n_images: int = 6) -> None:
    rng = np.random.default_rng(1)
    for number in range(n_images):
        place = folder / ("ant" if number % 2 else "bee") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png_bytes(rng.integers(0, 255, (12, 9, 3)).astype(np.uint8)))


def test_files_are_found_again_unless_one_is_missing_or_changed(desk: Path) -> None:
    photos(desk / "photos")
    embed("pixels", "photos", "f.parquet")
    plain = load("photos")
    assert load("f.parquet").images.paths == plain.images.paths
    assert load("f.parquet").fingerprint == plain.fingerprint
    changed = desk / "photos/ant/3.png"
    before = changed.read_bytes()
    changed.write_bytes((desk / "photos/ant/1.png").read_bytes())
    without = load("f.parquet")
    assert why_no_pixels(without.images) == (
        "1 of 6 image files are not as they were, such as 'photos/ant/3.png'"
    )
    assert without.fingerprint == plain.fingerprint, "it is that of the images"
    changed.unlink()
    assert "1 of 6 image files are not there" in str(why_no_pixels(load("f.parquet").images))
    changed.write_bytes(before)
    assert has_pixels(load("f.parquet").images)


def test_relative_paths_are_found_next_to_the_features(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(desk / "photos")
    embed("pixels", "photos", "f.parquet")
    monkeypatch.chdir(desk.parent)
    assert has_pixels(load(desk / "f.parquet").images)


def test_copies_between_features_and_images_are_found(written: Path, images: Dataset) -> None:
    from headstart.data.checks.doctor import examine
    from headstart.data.union import joined

    both = joined(load(written / "one.parquet"), images.subset(np.arange(3)))
    assert both is not None
    assert [pair.places for pair in examine(both).pairs] == [(0, 50), (1, 51), (2, 52)]


def test_labels_may_be_changed(one: Path) -> None:
    labels = [f"class {i % 3}" for i in range(N)]
    write(one, lambda table: with_column(table, "label", [labels]))
    found = load(one)
    assert found.classes == ("class 0", "class 1", "class 2") and found.labels.tolist() == labels


def test_recorded_classes_keep_their_order_and_new_ones_follow(tmp_path: Path, images: Dataset) -> None:
    mine = Dataset("mine", images.images, images.labels, ("1", "0"))
    embed("pixels", mine, tmp_path / "f.parquet")
    assert load(tmp_path / "f.parquet").classes == ("1", "0")
    labels = ["x", "a", *images.labels[2:].tolist()]
    write(tmp_path / "f.parquet", lambda table: with_column(table, "label", [labels]))
    assert load(tmp_path / "f.parquet").classes == ("1", "0", "a", "x")


def test_pandas_may_change_filter_and_shuffle(three: Path, images: Dataset, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.read_parquet(three)
    whole = everything(load(three))
    frame["place"] = np.arange(N)
    frame = frame[frame.label == "0"].sample(frac=1, random_state=0)
    frame["label"] = np.where(frame.place % 2, 7.0, 8.0)  # as pandas makes of whole numbers
    frame.to_parquet(tmp_path / "edited.parquet")
    found = load(tmp_path / "edited.parquet")
    assert found.labels.tolist() == np.where(frame.place % 2, "7", "8").tolist()
    assert np.array_equal(everything(found), whole[frame.place])
    assert f"have {len(frame):,} rows, {N} were computed" in found.remarks[0]


def test_labels_as_categories_and_whole_numbers(one: Path) -> None:
    labels = pa.array(["a", "b"] * (N // 2)).dictionary_encode()
    write(one, lambda table: with_column(table, "label", labels))
    assert load(one).classes == ("a", "b")
    write(one, lambda table: with_column(table, "label", pa.array([10, 9] * (N // 2))))
    assert load(one).classes == ("9", "10")


def record_of(table: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(table.schema.metadata[b"headstart"])
    return found


def noted(table: Any, **changes: Any) -> Any:
    return table.replace_schema_metadata({b"headstart": json.dumps({**record_of(table), **changes})})


BROKEN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no metadata": (lambda t: t.replace_schema_metadata(None), "no entry 'headstart'"),
    "no text": (lambda t: t.replace_schema_metadata({b"headstart": b"\xff{"}), "malformed entry"),
    "a list": (lambda t: t.replace_schema_metadata({b"headstart": b"[]"}), "malformed entry"),
    "nothing in it": (lambda t: t.replace_schema_metadata({b"headstart": b"{}"}), "malformed entry"),
    "a later format": (lambda t: noted(t, format=2), "have the format 2"),
    "a strange type": (lambda t: noted(t, dtype="float8"), "malformed entry"),
    "a width of 0": (lambda t: noted(t, n_features=0), "malformed entry"),
    "a true width": (lambda t: noted(t, n_features=True), "malformed entry"),
    "classes": (lambda t: noted(t, data={**record_of(t)["data"], "classes": [1]}), "malformed entry"),
    "a shape": (lambda t: noted(t, data={**record_of(t)["data"], "image_shape": [8]}), "malformed entry"),
    "a shard": (lambda t: noted(t, shard={**record_of(t)["shard"], "first": 9}), "malformed entry"),
    "no path": (lambda t: t.drop_columns("path"), "no column 'path'"),
    "no digest": (lambda t: t.drop_columns("digest"), "no column 'digest'"),
    "two labels": (lambda t: t.append_column("label", t.column("label")), "no column 'label', or two"),
    "no label in a row": (
        lambda t: with_column(t, "label", [["a"] * 9 + [None] + ["b"] * (N - 10)]),
        "row 10 of .* has no label",
    ),
    "an empty label": (lambda t: with_column(t, "label", [["a"] * (N - 1) + [""]]), "row 50 of"),
    "a label that is no number": (
        lambda t: with_column(t, "label", [[1.5] * (N - 1) + [float("nan")]]),
        "row 50 of",
    ),
    "a strange split": (lambda t: with_column(t, "split", [["upper"] * N]), "split 'upper'"),
    "a short digest": (
        lambda t: with_column(t, "digest", [[b"x"] * N]),
        "row 1 of .* has no digest of 32 bytes",
    ),
    "no rows": (lambda t: t.slice(0, 0), "have no rows"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_cannot_be_used_is_one_sentence(one: Path, case: str) -> None:
    change, said = BROKEN[case]
    write(one, change)
    with pytest.raises(DataError, match=said):
        load(one)


VECTORS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "text": (lambda t: pa.array(["x"] * N), "are of string"),
    "numbers": (lambda t: pa.array([1.0] * N), "are of double"),
    "lists of whole numbers": (lambda t: pa.array([[1] * 64] * N), "are of list<"),
    "of two lengths": (lambda t: pa.array([[1.0] * 64] * (N - 1) + [[1.0] * 63]), "of several lengths"),
    "all longer": (lambda t: pa.array([[1.0] * 65] * N), "expected 64 numbers"),
    "one missing": (lambda t: pa.array([[1.0] * 64] * (N - 1) + [None]), "missing in some rows"),
    "a value missing": (lambda t: pa.array([[1.0] * 64] * (N - 1) + [[None] * 64]), "missing values"),
}


@pytest.mark.parametrize("case", VECTORS)
def test_vectors_that_are_none_are_one_sentence(one: Path, case: str) -> None:
    change, said = VECTORS[case]
    write(one, lambda table: with_column(table, "vector", change(table)))
    with pytest.raises(DataError, match=said):
        everything(load(one))


def test_vectors_of_other_types_are_read(one: Path, images: Dataset) -> None:
    values = [row.tolist() for row in expected(images)]
    for kind in (pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 64)):
        write(one, lambda table, kind=kind: with_column(table, "vector", pa.array(values, kind)))
        np.testing.assert_allclose(everything(load(one)), expected(images), atol=1e-6)


def test_a_cut_or_damaged_file_is_never_read_wrongly(one: Path, images: Dataset) -> None:
    data = one.read_bytes()
    for n_bytes in (0, 1, len(data) // 2, len(data) - 1):
        one.write_bytes(data[:n_bytes])
        with pytest.raises(BrokenDataError, match="cannot be read"):
            load(one)
    n_found, right = 0, expected(images)
    for place in range(10, len(data) - 10, max(1, len(data) // 60)):
        one.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            found = load(one)
            np.testing.assert_allclose(everything(found), right, atol=1e-6)
        except HeadstartError:
            n_found += 1
    assert n_found > 30


def test_a_file_that_was_exchanged_meanwhile_is_refused(one: Path) -> None:
    found = load(one)
    write(one, lambda table: table.slice(0, 20))
    with pytest.raises(BrokenDataError, match="have changed since they were read"):
        everything(found)
    one.unlink()
    with pytest.raises(BrokenDataError, match="cannot be read"):
        everything(found)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_part_is_named(three: Path, number: int) -> None:
    (three / f"part-0000{number}.parquet").unlink()
    with pytest.raises(MissingDataError, match=f"lack shard '{number}' of 3"):
        load(three)


def test_parts_are_known_by_what_they_hold_not_by_their_names(three: Path) -> None:
    whole = everything(load(three))
    (three / "part-00000.parquet").rename(three / "part-00007.parquet")
    assert np.array_equal(everything(load(three)), whole)
    shutil.copy(three / "part-00001.parquet", three / "part-00009.parquet")
    with pytest.raises(DataError, match="hold shard 1 twice"):
        load(three)


def test_parts_of_two_runs_are_refused(three: Path, images: Dataset, tmp_path: Path) -> None:
    embed("pixels", images, tmp_path / "other", shard_size=SHARD, float16=True)
    shutil.copy(tmp_path / "other/part-00001.parquet", three)
    with pytest.raises(DataError, match=r"differ in dtype \('float32' and 'float16'\)"):
        load(three)


def test_another_table_among_the_parts_is_refused(three: Path) -> None:
    pq.write_table(pa.table({"path": ["a.png"], "label": ["a"]}), three / "other.parquet")
    with pytest.raises(DataError, match=r"other.parquet' holds no features"):
        load(three)


def test_a_part_without_its_split_is_refused(three: Path) -> None:
    write(three / "part-00001.parquet", lambda table: table.drop_columns("split"))
    with pytest.raises(DataError, match=r"part-00001.parquet' have no column split, which others have"):
        load(three)


def test_one_part_alone_is_some_of_the_rows(three: Path) -> None:
    found = load(three / "part-00001.parquet")
    assert len(found) == SHARD and "have 20 rows, 50 were computed" in found.remarks[0]


def test_other_tables_and_folders_are_no_features(one: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.png"], "label": ["a"]}), tmp_path / "plain.parquet")
    (tmp_path / "text.parquet").write_text("text")
    (tmp_path / "folder").mkdir()
    for name in ("plain.parquet", "text.parquet", "folder", "missing.parquet"):
        assert not is_features(tmp_path / name)
    assert is_features(one)


def test_a_record_survives_as_it_was_written(one: Path) -> None:
    part = Part(one)
    assert part.record.source.name == "pixels" and part.record.n_features == 64
    assert not part.record.differences(part.record)
    assert table_of(load(one).images) is not None and table_of(load("digits").images) is None
