"""A network of timm as a `Body` for fine-tuning, with its stages as parts."""

from __future__ import annotations

from typing import Any

from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn import functional

from headstart.errors import SourceError
from headstart.graph.candidates import CLASS_TOKEN
from headstart.graph.pooling import JOIN
from headstart.networks.engines.torch_finetune import Body
from headstart.records import Source
from headstart.sources.image_network import ExportedNetwork
from headstart.sources.timm.export import checksum, create_network, describe_network
from headstart.sources.timm.layers import intermediates

__all__ = ["stages_body", "timm_body"]


def timm_body(source: Source, layer: str) -> Body:
    """The network of a source ``timm:NAME``, up to a layer (several joined by ``+``).

    Finished, it gives what `describe_network` gives. SourceError if the weights have changed since the export.
    """
    name = source.name.removeprefix("timm:")
    network = create_network(name, size_px=int(source.notes["size_px"])).eval()
    if checksum(network) != source.notes["checksum"]:
        raise SourceError(
            f"source {source.name!r} has other weights than when its graph was exported, expected the same; "
            "clear the cached graphs with: headstart cache clear"
        )
    return stages_body(network, name, source, layer)


def stages_body(network: Any, name: str, source: Source, layer: str) -> Body:
    """A network of timm up to a layer (several joined by ``+``), its stages as parts."""
    layers, side = tuple(layer.split(JOIN)), int(source.notes["size_px"])
    module = _Stages(network, layers, side)
    groups = group_parameters(network, network.group_matcher(coarse=True))
    parts = [
        (f"part{number}", [f"network.{one}" for one in names]) for number, names in sorted(groups.items())
    ]

    def finished(trained: nn.Module) -> ExportedNetwork:
        assert isinstance(trained, _Stages), "the module that was given"
        return describe_network(trained.network.requires_grad_(False), name, side)

    return Body(module, layers, source.layers, parts, finished)


class _Stages(nn.Module):
    """The outputs of some layers; nothing above the highest of them is computed."""

    def __init__(self, network: Any, layers: tuple[str, ...], side_px: int) -> None:
        super().__init__()
        self.network: Any = network
        self._layers, self._side_px = layers, side_px
        self._bicubic = network.pretrained_cfg["interpolation"] == "bicubic"
        stages = [int(one.removeprefix("stage")) for one in layers if one.startswith("stage")]
        self._indices = [number - 1 for number in stages] if len(stages) == len(layers) else None

    def forward(self, pixels: Tensor) -> list[Tensor]:
        if tuple(pixels.shape[2:]) != (self._side_px,) * 2:  # as the graph enlarges small images
            pixels = functional.interpolate(
                pixels,
                (self._side_px,) * 2,
                mode="bicubic" if self._bicubic else "bilinear",
                antialias=self._bicubic,  # with it, torch has the graph's cubic coefficient
                align_corners=False,
            )
        if self._indices is not None:
            _, found, _ = intermediates(
                self.network, pixels, indices=self._indices, stop_early=True, intermediates_only=True
            )
            by_stage = dict(zip(sorted(self._indices), found, strict=True))
            return [by_stage[index] for index in self._indices]
        last, stages, tokens = intermediates(self.network, pixels)
        return [self._tensor(layer, last, stages, tokens) for layer in self._layers]

    def _tensor(self, layer: str, last: Any, stages: list[Tensor], tokens: list[Tensor]) -> Tensor:
        if layer == "embedding":
            return self.network.forward_head(last, pre_logits=True)  # type: ignore[no-any-return]
        if layer == "logits":
            return self.network.forward_head(last)  # type: ignore[no-any-return]
        if layer == "features":
            return last  # type: ignore[no-any-return]
        if layer.startswith(CLASS_TOKEN):
            return tokens[int(layer.removeprefix(CLASS_TOKEN)) - 1]
        return stages[int(layer.removeprefix("stage")) - 1]
