"""Assemble ONNX graphs: a network from its spec and weights, pooling, and whatever a head appends.

In: specs and arrays. Out: ONNX models whose input is ``images``, uint8 (n, height, width, channels),
and whose tensors carry the names of the layers that made them, so a tap is a tensor name.
Owns the package onnx; must not import a runtime or a training framework.
Called by networks, heads, sources and model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from headstart.errors import SettingError, UnknownLayerError, unknown
from headstart.records import InputSpec, LayerSpec, NetworkSpec, Weights

__all__ = [
    "INPUT",
    "JOIN",
    "NOVELTY",
    "POOLINGS",
    "PROBABILITIES",
    "GraphBuilder",
    "n_features",
    "network_graph",
    "normalise",
    "pool",
    "read",
    "with_outputs",
]

INPUT = "images"
PROBABILITIES = "probabilities"
NOVELTY = "novelty"
JOIN = "+"  # between taps that are read side by side
POOLINGS = ("avg", "flat", "grid2")
_OPSET = 18
_IR_VERSION = 9  # the newest that every supported runtime release reads


class GraphBuilder:
    """Appends operations to an ONNX graph; every ``add`` returns the name of the new tensor.

    Parameters
    ----------
    model : onnx.ModelProto, optional
        Graph to continue. Default: an empty graph with the one input of ``input_spec``.
    input_spec : InputSpec, optional
        Needed when ``model`` is not given.

    Examples
    --------
    >>> builder = GraphBuilder(input_spec=InputSpec(8, 8, 1))
    >>> pixels = builder.add("Cast", INPUT, to=1)
    >>> flat = builder.add("Flatten", pixels, name="flat", axis=1)
    >>> [output.name for output in builder.model(["flat"]).graph.output]
    ['flat']
    """

    def __init__(self, model: onnx.ModelProto | None = None, *, input_spec: InputSpec | None = None) -> None:
        if model is None:
            if input_spec is None:
                raise SettingError(
                    "input_spec is None, expected an InputSpec for a new graph; pass one or a model"
                )
            self._inputs = [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["n", *input_spec.shape])]
            self._nodes: list[onnx.NodeProto] = []
            self._constants: dict[str, onnx.TensorProto] = {}
        else:
            self._inputs = list(model.graph.input)
            self._nodes = list(model.graph.node)
            self._constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Store an array under a name and return the name."""
        self._constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def add(
        self, operator: str, *inputs: str, name: str | None = None, n_outputs: int = 1, **attributes: Any
    ) -> str:
        """Append one ONNX operation and return its first output's name.

        Parameters
        ----------
        operator : str
            ONNX operator of opset 18.
        *inputs : str
            Names of tensors.
        name : str, optional
            Name of the output. Default: operator and position.
        n_outputs : int, default=1
            Further outputs are called ``name.1`` and so on.
        **attributes
            The operator's attributes.

        Returns
        -------
        str
            The first output's name.
        """
        output = name or f"{operator.lower()}_{len(self._nodes)}"
        outputs = [output, *(f"{output}.{extra}" for extra in range(1, n_outputs))]
        self._nodes.append(helper.make_node(operator, list(inputs), outputs, name=output, **attributes))
        return output

    def has(self, name: str) -> bool:
        """Whether some operation makes a tensor of this name."""
        return any(name in node.output for node in self._nodes)

    def graft(self, model: onnx.ModelProto, inputs: Mapping[str, str]) -> None:
        """Append another graph whose inputs are tensors of this one, by name; its names stay."""
        self._constants |= {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            grafted = onnx.NodeProto()
            grafted.CopyFrom(node)
            grafted.input[:] = [inputs.get(name, name) for name in node.input]
            self._nodes.append(grafted)

    def model(self, outputs: Sequence[str], metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
        """The graph that computes the named tensors, without what they do not need."""
        nodes = _needed(self._nodes, outputs)
        made = [name for node in nodes for name in node.output]
        assert len(made) == len(set(made)), "a tensor is made twice; cut the graph at its tap first"
        used = {name for node in nodes for name in node.input}
        constants = [tensor for name, tensor in self._constants.items() if name in used]
        values = _shaped_outputs(nodes, self._inputs, constants, outputs)
        model = _model(helper.make_graph(nodes, "headstart", self._inputs, values, constants))
        model.producer_name = "headstart"
        helper.set_model_props(model, dict(metadata or {}))
        return model


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def _shaped_outputs(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto],
    outputs: Sequence[str],
) -> list[onnx.ValueInfoProto]:
    """The outputs with their shapes, which the standard asks for.

    Float constants take part as shapes only: inferring on the whole model would copy all weights.
    """
    floats = [tensor for tensor in constants if tensor.data_type == TensorProto.FLOAT]
    declared = [
        helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims) for tensor in floats
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    others = [tensor for tensor in constants if tensor.data_type != TensorProto.FLOAT]
    light = _model(helper.make_graph(nodes, "shapes", [*inputs, *declared], values, others))
    return list(onnx.shape_inference.infer_shapes(light).graph.output)


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs depend on, in their old order (which is topological)."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


def with_outputs(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """The same network giving other tensors.

    Parameters
    ----------
    model : onnx.ModelProto
        Any graph of ours.
    outputs : sequence of str
        Tensor names in it.

    Returns
    -------
    onnx.ModelProto
        The graph that computes just these.

    Raises
    ------
    UnknownLayerError
        If the graph has no tensor of that name.
    """
    made = [name for node in model.graph.node for name in node.output]
    for name in outputs:
        if name not in made:
            raise UnknownLayerError(unknown("layer", name, made))
    return GraphBuilder(model).model(outputs)


def network_graph(spec: NetworkSpec, weights: Weights) -> onnx.ModelProto:
    """A network as a graph from uint8 images to its logits, every layer's output named as the layer.

    Parameters
    ----------
    spec : NetworkSpec
        What the layers are.
    weights : dict of str to ndarray, float32
        In the canonical layout of ``records.Weights``.

    Returns
    -------
    onnx.ModelProto
        Input ``images`` of shape (n, height, width, channels), uint8. Output: the last layer's.

    Notes
    -----
    Dropout is the identity in a graph and appears as such, so that it stays a tap.
    """
    builder = GraphBuilder(input_spec=spec.input)
    x = normalise(builder, spec.input)
    for layer in spec.layers:
        x = _LAYERS[layer.kind](builder, layer, x, weights)
    return builder.model([x])


def normalise(builder: GraphBuilder, spec: InputSpec) -> str:
    """uint8 (n, h, w, c) to scaled float32 (n, c, h, w); the tap ``pixels`` of every source."""
    scale = 1.0 / (255.0 * np.asarray(spec.std, np.float32))
    shift = -np.asarray(spec.mean, np.float32) / np.asarray(spec.std, np.float32)
    x = builder.add("Cast", INPUT, name="images_float", to=TensorProto.FLOAT)
    x = builder.add("Mul", x, builder.constant("input.scale", scale.astype(np.float32)), name="scaled")
    if np.any(shift):
        x = builder.add("Add", x, builder.constant("input.shift", shift.astype(np.float32)), name="shifted")
    return builder.add("Transpose", x, name="pixels", perm=[0, 3, 1, 2])


def _conv2d(builder: GraphBuilder, layer: LayerSpec, x: str, weights: Weights) -> str:
    pad = layer.options["kernel"] // 2 if layer.options.get("padding", "valid") == "same" else 0
    names = [
        builder.constant(f"{layer.name}.{part}", weights[f"{layer.name}.{part}"])
        for part in ("weight", "bias")
    ]
    return builder.add("Conv", x, *names, name=layer.name, pads=[pad] * 4)


def _batchnorm2d(builder: GraphBuilder, layer: LayerSpec, x: str, weights: Weights) -> str:
    names = [
        builder.constant(f"{layer.name}.{part}", weights[f"{layer.name}.{part}"])
        for part in ("weight", "bias", "mean", "variance")
    ]
    return builder.add("BatchNormalization", x, *names, name=layer.name, epsilon=1e-5)


def _maxpool2d(builder: GraphBuilder, layer: LayerSpec, x: str, _: Weights) -> str:
    size = layer.options["size"]
    return builder.add("MaxPool", x, name=layer.name, kernel_shape=[size, size], strides=[size, size])


def _relu(builder: GraphBuilder, layer: LayerSpec, x: str, _: Weights) -> str:
    return builder.add("Relu", x, name=layer.name)


def _flatten(builder: GraphBuilder, layer: LayerSpec, x: str, _: Weights) -> str:
    rows = builder.add("Transpose", x, name=f"{layer.name}.rows", perm=[0, 2, 3, 1])
    return builder.add("Flatten", rows, name=layer.name, axis=1)


def _dense(builder: GraphBuilder, layer: LayerSpec, x: str, weights: Weights) -> str:
    names = [
        builder.constant(f"{layer.name}.{part}", weights[f"{layer.name}.{part}"])
        for part in ("weight", "bias")
    ]
    return builder.add("Gemm", x, *names, name=layer.name, transB=1)


def _dropout(builder: GraphBuilder, layer: LayerSpec, x: str, _: Weights) -> str:
    return builder.add("Identity", x, name=layer.name)


_LAYERS = {
    "conv2d": _conv2d,
    "batchnorm2d": _batchnorm2d,
    "maxpool2d": _maxpool2d,
    "relu": _relu,
    "flatten": _flatten,
    "dense": _dense,
    "dropout": _dropout,
}


def pool(builder: GraphBuilder, tap: str, shape: Sequence[int], pooling: str) -> str:
    """Turn a tap's maps into one row of features per image.

    Parameters
    ----------
    builder : GraphBuilder
        Graph to append to.
    tap : str
        Tensor of shape (n, *shape).
    shape : sequence of int
        (features,), or (channels, height, width).
    pooling : {'avg', 'flat', 'grid2'}
        Mean over positions; all values in (height, width, channel) order; means over a
        2 x 2 grid. A tap that is already a row of features passes unchanged.

    Returns
    -------
    str
        Name of a tensor of shape (n, n_features).

    Raises
    ------
    SettingError
        If the pooling is unknown.
    """
    if pooling not in POOLINGS:
        raise SettingError(unknown("pooling", pooling, POOLINGS))
    if len(shape) == 1:
        return tap
    name = f"{tap}.{pooling}"
    if builder.has(name):
        return name  # pooled already, for another place
    if pooling == "avg":
        axes = builder.constant("pool.axes", np.array([2, 3], np.int64))
        return builder.add("ReduceMean", tap, axes, name=name, keepdims=0)
    if pooling == "grid2":
        _, height, width = shape
        for axis, side in ((2, height), (3, width)):
            if side == 1:  # both halves are the one there is
                tap = builder.add("Concat", tap, tap, name=f"{name}.twice{axis}", axis=axis)
        # windows of half the side; an odd middle counts in both, as adaptive pooling does
        kernel, strides = [-(-height // 2), -(-width // 2)], [max(1, height // 2), max(1, width // 2)]
        tap = builder.add("AveragePool", tap, name=f"{name}.cells", kernel_shape=kernel, strides=strides)
    rows = builder.add("Transpose", tap, name=f"{name}.last", perm=[0, 2, 3, 1])
    return builder.add("Flatten", rows, name=name, axis=1)


def read(builder: GraphBuilder, taps: Mapping[str, Sequence[int]], tap: str, pooling: str) -> str:
    """Rows of features at a tap, or at several joined by ``+``, side by side.

    Parameters
    ----------
    builder : GraphBuilder
        Graph to append to.
    taps : mapping of str to sequence of int
        Shapes of the source's taps.
    tap : str
        One of them, or such as ``stage4+stage5``.
    pooling : {'avg', 'flat', 'grid2'}
        As in `pool`, for each.

    Returns
    -------
    str
        Name of a tensor of shape (n, n_features).
    """
    rows = [pool(builder, part, taps[part], pooling) for part in tap.split(JOIN)]
    name = f"{tap}.{pooling}"
    if len(rows) == 1:
        return rows[0]
    return name if builder.has(name) else builder.add("Concat", *rows, name=name, axis=1)


def n_features(shape: Sequence[int], pooling: str) -> int:
    """Values per image that `pool` makes of a tap.

    Examples
    --------
    >>> n_features((512, 14, 14), "grid2"), n_features((64,), "flat")
    (2048, 64)
    """
    cells = {"avg": 1, "grid2": 4}.get(pooling)
    return int(np.prod(shape)) if len(shape) == 1 or cells is None else shape[0] * cells
