"""Learning: a network from scratch, or a head on a frozen source; either way the result is a Model.

In: a Dataset, and a network or a Source. Out: a Model and how it was learnt.
Must not import an engine at the top. Called by study, recipes, the command line and the public face.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter, time
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from headstart.cache import Cache
from headstart.data.dataset import Dataset, require_classes
from headstart.data.splits import holdout
from headstart.errors import DataError, UnknownClassError
from headstart.features import extract
from headstart.graph import build
from headstart.heads.base import Head
from headstart.heads.registry import make_head
from headstart.imaging.prepare import prepare
from headstart.manifest import Manifest
from headstart.model import Model
from headstart.networks.architectures import architecture, layer_shapes
from headstart.networks.registry import make_network
from headstart.networks.training import OnStep, fit
from headstart.progress import SILENT, Progress
from headstart.records import Curve, Epoch, Network, Source, TrainSettings
from headstart.sources import fingerprint, native_input

__all__ = ["Learning", "Learnt", "learn_head", "learn_network", "training_parts", "versions"]

_VALIDATION_SHARE = 0.1
_VALIDATION_MOST = 3_000
_VALIDATION_LEAST = 50  # images below which none are spared for a curve


@dataclass(frozen=True)
class Learning:
    """The training images of a dataset, and those held out to watch and stop by."""

    fit: Dataset
    held: Dataset | None


@dataclass(frozen=True)
class Learnt:
    """A model, the curve of its learning, and the seconds it took."""

    model: Model
    curve: Curve | None
    seconds: float


def training_parts(dataset: Dataset, seed: int) -> Learning:
    """Which images are learnt from and which are watched.

    Parameters
    ----------
    dataset : Dataset
        With a ``val`` split of its own, that is watched. Else a stratified tenth of the training
        images, 3,000 at most; nothing where that would be fewer than 50. Whole groups stay together.
    seed : int
        Decides which.

    Returns
    -------
    Learning
        The ``test`` split is in neither part.

    Raises
    ------
    DataError
        If the dataset has splits and none is ``train``, or fewer than two classes are left.
    UnknownClassError
        If a class has no training image.
    """
    train = dataset if dataset.splits is None else dataset.split("train")
    require_classes(train)
    missing = [name for name, count in train.counts().items() if not count]
    if missing:
        raise UnknownClassError(
            f"class {missing[0]!r} of dataset {dataset.name!r} has no training image, need one of each "
            "class; add images, or leave the class out with a view"
        )
    if dataset.splits is not None and "val" in set(dataset.splits.tolist()):
        return Learning(train, dataset.split("val"))
    share = min(_VALIDATION_SHARE, _VALIDATION_MOST / len(train))
    if share * len(train) < _VALIDATION_LEAST or min(train.counts().values()) < 2:
        return Learning(train, None)
    rest, held = holdout(train.labels, share, seed, train.groups)
    return Learning(train.subset(rest), train.subset(held))


def learn_network(
    dataset: Dataset,
    *,
    network: str = "cnn",
    engine: str = "torch",
    settings: TrainSettings | None = None,
    progress: Progress = SILENT,
) -> Learnt:
    """Train a network on a dataset's training images.

    Parameters
    ----------
    dataset : Dataset
        Its ``test`` split, if any, is not looked at.
    network : str, default='cnn'
        See ``networks.architectures``.
    engine : {'torch', 'scratch'}, default='torch'
        What trains it.
    settings : TrainSettings, optional
        Default: five epochs of Adam.
    progress : Progress, optional
        Told about images, loss and accuracy.

    Returns
    -------
    Learnt
        The model answers with the dataset's classes; its curve is by epoch.

    Raises
    ------
    SettingError, MissingExtraError, DataError
        If a name or a setting is wrong, the engine is not installed, or the data cannot be learnt from.
    """
    begun, settings = perf_counter(), settings or TrainSettings()
    parts = training_parts(dataset, settings.seed)
    if settings.patience and parts.held is None:
        raise DataError(
            f"dataset {dataset.name!r} has too few images to hold some out, need {_VALIDATION_LEAST * 10} "
            f"to stop early by; set patience to 0"
        )
    spec = architecture(network, native_input(dataset), len(dataset.classes))
    trained = make_network(spec, engine, settings.seed)
    images = prepare(parts.fit, spec.input)
    held = (
        None if parts.held is None else (prepare(parts.held, spec.input), parts.held.codes(dataset.classes))
    )
    history = fit(
        trained,
        images,
        parts.fit.codes(dataset.classes),
        settings,
        validation=held,
        on_step=_told(f"train {network}", progress),
    )
    seconds = perf_counter() - begun
    curve = _curve(f"{network} on {dataset.name}", history, settings.patience > 0)
    return Learnt(_network_model(trained, dataset, parts, settings, history, seconds), curve, seconds)


def learn_head(
    source: Source,
    dataset: Dataset,
    *,
    tap: str | None = None,
    pooling: str = "flat",
    head: str = "linear",
    seed: int = 0,
    cache: Cache | None = None,
    runtime_name: str = "openvino",
    precision: str | None = None,
    progress: Progress = SILENT,
) -> Learnt:
    """Fit a head on a frozen source's features: the strategy ``probe``.

    Parameters
    ----------
    source : Source
        Runs once per image and is never changed.
    dataset : Dataset
        Its ``test`` split, if any, is not looked at.
    tap, pooling : str
        Where features are read; see ``features.extract``.
    head : str, default='linear'
        See ``heads.registry``.
    seed : int, default=0
        Decides folds and held-out images.
    cache, runtime_name, precision, progress
        See ``features.extract``.

    Returns
    -------
    Learnt
        The model is the source's graph with the head's operations appended.

    Raises
    ------
    SettingError, UnknownTapError, DataError
        If a name is wrong or the data cannot be learnt from.
    """
    begun, tap = perf_counter(), tap or source.default_tap
    parts = training_parts(dataset, seed)

    def features_of(part: Dataset) -> Any:
        return extract(
            part,
            source,
            tap=tap,
            pooling=pooling,
            cache=cache,
            runtime_name=runtime_name,
            precision=precision,
            progress=progress,
        )

    rows = features_of(parts.fit)
    watch = None if parts.held is None else (features_of(parts.held), parts.held.labels)
    fitted = make_head(head).fit(rows, parts.fit.labels, classes=dataset.classes, seed=seed, watch=watch)
    seconds = perf_counter() - begun
    curve = None if fitted.curve_ is None else replace(fitted.curve_, title=f"{head} head on {dataset.name}")
    scores = {} if watch is None else {"val_accuracy": float((fitted.predict(watch[0]) == watch[1]).mean())}
    model = _probe_model(source, _Fitted(fitted, tap, pooling, scores), dataset, parts, seed, seconds)
    return Learnt(model, curve, seconds)


def _network_model(
    network: Network,
    dataset: Dataset,
    parts: Learning,
    settings: TrainSettings,
    history: tuple[Epoch, ...],
    seconds: float,
) -> Model:
    spec = network.spec
    builder = build.GraphBuilder(build.network_graph(spec, network.weights()))
    builder.add("Softmax", spec.layer_names[-1], name=build.PROBABILITIES, axis=1)
    graph = builder.model([build.PROBABILITIES]).SerializeToString(deterministic=True)
    last = min(history, key=lambda epoch: epoch.val_loss) if settings.patience else history[-1]
    scores = {} if parts.held is None else {"val_loss": last.val_loss, "val_accuracy": last.val_accuracy}
    manifest = Manifest(
        name=f"{spec.name} on {dataset.name}",
        strategy="scratch",
        classes=dataset.classes,
        input=spec.input,
        taps=layer_shapes(spec),
        default_tap=spec.layer_names[-2],
        source_fingerprint=fingerprint(graph),
        network=spec,
        head={"name": spec.layer_names[-1], "chosen": {}},
        source={},
        data=_data_note(dataset, parts),
        settings={**asdict(settings), "engine": network.engine},
        scores=scores,
        seed=settings.seed,
        versions=versions(network.engine),
        timing=_timing(seconds),
    )
    return Model(manifest, graph, network.weights())


@dataclass(frozen=True)
class _Fitted:
    """A head, where it reads, and its accuracy on the images held out to watch it."""

    head: Head
    tap: str
    pooling: str
    scores: Mapping[str, float]


def _probe_model(
    source: Source, fitted: _Fitted, dataset: Dataset, parts: Learning, seed: int, seconds: float
) -> Model:
    tap, pooling, head = fitted.tap, fitted.pooling, fitted.head
    # what lies above the tap is cut off first: it may be a head of ours, with the same names
    builder = build.GraphBuilder(build.with_outputs(onnx.ModelProto.FromString(source.graph), [tap]))
    answer = head.append(builder, build.pool(builder, tap, source.taps[tap], pooling))
    builder.add("Identity", answer, name=build.PROBABILITIES)
    model = builder.model([build.PROBABILITIES])
    graph = model.SerializeToString(deterministic=True)
    kept = {name for node in model.graph.node for name in node.output}
    manifest = Manifest(
        name=f"{source.name} to {dataset.name}",
        strategy="probe",
        classes=dataset.classes,
        input=source.input,
        taps={name: shape for name, shape in source.taps.items() if name in kept},
        default_tap=tap,
        source_fingerprint=fingerprint(graph),
        network=None,
        head={"name": head.name, "chosen": head.chosen_},
        source={"name": source.name, "fingerprint": source.fingerprint, "tap": tap, "pooling": pooling},
        data=_data_note(dataset, parts),
        settings={},
        scores=fitted.scores,
        seed=seed,
        versions=versions(),
        timing=_timing(seconds),
    )
    return Model(manifest, graph, _floats(model))


def _floats(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Every float constant of a graph: the source's weights and the head's."""
    wanted = onnx.TensorProto.FLOAT
    return {
        one.name: onnx.numpy_helper.to_array(one)
        for one in model.graph.initializer
        if one.data_type == wanted
    }


def _data_note(dataset: Dataset, parts: Learning) -> Mapping[str, Any]:
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "n_images": len(parts.fit),
        "n_held": 0 if parts.held is None else len(parts.held),
        "counts": parts.fit.counts(),
    }


def _timing(seconds: float) -> Mapping[str, Any]:
    return {"created_unix_s": round(time(), 3), "learning_s": round(seconds, 3)}


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


def _told(task: str, progress: Progress) -> OnStep:
    def on_step(done: int, total: int, loss: float, accuracy: float) -> None:
        progress.step(task, done, total, f"loss {loss:.3f}  accuracy {accuracy:.2%}")

    return on_step


def _curve(title: str, history: tuple[Epoch, ...], stopped_early: bool) -> Curve:
    best = float(min(history, key=lambda epoch: epoch.val_loss).number) if stopped_early else None
    return Curve(
        title,
        "epoch",
        tuple(float(one.number) for one in history),
        tuple(one.train_loss for one in history),
        tuple(one.val_loss for one in history),
        tuple(one.train_accuracy for one in history),
        tuple(one.val_accuracy for one in history),
        best,
    )
