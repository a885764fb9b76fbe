"""Values as JSON files with a checksum, for the parts of the cache that are no arrays."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from headstart.system.array_file import DamagedError
from headstart.system.files import write_atomic

__all__ = ["read_checked", "write_checked"]


def write_checked(path: Path, value: Any) -> None:
    """Write a value of plain types with its checksum, completely or not at all."""
    write_atomic(path, _text(value))


def read_checked(path: Path) -> Any | None:
    """The value, or None where there is no file or it is of a version that kept no checksum.

    DamagedError if it is not as it was written, OSError if it cannot be read.
    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DamagedError("it is not JSON") from error
    if not isinstance(found, dict) or "sha256" not in found or "value" not in found:
        return None
    if _text(found["value"]).encode() != text:
        raise DamagedError("its checksum differs")
    return found["value"]


def _text(value: Any) -> str:
    checksum = hashlib.sha256(json.dumps(value).encode()).hexdigest()
    return json.dumps({"sha256": checksum, "value": value})
