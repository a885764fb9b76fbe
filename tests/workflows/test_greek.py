"""The recipe of the Greek letters: its parts on small data, the whole on the real letters."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.data.readers.catalog import KNOWN
from headstart.data.readers.load import load
from headstart.errors import MissingDataError, RecipeError
from headstart.models.model import open_model
from headstart.records import TrainSettings
from headstart.strategies.result import LearnedModel
from headstart.system.cache import FolderCache
from headstart.system.drafts import CacheWarning
from headstart.workflows.recipes import letters
from headstart.workflows.recipes.options import Outcome, RecipeOptions
from headstart.workflows.recipes.recipe import LettersRecipe, read_recipe, recipe_text
from headstart.workflows.recipes.run import run_recipe
from headstart.workflows.train.store import trained_network

QUICK = TrainSettings(epochs=1, batch_size=64)
HERE = Path(os.environ.get("HEADSTART_DATA", "/nowhere")) / "greek" / "train"
needs_letters = pytest.mark.skipif(not HERE.is_dir(), reason="the letters of the course are not here")


def quick() -> LettersRecipe:
    """The recipe on bundled digits, a network that NumPy trains in a second, few copies."""
    whole = read_recipe("greek")
    assert isinstance(whole, LettersRecipe)
    return replace(
        whole,
        source_data="digits",
        network="mlp",
        engine="scratch",
        layer="hidden1",
        textbook_layer="hidden2",
        policy="squish",
        copies=2,
        training=QUICK,
        textbook_training=QUICK,
        scratch=QUICK,
    )


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return ran(tmp_path_factory.mktemp("greek"))


def ran(home: Path, *, controls: bool = True) -> Outcome:
    """Three digits stand in for the letters, other images of them for the strangers'."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(home / "cache"))
        few, others = load("digits:0-2").subset(np.arange(27)), load("digits:0-2").subset(np.arange(40, 100))
        others = replace(others, groups=(np.arange(60) // 10).astype(str))
        parts = {"digits": load("digits"), "few": few, "others": others}
        patch.setattr(letters, "load", lambda name: parts[name])
        cache = FolderCache(home / "features", 2**30)
        options = RecipeOptions(
            data="few", test="others", cache=cache, command="headstart run greek", controls=controls
        )
        return run_recipe(quick(), home / "out", options)


def test_the_table_has_the_textbook_and_every_control(outcome: Outcome) -> None:
    names = {row.strategy for row in outcome.result.rows}
    assert names == {"probe", "textbook", "HOG", "raw pixels", "random frozen", "scratch", "majority"}
    assert {row.accuracy.n for row in outcome.result.rows} == {60}
    assert "6 groups" in outcome.result.protocol and "used once" in outcome.result.protocol


def test_without_controls_there_is_no_verdict(tmp_path: Path) -> None:
    """The textbook's way is no control: that the probe beats it does not say that transfer helps."""
    found = ran(tmp_path, controls=False).result
    assert [row.strategy for row in found.rows] == ["probe", "textbook"] and not found.comparisons
    assert "no control was run, so the benefit of transfer is unknown" in found.verdict
    assert [line[0] for line in found.tables[0].lines] == ["probe", "textbook"]
    assert "helps" not in found.verdict and "hurts" not in found.verdict


def test_the_letters_themselves_are_left_out_one_at_a_time(outcome: Outcome) -> None:
    table = outcome.result.tables[0]
    assert [line[0] for line in table.lines] == ["probe", "textbook", "HOG", "raw pixels"]
    assert all(line[1].endswith("of 27") for line in table.lines)
    assert [one.accuracy.n for one in outcome.result.evaluations] == [60, 27]


def test_source_and_model_are_saved_and_open(outcome: Outcome) -> None:
    source, model = (open_model(outcome.folder / name) for name in ("source", "model"))
    assert len(source.classes) == 10 and model.classes == ("0", "1", "2")
    assert model.manifest.settings["augmentation"]["n_copies"] == 2
    assert source.manifest.settings["augmentation"]["operations"]
    assert outcome.result.curves[0].title == "mlp on digits"


def test_the_network_is_trained_once(outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.workflows.train import store as trained

    monkeypatch.setenv("HEADSTART_CACHE", str(outcome.folder.parent / "cache"))
    monkeypatch.setattr(trained, "learn_network", lambda *_, **__: pytest.fail("it trained again"))
    recipe = quick()
    again = trained.trained_network(
        load("digits"),
        network="mlp",
        engine="scratch",
        settings=recipe.training,
        augmentation=letters.parse_augmentation(recipe.augment, 1),
    )
    assert again.model.graph == open_model(outcome.folder / "source").graph
    assert again.curve is not None and len(again.curve.steps) == 1


def trained() -> LearnedModel:
    return trained_network(load("digits:0-1"), network="mlp", engine="scratch", settings=QUICK)


@pytest.mark.parametrize("file", ["model/model.onnx", "model/manifest.json", "model/card.md", "curve.json"])
def test_a_kept_network_that_is_damaged_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    first = trained()
    (kept,) = (tmp_path / "networks").iterdir()
    whole = (kept / file).read_bytes()
    middle = len(whole) // 2
    (kept / file).write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.warns(CacheWarning, match=rf"^network in '{kept}' is damaged \(.+\): it is trained again$"):
        again = trained()
    assert again.model.graph == first.model.graph
    third = trained()
    assert third.model.graph == first.model.graph and third.parts is None, "it is read"


def test_without_a_cache_that_can_be_written_a_network_is_trained_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    (tmp_path / "networks").write_text("a file")
    with pytest.warns(
        CacheWarning, match=r"^cache '.*' cannot be written \(.+\): trained networks are not kept"
    ):
        assert trained().model.classes == ("0", "1")


def test_a_network_kept_by_an_older_version_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    first = trained()
    (kept,) = (tmp_path / "networks").iterdir()
    (kept / "curve.json").write_text("null")
    (kept / ".model.0.part").mkdir()
    assert trained().model.graph == first.model.graph
    assert sorted(path.name for path in kept.iterdir()) == ["curve.json", "model"]


def test_letters_that_are_not_here_are_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_DATA", str(tmp_path))
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    with pytest.raises(MissingDataError, match=r"'greek' is not on this machine.*--data.*--test"):
        KNOWN["greek"].read("greek", ("train",), False)


def test_a_recipe_with_a_test_set_of_its_own_is_checked_whole(tmp_path: Path) -> None:
    broken = recipe_text("greek").replace('policy = "ink"\n', "").replace("copies = 20", 'copies = "many"')
    (tmp_path / "mine.toml").write_text(broken, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"'policy' in \[probe\] is missing.*'copies'.*expected a whole"):
        read_recipe(str(tmp_path / "mine.toml"))


@needs_letters
def test_the_real_letters_read_as_three_classes_of_nine() -> None:
    assert load("greek").counts() == {"alpha": 9, "beta": 9, "gamma": 9}
    strangers = load("greek-photos")
    assert len(strangers) == 91 and strangers.groups is not None and len(set(strangers.groups)) == 10
