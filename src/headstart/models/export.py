"""Take a model away: one graph that does everything inside, checked against the model as it is written.

In: a model and a few pictures. Out: an ONNX file, OpenVINO's two files, or a folder with examples; or an
error and nothing, where the file does not answer as the model does. Must not import a runtime itself: the
folder graph does. Called by the command line.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.images.prepare import fit
from headstart.errors import ModelError, SettingError, nearest
from headstart.graph.files import IR_FILES, run_file, write_openvino
from headstart.graph.preparation.prepare import IMAGE, with_preparation
from headstart.models.model import Model
from headstart.records import NONE_OF_THESE, Answered
from headstart.system.files import atomic_folder, check_place, write_atomic

__all__ = ["TARGETS", "ExportedModel", "export_model"]

TARGETS = ("onnx", "openvino", "folder")
_LIMIT_DIFFERENCE = 1e-3
_MAX_CHECKED = 64
_MAX_KEPT = 8
"""Check images that a folder takes along; whole pictures are large."""
_GRAPH, _FACTS, _CHECK = "model.onnx", "model.json", "check.json"
_BESIDE = {"predict.py": "predict.py.txt", "predict.mjs": "predict.mjs", "package.json": "package.json"}
_MAY_HOLD = (*(f"check-{place:02}.png" for place in range(_MAX_KEPT)), "node_modules", "package-lock.json")

Facts = Mapping[str, Any]
Pictures = Sequence[Callable[[], NDArray[np.uint8]]]
"""Each decodes one picture when it is wanted: 64 photos at once would take a gigabyte."""


@dataclass(frozen=True)
class ExportedModel:
    """What was written, and how well it agrees with the model it came from.

    Attributes
    ----------
    path : str
        The file or folder.
    to : {'onnx', 'openvino', 'folder'}
        What it is.
    n_checked : int
        Pictures that both were asked about.
    largest_difference : float
        Of any probability, 0 - 1.
    n_changed : int
        Pictures with another name, ``none of these`` included: 0, or it would not have been written.
    size_bytes : int
        Of the graph.
    seconds : float
        It took.
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
        return (
            f"{self.path}: one graph, {self.size_bytes / 1e6:.1f} MB, from an image of any size to its "
            f"answer; on {self.n_checked} pictures the same names as the model, probabilities within "
            f"{self.largest_difference:.1g} ({self.seconds:.1f} s)"
        )


def export_model(
    model: Model, to: str, output: str | os.PathLike[str], *, check: Dataset | None = None
) -> ExportedModel:
    """Write a model as one graph that prepares its pictures itself, and check that it agrees.

    Parameters
    ----------
    model : Model
        Any.
    to : {'onnx', 'openvino', 'folder'}
        One ``.onnx`` file; a folder with OpenVINO's ``model.xml`` and ``model.bin``; or a folder with the
        graph, what is known of it, programs that use it, and pictures with the answers to expect.
    output : path
        File (``.onnx`` is added where it lacks) or folder; an older export is replaced.
    check : Dataset, optional
        Pictures to check with, 64 at most, spread evenly. Default: the model's own samples.

    Returns
    -------
    ExportedModel
        Where it is and how well it agrees.

    Raises
    ------
    SettingError
        If ``to`` is unknown or something else is in the place.
    ModelError
        If there is no picture to check with; or a name is another than the model's, or a probability is
        more than 0.001 off: nothing is written then.

    Notes
    -----
    The graph takes ``image``, uint8 (height, width, 3), and gives ``probabilities`` (n_classes,) and, where
    the model has it, ``novelty`` (1,), above 1 for none of these. What is checked is read from disk, by
    ONNX Runtime (``onnx``, ``folder``) or OpenVINO.
    """
    begun = perf_counter()
    place = _place(to, Path(output))
    pictures = _pictures(model, check)
    fitted = np.stack([fit(picture(), model.manifest.input) for picture in pictures])
    expected = model.answer_prepared([fitted])
    facts = _facts(model)
    graph = with_preparation(model.graph, model.manifest.input, _metadata(facts), wide=to != "openvino")
    found = _WRITERS[to](model, graph, facts, place, pictures, expected)
    size = sum((place / name).stat().st_size for name in IR_FILES) if to == "openvino" else len(graph)
    difference = _difference(found, expected)
    return ExportedModel(str(place), to, len(pictures), difference, 0, size, perf_counter() - begun)


def _place(to: str, output: Path) -> Path:
    """Where it goes, after finding out that it may."""
    if to not in TARGETS:
        raise SettingError(f"to is {to!r}, expected one of {', '.join(TARGETS)}; {nearest(to, TARGETS)}")
    if to == "onnx":
        place = output if output.suffix == ".onnx" else output.with_name(f"{output.name}.onnx")
        if place.is_dir():
            raise SettingError(f"{str(place)!r} is a folder, expected a file to write to; choose another")
        return place
    check_place(output, marker=IR_FILES[0] if to == "openvino" else _FACTS)
    return output


def _pictures(model: Model, check: Dataset | None) -> Pictures:
    if check is None:
        pictures: Pictures = [lambda one=one: one for one in model.samples[:_MAX_CHECKED]]  # type: ignore[misc]
    else:
        places = np.linspace(0, len(check) - 1, min(len(check), _MAX_CHECKED)).astype(int)
        pictures = [lambda place=int(place): check.images.image(place) for place in places]  # type: ignore[misc]
    if not pictures:
        raise ModelError(
            f"model {model.manifest.name!r} holds no sample pictures, expected some to check the export with; "
            "name a dataset: headstart export MODEL --check DATA"
        )
    return pictures


def _colour(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As the graph takes it: three channels, equal where the picture is grey."""
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def _facts(model: Model) -> dict[str, Any]:
    """What a user of the graph must know of it."""
    manifest = model.manifest
    licence = (manifest.source.get("notes") or {}).get("licence") or manifest.source.get("licence")
    novel = {"none_of_these": {"name": NONE_OF_THESE, "when": "novelty > 1"}} if manifest.novelty else {}
    return {
        "format": "headstart-picture-graph",
        "name": manifest.name,
        "classes": list(manifest.classes),
        "input": {"name": IMAGE, "dtype": "uint8", "shape": ["height", "width", 3], "order": "RGB"},
        **novel,
        "preparation": asdict(manifest.input),
        **({"licence": licence} if licence else {}),
        "fingerprint": hashlib.sha256(model.graph).hexdigest(),
    }


def _metadata(facts: Facts) -> dict[str, str]:
    """The same as texts: ONNX metadata holds nothing else."""
    told = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in facts.items()
    }
    if "none_of_these" in told:
        told["none_of_these"] = str(facts["none_of_these"]["when"])
    return told


def _agreeing(model: Model, path: Path, pictures: Pictures, expected: Answered) -> Answered:
    """What the file on disk answers, after finding that the model answers the same."""
    run = run_file(path)
    parts = zip(*(run(_colour(picture())) for picture in pictures), strict=True)
    probabilities, *novelty = (np.stack(values) for values in parts)
    found = Answered(probabilities, novelty[0][:, 0] if novelty else None)
    n_changed = int((found.names(model.classes) != expected.names(model.classes)).sum())
    largest = _difference(found, expected)
    if n_changed or not largest <= _LIMIT_DIFFERENCE:  # NaN is no agreement
        off = np.abs(found.probabilities - expected.probabilities).max(axis=1)
        n_off = int((~(off <= _LIMIT_DIFFERENCE)).sum())
        raise ModelError(
            f"export of model {model.manifest.name!r} differs by up to {largest:.3g} in a probability "
            f"(above {_LIMIT_DIFFERENCE:g} for {n_off} of {len(pictures)} pictures) and names {n_changed} "
            f"otherwise, expected the same names and at most {_LIMIT_DIFFERENCE:g}; nothing was written: try "
            "another --to, and please report it"
        )
    return found


def _difference(found: Answered, expected: Answered) -> float:
    return float(np.abs(found.probabilities - expected.probabilities).max())


def _write_onnx(
    model: Model, graph: bytes, _: Facts, place: Path, pictures: Pictures, expected: Answered
) -> Answered:
    with TemporaryDirectory() as temporary:
        tried = write_atomic(Path(temporary) / _GRAPH, graph)
        found = _agreeing(model, tried, pictures, expected)
    write_atomic(place, graph)
    return found


def _write_openvino(
    model: Model, graph: bytes, facts: Facts, place: Path, pictures: Pictures, expected: Answered
) -> Answered:
    with atomic_folder(place, marker=IR_FILES[0]) as temporary:
        write_openvino(graph, temporary, _metadata(facts))
        return _agreeing(model, temporary / IR_FILES[0], pictures, expected)


def _write_folder(
    model: Model, graph: bytes, facts: Facts, place: Path, pictures: Pictures, expected: Answered
) -> Answered:
    with atomic_folder(place, marker=_FACTS, may_hold=_MAY_HOLD) as temporary:
        (temporary / _GRAPH).write_bytes(graph)
        (temporary / _FACTS).write_text(_pretty(facts), encoding="utf-8")
        for name, text in _beside(facts):
            (temporary / name).write_text(text, encoding="utf-8")
        for number, picture in enumerate(pictures[:_MAX_KEPT]):
            (temporary / f"check-{number:02}.png").write_bytes(_png(_colour(picture())))
        (temporary / _CHECK).write_text(_pretty(_expectations(model, expected)), encoding="utf-8")
        return _agreeing(model, temporary / _GRAPH, pictures, expected)


_WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino, "folder": _write_folder}


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _beside(facts: Facts) -> Iterator[tuple[str, str]]:
    """The programs and the page that explain the graph, from the package's own files."""
    home = files("headstart.models") / "shipped"
    for name, stored in _BESIDE.items():
        yield name, (home / stored).read_text(encoding="utf-8")
    page = (home / "README.md").read_text(encoding="utf-8")
    licence = facts.get("licence")
    yield (
        "README.md",
        page.replace("{name}", str(facts["name"]))
        .replace("{classes}", ", ".join(facts["classes"]))
        .replace("{licence}", f"Licence of the network learnt from: {licence}." if licence else "")
        .rstrip()
        + "\n",
    )


def _expectations(model: Model, expected: Answered) -> dict[str, Any]:
    """What the programs must answer to the pictures beside them."""
    names = expected.names(model.classes)
    rows = [
        {
            "file": f"check-{number:02}.png",
            "name": str(names[number]),
            "probabilities": [round(float(one), 6) for one in expected.probabilities[number]],
            **({} if expected.novelty is None else {"novelty": round(float(expected.novelty[number]), 6)}),
        }
        for number in range(min(len(names), _MAX_KEPT))
    ]
    return {"largest_difference": _LIMIT_DIFFERENCE, "pictures": rows}


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture as PNG: 8 bits, red, green, blue, no filter. Pillow is not ours to import here."""
    height, width = pixels.shape[:2]
    lines = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with its filter, 0
    lines[:, 1:] = pixels.reshape(height, 3 * width)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines.tobytes())),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
