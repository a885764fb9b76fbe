"""The results of a search, as tables and sentences of its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from headstart.evaluation.compare import verdict
from headstart.evaluation.records import Difference, Score
from headstart.report.records import Comparison, Factor, PlainTable
from headstart.strategies.select import PRIOR_NATS
from headstart.workflows.comparison.present import short_name
from headstart.workflows.tune.features import FeatureTrial, FeatureTuning
from headstart.workflows.tune.regime import Regime
from headstart.workflows.tune.request import SearchRequest
from headstart.workflows.tune.training import NetworkTrial, TrainingTuning

__all__ = [
    "against_text",
    "capitalised",
    "comparisons_of",
    "factors_table",
    "feature_protocol",
    "feature_summary",
    "lead_text",
    "network_protocol",
    "network_table",
    "optimism_text",
    "regime_text",
    "share_text",
    "trials_table",
]


_SHOWN = 12  # trials in a report


def comparisons_of(leads: Sequence[tuple[str, Difference]]) -> tuple[Comparison, ...]:
    """Differences, each with its own interval: tuning helps if it beats every alternative."""
    return tuple(Comparison("tuned", name, None, lead, lead.p_value, verdict(lead)) for name, lead in leads)


def against_text(comparisons: Sequence[Comparison]) -> str:
    """What tuning gained over the best alternative with less search."""
    rival = min(comparisons, key=lambda one: one.difference.value)
    span = _points(rival.difference)
    if rival.verdict == "cannot tell apart":
        return f"The difference from {rival.control} is not significant: {span}."
    return f"Tuning {rival.verdict}: {span} against {rival.control}."


def _points(lead: Difference) -> str:
    return f"{100 * lead.value:+.2f} points [{100 * lead.low:+.2f}, {100 * lead.high:+.2f}]"


def optimism_text(points: float) -> str:
    """By how much the best score of the search exceeds the nested estimate."""
    points_text = f"{100 * abs(points):.2f} points"
    return (
        f"is optimistic by {points_text}" if points > 0 else f"is not optimistic here ({points_text} below)"
    )


def lead_text(found: FeatureTuning) -> list[str]:
    """The best trial compared with the best of another place, as a remark."""
    if found.runner_up is None or found.lead is None:
        return []
    return [
        f"In the search its lead over the best of another layer, pooling or preparation was "
        f"{_points(found.lead)} ({found.runner_up.title})."
    ]


def feature_summary(request: SearchRequest, found: FeatureTuning) -> str:
    """What was searched, in a sentence."""
    wheres = {trial.where for trial in found.trials}
    return (
        f"{len(found.trials):,} candidates with {short_name(request.name)}, frozen, tried on {found.n_images:,} "
        f"training images: {len({where.policy for where in wheres})} preparation(s), "
        f"{len({(where.layer, where.pooling) for where in wheres})} combination(s) of layer and pooling, "
        f"{len({trial.head for trial in found.trials})} head(s) at all their strengths, "
        f"{len({trial.augment for trial in found.trials}) - 1} augmentation(s) for the best of these."
    )


def feature_protocol(found: FeatureTuning) -> str:
    """How the search was evaluated, in a paragraph."""
    again = f", {found.repeats} times over" if found.repeats > 1 else ""
    return (
        f"Nested cross-validation on training images: {found.n_outer} outer folds{again}. For each fold the "
        f"whole search was run again without it (with leave-one-out), and the best candidate was evaluated on "
        "that fold. Validation and test images were not used. Augmented copies were used for training only. "
        "Intervals of accuracies are computed for two thirds of the images, since folds share training images; "
        "differences are read on Student's t over images, whose rounds are averaged."
    )


def factors_table(factors: Sequence[Factor]) -> PlainTable:
    """Each setting's importance, and its best value with that value's score."""
    lines = []
    for one in factors:
        score, value = max(zip(one.scores, map(_plain, one.values), strict=True), key=lambda pair: pair[0])
        lines.append((one.name, f"{100 * one.importance:.0f}", value, f"{100 * score:.2f}"))
    return PlainTable(
        "Importance of the settings",
        "The share of the variance between trials that a setting explains by itself, the value that scored "
        "highest, and that score. The settings were selected by these scores, so they are optimistic.",
        ("setting", "share, %", "best value", "accuracy, %"),
        tuple(lines),
    )


def trials_table(found: FeatureTuning) -> PlainTable:
    """The best trial of every place."""
    best: dict[str, FeatureTrial] = {}
    for trial in found.trials:
        best.setdefault(trial.title, trial)
    lines = [
        (one.title, f"{one.strength:g}", *_cells(one.accuracy), f"{one.error:.4f}")
        for one in list(best.values())[:_SHOWN]
    ]
    return PlainTable(
        "The best trials",
        f"Leave-one-out cross-validation on {found.n_images:,} training images, whole clusters of copies and "
        "groups at a time; each line with the strength selected for its head, ranked by loss. Other places and "
        f"preparations than the default had to gain {PRIOR_NATS:g} nats in all. "
        f"{max(len(best) - _SHOWN, 0):,} more follow.",
        ("head, layer, pooling, preparation", "strength", "accuracy, %", "95 % interval", "squared error"),
        tuple(lines),
    )


def network_protocol(found: TrainingTuning) -> str:
    """How a search over training was evaluated, in a paragraph."""
    together = (
        f" {found.at_once} trials at a time were drawn from the results of those before them, and trained on one "
        "thread each."
        if found.at_once > 1
        else ""
    )
    return (
        "The training images were split into three, stratified: to train on, to select on, to "
        "evaluate on. No trial used the last, nor the validation and test images. The interval is Wilson's; "
        f"tuned and default settings are compared on the same images by McNemar's mid-p test.{together}"
    )


def network_table(found: TrainingTuning) -> PlainTable:
    """The best trials of a search over training."""
    return PlainTable(
        "The best trials",
        f"Accuracy on the {found.selection.n:,} selection images. Trials stopped early come last, with their "
        f"last accuracy. {max(len(found.trials) - _SHOWN, 0):,} more follow.",
        ("settings", "accuracy, %", "loss, nats", "epochs done", "seconds"),
        tuple(_network_line(one) for one in found.trials[:_SHOWN]),
    )


def _network_line(one: NetworkTrial) -> tuple[str, ...]:
    stopped = ", stopped" if one.pruned else ""
    return (
        f"{one.number + 1}: {regime_text(one.regime)}{stopped}",
        f"{100 * one.accuracy:.2f}",
        f"{one.loss:.4f}",
        str(one.epochs_done),
        f"{one.seconds:.1f}",
    )


def regime_text(regime: Regime) -> str:
    """Settings of a training as text."""
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in asdict(regime).items())


def share_text(score: Score) -> str:
    """A score with its interval, in %."""
    return f"{score.value:.2%} [{score.low:.2%}, {score.high:.2%}]"


def _cells(score: Score) -> tuple[str, str]:
    return f"{100 * score.value:.2f}", f"{100 * score.low:.1f} to {100 * score.high:.1f}"


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def capitalised(text: str) -> str:
    """Text with its first letter in upper case."""
    return text[:1].upper() + text[1:]
