"""A graph in 8 bits computes what whole numbers say, keeps its layers, and refuses what 8 bits do not help."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from headstart.errors import SettingError
from headstart.graph import build, layers
from headstart.graph.quantize import Int8Plan, int8_fault, plan_int8
from headstart.graph.run import ReferenceRun, compile_graph
from headstart.models.operators import graph_fault
from headstart.records import Array, Images, InputSpec

SPEC = InputSpec(12, 12, 3)


def weights(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def images(n: int = 16, seed: int = 1) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (n, *SPEC.shape)).astype(np.uint8)


def convolve(builder: build.GraphBuilder, given: str, name: str, n_in: int, n_out: int, **how: object) -> str:
    """A convolution of 3 x 3 with its own bias."""
    parts = [
        builder.constant(f"{name}.weight", weights(n_out, n_in, 3, 3, seed=n_out)),
        builder.constant(f"{name}.bias", weights(n_out, seed=n_in)),
    ]
    return builder.add("Conv", given, *parts, name=name, **(how or {"pads": [1] * 4}))


def network() -> onnx.ModelProto:
    """Three convolutions with a pooling and a residual sum, read at the second, the sum and a mean."""
    builder = build.GraphBuilder(input_spec=SPEC)
    first = builder.add("Relu", convolve(builder, layers.normalise(builder, SPEC), "first", 3, 8))
    pooled = builder.add("MaxPool", first, name="pooled", kernel_shape=[2, 2], strides=[2, 2])
    second = convolve(builder, pooled, "second", 8, 8)
    third = convolve(builder, second, "third", 8, 8)
    added = builder.add("Add", third, second, name="sum")
    last = convolve(builder, added, "last", 8, 4)
    axes = builder.constant("axes", np.array([2, 3], np.int64))
    builder.add("ReduceMean", last, axes, name="mean", keepdims=0)
    return builder.model(["second", "sum", "mean"])


def quantised(model: onnx.ModelProto, seen: Images) -> tuple[Int8Plan, onnx.ModelProto]:
    plan = plan_int8(model)
    ranges = compile_graph(plan.ranges_graph(), precision="fp32").run([seen], len(seen))
    return plan, plan.graph(ranges)


def test_layers_keep_their_names_and_nearly_their_values() -> None:
    model, seen = network(), images()
    plan, small = quantised(model, seen)
    assert plan.convolutions == {"first", "second", "third", "last"}
    assert [one.name for one in small.graph.output] == ["second", "sum", "mean"]
    new = images(seed=2)
    for exact, rounded in zip(ReferenceRun(model)(new), ReferenceRun(small)(new), strict=True):
        assert rounded.dtype == np.float32
        error = np.linalg.norm(exact - rounded) / np.linalg.norm(exact)
        assert 0 < error < 0.05


def test_a_convolution_is_one_of_whole_numbers() -> None:
    """The definition of Jacob et al. (2018), computed in NumPy, is what the graph computes."""
    model = network()
    plan, small = quantised(model, images())
    stored = {one.name: numpy_helper.to_array(one) for one in small.graph.initializer}
    kernel = stored["int8:second:weights:rounded"]
    assert kernel.dtype == np.int8
    assert (
        np.abs(kernel).reshape(8, -1).max(axis=1).tolist() == [127] * 8
    )  # symmetric, a scale for each channel
    assert stored["int8:second:weights:scale"].shape == (8,)
    assert list(plan.pooled) == ["pooled"]
    step, zero = (stored[f"int8:pooled:{part}"] for part in ("scale", "zero"))
    assert zero == 0  # of a rectified tensor
    builder = build.GraphBuilder(small)
    outputs = builder.model(["pooled", "int8:second:exact"])
    taken, found = ReferenceRun(outputs)(images(4, seed=3))
    whole = np.round(taken / step).astype(np.int64)
    assert np.abs(taken - whole * step).max() < 1e-5 and whole.min() >= 0 and whole.max() <= 255
    padded = np.pad(whole, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    sums = np.einsum("nchwij,ocij->nohw", windows, kernel.astype(np.int64))
    sums += stored["int8:second:bias:rounded"].astype(np.int64)[:, None, None]
    unit = step * stored["int8:second:weights:scale"]
    np.testing.assert_allclose(found, sums * unit[:, None, None], rtol=1e-5, atol=1e-6)


def test_a_layer_has_the_values_that_the_next_convolution_takes() -> None:
    """So a head reads what the network reads: whole steps of the layer's scale."""
    _, small = quantised(network(), images())
    stored = {one.name: numpy_helper.to_array(one) for one in small.graph.initializer}
    for runtime in ("openvino", "onnxruntime"):
        run = compile_graph(build.with_outputs(small, ["sum"]), runtime=runtime, precision="int8")
        steps = run.run([images(seed=4)], 16) / stored["int8:sum:scale"]
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-2)
        assert len(np.unique(np.round(steps))) > 100


def test_both_runtimes_agree_but_for_rounding() -> None:
    _, small = quantised(network(), images())
    cut = build.with_outputs(small, ["mean"])
    one, other = (
        compile_graph(cut, runtime=name, precision="int8").run([images(seed=5)], 16)
        for name in ("openvino", "onnxruntime")
    )
    assert np.abs(one - other).max() < 0.05 * np.abs(one).max()


def test_cut_at_a_layer_it_computes_the_same() -> None:
    _, small = quantised(network(), images())
    whole = compile_graph(small, precision="int8")
    seconds = next(whole.stream([images(seed=6)]))[0]
    alone = compile_graph(build.with_outputs(small, ["second"]), precision="int8")
    assert np.array_equal(seconds, alone.run([images(seed=6)], 16))


def test_channels_without_weights_keep_their_bias() -> None:
    """As of MobileNetV1 in the shape of a wider one: a scale of zero would lose the bias or divide by zero."""
    builder = build.GraphBuilder(input_spec=SPEC)
    kernel = weights(4, 3, 3, 3)
    kernel[2] = 0
    kernel[3] *= 1e-9
    bias = np.array([0.5, -0.25, 0.123, -7.5], np.float32)
    parts = builder.constant("kernel", kernel), builder.constant("shift", bias)
    builder.add("Conv", layers.normalise(builder, SPEC), *parts, name="conv")
    _, small = quantised(builder.model(["conv"]), images())
    (found,) = ReferenceRun(small)(images(2))
    np.testing.assert_allclose(found[:, 2], 0.123, rtol=1e-4)
    np.testing.assert_allclose(found[:, 3], -7.5, rtol=1e-4)


def test_constants_and_paddings_of_traced_networks_are_resolved() -> None:
    """Weights behind Identity and a Pad from computed numbers, as PyTorch's tracer writes them."""
    builder = build.GraphBuilder(input_spec=SPEC)
    halves = builder.add("Concat", builder.constant("a", np.array([0, 0, 1, 2])),
                         builder.constant("b", np.array([0, 0, 2, 1])), axis=0)  # fmt: skip
    padded = builder.add("Pad", layers.normalise(builder, SPEC), halves, name="padded")
    kernel = builder.add("Identity", builder.constant("kernel", weights(4, 3, 3, 3)))
    builder.add("Conv", padded, kernel, name="conv", strides=[2, 2])
    model = builder.model(["conv"])
    plan, small = quantised(model, images())
    assert plan.convolutions == {"conv"}
    assert "Pad" not in {node.op_type for node in small.graph.node}
    (exact,), (rounded,) = ReferenceRun(model)(images()), ReferenceRun(small)(images())
    assert np.linalg.norm(exact - rounded) < 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize("how", ["reflect", "value", "channels", "layer"])
def test_other_paddings_stay(how: str) -> None:
    builder = build.GraphBuilder(input_spec=SPEC)
    pads = builder.constant("pads", np.array([0, how == "channels", 1, 1, 0, 0, 1, 1], np.int64))
    more = [builder.constant("filled", np.array(1, np.float32))] if how == "value" else []
    given = layers.normalise(builder, SPEC)
    padded = builder.add(
        "Pad", given, pads, *more, name="padded", mode="reflect" if how == "reflect" else "constant"
    )
    n_in = 4 if how == "channels" else 3
    convolve(builder, padded, "conv", n_in, 4, pads=[0] * 4)
    model = builder.model(["conv", *(["padded"] if how == "layer" else [])])
    _, small = quantised(model, images())
    assert "Pad" in {node.op_type for node in small.graph.node}
    exact, rounded = ReferenceRun(model)(images())[0], ReferenceRun(small)(images())[0]
    assert np.linalg.norm(exact - rounded) < 0.02 * np.linalg.norm(exact)


def test_convolutions_of_one_position_stay_in_floats() -> None:
    """Squeeze-and-excitation scales whole channels, and costs nothing."""
    builder = build.GraphBuilder(input_spec=SPEC)
    first = convolve(builder, layers.normalise(builder, SPEC), "first", 3, 8)
    squeezed = builder.add("GlobalAveragePool", first)
    gate = builder.add(
        "Sigmoid",
        builder.add("Conv", squeezed, builder.constant("excite.weight", weights(8, 8, 1, 1)), name="excite"),
    )
    convolve(builder, builder.add("Mul", first, gate), "last", 8, 4)
    assert plan_int8(builder.model(["last"])).convolutions == {"first", "last"}


def test_it_may_be_saved_in_a_model() -> None:
    """The check of a model folder's graph accepts it."""
    _, small = quantised(network(), images())
    assert graph_fault(small) is None


def test_networks_without_a_gain_are_named() -> None:
    builder = build.GraphBuilder(input_spec=SPEC)
    given = layers.normalise(builder, SPEC)
    rows = builder.add("Flatten", given, axis=1)
    count = int(np.prod(SPEC.shape))
    builder.add("MatMul", rows, builder.constant("mix", weights(count, 5)), name="mixed")
    turned = builder.add("Transpose", given, perm=[0, 1, 3, 2])
    builder.add("MatMul", given, turned, name="attention")
    convolve(builder, given, "conv", 3, 4)
    assert int8_fault(builder.model(["mixed"])) == "has no convolutions"
    assert "attention" in str(int8_fault(builder.model(["attention", "conv"])))
    assert int8_fault(builder.model(["conv", "mixed"])) is None
    wide = builder.add("MatMul", "mixed", builder.constant("more", weights(5, 5)), name="wide")
    assert wide and int8_fault(builder.model(["conv", "wide"])) == "has few convolutions"


def test_a_graph_in_floats_is_not_computed_as_int8() -> None:
    with pytest.raises(SettingError, match="precision is 'int8' for a graph in fp32"):
        compile_graph(network(), precision="int8")


def test_a_tensor_without_values_has_a_range() -> None:
    """All black calibration images, say: the scale is not zero."""
    builder = build.GraphBuilder(input_spec=SPEC)
    pixels = builder.add("Cast", build.INPUT, to=TensorProto.FLOAT)
    maps = builder.add("Transpose", pixels, perm=[0, 3, 1, 2])
    convolve(builder, maps, "conv", 3, 4)
    _, small = quantised(builder.model(["conv"]), np.zeros((3, *SPEC.shape), np.uint8))
    (found,) = ReferenceRun(small)(images())
    assert np.isfinite(found).all()


def test_names_of_the_graph_stay_unique() -> None:
    _, small = quantised(network(), images())
    made = [name for node in small.graph.node for name in node.output]
    made += [one.name for one in small.graph.initializer]
    assert len(made) == len(set(made))
    onnx.checker.check_model(small)
