"""Shapes known without running a graph are those that a run gives; computed sizes are followed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headstart.graph.run import ReferenceRun
from headstart.graph.shapes import known_shapes
from headstart.records import InputSpec
from headstart.sources.registry import open_source
from toy_graph import toy


def measured(model: onnx.ModelProto, names: list[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors in a run on one image."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for name in names:
        probe.graph.node.append(helper.make_node("Shape", [name], [f"{name}/shape"]))
        probe.graph.output.append(helper.make_tensor_value_info(f"{name}/shape", TensorProto.INT64, None))
    sizes = [one.dim_value for one in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    found = ReferenceRun(probe)(np.zeros((1, *sizes), np.uint8))
    return {name: tuple(shape.tolist()) for name, shape in zip(names, found, strict=True)}


def compare(data: bytes) -> None:
    model = onnx.ModelProto.FromString(data)
    names = [name for node in model.graph.node for name in node.output if name]
    shapes = known_shapes(model.graph)
    assert not set(names) - set(shapes)
    assert {name: shapes[name] for name in names} == measured(model, names)


@pytest.mark.parametrize("novelty", [False, True])
def test_shapes_of_our_own_graphs_are_those_of_a_run(novelty: bool) -> None:
    compare(toy(InputSpec(9, 7, 3), novelty=novelty))
    compare(open_source("drawings").graph)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_b0", "vit_tiny_patch16_224", "levit_128s"])
def test_shapes_of_exported_networks_are_those_of_a_run(name: str) -> None:
    """TensorFlow's paddings and the tokens of a transformer have computed sizes."""
    pytest.importorskip("timm")
    compare(open_source(f"random:timm:{name}").graph)


NUMBERS = {
    "Add": (3, 4),
    "Sub": (9, 4),
    "Mul": (2, 3),
    "Div": (7, 2),
    "Mod": (7, 4),
    "Min": (7, 4),
    "Max": (2, 4),
}


@pytest.mark.parametrize("operator", NUMBERS)
def test_computed_sizes_are_followed(operator: str) -> None:
    one, other = (
        numpy_helper.from_array(np.array([value]), name)
        for value, name in zip(NUMBERS[operator], "ab", strict=True)
    )
    nodes = [
        helper.make_node(operator, ["a", "b"], ["size"]),
        helper.make_node("Concat", ["size", "a"], ["sizes"], axis=0),
        helper.make_node("Gather", ["sizes", "first"], ["gathered"]),
        helper.make_node("ConstantOfShape", ["gathered"], ["full"]),
    ]
    image = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 2, 2, 1])
    out = helper.make_tensor_value_info("full", TensorProto.FLOAT, None)
    first = numpy_helper.from_array(np.array([0, 1]), "first")
    graph = helper.make_graph(nodes, "x", [image], [out], [one, other, first])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    assert known_shapes(graph)["full"] == measured(model, ["full"])["full"]


def test_sizes_that_depend_on_pixels_are_not_known() -> None:
    nodes = [
        helper.make_node("Cast", ["images"], ["whole"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["whole"], ["largest"], keepdims=0),
        helper.make_node("Range", ["zero", "largest", "one"], ["range"]),
    ]
    image = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 2, 2, 1])
    out = helper.make_tensor_value_info("range", TensorProto.INT64, None)
    constants = [numpy_helper.from_array(np.array(value), name) for value, name in ((0, "zero"), (1, "one"))]
    assert "range" not in known_shapes(helper.make_graph(nodes, "x", [image], [out], constants))
