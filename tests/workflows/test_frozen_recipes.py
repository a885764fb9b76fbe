"""Frozen recipes: what a file may say, and what a run on a tiny network finds, shows and leaves behind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.data.dataset import Dataset
from headstart.data.images.augment import parse_augmentation
from headstart.data.images.prepare import prepare
from headstart.data.readers.load import load
from headstart.data.stores import ArrayImages
from headstart.errors import DataError, RecipeError, SettingError
from headstart.heads.registry import HEADS
from headstart.models.model import open_model
from headstart.records import InputSpec, Source
from headstart.sources.features import Extraction, extract_all
from headstart.sources.precision import in_precision_of
from headstart.sources.registry import open_source
from headstart.strategies import fits
from headstart.strategies.places import Reading
from headstart.system.cache import FolderCache
from headstart.workflows.recipes import bench
from headstart.workflows.recipes import frozen as runner
from headstart.workflows.recipes.frozen import run_frozen
from headstart.workflows.recipes.options import Outcome, RecipeOptions
from headstart.workflows.recipes.recipe import FrozenRecipe, Published, read_recipe, recipe_names, recipe_text
from headstart.workflows.recipes.run import run_recipe
from headstart.workflows.recipes.split import with_test_split
from headstart.workflows.study import contestants
from headstart.workflows.study.request import StudyRequest
from headstart.workflows.study.run import run_study

DIGITS = load("digits:0-1").subset(np.arange(40))
FROZEN = ("pretrained-digits", "vgg16-mnist")
TINY = "random:timm:test_resnet"
SMALL = ((r"^draws = .*", "draws = 2"), (r"^labels_per_class = .*", "labels_per_class = 20"))


def changed(home: Path, name: str, *changes: tuple[str, str]) -> str:
    """A copy of a bundled recipe with lines replaced; its path."""
    text = recipe_text(name)
    for pattern, new in changes:
        text, number = re.subn(pattern, new, text, count=1, flags=re.MULTILINE)
        assert number, pattern
    path = home / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def frozen(name: str) -> FrozenRecipe:
    recipe = read_recipe(name)
    assert isinstance(recipe, FrozenRecipe)
    return recipe


# --- reading


@pytest.mark.parametrize("name", FROZEN)
def test_a_bundled_frozen_recipe_reads_and_names_what_there_is(name: str) -> None:
    recipe = frozen(name)
    assert name in recipe_names() and recipe.name == name and recipe.title and recipe.summary
    assert recipe.source.startswith("timm:") and len(load(recipe.data).classes) == 10
    assert recipe.head in (None, *HEADS) and recipe.published
    for augment in filter(None, (recipe.augment, recipe.textbook and recipe.textbook.augment)):
        assert parse_augmentation(augment).operations
    assert all(0 < one.accuracy < 1 and one.n_test > 0 and one.source for one in recipe.published)


def test_the_textbook_flips_and_the_probe_does_not() -> None:
    recipe = frozen("vgg16-mnist")
    assert recipe.textbook is not None and parse_augmentation(recipe.textbook.augment).flips
    assert recipe.augment is not None and not parse_augmentation(recipe.augment).flips
    assert (recipe.labels_per_class, recipe.draws, recipe.first_test_images) == (100, 5, 200)
    assert recipe.published[0] == Published(
        "VGG16, frozen, dense top, 1,000 training images", 0.9195, 200, "the textbook experiment itself"
    )


def test_what_is_left_out_is_chosen_or_left_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "t"\nsummary = "s"\n[data]\ndefault = "digits"\n[source]\nname = "pixels"\n')
    assert read_recipe(str(path)) == FrozenRecipe(
        *("mine", "t", "s", "digits", "pixels"), None, None, None, 3, None, None, 1, None, ()
    )


@pytest.mark.parametrize(
    ("pattern", "new", "sentence"),
    [
        (r"^copies = 3", "copeis = 3", r"key 'copeis' in \[probe\] is unknown, nearest are copies"),
        (r"^\[textbook\]", "[textbok]", r"'textbok' is unknown, nearest are textbook"),
        (r"^\[\[published\]\]", "[[publishd]]", r"'publishd' is unknown, nearest are published"),
        (r"^\[data\]\ndefault = .*", "", r"table \[data\] is missing"),
        (r'^name = "timm:vgg16"', "", r"'name' in \[source\] is missing"),
        (r'^name = "timm:vgg16"', "name = 16", r"'name' in \[source\] is 16, expected text"),
        (r"^title = .*", "", r"'title' is missing"),
        (r'^augment = "handwriting"', "augment = 1", r"'augment' in \[probe\] is 1, expected text"),
        (r"^copies = 3", "copies = 0", r"'copies' in \[probe\] is 0, expected at least 1"),
        (r"^copies = 3", "copies = 1.5", r"'copies' in \[probe\] is 1.5, expected a whole number"),
        (r"^draws = 5", "draws = true", r"'draws' in \[study\] is True, expected a whole number"),
        (r"^labels_per_class = 100", "labels_per_class = [100]", r"is \[100\], expected a whole number"),
        (r"^first_test_images = 200", "first_test_images = 0", r"is 0, expected at least 1"),
        (
            r"^accuracy = 0.9195",
            'accuracy = "91 %"',
            r"'accuracy' in \[\[published\]\] is '91 %', expected a num",
        ),
        (r"^n_test = 200", "", r"'n_test' in \[\[published\]\] is missing"),
        (
            r"^n_test = 200",
            "n_test = 200.0",
            r"'n_test' in \[\[published\]\] is 200.0, expected a whole number",
        ),
        (r"^\[probe\]", "[network]", r"'network' is unknown"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, pattern: str, new: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence) as found:
        read_recipe(changed(tmp_path, "vgg16-mnist", (pattern, new)))
    assert "\n" not in str(found.value) and "headstart recipes show" in str(found.value)


@pytest.mark.parametrize("value", ["1", '["a"]', "{ what = 'x' }"])
def test_published_must_be_tables(tmp_path: Path, value: str) -> None:
    text = recipe_text("vgg16-mnist").partition("[[published]]")[0]
    (tmp_path / "mine.toml").write_text(f"published = {value}\n{text}")
    with pytest.raises(RecipeError, match=r"'published' is .*, expected tables \[\[published\]\]"):
        read_recipe(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize("value", ["labels_per_class = 0", "labels_per_class = -5"])
def test_no_labels_are_not_enough(tmp_path: Path, value: str) -> None:
    with pytest.raises(RecipeError, match="expected at least 1"):
        read_recipe(changed(tmp_path, "vgg16-mnist", (r"^labels_per_class = .*", value)))


def test_an_unknown_key_of_a_published_figure_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'sauce' in \[\[published\]\] is unknown, nearest are source"):
        read_recipe(changed(tmp_path, "vgg16-mnist", (r"^n_test = 200", 'n_test = 200\nsauce = "x"')))


@pytest.mark.parametrize("figure", ["accuracy = 91.95", "n_test = 0", "accuracy = -0.1"])
def test_a_published_figure_is_a_share_of_some_images(tmp_path: Path, figure: str) -> None:
    with pytest.raises(RecipeError):
        read_recipe(changed(tmp_path, "vgg16-mnist", (rf"^{figure.split(maxsplit=1)[0]} = .*", figure)))


# --- what is refused before anything is computed


def ask(name: str, home: Path, recipe: FrozenRecipe | None = None, **changes: Any) -> Outcome:
    return run_recipe(
        recipe or frozen(name), home / "out", replace(RecipeOptions(source="pixels"), **changes)
    )


@pytest.mark.parametrize("name", FROZEN)
def test_an_engine_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=f"recipe '{name}' trains no network, expected no engine"):
        ask(name, tmp_path, engine="scratch")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [{"source": "pixels"}, {"size_px": 64}, {"precision": "int8"}])
def test_a_recipe_that_trains_takes_no_source(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="recipe 'parity' trains its own source, expected neither"):
        run_recipe(read_recipe("parity"), tmp_path / "out", RecipeOptions(**given))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["bf16", "int4"])
def test_a_precision_in_which_no_model_is_saved_is_refused(precision: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=f"precision is '{precision}', expected one of fp32, int8"):
        ask("vgg16-mnist", tmp_path, precision=precision)
    assert not list(tmp_path.iterdir())


def test_a_source_without_a_network_has_no_int8(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="source 'pixels' has no network, expected a network of conv"):
        ask("vgg16-mnist", tmp_path, precision="int8")
    assert not list(tmp_path.iterdir())


def test_more_labels_than_there_are_is_an_error(tmp_path: Path) -> None:
    recipe = replace(frozen("vgg16-mnist"), labels_per_class=1_000)
    with pytest.raises(RecipeError, match=r"uses 1000 labels per class, expected fewer than the 1\d\d"):
        ask("vgg16-mnist", tmp_path, recipe)
    assert not list(tmp_path.iterdir())


def test_a_leak_between_train_and_test_is_an_error(digits: Dataset, tmp_path: Path) -> None:
    assert isinstance(digits.images, ArrayImages)
    pixels = digits.images.pixels.copy()
    whole = with_test_split(replace(digits, images=ArrayImages(pixels)), 0)
    assert whole.splits is not None
    pixels[np.flatnonzero(whole.splits == "test")[0]] = pixels[np.flatnonzero(whole.splits == "train")[0]]
    with pytest.raises(DataError, match="in two splits"):
        run_frozen(
            frozen("vgg16-mnist"), whole, source_name="pixels", seed=0, controls=True,
            options=RecipeOptions().extraction, command="",
        )  # fmt: skip


# --- carrying out


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that keeps the tiny network's graph for this file."""
    pytest.importorskip("timm", reason="needs timm to make the tiny network")
    return tmp_path_factory.mktemp("warm")


@pytest.fixture(scope="module")
def kept(warm: Path) -> Iterator[FolderCache]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(warm))
        yield FolderCache(warm / "features")


@pytest.fixture(scope="module")
def vgg(kept: FolderCache, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    home = tmp_path_factory.mktemp("vgg")
    recipe = read_recipe(changed(home, "vgg16-mnist", *SMALL))
    return run_recipe(
        recipe, home / "out", RecipeOptions(source=TINY, cache=kept, command="headstart run typed")
    )


@pytest.fixture(scope="module")
def dense(kept: FolderCache, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    home = tmp_path_factory.mktemp("dense")
    options = RecipeOptions(source=TINY, cache=kept, data="digits:0-4", size_px=48)
    return run_recipe(read_recipe("pretrained-digits"), home / "out", options)


@pytest.mark.slow
def test_probe_textbook_and_controls_stand_in_one_table(vgg: Outcome) -> None:
    rows = {row.strategy: row for row in vgg.result.rows}
    assert [name for name in rows if name != "probe, no augmentation"] == [
        *(
            "probe",
            "textbook",
            "textbook, no flip",
            "textbook, no augmentation",
            "HOG",
            "raw pixels",
            "majority",
        )
    ]
    n_test = vgg.result.sizes["test"]
    assert {row.accuracy.n for row in rows.values()} == {n_test} and n_test > 500
    assert {(row.labels_per_class, row.draws) for row in rows.values()} == {(20, 2)}
    assert rows["majority"].accuracy.value < 0.2 and rows["probe"].accuracy.value > 0.8
    # the probe is tested against controls alone; the textbook's rows are shown
    assert {one.control for one in vgg.result.comparisons} == {"HOG", "raw pixels", "majority"}


@pytest.mark.slow
@pytest.mark.parametrize("controls", [True, False])
def test_in_int8_the_table_has_the_probe_in_fp32_which_is_no_control(
    controls: bool, kept: FolderCache, tmp_path: Path
) -> None:
    options = RecipeOptions(source=TINY, cache=kept, precision="int8", data="digits:0-4", controls=controls)
    found = run_recipe(read_recipe(changed(tmp_path, "vgg16-mnist", *SMALL)), tmp_path / "out", options)
    model, rows = open_model(tmp_path / "out" / "model"), {row.strategy for row in found.result.rows}
    assert model.precision == "int8" and ("probe, fp32" in rows) is controls
    pairs = {(one.strategy, one.control) for one in found.result.comparisons}
    assert (("probe, fp32", "probe") in pairs) is controls
    # a sentence of its own, not one of the controls that the probe is tested against
    assert ("fp32 instead of int8:" in found.result.verdict) is controls
    assert ("probe", "probe, fp32") not in pairs
    (saved,) = found.result.evaluations
    test = with_test_split(load("digits:0-4"), 0).split("test")
    right = model.probabilities(test).argmax(axis=1) == test.codes(model.classes)
    assert saved.accuracy.value == pytest.approx(right.mean(), abs=1.5 / len(test))


@pytest.mark.slow
def test_the_cost_of_the_flip_is_said_in_figures(vgg: Outcome) -> None:
    rows = {row.strategy: row.accuracy.value for row in vgg.result.rows}
    (cost,) = (text for text in vgg.result.remarks if text.startswith("Leaving the flip out"))
    said = re.search(r"accuracy by ([+-]\d+\.\d\d) points here \[", cost)
    assert said and float(said[1]) == pytest.approx(
        100 * (rows["textbook, no flip"] - rows["textbook"]), abs=0.006
    )
    assert any("a flip changes what digits and letters mean" in text for text in vgg.result.remarks)


@pytest.mark.slow
def test_views_are_taken_only_where_they_win(vgg: Outcome) -> None:
    (said,) = (text for text in vgg.result.remarks if text.startswith("Augmented copies were used"))
    taken = re.match(r"Augmented copies were used in (\d) of 2 draws, selected by cross-validation", said)
    names = {row.strategy for row in vgg.result.rows}
    assert taken and (int(taken[1]) > 0) == ("probe, no augmentation" in names)
    settings = open_model(vgg.folder / "model").manifest.settings
    assert "augmentation" not in settings or int(taken[1]) > 0


@pytest.mark.slow
def test_figures_of_others_stand_beside_with_their_intervals(vgg: Outcome) -> None:
    (table,) = (one for one in vgg.result.tables if one.title == "Comparison with published figures")
    lines = table.lines
    probe = vgg.result.rows[0].accuracy
    assert lines[0][:2] == ("this run, probe", f"{100 * probe.value:.2f}") and len(lines) == 3
    assert lines[1][1:4] == ("91.95", "87.3 to 95.0", "200")
    page = vgg.report.read_text()
    assert "Comparison with published figures" in page and "LeNet-5" in page and "headstart run typed" in page


@pytest.mark.slow
def test_the_first_test_images_are_judged_alone(vgg: Outcome) -> None:
    (said,) = (text for text in vgg.result.remarks if text.startswith("On the first 200 test images"))
    assert re.search(r"the probe gets \d\d\.\d\d% \[\d\d\.\d\d%, \d\d\.\d\d%\]", said)


@pytest.mark.slow
def test_the_saved_model_opens_and_has_the_first_draw_s_figure(vgg: Outcome, digits: Dataset) -> None:
    names = ["card.md", "model", "report.html", "result.json"]
    assert sorted(path.name for path in vgg.folder.iterdir()) == names
    model, test = open_model(vgg.folder / "model"), with_test_split(digits, 0).split("test")
    share = float((model.predict(test, refuse=False) == test.labels).mean())
    (evaluation,) = vgg.result.evaluations
    assert evaluation.accuracy.value == pytest.approx(share, abs=0.01) and share > 0.8
    assert model.manifest.data["n_images"] == 200 and model.manifest.source["name"] == TINY


@pytest.mark.slow
def test_the_result_on_disk_is_the_result(vgg: Outcome) -> None:
    document = json.loads((vgg.folder / "result.json").read_text())
    assert document["verdict"] == vgg.result.verdict and len(document["rows"]) == len(vgg.result.rows)
    assert document["facts"]["source"].startswith(TINY)


@pytest.mark.slow
def test_the_curves_are_the_textbook_s(vgg: Outcome) -> None:
    titles = [curve.title for curve in vgg.result.curves]
    assert titles[-3:] == [
        f"{name}: mlp head" for name in ("textbook", "textbook, no flip", "textbook, no augmentation")
    ]


@pytest.mark.slow
def test_all_labels_are_one_draw_of_the_saved_model(dense: Outcome) -> None:
    rows = {row.strategy: row for row in dense.result.rows}
    assert list(rows) == ["probe", "HOG", "raw pixels", "majority"]
    assert {row.labels_per_class for row in rows.values()} == {None} and rows["probe"].draws == 1
    model = open_model(dense.folder / "model")
    assert model.manifest.head["name"] == "mlp" and model.classes == tuple("01234")
    test = with_test_split(load("digits:0-4"), 0).split("test")
    share = float((model.predict(test, refuse=False) == test.labels).mean())
    assert rows["probe"].accuracy.value == pytest.approx(share, abs=0.01)
    assert rows["probe"].accuracy == dense.result.evaluations[0].accuracy
    assert {len(one.lines) for one in dense.result.tables if "published" in one.title} == {4}


def test_an_early_stop_is_watched_on_training_images(dense: Outcome) -> None:
    assert dense.result.curves[0].title == "mlp head on digits:0-4"
    held = open_model(dense.folder / "model").manifest.data["n_held"]
    assert held + dense.result.sizes["train"] + dense.result.sizes["test"] == len(load("digits:0-4"))


@pytest.mark.parametrize("name", ["pixels", "hog", "random:mlp"])
def test_a_textbook_is_for_networks_for_photos(kept: FolderCache, name: str) -> None:
    """The average of pixels or of histograms is no textbook's method."""
    recipe = replace(frozen("vgg16-mnist"), labels_per_class=5, draws=1, first_test_images=None)
    found = run_frozen(
        recipe, load("digits:3,8"), source_name=name, seed=0, controls=False,
        options=RecipeOptions(cache=kept).extraction, command="",
    )  # fmt: skip
    assert not [row.strategy for row in found.result.rows if row.strategy.startswith("textbook")]


@pytest.mark.slow
def test_no_test_image_has_a_say(kept: FolderCache, tmp_path: Path) -> None:
    """Test labels in another order: figures change, the model does not."""
    recipe = replace(
        frozen("vgg16-mnist"), labels_per_class=10, draws=1, textbook=None, size_px=48, first_test_images=None
    )
    whole = with_test_split(load("digits:3,8"), 0)
    assert whole.splits is not None
    labels = whole.labels.copy()
    test = whole.splits == "test"
    labels[test] = np.where(labels[test] == "3", "8", "3")
    one, two = (
        run_frozen(
            recipe, data, source_name=TINY, seed=0, controls=False,
            options=RecipeOptions(cache=kept).extraction, command="",
        )
        for data in (whole, replace(whole, labels=labels))
    )  # fmt: skip
    assert one.learned.model.graph == two.learned.model.graph
    values = [found.result.rows[0].accuracy.value for found in (one, two)]
    assert values[0] > 0.5 and sum(values) == pytest.approx(1)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model_and_rows(kept: FolderCache) -> None:
    recipe = replace(frozen("vgg16-mnist"), labels_per_class=5, draws=2, textbook=None, size_px=48)
    whole = with_test_split(load("digits:3,8"), 0)

    def found(seed: int) -> Any:
        return run_frozen(
            recipe, whole, source_name=TINY, seed=seed, controls=True,
            options=RecipeOptions(cache=kept).extraction, command="",
        )  # fmt: skip

    one, two = found(0), found(0)
    assert one.learned.model.graph == two.learned.model.graph
    assert [replace(row, seconds=0.0) for row in one.result.rows] == [
        replace(row, seconds=0.0) for row in two.result.rows
    ]


def test_without_controls_no_verdict_is_given(kept: FolderCache) -> None:
    recipe = replace(frozen("pretrained-digits"), head="ridge")
    found = run_frozen(
        recipe, with_test_split(load("digits:0-1"), 0), source_name="pixels", seed=0, controls=False,
        options=RecipeOptions(cache=kept).extraction, command="",
    )  # fmt: skip
    assert [row.strategy for row in found.result.rows] == ["probe"]
    assert "no control was run, so the benefit of transfer is unknown" in found.result.verdict


@pytest.mark.slow
def test_only_a_trained_network_is_compared_with_a_random_one(kept: FolderCache, tmp_path: Path) -> None:
    recipe = replace(
        frozen("vgg16-mnist"), labels_per_class=5, draws=1, textbook=None, size_px=48, augment=None
    )
    found = run_frozen(
        recipe, with_test_split(load("digits:0-1"), 0), source_name=local_network(tmp_path / "network"),
        seed=0, controls=True, options=RecipeOptions(cache=kept).extraction, command="",
    )  # fmt: skip
    assert [row.strategy for row in found.result.rows] == [
        "probe",
        "HOG",
        "raw pixels",
        "majority",
        "random frozen",
    ]
    assert "random frozen" in {one.control for one in found.result.comparisons}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["recipe", "study"])
def test_the_random_network_is_in_int8_where_the_probe_is(
    kind: str, kept: FolderCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It differs from the probe by its weights alone."""
    read: dict[str, str] = {}

    def watched(images: Dataset, source: Source, *rest: Any, **more: Any) -> Any:
        read[source.name] = source.precision
        return extract_all(images, source, *rest, **more)

    for module in (bench, fits):
        monkeypatch.setattr(module, "extract_all", watched)
    name, digits = local_network(tmp_path / "network"), load("digits:0-1")
    options = RecipeOptions(cache=kept, precision="int8").extraction
    if kind == "study":
        request = StudyRequest(controls=("random frozen",), labels_per_class=(5,), draws=1)
        run_study(open_source(name, digits, 0, 48), digits, request, options=options)
    else:
        recipe = replace(
            frozen("vgg16-mnist"), labels_per_class=5, draws=1, textbook=None, size_px=48, augment=None
        )
        run_frozen(
            recipe, with_test_split(digits, 0), source_name=name, seed=0, controls=True,
            options=options, command="",
        )  # fmt: skip
    assert read[f"random:{name}"] == "int8"


@pytest.mark.slow
def test_the_random_network_is_calibrated_on_images_as_it_reads_them(
    kept: FolderCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Image files are prepared once for a source of small images: squished again, they would be other images."""
    for number, (pixels, label) in enumerate(zip(DIGITS.images.pixels, DIGITS.labels, strict=True)):
        path = tmp_path / "pictures" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.pad(255 - 15 * pixels[..., 0], ((2, 9), (1, 20)), constant_values=255)).save(path)
    seen: list[tuple[InputSpec, Dataset]] = []

    def watched(
        source: Source, network: Source, calibration: Callable[[], Dataset], options: Extraction
    ) -> Source:
        seen.append((network.input, calibration()))
        return in_precision_of(source, network, calibration, options)

    monkeypatch.setattr(contestants, "in_precision_of", watched)
    data = load(str(tmp_path / "pictures"))
    source = open_source("drawings", data)
    request = StudyRequest(controls=("random frozen",), labels_per_class=(2,), with_all=False, draws=1)
    run_study(source, data, request, options=Extraction(kept, precision="int8"))
    spec, calibration = seen[0]
    assert np.array_equal(prepare(calibration, spec), prepare(data, source.input))


def local_network(home: Path) -> str:
    """timm's tiny network in a folder, as timm saves one."""
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    home.mkdir()
    network = timm.create_model("test_resnet")
    save_file(
        {name: one.contiguous() for name, one in network.state_dict().items()}, home / "model.safetensors"
    )
    config = {
        "architecture": "test_resnet",
        "num_classes": 1000,
        "pretrained_cfg": {"input_size": [3, 160, 160]},
    }
    (home / "config.json").write_text(json.dumps(config))
    return f"timm:local-dir:{home}"


def test_the_textbook_learns_from_all_labels_of_its_draw(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, digits: Dataset
) -> None:
    """Watching a curve spares a tenth; the answers must come from a fit that was spared none."""
    fits: list[tuple[int, bool]] = []
    real = runner.make_head

    def spying(name: str) -> Any:
        head = real(name)
        fit = head.fit

        def seen(rows: Any, *args: Any, **rest: Any) -> Any:
            fits.append((len(rows), rest.get("watch") is not None))
            return fit(rows, *args, **rest)

        head.fit = seen  # type: ignore[method-assign]
        return head

    monkeypatch.setattr(runner, "make_head", spying)
    some = np.arange(100)
    bench = runner.Bench(
        read_recipe("vgg16-mnist"),  # type: ignore[arg-type]
        open_source("pixels", digits),
        digits,
        digits.subset(np.arange(50)),
        Extraction(),
        0,
    )
    plan = runner.DrawPlan((Reading(("values", "flat"), "mlp"),), None, None)
    runner._fitted(bench, some, plan, 0, "a curve")
    assert fits == [(90, True), (100, False)] and [one.title for one in bench.curves] == ["a curve"]
