"""The strategy scratch: a network trained on a dataset's images, as a model."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import Any, Protocol

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation
from headstart.data.images.prepare import prepare
from headstart.errors import DataError
from headstart.models.model import Model
from headstart.networks.contract import Trainable
from headstart.networks.engines.registry import make_network
from headstart.networks.remarks import check_finite, training_remarks
from headstart.networks.specs import architecture
from headstart.networks.training import AugmentBatch, OnStep, ValidationSet, fit
from headstart.records import Codes, Epoch, Images, NetworkSpec, TrainSettings
from headstart.sources.networks import native_input
from headstart.strategies.assemble import network_model
from headstart.strategies.judge import HeldOutPredictions, augmented_training, cross_fitted, halves
from headstart.strategies.parts import VALIDATION_LEAST, training_parts
from headstart.strategies.result import LearnedModel, best_epoch, epoch_curve
from headstart.system.progress import SILENT, Progress

__all__ = ["Fit", "learn_network"]


class Fit(Protocol):
    """Fits a network; returns its epochs and the settings that were used in the end."""

    def __call__(
        self,
        network: Trainable,
        images: Images,
        labels: Codes,
        settings: TrainSettings,
        *,
        validation: ValidationSet | None,
        on_step: OnStep,
        augment: AugmentBatch | None,
    ) -> tuple[tuple[Epoch, ...], TrainSettings]:
        """As `training.fit`."""
        ...


def learn_network(
    dataset: Dataset,
    *,
    network: str = "cnn",
    engine: str = "torch",
    settings: TrainSettings | None = None,
    augmentation: Augmentation | None = None,
    policy: str = "squish",
    device: str = "auto",
    fit_by: Fit | None = None,
    progress: Progress = SILENT,
) -> LearnedModel:
    """Train a network on a dataset's training images: the strategy ``scratch``.

    Parameters
    ----------
    dataset : Dataset
        Its ``test`` split, if any, is not used.
    network : str, default='cnn'
        One of `networks.specs.ARCHITECTURES`.
    engine : {'torch', 'scratch'}, default='torch'
        PyTorch, or the implementation in NumPy.
    settings : TrainSettings, optional
        Default: five epochs of Adam.
    augmentation : Augmentation, optional
        Every epoch trains on another augmented copy of each image; the number of copies does not matter.
    policy : {'squish', 'crop', 'letterbox', 'ink'}, default='squish'
        How images are resized to the network's input.
    device : {'auto', 'cpu', 'cuda', 'mps'}, default='auto'
        Where PyTorch trains.
    fit_by : Fit, optional
        Called instead of `networks.training.fit`, for example to write checkpoints and logs.
    progress : Progress, optional
        Receives images done, loss and accuracy.

    Returns
    -------
    LearnedModel
        Its curve is by epoch; ``seconds`` include the epochs of an interrupted run that was resumed.

    Raises
    ------
    SettingError
        If a name or a setting is wrong.
    MissingExtraError
        If the engine is not installed.
    DataError
        If there are fewer than two classes, a class has no training image, or early stopping lacks images.
    DivergedError
        If the weights or the validation loss are not finite.
    """
    begun, settings = perf_counter(), settings or TrainSettings()
    parts = training_parts(dataset, settings.seed)
    if settings.patience and parts.held is None:
        raise DataError(
            f"dataset {dataset.name!r} has too few images to hold some out, expected {VALIDATION_LEAST * 10} "
            f"for early stopping; set patience to 0"
        )
    spec = architecture(network, native_input(dataset, policy), len(dataset.classes))
    trained = make_network(spec, engine, settings.seed, device)
    images, codes = prepare(parts.fit, spec.input), parts.fit.codes(dataset.classes)
    stopping, evaluated = parts.held, parts.held
    if settings.patience and parts.held is not None:
        stopping, evaluated = halves(parts.held, settings.seed)
    held = None if stopping is None else (prepare(stopping, spec.input), stopping.codes(dataset.classes))
    history, settings = (fit_by or _fit)(
        trained,
        images,
        codes,
        settings,
        validation=held,
        on_step=_on_step(f"train {network}", progress),
        augment=augmented_training(augmentation, settings.seed),
    )
    seconds = max(perf_counter() - begun, sum(one.seconds for one in history))
    best = best_epoch(history, settings)
    check_finite(history, best, trained.weights())
    remarks = training_remarks(
        history, best, parts.fit.codes(dataset.classes), None if held is None else held[1]
    )
    for remark in remarks:
        progress.remark(remark)
    curve = epoch_curve(f"{network} on {dataset.name}", history, best)
    model = network_model(
        trained, dataset, parts, (images, held, stopping), settings=settings, history=history, seconds=seconds
    )
    predictions = _predictions(trained, model, evaluated, spec, settings) if evaluated is not None else None
    if predictions is not None:
        found = predictions.evaluation()
        scores = {**model.manifest.scores, "val_accuracy": found.accuracy.value}
        sets = predictions.answer_sets()
        model = replace(model, manifest=replace(model.manifest, scores=scores, answer_sets=sets))
    if augmentation is not None:
        noted = {**model.manifest.settings, "augmentation": augmentation.parts()}
        model = replace(model, manifest=replace(model.manifest, settings=noted))
    return LearnedModel(model, curve, seconds, remarks=remarks, parts=parts, predictions=predictions)


def _predictions(
    network: Trainable, model: Model, evaluated: Dataset, spec: NetworkSpec, settings: TrainSettings
) -> HeldOutPredictions:
    """Probabilities of the validation images; with early stopping, of the half that is for evaluation."""
    images, codes = prepare(evaluated, spec.input), evaluated.codes(model.classes)
    if settings.patience:
        probs = model.predict_prepared([images[i : i + 64] for i in range(0, len(images), 64)]).probabilities
    else:
        probs = cross_fitted(network.logits(images), codes, settings.seed, evaluated.cluster_codes)
    return HeldOutPredictions(replace(evaluated, classes=model.classes), probs, "validation")


def _fit(
    network: Trainable, images: Images, labels: Codes, settings: TrainSettings, **more: Any
) -> tuple[tuple[Epoch, ...], TrainSettings]:
    return fit(network, images, labels, settings, **more), settings


def _on_step(task: str, progress: Progress) -> OnStep:
    def on_step(done: int, total: int, loss: float, accuracy: float) -> None:
        progress.step(task, done, total, f"loss {loss:.3f}  accuracy {accuracy:.2%}")

    return on_step
