"""Augmented copies in a search: extracted once for the best places of all outer folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation
from headstart.records import Array, Source
from headstart.sources.features import AugmentedCopy, Extraction, extract_all
from headstart.workflows.tune.clock import Clock
from headstart.workflows.tune.fits import HERE, FitRunner
from headstart.workflows.tune.records import FeatureTrial, Where
from headstart.workflows.tune.search import FeatureSearch, Fit, Found, Indices, ranked

__all__ = ["OUTER_COST", "CopySource", "copy_features", "fit_seconds", "in_another_place", "try_copies"]
_AUGMENTED_PLACES = 2  # places that are also tried with augmented copies, which cost an extraction each
_MOST_KERNEL_ROWS = 2_400  # images and copies for which an exact kernel is solved in every fold
OUTER_COST = 0.85  # of a search of all images: the most that a search without a fifth of them costs
_FITS = 3  # of each outer fold, at most


@dataclass(frozen=True)
class CopySource:
    """Computes features of augmented copies, None if time is short; ``augments`` are numbers of copies."""

    rows_of: Callable[[str, Sequence[Where]], Mapping[Where, Sequence[Array]] | None] | None = None
    augments: Mapping[str, int] = field(default_factory=dict)


def fit_seconds(clock: Clock) -> float:
    """Seconds of the fits of one outer fold, measured or estimated."""
    known = clock.dearest("evaluation", 1) or clock.dearest("fits")
    return known or OUTER_COST * _FITS * clock.mean("way")


def try_copies(
    search: FeatureSearch,
    copy_source: CopySource,
    parts: Sequence[Indices],
    found: Sequence[Found],
    clock: Clock,
    fit_runner: FitRunner = HERE,
) -> bool:
    """Add trials with augmented copies at each fold's best places; False, with none added, if time is short."""
    if copy_source.rows_of is None or not copy_source.augments:
        return True
    most, n_outer = len(search.labels) * (1 + max(copy_source.augments.values())), len(parts) - 1
    short = [_shortlist(one, most) for one in found]
    wanted = list(dict.fromkeys(where for ways in short for where in ways))
    policies, evaluation = len({where.policy for where in wanted}), n_outer * fit_seconds(clock)
    for name, n_copies in copy_source.augments.items():
        least = policies * n_copies * clock.dearest("extraction")
        rows = copy_source.rows_of(name, wanted) if clock.fits(least + evaluation) else None
        if rows is None:
            search.copies.clear()
            return False
        search.copies[name] = rows
    augmented: list[Found] = []
    ways_by_part = [
        [(where, head, name) for where, head in places.items() for name in copy_source.augments]
        for places in short
    ]
    fits = [Fit(way, part) for part, ways in zip(parts, ways_by_part, strict=True) for way in ways]
    fit_runner.ahead(search, fits, "search with augmented copies")
    for part, ways in zip(parts, ways_by_part, strict=True):
        rest = OUTER_COST * (len(parts) - len(augmented)) * clock.dearest("copies")
        if augmented and not clock.fits(rest + evaluation):
            search.copies.clear()
            return False
        with clock.timed("copies"):
            augmented.append(search.tried(part, ways))
    for trials, more in zip(found, augmented, strict=True):
        trials.update(more)
    return True


def _shortlist(found: Found, most_rows: int) -> dict[Where, str]:
    """The best places, each with its best head; not the kernel for many rows, as its cost is cubic."""
    short: dict[Where, str] = {}
    for trial in ranked(found):
        if trial.head == "kernel" and most_rows > _MOST_KERNEL_ROWS:
            continue
        if len(short) < _AUGMENTED_PLACES:
            short.setdefault(trial.where, trial.head)
    return short


def copy_features(
    sources: Mapping[str, Source],
    dataset: Dataset,
    places: Sequence[Where],
    augmentation: Augmentation,
    seed: int,
    options: Extraction,
    *,
    clock: Clock,
) -> dict[Where, list[Array]] | None:
    """Features of every copy at these places, one pass per policy and copy; None if time is short."""
    found: dict[Where, list[Array]] = {where: [] for where in places}
    policies = list(dict.fromkeys(where.policy for where in places))
    passes = [(policy, number) for policy in policies for number in range(augmentation.n_copies)]
    for done, (policy, number) in enumerate(passes):
        if not clock.fits((len(passes) - done) * clock.dearest("copy")):
            return None
        here = [where for where in places if where.policy == policy]
        with clock.timed("copy"):
            rows = extract_all(
                dataset,
                sources[policy],
                [(where.layer, where.pooling) for where in here],
                copy=AugmentedCopy(augmentation, seed, number),
                options=options,
            )
        for where, one in zip(here, rows, strict=True):
            found[where].append(one)
    return found


def in_another_place(trial: FeatureTrial, best: FeatureTrial) -> bool:
    """Whether two trials differ in place, preparation or augmentation."""
    return (trial.where, trial.augment) != (best.where, best.augment)
