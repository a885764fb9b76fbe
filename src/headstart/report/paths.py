"""Paths in texts that leave the machine: cards, reports and manifests do not say where their maker keeps files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from headstart.report.records import Report

__all__ = ["shareable", "without_folders"]

_ABSOLUTE = r"(?:/(?!/)|~/|[A-Za-z]:[\\/](?![\\/]))"
_WORD = re.compile(rf"(?:^|(?<=[=:,])){_ABSOLUTE}[^,]*")
"""At the start of a word, or behind ``--output=``, ``timm:local-dir:`` or a comma; addresses have two strokes."""
_QUOTED = re.compile(rf"(['\"])({_ABSOLUTE}[^'\"]*)\1")
_FROM = (
    5  # parts of a path, the root among them, of which the last two name no person: /home/ann/letters/a/1.png
)


def without_folders(word: str) -> str:
    """A word of a command or the name of a source; of an absolute path the part in the working folder, or its name.

    >>> without_folders("timm:local-dir:/home/me/weights/resnet50"), without_folders("runs/digits")
    ('timm:local-dir:resnet50', 'runs/digits')
    """
    return _WORD.sub(lambda found: _shortened(found[0], 1), word)


def shareable(result: Report) -> Report:
    """The report, of whose quoted absolute paths only the last folder and the name are kept."""
    return replace(
        result,
        title=_cut(result.title),
        summary=_cut(result.summary),
        verdict=_cut(result.verdict),
        protocol=_cut(result.protocol),
        remarks=tuple(map(_cut, result.remarks)),
        findings=tuple(map(_cut, result.findings)),
        facts=_cut_values(result.facts),
    )


def _cut_values(values: Mapping[str, str]) -> Mapping[str, str]:
    return {name: _cut(text) for name, text in values.items()}


def _cut(text: str) -> str:
    return _QUOTED.sub(lambda found: f"{found[1]}{_shortened(found[2], 2)}{found[1]}", text)


def _shortened(path: str, n_parts: int) -> str:
    place, here = os.path.normpath(path), os.getcwd()
    if os.path.isabs(place) and Path(place).is_relative_to(here) and here not in (place, os.path.sep):
        return os.path.relpath(place, here)
    parts = re.split(r"[\\/]", place)
    return "/".join(parts[-n_parts if len(parts) >= _FROM else -1 :]) or path
