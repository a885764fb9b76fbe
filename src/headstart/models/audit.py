"""Checks of a model folder's files before anything in them is used: sizes, hashes, and what the graph may hold."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx

from headstart.errors import ModelError
from headstart.graph import build
from headstart.models.manifest import (
    FILES,
    FileNote,
    Manifest,
)

__all__ = ["audit_graph", "audited_file"]


_LIMIT_FILE_BYTES = 8 * 2**30


def audited_file(path: Path, note: FileNote, place: str) -> bytes:
    """A file's bytes, after checking its size and then its SHA-256 against the manifest."""
    if not path.is_file():
        raise ModelError(
            f"model {place!r} has no file {path.name}, expected all of {', '.join(FILES)}; copy the folder again"
        )
    size = path.stat().st_size
    if size != note.size_bytes or size > _LIMIT_FILE_BYTES:
        raise ModelError(
            f"file {path.name} of model {place!r} has {size} bytes, expected {note.size_bytes}; "
            "copy the folder again"
        )
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != note.sha256:
        raise ModelError(
            f"file {path.name} of model {place!r} was altered (SHA-256 differs), "
            "expected the file as saved; copy the folder again"
        )
    return data


def audit_graph(data: bytes, manifest: Manifest, place: str) -> None:
    """Refuse a graph with other inputs or outputs, weights in other files, or non-standard operations."""
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's DecodeError has no stable home
        raise ModelError(
            f"file model.onnx of model {place!r} is not an ONNX model, expected the file as saved; "
            "copy the folder again"
        ) from error
    graph = model.graph
    outputs = [build.PROBABILITIES, *([build.NOVELTY] if manifest.novelty else [])]
    names = (
        [value.name for value in graph.input] == [build.INPUT],
        [value.name for value in graph.output] == outputs,
    )
    if model.functions or not _self_contained(graph) or not all(names):
        raise ModelError(
            f"graph of model {place!r} has other inputs, outputs, operations or external files than headstart's "
            "models, expected one written by headstart; save the model again"
        )
    taken, given = _sizes(graph.input[0])[1:], _sizes(graph.output[0])[1:]
    if taken != [*manifest.input.shape] or given not in ([], [len(manifest.classes)]):
        raise ModelError(
            f"graph of model {place!r} maps images of {taken} to {given}, expected {[len(manifest.classes)]} from "
            f"{[*manifest.input.shape]} as its manifest says; copy the folder again"
        )


def _self_contained(graph: onnx.GraphProto) -> bool:
    """Whether all operations are ONNX's own and all weights are inside, in subgraphs too."""
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    tensors = [
        *graph.initializer,
        *(one.t for one in attributes),
        *(t for one in attributes for t in one.tensors),
    ]
    inner = [*(one.g for one in attributes), *(g for one in attributes for g in one.graphs)]
    return (
        not graph.sparse_initializer
        and not any(one.HasField("sparse_tensor") or one.sparse_tensors for one in attributes)
        and not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors)
        and {node.domain for node in graph.node} <= {"", "ai.onnx"}
        and all(_self_contained(one) for one in inner if one.node or one.initializer)
    )


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    """Sizes of an input or output; 0 where a size varies, empty where none is declared."""
    return [one.dim_value for one in value.type.tensor_type.shape.dim]
