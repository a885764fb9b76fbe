"""One checkpoint as bytes: packed, verified, unpacked. Nothing in a file is used before it is checked."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError

__all__ = [
    "DamagedError",
    "Snapshot",
    "exact_value",
    "leaves_of",
    "pack_snapshot",
    "restored_value",
    "shortened",
    "unpack_snapshot",
]


_FORMAT = 1


_RESERVED = "__metadata__"  # safetensors' own key among the names of the arrays


_DTYPES = frozenset("bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64".split())


_LIMIT_BYTES = 16 * 2**30


_LIMIT_TEXT_BYTES = 32 * 2**20  # safetensors allows headers of 100 MB, and quoting lengthens the text


_BITS = "$bits"


@dataclass(frozen=True)
class Snapshot:
    """The state of a training run; ``values["step"]`` is the number of steps done.

    Arrays (bool, int or float) and JSON values are restored bit for bit, arrays in order, C-contiguous and writable;
    a tuple becomes a list, a NumPy scalar Python's.
    """

    arrays: dict[str, NDArray[Any]]
    values: dict[str, Any]


class DamagedError(Exception):
    """What is wrong with one file, in a few words."""


def pack_snapshot(snapshot: Snapshot, identity: Any) -> bytes:
    """One safetensors file; its header holds a JSON text with all but the arrays, and a hash of text and arrays."""
    from safetensors.numpy import save

    arrays = {name: _array(name, array) for name, array in snapshot.arrays.items()}
    text = json.dumps(
        {
            "format": _FORMAT,
            "identity": identity,
            "values": exact_value(snapshot.values, "values"),
            "arrays": [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()],
        },
        allow_nan=False,
    )
    n_bytes = sum(array.nbytes for array in arrays.values())
    if len(text) > _LIMIT_TEXT_BYTES or n_bytes > _LIMIT_BYTES:
        raise SettingError(
            f"snapshot has {n_bytes:,} bytes of arrays and {len(text):,} of values, expected at most "
            f"{_LIMIT_BYTES:,} and {_LIMIT_TEXT_BYTES:,}; put large values into arrays"
        )
    return save(arrays, {"checkpoint": text, "sha256": _digest(text, arrays.values())})


def _array(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """The array as it is written: contiguous, in the machine's byte order; a 0-d array stays 0-d."""
    plain = np.asarray(array, order="C")
    plain = plain.astype(plain.dtype.newbyteorder("="), copy=False)
    if plain.dtype.name not in _DTYPES:
        raise SettingError(
            f"array {name!r} has dtype {plain.dtype}, expected one of {', '.join(sorted(_DTYPES))}"
        )
    if name == _RESERVED or name != name.encode(errors="replace").decode():
        raise SettingError(f"array is named {name!r}, expected a name in Unicode other than {_RESERVED!r}")
    return plain


def _digest(text: str, arrays: Iterable[NDArray[Any]]) -> str:
    """SHA-256 of the text, which has the arrays' order, dtypes and shapes, and of the arrays' bytes."""
    digest = hashlib.sha256(text.encode() + b"\n")
    for array in arrays:
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def unpack_snapshot(path: Path) -> tuple[Snapshot, Any]:
    """Snapshot and identity, read in three steps: parse within limits, audit, construct."""
    try:
        text, sha256, tensors = _parsed(path)
        order = _audited(text, sha256, tensors)
        known = json.loads(text, object_hook=restored_value)
    except OSError as error:
        raise DamagedError(f"cannot be read ({error.strerror})") from error
    arrays = {name: tensors[name] for name in order}
    # some releases of safetensors return read-only arrays
    writable = {name: array if array.flags.writeable else array.copy() for name, array in arrays.items()}
    return Snapshot(writable, known["values"]), known["identity"]


def _parsed(path: Path) -> tuple[str, str, dict[str, NDArray[Any]]]:
    """The text, the hash as written, and the arrays; not verified yet."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    # the header may be longer: quoting can double the text, and the arrays are listed again
    if path.stat().st_size > _LIMIT_BYTES + 4 * _LIMIT_TEXT_BYTES:
        raise DamagedError("is too large")
    content = path.read_bytes()
    try:
        tensors = load(content)
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])[_RESERVED]
        return header["checkpoint"], header["sha256"], tensors
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedError("is not a complete file") from error


def _audited(text: str, sha256: str, tensors: Mapping[str, NDArray[Any]]) -> list[str]:
    """Names of the arrays in order, after the hash has shown that the content is as written."""
    try:
        document = json.loads(text)
        order = [name for name, _, _ in document["arrays"]]
        layout = [[name, tensors[name].dtype.name, list(tensors[name].shape)] for name in order]
        if document["format"] != _FORMAT:
            raise DamagedError(f"has format {document['format']!r}, expected {_FORMAT}")
        if document["arrays"] != layout or len(layout) != len(tensors):
            raise DamagedError("has arrays that do not match its header")
        if _digest(text, (tensors[name] for name in order)) != sha256:
            raise DamagedError("does not match its checksum")
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError("has a malformed header") from error
    return order


def exact_value(value: Any, name: str) -> Any:
    """The value as JSON can hold it exactly: infinities and NaN become their bits."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_BITS: struct.pack(">d", value).hex()}
    if isinstance(value, list | tuple):
        return [exact_value(one, f"{name}[{place}]") for place, one in enumerate(value)]
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise SettingError(f"{name} has the key {wrong[0]!r}, expected text for a key; write it as text")
        # a key that already starts with $ gets another
        return {
            f"${key}" if key.startswith("$") else key: exact_value(one, f"{name}[{key!r}]")
            for key, one in value.items()
        }
    raise SettingError(
        f"{name} is of type {type(value).__name__}, expected None, a number, text, or a list or dict of these; "
        "put arrays among the arrays"
    )


def restored_value(found: dict[str, Any]) -> Any:
    """Inverse of ``exact_value`` for one JSON object whose members are restored already."""
    if found.keys() == {_BITS}:
        return struct.unpack(">d", bytes.fromhex(found[_BITS]))[0]
    return {key.removeprefix("$"): value for key, value in found.items()}


def leaves_of(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names in nested dicts, with each value as text: NaN equals NaN, 1 differs from 1.0."""
    if isinstance(value, dict) and value:
        for key, one in value.items():
            yield from leaves_of(one, f"{name}.{key}" if name else key)
    else:
        yield name, repr(value)


def shortened(text: str | None) -> str:
    """A value as messages show it."""
    if text is None:
        return "not given"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


_SHOWN = 60  # characters of a value in an error
