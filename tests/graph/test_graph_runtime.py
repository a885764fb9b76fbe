"""Runtimes: rows stay in place, batches may have any size, both give the same numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

from headstart.errors import ModelError, SettingError
from headstart.graph import run as runtime
from headstart.graph.build import INPUT, GraphBuilder
from headstart.graph.layers import network_graph, normalise
from headstart.graph.pooling import pool
from headstart.graph.run import PRECISIONS, RUNTIMES, compile_graph, resolve_precision, split_batches
from headstart.networks.engines.numpy_engine import initial_weights
from headstart.networks.specs import architecture
from headstart.records import Array, Images, InputSpec

CNN = architecture("cnn", InputSpec(28, 28, 1), 10)


def has_bf16() -> bool:
    return resolve_precision("auto", "openvino") == "bf16"


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    return network_graph(CNN, initial_weights(CNN, 0))


@pytest.fixture(scope="module")
def images() -> Images:
    return np.random.default_rng(0).integers(0, 256, (37, 28, 28, 1), dtype=np.uint8)


def numbering() -> onnx.ModelProto:
    """A graph that reads each image's number off its first two pixels."""
    builder = GraphBuilder(input_spec=InputSpec(1, 2, 1))
    flat = builder.add("Flatten", builder.add("Cast", INPUT, to=1), axis=1)
    weight = builder.constant("weight", np.array([[256.0], [1.0]], np.float32))
    return builder.model([builder.add("MatMul", flat, weight)])


def numbered(n_images: int) -> Images:
    return np.stack(np.divmod(np.arange(n_images), 256), axis=1).astype(np.uint8).reshape(-1, 1, 2, 1)


def cut(images: Images, sizes: Sequence[int]) -> list[Images]:
    return np.split(images, np.cumsum(sizes)[:-1])


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize(
    "sizes", [[1], [16], [17], [16, 16, 3], [1, 1, 1], [3, 40, 5, 16, 2], [15] * 40, [1] * 300]
)
def test_rows_stay_in_place_whatever_the_batches(name: str, sizes: list[int]) -> None:
    """Requests in flight end in any order."""
    n_images = sum(sizes)
    ready = compile_graph(numbering(), runtime=name, precision="fp32", batch_size=16)
    got = ready.run(iter(cut(numbered(n_images), sizes)), n_images)
    assert got.dtype == np.float32 and got[:, 0].tolist() == list(range(n_images))


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_output_comes_in_one_pass_and_what_was_given_stays(name: str) -> None:
    builder = GraphBuilder(numbering())
    first = numbering().graph.output[0].name
    builder.add("Neg", first, name="negative")
    ready = compile_graph(builder.model([first, "negative"]), runtime=name, precision="fp32", batch_size=4)
    parts = list(ready.stream(split_batches(numbered(50), 10)))
    ahead, back = (np.concatenate(each)[:, 0].tolist() for each in zip(*parts, strict=True))
    assert ahead == list(range(50)) and back == [-value for value in range(50)]


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_batch_may_be_reused_by_who_made_it(name: str) -> None:
    """A reader fills one buffer again and again; what is in flight must not change under it."""
    buffer = np.empty((8, 1, 2, 1), np.uint8)

    def stream() -> object:
        for part in split_batches(numbered(800), 8):
            buffer[:] = part
            yield buffer
        buffer[:] = 255

    ready = compile_graph(numbering(), runtime=name, precision="fp32", batch_size=8)
    assert ready.run(stream(), 800)[:, 0].tolist() == list(range(800))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_answer_does_not_depend_on_the_batch(name: str, network: onnx.ModelProto, images: Images) -> None:
    ready = compile_graph(network, runtime=name, precision="fp32", batch_size=16)
    whole = ready.run([images], len(images))
    assert whole.shape == (37, 10)
    alone = np.concatenate([ready.run([images[i : i + 1]], 1) for i in (0, 20, 36)])
    np.testing.assert_allclose(alone, whole[[0, 20, 36]], rtol=1e-4, atol=1e-5)
    assert np.array_equal(ready.run([images], 37), whole), "the same batches give the same bits"


@pytest.mark.parametrize("name", RUNTIMES)
def test_too_few_images_are_noticed(name: str) -> None:
    ready = compile_graph(numbering(), runtime=name, precision="fp32", batch_size=8)
    with pytest.raises(AssertionError, match="batches held 5 images, 6 were announced"):
        ready.run([numbered(5)], 6)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_reader_s_error_comes_through(name: str) -> None:
    def broken() -> object:
        yield numbered(8)
        raise OSError("image 9 is broken")

    ready = compile_graph(numbering(), runtime=name, precision="fp32", batch_size=8)
    with pytest.raises(OSError, match="image 9"):
        ready.run(broken(), 16)  # type: ignore[arg-type]
    assert ready.run([numbered(3)], 3)[:, 0].tolist() == [0, 1, 2], "and the next run is sound"


def relative(one: Array, other: Array) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


def features(layer: str, pooling: str) -> onnx.ModelProto:
    builder = GraphBuilder(network_graph(CNN, initial_weights(CNN, 0)))
    shape = {"block1": (32, 13, 13), "block3": (64, 3, 3), "hidden1": (64,)}[layer]
    return builder.model([pool(builder, layer, shape, pooling)])


TAPS = [("block1", "avg"), ("block3", "flat"), ("block3", "grid2"), ("hidden1", "flat")]


@pytest.mark.parametrize(("layer", "pooling"), TAPS)
def test_runtimes_agree_in_fp32(layer: str, pooling: str, images: Images) -> None:
    one, other = (
        compile_graph(features(layer, pooling), runtime=name, precision="fp32") for name in RUNTIMES
    )
    assert one.precision == other.precision == "fp32" and (one.runtime, other.runtime) == RUNTIMES
    assert relative(one.run([images], 37), other.run([images], 37)) <= 1e-4


@pytest.mark.parametrize(("layer", "pooling"), TAPS)
def test_bf16_is_near(layer: str, pooling: str, images: Images) -> None:
    if not has_bf16():
        pytest.skip("this CPU does not compute in bf16")
    exact = compile_graph(features(layer, pooling), precision="fp32").run([images], 37)
    ready = compile_graph(features(layer, pooling), precision="bf16")
    assert ready.precision == "bf16"
    difference = relative(ready.run([images], 37), exact)
    assert 0 < difference <= 0.05


def test_auto_says_what_it_became() -> None:
    assert resolve_precision("auto", "onnxruntime") == "fp32"
    assert resolve_precision("auto", "openvino") in ("fp32", "bf16")
    for name in RUNTIMES:
        assert resolve_precision("fp32", name) == "fp32"
        assert compile_graph(numbering(), runtime=name, precision="auto").precision == resolve_precision(
            "auto", name
        )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"runtime": "openvin"},
            "runtime 'openvin' is unknown, expected one of openvino, onnxruntime; nearest are openvino",
        ),
        (
            {"precision": "fp23"},
            "precision 'fp23' is unknown, expected one of auto, fp32, bf16, int8; nearest are fp32",
        ),
        (
            {"precision": "bf16", "runtime": "onnxruntime"},
            r"precision is 'bf16', expected a CPU and a runtime .*'onnxruntime'.*use fp32",
        ),
    ],
)
def test_what_cannot_be_had_is_one_sentence(changes: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        compile_graph(numbering(), **changes)


def test_bf16_is_refused_where_the_cpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        def get_property(self, *_: str) -> list[str]:
            return ["FP32", "INT8"]

    monkeypatch.setattr(runtime, "openvino_core", Plain)
    assert resolve_precision("auto", "openvino") == "fp32"
    with pytest.raises(SettingError, match=r"runtime is 'openvino'"):
        resolve_precision("bf16", "openvino")


def test_names_are_what_the_command_line_offers() -> None:
    assert RUNTIMES == ("openvino", "onnxruntime") and PRECISIONS == ("auto", "fp32", "bf16", "int8")


def test_split_batches_copies_nothing_and_loses_nothing(images: Images) -> None:
    parts = list(split_batches(images, 16))
    assert [len(part) for part in parts] == [16, 16, 5]
    assert all(np.shares_memory(part, images) for part in parts)
    assert np.array_equal(np.concatenate(parts), images)
    assert list(split_batches(images[:0], 16)) == []


def test_normalise_is_not_lost_in_a_runtime() -> None:
    spec = InputSpec(1, 2, 1, (0.5,), (0.25,))
    builder = GraphBuilder(input_spec=spec)
    model = builder.model([normalise(builder, spec)])
    for name in RUNTIMES:
        got = compile_graph(model, runtime=name, precision="fp32", batch_size=2).run([numbered(2)], 2)
        np.testing.assert_allclose(got.ravel(), [-2.0, -2.0, -2.0, (1 / 255 - 0.5) / 0.25], rtol=1e-5)


def test_a_refusal_while_running_is_an_error_and_no_lines_of_the_runtimes(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """An index that the pixels decide, beyond the end: ONNX Runtime printed two coloured lines."""
    builder = GraphBuilder(input_spec=InputSpec(2, 2, 1))
    place = builder.add("Cast", builder.add("Flatten", INPUT, axis=1), to=7)
    few = builder.constant("few", np.zeros(3, np.float32))
    graph = builder.model([builder.add("Gather", few, place, axis=0)])
    run = compile_graph(graph, runtime="onnxruntime")
    with pytest.raises(ModelError, match="is refused by the runtime onnxruntime"):
        run.run([np.full((1, 2, 2, 1), 9, np.uint8)], 1)
    assert capfd.readouterr().err == ""
