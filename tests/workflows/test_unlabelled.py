"""Unlabelled images: what is read, what is left out, when they are used, and what is said about them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import Run
from headstart.data.checks import unlabelled as checks
from headstart.data.checks.seen import recognise
from headstart.data.checks.unlabelled import usable
from headstart.data.dataset import Dataset
from headstart.data.readers.unlabelled import UNLABELLED, load_unlabelled
from headstart.errors import BrokenDataError, DataError, MissingDataError, SettingError
from headstart.interfaces import python as hs
from headstart.models.model import open_model
from headstart.records import ROLES
from headstart.sources.features import PLAIN
from headstart.sources.registry import open_source
from headstart.strategies.finetune.options import FinetuneOptions
from headstart.strategies.fits import Reader, chosen_probe
from headstart.strategies.places import Probe
from headstart.strategies.unlabelled import Unlabelled, unlabelled_probe
from headstart.workflows.comparison.verdict import PROBE
from headstart.workflows.comparison.verdict import UNLABELLED as ROW
from headstart.workflows.study import StudyRequest, run_study
from headstart.workflows.transfer.run import run_transfer

KERNEL = Probe("values", "flat", "kernel")


def drawn(digits: Dataset, n_each: int, n_others: int, seed: int = 0) -> tuple[Dataset, Dataset, Dataset]:
    """Some labelled images of each class, some unlabelled ones, and the rest."""
    order = np.random.default_rng(seed).permutation(len(digits))
    codes = digits.codes()[order]
    few = np.concatenate([order[codes == code][:n_each] for code in range(10)])
    rest = order[~np.isin(order, few)]
    others = load_unlabelled(digits.subset(rest[:n_others]))
    return digits.subset(few), others, digits.subset(rest[n_others:])


# ---- what is read


def test_a_folder_of_any_layout_is_read_without_its_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for place in ("a.png", "cats/b.png", "train/dogs/deep/c.jpg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(tmp_path / place)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "notes.txt").write_text("not an image", encoding="utf-8")
    found = load_unlabelled(tmp_path)
    assert len(found) == 3 and found.classes == (UNLABELLED,) and set(found.labels) == {UNLABELLED}
    assert [Path(path).name for path, _ in found.skipped] == ["broken.png"]
    with pytest.raises(BrokenDataError, match=r"broken\.png"):
        load_unlabelled(str(tmp_path), strict=True)


def test_whatever_is_a_dataset_loses_its_labels(digits: Dataset) -> None:
    for given in ("digits:0-1", digits.subset(np.arange(50)), [np.zeros((8, 8), np.uint8)] * 2):
        found = load_unlabelled(given)
        assert set(found.labels) == {UNLABELLED} and found.splits is None and found.groups is None


def test_what_is_no_folder_of_images_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError):
        load_unlabelled(tmp_path)
    with pytest.raises(DataError, match="unlabelled images are of type int, expected a folder"):
        load_unlabelled(3)


# ---- what is left out


def test_copies_of_the_dataset_are_left_out(digits: Dataset) -> None:
    few, others, _ = drawn(digits, 3, 100)
    both = load_unlabelled(digits.subset(np.arange(300)))
    some = digits.subset(np.arange(200))
    found, remarks = usable(both, some, 0)
    assert len(found) == 100 and "200 of 300 unlabelled images are copies" in remarks[0]
    kept, nothing = usable(others, few, 0)
    assert len(kept) == 100 and nothing == ()
    with pytest.raises(
        DataError, match="all 200 unlabelled images of 'digits' are images of 'digits' or copies"
    ):
        usable(load_unlabelled(some), some, 0)


def test_of_very_many_some_are_drawn(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MOST_UNLABELLED", 40)
    few, others, _ = drawn(digits, 3, 100)
    found, remarks = usable(others, few, 0)
    assert len(found) == 40 and "40 of 100 unlabelled images were used, drawn at random" in remarks[0]
    assert found.images.fingerprint == usable(others, few, 0)[0].images.fingerprint
    assert found.images.fingerprint != usable(others, few, 1)[0].images.fingerprint


# ---- when they are used


def test_they_help_with_two_labels_of_each_class(digits: Dataset) -> None:
    few, others, rest = drawn(digits, 2, 900)
    source = open_source("pixels", digits)
    plain = run_transfer(source, few, KERNEL).learned.model
    done = run_transfer(source, few, KERNEL, unlabelled=others)
    codes = rest.codes()
    before, after = (one.probabilities(rest).argmax(axis=1) == codes for one in (plain, done.learned.model))
    assert after.mean() > before.mean() + 0.08
    assert {row.strategy for row in done.result.rows} >= {PROBE, ROW}
    assert any(
        text.startswith("Labels were propagated to 900 unlabelled images: ") for text in done.result.remarks
    )
    said = " ".join((done.result.verdict, *done.result.remarks))
    assert "Unlabelled images against the probe: with all 20 labels" in said
    assert done.learned.model.manifest.data["unlabelled"]["n_images"] == 900


def test_the_model_predicts_what_the_strategy_was_measured_with(digits: Dataset) -> None:
    few, others, rest = drawn(digits, 3, 600)
    source = open_source("pixels", digits)
    model = run_transfer(source, few, KERNEL, unlabelled=others, judge=False).learned.model
    reader = Reader(source, few, rest, replace(PLAIN, precision="fp32"))
    strategy = unlabelled_probe(reader, Unlabelled(source, others, reader.options), KERNEL)
    probs = strategy(np.arange(len(few)), np.arange(len(rest)), 0)
    assert np.allclose(probs, model.probabilities(rest), atol=2e-5)


def test_images_of_other_classes_change_nothing(digits: Dataset) -> None:
    """Five labels of each digit, and noise: the gain over left-out images is too small."""
    few, _, rest = drawn(digits, 5, 1)
    noise = load_unlabelled(np.random.default_rng(0).integers(0, 256, (300, 8, 8), np.uint8))
    source = open_source("pixels", digits)
    done = run_transfer(source, few, KERNEL, unlabelled=noise)
    assert any(text.startswith("The unlabelled images were not used: ") for text in done.result.remarks)
    plain = run_transfer(source, few, KERNEL).learned.model
    assert done.learned.model.manifest.source_fingerprint == plain.manifest.source_fingerprint
    assert "unlabelled" not in done.learned.model.manifest.data
    assert np.array_equal(done.learned.model.probabilities(rest), plain.probabilities(rest))


@pytest.mark.parametrize(
    ("n_each", "n_others", "reason"),
    [
        (3, 45, "45 are too few, 50 are needed for 10 classes"),
        (90, 100, "labels per class they would count"),
    ],
)
def test_too_few_of_them_or_very_many_labels_leave_them_out(
    digits: Dataset, n_each: int, n_others: int, reason: str
) -> None:
    few, others, _ = drawn(digits, n_each, n_others)
    source = open_source("pixels", digits)
    done = run_transfer(source, few, KERNEL, unlabelled=others, judge=False)
    assert any(reason in text for text in done.result.remarks), done.result.remarks


def test_with_one_label_of_each_class_they_are_used_unchecked(digits: Dataset) -> None:
    few, others, rest = drawn(digits, 1, 900)
    source = open_source("pixels", digits)
    reader = Reader(source, few, rest)
    test, everyone = np.arange(len(rest)), np.arange(len(few))
    with_others = unlabelled_probe(reader, Unlabelled(source, others), KERNEL)(everyone, test, 0)
    alone = chosen_probe(reader, KERNEL)(everyone, test, 0)
    codes = rest.codes()
    assert (with_others.argmax(1) == codes).mean() > (alone.argmax(1) == codes).mean() + 0.1


def test_groups_are_left_out_together(digits: Dataset) -> None:
    """Two writers; each class is by one of them only, so that nothing can be left out."""
    few, others, _ = drawn(digits, 3, 600)
    writers = np.where(few.codes() < 5, "one", "other").astype(str)
    found = run_transfer(
        open_source("pixels", digits), replace(few, groups=writers), KERNEL, unlabelled=others, judge=False
    )
    assert any("could not be checked" in text for text in found.result.remarks)


# ---- what is said and recorded


def test_they_are_images_that_the_model_learned_from(digits: Dataset, tmp_path: Path) -> None:
    few, others, rest = drawn(digits, 2, 900)
    model = run_transfer(
        open_source("pixels", digits), few, KERNEL, unlabelled=others, judge=False
    ).learned.model
    model.save(tmp_path / "m")
    again = open_model(tmp_path / "m")
    assert again.seen.count("learned") == len(few) + 900
    assert "- Unlabelled images: 900 of digits" in (tmp_path / "m" / "card.md").read_text(encoding="utf-8")
    shares = [one["share"] for one in again.manifest.head["heads"]]
    assert abs(sum(shares) - 1) < 1e-6 and again.manifest.head["heads"][-1]["name"] == "propagation"
    roles = recognise(others.images, again.seen).roles
    assert (roles == ROLES.index("learned")).all(), "evaluate leaves them out"
    assert np.allclose(again.probabilities(rest), model.probabilities(rest))


def test_fine_tuning_has_no_use_for_them(digits: Dataset) -> None:
    few, others, _ = drawn(digits, 2, 200)
    with pytest.raises(SettingError, match="unlabelled images are given with the strategy finetune"):
        run_transfer(open_source("random:cnn", few), few, unlabelled=others, finetune=FinetuneOptions())


@pytest.mark.slow
def test_a_study_has_a_row_of_its_own(digits: Dataset) -> None:
    pool, others, _ = drawn(digits, 60, 500)
    request = StudyRequest(
        KERNEL, labels_per_class=(1, 2, 5), with_all=False, draws=3, controls=("majority",), unlabelled=others
    )
    found = run_study(open_source("pixels", digits), pool, request)
    rows = {(row.strategy, row.labels_per_class): row.accuracy.value for row in found.rows}
    assert rows[ROW, 1] > rows[PROBE, 1] + 0.1 and rows[ROW, 2] > rows[PROBE, 2] + 0.05
    pairs = {(one.strategy, one.control) for one in found.comparisons}
    assert (ROW, PROBE) in pairs and (ROW, "majority") not in pairs
    assert "Unlabelled images against the probe: with 5 labels per class" in " ".join(
        (found.verdict, *found.remarks)
    )


def test_python_takes_arrays(digits: Dataset) -> None:
    few, _, _ = drawn(digits, 2, 100)
    pixels = np.stack([digits.images.image(place)[..., 0] for place in range(900, 1_700)])
    model = hs.transfer("pixels", few, unlabelled=pixels, judge=False)
    assert model.manifest.data["unlabelled"]["n_images"] >= 700


def test_the_command_takes_a_folder(run: Run, digits: Dataset, tmp_path: Path) -> None:
    few, others, _ = drawn(digits, 2, 150)
    for dataset, home in ((few, tmp_path / "few"), (others, tmp_path / "others")):
        for place in range(len(dataset)):
            folder = home / str(dataset.labels[place])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(dataset.images.image(place)[..., 0]).save(folder / f"{place:04}.png")
    said = run("transfer", "pixels", str(tmp_path / "few"), "-o", str(tmp_path / "m"), "--unlabelled",
               str(tmp_path / "others"))  # fmt: skip
    assert said.code == 0, said.err
    assert "probe, unlabelled" in said.out and "unlabelled images" in said.out
    shutil.rmtree(tmp_path / "others")
    (tmp_path / "others").mkdir()
    said = run("transfer", "pixels", str(tmp_path / "few"), "-o", str(tmp_path / "n"), "--unlabelled",
               str(tmp_path / "others"))  # fmt: skip
    assert said.code == 1 and said.err.count("\n") == 1 and "others" in said.err
