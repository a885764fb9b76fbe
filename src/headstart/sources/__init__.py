"""Pretrained networks as frozen functions from images to features."""

from __future__ import annotations

from headstart.sources.features import extract
from headstart.sources.registry import open_source

__all__ = ["extract", "open_source"]
