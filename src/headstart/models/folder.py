"""The files of a model folder: written completely or not at all, and read as one writer left them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from headstart.errors import ModelError
from headstart.models.audit import audit_graph, audited_file, check_hash
from headstart.models.manifest import REPORT, FileNote, Manifest, read_manifest, write_manifest
from headstart.system.files import check_place, utf8, write_file
from headstart.system.folders import atomic_folder, read_stable

__all__ = ["MANIFEST", "check_output", "read_folder", "tensors_in", "write_folder"]

MANIFEST = "manifest.json"
_LIMIT_MANIFEST_BYTES = 16 * 2**20


def check_output(folder: str | os.PathLike[str]) -> None:
    """Check, before training, that a model can be saved here; SettingError if not."""
    check_place(folder, marker=MANIFEST)
    if (Path(folder) / MANIFEST).is_file():
        read_manifest(_manifest_text(Path(folder)), str(folder))  # web apps have a manifest.json, too


def write_folder(
    folder: str | os.PathLike[str], manifest: Manifest, contents: Mapping[str, bytes], report: str | None
) -> Path:
    """Write files and manifest, and the report if there is one; what could not be opened again is refused."""
    page = None if report is None else utf8(report)
    notes = {name: _note(data) for name, data in contents.items()}
    noted = replace(manifest, files=notes, report=None if page is None else _note(page))
    text = write_manifest(noted)
    read_manifest(text, manifest.name)
    audit_graph(contents["model.onnx"], manifest, manifest.name)
    check_output(folder)
    with atomic_folder(folder, marker=MANIFEST, may_hold=(REPORT,)) as temporary:
        for name, data in contents.items():
            write_file(temporary / name, data)
        if page is not None:
            write_file(temporary / REPORT, page)
        write_file(temporary / MANIFEST, text)
    return Path(folder)


def _note(data: bytes) -> FileNote:
    return FileNote(len(data), hashlib.sha256(data).hexdigest())


def read_folder(folder: str | os.PathLike[str]) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest and the files that it lists, checked; read again where the folder is replaced meanwhile."""
    home, place = Path(folder), str(folder)

    def read() -> tuple[Manifest, dict[str, bytes]]:
        manifest = read_manifest(_manifest_text(home), place)
        contents = {name: audited_file(home / name, note, place) for name, note in manifest.files.items()}
        if manifest.report is not None and (home / REPORT).exists():
            check_hash(home / REPORT, manifest.report, place)
        return manifest, contents

    manifest, contents = read_stable(home, read)
    audit_graph(contents["model.onnx"], manifest, place)
    return manifest, contents


def _manifest_text(home: Path) -> str:
    path = home / MANIFEST
    if not path.is_file():
        what = "is not a folder" if not home.is_dir() else f"holds no {MANIFEST}"
        raise ModelError(
            f"model {str(home)!r} {what}, expected a model folder; "
            "make one with: headstart transfer SOURCE DATA -o MODEL"
        )
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_MANIFEST_BYTES + 1)
        if len(data) > _LIMIT_MANIFEST_BYTES:
            raise ModelError(
                f"manifest of model {str(home)!r} is larger than {_LIMIT_MANIFEST_BYTES} bytes, "
                "expected one written by headstart"
            )
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"manifest of model {str(home)!r} cannot be read ({error}), expected UTF-8 text; copy the model again"
        ) from error


def tensors_in(data: bytes, name: str, place: str) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file; ModelError if it is none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:  # KeyError: a type that NumPy lacks
        raise ModelError(
            f"file {name} of model {place!r} cannot be read ({error}), "
            "expected the file as saved; copy the folder again"
        ) from error
