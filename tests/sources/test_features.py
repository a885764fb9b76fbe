"""Features: computed once, found again, never under another's name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.data.images.augment import parse_augmentation
from headstart.data.stores import ArrayImages
from headstart.data.subsets import apply_subset
from headstart.errors import SettingError, UnknownLayerError
from headstart.graph import run as runtime
from headstart.networks.specs import architecture, layer_shapes
from headstart.records import Array, InputSpec, Source
from headstart.sources import features
from headstart.sources.features import AugmentedCopy, Extraction, extract_all, feature_graph
from headstart.sources.random_network import random_source
from headstart.sources.registry import open_source
from headstart.system.cache import Cache, FolderCache
from headstart.system.drafts import CacheWarning
from headstart.system.progress import SILENT, Progress


def extract(
    dataset: Dataset,
    source: Source,
    *,
    layer: str | None = None,
    pooling: str = "flat",
    cache: Cache | None = None,
    runtime_name: str = "openvino",
    precision: str | None = None,
    progress: Progress = SILENT,
) -> Array:
    """`features.extract`, its options at hand."""
    options = Extraction(cache, runtime_name, precision, progress)
    return features.extract(dataset, source, layer=layer, pooling=pooling, options=options)


CONVS = architecture("cnn", InputSpec(28, 28, 1), 10)


@pytest.fixture
def some(digits: Dataset) -> Dataset:
    return digits.subset(np.arange(70))  # more than a batch


@pytest.fixture(scope="module")
def source() -> Source:
    return random_source(CONVS, 0)


@pytest.fixture
def cache(tmp_path: Path) -> FolderCache:
    return FolderCache(tmp_path / "features")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """One entry for every graph made ready to run."""
    calls: list[dict[str, Any]] = []
    real = runtime.compile_graph

    def counting(model: Any, **options: Any) -> Any:
        calls.append(options)
        return real(model, **options)

    monkeypatch.setattr(runtime, "compile_graph", counting)
    return calls


def test_a_second_time_nothing_runs(
    some: Dataset, source: Source, cache: FolderCache, compiled: list[dict[str, Any]]
) -> None:
    first = extract(some, source, cache=cache)
    assert first.shape == (70, 64) and first.dtype == np.float32 and len(compiled) == 1
    second = extract(some, source, cache=cache)
    assert np.array_equal(first, second) and not second.flags.writeable and len(compiled) == 1
    assert np.array_equal(extract(some, source), first) and len(compiled) == 2, "without a cache it runs"


def test_a_damaged_entry_is_computed_again(
    some: Dataset, source: Source, cache: FolderCache, compiled: list[dict[str, Any]]
) -> None:
    first = extract(some, source, cache=cache).copy()  # the other is the file
    (path,) = cache.root.glob("*.npy")
    for damage in (lambda whole: whole[:-1], lambda whole: whole[:500] + b"\1" + whole[501:]):
        path.write_bytes(damage(path.read_bytes()))
        n_compiled = len(compiled)
        with pytest.warns(CacheWarning, match="are damaged"):
            assert np.array_equal(extract(some, source, cache=cache), first)
        assert len(compiled) == n_compiled + 1
        assert np.array_equal(extract(some, source, cache=cache), first) and len(compiled) == n_compiled + 1


def test_without_a_place_to_write_features_stay_in_memory(
    some: Dataset, source: Source, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.warns(CacheWarning, match="cannot be written"):
        found = extract(some, source, cache=FolderCache(tmp_path / "file"))
    assert np.array_equal(found, extract(some, source))


@pytest.mark.parametrize(
    "changes",
    [
        {"layer": "block3"},
        {"layer": "block3", "pooling": "avg"},
        {"layer": "block3", "pooling": "grid2"},
        {"runtime_name": "onnxruntime"},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_what_changes_the_numbers_has_an_entry_of_its_own(
    some: Dataset, source: Source, cache: FolderCache, compiled: list[dict[str, Any]], changes: dict[str, str]
) -> None:
    if changes.get("precision") == "bf16" and runtime.resolve_precision("auto", "openvino") != "bf16":
        pytest.skip("this CPU does not compute in bf16")
    extract(some, source, cache=cache)
    extract(some, source, cache=cache, layer="block3", pooling="flat", precision="fp32")
    n_known = len(cache.entries()) - (changes == {"layer": "block3"})
    other = extract(some, source, cache=cache, **changes)
    assert len(cache.entries()) == n_known + 1
    assert np.array_equal(extract(some, source, cache=cache, **changes), other)
    assert len(compiled) == len(cache.entries())


def test_other_images_weights_and_policies_have_entries_of_their_own(
    some: Dataset, source: Source, cache: FolderCache
) -> None:
    extract(some, source, cache=cache)
    extract(some.subset(np.arange(69, -1, -1)), source, cache=cache)
    extract(some, random_source(CONVS, 1), cache=cache)
    extract(some, replace(source, input=replace(source.input, policy="letterbox")), cache=cache)
    assert len(cache.entries()) == 4


def test_the_default_is_an_entry_like_any_other(
    some: Dataset, source: Source, cache: FolderCache, compiled: list[dict[str, Any]]
) -> None:
    """Said or unsaid, ``auto`` or what it means here: the same features."""
    extract(some, source, cache=cache)
    extract(some, source, cache=cache, layer=source.default_layer, precision=source.precision)
    assert len(compiled) == 1
    meant = runtime.resolve_precision("auto", "openvino")
    extract(some, source, cache=cache, precision="auto")
    extract(some, source, cache=cache, precision=meant)
    assert len(compiled) == (1 if meant == "fp32" else 2)


def test_labels_do_not_enter(
    some: Dataset, source: Source, cache: FolderCache, compiled: list[dict[str, Any]]
) -> None:
    first = extract(some, source, cache=cache)
    odd_even = apply_subset(some, "parity")
    assert odd_even.classes != some.classes
    assert np.array_equal(extract(odd_even, source, cache=cache), first) and len(compiled) == 1
    named = replace(some, name="other", labels=some.labels[::-1].copy())
    extract(named, source, cache=cache)
    assert len(compiled) == 1


def test_rows_are_those_of_the_images(some: Dataset, source: Source) -> None:
    whole = extract(some, source)
    order = np.random.default_rng(0).permutation(70)
    np.testing.assert_allclose(extract(some.subset(order), source), whole[order], atol=1e-5)


def test_pixels_are_the_pixels(some: Dataset) -> None:
    assert isinstance(some.images, ArrayImages)
    got = extract(some, open_source("pixels", some))
    np.testing.assert_allclose(got, some.images.pixels.reshape(70, -1) / 255, atol=1e-6)


@pytest.mark.parametrize("layer", CONVS.layer_names)
def test_every_tap_can_be_read_with_every_pooling(some: Dataset, source: Source, layer: str) -> None:
    shape = layer_shapes(CONVS)[layer]
    few = some.subset(np.arange(3))
    for pooling in ("flat", "avg", "grid2"):
        wanted = shape[0] * {"flat": int(np.prod(shape[1:])), "avg": 1, "grid2": 4}[pooling]
        wanted = shape[0] if len(shape) == 1 else wanted
        assert extract(few, source, layer=layer, pooling=pooling, runtime_name="onnxruntime").shape == (
            3,
            wanted,
        )


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        (
            {"layer": "blok3"},
            UnknownLayerError,
            "layer 'blok3' is unknown, expected one of source 'random:cnn', nearest are block3",
        ),
        ({"pooling": "mean"}, SettingError, "pooling 'mean' is unknown, expected one of avg, flat, grid2"),
        (
            {"runtime_name": "tensorrt"},
            SettingError,
            "runtime 'tensorrt' is unknown, expected one of openvino, onnxruntime",
        ),
        (
            {"precision": "int4"},
            SettingError,
            "precision 'int4' is unknown, expected one of auto, fp32, bf16, int8",
        ),
    ],
)
def test_a_wrong_name_is_one_sentence(
    some: Dataset,
    source: Source,
    cache: FolderCache,
    changes: dict[str, str],
    error: type[Exception],
    sentence: str,
) -> None:
    for options in ({"layer": "block3", **changes},):
        with pytest.raises(error, match=sentence):
            extract(some, source, cache=cache, **options)
    assert cache.entries() == []


def test_progress_is_told_to_the_end(some: Dataset, source: Source) -> None:
    said: list[tuple[int, int]] = []

    class Ear:
        def step(self, task: str, done: int, total: int, note: str = "") -> None:
            assert task == "features of digits"
            said.append((done, total))

        def remark(self, text: str) -> None:
            raise AssertionError(text)

    extract(some, source, progress=Ear())
    assert said[-1] == (70, 70)


def test_the_graph_is_cut_at_the_tap(source: Source) -> None:
    graph = feature_graph(source, [("block1", "avg")])
    assert not any(
        name.startswith(("conv2", "dense1")) for name in (one.name for one in graph.graph.initializer)
    )


def test_a_failing_run_stores_nothing(
    some: Dataset, source: Source, cache: FolderCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def stream(self, *_: Any) -> Any:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(runtime, "compile_graph", lambda *_, **__: Broken())
    with pytest.raises(RuntimeError):
        extract(some, source, cache=cache)
    assert cache.entries() == []


def test_an_interrupted_run_goes_on_where_it_stopped(
    some: Dataset, source: Source, cache: FolderCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after some batches: what was written stays, and the end is the same to the bit."""
    small = replace(source, batch_size=8)
    wanted = extract(some, small)
    real, seen = runtime.compile_graph, []

    class Interrupted:
        def __init__(self, model: Any, **options: Any) -> None:
            self._inner = real(model, **options)

        def stream(self, batches: Any) -> Any:
            for number, rows in enumerate(self._inner.stream(batches)):
                if number == 3:
                    raise KeyboardInterrupt
                yield rows

    monkeypatch.setattr(runtime, "compile_graph", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(some, small, cache=cache)
    assert [entry.state for entry in cache.entries()] == ["unfinished"]
    monkeypatch.setattr(runtime, "compile_graph", real)
    pixels = features._pixels

    def noted(*arguments: Any) -> Any:
        seen.append(arguments[-1])
        return pixels(*arguments)

    monkeypatch.setattr(features, "_pixels", noted)
    assert np.array_equal(extract(some, small, cache=cache), wanted)
    assert seen == [24], "three batches of eight were kept"


def test_several_places_are_read_in_one_pass(
    some: Dataset, source: Source, cache: FolderCache, compiled: list[dict[str, Any]]
) -> None:
    places = [("block1", "avg"), ("block3", "grid2"), ("hidden1", "flat")]
    rows = extract_all(some, source, places, options=Extraction(cache))
    assert len(compiled) == 1 and len(cache.entries()) == 3
    for (layer, pooling), values in zip(places, rows, strict=True):
        np.testing.assert_allclose(values, extract(some, source, layer=layer, pooling=pooling), atol=1e-5)
    extract_all(some, source, [*places, ("block2", "avg")], options=Extraction(cache))
    assert len(cache.entries()) == 4


def test_views_are_features_of_their_own(some: Dataset, source: Source, cache: FolderCache) -> None:
    pytest.importorskip("kornia")
    some = some.subset(np.arange(8))
    turned = parse_augmentation("rotation=30")
    rows = [
        features.extract(some, source, copy=copy, options=Extraction(cache))
        for copy in (
            None,
            AugmentedCopy(turned, 0, 0),
            AugmentedCopy(turned, 0, 1),
            AugmentedCopy(turned, 1, 0),
        )
    ]
    assert len(cache.entries()) == 4 and len({one.tobytes() for one in rows}) == 4
    mirrored = features.extract(
        some, source, copy=AugmentedCopy(parse_augmentation("flip=1"), 0, 0), options=Extraction(cache)
    )
    assert isinstance(some.images, ArrayImages)
    by_hand = replace(some, images=ArrayImages(some.images.pixels[:, :, ::-1]))
    np.testing.assert_allclose(mirrored, extract(by_hand, source), atol=1e-6)
