"""The search over how a network is trained: rate, batch, epochs, regularisation, width and dropout.

Trials are stored in an SQLite file, so that an interrupted search resumes. Optuna is imported on use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import starmap
from pathlib import Path
from time import perf_counter, time
from typing import Any

from headstart.data.dataset import Dataset
from headstart.errors import SettingError
from headstart.evaluation.clusters import accuracy_score, paired
from headstart.evaluation.records import Difference, Score
from headstart.report.records import Factor
from headstart.system.neighbours import allowed_cores
from headstart.system.progress import SILENT, Progress
from headstart.system.runners import LOCAL, ProcessRunner, Runner
from headstart.workflows.tune.draws import Batch, next_batch, study_of
from headstart.workflows.tune.regime import Regime, default_regime
from headstart.workflows.tune.setup import TrialSetup, make_setup, unpacked_hits
from headstart.workflows.tune.space import LEAST_DECAY, SPACE, regime_of
from headstart.workflows.tune.storage import (
    AT_ONCE,
    RIGHT,
    STARTUP,
    finished_trials,
    open_storage,
    quiet_optuna,
)
from headstart.workflows.tune.trials import Trials, TrialTask

__all__ = ["NetworkTrial", "TrainingTuning", "tune_training"]

_SEARCH_SHARE = 0.95  # of a budget: the rest is for the importance of settings
_FEWEST = 4  # completed trials below which no importance is computed


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

    ``selection`` is the winner's accuracy on the images that selected it, which is optimistic; ``evaluation`` is
    the same model's on images that no trial used, ``default`` that of the network trained by
    ``default_regime``, and ``lead`` the paired difference of the two.
    """

    network: str
    engine: str
    trials: tuple[NetworkTrial, ...]
    default_regime: Regime
    selection: Score
    evaluation: Score
    default: Score
    lead: Difference
    factors: tuple[Factor, ...]
    n_fit: int
    n_resumed: int
    interrupted: bool
    seconds: float
    at_once: int = 1

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
    at_once: int = 1,
    seed: int = 0,
    runner: Runner = LOCAL,
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

    With ``at_once`` above 1, so many trials are drawn together from the results of earlier ones, and stopped by
    the medians of earlier ones. They run on one thread each, in processes of this machine or by a ``runner`` for
    other machines: the result depends on the seed and on ``at_once``, not on where or in which order they run.
    """
    if budget_s is None and n_trials is None:
        raise SettingError("there is neither a budget nor a number of trials, expected one of them; name it")
    if n_trials is not None and n_trials < 1:
        raise SettingError(f"trials is {n_trials}, expected at least 1; 30 or more are useful")
    if at_once < 1:
        raise SettingError(f"at_once is {at_once}, expected at least 1; 1 runs one trial after the other")
    begun = perf_counter()
    train = dataset if dataset.splits is None else dataset.split("train")
    setup = make_setup(train, network, engine, seed, progress, at_once=at_once)
    deadline = None if budget_s is None else begun + _SEARCH_SHARE * budget_s
    with quiet_optuna(), open_storage(Path(storage), _identity(setup, train)) as study:
        n_resumed = len(finished_trials(study))
        interrupted = _search(study, setup, _runner_for(setup, runner), deadline, n_trials)
        finished = finished_trials(study)
        trials = tuple(sorted(starmap(_trial, finished.items()), key=lambda one: one.rank))
        factors = _factors(finished, trials, seed)
        known_hits = {
            regime_of(one.params): one.user_attrs[RIGHT]
            for one in finished.values()
            if RIGHT in one.user_attrs
        }
    best, default = trials[0].regime, default_regime(setup.spec)
    selection, evaluation = unpacked_hits(known_hits[best], setup) if best in known_hits else setup.hits(best)
    untuned = (
        unpacked_hits(known_hits[default], setup)[1] if default in known_hits else setup.hits(default)[1]
    )
    return TrainingTuning(
        network,
        engine,
        trials,
        default,
        accuracy_score(selection, setup.cluster_codes[0]),
        accuracy_score(evaluation, setup.cluster_codes[1]),
        accuracy_score(untuned, setup.cluster_codes[1]),
        paired(evaluation, untuned, setup.cluster_codes[1]),
        factors,
        len(setup.fit[1]),
        n_resumed,
        interrupted,
        perf_counter() - begun,
        at_once,
    )


def _search(
    study: Any, setup: TrialSetup, runner: Runner, deadline: float | None, n_trials: int | None
) -> bool:
    """Run trials until time or number is reached, but at least one to its end; whether Ctrl-C ended it."""
    while True:
        finished = finished_trials(study)
        complete = _completed(finished)
        if n_trials is not None and len(finished) >= n_trials:
            break
        late = deadline is not None and perf_counter() > deadline
        if late and (complete or len(finished) >= STARTUP):
            break
        batch = next_batch(finished, setup, n_trials)
        tasks = batch.tasks(
            None if deadline is None else time() + deadline - perf_counter(),
            f"best {max(complete):.2%}" if complete else "",
        )
        if not complete:
            tasks[0] = replace(tasks[0], until=None)  # one comes to its end whatever the budget
        try:
            _run(study, setup, batch, tasks, runner)
        except KeyboardInterrupt:
            if not _completed(finished_trials(study)):
                raise
            return True
    if not complete:
        raise SettingError(
            f"no training of {setup.spec.name!r} came to its end in {len(finished)} trial(s), expected at "
            "least one; allow more trials, or look at the data with: headstart inspect"
        )
    return False


def _run(study: Any, setup: TrialSetup, batch: Batch, tasks: Sequence[TrialTask], runner: Runner) -> None:
    """Do the trials of a batch, and keep each as it ends."""
    away = runner.remote
    trials = Trials(replace(setup, progress=SILENT) if away else setup)
    label = f"trials {tasks[0].number + 1} to {tasks[-1].number + 1}, in other processes"
    if away:
        setup.progress.step(label, 0, len(tasks), tasks[0].note)
    for n_done, (_, ended) in enumerate(runner.map(trials, tasks), start=1):
        batch.keep(study, ended)
        if away:
            setup.progress.step(label, n_done, len(tasks), tasks[0].note)


def _runner_for(setup: TrialSetup, runner: Runner) -> Runner:
    """One trial at a time runs here, where it may use all cores; several run in processes with a core each."""
    if setup.at_once == 1:
        return LOCAL
    return runner if runner.remote else ProcessRunner(min(setup.at_once, allowed_cores()), setup.at_once)


def _completed(finished: Mapping[int, Any]) -> list[float]:
    """Accuracies of trials that came to their end."""
    from optuna.trial import TrialState

    return [one.value for one in finished.values() if one.state == TrialState.COMPLETE]


def _trial(number: int, one: Any) -> NetworkTrial:
    from optuna.trial import TrialState

    facts = one.user_attrs
    return NetworkTrial(
        number,
        regime_of(one.params),
        facts["accuracy"],
        math.inf if facts["loss"] is None else facts["loss"],
        facts["epochs"],
        one.state == TrialState.PRUNED,
        facts["seconds"],
    )


def _factors(finished: Mapping[int, Any], trials: Sequence[NetworkTrial], seed: int) -> tuple[Factor, ...]:
    """The importance of settings among completed trials, by a functional analysis of variance."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    ended = [one for one in trials if not one.pruned]
    if len(ended) < _FEWEST or len({one.accuracy for one in ended}) == 1:
        return ()
    shares = get_param_importances(study_of(finished), evaluator=FanovaImportanceEvaluator(seed=seed))
    found = []
    for name, share in shares.items():
        pairs = sorted((float(getattr(one.regime, name)), one.accuracy) for one in ended)
        log = bool(SPACE[name].base)
        values = tuple(max(value, LEAST_DECAY) if log else value for value, _ in pairs)
        found.append(
            Factor(name.replace("_", " "), float(share), values, tuple(score for _, score in pairs), log)
        )
    return tuple(found)


def _identity(setup: TrialSetup, train: Dataset) -> dict[str, Any]:
    """What all trials of one search share."""
    return {
        "data": train.fingerprint,
        "network": setup.spec.name,
        "engine": setup.engine,
        "seed": setup.seed,
        AT_ONCE: setup.at_once,
        "search space": {name: list(asdict(one).values()) for name, one in SPACE.items()},
    }
