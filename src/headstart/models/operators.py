"""What the graph of a model may hold: a fixed list of operations, constants of their stated size, bounded tensors.

A graph is data from strangers. Nothing here runs it; what passes needs memory in proportion to what is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import onnx
from onnx import TensorProto

from headstart.graph.build import OPSET
from headstart.graph.shapes import known_shapes

__all__ = ["OPERATORS", "graph_fault"]

OPERATORS = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil
    Celu Clip Col2Im Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace
    DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand Flatten Floor GRU Gather GatherElements
    GatherND Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization
    HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization
    LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow QuantizeLinear RNN Range
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare Relu Reshape Resize Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin
    Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu
    Tile TopK Transpose Trilu Unsqueeze Where Xor
    """.split()
)
"""What our own builder writes (33), and what PyTorch's exporter makes of the networks of timm.

No control flow (If, Loop, Scan), no functions, sequences, optional values, text or random numbers: each computes
its outputs once from its inputs, so a graph of them ends.
"""
_MAX_NODES = 20_000
"""The largest networks of timm have about 5,000; runtimes walk graphs by recursion."""
_MAX_VALUES = 2**28
"""Of one tensor for one image: 1 GiB of float32; a photo at 1,024 px in 64 channels has a quarter of it."""
_ITEM_BYTES: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.UINT8: 1,
    TensorProto.INT8: 1,
    TensorProto.UINT16: 2,
    TensorProto.INT16: 2,
    TensorProto.INT32: 4,
    TensorProto.INT64: 8,
    TensorProto.BOOL: 1,
    TensorProto.FLOAT16: 2,
    TensorProto.DOUBLE: 8,
    TensorProto.BFLOAT16: 2,
}
_CONSTANTS = frozenset("value value_float value_floats value_int value_ints".split())
_PLAIN = frozenset((onnx.AttributeProto.FLOAT, onnx.AttributeProto.INT, onnx.AttributeProto.STRING,
                    onnx.AttributeProto.TENSOR, onnx.AttributeProto.FLOATS, onnx.AttributeProto.INTS,
                    onnx.AttributeProto.STRINGS))  # fmt: skip


def graph_fault(model: onnx.ModelProto) -> str | None:
    """Why a graph is not one that headstart writes, as the end of "the graph ..."; None if it is."""
    if [(one.domain in ("", "ai.onnx"), one.version) for one in model.opset_import] != [(True, OPSET)]:
        return f"is not of ONNX opset {OPSET} alone"
    if model.functions or model.training_info:
        return "brings functions of its own"
    return next(_faults(model.graph), None)


def _faults(graph: onnx.GraphProto) -> Iterator[str]:
    """The faults of a graph, the cheap ones first."""
    if len(graph.node) > _MAX_NODES:
        yield f"has {len(graph.node):,} operations, more than {_MAX_NODES:,}"
    if graph.sparse_initializer:
        yield "has sparse constants"
    for node in graph.node:
        yield from _node_faults(node)
    for tensor in graph.initializer:
        yield from _tensor_faults(tensor)
    yield from _order_faults(graph)
    yield from _size_faults(graph)


def _node_faults(node: onnx.NodeProto) -> Iterator[str]:
    name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
        yield f"has the operation {name!r}"
    for one in node.attribute:
        if one.type not in _PLAIN or (node.op_type == "Constant" and one.name not in _CONSTANTS):
            yield f"has the attribute {one.name!r} at an operation {name!r}"
        elif one.type == onnx.AttributeProto.TENSOR:
            yield from _tensor_faults(one.t)


def _tensor_faults(tensor: TensorProto) -> Iterator[str]:
    """A constant holds as many values as its shape says, in the file itself."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        yield f"has a constant {tensor.name!r} in another file"
        return
    item = _ITEM_BYTES.get(tensor.data_type)
    if item is None or tensor.HasField("segment"):
        yield f"has a constant {tensor.name!r} that is not numbers"
        return
    fields = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    held = len(tensor.raw_data) / item if tensor.HasField("raw_data") else sum(map(len, fields))
    if min(tensor.dims, default=0) < 0 or held != prod(tensor.dims):
        yield f"has a constant {tensor.name!r} of {held:g} values for the shape {list(tensor.dims)}"


def _order_faults(graph: onnx.GraphProto) -> Iterator[str]:
    """Every tensor is made once, before it is used; so nothing runs in a circle."""
    made = [one.name for one in (*graph.input, *graph.initializer)]
    known = set(made)
    for node in graph.node:
        missing = [name for name in node.input if name and name not in known]
        if missing:
            yield f"uses {missing[0]!r} before it is made, or runs in a circle"
        made += [name for name in node.output if name]
        known.update(node.output)
    if len(made) != len(set(made)):
        yield "makes a tensor twice"
    for value in graph.output:
        if value.name not in known:
            yield f"does not make its output {value.name!r}"


def _size_faults(graph: onnx.GraphProto) -> Iterator[str]:
    """The shape of every tensor for one image is known without running the graph, and none is huge.

    Of 82 families of timm, all are such graphs. A size that depends on the pixels could fill the memory, and
    OpenVINO reads beyond a tensor that is reshaped to a larger one.
    """
    try:
        shapes = known_shapes(graph)
    except Exception as error:  # onnx raises errors of several kinds
        yield f"has operations that do not fit together ({' '.join(str(error).split())[:200]})"
        return
    for node in graph.node:
        for name in filter(None, node.output):
            shape = shapes.get(name)
            if shape is None:
                yield f"has a tensor {name!r} whose size depends on the pixels, or is not known"
            elif prod(shape) > _MAX_VALUES:
                yield f"has a tensor {name!r} of shape {list(shape)}"
