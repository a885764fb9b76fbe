"""Classifiers on features: one module each, all with the contract in `base`, all named in `registry`."""

from headstart.heads.base import Head
from headstart.heads.registry import make_head

__all__ = ["Head", "make_head"]
