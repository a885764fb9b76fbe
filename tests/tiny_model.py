"""A model whose answers can be told by looking: the whiter a picture, the likelier ``light``.

Probabilities are (1 - whiteness, whiteness), novelty is twice the whiteness: above one half it is none of
these. Used by the tests of the server.
"""

from __future__ import annotations

import io

import numpy as np
from onnx import TensorProto, helper
from PIL import Image

from headstart.models.manifest import Manifest
from headstart.models.model import Model
from headstart.records import InputSpec

SIZE = 8
SPEC = InputSpec(SIZE, SIZE, 1)


def tiny_model(*, novelty: bool = False, spec: InputSpec = SPEC) -> Model:
    def constant(name: str, value: list[float], shape: list[int]) -> object:
        return helper.make_tensor(name, TensorProto.FLOAT, shape, value)

    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "white"], ["light"]),
        helper.make_node("Unsqueeze", ["light", "last"], ["column"]),
        helper.make_node("Sub", ["one", "column"], ["dark"]),
        helper.make_node("Concat", ["dark", "column"], ["probabilities"], axis=1),
        helper.make_node("Mul", ["light", "two"], ["novelty"]),
    ]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])]
    if novelty:
        outputs.append(helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["n"]))
    graph = helper.make_graph(
        nodes if novelty else nodes[:-1],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", *spec.shape])],
        outputs,
        [
            helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
            helper.make_tensor("last", TensorProto.INT64, [1], [1]),
            constant("white", [255.0], []),
            constant("one", [1.0], []),
            constant("two", [2.0], []),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    manifest = Manifest(
        name="tiny",
        strategy="by hand",
        classes=("dark", "light"),
        input=spec,
        layers={"mean": (1,)},
        default_layer="mean",
        source_fingerprint="",
        network=None,
        head={"name": "by hand", "chosen": {}},
        source={},
        data={"name": "none", "fingerprint": "", "n_images": 0, "counts": {}},
        settings={},
        scores={},
        seed=0,
        versions={},
        novelty={"by": "hand", "false_rejection": 0.5} if novelty else {},
    )
    return Model(manifest, model.SerializeToString(), {})


def picture(value: int, *, width: int = SIZE, height: int = SIZE, kind: str = "PNG") -> bytes:
    """One colour."""
    made = io.BytesIO()
    Image.new("L", (width, height), value).save(made, kind)
    return made.getvalue()


def noise(seed: int, side: int, kind: str) -> bytes:
    """Random pixels in colour: files of a size worth cutting."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, kind)
    return made.getvalue()
