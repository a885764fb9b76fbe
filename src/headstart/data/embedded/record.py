"""What a file of features says of itself: source, place, data and version, as JSON in its schema metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from headstart.errors import DataError

__all__ = ["KEY", "PANDAS_KEY", "EmbeddedData", "EmbeddedSource", "FeatureRecord", "Shard", "record_text"]

KEY = b"headstart"
PANDAS_KEY = b"PANDAS_ATTRS"
"""Pandas reads this entry into ``DataFrame.attrs`` and writes it again, and drops all others."""
_FORMAT = 1
_DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class EmbeddedSource:
    """How the source is opened again, and what it must be then.

    ``preparation`` is the version of image preparation. ``seed`` draws random weights, ``size_px`` is the input size
    that was given. ``ranges`` are those of a source in int8, base64 of float32, by which it is made again without the
    images.
    """

    name: str
    fingerprint: str
    precision: str
    policy: str
    preparation: int
    seed: int = 0
    size_px: int | None = None
    ranges: str | None = None
    calibrated_on: str | None = None


@dataclass(frozen=True)
class EmbeddedData:
    """The dataset: ``fingerprint`` is that of its images, ``image_shape`` None if they are files."""

    name: str
    fingerprint: str
    n_images: int
    classes: tuple[str, ...]
    image_shape: tuple[int, ...] | None
    depth_bits: int | None


@dataclass(frozen=True)
class Shard:
    """Which images a file holds: ``n_images`` from ``first`` on; all shards but the last hold ``size``."""

    number: int
    first: int
    n_images: int
    size: int


@dataclass(frozen=True)
class FeatureRecord:
    """Everything that the vectors of a file depend on, and what is needed to use them with their source."""

    source: EmbeddedSource
    layer: str
    pooling: str
    runtime: str
    dtype: str
    n_features: int
    data: EmbeddedData
    shard: Shard
    version: str

    @property
    def place(self) -> tuple[str, str]:
        """Layer and pooling."""
        return self.layer, self.pooling

    @property
    def n_shards(self) -> int:
        """Number of files."""
        return max(1, -(-self.data.n_images // self.shard.size))

    def of_shard(self, number: int) -> FeatureRecord:
        """The record of another file of the same features."""
        size, total = self.shard.size, self.data.n_images
        first = number * size
        return replace(self, shard=Shard(number, first, min(size, total - first), size))

    def differences(self, other: FeatureRecord) -> list[str]:
        """What two records differ in, shard number and version apart: ``layer ('a' and 'b')``."""
        ours, theirs = _flat(self), _flat(other)
        return [
            f"{name} ({ours[name]!r} and {theirs[name]!r})" for name in ours if ours[name] != theirs[name]
        ]

    def metadata(self) -> dict[bytes, bytes]:
        """Entries of a Parquet schema; the second one survives pandas."""
        text = {"format": _FORMAT, **asdict(self)}
        return {KEY: json.dumps(text).encode(), PANDAS_KEY: json.dumps({KEY.decode(): text}).encode()}

    @classmethod
    def read(cls, metadata: Mapping[bytes, bytes] | None, name: str) -> FeatureRecord:
        """The record in the metadata of a file ``name``; DataError if there is none, or it is malformed."""
        found = record_text(metadata or {})
        if found is None:
            raise DataError(
                f"table {name!r} has digests and vectors but no entry 'headstart' in its metadata, expected the one "
                "that names their source, as headstart embed writes it; copy the entry when you write the table"
            )
        try:
            text = json.loads(found)
            version = str(text.get("version"))
            if text["format"] != _FORMAT:
                raise DataError(
                    f"features {name!r} have the format {text['format']!r} of headstart {version}, expected "
                    f"{_FORMAT}; compute them again with headstart embed"
                )
            return _parsed(text)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"features {name!r} have a malformed entry 'headstart' in their metadata "
                f"({type(error).__name__}: {error}), expected what headstart embed writes; compute them again"
            ) from error


def record_text(metadata: Mapping[bytes, bytes]) -> bytes | str | None:
    """The JSON text of the record among the entries of a schema, None if there is none."""
    if KEY in metadata:
        return metadata[KEY]
    try:
        kept = json.loads(metadata.get(PANDAS_KEY, b"{}"))
        return json.dumps(kept[KEY.decode()])
    except (ValueError, KeyError, TypeError):
        return None


def _parsed(text: Mapping[str, Any]) -> FeatureRecord:
    dtype = _text(text["dtype"])
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r}")
    shard = text["shard"]
    record = FeatureRecord(
        _parsed_source(text["source"]),
        _text(text["layer"]),
        _text(text["pooling"]),
        _text(text["runtime"]),
        dtype,
        _whole(text["n_features"], 1),
        _parsed_data(text["data"]),
        Shard(
            _whole(shard["number"]),
            _whole(shard["first"]),
            _whole(shard["n_images"], 1),
            _whole(shard["size"], 1),
        ),
        _text(text["version"]),
    )
    if record.shard != record.of_shard(record.shard.number).shard:
        raise ValueError("shard and number of images disagree")
    return record


def _parsed_source(source: Mapping[str, Any]) -> EmbeddedSource:
    return EmbeddedSource(
        _text(source["name"]),
        _text(source["fingerprint"]),
        _text(source["precision"]),
        _text(source["policy"]),
        _whole(source["preparation"], 1),
        _whole(source["seed"]),
        None if source["size_px"] is None else _whole(source["size_px"], 1),
        None if source["ranges"] is None else _text(source["ranges"]),
        None if source["calibrated_on"] is None else _text(source["calibrated_on"]),
    )


def _parsed_data(data: Mapping[str, Any]) -> EmbeddedData:
    shape = data["image_shape"]
    sides = None if shape is None else tuple(_whole(side, 1) for side in shape)
    if sides is not None and len(sides) != 3:
        raise ValueError(f"image shape {shape!r}")
    return EmbeddedData(
        _text(data["name"]),
        _text(data["fingerprint"]),
        _whole(data["n_images"], 1),
        tuple(_text(name) for name in data["classes"]),
        sides,
        None if data["depth_bits"] is None else _whole(data["depth_bits"], 1),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _whole(value: Any, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{value!r} is no whole number of at least {least}")
    return value


def _flat(record: FeatureRecord) -> dict[str, Any]:
    """The comparable entries by the name that a message shows."""
    source, data = record.source, record.data
    return {
        "source": source.name,
        "weights": source.fingerprint[:12],
        "precision": source.precision,
        "policy": source.policy,
        "preparation": source.preparation,
        "layer": record.layer,
        "pooling": record.pooling,
        "runtime": record.runtime,
        "dtype": record.dtype,
        "images": data.fingerprint[:12],
        "number of images": data.n_images,
        "shard size": record.shard.size,
    }
