"""Evaluation of a model on a dataset: which images, which of them are new, and how well it does.

Apart from the package `evaluation`, which computes with numbers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.doctor import examine
from headstart.data.checks.refuse import NEAR_MOST
from headstart.data.checks.seen import Recognised, recognise, recorded
from headstart.data.clusters import joined_clusters, with_clusters
from headstart.data.dataset import Dataset
from headstart.data.names import listed, natural_order, shown, split_name
from headstart.errors import DataError
from headstart.evaluation.calibration import reliability
from headstart.evaluation.clusters import accuracy_score, cluster_remark
from headstart.evaluation.detection import detection
from headstart.evaluation.metrics import evaluate
from headstart.evaluation.records import Detection, Evaluated, Score
from headstart.models.model import Model
from headstart.records import Prediction
from headstart.system.progress import SILENT, Progress

__all__ = ["run_evaluation"]

_NEW, _LEARNED, _UNKNOWN = "new images", "images learned from", "images"
_ROLE_OF = {"train": ("learned", "source"), "val": ("validation", "judged"), "test": ("test",)}


@dataclass(frozen=True)
class _Part:
    """The images to evaluate, and what the model knows of them: None if it has no record of its images."""

    dataset: Dataset
    split: str
    found: Recognised | None
    remarks: tuple[str, ...] = ()

    @property
    def learned(self) -> NDArray[np.bool_]:
        """Which images the model learned from, also through its source."""
        if self.found is None:
            return np.zeros(len(self.dataset), np.bool_)
        return self.found.of("learned", "source")

    def subset(self, mask: NDArray[np.bool_]) -> _Part:
        found = None if self.found is None else self.found.subset(mask)
        return replace(self, dataset=self.dataset.subset(mask), found=found)


def run_evaluation(
    model: Model,
    dataset: Dataset,
    *,
    split: str | None = None,
    novel: Dataset | None = None,
    seed: int = 0,
    runtime: str = "openvino",
    progress: Progress = SILENT,
) -> Evaluated:
    """Measure a model on labelled images, apart those it learned from.

    Parameters
    ----------
    model : Model
        As opened or just learned.
    dataset : Dataset
        Its classes must be classes of the model; some may have no image.
    split : {'train', 'val', 'test', 'all'}, optional
        Default: ``test`` where the dataset has one. Else, the test set that was held out when the model was
        made, if all of it is in the dataset. Else, all images.
    novel : Dataset, optional
        Images of none of the model's classes.
    seed : int, default=0
        No effect: nothing in an evaluation is random.
    runtime : {'openvino', 'onnxruntime'}, default='openvino'
        What executes the model.
    progress : Progress, optional
        Receives the number of images done.

    Returns
    -------
    Evaluated
        Its detailed figures are about images that the model did not learn from, if there are any. Images are
        recognised by their bytes, their pixels, and as copies (see `data.checks.appearance`).

    Raises
    ------
    DataError
        If an image has a class that the model does not know, or the split does not exist.
    """
    part = _chosen(model, dataset, split, progress)
    learned = part.learned
    predicted = model.prediction(part.dataset, runtime_name=runtime, progress=progress)
    codes, groups = part.dataset.codes(model.classes), part.dataset.groups
    scored = learned if learned.all() else ~learned
    clusters, copies = _clusters(part.dataset)

    def of(some: NDArray[np.bool_]) -> NDArray[np.intp] | None:
        return None if clusters is None else clusters[some]

    about = _UNKNOWN if part.found is None else _LEARNED if learned.all() else _NEW
    title = f"{model.manifest.name} on {part.dataset.name}, {part.split}"

    right = predicted.probabilities.argmax(axis=1) == codes

    def accuracy_of(some: NDArray[np.bool_]) -> Score | None:
        return accuracy_score(right[some], of(some)) if some.any() else None

    evaluation = evaluate(
        f"{title}: {about}",
        predicted.probabilities[scored],
        codes[scored],
        model.classes,
        of(scored),
    )
    n_groups = 0 if groups is None else len(np.unique(groups[scored]))
    return Evaluated(
        title,
        about,
        part.split,
        None if part.found is None else accuracy_of(~learned),
        accuracy_of(learned),
        _counts(part),
        evaluation,
        reliability(title, predicted.probabilities[scored], codes[scored], clusters=of(scored)),
        None
        if novel is None
        else _detected(model, novel, _some(predicted, scored), of(scored), title, runtime),
        n_groups,
        _warnings(model, part),
        (
            *part.remarks,
            *copies,
            *_remarks(model, part, evaluation.absent, n_groups),
            *_cluster_remarks(part, scored, of(scored)),
        ),
    )


def _cluster_remarks(part: _Part, some: NDArray[np.bool_], clusters: NDArray[np.intp] | None) -> list[str]:
    remark = cluster_remark(clusters, part.dataset.labels[some])
    return [remark] if remark else []


def _clusters(dataset: Dataset) -> tuple[NDArray[np.intp] | None, list[str]]:
    """Copies and groups among the images as clusters, and a remark on the copies."""
    near = len(dataset) <= NEAR_MOST
    pairs = [pair.places for pair in examine(replace(dataset, splits=None), near=near).pairs]
    remarks = []
    if pairs:
        n_copies = len(dataset) - int(joined_clusters(len(dataset), pairs).max()) - 1
        remarks.append(
            f"{n_copies:,} of the {len(dataset):,} images are copies of others: intervals treat "
            "the copies of one image as one image"
        )
    if not near:
        remarks.append(f"near copies were not searched for among {len(dataset):,} images, only exact ones")
    return with_clusters(dataset, pairs).cluster_codes, remarks


def _chosen(model: Model, dataset: Dataset, split: str | None, progress: Progress) -> _Part:
    """The images to evaluate, after comparing them with those that the model has seen."""
    requested = None if split is None else split_name(split) or split
    here = set() if dataset.splits is None else set(dataset.splits.tolist())
    n_held = 0 if model.seen is None else model.seen.count("test")
    by_role = n_held > 0 and requested in _ROLE_OF and requested not in here
    if requested is None and "test" in here:
        requested = "test"
    name = requested or "all"
    part = dataset if name == "all" or by_role else dataset.split(name)
    _check_classes(part, model)
    if model.seen is None:
        return _Part(part, name, None)
    found = recognise(part.images, model.seen, lambda done, total: progress.step("compare", done, total))
    whole = _Part(part, name, found)
    if by_role:
        mask = found.of(*_ROLE_OF[name])
        if not mask.any():
            raise DataError(
                f"split {name!r} of model {model.manifest.name!r} has no image in dataset {dataset.name!r}, "
                "expected some that the model was made with; give that dataset, or leave the split out"
            )
        return whole.subset(mask)
    if requested is None and n_held:
        return _held_out(model, whole, n_held)
    return whole


def _held_out(model: Model, whole: _Part, n_held: int) -> _Part:
    """The test set that was held out when the model was made, if all of it is here."""
    assert whole.found is not None and model.seen is not None, "the test set was recorded"
    mask = whole.found.of("test")
    expected = recorded(model.seen, "test")  # without duplicate entries of the record
    n_here = len(np.intersect1d(whole.found.places[mask], expected))
    if n_here < len(expected):
        remark = (
            f"{n_here:,} of the {len(expected):,} images of the model's own test set are here"
            if n_here
            else ""
        )
        return replace(whole, remarks=(remark,) if remark else ())
    note = model.manifest.data.get("holdout", {})
    others = int((~mask & ~whole.learned & ~_of(whole, "validation", "judged")).sum())
    drawn = ", ".join(f"{key} {note[key]}" for key in ("share", "seed") if key in note)
    new = f" ({others:,} of them new)" if others else ""
    remark = (
        f"the {n_held:,} images held out when the model was made ({drawn}) are evaluated; the other "
        f"{len(mask) - int(mask.sum()):,}{new} are left out, --split all evaluates them too"
    )
    return replace(whole.subset(mask), split="test", remarks=(remark,))


def _of(part: _Part, *roles: str) -> NDArray[np.bool_]:
    """Which images had one of these roles."""
    return np.zeros(len(part.dataset), np.bool_) if part.found is None else part.found.of(*roles)


def _check_classes(part: Dataset, model: Model) -> None:
    """Raise `DataError` for classes that the model does not know: they would make every figure wrong."""
    extra = natural_order(set(part.labels.tolist()) - set(model.classes))
    if extra:
        raise DataError(
            f"dataset {part.name!r} has {listed(extra)}, expected only classes of model "
            f"{model.manifest.name!r} ({shown(model.classes)}); leave the others out with a subset"
        )


def _counts(part: _Part) -> Mapping[str, int]:
    counts = {"images": len(part.dataset)}
    if part.found is None:
        return counts
    learned = part.learned
    return counts | {
        "new": int((~learned).sum()),
        "learned": int(learned.sum()),
        "learned_by_source": int(part.found.of("source").sum()),
        "near_copies": int((learned & part.found.near).sum()),
        "validation": int(part.found.of("validation", "judged").sum()),
    }


def _warnings(model: Model, part: _Part) -> tuple[str, ...]:
    """Sentences without which the figures would be misread."""
    if part.found is None:
        return (
            f"model {model.manifest.name!r} has no record of its training images, so it is unknown whether "
            "these metrics are computed on new images; make the model again to record them",
        )
    if part.learned.all():
        return (
            f"none of the {len(part.dataset):,} images is new to the model: it learned from all of them, so "
            "this is no estimate of its accuracy on new images; evaluate it on other images, or make it with "
            "--holdout",
        )
    return ()


def _remarks(model: Model, part: _Part, absent: tuple[str, ...], n_groups: int) -> list[str]:
    remarks = []
    counts = _counts(part)
    if counts.get("learned_by_source"):
        remarks.append(
            f"{counts['learned_by_source']:,} images were learned from by the model's source network only"
        )
    n_decided = int(_of(part, "validation").sum())
    if n_decided:
        remarks.append(
            f"{n_decided:,} of the new images were held out of training, but set the temperature, the "
            "novelty threshold or the end of training: metrics on them are slightly optimistic"
        )
    if absent:
        remarks.append(f"there are no images of {listed(absent)}: averages are over the other classes")
    if n_groups > 1:
        remarks.append(f"the images belong to {n_groups:,} groups: intervals account for groups")
    if model.seen is not None and len(model.seen.places) < len(model.seen.digests):
        remarks.append(
            f"re-encoded or altered copies were searched for among {len(model.seen.places):,} of the "
            f"{len(model.seen.digests):,} images that the model has seen, exact copies among all"
        )
    return remarks


def _some(predicted: Prediction, mask: NDArray[np.bool_]) -> Prediction:
    """The predictions for some of the images."""
    novelty = None if predicted.novelty is None else predicted.novelty[mask]
    return Prediction(predicted.probabilities[mask], novelty)


def _detected(
    model: Model,
    novel: Dataset,
    known: Prediction,
    clusters: NDArray[np.intp] | None,
    title: str,
    runtime: str,
) -> Detection:
    unknown = model.prediction(novel, runtime_name=runtime)
    return detection(
        f"{title}, {novel.name} novel",
        known,
        unknown,
        clusters=clusters,
        novel_clusters=_clusters(novel)[0],
    )
