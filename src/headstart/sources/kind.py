"""What a kind of source is: its prefix, how a source is opened, and what it can do. `sources.registry` lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from headstart.data.dataset import Dataset
from headstart.records import Source

__all__ = ["Opener", "SourceKind"]


class Opener(Protocol):
    """Opens a source by its full name; None if no source of this kind has the name."""

    def __call__(
        self, name: str, *, dataset: Dataset | None, seed: int, size_px: int | None
    ) -> Source | None:
        """``dataset`` sets the input size of sources without one, ``seed`` draws random weights."""
        ...


@dataclass(frozen=True)
class SourceKind:
    """A kind of source; a function that is None is not available for this kind.

    ``prefix`` starts its names; without a colon at the end it is the whole name, and an empty prefix matches every
    name. ``names`` are what ``headstart sources list`` shows, each with one line. ``body(source, layer)`` returns the
    trainable network up to a layer, whose ``finished`` returns a Source; None for a source without a network.
    ``redraw(source, dataset, seed, size_px)`` returns the same network with random weights. ``takes_size`` is whether
    the input size can be chosen, ``pretrained`` whether anything is transferred, and ``large`` whether running the
    network takes long. ``fixed`` is whether a source is the same for all datasets whose images are files.
    """

    prefix: str
    names: Mapping[str, str]
    open: Opener
    body: Callable[[Source, str], Any] | None = None
    redraw: Callable[[Source, Dataset | None, int, int | None], Source] | None = None
    takes_size: bool = False
    pretrained: bool = True
    large: bool = False
    fixed: bool = False

    def matches(self, name: str) -> bool:
        """Whether a source's name may be of this kind."""
        if not self.prefix or self.prefix.endswith(":"):
            return name.startswith(self.prefix)
        return name == self.prefix
