"""Features as data: written shard by shard, continued, and the same models and studies from them as from images."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.data.embedded.images import table_of
from headstart.data.images.augment import parse_augmentation
from headstart.data.images.thumbnails import png_bytes
from headstart.data.readable import has_pixels
from headstart.data.readers.load import from_arrays, load
from headstart.errors import DataError, SettingError, SourceError, UnknownLayerError
from headstart.interfaces.python import embed, evaluate, study, transfer
from headstart.models.model import open_model
from headstart.records import Source
from headstart.report.json import to_json
from headstart.report.page import render
from headstart.sources import embedded
from headstart.sources.embedded import KnownFeatures, embedded_source
from headstart.sources.features import Extraction, extract
from headstart.sources.registry import open_source
from headstart.strategies.finetune.options import parse_transfer
from headstart.strategies.places import Probe
from headstart.system.cache import FolderCache, NullCache
from headstart.system.progress import Remarks
from headstart.workflows.embed import EmbedRequest, run_embed
from headstart.workflows.embed import run as embed_run
from headstart.workflows.study import StudyRequest, run_study
from headstart.workflows.transfer import run_transfer

pq = pytest.importorskip("pyarrow.parquet")

PLACE = Probe("block3", "avg")


@pytest.fixture(scope="module")
def few() -> Dataset:
    """200 digits of two classes."""
    return load("digits:8-9").subset(np.arange(200))


@pytest.fixture(scope="module")
def drawings(few: Dataset) -> Source:
    return open_source("drawings", few)


@pytest.fixture(scope="module")
def written(few: Dataset, drawings: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of them at one place, in a file and in parts."""
    home = tmp_path_factory.mktemp("features")
    run_embed(drawings, few, home / "f.parquet", EmbedRequest("block3", "avg"))
    run_embed(drawings, few, home / "parts", EmbedRequest("block3", "avg", shard_size=70))
    return home


def write_letters(folder: Path) -> Path:
    """80 letters by 20 people as files."""
    from PIL import Image

    letters = load("omniglot-greek:alpha,beta,gamma,delta")
    for place in range(len(letters)):
        file = folder / str(letters.labels[place]) / f"{place:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(letters.images.image(place)[..., 0]).save(file)
    return folder


def numbers(report: Any) -> Any:
    """A report without what a clock or the origin of the features decides."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            left = ("facts", "seconds", "caption")
            return {name: plain(one) for name, one in value.items() if name not in left}
        return [plain(one) for one in value] if isinstance(value, list) else value

    return plain(json.loads(to_json(report)))


# --- writing


def test_vectors_are_those_of_extraction(few: Dataset, drawings: Source, written: Path) -> None:
    right = extract(few, drawings, layer="block3", pooling="avg")
    for name in ("f.parquet", "parts"):
        found = load(written / name)
        table = table_of(found.images)
        assert table is not None
        assert np.array_equal(table.vectors(np.arange(len(few))), right), (
            "to the last bit, whatever the shards"
        )


def test_a_class_without_images_is_named(few: Dataset, drawings: Source, tmp_path: Path) -> None:
    """Its folder is empty: the table would have one class less, and nobody would know."""
    said: list[str] = []

    class Told(Remarks):
        def remark(self, text: str) -> None:
            said.append(text)

    emptied = replace(few, classes=(*few.classes, "wasps"))
    run_embed(drawings, emptied, tmp_path / "few.parquet", options=Extraction(progress=Told()))
    assert said == ["headstart: class 'wasps' has no image, so the table has no row of it"]


def test_the_default_place_is_the_sources_own(few: Dataset, tmp_path: Path) -> None:
    found = run_embed(open_source("drawings", few), few, tmp_path / "a.parquet")
    assert found.record.place == ("block3", "flat") and found.record.n_features == 1152
    found = run_embed(open_source("drawings", few), few, tmp_path / "b.parquet", EmbedRequest(pooling="avg"))
    assert found.record.place == ("block3", "avg")


def test_output_is_a_file_or_a_folder(few: Dataset, drawings: Source, tmp_path: Path) -> None:
    one = run_embed(drawings, few, tmp_path / "a.parquet", EmbedRequest(shard_size=200))
    assert one.files == (tmp_path / "a.parquet",) and one.output.is_file()
    many = run_embed(drawings, few, tmp_path / "b.parquet", EmbedRequest(shard_size=199))
    assert [path.name for path in many.files] == ["part-00000.parquet", "part-00001.parquet"]
    assert many.output.is_dir() and len(load(many.output)) == 200
    plain = run_embed(drawings, few, tmp_path / "c")
    assert [path.name for path in plain.files] == ["part-00000.parquet"]


def test_done_parts_are_kept_and_the_missing_one_is_computed(
    few: Dataset, drawings: Source, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Path(shutil.copytree(written / "parts", tmp_path / "parts"))
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in parts.iterdir()}
    (parts / "part-00001.parquet").unlink()
    read = []
    real = embed_run.extract_all
    monkeypatch.setattr(
        embed_run,
        "extract_all",
        lambda data, *rest, **more: read.append(len(data)) or real(data, *rest, **more),
    )
    request = EmbedRequest("block3", "avg", shard_size=70)
    found = run_embed(drawings, few, parts, request)
    assert read == [70] and found.n_kept == 2
    for path in parts.iterdir():
        assert path.read_bytes() == before[path.name][0]
        assert (path.stat().st_mtime_ns == before[path.name][1]) == ("00001" not in path.name)
    assert run_embed(drawings, few, parts, request).n_kept == 3 and read == [70]


REQUESTS = {
    "layer": EmbedRequest("block2", "avg", shard_size=70),
    "pooling": EmbedRequest("block3", "flat", shard_size=70),
    "dtype": EmbedRequest("block3", "avg", float16=True, shard_size=70),
    "shard size": EmbedRequest("block3", "avg", shard_size=69),
    "expected at most 2 parts": EmbedRequest("block3", "avg", shard_size=100),
}


@pytest.mark.parametrize("said", REQUESTS)
def test_another_request_in_the_same_folder_is_refused(
    few: Dataset, drawings: Source, written: Path, said: str
) -> None:
    before = {path: path.read_bytes() for path in (written / "parts").iterdir()}
    with pytest.raises(SettingError, match=said):
        run_embed(drawings, few, written / "parts", REQUESTS[said])
    assert {path: path.read_bytes() for path in (written / "parts").iterdir()} == before


def test_other_data_or_another_source_in_the_same_folder_is_refused(
    few: Dataset, drawings: Source, written: Path
) -> None:
    request = EmbedRequest("block3", "avg", shard_size=70)
    labels = few.labels.copy()
    labels[0] = "9" if labels[0] == "8" else "8"
    cases: tuple[tuple[Source, Dataset, Extraction, str], ...] = (
        (drawings, few.subset(np.arange(200)[::-1]), Extraction(), "images"),
        (drawings, few.subset(np.arange(180)), Extraction(), "number of images"),
        (drawings, replace(few, labels=labels), Extraction(), "other labels"),
        (drawings, replace(few, groups=few.labels), Extraction(), "other groups"),
        (replace(drawings, fingerprint="0" * 64), few, Extraction(), "weights"),
        (replace(drawings, input=replace(drawings.input, policy="crop")), few, Extraction(), "policy"),
        (drawings, few, Extraction(runtime="onnxruntime"), "runtime"),
        (drawings, few, Extraction(precision="int8"), "precision"),
    )
    for source, data, options, said in cases:
        with pytest.raises(SettingError, match=f"{said}.*expected"):
            run_embed(source, data, written / "parts", request, options=options)


def test_output_that_is_something_else_is_refused(few: Dataset, drawings: Source, tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, said in (
        ("text.parquet", "is no file of features"),
        ("folder", "holds 'notes.txt'"),
        ("file", "is a file, expected a folder for the parts"),
        ("file/below.parquet", "is a file, expected a folder to write 'below.parquet' to"),
    ):
        with pytest.raises(SettingError, match=said):
            run_embed(drawings, few, tmp_path / name)
    assert (tmp_path / "text.parquet").read_text() == "text"


def test_a_name_that_is_no_text_is_escaped(desk: Path) -> None:
    for number in range(4):
        place = os.fsencode(desk / "photos" / "ab"[number % 2])
        os.makedirs(place, exist_ok=True)
        name = place + b"/" + (b"\xff%d.png" % number)
        with open(name, "wb") as file:
            file.write(png_bytes(np.full((9, 9, 1), 50 * number, np.uint8)))
    embed("pixels", "photos", "f.parquet")
    data = load("f.parquet")
    assert data.images.image_name(0) == "photos/a/\\udcff0.png" and not has_pixels(data.images)


def test_numbers_that_no_head_could_use_are_refused(
    few: Dataset, drawings: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value, said in (
        (7e4, "reach 70,000, more than float16"),
        (np.nan, "are not finite"),
        (np.inf, "are not finite"),
    ):
        rows = np.zeros((len(few), 128), np.float32)
        rows[5, 3] = value
        monkeypatch.setattr(embed_run, "extract_all", lambda *rest, rows=rows, **more: [rows])
        with pytest.raises(DataError, match=f"'image 5' at 'block3' {said}"):
            run_embed(drawings, few, tmp_path / "f.parquet", EmbedRequest("block3", "avg", float16=True))
    assert not list(tmp_path.iterdir())


def test_wrong_settings_are_refused_before_anything_is_written(
    few: Dataset, drawings: Source, tmp_path: Path
) -> None:
    output = tmp_path / "f.parquet"
    for size in (0, -1, True, 2.5):
        with pytest.raises(SettingError, match="shard size"):
            EmbedRequest(shard_size=size)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="precision is 'bf16'"):
        run_embed(drawings, few, output, options=Extraction(precision="bf16"))
    with pytest.raises(SettingError, match="pooling 'most'"):
        run_embed(drawings, few, output, EmbedRequest(pooling="most"))
    with pytest.raises(UnknownLayerError):
        run_embed(drawings, few, output, EmbedRequest("block9"))
    assert not output.exists()


KILLED = """
import sys
import numpy as np
from headstart.data.readers.load import load
from headstart.sources.registry import open_source
from headstart.workflows.embed import EmbedRequest, run_embed
few = load("digits:8-9")
run_embed(open_source("drawings", few), few, sys.argv[1], EmbedRequest("block3", "avg", shard_size=5))
"""


@pytest.mark.slow
def test_a_killed_run_is_continued_to_the_same_bytes(tmp_path: Path) -> None:
    data = load("digits:8-9")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    process = subprocess.Popen(command, env={**os.environ})
    for _ in range(3000):
        if len(list((tmp_path / "killed").glob("part-*"))) >= 3 or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("part-*")}
    request = EmbedRequest("block3", "avg", shard_size=5)
    source = open_source("drawings", data)
    found = run_embed(source, data, tmp_path / "killed", request)
    assert found.n_kept == len(kept) >= 3
    run_embed(source, data, tmp_path / "whole", request)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == names
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for name, moment in kept.items():
        assert (tmp_path / "killed" / name).stat().st_mtime_ns == moment


# --- starting from them


@pytest.mark.parametrize("name", ["f.parquet", "parts"])
def test_a_transfer_from_features_is_that_from_images(
    few: Dataset, drawings: Source, written: Path, name: str
) -> None:
    images = run_transfer(drawings, few, PLACE)
    data = load(written / name)
    source = embedded_source(data)
    assert source is not None
    known = run_transfer(source, data)
    assert known.learned.model.graph == images.learned.model.graph
    assert numbers(known.result) == numbers(images.result)
    assert known.learned.model.manifest.data == images.learned.model.manifest.data
    assert "read from" in known.result.facts["features"]


def test_a_study_from_features_of_a_named_dataset_has_equal_numbers(tmp_path: Path) -> None:
    data = "omniglot-greek:alpha,beta,gamma,delta"
    embed("drawings", data, tmp_path / "f", layer="block3", pooling="avg", shard_size=33)
    how: dict[str, Any] = {
        "labels_per_class": [1],
        "draws": 2,
        "controls": ["majority", "HOG", "raw pixels", "random frozen"],
    }
    images = study("drawings", data, layer="block3", pooling="avg", **how)
    known = study(None, tmp_path / "f", **how)
    assert {row.strategy for row in known.rows} == {"probe", "random frozen", "HOG", "raw pixels", "majority"}
    assert numbers(known) == numbers(images)


@pytest.mark.slow
def test_a_study_from_features_of_files_has_equal_numbers_while_they_are_there(desk: Path) -> None:
    write_letters(desk / "letters")
    embed("drawings", "letters", "f.parquet", layer="block3", pooling="avg")
    how: dict[str, Any] = {
        "labels_per_class": [5],
        "draws": 2,
        "controls": ["majority", "HOG", "random frozen"],
    }
    images = study("drawings", "letters", layer="block3", pooling="avg", **how)
    assert numbers(study(None, "f.parquet", **how)) == numbers(images)
    shutil.rmtree(desk / "letters")
    without = study(None, "f.parquet", **how)
    rows = {(row.strategy, row.labels_per_class): row.accuracy for row in images.rows}
    for row in without.rows:
        assert row.accuracy == rows[row.strategy, row.labels_per_class]
    assert {row.strategy for row in without.rows} == {"probe", "majority"}
    left_out = next(remark for remark in without.remarks if "left out" in remark)
    assert left_out.startswith("The controls random frozen and HOG are left out")
    assert "80 of 80 image files are not there" in left_out
    assert without.verdict.endswith("so how transfer compares with them is unknown.")
    assert any("near copies were not searched for" in finding for finding in without.findings)
    assert not without.galleries and not without.examples
    assert "f.parquet" in render(without)


def test_no_vector_is_computed(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.sources import features

    data = without_pixels(load(written / "f.parquet"))
    source = embedded_source(data)
    assert source is not None
    monkeypatch.setattr(features, "_computed", lambda *all: pytest.fail("features are computed"))
    done = run_transfer(source, data, Probe(head="ridge"))
    assert done.learned.heads is not None


def without_pixels(data: Dataset) -> Dataset:
    """The same features where the images are gone."""
    from headstart.data.embedded.images import DescribedImages, EmbeddedImages

    images = data.images
    assert isinstance(images, EmbeddedImages)
    table = images.table
    described = DescribedImages(table.names, table.digests, "they are gone", (8, 8, 1))
    return replace(data, images=EmbeddedImages(table, images.rows, described))


def test_without_images_a_transfer_says_what_it_lacks(few: Dataset, written: Path, tmp_path: Path) -> None:
    data = without_pixels(load(written / "f.parquet"))
    source = embedded_source(data)
    assert source is not None
    done = run_transfer(source, data, Probe(head="ridge"), holdout=0.2)
    assert {row.strategy for row in done.result.rows} == {"probe", "majority"}
    assert any(
        remark.startswith("The controls HOG and raw pixels are left out") for remark in done.result.remarks
    )
    assert done.result.verdict.endswith("so how transfer compares with them is unknown.")
    done.learned.model.save(tmp_path / "model", render(done.result))
    model = open_model(tmp_path / "model")
    assert not model.samples
    assert (model.predict(few) == few.labels).mean() > 0.9, "it predicts images"
    found = evaluate(model, few)
    assert found.about == "new images" and found.new.n == 40, "images are known by their digests"


def test_what_needs_images_is_refused_without_them(written: Path) -> None:
    data = without_pixels(load(written / "f.parquet"))
    source = embedded_source(data)
    assert source is not None
    with pytest.raises(
        SettingError, match=r"features alone \(they are gone\), expected images for augmented"
    ):
        run_transfer(source, data, Probe(augmentation=parse_augmentation("handwriting")))
    with pytest.raises(SettingError, match="expected images for fine-tuning"):
        run_transfer(source, data, finetune=parse_transfer("finetune", "auto", "cpu"))


def test_layer_pooling_and_precision_are_those_of_the_features(written: Path) -> None:
    data = load(written / "f.parquet")
    source = embedded_source(data)
    assert source is not None
    for probe, said in ((Probe("block2"), "layer is 'block2'"), (Probe(pooling="flat"), "pooling is 'flat'")):
        with pytest.raises(SettingError, match=said):
            run_transfer(source, data, probe)
        with pytest.raises(SettingError, match=said):
            run_study(source, data, StudyRequest(probe))
    with pytest.raises(SettingError, match="precision is 'bf16' for features in fp32"):
        run_study(source, data, options=Extraction(precision="bf16"))
    for options, said in (({"size_px": 64}, "size is 64"), ({"policy": "crop"}, "policy is 'crop'")):
        with pytest.raises(SettingError, match=said):
            embedded_source(data, **options)


def test_another_version_of_the_source_is_refused(written: Path, few: Dataset, tmp_path: Path) -> None:
    data = load(written / "f.parquet")
    with pytest.raises(
        SourceError, match=r"source 'pixels' has the fingerprint .* were computed by 'drawings'"
    ):
        embedded_source(data, "pixels")
    with pytest.raises(SourceError, match=r"cannot be opened .*name it before them if it has moved"):
        embedded_source(data, "nonsense")
    drawings = open_source("drawings", few)
    for other in (
        replace(drawings, fingerprint="1" * 64),
        replace(drawings, input=replace(drawings.input, policy="crop")),
        replace(drawings, input=replace(drawings.input, version=1)),
    ):
        with pytest.raises(SourceError, match="were computed by 'drawings'"):
            run_transfer(other, data)
    with pytest.raises(
        SourceError, match=r"have 128 values at block3, avg, and source 'drawings' has no such place"
    ):
        run_transfer(replace(drawings, layers={"block2": (96, 5, 5)}), data)


def test_vectors_that_somebody_changed_are_found_while_the_images_are_there(
    written: Path, tmp_path: Path
) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pq.read_table(written / "f.parquet")
    values = np.stack(table.column("vector").to_numpy())
    for number, changed in enumerate((values * 2, values[::-1], np.full_like(values, np.nan))):
        column = pa.FixedSizeListArray.from_arrays(pa.array(changed.ravel(), pa.float32()), values.shape[1])
        path = tmp_path / f"{number}.parquet"
        pq.write_table(table.set_column(table.schema.get_field_index("vector"), "vector", column), path)
        data = load(path)
        source = embedded_source(data)
        assert source is not None and has_pixels(data.images)
        with pytest.raises(
            SourceError, match="differ from those that source 'drawings' computes of the image now"
        ):
            run_transfer(source, data)
    lone = without_pixels(data)
    with pytest.raises(DataError, match="finite"):
        run_transfer(source, lone, Probe(head="ridge"))


def test_float16_is_in_the_facts_and_nearly_the_same(few: Dataset, drawings: Source, tmp_path: Path) -> None:
    run_embed(drawings, few, tmp_path / "f.parquet", EmbedRequest("block3", "avg", float16=True))
    data = load(tmp_path / "f.parquet")
    table = table_of(data.images)
    assert table is not None
    right = extract(few, drawings, layer="block3", pooling="avg")
    assert np.array_equal(table.vectors(np.arange(200)), right.astype(np.float16).astype(np.float32))
    done = run_transfer(drawings, data, Probe(head="ridge"), judge=False)
    assert "rounded to float16" in done.result.facts["features"]
    assert (done.learned.model.predict(few) == few.labels).mean() > 0.9


def test_int8_is_made_again_without_the_images(few: Dataset, drawings: Source, tmp_path: Path) -> None:
    options = Extraction(precision="int8")
    run_embed(drawings, few, tmp_path / "f.parquet", EmbedRequest("block3", "avg"), options=options)
    assert (
        run_embed(
            drawings, few, tmp_path / "f.parquet", EmbedRequest("block3", "avg"), options=options
        ).n_kept
        == 1
    )
    data = without_pixels(load(tmp_path / "f.parquet"))
    source = embedded_source(data)
    assert source is not None and source.precision == "int8"
    known = run_transfer(source, data, Probe(head="ridge"))
    images = run_transfer(drawings, few, Probe("block3", "avg", "ridge"), options=options)
    assert known.learned.model.graph == images.learned.model.graph
    assert known.learned.model.manifest.source["precision"] == "int8"
    table = pq.read_table(tmp_path / "f.parquet")
    record = json.loads(table.schema.metadata[b"headstart"])
    for ranges, said in (("AAAA", "malformed"), ("!", "malformed"), ("AAAAAA==", "have 1 values")):
        record["source"]["ranges"] = ranges
        changed = table.replace_schema_metadata({b"headstart": json.dumps(record)})
        pq.write_table(changed, tmp_path / "g.parquet")
        with pytest.raises(SourceError, match=said):
            embedded_source(load(tmp_path / "g.parquet"))


def test_a_model_folder_is_a_source_that_may_move(few: Dataset, desk: Path) -> None:
    transfer("pixels", "digits:0-1", head="ridge", judge=False).save(desk / "old")
    embed("old", few, "f.parquet")
    assert transfer(None, "f.parquet", head="ridge", judge=False).classes == ("8", "9")
    (desk / "old").rename(desk / "new")
    with pytest.raises(SourceError, match=r"source 'old' of the features 'f.parquet' cannot be opened"):
        transfer(None, "f.parquet")
    assert transfer("new", "f.parquet", head="ridge", judge=False).classes == ("8", "9")
    assert transfer(open_model("new"), "f.parquet", head="ridge", judge=False).classes == ("8", "9")


def test_random_weights_are_drawn_by_the_recorded_seed(few: Dataset, desk: Path) -> None:
    embed("random:cnn", few, "f.parquet", seed=5)
    assert transfer(None, "f.parquet", head="ridge", judge=False).classes == ("8", "9")


def test_training_and_test_features_go_together(desk: Path) -> None:
    letters = load("omniglot-greek:alpha,beta")
    for name in ("train", "test"):
        embed("drawings", letters.split(name), f"{name}.parquet", layer="block3", pooling="avg")
    how: dict[str, Any] = {"controls": ["majority"], "labels_per_class": []}
    images = study(
        "drawings", letters.split("train"), test=letters.split("test"), layer="block3", pooling="avg", **how
    )
    known = study(None, "train.parquet", test="test.parquet", **how)
    assert numbers(known)["rows"] == numbers(images)["rows"]
    for data, test in (("train.parquet", letters.split("test")), (letters.split("train"), "test.parquet")):
        with pytest.raises(SettingError, match=r"has images and .* has features"):
            study("drawings", data, test=test, **how)
    embed("drawings", letters.split("test"), "other.parquet", layer="block2", pooling="avg")
    with pytest.raises(SettingError, match="were read at block2, avg"):
        study(None, "train.parquet", test="other.parquet", **how)


def test_a_copy_in_both_is_found_by_its_digest(desk: Path, few: Dataset) -> None:
    pixels = few.images.pixels
    assert pixels is not None
    for name, some in (("a", np.arange(100)), ("b", np.arange(90, 200))):
        data = from_arrays(pixels[some], few.labels[some], name="mine")
        embed("pixels", data, f"{name}.parquet")
    with pytest.raises(DataError, match="has 10 image"):
        study(None, "a.parquet", test="b.parquet", controls=["majority"])


def test_many_vectors_are_memory_mapped(
    written: Path, drawings: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(embedded, "_ROWS", 37)
    data = load(written / "parts").subset(np.random.default_rng(0).permutation(200)[:150])
    table = table_of(data.images)
    assert table is not None
    right = extract(
        data, drawings, layer="block3", pooling="avg", options=Extraction(KnownFeatures([table], NullCache()))
    )
    cache = FolderCache(tmp_path / "cache")
    for _ in range(2):
        found = extract(
            data, drawings, layer="block3", pooling="avg", options=Extraction(KnownFeatures([table], cache))
        )
        assert isinstance(found, np.memmap) and np.array_equal(found, right)
    assert len(cache.entries()) == 1


def test_files_of_photos_and_their_labels_in_a_table_start_a_model(desk: Path) -> None:
    rng = np.random.default_rng(3)
    for number in range(12):
        place = desk / "photos" / ("ant" if number % 2 else "bee") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        shade = 180 if number % 2 else 20
        pixels = rng.integers(shade, shade + 60, (40, 30, 3)).astype(np.uint8)
        place.write_bytes(png_bytes(pixels))
    embed("pixels", "photos", "f.parquet")
    shutil.move("photos", "elsewhere")
    model = transfer(None, "f.parquet", head="ridge")
    assert model.predict(desk / "elsewhere/ant").tolist() == ["ant"] * 6
    assert model.manifest.input.shape == (64, 64, 3)
