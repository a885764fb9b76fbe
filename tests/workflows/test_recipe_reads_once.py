"""A recipe on a pretrained network reads what several strategies use once, and what no strategy uses never."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_frozen_recipes import local_network

from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.errors import DataError
from headstart.heads.registry import make_head
from headstart.records import Source
from headstart.sources import features
from headstart.sources.features import AugmentedCopy, Extraction, extract
from headstart.sources.registry import open_source
from headstart.strategies.probe import learn_head
from headstart.system.cache import FolderCache, NullCache
from headstart.workflows.recipes import frozen as runner
from headstart.workflows.recipes.ahead import ReadAhead
from headstart.workflows.recipes.bench import Bench, cached
from headstart.workflows.recipes.frozen import Frozen, run_frozen
from headstart.workflows.recipes.recipe import FrozenRecipe, read_recipe
from headstart.workflows.recipes.split import with_test_split


def vgg() -> FrozenRecipe:
    recipe = read_recipe("vgg16-mnist")
    assert isinstance(recipe, FrozenRecipe)
    return recipe


def watch(patch: pytest.MonkeyPatch) -> list[tuple[str, str, int, str]]:
    """Every pass over images: the source, the fingerprint and number of the images, and the copy."""
    passes: list[tuple[str, str, int, str]] = []
    real = features._computed

    def watching(dataset: Dataset, source: Source, *rest: object) -> object:
        copy = rest[-2]
        what = "" if copy is None else str(copy.parts)  # type: ignore[attr-defined]
        passes.append((source.name, dataset.images.fingerprint, len(dataset), what))
        return real(dataset, source, *rest)  # type: ignore[arg-type]

    patch.setattr(features, "_computed", watching)
    return passes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Frozen, list[tuple[str, str, int, str]], Dataset]:
    """The recipe on a tiny pretrained network, its passes over images, and the data."""
    pytest.importorskip("timm", reason="needs timm to make the tiny network")
    home = tmp_path_factory.mktemp("once")
    whole = with_test_split(load("digits:0-2"), 0)
    recipe = replace(vgg(), labels_per_class=25, draws=2, size_px=32, first_test_images=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(home / "cache"))
        passes = watch(patch)
        with cached(Extraction(NullCache())) as options:
            found = run_frozen(
                recipe, whole, source_name=local_network(home / "network"), seed=0, controls=True,
                options=options, command="",
            )  # fmt: skip
    return found, passes, whole


@pytest.mark.slow
def test_no_network_reads_the_same_images_twice(
    run: tuple[Frozen, list[tuple[str, str, int, str]], Dataset],
) -> None:
    found, passes, whole = run
    names = {row.strategy for row in found.result.rows}
    assert {"random frozen", "textbook", "textbook, no flip", "HOG"} <= names
    assert found.learned.choice is not None and len(found.learned.choice.selected) > 1  # several places
    # HOG and raw pixels read under several preparations, which are sources of one name
    twice = [one for one, n in Counter(passes).items() if n > 1 and ":" in one[0]]
    assert not twice
    test = whole.split("test").images.fingerprint
    assert sum(one[1] == test and one[0].startswith("random:") for one in passes) == 1


@pytest.mark.slow
def test_controls_read_the_images_that_were_drawn_and_no_others(
    run: tuple[Frozen, list[tuple[str, str, int, str]], Dataset],
) -> None:
    found, passes, _ = run
    sizes = {one[2] for one in passes if one[0].startswith(("hog", "pixels"))}
    assert found.result.sizes["test"] in sizes and max(sizes) < found.result.sizes["train"]
    assert max(sizes - {found.result.sizes["test"]}) <= 2 * 3 * 25


@pytest.mark.slow
def test_the_figure_of_the_saved_model_is_that_of_its_graph(
    run: tuple[Frozen, list[tuple[str, str, int, str]], Dataset],
) -> None:
    found, _, whole = run
    test = whole.split("test")
    probs = found.learned.model.probabilities(test)
    right = float((probs.argmax(axis=1) == test.codes(found.learned.model.classes)).mean())
    assert found.result.evaluations[0].accuracy.value == pytest.approx(right, abs=1.5 / len(test))


def test_the_heads_of_a_model_predict_what_its_graph_predicts(tmp_path: Path) -> None:
    digits = load("digits")
    train, test = digits.subset(np.arange(0, 900, 3)), digits.subset(np.arange(1000, 1200))
    source, options = open_source("hog", digits), Extraction(FolderCache(tmp_path))
    learned = learn_head(source, train, options=options)
    bench = Bench(vgg(), source, train, test, options, 0)
    assert learned.heads is not None and all(not len(one.rows) for one in learned.heads.heads)
    np.testing.assert_allclose(
        bench.model_probabilities(learned), learned.model.probabilities(test), rtol=0, atol=1e-4
    )


def test_test_features_are_read_once_for_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load("digits").subset(np.arange(60))
    sources = [open_source(name, digits) for name in ("pixels", "hog")]
    passes = watch(monkeypatch)
    bench = Bench(vgg(), sources[0], digits, digits, Extraction(), 0)  # without a cache
    other = replace(bench, source=sources[1])
    for _ in range(2):
        assert bench.test_rows(("values", "flat")).shape == (60, 64)
        assert len(other.test_rows((sources[1].default_layer, "flat"))) == 60
    assert len(passes) == 2


def test_a_run_without_a_cache_keeps_features_until_its_end() -> None:
    digits = load("digits").subset(np.arange(40))
    source = open_source("pixels", digits)
    with cached(Extraction(NullCache())) as options:
        assert isinstance(options.cache, FolderCache)
        folder = options.cache.root
        rows = extract(digits, source, options=options)
        assert list(folder.glob("*.npy"))
    assert not folder.exists() and rows.shape == (40, 64) and np.isfinite(rows).all()
    kept = Extraction(FolderCache(folder))
    with cached(kept) as options:
        assert options is kept


# --- reading ahead


def test_work_ahead_is_done_in_order_and_its_error_comes_where_it_is_waited_for(tmp_path: Path) -> None:
    done: list[int] = []

    def fail() -> None:
        raise DataError("the third is broken")

    with ReadAhead(Extraction(FolderCache(tmp_path))) as ahead:
        for number in (1, 2):
            ahead.start(number, lambda number=number: done.append(number))  # type: ignore[misc]
        ahead.start(3, fail)
        ahead.wait(2)
        assert done == [1, 2]
        ahead.wait("never started")
        with pytest.raises(DataError, match="third"):
            ahead.wait(3)


def test_without_a_cache_nothing_is_read_ahead() -> None:
    done: list[int] = []
    for cache in (None, NullCache()):
        with ReadAhead(Extraction(cache)) as ahead:
            ahead.start(1, lambda: done.append(1))
            ahead.wait(1)
    assert not done


def test_leaving_the_block_stops_what_is_read_between_two_batches(tmp_path: Path) -> None:
    """An error elsewhere, or an interruption, must not wait for thousands of images."""
    digits, going, ended = load("digits"), threading.Event(), threading.Event()
    source, later = open_source("pixels", digits), []

    def read(ahead: ReadAhead) -> None:
        try:
            for number in range(10_000):
                copy = AugmentedCopy(runner.parse_augmentation("zoom=0.2"), number, 0)
                extract(digits, source, copy=copy, options=ahead.options)
                going.set()
        except CancelledError:
            ended.set()
            raise

    with pytest.raises(KeyError), ReadAhead(Extraction(FolderCache(tmp_path))) as ahead:
        ahead.start(1, lambda: read(ahead))
        ahead.start(2, lambda: later.append(2))
        assert going.wait(60)
        raise KeyError
    assert ended.is_set() and not later


# --- whether augmented copies help


@pytest.mark.parametrize("head", ["ridge", "kernel", "prototypes"])
def test_the_trial_of_copies_is_that_of_fits_without_each_image(head: str) -> None:
    """The copies of a held-out image are held out, too, and only the images themselves count."""
    digits = load("digits:0-3").subset(np.arange(0, 300, 5))
    rng = np.random.default_rng(0)
    pixels = digits.images.pixels
    assert pixels is not None
    plain = pixels.reshape(len(digits), -1).astype(np.float32)
    rows = np.concatenate([plain, plain + rng.normal(0, 2, plain.shape).astype(np.float32)])
    images = np.tile(np.arange(len(digits)), 2)
    found = runner._cross_validated(head, rows, digits, images, 0)
    right = []
    for place in range(len(digits)):
        known = images != place
        fitted = make_head(head).fit(rows[known], digits.labels[images[known]], images=images[known])
        right.append(fitted.predict(plain[[place]])[0] == digits.labels[place])
    assert found == pytest.approx(np.mean(right), abs=2.5 / len(digits)) and found > 0.85


@pytest.mark.parametrize("head", ["ridge", "prototypes"])
def test_copies_of_noise_do_not_help_by_knowing_the_image(head: str) -> None:
    """An image whose own copies stayed among the training images would be recognised by them."""
    digits, rng = load("digits:0-3").subset(np.arange(80)), np.random.default_rng(0)
    noise = rng.normal(size=(80, 200)).astype(np.float32)
    images = np.tile(np.arange(80), 3)
    assert runner._cross_validated(head, np.concatenate([noise] * 3), digits, images, 0) < 0.5
