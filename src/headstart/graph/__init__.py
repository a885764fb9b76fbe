"""Frozen networks as ONNX graphs: built, pooled, run, and given an image's preparation.

Names load on first use, because the modules import onnx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["GraphBuilder", "compile_graph"]

if TYPE_CHECKING:
    from headstart.graph.build import GraphBuilder
    from headstart.graph.run import compile_graph

_HOMES = {"GraphBuilder": "build", "compile_graph": "run"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
