"""A transfer as it is asked for: what is refused, what is chosen, and on which images it is judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from headstart.data.checks.refuse import check_up, checked
from headstart.data.dataset import Dataset
from headstart.data.images.augment import parse_augmentation
from headstart.data.readers.load import from_arrays, load
from headstart.data.stores import ArrayImages
from headstart.errors import DataError, SettingError, UnknownLayerError
from headstart.evaluation.intervals import cross_validated, wilson
from headstart.models.model import open_model
from headstart.records import Source
from headstart.report.page import render
from headstart.report.records import Report
from headstart.sources.features import PLAIN, Extraction, extract
from headstart.sources.registry import open_source
from headstart.strategies.fits import Chooser, Reader, chosen_probe
from headstart.strategies.parts import training_parts
from headstart.strategies.places import CHOSEN, Probe, Reading, choose_places
from headstart.strategies.probe import learn_head, training_rows
from headstart.strategies.select import AVERAGED_FROM, MOST_IMAGES, PRIOR_NATS, PlaceTrial
from headstart.system.cache import FolderCache
from headstart.workflows.comparison.present import choice_table
from headstart.workflows.comparison.protocol import Protocol, rounds_of
from headstart.workflows.transfer.judge import by_cross_validation
from headstart.workflows.transfer.run import Transferred, run_transfer

PLACES = (("block2", "avg"), ("block2", "grid2"), ("block3", "avg"))
RIDGE = Probe(head="ridge")


def take(digits: Dataset, counts: dict[str, int], first: int = 0) -> Dataset:
    """So many images of each class, from the first on, one class after the other."""
    places = [np.flatnonzero(digits.labels == name)[first : first + n] for name, n in counts.items()]
    return replace(digits.subset(np.concatenate(places)), classes=tuple(counts), name="some")


def with_val(digits: Dataset, n_train: int = 30, n_val: int = 20, overlap: int = 0) -> Dataset:
    """Threes and eights with the splits train and val; ``overlap`` images of each class are in both."""
    known = dict.fromkeys("38", n_train), dict.fromkeys("38", n_val)
    parts = take(digits, known[0]), take(digits, known[1], n_train - overlap)
    pixels = np.concatenate([part.images.pixels for part in parts if isinstance(part.images, ArrayImages)])
    splits = np.repeat(["train", "val"], [len(part) for part in parts])
    return replace(
        parts[0],
        images=ArrayImages(pixels),
        labels=np.concatenate([part.labels for part in parts]),
        splits=splits,
    )


def candidate(dataset: Dataset) -> Source:
    """A source that leaves a choice: a small random network with three places to read."""
    return replace(open_source("random:cnn", dataset), candidates=PLACES)


@pytest.fixture(scope="module")
def splitted(digits: Dataset) -> Dataset:
    return with_val(digits)


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    """Too few to hold some out."""
    return take(digits, dict.fromkeys("38", 20))


@pytest.fixture(scope="module")
def done(splitted: Dataset) -> Transferred:
    return run_transfer(candidate(splitted), splitted, command="headstart transfer typed")


# ---- the check-up


def test_sound_data_pass(splitted: Dataset) -> None:
    assert check_up(splitted).n_images == len(splitted) == 100


def test_a_class_of_one_training_image_is_refused(digits: Dataset) -> None:
    alone = take(digits, {"3": 20, "8": 1})
    with pytest.raises(
        DataError, match=r"class '8' of dataset 'some' has 1 training image.*expected at least 2"
    ):
        check_up(alone)
    splits = np.array(["train"] * 10 + ["val"] * 10 + ["train"])
    with pytest.raises(DataError, match="class '8'"):
        check_up(replace(alone, splits=splits))
    assert check_up(take(digits, {"3": 20, "8": 2}))


def test_images_of_the_other_splits_do_not_count_as_training_images(digits: Dataset) -> None:
    dataset = take(digits, {"3": 20, "8": 20})
    splits = np.array(["train"] * 21 + ["val"] * 19)
    splits[:5] = "val"
    with pytest.raises(DataError, match=r"class '8' .* has 1 training image"):
        check_up(replace(dataset, splits=splits))


def test_an_image_in_two_splits_is_refused_unless_it_is_allowed(digits: Dataset) -> None:
    leaking = with_val(digits, overlap=3)
    with pytest.raises(DataError, match=r"has 6 image\(s\) in two splits.*or continue with --allow-leaks"):
        check_up(leaking)
    with pytest.raises(DataError, match="in two splits"):
        run_transfer(open_source("pixels", leaking), leaking, RIDGE)
    allowed = run_transfer(open_source("pixels", leaking), leaking, RIDGE, allow_leaks=True)
    (remark,) = (text for text in allowed.result.remarks if "is also in val" in text)
    assert "6 pairs" in remark and remark.split("'")[0] in render(allowed.result)


def test_the_same_image_twice_in_one_split_is_a_remark(digits: Dataset) -> None:
    dataset = take(digits, dict.fromkeys("38", 20))
    assert isinstance(dataset.images, ArrayImages)
    pixels = dataset.images.pixels.copy()
    pixels[1] = pixels[0]
    found = check_up(replace(dataset, images=ArrayImages(pixels)))
    assert any("the same image occurs more than once: 1 pair" in text for text in found.remarks)


def test_a_class_in_one_split_only_is_refused(splitted: Dataset) -> None:
    labels = splitted.labels.copy()
    labels[(splitted.splits == "val") & (labels == "8")] = "9"
    with pytest.raises(DataError, match="'9'"):
        check_up(replace(splitted, labels=labels, classes=("3", "8", "9")))


def test_names_that_differ_by_case_are_two_classes_unless_a_split_lacks_one(splitted: Dataset) -> None:
    names = np.where(splitted.labels == "3", "Cat", "cat").astype("U4")
    assert check_up(replace(splitted, labels=names, classes=("Cat", "cat"))).label_problems == ()
    names[(names == "Cat") & (splitted.splits == "val")] = "cats"
    with pytest.raises(DataError, match=r"class 'cats' is in val only, nearest are cat, Cat"):
        check_up(replace(splitted, labels=names, classes=("Cat", "cat", "cats")))


# ---- on images held out


def test_probe_stands_beside_raw_pixels_and_majority(done: Transferred) -> None:
    rows = {row.strategy: row for row in done.result.rows}
    assert list(rows) == ["probe", "HOG", "raw pixels", "majority"]
    assert {row.accuracy.n for row in rows.values()} == {40}
    assert rows["majority"].accuracy.value == 0.5 < rows["probe"].accuracy.value
    assert [one.control for one in done.result.comparisons] == ["HOG", "raw pixels", "majority"]
    share = 100 * rows["probe"].accuracy.value
    assert done.result.verdict.startswith(f"{share:.1f} % of 40 validation images are classified correctly [")
    assert "With all 60 labels, transfer" in done.result.verdict and done.result.judged_on == "validation"


def test_figures_are_those_of_the_model_on_the_val_images(done: Transferred, splitted: Dataset) -> None:
    val = splitted.split("val")
    model = done.learned.model
    share = float((model.predict(val, refuse=False) == val.labels).mean())
    assert done.result.rows[0].accuracy.value == pytest.approx(share)
    assert done.learned.model.manifest.scores["val_accuracy"] == pytest.approx(share)
    (calibration,) = done.result.calibrations
    assert calibration.n == len(val)
    (evaluation,) = done.result.evaluations
    assert evaluation.accuracy.value == pytest.approx(share) and int(np.sum(evaluation.confusion)) == 40
    assert done.result.sizes == {"train": 60, "validation": 40, "classes": 2}
    assert evaluation.title == "Validation images of some"
    assert "learned from 60 images and is evaluated on 40 others, which were used" in done.result.summary


@pytest.mark.parametrize("head", [None, "ridge", "mlp", "linear"])
def test_no_val_label_has_a_say(splitted: Dataset, head: str | None) -> None:
    labels = splitted.labels.copy()
    labels[splitted.splits == "val"] = labels[splitted.splits == "val"][::-1]
    other = replace(splitted, labels=labels)
    one, two = (run_transfer(candidate(data), data, replace(CHOSEN, head=head)) for data in (splitted, other))
    assert one.result.rows[0].accuracy.value != two.result.rows[0].accuracy.value
    assert one.learned.model.graph == two.learned.model.graph
    assert one.learned.choice is not None and two.learned.choice is not None
    assert one.learned.choice.trials == two.learned.choice.trials


def test_raw_pixels_are_not_compared_with_themselves(splitted: Dataset) -> None:
    found = run_transfer(open_source("pixels", splitted), splitted, RIDGE)
    assert [row.strategy for row in found.result.rows] == ["probe"] and not found.result.comparisons


def test_without_splits_a_tenth_is_held_out(digits: Dataset) -> None:
    dataset = take(digits, dict.fromkeys("0123", 150))
    found = run_transfer(open_source("pixels", dataset), dataset, RIDGE)
    assert found.result.sizes == {"train": 540, "validation": 60, "classes": 4}
    assert found.result.rows[0].accuracy.n == 60


def test_the_report_says_what_was_done(done: Transferred) -> None:
    page, facts = render(done.result), done.result.facts
    assert facts["command"] == "headstart transfer typed" and facts["seed"] == "0"
    assert done.learned.model.manifest.source_fingerprint in facts["model_fingerprint"]
    assert done.learned.choice is not None and done.learned.choice.sentence in done.result.remarks
    for words in ("How layer, pooling and head were selected", "headstart transfer typed", "raw pixels"):
        assert words in page


# ---- too few to hold some out: nested cross-validation


PROBES = {
    "all is selected": CHOSEN,
    "the head is given": RIDGE,
    "all is given": Probe("block2", "avg", "ridge"),
    "a head of another kind": Probe("block2", "avg", "linear"),
}


@pytest.mark.parametrize("wanted", PROBES.values(), ids=PROBES)
def test_few_images_are_cross_validated_beside_the_controls(few: Dataset, wanted: Probe) -> None:
    found = run_transfer(candidate(few), few, wanted)
    result, rows = found.result, {row.strategy: row for row in found.result.rows}
    assert list(rows) == ["probe", "HOG", "raw pixels", "majority"] and found.learned.held_probs is None
    assert {row.accuracy.n for row in rows.values()} == {40} and rows["majority"].accuracy.value == 0.5
    assert [one.control for one in result.comparisons] == ["HOG", "raw pixels", "majority"]
    (evaluation,), (calibration,) = result.evaluations, result.calibrations
    assert int(np.sum(evaluation.confusion)) == calibration.n == 40 and result.galleries
    ours = rows["probe"].accuracy
    assert evaluation.accuracy == ours and np.trace(evaluation.confusion) == round(40 * ours.value)
    assert ours == cross_validated(ours.value, 40)
    assert result.sizes == {"train": 40, "classes": 2, "cross-validated": 40}
    assert result.verdict.startswith(
        f"{100 * ours.value:.1f} % of 40 cross-validated images are classified correctly "
        f"[{100 * ours.low:.1f}, {100 * ours.high:.1f}]. With all 40 labels, transfer"
    )
    assert result.judged_on == "cross-validated" and result.summary.endswith(result.protocol)
    assert ("were selected again in every fold" in result.protocol) == (wanted in (CHOSEN, RIDGE))
    scores = found.learned.model.manifest.scores
    assert (scores["cv_accuracy"], scores["cv_low"], scores["cv_high"]) == (ours.value, ours.low, ours.high)
    page = render(result)
    for words in (
        "cross-validated images are classified correctly",
        "HOG",
        "raw pixels",
        "Calibration of the probabilities",
    ):
        assert words in page


@pytest.mark.slow
def test_each_image_is_answered_by_a_fit_without_its_fold(few: Dataset) -> None:
    source = candidate(few)
    found = by_cross_validation(source, few, RIDGE, seed=0, options=PLAIN)
    assert found is not None
    (parts,) = rounds_of(few, len(few), (), Protocol((), 1, 0, kind="folds", n_folds=20))[None]
    assert sorted(np.concatenate([part.test for part in parts]).tolist()) == list(range(40))
    for part in parts:
        assert not set(part.train.tolist()) & set(part.test.tolist())
        rest = few.subset(part.train)
        model = learn_head(source, rest, RIDGE, spare=False).model  # selects on these images alone
        answers = model.probabilities(few.subset(part.test))
        np.testing.assert_allclose(found.probabilities[part.test], answers, atol=1e-3)


def test_nothing_selected_on_an_image_answers_it(few: Dataset) -> None:
    """The label of an image changes whether its answer is right, never the answer."""
    source = candidate(few)
    found = by_cross_validation(source, few, CHOSEN, seed=0, options=PLAIN)
    (parts,) = rounds_of(few, 40, (), Protocol((), 1, 0, kind="folds", n_folds=20))[None]
    part = parts[3]
    codes = few.codes()
    mixed = codes.copy()
    mixed[part.test] = 1 - mixed[part.test]
    reader = Reader(source, few, few, PLAIN, None, 0)
    other = replace(few, labels=np.array(few.classes)[mixed])
    turned = Reader(source, other, other, PLAIN, None, 0)
    one, two = (
        chosen_probe(r, CHOSEN, Chooser(r, CHOSEN, MOST_IMAGES))(part.train, part.test, 0)
        for r in (reader, turned)
    )
    assert found is not None and np.array_equal(one, two)
    np.testing.assert_allclose(found.probabilities[part.test], one, atol=1e-6)


def noise(n_images: int, seed: int, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels that know nothing of each other."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n_images, size, size)).astype(np.uint8)
    return pixels, rng.permutation(np.repeat(["a", "b"], n_images // 2))


def holds_a_half(result: Report) -> bool:
    """Whether the figure allows for what is true of it: 50 %."""
    (row,) = (one for one in result.rows if one.strategy == "probe")
    assert result.evaluations[0].accuracy == row.accuracy
    return row.accuracy.low < 0.5 < row.accuracy.high


def plain_places(dataset: Dataset) -> Source:
    """A quick source with two places to choose from."""
    return replace(open_source("pixels", dataset), candidates=(("values", "flat"), ("values", "grid2")))


def nonsense(n_images: int, seed: int) -> Dataset:
    """Noise, each image twice, with labels drawn by lot."""
    pixels, labels = noise(n_images, seed)
    return from_arrays(np.repeat(pixels, 2, axis=0), np.repeat(labels, 2))


@pytest.mark.parametrize(
    ("wanted", "n_seeds"),
    [(RIDGE, 5), (Probe("values", "flat", "neighbours"), 5), pytest.param(CHOSEN, 1, marks=pytest.mark.slow)],
    ids=["ridge", "neighbours", "all is selected"],
)
def test_labels_that_mean_nothing_are_answered_by_chance_though_each_image_is_there_twice(
    wanted: Probe, n_seeds: int
) -> None:
    shares = []
    for seed in range(n_seeds):
        twice = nonsense(40, seed)
        found = run_transfer(plain_places(twice), twice, wanted, seed=seed).result
        assert found.rows[0].accuracy.n == 80 and found.judged_on == "cross-validated"
        assert holds_a_half(found)
        shares.append(found.rows[0].accuracy.value)
    assert abs(np.mean(shares) - 0.5) < 0.24 / np.sqrt(n_seeds)  # three standard errors of 40 images each


def test_copies_that_nobody_looked_for_would_flatter() -> None:
    """What the test above would see if copies were in two folds."""
    twice, nearest = nonsense(40, 0), Probe("values", "flat", "neighbours")
    apart = by_cross_validation(plain_places(twice), twice, nearest, seed=0, options=PLAIN)
    assert apart is not None and apart.table.rows[0].accuracy.value > 0.75


@pytest.mark.slow
def test_one_copy_does_not_make_the_interval_narrower(few: Dataset) -> None:
    assert isinstance(few.images, ArrayImages)
    pixels = few.images.pixels.copy()
    pixels[1] = pixels[0]
    one = replace(few, images=ArrayImages(pixels))
    score = run_transfer(candidate(one), one, RIDGE).result.rows[0].accuracy
    plain = cross_validated(score.value, 40)
    assert score.low <= plain.low + 0.005 and score.high >= plain.high - 0.005


def test_of_many_images_copies_are_held_out_together() -> None:
    twice, nearest = nonsense(300, 0), Probe("values", "flat", "neighbours")
    found = run_transfer(plain_places(twice), twice, nearest).result
    assert found.judged_on == "validation" and found.sizes["train"] + found.sizes["validation"] == 600
    assert found.rows[0].accuracy.value < 0.75  # 100 % if copies of the held images were learned from
    places = training_parts(checked(twice)[0], 0).places
    assert places is not None
    learnt, held = (set((one // 2).tolist()) for one in places)
    assert held and not learnt & held


def near_copy(picture: Image.Image, kind: str, path: Path) -> None:
    if kind == "resized":
        picture.resize((80, 80), Image.Resampling.BICUBIC).save(path.with_suffix(".png"))
    else:
        picture.save(path.with_suffix(".jpg"), quality=80)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resized", "re-encoded"])
def test_near_copies_are_left_out_together(tmp_path: Path, kind: str) -> None:
    pixels, labels = noise(40, 0)
    for number, (one, label) in enumerate(zip(pixels, labels, strict=True)):
        (tmp_path / "pics" / label).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(one).resize((64, 64), Image.Resampling.BICUBIC)
        picture.save(tmp_path / "pics" / label / f"{number}.png")
        near_copy(picture, kind, tmp_path / "pics" / label / f"{number}-copy")
    pictures = load(str(tmp_path / "pics"))
    source = plain_places(pictures)
    found = run_transfer(source, pictures, Probe(head="neighbours"))
    assert found.result.rows[0].accuracy.n == 80 and holds_a_half(found.result)
    clusters = checked(pictures)[0].clusters
    assert clusters is not None and np.bincount(clusters).tolist() == [2] * 40
    apart = by_cross_validation(source, pictures, Probe(head="neighbours"), seed=0, options=PLAIN)
    assert apart is not None and apart.table.rows[0].accuracy.value > 0.75


@pytest.mark.slow
def test_images_of_a_group_are_left_out_together_and_counted_so() -> None:
    """Pixels that name the writer and nothing else: each writer has one class, by lot."""
    rng = np.random.default_rng(0)
    writers = np.repeat(
        np.arange(48), 3
    )  # with 24 the class of the writer left out is much rarer in training
    labels = rng.permutation(np.repeat(["a", "b"], 24))[writers]
    hands = rng.integers(40, 216, (48, 8, 8))[writers]
    pixels = (hands + rng.integers(-20, 21, hands.shape)).astype(np.uint8)
    plain = from_arrays(pixels, labels)
    grouped = replace(plain, groups=np.char.add("w", writers.astype(str)))
    source = plain_places(plain)
    found = run_transfer(source, grouped).result
    assert holds_a_half(found)
    score = found.rows[0].accuracy
    assert score.high - score.low > 1.5 * (
        wilson(144 * score.value, 144).high - wilson(144 * score.value, 144).low
    )
    apart = by_cross_validation(source, plain, CHOSEN, seed=0, options=PLAIN)
    assert apart is not None and apart.table.rows[0].accuracy.value > 0.9


def test_where_nothing_can_be_held_out_no_figure_is_made_up(digits: Dataset) -> None:
    dataset = take(digits, {"3": 20, "8": 2})
    assert isinstance(dataset.images, ArrayImages)
    pixels = dataset.images.pixels.copy()
    pixels[21] = pixels[20]  # both images of a class are one
    found = run_transfer(candidate(dataset), replace(dataset, images=ArrayImages(pixels)))
    assert not (found.result.rows or found.result.evaluations or found.result.calibrations)
    assert found.result.verdict.startswith("Nothing could be held out: a class has")
    assert not {"cv_accuracy", "val_accuracy"} & set(found.learned.model.manifest.scores)
    assert "Nothing could be held out" in render(found.result)


def test_unjudged_it_is_the_same_model_and_nothing_is_said_of_it(few: Dataset) -> None:
    plain, judged = (run_transfer(candidate(few), few, judge=one) for one in (False, True))
    assert plain.learned.model.graph == judged.learned.model.graph
    assert not (plain.result.rows or plain.result.evaluations) and "cv_accuracy" not in (
        plain.learned.model.manifest.scores
    )


# ---- which place and which head


def test_the_best_of_the_candidates_is_taken(splitted: Dataset) -> None:
    train = splitted.split("train")
    readings, choice = choose_places(candidate(train), train, CHOSEN, 0, PLAIN)
    assert choice is not None and len(train) >= AVERAGED_FROM
    assert readings == tuple(Reading((one.layer, one.pooling), one.head) for one in choice.trials[:3])
    assert {(one.layer, one.pooling) for one in choice.trials} == set(PLACES)
    default = PLACES[-1]  # in favour of which other places have a handicap
    assert choice.default == default

    def rank(one: PlaceTrial) -> float:
        return one.loss + (0 if (one.layer, one.pooling) == default else PRIOR_NATS / len(train))

    assert choice.best == min(choice.trials, key=rank)


def test_what_is_given_is_not_chosen(splitted: Dataset) -> None:
    train = splitted.split("train")
    source = candidate(train)
    given = ("block2", "grid2"), "ridge"
    assert choose_places(source, train, Probe(*given[0], given[1]), 0, PLAIN) == ((given,), None)
    (reading,), choice = choose_places(source, train, Probe(layer="block2", head="mlp"), 0, PLAIN)
    assert (reading.place[0], reading.head) == ("block2", "mlp") and choice is not None
    assert {one.head for one in choice.trials} == {"ridge"}  # stands in for heads without a closed form
    assert {one.layer for one in choice.trials} == {"block2"}
    readings, choice = choose_places(source, train, Probe(pooling="avg"), 0, PLAIN)
    assert choice is not None and {one.pooling for one in choice.trials} == {"avg"}
    assert {one.place[1] for one in readings} == {"avg"}


def test_a_place_that_is_no_candidate_is_read_as_told(splitted: Dataset) -> None:
    train = splitted.split("train")
    readings, choice = choose_places(candidate(train), train, Probe("block1", "flat"), 0, PLAIN)
    assert {one.place for one in readings} == {("block1", "flat")}
    assert choice is not None and {one.layer for one in choice.trials} == {"block1"}
    readings, _ = choose_places(candidate(train), train, Probe("block1", head="ridge"), 0, PLAIN)
    assert readings[0].place[1] == "flat"


def test_without_candidates_only_the_head_is_chosen(few: Dataset) -> None:
    source = replace(open_source("random:cnn", few), candidates=())
    (reading, *_), choice = choose_places(source, few, CHOSEN, 0, PLAIN)
    assert reading.place == (source.default_layer, "flat") and choice is not None
    assert {(one.layer, one.pooling) for one in choice.trials} == {reading.place}
    assert reading.head == choice.best.head


def test_a_class_of_one_image_leaves_no_choice(digits: Dataset) -> None:
    dataset = take(digits, {"3": 20, "8": 1})
    assert choose_places(candidate(dataset), dataset, CHOSEN, 0, PLAIN) == (
        ((PLACES[-1], "kernel"),),
        None,
    )


def test_a_wrong_name_is_found_before_anything_is_computed(few: Dataset, tmp_path: Path) -> None:
    cache = FolderCache(tmp_path)
    with pytest.raises(SettingError, match="head 'rigde' is unknown, expected one of"):
        choose_places(candidate(few), few, Probe(head="rigde"), 0, Extraction(cache))
    with pytest.raises(
        UnknownLayerError, match="layer 'blok2' is unknown, expected one of source 'random:cnn'"
    ):
        choose_places(candidate(few), few, Probe(layer="blok2"), 0, Extraction(cache))
    assert not cache.entries()


def test_of_many_images_a_part_decides(digits: Dataset) -> None:
    many = digits.subset(np.arange(MOST_IMAGES + 100))
    source = replace(open_source("pixels", many), candidates=(("values", "avg"), ("values", "flat")))
    choice = choose_places(source, many, RIDGE, 0, PLAIN)[1]
    assert choice is not None and choice.n_images == MOST_IMAGES


def test_the_choice_is_told_best_first(done: Transferred) -> None:
    choice = done.learned.choice
    assert choice is not None
    table = choice_table(choice)
    assert table.lines[0][0] == f"{choice.best.head} on {choice.best.layer}, {choice.best.pooling}"
    losses = [float(row[3]) for row in table.lines if ", ".join(choice.default or ()) not in row[0]]
    assert losses == sorted(losses) and len(table.lines) == min(12, len(choice.trials))
    assert table.lines[0][1] == choice.best.described
    assert "Leave-one-out cross-validation on 60 training images" in table.caption
    assert "no estimate of the accuracy on new images" in table.caption
    many = replace(choice, trials=choice.trials * 3)
    assert len(choice_table(many).lines) == 12
    assert f"{len(many.trials) - 12} more were tried" in choice_table(many).caption


# ---- augmented copies and balance


def test_views_are_further_rows_of_the_same_images(few: Dataset) -> None:
    source, place = open_source("pixels", few), ("values", "flat")
    (rows,), labels, images = training_rows(source, few, [place], parse_augmentation("flip=1", 2), 0, PLAIN)
    plain = extract(few, source)
    assert rows.shape == (120, 64) and np.array_equal(rows[:40], plain)
    mirrored = plain.reshape(40, 8, 8)[:, :, ::-1].reshape(40, 64)
    assert np.allclose(rows[40:80], mirrored) and np.allclose(rows[80:], mirrored)
    assert np.array_equal(images, np.tile(np.arange(40), 3)) and np.array_equal(labels, few.labels[images])


def test_without_augmentation_the_images_alone_are_read(few: Dataset) -> None:
    source = open_source("pixels", few)
    (rows,), labels, images = training_rows(source, few, [("values", "flat")], None, 0, PLAIN)
    assert np.array_equal(rows, extract(few, source)) and np.array_equal(images, np.arange(40))
    assert np.array_equal(labels, few.labels)


def test_views_change_the_fit_and_the_same_seed_repeats_it(splitted: Dataset) -> None:
    source = open_source("pixels", splitted)
    probe = replace(RIDGE, augmentation=parse_augmentation("handwriting", 2))
    plain, viewed, again = (learn_head(source, splitted, one).model for one in (RIDGE, probe, probe))
    other = learn_head(source, splitted, probe, seed=1).model
    assert plain.graph != viewed.graph == again.graph != other.graph
    assert (
        viewed.manifest.settings["augmentation"]["n_copies"] == 2
        and "augmentation" not in plain.manifest.settings
    )
    assert viewed.manifest.data["n_images"] == 60  # copies are no images


def test_a_flip_of_digits_is_warned_about(splitted: Dataset) -> None:
    source = open_source("pixels", splitted)
    flips, none = (
        run_transfer(source, splitted, replace(RIDGE, augmentation=parse_augmentation(text, 1))).result
        for text in ("textbook", "textbook,flip=0")
    )
    (warning,) = (text for text in flips.remarks if "flip" in text)
    assert "cost 1.8 points" in warning and warning in render(flips)
    assert not any("flip" in text for text in none.remarks)


def test_balance_helps_the_rare_class(digits: Dataset) -> None:
    dataset = take(digits, {"3": 150, "8": 8})
    rest = digits.subset(np.flatnonzero(digits.labels == "8")[8:])
    source = open_source("pixels", dataset)
    plain, balanced = (
        learn_head(source, dataset, replace(RIDGE, balance=wanted)).model for wanted in (False, True)
    )
    assert (balanced.predict(rest) == "8").mean() > (plain.predict(rest) == "8").mean()
    assert balanced.manifest.settings["balance"] is True and "balance" not in plain.manifest.settings


# ---- the folder


def test_the_model_is_saved_beside_its_report_and_opens_again(
    done: Transferred, splitted: Dataset, tmp_path: Path
) -> None:
    done.learned.model.save(tmp_path / "m", render(done.result))
    assert {path.name for path in (tmp_path / "m").iterdir()} == {
        *("card.md", "manifest.json", "model.onnx", "report.html", "samples.safetensors"),
        "learned.safetensors",
        "weights.safetensors",
    }
    opened = open_model(tmp_path / "m")
    onnx.checker.check_model(onnx.ModelProto.FromString(opened.graph), full_check=True)
    val = splitted.split("val")
    assert np.array_equal(opened.predict(val), done.learned.model.predict(val))


def test_images_of_a_folder_are_learnt_from(digits: Dataset, tmp_path: Path) -> None:
    dataset = with_val(digits, 12, 8)
    assert isinstance(dataset.images, ArrayImages) and dataset.splits is not None
    for number, (pixels, label, split) in enumerate(
        zip(dataset.images.pixels, dataset.labels, dataset.splits, strict=True)
    ):
        home = tmp_path / "pics" / split / label
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0]).save(home / f"{number}.png")
    pictures = load(str(tmp_path / "pics"))
    found = run_transfer(open_source("pixels", pictures), pictures, RIDGE)
    assert found.result.rows[0].accuracy.n == 16 and found.result.sizes["train"] == 24
    assert training_parts(pictures, 0).fit.splits is not None
