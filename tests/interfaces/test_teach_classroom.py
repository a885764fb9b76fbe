"""The classroom of the teaching page: accuracy against brute force, saved models, refused input."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from headstart.data.dataset import Dataset
from headstart.data.images.turns import PixelBudget
from headstart.data.stores import FileImages
from headstart.errors import BrokenDataError, DataError, HeadstartError, SettingError, UnknownClassError
from headstart.evaluation.intervals import cross_validated
from headstart.heads.least_squares import LeastSquares
from headstart.heads.training import class_weights, one_hot
from headstart.interfaces.teach.classroom import FOLDER, Classroom
from headstart.interfaces.teach.left_out import leave_one_out
from headstart.interfaces.teach.live_source import (
    FittingSource,
    LiveSource,
    example_augmentation,
    thumbnail_address,
)
from headstart.interfaces.teach.markup import lesson_html, notice_html, prediction_html, predictions_html
from headstart.models.model import open_model
from headstart.records import NONE_OF_THESE, InputSpec
from headstart.sources.pixels import pixel_source

KINDS = ("bar", "cross", "ring")


def picture(kind: str, seed: int, size: int = 96) -> bytes:
    """A drawing of a kind, no two alike."""
    rng = np.random.default_rng([KINDS.index(kind) if kind in KINDS else 9, seed])
    page = Image.new("L", (size, size), 255)
    pen = ImageDraw.Draw(page)
    a, b, c, d = (float(v) for v in rng.uniform(-7, 7, 4) + (22, 22, 74, 74))
    if kind == "bar":
        pen.line((48 + (a - 22), b, 48 + (c - 74), d), fill=10, width=6)
    elif kind == "cross":
        pen.line((a, b, c, d), fill=10, width=6)
        pen.line((c, b, a, d), fill=10, width=6)
    elif kind == "ring":
        pen.ellipse((a, b, c, d), outline=10, width=6)
    return png(page)


def png(page: Image.Image) -> bytes:
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG whose header promises 900 million pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + struct.pack(">I", 0)
        + b"IDAT"
        + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


@pytest.fixture(scope="module")
def live() -> LiveSource:
    source = pixel_source(InputSpec(28, 28, 1, policy="ink"))
    return LiveSource(source, example_augmentation(source))


@pytest.fixture
def room(live: LiveSource) -> Classroom:
    return Classroom(live)


def taught(room: Classroom, each: int = 5) -> Classroom:
    for kind in KINDS:
        room.add_class(kind)
        for seed in range(each):
            room.add(kind, picture(kind, seed))
    return room


def test_three_classes_have_an_accuracy_and_predictions(room: Classroom) -> None:
    taught(room)
    lesson = room.lesson()
    assert lesson.accuracy is not None and lesson.accuracy == cross_validated(lesson.accuracy.value, 15)
    assert lesson.accuracy.value >= 0.9 and len(lesson.wrong) == round(15 * (1 - lesson.accuracy.value))
    for kind in KINDS:
        answer = room.predict(picture(kind, 99))
        assert answer is not None and answer.nearest.label == kind
        assert max(answer.probabilities, key=lambda one: one[1])[0] == kind
        assert sum(value for _, value in answer.probabilities) == pytest.approx(1, abs=1e-5)
        assert [name for name, _ in answer.probabilities] == list(KINDS)


def test_examples_lie_in_a_folder_that_the_next_server_sweeps_while_they_are_saved(
    room: Classroom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill during that time left them in the temporary folder for ever."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen: list[Path] = []

    def killed(*_: object, **__: object) -> None:
        seen.extend(one.parent for one in tmp_path.rglob("0000"))
        raise SettingError("the process ended")

    monkeypatch.setattr("headstart.interfaces.teach.classroom.learn_head", killed)
    with pytest.raises(SettingError, match="ended"):
        taught(room, 2).save(tmp_path / "out", "x")
    assert [one.name.startswith(FOLDER) for one in seen] == [True]
    assert not seen[0].exists()


def decoded_in_turns(do: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pixels that are claimed inside of a turn."""
    budget, claimed = PixelBudget(10**6), list[int]()

    def claim(n_px: int) -> None:
        free = budget._free_px
        budget.claim(n_px)
        claimed.append(free - budget._free_px)

    for module in ("classroom", "live_source"):
        monkeypatch.setattr(f"headstart.interfaces.teach.{module}.turn", budget.turn)
    monkeypatch.setattr("headstart.data.images.decode.claim_pixels", claim)
    do()
    assert budget._free_px == 10**6
    return claimed


def test_images_of_the_page_take_turns(room: Classroom, monkeypatch: pytest.MonkeyPatch) -> None:
    room.add_class("bar")
    content = picture("bar", 0)
    for do in (
        lambda: room.add("bar", content),
        lambda: room.predict(content),
        lambda: thumbnail_address(content),
    ):
        assert decoded_in_turns(do, monkeypatch) == [96 * 96]


def test_no_accuracy_before_there_are_enough_examples(room: Classroom) -> None:
    assert room.lesson().accuracy is None and room.predict(picture("bar", 0)) is None
    room.add_class("bar")
    room.add("bar", picture("bar", 0))
    room.add("bar", picture("bar", 1))
    assert room.lesson().accuracy is None and room.predict(picture("bar", 2)) is None
    room.add_class("ring")
    room.add("ring", picture("ring", 0))
    answer = room.predict(picture("ring", 1))
    assert room.lesson().accuracy is None and answer is not None  # nobody can judge the only ring
    assert answer.novelty is None and answer.predicted == "ring"
    room.add("ring", picture("ring", 2))
    accuracy = room.lesson().accuracy
    assert accuracy is not None and accuracy.n == 4


@pytest.mark.slow
def test_a_taught_image_is_its_own_nearest_example(room: Classroom) -> None:
    taught(room)
    answer = room.predict(picture("cross", 3))
    assert answer is not None and answer.similarity == pytest.approx(1, abs=1e-4)
    assert answer.nearest.number == room.examples("cross")[3].number


@pytest.mark.slow
def test_an_image_unlike_all_examples_is_none_of_these(room: Classroom) -> None:
    taught(room, 8)
    noise = np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8)
    answer = room.predict(png(Image.fromarray(noise)))
    assert answer is not None and answer.novelty is not None and answer.novelty > 1
    assert answer.predicted == NONE_OF_THESE
    known = room.predict(picture("ring", 3))
    assert known is not None and known.predicted == "ring"


@pytest.mark.parametrize("n_views", [0, 2])
@pytest.mark.parametrize("copies", [(), ((0, 3),), ((0, 5),)])  # within a class, across two
def test_leave_one_out_equals_a_refit(n_views: int, copies: tuple[tuple[int, int], ...]) -> None:
    rng = np.random.default_rng(1)
    own = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2], np.int64)
    centres = rng.normal(size=(3, 6)) * 0.6
    images = np.tile(np.arange(10), 1 + n_views)
    codes = own[images]
    rows = centres[codes] + rng.normal(size=(len(codes), 6))
    units = np.arange(10)
    for first, second in copies:
        units[second] = units[first]
    judged, right = leave_one_out(rows @ rows.T, codes, images, units, 1e-2)
    assert judged.all() and 0 < right.sum() < 10  # or the comparison shows nothing
    for image in range(10):
        rest = units[images] != units[image]
        torn = len(set(own[units == units[image]].tolist())) > 1
        weights = class_weights(codes[rest], None if torn else np.bincount(own).tolist())
        if torn:
            weights = np.ones(rest.sum(), np.float32)
        strength = 1e-2 * len(codes) / rest.sum() if torn else 1e-2
        problem = LeastSquares(rows[rest], one_hot(codes[rest], 3), weights)
        weight, bias = problem.solution(strength)
        assert ((rows[image] @ weight + bias).argmax() == own[image]) == right[image]


def test_the_only_example_of_a_class_is_not_left_out() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 3))
    codes = np.array([0, 0, 1, 1, 2], np.int64)
    judged, right = leave_one_out(rows @ rows.T, codes, np.arange(5), np.array([0, 1, 2, 2, 4]), 0.1)
    assert judged.tolist() == [True, True, False, False, False] and not right[2:].any()


def test_class_shares_are_kept_so_that_noise_scores_chance() -> None:
    """Without it, leaving one out of a class makes the others likelier, and noise is always called wrong."""
    rng = np.random.default_rng(0)
    rights = []
    for _ in range(20):
        rows = rng.normal(size=(20, 4))
        codes = np.repeat([0, 1], 10)
        rights.append(leave_one_out(rows @ rows.T, codes, np.arange(20), np.arange(20), 10.0)[1].mean())
    assert 0.4 < np.mean(rights) < 0.6


@pytest.mark.slow
def test_the_saved_model_predicts_as_the_page(room: Classroom, tmp_path: Path) -> None:
    taught(room, 6)
    room.remove(room.examples("bar")[1].number)  # the last image moves to its place
    room.add_class("nothing yet")
    folder = room.save(tmp_path / "taught", "my letters 1.0")
    model = open_model(folder)
    assert folder == tmp_path / "taught" / "my letters 1.0" and model.classes == KINDS
    paths = []
    for number, kind in enumerate((*KINDS, *KINDS)):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(picture(kind, 70 + number))
    asked = Dataset("asked", FileImages(paths), np.array(["bar"] * 6), ("bar",))
    answered = model.prediction(asked)
    for path, probabilities, number in zip(paths, answered.probabilities, range(6), strict=True):
        answer = room.predict(path.read_bytes())
        assert answer is not None
        assert [value for _, value in answer.probabilities] == pytest.approx(probabilities, abs=1e-4)
        assert answered.novelty is not None and answer.novelty == pytest.approx(
            answered.novelty[number], rel=1e-3
        )
    assert room.save(tmp_path / "taught", "my letters 1.0") == folder  # one's own is replaced


@pytest.mark.parametrize(
    "name", ["", "../up", "a/b", "a\\b", "/etc", ".hidden", "..", "nul\0", "x" * 41, "C:x", "dot."]
)
def test_no_name_escapes_the_folder(room: Classroom, tmp_path: Path, name: str) -> None:
    taught(room, 2)
    with pytest.raises(SettingError, match="plain name"):
        room.save(tmp_path / "taught", name)
    assert list(tmp_path.iterdir()) == []


def test_other_models_are_not_replaced(live: LiveSource, tmp_path: Path) -> None:
    taught(Classroom(live), 2).save(tmp_path, "mine")
    before = (tmp_path / "mine" / "manifest.json").read_bytes()
    with pytest.raises(SettingError, match="exists already"):
        taught(Classroom(live), 2).save(tmp_path, "mine")
    assert (tmp_path / "mine" / "manifest.json").read_bytes() == before


def test_one_class_is_no_model(room: Classroom, tmp_path: Path) -> None:
    room.add_class("bar")
    room.add("bar", picture("bar", 0))
    with pytest.raises(UnknownClassError, match="expected 2"):
        room.save(tmp_path, "one")


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"", BrokenDataError, "it is empty"),
        (b"hello", BrokenDataError, "not an image"),
        (picture("bar", 0)[:80], BrokenDataError, "cannot be read"),
        (bomb(), BrokenDataError, "pixels"),
        (png(Image.new("L", (60, 60), 255)), DataError, "expected an image with content"),
    ],
    ids=["empty", "text", "cut off", "huge", "blank"],
)
def test_unreadable_images_get_a_sentence_and_change_nothing(
    room: Classroom, content: bytes, kind: type[HeadstartError], said: str
) -> None:
    taught(room, 2)
    before = room.lesson()
    for attempt in (lambda: room.add("bar", content, "x.png"), lambda: room.predict(content, "x.png")):
        with pytest.raises(kind, match=said) as caught:
            attempt()
        assert "\n" not in str(caught.value) and "x.png" in str(caught.value)
    assert room.lesson() is before


@pytest.mark.parametrize("name", ["", "   ", "x" * 41, "BAR", "None of these", "bell\a"])
def test_misleading_class_names_are_refused(room: Classroom, name: str) -> None:
    room.add_class("bar")
    with pytest.raises(SettingError):
        room.add_class(name)
    assert room.classes == ("bar",)


def test_unknown_classes_and_examples_are_refused(room: Classroom) -> None:
    with pytest.raises(UnknownClassError, match="there is none yet"):
        room.add("bar", picture("bar", 0))
    taught(room, 2)
    with pytest.raises(UnknownClassError, match="nearest are bar"):
        room.remove_class("bat")
    with pytest.raises(UnknownClassError, match="example 99"):
        room.remove(99)


def test_classes_and_examples_are_limited(room: Classroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.interfaces.teach.classroom._MOST_EXAMPLES", 4)
    monkeypatch.setattr("headstart.interfaces.teach.classroom._MOST_CLASSES", 2)
    room.add_class("bar")
    room.add_class("ring")
    with pytest.raises(SettingError, match="headstart transfer"):
        room.add_class("cross")
    for seed in range(4):
        room.add("bar", picture("bar", seed))
    with pytest.raises(DataError, match="headstart transfer"):
        room.add("bar", picture("bar", 5))


def test_removing_undoes_adding(live: LiveSource) -> None:
    kept, changed = taught(Classroom(live), 3), taught(Classroom(live), 3)
    changed.add_class("more")
    changed.add("more", picture("ring", 50))
    changed.add("ring", picture("ring", 51))
    changed.remove(changed.examples("ring")[-1].number)
    changed.remove_class("more")
    assert changed.classes == kept.classes
    one, other = (room.predict(picture("bar", 9)) for room in (changed, kept))
    assert one is not None and other is not None
    assert one.probabilities == other.probabilities and one.novelty == other.novelty


def test_two_classrooms_do_not_mix(live: LiveSource) -> None:
    one, other = taught(Classroom(live), 2), Classroom(live)
    other.add_class("else")
    assert one.classes == KINDS and other.classes == ("else",) and not other.examples("else")


@pytest.mark.slow
def test_remarks_of_the_doctor(room: Classroom) -> None:
    room.add_class("bar")
    room.add_class("ring")
    assert room.lesson().remarks == ("bar and ring have no example yet.",)
    for seed in range(8):
        room.add("bar", picture("bar", seed))
    room.add("ring", picture("ring", 0))
    assert room.lesson().remarks == (
        "ring has fewer than 5 examples: teach a few more.",
        "bar has 8 examples and ring 1: balance them.",
    )
    room.add("bar", picture("bar", 7))
    assert "Nearly the same image twice in bar" in room.lesson().remarks[0]
    room.add("ring", picture("bar", 2))
    assert room.lesson().remarks[0] == "The same image is taught as bar and as ring: one of them is wrong."


def test_a_near_copy_is_found(room: Classroom) -> None:
    taught(room, 3)
    before = room.lesson().accuracy
    with Image.open(io.BytesIO(picture("ring", 1))) as page:
        file = io.BytesIO()
        page.save(file, "JPEG", quality=90)
    assert before is not None and not any("same image" in one for one in room.lesson().remarks)
    room.add("ring", file.getvalue())
    assert any("Nearly the same image twice in ring" in one for one in room.lesson().remarks)


def test_copies_count_as_one_image(room: Classroom) -> None:
    taught(room)
    alone = room.lesson().accuracy
    for kind in KINDS:
        for seed in range(5):
            room.add(kind, picture(kind, seed))
    copied = room.lesson().accuracy
    assert alone is not None and copied is not None and copied.n == alone.n == 15
    assert copied == cross_validated(copied.value, 15)


def test_copies_are_left_out_together(room: Classroom) -> None:
    for kind, seeds in (("bar", (0, 0)), ("ring", (0, 1, 2))):
        room.add_class(kind)
        for seed in seeds:
            room.add(kind, picture(kind, seed))
    assert room.lesson().accuracy is None  # the only bar twice: without both nobody knows bars
    room.add("bar", picture("bar", 1))
    accuracy = room.lesson().accuracy
    assert accuracy is not None and accuracy.n == 5


def test_many_examples_have_fewer_copies(live: LiveSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.interfaces.teach.classroom._ROWS", 24)
    room = taught(Classroom(live), 3)
    assert room._rows()[0].shape == (18, 784)  # 9 images with one augmented copy each
    room.add("bar", picture("bar", 8))
    room.add("bar", picture("bar", 9))
    room.add("bar", picture("bar", 10))
    room.add("bar", picture("bar", 11))
    assert room._rows()[0].shape == (13, 784) and room._probe().augmentation is None


def test_drawings_and_photos_have_different_augmentations() -> None:
    ink = example_augmentation(pixel_source(InputSpec(28, 28, 1, policy="ink")))
    photo = example_augmentation(pixel_source(InputSpec(64, 64, 3, (0.0,) * 3, (1.0,) * 3)))
    assert ink is not None and photo is not None
    assert "elastic" in dict(ink.operations) and "brightness" in dict(photo.operations)
    assert not ink.flips and not photo.flips  # left and right may be what is taught


def test_names_are_escaped_everywhere(room: Classroom) -> None:
    evil = "<img src=x onerror=1>"
    room.add_class(evil)
    room.add_class('"b"')
    for seed in range(2):
        room.add(evil, picture("bar", seed))
        room.add('"b"', picture("ring", seed))
    answer = room.predict(picture("bar", 5))
    thumbnail_address = (
        lesson_html(room, evil)
        + prediction_html(answer)
        + predictions_html([(evil, "", answer)])
        + notice_html(evil)
    )
    assert (
        "<img src=x" not in thumbnail_address and thumbnail_address.count("&lt;img src=x onerror=1&gt;") >= 6
    )
    assert 'data-what="&quot;b&quot;"' in thumbnail_address


# ---- a source that fits the first example


def photo(seed: int) -> bytes:
    """Colours that vary everywhere."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def test_the_first_example_decides_whether_it_is_about_drawings_or_photos(tmp_path: Path) -> None:
    """The source stays until all examples are removed, and is that of the saved model."""
    room = Classroom(FittingSource())
    for name in ("sea", "sky"):
        room.add_class(name)
    assert room.predict(photo(9)) is None
    for seed, name in enumerate(("sea", "sky", "sea", "sky")):
        room.add(name, photo(seed))
    room.add("sea", picture("ring", 0))  # a drawing among photos goes through the same source
    found = room.predict(photo(9))
    assert found is not None and found.predicted in ("sea", "sky", NONE_OF_THESE)
    assert open_model(room.save(tmp_path, "first")).manifest.source["name"] == "photos"
    for example in (*room.examples("sea"), *room.examples("sky")):
        room.remove(example.number)
    for kind, name in (("ring", "sea"), ("cross", "sky")):
        for seed in range(2):
            room.add(name, picture(kind, seed))
    assert open_model(room.save(tmp_path, "second")).manifest.source["name"] == "drawings"


@pytest.mark.slow
def test_ants_and_bees_are_taught_by_ten_photos_each(real_data: Path) -> None:
    """Left out one at a time, at least 85 % are classified correctly."""
    room = Classroom(FittingSource())
    for name in ("ants", "bees"):
        room.add_class(name)
        for path in sorted((real_data / "hymenoptera/train" / name).iterdir())[:10]:
            room.add(name, path.read_bytes(), path.name)
    accuracy = room.lesson().accuracy
    assert accuracy is not None and accuracy.n == 20 and accuracy.value >= 0.85


def test_off_never_answers_none_of_these_and_the_saved_model_neither(
    live: LiveSource, tmp_path: Path
) -> None:
    usual, silent = taught(Classroom(live)), taught(Classroom(live, "off"))
    noise = picture("ring", 5)
    for room in (usual, silent):
        answer = room.predict(noise)
        assert answer is not None and (answer.novelty is None) == (room is silent)
    assert open_model(usual.save(tmp_path, "usual")).manifest.novelty
    assert not open_model(silent.save(tmp_path, "silent")).manifest.novelty
    often = taught(Classroom(live, 0.3))
    assert open_model(often.save(tmp_path, "often")).manifest.novelty["false_rejection"] == 0.3
    few = taught(Classroom(live, 0.3), 2)
    assert not open_model(few.save(tmp_path, "few")).manifest.novelty
