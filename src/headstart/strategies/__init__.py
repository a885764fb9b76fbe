"""How much of a source is learned: a head (probe), some of the network (finetune), or all of it (scratch).

Each gives a model and what is known of its training.
"""

from __future__ import annotations

from headstart.strategies.probe import learn_head
from headstart.strategies.scratch import learn_network

__all__ = ["learn_head", "learn_network"]
