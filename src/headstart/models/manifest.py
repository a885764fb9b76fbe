"""The manifest of a model folder: written as JSON, and checked field by field when it is read.

Without onnx or a runtime, so that reading what a model is costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from headstart.data.images.values import DEPTHS
from headstart.errors import ModelError
from headstart.records import InputSpec, LayerSpec, NetworkSpec

__all__ = [
    "FILES",
    "FORMAT",
    "LEARNED",
    "SAMPLES",
    "FileNote",
    "Manifest",
    "read_manifest",
    "spec_from_json",
    "write_manifest",
]

FORMAT = "headstart-model"
_FORMAT_VERSION = 1
FILES = ("card.md", "model.onnx", "weights.safetensors")
SAMPLES = "samples.safetensors"
"""A few training images as they came, to check an export with; a model may have none."""
LEARNED = "learned.safetensors"
"""Which images the model has seen, as digests and descriptors (`records.Seen`); older models have none."""
_LIMIT_CLASSES = 100_000


_ON_DISK = {"layers": "taps", "default_layer": "default_tap"}
"""Fields that keep their older name in the file, so that older versions open newer models."""


@dataclass(frozen=True)
class FileNote:
    """Size and SHA-256 of one file of the folder."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All facts about a model but its weights.

    ``network`` is the spec of a network built by headstart, None for one that is only a graph. ``source``
    describes the frozen network (empty for a network trained from scratch), ``data`` the dataset's name,
    fingerprint and counts. ``scores`` are from training and validation images, never from the test set.
    ``calibration`` and ``novelty`` are empty where neither was fitted. Only ``timing`` differs between equal runs.
    """

    name: str
    strategy: str
    classes: tuple[str, ...]
    input: InputSpec
    layers: Mapping[str, tuple[int, ...]]
    default_layer: str
    source_fingerprint: str
    network: NetworkSpec | None
    head: Mapping[str, Any]
    source: Mapping[str, Any]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    scores: Mapping[str, Any]
    seed: int
    versions: Mapping[str, str]
    calibration: Mapping[str, Any] = field(default_factory=dict)
    novelty: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileNote] = field(default_factory=dict)


def write_manifest(manifest: Manifest) -> str:
    """The manifest as JSON text."""
    fields = {_ON_DISK.get(key, key): value for key, value in asdict(manifest).items()}
    document = {"format": FORMAT, "format_version": _FORMAT_VERSION, **fields}
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_manifest(text: str, place: str) -> Manifest:
    """Parse and check a manifest; ModelError where a field is missing or malformed. ``place`` is for the message."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _fault(place, f"is not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _fault(place, f"has no format {FORMAT!r}")
    if document.get("format_version") != _FORMAT_VERSION:
        raise ModelError(
            f"model {place!r} has format version {document.get('format_version')!r}, expected "
            f"{_FORMAT_VERSION}; open it with the version of headstart that wrote it"
        )
    try:
        return _manifest(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _fault(place, f"has a missing or malformed field ({error})") from error


def _fault(place: str, what: str) -> ModelError:
    return ModelError(
        f"manifest of model {place!r} {what}, expected one written by headstart; save the model again"
    )


def _manifest(document: Mapping[str, Any]) -> Manifest:
    classes = tuple(_text(name) for name in document["classes"])
    if not 2 <= len(classes) <= _LIMIT_CLASSES or len(set(classes)) != len(classes):
        raise ValueError(f"{len(classes)} classes, or one named twice")
    files = {
        name: FileNote(int(note["size_bytes"]), _text(note["sha256"]))
        for name, note in document["files"].items()
    }
    if sorted(set(files) - {SAMPLES, LEARNED}) != sorted(FILES):
        raise ValueError(f"files are {sorted(files)}")
    plain: dict[str, Any] = {
        key: _mapping(document[key])
        for key in ("head", "source", "data", "settings", "scores", "versions", "timing")
    }
    plain |= {key: _mapping(document.get(key, {})) for key in ("calibration", "novelty")}
    texts: dict[str, Any] = {
        key: _text(document[_ON_DISK.get(key, key)])
        for key in ("name", "strategy", "default_layer", "source_fingerprint")
    }
    shapes = document[_ON_DISK["layers"]]
    layers = {_text(name): tuple(int(size) for size in shape) for name, shape in shapes.items()}
    if texts["default_layer"] not in layers:
        raise ValueError(f"default layer {texts['default_layer']!r} is not a layer")
    network = None if document["network"] is None else spec_from_json(document["network"])
    return Manifest(
        classes=classes,
        input=_input(document["input"]),
        layers=layers,
        network=network,
        seed=int(document["seed"]),
        files=files,
        **texts,
        **plain,
    )


def spec_from_json(document: Mapping[str, Any]) -> NetworkSpec:
    """A network spec from its JSON form; KeyError, TypeError or ValueError if it is malformed."""
    layers = tuple(
        LayerSpec(_text(one["kind"]), _text(one["name"]), _mapping(one["options"]))
        for one in document["layers"]
    )
    if not layers or layers[-1].kind != "dense":
        raise ValueError("a network ends in a dense layer")
    return NetworkSpec(_text(document["name"]), _input(document["input"]), layers)


def _input(document: Mapping[str, Any]) -> InputSpec:
    sizes = [int(document[key]) for key in ("height_px", "width_px", "channels")]
    if min(sizes) < 1 or max(sizes) > 4096 or sizes[2] not in (1, 3):
        raise ValueError(f"input size {sizes}")
    mean, std = (tuple(float(value) for value in document[key]) for key in ("mean", "std"))
    fitting = _text(document.get("interpolation", "bilinear")), float(document.get("crop_share", 1.0))
    depth = document.get("depth_bits")
    if depth is not None and (type(depth) is not int or depth not in DEPTHS):
        raise ValueError(f"depth_bits {depth!r}")
    return InputSpec(sizes[0], sizes[1], sizes[2], mean, std, _text(document["policy"]), *fitting, depth)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not a mapping")
    return value
