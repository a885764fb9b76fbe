"""Recipes: every one reads, a wrong one is told what is wrong, and the same seed gives the same result."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.data.readers.load import from_arrays, load
from headstart.data.subsets import apply_subset
from headstart.errors import DataError, RecipeError, SettingError, UnknownLayerError
from headstart.evaluation.intervals import wilson
from headstart.heads.registry import HEADS
from headstart.models.model import open_model
from headstart.networks.engines.registry import ENGINES
from headstart.networks.specs import architecture
from headstart.records import InputSpec, TrainSettings
from headstart.strategies.parts import training_parts
from headstart.system.progress import SILENT
from headstart.workflows.recipes import run as runner
from headstart.workflows.recipes.options import Outcome, RecipeOptions
from headstart.workflows.recipes.recipe import Recipe, read_recipe, recipe_names, recipe_text
from headstart.workflows.recipes.run import run_recipe
from headstart.workflows.recipes.split import with_test_split

QUICK = TrainSettings(epochs=2, learning_rate=3e-3)
TIMES = ("learning_the_source", "learning_the_head", "everything", "date")


def quick(name: str, **changes: Any) -> Recipe:
    """A bundled recipe in seconds: an MLP, two epochs, two draws."""
    whole = read_recipe(name)
    return replace(
        whole,
        network="mlp",
        engine="scratch",
        training=QUICK,
        few_labels=replace(QUICK, epochs=1, min_steps=5),
        layer="hidden1",
        textbook_layer="hidden2" if whole.textbook_layer else None,
        head="ridge",
        labels_per_class=(1, 5),
        draws=2,
        **changes,
    )


@pytest.fixture(scope="module")
def parity(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_recipe(
        quick("parity"), tmp_path_factory.mktemp("first") / "out", RecipeOptions(command="typed")
    )


# --- reading


@pytest.mark.parametrize("name", [name for name in recipe_names() if type(read_recipe(name)) is Recipe])
def test_every_bundled_recipe_reads_and_names_what_there_is(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name and recipe.title and recipe.summary
    assert recipe.head in HEADS and recipe.engine in ENGINES
    spec = architecture(recipe.network, InputSpec(28, 28, 1), 10)
    assert recipe.layer in spec.layer_names and recipe.textbook_layer in (None, *spec.layer_names)
    assert recipe.labels_per_class == (1, 5, 10, 50) and recipe.draws >= 5
    whole = load(recipe.data)
    for view in filter(None, (recipe.source_subset, recipe.target_subset)):
        assert len(apply_subset(whole, view).classes) >= 2


def test_the_two_classic_experiments_are_there() -> None:
    assert set(recipe_names()) >= {"odd-to-even", "parity"}
    assert not read_recipe("odd-to-even").collapse and read_recipe("parity").collapse
    assert read_recipe("odd-to-even").engine == "scratch" and read_recipe("parity").network == "cnn"


def test_a_copy_reads_as_the_original(tmp_path: Path) -> None:
    (tmp_path / "parity.toml").write_text(recipe_text("parity"))
    assert read_recipe(str(tmp_path / "parity.toml")) == read_recipe("parity")


@pytest.mark.parametrize(
    ("pattern", "new", "sentence"),
    [
        (
            r"^draws",
            "drawz",
            r"key 'drawz' in \[study\] is unknown, nearest are draws; 'draws' in \[study\] is mis",
        ),
        (r"^epochs = 5$", "epoch = 5", r"key 'epoch' in \[training\] is unknown, nearest are epochs"),
        (r"^\[probe\]", "[prob]", r"'prob' is unknown, nearest are probe; table \[probe\] is missing"),
        (r"^title = .*", "", r"'title' is missing"),
        (r"^title = .*", "title = 3", r"'title' is 3, expected text"),
        (r"^epochs = 5$", 'epochs = "five"', r"'epochs' in \[training\] is 'five', expected a whole number"),
        (r"^epochs = 5$", "epochs = 5.5", r"'epochs' in \[training\] is 5.5, expected a whole number"),
        (r"^epochs = 5$", "epochs = true", r"'epochs' in \[training\] is True, expected a whole number"),
        (
            r"^learning_rate = 6e-3",
            'learning_rate = "x"',
            r"'learning_rate' in \[training\] is 'x', expected a number",
        ),
        (r"^collapse = .*", "collapse = 1", r"'collapse' in \[study\] is 1, expected true or false"),
        (r"^draws = .*", "draws = 0", r"'draws' in \[study\] is 0, expected at least 1"),
        (
            r"^labels_per_class = .*",
            "labels_per_class = [0]",
            r"is \[0\], expected a list of whole numbers, each at",
        ),
        (r"^labels_per_class = .*", "labels_per_class = 5", r"is 5, expected a list of whole numbers"),
        (r"^default = .*", "default = 1", r"'default' in \[data\] is 1, expected text"),
        (r"^target_subset = .*", "", r"'target_subset' in \[data\] is missing"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, pattern: str, new: str, sentence: str) -> None:
    text, number = re.subn(pattern, new, recipe_text("parity"), flags=re.MULTILINE)
    assert number
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(RecipeError, match=sentence) as found:
        read_recipe(str(tmp_path / "mine.toml"))
    assert str(found.value).endswith("headstart recipes show parity") and "\n" not in str(found.value)


def test_a_value_where_a_table_belongs(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('title = "t"\nsummary = "s"\ndata = "digits"\n')
    with pytest.raises(RecipeError, match=r"'data' is 'digits', expected a table; table \[network\] is"):
        read_recipe(str(tmp_path / "mine.toml"))


def test_an_unknown_recipe_gets_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"recipe 'pairty' is unknown, .* nearest are parity"):
        read_recipe("pairty")


# --- carrying out


def plain_manifest(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text())
    assert document.pop("timing") and document.pop("checksum")  # which is of the times, too
    document.pop("report", None)
    return dict(document)


def plain_result(outcome: Outcome) -> dict[str, Any]:
    document = json.loads((outcome.folder / "result.json").read_text())
    for row in document["rows"]:
        del row["seconds"]
    for name in TIMES:
        del document["facts"][name]
    return dict(document)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(parity: Outcome, tmp_path: Path) -> None:
    again = run_recipe(quick("parity"), tmp_path / "out", RecipeOptions(command="typed"))
    for model in ("source", "model"):
        first, second = parity.folder / model, again.folder / model
        assert plain_manifest(first / "manifest.json") == plain_manifest(second / "manifest.json")
        for name in ("model.onnx", "weights.safetensors", "card.md"):
            assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert plain_result(parity) == plain_result(again)


@pytest.mark.slow
def test_another_seed_gives_another_result(parity: Outcome, tmp_path: Path) -> None:
    other = run_recipe(quick("parity"), tmp_path / "out", RecipeOptions(command="typed", seed=1))
    for name in ("source/model.onnx", "model/model.onnx"):
        assert (parity.folder / name).read_bytes() != (other.folder / name).read_bytes()
    first, second = plain_result(parity), plain_result(other)
    assert first["facts"]["data"] != second["facts"]["data"]  # another test split
    assert first["rows"] != second["rows"]


def test_what_a_recipe_leaves(parity: Outcome) -> None:
    names = sorted(path.name for path in parity.folder.iterdir())
    assert names == ["card.md", "model", "report.html", "result.json", "source"]
    page = parity.report.read_text()
    result = parity.result
    assert parity.report == parity.folder / "report.html" and result.verdict in page
    assert "training time of the source" in page and "typed" in page
    for remark in result.remarks:
        assert remark in html.unescape(page)
    assert open_model(parity.folder / "source").classes == tuple("0123456789")
    model = open_model(parity.folder / "model")
    assert model.classes == ("even", "odd") and model.manifest.source["tap"] == "hidden1"


def test_collapse_stands_in_the_table_and_asks_for_no_label(parity: Outcome) -> None:
    found = {(row.strategy, row.labels_per_class): row.accuracy for row in parity.result.rows}
    assert {name for name, _ in found} == {
        *("probe", "scratch", "random frozen", "HOG", "raw pixels", "collapse", "majority")
    }
    assert len({found["collapse", budget] for budget in (1, 5, None)}) == 1
    assert found["collapse", None].value > 0.7  # a digit's parity is seldom wrong where the digit is right


def test_the_first_experiment_has_the_textbook_beside_it(tmp_path: Path) -> None:
    outcome = run_recipe(quick("odd-to-even"), tmp_path / "out", RecipeOptions())
    names = list(dict.fromkeys(row.strategy for row in outcome.result.rows))
    assert names == ["probe", "textbook probe", "scratch", "random frozen", "HOG", "raw pixels", "majority"]


def test_the_row_of_all_labels_is_the_saved_model(parity: Outcome) -> None:
    (all_labels,) = (
        row for row in parity.result.rows if (row.strategy, row.labels_per_class) == ("probe", None)
    )
    target = apply_subset(with_test_split(load("digits"), 0), "parity").split("test")
    right = open_model(parity.folder / "model").predict(target, refuse=False) == target.labels
    assert all_labels.accuracy.value == pytest.approx(right.mean())
    assert all_labels.accuracy == parity.result.evaluations[1].accuracy


def rows_of(dataset: Dataset) -> set[bytes]:
    """Every image by its bytes."""
    pixels = dataset.images.pixels  # type: ignore[attr-defined]
    return {one.tobytes() for one in pixels}


def digits_by_writers(splits: bool) -> Dataset:
    """400 unlike images of ten classes by 40 writers, four parts of ten each."""
    pixels = np.random.default_rng(0).integers(0, 256, (400, 8, 8), dtype=np.uint8)
    labels, writers = np.arange(400) % 10, np.arange(400) // 10
    parts = np.where(writers < 25, "train", np.where(writers < 30, "val", "test"))
    return from_arrays(pixels, labels, groups=writers, splits=parts if splits else None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["parity", "odd-to-even"])
@pytest.mark.parametrize("splits", [True, False])
def test_no_test_image_is_learnt_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, splits: bool
) -> None:
    learnt: set[bytes] = set()
    groups_learnt: set[str] = set()
    tested: list[Dataset] = []

    def spy(module: str, function: str, see: Any) -> None:
        real = getattr(__import__(module, fromlist=["_"]), function)

        def seen(*args: Any, **kwargs: Any) -> Any:
            see(*args, **kwargs)
            return real(*args, **kwargs)

        monkeypatch.setattr(f"{module}.{function}", seen)

    def see_fit(network: Any, images: Any, *_: Any, validation: Any = None, **__: Any) -> None:
        learnt.update(one.tobytes() for one in images)
        learnt.update(one.tobytes() for one in (validation[0] if validation else ()))

    def see_learn(*args: Any, **_: Any) -> None:
        dataset = next(one for one in args if isinstance(one, Dataset))
        parts = training_parts(dataset, 0)
        for part in filter(None, (parts.fit, parts.held)):
            learnt.update(rows_of(part))
            groups_learnt.update(part.groups.tolist())

    def see_table(_: Any, train: Dataset, test: Dataset, *__: Any, **___: Any) -> None:
        learnt.update(rows_of(train))
        tested.append(test)

    spy("headstart.strategies.scratch", "fit", see_fit)
    spy("headstart.workflows.comparison.baselines", "fit", see_fit)
    spy("headstart.workflows.recipes.run", "learn_network", see_learn)
    spy("headstart.workflows.recipes.run", "learn_head", see_learn)
    spy("headstart.workflows.study.run", "run_table", see_table)
    monkeypatch.setattr(runner, "load", lambda _: digits_by_writers(splits))
    run_recipe(quick(name), tmp_path / "out")
    (test,) = tested
    assert len(test) >= 40 and len(learnt) > 100 and test.groups is not None
    assert not learnt & rows_of(test)
    assert not groups_learnt & set(test.groups.tolist())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["parity", "odd-to-even"])
def test_copies_stay_on_one_side_of_the_split_that_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Listed twice and without a test split: our own split tore copies apart, and the study refused the leak."""
    once = digits_by_writers(splits=False)
    twice = replace(once.subset(np.tile(np.arange(400), 2)), groups=None)
    monkeypatch.setattr(runner, "load", lambda _: twice)
    found = run_recipe(quick(name), tmp_path / "out", RecipeOptions(controls=False)).result
    test = [row.accuracy for row in found.rows if row.strategy == "probe"][-1]
    assert found.sizes["test"] == test.n and found.sizes["test"] % 2 == 0
    alone = wilson(test.value * test.n / 2, test.n / 2)  # two copies count as one image
    assert test.high - test.low > 0.95 * (alone.high - alone.low)


@pytest.mark.slow
def test_the_saved_model_learns_from_all_but_the_test_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a validation split, too: the row of all labels is about a model that learned from it."""
    parts = np.array(["train", "train", "train", "val", "test"])[np.arange(1797) % 5]
    whole = replace(load("digits"), splits=parts)
    monkeypatch.setattr(runner, "load", lambda _: whole)
    outcome = run_recipe(quick("parity"), tmp_path / "out", RecipeOptions(controls=False))
    model = open_model(outcome.folder / "model")
    assert model.manifest.data["n_images"] == outcome.result.sizes["train"] == (parts != "test").sum()
    target = apply_subset(whole, "parity").split("test")
    right = model.predict(target, refuse=False) == target.labels
    (row,) = (row for row in outcome.result.rows if (row.strategy, row.labels_per_class) == ("probe", None))
    assert row.accuracy.value == pytest.approx(right.mean())


@pytest.mark.slow
def test_a_leak_between_its_own_splits_is_refused_unless_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = np.array(["train", "train", "test"])[np.arange(1797) % 3]
    whole = replace(load("digits"), splits=parts)
    order = np.append(np.arange(1797), 0)  # the first image is also listed as a test image
    whole = replace(whole.subset(order), splits=np.append(parts, "test"))
    monkeypatch.setattr(runner, "load", lambda _: whole)
    with pytest.raises(DataError, match=r"1 image\(s\) in two splits.*--allow-leaks"):
        run_recipe(quick("parity"), tmp_path / "out")
    allowed = RecipeOptions(allow_leaks=True, controls=False)
    assert run_recipe(quick("parity"), tmp_path / "out", allowed).result.rows


def test_a_test_split_of_its_own_is_kept() -> None:
    whole = digits_by_writers(splits=True)
    assert with_test_split(whole, 0) is whole


def test_a_test_split_is_held_out_of_training_images_only() -> None:
    parts = np.array(["train"] * 300 + ["val"] * 100)
    whole = replace(digits_by_writers(splits=False), splits=parts, groups=None)
    found = with_test_split(whole, 0)
    assert found.splits is not None
    assert (found.splits[300:] == "val").all() and (found.splits == "test").sum() == 90
    assert set(np.unique(found.split("test").labels)) == set(whole.classes)
    assert (with_test_split(whole, 0).splits == found.splits).all()
    assert (with_test_split(whole, 1).splits != found.splits).any()


def test_a_class_that_one_side_lacks_stops_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = digits_by_writers(splits=True)
    kept = (whole.labels != "4") | (whole.splits != "train")
    monkeypatch.setattr(runner, "load", lambda _: whole.subset(kept))
    with pytest.raises(DataError, match="4"):
        run_recipe(quick("parity"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_remark_is_said_at_once_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []

    class Told:
        def step(self, *_: object) -> None:
            pass

        def remark(self, text: str) -> None:
            said.append(text)

    monkeypatch.setattr(runner, "find_spec", lambda _: None)
    recipe = replace(quick("odd-to-even"), engine="torch")
    outcome = run_recipe(recipe, tmp_path / "out", RecipeOptions(controls=False, progress=Told()))
    assert len(said) == 1 and "torch is not installed" in said[0]
    assert outcome.result.remarks[-1] == said[0]
    assert open_model(tmp_path / "out" / "source").manifest.settings["engine"] == "scratch"


@pytest.mark.parametrize("name", ["parity", "odd-to-even"])
def test_without_controls_there_is_no_verdict(name: str, tmp_path: Path) -> None:
    found = run_recipe(quick(name), tmp_path / "out", RecipeOptions(controls=False, progress=SILENT)).result
    assert [row.strategy for row in found.rows] == ["probe"] and not found.comparisons
    assert "no control was run, so the benefit of transfer is unknown" in found.verdict


def test_wrong_names_stop_before_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runner, "learn_network", lambda *_, **__: pytest.fail("it trained"))
    for change, kind in (
        ({"layer": "hiden1"}, UnknownLayerError),
        ({"textbook_layer": "hiden1"}, UnknownLayerError),
        ({"head": "rigde"}, SettingError),
        ({"network": "mpl"}, SettingError),
    ):
        with pytest.raises(kind, match="nearest are"):
            run_recipe(replace(quick("parity"), **change), tmp_path / "out", RecipeOptions(progress=SILENT))
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path, tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingError, match="choose another"):
            run_recipe(quick("parity"), place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_keys_of_older_recipes_are_read(tmp_path: Path) -> None:
    now = recipe_text("odd-to-even")
    older = re.sub("^layer", "tap", now, flags=re.MULTILINE).replace("textbook_layer", "textbook_tap")
    older = older.replace("source_subset", "source_view").replace("target_subset", "target_view")
    assert older.count("tap = ") == 2 and "_view" in older
    (tmp_path / "odd-to-even.toml").write_text(older)
    assert read_recipe(str(tmp_path / "odd-to-even.toml")) == read_recipe("odd-to-even")
