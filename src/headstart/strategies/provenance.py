"""Where numbers come from, as a report says it: source, head, versions, machine.

In: records. Out: lines for a report's facts, the same words in every report. Must not compute. Called by
transfers, studies, tunings and recipes.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

from headstart.records import Source
from headstart.strategies.assemble import versions

__all__ = ["about_head", "about_source", "made_with"]


def about_source(source: Source) -> str:
    """Its name, and what its makers say of it where they do.

    Parameters
    ----------
    source : Source
        With notes or without.

    Returns
    -------
    str
    """
    notes = source.notes
    known = [f"{notes['n_parameters']:,} parameters"] if "n_parameters" in notes else []
    known += [f"licence {notes['licence']}"] if "licence" in notes else []
    known += [f"learnt from {notes['learnt from']}"] if "learnt from" in notes else []
    return ", ".join([source.name, *known])


def about_head(head: Mapping[str, Any]) -> str:
    """A head's name, and what cross-validation chose for it.

    Parameters
    ----------
    head : mapping
        As in a manifest: ``name`` and ``chosen``.

    Returns
    -------
    str

    Examples
    --------
    >>> about_head({"name": "ridge", "chosen": {"strength": 0.001}})
    'ridge (strength 0.001)'
    """
    chosen = ", ".join(f"{name} {value:g}" for name, value in head["chosen"].items())
    return f"{head['name']} ({chosen})"


def made_with(engine: str = "scratch") -> dict[str, str]:
    """Versions and machine.

    Parameters
    ----------
    engine : {'scratch', 'torch'}, default='scratch'
        What trained, if anything was trained.

    Returns
    -------
    dict of str to str
        ``versions`` and ``machine``.

    Examples
    --------
    >>> sorted(made_with())
    ['machine', 'versions']
    """
    return {
        "versions": ", ".join(f"{name} {number}" for name, number in versions(engine).items()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
