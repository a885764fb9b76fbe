"""The search over features: all combinations of preparation, layer, pooling, head, strength, augmentation.

The best score of many is optimistic, so nested cross-validation estimates the accuracy of the whole search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation
from headstart.evaluation.clusters import accuracy_score, paired, repeated
from headstart.evaluation.compare import mean_difference
from headstart.evaluation.records import Difference
from headstart.evaluation.spread import of_folds
from headstart.heads.registry import SEARCHED
from headstart.records import Array, Source
from headstart.sources.features import PLAIN, Extraction, extract_all
from headstart.strategies.select import deciding_images, same_features
from headstart.workflows.tune.clock import Clock
from headstart.workflows.tune.copies import (
    OUTER_COST,
    CopySource,
    copy_features,
    fit_seconds,
    in_another_place,
    try_copies,
)
from headstart.workflows.tune.factors import explained, factors_of
from headstart.workflows.tune.fits import HERE, FitRunner
from headstart.workflows.tune.records import NO_AUGMENTATION, FeatureTrial, FeatureTuning, Rival, Way, Where
from headstart.workflows.tune.search import (
    FeatureSearch,
    Fit,
    Found,
    Hits,
    Indices,
    Outer,
    outer_folds,
    ranked,
)

__all__ = [
    "NO_AUGMENTATION",
    "FeatureTrial",
    "FeatureTuning",
    "Rival",
    "Where",
    "explained",
    "places_to_try",
    "tune_arrays",
    "tune_features",
]

_COMPARED = 16  # images on which the features of two places are compared first
_MOST_FEATURES = 4_096  # of a layer that is not among the candidates
_POLICY_SHARE = 0.25  # of a budget, for the features of further preparations
_LEAST_OUTER = 2  # outer folds that are always evaluated: one has no spread


def tune_features(
    sources: Mapping[str, Source],
    dataset: Dataset,
    *,
    augmentations: Mapping[str, Augmentation] | None = None,
    heads: Sequence[str] = SEARCHED,
    seed: int = 0,
    options: Extraction = PLAIN,
    budget_s: float | None = None,
) -> FeatureTuning:
    """Try every preparation, layer, pooling, head and strength, and augmented copies at the best few places.

    ``sources`` are one source under each preparation, the default first. Only training images are used, at
    most 1,500 of them; clusters are not split. ``budget_s`` is for everything, the nested estimate
    included: what does not fit by the times measured so far is left out and named, but one extraction, one
    combination and two outer folds are always done. Without a budget, the same seed gives the same result.
    Features are extracted once per preparation and once per augmented copy.
    """
    clock = Clock(budget_s)
    train = dataset if dataset.splits is None else dataset.split("train")
    some = train.subset(deciding_images(train.codes(), seed))
    features: dict[Where, Array] = {}
    left_out: list[str] = []
    for policy, source in sources.items():
        if features and not clock.fits(clock.dearest("extraction"), _POLICY_SHARE):
            left_out.append(f"preparation {policy} (out of time)")
            continue
        places = places_to_try(source)
        with clock.timed("extraction"):
            rows = extract_all(some, source, places, options=options)
        new = _unlike(features, {Where(policy, *at): one for at, one in zip(places, rows, strict=True)})
        left_out += [] if new else [f"preparation {policy} (it changes nothing here)"]
        features |= new
    search = FeatureSearch(features, some.labels, some.cluster_codes, tuple(heads), seed)
    named = augmentations or {}

    def rows_of(name: str, places: Sequence[Where]) -> Mapping[Where, Sequence[Array]] | None:
        return copy_features(sources, some, places, named[name], seed, options, clock=clock)

    augments = {name: one.n_copies for name, one in named.items()}
    # with a budget, steps are measured one after the other
    fit_runner = FitRunner(options.runner, options.progress) if budget_s is None else HERE
    return _tuned(search, clock, CopySource(rows_of, augments), tuple(left_out), fit_runner)


def tune_arrays(
    features: Mapping[Where, Array],
    labels: NDArray[np.str_],
    *,
    groups: NDArray[np.generic] | None = None,
    heads: Sequence[str] = SEARCHED,
    seed: int = 0,
) -> FeatureTuning:
    """Try every head at every strength on given features; the first place is the default.

    Inside, one cluster is left out at a time, exactly, with one decomposition per place and head. Outside
    there are 5 folds, or for up to 50 images 10 folds (or the size of the smallest class) repeated three
    times; the whole search runs again without each (Cawley and Talbot, JMLR 11, 2010; Varma and Simon,
    doi:10.1186/1471-2105-7-91). Outer folds share training images, so intervals are wider (Bates et al.,
    arXiv:2104.00673). Takes about 1 + 0.6 * n_outer * repeats searches.
    """
    search = FeatureSearch(dict(features), labels, groups, tuple(heads), seed)
    return _tuned(search, Clock(), CopySource(), ())


def places_to_try(source: Source) -> list[tuple[str, str]]:
    """The source's candidates, or every layer below its last, the default layer first.

    Without candidates, feature maps of more than 4,096 values are pooled in a grid.
    """
    default = source.default_layer
    if source.candidates:
        return sorted(source.candidates, key=lambda place: place[0] != default)
    found = [(default, "flat")]
    for layer in [name for name in list(source.layers)[:-1] if name != default]:
        small = len(source.layers[layer]) == 1 or prod(source.layers[layer]) <= _MOST_FEATURES
        found.append((layer, "flat" if small else "grid2"))
    return found


def _tuned(
    search: FeatureSearch,
    clock: Clock,
    copy_source: CopySource,
    left_out: tuple[str, ...],
    fit_runner: FitRunner = HERE,
) -> FeatureTuning:
    """Search all images, then again without each outer fold; what does not fit the budget is named."""
    outer = outer_folds(search)
    parts = [np.arange(len(search.labels)), *(train for repeat in outer for train, _ in repeat)]
    plain = [(where, head, NO_AUGMENTATION) for where in search.features for head in search.heads]
    fit_runner.ahead(search, [Fit(way, part) for part in parts for way in plain], "search")
    found = [_within(search, parts[0], plain, clock)]
    ways = plain[: len(clock.costs["way"])]
    costs = dict(zip(ways, clock.costs["way"], strict=True))
    fitted = set(_ways(search, ranked(found[0])).values())
    clock.costs["fits"] = [OUTER_COST * sum(costs.get(way, clock.mean("way")) for way in fitted)]
    if len(ways) < len(plain):
        where, head, _ = plain[len(ways)]
        left_out += (
            f"{len(plain) - len(ways)} of {len(plain)} combinations of layer, pooling and head, from {head} on "
            f"{where.layer}, {where.pooling}, {where.policy} on (out of time)",
        )
    for part in parts[1:]:
        needed = clock.dearest("outer", 1) + len(found) * fit_seconds(clock)
        if len(found) > _LEAST_OUTER and not clock.fits(needed):
            break
        with clock.timed("outer"):
            found.append(search.tried(part, ways))
    augmented = len(found) == len(parts) and try_copies(search, copy_source, parts, found, clock, fit_runner)
    if not augmented:
        left_out += tuple(f"augmentation {name} (out of time)" for name in copy_source.augments)
    rankings = [ranked(one) for one in found[1:]]
    held_out = zip((fold for repeat in outer for fold in repeat), rankings, strict=False)
    fits = [Fit(way, *fold) for fold, ranking in held_out for way in _ways(search, ranking).values()]
    fit_runner.ahead(search, fits, "evaluation of the search")
    hits, picks = _evaluated(search, outer, rankings, clock)
    n_outer = len(parts) - 1
    if len(picks) < n_outer:
        outer = _first_folds(outer, len(picks))
        left_out += (f"{n_outer - len(picks)} of {n_outer} outer folds of the estimate (out of time)",)
    outer_result = _OuterResult(outer, hits, picks[: sum(map(len, outer))])
    return _result(search, clock, found[0], outer_result, left_out)


class _OuterResult(NamedTuple):
    """The outer folds that were evaluated, the correctly predicted images by name, and each fold's winner."""

    outer: Outer
    hits: dict[str, Hits]
    picks: tuple[FeatureTrial, ...]


def _result(
    search: FeatureSearch, clock: Clock, found: Found, outer_result: _OuterResult, left_out: tuple[str, ...]
) -> FeatureTuning:
    trials, (outer, hits, picks) = ranked(found), outer_result
    tested = np.sort(np.concatenate([held for _, held in outer[0]]))
    known = {name: one[: len(outer), tested] for name, one in hits.items()}
    leads = {name: _lead(hits["tuned"], one, outer, search.groups) for name, one in hits.items()}
    tuned, groups = known.pop("tuned"), None if search.groups is None else search.groups[tested]
    runner_up = next((one for one in trials if in_another_place(one, trials[0])), None)
    return FeatureTuning(
        trials,
        accuracy_score(tuned, groups, crossed=True),
        _spread(tuned),
        len(outer),
        len(outer[0]),
        len(search.labels),
        picks,
        tuple(
            Rival(name, accuracy_score(one, groups, crossed=True), _spread(one), leads[name])
            for name, one in known.items()
        ),
        runner_up,
        None if runner_up is None else paired(found[trials[0]], found[runner_up], search.groups),
        factors_of(trials),
        clock.elapsed_s,
        left_out,
    )


def _within(search: FeatureSearch, part: Indices, ways: Sequence[Way], clock: Clock) -> Found:
    """Trials of as many combinations as leave time for the nested estimate."""
    found: Found = {}
    for way in ways:
        following = clock.dearest("way", len(search.heads))
        outer = OUTER_COST * (clock.total("way") + following) + fit_seconds(clock)
        if found and not clock.fits(following + _LEAST_OUTER * outer):
            break
        with clock.timed("way"):
            found |= search.tried_once(part, way)
    return found


def _first_folds(outer: Outer, n_folds: int) -> Outer:
    """Whole repeats as far as possible, else a part of the first."""
    repeats = n_folds // len(outer[0])
    return outer[:repeats] if repeats else [outer[0][:n_folds]]


def _evaluated(
    search: FeatureSearch, outer: Outer, rankings: Sequence[Sequence[FeatureTrial]], clock: Clock
) -> tuple[dict[str, Hits], tuple[FeatureTrial, ...]]:
    """Correctly predicted images, (repeats, n_images), by name of the way to select; the winners."""
    hits: dict[str, Hits] = {}
    picks: list[FeatureTrial] = []
    todo = [(number, *fold) for number, repeat in enumerate(outer) for fold in repeat]
    for (number, train, held), ranking in zip(todo, rankings, strict=False):
        if len(picks) >= _LEAST_OUTER and not clock.fits(fit_seconds(clock)):
            break
        known: dict[Way, Hits] = {}
        with clock.timed("evaluation"):
            for name, way in _ways(search, ranking).items():
                if way not in known:
                    known[way] = search.evaluated(way, train, held)
                hits.setdefault(name, np.zeros((len(outer), len(search.labels)), np.bool_))
                hits[name][number, held] = known[way]
        hits.setdefault("majority", np.zeros((len(outer), len(search.labels)), np.bool_))
        majority = np.bincount(search.codes[train]).argmax()
        hits["majority"][number, held] = search.codes[held] == majority
        picks.append(ranking[0])
    return hits, tuple(picks)


def _ways(search: FeatureSearch, ranking: Sequence[FeatureTrial]) -> dict[str, Way]:
    """The combinations to fit without one outer fold, by the name that tables show."""
    default = search.default
    ways = {"tuned": ranking[0].way}
    if search.copies or any(where.policy != default.policy for where in search.features):
        by_default = (
            one for one in ranking if one.where.policy == default.policy and one.augment == NO_AUGMENTATION
        )
        ways["default preparation"] = next(by_default).way
    plain = next((name for name in ("kernel", "ridge") if name in search.heads), search.heads[0])
    return {**ways, "default settings": (default, plain, NO_AUGMENTATION)}


def _spread(hits: Hits) -> float:
    return float(hits.mean(axis=1).std(ddof=1)) if len(hits) > 1 else 0.0


def _lead(hits: Hits, others: Hits, outer: Outer, groups: NDArray[np.generic] | None) -> Difference:
    """The difference between two combinations over the outer folds; images of one cluster count as one."""
    gain = hits.astype(np.float64) - others  # (n_repeats, n_images)
    tested = np.sort(np.concatenate([held for _, held in outer[0]]))
    gain = gain[: len(outer), tested]
    if groups is None or not repeated(groups[tested]):
        return mean_difference(gain, of_folds(gain))
    return mean_difference(gain, of_folds(gain, np.unique(groups[tested], return_inverse=True)[1]))


def _unlike(known: Mapping[Where, Array], new: Mapping[Where, Array]) -> dict[Where, Array]:
    """Those new features that are not known already under another name."""
    kept: dict[Where, Array] = {}
    for where, rows in new.items():
        others = (*known.values(), *kept.values())
        if not any(
            same_features(rows[:_COMPARED], one[:_COMPARED]) and same_features(rows, one) for one in others
        ):
            kept[where] = rows
    return kept
