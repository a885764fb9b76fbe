"""The same training with other seeds, on the same images: what it varies by, and its mean accuracy.

These trainings are independent of each other and of the saved model's, so they run in other processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation
from headstart.data.images.prepare import prepare
from headstart.data.splits import fewest_per_class
from headstart.errors import DataError, DivergedError, SettingError
from headstart.networks.engines.registry import make_network
from headstart.networks.rate_test import find_rate
from headstart.networks.remarks import check_finite
from headstart.networks.specs import architecture
from headstart.networks.training import ValidationSet, fit
from headstart.records import NetworkSpec, TrainSettings
from headstart.sources.networks import native_input
from headstart.strategies.judge import augmented_training, fold_logits, halves, training_folds
from headstart.strategies.parts import TrainingParts
from headstart.strategies.result import best_epoch
from headstart.system.neighbours import allowed_cores
from headstart.system.progress import SILENT, Progress
from headstart.system.runners import LOCAL, ProcessRunner, Runner
from headstart.system.threads import one_thread
from headstart.workflows.train.rate import choose_rate
from headstart.workflows.train.request import TrainingFiles, TrainingRequest, log_of

__all__ = ["OtherSeeds", "SeedRun", "SeedTrainings", "TrainingPlan", "other_seeds"]


@dataclass(frozen=True)
class TrainingPlan:
    """Settings of a training; with ``auto`` the learning rate is found by a test."""

    settings: TrainSettings
    augmentation: Augmentation | None
    auto: bool


@dataclass(frozen=True)
class SeedRun:
    """The training with one seed: which images it predicts correctly, (n_images,), bool.

    ``diverged`` says why there is no network; then no image is predicted correctly.
    """

    seed: int
    right: NDArray[np.bool_]
    seconds: float
    diverged: str = ""


@dataclass(frozen=True)
class SeedTrainings:
    """Trains with one seed after the other; all that they share.

    Networks are evaluated on the images of ``evaluated``; without them by cross-validation on ``train``, whose labels
    and clusters then make the folds. ``alone`` trains on one thread, as in a process with one core.
    """

    spec: NetworkSpec
    engine: str
    device: str
    plan: TrainingPlan
    train: ValidationSet
    stopping: ValidationSet | None
    evaluated: ValidationSet | None
    labels: NDArray[np.str_]
    clusters: NDArray[np.generic] | None
    alone: bool = True

    def __call__(self) -> Callable[[int], SeedRun]:
        """The function that trains with one seed."""
        make_network(self.spec, self.engine, 0, self.device)  # imports PyTorch before threads are limited
        return self.done

    def done(self, seed: int) -> SeedRun:
        """Train and evaluate."""
        begun = perf_counter()
        threads: AbstractContextManager[None] = one_thread() if self.alone else nullcontext()
        with threads, np.errstate(all="ignore"):  # what overflows diverges, which is found below
            try:
                right, diverged = self._right(seed), ""
            except DivergedError as error:
                known = self.train if self.evaluated is None else self.evaluated
                right, diverged = np.zeros(len(known[1]), np.bool_), str(error).partition(", expected")[0]
        return SeedRun(seed, right, perf_counter() - begun, diverged)

    def _right(self, seed: int) -> NDArray[np.bool_]:
        settings = replace(self.plan.settings, seed=seed)
        copies = augmented_training(self.plan.augmentation, seed)
        network = make_network(self.spec, self.engine, seed, self.device)
        if self.plan.auto:
            try:
                rate = choose_rate(lambda: find_rate(network, *self.train, settings, augment=copies))
            except SettingError as error:  # the loss of this seed diverged at once
                raise DivergedError(str(error)) from error
            settings = rate.applied(settings)
        if self.evaluated is None:
            return self._right_by_folds(settings)
        history = fit(network, *self.train, settings, validation=self.stopping, augment=copies)
        check_finite(history, best_epoch(history, settings), network.weights())
        images, codes = self.evaluated
        return np.asarray(network.logits(images).argmax(axis=1) == codes)

    def _right_by_folds(self, settings: TrainSettings) -> NDArray[np.bool_]:
        folds = training_folds(self.labels, settings.seed, self.clusters)
        spec, augmentation = self.spec, self.plan.augmentation
        logits = fold_logits(
            self.train, folds, spec, self.engine, settings, augmentation, progress=SILENT, device=self.device
        )
        return np.asarray(logits.argmax(axis=1) == self.train[1])


@dataclass
class OtherSeeds:
    """Trainings with the seeds that follow the first; on a cluster they begin before it is trained.

    ``kept`` is a file of those that are done, so that an interrupted run does not train them again; ``run`` stands
    for what must be the same for that.
    """

    trainings: SeedTrainings
    seeds: tuple[int, ...]
    runner: Runner
    kept: Path
    run: str
    progress: Progress
    found: dict[int, SeedRun]
    results: Iterator[tuple[int, SeedRun]] | None = None

    def begin(self) -> None:
        """Send the trainings to a cluster; elsewhere they wait until the first is done, which uses all cores."""
        missing = [seed for seed in self.seeds if seed not in self.found]
        if missing and self.results is None and self.runner.remote:
            self.results = self.runner.map(self.trainings, missing)

    def collect(self) -> tuple[SeedRun, ...]:
        """Wait for all of them, in the order of the seeds."""
        missing = [seed for seed in self.seeds if seed not in self.found]
        results = self.results or (self._here().map(self.trainings, missing) if missing else iter(()))
        self.progress.step("train with other seeds", len(self.found), len(self.seeds))
        for _, one in results:
            self._keep(one)
            self.found[one.seed] = one
            self.progress.step("train with other seeds", len(self.found), len(self.seeds))
        return tuple(self.found[seed] for seed in self.seeds)

    def _here(self) -> Runner:
        if not self.trainings.alone:
            return LOCAL
        return ProcessRunner(min(len(self.seeds), allowed_cores()), len(self.seeds))

    def _keep(self, one: SeedRun) -> None:
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        note = {
            "run": self.run,
            "seed": one.seed,
            "right": np.packbits(one.right).tobytes().hex(),
            "seconds": one.seconds,
            "diverged": one.diverged,
        }
        with self.kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")


def other_seeds(
    dataset: Dataset,
    parts: TrainingParts,
    request: TrainingRequest,
    plan: TrainingPlan,
    *,
    runner: Runner,
    files: TrainingFiles,
    identity: Mapping[str, Any],
    progress: Progress,
) -> OtherSeeds | None:
    """The trainings with the seeds after the first; None if one seed is all there is.

    DataError if no image can be held out: then there is no accuracy that could vary.
    """
    if request.n_seeds == 1:
        return None
    trainings, first = _trainings(dataset, parts, request, plan, runner), plan.settings.seed
    kept, run = (
        log_of(files.output) / "seeds.jsonl",
        hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
    )
    if not files.resume:
        kept.unlink(missing_ok=True)
    known = _known(kept, run, len((trainings.evaluated or trainings.train)[1]))
    seeds = tuple(range(first + 1, first + request.n_seeds))
    found = {seed: known[seed] for seed in seeds if seed in known}
    others = OtherSeeds(trainings, seeds, runner, kept, run, progress, found)
    others.begin()
    return others


def _trainings(
    dataset: Dataset, parts: TrainingParts, request: TrainingRequest, plan: TrainingPlan, runner: Runner
) -> SeedTrainings:
    """On the images of the first training: what is held out does not depend on the other seeds."""
    if parts.held is None and fewest_per_class(parts.fit.labels, parts.fit.cluster_codes) < 2:
        raise DataError(
            f"dataset {dataset.name!r} has a class with images of one group only, or copies of one image, expected "
            "two to compare seeds on; add images, or leave out seeds"
        )
    spec = architecture(request.network, native_input(dataset, request.policy), len(dataset.classes))
    device = "cpu" if runner.remote and request.device == "auto" else request.device  # workers have cores
    on_cpu = str(getattr(make_network(spec, request.engine, 0, device), "device", "cpu")) == "cpu"
    stopping, evaluated = parts.held, parts.held
    if plan.settings.patience and parts.held is not None:
        stopping, evaluated = halves(parts.held, plan.settings.seed)

    def ready(some: Dataset) -> ValidationSet:
        return prepare(some, spec.input), some.codes(dataset.classes)

    return SeedTrainings(
        spec,
        request.engine,
        device,
        plan,
        ready(parts.fit),
        None if stopping is None else ready(stopping),
        None if evaluated is None else ready(evaluated),
        parts.fit.labels,
        parts.fit.cluster_codes,
        alone=on_cpu,
    )


def _known(kept: Path, run: str, n_images: int) -> dict[int, SeedRun]:
    """Trainings of an interrupted run; a line that was cut, or is of another run, is left out."""
    found: dict[int, SeedRun] = {}
    for line in kept.read_text(encoding="utf-8").splitlines() if kept.is_file() else ():
        try:
            note: dict[str, Any] = json.loads(line)
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(note["right"]), np.uint8))
            one = SeedRun(note["seed"], bits[:n_images] > 0, note["seconds"], note["diverged"])
        except (ValueError, KeyError, TypeError):
            continue
        if note["run"] == run and len(one.right) == n_images:
            found[one.seed] = one
    return found
