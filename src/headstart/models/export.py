"""Export a model as one graph that prepares its images itself, checked against the model before it is written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.images.thumbnails import png_bytes
from headstart.errors import ModelError, SettingError, nearest
from headstart.graph.files import IR_FILES, write_openvino
from headstart.graph.preparation.prepare import IMAGE, with_preparation
from headstart.models.agreement import Agreement, Check, LazyImages, Limits, colour, limits_of, make_check
from headstart.models.model import Model
from headstart.records import NONE_OF_THESE
from headstart.system.files import atomic_file, check_place, write_file
from headstart.system.folders import atomic_folder

__all__ = ["TARGETS", "ExportedModel", "export_model"]

TARGETS = ("onnx", "openvino", "folder")
_MAX_CHECKED = 64
_MAX_KEPT = 8
"""Images saved in an exported folder to check with; full-size images are large."""
_GRAPH, _FACTS, _CHECK = "model.onnx", "model.json", "check.json"
_DOCUMENTS = {"predict.py": "predict.py.txt", "predict.mjs": "predict.mjs", "package.json": "package.json"}
_MAY_HOLD = (*(f"check-{number:02}.png" for number in range(_MAX_KEPT)), "node_modules", "package-lock.json")

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class ExportedModel:
    """What was written (the size is the graph's), and how well it agrees with the model on ``n_checked`` images.

    ``largest_difference`` is of any probability, 0 - 1; ``n_changed`` counts images with another predicted name,
    where the rounding of a pixel or of the last digit decides; an export that differs otherwise is not written.
    """

    path: str
    to: str
    n_checked: int
    largest_difference: float
    n_changed: int
    size_bytes: int
    seconds: float

    @property
    def sentence(self) -> str:
        """One line for people."""
        same = "the same predicted classes as the model"
        if self.n_changed:
            same = f"another class than the model's for {self.n_changed}, where rounding decides"
        return (
            f"{self.path}: one graph, {self.size_bytes / 1e6:.1f} MB, for images of any size; checked on "
            f"{self.n_checked} images: {same}, probabilities within "
            f"{self.largest_difference:.1g} ({self.seconds:.1f} s)"
        )


def export_model(
    model: Model, to: str, output: str | os.PathLike[str], *, check: Dataset | None = None
) -> ExportedModel:
    """Write a model as one graph that takes an image of any size, and check that it predicts the same.

    Parameters
    ----------
    model : Model
        Any.
    to : {'onnx', 'openvino', 'folder'}
        One ``.onnx`` file; a folder with OpenVINO's ``model.xml`` and ``model.bin``; or a folder with the
        graph, its metadata, example programs, and images with the expected predictions.
    output : path
        File (``.onnx`` is added if missing) or folder; an older export is replaced.
    check : Dataset, optional
        Images to check with; at most 64 are used, evenly spaced. Default: the model's own samples.

    Returns
    -------
    ExportedModel
        Where it is and how well it agrees.

    Raises
    ------
    SettingError
        If ``to`` is unknown or the output holds something else.
    ModelError
        If there is no image to check with, or if the file prepares other pixels than the model, or predicts
        another name, or a probability that differs by more than 0.001 (0.1 for a model in int8 in ONNX Runtime), for
        the same pixels; nothing is written then.

    Notes
    -----
    The graph takes ``image``, uint8 (height, width, 3), and returns ``probabilities`` (n_classes,) and, where
    the model has it, ``novelty`` (1,), above 1 for none of these. The check reads the file from disk and runs it
    with ONNX Runtime (``onnx``, ``folder``) or OpenVINO.
    """
    begun = perf_counter()
    target = _output_path(to, Path(output))
    images = _check_images(model, check)
    agreed = make_check(model, images)
    facts = _facts(model)
    graph = with_preparation(model.graph, model.manifest.input, _metadata(facts), wide=to != "openvino")
    found = _WRITERS[to](graph, facts, target, agreed)
    size = sum((target / name).stat().st_size for name in IR_FILES) if to == "openvino" else len(graph)
    return ExportedModel(
        str(target), to, len(images), found.largest_difference, found.n_changed, size, perf_counter() - begun
    )


def _output_path(to: str, output: Path) -> Path:
    """The output path, after checking that it may be written."""
    if to not in TARGETS:
        raise SettingError(
            f"export format {to!r} is unknown, expected one of {', '.join(TARGETS)}; {nearest(to, TARGETS)}"
        )
    if to == "onnx":
        target = output if output.suffix == ".onnx" else output.with_name(f"{output.name}.onnx")
        if target.is_dir():
            raise SettingError(f"{str(target)!r} is a folder, expected a file to write to; choose another")
        return target
    check_place(output, marker=IR_FILES[0] if to == "openvino" else _FACTS)
    return output


def _check_images(model: Model, check: Dataset | None) -> LazyImages:
    if check is None:
        images: LazyImages = [lambda one=one: one for one in model.samples[:_MAX_CHECKED]]  # type: ignore[misc]
    else:
        indices = np.linspace(0, len(check) - 1, min(len(check), _MAX_CHECKED)).astype(int)
        images = [lambda index=int(index): check.images.image(index) for index in indices]  # type: ignore[misc]
    if not images:
        raise ModelError(
            f"model {model.manifest.name!r} has no sample images, expected some to check the export with; "
            "name a dataset: headstart export MODEL --check DATA"
        )
    return images


def _facts(model: Model) -> dict[str, Any]:
    """Metadata that users of the graph need."""
    manifest = model.manifest
    licence = (manifest.source.get("notes") or {}).get("licence") or manifest.source.get("licence")
    none = {"none_of_these": {"name": NONE_OF_THESE, "when": "novelty > 1"}} if manifest.novelty else {}
    return {
        "format": "headstart-picture-graph",
        "name": manifest.name,
        "classes": list(manifest.classes),
        "input": {"name": IMAGE, "dtype": "uint8", "shape": ["height", "width", 3], "order": "RGB"},
        **none,
        "preparation": asdict(manifest.input),
        **({"licence": licence} if licence else {}),
        "precision": model.precision,
        "fingerprint": hashlib.sha256(model.graph).hexdigest(),
    }


def _metadata(facts: Facts) -> dict[str, str]:
    """The metadata as strings, as ONNX requires."""
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in facts.items()
    }
    if "none_of_these" in texts:
        texts["none_of_these"] = str(facts["none_of_these"]["when"])
    return texts


def _write_onnx(graph: bytes, _: Facts, target: Path, check: Check) -> Agreement:
    with atomic_file(target) as temporary:
        write_file(temporary, graph)
        return check.agreement(temporary)


def _write_openvino(graph: bytes, facts: Facts, target: Path, check: Check) -> Agreement:
    with atomic_folder(target, marker=IR_FILES[0]) as temporary:
        write_openvino(graph, temporary, _metadata(facts))
        return check.agreement(temporary / IR_FILES[0])


def _write_folder(graph: bytes, facts: Facts, target: Path, check: Check) -> Agreement:
    with atomic_folder(target, marker=_FACTS, may_hold=_MAY_HOLD) as temporary:
        write_file(temporary / _GRAPH, graph)
        write_file(temporary / _FACTS, _pretty(facts))
        for name, text in _documents(facts, limits_of(check.model, Path(_GRAPH))):
            write_file(temporary / name, text)
        for number, image in enumerate(check.images[:_MAX_KEPT]):
            write_file(temporary / f"check-{number:02}.png", png_bytes(colour(image())))
        write_file(temporary / _CHECK, _pretty(_expectations(check)))
        return check.agreement(temporary / _GRAPH)


_WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino, "folder": _write_folder}


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _documents(facts: Facts, limits: Limits) -> Iterator[tuple[str, str]]:
    """Names and texts of the example programs and the README of an exported folder."""
    home = files("headstart.models") / "shipped"
    for name, stored in _DOCUMENTS.items():
        yield name, (home / stored).read_text(encoding="utf-8")
    page = (home / "README.md").read_text(encoding="utf-8")
    licence = facts.get("licence")
    yield (
        "README.md",
        page.replace("{name}", str(facts["name"]))
        .replace("{classes}", ", ".join(facts["classes"]))
        .replace("{difference}", f"{limits.difference:g}")
        .replace("{licence}", f"Licence of the source network: {licence}." if licence else "")
        .rstrip()
        + "\n",
    )


def _expectations(check: Check) -> dict[str, Any]:
    """What the example programs must predict for the images in the folder."""
    expected = check.expected
    names = expected.names(check.model.classes)
    rows = [
        {
            "file": f"check-{number:02}.png",
            "name": str(names[number]),
            "probabilities": [round(float(one), 6) for one in expected.probabilities[number]],
            **({} if expected.novelty is None else {"novelty": round(float(expected.novelty[number]), 6)}),
        }
        for number in range(min(len(names), _MAX_KEPT))
    ]
    return {"largest_difference": limits_of(check.model, Path(_GRAPH)).difference, "images": rows}
