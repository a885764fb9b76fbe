"""What is kept of files from the only time that they are read."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.data.checks.doctor import examine
from headstart.data.checks.seen import recognise, record
from headstart.data.images.fit import fit_bytes
from headstart.data.images.prepare import prepare
from headstart.data.kept import PreparedRows
from headstart.data.readers import files as reader
from headstart.data.readers.load import load
from headstart.data.reading import reading
from headstart.data.stores import FileImages
from headstart.errors import BrokenDataError
from headstart.records import InputSpec
from headstart.system.progress import SILENT

SPEC = InputSpec(24, 24, 3, policy="crop")
SMALL = InputSpec(8, 8, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for n in range(6):
            rough = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
            name = f"{n}.{'png' if n == 5 else 'jpg'}"
            rough.resize((160, 120)).save(tmp_path / "photos" / label / name)
    deep = rng.integers(0, 4000, (90, 90)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "photos" / "a" / "deep.png")
    (tmp_path / "photos" / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return tmp_path / "photos"


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each image is opened."""
    counted, real = Counter[str](), Path.open

    def noted(path: Path, *arguments: Any, **options: Any) -> Any:
        counted[path.name] += path.suffix in (".jpg", ".png")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", noted)
    yield counted


def test_each_file_is_read_once(folder: Path, opens: Counter[str]) -> None:
    with reading(SILENT, SPEC, SMALL):
        dataset = load(folder)
    examine(dataset)
    pixels = prepare(dataset, SPEC), prepare(dataset, SMALL)
    seen = record([("learned", dataset.images)])
    assert recognise(dataset.images, seen).of("learned").all()
    again = {name: n for name, n in opens.items() if n > 2}  # two folders have files of one name
    assert set(again) == {"deep.png"}, "how values of 16 bits are scaled depends on the other files"
    plain = replace(dataset, images=FileImages(dataset.images.paths or (), dataset.images.digests))
    assert np.array_equal(prepare(plain, SPEC), pixels[0]) and np.array_equal(
        prepare(plain, SMALL), pixels[1]
    )
    assert examine(plain) == examine(dataset)
    fresh = record([("learned", plain.images)])
    assert all(
        np.array_equal(getattr(seen, name), getattr(fresh, name)) for name in ("contents", "looks", "kinds")
    )


def test_what_is_kept_follows_its_image(folder: Path) -> None:
    with reading(SILENT, SPEC):
        dataset = load(folder)
    paths = dataset.images.paths or ()
    expected = [FileImages(paths).prepared(place, SPEC) for place in range(len(paths))]
    order = np.array([7, 0, 3])
    some, plain = dataset.images.subset(order), FileImages(paths[4:6])
    both = some.joined(plain)
    assert both is not None
    for place, origin in enumerate([*order, 4, 5]):
        assert np.array_equal(both.prepared(place, SPEC), expected[origin])
        assert both.look(place).content == FileImages(paths).look(int(origin)).content
    copy = pickle.loads(pickle.dumps(dataset.images))
    assert np.array_equal(copy.prepared(3, SPEC), expected[3])
    assert copy.look(3).content == dataset.images.look(3).content


def test_another_input_is_prepared_from_the_file(folder: Path) -> None:
    with reading(SILENT, SPEC):
        images = load(folder).images
    data = (images.paths or ())[0].read_bytes()
    scaled = replace(SPEC, mean=(0.5,) * 3, std=(0.2,) * 3, depth_bits=12)  # not of what is prepared
    assert np.array_equal(images.prepared(0, scaled), images.prepared(0, SPEC))
    for other in (replace(SPEC, crop_share=0.9), replace(SPEC, version=1), replace(SPEC, width_px=20)):
        assert np.array_equal(images.prepared(0, other), fit_bytes(data, "x", other))
    (images.paths or ())[0].write_bytes(b"")
    assert images.prepared(0, SPEC).shape == SPEC.shape
    with pytest.raises(BrokenDataError, match="has changed"):
        images.prepared(0, replace(SPEC, crop_share=0.9))


def test_of_very_many_files_no_looks_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = examine(load(folder))
    monkeypatch.setattr(reader, "MOST_LOOKS", 3)
    dataset = load(folder)
    assert dataset.images._kept == (None,) * len(dataset)  # type: ignore[attr-defined]
    assert examine(dataset) == kept


def test_progress_of_reading_counts_every_file(folder: Path) -> None:
    told: list[tuple[int, int]] = []

    class Heard:
        def step(self, task: str, done: int, total: int, note: str = "") -> None:
            told.append((done, total))

        def remark(self, text: str) -> None:
            raise AssertionError(text)

    with reading(Heard()):
        load(folder)
    assert told[-1] == (14, 14)
    told.clear()
    load(folder)
    assert not told, "only inside of the block"


def test_rows_end_where_the_space_does() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    rows = PreparedRows(limit_bytes=30)
    first, second, third = rows.add(image), rows.add(image + 1), rows.add(image)
    assert first is not None and second is not None and third is None
    assert np.array_equal(second.read(), image + 1) and np.array_equal(first.read(), image)
    first.read()[:] = 0
    assert np.array_equal(first.read(), image), "each reader gets memory of its own"
