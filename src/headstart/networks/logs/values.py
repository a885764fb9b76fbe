"""Values as training logs store them, and the protocol of a log."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from typing import Any, Protocol

import numpy as np

from headstart.records import Epoch

__all__ = [
    "MEASURES",
    "TrainingLog",
    "cell_text",
    "close_quietly",
    "flattened",
    "key_text",
    "log_value",
    "number_items",
    "parsed_text",
    "to_stderr",
]


def close_quietly(file: Any) -> None:
    """Close a file without errors; every event was flushed, so errors were raised before."""
    with suppress(OSError):  # every event was flushed, so a full disk has raised before
        file.close()


def to_stderr(text: str) -> None:
    """Print a remark."""
    print(text, file=sys.stderr)


def parsed_text(line: bytes) -> dict[str, Any] | None:
    """A line as an object, or None for an incomplete or foreign line."""
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def log_value(value: Any) -> Any:
    """The value as JSON can hold it: non-finite numbers as None, arrays as lists, records as objects."""
    if is_dataclass(value) and not isinstance(value, type):
        return log_value(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): log_value(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return log_value(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [log_value(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def flattened(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of nested mappings: ``settings.epochs``."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def number_items(facts: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Facts that can be points of a curve."""
    for key, value in flattened(log_value(facts)):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield key, float(value)


def cell_text(value: Any) -> str:
    """A fact as short text for a table."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:500].replace("|", "\\|").replace("\n", " ")


def key_text(name: str) -> str:
    """A name in the characters that MLflow allows."""
    return "".join(one if one.isalnum() or one in "_-. " else "_" for one in name)[:200]


MEASURES = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "train_accuracy": "accuracy/train",
    "val_accuracy": "accuracy/validation",
    "learning_rate": "learning_rate",
    "seconds": "seconds",
}
"""Measures of an epoch, and their names in TensorBoard, which groups names by their first part."""


class TrainingLog(Protocol):
    """Receives the events of a training run."""

    def started(self, facts: Mapping[str, Any]) -> None:
        """Settings, data, network, versions; before the first epoch, and again when a run is resumed."""
        ...

    def epoch(self, epoch: Epoch) -> None:
        """Called after each epoch."""
        ...

    def finished(self, facts: Mapping[str, Any]) -> None:
        """Scores and seconds, at the end."""
        ...
