"""Strategies and controls: what each learns from and what each predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.data.clusters import with_clusters
from headstart.data.dataset import Dataset
from headstart.data.readers.load import from_arrays, load
from headstart.errors import UnknownLayerError, UnknownSubsetError
from headstart.networks.specs import architecture
from headstart.records import InputSpec, TrainSettings
from headstart.sources.features import PLAIN
from headstart.sources.registry import open_source
from headstart.strategies.fits import Reader, Strategy, chosen_probe, fitted
from headstart.strategies.places import Probe
from headstart.workflows.comparison import baselines as plain_controls
from headstart.workflows.comparison import controls
from headstart.workflows.comparison.baselines import network_from_scratch, preparations_for, raw_pixels
from headstart.workflows.comparison.controls import collapse

# --- strategies


def test_collapse_sums_the_probabilities_of_merged_classes() -> None:
    probs = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]], np.float32)
    # classes out of order on purpose: 7 and 1 are odd, 2 and 8 even
    strategy = collapse(probs, ["7", "2", "1", "8"], "parity", ("even", "odd"))
    found = strategy(np.array([0]), np.arange(2), 0)
    assert np.allclose(found, [[0.6, 0.4], [0.4, 0.6]])
    assert np.allclose(
        collapse(probs, ["7", "2", "1", "8"], "parity", ("odd", "even"))(np.array([]), np.arange(2), 1),
        1 - found,
    )


def test_collapse_can_differ_from_the_most_probable_class() -> None:
    probs = np.array([[0.4, 0.3, 0.3]], np.float32)  # the likeliest digit is odd, an even one likelier
    found = collapse(probs, ["1", "2", "4"], "parity", ("even", "odd"))(np.array([]), np.arange(1), 0)
    assert found.argmax() == 0


def test_collapse_requires_a_subset_of_the_sources_classes() -> None:
    with pytest.raises(UnknownSubsetError, match="whole numbers"):
        collapse(np.ones((1, 2), np.float32), ["cat", "dog"], "parity", ("even", "odd"))


def test_majority_of_the_whole_pool_ignores_what_is_left_out() -> None:
    pool = from_arrays(np.zeros((5, 8, 8), np.uint8), ["a", "b", "a", "b", "a"])
    rest = np.array([1, 2, 3])  # without two of the commoner class
    assert controls.majority(pool)(rest, np.array([0]), 0).argmax() == 1
    assert controls.majority(pool, whole=True)(rest, np.array([0]), 0).argmax() == 0


def test_leaving_one_out_does_not_make_its_class_less_likely() -> None:
    """Features that say nothing: whoever is left out, the head must not lean to the other class."""
    rng = np.random.default_rng(1)
    pool = from_arrays(rng.integers(0, 256, (30, 8, 8)).astype(np.uint8), ["a", "b"] * 15)
    place, codes = ("values", "flat"), pool.codes()
    reader = Reader(open_source("pixels", pool), pool, pool)
    right = []
    for out in range(30):
        learn = np.setdiff1d(np.arange(30), [out])
        head = fitted(reader, place, "ridge", learn, 0, balance=False)
        right.append(head.probabilities(reader.test_rows(place)[[out]]).argmax() == codes[out])
    assert 0.25 < np.mean(right) < 0.75  # 0 of 30 when the classes are weighed as they are left


def test_leaving_copies_out_does_not_make_their_class_less_likely() -> None:
    """As above with each image twice: a fold of two images of a class is four rows."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (30, 8, 8)).astype(np.uint8)
    twice = from_arrays(np.repeat(pixels, 2, axis=0), np.repeat(["a", "b"] * 15, 2))
    pool = with_clusters(twice, [(2 * one, 2 * one + 1) for one in range(30)])
    place, codes = ("values", "flat"), pool.codes()
    reader = Reader(open_source("pixels", pool), pool, pool)
    right = []
    for first in range(28):  # images first and first + 2 are of one class
        out = np.flatnonzero(np.isin(np.arange(60) // 2, [first, first + 2]))
        head = fitted(reader, place, "ridge", np.setdiff1d(np.arange(60), out), 0, balance=False)
        right += (head.probabilities(reader.test_rows(place)[out]).argmax(axis=1) == codes[out]).tolist()
    assert 0.25 < np.mean(right) < 0.75


def stripes(n_images: int, seed: int) -> Dataset:
    """Across or down, in noise: which line is bright says which."""
    rng = np.random.default_rng(seed)
    labels = np.array(["across", "down"])[rng.integers(0, 2, n_images)]
    pixels = rng.integers(0, 120, (n_images, 8, 8))
    for image, label in zip(pixels, labels, strict=True):
        image[(3, slice(None)) if label == "across" else (slice(None), 4)] += 30
    return from_arrays(pixels.astype(np.uint8), labels)


def test_the_network_from_scratch_has_settings_for_few_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, TrainSettings]] = []
    real: Callable[..., Any] = plain_controls.fit

    def spy(network: Any, images: Any, codes: Any, settings: TrainSettings, **rest: Any) -> Any:
        seen.append((len(images), settings))
        return real(network, images, codes, settings, **rest)

    monkeypatch.setattr(plain_controls, "fit", spy)
    train, test = stripes(60, 0), stripes(20, 1)
    whole, few = TrainSettings(epochs=3, patience=2), TrainSettings(epochs=1, min_steps=4, batch_size=8)
    spec = architecture("mlp", InputSpec(8, 8, 1), 7)
    strategy = network_from_scratch(spec, "scratch", (whole, few), train, test)
    for indices, seed in ((np.arange(10), 5), (np.arange(60), 6)):
        assert strategy(indices, np.arange(20), seed).shape == (
            20,
            2,
        )  # the target's classes, not the source's
    assert seen == [(10, replace(few, seed=5)), (60, replace(whole, seed=6, patience=0))]


def test_the_network_from_scratch_learns_only_the_images_drawn() -> None:
    train, test = stripes(60, 0), stripes(20, 1)
    settings = (TrainSettings(epochs=2), TrainSettings(epochs=2))
    spec = architecture("mlp", InputSpec(8, 8, 1), 2)
    altered = replace(train, labels=np.where(np.arange(60) < 30, train.labels, "down"))
    first, second = (
        network_from_scratch(spec, "scratch", settings, one, test)(np.arange(30), np.arange(20), 0)
        for one in (train, altered)
    )
    assert np.array_equal(first, second)


def test_a_probe_learns_only_the_images_drawn_and_predicts_the_test_images() -> None:
    train, test = stripes(200, 0), stripes(50, 1)
    source = open_source("pixels", train)

    def strategy_of(pool: Dataset) -> Strategy:
        return chosen_probe(Reader(source, pool, test, PLAIN), Probe("values", "flat", "ridge"))

    strategy = strategy_of(train)
    altered = replace(train, labels=np.where(np.arange(200) < 100, train.labels, "down"))
    first = strategy(np.arange(100), np.arange(50), 0)
    assert first.shape == (50, 2) and np.allclose(first.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(first, strategy_of(altered)(np.arange(100), np.arange(50), 0))
    assert (first.argmax(axis=1) == test.codes()).mean() > 0.7


def test_a_probe_at_an_unknown_layer() -> None:
    train = stripes(10, 0)
    with pytest.raises(UnknownLayerError, match=r"'vaules'.*nearest are values"):
        chosen_probe(
            Reader(open_source("pixels", train), train, train, PLAIN), Probe("vaules", "flat", "linear")
        )


def printed(n_images: int, seed: int) -> Dataset:
    """A square at the left or at the right: ink normalisation centres it, and takes the class away."""
    rng = np.random.default_rng(seed)
    labels = np.array(["left", "right"])[rng.integers(0, 2, n_images)]
    pixels = np.zeros((n_images, 28, 28), np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        row, column = rng.integers(2, 16), (3 if label == "left" else 15) + rng.integers(0, 3)
        image[row : row + 8, column : column + 8] = rng.integers(120, 256, (8, 8))
    return from_arrays(pixels, labels)


def test_raw_pixels_choose_their_own_preparation() -> None:
    """A source that normalises ink does not handicap its control."""
    train, test = printed(80, 0), printed(60, 1)
    source = open_source("drawings", train)
    assert source.input.policy == "ink" and preparations_for(train, source.input)[1].policy == "squish"
    reader = Reader(source, train, test)
    everyone, codes = np.arange(60), test.codes()
    chosen = raw_pixels(reader)(np.arange(80), everyone, 0)
    forced = raw_pixels(reader, preparations=(source.input,))(np.arange(80), everyone, 0)
    assert (chosen.argmax(axis=1) == codes).mean() > (forced.argmax(axis=1) == codes).mean() + 0.2


def test_a_preparation_is_kept_without_significant_evidence(real_data: Path) -> None:
    """27 letters by one hand are read as they are, too; the letters of strangers are not."""
    assert (real_data / "greek").is_dir()
    letters, strangers = load("greek"), load("greek-photos")
    reader = Reader(open_source("drawings", letters), letters, strangers)
    answers = raw_pixels(reader)(np.arange(len(letters)), np.arange(len(strangers)), 0)
    assert (answers.argmax(axis=1) == strangers.codes(letters.classes)).mean() > 0.7


def test_the_network_from_scratch_chooses_its_own_preparation() -> None:
    train, test = printed(80, 0), printed(60, 1)
    ink = InputSpec(28, 28, 1, policy="ink")
    spec = architecture("mlp", ink, 2)
    settings = (TrainSettings(epochs=5, min_steps=300, learning_rate=3e-3),) * 2
    preparations = preparations_for(train, ink)
    strategy = network_from_scratch(spec, "scratch", settings, train, test, preparations=preparations)
    found = strategy(np.arange(80), np.arange(60), 0)
    assert (found.argmax(axis=1) == test.codes()).mean() > 0.9


def test_with_one_image_of_a_class_all_preparations_answer() -> None:
    train, test = printed(40, 0), printed(20, 1)
    reader = Reader(open_source("drawings", train), train, test)
    learn = np.array([int(np.flatnonzero(train.labels == name)[0]) for name in train.classes])
    found = raw_pixels(reader)(learn, np.arange(20), 0)
    assert found.shape == (20, 2) and np.allclose(found.sum(axis=1), 1, atol=1e-5)
