"""A prediction of many images into a file: what was asked for, and whether an unfinished file is of the same run."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headstart.errors import SettingError
from headstart.models.answer_sets import AnswerSets, answer_sets
from headstart.models.model import Model, open_model
from headstart.models.novelty_rate import NoveltyRate

__all__ = ["PredictRequest", "check_job", "columns", "header_of", "job_of", "width_of"]

_FORMAT = "headstart-predict"


@dataclass(frozen=True)
class PredictRequest:
    """What to predict: a model folder, paths as for `find_images`, classes per image, and the runtime.

    ``novelty_rate`` is as for `Model.with_novelty_rate`, ``sets`` the level of answer sets.
    """

    model: str
    patterns: tuple[str, ...]
    top: int = 3
    runtime_name: str = "openvino"
    novelty_rate: NoveltyRate = None
    sets: float | None = None

    def open(self) -> tuple[Model, AnswerSets | None]:
        """The model, and the rule for its answer sets."""
        model = open_model(self.model).with_novelty_rate(self.novelty_rate)
        return model, None if self.sets is None else answer_sets(model.manifest, self.sets)


def columns(n_ranked: int, *, sets: bool = False) -> list[str]:
    """The header: path, name, classes and probabilities by rank, the answer set with ``sets``, novelty, error.

    >>> columns(1)
    ['path', 'name', 'class_1', 'probability_1', 'novelty', 'error']
    """
    ranked = [f"{what}_{rank}" for rank in range(1, n_ranked + 1) for what in ("class", "probability")]
    return ["path", "name", *ranked, *(["answer_set"] if sets else []), "novelty", "error"]


def width_of(model: Model, request: PredictRequest) -> int:
    """Classes per image."""
    return min(request.top, len(model.classes))


def header_of(model: Model, request: PredictRequest) -> list[str]:
    """The header of a CSV file."""
    return columns(width_of(model, request), sets=request.sets is not None)


def job_of(model: Model, request: PredictRequest) -> dict[str, Any]:
    """Identity of a run; only a run equal in all but ``format`` and ``model`` may continue it."""
    taken = asdict(model.manifest.input)
    if taken["version"] == 1:  # so that what an older version began can be continued
        del taken["version"]
    known = [list(model.classes), taken, dict(model.manifest.novelty)]
    digest = hashlib.sha256(model.graph)
    digest.update(json.dumps(known, sort_keys=True).encode())
    return {
        "format": _FORMAT,
        "model": request.model,
        "fingerprint": digest.hexdigest(),
        "images": list(request.patterns),
        "folder": os.getcwd(),
        "columns": header_of(model, request),
        "runtime": request.runtime_name,
        **({} if request.novelty_rate is None else {"novelty_rate": str(request.novelty_rate)}),
        **({} if request.sets is None else {"sets": request.sets}),
    }


def check_job(part: Path, job_file: Path, job: dict[str, Any]) -> None:
    """Raise SettingError unless the unfinished file is of this model, these images and these options."""
    try:
        old = json.loads(job_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        old = None
    if not isinstance(old, dict) or old.get("format") != _FORMAT:
        raise SettingError(
            f"{str(part)!r} has no {job_file.name} next to it to describe its run, expected both or neither; "
            "delete it to start again"
        )
    same = {
        "fingerprint": f"another model ({old.get('model')})",
        "images": "other images",
        "folder": f"another folder to start in ({old.get('folder')})",
        "columns": "another --top or --sets",
        "novelty_rate": "another --novelty-rate",
        "sets": "another --sets",
        "runtime": "another --runtime",
    }
    other = [reason for key, reason in same.items() if old.get(key) != job.get(key)]
    if other:
        raise SettingError(
            f"{str(part)!r} is of an interrupted run with {' and '.join(other)}, expected the same to continue; "
            f"repeat that command, name another file, or delete {part.name} to start again"
        )
