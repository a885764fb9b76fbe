"""Descriptions of a model folder, a dataset or a source as names and plain values, ready to print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.checks.doctor import Checkup, examine
from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.data.reading import reading
from headstart.evaluation.conformal import highest_level
from headstart.models.manifest import Manifest
from headstart.models.model import open_model
from headstart.models.novelty_rate import novelty_sentence
from headstart.records import InputSpec, Source
from headstart.system.progress import SILENT, Progress
from headstart.workflows.source_cost import measured_cost
from headstart.workflows.source_memory import measured_memory

__all__ = ["NO_REMARK", "describe_path", "describe_source"]

NO_REMARK = "no problems were found"
_DEAR_GFLOPS, _USUAL_PX = 20.0, 224
_NO_LICENCE = "none needed: no weights that others trained"
_NOT_MEASURED = "it could not be measured here"


def describe_path(thing: str, *, quick: bool = False, progress: Progress = SILENT) -> dict[str, Any]:
    """Facts about a model folder or a dataset; ``quick`` opens no image and finds no near duplicates."""
    if (Path(thing) / "manifest.json").exists():
        return _model(open_model(thing).manifest)
    with reading(progress):
        dataset = load(thing)
    found = examine(
        dataset, near=not quick, on_image=lambda done, total: progress.step("check images", done, total)
    )
    return {**_dataset(dataset), **_checkup(found)}


def describe_source(source: Source) -> dict[str, Any]:
    """The input, the layers and the notes of a source, and what it costs on this machine."""
    return {
        "source": source.name,
        **_notes(source),
        **_cost(source),
        "input": _input(source.input),
        "fingerprint": source.fingerprint,
        "classes": list(source.classes or ()) or "none",
        "default_layer": source.default_layer,
        "layers": {name: " x ".join(map(str, shape)) for name, shape in source.layers.items()},
    }


def _cost(source: Source) -> dict[str, Any]:
    """Measured at the default layer; and a smaller input where an image costs much."""
    maps = len(source.layers[source.default_layer]) > 1
    place = source.default_layer, "avg" if maps else "flat"
    cost, memory = measured_cost(source, [place]), measured_memory(source, place)
    found: dict[str, Any] = {
        "images_per_second": float(f"{1e3 / cost.ms:.3g}"),
        "megabytes": round(cost.megabytes, 1),
        "peak_memory_mb": None if memory is None else round(memory.peak_mb),
        "peak_memory_means": _NOT_MEASURED
        if memory is None
        else f"a process that reads the network and runs batches of {memory.batch_size}, "
        f"{memory.base_mb:.0f} MB before it reads the network",
    }
    notes = source.notes
    gflops, side, cheaper = notes.get("gflops", 0.0), notes.get("size_px", 0), notes.get("gflops at 224 px")
    if cheaper and gflops > _DEAR_GFLOPS and side > _USUAL_PX:
        found["suggestion"] = (
            f"{side} px cost {gflops:.3g} GFLOPs an image; --size {_USUAL_PX} costs about {cheaper:.2g}"
        )
    return found


def _notes(source: Source) -> dict[str, Any]:
    """The notes of the source: licence, size and cost."""
    notes = source.notes
    if "n_parameters" not in notes:  # one of our own networks
        return {"licence": _NO_LICENCE, **{name.replace(" ", "_"): value for name, value in notes.items()}}
    return {
        "parameters": f"{notes['n_parameters']:,}",
        "gflops_per_image": float(f"{notes['gflops']:.3g}"),
        "gmacs_per_image": float(f"{notes['gflops'] / 2:.3g}"),
        "licence": notes.get("licence", _NO_LICENCE),
        **({"licence_from": notes["licence from"]} if "licence from" in notes else {}),
        **({"trained_on": notes["trained on"]} if "trained on" in notes else {}),
        "checksum": notes["checksum"],
        "tried_by_cross_validation": [f"{layer} {pooling}" for layer, pooling in source.candidates],
    }


def _checkup(found: Checkup) -> dict[str, Any]:
    """What the check of a dataset found."""
    sizes = found.sizes_px
    facts: dict[str, Any] = {"images_per_split_and_class": {k: dict(v) for k, v in found.counts.items()}}
    if sizes is not None:
        facts["sizes_px"] = {
            "smallest": " x ".join(map(str, sizes.smallest)),
            "median": " x ".join(map(str, sizes.median)),
            "largest": " x ".join(map(str, sizes.largest)),
            "different_sizes": sizes.n_distinct,
        }
        facts |= {
            "modes": dict(found.modes),
            "formats": dict(found.formats),
            "polarity": dict(found.polarity),
        }
    facts["imbalance"] = round(found.imbalance, 3)
    if found.pairs:
        facts["duplicates"] = [asdict(pair) | {"leak": pair.leak} for pair in found.pairs]
    facts["remarks"] = list(found.remarks) or [NO_REMARK]
    return facts


def _model(manifest: Manifest) -> dict[str, Any]:
    return {
        "model": manifest.name,
        "strategy": manifest.strategy,
        "classes": list(manifest.classes),
        "input": _input(manifest.input),
        "head": _heads(manifest.head),
        "source": dict(manifest.source) or "none: trained from scratch",
        "data": {key: value for key, value in manifest.data.items() if key != "counts"},
        "images_per_class": dict(manifest.data["counts"]),
        "held_out_scores": dict(manifest.scores) or "none",
        "none_of_these": novelty_sentence(manifest) or "never: a class is predicted for every image",
        "answer_sets": _sets(manifest.answer_sets),
        "settings": dict(manifest.settings) or "none",
        "default_layer": manifest.default_layer,
        "layers": {name: " x ".join(map(str, shape)) for name, shape in manifest.layers.items()},
        "seed": manifest.seed,
        "versions": dict(manifest.versions),
        "files": {
            name: f"{note.size_bytes} bytes, sha256 {note.sha256}" for name, note in manifest.files.items()
        },
    }


def _sets(note: Mapping[str, Any]) -> str:
    """What answer sets rest on, and up to which level."""
    if not note:
        return "none: no scores of left-out images are stored"
    return f"from {note['n_images']:,} {note['images']} images, up to the level {highest_level(note['left_out']):.3g}"


def _heads(head: Mapping[str, Any]) -> str | list[str]:
    """A head with its settings; of a mean each of its heads, with the layer that it reads."""
    if "heads" not in head:
        return _head(head["name"], head["chosen"])
    return [f"{_head(one['name'], one['chosen'])} on {one['tap']}, {one['pooling']}" for one in head["heads"]]


def _head(name: str, chosen: Mapping[str, Any]) -> str:
    """A head with its settings: ``ridge (strength 0.1)``."""
    settings = ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in chosen.items()
    )
    return f"{name} ({settings})" if settings else name


def _input(spec: InputSpec) -> str:
    mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (spec.mean, spec.std))
    depth = "" if spec.depth_bits is None else f", 16-bit files as {spec.depth_bits} bits"
    return (
        f"{spec.height_px} x {spec.width_px} px, {spec.channels} channel(s), {spec.policy}, "
        f"mean {mean}, std {std}{depth}"
    )


def _dataset(dataset: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {
        "dataset": dataset.name,
        "n_images": len(dataset),
        "fingerprint": dataset.fingerprint,
        "images_per_class": dataset.counts(),
    }
    if dataset.images.image_shape is not None:
        found["size"] = " x ".join(map(str, dataset.images.image_shape))
    if dataset.splits is not None:
        names, counts = np.unique(dataset.splits, return_counts=True)
        found["splits"] = dict(zip(names.tolist(), counts.tolist(), strict=True))
    if dataset.groups is not None:
        found["n_groups"] = len(np.unique(dataset.groups))
    if dataset.skipped:
        found["skipped"] = {str(path): reason for path, reason in dataset.skipped}
    if dataset.images.depth_bits is not None:
        found["depth_bits"] = dataset.images.depth_bits
    return found
