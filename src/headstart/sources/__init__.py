"""Pretrained networks as frozen functions from images to features.

Open one by name with `open_source`; compute features with `extract`.
"""

from __future__ import annotations

from headstart.sources.features import extract
from headstart.sources.registry import open_source

__all__ = ["extract", "open_source"]
