"""Assemble ONNX graphs: inputs, constants and operations.

The input is ``images``, uint8 (n, height, width, channels). Tensors have the names of the layers that
made them, so a layer is a tensor name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from headstart.errors import SettingError, UnknownLayerError, unknown
from headstart.records import InputSpec

__all__ = [
    "INPUT",
    "NOVELTY",
    "OPSET",
    "PROBABILITIES",
    "GraphBuilder",
    "PrefixedBuilder",
    "light_model",
    "needed_nodes",
    "with_outputs",
]

INPUT = "images"
PROBABILITIES = "probabilities"
NOVELTY = "novelty"
OPSET = 18
_IR_VERSION = 9  # the newest that every supported runtime release reads
_FEW = 64  # values of a constant that may decide a shape, such as the factors of a Resize


class GraphBuilder:
    """Append operations to an ONNX graph.

    Parameters
    ----------
    model : onnx.ModelProto, optional
        Graph to continue. Default: an empty graph with the one input of ``input_spec``.
    input_spec : InputSpec, optional
        Required when ``model`` is not given.

    Raises
    ------
    SettingError
        If neither is given.

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
            Further outputs are named ``name.1`` and so on.
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

    def rename(self, name: str, new: str) -> None:
        """Give a tensor that an operation makes another name, wherever it is used."""
        for node in self._nodes:
            node.input[:] = [new if one == name else one for one in node.input]
            node.output[:] = [new if one == name else one for one in node.output]
            if node.name == name:
                node.name = new

    def graft(self, model: onnx.ModelProto, inputs: Mapping[str, str]) -> None:
        """Append another graph whose inputs are tensors of this one, by name; its names stay."""
        self._constants |= {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            grafted = onnx.NodeProto()
            grafted.CopyFrom(node)
            grafted.input[:] = [inputs.get(name, name) for name in node.input]
            self._nodes.append(grafted)

    def model(self, outputs: Sequence[str], metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
        """Graph that computes the named tensors, without the operations and constants they do not use."""
        nodes = needed_nodes(self._nodes, outputs)
        made = [name for node in nodes for name in node.output]
        assert len(made) == len(set(made)), "a tensor is made twice; cut the graph at its layer first"
        used = {name for node in nodes for name in node.input}
        constants = [tensor for name, tensor in self._constants.items() if name in used]
        values = _shaped_outputs(nodes, self._inputs, constants, outputs)
        model = _model(helper.make_graph(nodes, "headstart", self._inputs, values, constants))
        model.producer_name = "headstart"
        helper.set_model_props(model, dict(metadata or {}))
        return model


class PrefixedBuilder:
    """Appends to another builder's graph, with a prefix before every name that is given.

    So the same operations can be appended twice.
    """

    def __init__(self, builder: GraphBuilder, prefix: str) -> None:
        self._builder, self._prefix = builder, prefix

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Store an array under the prefix and a name."""
        return self._builder.constant(self._prefix + name, value)

    def add(
        self, operator: str, *inputs: str, name: str | None = None, n_outputs: int = 1, **attributes: Any
    ) -> str:
        """Append an operation, its output under the prefix and the name."""
        given = None if name is None else self._prefix + name
        return self._builder.add(operator, *inputs, name=given, n_outputs=n_outputs, **attributes)


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)


def _shaped_outputs(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto],
    outputs: Sequence[str],
) -> list[onnx.ValueInfoProto]:
    """The outputs with their shapes, which the standard requires."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    light = light_model(nodes, inputs, constants, values)
    return list(onnx.shape_inference.infer_shapes(light).graph.output)


def light_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """A graph whose weights are shapes only: inferring on the whole model would copy all of them."""
    kinds = (TensorProto.FLOAT, TensorProto.INT8)
    large = [one for one in constants if one.data_type in kinds and math.prod(one.dims) > _FEW]
    weights = {one.name for one in large}
    declared = [helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in large]
    others = [one for one in constants if one.name not in weights]
    return _model(helper.make_graph(nodes, "shapes", [*inputs, *declared], outputs, others))


def needed_nodes(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """Nodes that the outputs depend on, in their old order (which is topological)."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


def with_outputs(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """Same network with these tensors as outputs; UnknownLayerError if it has no tensor of a name."""
    made = [name for node in model.graph.node for name in node.output]
    for name in outputs:
        if name not in made:
            raise UnknownLayerError(unknown("layer", name, made))
    return GraphBuilder(model).model(outputs)
