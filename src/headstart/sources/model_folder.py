"""Model folders of headstart as sources, named by their path, so that this kind takes every other name."""

from __future__ import annotations

from pathlib import Path

from headstart.data.dataset import Dataset
from headstart.models.model import open_model
from headstart.records import Source
from headstart.sources.kind import SourceKind
from headstart.sources.networks import network_body

__all__ = ["MODEL_FOLDER", "is_model_folder"]


def _open(name: str, *, dataset: Dataset | None, seed: int, size_px: int | None) -> Source | None:
    return open_model(name).source(name) if name and Path(name).is_dir() else None


def is_model_folder(name: str) -> bool:
    """Whether a path is that of a model folder, which is not opened."""
    return (Path(name) / "manifest.json").is_file()


MODEL_FOLDER = SourceKind(
    "",
    {"FOLDER": "a model folder; features are read from one of its layers"},
    _open,
    body=network_body,
    fixed=True,
)
