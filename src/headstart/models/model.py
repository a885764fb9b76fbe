"""The saved model: a folder with manifest, graph, weights and card; opened in three phases.

In: a graph from uint8 images to probabilities, and what is known of it. Out: predictions.
Must not import a training framework. Called by strategies, sources, the command line and servers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from headstart.data.checks.seen import from_tensors, to_tensors
from headstart.data.dataset import Dataset
from headstart.data.images.prepare import batches
from headstart.errors import ModelError
from headstart.graph import build
from headstart.graph import run as runtime
from headstart.models.card import render_card
from headstart.models.manifest import (
    FILES,
    LEARNED,
    SAMPLES,
    FileNote,
    Manifest,
    read_manifest,
    write_manifest,
)
from headstart.records import Answered, Array, Images, Seen, Source, Weights
from headstart.system.files import atomic_folder, check_place
from headstart.system.progress import SILENT, Progress, with_progress

__all__ = ["Model", "check_output", "open_model"]

_MANIFEST, _REPORT = "manifest.json", "report.html"
_LIMIT_MANIFEST_BYTES = 16 * 2**20
_LIMIT_FILE_BYTES = 8 * 2**30
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Model:
    """A classifier that is a graph: the same answer here, on the command line and elsewhere.

    Attributes
    ----------
    manifest : Manifest
        What it is, what it learnt from, what was measured.
    graph : bytes
        Serialized ONNX model, ``images`` uint8 (n, h, w, c) to ``probabilities`` (n, n_classes) and, where
        the manifest tells of novelty, ``novelty`` (n,).
    weights : dict of str to ndarray
        Trainable weights in the canonical layout, for going on learning.
    samples : tuple of ndarray of shape (height, width, channels), uint8
        A few of the images learned from, as they came: an export is checked with them.
    seen : Seen or None
        Which images it learned from; None for a model saved before that was recorded.

    Notes
    -----
    Two models are equal only if they are the same object.
    """

    manifest: Manifest
    graph: bytes
    weights: Weights
    samples: tuple[NDArray[np.uint8], ...] = ()
    seen: Seen | None = None

    def __repr__(self) -> str:
        """One short line: graph and weights are megabytes."""
        manifest, taken = self.manifest, self.manifest.input
        return (
            f"Model({manifest.name!r}, {manifest.strategy}, {len(self.classes)} classes, "
            f"{taken.height_px} x {taken.width_px} px, {len(self.graph):,} bytes)"
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.manifest.classes

    def probabilities(
        self,
        dataset: Dataset,
        *,
        runtime_name: str = "openvino",
        precision: str = "fp32",
        progress: Progress = SILENT,
    ) -> Array:
        """Probability of each class for every image.

        Parameters
        ----------
        dataset : Dataset
            Any images; its labels are not looked at.
        runtime_name : {'openvino', 'onnxruntime'}, default='openvino'
            What executes the graph.
        precision : {'fp32', 'bf16', 'auto'}, default='fp32'
            fp32 gives the same answer on every machine to about 1e-5.
        progress : Progress, optional
            Told about images done.

        Returns
        -------
        ndarray of shape (n_images, n_classes), float32
            Rows sum to 1.
        """
        asked = self.answer(dataset, runtime_name=runtime_name, precision=precision, progress=progress)
        return asked.probabilities

    def answer(
        self,
        dataset: Dataset,
        *,
        runtime_name: str = "openvino",
        precision: str = "fp32",
        progress: Progress = SILENT,
    ) -> Answered:
        """Probabilities, and how unlike all it learnt from each image is; options as for `probabilities`.

        Returns
        -------
        Answered
            Its ``names`` are the classes, or ``none of these``.
        """
        # a batch is padded: one picture must not cost 64
        size = min(_BATCH, 1 << max(0, len(dataset) - 1).bit_length())
        prepared = with_progress(
            batches(dataset, self.manifest.input, size), len(dataset), "predict", progress
        )
        return self.answer_prepared(prepared, runtime_name=runtime_name, precision=precision, batch_size=size)

    def answer_prepared(
        self,
        prepared: Iterable[Images],
        *,
        runtime_name: str = "openvino",
        precision: str = "fp32",
        batch_size: int = _BATCH,
    ) -> Answered:
        """The same for images that `imaging.prepare` brought to the model's size, batch by batch.

        Parameters
        ----------
        prepared : iterable of ndarray of shape (n, height_px, width_px, channels), uint8
            Batches.
        runtime_name, precision : str
            As for `probabilities`.
        batch_size : int, default=64
            Images of a batch, mostly.

        Returns
        -------
        Answered
            In the order of the images.
        """
        parts = list(self._executable(runtime_name, precision, batch_size).stream(prepared))
        n_outputs = 2 if self.manifest.novelty else 1
        empty = (np.empty((0, len(self.classes)), np.float32), np.empty(0, np.float32))[:n_outputs]
        return Answered(*(np.concatenate(values) for values in zip(empty, *parts, strict=True)))

    def predict(
        self,
        dataset: Dataset,
        *,
        refuse: bool = True,
        runtime_name: str = "openvino",
        precision: str = "fp32",
    ) -> NDArray[np.str_]:
        """The likeliest class of every image, or ``none of these``.

        Parameters
        ----------
        dataset : Dataset
            Any images.
        refuse : bool, default=True
            Say ``none of these`` of what is unlike all it learnt from; without, a class of every image.
        runtime_name, precision : str
            As for `probabilities`.

        Returns
        -------
        ndarray of shape (n_images,), str
        """
        asked = self.answer(dataset, runtime_name=runtime_name, precision=precision)
        return (asked if refuse else Answered(asked.probabilities)).names(self.classes)

    def load_runtime(self, runtime_name: str) -> None:
        """Import what executes the graph; to be called before threads that prepare images start.

        Parameters
        ----------
        runtime_name : {'openvino', 'onnxruntime'}
            As for `probabilities`.

        Raises
        ------
        SettingError
            If the runtime is unknown.
        """
        runtime.import_runtime(runtime_name)

    def _executable(self, runtime_name: str, precision: str, batch_size: int) -> runtime.Executable:
        key = (runtime_name, precision, batch_size)
        if key not in self._compiled:
            graph = onnx.ModelProto.FromString(self.graph)
            self._compiled[key] = runtime.compile_graph(
                graph, runtime=runtime_name, precision=precision, batch_size=batch_size
            )
        return self._compiled[key]

    @cached_property
    def _compiled(self) -> dict[tuple[str, str, int], runtime.Executable]:
        return {}

    def source(self, name: str | None = None) -> Source:
        """The model as something to learn from: its graph, cut where asked."""
        manifest = self.manifest
        return Source(
            name or manifest.name,
            self.graph,
            manifest.input,
            manifest.layers,
            manifest.default_layer,
            manifest.source_fingerprint,
            manifest.classes,
            network=None if manifest.network is None else (manifest.network, dict(self.weights)),
            seen=self.seen,
        )

    def save(self, folder: str | os.PathLike[str], report: str | None = None) -> Path:
        """Write the model folder whole or not at all.

        Parameters
        ----------
        folder : path
            New, empty, or an older model folder, which is replaced.
        report : str, optional
            HTML to put beside it as ``report.html``.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        SettingError
            If the folder holds something else.
        """
        from safetensors.numpy import save

        contents = {
            "card.md": render_card(self.manifest).encode(),
            "model.onnx": self.graph,
            "weights.safetensors": save(dict(sorted(self.weights.items()))),
        }
        if self.samples:
            contents[SAMPLES] = save({f"{number:02}": one for number, one in enumerate(self.samples)})
        if self.seen is not None:
            contents[LEARNED] = save(to_tensors(self.seen))
        notes = {
            name: FileNote(len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()
        }
        check_output(folder)
        with atomic_folder(folder, marker=_MANIFEST, may_hold=(_REPORT,)) as temporary:
            for name, data in contents.items():
                (temporary / name).write_bytes(data)
            if report is not None:
                (temporary / _REPORT).write_text(report, encoding="utf-8")
            (temporary / _MANIFEST).write_text(
                write_manifest(replace(self.manifest, files=notes)), encoding="utf-8"
            )
        return Path(folder)


def check_output(folder: str | os.PathLike[str]) -> None:
    """Find out whether a model can be saved here, before it is learnt; SettingError if not."""
    check_place(folder, marker=_MANIFEST)
    if (Path(folder) / _MANIFEST).is_file():
        read_manifest(_manifest_text(Path(folder)), str(folder))  # an app has a manifest.json too


def open_model(folder: str | os.PathLike[str]) -> Model:
    """Open a model folder: parse, audit, construct. No code in it is ever run.

    Parameters
    ----------
    folder : path
        As written by `Model.save`.

    Returns
    -------
    Model
        Ready to predict.

    Raises
    ------
    ModelError
        If the folder or a file is missing, truncated, altered or not a model of ours.
    """
    home = Path(folder)
    manifest = read_manifest(_manifest_text(home), str(folder))
    contents = {name: _audited(home / name, note, str(folder)) for name, note in manifest.files.items()}
    _audit_graph(contents["model.onnx"], manifest, str(folder))
    weights = _tensors(contents, "weights.safetensors", str(folder))
    samples = _tensors(contents, SAMPLES, str(folder)) if SAMPLES in contents else {}
    seen = None
    if LEARNED in contents:
        seen = from_tensors(_tensors(contents, LEARNED, str(folder)), str(folder))
    return Model(manifest, contents["model.onnx"], weights, _images(samples, str(folder)), seen)


def _manifest_text(home: Path) -> str:
    path = home / _MANIFEST
    if not path.is_file():
        what = "is no folder" if not home.is_dir() else f"holds no {_MANIFEST}"
        raise ModelError(
            f"model {str(home)!r} {what}, expected a model folder; "
            "make one with: headstart transfer SOURCE DATA -o MODEL"
        )
    if path.stat().st_size > _LIMIT_MANIFEST_BYTES:
        raise ModelError(
            f"manifest of model {str(home)!r} is larger than {_LIMIT_MANIFEST_BYTES} bytes, "
            "expected one written by headstart"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"manifest of model {str(home)!r} cannot be read ({error}), expected UTF-8 text; copy the model again"
        ) from error


def _audited(path: Path, note: FileNote, place: str) -> bytes:
    """A file's bytes, after its size and then its hash were found as the manifest says."""
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


def _audit_graph(data: bytes, manifest: Manifest, place: str) -> None:
    """The graph is one of ours: our input, our output, all weights inside, standard operations only."""
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's DecodeError has no stable home
        raise ModelError(
            f"file model.onnx of model {place!r} is no ONNX model, expected the file as saved; "
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
            f"graph of model {place!r} has other inputs, outputs, operations or files than a model of ours, "
            "expected one written by headstart; save the model again"
        )
    taken, given = _sizes(graph.input[0])[1:], _sizes(graph.output[0])[1:]
    if taken != [*manifest.input.shape] or given not in ([], [len(manifest.classes)]):
        raise ModelError(
            f"graph of model {place!r} makes {given} of images of {taken}, expected {[len(manifest.classes)]} of "
            f"{[*manifest.input.shape]} as its manifest says; copy the folder again"
        )


def _self_contained(graph: onnx.GraphProto) -> bool:
    """No operation but the standard's, no weights in other files, in graphs within this one neither."""
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
    """Sizes of an input or output; 0 where they vary, nothing where none is declared."""
    return [one.dim_value for one in value.type.tensor_type.shape.dim]


def _tensors(contents: Mapping[str, bytes], name: str, place: str) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(contents[name])
    except SafetensorError as error:
        raise ModelError(
            f"file {name} of model {place!r} cannot be read ({error}), "
            "expected the file as saved; copy the folder again"
        ) from error


def _images(tensors: Mapping[str, NDArray[Any]], place: str) -> tuple[NDArray[np.uint8], ...]:
    """The samples in their order; each must be a picture."""
    for name, one in tensors.items():
        if one.dtype != np.uint8 or one.ndim != 3 or one.shape[2] not in (1, 3) or not one.size:
            raise ModelError(
                f"sample {name} of model {place!r} has shape {one.shape} and dtype {one.dtype}, expected a "
                "picture; copy the folder again"
            )
    return tuple(tensors[name] for name in sorted(tensors))
