"""Graphs: pooling against NumPy, scaling, cutting at a layer, and names that are wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from headstart.errors import SettingError, UnknownLayerError
from headstart.graph.build import INPUT, GraphBuilder, with_outputs
from headstart.graph.layers import network_graph, normalise
from headstart.graph.pooling import POOLINGS, pool
from headstart.graph.run import RUNTIMES, compile_graph
from headstart.networks.engines.numpy_engine import initial_weights
from headstart.networks.specs import architecture
from headstart.records import Array, Images, InputSpec

SPEC = architecture("cnn", InputSpec(28, 28, 1), 4)


def run(model: onnx.ModelProto, images: Images, runtime: str = "onnxruntime") -> Array:
    ready = compile_graph(model, runtime=runtime, precision="fp32", batch_size=len(images))
    return ready.run([images], len(images))


def images_of(*shape: int) -> Images:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def halves(size: int) -> list[slice]:
    """The two bins of adaptive pooling; an odd middle lies in both."""
    return [slice(0, -(-size // 2)), slice(size // 2, size)]


def grid2(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, h, w, c) to (n, 2 * 2 * c), in (row, column, channel) order."""
    parts = [
        maps[:, down, across].mean(axis=(1, 2))
        for down in halves(maps.shape[1])
        for across in halves(maps.shape[2])
    ]
    return np.concatenate(parts, axis=1)


NUMPY: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "avg": lambda maps: maps.mean(axis=(1, 2)),
    "flat": lambda maps: maps.reshape(len(maps), -1),
    "grid2": grid2,
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 1), (2, 3), (1, 8)])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_numpy_s(pooling: str, size: tuple[int, int], runtime: str) -> None:
    spec = InputSpec(*size, 3, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    builder, images = GraphBuilder(input_spec=spec), images_of(6, *size, 3)
    row = pool(builder, normalise(builder, spec), (3, *size), pooling)
    wanted = NUMPY[pooling]((images / 255.0 - spec.mean) / spec.std)
    np.testing.assert_allclose(run(builder.model([row]), images, runtime), wanted, atol=2e-6)


def test_adaptive_pooling_is_torch_s() -> None:
    """The reference above is checked too."""
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(0).normal(size=(2, 7, 5, 3))
    theirs = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(maps.transpose(0, 3, 1, 2)), 2)
    np.testing.assert_allclose(grid2(maps), theirs.permute(0, 2, 3, 1).flatten(1).numpy())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_row_of_features_passes_unchanged(pooling: str) -> None:
    builder = GraphBuilder(network_graph(SPEC, initial_weights(SPEC, 0)))
    assert pool(builder, "flatten", (576,), pooling) == "flatten"


@pytest.mark.parametrize("shape", [(64, 3, 3), (64,)])
def test_an_unknown_pooling_is_one_sentence(shape: tuple[int, ...]) -> None:
    builder = GraphBuilder(network_graph(SPEC, initial_weights(SPEC, 0)))
    with pytest.raises(
        SettingError, match="pooling 'grid' is unknown, expected one of avg, flat, grid2; nearest are grid2"
    ):
        pool(builder, "block3", shape, "grid")


def test_pixels_are_scaled_channel_by_channel() -> None:
    spec = InputSpec(3, 2, 3, (0.5, 0.0, 0.1), (0.5, 1.0, 0.2))
    builder, images = GraphBuilder(input_spec=spec), images_of(4, 3, 2, 3)
    name = normalise(builder, spec)
    assert name == "pixels"
    got = run(builder.model([name]), images)
    wanted = ((images / 255.0 - spec.mean) / spec.std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert got.dtype == np.float32


def test_a_graph_is_sound_and_the_same_each_time() -> None:
    one, other = (network_graph(SPEC, initial_weights(SPEC, 0)) for _ in range(2))
    onnx.checker.check_model(one, full_check=True)
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
    assert [value.name for value in one.graph.input] == [INPUT]
    assert [value.name for value in one.graph.output] == ["output"]
    assert set(SPEC.layer_names) <= {name for node in one.graph.node for name in node.output}


def test_a_cut_keeps_what_it_needs_and_gives_the_same_values() -> None:
    whole, images = network_graph(SPEC, initial_weights(SPEC, 0)), images_of(3, 28, 28, 1)
    cut = with_outputs(whole, ["block1"])
    assert {tensor.name for tensor in cut.graph.initializer} == {"input.scale", "conv1.weight", "conv1.bias"}
    assert not {"conv2", "output"} & {node.name for node in cut.graph.node}
    both = with_outputs(whole, ["hidden1", "output"])
    assert [value.name for value in both.graph.output] == ["hidden1", "output"]
    onnx.checker.check_model(cut, full_check=True)
    assert np.array_equal(run(with_outputs(whole, ["output"]), images), run(whole, images))
    assert run(cut, images).shape == (3, 32, 13, 13)


def test_an_unknown_tap_is_one_sentence() -> None:
    whole = network_graph(SPEC, initial_weights(SPEC, 0))
    with pytest.raises(UnknownLayerError, match=r"layer 'blok3' is unknown, expected .*; nearest are block3"):
        with_outputs(whole, ["conv1", "blok3"])


def test_a_new_graph_needs_an_input() -> None:
    with pytest.raises(SettingError, match="input_spec is None, expected an InputSpec for a new graph"):
        GraphBuilder()


def test_a_tensor_is_made_once() -> None:
    """ONNX Runtime refuses a graph that makes one twice, OpenVINO takes either."""
    builder = GraphBuilder(input_spec=InputSpec(2, 2, 1))
    for axis in (1, 2):
        builder.add("Flatten", builder.add("Cast", INPUT, to=1), name="flat", axis=axis)
    with pytest.raises(AssertionError, match="a tensor is made twice"):
        builder.model(["flat"])


def test_names_of_outputs_and_notes() -> None:
    builder = GraphBuilder(input_spec=InputSpec(2, 2, 1))
    pixels = builder.add("Cast", INPUT, to=1)
    flat = builder.add("Flatten", pixels, axis=1)
    k = builder.constant("k", np.array([2], np.int64))
    top = builder.add("TopK", flat, k, name="top", n_outputs=2)
    assert (pixels, flat, top) == ("cast_0", "flatten_1", "top")
    model = builder.model(["top"], {"note": "why"})
    assert list(model.graph.node[-1].output) == ["top", "top.1"]
    assert {one.key: one.value for one in model.metadata_props} == {"note": "why"}
    assert run(model, np.array([[[[9], [1]], [[3], [7]]]], np.uint8)).tolist() == [[9.0, 7.0]]
