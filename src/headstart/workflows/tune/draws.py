"""Draws the settings of trials, and keeps how trials ended in an Optuna study.

Trials of one batch are drawn from those of earlier batches alone, so that where and in which order they run decides
nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.workflows.tune.regime import default_regime
from headstart.workflows.tune.setup import TrialSetup
from headstart.workflows.tune.space import drawn_params, params_of, regime_of
from headstart.workflows.tune.storage import NUMBER, RIGHT, STARTUP
from headstart.workflows.tune.trials import EndedTrial, TrialTask

__all__ = ["Batch", "next_batch", "study_of"]


@dataclass(frozen=True)
class Batch:
    """Trials that are drawn together; those that have no result yet are ``tasks``."""

    drawn: Mapping[int, Any]
    medians: Mapping[int, float]
    missing: tuple[int, ...]

    def tasks(self, until: float | None, note: str) -> list[TrialTask]:
        """What is to be done."""
        return [
            TrialTask(number, regime_of(self.drawn[number].params), self.medians, until, note)
            for number in self.missing
        ]

    def keep(self, study: Any, ended: EndedTrial) -> None:
        """Write a trial to the study in one step, unless nothing is known of it."""
        if not ended.known:
            return
        from optuna.trial import TrialState, create_trial

        complete, drawn = ended.hits is not None, self.drawn[ended.number]
        facts: dict[str, Any] = {
            NUMBER: ended.number,
            "loss": ended.loss if math.isfinite(ended.loss) else None,
            "accuracy": ended.accuracy,
            "epochs": len(ended.accuracies),
            "seconds": ended.seconds,
            **({RIGHT: list(ended.hits)} if ended.hits is not None else {}),
        }
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.PRUNED,
                value=ended.accuracy if complete else ended.accuracies[-1],
                params=drawn.params,
                distributions=drawn.distributions,
                user_attrs=facts,
                intermediate_values=dict(enumerate(ended.accuracies, start=1)),
            )
        )


def next_batch(finished: Mapping[int, Any], setup: TrialSetup, n_trials: int | None) -> Batch:
    """The batch of the first trial without a result, cut where the number of trials is reached."""
    following = next(number for number in range(len(finished) + 1) if number not in finished)
    first = following // setup.at_once * setup.at_once
    numbers = range(first, first + setup.at_once)
    earlier = {number: one for number, one in finished.items() if number < first}
    missing = tuple(
        number for number in numbers if number not in finished and (n_trials is None or number < n_trials)
    )
    return Batch(_drawn(earlier, range(first, missing[-1] + 1), setup), _medians(earlier), missing)


def study_of(trials: Mapping[int, Any]) -> Any:
    """A study in memory with some trials, in the order of their numbers."""
    import optuna

    study = optuna.create_study(direction="maximize")
    study.add_trials([trials[number] for number in sorted(trials)])
    return study


def _drawn(earlier: Mapping[int, Any], numbers: range, setup: TrialSetup) -> dict[int, Any]:
    """Trials with settings: the default first, then by the Parzen estimator from a seed for each number.

    Of a batch, those that are drawn already count as bad, so that the others lie elsewhere.
    """
    from optuna.samplers import TPESampler

    study, found = study_of(earlier), {}
    for number in numbers:
        if number == 0:
            study.enqueue_trial(params_of(default_regime(setup.spec)))
        draw = np.random.default_rng([setup.seed, 7, number]).integers(2**31)
        # a new sampler for each trial, so that an interrupted search resumes identically
        study.sampler = TPESampler(seed=int(draw), constant_liar=setup.at_once > 1)
        found[number] = study.ask()
        drawn_params(found[number])
    return found


def _medians(earlier: Mapping[int, Any]) -> dict[int, float]:
    """Of the completed trials' accuracies, by epoch; none for the first few trials."""
    from optuna.trial import TrialState

    complete = [one for one in earlier.values() if one.state == TrialState.COMPLETE]
    if len(complete) < STARTUP:
        return {}
    by_epoch: dict[int, list[float]] = defaultdict(list)
    for one in complete:
        for epoch, accuracy in one.intermediate_values.items():
            by_epoch[epoch].append(accuracy)
    return {epoch: float(np.percentile(accuracies, 50)) for epoch, accuracies in by_epoch.items()}
