"""Strategies differ in how much is trained: a head (probe), some of the source (finetune), or all (scratch)."""

from __future__ import annotations

from headstart.strategies.probe import learn_head
from headstart.strategies.scratch import learn_network

__all__ = ["learn_head", "learn_network"]
