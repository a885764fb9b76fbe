"""Checks of a model folder's files before anything in them is used: sizes, hashes, and what the graph may hold."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

import onnx

from headstart.errors import ModelError
from headstart.graph import build
from headstart.models.manifest import FILES, LIMIT_FILE_BYTES, FileNote, Manifest
from headstart.models.operators import graph_fault

__all__ = ["audit_graph", "audited_file", "check_hash"]

_PIECE_BYTES = 2**20


def audited_file(path: Path, note: FileNote, place: str) -> bytes:
    """A file's bytes, after checking its size and then its SHA-256 against the manifest."""
    with _opened(path, place) as file:
        _check(file, path.name, note, place)
        file.seek(0)
        return file.read(note.size_bytes)


def check_hash(path: Path, note: FileNote, place: str) -> None:
    """The same without keeping the bytes."""
    with _opened(path, place) as file:
        _check(file, path.name, note, place)


def _opened(path: Path, place: str) -> BinaryIO:
    try:
        if path.is_file():  # a pipe would block
            return path.open("rb")
        reason = "is missing"
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    raise ModelError(
        f"file {path.name} of model {place!r} {reason}, expected all of {', '.join(FILES)}; copy the folder again"
    )


def _check(file: BinaryIO, name: str, note: FileNote, place: str) -> None:
    """The size first, then the hash piece by piece, so that no file fills the memory before it is known."""
    size = os.fstat(file.fileno()).st_size
    if size != note.size_bytes or size > LIMIT_FILE_BYTES:
        raise ModelError(
            f"file {name} of model {place!r} has {size} bytes, expected {note.size_bytes}; copy the folder again"
        )
    digest = hashlib.sha256()
    while piece := file.read(_PIECE_BYTES):
        digest.update(piece)
    if digest.hexdigest() != note.sha256:
        raise ModelError(
            f"file {name} of model {place!r} was altered (SHA-256 differs), "
            "expected the file as saved; copy the folder again"
        )


def audit_graph(data: bytes, manifest: Manifest, place: str) -> None:
    """Refuse a graph that is not as headstart writes them, or not the one that the manifest describes."""
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's DecodeError has no stable home
        raise ModelError(
            f"file model.onnx of model {place!r} is not an ONNX model, expected the file as saved; "
            "copy the folder again"
        ) from error
    graph = model.graph
    outputs = [build.PROBABILITIES, *([build.NOVELTY] if manifest.novelty else [])]
    taken, given = ([one.name for one in values] for values in (graph.input, graph.output))
    fault = graph_fault(model)
    if (taken, given) != ([build.INPUT], outputs):
        fault = f"takes {taken} and gives {given}"
    if fault is not None:
        raise ModelError(
            f"graph of model {place!r} {fault}, expected one written by headstart; save the model again"
        )
    _audit_sizes(graph, manifest, place)


def _audit_sizes(graph: onnx.GraphProto, manifest: Manifest, place: str) -> None:
    """The graph's input, output and layers are those of the manifest."""
    kinds = [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]
    taken, given = _sizes(graph.input[0])[1:], _sizes(graph.output[0])[1:]
    if taken != [*manifest.input.shape] or given not in ([], [len(manifest.classes)]):
        raise ModelError(
            f"graph of model {place!r} maps images of {taken} to {given}, expected {[len(manifest.classes)]} from "
            f"{[*manifest.input.shape]} as its manifest says; copy the folder again"
        )
    if kinds[0] != onnx.TensorProto.UINT8 or set(kinds[1:]) != {onnx.TensorProto.FLOAT}:
        raise ModelError(
            f"graph of model {place!r} has other types of numbers than headstart's models, expected uint8 images "
            "and float32 outputs; copy the folder again"
        )
    made = {name for node in graph.node for name in node.output}
    for name in manifest.layers:
        if name not in made:
            raise ModelError(
                f"graph of model {place!r} has no layer {name!r}, expected all that its manifest lists; "
                "copy the folder again"
            )


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    """Sizes of an input or output; 0 where a size varies, empty where none is declared."""
    return [one.dim_value for one in value.type.tensor_type.shape.dim]
