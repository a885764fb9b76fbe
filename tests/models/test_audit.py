"""Model folders from strangers: nothing runs, fills the memory or is printed that headstart did not write."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, defs, helper, numpy_helper

from headstart.data.readers.load import from_arrays
from headstart.errors import ModelError, SettingError
from headstart.models import audit, manifest, operators
from headstart.models.folder import write_folder
from headstart.models.manifest import FileNote, checksum, read_manifest, write_manifest
from headstart.models.model import Model, open_model
from headstart.models.operators import OPERATORS, graph_fault
from tiny_model import SIZE, tiny_model


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model(novelty=True)


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    return model.save(tmp_path / "model", "<p>report</p>")


def with_graph(model: Model, spoil: Callable[[onnx.ModelProto], Any]) -> onnx.ModelProto:
    graph = onnx.ModelProto.FromString(model.graph)
    spoil(graph)
    return graph


def refused(folder: Path, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        open_model(folder)
    text = str(caught.value)
    assert "\n" not in text and str(folder) in text and ", expected " in text and said in text, text


def plant(folder: Path, name: str, data: bytes) -> None:
    """Replace a file as somebody would who knows the format."""
    import hashlib

    (folder / name).write_bytes(data)
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    document["files"][name] = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(json.dumps({**document, "checksum": checksum(document)}))


# ---- operations


def test_the_listed_operations_are_of_the_standard_and_run_once() -> None:
    for name in OPERATORS:
        schema = defs.get_schema(name, max_inclusive_version=18)
        kinds = {one.type for one in schema.attributes.values()}
        assert not kinds & {defs.OpSchema.AttrType.GRAPH, defs.OpSchema.AttrType.GRAPHS}, name
        assert schema.support_level == defs.OpSchema.SupportType.COMMON, name
    forbidden = {"If", "Loop", "Scan", "SequenceMap", "StringNormalizer", "RandomNormal", "Optional"}
    assert not OPERATORS & forbidden


def joined(graph: onnx.GraphProto, *nodes: onnx.NodeProto) -> None:
    """Make the nodes part of what gives the probabilities."""
    last = next(one for one in graph.node if "probabilities" in one.output)
    last.output[0] = "before"
    graph.node.extend(nodes)
    graph.node.append(helper.make_node("Add", ["before", nodes[-1].output[0]], ["probabilities"]))


def number(graph: onnx.GraphProto, name: str, value: Any, kind: Any = np.int64) -> str:
    graph.initializer.append(numpy_helper.from_array(np.array(value, kind), name))
    return name


def control_flow(graph: onnx.GraphProto) -> None:
    made = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Identity", ["white"], ["inner"])], "b", [], [made])
    number(graph, "yes", True, np.bool_)
    joined(graph, helper.make_node("If", ["yes"], ["more"], then_branch=branch, else_branch=branch))


def circle(graph: onnx.GraphProto) -> None:
    joined(graph, helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]))


def twice(graph: onnx.GraphProto) -> None:
    joined(graph, helper.make_node("Relu", ["before"], ["before"]))


def many(graph: onnx.GraphProto) -> None:
    names = ["before", *(f"n{place}" for place in range(operators._MAX_NODES + 1))]
    joined(graph, *(helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)))


def bomb(graph: onnx.GraphProto) -> None:
    shape = number(graph, "large", [1, 2**20, 2**20])
    joined(
        graph,
        helper.make_node("ConstantOfShape", [shape], ["full"]),
        helper.make_node("ReduceMax", ["full"], ["x"]),
    )


def hidden_bomb(graph: onnx.GraphProto) -> None:
    """The size is computed from the pixels."""
    joined(
        graph,
        helper.make_node("ReduceSum", ["floats"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["n"], to=TensorProto.INT64),
        helper.make_node("Range", [number(graph, "begin", 0), "n", number(graph, "by", 1)], ["range"]),
        helper.make_node("Cast", ["range"], ["floating"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["floating"], ["x"]),
    )


def reshaped_by_pixels(graph: onnx.GraphProto) -> None:
    """OpenVINO reads what lies behind the tensor."""
    fails_when_run(graph)


def padded(graph: onnx.GraphProto) -> None:
    """How far is computed, as networks of TensorFlow do."""
    far = helper.make_node("ConstantOfShape", [number(graph, "pair", [2])], ["far"], value=billion())
    wide = helper.make_node("Pad", ["light", "far"], ["wide"])
    joined(graph, far, wide, helper.make_node("ReduceMax", ["wide"], ["x"]))


def billion() -> TensorProto:
    return helper.make_tensor("value", TensorProto.INT64, [1], [10**9])


def doubling(graph: onnx.GraphProto) -> None:
    names = ["column", *(f"n{place}" for place in range(40))]
    pairs = pairwise(names)
    doubled = [helper.make_node("Concat", [a, a], [b], axis=1) for a, b in pairs]
    joined(graph, *doubled, helper.make_node("ReduceMax", [names[-1]], ["x"]))


def claimed_constant(graph: onnx.GraphProto) -> None:
    graph.initializer.append(
        TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[2**40], raw_data=b"1234")
    )
    joined(graph, helper.make_node("ReduceMax", ["huge"], ["x"]))


def negative_constant(graph: onnx.GraphProto) -> None:
    graph.initializer.append(
        TensorProto(name="less", data_type=TensorProto.FLOAT, dims=[-1, -1], raw_data=b"1234")
    )
    joined(graph, helper.make_node("ReduceMax", ["less"], ["x"]))


def text_constant(graph: onnx.GraphProto) -> None:
    graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [1], [b"x"]))
    joined(graph, helper.make_node("Size", ["words"], ["x"]))


def constant_in_a_file(graph: onnx.GraphProto) -> None:
    made = helper.make_tensor("outside", TensorProto.FLOAT, [1], [1.0])
    made.data_location = TensorProto.EXTERNAL
    made.external_data.add(key="location", value="/etc/passwd")
    joined(graph, helper.make_node("Constant", [], ["x"], value=made))


def sparse(graph: onnx.GraphProto) -> None:
    node = helper.make_node("Constant", [], ["x"])
    node.attribute.append(AttributeProto(name="sparse_value", type=AttributeProto.SPARSE_TENSOR))
    joined(graph, node)


SPOILED: dict[Callable[[onnx.GraphProto], None], str] = {
    control_flow: "has the operation 'If'",
    circle: "uses 'b' before it is made",
    twice: "makes a tensor twice",
    many: "operations, more than 20,000",
    bomb: "of shape [1, 1048576, 1048576]",
    hidden_bomb: "has a tensor 'range' whose size depends on the pixels",
    reshaped_by_pixels: "has a tensor 'y' whose size depends on the pixels",
    padded: "has a tensor 'wide' of shape [2000000001]",
    doubling: "has a tensor",
    claimed_constant: "has a constant 'huge' of 1 values for the shape [1099511627776]",
    negative_constant: "has a constant 'less'",
    text_constant: "has a constant 'words' that is not numbers",
    constant_in_a_file: "has a constant 'outside' in another file",
    sparse: "has the attribute 'sparse_value'",
}


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_a_graph_that_headstart_would_not_write_is_refused(
    model: Model, folder: Path, spoil: Callable[[onnx.GraphProto], None]
) -> None:
    graph = with_graph(model, lambda made: spoil(made.graph))
    assert SPOILED[spoil] in str(graph_fault(graph))
    plant(folder, "model.onnx", graph.SerializeToString())
    refused(folder, f"graph of model {str(folder)!r} ")


@pytest.mark.parametrize("opsets", [[("", 17)], [("", 18), ("com.other", 1)], [("ai.onnx.ml", 3)], []])
def test_other_sets_of_operations_are_refused(model: Model, opsets: list[tuple[str, int]]) -> None:
    def change(graph: onnx.ModelProto) -> None:
        del graph.opset_import[:]
        graph.opset_import.extend(helper.make_opsetid(*one) for one in opsets)

    assert "is not of ONNX opset 18 alone" in str(graph_fault(with_graph(model, change)))
    assert graph_fault(with_graph(model, lambda graph: None)) is None


def test_a_graph_of_other_numbers_or_without_a_layer_is_refused(model: Model, folder: Path) -> None:
    def floats(graph: onnx.ModelProto) -> None:
        graph.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT

    plant(folder, "model.onnx", with_graph(model, floats).SerializeToString())
    refused(folder, "has other types of numbers")
    other = replace(model, manifest=replace(model.manifest, layers={"mean": (1,), "nowhere": (1,)}))
    with pytest.raises(ModelError, match="has no layer 'nowhere'"):
        other.save(folder.parent / "other")
    assert os.listdir(folder.parent) == ["model"]


# ---- what a runtime refuses, and what it gives


def spoiled(model: Model, spoil: Callable[[onnx.GraphProto], None]) -> Model:
    return replace(model, graph=with_graph(model, lambda made: spoil(made.graph)).SerializeToString())


def incompatible(graph: onnx.GraphProto) -> None:
    number(graph, "three", [1.0, 2.0, 3.0], np.float32)
    joined(
        graph,
        helper.make_node("Add", ["column", "three"], ["y"]),
        helper.make_node("Conv", ["y", "three"], ["x"]),
    )


def fails_when_run(graph: onnx.GraphProto) -> None:
    """The new shape is computed from the pixels, and does not fit."""
    number(graph, "none", [7], np.int64)
    joined(
        graph,
        helper.make_node("Cast", ["mean"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["whole", "none"], ["sizes"]),
        helper.make_node("Reshape", ["floats", "sizes"], ["y"]),
        helper.make_node("ReduceMax", ["y"], ["x"]),
    )


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("spoil", [incompatible, fails_when_run])
def test_what_a_runtime_refuses_is_one_sentence(
    model: Model, runtime: str, spoil: Callable[[onnx.GraphProto], None]
) -> None:
    if (spoil, runtime) == (fails_when_run, "openvino"):
        pytest.skip("it computes with what lies behind the tensor; the audit refuses such graphs")
    images = from_arrays(np.full((1, SIZE, SIZE, 1), 9, np.uint8), ["dark"])
    with pytest.raises(
        ModelError, match=f"graph is refused by the runtime {runtime} .*expected one"
    ) as caught:
        spoiled(model, spoil).predict(images, runtime_name=runtime)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def not_a_number(graph: onnx.GraphProto) -> None:
    joined(graph, helper.make_node("Log", [number(graph, "below", -1.0, np.float32)], ["x"]))


def sevens(graph: onnx.GraphProto) -> None:
    joined(graph, helper.make_node("Identity", [number(graph, "seven", 7.0, np.float32)], ["x"]))


def three_classes(graph: onnx.GraphProto) -> None:
    joined(graph, helper.make_node("Identity", ["column"], ["x"]))
    del graph.node[-1]
    graph.node.append(helper.make_node("Concat", ["before", "x"], ["probabilities"], axis=1))


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (not_a_number, "values that are not probabilities for 2 of 2 images"),
        (sevens, "values that are not probabilities for 2 of 2 images"),
        (three_classes, r"outputs of shape \(2, 3\) and"),
    ],
)
def test_what_is_no_probability_is_an_error(
    model: Model, runtime: str, spoil: Callable[[onnx.GraphProto], None], said: str
) -> None:
    images = from_arrays(np.full((2, SIZE, SIZE, 1), 9, np.uint8), ["dark", "light"])
    with pytest.raises(ModelError, match=f"model 'tiny' gives {said}"):
        spoiled(model, spoil).probabilities(images, runtime_name=runtime)


def test_novelty_that_is_no_number_is_an_error(model: Model) -> None:
    def spoil(graph: onnx.GraphProto) -> None:
        graph.node[-1].input[1] = "nothing"
        graph.initializer.append(numpy_helper.from_array(np.array(np.nan, np.float32), "nothing"))

    images = from_arrays(np.full((1, SIZE, SIZE, 1), 9, np.uint8), ["dark"])
    with pytest.raises(ModelError, match="values that are not probabilities for 1 of 1"):
        spoiled(model, spoil).predict(images)


# ---- files


def test_a_report_is_checked_where_it_is_listed(model: Model, folder: Path) -> None:
    assert open_model(folder).manifest.report is not None
    (folder / "report.html").write_text("<p>another</p>")
    refused(folder, "file report.html of model")
    (folder / "report.html").unlink()
    assert open_model(folder).manifest.report is not None, "a report may be left out"
    without = model.save(folder.parent / "without")
    (without / "report.html").write_text("<script>")
    assert open_model(without).manifest.report is None


def test_a_file_above_the_limit_is_not_read(
    model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sparse file of 3 GiB: its size alone is enough."""
    with (folder / "model.onnx").open("r+b") as file:
        file.truncate(3 * 2**30)
    monkeypatch.setattr(
        audit, "_check", lambda file, *rest: pytest.fail("read") if not rest else real(file, *rest)
    )
    refused(folder, "bytes, expected")
    document = json.loads((folder / "manifest.json").read_text())
    document["files"]["model.onnx"]["size_bytes"] = 3 * 2**30
    (folder / "manifest.json").write_text(json.dumps({**document, "checksum": checksum(document)}))
    refused(folder, "missing or malformed field (3221225472 is not from 0 to 2147483648)")


real = audit._check


def test_a_pipe_in_place_of_a_file_does_not_block(folder: Path) -> None:
    (folder / "card.md").unlink()
    os.mkfifo(folder / "card.md")
    refused(folder, "file card.md of model")


# ---- the manifest


def test_any_change_of_a_value_is_refused(folder: Path) -> None:
    """Every value in turn; whoever changes the checksum, too, gets the checks of each value."""
    text = (folder / "manifest.json").read_text()
    document = json.loads(text)
    n_changed = 0

    def walk(value: Any, change: Callable[[Any], None]) -> None:
        nonlocal n_changed
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, lambda new, name=name, value=value: value.__setitem__(name, new))
            return
        if isinstance(value, list):
            for place, inner in enumerate(value):
                walk(inner, lambda new, place=place, value=value: value.__setitem__(place, new))
            return
        new = {str: f"{value}0", int: 7 if value != 7 else 8, float: 0.123, type(None): 1}.get(
            type(value), None
        )
        change(new)
        n_changed += 1
        with pytest.raises(ModelError):
            read_manifest(json.dumps(document), "x")
        change(value)

    walk(document, lambda new: None)
    assert n_changed > 30 and read_manifest(json.dumps(document), "x") == read_manifest(text, "x")


def test_bytes_of_a_manifest_changed_by_chance_are_refused(folder: Path) -> None:
    data, rng = (folder / "manifest.json").read_bytes(), random.Random(0)
    wanted = read_manifest(data.decode(), "x")
    for _ in range(400):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            found = read_manifest(bytes(changed).decode(), "x")
        except (ModelError, UnicodeDecodeError):
            continue
        assert found == wanted, "a change of spaces changes no value"


def test_a_manifest_from_before_the_checksum_opens(folder: Path) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    for name in ("checksum", "report"):
        del document[name]
    path.write_text(json.dumps(document))
    assert open_model(folder).manifest.report is None
    document["report"] = None
    path.write_text(json.dumps(document))
    refused(folder, "its checksum differs")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(seed=-1),
        lambda d: d.update(seed=1.5),
        lambda d: d.update(seed=True),
        lambda d: d.update(name="x" * 20_000),
        lambda d: d.update(source_fingerprint="not hexadecimal"),
        lambda d: d["input"].update(policy="stretch"),
        lambda d: d["input"].update(interpolation="nearest"),
        lambda d: d["input"].update(crop_share=0.0),
        lambda d: d["input"].update(crop_share=1.5),
        lambda d: d["input"].update(std=[0.0]),
        lambda d: d["input"].update(std=[float("nan")]),
        lambda d: d["input"].update(mean=[]),
        lambda d: d["input"].update(height_px=8.0),
        lambda d: d["taps"].update(mean=[0]),
        lambda d: d["taps"].update(mean=[]),
        lambda d: d["head"].pop("name"),
        lambda d: d["head"].update(chosen=[]),
        lambda d: d["head"].update(chosen={"strength": "x"}),
        lambda d: d["data"].pop("counts"),
        lambda d: d["data"].update(counts={"dark": "many"}),
        lambda d: d["data"].update(n_images=-1),
        lambda d: d["data"].update(holdout={"share": 2, "seed": 0, "n_images": 1}),
        lambda d: d["data"].update(holdout={}),
        lambda d: d["scores"].update(val_accuracy="high"),
        lambda d: d["timing"].update(learning_s="long"),
        lambda d: d["versions"].update(numpy=2),
        lambda d: d["settings"].update(run=[]),
        lambda d: d["calibration"].update(after={}),
        lambda d: d["calibration"].update(after={"ece": "x", "brier": 0, "nll": 0, "n": 1}),
        lambda d: d["novelty"].update(false_rejection=0),
        lambda d: d["novelty"].pop("false_rejection"),
        lambda d: d.update(source={"name": 7}),
        lambda d: d.update(source={"name": "x", "tap": "y"}),
        lambda d: d["settings"].update(deep=[[[[[[[[[[1]]]]]]]]]]),
        lambda d: d["files"]["card.md"].update(sha256="00"),
    ],
    ids=range(35),
)
def test_a_value_that_would_be_used_wrongly_is_refused(folder: Path, change: Callable[[Any], Any]) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps({**document, "checksum": checksum(document)}))
    refused(folder, "missing or malformed field")


def test_policies_are_those_that_exist() -> None:
    from headstart.data.images.fit import POLICIES
    from headstart.graph.wrap import _MODES
    from headstart.models import values

    assert set(values.POLICIES) == set(POLICIES) and set(values.INTERPOLATIONS) == set(_MODES)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x1b[2Jb", "x" * 201, "\u202e"])
def test_a_model_gets_a_name_of_one_line(model: Model, name: str) -> None:
    assert model.named("Weeds of 2026").manifest.name == "Weeds of 2026" and model.named(None) is model
    with pytest.raises(SettingError, match=r"expected 1 to 200 characters on one line"):
        model.named(name)


def test_nothing_is_saved_that_could_not_be_opened(model: Model, tmp_path: Path) -> None:
    other = replace(model.manifest, novelty={"by": "hand"})
    with pytest.raises(ModelError, match="false_rejection"):
        write_folder(tmp_path / "model", other, {"model.onnx": model.graph}, None)
    assert not os.listdir(tmp_path)
    assert manifest.LIMIT_FILE_BYTES == 2 * 2**30
    note = {name: FileNote(1, "0" * 64) for name in manifest.FILES}
    assert read_manifest(write_manifest(replace(model.manifest, files=note)), "x").files == note
