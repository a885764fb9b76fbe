"""A cache of trained networks: the same data and settings give the same model again."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from typing import Any

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation
from headstart.errors import ModelError
from headstart.models.model import open_model
from headstart.records import Curve, TrainSettings
from headstart.strategies.assemble import versions
from headstart.strategies.result import LearnedModel
from headstart.strategies.scratch import learn_network
from headstart.system.cache import cache_root, key_of
from headstart.system.files import write_atomic
from headstart.system.progress import SILENT, Progress

__all__ = ["trained_network"]

_FORMAT = 3  # increase it when the same parts give another network


def trained_network(
    dataset: Dataset,
    *,
    network: str,
    engine: str,
    settings: TrainSettings,
    augmentation: Augmentation | None = None,
    keep: bool = True,
    progress: Progress = SILENT,
) -> LearnedModel:
    """A network trained by `learn_network`, or from the cache if the same call trained it before.

    Without ``keep``, the cache is neither read nor written. ``seconds`` are those of the training.
    """
    parts = {
        "format": _FORMAT,
        "data": dataset.fingerprint,
        "network": network,
        "engine": engine,
        "settings": asdict(settings),
        "augmentation": None if augmentation is None else augmentation.parts(),
        "version": versions(engine)["headstart"],
    }
    home = cache_root() / "networks" / key_of(parts)[:32]
    if keep and (home / "curve.json").is_file():
        try:
            model = open_model(home / "model")
            kept = json.loads((home / "curve.json").read_text(encoding="utf-8"))
            curve = None if kept is None else Curve(**_floats(kept))
            return LearnedModel(model, curve, float(model.manifest.timing["learning_s"]))
        except (ModelError, OSError, ValueError, TypeError, KeyError):
            shutil.rmtree(home, ignore_errors=True)  # a damaged cache entry: train again
    learned = learn_network(
        dataset,
        network=network,
        engine=engine,
        settings=settings,
        augmentation=augmentation,
        progress=progress,
    )
    if keep:
        home.mkdir(parents=True, exist_ok=True)
        learned.model.save(home / "model")
        curve_values = None if learned.curve is None else asdict(learned.curve)
        # last: its presence means that the rest is complete
        write_atomic(home / "curve.json", json.dumps(curve_values))
    return learned


def _floats(kept: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}
