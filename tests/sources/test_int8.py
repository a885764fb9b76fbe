"""A source in int8 is a source of its own: calibrated on the given images only, never mixed with fp32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.errors import SettingError
from headstart.records import Source
from headstart.sources.features import Extraction, extract
from headstart.sources.precision import check_saved, in_int8, precise
from headstart.sources.registry import open_source
from headstart.system.cache import FolderCache

PLAIN = Extraction(precision="fp32")


@pytest.fixture
def some(digits: Dataset) -> Dataset:
    return digits.subset(np.arange(120))


@pytest.fixture
def source(some: Dataset) -> Source:
    return open_source("drawings", some)


def test_it_has_its_own_fingerprint_and_nearly_the_same_features(some: Dataset, source: Source) -> None:
    small = in_int8(source, some, PLAIN)
    assert small.precision == "int8" and small.fingerprint != source.fingerprint
    assert small.layers == source.layers and small.candidates == source.candidates
    assert len(small.graph) < 0.5 * len(source.graph)
    exact, rounded = extract(some, source, options=PLAIN), extract(some, small, options=PLAIN)
    assert 0 < np.linalg.norm(exact - rounded) < 0.1 * np.linalg.norm(exact)


def test_the_cache_keeps_both_apart(some: Dataset, source: Source, tmp_path: Path) -> None:
    options = Extraction(FolderCache(tmp_path / "cache"), precision="fp32")
    small = in_int8(source, some, options)
    exact, rounded = extract(some, source, options=options), extract(some, small, options=options)
    assert not np.array_equal(exact, rounded)
    assert np.array_equal(extract(some, source, options=options), exact)
    assert np.array_equal(extract(some, small, options=options), rounded)
    # whatever precision is given: its graph is in 8 bits, so all of them are the same features
    assert np.array_equal(extract(some, small, options=replace(options, precision="auto")), rounded)


def test_calibration_is_found_again(some: Dataset, source: Source, tmp_path: Path) -> None:
    """Another process with the same images has the same source, and computes no ranges."""
    options = Extraction(FolderCache(tmp_path / "cache"))
    first, again = in_int8(source, some, options), in_int8(source, some, options)
    assert first.graph == again.graph and first.fingerprint == again.fingerprint
    assert in_int8(source, some, PLAIN).fingerprint == first.fingerprint


def test_labels_play_no_part_in_calibration(some: Dataset, source: Source) -> None:
    others = replace(some, labels=some.labels[::-1].copy())
    assert in_int8(source, others, PLAIN).fingerprint == in_int8(source, some, PLAIN).fingerprint


def test_other_images_give_another_source(digits: Dataset, source: Source) -> None:
    found = {
        in_int8(source, digits.subset(np.arange(first, first + 60)), PLAIN).fingerprint
        for first in (0, 60, 600)
    }
    assert len(found) == 3


def test_what_is_in_int8_stays(some: Dataset, source: Source) -> None:
    small = in_int8(source, some, PLAIN)
    assert in_int8(small, some.subset(np.arange(9)), PLAIN) is small
    assert precise(small, lambda: some, Extraction()).source is small
    with pytest.raises(SettingError, match="was made in int8, expected int8; leave the precision out"):
        precise(small, lambda: some, Extraction(precision="fp32"))


def test_nothing_is_calibrated_where_int8_is_not_asked_for(some: Dataset, source: Source) -> None:
    def never() -> Dataset:
        raise AssertionError

    for precision in (None, "fp32", "auto"):
        found = precise(source, never, Extraction(precision=precision))
        assert found.source is source and found.options.precision == precision


@pytest.mark.parametrize("name", ["pixels", "hog", "random:mlp"])
def test_sources_without_convolutions_are_refused(name: str, some: Dataset) -> None:
    with pytest.raises(SettingError, match=r"source '.*' has no .*, expected a network of convolutions"):
        in_int8(open_source(name, some), some, PLAIN)


def test_features_in_int8_need_a_source_in_int8(some: Dataset, source: Source) -> None:
    """Else features in fp32 would be kept as those in int8."""
    with pytest.raises(SettingError, match="precision is 'int8' for a graph in fp32"):
        extract(some, source, options=Extraction(precision="int8"))


def test_a_saved_model_computes_in_fp32_or_int8() -> None:
    for precision in (None, "fp32", "int8"):
        check_saved(precision)
    with pytest.raises(SettingError, match="precision is 'bf16', expected one of fp32, int8"):
        check_saved("bf16")


def test_one_image_is_enough(digits: Dataset, source: Source) -> None:
    small = in_int8(source, digits.subset(np.arange(1)), PLAIN)
    assert small.notes["calibrated on"] == "1 image of digits"
    assert np.isfinite(extract(digits.subset(np.arange(30)), small, options=PLAIN)).all()


@pytest.mark.slow
def test_transformers_are_refused(some: Dataset) -> None:
    source = open_source("random:timm:vit_tiny_patch16_224", None)
    with pytest.raises(
        SettingError, match="has attention, whose values have outliers that 8 bits cannot hold"
    ):
        in_int8(source, some, PLAIN)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100", "efficientnet_b0", "densenet121"])
def test_networks_of_timm_are_computed_in_int8(name: str, digits: Dataset) -> None:
    """Traced graphs: shared weights, Pad nodes, squeeze-and-excitation, concatenations."""
    some = digits.subset(np.arange(24))
    source = open_source(f"random:timm:{name}", some, 0, 64)
    small = in_int8(source, some, PLAIN)
    exact, rounded = (extract(some, one, pooling="avg", options=PLAIN) for one in (source, small))
    centred = exact - exact.mean(axis=0)
    assert np.linalg.norm(exact - rounded) < 0.5 * np.linalg.norm(centred)
