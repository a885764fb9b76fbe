"""Describes source, head, versions and machine, in the same words in every report."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

from headstart.records import Source
from headstart.report.paths import without_folders
from headstart.strategies.assemble import versions

__all__ = ["about_head", "about_source", "made_with"]


def about_source(source: Source) -> str:
    """A source's name, with its parameters, licence, training data and calibration where these are known."""
    notes = source.notes
    known = [f"{notes['n_parameters']:,} parameters"] if "n_parameters" in notes else []
    known += [f"licence {notes['licence']}"] if "licence" in notes else []
    known += [f"trained on {notes['trained on']}"] if "trained on" in notes else []
    known += [f"in {source.precision}"] if source.precision != "fp32" else []
    known += [f"calibrated on {notes['calibrated on']}"] if "calibrated on" in notes else []
    return ", ".join([without_folders(source.name), *known])


def about_head(head: Mapping[str, Any]) -> str:
    """A head's name, and the setting that cross-validation selected; ``head`` is as in a manifest.

    Of a mean each of its heads, with the layer that it reads.

    >>> about_head({"name": "ridge", "chosen": {"strength": 0.001}})
    'ridge (strength 0.001)'
    """
    if "heads" in head:
        parts = [f"{about_head(one)} on {one['tap']}, {one['pooling']}" for one in head["heads"]]
        return f"{head['name']}: {'; '.join(parts)}"
    chosen = ", ".join(f"{name} {value:g}" for name, value in head["chosen"].items())
    return f"{head['name']} ({chosen})"


def made_with(engine: str = "scratch") -> dict[str, str]:
    """The ``versions`` and the ``machine`` of a computation."""
    return {
        "versions": ", ".join(f"{name} {number}" for name, number in versions(engine).items()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
