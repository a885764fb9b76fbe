"""The request of a training, and where its files are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["TrainingFiles", "TrainingRequest", "checkpoints_of", "log_of"]


@dataclass(frozen=True)
class TrainingRequest:
    """What is trained and how; what is None or absent is the network's default.

    ``policy`` says how images are resized. ``settings`` are fields of `records.TrainSettings`; a
    ``learning_rate`` of ``"auto"`` is found by a test. ``augment`` is as `parse_augmentation` takes it, or
    ``"none"``. ``holdout`` is the share of the images that is held out as a test set.
    ``name`` is that of the model, and has no part in what is learned. With ``n_seeds`` above 1 the same training is
    repeated with the seeds that follow, on the same images; the model is that of the first.
    """

    network: str = "cnn"
    engine: str = "torch"
    device: str = "auto"
    augment: str | None = None
    policy: str = "squish"
    settings: Mapping[str, Any] = field(default_factory=dict)
    holdout: float | None = None
    name: str | None = None
    n_seeds: int = 1


@dataclass(frozen=True)
class TrainingFiles:
    """Where a training is written: the model folder, with checkpoints and logs next to it."""

    output: Path
    resume: bool = False
    every_s: float = 60.0
    logs: tuple[str, ...] = ()


def checkpoints_of(output: Path) -> Path:
    """The folder of a training's checkpoints while it runs, ``runs/best.checkpoints`` for ``runs/best``."""
    return _next_to(output, ".checkpoints")


def log_of(output: Path) -> Path:
    """The folder of a training's log, ``runs/best.log`` for the model ``runs/best``."""
    return _next_to(output, ".log")


def _next_to(output: Path, ending: str) -> Path:
    place = output if output.name not in ("", "..") else output.resolve()
    return place.with_name(f"{place.name}{ending}")
