"""Images of a control with several random networks are prepared once, and copies are read at all places at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.data import stores
from headstart.data.dataset import Dataset
from headstart.data.images.augment import parse_augmentation
from headstart.data.images.prepare import prepare
from headstart.data.readers.load import load
from headstart.networks.specs import architecture
from headstart.records import InputSpec
from headstart.sources import features
from headstart.sources.features import PLAIN, Extraction, extract_all
from headstart.sources.random_network import random_source
from headstart.sources.registry import open_source
from headstart.strategies import prepared
from headstart.strategies.fits import Chooser, Reader, averaged, chosen_probe, redrawn_probe
from headstart.strategies.places import Probe, Reading
from headstart.strategies.prepared import PreparedImages, prepared_once
from headstart.system.cache import FolderCache

SPEC = InputSpec(28, 28, 1, policy="crop")
N_IMAGES = 24
WANTED = Probe("block2", "avg", "ridge")


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Bright and dark images of different sizes, as files."""
    home, rng = tmp_path_factory.mktemp("drawings"), np.random.default_rng(0)
    for number in range(N_IMAGES):
        kind = number % 2
        (home / "ab"[kind]).mkdir(exist_ok=True)
        pixels = rng.integers(120 * kind, 120 * kind + 130, (30 + number, 40), np.uint8)
        Image.fromarray(pixels).save(home / "ab"[kind] / f"{number}.png")
    return load(str(home))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The place of every image that is decoded from its file."""
    seen: list[int] = []
    real = stores.fit_bytes

    def counting(data: bytes, name: str, *more: Any) -> object:
        seen.append(int(Path(name).stem))
        return real(data, name, *more)

    monkeypatch.setattr(stores, "fit_bytes", counting)
    return seen


def readers(pool: Dataset, test: Dataset, options: Extraction = PLAIN) -> Callable[[int], Reader]:
    def reader(seed: int) -> Reader:
        return Reader(random_source(architecture("cnn", SPEC, 2), seed), pool, test, options)

    return reader


def predictions(make: Callable[[int], Reader], n_test: int) -> list[np.ndarray]:
    strategy, train = redrawn_probe(make, WANTED), np.arange(0, 16)
    return [strategy(train, np.arange(n_test), seed) for seed in (0, 1, 2, 0)]


def test_three_networks_decode_each_file_once_and_predict_as_before(
    drawings: Dataset, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, test = drawings.subset(np.arange(16)), drawings.subset(np.arange(16, N_IMAGES))
    once = predictions(readers(pool, test), len(test))
    assert len(decoded) == N_IMAGES
    decoded.clear()
    monkeypatch.setattr(prepared, "COPIES_BYTES", 100)  # too much for memory: each network reads the files
    again = predictions(readers(pool, test), len(test))
    assert len(decoded) == 3 * N_IMAGES
    for one, other in zip(once, again, strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(once[0], once[3]) and not np.array_equal(once[0], once[1])


def test_a_pool_that_is_its_own_test_set_stays_so(drawings: Dataset, decoded: list[int]) -> None:
    """Fits look whether images are left out of the pool, by the identity of both."""
    predictions(readers(drawings, drawings), N_IMAGES)
    assert len(decoded) == N_IMAGES


def test_no_file_is_decoded_where_all_features_are_kept(
    drawings: Dataset, decoded: list[int], tmp_path: Path
) -> None:
    options, pool, test = (
        Extraction(FolderCache(tmp_path)),
        drawings.subset(np.arange(16)),
        drawings.subset(np.arange(16, N_IMAGES)),
    )
    first = predictions(readers(pool, test, options), len(test))
    decoded.clear()
    second = predictions(readers(pool, test, options), len(test))
    assert not decoded and all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


def test_prepared_images_are_those_of_prepare_and_know_how_they_were_made(drawings: Dataset) -> None:
    kept: dict[tuple[str, InputSpec], Dataset] = {}
    other = InputSpec(28, 28, 1, policy="squish")
    one, two = prepared_once(drawings, SPEC, kept), prepared_once(drawings, other, kept)
    assert one is not None and two is not None and isinstance(one.images, PreparedImages)
    assert prepared_once(drawings, SPEC, kept) is one and len(kept) == 2
    assert np.array_equal(one.images.pixels, prepare(drawings, SPEC))
    assert len(one) == N_IMAGES and one.images.image_shape == SPEC.shape and one.images.paths is None
    assert np.array_equal(one.subset([3, 1]).images.pixels, prepare(drawings, SPEC)[[3, 1]])
    names = {one.images.fingerprint, two.images.fingerprint, drawings.images.fingerprint}
    assert len(names) == 3
    fewer = prepared_once(drawings.subset(np.arange(9)), SPEC, kept)
    assert fewer is not None and fewer.images.fingerprint not in names
    assert one.labels.tolist() == drawings.labels.tolist()
    with pytest.raises(ValueError, match="read-only"):
        one.images.pixels[0] = 0


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_few_drawn_images_are_read_without_the_rest_of_the_pool(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks for one draw of few labels do not read a large pool; the predictions are those of reading it."""
    digits = load("digits:0-1")
    pool, test = digits.subset(np.arange(200)), digits.subset(np.arange(200, 260))
    read: list[int] = []
    real = features._computed

    def counting(dataset: Dataset, *rest: object) -> object:
        read.append(len(dataset))
        return real(dataset, *rest)  # type: ignore[arg-type]

    make = readers(pool, test)
    chooser = Chooser(make(9), Probe("block2", head="ridge"))
    everyone = np.arange(len(test))
    drawn = np.random.default_rng(0).permutation(200)
    budgets = [np.sort(drawn[: int(n * share * 200)]) for n in (0.5, 1)]
    expected = [chosen_probe(make(3), chooser.wanted, chooser)(train, everyone, 3) for train in budgets]
    monkeypatch.setattr(features, "_computed", counting)
    strategy = redrawn_probe(make, chooser.wanted, chooser)
    for train, wanted in zip(budgets, expected, strict=True):
        np.testing.assert_allclose(strategy(train, everyone, 3), wanted, rtol=0, atol=1e-4)
    part, whole = ([10, 20], []) if share == 0.1 else ([50, 100], []) if share == 0.5 else ([90], [200])
    assert sorted(read) == sorted([60, *part, *whole])


@pytest.mark.parametrize("files", [False, True])
def test_copies_are_read_at_all_places_of_a_fit_in_one_pass(
    files: bool, drawings: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kornia", reason="augmentation needs it")
    pool = drawings if files else load("digits").subset(np.arange(30))
    source = random_source(architecture("cnn", SPEC, 2), 0) if files else open_source("random:cnn", pool)
    places = [("block1", "avg"), ("block2", "avg"), ("block3", "avg")]
    passes: list[tuple[int, bool]] = []
    real = features._computed

    def counting(dataset: Dataset, source: object, missing: dict[object, object], *rest: object) -> object:
        passes.append((len(missing), rest[-2] is not None or len(dataset) > len(pool)))
        return real(dataset, source, missing, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "_computed", counting)
    reader = Reader(source, pool, pool, PLAIN, parse_augmentation("zoom=0.2", 2), 0)
    reader.read(places)
    passes.clear()
    everyone = np.arange(len(pool))
    readings = [Reading(place, "ridge") for place in places]
    averaged(reader, readings, everyone, everyone, 0, balance=False)
    averaged(reader, readings, everyone, everyone, 0, balance=False)
    assert passes == ([(3, True)] * 2 if files else [(3, True)])
    for place in places:  # the same rows as when one place is read alone
        alone = Reader(source, pool, pool, PLAIN, parse_augmentation("zoom=0.2", 2), 0)
        found, expected = (one.training(place, everyone)[0] for one in (reader, alone))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        assert len(found) == 3 * len(pool)
        assert np.array_equal(found[: len(pool)], extract_all(pool, source, places)[places.index(place)])
