"""The request of an embedding, checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.errors import SettingError

__all__ = ["SHARD_SIZE", "EmbedRequest"]

SHARD_SIZE = 65_536
"""Images of a file: 250 MB of 1,024 features."""


@dataclass(frozen=True)
class EmbedRequest:
    """Where features are read and how they are written; a place that is None is the source's own.

    ``seed`` and ``size_px`` are how the source was opened: they are recorded, so that it can be opened again.
    """

    layer: str | None = None
    pooling: str | None = None
    float16: bool = False
    shard_size: int = SHARD_SIZE
    seed: int = 0
    size_px: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.shard_size, bool) or not isinstance(self.shard_size, int) or self.shard_size < 1:
            raise SettingError(
                f"shard size is {self.shard_size!r}, expected a number of images of at least 1; leave it out for "
                f"{SHARD_SIZE:,}"
            )
