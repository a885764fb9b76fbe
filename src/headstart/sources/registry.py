"""The kinds of sources, and a source by its name. Help texts, errors and ``sources list`` read the registry."""

from __future__ import annotations

from dataclasses import replace

from headstart.data.dataset import Dataset
from headstart.data.names import near_paths
from headstart.errors import SettingError, UnknownSourceError, nearest
from headstart.records import Source
from headstart.sources.drawings.kind import DRAWINGS
from headstart.sources.hog import HOG
from headstart.sources.kind import SourceKind
from headstart.sources.model_folder import MODEL_FOLDER, is_model_folder
from headstart.sources.photos.kind import PHOTOS, PHOTOS_LARGE, RANDOM_PHOTOS, RANDOM_PHOTOS_LARGE
from headstart.sources.pixels import PIXELS
from headstart.sources.random_network import RANDOM
from headstart.sources.timm.kind import RANDOM_TIMM, TIMM, TIMM_FOLDER
from headstart.sources.timm.store import near_networks, pretrained_names

__all__ = [
    "KINDS",
    "find_sources",
    "kind_named",
    "kind_of",
    "open_source",
    "source_names",
]

_MOST_PX = 4_096  # of an input's side; one image of more would take gigabytes

KINDS: dict[str, SourceKind] = {
    kind.prefix: kind
    for kind in (
        *(PHOTOS, PHOTOS_LARGE, DRAWINGS, TIMM, TIMM_FOLDER, PIXELS, HOG, RANDOM, RANDOM_TIMM),
        *(RANDOM_PHOTOS, RANDOM_PHOTOS_LARGE, MODEL_FOLDER),
    )
}
"""Kinds by prefix, in the order in which they are listed; ``Source.kind`` is a key."""


def kind_of(source: Source) -> SourceKind:
    """The kind of a source, which says what it can do."""
    return KINDS[source.kind]


def kind_named(name: str) -> SourceKind:
    """The kind with the longest prefix that matches a name."""
    return max((kind for kind in KINDS.values() if kind.matches(name)), key=lambda kind: len(kind.prefix))


def source_names() -> dict[str, str]:
    """Every name that can be given for a source, or its pattern, with one line of help."""
    return {name: line for kind in KINDS.values() for name, line in kind.names.items()}


def open_source(
    name: str,
    dataset: Dataset | None = None,
    seed: int = 0,
    size_px: int | None = None,
    policy: str | None = None,
) -> Source:
    """A source by name, for the images of a dataset.

    Parameters
    ----------
    name : str
        ``photos``, ``photos-large``, ``drawings`` (bundled), path of a model folder, ``timm:NAME``,
        ``timm:NAME.TAG``, ``timm:local-dir:PATH``, ``pixels``, ``hog``, ``random:NETWORK`` (NETWORK as in
        ``train --network``, ``photos``, ``photos-large`` or ``timm:NAME``) or ``random:PATH`` (the network of a model
        folder with random weights).
    dataset : Dataset, optional
        Decides the input size of sources without a fixed size. Default: the bundled digits.
    seed : int, default=0
        Draws random weights.
    size_px : int, optional
        Side of the input of ``photos``, ``photos-large`` or a timm network. Default: its own.
    policy : str, optional
        How images are fitted to the input: ``squish``, ``crop``, ``letterbox`` or ``ink``. Default: the
        source's own.

    Returns
    -------
    Source
        Frozen.

    Raises
    ------
    UnknownSourceError
        If no source has this name.
    SourceError
        If the weights cannot be loaded.
    SettingError
        If a size is given for a source whose size is fixed.
    ModelError
        If it is a folder but not a model.

    Examples
    --------
    >>> source = open_source("pixels")
    >>> source.name, source.layers
    ('pixels', {'values': (1, 8, 8)})
    """
    if size_px is not None and not 1 <= size_px <= _MOST_PX:
        raise SettingError(
            f"size is {size_px}, expected 1 to {_MOST_PX:,} px; leave it out for the network's own"
        )
    kind = kind_named(name)
    if size_px is not None and not kind.takes_size:
        raise SettingError(
            f"size is {size_px} for source {name!r}, expected a size for {_resizable()} only; leave it out"
        )
    source = kind.open(name, dataset=dataset, seed=seed, size_px=size_px)
    if source is None:
        raise UnknownSourceError(_unknown(name))
    return source if policy is None else replace(source, input=replace(source.input, policy=policy))


def _resizable() -> str:
    """The sources whose input size can be chosen, as text."""
    names = [name for kind in KINDS.values() if kind.takes_size for name in kind.names]
    wanted = [name for name in names if not name.startswith(RANDOM.prefix)]
    return f"{', '.join(wanted[:-1])} and {wanted[-1]}"


def _unknown(name: str) -> str:
    """The message for a name of no source: a network of timm without its prefix, a mistyped folder, a near name."""
    known = [one for one in source_names() if one not in MODEL_FOLDER.names]
    networks = [f"{TIMM.prefix}{one}" for one in near_networks(name)]
    folders = [path for path in near_paths(name) if is_model_folder(path)]
    near = nearest(name, known, before=[*networks, *folders])
    return (
        f"source {name!r} is unknown, expected a model folder or a registered name, {near}; "
        "a network of timm is timm:NAME, list all with: headstart sources"
    )


def find_sources(pattern: str) -> list[str]:
    """Names ``timm:NAME.TAG`` of timm's pretrained networks that match a shell pattern.

    A plain word is searched for anywhere in the name; a leading ``timm:`` is ignored.
    """
    found = pretrained_names(pattern.removeprefix(TIMM.prefix))
    if not found:
        raise UnknownSourceError(
            f"no network of timm matches {pattern!r}, expected part of a name; try 'mobilenet'"
        )
    return found
