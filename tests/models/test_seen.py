"""What a model has seen: recorded by role, recognised under another name, encoding or order."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.checks import seen as module
from headstart.data.checks.seen import from_tensors, inherited, recognise, record, to_tensors
from headstart.data.stores import ArrayImages, FileImages
from headstart.errors import ModelError
from headstart.records import ROLES, Seen
from synthetic_images import fields


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Twelve JPEG files."""
    paths = []
    for number, pixels in enumerate(fields(12)):
        paths.append(tmp_path / f"{number}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def roles(images: ArrayImages | FileImages, seen: Seen) -> list[str]:
    return [ROLES[code] for code in recognise(images, seen).roles]


def test_files_are_recognised_by_name_or_content_or_look(photos: list[Path], tmp_path: Path) -> None:
    seen = record([("learned", FileImages(photos[:6])), ("validation", FileImages(photos[6:8]))])
    assert (seen.count("learned"), seen.count("validation"), len(seen.looks)) == (6, 2, 8)
    renamed, reencoded = tmp_path / "other.jpg", tmp_path / "smaller.png"
    shutil.copy(photos[3], renamed)
    Image.open(photos[4]).resize((90, 90)).save(reencoded)
    found = recognise(FileImages([renamed, reencoded, photos[6], photos[9]]), seen)
    assert [ROLES[code] for code in found.roles] == ["learned", "learned", "validation", "new"]
    assert found.near.tolist() == [False, True, False, False]
    assert found.of("learned", "validation").tolist() == [True, True, True, False]


def test_pixels_are_the_same_image_in_memory_in_png_and_without_metadata(tmp_path: Path) -> None:
    digits = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path, pixels in zip(paths, digits, strict=True):
        Image.fromarray(pixels[..., 0]).convert("RGB").save(path)
    seen = record([("learned", ArrayImages(digits[:3]))])
    assert roles(FileImages(paths), seen) == ["learned"] * 3 + ["new"] * 2
    seen = record([("learned", FileImages(paths[:3]))])
    found = recognise(ArrayImages(digits), seen)
    assert [ROLES[code] for code in found.roles] == ["learned"] * 3 + ["new"] * 2
    assert not found.near.any(), "the same pixels are no near copy"


def test_what_the_source_learned_from_is_learned_from_too() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8)).astype(np.uint8)
    first = record([("learned", ArrayImages(images[:2])), ("validation", ArrayImages(images[2:3])),
                    ("test", ArrayImages(images[3:4]))])  # fmt: skip
    assert roles(ArrayImages(images), inherited(first)) == ["source"] * 2 + ["validation"] + ["new"] * 3
    own = [("learned", ArrayImages(images[[1, 4]])), ("test", ArrayImages(images[[0, 5]]))]
    second = record(own, inherited(first))
    # its own training image stays its own; its test image that the source learned from is not new
    assert roles(ArrayImages(images), second) == ["source", "learned", "validation", "new", "learned", "test"]
    assert inherited(None) is None
    third = inherited(second)
    assert third is not None
    assert [third.count(role) for role in ("source", "learned", "test")] == [3, 0, 0]


def test_of_many_images_some_are_described_and_all_are_recognised(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_DESCRIBED", 6)
    seen = record([("learned", FileImages(photos[:8])), ("validation", FileImages(photos[8:]))])
    assert len(seen.digests) == 12 and len(seen.looks) == 6
    assert seen.roles[seen.places].tolist() == [1] * 4 + [3] * 2
    assert roles(FileImages(photos), seen) == ["learned"] * 8 + ["validation"] * 4
    again = [tmp_path / f"again-{number}.png" for number in range(12)]
    for path, photo in zip(again, photos, strict=True):
        Image.open(photo).save(path)
    expected = ["learned" if place in seen.places and place < 8 else "validation" for place in range(12)]
    expected = [role if place in seen.places else "new" for place, role in enumerate(expected)]
    assert roles(FileImages(again), seen) == expected


def test_a_record_survives_a_file_and_a_malformed_one_is_refused(photos: list[Path]) -> None:
    seen = record([("learned", FileImages(photos))])
    tensors = to_tensors(seen)
    again = from_tensors(tensors, "m")
    assert all(np.array_equal(getattr(again, name), value) for name, value in tensors.items())
    for name, wrong in (
        ("digests", tensors["digests"][:3]),
        ("looks", tensors["looks"].astype(np.int16)),
        ("places", tensors["places"] + 100),
        ("roles", tensors["roles"] + 50),
        ("kinds", tensors["kinds"] + 50),
        ("contents", tensors["contents"][:, :8]),
    ):
        with pytest.raises(
            ModelError, match=r"record of learned images of model 'm' has malformed .*, expected"
        ):
            from_tensors({**tensors, name: wrong}, "m")
    del tensors["kinds"]
    with pytest.raises(ModelError, match="malformed kinds"):
        from_tensors(tensors, "m")


def test_progress_is_told(photos: list[Path]) -> None:
    seen, told = record([("learned", FileImages(photos[:4]))]), []
    recognise(FileImages(photos), seen, lambda done, total: told.append((done, total)))
    assert told == [(8, 8)]


def test_a_file_that_has_gone_is_recorded_by_its_digest(photos: list[Path], tmp_path: Path) -> None:
    images = FileImages(photos)
    images = FileImages(photos, images.digests)
    (tmp_path / "kept").mkdir()
    kept = Path(shutil.copy(photos[2], tmp_path / "kept"))
    photos[2].unlink()
    photos[3].write_bytes(b"other")
    seen = record([("learned", images)])
    assert seen.count("learned") == 12
    assert roles(FileImages([kept, photos[4]]), seen) == ["learned", "learned"]
