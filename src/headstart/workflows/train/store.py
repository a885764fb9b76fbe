"""A cache of trained networks: the same data and settings give the same model again."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation
from headstart.errors import HeadstartError, ModelError
from headstart.models.model import open_model
from headstart.records import Curve, TrainSettings
from headstart.strategies.assemble import versions
from headstart.strategies.result import LearnedModel
from headstart.strategies.scratch import learn_network
from headstart.system.array_file import DamagedError
from headstart.system.cache import cache_root, default_cache, key_of
from headstart.system.checked import read_checked, write_checked
from headstart.system.drafts import reason, warn
from headstart.system.folders import atomic_folder
from headstart.system.progress import SILENT, Progress

__all__ = ["trained_network"]

_NOTE = "curve.json"
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

    Without ``keep``, the cache is neither read nor written; a damaged network counts as absent. ``seconds``
    are those of the training.
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
    kept = _kept(home) if keep else None
    if kept is not None:
        return kept
    learned = learn_network(
        dataset,
        network=network,
        engine=engine,
        settings=settings,
        augmentation=augmentation,
        progress=progress,
    )
    if keep:
        _keep(home, learned)
    return learned


def _kept(home: Path) -> LearnedModel | None:
    """The network kept in a folder, None if there is none or it is damaged."""
    try:
        note = read_checked(home / _NOTE)
        if note is None:
            return None
        if _digest(home) != note["manifest"]:
            raise DamagedError("its manifest differs")
        model = open_model(home / "model")
        curve = None if note["curve"] is None else Curve(**_floats(note["curve"]))
        learning_s = float(model.manifest.timing["learning_s"])
    except (ModelError, OSError, DamagedError, ValueError, TypeError, KeyError) as error:
        warn(f"network in {str(home)!r} is damaged ({reason(error)}): it is trained again")
        return None
    with suppress(OSError):  # the folder may be read-only
        os.utime(home / _NOTE)  # the time of last use
    return LearnedModel(model, curve, learning_s)


def _keep(home: Path, learned: LearnedModel) -> None:
    try:
        if home.is_dir() and {one.name for one in home.iterdir()} != {_NOTE, "model"}:
            shutil.rmtree(
                home, ignore_errors=True
            )  # of an older version, which wrote in place and was killed
        curve = None if learned.curve is None else asdict(learned.curve)
        with atomic_folder(home, marker=_NOTE) as new:
            learned.model.save(new / "model")
            write_checked(new / _NOTE, {"manifest": _digest(new), "curve": curve})
        default_cache().keep_limit(home)
    except (OSError, HeadstartError) as error:
        warn(
            f"cache {str(home.parent)!r} cannot be written ({reason(error)}): trained networks are not kept; "
            "set HEADSTART_CACHE to another folder"
        )


def _digest(home: Path) -> str:
    """SHA-256 of the manifest, which holds those of the other files."""
    return hashlib.sha256((home / "model" / "manifest.json").read_bytes()).hexdigest()


def _floats(kept: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}
