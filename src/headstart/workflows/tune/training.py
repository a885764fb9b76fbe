"""The search over how a network is trained: rate, batch, epochs, regularisation, width and dropout.

Trials are stored in an SQLite file, so that an interrupted search resumes. Optuna is imported on use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from headstart.data.dataset import Dataset
from headstart.errors import SettingError
from headstart.evaluation.clusters import accuracy_score, paired
from headstart.evaluation.records import Difference, Score
from headstart.networks.contract import TrainableNetwork
from headstart.networks.training import OnStep, measure
from headstart.report.records import Factor
from headstart.system.progress import SILENT, Progress
from headstart.workflows.tune.regime import Regime, default_regime
from headstart.workflows.tune.setup import EpochProgress, TrialSetup, make_setup, packed_hits, unpacked_hits
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
        raise SettingError(f"trials is {n_trials}, expected at least 1; 30 or more are useful")
    begun = perf_counter()
    train = dataset if dataset.splits is None else dataset.split("train")
    setup = make_setup(train, network, engine, seed, progress)
    deadline = None if budget_s is None else begun + _SEARCH_SHARE * budget_s
    with quiet_optuna(), open_storage(Path(storage), _identity(setup, train)) as study:
        n_resumed = len(finished_trials(study))
        interrupted = _search(study, setup, deadline, n_trials)
        trials = tuple(sorted(map(_trial, finished_trials(study)), key=lambda one: one.rank))
        factors = _factors(study, trials, seed)
        known_hits = {regime_of(one.params): one.user_attrs[RIGHT] for one in answered_trials(study)}
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
    )


def _search(study: Any, setup: TrialSetup, deadline: float | None, n_trials: int | None) -> bool:
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
            study.enqueue_trial(params_of(default_regime(setup.spec)))
        draw = np.random.default_rng([setup.seed, 7, len(finished)]).integers(2**31)
        # a new sampler for each trial, so that an interrupted search resumes identically
        study.sampler = TPESampler(seed=int(draw))
        trial = study.ask()
        note = f"best {max(complete):.2%}" if complete else ""
        try:
            _try(study, trial, setup, deadline if complete else None, note)
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
            f"no training of {setup.spec.name!r} came to its end in {len(finished)} trial(s), expected at "
            "least one; allow more trials, or look at the data with: headstart inspect"
        )
    return False


def _try(study: Any, trial: Any, setup: TrialSetup, deadline: float | None, note: str) -> None:
    """One training, evaluated after every epoch, stopped if it is pruned or time is up."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    begun, regime = perf_counter(), drawn_params(trial)
    epoch_progress = EpochProgress(
        setup.progress, f"trial {trial.number + 1}", regime.epochs * len(setup.fit[1]), note
    )
    loss, accuracy = math.inf, 0.0

    def step_of(network: TrainableNetwork) -> OnStep:
        def on_step(done: int, total: int, train_loss: float, train_accuracy: float) -> None:
            nonlocal loss, accuracy
            late = deadline is not None and perf_counter() > deadline
            if not epoch_progress(done, total):
                if late:
                    raise TrialPruned
                return
            loss, accuracy = measure(network, *setup.selection)
            trial.report(accuracy, epoch_progress.epochs)
            if not math.isfinite(loss):
                loss, accuracy = math.inf, 0.0
                raise TrialPruned
            if epoch_progress.epochs < regime.epochs and (late or trial.should_prune()):
                raise TrialPruned

        return on_step

    state = TrialState.COMPLETE
    try:
        network = setup.trained(regime, step_of)
    except TrialPruned:
        # nothing is known of a trial that time stopped in its first epoch
        state = TrialState.PRUNED if epoch_progress.epochs else TrialState.FAIL
    else:  # so that the best need not be trained again; not used by trials
        trial.set_user_attr(RIGHT, packed_hits(network, setup))
    for name, value in (("loss", loss), ("accuracy", accuracy), ("epochs", epoch_progress.epochs)):
        trial.set_user_attr(name, value if math.isfinite(value) else None)
    trial.set_user_attr("seconds", perf_counter() - begun)
    # last, so that every finished trial has all its attributes
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


def _identity(setup: TrialSetup, train: Dataset) -> dict[str, Any]:
    """What all trials of one search share."""
    return {
        "data": train.fingerprint,
        "network": setup.spec.name,
        "engine": setup.engine,
        "seed": setup.seed,
        "search space": {name: list(asdict(one).values()) for name, one in SPACE.items()},
    }
