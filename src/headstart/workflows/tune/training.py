"""The search over how a network is trained: rate, batch, epochs, regularisation, width and dropout.

Trials are stored in an SQLite file, so that an interrupted search resumes. Optuna is imported on use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset, require_classes
from headstart.data.images.prepare import prepare
from headstart.data.splits import holdout
from headstart.errors import DataError, SettingError
from headstart.evaluation.clusters import accuracy_score, paired
from headstart.evaluation.records import Difference, Score
from headstart.networks.contract import TrainableNetwork
from headstart.networks.engines.registry import make_network
from headstart.networks.specs import architecture
from headstart.networks.training import OnStep, fit, measure
from headstart.records import Codes, Images, NetworkSpec
from headstart.report.records import Factor
from headstart.sources.networks import native_input
from headstart.system.progress import SILENT, Progress
from headstart.workflows.tune.regime import Regime, default_regime
from headstart.workflows.tune.space import LEAST_DECAY, SPACE, drawn_params, params_of, regime_of
from headstart.workflows.tune.storage import (
    RIGHT,
    STARTUP,
    answered_trials,
    finished_trials,
    open_storage,
    quiet_optuna,
)

__all__ = ["NetworkTrial", "TrainingTuning", "tune_training"]

_JUDGED_SHARE, _WATCHED_SHARE = 0.2, 0.25  # of all; of the rest: a fifth of all each
_SEARCH_SHARE = 0.95  # of a budget: the rest is for what mattered
_MOST_HELD = 3_000
_FEWEST = 4  # trials that came to their end, before anything is said of what mattered


@dataclass(frozen=True)
class NetworkTrial:
    """One training, evaluated on the selection images after its last epoch; ``pruned`` if stopped early.

    ``loss`` is in nats per image and may be infinite.
    """

    number: int
    regime: Regime
    accuracy: float
    loss: float
    epochs_done: int
    pruned: bool
    seconds: float

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Sort key, the best first, those that were stopped last."""
        return (self.pruned, -self.accuracy, self.loss)


@dataclass(frozen=True)
class TrainingTuning:
    """The result of a search over training.

    ``watched`` is the winner's accuracy on the images that selected it, which is optimistic; ``judged`` is
    the same model's on images that no trial used, ``default`` that of the network trained by
    ``default_regime``, and ``lead`` the paired difference of the two.
    """

    network: str
    engine: str
    trials: tuple[NetworkTrial, ...]
    default_regime: Regime
    watched: Score
    judged: Score
    default: Score
    lead: Difference
    factors: tuple[Factor, ...]
    n_fit: int
    n_resumed: int
    interrupted: bool
    seconds: float

    @property
    def best(self) -> NetworkTrial:
        """The winner."""
        return self.trials[0]

    @property
    def n_pruned(self) -> int:
        """Trials that were stopped early."""
        return sum(trial.pruned for trial in self.trials)


def tune_training(
    dataset: Dataset,
    *,
    storage: str | Path,
    network: str = "cnn",
    engine: str = "torch",
    budget_s: float | None = 300.0,
    n_trials: int | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> TrainingTuning:
    """Search for the best training of a network, and evaluate the winner on images that no trial used.

    Of the training images, a fifth selects and a fifth evaluates; groups are not split. ``storage`` is the
    SQLite file of the trials, for one process at a time; ``n_trials`` includes those of an earlier run. The
    budget is in seconds: one trial is always finished, and the trial that is running at its end is stopped.

    The first trial is `default_regime`; the others are drawn by the tree-structured Parzen estimator
    (Bergstra et al., NIPS 2011; Optuna: Akiba et al., KDD 2019, arXiv:1907.10902), each from the seed and
    its number, so that without a budget an interrupted and resumed search gives the same result. A trial
    below the median of the others at the same epoch is stopped. Ctrl-C ends the search and keeps its
    trials.
    """
    if budget_s is None and n_trials is None:
        raise SettingError("there is neither a budget nor a number of trials, expected one of them; name it")
    if n_trials is not None and n_trials < 1:
        raise SettingError(f"trials is {n_trials}, expected at least 1; 30 tell something")
    begun = perf_counter()
    train = dataset if dataset.splits is None else dataset.split("train")
    bench = _bench(train, network, engine, seed, progress)
    deadline = None if budget_s is None else begun + _SEARCH_SHARE * budget_s
    with quiet_optuna(), open_storage(Path(storage), _identity(bench, train)) as study:
        n_resumed = len(finished_trials(study))
        interrupted = _search(study, bench, deadline, n_trials)
        trials = tuple(sorted(map(_trial, finished_trials(study)), key=lambda one: one.rank))
        factors = _factors(study, trials, seed)
        answers = {regime_of(one.params): one.user_attrs[RIGHT] for one in answered_trials(study)}
    best, default = trials[0].regime, default_regime(bench.spec)
    watched, judged = _unpacked(answers[best], bench) if best in answers else bench.hits(best)
    untuned = _unpacked(answers[default], bench)[1] if default in answers else bench.hits(default)[1]
    return TrainingTuning(
        network,
        engine,
        trials,
        default,
        accuracy_score(watched, bench.together[0]),
        accuracy_score(judged, bench.together[1]),
        accuracy_score(untuned, bench.together[1]),
        paired(judged, untuned, bench.together[1]),
        factors,
        len(bench.fit[1]),
        n_resumed,
        interrupted,
        perf_counter() - begun,
    )


Hits = NDArray[np.bool_]
Part = tuple[Images, Codes]


@dataclass(frozen=True)
class _Bench:
    """What all trials share: the network, its engine, and images to train on, select by and evaluate on.

    ``together`` are the clusters of the selection images and of the evaluation images.
    """

    spec: NetworkSpec
    engine: str
    seed: int
    progress: Progress
    fit: Part
    watch: Part
    judge: Part
    together: tuple[NDArray[np.generic] | None, ...] = (None, None)

    def trained(self, regime: Regime, on_step: Callable[[TrainableNetwork], OnStep]) -> TrainableNetwork:
        """A network trained on the training images."""
        network = make_network(regime.network(self.spec), self.engine, self.seed)
        with np.errstate(all="ignore"):  # a rate that is too high overflows, and is seen by its loss
            fit(network, *self.fit, regime.settings(self.seed), on_step=on_step(network))
        return network

    def hits(self, regime: Regime) -> tuple[Hits, Hits]:
        """Train again; which selection images and which evaluation images are predicted correctly."""
        total = regime.epochs * len(self.fit[1])
        tell = _Telling(self.progress, "train the best and the default", total, "")

        def on_step(done: int, n_images: int, loss: float, accuracy: float) -> None:
            tell(done, n_images)

        network = self.trained(regime, lambda network: on_step)
        return _right(network, self.watch), _right(network, self.judge)


def _packed(network: TrainableNetwork, bench: _Bench) -> list[str]:
    """Which selection and evaluation images are predicted correctly, as text of bits."""
    return [np.packbits(_right(network, part)).tobytes().hex() for part in (bench.watch, bench.judge)]


def _unpacked(texts: Sequence[str], bench: _Bench) -> tuple[Hits, Hits]:
    """The inverse of `_packed`."""
    watched, judged = (
        np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[: len(part[1])].astype(np.bool_)
        for text, part in zip(texts, (bench.watch, bench.judge), strict=True)
    )
    return watched, judged


def _right(network: TrainableNetwork, part: Part) -> Hits:
    return np.asarray(network.logits(part[0]).argmax(axis=1) == part[1])


class _Telling:
    """Progress of one training over its epochs, in images."""

    def __init__(self, progress: Progress, task: str, total: int, note: str) -> None:
        self._progress, self._task, self._total, self._note = progress, task, total, note
        self._before, self.epochs = 0, 0

    def __call__(self, done: int, n_images: int) -> bool:
        """Report progress within an epoch; whether the epoch ended."""
        self._progress.step(self._task, self._before + done, self._total, self._note)
        if done < n_images:
            return False
        self._before, self.epochs = self._before + n_images, self.epochs + 1
        return True


def _bench(train: Dataset, network: str, engine: str, seed: int, progress: Progress) -> _Bench:
    """Split the training images into three parts, resized to the network's input."""
    require_classes(train)
    spec = architecture(network, native_input(train), len(train.classes))
    make_network(spec, engine, seed)  # a wrong name is found before a file is written
    few = [name for name, count in train.counts().items() if count < 3]
    if few:
        raise DataError(
            f"class {few[0]!r} of dataset {train.name!r} has {train.counts()[few[0]] or 'no'} training "
            "image(s), expected at least 3 to tune: to learn from, to choose by and to judge by; add images, or "
            "leave the class out with a view"
        )
    rest, judge = _parted(train, np.arange(len(train)), _JUDGED_SHARE, seed)
    learn, watch = _parted(train, rest, _WATCHED_SHARE, seed)
    images, codes = prepare(train, spec.input), train.codes()
    parts = [(images[part], codes[part]) for part in (learn, watch, judge)]
    together = tuple(None if train.together is None else train.together[part] for part in (watch, judge))
    return _Bench(spec, engine, seed, progress, parts[0], parts[1], parts[2], together)


def _parted(
    train: Dataset, some: NDArray[np.intp], share: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Hold out a stratified share of some of the images, at most 3,000, without splitting groups."""
    groups = None if train.together is None else train.together[some]
    share = min(share, _MOST_HELD / len(some))
    rest, held = holdout(train.labels[some], share, np.random.default_rng([seed, 11, len(some)]), groups)
    return some[rest], some[held]


def _search(study: Any, bench: _Bench, deadline: float | None, n_trials: int | None) -> bool:
    """Run trials until time or number is reached, but at least one to its end; whether Ctrl-C ended it."""
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    while True:
        finished = finished_trials(study)
        complete = [one.value for one in finished if one.state == TrialState.COMPLETE]
        if n_trials is not None and len(finished) >= n_trials:
            break
        late = deadline is not None and perf_counter() > deadline
        if late and (complete or len(finished) >= STARTUP):
            break
        if not finished and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            study.enqueue_trial(params_of(default_regime(bench.spec)))
        draw = np.random.default_rng([bench.seed, 7, len(finished)]).integers(2**31)
        study.sampler = TPESampler(seed=int(draw))  # anew for each: an interrupted search goes on the same
        trial = study.ask()
        note = f"best {max(complete):.2%}" if complete else ""
        try:
            _try(study, trial, bench, deadline if complete else None, note)
        except KeyboardInterrupt:
            study.tell(trial, state=TrialState.FAIL)
            if not complete:
                raise
            return True
        except BaseException:
            study.tell(trial, state=TrialState.FAIL)
            raise
    if not complete:
        raise SettingError(
            f"no training of {bench.spec.name!r} came to its end in {len(finished)} trial(s), expected one that "
            "does; allow more trials, or look at the data with: headstart inspect"
        )
    return False


def _try(study: Any, trial: Any, bench: _Bench, deadline: float | None, note: str) -> None:
    """One training, evaluated after every epoch, stopped if it is pruned or time is up."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    begun, regime = perf_counter(), drawn_params(trial)
    telling = _Telling(bench.progress, f"trial {trial.number + 1}", regime.epochs * len(bench.fit[1]), note)
    loss, accuracy = math.inf, 0.0

    def watching(network: TrainableNetwork) -> OnStep:
        def on_step(done: int, total: int, train_loss: float, train_accuracy: float) -> None:
            nonlocal loss, accuracy
            late = deadline is not None and perf_counter() > deadline
            if not telling(done, total):
                if late:
                    raise TrialPruned
                return
            loss, accuracy = measure(network, *bench.watch)
            trial.report(accuracy, telling.epochs)
            if not math.isfinite(loss):
                loss, accuracy = math.inf, 0.0
                raise TrialPruned
            if telling.epochs < regime.epochs and (late or trial.should_prune()):
                raise TrialPruned

        return on_step

    state = TrialState.COMPLETE
    try:
        network = bench.trained(regime, watching)
    except TrialPruned:
        # of one that time cut off in its first epoch nothing is known
        state = TrialState.PRUNED if telling.epochs else TrialState.FAIL
    else:  # so that the best need not be trained again; no trial looks at it
        trial.set_user_attr(RIGHT, _packed(network, bench))
    for name, value in (("loss", loss), ("accuracy", accuracy), ("epochs", telling.epochs)):
        trial.set_user_attr(name, value if math.isfinite(value) else None)
    trial.set_user_attr("seconds", perf_counter() - begun)
    # told last: a trial that counts has all its facts
    study.tell(trial, accuracy if state == TrialState.COMPLETE else None, state=state)


def _trial(one: Any) -> NetworkTrial:
    from optuna.trial import TrialState

    facts = one.user_attrs
    return NetworkTrial(
        one.number,
        regime_of(one.params),
        facts["accuracy"],
        math.inf if facts["loss"] is None else facts["loss"],
        facts["epochs"],
        one.state == TrialState.PRUNED,
        facts["seconds"],
    )


def _factors(study: Any, trials: Sequence[NetworkTrial], seed: int) -> tuple[Factor, ...]:
    """The importance of settings among completed trials, by a functional analysis of variance."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    ended = [one for one in trials if not one.pruned]
    if len(ended) < _FEWEST or len({one.accuracy for one in ended}) == 1:
        return ()
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    found = []
    for name, share in shares.items():
        pairs = sorted((float(getattr(one.regime, name)), one.accuracy) for one in ended)
        log = bool(SPACE[name].base)
        values = tuple(max(value, LEAST_DECAY) if log else value for value, _ in pairs)
        found.append(
            Factor(name.replace("_", " "), float(share), values, tuple(score for _, score in pairs), log)
        )
    return tuple(found)


def _identity(bench: _Bench, train: Dataset) -> dict[str, Any]:
    """What all trials of one search share."""
    return {
        "data": train.fingerprint,
        "network": bench.spec.name,
        "engine": bench.engine,
        "seed": bench.seed,
        "search space": {name: list(asdict(one).values()) for name, one in SPACE.items()},
    }
