"""The run that made a model, noted in the model's settings, so that ``--resume`` leaves a finished model as it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.errors import SettingError
from headstart.models.model import Model, open_model

__all__ = ["finished_model", "noted"]

_RUN = "run"  # in a model's settings
_IGNORED = "versions"  # of packages: a finished run needs none
_AUTO = "auto"


def noted(model: Model, identity: Mapping[str, Any]) -> Model:
    """The model with a note of the run that made it; ``identity`` as for `finished_model`."""
    settings = {**model.manifest.settings, _RUN: _digests(identity)}
    return replace(model, manifest=replace(model.manifest, settings=settings))


def finished_model(output: Path, identity: Mapping[str, Any]) -> Model | None:
    """The model that a run of this identity (JSON values by name) saved in ``output``; None if there is none.

    Raises SettingError if the model there was made by another run, or does not name its run.
    """
    if not (output / "manifest.json").is_file():
        return None
    model = open_model(output)
    known, wanted = model.manifest.settings.get(_RUN), _digests(identity)
    if known == wanted:
        return model
    advice = "give that, name another output, or leave --resume out to replace the model"
    if not isinstance(known, dict):
        raise SettingError(
            f"{str(output)!r} is a model without a note of the run that made it, expected none or that of "
            f"the same command to resume; {advice}"
        )
    other = [name for name in {**wanted, **known} if known.get(name) != wanted.get(name)]
    if "settings" in other:
        was, now = model.manifest.settings, identity["settings"]
        names = [name for name in now if now[name] not in (was.get(name), _AUTO)] or ["learning_rate"]
        other[other.index("settings")] = ", ".join(f"settings.{name}" for name in names)
    raise SettingError(
        f"{str(output)!r} is the finished model of another run (other {', '.join(other)}), expected the same "
        f"command to resume; {advice}"
    )


def _digests(identity: Mapping[str, Any]) -> dict[str, str]:
    texts = {name: json.dumps(value, sort_keys=True) for name, value in identity.items() if name != _IGNORED}
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}
