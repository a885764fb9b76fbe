"""Model folders: what is saved is what is opened, and what was touched is refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headstart.data.checks.seen import to_tensors
from headstart.data.dataset import Dataset
from headstart.errors import ModelError, SettingError
from headstart.models import folder as folder_module
from headstart.models import values
from headstart.models.manifest import FILES, LEARNED, SAMPLES, checksum, read_manifest, write_manifest
from headstart.models.model import Model, open_model
from headstart.records import NONE_OF_THESE, TrainSettings
from headstart.sources.registry import open_source
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.strategies.scratch import learn_network
from headstart.system import folders

ALL_FILES = ("manifest.json", SAMPLES, LEARNED, *FILES)


@pytest.fixture(scope="module")
def some(digits: Dataset) -> Dataset:
    return digits.subset(np.arange(130))


@pytest.fixture(scope="module")
def models(some: Dataset) -> dict[str, Model]:
    """A network trained whole, and a head on a frozen one."""
    network = learn_network(some, network="mlp", engine="scratch", settings=TrainSettings(epochs=2)).model
    return {
        "network": network,
        "probe": learn_head(open_source("random:cnn", some), some, Probe(head="ridge")).model,
    }


@pytest.fixture(params=["network", "probe"])
def model(request: pytest.FixtureRequest, models: dict[str, Model]) -> Model:
    return models[request.param]


@pytest.fixture
def folder(models: dict[str, Model], tmp_path: Path) -> Path:
    return models["network"].save(tmp_path / "model")


def refused(folder: Path | str, said: str = "") -> None:
    """FinetuneOptions fails with one line that names the folder."""
    with pytest.raises(ModelError) as caught:
        open_model(folder)
    text = str(caught.value)
    assert "\n" not in text and str(folder) in text and ", expected " in text and said in text


def note_of(data: bytes) -> dict[str, Any]:
    return {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps({**document, "checksum": checksum(document)}))


def plant(folder: Path, name: str, data: bytes) -> None:
    """Replace a file the way somebody would who knows the format: with its hash."""
    (folder / name).write_bytes(data)
    edit_manifest(folder, lambda document: document["files"].update({name: note_of(data)}))


# ---- the way there and back


def test_saved_and_opened_it_gives_the_same_probabilities(
    model: Model, some: Dataset, tmp_path: Path
) -> None:
    assert model.save(tmp_path / "new" / "model") == tmp_path / "new" / "model"
    opened = open_model(tmp_path / "new" / "model")
    assert sorted(os.listdir(tmp_path / "new" / "model")) == sorted(ALL_FILES)
    assert opened.classes == model.classes == tuple("0123456789")
    assert opened.graph == model.graph
    before = model.probabilities(some)
    assert np.array_equal(opened.probabilities(some), before)
    assert before.shape == (130, 10) and before.dtype == np.float32
    np.testing.assert_allclose(before.sum(axis=1), 1.0, atol=1e-5)
    assert opened.predict(some).tolist() == model.prediction(some).names(model.classes).tolist()
    likeliest = np.array(model.classes)[before.argmax(axis=1)]
    assert np.isin(opened.predict(some), [*likeliest, NONE_OF_THESE]).all()
    assert opened.weights.keys() == model.weights.keys()
    assert all(np.array_equal(value, model.weights[name]) for name, value in opened.weights.items())


def test_it_says_which_images_it_learned_from(model: Model, tmp_path: Path) -> None:
    opened = open_model(model.save(tmp_path / "model"))
    assert opened.seen is not None and model.seen is not None
    assert opened.seen.count("learned") == model.manifest.data["n_images"]
    before, after = to_tensors(model.seen), to_tensors(opened.seen)
    assert all(np.array_equal(after[name], value) for name, value in before.items())


def test_a_folder_from_before_that_was_recorded_opens(model: Model, some: Dataset, tmp_path: Path) -> None:
    opened = open_model(replace(model, seen=None).save(tmp_path / "model"))
    assert opened.seen is None and LEARNED not in os.listdir(tmp_path / "model")
    assert np.array_equal(opened.probabilities(some), model.probabilities(some))


def test_both_runtimes_give_the_same_probabilities(model: Model, some: Dataset) -> None:
    one, other = (model.probabilities(some, runtime_name=name) for name in ("openvino", "onnxruntime"))
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_an_opened_manifest_is_the_saved_one(model: Model, tmp_path: Path) -> None:
    opened = open_model(model.save(tmp_path / "model")).manifest
    again = open_model(open_model(tmp_path / "model").save(tmp_path / "again")).manifest
    assert opened == again and opened.files.keys() == set(FILES) | {SAMPLES, LEARNED}
    for field in (
        "classes",
        "input",
        "default_layer",
        "source_fingerprint",
        "network",
        "seed",
        "scores",
        "data",
    ):
        assert getattr(opened, field) == getattr(model.manifest, field), field
    assert {name: tuple(shape) for name, shape in opened.layers.items()} == dict(model.manifest.layers)
    assert write_manifest(opened) == write_manifest(read_manifest(write_manifest(opened), "x"))


def test_saving_twice_gives_the_same_bytes(model: Model, tmp_path: Path) -> None:
    one, other = (model.save(tmp_path / name) for name in ("one", "two"))
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in ALL_FILES)


def test_a_model_is_shown_in_one_short_line(model: Model) -> None:
    shown = repr(model)
    assert shown.startswith(f"Model({model.manifest.name!r}, {model.manifest.strategy}, 10 classes, ")
    assert len(shown) < 120 and "\n" not in shown


def test_models_are_compared_by_identity(model: Model) -> None:
    assert model == model and model != replace(model) and len({model, model}) == 1  # noqa: PLR0124


def test_a_model_is_a_source(model: Model, tmp_path: Path) -> None:
    source = open_model(model.save(tmp_path / "model")).source()
    assert source.graph == model.graph and source.classes == model.classes
    assert source.default_layer in source.layers and source.fingerprint == model.manifest.source_fingerprint


def test_the_graph_needs_nothing_of_ours(model: Model) -> None:
    onnx.checker.check_model(onnx.ModelProto.FromString(model.graph), full_check=True)


def test_a_model_is_compiled_once(model: Model, some: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.graph import run as runtime

    fresh, calls, real = Model(model.manifest, model.graph, model.weights), [], runtime.compile_graph
    monkeypatch.setattr(runtime, "compile_graph", lambda *a, **k: (calls.append(k), real(*a, **k))[1])
    fresh.predict(some)
    fresh.predict(some)
    assert len(calls) == 1
    fresh.predict(some, runtime_name="onnxruntime")
    assert len(calls) == 2


# ---- touched folders


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, name)


@pytest.mark.parametrize("name", ALL_FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(folder: Path, name: str, share: float) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * share)])
    refused(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_a_file_altered_by_one_byte_is_refused(folder: Path, name: str, place: float) -> None:
    data = bytearray((folder / name).read_bytes())
    data[place if place == -1 else int(len(data) * place)] ^= 1
    (folder / name).write_bytes(data)
    refused(folder, f"file {name} of model")


def test_a_file_with_a_tail_is_refused(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    refused(folder, "model.onnx")


def test_a_folder_in_place_of_a_file_is_refused(folder: Path) -> None:
    for name in ALL_FILES:
        (folder / name).unlink()
        (folder / name).mkdir()
        refused(folder)


def test_no_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "is not a folder")
    refused(folder / "card.md", "is not a folder")
    refused(tmp_path, "holds no manifest.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", "has no format"),
        ("null", "has no format"),
        ('{"format": "other"}', "has no format 'headstart-model'"),
        ('{"format": "headstart-model"}', "has format version None"),
        ('{"format": "headstart-model", "format_version": 1}', "missing or malformed field"),
        ("[" * 100_000, "is not JSON"),
        (b"\xff\xfe{}", "cannot be read"),
    ],
    ids=range(9),
)
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str | bytes, said: str) -> None:
    (folder / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(folder, said)


def test_a_newer_format_is_refused(folder: Path) -> None:
    edit_manifest(folder, lambda document: document.update(format_version=2))
    refused(folder, "has format version 2, expected 1; open it with the version of headstart that wrote it")


def test_a_huge_manifest_is_refused_unread(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(17 * 2**20)
    refused(folder, "is larger than")


FIELDS = (
    "name strategy classes input taps default_tap source_fingerprint network head source data settings "
    "scores seed versions timing files"
).split()


@pytest.mark.parametrize("field", FIELDS)
def test_a_manifest_without_a_field_is_refused(folder: Path, field: str) -> None:
    edit_manifest(folder, lambda document: document.pop(field))
    refused(folder, "has a missing or malformed field")


def may_hold(field: str, value: Any) -> bool:
    if field in ("name", "strategy", "source_fingerprint"):
        return isinstance(value, str)
    if field in ("head", "source", "data", "settings", "scores", "versions", "timing"):
        return isinstance(value, dict)
    return field == "network" and value is None


VALUES = (7, "text", [7], {"x": 7}, [[["x"]]], True, None, float("inf"))
WRONG = [
    (field, value) for field in FIELDS for value in VALUES if field != "seed" and not may_hold(field, value)
]


@pytest.mark.parametrize(("field", "value"), WRONG, ids=str)
def test_a_field_of_another_type_is_refused(folder: Path, field: str, value: Any) -> None:
    edit_manifest(folder, lambda document: document.update({field: value}))
    refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(classes=["a", "a"]),
        lambda d: d.update(classes=["a"]),
        lambda d: d.update(classes=d["classes"][:-1]),
        lambda d: d.update(classes=[*d["classes"], "x"]),
        lambda d: d.update(default_tap="nothing"),
        lambda d: d.update(seed="x"),
        lambda d: d.update(seed=float("inf")),
        lambda d: d["input"].update(height_px=0),
        lambda d: d["input"].update(width_px=10**9),
        lambda d: d["input"].update(width_px=9),
        lambda d: d["input"].update(channels=2),
        lambda d: d["input"].update(height_px=1e999),
        lambda d: d["input"].update(std=["x"]),
        lambda d: d["input"].pop("policy"),
        lambda d: d["taps"].update(hidden1="x"),
        lambda d: d["network"].update(layers=[]),
        lambda d: d["network"]["layers"].pop(),
        lambda d: d["network"]["layers"][0].pop("kind"),
        lambda d: d["network"]["layers"][0].update(options=[]),
        lambda d: d["files"]["card.md"].update(size_bytes=-1),
        lambda d: d["files"]["card.md"].update(size_bytes="many"),
        lambda d: d["files"]["card.md"].pop("sha256"),
    ],
    ids=range(22),
)
def test_a_field_with_an_impossible_value_is_refused(folder: Path, change: Callable[[Any], Any]) -> None:
    edit_manifest(folder, change)
    refused(folder)


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "sub/card.md", "manifest.json", "", "card.md\x00"]
)
def test_file_names_cannot_lead_elsewhere(folder: Path, name: str) -> None:
    secret = folder.parent / "model.onnx"
    secret.write_text("secret")

    def add(document: dict[str, Any]) -> None:
        document["files"][name] = note_of(b"secret")

    def instead(document: dict[str, Any]) -> None:
        document["files"].pop("card.md")

    edit_manifest(folder, add)
    refused(folder, "files are")
    edit_manifest(folder, instead)
    refused(folder, "files are")


def test_a_network_ends_in_a_dense_layer() -> None:
    layer = {"kind": "relu", "name": "x", "options": {}}
    with pytest.raises(ValueError, match="ends in a dense layer"):
        values.network_spec({"name": "x", "input": {}, "layers": [layer]})


# ---- graphs that are not ours


def tensor(name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros((1, 10), np.float32), name)


def outside(name: str) -> onnx.TensorProto:
    """Weights said to lie in a file of the machine's."""
    made = tensor(name)
    made.ClearField("raw_data")
    made.data_location = TensorProto.EXTERNAL
    made.external_data.add(key="location", value="../../../etc/passwd")
    return made


def joined(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Add what the node gives to the probabilities, so that it is needed."""
    graph.node[-1].output[0] = "probabilities.before"
    graph.node.append(node)
    graph.node.append(helper.make_node("Add", ["probabilities.before", node.output[0]], ["probabilities"]))


def branching(inner: onnx.NodeProto) -> onnx.NodeProto:
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 10])
    branch = helper.make_graph([inner], "branch", [], [shape])
    return helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)


def external_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(outside("more"))
    joined(model.graph, helper.make_node("Identity", ["more"], ["y"]))


def external_constant(model: onnx.ModelProto) -> None:
    joined(model.graph, helper.make_node("Constant", [], ["y"], value=outside("more")))


def external_in_a_branch(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    joined(model.graph, branching(helper.make_node("Constant", [], ["x"], value=outside("more"))))


def foreign_operation(model: onnx.ModelProto) -> None:
    joined(model.graph, helper.make_node("Run", ["probabilities.before"], ["y"], domain="com.other"))


def foreign_in_a_branch(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    joined(model.graph, branching(helper.make_node("Run", [], ["x"], domain="com.other")))


def local_function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Run", ["a"], ["b"], domain="com.other")]
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("", "Mine", ["a"], ["b"], body, opsets))
    joined(model.graph, helper.make_node("Mine", ["probabilities.before"], ["y"]))


def other_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def other_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "scores"


def no_graph(model: onnx.ModelProto) -> None:
    model.ClearField("graph")


@pytest.mark.parametrize(
    "spoil",
    [
        external_initializer,
        external_constant,
        external_in_a_branch,
        foreign_operation,
        foreign_in_a_branch,
        local_function,
        other_input,
        other_output,
        no_graph,
    ],
)
def test_a_graph_that_is_not_ours_is_refused(folder: Path, spoil: Callable[[onnx.ModelProto], None]) -> None:
    graph = onnx.load_model_from_string((folder / "model.onnx").read_bytes())
    spoil(graph)
    plant(folder, "model.onnx", graph.SerializeToString())
    refused(folder, "graph of model")


@pytest.mark.parametrize("data", [b"\xff" * 50, b"hello", b""], ids=range(3))
def test_what_is_no_graph_is_refused(folder: Path, data: bytes) -> None:
    plant(folder, "model.onnx", data)
    refused(folder)


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"], ids=range(3))
def test_what_are_no_weights_is_refused(folder: Path, data: bytes) -> None:
    plant(folder, "weights.safetensors", data)
    refused(folder, "weights.safetensors")


def test_an_untouched_planted_folder_opens(folder: Path) -> None:
    """The tests above fail for the reason they name, not for how they write."""
    plant(folder, "model.onnx", (folder / "model.onnx").read_bytes())
    assert open_model(folder).classes == tuple("0123456789")


# ---- saving over something


def test_a_newer_model_replaces_an_older_one(models: dict[str, Model], folder: Path) -> None:
    models["probe"].save(folder)
    assert open_model(folder).manifest.strategy == "probe" and sorted(os.listdir(folder)) == sorted(ALL_FILES)
    assert os.listdir(folder.parent) == ["model"]


@pytest.mark.parametrize("name", ["notes.txt", "app.js"])
def test_what_a_user_put_into_a_model_folder_is_never_lost(
    models: dict[str, Model], folder: Path, name: str
) -> None:
    (folder / name).write_text("mine")
    with pytest.raises(SettingError, match=f"holds '{name}', which is no part of an older result"):
        models["probe"].save(folder)
    assert (folder / name).read_text() == "mine"
    assert open_model(folder).manifest.strategy != "probe"
    assert os.listdir(folder.parent) == ["model"]


def test_a_web_app_s_manifest_is_not_taken_for_ours(model: Model, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "app"}')
    with pytest.raises(ModelError, match="has no format"):
        model.save(tmp_path)
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_saving_over_somebody_s_folder_is_refused(model: Model, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(SettingError, match=r"thesis' exists and holds no manifest\.json"):
        model.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
    assert os.listdir(tmp_path) == ["thesis"]


@pytest.mark.parametrize("moment", ["write", "fsync", "rename"])
def test_a_failing_save_leaves_the_old_model(
    models: dict[str, Model], folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    target = {
        "write": (folder_module, "write_file"),
        "fsync": (os, "fsync"),
        "rename": (folders, "try_exchange"),
    }[moment]
    with monkeypatch.context() as patched:
        patched.setattr(*target, fail)
        with pytest.raises(KeyboardInterrupt):
            models["probe"].save(folder)
    assert open_model(folder).manifest.strategy == "scratch" and os.listdir(folder.parent) == ["model"]


def test_a_killed_save_leaves_the_old_model(models: dict[str, Model], folder: Path) -> None:
    """Killed with all but the last file written: no clean-up runs."""
    newer = models["probe"].save(folder.parent / "newer")
    program = (
        "import os, sys; from headstart.models.model import open_model; model = open_model(sys.argv[1]); "
        "os.fsync = lambda handle: os._exit(9); model.save(sys.argv[2])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(newer), str(folder)], check=False, timeout=60)
    assert done.returncode == 9
    assert open_model(folder).manifest.strategy == "scratch"
    models["probe"].save(folder)
    assert open_model(folder).manifest.strategy == "probe"


def test_a_moved_folder_opens(folder: Path, tmp_path: Path, some: Dataset, models: dict[str, Model]) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere")
    shutil.rmtree(folder)
    got = open_model(tmp_path / "elsewhere").probabilities(some)
    assert np.array_equal(got, models["network"].probabilities(some))
