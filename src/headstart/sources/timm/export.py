"""Networks of timm exported as ONNX graphs, with every stage as a layer."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import onnx
import timm
import torch
from timm.data.imagenet_info import ImageNetInfo
from timm.layers import padding
from torch import Tensor, nn

from headstart.errors import SourceError, UnknownSourceError, nearest
from headstart.graph.run import ReferenceRun
from headstart.sources.image_network import ExportedNetwork, Licence
from headstart.sources.timm.hub import create_pretrained
from headstart.sources.timm.layers import LayerOutputs, with_input_size
from headstart.system.threads import one_thread

__all__ = [
    "checksum",
    "create_network",
    "describe_network",
    "export_network",
    "timm_names",
]

_OPSET = 18
_CLOSE = 1e-3  # relative; rounding is far below, a wrong graph far above


def timm_names(pattern: str = "", *, pretrained: bool = True) -> list[str]:
    """Sorted names in timm that match a shell pattern or contain a plain word; pretrained ones with their tag."""
    wanted = pattern if not pattern or any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    found: list[str] = timm.list_models(wanted, pretrained=pretrained)
    return found


def export_network(
    name: str, *, pretrained: bool = True, seed: int = 0, size_px: int | None = None
) -> ExportedNetwork:
    """Build a network, freeze it, and export it as a graph.

    UnknownSourceError if timm has no such network; SourceError if its weights cannot be loaded, if it cannot be
    exported at this size, or if a checksum shows that the export changed weights or batch-norm statistics.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = create_network(name, pretrained, size_px).eval().requires_grad_(False)
    before = checksum(network)
    side_px = size_px or network.pretrained_cfg["input_size"][-1]
    # random networks are exported while other processes train: PyTorch's threads would wait for one another
    with nullcontext() if pretrained else one_thread():
        exported = describe_network(network, name, side_px, pretrained=pretrained)
    if exported.checksum != before:
        raise SourceError(
            f"source 'timm:{name}' changed while it was exported, expected frozen weights; report it"
        )
    return exported


def describe_network(network: Any, name: str, side_px: int, *, pretrained: bool = True) -> ExportedNetwork:
    """A network in evaluation mode on the CPU, as it is now, as a graph; SourceError if it cannot be exported."""
    config = network.pretrained_cfg
    graph, layers = _graph(network, name, (side_px, side_px))
    return ExportedNetwork(
        graph=graph,
        layers=layers,
        size=(side_px, side_px),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"] if config["interpolation"] == "bicubic" else "bilinear",
        crop_share=float(config["crop_pct"] or 1.0),
        classes=_classes(network) if "logits" in layers else None,
        n_parameters=sum(one.numel() for one in network.parameters()),
        licence=_licence(config, name) if pretrained else None,
        checksum=checksum(network),
        any_size=hasattr(network, "set_input_size") or not config.get("fixed_input_size"),
    )


def _licence(config: Mapping[str, Any], name: str) -> Licence:
    """The licence of the weights, by timm's or the folder's description of them."""
    stated = str(config.get("license") or "unknown")
    if name.startswith("local-dir:"):
        place = "config.json of the folder"
    else:
        hub, url = config.get("hf_hub_id"), config.get("url")
        weights = f"https://huggingface.co/{hub.partition('@')[0]}" if hub else url
        place = f"timm {timm.__version__}" + (f", for the weights of {weights}" if weights else "")
    return Licence("not stated" if stated.lower() == "unknown" else stated, place)


def checksum(network: nn.Module) -> str:
    """Hex SHA-256 over all weights and batch-norm statistics."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().numpy().data)
    return digest.hexdigest()


def create_network(name: str, pretrained: bool = True, size_px: int | None = None) -> Any:
    """A network of timm with its weights; UnknownSourceError or SourceError if it has none, never silently random.

    ``size_px`` is the side of its input, by default its own.
    """
    return with_input_size(_created(name, pretrained), name, size_px)


def _created(name: str, pretrained: bool) -> Any:
    local = name.startswith("local-dir:")
    if not local and not timm.is_model(name):
        known = nearest(name.partition(".")[0].lower(), timm.list_models())
        raise UnknownSourceError(
            f"source 'timm:{name}' is unknown, expected a network of timm, {known}; "
            "list all with: headstart sources list PATTERN"
        )
    if pretrained and not local:
        _check_has_weights(name)
    try:
        with _quiet():
            if pretrained and not local:
                return create_pretrained(name)
            return timm.create_model(name, pretrained=pretrained)
    except SourceError:
        raise
    except Exception as error:  # disk and parser raise many unrelated types
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        remedy = (
            "expected the folder as timm saved it; copy it again"
            if local
            else "expected weights that fit the network; install another release of timm, or give timm:local-dir:PATH"
        )
        raise SourceError(
            f"source 'timm:{name}' cannot be loaded ({type(error).__name__}: {reason}), {remedy}"
        ) from error


def _check_has_weights(name: str) -> None:
    """Refuse networks without weights; timm would warn and use random weights."""
    base, _, tag = name.partition(".")
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{base}.*")]
    if not tags or ("." in name and tag not in tags):
        rest = (
            f"expected one of its tags, {nearest(tag, tags)}" if tags else "expected a network that has some"
        )
        raise UnknownSourceError(
            f"source 'timm:{name}' has no pretrained weights, {rest}; "
            "list those with weights: headstart sources list PATTERN"
        )


def _classes(network: Any) -> tuple[str, ...]:
    """Names of the classes of the top; numbers where none are given."""
    names = network.pretrained_cfg.get("label_names")
    n_classes = network.num_classes
    if names and len(names) == n_classes:
        return tuple(str(one) for one in names)
    if n_classes == 1000:
        info = ImageNetInfo()
        return tuple(info.index_to_description(index) for index in range(n_classes))
    return tuple(str(index) for index in range(n_classes))


def _graph(
    network: Any, name: str, size: tuple[int, int]
) -> tuple[onnx.ModelProto, dict[str, tuple[int, ...]]]:
    """The network's graph, and its layers with their shapes."""
    try:
        layered, example = (
            LayerOutputs(network).eval(),
            torch.linspace(-1, 1, 6 * size[0] * size[1]).reshape(2, 3, *size),
        )
        with torch.inference_mode():
            shapes = layered.shapes(example)
        traced = _traced(layered, example, list(shapes))
        return traced if traced is not None else _exported(layered, example, list(shapes)), shapes
    except Exception as error:  # the tracer or the network's own checks
        reason = " ".join(str(error).split())[:200]
        raise SourceError(
            f"source 'timm:{name}' cannot be exported at {size[0]} x {size[1]} px ({reason}), expected a size "
            "that the network supports; choose another size or network"
        ) from error


def _traced(layered: LayerOutputs, example: Tensor, names: list[str]) -> onnx.ModelProto | None:
    """Export by tracing, ten times as fast; None where the graph's outputs differ from the network's."""
    file = io.BytesIO()
    try:
        with _quiet(), _without_output(), _constant_padding():
            torch.onnx.export(
                layered,
                (example,),
                file,  # type: ignore[arg-type]  # it takes a buffer, too
                dynamo=False,
                opset_version=_OPSET,
                input_names=["pixels"],
                output_names=names,
                dynamic_axes={name: {0: "n"} for name in ("pixels", *names)},
            )
        model = onnx.ModelProto.FromString(file.getvalue())
    except Exception:  # the other exporter may support it
        return None
    return model if _agrees(model, layered, example) else None


def _exported(layered: LayerOutputs, example: Tensor, names: list[str]) -> onnx.ModelProto:
    """Export by torch.export, which supports more networks."""
    with _quiet():
        program = torch.onnx.export(
            layered,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            opset_version=_OPSET,
            input_names=["pixels"],
            output_names=names,
            verbose=False,
        )
    assert program is not None, "dynamo gives a program"
    return program.model_proto


def _agrees(model: onnx.ModelProto, layered: LayerOutputs, example: Tensor) -> bool:
    """Whether graph and network have the same outputs, for one image and for three."""
    reference = ReferenceRun(model)
    for images in (example[:1], torch.cat([example, example[1:] * 0.5])):
        with torch.inference_mode():
            wanted = [one.numpy() for one in layered(images)]
        for found, value in zip(reference(images.numpy()), wanted, strict=True):
            if found.shape != value.shape or np.abs(found - value).max() > _CLOSE * np.abs(value).max():
                return False
    return True


@contextmanager
def _constant_padding() -> Iterator[None]:
    """Make TensorFlow's padding a constant: it depends on the size of the maps, which is fixed here."""
    original = padding.get_same_padding
    padding.get_same_padding = lambda side, *rest: original(int(side), *rest)
    try:
        yield
    finally:
        padding.get_same_padding = original


@contextmanager
def _without_output() -> Iterator[None]:
    """Drop what native code prints: where the tracer fails, it prints its whole graph into a command's results."""
    with suppress(AttributeError, ValueError):  # there is no standard output, or it is closed
        sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's warnings, which users cannot act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
