"""Several seeds in the report of a training: a row for each, and their mean with an interval for the procedure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.evaluation.clusters import accuracy_score
from headstart.evaluation.records import Score
from headstart.report.records import Row
from headstart.strategies.judge import HeldOutPredictions
from headstart.workflows.train.seeds import SeedRun

__all__ = ["Repeats", "repeats_of"]


@dataclass(frozen=True)
class Repeats:
    """The same training with several seeds, the first of which made the model."""

    runs: tuple[SeedRun, ...]
    scores: tuple[Score, ...]
    mean: Score
    spread: float
    judged_on: str
    crossed: bool

    @property
    def rows(self) -> tuple[Row, ...]:
        """A row for each seed, and the mean."""
        each = [
            Row(f"seed {run.seed}", None, score, 1, 0.0, run.seconds)
            for run, score in zip(self.runs, self.scores, strict=True)
        ]
        seconds = float(np.median([run.seconds for run in self.runs]))
        n_runs = len(self.runs)
        return (*each, Row(f"mean of {n_runs} seeds", None, self.mean, n_runs, self.spread, seconds))

    def verdict(self, network: str) -> str:
        """The mean first, then which number is the model's."""
        return (
            f"{network} classifies {_percent(self.mean)} of {self.mean.n:,} {self.judged_on} images correctly, the "
            f"mean of {len(self.runs)} seeds {_span(self.mean)}. The saved model is that of seed "
            f"{self.runs[0].seed}: {_percent(self.scores[0])} {_span(self.scores[0])}."
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the numbers are about, and seeds whose training diverged."""
        lines = [
            f"Between seeds the accuracy has a standard deviation of {100 * self.spread:.2f} points. Metrics, "
            f"confusion matrix and calibration are those of the saved model, of seed {self.runs[0].seed}."
        ]
        lines += [
            f"Seed {run.seed}: {run.diverged}; none of its predictions is counted as correct."
            for run in self.runs
            if run.diverged
        ]
        return tuple(lines)

    @property
    def protocol(self) -> str:
        """How the seeds were evaluated, in a paragraph."""
        seeds = f"{self.runs[0].seed} to {self.runs[-1].seed}"
        about = (
            "Each seed makes other folds and other networks. Intervals are computed for two thirds of the images, "
            "since folds share training images; that of the mean is about new seeds, too."
            if self.crossed
            else "All networks learned from the same images, and were evaluated on the same others, which selected "
            "nothing. The interval of a seed is about that network on new images, that of the mean about the "
            "training with new seeds on new images (crossed random effects of seeds and images)."
        )
        return (
            f"The same training was repeated with the seeds {seeds}. {about} No interval includes other training "
            "images."
        )


def repeats_of(
    predictions: HeldOutPredictions, first: tuple[int, float], others: Sequence[SeedRun]
) -> Repeats:
    """Evaluate the first training, of this seed and duration, and the others on the images that were held out."""
    clusters, crossed = predictions.images.cluster_codes, predictions.crossed
    hits = predictions.probabilities.argmax(axis=1) == predictions.images.codes()
    runs = (SeedRun(first[0], np.asarray(hits), first[1]), *others)
    right = np.stack([run.right for run in runs])  # (n_seeds, n_images)
    return Repeats(
        runs,
        tuple(accuracy_score(run.right, clusters, crossed=crossed) for run in runs),
        accuracy_score(right, clusters, crossed=crossed, redrawn=crossed),
        float(right.mean(axis=1).std(ddof=1)),
        predictions.judged_on,
        crossed,
    )


def _percent(score: Score) -> str:
    return f"{100 * score.value:.1f} %"


def _span(score: Score) -> str:
    return f"[{100 * score.low:.1f}, {100 * score.high:.1f}]"
