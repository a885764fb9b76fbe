"""Sources by name: a model folder, a network of timm, raw pixels, or random weights as the control.

In: a name. Out: a Source. Must not import a training framework. Called by strategies, study and cli.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import onnx

from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.errors import SettingError, UnknownSourceError, nearest
from headstart.graph import build
from headstart.models.model import open_model
from headstart.networks.engines.numpy_engine import initial_weights
from headstart.networks.specs import ARCHITECTURES, architecture, layer_shapes
from headstart.records import InputSpec, NetworkSpec, Source, Weights
from headstart.sources.drawings.network import drawings_network
from headstart.sources.timm.store import find_network, network_source, pretrained_names

__all__ = [
    "KNOWN",
    "find_sources",
    "fingerprint",
    "native_input",
    "open_source",
    "pixel_source",
    "random_source",
    "spec_source",
]

KNOWN = {
    "drawings": "a small network of ours for drawings and handwriting, bundled",
    "timm:NAME": "a network of timm with its weights, such as timm:resnet50; find one: sources list PATTERN",
    "timm:local-dir:PATH": "the same from a folder with config.json and model.safetensors",
    "pixels": "no network: the prepared pixels themselves, the control every transfer has to beat",
    **{
        f"random:{name}": f"network {name} with random weights, frozen: what its layout alone is worth"
        for name in ARCHITECTURES
    },
    "random:timm:NAME": "a network of timm with random weights, frozen",
}
_TIMM = "timm:"
_LARGEST_PX = 64  # side of what raw pixels of photos are squished to


def open_source(
    name: str,
    dataset: Dataset | None = None,
    seed: int = 0,
    size_px: int | None = None,
    policy: str | None = None,
) -> Source:
    """A source by name, for the images of a dataset.

    Parameters
    ----------
    name : str
        ``drawings`` (ours, bundled), path of a model folder, ``timm:NAME``, ``timm:NAME.TAG``,
        ``timm:local-dir:PATH``, ``pixels``,
        ``random:NETWORK`` (NETWORK as in ``train --network``, or as timm names it) or ``random:PATH``
        (the network of a model folder, drawn afresh).
    dataset : Dataset, optional
        Decides the input size of sources that have none of their own. Default: the digits.
    seed : int, default=0
        Draws random weights.
    size_px : int, optional
        Side of a timm network's input. Default: its own.
    policy : str, optional
        How pictures are fitted to the input, see ``imaging.fit``. Default: the source's own.

    Returns
    -------
    Source
        Frozen.

    Raises
    ------
    UnknownSourceError
        If nothing goes by this name.
    SourceError
        If the weights cannot be had.
    SettingError
        If a size is given to a source whose size is fixed.
    ModelError
        If it is a folder and no model.
    """
    if size_px is not None and size_px < 1:
        raise SettingError(f"size is {size_px}, need at least 1 px; leave it out for the network's own")
    if policy is not None:
        plain = open_source(name, dataset, seed, size_px)
        return replace(plain, input=replace(plain.input, policy=policy))
    if name.startswith(_TIMM):
        return _timm(name, name.removeprefix(_TIMM), dataset, size_px=size_px)
    if name.startswith(f"random:{_TIMM}"):
        drawn = name.removeprefix(f"random:{_TIMM}")
        return _timm(name, drawn, dataset, pretrained=False, seed=seed, size_px=size_px)
    if size_px is not None:
        raise SettingError(
            f"size is {size_px}, need a source timm:NAME to set it of; leave it out for {name!r}"
        )
    dataset = dataset or load("digits")
    if name == "drawings":
        return _drawings()
    if name == "pixels":
        return pixel_source(native_input(dataset))
    kind, _, rest = name.partition(":")
    if kind == "random" and rest in ARCHITECTURES:
        spec = architecture(rest, native_input(dataset), max(2, len(dataset.classes)))
        return random_source(spec, seed)
    if kind == "random" and rest and Path(rest).is_dir():  # Path("") is the folder we stand in
        network = open_model(rest).manifest.network
        if network is not None:
            return random_source(network, seed)
    if name and Path(name).is_dir():
        return open_model(name).source(name)
    raise UnknownSourceError(
        f"source {name!r} is unknown, need a model folder or a registered name, "
        f"{nearest(name, KNOWN)}; a network of timm is timm:NAME, list all with: headstart sources"
    )


def _drawings() -> Source:
    spec, weights = drawings_network()
    source = spec_source("drawings", spec, build.network_graph(spec, weights), weights)
    return replace(source, notes={"licence": "MIT", "learnt from": "Omniglot (218 characters, none Greek)"})


def find_sources(pattern: str) -> list[str]:
    """Names of timm's networks with weights that match a pattern.

    Parameters
    ----------
    pattern : str
        Shell pattern; a plain word is looked for anywhere. ``timm:`` in front is ignored.

    Returns
    -------
    list of str
        Each as ``timm:NAME.TAG``.

    Raises
    ------
    MissingExtraError
        If timm is not installed.
    UnknownSourceError
        If none matches.
    """
    found = pretrained_names(pattern.removeprefix(_TIMM))
    if not found:
        raise UnknownSourceError(
            f"no network of timm matches {pattern!r}, need part of a name; try 'mobilenet'"
        )
    return found


def _timm(
    name: str,
    network: str,
    dataset: Dataset | None,
    *,
    pretrained: bool = True,
    seed: int = 0,
    size_px: int | None = None,
) -> Source:
    native = native_input(dataset) if dataset and dataset.images.image_shape else None
    found = find_network(network, pretrained=pretrained, seed=seed, size_px=size_px)
    return network_source(found, native, name)


def native_input(dataset: Dataset, policy: str = "squish") -> InputSpec:
    """The size and channels of a dataset's own images; 64 x 64 colour for files of any size."""
    if dataset.images.image_shape is not None:
        return InputSpec(*dataset.images.image_shape, policy=policy)
    return InputSpec(_LARGEST_PX, _LARGEST_PX, 3, (0.0,) * 3, (1.0,) * 3, policy=policy)


def random_source(spec: NetworkSpec, seed: int) -> Source:
    """A network nobody trained, frozen.

    Parameters
    ----------
    spec : NetworkSpec
        The network whose layout is on trial.
    seed : int
        Draws the weights.

    Returns
    -------
    Source
        Named ``random:NETWORK``.
    """
    weights = initial_weights(spec, seed + 1_000)  # never the trained one's first draw
    return spec_source(f"random:{spec.name}", spec, build.network_graph(spec, weights), weights)


def spec_source(
    name: str, spec: NetworkSpec, graph: onnx.ModelProto, weights: Weights | None = None
) -> Source:
    """A network of ours as a source; the default tap is what its last layer reads.

    Parameters
    ----------
    name : str
        What to call it.
    spec : NetworkSpec
        The layers, for the shapes of the taps.
    graph : onnx.ModelProto
        The same network with its weights, every layer's output named as the layer.
    weights : dict of str to ndarray, optional
        The weights once more, so that it can be trained further.

    Returns
    -------
    Source
        Frozen.
    """
    content = graph.SerializeToString(deterministic=True)
    return Source(
        name,
        content,
        spec.input,
        layer_shapes(spec),
        spec.layer_names[-2],
        fingerprint(content),
        network=None if weights is None else (spec, weights),
    )


def fingerprint(graph: bytes) -> str:
    """Hex SHA-256 of a graph: its layers, its weights and its input."""
    return hashlib.sha256(graph).hexdigest()


def pixel_source(spec: InputSpec) -> Source:
    """No network: the pixels as a source prepares them.

    Parameters
    ----------
    spec : InputSpec
        Size, channels, scaling and policy.

    Returns
    -------
    Source
        Named ``pixels``, with one tap.
    """
    builder = build.GraphBuilder(input_spec=spec)
    builder.add("Identity", build.normalise(builder, spec), name="values")
    content = builder.model(["values"]).SerializeToString(deterministic=True)
    shape = (spec.channels, spec.height_px, spec.width_px)
    return Source("pixels", content, spec, {"values": shape}, "values", fingerprint(content))
