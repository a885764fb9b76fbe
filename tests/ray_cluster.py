"""A real cluster of Ray for tests: each machine is a process of this one, with cores for one or more workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def ray_cluster(*cores: int) -> Iterator[Any]:
    """A machine for each number of cores, the head first; the test is skipped where Ray is not installed."""
    pytest.importorskip("ray", reason="needs ray")
    from ray.cluster_utils import Cluster

    head, *others = cores
    # Ray's own is 15: beside other tests its workers would hardly run
    os.environ["RAY_worker_niceness"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": head, "include_dashboard": False})
    try:
        for number in others:
            made.add_node(num_cpus=number)
        yield made
    finally:
        made.shutdown()
