"""Learning: a network from scratch, or a head on a frozen source; either way the result is a Model.

In: a Dataset, and a network or a Source. Out: a Model and how it was learnt.
Must not import an engine at the top. Called by recipes, studies, the command line and the public face.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset, require_classes
from headstart.data.images.augment import Augmentation
from headstart.data.images.prepare import prepare
from headstart.data.splits import fewest_per_class, holdout
from headstart.errors import DataError, UnknownClassError
from headstart.graph import pooling as graph_pooling
from headstart.heads.registry import SEARCHED, make_head
from headstart.models.model import Model
from headstart.networks.engines.registry import make_network
from headstart.networks.remarks import check_finite, training_remarks
from headstart.networks.specs import architecture
from headstart.networks.training import Held, OnStep, Views, fit
from headstart.records import (
    Array,
    Codes,
    Curve,
    Epoch,
    Images,
    NetworkSpec,
    Source,
    Trainable,
    TrainSettings,
)
from headstart.sources.features import PLAIN, Extraction, Place, View, extract, extract_all
from headstart.sources.registry import native_input
from headstart.strategies.assemble import Fitted, Learning, network_model, probe_model
from headstart.strategies.judge import TrainingJudged, cross_fitted, deciding_part, training_views
from headstart.strategies.select import Choice, choose, deciding_images
from headstart.system.progress import SILENT, Progress

__all__ = [
    "CHOSEN",
    "Fit",
    "Learning",
    "Learnt",
    "Probe",
    "best_epoch",
    "choose_place",
    "epoch_curve",
    "learn_head",
    "learn_network",
    "places_of",
    "training_parts",
    "training_rows",
]

_VALIDATION_SHARE = 0.1
_VALIDATION_MOST = 3_000
_VALIDATION_LEAST = 50  # images below which none are spared for a curve


@dataclass(frozen=True)
class Probe:
    """How a head is put on a frozen source; what is None is chosen by cross-validation where it can be.

    ``augmentation`` adds its views of every training image; ``balance`` lets every class count alike.
    """

    tap: str | None = None
    pooling: str | None = None
    head: str | None = None
    augmentation: Augmentation | None = None
    balance: bool = False


CHOSEN = Probe()
"""Everything by cross-validation."""


@dataclass(frozen=True)
class Learnt:
    """A model, the curve of its learning, and the seconds it took.

    ``choice`` says how its parts were selected, if they were; ``held_probs`` are its answers on the
    images held out, if any, (n_held, n_classes); ``parts`` which images it learned from; ``judged`` a
    network's answers about validation images that decided nothing. ``remarks`` say what went wrong in
    training.
    """

    model: Model
    curve: Curve | None
    seconds: float
    choice: Choice | None = None
    held_probs: Array | None = None
    parts: Learning | None = None
    judged: TrainingJudged | None = None
    remarks: tuple[str, ...] = ()


class Fit(Protocol):
    """Fits a network; gives its epochs, and the settings it was fitted with in the end."""

    def __call__(
        self,
        network: Trainable,
        images: Images,
        labels: Codes,
        settings: TrainSettings,
        *,
        validation: Held | None,
        on_step: OnStep,
        views: Views | None,
    ) -> tuple[tuple[Epoch, ...], TrainSettings]:
        """As `training.fit`, which it calls."""
        ...


def training_parts(dataset: Dataset, seed: int, share: float | None = None) -> Learning:
    """Which images are learnt from and which are watched.

    Parameters
    ----------
    dataset : Dataset
        With a ``val`` split of its own, that is watched. Else a stratified tenth of the training
        images, 3,000 at most; nothing where that would be fewer than 50. Copies and groups stay together.
    seed : int
        Decides which.
    share : float, optional
        Hold out this share instead, however few images there are. Default: by that rule.

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
    own = np.arange(len(dataset)) if dataset.splits is None else np.flatnonzero(dataset.splits == "train")
    if dataset.splits is not None and "val" in set(dataset.splits.tolist()):
        return Learning(train, dataset.split("val"), (own, np.flatnonzero(dataset.splits == "val")))
    few = share is None and _VALIDATION_SHARE * len(train) < _VALIDATION_LEAST
    share = min(share or _VALIDATION_SHARE, _VALIDATION_MOST / len(train))
    if few or fewest_per_class(train.labels, train.together) < 2:
        return Learning(train, None)
    rest, held = holdout(train.labels, share, seed, train.together)
    return Learning(train.subset(rest), train.subset(held), (own[rest], own[held]))


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
    augmentation : Augmentation, optional
        Every epoch learns from another view of the images; how many views it names does not matter.
    policy : {'squish', 'crop', 'letterbox', 'ink'}, default='squish'
        How pictures are fitted to the network.
    device : {'auto', 'cpu', 'cuda', 'mps'}, default='auto'
        Where the engine torch trains.
    fit_by : Fit, optional
        What has a say in the fit beside the settings, such as checkpoints and logs. Default: nothing.
    progress : Progress, optional
        Told about images, loss and accuracy.

    Returns
    -------
    Learnt
        The model answers with the dataset's classes; its curve is by epoch. ``seconds`` are those of all
        its epochs, also of such as an interrupted run did.

    Raises
    ------
    SettingError, MissingExtraError, DataError
        If a name or a setting is wrong, the engine is not installed, or the data cannot be learnt from.
    DivergedError
        If the weights, or the validation loss with them, are not finite.
    """
    begun, settings = perf_counter(), settings or TrainSettings()
    parts = training_parts(dataset, settings.seed)
    if settings.patience and parts.held is None:
        raise DataError(
            f"dataset {dataset.name!r} has too few images to hold some out, need {_VALIDATION_LEAST * 10} "
            f"to stop early by; set patience to 0"
        )
    spec = architecture(network, native_input(dataset, policy), len(dataset.classes))
    trained = make_network(spec, engine, settings.seed, device)
    images, codes = prepare(parts.fit, spec.input), parts.fit.codes(dataset.classes)
    deciding, judging = parts.held, parts.held
    if settings.patience and parts.held is not None:
        deciding, judging = deciding_part(parts.held, settings.seed)
    held = None if deciding is None else (prepare(deciding, spec.input), deciding.codes(dataset.classes))
    history, settings = (fit_by or _fitted)(
        trained,
        images,
        codes,
        settings,
        validation=held,
        on_step=_told(f"train {network}", progress),
        views=training_views(augmentation, settings.seed),
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
        trained, dataset, parts, (images, held), settings=settings, history=history, seconds=seconds
    )
    judged = _judged_network(trained, model, judging, spec, settings) if judging is not None else None
    if judged is not None:
        found = judged.evaluation(settings.seed)
        scores = {**model.manifest.scores, "val_accuracy": found.accuracy.value}
        model = replace(model, manifest=replace(model.manifest, scores=scores))
    if augmentation is not None:
        noted = {**model.manifest.settings, "augmentation": augmentation.parts()}
        model = replace(model, manifest=replace(model.manifest, settings=noted))
    return Learnt(model, curve, seconds, remarks=remarks, parts=parts, judged=judged)


def _judged_network(
    network: Trainable, model: Model, judging: Dataset, spec: NetworkSpec, settings: TrainSettings
) -> TrainingJudged:
    """Answers about validation images: with patience about those that did not decide when to stop."""
    images, codes = prepare(judging, spec.input), judging.codes(model.classes)
    if settings.patience:
        probs = model.answer_prepared([images[i : i + 64] for i in range(0, len(images), 64)]).probabilities
    else:
        probs = cross_fitted(network.logits(images), codes, settings.seed, judging.together)
    return TrainingJudged(replace(judging, classes=model.classes), probs, "validation")


def _fitted(
    network: Trainable, images: Images, labels: Codes, settings: TrainSettings, **more: Any
) -> tuple[tuple[Epoch, ...], TrainSettings]:
    return fit(network, images, labels, settings, **more), settings


def learn_head(
    source: Source,
    dataset: Dataset,
    probe: Probe = CHOSEN,
    *,
    seed: int = 0,
    spare: bool = True,
    held_share: float | None = None,
    options: Extraction = PLAIN,
) -> Learnt:
    """Fit a head on a frozen source's features: the strategy ``probe``.

    Parameters
    ----------
    source : Source
        Runs once per image and view, and is never changed.
    dataset : Dataset
        Its ``test`` split, if any, is not looked at.
    probe : Probe, optional
        Where features are read and what is fitted on them.
    seed : int, default=0
        Decides folds, held-out images and views.
    spare : bool, default=True
        Hold some of many training images out, to measure by; without, all are learned from.
    held_share : float, optional
        As `training_parts` takes it.
    options : Extraction, optional
        Cache and runtime; features are computed in fp32, as the saved model computes them.

    Returns
    -------
    Learnt
        The model is the source's graph with the head's operations appended.

    Raises
    ------
    SettingError, UnknownLayerError, DataError
        If a name is wrong or the data cannot be learnt from.
    """
    begun, parts = perf_counter(), training_parts(dataset, seed, held_share)
    options = replace(options, precision="fp32")  # as the saved model computes
    if not spare:
        parts = Learning(dataset if dataset.splits is None else dataset.split("train"), None)
    place, head, choice = choose_place(source, parts.fit, probe, seed, options)
    rows, labels, images = training_rows(source, parts.fit, place, probe.augmentation, seed, options)
    watch = None
    if parts.held is not None:
        held = extract(parts.held, source, tap=place[0], pooling=place[1], options=options)
        watch = (held, parts.held.labels)
    together = parts.fit.together
    fitted = make_head(head).fit(
        rows,
        labels,
        classes=dataset.classes,
        seed=seed,
        watch=watch,
        images=images,
        clusters=None if together is None else together[images],
        balance=probe.balance,
    )
    seconds = perf_counter() - begun
    curve = None if fitted.curve_ is None else replace(fitted.curve_, title=f"{head} head on {dataset.name}")
    scores, held_probs = {}, None
    if watch is not None:
        held_probs = fitted.probabilities(watch[0])
        hits = np.asarray(dataset.classes)[held_probs.argmax(axis=1)] == watch[1]
        scores["val_accuracy"] = float(hits.mean())
    settings: dict[str, Any] = {}
    if probe.augmentation is not None:
        settings["augmentation"] = probe.augmentation.parts()
    if probe.balance:
        settings["balance"] = True
    order = {name: code for code, name in enumerate(dataset.classes)}
    codes = np.array([order[name] for name in labels.tolist()], np.int64)
    watched = None if watch is None or parts.held is None else (watch[0], parts.held.codes(dataset.classes))
    made = Fitted(fitted, place, scores, settings, rows, codes, images, watched)
    model = probe_model(source, made, dataset, parts, seed, seconds)
    return Learnt(model, curve, seconds, choice, held_probs, parts)


def choose_place(
    source: Source, dataset: Dataset, probe: Probe, seed: int, options: Extraction
) -> tuple[Place, str, Choice | None]:
    """Where to read and what to fit: as told, else by cross-validation among the source's candidates.

    Parameters
    ----------
    source : Source
        Its candidates are tried, those that agree with what the probe names.
    dataset : Dataset
        Training images; of more than 1,500 a stratified part decides.
    probe : Probe
        What is given.
    seed : int
        Decides folds.
    options : Extraction
        Cache, runtime and precision.

    Returns
    -------
    place : (tap, pooling)
    head : str
    choice : Choice or None
        None if there was nothing to choose, or a class has images of one cluster only.
    """
    places, heads, given = places_of(source, probe)
    if not heads or fewest_per_class(dataset.labels, dataset.together) < 2:
        return *given, None
    some = dataset.subset(deciding_images(dataset.codes(), seed))
    rows = extract_all(some, source, places, options=options)
    choice = choose(
        dict(zip(places, rows, strict=True)),
        some.codes(),
        heads=heads,
        clusters=some.together,
        balance=probe.balance,
        seed=seed,
    )
    best = choice.best
    return (best.tap, best.pooling), probe.head or best.head, choice


def places_of(source: Source, probe: Probe) -> tuple[list[Place], tuple[str, ...], tuple[Place, str]]:
    """What there is to choose among, and what is taken where nothing can be chosen by.

    Parameters
    ----------
    source : Source
        Its candidates, those that agree with what the probe names.
    probe : Probe
        What is given.

    Returns
    -------
    places : list of (tap, pooling)
    heads : tuple of str
        Empty if nothing is open. A head whose left-out answers have no closed form is stood in for by
        ridge when places are compared.
    given : ((tap, pooling), head)

    Raises
    ------
    SettingError
        If the head is unknown.
    """
    open_places = [
        (tap, pooling)
        for tap, pooling in source.candidates
        if probe.tap in (None, tap) and probe.pooling in (None, pooling)
    ]
    tap = probe.tap or (open_places[-1][0] if open_places else source.default_tap)
    maps = len(source.taps.get(tap.split(graph_pooling.JOIN)[0], ())) > 1
    named = (tap, probe.pooling or ("avg" if maps and source.candidates else "flat"))
    places = open_places or [named]
    given = (
        named if named in places else places[-1],
        probe.head or ("ridge" if source.candidates else "linear"),
    )
    heads: tuple[str, ...] = (probe.head,) if probe.head in SEARCHED else SEARCHED
    if probe.head is not None and probe.head not in SEARCHED:
        make_head(probe.head)  # a wrong name is found before anything is computed
        heads = ("ridge",)
    if len(places) == 1 and (probe.head is not None or not source.candidates):
        heads = ()
    return places, heads, given


def training_rows(
    source: Source,
    dataset: Dataset,
    place: Place,
    augmentation: Augmentation | None,
    seed: int,
    options: Extraction,
) -> tuple[Array, NDArray[np.str_], NDArray[np.intp]]:
    """Features to learn from: of the images, then of each of their views.

    Parameters
    ----------
    source : Source
        What computes them.
    dataset : Dataset
        Training images.
    place : (tap, pooling)
        Where features are read.
    augmentation : Augmentation or None
        None reads the images alone.
    seed : int
        Draws the views.
    options : Extraction
        Cache, runtime and precision.

    Returns
    -------
    rows : ndarray of shape (n_images * (1 + n_views), n_features), float32
    labels : ndarray of str
        Of each row.
    images : ndarray of int
        Which image each row shows.
    """
    n_views = 0 if augmentation is None else augmentation.views
    views = [None, *(View(augmentation, seed, number) for number in range(n_views) if augmentation)]
    rows = [
        extract(dataset, source, tap=place[0], pooling=place[1], view=view, options=options) for view in views
    ]
    images = np.tile(np.arange(len(dataset)), len(views))
    return rows[0] if len(rows) == 1 else np.concatenate(rows), dataset.labels[images], images


def _told(task: str, progress: Progress) -> OnStep:
    def on_step(done: int, total: int, loss: float, accuracy: float) -> None:
        progress.step(task, done, total, f"loss {loss:.3f}  accuracy {accuracy:.2%}")

    return on_step


def best_epoch(history: tuple[Epoch, ...], settings: TrainSettings) -> int | None:
    """Number of the epoch whose weights came back; None where the last ones stayed."""
    if not settings.patience:
        return None
    return min(history, key=lambda epoch: (not np.isfinite(epoch.val_loss), epoch.val_loss)).number


def epoch_curve(title: str, history: tuple[Epoch, ...], best: int | None) -> Curve:
    """A training history as a curve.

    Parameters
    ----------
    title : str
        Over the picture.
    history : tuple of Epoch
        What happened.
    best : int or None
        Number of the epoch whose weights came back, if training was stopped early.

    Returns
    -------
    Curve
    """
    return Curve(
        title,
        "epoch",
        tuple(float(one.number) for one in history),
        tuple(one.train_loss for one in history),
        tuple(one.val_loss for one in history),
        tuple(one.train_accuracy for one in history),
        tuple(one.val_accuracy for one in history),
        None if best is None else float(best),
    )
