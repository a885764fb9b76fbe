"""A transfer of large features: joined in files, learned from block by block, as accurate as in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.data.images.augment import parse_augmentation
from headstart.heads import novelty, row_blocks
from headstart.sources.features import Extraction
from headstart.sources.registry import open_source
from headstart.strategies.fits import Reader
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.system import mapped
from headstart.system.cache import FolderCache
from headstart.workflows.transfer.run import run_transfer


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every matrix counts as large; novelty detection draws a sample."""
    for module in (mapped, row_blocks, novelty):
        monkeypatch.setattr(module, "LARGE_VALUES", 1_000)
    monkeypatch.setattr(novelty, "_SAMPLE_VALUES", 64 * 1_200)


@pytest.mark.parametrize(
    ("head", "augment"), [("ridge", None), ("linear", None), ("kernel", "shift=0.1"), (None, "shift=0.1")]
)
def test_the_model_is_as_accurate_as_one_in_memory(
    digits: Dataset,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    head: str | None,
    augment: str | None,
) -> None:
    options = Extraction(FolderCache(tmp_path))
    source = open_source("pixels", digits)
    probe = Probe(head=head, augmentation=None if augment is None else parse_augmentation(augment, 2))
    known = learn_head(source, digits, probe, options=options)
    request.getfixturevalue("large")
    found = learn_head(source, digits, probe, options=options)
    assert found.held_probs is not None and known.held_probs is not None and found.parts is not None
    held = found.parts.held
    assert held is not None
    right = [(one.held_probs.argmax(axis=1) == held.codes()).mean() for one in (known, found)]
    assert right[1] == pytest.approx(right[0], abs=0.015)
    assert np.abs(found.held_probs - known.held_probs).mean() < 0.02
    assert found.model.manifest.novelty["n_held"] == 1_200 < known.model.manifest.novelty["n_held"]


def test_a_transfer_with_controls(digits: Dataset, tmp_path: Path, large: None) -> None:
    source = open_source("random:cnn", digits)
    made = run_transfer(
        source, digits, Probe(head="ridge", layer="pool2"), options=Extraction(FolderCache(tmp_path))
    )
    assert "images are classified correctly" in made.result.verdict


def test_a_reader_of_all_images_does_not_copy(digits: Dataset, tmp_path: Path, large: None) -> None:
    source = open_source("pixels", digits)
    reader = Reader(source, digits, digits, Extraction(FolderCache(tmp_path)))
    place = (source.default_layer, "flat")
    rows, labels, images = reader.training(place, np.arange(len(digits)))
    assert np.shares_memory(rows, reader.rows(place)) and (labels == digits.labels).all()
    some, _, _ = reader.training(place, np.arange(0, 1500))
    assert isinstance(some, np.memmap) and (some == reader.rows(place)[:1500]).all()
    augmented = Reader(source, digits, digits, reader.options, parse_augmentation("shift=0.1", 1))
    both, _, images = augmented.training(place, np.arange(len(digits)))
    assert isinstance(both, np.memmap) and len(both) == len(images) == 2 * len(digits)
