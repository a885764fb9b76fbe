"""The layers of a network of timm: maps of its stages, class tokens of its last blocks, embedding and logits."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from headstart.errors import SourceError
from headstart.graph.candidates import CLASS_TOKEN

__all__ = ["LayerOutputs", "intermediates", "with_input_size"]

_LARGEST_TOP = 10_000_000  # parameters above which a network's own top is left out
_TOP = ("head", "classifier", "fc", "last_linear", "pre_logits")
_TOKENS = 4  # of as many last blocks the class token is a layer


def with_input_size(network: Any, name: str, side_px: int | None) -> Any:
    """The network for images of this side: a transformer's position embedding is interpolated.

    SourceError if the side is no multiple of the side of a patch.
    """
    if not hasattr(network, "set_input_size"):
        return network
    usual_px = network.pretrained_cfg["input_size"][-1]
    side_px, patches = side_px or usual_px, getattr(network, "patch_embed", None)
    # where it differs, the embedding would be interpolated in the graph, which runtimes compute differently
    if (getattr(patches, "img_size", None) or (usual_px, usual_px)) == (side_px, side_px):
        return network
    patch = getattr(patches, "patch_size", (1, 1))[-1]
    if side_px % patch:
        below = max(1, side_px // patch) * patch
        raise SourceError(
            f"source 'timm:{name}' cannot be exported at {side_px} x {side_px} px, expected a multiple of its "
            f"{patch} px patches; take {below} or {below + patch}"
        )
    network.set_input_size(img_size=(side_px, side_px))
    return network


def intermediates(
    network: Any, pixels: Tensor, **options: Any
) -> tuple[Tensor | None, list[Tensor], list[Tensor]]:
    """The last tensor, maps (n, channels, height, width) of the stages, and class tokens (n, channels) of each.

    Of a network with class tokens they and the maps are normalised as after the last block, as DINOv2 reads them
    (Oquab et al. 2024, arXiv:2304.07193, dinov2/eval/linear.py). Others have no class tokens.
    """
    if not _has_class_token(network):
        found = network.forward_intermediates(pixels, output_fmt="NCHW", **options)
        last, stages = (None, found) if options.get("intermediates_only") else found
        return last, list(stages), []
    found = network.forward_intermediates(
        pixels, output_fmt="NCHW", norm=True, return_prefix_tokens=True, **options
    )
    last, pairs = (None, found) if options.get("intermediates_only") else found
    return last, [maps for maps, _ in pairs], [prefix[:, 0] for _, prefix in pairs]


def _has_class_token(network: Any) -> bool:
    """Whether it has one, and returns it with the maps of every block."""
    if getattr(network, "cls_token", None) is None:
        return False
    return {"norm", "return_prefix_tokens"} <= set(signature(network.forward_intermediates).parameters)


class LayerOutputs(nn.Module):
    """A network that returns the maps of every stage, class tokens, and the outputs of its top if that is small."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network: Any = network  # timm's networks have common methods but no common type
        top = sum(one.numel() for name, one in network.named_parameters() if name.startswith(_TOP))
        self.with_top = top <= _LARGEST_TOP
        self.n_classes = int(network.num_classes)
        self.adds_features = False  # set by `shapes`: the last maps may be those of the last stage

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Stages, class tokens, last maps, embedding, logits: as many as there are."""
        last, stages, tokens = intermediates(self.network, pixels)
        found = [*stages, *tokens[-_TOKENS:]]
        if self.adds_features and last is not None:
            found.append(last)
        if self.with_top:
            found.append(self.network.forward_head(last, pre_logits=True))
            if self.n_classes:
                found.append(self.network.forward_head(last))
        return tuple(found)

    def shapes(self, pixels: Tensor) -> dict[str, tuple[int, ...]]:
        """Names of the outputs of `forward`, with shapes without the images' axis."""
        last, stages, tokens = intermediates(self.network, pixels)
        assert last is not None, "it is returned unless it is left out"
        self.adds_features = (
            last.ndim == 4 and last.shape[1] >= last.shape[3] and not torch.equal(last, stages[-1])
        )
        numbers = range(1, len(stages) + 1)
        names = [f"stage{number}" for number in numbers]
        names += [f"{CLASS_TOKEN}{number}" for number in numbers[-_TOKENS:] if tokens]
        names += ["features"] * self.adds_features + ["embedding"] * self.with_top
        names += ["logits"] * (self.with_top and self.n_classes > 0)
        return {name: tuple(one.shape[1:]) for name, one in zip(names, self(pixels), strict=True)}
