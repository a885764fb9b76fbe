"""Networks exported elsewhere as graphs: enlarging, grafting, joined layers, and their operations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from headstart.graph.build import INPUT, GraphBuilder
from headstart.graph.layers import normalise
from headstart.graph.pooling import pool, read
from headstart.graph.run import compile_graph
from headstart.graph.wrap import flops_of, with_image_input
from headstart.records import Array, Images, InputSpec, Source
from headstart.sources.features import feature_graph

SCALING = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


def images_of(spec: InputSpec, n: int = 3) -> Images:
    return np.random.default_rng(0).integers(0, 256, (n, *spec.shape), dtype=np.uint8)


def outputs(model: onnx.ModelProto, images: Images) -> tuple[Array, ...]:
    return next(compile_graph(model, runtime="onnxruntime", precision="fp32").stream([images]))


def drawn(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def empty(*shape: int, name: str = "x") -> GraphBuilder:
    """A graph to fill, on float images as other exporters make them."""
    value = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])
    return GraphBuilder(helper.make_model(helper.make_graph([], "theirs", [value], [])))


def echo(size: tuple[int, int]) -> onnx.ModelProto:
    """A network that gives back what it gets."""
    builder = empty(3, *size)
    return builder.model([builder.add("Identity", "x", name="got")])


def small(size: tuple[int, int], name: str = "x") -> onnx.ModelProto:
    """Two stages and logits."""
    builder = empty(3, *size, name=name)
    maps = builder.add("Conv", name, builder.constant("w1", drawn(4, 3, 3, 3)), name="stage1", pads=[1] * 4)
    maps = builder.add("Relu", maps, name="positive")
    maps = builder.add("Conv", maps, builder.constant("w2", drawn(6, 4, 2, 2)), name="stage2", strides=[2, 2])
    rows = builder.add(
        "ReduceMean", maps, builder.constant("axes", np.array([2, 3])), name="mean", keepdims=0
    )
    builder.add("Gemm", rows, builder.constant("w3", drawn(5, 6)), name="logits", transB=1)
    return builder.model(["stage1", "stage2", "logits"])


def scaled(images: Images) -> NDArray[np.float64]:
    """(n, 3, h, w), grey repeated."""
    mean, std = SCALING
    return ((np.repeat(images, 3 // images.shape[3], axis=3) / 255.0 - mean) / std).transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((28, 28, 1), (32, 32)), ((5, 7, 1), (16, 12)), ((8, 6, 3), (9, 31)), ((1, 1, 1), (4, 4))],
)
def test_small_images_are_enlarged_as_torch_does(shape: tuple[int, int, int], size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    spec = InputSpec(*shape, *SCALING)
    model, images = with_image_input(echo(size), spec, size), images_of(spec)
    (got,) = outputs(model, images)
    wanted = torch.nn.functional.interpolate(torch.tensor(scaled(images)), size, mode="bilinear")
    np.testing.assert_allclose(got, wanted.numpy(), atol=1e-5)
    onnx.checker.check_model(model, full_check=True)


def test_bicubic_is_pillow_s_but_at_the_border() -> None:
    """Pillow's filter, so that an image enlarged here is as one enlarged before."""
    spec = InputSpec(12, 10, 3, *SCALING, interpolation="bicubic")
    images = images_of(spec, 1)
    (got,) = outputs(with_image_input(echo((36, 40)), spec, (36, 40)), images)
    for channel, values in enumerate(scaled(images)[0].astype(np.float32)):
        wanted = np.asarray(Image.fromarray(values).resize((40, 36), Image.Resampling.BICUBIC))
        inner = np.s_[6:-6, 8:-8]  # two pixels of the image
        np.testing.assert_allclose(got[0, channel][inner], wanted[inner], atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_the_network_s_size_are_only_scaled(channels: int) -> None:
    spec = InputSpec(8, 6, channels, *SCALING)
    model, images = with_image_input(echo((8, 6)), spec, (8, 6)), images_of(spec)
    assert "Resize" not in {node.op_type for node in model.graph.node}
    np.testing.assert_allclose(outputs(model, images)[0], scaled(images), atol=1e-6)


@pytest.mark.parametrize("name", ["x", "pixels", "images"])
def test_an_adopted_network_keeps_its_outputs_whatever_its_input_is_called(name: str) -> None:
    spec = InputSpec(10, 8, 3, *SCALING)
    model, images = with_image_input(small((10, 8), name), spec, (10, 8)), images_of(spec)
    assert [value.name for value in model.graph.input] == [INPUT]
    assert [value.name for value in model.graph.output] == ["stage1", "stage2", "logits"]
    onnx.checker.check_model(model, full_check=True)
    stage1, stage2, logits = outputs(model, images)
    assert (stage1.shape, stage2.shape, logits.shape) == ((3, 4, 10, 8), (3, 6, 5, 4), (3, 5))
    np.testing.assert_allclose(logits, stage2.mean(axis=(2, 3)) @ drawn(5, 6).T, atol=1e-5)


def test_a_graft_keeps_names_and_takes_its_inputs_from_ours() -> None:
    spec = InputSpec(4, 4, 3)
    builder = GraphBuilder(input_spec=spec)
    pixels = normalise(builder, spec)
    theirs = small((4, 4))
    builder.graft(theirs, {"x": pixels})
    assert builder.has("stage1") and builder.has("pixels") and not builder.has("x")
    assert next(node for node in theirs.graph.node if node.name == "stage1").input[0] == "x", "theirs stays"
    model = builder.model(["logits"])
    assert {tensor.name for tensor in model.graph.initializer} >= {"w1", "w2", "w3"}
    again = GraphBuilder(theirs)
    assert again.has("logits") and not again.has("w1"), "a constant is not made by an operation"


SPEC = InputSpec(10, 8, 3, *SCALING)
TAPS = {"stage1": (4, 10, 8), "stage2": (6, 5, 4), "logits": (5,)}


def read_at(places: Sequence[tuple[str, str]], images: Images) -> tuple[Array, ...]:
    builder = GraphBuilder(with_image_input(small((10, 8)), SPEC, (10, 8)))
    return outputs(builder.model([read(builder, TAPS, *place) for place in places]), images)


@pytest.mark.parametrize("pooling", ["avg", "grid2", "flat"])
def test_a_joined_place_is_its_parts_side_by_side(pooling: str) -> None:
    """All in one graph, the parts pooled once."""
    layers = ["stage1+stage2", "stage1", "stage2", "stage2+stage1+logits", "logits"]
    joined, one, two, three, row = read_at([(layer, pooling) for layer in layers], images_of(SPEC))
    assert np.array_equal(joined, np.concatenate([one, two], axis=1))
    assert np.array_equal(three, np.concatenate([two, one, row], axis=1))


def test_what_is_pooled_once_is_not_pooled_again() -> None:
    builder = GraphBuilder(with_image_input(small((10, 8)), SPEC, (10, 8)))
    assert read(builder, TAPS, "stage1", "avg") == pool(builder, "stage1", TAPS["stage1"], "avg")
    read(builder, TAPS, "stage1+stage2", "avg")
    model = builder.model(["stage1.avg", "stage1+stage2.avg"])
    assert sum(node.output[0] == "stage1.avg" for node in model.graph.node) == 1


def test_a_source_gives_places_that_share_a_layer() -> None:
    graph = with_image_input(small((10, 8)), SPEC, (10, 8)).SerializeToString()
    source = Source("theirs", graph, SPEC, TAPS, "stage2", "0" * 64)
    places = [("stage1+stage2", "grid2"), ("stage2", "grid2"), ("stage2", "avg"), ("stage1+stage2", "avg")]
    images = images_of(SPEC)
    got = outputs(feature_graph(source, places), images)
    assert [rows.shape for rows in got] == [(3, 40), (3, 24), (3, 6), (3, 10)]
    for rows, place in zip(got, places, strict=True):
        assert np.array_equal(rows, read_at([place], images)[0])


def test_operations_are_those_counted_by_hand() -> None:
    conv1, conv2, gemm = 4 * 3 * 9 * 10 * 8, 6 * 4 * 4 * 5 * 4, 5 * 6
    assert flops_of(small((10, 8))) == 2 * (conv1 + conv2 + gemm)
    assert flops_of(with_image_input(small((10, 8)), InputSpec(5, 4, 1, *SCALING), (10, 8))) == 2 * (
        conv1 + conv2 + gemm
    )


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_grouped_convolutions_cost_less(groups: int) -> None:
    builder = empty(6, 7, 9)
    weight = builder.constant("weight", drawn(12, 6 // groups, 3, 3))
    builder.add("Conv", "x", weight, name="maps", group=groups, strides=[2, 2])
    assert flops_of(builder.model(["maps"])) == 2 * 12 * (6 // groups) * 9 * 3 * 4


def test_products_cost_their_inner_side_for_every_output() -> None:
    builder = empty(11, 8)
    builder.add("MatMul", "x", builder.constant("weight", drawn(8, 5)), name="rows")
    assert flops_of(builder.model(["rows"])) == 2 * 11 * 8 * 5


def test_products_after_a_reshape_are_counted_too() -> None:
    """Attention: heads are split by the number of images read from the tensor itself."""
    builder = empty(11, 8)
    shape = builder.add("Shape", "x", name="shape", end=1)
    heads = builder.add("Concat", shape, builder.constant("heads", np.array([11, 2, 4])), name="to", axis=0)
    split = builder.add("Reshape", "x", heads, name="split")
    rows = builder.add("Transpose", split, name="queries", perm=[0, 2, 1, 3])
    keys = builder.add("Transpose", split, name="keys", perm=[0, 2, 3, 1])
    builder.add("MatMul", rows, keys, name="likeness")
    assert flops_of(builder.model(["likeness"])) == 2 * 2 * 11 * 11 * 4


def test_other_products_are_counted_too() -> None:
    builder = empty(6, 5, 5)
    maps = builder.add(
        "ConvTranspose", "x", builder.constant("w", drawn(6, 4, 2, 2)), name="up", strides=[2, 2]
    )
    rows = builder.add("Flatten", maps, name="rows")
    turned = builder.add("Transpose", rows, name="turned", perm=[1, 0])
    builder.add("Gemm", turned, builder.constant("w2", drawn(400, 3)), name="out", transA=1)
    assert flops_of(builder.model(["out"])) == 2 * (6 * 25 * 4 * 4 + 400 * 3)


def test_an_einsum_is_a_loop_over_its_indices() -> None:
    builder = empty(11, 8)
    builder.add("Einsum", "x", builder.constant("w", drawn(8, 5)), name="rows", equation="...qd, dk -> ...qk")
    assert flops_of(builder.model(["rows"])) == 2 * 11 * 8 * 5


def test_recurrent_layers_cost_both_matrices_at_every_step() -> None:
    builder = empty(7, 4)
    steps = builder.add("Transpose", "x", name="steps", perm=[1, 0, 2])
    weights = [builder.constant("w", drawn(2, 20, 4)), builder.constant("r", drawn(2, 20, 5))]
    builder.add("LSTM", steps, *weights, name="states", hidden_size=5, direction="bidirectional")
    assert flops_of(builder.model(["states"])) == 2 * 7 * 2 * 20 * (4 + 5)


def test_what_only_an_earlier_output_needs_costs_nothing() -> None:
    """A network's head is there twice where two outputs need it."""
    network = small((10, 8))
    network.graph.node.append(helper.make_node("Identity", ["stage1"], ["again"]))
    network.graph.output.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, None))
    assert flops_of(network) == 2 * 4 * 3 * 9 * 10 * 8
