"""The tensor files of a model folder: weights, example images and seen images, checked against the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.seen import from_tensors, to_tensors
from headstart.errors import ModelError
from headstart.models.folder import tensors_in
from headstart.models.manifest import LEARNED, SAMPLES
from headstart.records import NetworkSpec, Seen, Weights

__all__ = ["packed", "unpacked"]

_WEIGHTS = "weights.safetensors"
_PARTS = {
    "conv2d": ("weight", "bias"),
    "dense": ("weight", "bias"),
    "batchnorm2d": ("weight", "bias", "mean", "variance"),
}
"""Weights of each kind of layer."""


def packed(weights: Weights, samples: Sequence[NDArray[np.uint8]], seen: Seen | None) -> dict[str, bytes]:
    """The files by name."""
    from safetensors.numpy import save

    files = {_WEIGHTS: save(dict(sorted(weights.items())))}
    if samples:
        files[SAMPLES] = save({f"{number:02}": one for number, one in enumerate(samples)})
    if seen is not None:
        files[LEARNED] = save(to_tensors(seen))
    return files


def unpacked(
    files: Mapping[str, bytes], network: NetworkSpec | None, place: str
) -> tuple[Weights, tuple[NDArray[np.uint8], ...], Seen | None]:
    """Weights, example images and seen images; ModelError where they are not as the manifest describes them."""
    weights = tensors_in(files[_WEIGHTS], _WEIGHTS, place)
    _check_weights(weights, network, place)
    samples = tensors_in(files[SAMPLES], SAMPLES, place) if SAMPLES in files else {}
    seen = None
    if LEARNED in files:
        seen = from_tensors(tensors_in(files[LEARNED], LEARNED, place), place)
    return weights, _images(samples, place), seen


def _check_weights(weights: Weights, network: NetworkSpec | None, place: str) -> None:
    """Every layer of a network of ours has its weights, in the number that the network says."""
    for layer in network.layers if network else ():
        n_units = layer.options.get("channels", layer.options.get("units"))
        for part in _PARTS.get(layer.kind, ()):
            found = weights.get(f"{layer.name}.{part}")
            if (
                found is None
                or found.dtype != np.float32
                or (n_units is not None and found.shape[:1] != (n_units,))
            ):
                raise ModelError(
                    f"file {_WEIGHTS} of model {place!r} has no {part} for layer {layer.name!r} as its manifest "
                    "describes it, expected all weights of the network; copy the folder again"
                )


def _images(tensors: Mapping[str, NDArray[Any]], place: str) -> tuple[NDArray[np.uint8], ...]:
    """The samples in order, after checking that each is an image."""
    for name, one in tensors.items():
        if one.dtype != np.uint8 or one.ndim != 3 or one.shape[2] not in (1, 3) or not one.size:
            raise ModelError(
                f"sample {name} of model {place!r} has shape {one.shape} and dtype {one.dtype}, expected a "
                "uint8 image of 1 or 3 channels; copy the folder again"
            )
    return tuple(tensors[name] for name in sorted(tensors))
