"""The network of a source ``photos`` in PyTorch, for fine-tuning: timm's, with the weights of the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from headstart.networks.engines.torch_finetune import Body
from headstart.records import Source
from headstart.sources.timm.body import stages_body

__all__ = ["photos_body", "timm_network"]


def timm_network(timm_name: str, weights: Mapping[str, NDArray[Any]], source: Source) -> Any:
    """Timm's network with these weights, whose tensors are in its order, and the scaling of the source."""
    network: Any = timm.create_model(timm_name, pretrained=False)
    tensors = (torch.from_numpy(np.array(value)) for value in weights.values())
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
    network.pretrained_cfg = {
        **network.pretrained_cfg,
        "mean": source.input.mean,
        "std": source.input.std,
        "license": source.notes["licence"],
    }
    return network.eval()


def photos_body(source: Source, layer: str, timm_name: str, weights: Mapping[str, NDArray[Any]]) -> Body:
    """The network up to a layer (several joined by ``+``), its stages as parts."""
    return stages_body(timm_network(timm_name, weights, source), source.name, source, layer)
