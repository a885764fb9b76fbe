"""Assembles a model: graph, calibrated probabilities, novelty score, manifest and samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from time import time
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from headstart.data.checks.seen import inherited, record
from headstart.data.dataset import Dataset
from headstart.data.readable import has_pixels
from headstart.evaluation.calibration import reliability
from headstart.evaluation.records import Calibration
from headstart.graph import build, layers
from headstart.graph import run as runtime
from headstart.graph.pooling import JOIN, read
from headstart.heads.base import fit_temperature, softmax
from headstart.heads.novelty import Novelty, fit_novelty
from headstart.models.manifest import Manifest
from headstart.models.model import Model
from headstart.networks.contract import TrainableNetwork
from headstart.networks.remarks import check_outputs
from headstart.networks.specs import layer_shapes
from headstart.networks.training import ValidationSet
from headstart.records import Array, Codes, Epoch, Images, Seen, Source, TrainSettings
from headstart.report.paths import without_folders
from headstart.sources.features import Place
from headstart.sources.networks import fingerprint
from headstart.strategies.mixture import Mixture
from headstart.strategies.parts import TrainingParts

__all__ = ["Fitted", "network_model", "probe_model", "versions"]

_SAMPLES, _SAMPLE_PX = 8, 256
_NOVELTY_ROWS = 1_000
_CHECKED = 128  # images on which a trained network must give usable numbers


@dataclass(frozen=True)
class Fitted:
    """Fitted heads, their scores and settings, and what they learned from.

    ``codes`` are the classes of the rows, ``images`` the index of the image of each row; ``held`` are probabilities
    and classes of the held-out images, if any; ``unlabelled`` images without labels that were learned from.
    """

    heads: Mixture
    scores: Mapping[str, float]
    settings: Mapping[str, Any]
    codes: Codes
    images: NDArray[np.intp]
    held: tuple[Array, Codes] | None
    unlabelled: Dataset | None = None


def network_model(
    network: TrainableNetwork,
    dataset: Dataset,
    parts: TrainingParts,
    images: tuple[Images, ValidationSet | None, Dataset | None],
    *,
    settings: TrainSettings,
    history: tuple[Epoch, ...],
    seconds: float,
) -> Model:
    """The model of a network that was trained from scratch.

    ``images`` are the prepared training images; the held-out images with their classes, on which the
    probabilities are calibrated; and these as a dataset. With early stopping, only half of the held-out
    images are given.
    """
    spec, (seen, held, stopping) = network.spec, images
    builder = build.GraphBuilder(layers.network_graph(spec, network.weights()))
    logits, calibration = spec.layer_names[-1], {}
    if held is not None:
        raw = network.logits(held[0])
        temperature = fit_temperature(raw, held[1])
        calibration = _calibrated(temperature, softmax(raw), softmax(raw * temperature), held[1])
        factor = builder.constant("calibration.temperature", np.array([temperature], np.float32))
        logits = builder.add("Mul", logits, factor, name="calibrated")
    builder.add("Softmax", logits, name=build.PROBABILITIES, axis=1)
    plain = builder.model([build.PROBABILITIES]).SerializeToString(deterministic=True)
    shapes = layer_shapes(spec)
    layer = _novelty_layers(shapes, spec.layer_names[-2])
    features = runtime.compile_graph(builder.model([read(builder, shapes, layer, "flat")]), precision="fp32")
    some = np.sort(np.random.default_rng([settings.seed, 5]).permutation(len(seen))[:_NOVELTY_ROWS])
    codes = parts.fit.codes(dataset.classes)[some]
    check_outputs(network.logits(seen[some[:_CHECKED]]), settings.learning_rate)
    novelty = fit_novelty(
        check_outputs(_features(features, seen[some]), settings.learning_rate),
        codes,
        held=None if held is None else _features(features, held[0]),
        groups=None if parts.fit.cluster_codes is None else parts.fit.cluster_codes[some],
        seed=settings.seed,
    )
    finite = [epoch for epoch in history if np.isfinite(epoch.val_loss)] if settings.patience else []
    last = min(finite, key=lambda epoch: epoch.val_loss) if finite else history[-1]
    scores = {} if parts.held is None else {"val_loss": last.val_loss, "val_accuracy": last.val_accuracy}
    manifest = Manifest(
        name=f"{spec.name} on {dataset.name}",
        strategy="scratch",
        classes=dataset.classes,
        input=replace(spec.input, depth_bits=dataset.images.depth_bits),
        layers=shapes,
        default_layer=spec.layer_names[-2],
        source_fingerprint=fingerprint(plain),
        network=spec,
        head={"name": spec.layer_names[-1], "chosen": {}},
        source={},
        data=_data_note(dataset, parts),
        settings={**asdict(settings), "engine": network.engine},
        scores=scores,
        seed=settings.seed,
        versions=versions(network.engine),
        calibration=calibration,
        novelty={} if novelty is None else {**novelty.note(), "tap": layer, "pooling": "flat"},
        timing=_timing(seconds),
    )
    graph = plain if novelty is None else _with_novelty(builder, shapes, (layer, "flat"), novelty)
    return Model(manifest, graph, network.weights(), _samples(parts.fit), _seen(dataset, parts, stopping))


def probe_model(
    source: Source,
    fitted: Fitted,
    dataset: Dataset,
    parts: TrainingParts,
    seed: int,
    seconds: float,
    *,
    strategy: str = "probe",
) -> Model:
    """The model of heads on a frozen source: the source's graph with the heads' operations appended."""
    first = fitted.heads.first
    layer, pooling = first.place
    # cut off what is above the layers first: it may be another head, with the same names
    layers = [part for one in fitted.heads.heads for part in one.place[0].split(JOIN)]
    builder = build.GraphBuilder(build.with_outputs(onnx.ModelProto.FromString(source.graph), layers))
    builder.add("Identity", fitted.heads.append(builder, source.layers), name=build.PROBABILITIES)
    model = builder.model([build.PROBABILITIES])
    plain = model.SerializeToString(deterministic=True)
    kept = {name for node in model.graph.node for name in node.output}
    calibration: Mapping[str, Any] = {}
    if fitted.held is not None:
        found = reliability("held out", *fitted.held)
        calibration = {"images": "held out", "after": _figures(found)}
    novelty = fit_novelty(
        first.rows,
        fitted.codes,
        fitted.images,
        groups=parts.fit.cluster_codes,
        seed=seed,
    )
    manifest = Manifest(
        name=f"{without_folders(source.name)} to {dataset.name}",
        strategy=strategy,
        classes=dataset.classes,
        input=replace(source.input, depth_bits=dataset.images.depth_bits),
        layers={name: shape for name, shape in source.layers.items() if name in kept},
        default_layer=layer.split(JOIN)[-1],
        source_fingerprint=fingerprint(plain),
        network=None,
        head=fitted.heads.note,
        source={
            "name": without_folders(source.name),
            "fingerprint": source.fingerprint,
            "tap": layer,
            "pooling": pooling,
            **({"licence": source.notes["licence"]} if "licence" in source.notes else {}),
            **({"precision": source.precision} if source.precision != "fp32" else {}),
            **_calibration(source),
        },
        data=_data_note(dataset, parts, fitted.unlabelled),
        settings=fitted.settings,
        scores=fitted.scores,
        seed=seed,
        versions=versions(),
        calibration=calibration,
        novelty={} if novelty is None else {**novelty.note(), "tap": layer, "pooling": pooling},
        timing=_timing(seconds),
    )
    graph = plain if novelty is None else _with_novelty(builder, source.layers, first.place, novelty)
    seen = _seen(dataset, parts, None, source, fitted.unlabelled)
    return Model(manifest, graph, _floats(model), _samples(parts.fit), seen)


def _calibration(source: Source) -> dict[str, str]:
    """What a source in int8 was calibrated on."""
    noted = source.notes.get("calibrated on")
    return {} if noted is None else {"calibrated_on": noted}


def versions(engine: str = "scratch") -> dict[str, str]:
    """Versions of what decides a result, by distribution name."""
    names = ["headstart", "numpy", "onnx", "openvino", "scipy", *(["torch"] if engine == "torch" else [])]
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _novelty_layers(shapes: Mapping[str, tuple[int, ...]], last: str) -> str:
    """The layers that the novelty score of a network reads: its last feature maps and its last features.

    The last features alone keep little but what separates the classes; measured in docs/decisions/0010.
    """
    maps = [name for name, shape in shapes.items() if len(shape) == 3]
    return JOIN.join([*maps[-1:], last])


def _with_novelty(
    builder: build.GraphBuilder, layers: Mapping[str, tuple[int, ...]], place: Place, novelty: Novelty
) -> bytes:
    novelty.append(builder, read(builder, layers, *place), build.NOVELTY)
    model = builder.model([build.PROBABILITIES, build.NOVELTY])
    return bytes(model.SerializeToString(deterministic=True))


def _features(executable: runtime.Executable, images: Images) -> Array:
    return executable.run(runtime.split_batches(images, 64), len(images))


def _calibrated(
    temperature: float, before: NDArray[Any], after: NDArray[Any], codes: Codes
) -> dict[str, Any]:
    return {
        "temperature": temperature,
        "images": "held out",
        "before": _figures(reliability("before", before, codes)),
        "after": _figures(reliability("after", after, codes)),
    }


def _figures(found: Calibration) -> dict[str, Any]:
    return {"ece": found.ece, "brier": found.brier, "nll": found.nll, "n": found.n}


def _samples(dataset: Dataset) -> tuple[NDArray[np.uint8], ...]:
    """A few images, classes in turn; large photos are reduced. None where there are no pixels."""
    if not has_pixels(dataset.images):
        return ()
    codes = dataset.codes()
    turn = np.empty(len(codes), np.intp)  # first of its class, second of it, ...
    for code in np.unique(codes):
        here = np.flatnonzero(codes == code)
        turn[here] = np.arange(len(here))
    return tuple(_raw(dataset, int(place)) for place in np.argsort(turn, kind="stable")[:_SAMPLES])


def _raw(dataset: Dataset, place: int) -> NDArray[np.uint8]:
    if dataset.images.pixels is not None:
        return np.array(dataset.images.image(place))
    from PIL import Image

    pixels = dataset.images.preview(place, _SAMPLE_PX)[1]
    photo = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    photo.thumbnail((_SAMPLE_PX, _SAMPLE_PX))
    return np.asarray(photo).reshape(photo.height, photo.width, -1).copy()


def _floats(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Every float constant of a graph: the weights of the source and of the head."""
    wanted = onnx.TensorProto.FLOAT
    return {
        one.name: onnx.numpy_helper.to_array(one)
        for one in model.graph.initializer
        if one.data_type == wanted
    }


def _seen(
    dataset: Dataset,
    parts: TrainingParts,
    stopping: Dataset | None,
    source: Source | None = None,
    unlabelled: Dataset | None = None,
) -> Seen:
    """Which images were used for training, for a decision, for evaluation only, or kept as a test set.

    An image that decided something is recorded as such, even if it was also evaluated. The record of the
    source is inherited.
    """
    found = [("learned", parts.fit.images)]
    if unlabelled is not None:
        found.append(("learned", unlabelled.images))
    if stopping is not None:
        found.append(("validation", stopping.images))
    if parts.held is not None and stopping is not parts.held:
        found.append(("judged", parts.held.images))
    if _held_out(dataset):
        found.append(("test", dataset.split("test").images))
    return record(found, None if source is None else inherited(source.seen))


def _held_out(dataset: Dataset) -> bool:
    """Whether the test split was held out for this model; a subset of a dataset may have lost it."""
    return dataset.holdout is not None and dataset.splits is not None and "test" in dataset.splits


def _data_note(
    dataset: Dataset, parts: TrainingParts, unlabelled: Dataset | None = None
) -> Mapping[str, Any]:
    others = {}
    if unlabelled is not None:
        fingerprint = unlabelled.fingerprint
        others = {"name": unlabelled.name, "fingerprint": fingerprint, "n_images": len(unlabelled)}
    return {
        **({"unlabelled": others} if others else {}),
        "n_groups": 0 if parts.fit.groups is None else len(np.unique(parts.fit.groups)),
        **({"holdout": asdict(dataset.holdout)} if dataset.holdout and _held_out(dataset) else {}),
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "n_images": len(parts.fit),
        "n_held": 0 if parts.held is None else len(parts.held),
        "counts": parts.fit.counts(),
    }


def _timing(seconds: float) -> Mapping[str, Any]:
    return {"created_unix_s": round(time(), 3), "learning_s": round(seconds, 3)}
