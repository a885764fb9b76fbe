"""The manifest of a model folder: written as JSON with its own checksum, and checked field by field when it is read.

Without onnx or a runtime, so that reading what a model is costs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from headstart.errors import ModelError, SettingError, printable
from headstart.models import values
from headstart.records import InputSpec, NetworkSpec

__all__ = [
    "FILES",
    "FORMAT",
    "LEARNED",
    "LIMIT_FILE_BYTES",
    "REPORT",
    "SAMPLES",
    "FileNote",
    "Manifest",
    "check_name",
    "checksum",
    "read_manifest",
    "write_manifest",
]

FORMAT = "headstart-model"
_FORMAT_VERSION = 1
FILES = ("card.md", "model.onnx", "weights.safetensors")
SAMPLES = "samples.safetensors"
"""A few training images as they came, to check an export with; a model may have none."""
LEARNED = "learned.safetensors"
"""Which images the model has seen, as digests and descriptors (`records.Seen`); older models have none."""
REPORT = "report.html"
"""What the training was like, to read; it may be missing, and older models do not list it."""
LIMIT_FILE_BYTES = 2 * 2**30
"""Protocol buffers, which graphs are, cannot be larger."""
_LIMIT_CLASSES = 100_000
_LIMIT_NAME = 200  # characters
_LIMIT_QUANTILES = 10_000
_CHECKSUM, _REPORT = "checksum", "report"

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
    ``calibration`` and ``novelty`` are empty where neither was fitted; ``answer_sets`` where no scores of left-out
    images are known. Only ``timing`` differs between equal runs.
    ``report`` is None where the folder has no report, or one that is not listed.
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
    answer_sets: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileNote] = field(default_factory=dict)
    report: FileNote | None = None


def check_name(name: str | None) -> None:
    """SettingError for a name that a model cannot have; None is the default name."""
    if name is not None and (not name.strip() or len(name) > _LIMIT_NAME or printable(name) != name):
        raise SettingError(
            f"name is {name!r}, expected 1 to {_LIMIT_NAME} characters on one line; give the model another name"
        )


def write_manifest(manifest: Manifest) -> str:
    """The manifest as JSON text."""
    fields = {_ON_DISK.get(key, key): value for key, value in asdict(manifest).items()}
    document = {"format": FORMAT, "format_version": _FORMAT_VERSION, **fields}
    document[_CHECKSUM] = checksum(document)
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def checksum(document: Mapping[str, Any]) -> str:
    """SHA-256 of all values of a manifest but the checksum itself; layout and order do not matter.

    It finds damage. It is no signature: whoever alters a manifest on purpose can compute it.
    """
    kept = {name: value for name, value in document.items() if name != _CHECKSUM}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def read_manifest(text: str, place: str) -> Manifest:
    """Parse and check a manifest; ModelError where a value is missing or malformed. ``place`` is for the message."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _fault(place, f"is not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _fault(place, f"has no format {FORMAT!r}")
    if document.get("format_version") != _FORMAT_VERSION or document.get("format_version") is True:
        raise ModelError(
            f"model {place!r} has format version {document.get('format_version')!r}, expected "
            f"{_FORMAT_VERSION}; open it with the version of headstart that wrote it"
        )
    try:
        manifest = _manifest(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise _fault(place, f"has a missing or malformed field ({error})") from error
    # manifests without both names are older than the checksum
    if (_CHECKSUM in document or _REPORT in document) and document.get(_CHECKSUM) != checksum(document):
        raise ModelError(
            f"manifest of model {place!r} was altered (its checksum differs), expected the file as saved; copy the "
            "folder again"
        )
    return manifest


def _fault(place: str, what: str) -> ModelError:
    return ModelError(
        f"manifest of model {place!r} {what}, expected one written by headstart; save the model again"
    )


def _manifest(document: Mapping[str, Any]) -> Manifest:
    layers = values.layer_shapes(document[_ON_DISK["layers"]])
    default_layer = values.text(document[_ON_DISK["default_layer"]])
    if default_layer not in layers:
        raise ValueError(f"default layer {default_layer!r} is not a layer")
    network = None if document["network"] is None else values.network_spec(document["network"])
    taken = values.input_spec(document["input"])
    if network is not None and network.input != taken:
        raise ValueError("the network has another input than the model")
    report = document.get(_REPORT)
    return Manifest(
        name=values.text(document["name"]),
        strategy=values.text(document["strategy"]),
        classes=_classes(document["classes"]),
        input=taken,
        layers=layers,
        default_layer=default_layer,
        source_fingerprint=values.digest(document["source_fingerprint"]),
        network=network,
        head=_head(document["head"]),
        source=_source(document["source"]),
        data=_data(document["data"]),
        settings=_settings(document["settings"]),
        scores=values.numbers(document["scores"]),
        seed=values.integer(document["seed"], 0, 2**63),
        versions=values.texts(document["versions"]),
        calibration=_calibration(document.get("calibration", {})),
        novelty=_novelty(document.get("novelty", {})),
        answer_sets=_answer_sets(document.get("answer_sets", {})),
        timing=values.numbers(document["timing"]),
        files=_files(document["files"]),
        report=None if report is None else _note(report),
    )


def _classes(names: object) -> tuple[str, ...]:
    if not isinstance(names, list):
        raise TypeError("classes are not a list")
    classes = tuple(values.text(name) for name in names)
    if not 2 <= len(classes) <= _LIMIT_CLASSES or len(set(classes)) != len(classes):
        raise ValueError(f"{len(classes)} classes, or one named twice")
    return classes


def _files(notes: object) -> dict[str, FileNote]:
    files = {name: _note(note) for name, note in values.mapping(notes).items()}
    if sorted(set(files) - {SAMPLES, LEARNED}) != sorted(FILES):
        raise ValueError(f"files are {sorted(files)}")
    return files


def _note(note: object) -> FileNote:
    fields = values.mapping(note)
    size = values.integer(fields["size_bytes"], 0, LIMIT_FILE_BYTES)
    return FileNote(size, values.digest(fields["sha256"], 64))


def _head(value: object) -> dict[str, Any]:
    head = values.plain(values.mapping(value))
    values.text(head["name"])
    for one in values.mapping(head["chosen"]).values():
        values.finite(int(one) if isinstance(one, bool) else one)
    if "heads" in head:  # of a mean
        if not isinstance(head["heads"], list) or not head["heads"]:
            raise TypeError("heads are not a list of heads")
        for one in head["heads"]:
            _head(one)
            values.text(one["tap"])
            values.text(one["pooling"])
    return dict(head)


def _source(value: object) -> dict[str, Any]:
    source = values.plain(values.mapping(value))
    for name in ("name", "tap", "pooling") if source else ():
        values.text(source[name])
    for name in ("fingerprint", "licence", "precision", "calibrated_on"):
        values.optional(source, name, values.text)
    values.optional(source, "notes", values.mapping)
    return dict(source)


def _data(value: object) -> dict[str, Any]:
    data = values.plain(values.mapping(value))
    for name in ("name", "fingerprint"):
        values.text(data[name])
    for size in (data["n_images"], data.get("n_held", 0), *values.mapping(data["counts"]).values()):
        values.integer(size, 0, 2**63)
    values.optional(data, "holdout", _holdout)
    values.optional(data, "unlabelled", _unlabelled)
    values.optional(data, "n_groups", lambda value: values.integer(value, 0, 2**63))
    return dict(data)


def _unlabelled(value: object) -> None:
    fields = values.mapping(value)
    for name in ("name", "fingerprint"):
        values.text(fields[name])
    values.integer(fields["n_images"], 1, 2**63)


def _holdout(value: object) -> None:
    fields = values.mapping(value)
    if not 0 < values.finite(fields["share"]) < 1:
        raise ValueError(f"holdout of {fields['share']}")
    for name in ("seed", "n_images"):
        values.integer(fields[name], 0, 2**63)


def _settings(value: object) -> dict[str, Any]:
    settings = values.plain(values.mapping(value))
    values.optional(settings, "run", values.texts)
    return dict(settings)


def _calibration(value: object) -> dict[str, Any]:
    calibration = values.plain(values.mapping(value))
    values.optional(calibration, "temperature", values.finite)
    for name in ("before", "after"):
        for key in ("ece", "brier", "nll") if name in calibration else ():
            values.number(calibration[name][key])
        if name in calibration:
            values.integer(calibration[name]["n"], 0, 2**63)
    return dict(calibration)


def _novelty(value: object) -> dict[str, Any]:
    novelty = values.plain(values.mapping(value))
    if novelty and not 0 < values.finite(novelty["false_rejection"]) < 1:
        raise ValueError(f"share of false rejections {novelty['false_rejection']}")
    if "left_out" in novelty and not _quantiles(novelty["left_out"])[0] > 0:
        raise ValueError("left-out novelty is not positive")
    values.optional(novelty, "n_held", lambda value: values.integer(value, 0, 2**63))
    return dict(novelty)


def _answer_sets(value: object) -> dict[str, Any]:
    note = values.plain(values.mapping(value))
    if note:
        _quantiles(note["left_out"])
        for name in ("n_images", "n_clusters"):
            values.integer(note[name], 1, 2**63)
        if values.text(note["rule"]) not in ("probability", "margin"):
            raise ValueError(f"answer sets by {note['rule']!r}")
        values.text(note["images"])
    return dict(note)


def _quantiles(value: object) -> list[float]:
    if not isinstance(value, list) or not 1 <= len(value) <= _LIMIT_QUANTILES:
        raise TypeError("quantiles are not a list of numbers")
    found = [float(values.finite(one)) for one in value]
    if sorted(found) != found:
        raise ValueError("quantiles are not in order")
    return found
